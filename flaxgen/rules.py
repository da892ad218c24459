"""What a user may ask of the choice of tokens, checked on the host; `controls` turns it into what the device reads.

In this order: logit_bias and banned tokens, repetition, presence and frequency penalties, a user's own processors, n-grams and banned
sequences, min_tokens, regex or choices, temperature, top_k, top_p, top_p_below, min_p, typical_p. Each of the last five sees the
probabilities renormalised over what those before it kept.
"""

import dataclasses
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flaxgen.text import stop as stops
from flaxgen.text import tables

Numbers = Any  # a number, or one number a row


@dataclasses.dataclass(frozen=True)
class Rule:
    """How a token is chosen from logits. A numeric field is a number, or one number a row; changing one never recompiles.

    temperature: divides the logits; 0 takes the likeliest token. top_k: keeps the k likeliest; 0 keeps all.
    top_p: keeps the fewest likeliest tokens whose probabilities reach p, the crossing token among them (Holtzman et al. 2020, eq. 2).
    top_p_below: keeps tokens while the sum of probabilities stays below p, the crossing token dropped, the first always kept: the sampler
        of gpt2-ml. For probabilities .5 .3 .15 .05 and p = .7, top_p keeps two tokens and top_p_below one.
    min_p: keeps tokens at least min_p times as likely as the likeliest (Nguyen et al. 2024); 0 keeps all.
    typical_p: keeps the tokens whose surprise is nearest the entropy until they reach p, crossing token included (Meister et al. 2022).
    repetition_penalty: of tokens in prompt or answer, positive logits are divided by it and negative ones multiplied (Keskar et al. 2019).
    presence_penalty, frequency_penalty: taken from a logit once, and once for each time, the answer holds the token (as OpenAI has them).
    no_repeat_ngram: no n tokens in a row stand twice in prompt and answer; 0 allows all.
    min_tokens: end tokens are banned until this many have been drawn. max_tokens: the most that are drawn, None for the request's own.
    min_ends: a row ends at its so-manieth end token.
    logit_bias: number added to the logit of a token, which is an id or a text that is one token; -inf bans it.
    ban: token ids, sequences of ids, and texts, encoded as they stand alone, never drawn.
    end: ids that end a row, None for the model's own. stop: texts that end a row once they stand in its text.
    regex, choices: the text matches it whole (re.fullmatch), or is one of them.
    """

    temperature: Numbers = 1.0
    top_k: Numbers = 0
    top_p: Numbers = 1.0
    top_p_below: Numbers = 1.0
    min_p: Numbers = 0.0
    typical_p: Numbers = 1.0
    repetition_penalty: Numbers = 1.0
    presence_penalty: Numbers = 0.0
    frequency_penalty: Numbers = 0.0
    no_repeat_ngram: Numbers = 0
    min_tokens: Numbers = 0
    max_tokens: Numbers = None
    min_ends: Numbers = 1
    logit_bias: Mapping[int | str, float] = dataclasses.field(default_factory=dict)
    ban: Sequence[int | str | Sequence[int]] = ()
    end: Sequence[int] | None = None
    stop: Sequence[str] = ()
    regex: str | None = None
    choices: Sequence[str] | None = None

    def replace(self, **changes) -> "Rule":
        return dataclasses.replace(self, **changes)

    def check(self) -> None:
        """ValueError names the field and its range, or the two fields that contradict each other, where this is no rule of one row."""
        spread(self, 1)


_MOST = 2**31 - 1
_RANGES = {
    "temperature": (np.float32, 0.0, 1e4),
    "top_k": (np.int32, 0, _MOST),
    "top_p": (np.float32, 0.0, 1.0),
    "top_p_below": (np.float32, 0.0, 1.0),
    "min_p": (np.float32, 0.0, 1.0),
    "typical_p": (np.float32, 0.0, 1.0),
    "repetition_penalty": (np.float32, 1e-4, 1e4),
    "presence_penalty": (np.float32, -1e4, 1e4),
    "frequency_penalty": (np.float32, -1e4, 1e4),
    "no_repeat_ngram": (np.int32, 0, _MOST),
    "min_tokens": (np.int32, 0, _MOST),
    "max_tokens": (np.int32, 1, _MOST),
    "min_ends": (np.int32, 1, _MOST),
}
BIAS = 1e4  # the largest logit_bias either way, but for -inf


def spread(rule: Rule | Sequence[Rule], rows: int) -> list[Rule]:
    """One checked Rule of single numbers a row, from a Rule whose fields may hold a number a row, or from a list of `rows` Rules."""
    if isinstance(rule, Rule):
        columns = {name: _column(name, getattr(rule, name), rows) for name in _RANGES}
        lists = {"logit_bias": _biases(rule.logit_bias), "ban": _banned(rule.ban), "end": _ends(rule.end)}
        lists |= {"stop": _stops(rule.stop), "choices": _choices(rule.choices)}
        if rule.regex is not None and not isinstance(rule.regex, str):
            raise ValueError(f"Rule(regex={rule.regex!r}): wanted a regular expression as text")
        found = [rule.replace(**{name: column[row] for name, column in columns.items()}, **lists) for row in range(rows)]
    else:
        if len(rule) != rows or not all(isinstance(one, Rule) for one in rule):
            kinds = ", ".join(sorted({type(one).__name__ for one in rule}))
            raise ValueError(f"rules: got {len(rule)} of {kinds or 'nothing'}, wanted a flaxgen.Rule, or a list of {rows}, one a row")
        found = [spread(one, 1)[0] for one in rule]
    for one in found:
        _check_contradictions(one)
    return found


def as_json(fields: Mapping | None) -> dict | None:
    """Fields of a Rule, checked, as a config.json holds them.

    logit_bias stands there as pairs, [[198, -5.0], ["5", "-inf"]]: the keys of JSON are texts only, and it knows no infinity.
    """
    if fields is None:
        return None
    known = [field.name for field in dataclasses.fields(Rule)]
    if not isinstance(fields, Mapping) or not set(known).issuperset(fields):
        raise ValueError(f"rule={fields!r}: wanted a dict of fields of flaxgen.Rule, which are {', '.join(known)}")
    (checked,) = spread(Rule(**fields), 1)
    found = {name: getattr(checked, name) for name in fields} | {
        name: np.asarray(value).reshape(()).item() for name, value in fields.items() if name in _RANGES
    }
    if "logit_bias" in found:
        found["logit_bias"] = [[token, "-inf" if value == -np.inf else value] for token, value in found["logit_bias"].items()]
    return found


def of_json(fields: dict) -> Rule:
    """The checked Rule of such fields; TypeError or ValueError for what is none."""
    if not isinstance(fields, dict):
        raise TypeError(f"got {fields!r}, wanted an object with fields of a Rule")
    if isinstance(biases := fields.get("logit_bias"), list):
        fields = fields | {"logit_bias": {token: -np.inf if value == "-inf" else value for token, value in biases}}
    rule = Rule(**fields)
    rule.check()
    return rule


def _column(name: str, value, rows: int) -> list:
    if name == "max_tokens" and value is None:
        return [None] * rows
    kind, low, high = _RANGES[name]
    least, most = min(low, float(kind(low))), max(high, float(kind(high)))  # a column that was checked before has been rounded
    what = "a whole number" if kind is np.int32 else "a number"
    try:
        column = np.asarray(value)
        whole = np.issubdtype(column.dtype, np.integer)
        good = whole or (kind is np.float32 and np.issubdtype(column.dtype, np.floating))
        good = good and column.shape in ((), (rows,)) and bool(np.all((column >= least) & (column <= most)))
    except (TypeError, ValueError):
        good = False
    if not good:
        each = "" if isinstance(value, numbers.Number) else f", or one for each of the {rows} rows"
        raise ValueError(f"Rule({name}={value!r}): wanted {what} from {low} to {high}{each}")
    return np.broadcast_to(column, (rows,)).astype(kind).tolist()


def is_id(value) -> bool:
    """Whether this is a whole number that may be a token id; True and False are not."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and value >= 0


def _biases(biases) -> dict[int | str, float]:
    if not isinstance(biases, Mapping):
        raise ValueError(f"Rule(logit_bias={biases!r}): wanted a mapping from token to number, as {{198: -5.0}}")
    for token, value in biases.items():
        if not is_id(token) and not isinstance(token, str):
            raise ValueError(f"Rule(logit_bias={{{token!r}: …}}): wanted a token id, or a text that is one token")
        real = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not (real and (abs(value) <= BIAS or value == -np.inf)):
            raise ValueError(f"Rule(logit_bias={{{token!r}: {value!r}}}): wanted a number from {-BIAS} to {BIAS}, or -inf to ban the token")
    return {token if isinstance(token, str) else int(token): float(value) for token, value in biases.items()}


def _banned(entries) -> tuple:
    """Texts as they are, ids as tuples of one."""
    entries = (entries,) if isinstance(entries, str) else entries
    found = []
    for entry in _listed("ban", entries, "token ids, lists of ids and texts"):
        if isinstance(entry, str):
            good = bool(entry)
        else:
            entry = (entry,) if isinstance(entry, numbers.Number) else tuple(_listed("ban", entry, "token ids, lists of ids and texts"))
            good = bool(entry) and all(map(is_id, entry))
        if not good:
            raise ValueError(f"Rule(ban): got {entry!r}, wanted a token id, a list of ids or a text, none of them empty")
        found.append(entry if isinstance(entry, str) else tuple(map(int, entry)))
    return tuple(found)


def _ends(ids) -> tuple[int, ...] | None:
    if ids is None:
        return None
    for i in _listed("end", ids, "token ids"):
        if not is_id(i):
            raise ValueError(f"Rule(end): got {i!r}, wanted a token id")
    return tuple(map(int, ids))


def _stops(texts) -> tuple[str, ...]:
    texts = [texts] if isinstance(texts, str) else _listed("stop", texts, "texts")
    return stops.checked(texts) if texts else ()


def _choices(texts) -> tuple[str, ...] | None:
    return None if texts is None else tables.checked(_listed("choices", texts, "texts"))


def _listed(name: str, value, what: str) -> Sequence:
    if not isinstance(value, Sequence | np.ndarray | set | frozenset) or isinstance(value, str | bytes):
        raise ValueError(f"Rule({name}={value!r}): wanted a list of {what}")
    return list(value)


def _check_contradictions(rule: Rule) -> None:
    if rule.max_tokens is not None and rule.min_tokens > rule.max_tokens:
        raise ValueError(f"Rule(min_tokens={rule.min_tokens}, max_tokens={rule.max_tokens}): wanted no more at least than at most")
    if rule.regex is not None and rule.choices is not None:
        raise ValueError(f"Rule(regex={rule.regex!r}, choices=…): wanted one of the two; a list of choices is the regex 'one|two|…'")
    held = constraint(rule)
    if held is None:
        return
    for name, neutral in (("min_tokens", 0), ("min_ends", 1), ("no_repeat_ngram", 0)):
        if (got := getattr(rule, name)) != neutral:
            raise ValueError(f"Rule({held}=…, {name}={got}): the text that must match leaves no room for {name}; use one of the two")
    if rule.stop:
        raise ValueError(f"Rule({held}=…, stop={rule.stop!r}): a text cut short at a stop string need not match {held}; use one of the two")
    check_sequences(rule, [entry for entry in rule.ban if not isinstance(entry, str)])


def constraint(rule: Rule) -> str | None:
    """The name of the field that binds the text of the row, if one does."""
    return "regex" if rule.regex is not None else "choices" if rule.choices is not None else None


def check_sequences(rule: Rule, sequences: Sequence[Sequence[int]]) -> None:
    """ValueError where a row whose text is bound bans a sequence of several tokens, on which a match might depend."""
    several = [list(ids) for ids in sequences if len(ids) > 1]
    if constraint(rule) is not None and several:
        raise ValueError(
            f"Rule({constraint(rule)}=…, ban=…): ban holds a sequence of {len(several[0])} tokens, {several[0]}; "
            "beside a text that must match, ban single tokens only"
        )
