"""Buckets of distances and attention that knows them, against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nn import attention, relative

B, T, H, K, D = 2, 5, 3, 4, 7
# Where mesh-tensorflow's and transformers' logarithms in float32 put distances with 32 buckets and distance 128: the first of each bucket.
BOTH = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91]
BEFORE = [*range(17), 19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113]


@pytest.mark.parametrize(("sees", "firsts"), [("both", BOTH), ("before", BEFORE)])
def test_buckets_begin_where_the_originals_do(sees, firsts):
    far = np.arange(300)
    wanted = np.searchsorted(firsts, far, side="right") - 1
    found = relative.bucket(jnp.array(-far)[None, None], 32, 128, sees)[0, 0]
    np.testing.assert_array_equal(found, wanted)
    after = relative.bucket(jnp.array(far)[None, None], 32, 128, sees)[0, 0]
    np.testing.assert_array_equal(after, np.where(far > 0, wanted + 16, 0) if sees == "both" else np.zeros(300))


@pytest.mark.parametrize(("buckets", "distance"), [(8, 20), (16, 64), (64, 256), (32, 1000), (2, 16), (3, 20), (5, 20), (6, 40), (10, 50)])
def test_a_table_is_that_of_the_logarithms_where_these_do_not_round(buckets, distance):
    near = buckets // 2
    far = np.arange(near, distance + 1)
    exact = near + np.log(far / near) / np.log(distance / near) * (buckets - near)
    clear = np.abs(exact - np.rint(exact)) > 1e-9
    wanted = np.minimum(np.floor(exact), buckets - 1)
    found = relative.table(buckets, distance)
    np.testing.assert_array_equal(found[:near], np.arange(near))
    np.testing.assert_array_equal(found[near:][clear], wanted[clear])
    assert found[-1] == buckets - 1 and (np.diff(found) >= 0).all()


def test_the_example_of_the_docstring():
    far = jnp.array([20, 10, 5, 3, 2, 1])
    assert relative.bucket(-far[None, None], 8, 20, "both")[0, 0].tolist() == [3, 3, 2, 2, 2, 1]
    assert relative.bucket(far[None, None, ::-1], 8, 20, "both")[0, 0].tolist() == [5, 6, 6, 6, 7, 7]
    assert relative.bucket(-far[None, None], 8, 20, "before")[0, 0].tolist() == [7, 6, 4, 3, 2, 1]
    assert relative.bucket(far[None, None], 8, 20, "before")[0, 0].tolist() == [0] * 6


def test_attention_is_softmax_of_products_and_biases_without_a_scale():
    key = jax.random.key(3)
    x_BTD = jax.random.normal(key, (B, T, D))
    rank_BT, valid_BT = jnp.ones((B, T), jnp.int32), jnp.arange(T)[None] < jnp.array([T, 3])[:, None]
    sight, _ = attention.look(rank_BT, valid_BT, (), position_BT=jnp.broadcast_to(jnp.arange(T), (B, T)))
    table, layer = relative.Biases(H, 8, 20, "both", 1.0), relative.Attention(D, H, K)
    biases, table_params = table.init_with_output(key, sight.distances)
    (y_BTD, grown), params = layer.init_with_output(jax.random.key(4), x_BTD, (), sight, biases)
    p = jax.tree.map(np.float64, params["params"])
    embedding = np.float64(table_params["params"]["embedding"])
    assert grown == () and {name: p[name]["kernel"].shape for name in "qkvo"} == dict.fromkeys("qkv", (H * K, D)) | {"o": (D, H * K)}
    for b, length in enumerate((T, 3)):
        q, k, v = ((np.float64(x_BTD[b]) @ p[name]["kernel"].T).reshape(T, H, K) for name in "qkv")
        for t in range(length):
            out = np.zeros((H, K))
            for h in range(H):
                score = [q[t, h] @ k[s, h] + embedding[_bucket(s - t), h] for s in range(length)]
                weight = np.exp(score - np.max(score))
                out[h] = weight / weight.sum() @ v[:length, h]
            np.testing.assert_allclose(y_BTD[b, t], out.reshape(-1) @ p["o"]["kernel"].T, atol=1e-5)


def _bucket(distance):
    """With 8 buckets of both directions and distance 20."""
    return (4 if distance > 0 else 0) + sum(abs(distance) >= first for first in (1, 2, 7))
