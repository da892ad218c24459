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
    "t5-small": 60_506_624,
    "t5-base": 222_903_552,
    "t5-large": 737_668_096,
    "t5-3b": 2_851_598_336,
    "t5-11b": 11_307_321_344,
    "t5.1.1-small": 76_961_152,
    "t5.1.1-base": 247_577_856,
    "t5.1.1-large": 783_150_080,
    "t5.1.1-xl": 2_849_757_184,
    "t5.1.1-xxl": 11_135_332_352,
    "mt5-small": 300_176_768,
    "mt5-base": 582_401_280,
    "mt5-large": 1_229_581_312,
    "mt5-xl": 3_742_619_648,
    "mt5-xxl": 12_921_057_280,
}


@pytest.mark.parametrize("name", COUNTS)
def test_a_preset_has_the_parameters_of_the_published_model(name):
    assert sum(math.prod(shape) for shape in presets.PRESETS[name].shapes().values()) == COUNTS[name]


def test_albert_has_one_layer_of_parameters_and_roformer_v2_no_biases():
    names = {name: presets.PRESETS[name].shapes() for name in ("albert-xxlarge", "roformer-v2-base", "nezha-base")}
    assert not any(path.startswith("block_01") for path in names["albert-xxlarge"])
    assert not any("bias" in path or "norm" in path for path in names["roformer-v2-base"])
    assert "embed/position/embedding" not in names["nezha-base"]
