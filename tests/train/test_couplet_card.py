import math

import jax
import numpy as np
import pytest

from flaxgen.models import gated, gated_config
from flaxgen.tasks import tagging
from flaxgen.text import single
from train import couplet_card, couplet_score, couplets

SHARES = {"copied": 0.0, "tones": 0.25, "ends": 0.1, "repeats": 0.0, "fresh": 0.0, "any": 0.3, "distinct-1": 0.5, "distinct-2": 0.9}
SCORES = {
    "held_out_couplets": 2000,
    "held_out_characters": 9999,
    "perplexity": 90.04,
    "accuracy": 0.123,
    "same_place_perplexity": 300.06,
    "lines_answered": 100,
    "people": SHARES,
    "answers": {"all rules": SHARES | {"any": 0.0}},
    "samples": {"科学空间": ["文章日月", "文章天地"]},
}
SETTINGS = {"steps": 100, "rate": 0.002, "schedule": "wsd", "cooldown": 10, "warmup": 5, "batch": 64, "seed": 0}
EXPORTED = {
    "config": {"vocab": 11, "width": 6},
    "source": {"settings": SETTINGS, "starts": [{"jax": "0.11"}], "step": 100, "tokens": 1500, "seconds": 600.0},
}
FACTS = {"source": "a collection", "seed": 7, "counts": {"couplets of train": 5000, "couplets of dev": 1, "couplets of heldout": 3}}


def test_the_card_says_data_training_scores_and_what_it_answers():
    text = couplet_card.text(EXPORTED, FACTS, SCORES)
    said = ["6 layers of width 6 and\n  3 taps, 10 characters", "5,000 couplets to learn from", "schedule=wsd cooldown=10", "10 minutes"]
    for wanted in [*said, "| 90.0 |", "| 300.1 |", "| 12.3% |", "| all rules | 0.0% | 25.0% |", "- 科学空间: 文章日月，文章天地"]:
        assert wanted in text


@pytest.fixture
def data(tmp_path):
    draw, made = np.random.default_rng(0), []
    text = single.Single(("[UNK]", *"天地风月"))
    for count in (300, 60, 20):
        lines = ["".join(draw.choice(list("天地风月"), length)) for length in draw.integers(1, 4, count)]
        answers = ["".join("地天月风"["天地风月".index(one)] for one in line) for line in lines]
        table = "".join(f"{line}\t{answer}\n" for line, answer in zip(lines, answers, strict=True))
        (tmp_path / "a.tsv").write_text(table, encoding="utf-8")
        made.append(couplets.build(str(tmp_path / "a.tsv"), text, longest=16))
    return made


def test_a_table_of_the_same_place_knows_what_always_answers_a_character(data):
    # Of 0.95 the table's probability is 1, the rest is spread by frequency over about four characters.
    assert couplet_score.same_place(*data, 5) == pytest.approx(1 / (0.95 + 0.05 / 4), abs=0.01)


def test_the_likelihood_is_that_of_every_character_once(data):
    model = gated.Gated(gated_config.Config(5, width=4, layers=1))
    params = tagging.Tagging(model).init(jax.random.key(0))
    nats, right, count = couplet_score.likelihood(model, params, data[2])
    assert count == data[2].weight() and 0 <= right <= count
    assert math.exp(nats / count) == pytest.approx(5, abs=1.5)
