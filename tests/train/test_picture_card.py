import json

import numpy as np
import pytest

from train import __main__ as command
from train import picture_card, recipes, run

SMALL = {"batch": "4", "shown": "3", "note": "1", "every": "3", "look": "9", "warmup": "1", "cooldown": "1", "steps": "3", "dev": ""}
KINDS = {
    "energy": {"stem": "3", "filters": "4-", "moves": "2", "drawn": "2", "buffer": "16", "squeeze": "4"},
    "flow": {"flows": "1", "hidden": "3", "blocks": "0", "first": "8"},
}


@pytest.mark.nightly
@pytest.mark.parametrize("kind", KINDS)
def test_a_published_model_has_weights_scores_samples_curve_and_card(tmp_path, capsys, kind):
    run.train(f"{kind}-fashion", recipes.RECIPES[f"{kind}-fashion"]("tiny"), {**SMALL, **KINDS[kind]}, tmp_path / "run")
    words = [f"publish-{kind}", str(tmp_path / "run"), "train/clothes.npz", str(tmp_path / "model")]
    assert command.main(words) == 0
    assert "uniform noise" in capsys.readouterr().out
    names = {"README.md", "config.json", "model.safetensors", "scores.json", "samples.png", "curve.png"}
    assert {path.name for path in (tmp_path / "model").iterdir()} == names
    scores = json.loads((tmp_path / "model" / "scores.json").read_text())
    assert scores["held_out"] == scores["samples"] == 64 and np.isfinite([*scores["means"].values()]).all()
    assert set(scores["distances"]) == {"images learnt from", "samples", "uniform noise"}
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert f"python -m train {kind}-fashion steps=3" in card and "| samples |" in card
    assert command.main(words) == 1 and "already" in capsys.readouterr().err
    other = "flow" if kind == "energy" else "energy"
    assert command.main([f"publish-{other}", *words[1:]]) == 1
    assert f"wants one of the kind {other}" in capsys.readouterr().err


def test_scores_are_told_as_tables():
    scores = {"samples": 7, "means": {"held-out images": 0.25}, "distances": {"samples": {"classifier distance": 3.0}}}
    assert picture_card.describe("energy", scores) == (
        "| of 7 each | mean energy |\n|---|---|\n| held-out images | 0.25 |\n\n"
        "| against 7 held-out images | classifier distance |\n|---|---|\n| samples | 3.00 |\n"
    )
