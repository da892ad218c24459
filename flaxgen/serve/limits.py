"""The limits of requests: every field that one may have, and what it may hold."""

import math
import re
from typing import Any

from flaxgen.serve.kinds import Biases, Choice, Either, Field, Fields, Flag, Listing, Nothing, Number, Text
from flaxgen.serve.refusal import Refusal

SEEDS = 2**32 - 1
ID = Number(0, 2**31 - 1)
MODEL = Field(Text(200))
USER = Field(Text(256))
PROMPT_CHARACTERS, PROMPT_IDS, PROMPTS = 32_768, 8_192, 16
ROWS = 64  # prompts times n
SAMPLES, LOGPROBS = 16, 5
BAN_TOKENS = 16  # of a banned text
INPUT_CHARACTERS, INPUT_IDS, INPUTS = 8_192, 2_048, 64
_PROMPT = Either(
    (
        Text(PROMPT_CHARACTERS, 1),
        Listing(Text(PROMPT_CHARACTERS, 1), PROMPTS, 1),
        Listing(ID, PROMPT_IDS, 1),
        Listing(Listing(ID, PROMPT_IDS, 1), PROMPTS, 1),
    )
)

COMPLETIONS = Fields(
    {
        "model": MODEL,
        "prompt": Field(_PROMPT, needed=True),
        "max_tokens": Field(Number(0, 4096)),
        "n": Field(Number(1, SAMPLES), 1),
        "best_of": Field(Number(1, SAMPLES)),
        "stream": Field(Flag(), False),
        "stream_options": Field(Fields({"include_usage": Field(Flag(), False), "include_obfuscation": Field(Flag(), False)})),
        "stop": Field(Either((Text(64, 1), Listing(Text(64, 1), 8)))),
        "logprobs": Field(Number(0, LOGPROBS)),
        "seed": Field(Number(0, SEEDS)),
        "echo": Field(Flag(), False),
        "suffix": Field(Nothing()),
        "user": USER,
        "logit_bias": Field(Biases(48, 100)),
        "temperature": Field(Number(0, 100, real=True)),
        "top_p": Field(Number(0, 1, real=True)),
        "presence_penalty": Field(Number(-2, 2, real=True)),
        "frequency_penalty": Field(Number(-2, 2, real=True)),
        "top_k": Field(ID),
        "top_p_below": Field(Number(0, 1, real=True)),
        "min_p": Field(Number(0, 1, real=True)),
        "typical_p": Field(Number(0, 1, real=True)),
        "repetition_penalty": Field(Number(0.1, 10, real=True)),
        "no_repeat_ngram": Field(Number(0, 64)),
        "min_tokens": Field(Number(0, 4096)),
        "ban": Field(Listing(Either((Text(BAN_TOKENS, 1), ID)), 8)),
        "regex": Field(Text(200, 1)),
        "choices": Field(Listing(Text(64, 1), 16, 1)),
    }
)
EMBEDDINGS = Fields(
    {
        "model": MODEL,
        "input": Field(
            Either(
                (
                    Text(INPUT_CHARACTERS, 1),
                    Listing(Text(INPUT_CHARACTERS, 1), INPUTS, 1),
                    Listing(ID, INPUT_IDS, 1),
                    Listing(Listing(ID, INPUT_IDS, 1), INPUTS, 1),
                )
            ),
            needed=True,
        ),
        "encoding_format": Field(Choice(("float", "base64")), "float"),
        "dimensions": Field(Number(1, 1 << 16)),
        "user": USER,
    }
)
COUPLETS = Fields(
    {
        "model": MODEL,
        "line": Field(Text(256, 1), needed=True),
        "best": Field(Number(1, 20), 1),
        "alternatives": Field(Number(0, 20), 0),
        "rules": Field(
            Fields(
                {name: Field(Flag(), True) for name in ("tones", "ends", "repeats", "fresh")}
                | {"book": Field(Choice(("mandarin", "pingshui")), "mandarin")}
            )
        ),
    }
)
READING = Fields(
    {
        "model": MODEL,
        "question": Field(Text(1_000, 1), needed=True),
        "passages": Field(Listing(Text(10_000), 10, 1), needed=True),
        "mode": Field(Choice(("extractive", "generative")), "extractive"),
        "beams": Field(Number(1, 4), 1),
    }
)
IMAGES = Fields(
    {
        "model": MODEL,
        "samples": Field(Number(1, 16), 4),
        "label": Field(Either((Text(64, 1), Number(0, 65_535)))),
        "seed": Field(Number(0, SEEDS), 0),
        "moves": Field(Number(1, 1_000)),
        "every": Field(Number(1, 50), 1),
        "stream": Field(Flag(), False),
        "response_format": Field(Choice(("b64_json", "png")), "b64_json"),
    }
)


def checked(kind: Fields, body: Any, prefix: str = "") -> dict[str, Any]:
    """The fields of a request's body with the defaults of those left out; a Refusal names the field, its limit and what was given."""
    if not isinstance(body, dict):
        raise Refusal(400, f"the body is {told(body)}; wanted a JSON object", param=prefix.rstrip(".") or None, code="not_an_object")
    if unknown := sorted(set(body) - set(kind.fields)):
        known = ", ".join(kind.fields)
        raise Refusal(
            400,
            f"unknown field {prefix}{_shown(unknown[0])}; there are {known}",
            param=f"{prefix}{_shown(unknown[0])}",
            code="unknown_field",
        )
    found = {}
    for name, field in kind.fields.items():
        value, full = body.get(name), prefix + name
        if value is None:
            if field.needed:
                raise Refusal(400, f"{full} is missing; wanted {field.kind.wrong(None)}", param=full, code="missing")
            found[name] = field.default
        elif problem := field.kind.wrong(value):
            raise Refusal(400, f"{full}: got {told(value)}, wanted {problem}", param=full, code="out_of_range")
        else:
            found[name] = checked(field.kind, value, f"{full}.") if isinstance(field.kind, Fields) else value
    return found


def told(value: Any) -> str:
    """A value in an error: numbers as they are, of texts, which may be private, the length alone."""
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case int():
            return str(value) if abs(value) < 10**20 else f"a number of {int(math.log10(abs(value))) + 1} digits"
        case float():
            return f"{value!r}"
        case str():
            return f"a text of {len(value)} characters"
        case list():
            return f"a list of {len(value)} entries"
        case _:
            return f"an object of {len(value)} fields"


def _shown(name: str) -> str:
    """The name of an unknown field, which may be anything."""
    return name if re.fullmatch(r"[A-Za-z0-9_.\-]{1,64}", name) else f"(a name of {len(name)} characters)"
