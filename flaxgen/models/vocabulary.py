"""A smaller vocabulary for a model that is there: which rows of its tables are kept, new rows that are means of them, and the way back.

What a token has a row for follows from the sizes alone, so this works for every architecture. The token embedding, the output bias and an
output head of its own are gathered; nothing else changes, and the logits of kept tokens are what they were. (Su's bert4keras calls these
keep_tokens and compound_tokens.)
"""

import dataclasses
import json
import operator
import pathlib
import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from flaxgen import disk
from flaxgen.errors import Mismatch
from flaxgen.models.config import differences

FILE = "kept.json"


@dataclasses.dataclass(frozen=True)
class Compound:
    """A token that is made of others: its row is the weighted mean of theirs.

    ids: places in the vocabulary that is kept, not in the full one. token: its name in the vocabulary.
    """

    ids: tuple[int, ...]
    weights: tuple[float, ...] | None = None
    token: str | None = None


@dataclasses.dataclass(frozen=True)
class Kept:
    """The map from a vocabulary of `rows` tokens to a smaller one: `ids` of the full one in their new order, and then `compounds`."""

    rows: int
    ids: tuple[int, ...]
    compounds: tuple[Compound, ...] = ()

    def __post_init__(self):
        if not _whole(self.rows) or not all(map(_whole, self.ids)):
            raise ValueError("kept: wanted whole numbers of at least 0")
        outside = [i for i in self.ids if i >= self.rows]
        if not self.ids or outside or len(set(self.ids)) != len(self.ids):
            what = f"id {outside[0]} of {self.rows} rows" if outside else "an id twice" if self.ids else "no ids"
            raise ValueError(f"kept: got {what}; wanted ids from 0 to {self.rows - 1}, each at most once")
        for number, compound in enumerate(self.compounds):
            self._check(f"compound {number}", compound)

    def _check(self, what: str, compound: Compound) -> None:
        wrong = [i for i in compound.ids if not _whole(i) or i >= len(self.ids)]
        if wrong or not compound.ids:
            raise ValueError(f"{what}: got ids {list(compound.ids)}; wanted some of the {len(self.ids)} kept tokens, by their new places")
        weights = compound.weights
        if weights is not None and (len(weights) != len(compound.ids) or not all(map(_number, weights)) or not abs(sum(weights)) > 0):
            raise ValueError(
                f"{what}: got weights {list(weights)}; wanted a number for each of its {len(compound.ids)} ids, and a sum that is not 0"
            )

    def __len__(self) -> int:
        return len(self.ids) + len(self.compounds)

    def place(self, token: int) -> int | None:
        """Where a token of the full vocabulary is now."""
        return self._places.get(token)

    @property
    def _places(self) -> dict[int, int]:
        return {old: new for new, old in enumerate(self.ids)}

    def trim(self, table: Any) -> np.ndarray:
        """The rows that are kept, and the compounds' means of them (in float64, rounded once)."""
        kept = np.asarray(table)[list(self.ids)]
        means = [np.average(kept[list(each.ids)].astype(np.float64), 0, each.weights)[None].astype(kept.dtype) for each in self.compounds]
        return np.concatenate([kept, *means])

    def restore(self, table: Any, full: Any) -> np.ndarray:
        """The full table with the kept rows as they are now; compounds are left behind."""
        whole = np.array(full)
        whole[list(self.ids)] = np.asarray(table)[: len(self.ids)]
        return whole

    def text(self, text: Any) -> Any:
        """The tokenizer of the smaller vocabulary: of WordPiece only, as byte pairs need every step between. Compounds may lack a name."""
        if text.kind != "wordpiece":
            raise Mismatch(
                f"a {text.kind} vocabulary cannot be trimmed: its longer tokens are made of the shorter ones; trim a model with WordPiece"
            )
        outside = [i for i in self.ids if i >= len(text)]
        if outside:
            raise Mismatch(f"id {outside[0]} is kept, the vocabulary has {len(text)} entries; keep ids that it names")
        names = [each.token for each in self.compounds]
        if None in names and any(names):
            raise Mismatch("some compound tokens have a name and some have none; name all of them or none")
        new = tuple(text.tokens[i] for i in self.ids) + tuple(names if None not in names else ())
        end = tuple(place for i in text.end if (place := self.place(i)) is not None)
        return dataclasses.replace(text, tokens=new, end=end)

    def save(self, folder) -> None:
        """Writes kept.json into a folder."""
        (pathlib.Path(folder) / FILE).write_text(json.dumps(self.as_json(), ensure_ascii=False) + "\n", encoding="utf-8")

    def as_json(self) -> dict[str, Any]:
        compounds = [{name: value for name, value in vars(each).items() if value is not None} for each in self.compounds]
        return {"rows": self.rows, "ids": list(self.ids), "compounds": compounds}


def load(folder) -> Kept | None:
    """What a folder's model was trimmed by, None where there is no kept.json."""
    path = pathlib.Path(folder) / FILE
    return of_json(disk.load_json(path), path) if path.exists() else None


def of_json(found: dict[str, Any], where, rows: int | None = None) -> Kept:
    """A map that JSON says; a Mismatch naming `where` when it says none."""
    try:
        _check_keys(found, "the map", ("rows", "ids", "compounds"))
        compounds = tuple(_compound(each) for each in _listed(found, "compounds"))
        return Kept(found.get("rows", rows), _listed(found, "ids"), compounds)
    except (ValueError, TypeError, AttributeError) as error:
        raise Mismatch(f"{where}: {error}") from None


def _compound(found: Any) -> Compound:
    found = found if isinstance(found, dict) else {"ids": found}
    _check_keys(found, "a compound", ("ids", "weights", "token"))
    token = found.get("token")
    if token is not None and not isinstance(token, str):
        raise ValueError(f"compound token {token!r}: wanted its name")
    return Compound(_listed(found, "ids"), None if found.get("weights") is None else _listed(found, "weights"), token)


def _check_keys(found: Any, what: str, known: tuple[str, ...]) -> None:
    if not isinstance(found, dict):
        raise ValueError(f"{what} is a {type(found).__name__}; wanted an object with {', '.join(known)}")
    if found.keys() - set(known):
        raise ValueError(f"{what} has the keys {reprlib.repr(sorted(found.keys() - set(known)))}; wanted some of {', '.join(known)}")


def _listed(found: dict[str, Any], name: str) -> tuple:
    value = found.get(name)
    if not isinstance(value, list | None):
        raise ValueError(f"{name!r} is {reprlib.repr(value)}; wanted a list")
    return tuple(value or ())


def _whole(value: Any) -> bool:
    return type(value) is int and value >= 0


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e30


def tables(config: Any) -> tuple[str, ...]:
    """The paths of the tensors that have a row for each token: those whose first axis grows with the vocabulary."""
    more = dataclasses.replace(config, vocab=config.vocab + 1).shapes()
    return tuple(path for path, shape in config.shapes().items() if shape != more[path])


def sized(config: Any, kept: Kept) -> Any:
    """The config of the trimmed model."""
    if kept.rows != config.vocab:
        raise Mismatch(f"the map is of a vocabulary of {kept.rows} rows, the model has {config.vocab}; trim the model that it was made for")
    start = {}
    if hasattr(config, "start"):
        start["start"] = kept.place(config.start)
        if start["start"] is None:
            raise Mismatch(f"token {config.start}, with which every answer starts, is not kept; keep it")
    return dataclasses.replace(config, vocab=len(kept), **start)


def trim(model: Any, params: dict, text: Any, ids: Sequence[int], compounds: Sequence[Compound] = ()) -> tuple[Any, dict, Any, Kept]:
    """(model, params, text, map) with these tokens only, in this order; `map.save(folder)` beside a saved model keeps the way back.

    text may be None. `text.simplify()` gives ids that lose nothing of a Chinese vocabulary.
    """
    try:
        places = tuple(map(operator.index, ids))
    except TypeError as error:
        raise ValueError(f"ids: {error}; wanted whole numbers, the tokens to keep") from None
    kept = Kept(model.config.vocab, places, tuple(compounds))
    config = sized(model.config, kept)
    trimmed = _changed(params, tables(model.config), lambda path, table: kept.trim(table))
    return model.clone(config=config), trimmed, None if text is None else kept.text(text), kept


def restore(model: Any, params: dict, kept: Kept, full_model: Any, full_params: dict) -> tuple[Any, dict]:
    """(model, params) over the full vocabulary: rows that were kept and trained on, and the full model's for the others."""
    wanted = sized(full_model.config, kept)
    if model.config != wanted:
        raise Mismatch(f"not trimmed from the full model: {differences(model.config, wanted)}; name the model that it was trimmed from")
    paths = tables(full_model.config)
    whole = _changed(params, paths, lambda path, table: kept.restore(table, _at(full_params, path)))
    return model.clone(config=full_model.config), whole


def _at(params: dict, path: str) -> Any:
    node = params["params"]
    for step in path.split("/"):
        node = node[step]
    return node


def _changed(params: dict, paths: tuple[str, ...], change) -> dict:
    def walk(node: Any, path: str) -> Any:
        if isinstance(node, dict):
            return {name: walk(each, f"{path}/{name}" if path else name) for name, each in node.items()}
        return change(path, node) if path in paths else node

    return {"params": walk(params["params"], "")}
