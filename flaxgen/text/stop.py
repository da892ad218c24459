"""Stop strings in a stream of text: what could begin one is held back until it is known whether it does."""

from collections.abc import Sequence


def checked(strings: Sequence[str]) -> tuple[str, ...]:
    """The strings, each once; ValueError for what cannot stop a text."""
    if isinstance(strings, str) or not all(isinstance(string, str) for string in strings):
        raise ValueError(f"stop: got {strings!r:.90}, wanted a list of texts")
    if not strings or "" in strings:
        raise ValueError(f"stop: got {'an empty text' if strings else 'no text'}, wanted texts of one character or more; leave it out")
    if any(unpaired(string) for string in strings):
        raise ValueError(f"stop: got {strings!r:.90}, with half a surrogate pair, which is no character; wanted text that can be written")
    if any("\ufffd" in string for string in strings):
        raise ValueError("stop: got a text with U+FFFD, which stands for bytes that are no character; wanted text that can be written")
    return tuple(dict.fromkeys(strings))


def unpaired(string: str) -> bool:
    """Whether a text holds half of a surrogate pair, which no UTF-8 spells."""
    return any("\ud800" <= c <= "\udfff" for c in string)


class Stops:
    """Passes a text on up to the first place where one of several strings begins; nothing comes after that.

    Pieces in and out join to the same however the text was cut. It moves, and so is no frozen thing. hit: whether a string was found;
    one that is whole, but began later than another that may still come, is not found yet.
    """

    def __init__(self, strings: Sequence[str]):
        self._strings = checked(strings)
        self._held = ""
        self.hit = False

    def push(self, piece: str) -> str:
        """The text that one more piece settles."""
        if self.hit:
            return ""
        text = self._held + piece
        for place in range(len(text)):
            rest = text[place:] if len(text) - place < max(map(len, self._strings)) else ""
            self.hit = text.startswith(self._strings, place)
            if self.hit or (rest and any(string.startswith(rest) for string in self._strings)):
                self._held = "" if self.hit else rest
                return text[:place]
        self._held = ""
        return text

    def finish(self) -> str:
        """The text still held back, now that no more comes."""
        text, self._held = self._held, ""
        places = [place for string in self._strings if (place := text.find(string)) >= 0]
        if self.hit or not places:
            return text
        self.hit = True
        return text[: min(places)]
