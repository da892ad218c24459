"""Runs that learn to go on with a text: the kind "language" (see train.kinds)."""

import dataclasses
import json
import pathlib
import re

import jax

from flaxgen.models import config, transformer
from flaxgen.tasks import adversarial, language, lora
from train import begin as beginning
from train import data, flops, hosts, parallel, sample
from train.settings import Language

Config = config.Config
SHARDING = transformer.SHARDING
CARRY = ()
UNIT = "tokens"
LEARNT = r"^(?!.*/kernel_[ab]$|embed/token/embedding$)"  # lora.FROZEN without the token embedding, which has new rows to learn
WRAPPERS = {"fgm": adversarial.FastGradient, "penalty": adversarial.GradientPenalty}

limits = transformer.limits
begin = beginning.begin


def plain(s: Language, sizes: Config) -> language.Language:
    """The task without its wrappers."""
    spread = parallel.ROWS if s.parallel == "mesh" else ()
    return language.Language(transformer.Transformer(sizes), loop=s.loop, remat=s.remat, dtype=s.dtype, chunks=s.chunks, spread=spread)


def adapted(s: Language, sizes: Config):
    """The task with low-rank updates where they are asked for."""
    return lora.Lora(plain(s, sizes), s.lora, s.alpha) if s.lora else plain(s, sizes)


def task(s: Language, sizes: Config):
    return adapted(s, sizes) if s.adversarial == "none" else WRAPPERS[s.adversarial](adapted(s, sizes), s.epsilon)


def given(s: Language, model: beginning.Model):
    params = model.params
    if params is not None and s.loop == "scan":
        params = transformer.stack(params)
    if params is not None and s.lora:
        params = adapted(s, model.config).adapt(params, jax.random.key(s.seed))
    return params


def freeze(s: Language, model: beginning.Model) -> tuple[str, str]:
    if model.grown and s.freeze and re.search(s.freeze, "embed/token/embedding"):
        raise ValueError(f"freeze={s.freeze} keeps the token embedding, which has new characters to learn; leave it out of the regex")
    regex = "|".join(filter(None, [s.freeze, (LEARNT if model.grown else lora.FROZEN) if s.lora else ""]))
    return regex, s.dtype if s.lora else "float32"


def rows(run, name: str, words: str, known: str | None) -> data.Data:
    s, text = run.settings, run.model.text
    end = text.end[0] if s.ends == "token" else None
    how = {"length": s.length, "vocab": len(text), "rows": s.rows, "neighbours": s.neighbours, "shortest": s.shortest}
    recipe = json.dumps(text.options(), sort_keys=True)
    return data.build(run.folder / name, words, text.encode, end, **how, recipe=recipe, known=known)


def epoch_tokens(folder: pathlib.Path) -> int:
    """Targets in one pass over the data of the run in a folder."""
    return data.load(folder / "rows").weight()


def look(run, rows: data.Data, dev: data.Data | None):
    model = run.model
    prompts = sample.prompts(run.settings.prompts, model.text, run.settings.length, rows)
    score = sample.Score(run, measured(run), dev) if dev else None
    whole = run.program.gatherer(run.export)

    def seen(step, state):
        if prompts:
            params = whole(state)
            if hosts.first():
                sample.write(run.folder, run.module, params, model.text, prompts, step)
        found = score(state) if score else None
        return {} if found is None else {"dev_perplexity": found}, found

    return seen


def measured(run) -> language.Language:
    """The task by which held-out rows are scored: without dropout, and nothing computed twice."""
    sizes = dataclasses.replace(run.model.config, dropout=0.0)
    return dataclasses.replace(plain(run.settings, sizes), remat="none")


def cost(s: Language, sizes: Config, fixed: int) -> tuple[int, str]:
    less = f", less 2 for each of {fixed:,} frozen weights" if fixed else ""
    return flops.a_token(sizes, s.length, frozen=fixed), flops.formula(sizes, s.length) + less


def saved(s: Language, model: beginning.Model) -> dict:
    return {"end": list(model.text.end), "rule": sample.RULE}
