"""Prompts of several lengths as one padded batch, whose width is one of a few: so few programs are compiled."""

from collections.abc import Sequence

import numpy as np

SMALLEST = 16


def buckets(longest: int) -> tuple[int, ...]:
    """The widths for prompts up to `longest`: powers of two from 16, and `longest` itself."""
    powers = []
    while SMALLEST << len(powers) < longest:
        powers.append(SMALLEST << len(powers))
    return (*powers, longest)


def batch(
    prompts: Sequence[Sequence[int]],
    *,
    vocab: int,
    positions: int,
    new: int | Sequence[int] = 0,
    pad: int = 0,
    widths: Sequence[int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(token_BT, length_B): the prompts as rows of int32, padded on the right with `pad` to the smallest width that holds the longest.

        batch([[5, 6, 7], [8]], vocab=9, positions=64)  ->  [[5 6 7 0 … 0], [8 0 0 0 … 0]] of width 16, and [3 1]

    vocab: rows of the embedding. positions: the model's context, which must hold each prompt and `new` tokens more, a number or one a
    prompt. widths: by default `buckets(positions)`. A ValueError names the prompt that is empty, too long, or holds what is no id: JAX
    would read another row instead.
    """
    if not len(prompts):
        raise ValueError("prompts: got none, wanted at least one; give a list of lists of token ids")
    if not 0 <= pad < vocab:
        raise ValueError(f"pad: got {pad}, wanted an id from 0 to {vocab - 1}; give one of the model's ids")
    more = np.broadcast_to(new, (len(prompts),)).tolist()
    rows = [_checked(number, prompt, vocab, positions, more[number]) for number, prompt in enumerate(prompts)]
    widths = buckets(positions) if widths is None else tuple(widths)
    length_B = np.array([len(row) for row in rows], np.int32)
    fitting = [width for width in widths if width >= length_B.max()]
    if not fitting:
        raise ValueError(f"widths: got {widths}, none of which holds the longest prompt of {length_B.max()} ids; add a wider one")
    token_BT = np.full((len(rows), min(fitting)), pad, np.int32)
    for b, row in enumerate(rows):
        token_BT[b, : len(row)] = row
    return token_BT, length_B


def _checked(number: int, prompt: Sequence[int], vocab: int, positions: int, new: int) -> np.ndarray:
    if isinstance(prompt, str):
        raise ValueError(f"prompt {number}: got text, {prompt[:20]!r}, wanted token ids; encode it first")
    try:
        ids = np.asarray(prompt)
    except ValueError:
        raise ValueError(f"prompt {number}: got lists of several lengths, wanted one list of token ids; encode one text a prompt") from None
    if ids.size == 0:
        raise ValueError(f"prompt {number}: it is empty, wanted at least one token id; give the model something to continue")
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise ValueError(f"prompt {number}: got {ids.dtype} of shape {ids.shape}, wanted a list of whole numbers; encode one text a prompt")
    wrong = np.flatnonzero((ids < 0) | (ids >= vocab))
    if wrong.size:
        raise ValueError(
            f"prompt {number}: {wrong.size} ids are out of range, first {ids[wrong[0]]} at place {wrong[0]}; wanted 0 to {vocab - 1}: "
            "encode the text with this model's own vocabulary"
        )
    if ids.size + new > positions:
        raise ValueError(
            f"prompt {number}: {ids.size} ids and {new} new tokens make {ids.size + new}, the model's context holds {positions}; "
            + ("shorten the prompt or ask for fewer tokens" if new else "cut it into shorter ones")
        )
    return ids
