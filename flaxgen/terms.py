"""A rule meets a vocabulary: texts become ids, and what the two cannot mean together is refused."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from flaxgen import rules
from flaxgen.rules import Rule
from flaxgen.text import tables, wordpiece


@dataclasses.dataclass(frozen=True)
class Terms:
    """What one rule comes to with one vocabulary: token ids only, and checked."""

    limit: int
    end: tuple[int, ...]
    bias: dict[int, float]  # -inf for a banned id
    sequences: list[tuple[int, ...]]  # banned, of several tokens each
    constraint: tables.Table | None
    stop: tables.Table | None


def terms(rule: Rule, vocab: int, limit: int, end: Sequence[int], ban: Sequence[int], text: Any, after: Sequence[int]) -> Terms:
    end = tuple(dict.fromkeys(_checked("end", end if rule.end is None else rule.end, vocab)))
    sequences = [_ids("ban", entry, text) if isinstance(entry, str) else entry for entry in rule.ban]
    for ids in sequences:
        _checked("ban", ids, vocab)
    rules.check_sequences(rule, sequences)
    banned = {ids[0] for ids in sequences if len(ids) == 1}
    banned |= set(_checked("ban", ban, vocab)) - set(rule.end or ())
    bias = _bias(rule, vocab, banned, text)
    banned = {i for i, value in bias.items() if value == -np.inf}
    limit = _check_limit(rule, limit)
    _check_ends(rule, vocab, set(end), banned)
    longer = [ids for ids in sequences if len(ids) > 1]
    return Terms(limit, end, bias, longer, _constraint(rule, limit, banned | set(end), text), _stop(rule, text, after))


def _checked(name: str, ids: Sequence[int], vocab: int) -> Sequence[int]:
    for i in ids:
        if not rules.is_id(i) or i >= vocab:
            raise ValueError(f"{name}: token id {i!r} is not in the model's vocabulary; wanted ids from 0 to {vocab - 1}")
    return ids


def _ids(name: str, piece: str, text: Any) -> tuple[int, ...]:
    _need_text(name, text)
    ids = tuple(text.encode(piece))
    if not ids or text.control.get(wordpiece.UNKNOWN) in ids:
        raise ValueError(f"Rule({name}): the vocabulary cannot spell {piece!r}; use token ids, or a text that it can")
    return ids


def _need_text(name: str, text: Any) -> None:
    if text is None:
        raise ValueError(f"Rule({name}=…) is about text, and this model has no vocabulary; convert it with --vocab FILE, or use token ids")


def _bias(rule: Rule, vocab: int, banned: Collection[int], text: Any) -> dict[int, float]:
    """What is added to each token, -inf where it is banned."""
    found: dict[int, float] = {}
    for token, value in rule.logit_bias.items():
        ids = _ids("logit_bias", token, text) if isinstance(token, str) else (token,)
        if len(ids) != 1:
            raise ValueError(f"Rule(logit_bias): {token!r} is {len(ids)} tokens, {list(ids)}; wanted a text that is one token, or ids")
        (i,) = _checked("logit_bias", ids, vocab)
        if found.get(i, value) != value:
            raise ValueError(f"Rule(logit_bias): token {i} is given {found[i]} and, as {token!r}, {value}; wanted one number a token")
        if i in banned and value > 0:
            raise ValueError(f"Rule(logit_bias, ban): token {i} has a logit_bias of {value} and is banned; use one of the two")
        found[i] = value
    return found | dict.fromkeys(sorted(banned), -np.inf)


def _check_limit(rule: Rule, limit: int) -> int:
    if rule.min_tokens > limit:
        raise ValueError(f"Rule(min_tokens={rule.min_tokens}) is more than tokens={limit}; ask for more tokens, or lower min_tokens")
    return limit if rule.max_tokens is None else min(limit, rule.max_tokens)


def _check_ends(rule: Rule, vocab: int, end: set[int], banned: set[int]) -> None:
    if len(banned) == vocab:
        raise ValueError(f"ban: all {vocab} tokens of the vocabulary are banned; leave at least one")
    if rule.min_tokens and len(banned | end) == vocab:
        raise ValueError(f"Rule(min_tokens={rule.min_tokens}): all tokens but the ends are banned, so nothing can come before an end")
    if rule.min_ends > 1 and end <= banned:
        why = "there are no end tokens" if not end else f"its end tokens {sorted(end)} are all banned"
        raise ValueError(f"Rule(min_ends={rule.min_ends}) can never be met, since {why}; name some with end=, or leave min_ends at 1")


def _constraint(rule: Rule, limit: int, banned: Collection[int], text: Any) -> tables.Table | None:
    name = rules.constraint(rule)
    if name is None:
        return None
    _need_text(name, text)
    table = tables.constraint(text, regex=rule.regex, choices=rule.choices, banned=sorted(banned))
    if (least := int(table.left_Q[0])) > limit:
        field = "tokens" if rule.max_tokens is None or limit < rule.max_tokens else "max_tokens"
        raise ValueError(f"Rule({name}={getattr(rule, name)!r}) needs at least {least} tokens, {field}={limit}; ask for more tokens")
    return table


def _stop(rule: Rule, text: Any, after: Sequence[int]) -> tables.Table | None:
    if not rule.stop:
        return None
    _need_text("stop", text)
    if never := tables.unwritable(text, rule.stop):
        case = ", which knows no capital letters" if text.kind == "wordpiece" and text.case == "lower" else ""
        raise ValueError(
            f"Rule(stop): no tokens of this vocabulary of {len(text):,}{case}, make {', '.join(map(repr, never))}; "
            "leave it out, or write it as the model does"
        )
    return tables.stop(text, rule.stop, after=after)
