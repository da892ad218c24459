"""Runs that learn to answer questions from passages: the kind "reading" (see train.kinds)."""

import dataclasses

import jax

import flaxgen.text.build
import flaxgen.text.wordpiece
from flaxgen import errors, weights
from flaxgen.models import config, layers, transformer
from flaxgen.tasks import adversarial, language
from flaxgen.text import passages
from train import asking, flops, induction, parallel, sample, warm
from train import begin as beginning
from train.settings import Reading

Config = config.Config
SHARDING = transformer.SHARDING
CARRY = ()
UNIT = "tokens"
APPLICATION = {"causal": "unilm", "filled": "encoder"}
WRAPPERS = {"fgm": adversarial.FastGradient, "penalty": adversarial.GradientPenalty}

limits = transformer.limits


def lengths(s: Reading) -> passages.Lengths:
    return passages.Lengths(s.passage, s.question, s.answer)


def longest(s: Reading) -> int:
    """Tokens of the longest row; to fill an answer in at once, one [CLS] and one more [SEP] are there."""
    return lengths(s).row + (2 if s.form == "filled" else 0)


def begin(s: Reading) -> beginning.Model:
    chosen = {"application": APPLICATION[s.form], "dropout": s.dropout}
    asking.sources(s.data)  # which is refused before anything that takes longer
    if s.start:
        return started(s, chosen)
    if s.text:
        text = flaxgen.text.wordpiece.WordPiece.load(s.text)
    else:
        text = flaxgen.text.build.vocabulary(asking.texts(s.data), size=s.vocab or beginning.ENOUGH)
    checked(text, s)
    made = (len(text), longest(s), s.width, s.layers, s.heads, 4 * s.width, s.wiring, "gelu")
    sizes = Config(*made, position=s.position, segments=2, outputs=(s.head,), init_range=s.init_range, **chosen)
    note = f"a new model, with {'the vocabulary ' + s.text if s.text else 'a vocabulary made from the data'}: {len(text):,} tokens"
    drawn = layers.init(transformer.Transformer(sizes), jax.random.key(s.seed), "unroll") if s.attention == "induction" else None
    params = induction.wire(drawn, sizes, s.seed) if drawn else None
    return beginning.Model(sizes, warm.ended(text, s.text), params, note)


def started(s: Reading, chosen: dict) -> beginning.Model:
    """The model of start=, whatever it was used for."""
    try:
        card = weights.describe(s.start)
    except errors.Incomplete as error:
        raise ValueError(f"start={s.start}: {error}. An empty start= trains a new model") from None
    text, sizes = weights.load_text(s.start, card), card["config"]
    if text is None:
        raise ValueError(f"{s.start} has no vocabulary; convert it again with --vocab FILE")
    checked(text, s)
    if not isinstance(sizes, Config) or not sizes.speaks or sizes.segments < 2:
        raise ValueError(f"{s.start} cannot learn to read; wanted a transformer with two segments and an output over its vocabulary")
    if sizes.position == "learned" and longest(s) > sizes.positions:
        raise ValueError(f"rows of {longest(s)} tokens; the model in {s.start} has {sizes.positions} positions: lower passage=, question=")
    note = f"the model and the vocabulary of {s.start}: {len(text):,} tokens"
    return beginning.Model(dataclasses.replace(sizes, **chosen), warm.ended(text, s.start), warm.load(s.start), note)


def checked(text, s: Reading) -> None:
    """Refuses a vocabulary that rows cannot be made with."""
    for name in ("[CLS]", "[SEP]", *(["[MASK]"] if s.form == "filled" else [])):
        passages.control(text, name)


def plain(s: Reading, sizes: Config) -> language.Language:
    """The task without its wrappers: the sum of the targets' cross-entropy over their number, targets being the answer and its [SEP]."""
    spread = parallel.ROWS if s.parallel == "mesh" else ()
    how = {"loop": s.loop, "remat": s.remat, "dtype": s.dtype, "chunks": s.chunks, "spread": spread}
    most = s.answer if s.form == "filled" else s.question + s.answer  # a long answer may take of a short question's room
    return language.Language(transformer.Transformer(sizes), **how, targets=most)


def task(s: Reading, sizes: Config):
    return plain(s, sizes) if s.adversarial == "none" else WRAPPERS[s.adversarial](plain(s, sizes), s.epsilon)


def given(s: Reading, model: beginning.Model):
    return transformer.stack(model.params) if model.params is not None and s.loop == "scan" else model.params


def freeze(s: Reading, model: beginning.Model) -> tuple[str, str]:
    return s.freeze, "float32"


def rows(run, name: str, words: str, known: str | None) -> asking.Rows:
    s = run.settings
    return asking.build(words, run.model.text, lengths(s), s.form, known=known)


def look(run, rows: asking.Rows, dev: asking.Rows | None):
    s, sizes = run.settings, dataclasses.replace(run.model.config, dropout=0.0)
    measured = dataclasses.replace(plain(s, sizes), remat="none")
    scores = {name: sample.Score(run, measured, part) for name, part in (("train_perplexity", rows), ("dev_perplexity", dev)) if part}

    def seen(step, state):
        found = {name: score(state) for name, score in scores.items()}
        return found, found.get(f"{s.best}_perplexity")

    return seen


def cost(s: Reading, sizes: Config, fixed: int) -> tuple[int, str]:
    whole = flops.a_token(sizes, longest(s), frozen=fixed)
    return whole * longest(s) // s.answer, f"{flops.formula(sizes, longest(s))}; a target counts as its share of a full row"


def saved(s: Reading, model: beginning.Model) -> dict:
    return {"end": list(model.text.end), "rule": {"temperature": 0.0}}
