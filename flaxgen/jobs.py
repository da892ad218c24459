"""What a writer was asked for, checked, and the two ways to run it: as one batch, or as requests through an engine."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from flaxgen import buckets, context, controls, engine, loop, rules
from flaxgen.chains import autoregressive, beam, contrastive
from flaxgen.models import transformer
from flaxgen.nn import attention
from flaxgen.progress import Processor
from flaxgen.protocols import Array, Params
from flaxgen.text import prompt as prompts_of

Longer = Literal["refuse", "sliding"]
DEFAULT_TOKENS = 128
MANY = 2**31 - 1
SMALLEST_ROOM = 32
ROOMS = 64  # an engine's caches are multiples of it
CHUNK = 32  # prompt tokens that an engine reads at once
# What `exact` fixes beside the chunk and the model's whole context: each of these numbers is part of the bits.
EXACT_SLOTS, EXACT_DRAFTS = 4, 3
SLOTS = 8  # of write_many


@dataclasses.dataclass(frozen=True, eq=False)
class Setup:
    """What all jobs of a writer share."""

    model: transformer.Transformer
    params: Params
    text: Any
    ban: tuple[int, ...]
    layers: Literal["unrolled", "dispatched"]
    longer: Longer
    cache: attention.Kind
    processors: tuple[Processor, ...]

    @property
    def positions(self) -> int:
        return self.model.config.positions

    def chain(self, **settings) -> autoregressive.Autoregressive:
        slide = self.positions // 2 if self.longer == "sliding" and settings.get("chunk") else 0
        return autoregressive.Autoregressive(
            self.model, layers=self.layers, processors=self.processors, slide=slide, cache=self.cache, **settings
        )

    def batch(self, ids: Sequence[Sequence[int]], more: int | Sequence[int] = 0) -> tuple[np.ndarray, np.ndarray]:
        return prompts_of.batch(ids, vocab=self.model.config.vocab, positions=self.positions, new=more)

    def latest(self, ids: list[int]) -> list[int]:
        """What of a prompt is read: all of it, or what the context holds where it slides."""
        return ids[-(self.positions - 1 - EXACT_DRAFTS) :] if self.longer == "sliding" else ids


@dataclasses.dataclass(frozen=True)
class Job:
    """A checked request: one entry a prompt, but for the keys, of which there is one a sample.

    A row's entries depend on its own prompt and rule alone, not on what is asked for beside it.
    """

    prompts: list[str]
    ids: list[list[int]]
    contexts: list[context.Context | None]
    rules: list[rules.Rule]
    limits: list[int]  # tokens to draw at most
    samples: int
    key_data: np.ndarray  # the data of one key a sample, so that no number of them compiles anything
    speculate: int | None = None
    alternatives: int = 0

    @property
    def tokens(self) -> int:
        """The most that a row draws."""
        return max(self.limits)


def job(
    setup: Setup, prompts, rule, *, samples: int = 1, tokens: int | None = None, seed=0, speculate=None, alternatives: int = 0, ids=None
) -> Job:
    """The Job of prompts, texts or Contexts of this very model; ValueError for whatever cannot be done. ids: of the prompts, if known."""
    least = {"samples": 1, "tokens": 1, "speculate": 0, "alternatives": 0}
    for name, value in zip(least, (samples, 1 if tokens is None else tokens, speculate or 0, alternatives), strict=True):
        if not isinstance(value, int | np.integer) or value < least[name]:
            raise ValueError(f"{name}={value!r}: wanted a whole number of at least {least[name]}")
    if alternatives > setup.model.config.vocab:
        raise ValueError(f"alternatives={alternatives}: the model's vocabulary has {setup.model.config.vocab} tokens; ask for fewer")
    contexts = [one if isinstance(one, context.Context) else None for one in prompts]
    texts = [one if known is None else known.text for one, known in zip(prompts, contexts, strict=True)]
    ids = ids or [setup.text.encode(text) if known is None else list(known.tokens) for text, known in zip(texts, contexts, strict=True)]
    wishes = rules.spread(rule, len(ids))
    limits = [min(one.max_tokens or tokens or DEFAULT_TOKENS, tokens or MANY) for one in wishes]
    if setup.longer == "refuse":
        if tokens is None:
            limits = [max(1, min(limit, setup.positions - len(row))) for limit, row in zip(limits, ids, strict=True)]
        setup.batch(ids, more=limits)
    else:
        # Of a prompt that is cut, nothing that was read before is left where it was.
        contexts = [known if setup.latest(row) == row else None for known, row in zip(contexts, ids, strict=True)]
        setup.batch(list(map(setup.latest, ids)))
    return Job(texts, ids, contexts, wishes, limits, samples, _key_data(seed, len(ids), samples), speculate, alternatives)


def wishes(setup: Setup, job: Job, *, family: controls.Family | None = None, only: int | None = None, tables: int = 0) -> controls.Controls:
    """The controls of all prompts, or of one of them, with tables of at least the bucket of that number."""
    chosen = range(len(job.ids)) if only is None else [only]
    made = controls.controls(
        [job.rules[i] for i in chosen],
        vocab=setup.model.config.vocab,
        limit=[job.limits[i] for i in chosen],
        end=setup.text.end,
        ban=setup.ban,
        text=setup.text,
        family=family,
        after=[job.ids[i] for i in chosen],
    )
    return buckets.fitted(made, buckets.sizes(made, banned=len(setup.ban), tables=tables))


def room(tokens: int) -> int:
    """The smallest power of two, from 32, that holds `tokens`."""
    return max(SMALLEST_ROOM, 1 << (tokens - 1).bit_length())


def together(
    setup: Setup, job: Job, every: int, family: controls.Family | None = None, tables: int = 0
) -> Iterator[tuple[list[engine.Row], int]]:
    """All rows of a job as one batch, and the moves so far: after the first token and after `every` more moves, until all are done."""
    slides = setup.longer == "sliding" and max(map(len, job.ids)) + job.tokens > setup.positions
    chain = setup.chain(room=room(job.tokens), drafts=job.speculate or 0, alternatives=job.alternatives, chunk=CHUNK if slides else 0)
    given = _given(setup, job, wishes(setup, job, family=family, tables=tables))
    key_B = jax.random.wrap_key_data(job.key_data)
    memory, state = loop.begin(chain, setup.params, key_B, given, steps=job.tokens, samples=job.samples)
    left = job.tokens - 1
    while True:
        sample = autoregressive.look(state)
        yield [engine.row(number, sample, number) for number in range(len(job.key_data))], int(sample.moves_B.max())
        if left <= 0 or sample.done_B.all():
            return
        state = loop.advance(chain, setup.params, memory, state, min(every, left))
        left -= every


def searched(setup: Setup, job: Job, search: beam.Search | contrastive.Search) -> autoregressive.Sample:
    """The answers of a search, as many rows a prompt as it returns."""
    if job.samples > 1 or job.speculate or job.alternatives or setup.longer != "refuse" or setup.cache != "float":
        raise ValueError(
            f"search={search!r} with samples={job.samples}, speculate={job.speculate}, alternatives={job.alternatives}, "
            f"longer={setup.longer!r} and cache={setup.cache!r}: a search takes none of these; leave them out, and ask for returned=…"
        )
    given = _given(setup, job, wishes(setup, job))
    chain, start = search.plan(setup.model, given, room=room(job.tokens), layers=setup.layers, processors=setup.processors)
    return loop.generate(chain, setup.params, jax.random.wrap_key_data(job.key_data), start, steps=job.tokens)


def _given(setup: Setup, job: Job, made: controls.Controls) -> autoregressive.Prompt:
    ids = list(map(setup.latest, job.ids))
    given = autoregressive.begin(*setup.batch(ids), made)
    if not any(job.contexts):
        return given
    blank = setup.chain().empty(1, 1)
    caches = [blank if known is None else known.cache for known in job.contexts]
    if all(cache is caches[0] for cache in caches):
        cache = caches[0]  # one row serves all
    else:
        slots = max(cache.rank_BS.shape[1] for cache in caches)
        cache = jax.tree.map(lambda *rows: jnp.concatenate(rows), *(attention.widen(cache, slots) for cache in caches))
    token_BT, length_B = setup.batch([row[int(one.length_B[0]) :] for row, one in zip(ids, caches, strict=True)])
    return given.replace(token_BT=token_BT, length_B=length_B, context=cache)


def exact_engine(setup: Setup, job: Job) -> engine.Engine:
    """The engine of the one shape that `exact` has."""
    room = _room_sliding(job) if setup.longer == "sliding" else setup.positions
    chain = setup.chain(room=room, chunk=CHUNK, drafts=EXACT_DRAFTS, alternatives=job.alternatives)
    return engine.Engine(chain, setup.params, slots=EXACT_SLOTS)


def free_engine(setup: Setup, job: Job, slots: int) -> engine.Engine:
    """An engine whose caches hold the longest of the job's rows."""
    longest = max(map(len, job.ids), default=0) + job.tokens
    room = _room_sliding(job) if setup.longer == "sliding" else min(-(-longest // ROOMS) * ROOMS, setup.positions)
    chain = setup.chain(room=room, chunk=CHUNK, drafts=job.speculate or 0, alternatives=job.alternatives)
    return engine.Engine(chain, setup.params, slots=slots)


def _room_sliding(job: Job) -> int:
    return -(-job.tokens // ROOMS) * ROOMS


def requests(
    setup: Setup, job: Job, family: controls.Family | None = None, tables: int = 0, sizes: buckets.Sizes | None = None
) -> Iterator[engine.Request]:
    """The samples of a job for an engine, made one at a time; all have one family and one set of buckets.

    sizes: those of an engine that serves other jobs too; ValueError where a rule of this one does not fit them.
    """
    family = family or controls.family(job.rules)
    # How stop strings may begin depends on the prompt, and so does the size of their table.
    unlike = {(repr(rule), prompt if rule.stop else None): prompt for prompt, rule in enumerate(job.rules)}
    needed = buckets.join(buckets.sizes(wishes(setup, job, family=family, only=prompt, tables=tables)) for prompt in unlike.values())
    sizes = needed if sizes is None else buckets.within(needed, sizes)
    drafts = autoregressive.MANY if job.speculate is None else job.speculate
    for number, key_data in enumerate(job.key_data):
        prompt = number // job.samples
        if number % job.samples == 0:
            made = buckets.fitted(wishes(setup, job, family=family, only=prompt), sizes)
        known, tokens = job.contexts[prompt], np.array(setup.latest(job.ids[prompt]))
        yield engine.Request(number, tokens, made, key_data, drafts, None if known is None else known.cache)


def exactly(setup: Setup, job: Job, every: int) -> Iterator[tuple[list[engine.Row], int]]:
    """As `together`, through the engine of one shape, but rows that have not begun are not there yet."""
    running, rows = exact_engine(setup, job), {}
    # One family for all that is exact: another one is another program.
    waiting = requests(setup, job, "constrained")
    while True:
        for request in itertools.islice(waiting, max(running.slots - len(running.queue), 0)):
            running.submit(request)
        if not running.busy:
            return
        rows |= {row.name: row for row in running.step(every)}
        yield [rows[name] for name in sorted(rows)], running.moves


def _key_data(seed: int | Sequence[int], prompts: int, samples: int) -> np.ndarray:
    seed_B = np.asarray(seed)
    if seed_B.dtype.kind not in "iu" or seed_B.shape not in ((), (prompts,)) or seed_B.min() < 0 or seed_B.max() >= 2**32:
        raise ValueError(f"seed={seed!r}: wanted a whole number from 0 to {2**32 - 1}, or one for each of the {prompts} prompts")
    seeds = np.broadcast_to(seed_B, (prompts,)).tolist()
    # One seed at a time, and samples in powers of two: no number of prompts and few numbers of samples are another program.
    room = 1 << (samples - 1).bit_length()
    data = {one: np.asarray(_sample_keys(np.uint32(one), room))[:samples] for one in set(seeds)}
    return np.concatenate([data[one] for one in seeds])


@partial(jax.jit, static_argnames="samples")
def _sample_keys(seed: Array, samples: int) -> Array:
    """The key data of the samples of a prompt: a function of the prompt's seed and the sample's number alone."""
    return jax.random.key_data(jax.vmap(partial(jax.random.fold_in, jax.random.key(seed)))(jnp.arange(samples)))
