"""A start from any flaxgen folder: does its vocabulary fit the text, must it grow, or is another vocabulary and a new model needed?"""

import collections
import dataclasses
import itertools
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

import flaxgen.text
from flaxgen import weights
from flaxgen.models import config as sizes
from flaxgen.protocols import Params
from flaxgen.text import build, bytepair, characters, pairs, wordpiece

SAMPLE = 20_000_000  # characters by which a vocabulary is judged and made
UNKNOWN = 0.005  # this share of a text's characters may be unknown, and the vocabulary stays as it is
FOREIGN = 0.25  # from this share on the text is of another script
LETTERS = 1.5  # a vocabulary that gives fewer letters a token knows the letters, not the language
NOISE = 0.1  # of new rows around the mean of the old ones, in their standard deviations


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a run starts: on which tokens, with which sizes, and from which parameters.

    note: what was decided, with the numbers, in a sentence or two for the user. text: its `end` is never empty.
    params: float32 arrays of numpy, layer by layer as in a flaxgen folder; None for a fresh model.
    """

    action: Literal["keep", "extend", "rebuild"]
    note: str
    text: flaxgen.text.Text
    config: sizes.Config
    params: Params | None


class Fit(NamedTuple):
    """How a vocabulary takes a text.

    unknown: characters in unknown words, or cut into bytes. alien: why the vocabulary is of another language; "" where it is not.
    """

    characters: int
    unknown: int
    alien: str

    @property
    def share(self) -> float:
        return self.unknown / self.characters

    def described(self, text: flaxgen.text.Text) -> str:
        fate = "unknown" if isinstance(text, wordpiece.WordPiece) else "cut into bytes"
        lost = f"; {self.unknown:,} characters of {self.characters:,} are {fate}" if self.unknown else ""
        return f"its {len(text):,} tokens spell your text{lost}"


def choose(
    folder,
    documents: Iterable[str],
    *,
    length: int | None = None,
    vocab: int | None = None,
    seed: int = 0,
    foreign: Literal["rebuild", "refuse"] = "rebuild",
) -> Plan:
    """The start from a flaxgen folder on a text, by how its vocabulary takes the text's first 20,000,000 characters.

    - Nearly all characters known (UNKNOWN): vocabulary and model are kept.
    - Most are known: the vocabulary is extended by the characters it lacks, and their rows begin at the mean of the others.
    - Another script, or a language that falls into single letters: a new vocabulary, of characters for Chinese and of byte pairs for
      anything else, and a fresh model of the folder's sizes, wired as GPT-2.

    length: tokens a row; the model must have as many positions, a fresh one gets them. vocab: the most tokens a new vocabulary may have.
    seed: of new rows. foreign: whether a text of another language or script makes a fresh model, or is a ValueError. The same arguments
    give the same plan.
    """
    card = weights.describe(folder)
    config, text = card["config"], weights.load_text(folder, card)
    if text is None:
        raise ValueError(f"{folder} has no vocabulary, so no text can be read for it; convert it again with --vocab FILE")
    texts = sample(documents)
    fit = judge(text, texts)
    if not fit.characters:
        raise ValueError("the data holds no character that can be read; wanted text")
    part = f" (judged by its first {SAMPLE:,} characters)" if sum(map(len, texts)) == SAMPLE else ""
    if fit.alien or fit.share > FOREIGN:
        why = fit.alien or f"{fit.share:.1%} of your text's characters are not in the vocabulary of {folder}"
        if foreign == "refuse":
            raise ValueError(f"{folder} cannot go on with this text: {why}; start from a model of its language, or from none (start=)")
        return rebuild(texts, dataclasses.replace(config, positions=length or config.positions), vocab=vocab, why=why)
    if length is not None and length > config.positions:
        raise ValueError(
            f"length={length}: the model in {folder} has {config.positions} positions; give length={config.positions} or less, "
            "or start a fresh model"
        )
    text, params = ended(text, folder), load(folder)
    if isinstance(text, bytepair.BytePair) or fit.share <= UNKNOWN:
        plan = Plan("keep", f"the vocabulary of {folder} is kept: {fit.described(text)}", text, config, params)
    else:
        plan = extend(text, texts, config, params, fit, seed)
    return dataclasses.replace(plan, note=plan.note + part)


def load(folder) -> Params:
    """The parameters of a flaxgen folder in the host's memory, so that none is whole on a device."""
    try:
        host = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS may leave it out
        host = None
    with jax.default_device(host):
        _, params, _ = weights.load(folder, dtype="float32")
    return jax.tree.map(np.asarray, params)


def sample(documents: Iterable[str]) -> list[str]:
    """The documents up to the first SAMPLE characters."""
    texts, room = [], SAMPLE
    for document in documents:
        texts.append(document[:room])
        room -= len(texts[-1])
        if not room:
            break
    if not any(map(str.strip, texts)):
        raise ValueError("the data holds no text; wanted at least one document")
    return texts


def judge(text: flaxgen.text.Text, texts: list[str]) -> Fit:
    """How well a vocabulary takes the texts."""
    return _judge_bytes(text, texts) if isinstance(text, bytepair.BytePair) else _judge_words(text, texts)


def _judge_words(text: wordpiece.WordPiece, texts: list[str]) -> Fit:
    unknown = text.control[wordpiece.UNKNOWN]
    total = lost = letters = tokens = 0
    for word, times in build.words(texts, case=text.case).items():
        ids = text.encode(word)
        total += times * len(word)
        lost += times * len(word) * (unknown in ids)
        if word[0].isalpha() and not characters.is_ideograph(word[0]):
            letters += times * len(word)
            tokens += times * len(ids)
    chinese = 2 * sum(characters.is_ideograph(token[-1]) for token in text.tokens) > len(text)
    alien = ""
    if chinese and letters > total / 2 and letters < LETTERS * tokens:
        alien = f"the old vocabulary is Chinese and cuts your text's words into pieces of {letters / tokens:.1f} letters"
    return Fit(total, lost, alien)


def _judge_bytes(text: bytepair.BytePair, texts: list[str]) -> Fit:
    broken = {}  # id -> the characters of several bytes that begin in a token which is no whole text
    for i, shown in enumerate(text.shown):
        try:
            shown.decode()
        except UnicodeDecodeError:
            broken[i] = sum(byte >= 0xC0 for byte in shown)
    counts = collections.Counter(itertools.chain.from_iterable(map(text.encode, texts)))
    total = sum(len("".join(one.split())) for one in texts)
    return Fit(total, sum(times * broken.get(i, 0) for i, times in counts.items()), "")


def extend(text: wordpiece.WordPiece, texts: list[str], config: sizes.Config, params: Params, fit: Fit, seed: int) -> Plan:
    """The plan that appends the characters which `text` lacks."""
    longer = build.extend(text, texts)
    rows = len(longer) - len(text)
    params, config = grow(params, config, rows, jax.random.key(seed), known=len(text))
    note = (
        f"vocabulary extended by {rows:,} characters of your text: {len(text):,} -> {len(longer):,} tokens; {fit.share:.2%} of the "
        f"text was unknown, {judge(longer, texts).share:.2%} is now. The new characters have everything to learn"
    )
    return Plan("extend", note, longer, config, params)


def rebuild(texts: list[str], config: sizes.Config, *, vocab: int | None = None, why: str = "") -> Plan:
    """The plan of a fresh model, wired as GPT-2, with a vocabulary from the texts; `config` gives the other sizes."""
    letters = [character for one in texts for character in one if character.isalpha()]
    if 2 * sum(map(characters.is_ideograph, letters)) > len(letters):
        text, kind = build.vocabulary(texts, size=vocab or 8192), "characters"
    else:
        text, kind = pairs.byte_pairs(texts, size=vocab or pieces(sum(map(len, texts)))), "byte pairs"
    text = ended(text, "the new vocabulary")
    note = f"a new vocabulary of {len(text):,} {kind} was made from your text, and the model starts from nothing" + (why and f": {why}")
    # GPT-2's wiring learns from the first update, GPT2_ML's rests at the frequencies of tokens for hundreds: tinyshakespeare, 128 wide, 292
    # updates of 512 tokens, nats a character: 2.13 and 2.57.
    fresh = dataclasses.replace(config, vocab=len(text), wiring="pre", activation="gelu_tanh")
    return Plan("rebuild", note, text, fresh, None)


def pieces(count: int) -> int:
    """How many byte pairs a text of so many characters teaches: a power of two from 512 to 8,192, 2,048 for a megabyte."""
    return min(8192, max(512, 1 << (count // 1024).bit_length()))


def ended(text: flaxgen.text.Text, where) -> flaxgen.text.Text:
    """The tokenizer with an end token: its own, else [SEP] or <|endoftext|>."""
    if text.end:
        return text
    for name in ("[SEP]", pairs.END):
        if name in text.control:
            return dataclasses.replace(text, end=(text.control[name],))
    raise ValueError(f'{where} has no token that ends a text; wanted [SEP] or {pairs.END} in it, or "end" in its config.json')


def grow(params: Params, config: sizes.Config, rows: int, key: jax.Array, *, known: int | None = None) -> tuple[Params, sizes.Config]:
    """The model with `rows` new tokens behind its first `known` (by default all): (params, config), other leaves as they are.

    A new row is the mean of the known ones with a little noise, so that as output weights they give each new token about an average
    logit, and the old tokens keep their odds (Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language Models"). Reserved
    rows that lie behind the known ones are used up first.
    """
    known = config.vocab if known is None else known
    old_VD = np.asarray(params["params"]["embed"]["token"]["embedding"])
    vocab = max(config.vocab, known + rows)
    mean_1D, spread_1D = (f(old_VD[:known], axis=0, keepdims=True) for f in (np.mean, np.std))
    new_VD = mean_1D + NOISE * spread_1D * np.asarray(jax.random.normal(key, (rows, config.width), old_VD.dtype))
    table_VD = np.concatenate([old_VD[:known], new_VD, old_VD[known + rows :]])
    tree: dict[str, Any] = {**params["params"]}
    tree["embed"] = {**tree["embed"], "token": {"embedding": table_VD}}
    return {"params": tree}, dataclasses.replace(config, vocab=vocab)
