"""Rules as the device reads them: one entry a row, in three compiled families and a few buckets of lengths."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from flaxgen import automata, terms
from flaxgen import rules as asked
from flaxgen.protocols import Array
from flaxgen.rules import Rule

# Each family holds what the ones before it do; a field that a rule leaves alone has its neutral number, which changes no bit.
Family = Literal["plain", "full", "constrained"]
ENDS = 4
BIASES = 16  # and four times as many, as often as needed
SEQUENCES = ((8, 8), (32, 16), (128, 32))  # so many of so many tokens


@struct.dataclass
class Full:
    """The rarer fields of a Rule."""

    min_p_B: Array
    typical_p_B: Array
    repetition_B: Array
    presence_B: Array
    frequency_B: Array
    no_repeat_B: Array
    ban_BEN: Array  # banned sequences of several tokens, -1 to the left of shorter ones


@struct.dataclass
class Controls:
    temperature_B: Array
    top_k_B: Array
    top_p_B: Array
    top_p_below_B: Array
    min_tokens_B: Array
    limit_B: Array  # tokens to draw at most
    min_ends_B: Array
    end_BE: Array  # ids that end the row, -1 where the list is shorter
    bias_id_BE: Array  # likewise
    bias_value_BE: Array  # -inf for a banned id
    full: Full | None
    constraint: automata.Tables | None
    stop: automata.Tables | None


def family(rules: Sequence[Rule]) -> Family:
    """The least family that holds these rules, which are as `rules.spread` gives them."""
    if any(rule.stop or asked.constraint(rule) for rule in rules):
        return "constrained"
    return "full" if any(map(_needs_full, rules)) else "plain"


def _needs_full(rule: Rule) -> bool:
    neutral = Rule()
    numbers = ("min_p", "typical_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "no_repeat_ngram")
    longer = any(isinstance(entry, str) or len(entry) > 1 for entry in rule.ban)
    return longer or any(getattr(rule, name) != getattr(neutral, name) for name in numbers)


def controls(
    rules: Sequence[Rule],
    *,
    vocab: int,
    limit: int | Sequence[int],
    end: Sequence[int] = (),
    ban: Sequence[int] = (),
    text: Any = None,
    family: Family | None = None,
    after: Sequence[Sequence[int]] | None = None,
) -> Controls:
    """The controls of a batch, one row a rule; ValueError for whatever a rule, or two fields of it, cannot mean here.

    limit: the request's number of tokens. end, ban: the model's own, for every row; a rule's `end` takes the place of the former, and is
    never among the latter. text: the tokenizer, which texts, stop, regex and choices need. family: a wider one than these rules need,
    by default the least. after: the ids of each row's prompt; how the answer's text begins may depend on them, and stop strings see it.
    """
    rules = asked.spread(rules, len(rules))
    limit_B = np.asarray(limit)
    if limit_B.dtype.kind not in "iu" or limit_B.shape not in ((), (len(rules),)) or limit_B.min() < 1:
        raise ValueError(f"tokens={limit!r}: wanted a whole number of at least 1, or one for each of the {len(rules)} rows")
    limit_B = np.broadcast_to(limit_B, (len(rules),))
    family = _checked_family(rules, family)
    after = after if after is not None else [()] * len(rules)
    rows = [_numbered(b, rules, terms.terms, rule, vocab, int(limit_B[b]), end, ban, text, after[b]) for b, rule in enumerate(rules)]

    def column(name: str, kind: type) -> np.ndarray:
        return np.array([getattr(rule, name) for rule in rules], kind)

    bias_id_BE, bias_value_BE = _sparse([row.bias for row in rows])
    return Controls(
        temperature_B=column("temperature", np.float32),
        top_k_B=column("top_k", np.int32),
        top_p_B=column("top_p", np.float32),
        top_p_below_B=column("top_p_below", np.float32),
        min_tokens_B=column("min_tokens", np.int32),
        limit_B=np.array([row.limit for row in rows], np.int32),
        min_ends_B=column("min_ends", np.int32),
        end_BE=_listed([row.end for row in rows]),
        bias_id_BE=bias_id_BE,
        bias_value_BE=bias_value_BE,
        full=None if family == "plain" else _full(column, [row.sequences for row in rows]),
        constraint=automata.stacked([row.constraint for row in rows], vocab) if family == "constrained" else None,
        stop=automata.stacked([row.stop for row in rows], vocab) if family == "constrained" else None,
    )


def bias(controls: Controls, vocab: int) -> Array:
    """bias_BV: what is added to the logits, dense; made once a request."""
    at_BE = jnp.where(controls.bias_id_BE >= 0, controls.bias_id_BE, vocab)
    return jax.vmap(lambda at_E, value_E: jnp.zeros((vocab,), jnp.float32).at[at_E].add(value_E, mode="drop"))(
        at_BE, controls.bias_value_BE
    )


def _checked_family(rules: Sequence[Rule], wanted: Family | None) -> Family:
    least, names = family(rules), get_args(Family)
    if wanted is None:
        return least
    if wanted not in names or names.index(wanted) < names.index(least):
        raise ValueError(f"family={wanted!r}: wanted {least!r}, which these rules need, or a later one of {', '.join(names)}")
    return wanted


def _numbered(b: int, rules: Sequence[Rule], make, *args):
    """make(*args), its ValueError naming row b where there are several."""
    if len(rules) == 1:
        return make(*args)
    try:
        return make(*args)
    except ValueError as error:
        raise ValueError(f"row {b}: {error}") from error


def _listed(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Lists side by side, -1 where one is shorter, as wide as the longest asks for in buckets of ENDS."""
    padded = np.full((len(rows), -(-max(1, *map(len, rows)) // ENDS) * ENDS), -1, np.int32)
    for row, ids in zip(padded, rows, strict=True):
        row[: len(ids)] = ids
    return padded


def bias_bucket(count: int) -> int:
    """The width of a list of so many biases."""
    width = BIASES
    while width < count:
        width *= 4
    return width


def _sparse(rows: Sequence[dict[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    width = bias_bucket(max(map(len, rows)))
    bias_id_BE, bias_value_BE = np.full((len(rows), width), -1, np.int32), np.zeros((len(rows), width), np.float32)
    for b, row in enumerate(rows):
        bias_id_BE[b, : len(row)] = list(row)
        bias_value_BE[b, : len(row)] = list(row.values())
    return bias_id_BE, bias_value_BE


def _full(column, sequences: Sequence[Sequence[tuple[int, ...]]]) -> Full:
    most, longest = max(map(len, sequences)), max((len(ids) for row in sequences for ids in row), default=0)
    bucket = next((size for size in SEQUENCES if most <= size[0] and longest <= size[1]), None)
    if bucket is None:
        raise ValueError(
            f"Rule(ban): got {most} sequences of at most {longest} tokens; wanted at most {SEQUENCES[-1][0]} of at most {SEQUENCES[-1][1]}"
        )
    ban_BEN = np.full((len(sequences), *bucket), -1, np.int32)
    for b, row in enumerate(sequences):
        for e, ids in enumerate(row):
            ban_BEN[b, e, -len(ids) :] = ids
    return Full(
        min_p_B=column("min_p", np.float32),
        typical_p_B=column("typical_p", np.float32),
        repetition_B=column("repetition_penalty", np.float32),
        presence_B=column("presence_penalty", np.float32),
        frequency_B=column("frequency_penalty", np.float32),
        no_repeat_B=column("no_repeat_ngram", np.int32),
        ban_BEN=ban_BEN,
    )
