import json

import pytest

from train import card

SCORES = {
    "held_out_texts": 3,
    "held_out_tokens": 99,
    "perplexity": 90.04,
    "trigram_perplexity": 180.06,
    "poems_written": 2,
    "lines_regular": 0.9,
    "lines_regular_of_poets": 1.0,
    "grams_known": 0.05,
    "grams_known_of_poets": 0.09,
    "grams_repeated": 0.0,
    "grams_repeated_of_poets": 0.01,
    "rule": {"temperature": 0.8, "top_p": 0.9},
    "samples": {"床前明月光": ["床前明月光，疑是地上霜。"]},
}
SIZES = {"vocab": 31, "positions": 8, "width": 12, "layers": 2, "heads": 3, "hidden": 20, "wiring": "between", "activation": "gelu"}
STARTS = [{"step": 0, "steps": 900, "jax": "0.11"}, {"step": 40, "steps": 900, "jax": "0.11"}, {"step": 80, "steps": 100, "jax": "0.12"}]
EXPORTED = {
    "config": SIZES,
    "source": {"settings": {"rate": 0.002, "batch": 2, "seed": 0}, "starts": STARTS, "step": 100, "tokens": 1500, "seconds": 600.0},
}
FACTS = {"source": "a collection", "seed": 7, "counts": {"train": 5, "dev": 1, "heldout": 3}}


def test_the_card_says_data_training_scores_and_what_it_writes():
    text = card.text(EXPORTED, FACTS, SCORES, tokens_epoch=1000)
    said = ["100 updates", "1,500 tokens in all (1.50 epochs)", "10 minutes", "| 90.0 |", "| 180.1 |", "| 90.0% | 100.0% |"]
    for wanted in [*said, "- 床前明月光，疑是地上霜。"]:
        assert wanted in text


def test_a_schedule_that_was_planned_anew_is_told():
    text = card.text(EXPORTED, FACTS, SCORES, tokens_epoch=1000)
    assert "The cosine was planned for 900 updates, from update 80 on for 100." in text


def test_the_curve_is_a_picture(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib comes with the extra poetry")
    lines = [{"step": 10 * i, "loss": 8 - i / 10} for i in range(1, 50)] + [{"step": 490, "dev_perplexity": 40.0}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    card.curve(tmp_path / "log.jsonl", tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
