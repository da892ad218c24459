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
from typing import Any, Literal

import jax
import numpy as np

import flaxgen.text
from flaxgen import weights
from flaxgen.models import architectures
from train import begin, checkpoint, data, hosts, kinds, loop, optimizers, parallel, partition, recipes, settings, watch

CARD = {"recipe", "settings", "starts", "config", "text", "end", "grown", "note", "data"}


@dataclasses.dataclass(frozen=True)
class Run:
    """What a folder's settings give: model and program."""

    folder: pathlib.Path
    settings: settings.Settings
    model: begin.Model

    @property
    def kind(self):
        """The module that knows this kind of task."""
        return kinds.of(self.settings)

    @functools.cached_property
    def module(self):
        """The Linen module that is saved and sampled."""
        return architectures.module(self.model.config, np.dtype("float32"))

    @functools.cached_property
    def task(self):
        return self.kind.task(self.settings, self.model.config)

    @functools.cached_property
    def freeze(self) -> tuple[str, str]:
        """The regex of what is not trained, and the dtype in which that is kept."""
        return self.kind.freeze(self.settings, self.model)

    @functools.cached_property
    def program(self) -> parallel.Program:
        s, (frozen, dtype) = self.settings, self.freeze
        rule = {
            name: getattr(s, name)
            for name in ("steps", "rate", "schedule", "warmup", "cooldown", "decay", "clip", "ema", "layer_rate", "lower")
        }
        optimizer = optimizers.build(s.optimizer, **rule, layers=self.model.config.layers, freeze=frozen)
        rate = optimizers.rates(s.schedule, **{name: rule[name] for name in ("steps", "rate", "warmup", "cooldown")})
        limits = self.kind.limits(self.model.config)
        given = {"limits": limits, "seed": s.seed, "accumulate": s.accumulate, "freeze": frozen, "frozen_dtype": dtype}
        given |= {"carry_rules": self.kind.CARRY, "steep": s.steep}
        make = parallel.Program if s.parallel == "mesh" else parallel.Copies
        return make(self.task, optimizer, rate, self.kind.SHARDING, mesh(s), **given)

    @property
    def devices(self) -> str:
        return f"{self.program.mesh.size} × {jax.devices()[0].device_kind}"

    @property
    def axes(self) -> str:
        return ",".join(f"{axis}={size}" for axis, size in self.program.mesh.shape.items())

    def export(self, state) -> Any:
        """The parameters that are sampled and saved: averaged where an average is kept, merged, by layer."""
        trained = optimizers.averaged(state.opt, state.params)
        return self.task.export(partition.merge(trained, state.frozen, self.freeze[0]), state.carry)

    def start(self):
        """The state before the first update."""
        return self.program.start(self.kind.given(self.settings, self.model))

    def lowered(self, state, rollbacks: int):
        """The state with the rate lowered for the times that the run went back."""
        return state.replace(opt=optimizers.lowered(state.opt, self.settings.lower**rollbacks)) if rollbacks else state

    @property
    def fixed(self) -> int:
        """Elements of kernels that are not trained, whose own gradients cost nothing."""
        leaves = jax.tree_util.tree_leaves_with_path(self.program.like.frozen)
        return sum(leaf.size for path, leaf in leaves if path[-1].key == "kernel")

    def checkpoints(self) -> checkpoint.Checkpoints:
        return checkpoint.Checkpoints(self.folder / "checkpoints", keep=self.settings.keep)


def mesh(s: settings.Settings) -> jax.sharding.Mesh:
    """The devices that the settings ask for, refused where the batch does not divide over them."""
    devices = jax.device_count() if s.mesh or jax.default_backend() != "cpu" or not hosts.alone() else 1
    axes = parallel.sizes(s.mesh, devices)
    parallel.check(axes, batch=s.batch, accumulate=s.accumulate, kind=s.parallel)
    return parallel.mesh(axes)


def train(recipe: str, chosen: settings.Settings, given: dict[str, str], folder: pathlib.Path) -> int:
    """Starts the run of `folder` or resumes it; the exit code: 0, or 128 + the signal that ended it early (saved all the same)."""
    with hosts.alone_in(folder):
        fresh = nothing_saved(folder / "checkpoints")  # also where a start ended before it saved anything
        card = {"recipe": recipe, "starts": []} if fresh else resume(folder, recipe, given)
        chosen = settings.override(chosen if fresh else of_card(card), given)
        mesh(chosen)  # one that does not fit is refused before the data are read
        run = Run(folder, chosen, kinds.of(chosen).begin(chosen) if fresh else known(folder, card))
        with contextlib.closing(run.checkpoints()) as saved:
            return go(run, card, saved)


def nothing_saved(folder: pathlib.Path) -> bool:
    """Whether a run has no step yet; what a killed one had written whole becomes a step first."""
    with contextlib.closing(checkpoint.Checkpoints(folder)) as saved:
        if hosts.first() and folder.is_dir():
            saved.clear()
        hosts.wait("cleared")
        return saved.fresh()


def go(run: Run, card: dict, saved: checkpoint.Checkpoints) -> int:
    """Trains from the newest checkpoint, or from the beginning where there is none, to the last step; the exit code."""
    s, program, model = run.settings, run.program, run.model
    like = program.like  # a model that does not fit the mesh is refused before anything is written
    rows, dev = tables(run, card.get("data"))
    look = run.kind.look(run, rows, dev)

    def newest(rollbacks: int = 0):
        saved.wait()
        hosts.wait("saved")  # a step is there for all once process 0 has named it
        if saved.fresh():
            return run.lowered(run.start(), rollbacks), {}
        state, facts = saved.load(like, damaged=s.damaged)
        return run.lowered(program.restored(state), rollbacks), facts

    state, facts = newest()
    done = program.done(state)
    if s.steps < done:
        raise ValueError(f"{run.folder} has done {done} updates, steps={s.steps} is less; give more, or start another with out=DIR")
    if hosts.first():
        note_start(card | {"data": rows.digest}, run, done)
    cost, formula = run.kind.cost(s, model.config, run.fixed)
    record = watch.Record(run.folder, s, cost=cost, facts=facts, done=done, devices=program.mesh.size, unit=run.kind.UNIT)
    for step, why in saved.lost:
        record.event(done, "damaged", lost=step, why=why)
    introduce(run, card, rows, done, formula)

    def save(step, state, facts, score):
        saved.save(step, program.saved(state), facts, score)

    def batch(place):
        return program.place(lambda part: rows.batch(s.seed, place, s.batch, part), s.batch)

    hooks = functools.partial(loop.Hooks, save=save, check=saved.check, wait=saved.wait, back=newest, look=look)
    with contextlib.closing(record), data.Prefetch(batch, done + record.skipped) as ahead:
        state, number = loop.run(program, state, hooks(ahead.get), s, record)
    if number and hosts.first():
        print(f"stopped after update {program.done(state)}, which is saved; the same command goes on", file=sys.stderr)
    return 128 + number if number else 0


def introduce(run: Run, card: dict, rows, done: int, formula: str) -> None:
    """Says what is trained, on what, and how its operations are counted."""
    s, like, model = run.settings, run.program.like, run.model
    say(f"{run.folder}: {f'goes on after update {done}' if done else model.note}")
    count = sum(leaf.size for leaf in jax.tree.leaves((like.params, like.frozen)))
    say(f"{count:,} parameters, {rows.weight():,} {run.kind.UNIT} an epoch, update {done} of {s.steps}, on {run.devices}, mesh {run.axes}")
    say(formula)
    old = card["starts"][-1] if card["starts"] else {}
    changed = [f"{name} {old[name]} is {now} now" for name, now in versions().items() if old.get(name, now) != now]
    if changed:
        say(f"{', '.join(changed)}: the last bits of what follows may differ from a run that went through")


def known(folder: pathlib.Path, card: dict) -> begin.Model:
    """The model of a run that lies in a folder; its parameters are in the checkpoints."""
    text = flaxgen.text.load(folder / "text", card["text"])
    ended = dataclasses.replace(text, end=tuple(card["end"])) if text else None
    sizes = kinds.of(of_card(card)).Config(**card["config"])
    return begin.Model(sizes, ended, None, card["note"], card["grown"])


def tables(run: Run, known: str | None) -> tuple[Any, Any]:
    """The rows of data and of dev, or None; process 0 makes them where they do not lie there yet."""
    if not hosts.first():
        hosts.wait("tables")
    rows = run.kind.rows(run, "rows", run.settings.data, known)
    dev = run.kind.rows(run, "dev", run.settings.dev, None) if run.settings.dev else None
    if dev and not dev.weight():
        raise ValueError(f"dev={run.settings.dev} holds nothing to predict; give longer documents, or none (dev=)")
    if hosts.first():
        hosts.wait("tables")
    return rows, dev


def note_start(card: dict, run: Run, done: int) -> None:
    """Writes run.json and the vocabulary, whole or not at all."""
    text, model = run.folder / "text", run.model
    start = {"step": done, "steps": run.settings.steps, "mesh": run.axes, "processes": jax.process_count(), "device": run.devices}
    if not done:
        text.mkdir(parents=True, exist_ok=True)
        known = {"text": model.text.save(text), "end": list(model.text.end)} if model.text else {"text": None, "end": []}
        card |= {"config": dataclasses.asdict(model.config)} | known
        card |= {"note": model.note, "grown": model.grown}
    card |= {"settings": dataclasses.asdict(run.settings), "starts": [*card["starts"], start | versions()]}
    whole = run.folder / "run.json.new"
    whole.write_text(json.dumps(card, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    whole.replace(run.folder / "run.json")


def versions() -> dict[str, str]:
    packages = ("jax", "flax", "optax", "orbax-checkpoint")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in packages}


def resume(folder: pathlib.Path, recipe: str, given: dict[str, str]) -> dict:
    """run.json of a folder, when what is given changes nothing but what may change."""
    card = read_card(folder)
    if card["recipe"] != recipe:
        raise ValueError(f"{folder} holds a run of the recipe {card['recipe']}, not {recipe}; name that, or start another with out=DIR")
    old = of_card(card)
    new, movable = settings.override(old, given), settings.movable(old)
    fixed = [key for key in given if key not in movable and getattr(old, key) != getattr(new, key)]
    if fixed:
        listed = ", ".join(f"{key}={getattr(old, key)}, not {getattr(new, key)}" for key in fixed)
        raise ValueError(f"{folder} holds a run with {listed}; only {', '.join(movable)} may change. Start another with out=DIR")
    return card


def read_card(folder: pathlib.Path) -> dict:
    """run.json of a folder."""
    path = folder / "run.json"
    if not path.is_file():
        raise ValueError(f"{folder} holds no run (no run.json); start one with `python -m train RECIPE out={folder}`")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); restore it from a copy, or start another run with out=DIR") from None
    if not isinstance(card, dict) or CARD - set(card):
        raise ValueError(f"{path} is not of this version's trainer; start another run with out=DIR")
    return card


def of_card(card: dict) -> settings.Settings:
    """The settings that run.json keeps."""
    if card["recipe"] not in recipes.RECIPES:
        raise ValueError(f"run.json names the recipe {card['recipe']!r}, which this trainer lacks; it has {', '.join(recipes.RECIPES)}")
    return type(recipes.RECIPES[card["recipe"]]())(**card["settings"])


def load(folder: pathlib.Path, step: int | Literal["best"] | None = None):
    """(run, params, facts) of a saved step, by default the newest; params as they are exported, whole on one device."""
    card = read_card(folder)
    run = Run(folder, dataclasses.replace(of_card(card), mesh="data=1", parallel="mesh"), known(folder, card))
    with contextlib.closing(run.checkpoints()) as saved:
        if saved.fresh():
            raise ValueError(f"{folder} holds no checkpoint yet; let the run reach a multiple of every={run.settings.every}")
        if step == "best" and (step := saved.best()) is None:
            raise ValueError(
                f"{folder} has no best checkpoint: none was saved at a measurement; give dev=, with every= and look= that meet"
            )
        state, facts = saved.load(run.program.like, step, damaged="refuse")
    return run, jax.jit(run.export)(state), facts | {"step": int(state.step)}


def export(
    folder: pathlib.Path,
    target: pathlib.Path,
    *,
    step: int | Literal["best"] | None = None,
    dtype: str = "bfloat16",
    readme: str | None = None,
    force: bool = False,
) -> None:
    """A checkpoint, by default the newest, as a flaxgen folder."""
    run, params, facts = load(folder, step)
    card = read_card(folder)
    named = {"data", "dev", "start", "text", "features"} & set(card["settings"])
    paths = {name: pathlib.Path(card["settings"][name]).name for name in named}  # no paths of this machine
    source = {"recipe": card["recipe"], "settings": card["settings"] | paths, "data": card["data"], "starts": card["starts"]} | facts
    how = {"dtype": dtype, "readme": readme, "force": force} | run.kind.saved(run.settings, run.model)
    weights.save(target, run.module, params, run.model.text, source=source, **how)


def say(words: str) -> None:
    if hosts.first():
        print(words, file=sys.stderr, flush=True)
