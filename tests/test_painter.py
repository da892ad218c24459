"""Painting with energies: what the chain starts from, what it leaves alone, and what does not depend on what."""

import jax
import numpy as np
import pytest

from flaxgen import canvas, drawing, loop, painter, weights
from flaxgen.chains import langevin
from flaxgen.errors import Mismatch
from tests import painters


@pytest.fixture(scope="module")
def plain() -> painter.Painter:
    return painters.of_bowl()


@pytest.fixture(scope="module")
def named() -> painter.Painter:
    return painters.of_bowl(classes=3)


def test_images_are_the_chain_from_uniform_noise(plain):
    got_BYXC = plain(1, seed=7, moves=5, noise=0.1)
    x_BYXC, key_B = drawing.drawn(jax.random.key(7), np.arange(1), (6, 6, 1), "uniform")
    given = langevin.start(x_BYXC, step=1.0, noise=0.1, clip=0.01, kept_BYXC=np.zeros(x_BYXC.shape, bool))
    wanted_BYXC = loop.generate(langevin.Langevin(plain._energy), plain.params, key_B, given, steps=5)
    np.testing.assert_array_equal(got_BYXC, canvas.pixels(np.asarray(wanted_BYXC)))
    assert got_BYXC.shape == (1, 6, 6, 1) and got_BYXC.dtype == np.uint8


def test_an_image_does_not_depend_on_how_many_are_asked_for(plain):
    many_BYXC = plain(6, seed=3)
    for count in (1, 3):
        np.testing.assert_array_equal(plain(count, seed=3), many_BYXC[:count])
    assert (plain(6, seed=4) != many_BYXC).any()
    assert len(np.unique(many_BYXC.reshape(6, -1), axis=0)) == 6


def test_a_stream_begins_with_the_noise_and_ends_with_what_a_call_gives(plain):
    frames = list(plain.stream(5, seed=3, moves=6, every=2))
    assert len(frames) == 1 + 4 and all(frame.shape == (5, 6, 6, 1) for frame in frames)
    np.testing.assert_array_equal(frames[-1], plain(5, seed=3, moves=6))
    noise_BYXC, _ = drawing.drawn(jax.random.key(3), np.arange(4), (6, 6, 1), "uniform")
    np.testing.assert_array_equal(frames[0][:4], canvas.pixels(np.asarray(noise_BYXC)))


def test_a_chain_may_start_from_images(plain):
    like_BYXC = painters.images(2, 6, 6, 1)
    first, *_ = plain.stream(3, like=like_BYXC)
    np.testing.assert_array_equal(first, like_BYXC.repeat(3, axis=0))
    still_BYXC = plain(2, like=like_BYXC[0], step=np.float32(0), noise=0.0)
    np.testing.assert_array_equal(still_BYXC, like_BYXC[:1].repeat(2, axis=0))


def test_inpainting_leaves_everything_else_as_it_was(plain):
    image_BYXC = painters.images(2, 6, 6, 1)
    got_BYXC = plain.inpaint(image_BYXC, "bottom", 2, seed=5, noise=0.1)
    np.testing.assert_array_equal(got_BYXC[:, :3], image_BYXC.repeat(2, axis=0)[:, :3])
    assert (got_BYXC[0, 3:] != got_BYXC[1, 3:]).any() and (got_BYXC[0, 3:] != image_BYXC[0, 3:]).any()
    mask_BYX = np.zeros((2, 6, 6), bool)
    mask_BYX[0, 2, 4] = mask_BYX[1, 0, 0] = True
    changed_BYXC = plain.inpaint(image_BYXC, mask_BYX) != image_BYXC
    assert not changed_BYXC[~mask_BYX].any() and changed_BYXC.any()


def test_denoising_walks_from_the_image_without_noise(plain):
    image_BYXC = painters.images(2, 6, 6, 1)
    np.testing.assert_array_equal(plain.denoise(image_BYXC, step=0.0), image_BYXC)
    np.testing.assert_array_equal(plain.denoise(image_BYXC, seed=1), plain.denoise(image_BYXC, seed=2))
    assert (plain.energy(plain.denoise(image_BYXC, moves=9, step=0.1, clip=0.0)) < plain.energy(image_BYXC)).all()


def test_energies_are_those_of_the_model_whatever_the_number_of_images(plain):
    image_BYXC = painters.images(3, 6, 6, 1)
    (model,), (params,) = plain.models, plain.params
    wanted_B = jax.jit(model.apply)(params, (image_BYXC.astype(np.float32) + 0.5) / 256)
    np.testing.assert_allclose(plain.energy(image_BYXC), wanted_B, rtol=1e-5)
    np.testing.assert_allclose(plain.energy(image_BYXC[0, :, :, 0]), wanted_B[:1], rtol=1e-5)


def test_classes_come_in_turn_or_by_name_or_number(named):
    given = painter.Painter(named.models, named.params, sampling=named.sampling.changed(classes=("Shirt", "T-shirt", "Ankle boot")))
    assert given._labels(None, 5, None).tolist() == [0, 1, 2, 0, 1]
    assert given._labels("shirt", 2, None).tolist() == [0, 0] and given._labels("boot", 1, None).tolist() == [2]
    assert given._labels(["T-SHIRT", 2], 2, None).tolist() == [1, 2] and named._labels(1, 1, None).tolist() == [1]
    assert given._labels("2", 1, None).tolist() == [2]
    assert given._labels(jax.numpy.array([2, 0]), 2, None).tolist() == given._labels(np.array([2, 0]), 2, None).tolist() == [2, 0]
    np.testing.assert_array_equal(given(2, label="boot"), given(2, label=2))
    assert (given(2, label="boot") != given(2, label="Shirt")).any()


def test_the_energy_of_a_conditional_model_is_that_of_the_likeliest_class(named):
    image_BYXC = painters.images(2, 6, 6, 1)
    each = [named.energy(image_BYXC, label=label) for label in range(3)]
    np.testing.assert_array_equal(named.energy(image_BYXC), np.min(each, axis=0))
    assert len(np.unique(each)) == 6


def test_a_chain_that_starts_from_an_image_takes_its_likeliest_class(named):
    lowest_BYXC = canvas.pixels(named.params[0]["image"])[[2, 0]]
    np.testing.assert_array_equal(named(1, like=lowest_BYXC), named(1, like=lowest_BYXC, label=[2, 0]))
    got_BYXC = named.inpaint(lowest_BYXC, "middle")
    np.testing.assert_array_equal(got_BYXC, named.inpaint(lowest_BYXC, "middle", label=[2, 0]))
    assert named._labels(None, 4, lowest_BYXC).tolist() == [2, 2, 0, 0]


@pytest.mark.parametrize(("join", "by"), [("mean", np.mean), ("sum", np.sum)])
def test_several_models_are_an_ensemble_or_a_product(join, by):
    parts = [painters.of_bowl(), painters.of_bowl(seed=5, classes=2)]
    both = painter.Painter(*zip(*((part.models[0], part.params[0]) for part in parts), strict=True), join=join)
    image_BYXC = painters.images(2, 6, 6, 1)
    wanted_B = by([parts[0].energy(image_BYXC), parts[1].energy(image_BYXC, label=1)], axis=0)
    np.testing.assert_allclose(both.energy(image_BYXC, label=1), wanted_B, rtol=1e-5)


def test_a_folder_says_how_its_model_paints(tmp_path):
    plain = painters.of_energy()
    sampling = {"moves": 4, "step": 2.5, "noise": 0.01, "clip": 0.0, "data": "anything else"}
    weights.save(tmp_path / "a", plain.models[0], plain.params[0], sampling=sampling)
    loaded = painter.Painter.load(tmp_path / "a")
    assert loaded.sampling == drawing.Sampling(4, 2.5, 0.01, 0.0)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, plain.params)
    both = painter.Painter.load(tmp_path / "a", tmp_path / "a", join="sum")
    assert len(both.models) == 2 and both.sampling == loaded.sampling


def test_folders_that_cannot_paint_together_are_refused(tmp_path):
    plain = painters.of_energy()
    weights.save(tmp_path / "energy", plain.models[0], plain.params[0])
    made = painters.of_flow()
    weights.save(tmp_path / "flow", made.model, made.params)
    weights.save(tmp_path / "broken", plain.models[0], plain.params[0], sampling={"moves": -1})
    with pytest.raises(Mismatch, match=r"flow is a 'flow'; .* one at a time"):
        painter.Painter.load(tmp_path / "energy", tmp_path / "flow")
    with pytest.raises(Mismatch, match="moves=-1"):
        painter.Painter.load(tmp_path / "broken")
    with pytest.raises(ValueError, match="no folder given"):
        painter.Painter.load()
    other = painters.of_energy(size=4)
    with pytest.raises(Mismatch, match="cannot paint together"):
        painter.Painter((plain.models[0], other.models[0]), (plain.params[0], other.params[0]))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda one: one(0), "samples=0"),
        (lambda one: one(2.0), "samples=2.0"),
        (lambda one: one(10**9), "samples=1000000000"),
        (lambda one: one(noise=1e300), "noise=1e"),
        (lambda one: painter.Painter("runs/a"), r"Painter\.load"),
        (lambda one: painter.Painter(one.models), "without params"),
        (lambda one: one(moves=0), "moves=0"),
        (lambda one: one(step=-1), "step=-1"),
        (lambda one: one(noise=float("nan")), "noise=nan"),
        (lambda one: one(seed=-3), "seed=-3"),
        (lambda one: one(label="boot"), "no classes"),
        (lambda one: one(temperature=0.5), "temperature: no wish"),
        (lambda one: one.stream(every=0), "every=0"),
        (lambda one: one.energy(np.zeros((2, 6, 6, 1))), "float64"),
        (lambda one: one.energy("a.png"), "of files flaxgen.gallery.read"),
        (lambda one: one.energy(painters.images(2, 6, 5, 1)), r"\(2, 6, 5, 1\)"),
        (lambda one: one.energy(painters.images(0, 6, 6, 1)), "shape"),
        (lambda one: one.inpaint(painters.images(6, 6), "above"), "mask='above'"),
        (lambda one: one.inpaint(painters.images(6, 6), np.ones((6, 6))), "booleans"),
        (lambda one: one.inpaint(painters.images(6, 6), np.zeros((6, 6), bool)), "true nowhere"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_painted(plain, call, says):
    with pytest.raises(ValueError, match=says):
        call(plain)


@pytest.mark.parametrize("label", ["sock", "shirt", "", "3", "9" * 5000, 3, -1, True, 1.5, ["Pullover"], [["Pullover"], 1], {1}])
def test_a_class_that_there_is_not_or_is_not_clear_is_refused(label):
    with pytest.raises(ValueError, match="label"):
        canvas.labels(label, ("T-shirt", "Undershirt", "Pullover"), 2)


def test_weights_that_are_no_numbers_are_said(plain):
    broken = painter.Painter(plain.models, jax.tree.map(lambda leaf: leaf * np.nan, plain.params), sampling=plain.sampling)
    with pytest.raises(FloatingPointError, match="damaged"):
        broken(2)


def test_blocks_are_more_than_half_full():
    assert [len(block) for block in canvas.blocks(100)] == [64, 64] and [len(block) for block in canvas.blocks(20)] == [16, 4]
    assert [len(block) for block in canvas.blocks(2)] == [1, 1] and [len(block) for block in canvas.blocks(16)] == [16]
    for rows in range(1, 140):
        sizes = [len(block) for block in canvas.blocks(rows)]
        assert rows <= sum(sizes) < 2 * rows or rows == sum(sizes)
        np.testing.assert_array_equal(np.concatenate(list(canvas.blocks(rows)))[:rows], np.arange(rows))


def test_8_bit_images_become_numbers_and_come_back():
    image_BYXC = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    np.testing.assert_array_equal(canvas.pixels(canvas.middle(image_BYXC)), image_BYXC)
    assert canvas.pixels(np.float32([0, 1])).tolist() == [0, 255]


@pytest.mark.parametrize(("region", "count"), [("top", 2 * 7), ("bottom", 2 * 7), ("left", 5 * 3), ("right", 5 * 3), ("middle", 3 * 5)])
def test_regions_are_halves_and_the_middle(region, count):
    assert canvas.mask(region, 2, (5, 7, 3)).shape == (2, 5, 7, 3) and canvas.mask(region, 1, (5, 7, 1)).sum() == count


def test_the_models_that_come_with_flaxgen_paint_clothes():
    assert painter.Painter().shape == painter.Painter.load(painter.bundled("flow")).shape == (28, 28, 1)
    with pytest.raises(ValueError, match="kind='couplet'"):
        painter.bundled("couplet")
