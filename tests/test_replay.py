"""The replay buffer: what goes in, what comes out, and how often noise takes its place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen import replay

SHAPE = (2, 3, 1)


def keys(count: int):
    return jax.random.split(jax.random.key(0), count)


def test_images_are_rounded_down_and_come_back_within_their_step():
    value = 0.7
    buffer = replay.empty(7, SHAPE)
    for _ in range(2):
        buffer = replay.add(buffer, jnp.full((3, *SHAPE), value))
    assert int(buffer.image_NYXC[0, 0, 0, 0]) == int(value * 255)
    image_BYXC, _, fresh_B = replay.draw(buffer, keys(5), fresh=0.0)
    low = int(value * 255) / 256
    assert not fresh_B.any() and float(image_BYXC.min()) >= low and float(image_BYXC.max()) <= low + 1 / 256


def test_the_oldest_images_make_room():
    buffer = replay.empty(5, SHAPE)
    for number in range(4):
        buffer = replay.add(buffer, jnp.full((2, *SHAPE), number * 0.2))
    assert buffer.image_NYXC[:, 0, 0, 0].tolist() == [102, 153, 153, 51, 102]
    assert int(buffer.count) == 5 and int(buffer.place) == 3


def test_numbers_beyond_the_bounds_are_clipped():
    buffer = replay.add(replay.empty(2, SHAPE), jnp.stack([jnp.full(SHAPE, -1.0), jnp.full(SHAPE, 2.0)]))
    assert buffer.image_NYXC[:, 0, 0, 0].tolist() == [0, 255]


@pytest.mark.parametrize("count", [0, 4])
def test_all_is_noise_until_the_buffer_holds_more_than_is_asked_for(count):
    buffer = replay.empty(9, SHAPE)
    if count:
        buffer = replay.add(buffer, jnp.zeros((count, *SHAPE)))
    image_BYXC, _, fresh_B = replay.draw(buffer, keys(4), fresh=0.05)
    assert fresh_B.all() and float(image_BYXC.max()) > 0.5


def test_one_draw_in_twenty_is_noise():
    """The bar is 95 to 5 within half a per cent over 100,000 draws."""
    buffer = replay.add(replay.empty(100_001, (1, 1, 1)), jnp.zeros((100_001, 1, 1, 1)))
    _, _, fresh_B = jax.jit(lambda key_B: replay.draw(buffer, key_B, 0.05))(keys(100_000))
    assert 0.045 < float(fresh_B.mean()) < 0.055


def test_every_image_is_drawn_equally_often():
    image_NYXC = jnp.arange(10, dtype=jnp.float32)[:, None, None, None] / 10
    buffer = replay.add(replay.empty(1000, (1, 1, 1)), jnp.tile(image_NYXC, (100, 1, 1, 1)))
    image_BYXC, _, _ = replay.draw(buffer, keys(900), fresh=0.0)
    counts = np.bincount(np.round(np.asarray(image_BYXC).ravel() * 10).astype(int), minlength=10)
    assert counts.min() > 50 and counts.max() < 140


def test_a_row_is_drawn_by_its_own_key():
    buffer = replay.add(replay.empty(50, SHAPE), jax.random.uniform(jax.random.key(3), (50, *SHAPE)))
    whole, part = replay.draw(buffer, keys(6), 0.3), replay.draw(buffer, keys(6)[2:4], 0.3)
    np.testing.assert_array_equal(whole[0][2:4], part[0])


def test_an_image_keeps_the_label_that_it_began_with():
    buffer = replay.empty(40, SHAPE, labels=True)
    label_N = jnp.arange(40) % 3
    buffer = replay.add(buffer, jnp.broadcast_to(label_N[:, None, None, None] / 4, (40, *SHAPE)), label_N)
    image_BYXC, label_B, fresh_B = replay.draw(buffer, keys(30), 0.4, jnp.full((30,), 7))
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
