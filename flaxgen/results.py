"""What a Writer gives: texts, their tokens and scores, why they ended, and how fast they came."""

import dataclasses

import numpy as np

from flaxgen import speed
from flaxgen.measure import perplexity
from flaxgen.text import stop


class Result(list):
    """A list with `stats`, the speed of the call that made it."""

    def __init__(self, items, stats: speed.Stats):
        super().__init__(items)
        self.stats = stats


@dataclasses.dataclass(frozen=True)
class Score:
    """How likely a model finds a text. log_probs holds one natural logarithm for each token but the first, which nothing precedes."""

    tokens: list[int]
    log_probs: list[float]

    @property
    def total(self) -> float:
        return float(np.sum(self.log_probs, dtype=np.float64))

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-probability a token."""
        return perplexity.perplexity(np.array(self.log_probs))


@dataclasses.dataclass(frozen=True)
class Writing:
    """One continuation: its text, the tokens drawn (the end token among them) and the model's log-probability of each.

    finish: "end" (an end token), "length", "stop" (a stop string, which the text no longer holds), "complete" (regex or choices allow
    nothing more); or "broken" or "stuck", with an `error` in words, where write_many could not go on. top: for every place the likeliest
    tokens as (id, log-probability), as many as were asked for. score: of a beam, by which its n best are ordered.
    """

    text: str
    tokens: list[int]
    log_probs: list[float]
    finish: str
    top: list[list[tuple[int, float]]]
    score: float | None = None
    error: str | None = None


class Words:
    """The text of one row as its tokens come: whole characters, and nothing that may turn out to be part of a stop string."""

    def __init__(self, text, prompt: list[int], rule):
        # What a pattern says of a text it says from its first character on, so no blank parts that from the prompt.
        patterned = rule.regex is not None or rule.choices is not None
        self._stream = text.stream(after=() if patterned else prompt)
        # Nor is the token that ends it part of it, though it may be one that is seen.
        self._silent = set(text.end if rule.end is None else rule.end) if patterned else set()
        self._stops = stop.Stops(rule.stop) if rule.stop else None

    def push(self, ids: list[int]) -> str:
        piece = "".join([self._stream.push(i) for i in ids if i not in self._silent])
        return piece if self._stops is None else self._stops.push(piece)

    def finish(self) -> str:
        rest = self._stream.finish()
        return rest if self._stops is None else self._stops.push(rest) + self._stops.finish()
