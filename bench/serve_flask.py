"""The server that is written first: Flask around model.generate. python bench/serve_flask.py FOLDER PORT locked|unlocked"""

import contextlib
import sys
import threading

import flask
import torch
import transformers


def application(folder: str, *, locked: bool) -> flask.Flask:
    """POST /v1/completions with prompt and max_tokens, greedily; `locked`: one request at a time."""
    app, lock = flask.Flask(__name__), threading.Lock() if locked else contextlib.nullcontext()
    text = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    @app.post("/v1/completions")
    def answer():
        body = flask.request.get_json()
        given = text(body["prompt"], return_tensors="pt")
        with lock, torch.inference_mode():
            whole_BT = model.generate(**given, max_new_tokens=body["max_tokens"], do_sample=False, pad_token_id=0)
        new = whole_BT[0, given["input_ids"].shape[1] :]
        return {"choices": [{"text": text.decode(new)}], "usage": {"completion_tokens": len(new)}}

    return app


if __name__ == "__main__":
    application(sys.argv[1], locked=sys.argv[3] == "locked").run(port=int(sys.argv[2]), threaded=True)
