"""Energy models of images against the network written out in numpy, and their sizes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen import weights
from flaxgen.models import energy, energy_config

SMALL = energy_config.Config(10, 2, 5, ((5, "down"), (7, "same")), squeeze=2)


def model(config, seed=0):
    """The model with every parameter drawn, the biases and gains too, without the time that compiling `init` takes."""
    draw = np.random.default_rng(seed)
    drawn = {path: 0.3 * draw.normal(size=shape).astype(np.float32) for path, shape in config.shapes().items()}
    return energy.Energy(config), weights.nest(drawn)


def energies(made, *given, **keys):
    return jax.jit(made.apply)(*given, **keys)


def images(config, rows=2):
    return np.random.default_rng(1).random((rows, config.size, config.size, config.channels), np.float32)


def plainly(config, params, image_BYXC, label_B=None):
    """The energy in float64, pixel by pixel."""
    flat = {name: np.asarray(leaf, np.float64) for name, leaf in weights.flatten(params).items()}

    def act(x):
        return np.where(x > 0, x, 0.2 * x) if config.activation == "leaky" else x / (1 + np.exp(-x))

    def conv(x, name):
        kernel, (rows, height, width, _) = flat[name], x.shape
        wide, out = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), np.zeros((rows, height, width, kernel.shape[3]))
        for y in range(height):
            for left in range(width):
                out[:, y, left] = np.tensordot(wide[:, y : y + 3, left : left + 3], kernel, 3)
        return out

    def picked(name):
        table = flat[name]
        return (table[label_B] if config.classes else table[None])[:, None, None]

    side, x = config.squeeze, np.asarray(image_BYXC, np.float64)
    x = np.concatenate([x[:, y::side, left::side] for y in range(side) for left in range(side)], -1)
    x = act(conv(x, "stem/kernel"))
    for number, (filters, change) in enumerate(config.blocks):
        block = f"block_{number:02d}"
        h = act(conv(x + picked(f"{block}/bias_0"), f"{block}/conv_0/kernel"))
        gain = picked(f"{block}/gain") + (flat[f"{block}/shared_gain"] if config.classes else 0)
        h = conv(h + picked(f"{block}/bias_1"), f"{block}/conv_1/kernel") * gain
        x = h + (conv(x, f"{block}/bypass/kernel") if filters != x.shape[3] else x)
        if change == "down":
            height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
            x = (x[:, 0:height:2, 0:width:2] + x[:, 1:height:2, 0:width:2] + x[:, 0:height:2, 1:width:2] + x[:, 1:height:2, 1:width:2]) / 4
        x = act(x)
    x = np.maximum(x, 0) if config.last == "relu" else act(x)
    return x.sum((1, 2)) @ flat["out/kernel"][0] + flat["out/bias"][0]


@pytest.mark.parametrize(
    "config",
    [SMALL, dataclasses.replace(SMALL, activation="swish", last="same"), dataclasses.replace(SMALL, classes=4, squeeze=1)],
    ids=["leaky", "swish", "conditional"],
)
def test_the_energy_is_that_of_the_network_written_out(config):
    made, params = model(config)
    label_B = np.array([3, 1]) if config.classes else None
    found = energies(made, params, images(config), label_B)
    np.testing.assert_allclose(found, plainly(config, params, images(config), label_B), rtol=2e-5)


def test_shapes_are_those_of_the_parameters_in_the_order_of_the_forward_pass():
    for config in (SMALL, dataclasses.replace(SMALL, classes=3)):
        label_B = jnp.zeros((1,), jnp.int32) if config.classes else None
        params = jax.eval_shape(energy.Energy(config).init, jax.random.key(0), jnp.zeros((1, 10, 10, 2)), label_B)
        assert {name: leaf.shape for name, leaf in weights.flatten(params).items()} == config.shapes()
        assert next(iter(config.shapes())) == "stem/kernel" and list(config.shapes())[-1] == "out/bias"


@pytest.mark.parametrize(("name", "classes", "count"), [("32", 10, 5_350_529), ("32-large", 0, 18_591_105), ("32-wider", 0, 74_337_537)])
def test_the_published_networks_have_their_filters(name, classes, count):
    config = energy_config.published(name, classes=classes)
    assert sum(int(np.prod(shape)) for shape in config.shapes().values()) == count
    filters = 256 if name == "32-wider" else 128
    assert config.blocks[0] == (filters, "down") and config.stem == 128
    assert config.blocks[-1] == ((2 if name == "32" else 4) * filters, "same")
    assert config.dropout == (0.5 if name == "32-large" else 0)


def test_a_second_convolution_begins_at_nothing_and_all_others_are_normalised():
    kinds = SMALL.normalised()
    assert kinds["block_01/conv_1/kernel"] == "lower" and kinds["block_01/bypass/kernel"] == "full" and "out/kernel" not in kinds
    made = energy.Energy(energy_config.Config(4, 1, 2, ((2, "down"),)))
    params = weights.flatten(jax.jit(made.init)(jax.random.key(0), jnp.zeros((1, 4, 4, 1))))
    assert float(jnp.abs(params["block_00/conv_1/kernel"]).max()) < 1e-9
    assert dataclasses.replace(SMALL, norm="none").normalised() == {}


def test_bfloat16_goes_through_all_blocks_and_the_energy_is_float32_and_near():
    config = dataclasses.replace(SMALL, classes=4)
    made, params = model(config)
    label_B, block = np.array([3, 1]), energy.Block(config, 5, "down")
    x_BYXC = jnp.ones((2, 5, 5, 5), jnp.bfloat16)
    assert jax.eval_shape(block.apply, {"params": params["params"]["block_00"]}, x_BYXC, label_B, None).dtype == jnp.bfloat16
    near_B = energies(energy.Energy(config, jnp.bfloat16), params, images(config), label_B)
    assert near_B.dtype == jnp.float32
    np.testing.assert_allclose(near_B, energies(made, params, images(config), label_B), rtol=0.05)


def test_dropout_is_drawn_by_the_rows_own_keys():
    config = dataclasses.replace(SMALL, dropout=0.5)
    made, params = model(config)
    key_B = jax.random.split(jax.random.key(5), 2)
    whole = energies(made, params, images(config), key_B=key_B)
    turned = energies(made, params, images(config)[::-1], key_B=key_B[::-1])
    np.testing.assert_allclose(whole[::-1], turned, rtol=1e-5)
    assert not np.allclose(whole, plainly(config, params, images(config)), rtol=1e-3)


def test_a_folder_brings_the_model_back_bitwise(tmp_path):
    made, params = model(SMALL)
    weights.save(tmp_path / "m", made, params, sampling={"moves": 7})
    again, same, text = weights.load(tmp_path / "m")
    assert again.config == SMALL and text is None and weights.describe(tmp_path / "m")["sampling"] == {"moves": 7}
    jax.tree.map(np.testing.assert_array_equal, params, same)
    with pytest.raises(ValueError, match="rounds language models"):
        weights.load(tmp_path / "m", dtype="int8")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"size": 0}, "'size' is 0; wanted a whole number of at least 1"),
        ({"channels": 1.5}, "'channels' is 1.5"),
        ({"blocks": ()}, "'blocks' is (); wanted pairs"),
        ({"blocks": ((5, "up"),)}, "wanted pairs such as (64, \"same\")"),
        ({"blocks": ((0, "same"),)}, "wanted pairs"),
        ({"blocks": ((5, "down"),) * 4}, "halves 5 pixels 4 times"),
        ({"squeeze": 3}, "'squeeze' is 3; wanted a number that divides the size 10"),
        ({"activation": "gelu"}, "'activation' is 'gelu'; wanted one of leaky, swish"),
        ({"dropout": 1.0}, "'dropout' is 1.0"),
        ({"norm": "batch"}, "'norm' is 'batch'; wanted one of spectral, none"),
    ],
)  # fmt: skip
def test_sizes_that_cannot_be_are_refused_by_name(fields, words):
    with pytest.raises(ValueError) as caught:
        dataclasses.replace(SMALL, **fields)
    assert words in str(caught.value)


def test_labels_are_wanted_where_there_are_classes_and_nowhere_else():
    made, params = model(dataclasses.replace(SMALL, classes=4))
    with pytest.raises(ValueError, match="the model has 4 classes and label_B is absent"):
        made.apply(params, images(SMALL))
    made, params = model(SMALL)
    with pytest.raises(ValueError, match="the model has 0 classes and label_B is given"):
        made.apply(params, images(SMALL), np.zeros(2, int))
