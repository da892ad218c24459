r"""What BERT's tokenizer makes of a character: blank, dropped, a word of its own, or part of a word.

The classes are those of google-research/bert's tokenization.py, which gpt2-ml uses unchanged. They rest on `unicodedata`, so a character
that Unicode assigned after Python's tables were made counts as part of a word, as it did for the originals.
"""

import re
import unicodedata

# Not the Japanese or Korean alphabets: those write words, and are cut by the vocabulary.
IDEOGRAPHS = "\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002b73f\U0002b740-\U0002ceaf\U0002f800-\U0002fa1f"
# `str.split`, which the originals end with, also cuts at the line and paragraph separators. It would cut at \v, \f, \x1c-\x1f and \x85
# as well, but those are control characters and gone by then.
BLANKS = " \t\n\r\u2028\u2029\xa0\u1680\u2000-\u200a\u202f\u205f\u3000"

_ideograph = re.compile(f"[{IDEOGRAPHS}]")
_piece = re.compile(f"[{IDEOGRAPHS}]|[^{IDEOGRAPHS}{BLANKS}]+")


def is_ideograph(character: str) -> bool:
    """A character of the CJK blocks: a word of its own."""
    return _ideograph.match(character) is not None


def is_dropped(character: str) -> bool:
    """A control or format character, NUL or U+FFFD: taken out before anything else."""
    return character == "\ufffd" or (character not in "\t\n\r" and unicodedata.category(character) in ("Cc", "Cf"))


def is_punctuation(character: str) -> bool:
    """Unicode's punctuation, and all of ASCII that is neither letter, digit nor blank: a word of its own."""
    return ("!" <= character <= "~" and not character.isalnum()) or unicodedata.category(character).startswith("P")


def chunks(text: str) -> list[str]:
    """The ideographs of a text, and what lies between them and the blanks: `words` may be taken of each alone.

        chunks("GPT2是 1.5B!")  ->  ["GPT2", "是", "1.5B!"]

    Lower-casing (the final sigma) and canonical reordering look at neighbours, but never past an ideograph or a blank.
    """
    return _piece.findall(text)


def words(chunk: str, case: str) -> list[str]:
    """The words of a chunk: characters dropped, case and accents folded unless case is "keep", punctuation apart.

    words("Café-1.5B!", "lower")  ->  ["cafe", "-", "1", ".", "5b", "!"]
    """
    text = "".join(c for c in chunk if not is_dropped(c))
    if case == "lower":
        text = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    return "".join(f" {c} " if is_punctuation(c) else c for c in text).split()
