"""A run's folder: started, resumed, exported.

run.json          recipe, settings, the model's sizes, its vocabulary's section, digest of the data, and each start: step, mesh, versions
text/ rows/ dev/  the vocabulary, and the token tables of the data
checkpoints/      training state      log.jsonl  the curve      samples.txt  what the model wrote on the way
"""

import contextlib
import dataclasses
import functools
import json
import pathlib
import platform
import sys
from importlib import metadata
from typing import Any

import jax

import flaxgen.text
import flaxgen.text.build
import flaxgen.text.wordpiece
from flaxgen import weights
from flaxgen.models import config, transformer
from flaxgen.tasks import adversarial, language, lora
from train import checkpoint, corpus, data, flops, hosts, loop, optimizers, parallel, partition, recipes, sample, warm, watch

ACTIVATION = {"between": "gelu", "pre": "gelu_tanh"}  # as GPT2_ML and GPT-2 were published


@dataclasses.dataclass(frozen=True)
class Model:
    """What is trained: sizes, vocabulary, and the parameters to begin from (None: drawn anew), with a sentence on where they come from."""

    config: config.Config
    text: Any
    params: Any
    note: str


def begin(s: recipes.Settings) -> Model:
    """The model of a run's first update, by its settings."""
    if s.start and all(corpus.kind(path) == "tfrecord" for source in corpus.sources(s.data) for path in source.files):
        return as_it_is(s)
    if s.start:
        plan = warm.choose(s.start, corpus.documents(s.data), length=s.length, seed=s.seed, foreign=s.foreign)
        return Model(dataclasses.replace(plan.config, dropout=s.dropout), plan.text, plan.params, plan.note)
    text = warm.ended(vocabulary(s), s.text)
    sizes = (len(text), s.length, s.width, s.layers, s.heads, 4 * s.width, s.wiring, ACTIVATION[s.wiring])
    note = f"a new model, with {'the vocabulary of ' + s.text if s.text else 'a vocabulary made from the data'}: {len(text):,} tokens"
    return Model(config.Config(*sizes, dropout=s.dropout, init_range=s.init_range), text, None, note)


def as_it_is(s: recipes.Settings) -> Model:
    """The model of start= with its own vocabulary, for data that is token ids already."""
    card = weights.describe(s.start)
    if s.length > card["config"].positions:
        raise ValueError(f"length={s.length}: the model in {s.start} has {card['config'].positions} positions; give a smaller length=")
    text = warm.ended(weights.load_text(s.start, card), s.start)
    made = dataclasses.replace(card["config"], dropout=s.dropout)
    return Model(made, text, warm.load(s.start), f"the vocabulary of {s.start} is kept: the data are ids of it")


def vocabulary(s: recipes.Settings):
    """The tokenizer that the settings name, or one made from the data."""
    if not s.text:
        return flaxgen.text.build.vocabulary(corpus.documents(s.data), size=s.vocab)
    path = pathlib.Path(s.text)
    if path.is_dir():
        text = weights.load_text(path, weights.describe(path))
        if text is None:
            raise ValueError(f"text={s.text} holds no vocabulary; name a folder that does, or a vocab.txt")
        return text
    return flaxgen.text.wordpiece.WordPiece.load(path)


@dataclasses.dataclass(frozen=True)
class Run:
    """What a folder's settings give: model and program."""

    folder: pathlib.Path
    settings: recipes.Settings
    model: Model

    @functools.cached_property
    def language(self) -> language.Language:
        s, made = self.settings, transformer.Transformer(self.model.config)
        spread = parallel.ROWS if s.parallel == "mesh" else ()
        return language.Language(made, loop=s.loop, remat=s.remat, dtype=s.dtype, chunks=s.chunks, spread=spread)

    @functools.cached_property
    def adapted(self):
        """The language model, with low-rank updates where they are asked for."""
        return lora.Lora(self.language, self.settings.lora, self.settings.alpha) if self.settings.lora else self.language

    @functools.cached_property
    def task(self):
        s, task = self.settings, self.adapted
        if s.adversarial == "none":
            return task
        return {"fgm": adversarial.FastGradient, "penalty": adversarial.GradientPenalty}[s.adversarial](task, s.epsilon)

    @property
    def freeze(self) -> str:
        """The regex of what is not trained."""
        return "|".join(filter(None, [self.settings.freeze, lora.FROZEN if self.settings.lora else ""]))

    @functools.cached_property
    def program(self) -> parallel.Program:
        s = self.settings
        rule = {
            name: getattr(s, name) for name in ("steps", "rate", "schedule", "warmup", "cooldown", "decay", "clip", "ema", "layer_rate")
        }
        optimizer = optimizers.build(s.optimizer, **rule, layers=self.model.config.layers, freeze=self.freeze)
        rate = optimizers.rates(s.schedule, **{name: rule[name] for name in ("steps", "rate", "warmup", "cooldown")})
        given = {
            "limits": transformer.limits(self.model.config),
            "seed": s.seed,
            "accumulate": s.accumulate,
            "freeze": self.freeze,
            "frozen_dtype": s.dtype if s.lora else "float32",
        }
        make = parallel.Program if s.parallel == "mesh" else parallel.Copies
        return make(self.task, optimizer, rate, transformer.SHARDING, mesh(s), **given)

    @property
    def axes(self) -> str:
        return ",".join(f"{axis}={size}" for axis, size in self.program.mesh.shape.items())

    def export(self, state) -> Any:
        """The parameters that are sampled and saved: averaged where an average is kept, merged, by layer."""
        trained = optimizers.averaged(state.opt, state.params)
        return self.task.export(partition.merge(trained, state.frozen, self.freeze), state.carry)

    def start(self):
        """The state before the first update."""
        params = self.model.params
        if params is not None and self.settings.loop == "scan":
            params = transformer.stack(params)
        if params is not None and self.settings.lora:
            params = self.adapted.adapt(params, jax.random.key(self.settings.seed))
        return self.program.start(params)

    def rows(self, name: str, words: str, known: str | None) -> data.Data:
        """The token table of `words`; known: the digest that it must have."""
        s, text = self.settings, self.model.text
        end = text.end[0] if s.ends == "token" else None
        how = {"length": s.length, "vocab": len(text), "rows": s.rows, "neighbours": s.neighbours, "shortest": s.shortest}
        recipe = json.dumps(text.options(), sort_keys=True)
        return data.build(self.folder / name, words, text.encode, end, **how, recipe=recipe, known=known)

    def checkpoints(self) -> checkpoint.Checkpoints:
        return checkpoint.Checkpoints(self.folder / "checkpoints", keep=self.settings.keep)


def mesh(s: recipes.Settings) -> jax.sharding.Mesh:
    """The devices that the settings ask for, refused where the batch does not divide over them."""
    devices = jax.device_count() if s.mesh or jax.default_backend() != "cpu" or not hosts.alone() else 1
    axes = parallel.sizes(s.mesh, devices)
    parallel.check(axes, batch=s.batch, accumulate=s.accumulate, kind=s.parallel)
    return parallel.mesh(axes)


def train(recipe: str, settings: recipes.Settings, given: dict[str, str], folder: pathlib.Path) -> int:
    """Starts the run of `folder` or resumes it; the exit code: 0, or 128 + the signal that ended it early (saved all the same)."""
    with hosts.alone_in(folder), contextlib.closing(checkpoint.Checkpoints(folder / "checkpoints")) as saved:
        if saved.fresh():  # also where a start ended before it saved anything
            settings = recipes.override(settings, given)
            return go(Run(folder, settings, begin(settings)), {"recipe": recipe, "starts": []}, saved)
        card = resume(folder, recipe, given)
        settings = recipes.override(recipes.Settings(**card["settings"]), given)
        return go(Run(folder, settings, known(folder, card)), card, saved)


def go(run: Run, card: dict, saved: checkpoint.Checkpoints) -> int:
    """Trains from the newest checkpoint, or from the beginning where there is none, to the last step; the exit code."""
    s, program, model, resumed = run.settings, run.program, run.model, not saved.fresh()
    like = program.like  # a mesh that does not fit is refused before anything is written
    rows, dev = tables(run, card["data"] if resumed else None)
    prompts = sample.prompts(s.prompts, model.text, s.length, rows)

    def newest():
        if saved.fresh():
            return run.start(), {}
        state, facts = saved.load(like, damaged=s.damaged)
        return program.restored(state), facts

    state, facts = newest()
    done = program.done(state)
    if s.steps < done:
        raise ValueError(f"{run.folder} has done {done} updates, steps={s.steps} is less; give more, or start another with out=DIR")
    if hosts.first():
        note_start(card | {"data": rows.digest}, run, done)
    count = sum(leaf.size for leaf in jax.tree.leaves((state.params, state.frozen)))
    say(f"{run.folder}: {f'goes on after update {done}' if done else model.note}")
    say(f"{count:,} parameters, {rows.weight():,} tokens an epoch, update {done} of {s.steps}, on {device()}, mesh {run.axes}")
    score = sample.Score(run, dev) if dev else None

    def look(step, state):
        params = program.gather(state, run.export)
        if hosts.first():
            sample.write(run.folder, run.language.model, params, model.text, prompts, step)
        return {"dev_perplexity": score(state)} if score else {}

    def save(step, state, facts, score):
        saved.save(step, program.saved(state), facts, score)

    def back():
        saved.wait()
        return newest()

    def batch(place):
        return program.place(lambda part: rows.batch(s.seed, place, s.batch, part), s.batch)

    say(flops.formula(model.config, s.length))
    fixed = sum(leaf.size for leaf in jax.tree.leaves(state.frozen) if leaf.ndim > 1)
    cost = flops.a_token(model.config, s.length, frozen=fixed)
    record = watch.Record(run.folder, s, cost=cost, facts=facts, done=done)
    for step, why in saved.lost:
        record.event(done, "damaged", lost=step, why=why)
    with contextlib.closing(record), data.Prefetch(batch, done + record.skipped) as ahead:
        _, number = loop.run(program, state, loop.Hooks(ahead.get, save, saved.check, back, look), s, record)
        saved.wait()
    return 128 + number if number else 0


def known(folder: pathlib.Path, card: dict) -> Model:
    """The model of a run that lies in a folder; its parameters are in the checkpoints."""
    text = flaxgen.text.load(folder / "text", card["text"])
    return Model(config.Config(**card["config"]), dataclasses.replace(text, end=tuple(card["end"])), None, "")


def tables(run: Run, known: str | None) -> tuple[data.Data, data.Data | None]:
    """The token tables of data and dev; process 0 makes them where they do not lie there yet."""
    if not hosts.first():
        hosts.wait("tables")
    rows = run.rows("rows", run.settings.data, known)
    dev = run.rows("dev", run.settings.dev, None) if run.settings.dev else None
    if hosts.first():
        hosts.wait("tables")
    return rows, dev


def note_start(card: dict, run: Run, done: int) -> None:
    """Writes run.json and the vocabulary, whole or not at all."""
    text = run.folder / "text"
    text.mkdir(parents=True, exist_ok=True)
    versions = {name: metadata.version(name) for name in ("jax", "flax", "optax", "orbax-checkpoint")}
    start = {"step": done, "steps": run.settings.steps, "mesh": run.axes, "processes": jax.process_count()}
    start |= {"python": platform.python_version(), "device": device()} | versions
    if not done:
        section = run.model.text.save(text)
        card |= {"config": dataclasses.asdict(run.model.config), "text": section, "end": list(run.model.text.end), "note": run.model.note}
    card |= {"settings": dataclasses.asdict(run.settings), "starts": [*card["starts"], start]}
    whole = run.folder / "run.json.new"
    whole.write_text(json.dumps(card, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    whole.replace(run.folder / "run.json")


def resume(folder: pathlib.Path, recipe: str, given: dict[str, str]) -> dict:
    """run.json of a folder, when what is given changes nothing but what may change."""
    card = read_card(folder)
    if card["recipe"] != recipe:
        raise ValueError(f"{folder} holds a run of the recipe {card['recipe']}, not {recipe}; name that, or start another with out=DIR")
    old = recipes.Settings(**card["settings"])
    new = recipes.override(old, given)
    fixed = [key for key in given if key not in recipes.MOVABLE and getattr(old, key) != getattr(new, key)]
    if fixed:
        listed = ", ".join(f"{key}={getattr(old, key)}, not {getattr(new, key)}" for key in fixed)
        raise ValueError(f"{folder} holds a run with {listed}; only {', '.join(recipes.MOVABLE)} may change. Start another with out=DIR")
    return card


def read_card(folder: pathlib.Path) -> dict:
    if not (folder / "run.json").is_file():
        raise ValueError(f"{folder} holds no run (no run.json); start one with `python -m train RECIPE out={folder}`")
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def load(folder: pathlib.Path, step: int | None = None):
    """(run, params, facts) of a saved step, by default the newest; params as they are exported, whole on one device."""
    card = read_card(folder)
    settings = dataclasses.replace(recipes.Settings(**card["settings"]), mesh="data=1", parallel="mesh")
    run = Run(folder, settings, known(folder, card))
    with contextlib.closing(run.checkpoints()) as saved:
        if not saved.steps():
            raise ValueError(f"{folder} holds no checkpoint yet; let the run reach a multiple of every={settings.every}")
        state, facts = saved.load(run.program.like, step, damaged="refuse")
    return run, jax.jit(run.export)(state), facts | {"step": int(state.step)}


def export(folder: pathlib.Path, target: pathlib.Path, *, dtype: str = "bfloat16", readme: str | None = None, force: bool = False) -> None:
    """The newest checkpoint as a flaxgen folder."""
    run, params, facts = load(folder)
    card = read_card(folder)
    paths = {name: pathlib.Path(card["settings"][name]).name for name in ("data", "dev", "start", "text")}  # no paths of this machine
    source = {"recipe": card["recipe"], "settings": card["settings"] | paths, "data": card["data"], "starts": card["starts"]} | facts
    text = run.model.text
    weights.save(
        target,
        run.language.model,
        params,
        text,
        dtype=dtype,
        end=list(text.end),
        rule=sample.RULE,
        source=source,
        readme=readme,
        force=force,
    )


def epoch_tokens(folder: pathlib.Path) -> int:
    """Targets in one pass over the run's data."""
    return data.load(folder / "rows").weight()


def say(words: str) -> None:
    if hosts.first():
        print(words, file=sys.stderr, flush=True)


def device() -> str:
    return f"{jax.device_count()} × {jax.devices()[0].device_kind}"
