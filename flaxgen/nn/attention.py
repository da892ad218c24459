"""Attention over a tuple of caches, masked by ranks.

Every token has a whole-number rank; a query sees a key when key_rank <= query_rank. For `a b c d [pad]`:

    ranks 1 2 3 4 0   every token hides from those before it (GPT-2, GPT2_ML)
    ranks 1 1 2 3 0   prefix `a b` sees itself whole, then `c`, then `d` (UniLM)
    ranks 1 1 1 1 0   all see all (BERT)

Padded keys and unwritten slots have rank HIDDEN, which no query reaches; padded queries have rank 0 and see nothing.

A query may have a floor too, the least rank it sees. Documents packed into one row, each with its first rank as the floor:

    tokens  a b c d e   two documents, `a b c` and `d e`
    ranks   1 2 3 4 5
    floors  1 1 1 4 4   e sees d and e
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from flaxgen.nn import blocks, quantized, sinusoidal
from flaxgen.protocols import Array

Kind = Literal["float", "int8"]
Buffer = Array | quantized.Codes
HIDDEN = np.iinfo(np.int32).max
MASKED = -1e30
FEW_STEPS = 8


@struct.dataclass
class Cache:
    """Keys and values of the tokens read so far: one buffer a layer, and once for all layers who may see which slot.

    Token i of a row lies in slot i, whatever padding came with it, so a row's bytes do not depend on its neighbours. The rows of a cache
    divide the batch: row b reads cache row b // n, which is how n samples share one prompt.
    """

    k: tuple[Buffer, ...]  # k_BHKS of each layer, or int8 codes of it
    v: tuple[Buffer, ...]  # v_BHSK of each layer, likewise
    rank_BS: Array
    length_B: Array
    position_BS: Array | None = None  # of each key, where the model looks at distances

    @classmethod
    def empty(
        cls, rows: int, slots: int, *, layers: int, heads: int, head_width: int, dtype, kind: Kind = "float", positions: bool = False
    ) -> "Cache":
        def buffer(*shape):
            # Zeros, not garbage: a masked slot still enters 0 x value, and 0 x NaN would leak.
            if kind == "int8":
                return quantized.Codes(jnp.zeros(shape, jnp.int8), jnp.zeros((rows, heads, slots), jnp.float32))
            return jnp.zeros(shape, dtype)

        if kind not in ("float", "int8"):
            raise ValueError(f'kind={kind!r}: wanted "float" or "int8"')
        k = tuple(buffer(rows, heads, head_width, slots) for _ in range(layers))
        v = tuple(buffer(rows, heads, slots, head_width) for _ in range(layers))
        position_BS = jnp.zeros((rows, slots), jnp.int32) if positions else None
        return cls(k, v, jnp.full((rows, slots), HIDDEN, jnp.int32), jnp.zeros((rows,), jnp.int32), position_BS)


def rewind(cache: Cache, length_B: Array) -> Cache:
    """The cache whose rows have read their first length_B tokens only; what they read after is hidden, and written over by what comes."""
    kept_BS = jnp.arange(cache.rank_BS.shape[1])[None] < length_B[:, None]
    return cache.replace(rank_BS=jnp.where(kept_BS, cache.rank_BS, HIDDEN), length_B=jnp.minimum(cache.length_B, length_B))


def narrow(cache: Cache, slots: int) -> Cache:
    """The same cache without the slots behind the first `slots`, which the caller knows to be empty."""
    k = jax.tree.map(lambda leaf: leaf[..., :slots], cache.k)
    v = jax.tree.map(lambda leaf: leaf[:, :, :slots], cache.v)
    rank_BS, position_BS = jax.tree.map(lambda leaf: leaf[:, :slots], (cache.rank_BS, cache.position_BS))
    return Cache(k, v, rank_BS, cache.length_B, position_BS)


def widen(cache: Cache, slots: int) -> Cache:
    """The same cache with room for `slots` tokens a row."""
    more = slots - cache.rank_BS.shape[1]
    if more < 0:
        raise ValueError(f"slots={slots}: the cache has {cache.rank_BS.shape[1]} already; a cache can only grow")

    def pad(axis, fill=0):
        return lambda leaf: jnp.pad(
            leaf, [(0, more if place == axis % leaf.ndim else 0) for place in range(leaf.ndim)], constant_values=fill
        )

    position_BS = jax.tree.map(pad(1), cache.position_BS)
    return Cache(jax.tree.map(pad(-1), cache.k), jax.tree.map(pad(2), cache.v), pad(1, HIDDEN)(cache.rank_BS), cache.length_B, position_BS)


@struct.dataclass
class Sight:
    """What the queries of one call may see, the same in every layer: one mask a cache, and the slots their own keys go to."""

    masks: tuple[Array, ...]  # mask_BTS of each cache, with that cache's rows: n samples lie side by side on T
    slot_BT: Array | None
    distances: tuple[Array, ...] | None = None  # distance_BTS of each cache, position of the key - that of the query
    angle_BTK: Array | None = None  # by which queries and keys are turned
    vectors: tuple[Array, ...] | None = None  # vector_BTSK of each cache, added to keys and values


def place(buffer_BS: Array, value_BT: Array, slot_BT: Array) -> Array:
    """buffer_BS with value_BT written into slot_BT; slots beyond the buffer are dropped."""
    return jax.vmap(lambda buffer_S, value_T, slot_T: buffer_S.at[slot_T].set(value_T, mode="drop"))(buffer_BS, value_BT, slot_BT)


def append(k: Buffer, v: Buffer, k_BTHK: Array, v_BTHK: Array, slot_BT: Array) -> tuple[Buffer, Buffer]:
    """One layer's buffers with new keys and values in their slots; int8 buffers round them, each head of each token by its own scale."""

    def in_columns(buffer_BHKS, new_BHKT):
        return jax.vmap(lambda k_HKS, k_HKT, slot_T: k_HKS.at[:, :, slot_T].set(k_HKT, mode="drop"))(buffer_BHKS, new_BHKT, slot_BT)

    def in_rows(buffer_BHS, new_BHT):
        return jax.vmap(lambda v_HS, v_HT, slot_T: v_HS.at[:, slot_T].set(v_HT, mode="drop"))(buffer_BHS, new_BHT, slot_BT)

    if slot_BT.size == 1:
        # XLA's CPU makes slices of a scatter that writes one place, and copies the whole buffer then; the second place is beyond it.
        k_BTHK, v_BTHK = jnp.repeat(k_BTHK, 2, axis=1), jnp.repeat(v_BTHK, 2, axis=1)
        slot_BT = jnp.pad(slot_BT, ((0, 0), (0, 1)), constant_values=jax.tree.leaves(v)[0].shape[2])
    # What is not finite lives on in the key, which a mask hides. In a value it would leak from hidden slots by 0 x NaN.
    finite_BTH1 = (jnp.isfinite(k_BTHK) & jnp.isfinite(v_BTHK)).all(axis=-1, keepdims=True)
    k_BTHK, v_BTHK = jnp.where(finite_BTH1, k_BTHK, jnp.nan), jnp.where(finite_BTH1, v_BTHK, 0)
    if not isinstance(k, quantized.Codes):
        return in_columns(k, k_BTHK.transpose(0, 2, 3, 1)), in_rows(v, v_BTHK.transpose(0, 2, 1, 3))
    new_k, new_v = quantized.code(k_BTHK), quantized.code(v_BTHK)
    k_scale_BHS, v_scale_BHS = (in_rows(old.scale, new.scale.swapaxes(1, 2)) for old, new in ((k, new_k), (v, new_v)))
    return (
        quantized.Codes(in_columns(k.number, new_k.number.transpose(0, 2, 3, 1)), k_scale_BHS),
        quantized.Codes(in_rows(v.number, new_v.number.transpose(0, 2, 1, 3)), v_scale_BHS),
    )


def fold(x_BT: Array, rows: int) -> Array:
    """The samples of one prompt laid side by side: (B, T, ...) to (rows, B // rows * T, ...)."""
    return x_BT.reshape(rows, x_BT.shape[0] // rows * x_BT.shape[1], *x_BT.shape[2:])


def look(
    rank_BT: Array, valid_BT: Array, caches: tuple[Cache, ...], floor_BT: Array | None = None, position_BT: Array | None = None
) -> tuple[Sight, Cache | None]:
    """The sight of new tokens, and the last cache with their ranks and lengths entered (its keys and values follow layer by layer).

    position_BT: given where the sight is to hold distances; the caches then keep positions.
    """

    def of_query(number_BT, key_BS):
        return fold(number_BT, len(key_BS))[:, :, None]

    def mask(key_BS):
        mask_BTS = key_BS[:, None, :] <= of_query(query_BT, key_BS)
        return mask_BTS if floor_BT is None else mask_BTS & (of_query(floor_BT, key_BS) <= key_BS[:, None, :])

    def distances(*positions):
        return None if position_BT is None else tuple(key_BS[:, None, :] - of_query(position_BT, key_BS) for key_BS in positions)

    query_BT = jnp.where(valid_BT, rank_BT, 0)
    key_BT = jnp.where(valid_BT, rank_BT, HIDDEN)
    if not caches:
        return Sight((mask(key_BT),), None, distances(position_BT)), None
    last = caches[-1]
    count_BT = jnp.cumsum(valid_BT, axis=1, dtype=jnp.int32)
    slot_BT = jnp.where(valid_BT, last.length_B[:, None] + count_BT - 1, last.rank_BS.shape[1])
    last = last.replace(rank_BS=place(last.rank_BS, key_BT, slot_BT), length_B=last.length_B + count_BT[:, -1])
    if position_BT is not None:
        last = last.replace(position_BS=place(last.position_BS, position_BT, slot_BT))
    seen = (*caches[:-1], last)
    return Sight(tuple(mask(cache.rank_BS) for cache in seen), slot_BT, distances(*(cache.position_BS for cache in seen))), last


def attend(
    q_BTHK: Array,
    keys: tuple[Buffer, ...],
    values: tuple[Buffer, ...],
    masks: tuple[Array, ...],
    *,
    scale: float | None = None,
    biases: tuple[Array, ...] | None = None,
    vectors: tuple[Array, ...] | None = None,
) -> Array:
    """softmax(scale q k) v over all caches together, in float32 (Vaswani et al. 2017, eq. 1); (B, T, H, K).

    scale: by default 1 / sqrt(K). biases: bias_BHTS of each cache, added to the scaled scores (T5). vectors: vector_BTSK of each cache,
    added to the keys and values that a query sees (Shaw et al. 2018, NEZHA). Both have their cache's rows, as the masks do.
    """
    rows, steps, _, width = q_BTHK.shape
    scale = width**-0.5 if scale is None else scale
    if 1 < steps <= FEW_STEPS and jax.default_backend() == "cpu":
        # Four steps at once take XLA's CPU four times as long as one after the other, and have other bits.
        biases_BTHS = None if biases is None else tuple(bias_BHTS.swapaxes(1, 2) for bias_BHTS in biases)
        each = []
        for step in range(steps):
            own = _steps(biases_BTHS, steps, step)
            given = {"scale": scale, "biases": own and tuple(bias_BTHS.swapaxes(1, 2) for bias_BTHS in own)}
            given["vectors"] = _steps(vectors, steps, step)
            each.append(attend(q_BTHK[:, step : step + 1], keys, values, _steps(masks, steps, step), **given))
        return jnp.concatenate(each, axis=1)
    all_scores = []
    for number, (k_BHKS, mask_BTS) in enumerate(zip(keys, masks, strict=True)):
        folded_BTHK = fold(q_BTHK, len(mask_BTS))
        s_BHTS = _scores(folded_BTHK, k_BHKS)
        if vectors is not None:
            vector_BTSK = vectors[number]
            s_BHTS += blocks.einsum("BTHK,BTSK->BHTS", folded_BTHK, vector_BTSK)
        s_BHTS = s_BHTS * scale if biases is None else s_BHTS * scale + biases[number]
        s_BHTS = jnp.where(mask_BTS[:, None], s_BHTS, MASKED)
        all_scores.append(_unfold(s_BHTS.swapaxes(1, 2), rows, steps))
    weight_BTHS = jax.nn.softmax(jnp.concatenate(all_scores, axis=-1), axis=-1).astype(q_BTHK.dtype)
    out_BTHK, start = 0, 0
    for number, (v_BHSK, mask_BTS) in enumerate(zip(values, masks, strict=True)):
        part_BTHS = fold(weight_BTHS[..., start : start + mask_BTS.shape[2]], len(mask_BTS))
        mixed_BTHK = _mix(part_BTHS, v_BHSK)
        if vectors is not None:
            vector_BTSK = vectors[number]
            mixed_BTHK += blocks.einsum("BTHS,BTSK->BTHK", part_BTHS, vector_BTSK)
        out_BTHK += _unfold(mixed_BTHK, rows, steps)
        start += mask_BTS.shape[2]
    return out_BTHK.astype(q_BTHK.dtype)


def _steps(parts: tuple[Array, ...] | None, steps: int, step: int) -> tuple[Array, ...] | None:
    """One step of each of the samples that lie side by side on T, in every array."""
    return None if parts is None else tuple(x_BT.reshape(len(x_BT), -1, steps, *x_BT.shape[2:])[:, :, step] for x_BT in parts)


# The buffer is named first: the other way round XLA's CPU turns it at every step of one row, .35 ms in place of .08 for 1,024 slots.


def _scores(q_BTHK: Array, k_BHKS: Buffer) -> Array:
    return quantized.scores(q_BTHK, k_BHKS) if isinstance(k_BHKS, quantized.Codes) else blocks.einsum("BHKS,BTHK->BHTS", k_BHKS, q_BTHK)


def _mix(weight_BTHS: Array, v_BHSK: Buffer) -> Array:
    if isinstance(v_BHSK, quantized.Codes):
        return quantized.mix(weight_BTHS, v_BHSK)
    return blocks.einsum("BHSK,BTHS->BTHK", v_BHSK, weight_BTHS)


@jax.custom_vjp
def attend_once(q_BTHK: Array, k_BSHK: Array, v_BSHK: Array, mask_BTS: Array) -> Array:
    """`attend` without a cache, as training does: nothing is turned round, and backward only the weights are kept, in the type of q."""
    return _attend_once_forward(q_BTHK, k_BSHK, v_BSHK, mask_BTS)[0]


def _attend_once_forward(q_BTHK, k_BSHK, v_BSHK, mask_BTS):
    s_BHTS = blocks.einsum("BTHK,BSHK->BHTS", q_BTHK, k_BSHK) * q_BTHK.shape[-1] ** -0.5
    weight_BHTS = jax.nn.softmax(jnp.where(mask_BTS[:, None], s_BHTS, MASKED), axis=-1).astype(q_BTHK.dtype)
    out_BTHK = blocks.einsum("BHTS,BSHK->BTHK", weight_BHTS, v_BSHK).astype(q_BTHK.dtype)
    return out_BTHK, (q_BTHK, k_BSHK, v_BSHK, mask_BTS, weight_BHTS)


def _attend_once_backward(kept, slope_BTHK):
    q_BTHK, k_BSHK, v_BSHK, mask_BTS, weight_BHTS = kept
    dtype = q_BTHK.dtype
    v_slope_BSHK = blocks.einsum("BHTS,BTHK->BSHK", weight_BHTS, slope_BTHK, dtype)
    weight_slope_BHTS = blocks.einsum("BTHK,BSHK->BHTS", slope_BTHK, v_BSHK)
    wide_BHTS = weight_BHTS.astype(jnp.float32)
    mean_BHT1 = jnp.sum(wide_BHTS * weight_slope_BHTS, axis=-1, keepdims=True)
    s_slope_BHTS = wide_BHTS * (weight_slope_BHTS - mean_BHT1) * q_BTHK.shape[-1] ** -0.5
    s_slope_BHTS = jnp.where(mask_BTS[:, None], s_slope_BHTS, 0).astype(dtype)  # a query that sees nothing has weights all the same
    q_slope_BTHK = blocks.einsum("BHTS,BSHK->BTHK", s_slope_BHTS, k_BSHK, dtype)
    return q_slope_BTHK, blocks.einsum("BHTS,BTHK->BSHK", s_slope_BHTS, q_BTHK, dtype), v_slope_BSHK, None


attend_once.defvjp(_attend_once_forward, _attend_once_backward)


def _unfold(x_BTHS: Array, rows: int, steps: int) -> Array:
    return x_BTHS.reshape(rows, steps, *x_BTHS.shape[2:])


class Attention(nn.Module):
    """Multi-head attention whose new keys and values are appended to the last of `buffers`, a (k_BHKS, v_BHSK) pair per cache.

    Gives the grown pair too, () without buffers.
    """

    heads: int
    init_range: float
    bias: bool = True

    @nn.compact
    def __call__(self, x_BTD: Array, buffers: tuple[tuple[Buffer, Buffer], ...], sight: Sight) -> tuple[Array, tuple[Buffer, Buffer]]:
        width = x_BTD.shape[-1]

        def project(name):
            y_BTD = blocks.Dense(width, self.init_range, self.bias, name=name)(x_BTD)
            return y_BTD.reshape(*y_BTD.shape[:2], self.heads, width // self.heads)

        q_BTHK, k_BTHK, v_BTHK = project("q"), project("k"), project("v")
        if sight.angle_BTK is not None:
            q_BTHK, k_BTHK = sinusoidal.turn(q_BTHK, sight.angle_BTK), sinusoidal.turn(k_BTHK, sight.angle_BTK)
        if buffers:
            *fixed, (k_BHKS, v_BHSK) = buffers
            grown = append(k_BHKS, v_BHSK, k_BTHK, v_BTHK, sight.slot_BT)
            keys, values = zip(*fixed, grown, strict=True)
            y_BTHK = attend(q_BTHK, keys, values, sight.masks, vectors=sight.vectors)
        elif sight.vectors is not None:
            k_BHKS, v_BHSK = k_BTHK.transpose(0, 2, 3, 1), v_BTHK.transpose(0, 2, 1, 3)
            y_BTHK, grown = attend(q_BTHK, (k_BHKS,), (v_BHSK,), sight.masks, vectors=sight.vectors), ()
        else:
            y_BTHK, grown = attend_once(q_BTHK, k_BTHK, v_BTHK, *sight.masks), ()
        y_BTD = blocks.Dense(width, self.init_range, self.bias, name="o")(y_BTHK.reshape(x_BTD.shape))
        return y_BTD, grown
