"""Attention that begins with induction heads, which otherwise take most of a small model's training to appear.

An induction head (Olsson et al. 2022, "In-context Learning and Induction Heads") continues `A B … A` with `B`; so a reader copies its
answers. Two layers make it: in the first a head looks at the token before its own, in the second a head looks for a token that stands
behind one like its own, and hands on what it finds. Here both are written into the kernels that a run begins with, and a mirror image of
them for what stands before; nothing is fixed, and training goes on from there.
"""

import numpy as np

from flaxgen import weights
from flaxgen.models import config
from flaxgen.protocols import Params

SHARP = 5.0  # at the nearest place a score leads by 5.6 of the next, which gives it nearly all of the attention
FAST = 3  # pairs of the rotary angles that tell neighbours apart
SLOW = 1 / 3  # of the pairs, from which on they turn by less than a radian over 50 tokens, and can compare what stands far apart
MATCH = 2.5  # of kernels that compare
HANDED = 0.1  # of what a head reads, so that it has the length of an embedding
COPIED = 0.4  # of what is handed on to the output
QUIET = 0.02  # of what else is written beside the embedding, which would bury it


def wire(params: Params, sizes: config.Config, seed: int) -> Params:
    """The parameters with such heads in the first two layers: of each, head 0 looks back, head 1 ahead, 2 and 3 likewise, and so on.

    Wanted: rotary positions, wiring "pre" and an even number of heads.
    """
    if sizes.position != "rotary" or sizes.wiring != "pre" or sizes.heads % 2 or sizes.layers < 2:
        raise ValueError(
            f"attention=induction with position={sizes.position} wiring={sizes.wiring} heads={sizes.heads} layers={sizes.layers}: "
            "wanted position=rotary wiring=pre, an even number of heads and two layers or more"
        )
    flat = {name: np.array(leaf) for name, leaf in weights.flatten(params).items()}
    for name, leaf in flat.items():
        if name.endswith(("o/kernel", "down/kernel", "segment/embedding")):
            leaf *= QUIET
    draw, width = np.random.default_rng(seed), sizes.head_width
    own_DD, near_DD, copied_DD = (np.linalg.qr(draw.normal(size=(sizes.width, sizes.width)))[0].astype(np.float32) for _ in range(3))
    first, second = ({name: flat[f"block_0{i}/attend/{name}"] for name in PARTS} for i in range(2))
    for head in range(sizes.heads):
        here = slice(head * width, (head + 1) * width)
        first["q/bias"][here], first["k/bias"][here] = neighbour(width, -1 if head % 2 == 0 else 1)
        first["q/kernel"][here] *= QUIET
        first["k/kernel"][here] *= QUIET
        first["v/kernel"][here] = own_DD[here]
        first["o/kernel"][:, here] = HANDED * near_DD[:, here]
        slow_K1 = (np.arange(width) >= SLOW * width)[:, None]
        second["q/kernel"][here] = MATCH * slow_K1 * own_DD[here]
        second["k/kernel"][here] = MATCH * slow_K1 * near_DD.T[here]
        second["v/kernel"][here] = copied_DD[here]
        second["o/kernel"][:, here] = COPIED * copied_DD.T[:, here]
    return weights.nest(flat)


PARTS = ("q/bias", "k/bias", "v/kernel", "o/kernel", "q/kernel", "k/kernel")


def neighbour(width: int, offset: int) -> tuple[np.ndarray, np.ndarray]:
    """Biases of queries and keys, whose product is greatest where a key stands `offset` places from its query."""
    frequency = 10000.0 ** (-2 * np.arange(FAST) / width)
    query, key = np.zeros(width, np.float32), np.zeros(width, np.float32)
    query[: 2 * FAST : 2] = SHARP
    key[: 2 * FAST : 2], key[1 : 2 * FAST : 2] = SHARP * np.cos(offset * frequency), -SHARP * np.sin(offset * frequency)
    return query, key
