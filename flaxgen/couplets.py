"""An upper line in, lower lines out: the couplet writer as something to call."""

import dataclasses
import importlib.resources
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from flaxgen import assignment, loop, weights
from flaxgen.chains import direct
from flaxgen.errors import Mismatch
from flaxgen.protocols import Params
from flaxgen.text import antithesis, characters, tones
from flaxgen.text.antithesis import Rules

ARTICLE = antithesis.ARTICLE
ROWS = (64, 8, 1)  # lines of one length that are read together: as many as there are, in three sizes, so that nothing is padded
TRAINED = 16  # characters of the longest lines that recipe `couplet` trains on
LONGEST = 64
# Punctuation is kept as it was typed; the model reads it as it stands in books.
FULL_WIDTH = str.maketrans(",;:!?.", "，；：！？。")


def bundled() -> pathlib.Path:
    """The folder of the couplet model that comes with flaxgen."""
    return pathlib.Path(str(importlib.resources.files("flaxgen"))) / "bundled" / "couplet"


@dataclasses.dataclass(frozen=True)
class Couplet:
    """An upper line and a lower one, `text`.

    score: log-probability of the lower line, punctuation not counted, in the model's own distribution, before the rules. alternatives: for
    every place the likeliest characters that the rules allow there by themselves, with the model's probabilities, as many as were asked
    for; none at punctuation. unknown: characters of the upper line that the model does not know; it reads them all as one.
    """

    upper: str
    text: str
    score: float
    alternatives: list[list[tuple[str, float]]]
    unknown: str


class Couplets:
    """Answers the upper line of a couplet with lower ones.

    >>> couplets = Couplets()                                    # the small model that comes with flaxgen
    >>> couplets("晚风摇树树还挺")[0].text
    >>> couplets("晚风摇树树还挺", best=5, rules=flaxgen.couplets.ARTICLE)   # five, by the article's one rule
    """

    def __init__(self, model: Any = None, params: Params = None, text: Any = None):
        if model is None:
            model, params, text = weights.load(bundled())
        if text is None:
            raise Mismatch("this model has no vocabulary, so it labels ids only; save it with the one that it was trained with")
        if getattr(model.config, "architecture", None) != "gated":
            raise Mismatch(f"{type(model).__name__} is no couplet writer; train one with python -m train couplet, or use flaxgen.Writer")
        self.model, self.params, self.text = model, params, text
        # Id 0 is every character the model does not know; what is no character of Chinese answers none.
        self._character_V = ["", *(text.decode([number]) for number in range(1, len(text)))]
        self._open_V = np.array([len(one) == 1 and characters.is_ideograph(one) for one in self._character_V])

    @classmethod
    def load(cls, folder, *, dtype: weights.Dtype | None = None) -> "Couplets":
        """The couplet writer of a flaxgen folder, as `python -m train export` writes them."""
        return cls(*weights.load(folder, dtype=dtype))

    def __call__(
        self, line: str | Sequence[str], *, best: int = 1, rules: Rules | None = None, alternatives: int = 0
    ) -> list[Couplet] | list[list[Couplet]]:
        """The `best` likeliest lower lines under the rules, exactly, the likeliest first; for a list of lines, a list of such lists.

        Punctuation stays where it is, blanks are dropped. rules: by default all of antithesis.Rules. There may be fewer answers than asked
        for where the rules allow no more, and ValueError where they allow none.
        """
        if isinstance(line, str):
            (answer,) = self.each([line], best=best, rules=rules, alternatives=alternatives)
            if isinstance(answer, ValueError):
                raise answer
            return answer
        if not isinstance(line, Sequence):
            raise ValueError(f"line={line!r:.40}: wanted the upper line of a couplet, such as 晚风摇树树还挺, or a list of such lines")
        answers = self.each(line, best=best, rules=rules, alternatives=alternatives)
        for number, answer in enumerate(answers):
            if isinstance(answer, ValueError):
                raise ValueError(f"line {number}: {answer}")
        return answers

    def each(
        self, lines: Sequence[str], *, best: int = 1, rules: Rules | None = None, alternatives: int = 0
    ) -> list[list[Couplet] | ValueError]:
        """As a call with a list of lines; where one cannot be answered, the error that says why stands in its place."""
        for name, value, least in (("best", best, 1), ("alternatives", alternatives, 0)):
            if type(value) is not int or value < least:
                raise ValueError(f"{name}={value!r}: wanted a whole number of at least {least}")
        rules = Rules() if rules is None else rules
        if not isinstance(rules, Rules):
            raise ValueError(f"rules={rules!r}: wanted flaxgen.text.antithesis.Rules, such as Rules(tones=False)")
        fits = _Fits(self._character_V, self._open_V, rules)
        found = [_caught(self._checked, line) for line in lines]
        sound = [number for number, line in enumerate(found) if isinstance(line, str)]
        for number, log_prob_TV in zip(sound, self.log_probs([found[number] for number in sound]), strict=True):
            found[number] = _caught(self._answers, found[number], log_prob_TV, fits, best, alternatives)
        return found

    def _checked(self, line: str) -> str:
        """The line without blanks."""
        if not isinstance(line, str):
            raise ValueError(f"got {line!r:.40}, wanted a text")
        if "\n" in line.strip():
            raise ValueError(f"{line!r:.40} has several lines; give a list of lines")
        found = "".join(one for one in line if not one.isspace() and not characters.is_dropped(one))
        own = [one for one in found if antithesis.is_open(one)]
        if not own:
            raise ValueError(f"{line!r:.40} holds no character to answer; give the upper line of a couplet, such as 晚风摇树树还挺")
        if len(found) > LONGEST:
            raise ValueError(
                f"{len(found)} characters, at most {LONGEST} are answered ({TRAINED} were trained); give its clauses one by one"
            )
        if all(map(self._is_unknown, own)):
            raise ValueError(f"{line!r:.40}: the model knows none of its characters; give a line in Simplified Chinese, or another model")
        return found

    def log_probs(self, lines: Sequence[str]) -> list[np.ndarray]:
        """For every line the log_prob_TV of the character below each of its own; lines of one length are read together."""
        chain, found = direct.Direct(self.model), {}
        by_length: dict[int, list[int]] = {}
        for number, line in enumerate(lines):
            by_length.setdefault(len(line), []).append(number)
        for numbers in by_length.values():
            while numbers:
                rows = next(size for size in ROWS if size <= len(numbers))
                block, numbers = numbers[:rows], numbers[rows:]
                token_BT = np.array([self.text.encode(lines[number].translate(FULL_WIDTH)) for number in block], np.int32)
                _, state = loop.begin(chain, self.params, jax.random.key(0), token_BT, steps=1)  # which ends it: nothing to advance
                log_prob_BTV = np.asarray(chain.read(state))
                if np.isnan(log_prob_BTV).any():
                    raise FloatingPointError("the model's logits are not finite; its weights are damaged or overflow")
                found |= dict(zip(block, log_prob_BTV, strict=True))
        return [found[number] for number in range(len(lines))]

    def _answers(self, upper: str, log_prob_TV: np.ndarray, fits: "_Fits", best: int, alternatives: int) -> list[Couplet]:
        log_prob_TV = log_prob_TV[:, : len(self._character_V)].astype(np.float64)
        allowed_TV = fits.allowed(upper)
        score_TV = np.where(allowed_TV, log_prob_TV, -np.inf)
        groups = _groups(upper, fits.rules)
        score_GV = np.stack([score_TV[places].sum(axis=0) for places in groups])
        found = assignment.best(score_GV, best, distinct=fits.rules.repeats)
        if not found:
            raise ValueError(
                f"{upper!r}: no lower line of the model's {self._open_V.sum()} characters obeys {fits.rules}; leave out some rules"
            )
        likeliest = [self._likeliest(score_V, alternatives) for score_V in score_TV]
        unknown = "".join(dict.fromkeys(one for one in upper if self._is_unknown(one)))
        return [Couplet(upper, self._spelt(upper, groups, items), float(score), likeliest, unknown) for score, items in found]

    def _is_unknown(self, character: str) -> bool:
        return antithesis.is_open(character) and self.text.encode(character) == [0]

    def _spelt(self, upper: str, groups: list[list[int]], items: list[int]) -> str:
        line = list(upper)
        for places, item in zip(groups, items, strict=True):
            for place in places:
                line[place] = self._character_V[item]
        return "".join(line)

    def _likeliest(self, score_V: np.ndarray, count: int) -> list[tuple[str, float]]:
        order = np.argsort(-score_V, kind="stable")[:count].tolist() if count else []
        return [(self._character_V[item], float(np.exp(score_V[item]))) for item in order if score_V[item] > -np.inf]


class _Fits:
    """Which characters of a vocabulary the rules allow where."""

    def __init__(self, character_V: list[str], open_V: np.ndarray, rules: Rules):
        self.rules, self._open_V = rules, open_V
        self._table = tones.load(rules.book)
        self._id = {one: number for number, one in enumerate(character_V)}
        self._tone_V = {tone: np.array([tone in self._table.get(one, "") for one in character_V]) for tone in (tones.LEVEL, tones.OBLIQUE)}

    def allowed(self, upper: str) -> np.ndarray:
        """bool, allowed_TV, of every place by itself; none at punctuation."""
        tone_of = antithesis.wanted(upper, self.rules, self._table)
        allowed_TV = np.tile(self._open_V, (len(upper), 1))
        for place, character in enumerate(upper):
            if not antithesis.is_open(character):
                allowed_TV[place] = False
            if place in tone_of:
                allowed_TV[place] &= self._tone_V[tone_of[place]]
            if character in self._id:
                allowed_TV[slice(None) if self.rules.fresh else place, self._id[character]] = False
        return allowed_TV


def _groups(upper: str, rules: Rules) -> list[list[int]]:
    """The places of the lower line that have one character: those of a character of the upper line under `repeats`, else each its own."""
    found: dict[Any, list[int]] = {}
    for place, character in enumerate(upper):
        if antithesis.is_open(character):
            found.setdefault(character if rules.repeats else place, []).append(place)
    return list(found.values())


def _caught(make: Callable[..., Any], *given: Any) -> Any:
    """What is made of the given things, or the ValueError that says why it cannot be."""
    try:
        return make(*given)
    except ValueError as error:
        return error
