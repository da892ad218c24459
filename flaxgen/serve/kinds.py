"""Kinds of values that a field of a request may hold: what is wrong with a value, and the same as a JSON schema."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Number:
    """A number from least to most; a whole one unless `real`."""

    least: float
    most: float
    real: bool = False

    def wrong(self, value: Any) -> str | None:
        kind = "a number" if self.real else "a whole number"
        good = isinstance(value, int | float if self.real else int) and not isinstance(value, bool)
        if good and self.least <= value <= self.most:
            return None
        return f"{kind} from {self.least:g} to {self.most}"

    @property
    def schema(self) -> dict:
        return {"type": "number" if self.real else "integer", "minimum": self.least, "maximum": self.most}


@dataclasses.dataclass(frozen=True)
class Text:
    """A text of so many characters at most."""

    most: int
    least: int = 0

    def wrong(self, value: Any) -> str | None:
        return (
            None
            if isinstance(value, str) and self.least <= len(value) <= self.most
            else f"a text of {self.least} to {self.most} characters"
        )

    @property
    def schema(self) -> dict:
        return {"type": "string", "minLength": self.least, "maxLength": self.most}


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    def wrong(self, value: Any) -> str | None:
        return None if isinstance(value, str) and value in self.words else f"one of {', '.join(self.words)}"

    @property
    def schema(self) -> dict:
        return {"type": "string", "enum": list(self.words)}


@dataclasses.dataclass(frozen=True)
class Flag:
    def wrong(self, value: Any) -> str | None:
        return None if isinstance(value, bool) else "true or false"

    @property
    def schema(self) -> dict:
        return {"type": "boolean"}


@dataclasses.dataclass(frozen=True)
class Listing:
    """A list of `least` to `most` entries of one kind."""

    of: Any
    most: int
    least: int = 0

    def wrong(self, value: Any) -> str | None:
        if not isinstance(value, list) or not self.least <= len(value) <= self.most:
            return f"a list of {self.least} to {self.most} entries, each {self.of.wrong(None)}"
        found = next((problem for one in value if (problem := self.of.wrong(one))), None)
        return found and f"a list, each entry {found}"

    @property
    def schema(self) -> dict:
        return {"type": "array", "items": self.of.schema, "minItems": self.least, "maxItems": self.most}


@dataclasses.dataclass(frozen=True)
class Either:
    """Whatever fits one of several kinds."""

    kinds: tuple

    def wrong(self, value: Any) -> str | None:
        problems = [kind.wrong(value) for kind in self.kinds]
        return None if None in problems else ", or ".join(problems)

    @property
    def schema(self) -> dict:
        return {"anyOf": [kind.schema for kind in self.kinds]}


@dataclasses.dataclass(frozen=True)
class Biases:
    """Token ids, as texts, and what is added to their logits."""

    most: int
    largest: float

    def wrong(self, value: Any) -> str | None:
        number = Number(-self.largest, self.largest, real=True)
        small = isinstance(value, Mapping) and len(value) <= self.most
        if small and all(re.fullmatch(r"[0-9]{1,9}", key) and number.wrong(one) is None for key, one in value.items()):
            return None
        return f"an object of at most {self.most} token ids, each with {number.wrong(None)}"

    @property
    def schema(self) -> dict:
        value = Number(-self.largest, self.largest, real=True).schema
        return {"type": "object", "maxProperties": self.most, "propertyNames": {"pattern": "^[0-9]{1,9}$"}, "additionalProperties": value}


@dataclasses.dataclass(frozen=True)
class Nothing:
    """Only null, for a field that clients send and that is not served."""

    def wrong(self, value: Any) -> str | None:
        return "null; it is not served"

    @property
    def schema(self) -> dict:
        return {"type": "null"}


@dataclasses.dataclass(frozen=True)
class Fields:
    """An object with fields of its own; those left out, and those that are null, have their default."""

    fields: Mapping[str, "Field"]

    def wrong(self, value: Any) -> str | None:
        return None if isinstance(value, dict) else "an object"

    @property
    def schema(self) -> dict:
        null = {"type": "null"}
        properties = {
            name: field.kind.schema if field.needed else {"anyOf": [field.kind.schema, null]} for name, field in self.fields.items()
        }
        needed = [name for name, field in self.fields.items() if field.needed]
        return {"type": "object", "properties": properties, "required": needed, "additionalProperties": False}


@dataclasses.dataclass(frozen=True)
class Field:
    kind: Any
    default: Any = None
    needed: bool = False
