"""Text in, text out: a model folder as something to call."""

import dataclasses
import importlib.resources
import itertools
import pathlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from flaxgen import loop, rules, weights
from flaxgen.chains import autoregressive
from flaxgen.errors import Mismatch
from flaxgen.measure import perplexity
from flaxgen.models import transformer
from flaxgen.protocols import Params
from flaxgen.text import prompt as prompts_of

DEEPEST_UNROLLED_ON_CPU = 24
SMALLEST_ROOM = 32
DEFAULT_TOKENS = 128
SCORED_TOGETHER = 16


def bundled() -> pathlib.Path:
    """The folder of the small model that comes with flaxgen."""
    return pathlib.Path(str(importlib.resources.files("flaxgen"))) / "bundled" / "poetry"


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
    """One continuation: its text, the tokens drawn (the end token among them) and the model's log-probability of each."""

    text: str
    tokens: list[int]
    log_probs: list[float]


class Writer:
    """Continues a text.

    >>> writer = Writer()                                            # the small model that comes with flaxgen
    >>> texts = writer("床前明月光", samples=3, tokens=24, seed=0)    # a list of 3 continuations
    """

    def __init__(
        self, model: transformer.Transformer | None = None, params: Params = None, text: Any = None, *, rule: rules.Rule | None = None
    ):
        if model is None:
            model, params, text = weights.load(bundled())
            rule = rule or weights.describe(bundled())["rule"]
        if text is None:
            raise Mismatch(
                "this model has no vocabulary, so it reads and writes token ids only; convert it with --vocab FILE, or use flaxgen.generate"
            )
        self.model, self.params, self.text = model, params, text
        self.rule = rule or rules.Rule(top_p=0.95)
        deep = model.config.layers > DEEPEST_UNROLLED_ON_CPU and jax.default_backend() == "cpu"
        self.layers = "dispatched" if deep else "unrolled"
        # Control tokens mean nothing to a reader, and rows past the vocabulary were never trained.
        never = {*text.control.values(), *range(len(text), model.config.vocab)} - {*text.end}
        self._ban = tuple(sorted(never))

    @classmethod
    def load(cls, folder) -> "Writer":
        """The writer of a flaxgen folder, as flaxgen.save, `python -m convert` and `python -m train export` write them."""
        return cls(*weights.load(folder), rule=weights.describe(folder)["rule"])

    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        samples: int = 1,
        tokens: int | None = None,
        rule: rules.Rule | None = None,
        seed: int | Sequence[int] = 0,
    ) -> list[str] | list[list[str]]:
        """`samples` continuations of the prompt; for a list of prompts, a list of such lists.

        tokens: how many to draw at most, by default 128 or what the model's context has room for; an end token ends a text sooner.
        rule: by default the writer's own, `writer.rule`. seed: a number, or one for each prompt; the same prompt, seed and sample number
        draw the same noise whatever other prompts stand beside it.
        """
        written = self.write([prompt] if isinstance(prompt, str) else prompt, samples=samples, tokens=tokens, rule=rule, seed=seed)
        texts = [[one.text for one in several] for several in written]
        return texts[0] if isinstance(prompt, str) else texts

    def write(
        self,
        prompt: Sequence[str],
        *,
        samples: int = 1,
        tokens: int | None = None,
        rule: rules.Rule | None = None,
        seed: int | Sequence[int] = 0,
    ) -> list[list[Writing]]:
        """What calling the writer with a list of prompts gives, with the tokens and their log-probabilities."""
        if isinstance(prompt, str):
            raise ValueError(f"prompt={prompt[:20]!r}: wanted a list of texts; write([text])")
        chain, key_B, given, steps = self._prepare(prompt, samples, tokens, rule, seed)
        sample = loop.generate(chain, self.params, key_B, given, steps=steps, samples=samples)
        flat = [
            Writing(self._decode(prompt[row // samples], ids), ids, sample.log_prob_BN[row, : len(ids)].tolist())
            for row, ids in enumerate(sample.rows())
        ]
        return [flat[i : i + samples] for i in range(0, len(flat), samples)]

    def stream(self, prompt: str, *, tokens: int | None = None, rule: rules.Rule | None = None, seed: int = 0) -> Iterator[str]:
        """The pieces of one continuation as they are drawn; together they are what calling the writer gives. Only whole characters."""
        chain, key_B, given, steps = self._prepare([prompt], 1, tokens, rule, seed)
        return self._pieces(prompt, loop.stream(chain, self.params, key_B, given, steps=steps))

    def score(self, text: str | Sequence[str]) -> Score | list[Score]:
        """The log-probability of a text under the model, token by token; for a list of texts, a list."""
        texts = [text] if isinstance(text, str) else text
        ids = [self.text.encode(one) for one in texts]
        for number, row in enumerate(ids):
            if len(row) < 2:
                raise ValueError(f"text {number}: {len(row)} tokens, wanted at least 2; the first is not scored, as nothing precedes it")
        self._batch(ids)  # refuses what is too long before the first block is read
        scores: dict[int, Score] = {}
        # Blocks of one size, texts of like length together: memory and compiled programs do not grow with their number.
        order = sorted(range(len(ids)), key=lambda number: len(ids[number]))
        for block in (order[start : start + SCORED_TOGETHER] for start in range(0, len(order), SCORED_TOGETHER)):
            rows = [ids[number] for number in block]
            token_BT, length_B = self._batch(rows if len(ids) == 1 else rows + [rows[0]] * (SCORED_TOGETHER - len(rows)))
            log_prob_BT = autoregressive.score(self.model, self.params, token_BT, length_B, layers=self.layers)
            scores |= {
                number: Score(row, log_prob_T[: len(row) - 1].tolist())
                for number, row, log_prob_T in zip(block, rows, log_prob_BT, strict=False)
            }
        return scores[0] if isinstance(text, str) else [scores[number] for number in range(len(ids))]

    def warm(self, *, prompt_tokens: int, tokens: int = 128, prompts: int = 1, samples: int = 1) -> None:
        """Compiles what requests of up to these sizes will need, so that none of them waits for the compiler."""
        positions = self.model.config.positions
        buckets = prompts_of.buckets(positions)
        widths = buckets[: 1 + next(i for i, width in enumerate(buckets) if width >= min(prompt_tokens, positions))]
        rooms = {self._room(count) for count in range(1, tokens + 1)}
        for width, room in itertools.product(widths, sorted(rooms)):
            given = self._given(np.zeros((prompts, width), np.int32), np.ones(prompts, np.int32), rules.Rule(), 2)
            chain = autoregressive.Autoregressive(self.model, room, self.layers)
            loop.generate(chain, self.params, self._keys(0, prompts, samples), given, steps=2, samples=samples)

    def _prepare(self, prompt: Sequence[str], samples: int, tokens: int | None, rule: rules.Rule | None, seed: int | Sequence[int]):
        if tokens is not None and (not isinstance(tokens, int | np.integer) or tokens < 1):
            raise ValueError(f"tokens={tokens!r}: wanted a whole number of at least 1")
        if rule is not None and not isinstance(rule, rules.Rule):
            raise ValueError(f"rule={rule!r}: wanted a flaxgen.Rule, such as flaxgen.Rule(top_p=0.9)")
        ids = [self.text.encode(one) for one in prompt]
        if tokens is None:
            tokens = max(1, min(DEFAULT_TOKENS, self.model.config.positions - max(map(len, ids), default=0)))
        token_BT, length_B = self._batch(ids, more=tokens)
        chain = autoregressive.Autoregressive(self.model, self._room(tokens), self.layers)
        given = self._given(token_BT, length_B, rule or self.rule, tokens)
        return chain, self._keys(seed, len(token_BT), samples), given, int(tokens)

    def _given(self, token_BT: np.ndarray, length_B: np.ndarray, rule: rules.Rule, limit: int) -> autoregressive.Prompt:
        return autoregressive.prompt(token_BT, length_B, rule=rule, limit=limit, end=self.text.end, ban=self._ban)

    def _batch(self, ids: list[list[int]], more: int = 0) -> tuple[np.ndarray, np.ndarray]:
        return prompts_of.batch(ids, vocab=self.model.config.vocab, positions=self.model.config.positions, new=more)

    def _room(self, tokens: int) -> int:
        """The smallest power of two, from 32, that holds `tokens`."""
        return max(SMALLEST_ROOM, 1 << (tokens - 1).bit_length())

    def _keys(self, seed: int | Sequence[int], prompts: int, samples: int) -> jax.Array:
        seed_B = np.asarray(seed)
        if seed_B.dtype.kind not in "iu" or seed_B.shape not in ((), (prompts,)) or seed_B.min() < 0 or seed_B.max() >= 2**32:
            raise ValueError(f"seed={seed!r}: wanted a whole number from 0 to {2**32 - 1}, or one for each of the {prompts} prompts")
        if not isinstance(samples, int | np.integer) or samples < 1:
            raise ValueError(f"samples={samples!r}: wanted a whole number of at least 1")
        return _sample_keys(np.broadcast_to(seed_B, (prompts,)).astype(np.uint32), samples)

    def _decode(self, prompt: str, ids: list[int]) -> str:
        stream = self.text.stream(after=self.text.encode(prompt))
        return "".join([stream.push(i) for i in ids]) + stream.finish()

    def _pieces(self, prompt: str, samples: Iterator[autoregressive.Sample]) -> Iterator[str]:
        stream, seen = self.text.stream(after=self.text.encode(prompt)), 0
        for sample in samples:
            ids = sample.rows()[0]
            if piece := "".join([stream.push(i) for i in ids[seen:]]):
                yield piece
            seen = len(ids)
        if rest := stream.finish():
            yield rest


@partial(jax.jit, static_argnames="samples")
def _sample_keys(seed_B: jax.Array, samples: int) -> jax.Array:
    """The key of every sample of every prompt: a function of the prompt's seed and the sample's number alone."""
    keys = jax.vmap(lambda seed: jax.vmap(partial(jax.random.fold_in, jax.random.key(seed)))(jax.numpy.arange(samples)))(seed_B)
    return keys.reshape(-1)
