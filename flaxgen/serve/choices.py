"""One choice of a completion as it grows: its text in whole characters, its tokens and their log-probabilities."""

import itertools
from typing import Any, NamedTuple

from flaxgen import engine
from flaxgen.results import Words
from flaxgen.rules import Rule

Scored = tuple[float | None, list[tuple[int, float]]]  # a token's log-probability, and the likeliest tokens in its place
FINISH = {"end": "stop", "stop": "stop", "complete": "stop", "length": "length"}


class Fact(NamedTuple):
    """What is told of one token."""

    token: str
    value: float | None  # its log-probability
    others: dict[str, float] | None  # those of the likeliest tokens and its own
    offset: int  # where its text begins, in characters of what is told, with the prompt where that is told too


class Choice:
    """What a row has given so far, and what of it was handed out.

    logprobs: how many of the likeliest tokens to tell at every place, None for no log-probabilities. before: the prompt, where it is to be
    told too, as its text, its ids and what the model says of each.
    """

    def __init__(self, number: int, text: Any, prompt: list[int], rule: Rule, logprobs: int | None, before: tuple | None):
        self.number, self.done, self.tokens = number, False, 0
        self._text, self._words, self._logprobs = text, Words(text, prompt, rule), logprobs
        # Holds back no stop strings, and so tells where a token begins.
        self._plain = None if logprobs is None else Words(text, prompt, rule.replace(stop=()))
        self._said, self._told, self._finish = "", 0, None
        self._facts: list[Fact] = []
        self._facts_told = 0
        if before is not None:
            self._said, ids, scores = before
            words, offset = text.stream(), 0
            for token, (value, top) in zip(ids, scores, strict=True) if logprobs is not None else ():
                # Read back, a text may be longer than it was written, and all its tokens are told with it.
                self._add(token, value, top, max(0, min(offset, len(self._said) - 1)))
                offset += len(words.push(token))
        self._offset = len(self._said)  # where the next token begins

    def grow(self, row: engine.Row) -> None:
        """Takes the row as it is now."""
        new = row.after(self.tokens)
        self.tokens = len(row)
        self._said += self._words.push(new.tokens)
        if self._logprobs is not None:
            self._add_new(new)
        if row.finish != "running":
            self._said += self._words.finish()
            self.end(FINISH[row.finish])
            if row.finish == "stop":  # the tokens of the string are cut off as its text is
                self._facts = self._facts[: self._facts_told + len(self._settled())]

    def _add_new(self, new: engine.Row) -> None:
        top = new.top if self._logprobs else [[]] * len(new)
        drawn = list(zip(new.tokens, new.log_probs, top, strict=True))
        for token, value, others in drawn[: len(drawn) - (new.finish == "end")]:
            self._add(token, value, others, self._offset)
            self._offset += len(self._plain.push([token]))

    def _add(self, token: int, value: float | None, top: list[tuple[int, float]], offset: int) -> None:
        name = spelled(self._text, token)
        others = {spelled(self._text, other): score for other, score in top[: self._logprobs]}
        self._facts.append(Fact(name, value, None if value is None else others | {name: value}, offset))

    def end(self, finish: str) -> None:
        self.done, self._finish = True, finish

    def piece(self) -> dict | None:
        """What was not handed out before; None where that is nothing."""
        text = self._said[self._told :]
        if not text and not self.done:
            return None
        facts = self._facts[self._facts_told :] if self.done else self._settled()
        self._told, self._facts_told = len(self._said), self._facts_told + len(facts)
        return {"index": self.number, "text": text, "logprobs": self._logprobs_of(facts), "finish_reason": self._finish}

    def _settled(self) -> list[Fact]:
        """What was not told of tokens whose text, or the beginning of it, is given out."""
        return list(itertools.takewhile(lambda fact: fact.offset < len(self._said), self._facts[self._facts_told :]))

    def _logprobs_of(self, facts: list[Fact]) -> dict | None:
        if self._logprobs is None:
            return None
        return {
            "tokens": [fact.token for fact in facts],
            "token_logprobs": [fact.value for fact in facts],
            "top_logprobs": [fact.others for fact in facts] if self._logprobs else None,
            "text_offset": [fact.offset for fact in facts],
        }


def spelled(text: Any, token: int) -> str:
    """A token by itself: its text, its bytes where they are no whole characters, the name of a control token."""
    if token >= len(text.tokens):
        return f"[{token}]"
    alone = text.decode([token])
    if "\ufffd" in alone and hasattr(text, "shown"):
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in text.shown[token])
    return alone or text.tokens[token]
