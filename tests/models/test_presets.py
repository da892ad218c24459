"""The published sizes have the parameters that are published."""

import math

import pytest

from flaxgen.models import presets

# Of the checkpoint with all its heads, as transformers counts them too.
COUNTS = {
    "bert-base-uncased": 110_106_428,
    "bert-large-uncased": 336_226_108,
    "bert-base-chinese": 102_882_442,
    "electra-base": 102_268_417,
}


@pytest.mark.parametrize("name", COUNTS)
def test_a_preset_has_the_parameters_of_the_published_model(name):
    assert sum(math.prod(shape) for shape in presets.PRESETS[name].shapes().values()) == COUNTS[name]


def test_albert_has_one_layer_of_parameters_and_roformer_v2_no_biases():
    names = {name: presets.PRESETS[name].shapes() for name in ("albert-xxlarge", "roformer-v2-base", "nezha-base")}
    assert not any(path.startswith("block_01") for path in names["albert-xxlarge"])
    assert not any("bias" in path or "norm" in path for path in names["roformer-v2-base"])
    assert "embed/position/embedding" not in names["nezha-base"]
