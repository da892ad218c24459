"""The loss in pieces of the vocabulary against the whole, and what the pieces save."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nn import entropy

NOISE = np.random.default_rng(0)
X_BTD, TABLE_VD = (NOISE.normal(0, 1, shape).astype(np.float32) for shape in ((2, 5, 8), (29, 8)))
TARGET_BT = np.array([[0, 28, 7, 7, 14], [1, 15, 27, 8, 3]])
SLOPE_BT = NOISE.normal(0, 1, (2, 5)).astype(np.float32)


def direct(x_BTD, table_VD):
    logit_BTV = jnp.einsum("BTD,VD->BTV", x_BTD, table_VD, precision="highest")
    return -jnp.take_along_axis(jax.nn.log_softmax(logit_BTV), TARGET_BT[..., None], axis=-1)[..., 0]


@pytest.mark.parametrize(("chunks", "hot"), [(1, 1 << 24), (1, 400), (1, 1), (2, 1), (3, 1), (4, 1), (7, 1), (28, 1), (29, 1)])
def test_any_number_of_pieces_kept_or_not_gives_the_loss_and_the_gradients_of_the_whole(monkeypatch, chunks, hot):
    monkeypatch.setattr(entropy, "HOT", hot)
    wanted_BT, wanted = jax.vjp(direct, X_BTD, TABLE_VD)
    nats_BT, back = jax.jit(lambda x, table: jax.vjp(lambda x, table: entropy.nats(x, table, TARGET_BT, chunks), x, table))(X_BTD, TABLE_VD)
    np.testing.assert_allclose(nats_BT, wanted_BT, rtol=2e-6, atol=1e-6)
    for ours, theirs in zip(back(SLOPE_BT), wanted(SLOPE_BT), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6 * np.abs(theirs).max())


@pytest.mark.parametrize("chunks", [1, 3])
def test_logits_of_a_hundred_thousand_neither_overflow_nor_hide_the_small_ones(chunks):
    table_VD = np.zeros((29, 8), np.float32)
    table_VD[:, 0] = np.linspace(-1e5, 1e5, 29)
    x_BTD = np.zeros((2, 5, 8), np.float32)
    x_BTD[..., 0] = 1
    nats_BT = entropy.nats(jnp.asarray(x_BTD), jnp.asarray(table_VD), TARGET_BT, chunks)
    np.testing.assert_allclose(nats_BT, 1e5 - table_VD[TARGET_BT, 0], rtol=1e-6)
    grads = jax.grad(lambda x: entropy.nats(x, table_VD, TARGET_BT, chunks).sum())(jnp.asarray(x_BTD))
    assert jnp.isfinite(grads).all()


def test_pieces_keep_the_logits_out_of_memory():
    def bytes_of(chunks):
        shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((4, 32, 8), (1000, 8))]
        loss = jax.grad(lambda x, table: entropy.nats(x, table, jnp.zeros((4, 32), jnp.int32), chunks).sum(), argnums=(0, 1))
        return jax.jit(loss).lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    whole = 4 * 32 * 1000 * 4
    assert bytes_of(1) >= whole and bytes_of(10) < 0.45 * whole


def test_bfloat16_activations_get_bfloat16_gradients_and_a_float32_table_float32_ones():
    loss = jax.grad(lambda x, table: entropy.nats(x, table, TARGET_BT, 3).sum(), argnums=(0, 1))
    x_slope_BTD, table_slope_VD = loss(jnp.asarray(X_BTD, jnp.bfloat16), TABLE_VD)
    assert (x_slope_BTD.dtype, table_slope_VD.dtype) == (jnp.bfloat16, jnp.float32)
    wanted = jax.grad(lambda table: direct(X_BTD, table).sum())(TABLE_VD)
    assert jnp.abs(table_slope_VD - wanted).max() <= 0.03 * jnp.abs(wanted).max()
