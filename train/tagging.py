"""Runs that learn a character for every character of a line: the kind "tagging" (see train.kinds)."""

import math

import jax.numpy as jnp
import numpy as np

import flaxgen.couplets
from flaxgen.models import gated, gated_config
from flaxgen.tasks import adversarial, tagging
from flaxgen.text import single
from train import begin as beginning
from train import couplets, hosts, sample
from train.settings import Tagging

Config = gated_config.Config
SHARDING = gated.SHARDING
CARRY = ()
UNIT = "tokens"
LIMIT = 6400  # held-out couplets that are measured, as the article's 100 batches of 64
WRAPPERS = {"fgm": adversarial.FastGradient, "penalty": adversarial.GradientPenalty}


def limits(config: Config) -> tuple:
    return ()


def begin(s: Tagging) -> beginning.Model:
    both = (line for pair in couplets.pairs(s.data, longest=s.longest) for line in pair)
    text = single.Single.build(both, least=s.least)
    sizes = Config(len(text), s.model, s.width, s.layers or None, dropout=s.dropout)
    return beginning.Model(sizes, text, None, f"a new model of {len(text) - 1:,} characters that stand {s.least} times in the data")


def task(s: Tagging, sizes: Config):
    plain = tagging.Tagging(gated.Gated(sizes), dtype=s.dtype)
    return plain if s.adversarial == "none" else WRAPPERS[s.adversarial](plain, s.epsilon)


def given(s: Tagging, model: beginning.Model):
    return model.params


def freeze(s: Tagging, model: beginning.Model) -> tuple[str, str]:
    return s.freeze, "float32"


def rows(run, name: str, words: str, known: str | None) -> couplets.Couplets:
    return couplets.build(words, run.model.text, longest=run.settings.longest, known=known)


def look(run, rows: couplets.Couplets, dev: couplets.Couplets | None):
    prompts = [prompt for prompt in run.settings.prompts.split("|") if prompt]
    whole = run.program.gatherer(run.export)
    measure = score(run, dev) if dev else None

    def seen(step, state):
        if prompts:
            params = whole(state)
            if hosts.first():
                answer(run, params, prompts, step)
        found = measure(state) if measure else {}
        return found, found.get("dev_perplexity")

    return seen


def answer(run, params, prompts: list[str], step: int) -> None:
    """Appends to samples.txt what answers each prompt by the article's rule, or why nothing does."""
    writer = flaxgen.couplets.Couplets(run.module, params, run.model.text)
    try:
        found = writer.each(prompts, rules=flaxgen.couplets.ARTICLE)
    except FloatingPointError as error:
        found = [error] * len(prompts)
    answers = [f"({one})" if isinstance(one, Exception) else one[0].text for one in found]
    sample.append(run.folder, prompts, answers, step)


def score(run, dev: couplets.Couplets):
    """score(state): {"dev_perplexity": …, "dev_accuracy": …} of a character, on at most LIMIT held-out couplets of all lengths."""
    measured = tagging.Tagging(run.module)

    def sums(state, batch):
        params = run.export(state)
        weight_BT = batch["weight_B"][:, None] * jnp.ones_like(batch["target_BT"], jnp.float32)
        right_BT = jnp.argmax(run.module.apply(params, batch["token_BT"]), axis=-1) == batch["target_BT"]
        return jnp.stack([(value_BT * weight_BT).sum() for value_BT in (measured.nats(params, batch), right_BT, weight_BT)])

    total = run.program.total(sums)
    size = run.settings.batch // run.settings.accumulate

    def seen(state) -> dict[str, float]:
        sums_3 = np.zeros(3)
        for batch in dev.parts(size, LIMIT):
            place = run.program.place(lambda part, batch=batch: {name: array[part] for name, array in batch.items()}, size)
            sums_3 += np.asarray(total(state, place), np.float64)
        nats, right, weight = sums_3.tolist()
        mean = nats / weight
        perplexity = round(math.exp(mean), 3) if mean < sample.TOO_MUCH else math.inf
        return {"dev_perplexity": perplexity, "dev_accuracy": round(right / weight, 5)}

    return seen


def cost(s: Tagging, sizes: Config, fixed: int) -> tuple[int, str]:
    """Every kernel's product is 2 operations an element and character, and has two more such in its gradient."""
    elements = sum(math.prod(shape) for path, shape in sizes.shapes().items() if path.endswith("/kernel"))
    count = 6 * elements - 2 * fixed
    return count, f"FLOPs a character, forward and backward: 6 × {elements:,} elements of kernels, less 2 × {fixed:,} frozen = {count:.4g}"


def saved(s: Tagging, model: beginning.Model) -> dict:
    return {}
