"""The replay buffer: what goes in, what comes out, and how often noise takes its place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen import replay

SHAPE = (2, 3, 1)
SIZE, DRAWS = 50, 6  # the same in most tests, so that they share a program
add, draw = jax.jit(replay.add), jax.jit(replay.draw)


def keys(count: int = DRAWS):
    return jax.random.split(jax.random.key(0), count)


def of(value: float, count: int):
    return np.full((count, *SHAPE), value, np.float32)


def test_images_are_rounded_down_and_come_back_within_their_step():
    value, buffer = 0.7, replay.empty(SIZE, SHAPE)
    for _ in range(2):
        buffer = add(buffer, of(value, 4))
    assert int(buffer.image_NYXC[0, 0, 0, 0]) == int(value * 255)
    image_BYXC, _, fresh_B = draw(buffer, keys(), 0.0)
    low = int(value * 255) / 256
    assert not fresh_B.any() and float(image_BYXC.min()) >= low and float(image_BYXC.max()) <= low + 1 / 256


def test_the_oldest_images_make_room():
    buffer = replay.empty(5, SHAPE)
    for number in range(4):
        buffer = add(buffer, of(number * 0.2, 2))
    assert buffer.image_NYXC[:, 0, 0, 0].tolist() == [102, 153, 153, 51, 102]
    assert int(buffer.count) == 5 and int(buffer.place) == 3


def test_numbers_beyond_the_bounds_are_clipped():
    buffer = add(replay.empty(5, SHAPE), np.concatenate([of(-1.0, 1), of(2.0, 1)]))
    assert buffer.image_NYXC[:2, 0, 0, 0].tolist() == [0, 255]


def test_all_is_noise_until_the_buffer_holds_more_than_is_asked_for():
    buffer = replay.empty(SIZE, SHAPE)
    for filled in (buffer, add(buffer, of(0.0, DRAWS))):
        image_BYXC, _, fresh_B = draw(filled, keys(), 0.0)
        assert fresh_B.all() and float(image_BYXC.max()) > 0.5
    assert not draw(add(filled, of(0.0, 1)), keys(), 0.0)[2].any()


def test_one_draw_in_twenty_is_noise_and_every_image_is_drawn_equally_often():
    """The bar is 95 to 5 within half a per cent over 100,000 draws."""
    image_N111 = (np.arange(100_001, dtype=np.float32) % 10 / 10)[:, None, None, None]
    image_BYXC, _, fresh_B = draw(replay.add(replay.empty(100_001, (1, 1, 1)), image_N111), keys(100_000), 0.05)
    assert 0.045 < float(fresh_B.mean()) < 0.055
    counts = np.bincount(np.round(np.asarray(image_BYXC)[~np.asarray(fresh_B)].ravel() * 10).astype(int), minlength=10)
    assert counts.min() > 9000 and counts.max() < 10_000


def test_a_row_is_drawn_by_its_own_key():
    buffer = add(replay.empty(SIZE, SHAPE), np.random.default_rng(3).random((SIZE, *SHAPE), np.float32))
    whole, part = draw(buffer, keys(), 0.3), draw(buffer, keys()[2:4], 0.3)
    np.testing.assert_array_equal(whole[0][2:4], part[0])


def test_an_image_keeps_the_label_that_it_began_with():
    buffer = replay.empty(40, SHAPE, labels=True)
    label_N = np.arange(40, dtype=np.int32) % 3
    buffer = add(buffer, np.broadcast_to(label_N[:, None, None, None] / np.float32(4), (40, *SHAPE)), label_N)
    image_BYXC, label_B, fresh_B = draw(buffer, keys(30), 0.4, np.full((30,), 7))
    image_BYXC, label_B, fresh_B = map(np.asarray, (image_BYXC, label_B, fresh_B))
    assert set(label_B[fresh_B].tolist()) == {7}
    np.testing.assert_array_equal(np.round(image_BYXC[~fresh_B][:, 0, 0, 0] * 4), label_B[~fresh_B])


def test_more_rows_than_the_buffer_holds_and_buffers_that_never_give_an_image_are_refused():
    with pytest.raises(ValueError, match="3 images for a buffer of 2"):
        replay.add(replay.empty(2, SHAPE), jnp.zeros((3, *SHAPE)))
    with pytest.raises(ValueError, match="4 rows of a buffer of 4, which would give noise alone"):
        replay.draw(replay.empty(4, SHAPE), keys(4), 0.1)


def test_labels_are_wanted_where_the_buffer_keeps_them():
    with pytest.raises(ValueError, match="the buffer keeps labels and none are given"):
        replay.draw(replay.empty(4, SHAPE, labels=True), keys(2), 0.1)
