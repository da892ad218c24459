"""Questions with their passages, from the JSON of WebQA and SogouQA, WebQA's own, and CMRC 2018, DRCD or SQuAD.

Three shapes are known by what they hold:
    [{"id", "question", "passages": [{"passage", "answer"}]}]                     "" where a passage does not answer; "answers": what counts
    {id: {"question", "evidences": {id: {"evidence", "answer": [text]}}}}         ["no_answer"] where it does not
    {"data": [{"paragraphs": [{"context", "qas": [{"id", "question", "answers": [{"text", "answer_start"}]}]}]}]}
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

NONE = "no_answer"  # WebQA's word for it
_half = re.compile("[\ud800-\udfff]")
_sentence = re.compile("[^。！？!?；;\n]*[。！？!?；;\n]?")


@dataclasses.dataclass(frozen=True)
class Passage:
    """answer: what the passage answers, in parts with blanks between; "" where it does not."""

    text: str
    answer: str = ""


@dataclasses.dataclass(frozen=True)
class Question:
    """answers: the variants that count as correct, the main one first."""

    id: str
    text: str
    passages: tuple[Passage, ...]
    answers: tuple[str, ...]


def load(path, *, window: int = 0) -> list[Question]:
    """The questions of a JSON file of one of the three shapes; a question of another shape is a ValueError that names its place.

    window: contexts of the third shape are cut into passages of whole sentences and at most so many characters; 0: one passage each.
    """
    found, damaged = read(path, window=window)
    if damaged:
        raise ValueError(f"{path}: {damaged[0]}")
    return found


def read(path, *, window: int = 0) -> tuple[list[Question], list[str]]:
    """(questions, why others are none) of a file; one of another shape as a whole is a ValueError."""
    path = pathlib.Path(path)
    try:
        whole = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); name a file of questions") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON in UTF-8 ({error}); wanted questions as a JSON file") from None
    try:
        every = list(_every(whole, window))
    except Shape as error:
        raise ValueError(f"{path}: {error}") from None
    found = [each for each in every if isinstance(each, Question)]
    damaged = [str(each) for each in every if isinstance(each, Shape)]
    if not found:
        raise ValueError(f"{path}: {damaged[0]}" if damaged else f"{path} holds no question")
    return found, damaged


class Shape(ValueError):
    """A place of a file that holds something else than it should."""


def save(path, questions: Iterable[Question]) -> None:
    """Writes the first shape, a question a line."""
    rows = []
    for each in questions:
        passages = [{"passage": passage.text, "answer": passage.answer} for passage in each.passages]
        row = {"id": each.id, "question": each.text, "answers": list(each.answers), "passages": passages}
        rows.append(json.dumps(row, ensure_ascii=False))
    pathlib.Path(path).write_text("[\n" + ",\n".join(rows) + "\n]\n", encoding="utf-8")


def windows(text: str, size: int) -> Iterator[tuple[int, str]]:
    """(place, part) of a text cut into parts of at most `size` characters, between sentences where they are not longer than that."""
    start = end = 0
    for found in _sentence.finditer(text):
        if found.end() - start > size and end > start:
            yield start, text[start:end]
            start = end
        while found.end() - start > size:
            yield start, text[start : start + size]
            start += size
        end = found.end()
    if end > start:
        yield start, text[start:end]


def _every(whole: Any, window: int) -> Iterator[Question | Shape]:
    """Every question, or why it is none."""
    if isinstance(whole, list):
        yield from (_attempt(_listed, place, f"[{number}]") for number, place in enumerate(whole))
    elif isinstance(whole, dict) and "data" in whole:
        yield from _articles(whole["data"], window)
    elif isinstance(whole, dict) and whole:
        yield from (_attempt(_evident, {"id": name, "place": place}, f"[{name!r}]") for name, place in whole.items())
    else:
        raise Shape(f'got {_short(whole)}, wanted a list of questions, an object with "data", or an object of questions by id')


def _attempt(read, value: Any, where: str) -> Question | Shape:
    try:
        return read(value, where)
    except Shape as error:
        return error


def _listed(value: Any, where: str) -> Question:
    name, text = _field(value, "id", where, (str, int)), _field(value, "question", where, str)
    passages = tuple(
        Passage(_field(each, "passage", f"{where}.passages[{i}]", str), _field(each, "answer", f"{where}.passages[{i}]", str))
        for i, each in enumerate(_field(value, "passages", where, list))
    )
    given = value.get("answers") or [passage.answer for passage in passages if passage.answer]
    if not isinstance(given, list):
        raise Shape(f"{where}.answers: got {_short(given)}, wanted a list of texts")
    return _question(str(name), text, passages, _texts(given, f"{where}.answers"), where)


def _evident(value: Any, where: str) -> Question:
    place = value["place"]
    passages = []
    for name, each in _field(place, "evidences", where, dict).items():
        inside = f"{where}.evidences[{name!r}]"
        words = [word for word in _texts(_field(each, "answer", inside, list), f"{inside}.answer") if word != NONE]
        passages.append(Passage(_field(each, "evidence", inside, str), words[0] if words else ""))
    answers = [passage.answer for passage in passages if passage.answer]
    return _question(value["id"], _field(place, "question", where, str), tuple(passages), answers, where)


def _articles(data: Any, window: int) -> Iterator[Question | Shape]:
    if not isinstance(data, list):
        raise Shape(f".data: got {_short(data)}, wanted a list of articles")
    for i, article in enumerate(data):
        for j, paragraph in enumerate(_field(article, "paragraphs", f".data[{i}]", list)):
            where = f".data[{i}].paragraphs[{j}]"
            context = _field(paragraph, "context", where, str)
            parts = list(windows(context, window)) if window else [(0, context)]
            for k, asked in enumerate(_field(paragraph, "qas", where, list)):
                yield _attempt(lambda asked, inside: _spanned(asked, inside, context, parts), asked, f"{where}.qas[{k}]")


def _spanned(asked: Any, where: str, context: str, parts: list[tuple[int, str]]) -> Question:
    given = _field(asked, "answers", where, list)
    words = [_field(each, "text", f"{where}.answers[{i}]", str) for i, each in enumerate(given)]
    spans = []
    for i, (word, each) in enumerate(zip(words, given, strict=True)):
        place = _field(each, "answer_start", f"{where}.answers[{i}]", int)
        # In CMRC 2018 a few places are wrong; the first one of the text is taken then.
        spans.append((place if word and context[max(place, 0) :].startswith(word) else context.find(word), word))
    passages = []
    for start, part in parts:
        inside = [word for place, word in spans if word and start <= place and place + len(word) <= start + len(part)]
        passages.append(Passage(part, inside[0] if inside else ""))
    name = _field(asked, "id", where, (str, int))
    return _question(str(name), _field(asked, "question", where, str), tuple(passages), words, where)


def _question(name: str, text: str, passages: tuple[Passage, ...], answers: list[str], where: str) -> Question:
    if not name or not name.isprintable():
        raise Shape(
            f"{where}: the id {_short(name)} is empty or holds a tab, a line end or another sign that is not seen; wanted a plain text"
        )
    if not text.strip():
        raise Shape(f"{where}.question is empty")
    if not passages:
        raise Shape(f"{where} has no passage")
    return Question(name, text, passages, tuple(dict.fromkeys(filter(None, answers))))


def _field(value: Any, key: str, where: str, kind) -> Any:
    if not isinstance(value, dict):
        raise Shape(f"{where}: got {_short(value)}, wanted an object")
    if key not in value:
        raise Shape(f'{where} has no "{key}", only {sorted(value)}')
    if not isinstance(value[key], kind) or isinstance(value[key], bool):
        kinds = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
        raise Shape(f"{where}.{key}: got {_short(value[key])}, wanted {kinds}")
    return _whole(value[key], f"{where}.{key}")


def _texts(values: list, where: str) -> list[str]:
    wrong = [value for value in values if not isinstance(value, str)]
    if wrong:
        raise Shape(f"{where}: got {_short(wrong[0])}, wanted texts")
    return [_whole(value, f"{where}[{i}]") for i, value in enumerate(values)]


def _whole(value: Any, where: str) -> Any:
    """The value, unless it is a text with half a character in it, which no file can hold."""
    if isinstance(value, str) and _half.search(value):
        raise Shape(f"{where}: got {_short(value)}, which holds half a character (a lone surrogate)")
    return value


def _short(value: Any) -> str:
    shown = _half.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))
    return shown if len(shown) <= 40 else shown[:37] + "..."
