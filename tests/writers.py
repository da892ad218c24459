"""Small writers that several tests share."""

import functools

import jax
import numpy as np

import flaxgen
from flaxgen.models import config as sizes
from flaxgen.text import bytepair, wordpiece

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"天地玄黄宇宙洪荒日月盈昃辰宿列张，。", "sun", "##ny", "day", "1", "2", "3")


def characters(**settings) -> flaxgen.Writer:
    """A random model of 40 wide over Chinese characters and a few pieces of words, with the end token [SEP]."""
    return make(wordpiece.WordPiece(WORDS, end=(3,)), len(WORDS) + 2, **settings)


def byte_pairs(**settings) -> flaxgen.Writer:
    """The same over bytes, with the end token <|endoftext|>."""
    return make(bytepair.BytePair((*bytepair.alphabet(), "<|endoftext|>"), (), end=(256,)), 257, **settings)


def make(text, vocab: int, *, width: int = 40, positions: int = 64, key: int = 0, **settings) -> flaxgen.Writer:
    model = flaxgen.Transformer(sizes.Config(vocab, positions, width, 2, 4, 2 * width, "between", "gelu", init_range=0.3))
    return flaxgen.Writer(model, params(model, key), text, **settings)


@functools.cache
def params(model: flaxgen.Transformer, key: int):
    return jax.jit(model.init)(jax.random.key(key), np.zeros((1, 2), int))
