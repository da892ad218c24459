"""What routes answer with, as JSON schemas."""

from typing import Any

Schema = dict[str, Any]
TEXT, WHOLE, NUMBER, FLAG = ({"type": kind} for kind in ("string", "integer", "number", "boolean"))


def object_of(properties: Schema, optional: tuple[str, ...] = ()) -> Schema:
    return {"type": "object", "properties": properties, "required": [name for name in properties if name not in optional]}


def list_of(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def json(schema: Schema) -> Schema:
    return {"application/json": schema}


def _events(schema: Schema) -> Schema:
    # OpenAPI 3.1 cannot describe single events; a type here would be taken for that of each.
    return {"text/event-stream": {"description": f"data: an object a line, with the fields {', '.join(schema)}; at the end data: [DONE]"}}


ERROR = object_of({"error": object_of({"message": TEXT, "type": TEXT, "param": or_null(TEXT), "code": or_null(TEXT)})})
_USAGE = object_of({"prompt_tokens": WHOLE, "completion_tokens": WHOLE, "total_tokens": WHOLE}, ("completion_tokens",))
_LOGPROBS = object_of(
    {
        "tokens": list_of(TEXT),
        "token_logprobs": list_of(or_null(NUMBER)),
        "top_logprobs": or_null(list_of(or_null({"type": "object", "additionalProperties": NUMBER}))),
        "text_offset": list_of(WHOLE),
    }
)
_CHOICE = {"index": WHOLE, "text": TEXT, "logprobs": or_null(_LOGPROBS), "finish_reason": or_null(TEXT)}
_COMPLETION = {
    "id": TEXT,
    "object": TEXT,
    "created": WHOLE,
    "model": TEXT,
    "choices": list_of(object_of(_CHOICE)),
    "usage": or_null(_USAGE),
}
_EMBEDDING = {"object": TEXT, "index": WHOLE, "embedding": {"anyOf": [list_of(NUMBER), TEXT]}}
_COUPLET = {
    "upper": TEXT,
    "text": TEXT,
    "score": NUMBER,
    "alternatives": list_of(list_of(object_of({"text": TEXT, "probability": NUMBER}))),
    "unknown": TEXT,
}
_ANSWER = {
    "object": TEXT,
    "model": TEXT,
    "text": TEXT,
    "quote": TEXT,
    "passage": or_null(WHOLE),
    "span": or_null(list_of(WHOLE)),
    "confidence": NUMBER,
    "score": NUMBER,
    "chances": list_of(NUMBER),
    "dismissed": list_of(WHOLE),
    "cut": list_of(WHOLE),
    "question_cut": FLAG,
}
_PICTURES = list_of(object_of({"b64_json": TEXT, "label": or_null(TEXT)}))
_IMAGES = {"object": TEXT, "created": WHOLE, "model": TEXT, "moves": WHOLE, "data": _PICTURES}
_CHUNK = {"object": TEXT, "move": WHOLE, "moves": WHOLE, "data": _PICTURES}
MODEL = object_of({"id": TEXT, "object": TEXT, "created": WHOLE, "owned_by": TEXT, "task": TEXT, "tasks": list_of(TEXT)})
HEALTH, READY = object_of({"status": TEXT}), object_of({"ready": FLAG, "warming": TEXT})


# By media type.
COMPLETIONS = json(object_of(_COMPLETION)) | _events(_COMPLETION)
EMBEDDINGS = json(object_of({"object": TEXT, "data": list_of(object_of(_EMBEDDING)), "model": TEXT, "usage": _USAGE}))
COUPLETS = json(object_of({"object": TEXT, "model": TEXT, "couplets": list_of(object_of(_COUPLET))}))
READING = json(object_of(_ANSWER))
IMAGES = json(object_of(_IMAGES)) | {"image/png": {}} | _events(_CHUNK)
MODELS = json(object_of({"object": TEXT, "data": list_of(MODEL)}))
