"""The folder of a reader about verse: weights, scores, curve and card, from its runs."""

import datetime
import json
import math
import pathlib
import tempfile
from collections.abc import Sequence

from flaxgen.models import config
from train import card, reader_score, run

CARD = """# reader: answers about poems and poets

`flaxgen.Reader()`, or `flaxgen read 谁写了《静夜思》？ --passage …`. It finds in passages who wrote a poem, what
its title and its dynasty are, which line stands before or behind another, how it begins and ends, and a poet's names and home.

- **Architecture**: a UniLM of {layers} layers of width {width}, {heads} heads, rotary positions, norms as in GPT-2; {vocab:,} tokens
  (characters and signs), {parameters:,} parameters, stored in bfloat16. It begins with induction heads (`train/induction.py`).
- **Lengths**: passages of {passage} tokens, questions of {question}, answers of {answer}; what is longer is cut.
- **Data**: {source}, (c) 2016 JackeyGao. Questions by templates on poems of at most 80 characters and on notes on authors of Tang and
  Song, by `npm pack chinese-poetry@2.0.1` and `python -m train prepare-verse-reading package runs/verse-reading` (seed {data_seed}).
  The poems of heldout.json are none of those learnt from, and share no two lines with them.
- **Training**, each stage from what the one before it exported; jax {jax}, {date}, {machine}:
{stages}- **Licence**: the poems are in the public domain, their collection is under MIT, the weights under flaxgen's Apache-2.0.

![loss and perplexity over the updates of the last stage](curve.png)

## Scores

Share of held-out questions that are answered exactly, one of so many passages holding the answer; the last column: of those left
unanswered, rightly, where no passage holds it. `python -m train publish-reader` makes this folder.

{scores}
## What it answers

The first questions of heldout.json, three passages each, nothing picked:

| question | its answer | right |
|---|---|---|
{samples}
## Weaknesses

It was taught by templates: questions put in other words than `train/verse_questions.py` has, passages on other matters and what takes more
than finding and copying are beyond it. Characters that it does not know are copied, not told apart.
"""


def publish(folders: Sequence[pathlib.Path], data: pathlib.Path, target: pathlib.Path, *, force: bool = False) -> dict:
    """Exports the last of the runs, scores what was exported on `data`, and writes `target` with card, curve and scores."""
    with tempfile.TemporaryDirectory() as work:
        model = pathlib.Path(work) / "model"
        run.export(folders[-1], model)
        scores = reader_score.score(model, data)
        exported = json.loads((model / "config.json").read_text(encoding="utf-8"))
    facts = json.loads((data / "facts.json").read_text(encoding="utf-8"))
    run.export(folders[-1], target, readme=text(exported, facts, scores, "".join(map(stage, folders))), force=force)
    (target / "scores.json").write_text(json.dumps(scores, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    card.curve(folders[-1] / "log.jsonl", target / "curve.png", held_out="questions not learnt from")
    return scores


def stage(folder: pathlib.Path) -> str:
    """A run in one line of the card."""
    s = run.read_card(folder)["settings"]
    last = json.loads((folder / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    told = " ".join(f"{name}={s[name]}" for name in ("batch", "rate", "schedule", "warmup", "seed"))
    begun = " start=…" if s["start"] else ""
    return f"  `python -m train reading-verse data=…/{pathlib.Path(s['data']).name}{begun} steps={last['step']} {told}`\n"


def text(exported: dict, facts: dict, scores: dict, stages: str) -> str:
    """The card: config.json of the export, facts.json of the data, scores, the stages' lines."""
    source, sizes = exported["source"], config.Config(**exported["config"])
    return CARD.format(
        **{key: getattr(sizes, key) for key in ("layers", "width", "heads", "vocab")},
        **{key: source["settings"][key] for key in ("passage", "question", "answer")},
        parameters=sum(map(math.prod, sizes.shapes().values())),
        source=facts["source"],
        data_seed=facts["seed"],
        jax=source["starts"][-1]["jax"],
        date=datetime.date.today().isoformat(),
        machine=card.machine(),
        stages=stages,
        scores=reader_score.describe(scores),
        samples="".join(f"| {' | '.join(each or '—' for each in row)} |\n" for row in scores["samples"]),
    )
