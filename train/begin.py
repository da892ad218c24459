"""What a run begins with: the sizes of its model, its vocabulary, and the parameters, from a folder or anew."""

import dataclasses
import pathlib
from typing import Any

import flaxgen.text.build
import flaxgen.text.wordpiece
from flaxgen import weights
from flaxgen.models import config
from train import corpus, warm
from train.settings import Language

ACTIVATION = {"between": "gelu", "pre": "gelu_tanh"}  # as GPT2_ML and GPT-2 were published
ENOUGH = 8192  # tokens of a vocabulary of characters that nobody limits


@dataclasses.dataclass(frozen=True)
class Model:
    """What is trained. params: to begin from, on the host and by layer; None: drawn anew. grown: whether its vocabulary was extended."""

    config: Any
    text: Any
    params: Any
    note: str
    grown: bool = False


def begin(s: Language) -> Model:
    """The model of a run's first update, by its settings; what is wrong with data= or start= is a ValueError."""
    files = [path for source in corpus.sources(s.data) for path in source.files]
    if s.dev:
        corpus.sources(s.dev)
    if not s.start:
        text = warm.ended(vocabulary(s), s.text)
        note = f"a new model, with {'the vocabulary of ' + s.text if s.text else 'a vocabulary made from the data'}: {len(text):,} tokens"
        return Model(sizes(s, len(text)), text, None, note)
    if all(corpus.kind(path) == "tfrecord" for path in files):
        return as_it_is(s)
    texts = (text for path in files if corpus.kind(path) != "tfrecord" for text in corpus.texts(path))
    plan = warm.choose(s.start, texts, length=s.length, vocab=s.vocab or None, seed=s.seed, foreign=s.foreign)
    if plan.params is None and (s.lora or s.freeze):
        raise ValueError(f"{plan.note}; lora= and freeze= want a model that has learnt. Leave them out, or give another start=")
    grown = plan.action == "extend"
    return Model(dataclasses.replace(plan.config, dropout=s.dropout), plan.text, plan.params, plan.note, grown)


def sizes(s: Language, vocab: int) -> config.Config:
    """Those of a new model."""
    made = (vocab, s.length, s.width, s.layers, s.heads, 4 * s.width, s.wiring, ACTIVATION[s.wiring])
    return config.Config(*made, dropout=s.dropout, init_range=s.init_range)


def as_it_is(s: Language) -> Model:
    """The model of start= with its own vocabulary, for data that is token ids already."""
    card = weights.describe(s.start)
    if s.length > card["config"].positions:
        raise ValueError(f"length={s.length}: the model in {s.start} has {card['config'].positions} positions; give a smaller length=")
    text = weights.load_text(s.start, card)
    if text is None:
        raise ValueError(f"{s.start} has no vocabulary; convert it again with --vocab FILE")
    made = dataclasses.replace(card["config"], dropout=s.dropout)
    return Model(made, warm.ended(text, s.start), warm.load(s.start), f"the vocabulary of {s.start} is kept: the data are ids of it")


def vocabulary(s: Language):
    """The tokenizer that the settings name, or one made from the data."""
    if not s.text:
        return flaxgen.text.build.vocabulary(corpus.documents(s.data), size=s.vocab or ENOUGH)
    path = pathlib.Path(s.text)
    if not path.is_dir():
        return flaxgen.text.wordpiece.WordPiece.load(path)
    text = weights.load_text(path, weights.describe(path))
    if text is None:
        raise ValueError(f"text={s.text} holds no vocabulary; name a folder that does, or a vocab.txt")
    return text
