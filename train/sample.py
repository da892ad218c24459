"""What the model writes on the way and for its scores, and its perplexity on text it does not learn from."""

import functools
import math
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np

from flaxgen import disk, loop, rules
from flaxgen.chains import autoregressive
from flaxgen.models import transformer
from train import settings

RULE = {"temperature": 0.8, "top_p": 0.9}
OPENING = 5  # tokens of a row that make a prompt
TOO_MUCH = 88  # nats, whose exp is beyond a float32
LIMIT = 512  # rows of dev that are measured


def prompts(words: str, text, length: int, rows) -> list[str]:
    """What the setting prompts= says; a prompt that leaves no token to write is refused."""
    if words == settings.OPENINGS:
        batch = rows.part(0, 3, min(3, len(rows)))
        heads = [row[weight > 0][: min(OPENING, length // 2)] for row, weight in zip(batch["token_BT"], batch["weight_BT"], strict=True)]
        return [prompt for prompt in map(text.decode, map(np.ndarray.tolist, heads)) if 1 <= len(text.encode(prompt)) < length]
    found = [prompt for prompt in words.split("|") if prompt]
    for prompt in found:
        if not 1 <= len(text.encode(prompt)) < length:
            raise ValueError(f"the prompt {prompt!r} leaves no room in length={length}; give a longer length=, or other prompts=")
    return found


def continuations(model, params, text, prompts: list[str], *, end: int, seed: int = 0) -> list[str]:
    """The continuation of each prompt up to the end token or the last position; rows of one call are drawn together."""
    ids = [text.encode(prompt) for prompt in prompts]
    positions = model.config.positions
    width = min(-(-max(map(len, ids)) // 16) * 16, positions - 1)  # few widths, few compilations
    token_BT = np.zeros((len(ids), width), np.int32)
    for row, prompt in enumerate(ids):
        token_BT[row, : len(prompt)] = prompt
    steps = positions - width
    control = [i for i in text.control.values() if i != end]
    length_B = np.asarray([len(prompt) for prompt in ids], np.int32)
    given = autoregressive.prompt(token_BT, length_B, rule=rules.Rule(**RULE), end=[end], ban=control)
    chain = autoregressive.Autoregressive(model, room=steps)
    drawn = loop.generate(chain, params, jax.random.key(seed), given, steps=steps)
    return [text.decode(row) for row in drawn.rows()]


def write(folder: pathlib.Path, model, params, text, prompts: list[str], step: int) -> None:
    """Appends a continuation of each prompt to samples.txt."""
    if not prompts:
        return
    texts = continuations(model, params, text, prompts, end=text.end[0])
    append(folder, prompts, texts, step)


def append(folder: pathlib.Path, prompts: list[str], texts: list[str], step: int) -> None:
    """Puts the texts behind those of earlier steps in samples.txt; what a run wrote of later ones before it was killed goes."""
    path = folder / "samples.txt"
    before = path.read_bytes().decode(errors="replace") if path.exists() else ""
    before = re.split(rf"^step {step}$", before, maxsplit=1, flags=re.MULTILINE)[0]
    rows = (f"  {prompt}|{text}\n" for prompt, text in zip(prompts, texts, strict=True))
    disk.replace(path, f"{before}step {step}\n{''.join(rows)}".encode())


class Score:
    """Perplexity of a run's state on rows it does not learn from, the same LIMIT of them each time, by the run's own mesh.

    task: a language.Language that drops nothing.
    """

    def __init__(self, run, task, rows):
        key = jax.random.key(0)

        def nats(state, batch):
            params = run.export(state)
            loss, (_, facts) = task.loss(transformer.stack(params) if task.loop == "scan" else params, (), key, batch)
            return jnp.stack([loss * facts["weight"], facts["weight"]])

        self.nats, self.run, self.rows, self.limit = run.program.total(nats), run, rows, min(LIMIT, len(rows))

    def __call__(self, state) -> float:
        settings = self.run.settings
        size, total = settings.batch // settings.accumulate, np.zeros(2)
        for start in range(0, self.limit, size):
            part = functools.partial(self.rows.part, start, self.limit, size)
            total += np.asarray(self.nats(state, self.run.program.place(part, size)))
        mean = total[0] / total[1]
        return round(math.exp(mean), 3) if mean < TOO_MUCH else math.inf
