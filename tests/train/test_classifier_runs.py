import json

import numpy as np
import pytest

from flaxgen import features
from flaxgen.models import classifier_config
from train import classifier, classifier_card, classifier_settings, images, recipes, run

SMALL = {"filters": "4- 5", "batch": "8", "note": "4", "every": "60", "look": "60", "rate": "0.02", "dropout": "0.1"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three kinds of image: bright above, bright below, dark."""
    draw, folder = np.random.default_rng(0), tmp_path_factory.mktemp("data")
    label_N = np.arange(60) % 3
    image_NYX = draw.integers(0, 100, (60, 6, 6)).astype(np.uint8)
    image_NYX[label_N == 0, :3] += 150
    image_NYX[label_N == 1, 3:] += 150
    np.savez(folder / "a.npz", x_train=image_NYX[:36], y_train=label_N[:36], x_test=image_NYX[36:], y_test=label_N[36:])
    return str(folder / "a.npz")


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert run.train("classifier", recipes.RECIPES["classifier"]("tiny"), SMALL | {"data": data, "dev": data, "steps": "60"}, folder) == 0
    return folder


def test_a_run_learns_and_tells_how_well_on_held_out_images(whole):
    (measured,) = [line for line in map(json.loads, (whole / "log.jsonl").read_text().splitlines()) if "dev_accuracy" in line]
    assert measured["dev_accuracy"] > 0.9 and measured["dev_nats"] < 0.5


def test_what_is_published_measures_and_tells_its_scores(whole, data, tmp_path):
    scores = classifier_card.publish(whole, data, tmp_path / "made", force=False)
    assert scores["accuracy"] > 0.9 and scores["count"] == 24
    distances = [found["classifier distance"] for found in scores["numbers"].values()]
    assert max(distances) == scores["numbers"]["uniform noise"]["classifier distance"]
    measured = features.load(tmp_path / "made")
    assert features.of(measured, images.build(data, "test").image_NYXC)[0].shape == (24, 5)
    card = (tmp_path / "made" / "README.md").read_text(encoding="utf-8")
    assert (
        "| held-out images |" in card and "4- 5 filters" in card and str(tmp_path) not in card and "is\ncalled classifier distance" in card
    )


def test_data_that_the_model_does_not_read_are_refused(whole, data, tmp_path):
    np.savez(tmp_path / "b.npz", x=np.zeros((5, 7, 7), np.uint8), y=np.arange(5) % 2)
    with pytest.raises(ValueError, match=r"images of \(7, 7, 1\) and 2 classes; the model reads \(6, 6, 1\) and 3"):
        run.train(
            "classifier", recipes.RECIPES["classifier"]("tiny"), SMALL | {"data": data, "dev": str(tmp_path / "b.npz")}, tmp_path / "run"
        )


def test_filters_are_whole_numbers_with_a_minus_where_they_go_down():
    assert classifier_settings.blocks("16- 32") == ((16, "down"), (32, "same"))
    for words in ("", "a", "0", "16 -", "1.5"):
        with pytest.raises(ValueError, match="wanted whole numbers, each with a minus"):
            classifier_settings.blocks(words)


def test_operations_are_those_of_the_kernels_laid_on_pixels():
    sizes = classifier_config.Config(6, 1, 3, ((4, "down"), (5, "same")))
    count, formula = classifier.cost(recipes.RECIPES["classifier"](), sizes, 0)
    assert count == 6 * (9 * 1 * 4 * 36 + 9 * 4 * 5 * 9 + 3 * 5) and "6 × 2,931 products" in formula
