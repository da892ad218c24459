"""Text to token ids and back. A tokenizer has `encode`, `decode`, `stream`, `control`, `save` and a length."""

import pathlib
from typing import Any

from flaxgen.errors import Mismatch
from flaxgen.text import bytepair, files, single, wordpiece

Text = wordpiece.WordPiece | bytepair.BytePair | single.Single

_FILES = {"wordpiece": (wordpiece.FILE,), "bytepair": (bytepair.VOCAB, bytepair.MERGES), "single": (single.FILE,)}


def load(folder, section: dict[str, Any] | None) -> Text | None:
    """The tokenizer of a flaxgen folder by the "text" section of its config.json; None where there is none.

    Every file must have the sha256 that the section names: another vocabulary of the same length would give wrong text, silently.
    """
    if section is None or section == {"kind": None}:
        return None
    folder = pathlib.Path(folder)
    where = folder / "config.json"
    got = section.get("kind") if isinstance(section, dict) else type(section).__name__
    if got not in [*_FILES]:
        raise Mismatch(f'{where}: the kind of "text" is {got!r}, wanted one of {sorted(_FILES)} or null; a newer flaxgen may read it')
    names = _FILES[section["kind"]]
    _verify(folder, names, section.get("sha256"))
    paths = [folder / name for name in names]
    if section["kind"] == "bytepair":
        return bytepair.BytePair.load(*paths)
    if section["kind"] == "single":
        return single.Single.load(*paths)
    try:
        return wordpiece.WordPiece.load(*paths, case=section.get("case", "lower"))
    except ValueError as error:
        raise Mismatch(f'{where}, "text": {error}') from None


def _verify(folder: pathlib.Path, names: tuple[str, ...], wanted: Any) -> None:
    if not isinstance(wanted, dict) or set(wanted) != set(names):
        where = folder / "config.json"
        raise Mismatch(f'{where}: the "sha256" of "text" is {wanted!r}, wanted one for each of {list(names)}; save the model anew')
    for name in names:
        got = files.digest(files.read(folder / name))
        if got != wanted[name]:
            raise Mismatch(
                f"{folder / name}: its sha256 is {got}, config.json names {wanted[name]}; this is not the vocabulary "
                "the model was saved with: put that one back, or convert the model anew with --vocab"
            )
