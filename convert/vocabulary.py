"""The vocabulary that goes with a model: named with --vocab, or found beside SOURCE; one whose length does not fit is refused."""

import dataclasses
import pathlib
from typing import Any, Literal

from flaxgen import disk, errors

# GPT2_ML was trained once with two rows more than BERT's Chinese vocabulary has lines; no id of a text reaches them.
RESERVED = {21130: 21128}
END = "<|endoftext|>"
PAIRS = (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"))


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """A tokenizer, how many rows of the embedding it leaves unused, and where it was found."""

    text: Any
    reserved: int
    said: str

    @property
    def kind(self) -> Literal["wordpiece", "bytepair"]:
        return self.text.kind

    @property
    def end(self) -> tuple[int, ...] | None:
        """The token that ends a text, where the vocabulary has one."""
        return (self.text.control[END],) if self.kind == "bytepair" and END in self.text.control else None


def find(folder: pathlib.Path, named: pathlib.Path | None, section: dict[str, Any] | None, rows: int) -> Vocabulary | None:
    """The vocabulary for a model of so many rows, or None where there is none.

    section: the "text" part of a flaxgen folder's config.json, whose files are then verified by their digests.
    """
    # Loaded here: tokenizers take a moment, and most of what this program refuses is refused before.
    import flaxgen.text
    from flaxgen.text import bytepair, wordpiece

    if named is not None:
        paths = _named(named)
    elif section is not None:
        text = flaxgen.text.load(folder, section)
        return None if text is None else _fitting(text, rows, section.get("reserved", 0), f"the vocabulary of {folder.name}")
    else:
        found = [pair for pair in (("vocab.txt",), *PAIRS) if (folder / pair[0]).exists()]
        if len(found) > 1:
            raise errors.Mismatch(f"{folder}: holds {' and '.join(pair[0] for pair in found)}; say which one is meant with --vocab FILE")
        if not found:
            return None
        paths = [folder / name for name in found[0]]
    for path in paths:
        with disk.opened(path):  # a plain file, and there
            pass
    text = wordpiece.WordPiece.load(*paths, case=_case(paths[0].parent)) if len(paths) == 1 else bytepair.BytePair.load(*paths)
    reserved = rows - RESERVED[rows] if text.kind == "wordpiece" and rows in RESERVED and len(text) != rows else 0
    return _fitting(text, rows, reserved, " and ".join(path.name for path in paths))


def _case(folder: pathlib.Path) -> Literal["lower", "keep"]:
    """Whether case is folded: as transformers' tokenizer_config.json beside the vocabulary says, and by default it is."""
    path = folder / "tokenizer_config.json"
    return "keep" if path.exists() and disk.load_json(path, limit=1_000_000).get("do_lower_case") is False else "lower"


def _named(path: pathlib.Path) -> list[pathlib.Path]:
    """The files of the vocabulary that one of them names; they share what stands before their usual names ("gpt2-encoder.json")."""
    for tokens, merges in PAIRS:
        if path.name.endswith(merges):
            return [path.with_name(path.name.removesuffix(merges) + tokens), path]
    if path.suffix != ".json":
        return [path]
    for tokens, merges in (*PAIRS, *((path.name, second) for _, second in PAIRS)):
        other = path.with_name(path.name.removesuffix(tokens) + merges)
        if path.name.endswith(tokens) and other.exists():
            return [path, other]
    raise errors.Incomplete(f"{path}: a byte-pair vocabulary needs its merges beside it (vocab.bpe or merges.txt); put them there")


def _fitting(text: Any, rows: int, reserved: Any, said: str) -> Vocabulary:
    size = len(text)
    if type(reserved) is not int:
        raise errors.Mismatch(f'{said}: its "reserved" in config.json is {reserved!r}, wanted a number of rows; restore the file')
    if size + reserved != rows:
        room = f" ({reserved} of them reserved)" if reserved else ""
        raise errors.Mismatch(f"{said} has {size:,} entries, the model {rows:,} rows{room}: it is another model's vocabulary, and its ids "
                              "would mean other tokens. Name the right one with --vocab FILE")  # fmt: skip
    spare = f"; {reserved:,} rows more are reserved and unused" if reserved else ""
    return Vocabulary(text, reserved, f"{said}, {size:,} entries{spare}")
