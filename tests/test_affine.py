"""Random affine transformations of images."""

import jax
import jax.numpy as jnp
import numpy as np

from flaxgen import affine


def test_images_stay_in_range_and_keep_their_light_by_the_square_of_the_size():
    """A blob in the middle is all the image has: turned, resized and shifted, its sum goes by the area, its place by the shift."""
    y_YX, x_YX = jnp.meshgrid(jnp.arange(24) - 11.5, jnp.arange(28) - 13.5, indexing="ij")
    blob_YXC = jnp.exp(-(y_YX**2 + x_YX**2) / 18)[..., None]
    blob_YXC = jnp.concatenate([blob_YXC, blob_YXC / 2], axis=-1)
    found_NYXC = np.asarray(jax.vmap(affine.transformed, (None, 0))(blob_YXC, jax.random.split(jax.random.key(0), 300)))
    assert found_NYXC.min() >= 0 and found_NYXC.max() <= 1
    np.testing.assert_allclose(found_NYXC[..., 1], found_NYXC[..., 0] / 2, atol=1e-6)
    light_N = found_NYXC[..., 0].sum((1, 2)) / float(blob_YXC[..., 0].sum())
    assert 0.24 < light_N.min() < 0.3 and 1.35 < light_N.max() < 1.6
    place_NY = found_NYXC[..., 0].sum(2) @ np.arange(24) / found_NYXC[..., 0].sum((1, 2)) - 11.5
    assert place_NY.min() < -2 and place_NY.max() > 2 and abs(place_NY.mean()) < 0.5


def test_images_are_turned_and_mirrored():
    """An L comes nearest to each of its quarter turns, and to each of those of its mirror image, now and then."""
    image_YX = np.zeros((15, 15), np.float32)
    image_YX[4:11, 5] = image_YX[10, 5:9] = 1
    sides_KYX = np.stack([np.rot90(side, quarter) for side in (image_YX, image_YX[:, ::-1]) for quarter in range(4)])
    found_NYXC = np.asarray(jax.vmap(affine.transformed, (None, 0))(image_YX[..., None], jax.random.split(jax.random.key(1), 400)))
    nearest_N = np.einsum("nyx,kyx->nk", found_NYXC[..., 0], sides_KYX).argmax(1)
    assert np.bincount(nearest_N, minlength=8).min() > 20
