"""Text in, text out: a model folder as something to call."""

import dataclasses
import functools
import importlib.resources
import pathlib
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import jax
import numpy as np

from flaxgen import context, controls, engine, jobs, rules, speed, warming, weights
from flaxgen import longer as lengths
from flaxgen.chains import beam, contrastive, scoring
from flaxgen.errors import Mismatch
from flaxgen.measure import by_position as places
from flaxgen.models import positions, transformer
from flaxgen.nn import attention
from flaxgen.progress import Processor
from flaxgen.protocols import Params
from flaxgen.results import Result, Score, Words, Writing

DEEPEST_UNROLLED_ON_CPU = 24
SCORED_TOGETHER = 16
HIERARCHICAL = 4

Prompts = str | context.Context | Sequence[str | context.Context]


def bundled() -> pathlib.Path:
    """The folder of the small model that comes with flaxgen."""
    return pathlib.Path(str(importlib.resources.files("flaxgen"))) / "bundled" / "poetry"


def _check_writes(model: Any) -> None:
    """Mismatch unless the model continues texts from left to right."""
    if not isinstance(model, transformer.Transformer):
        other = {"t5": "flaxgen.chains.seq2seq", "gated": "flaxgen.Couplets"}.get(getattr(model.config, "architecture", ""), "model.apply")
        raise Mismatch(f"a {type(model).__name__} does not continue texts; wanted a causal Transformer. For this one there is {other}")
    if model.config.application != "lm" or not model.config.speaks:
        what = f"is loaded as {model.config.application}" if model.config.speaks else "has no logits"
        raise Mismatch(
            f"to continue texts a model reads them from left to right, and this one {what}. A BERT encodes (flaxgen.Encoder) or, once it "
            'is trained to, reads (flaxgen.Reader, flaxgen read); where it learnt to write, flaxgen.load(…, application="lm") loads it so'
        )


class Writer:
    """Continues a text.

    >>> writer = Writer()                                            # the small model that comes with flaxgen
    >>> texts = writer("床前明月光", samples=3, tokens=24, seed=0)    # a list of 3 continuations
    >>> texts.stats.tokens_per_second

    longer: "refuse" what exceeds the model's context; go on "sliding", whenever the context is full its second half is read again; or make
        it four times as long, "hierarchical" (flaxgen.models.positions, which makes any length up to the square). See `by_position`.
    cache: how keys and values are kept, "float" or "int8", a byte each.
    processors: functions (logit_BV, token_BS, length_B) -> logit_BV that join the rule inside the compiled loop; token_BS holds prompt and
        answer, length_B of them. Define each once: a new function compiles anew.
    `setup` is what its jobs share (flaxgen.jobs), for whoever runs an engine of its own.
    """

    def __init__(
        self,
        model: transformer.Transformer | None = None,
        params: Params = None,
        text: Any = None,
        *,
        rule: rules.Rule | None = None,
        longer: Literal["refuse", "sliding", "hierarchical"] = "refuse",
        cache: attention.Kind = "float",
        processors: Sequence[Processor] = (),
    ):
        if model is None:
            model, params, text = weights.load(bundled())
            rule = rule or weights.describe(bundled())["rule"]
        _check_writes(model)
        if text is None:
            raise Mismatch(
                "this model has no vocabulary, so it reads and writes token ids only; convert it with --vocab FILE, or use flaxgen.generate"
            )
        if longer not in ("refuse", "sliding", "hierarchical"):
            raise ValueError(f'longer={longer!r}: wanted "refuse", "sliding" or "hierarchical"')
        if longer == "hierarchical":
            model, params = positions.hierarchical(model, params, HIERARCHICAL * model.config.positions)
        self.model, self.params, self.text = model, params, text
        self.rule = rule or rules.Rule(top_p=0.95)
        deep = model.config.layers > DEEPEST_UNROLLED_ON_CPU and jax.default_backend() == "cpu"
        layers = "dispatched" if deep else "unrolled"
        # Control tokens mean nothing to a reader, and rows past the vocabulary were never trained.
        never = {*text.control.values(), *range(len(text), model.config.vocab)} - {*text.end}
        beyond = "sliding" if longer == "sliding" else "refuse"
        self.setup = jobs.Setup(model, params, text, tuple(sorted(never)), layers, beyond, cache, tuple(processors))

    @classmethod
    def load(cls, folder, *, dtype: weights.Dtype | None = None, **settings) -> "Writer":
        """The writer of a flaxgen folder, as flaxgen.save, `python -m convert` and `python -m train export` write them.

        dtype: of its weights, as in flaxgen.load. settings: as of Writer.
        """
        return cls(*weights.load(folder, dtype=dtype), **{"rule": weights.describe(folder)["rule"]} | settings)

    def __call__(self, prompt: Prompts, **wishes) -> "Result":
        """`samples` continuations of the prompt; for a list of prompts, a list of such lists. The options are those of `write`.

        The list that comes has `stats`: tokens a second, seconds to the first token, and the share of the memory's bandwidth.
        """
        alone = isinstance(prompt, str | context.Context)
        written = self.write([prompt] if alone else prompt, **wishes)
        texts = [[one.text for one in several] for several in written]
        return Result(texts[0] if alone else texts, written.stats)

    def write(
        self,
        prompt: Sequence[str | context.Context],
        *,
        samples: int = 1,
        tokens: int | None = None,
        rule: rules.Rule | Sequence[rules.Rule] | None = None,
        seed: int | Sequence[int] = 0,
        exact: bool = False,
        speculate: int | None = None,
        alternatives: int = 0,
        search: beam.Search | contrastive.Search | None = None,
    ) -> "Result":
        """What calling the writer with a list of prompts gives, with tokens, log-probabilities and why each text ended.

        prompt: texts, or Contexts that `read` gave. tokens: how many to draw at most, by default 128 or what the model's context has room
        for. rule: by default the writer's own, `writer.rule`; one, or one for each prompt. seed: a number, or one for each prompt; the same
        prompt, seed and sample number draw the same noise whatever other prompts stand beside it.
        exact: tokens and log-probabilities are equal to the last bit whatever else is in the call, however it is cut into calls, and from a
        Context or not; slower (README.md). speculate: so many tokens a step are guessed by looking them up in the text so far, and checked:
        the same tokens (but for rounding, unless `exact`), sooner where a text copies. By default none, and 3 under `exact`, where they
        cost nothing more. alternatives: how many of the likeliest tokens to report at every place. search: flaxgen.chains.beam.Search or
        contrastive.Search in place of draws, by default under a rule that changes nothing; as many texts a prompt as it `returned`.
        """
        start = time.perf_counter()
        if search is not None:
            self._check_search(search, seed, exact)
            rule = rules.Rule() if rule is None else rule
        wishes = {"samples": samples, "tokens": tokens, "seed": seed, "speculate": speculate, "alternatives": alternatives}
        job = self._job(prompt, rule, exact, **wishes)
        if search is not None:
            return self._searched(job, search, start)
        first, count = None, len(job.ids) * samples
        for rows, moves in (jobs.exactly if exact else jobs.together)(self.setup, job, job.tokens):
            if first is None and len(rows) == count:
                first, before = time.perf_counter(), moves
            last, total = rows, moves
        seconds = time.perf_counter() - start
        written = [self._writing(job, number // samples, row) for number, row in enumerate(last)]
        stats = speed.Stats(sum(len(row.tokens) for row in last), seconds, first - start, total - before, speed.weight_bytes(self.params))
        return Result([written[i : i + samples] for i in range(0, count, samples)], stats)

    def stream(self, prompt: str | context.Context, **wishes) -> Iterator[str]:
        """The pieces of one continuation as they are drawn; together they are what calling the writer gives.

        tokens, rule, seed, exact and speculate as in `write`. Whole characters only, and never a part of a stop string.
        """
        exact, rule = wishes.pop("exact", False), wishes.pop("rule", None)
        if unknown := {*wishes} - {"tokens", "seed", "speculate"}:
            raise TypeError(f"stream() takes no {', '.join(sorted(unknown))}; wanted tokens, rule, seed, exact or speculate")
        job = self._job([prompt], rule, exact, **wishes)
        return self._pieces(job, (jobs.exactly if exact else jobs.together)(self.setup, job, 1))

    def write_many(
        self,
        prompts: Sequence[str | context.Context],
        *,
        tokens: int | None = None,
        rule: rules.Rule | Sequence[rules.Rule] | None = None,
        seed: int | Sequence[int] = 0,
        slots: int | None = None,
        exact: bool = False,
        speculate: int | None = None,
        alternatives: int = 0,
    ) -> Iterator[Writing]:
        """One continuation of each prompt, in their order, for thousands of them: a row that is done makes place for the next prompt.

        The options are those of `write`. slots: rows that run at once, by default 8; `exact` has its own number. A result comes as soon as
        all before it have. A prompt whose writing fails gives a Writing with an `error`, and the others go on.
        """
        if exact and slots is not None:
            raise ValueError(f"slots={slots!r} with exact=True, which has slots of its own; leave one of them out")
        job = self._job(prompts, rule, exact, tokens=tokens, seed=seed, speculate=speculate, alternatives=alternatives)
        running = jobs.exact_engine(self.setup, job) if exact else jobs.free_engine(self.setup, job, jobs.SLOTS if slots is None else slots)
        return self._in_order(job, running.run(jobs.requests(self.setup, job, "constrained" if exact else None)))

    def read(self, text: str, after: context.Context | None = None) -> context.Context:
        """The text read once, as a value: a prompt for any number of calls.

        What the text and `after` begin with together is not read again.
        """
        ids = self.text.encode(text)
        self.setup.batch([ids])
        if after is not None and (not isinstance(after, context.Context) or after.model != self.fingerprint):
            raise ValueError(
                f"after={getattr(after, 'text', after)!r:.30}: wanted a Context that this very model and cache read; read it again"
            )
        chain = self.setup.chain(room=self.model.config.positions, chunk=jobs.CHUNK)
        return context.read(chain, self.params, text, ids, self.fingerprint, after)

    def load_context(self, folder) -> context.Context:
        """What Context.save wrote; a CheckpointError where another model read it."""
        return context.load(folder, self.setup.chain(), self.fingerprint)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A digest of sizes and parameters, by which contexts know their model."""
        return context.fingerprint(self.model, self.params, self.setup.cache)

    def warm(
        self,
        batches: Sequence[int] = (1,),
        lengths: Sequence[int] = (16,),
        *,
        tokens: Sequence[int] = (jobs.DEFAULT_TOKENS,),
        samples: int = 1,
        families: Sequence[controls.Family] = ("plain",),
        tables: int = 1,
        exact: bool = False,
        slots: int | None = None,
        **wishes,
    ) -> dict[str, float]:
        """Compiles what requests of these sizes will need, so that none of them waits for the compiler; the seconds of each program.

        batches: numbers of prompts in a call. lengths: of prompts, in tokens. tokens: asked for in a call. Lengths and tokens fall into
        buckets, and each combination is compiled. families: "plain" rules (temperature, top-k, both top-p, lengths, biases), "full" ones,
        "constrained" ones (regex, choices, stop), these with the first `tables` sizes of tables. exact: also the one program of
        `exact=True`. slots: also the engine of `write_many` with so many. speculate and alternatives as in `write`.
        """
        return warming.warm(self.setup, batches, lengths, tokens, samples, families, tables, exact, slots, wishes)

    def score(self, text: str | Sequence[str]) -> Score | list[Score]:
        """The log-probability of a text under the model, token by token; for a list of texts, a list."""
        texts = [text] if isinstance(text, str) else text
        ids = [self.text.encode(one) for one in texts]
        for number, row in enumerate(ids):
            if len(row) < 2:
                raise ValueError(f"text {number}: {len(row)} tokens, wanted at least 2; the first is not scored, as nothing precedes it")
        self.setup.batch(ids)  # refuses what is too long before the first block is read
        scores: dict[int, Score] = {}
        # Blocks of one size, texts of like length together: memory and compiled programs do not grow with their number.
        order = sorted(range(len(ids)), key=lambda number: len(ids[number]))
        for block in (order[start : start + SCORED_TOGETHER] for start in range(0, len(order), SCORED_TOGETHER)):
            rows = [ids[number] for number in block]
            token_BT, length_B = self.setup.batch(rows if len(ids) == 1 else rows + [rows[0]] * (SCORED_TOGETHER - len(rows)))
            log_prob_BT = scoring.score(self.model, self.params, token_BT, length_B, layers=self.setup.layers)
            scores |= {
                number: Score(row, log_prob_T[: len(row) - 1].tolist())
                for number, row, log_prob_T in zip(block, rows, log_prob_BT, strict=False)
            }
        return scores[0] if isinstance(text, str) else [scores[number] for number in range(len(ids))]

    def by_position(self, text: str | Sequence[str], *, width: int | None = None) -> dict[str, places.Curve]:
        """Nats a token by its place in texts of any length, read "hierarchical" and "sliding": a user sees where the model breaks.

        width: places that make one entry of a curve, by default a quarter of the context. measure.by_position prints and draws curves.
        """
        rows = [self.text.encode(one) for one in ([text] if isinstance(text, str) else text)]
        return lengths.curves(self.model, self.params, rows, width=width, layers=self.setup.layers)

    def _job(self, prompts, rule, exact: bool, **wishes) -> jobs.Job:
        one_of = str | context.Context
        if isinstance(prompts, one_of) or not isinstance(prompts, Iterable):
            raise ValueError(f"prompt={prompts!r:.40}: wanted a list of texts or Contexts; for one of them, a list of one")
        prompts = list(prompts)
        if wrong := [one for one in prompts if not isinstance(one, one_of)]:
            raise ValueError(f"prompt={wrong[0]!r:.40}: wanted texts or Contexts")
        if exact and (wishes.get("speculate") or 0) > jobs.EXACT_DRAFTS:
            raise ValueError(
                f"speculate={wishes['speculate']} with exact=True: a step of its one shape checks {jobs.EXACT_DRAFTS} guesses, no more"
            )
        known = [one for one in prompts if isinstance(one, context.Context)]
        if wrong := [one for one in known if one.model != self.fingerprint]:
            raise ValueError(f"the context {wrong[0].text[:20]!r}… was read by another model or kind of cache; read it with this writer")
        if rule is not None and not isinstance(rule, rules.Rule | list | tuple):
            raise ValueError(f"rule={rule!r}: wanted a flaxgen.Rule, such as flaxgen.Rule(top_p=0.9), or a list of them")
        return jobs.job(self.setup, prompts, self.rule if rule is None else rule, **wishes)

    def _check_search(self, search, seed, exact: bool) -> None:
        if not isinstance(search, beam.Search | contrastive.Search):
            raise ValueError(f"search={search!r}: wanted a flaxgen.chains.beam.Search or contrastive.Search")
        if exact or seed != 0:
            raise ValueError(f"search={search!r} with exact={exact}, seed={seed!r}: only draws are exact or have a seed; leave them out")

    def _searched(self, job: jobs.Job, search, start: float) -> Result:
        sample = jobs.searched(self.setup, job, search)
        seconds, returned = time.perf_counter() - start, len(sample.count_B) // len(job.ids)
        rows = [engine.row(number, sample, number) for number in range(len(sample.count_B))]
        scores = getattr(sample, "score_B", [None] * len(rows))
        written = []
        for row, score in zip(rows, scores, strict=True):
            one = self._writing(job, row.name // returned, row, fails=score == -np.inf)
            written.append(dataclasses.replace(one, score=None if score is None else float(score)))
        drawn, moves = sum(len(row.tokens) for row in rows), int(sample.moves_B.max())
        stats = speed.Stats(drawn, seconds, float("nan"), moves, speed.weight_bytes(self.params))
        # Fewer than `returned` answers may have been found.
        several = [[one for one in written[i : i + returned] if one.score != -np.inf] for i in range(0, len(written), returned)]
        return Result(several, stats)

    def _in_order(self, job: jobs.Job, finished: Iterator[engine.Row]) -> Iterator[Writing]:
        rows, turn = {}, 0
        for row in finished:
            rows[row.name] = row
            while turn in rows:
                yield self._writing(job, turn, rows.pop(turn), fails=True)
                turn += 1

    def _writing(self, job: jobs.Job, prompt: int, row: engine.Row, fails: bool = False) -> Writing:
        """The row in words; one that ended in an error raises it, unless it may fail."""
        if row.error is not None and not fails:
            raise type(row.error)(f"prompt {prompt}: {row.error}")
        words = Words(self.text, job.ids[prompt], job.rules[prompt])
        drawn = row.tokens if row.error is None else row.tokens[:-1]
        text = words.push(drawn) + words.finish()
        return Writing(text, row.tokens, row.log_probs, row.finish, row.top, error=None if row.error is None else str(row.error))

    def _pieces(self, job: jobs.Job, moving: Iterator[tuple[list[engine.Row], int]]) -> Iterator[str]:
        words, seen = Words(self.text, job.ids[0], job.rules[0]), 0
        for (row,), _ in moving:
            if row.error is not None:
                raise row.error
            if piece := words.push(row.tokens[seen:]):
                yield piece
            seen = len(row.tokens)
        if rest := words.finish():
            yield rest
