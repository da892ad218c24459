"""A run's folder: started, resumed, exported.

run.json          recipe, settings, digest of the data, and each start: step, planned steps, versions
vocab.txt rows/   the vocabulary made from the data, and its token table
checkpoints/      training state      log.jsonl  the curve      samples.txt  what the model wrote on the way
"""

import dataclasses
import json
import pathlib
import platform
import sys
import tempfile
from importlib import metadata

import jax
import numpy as np

import flaxgen.text.build
import flaxgen.text.wordpiece
from flaxgen import weights
from flaxgen.models import config, transformer
from flaxgen.tasks import language
from train import checkpoint, data, loop, recipes, sample
from train import step as steps

END = "[SEP]"


@dataclasses.dataclass(frozen=True)
class Run:
    """What the settings of a folder give: text, rows, task, and the optimizer for its planned steps."""

    folder: pathlib.Path
    settings: recipes.Settings
    text: flaxgen.text.wordpiece.WordPiece
    task: language.Language
    optimizer: object

    @classmethod
    def open(cls, folder: pathlib.Path, settings: recipes.Settings) -> "Run":
        s = settings
        text = vocabulary(folder / "vocab.txt", s)
        for prompt in s.prompts.split():
            if not 1 <= len(text.encode(prompt)) < s.length:
                raise ValueError(f"the prompt {prompt!r} leaves no room in length={s.length}; give a longer length=, or other prompts=")
        sizes = config.Config(len(text), s.length, s.width, s.layers, s.heads, 4 * s.width, "between", "gelu", dropout=s.dropout)
        task = language.Language(transformer.Transformer(sizes), loop=s.loop)
        optimizer = steps.adamw(steps=s.steps, rate=s.rate, warmup=s.warmup, decay=s.decay, clip=s.clip)
        return cls(folder, s, text, task, optimizer)

    def start(self):
        return steps.start(self.task, self.optimizer, jax.random.key(self.settings.seed))

    def rows(self, name: str, path: str) -> data.Rows:
        recipe = json.dumps(self.text.options(), sort_keys=True)
        end = self.text.control[END]
        return data.build(self.folder / name, pathlib.Path(path), self.text.encode, end, length=self.settings.length, recipe=recipe)

    def checkpoints(self) -> checkpoint.Checkpoints:
        return checkpoint.Checkpoints(self.folder / "checkpoints")


def train(recipe: str, settings: recipes.Settings, given: dict[str, str], folder: pathlib.Path) -> int:
    """Starts the run of `folder` or resumes it; the exit code: 0, or 128 + the signal that ended it early (saved all the same)."""
    card = resume(folder, given) if (folder / "run.json").is_file() else {"recipe": recipe, "settings": {}, "starts": []}
    settings = recipes.override(recipes.Settings(**card["settings"]) if card["settings"] else settings, given)
    if not card["starts"]:
        (folder / "vocab.txt").unlink(missing_ok=True)  # of a start that was refused, perhaps from other data
    run = Run.open(folder, settings)
    rows = run.rows("rows", settings.data)
    dev = run.rows("dev", settings.dev) if settings.dev else None
    if card.setdefault("data", rows.digest) != rows.digest:
        raise ValueError(f"{settings.data} is not the text that {folder} was started on (digest differs); restore it, or give another out=")
    saved = run.checkpoints()
    state, facts = saved.load(jax.eval_shape(run.start)) if saved.steps() else (run.start(), {})
    done = int(state.step)
    if settings.steps < done:
        raise ValueError(f"{folder} has done {done} updates, steps={settings.steps} is less; give more, or start another with out=DIR")
    log = folder / "log.jsonl"
    trim(log, done)
    versions = {name: metadata.version(name) for name in ("jax", "flax", "optax")}
    card["settings"] = dataclasses.asdict(settings)
    card["starts"].append({"step": done, "steps": settings.steps, "python": platform.python_version(), "device": device()} | versions)
    whole = folder / "run.json.new"
    whole.write_text(json.dumps(card, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    whole.replace(folder / "run.json")
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    sizes = f"{count:,} parameters, {rows.weight():,} tokens an epoch"
    print(f"{folder}: {sizes}, update {done} of {settings.steps}", file=sys.stderr, flush=True)

    def look(step, state):
        params = run.task.export(state.params, state.carry)
        write_samples(run, params, step)
        return {"dev_perplexity": round(perplexity(run.task, state.params, dev, limit=512), 3)} if dev else {}

    hooks = loop.Hooks(lambda step: rows.batch(settings.seed, step, settings.batch), saved.save, look)
    key = jax.random.key(settings.seed + 1)
    moved = {"steps_total": settings.steps, "every": settings.every, "look": settings.look, "log": log, "facts": facts}
    _, facts = loop.run(run.task, run.optimizer, state, key, hooks, **moved)
    return 128 + facts["signal"] if facts["signal"] else 0


def resume(folder: pathlib.Path, given: dict[str, str]) -> dict:
    """run.json of a folder, when what is given changes nothing but how long and how often."""
    card = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    old = recipes.Settings(**card["settings"])
    new = recipes.override(old, given)
    fixed = [key for key in given if key not in recipes.MOVABLE and getattr(old, key) != getattr(new, key)]
    if fixed:
        listed = ", ".join(f"{key}={getattr(old, key)}, not {getattr(new, key)}" for key in fixed)
        raise ValueError(f"{folder} holds a run with {listed}; only {', '.join(recipes.MOVABLE)} may change. Start another with out=DIR")
    return card


def load(folder: pathlib.Path, step: int | None = None):
    """(run, params, facts) of a saved step, by default the newest; params as they are exported."""
    if not (folder / "run.json").is_file():
        raise ValueError(f"{folder} holds no run (no run.json); start one with `python -m train RECIPE out={folder}`")
    run = Run.open(folder, recipes.Settings(**json.loads((folder / "run.json").read_text(encoding="utf-8"))["settings"]))
    saved = run.checkpoints()
    if not saved.steps():
        raise ValueError(f"{folder} holds no checkpoint yet; let the run reach a multiple of every={run.settings.every}")
    state, facts = saved.load(jax.eval_shape(run.start), step)
    return run, run.task.export(state.params, state.carry), facts | {"step": int(state.step)}


def export(folder: pathlib.Path, target: pathlib.Path, *, dtype: str = "bfloat16", readme: str | None = None, force: bool = False) -> None:
    """The newest checkpoint as a flaxgen folder."""
    run, params, facts = load(folder)
    card = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    settings = card["settings"] | {name: pathlib.Path(card["settings"][name]).name for name in ("data", "dev")}  # no paths of this machine
    source = {"recipe": card["recipe"], "settings": settings, "data": card["data"], "starts": card["starts"]} | facts
    end = [run.text.control[END]]
    weights.save(
        target, run.task.model, params, run.text, dtype=dtype, end=end, rule=sample.RULE, source=source, readme=readme, force=force
    )


def epoch_tokens(folder: pathlib.Path) -> int:
    """Targets in one pass over the run's data."""
    facts = json.loads((folder / "rows" / "rows.json").read_text(encoding="utf-8"))
    return data.Rows(np.load(folder / "rows" / "rows.npy", mmap_mode="r"), facts["digest"]).weight()


def vocabulary(path: pathlib.Path, settings: recipes.Settings) -> flaxgen.text.wordpiece.WordPiece:
    """The vocabulary at `path`, made from the data of the settings when it does not lie there yet."""
    if not path.is_file():
        text = flaxgen.text.build.vocabulary(data.documents(pathlib.Path(settings.data)), size=settings.vocab)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as work:  # a killed run leaves no half vocabulary
            text.save(work)
            (pathlib.Path(work) / path.name).replace(path)
    return flaxgen.text.wordpiece.WordPiece.load(path)


def perplexity(task, params, rows: data.Rows, *, limit: int | None = None, size: int = 16) -> float:
    """exp of the mean nats a target over the first `limit` rows, or all of them."""
    nats = weight = 0.0
    token_RT = rows.token_RT[:limit]
    score = jax.jit(task.nats)
    for start in range(0, len(token_RT), size):
        part_BT = token_RT[start : start + size]
        batch = data.split(np.concatenate([part_BT, np.full((size - len(part_BT), part_BT.shape[1]), data.EMPTY, np.int32)]))
        nats += float((np.asarray(score(params, batch)) * batch["weight_BT"]).sum())
        weight += float(batch["weight_BT"].sum())
    return float(np.exp(nats / weight))


def write_samples(run: Run, params, step: int) -> None:
    """Appends a continuation of each prompt of the settings to samples.txt."""
    prompts = run.settings.prompts.split()
    if not prompts:
        return
    texts = sample.continuations(run.task.model, params, run.text, prompts, end=run.text.control[END])
    with open(run.folder / "samples.txt", "a", encoding="utf-8") as file:
        file.write(f"step {step}\n" + "".join(f"  {prompt}|{text}\n" for prompt, text in zip(prompts, texts, strict=True)))


def trim(log: pathlib.Path, done: int) -> None:
    """Drops the lines of updates after `done`, which are made again, and a last line that was cut short."""
    if log.is_file():
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
        log.write_text("".join(line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= done), encoding="utf-8")


def device() -> str:
    return f"{jax.device_count()} × {jax.devices()[0].device_kind}"
