"""The command `flaxgen read`: answers to questions from passages."""

import json as notation
import pathlib
import sys
from typing import Annotated, Any, Literal

import tyro

from flaxgen import terminal

Question = Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[QUESTION]")]
Passages = Annotated[tuple[str, ...], tyro.conf.arg(metavar="TEXT")]
File = Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FILE")]
Folder = Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FOLDER")]
Switch = tyro.conf.FlagCreatePairsOff[bool]
EXAMPLE = "flaxgen read 谁写了红楼梦？ --model FOLDER --file passages.txt"
SHAPE = (
    'wanted a list of texts, {"passages": [...]}, or a list of {"question": ..., "passages": [...]}; '
    'a passage is a text or {"passage": text}'
)


def read(
    question: Question = None,
    *,
    model: Folder = None,
    passage: Passages = (),
    file: File = None,
    mode: Literal["extractive", "generative"] = "extractive",
    beams: int = 1,
    longer: Literal["cut", "refuse"] = "cut",
    html: File = None,
    json: Switch = False,
    debug: Switch = False,
) -> None:
    """Answer a question from passages, and show where the answer stands.

    Examples:  flaxgen read 青蛙的幼体叫什么？ --model weights/reader --passage 青蛙的幼体叫蝌蚪。 青蛙吃昆虫。
               flaxgen read 谁写了红楼梦？ --model weights/reader --file passages.txt --html answer.html
               flaxgen read --model weights/reader --file questions.json --json
               cat passages.txt | flaxgen read 谁写了红楼梦？ --model weights/reader

    Readers are trained by python -m train reading (the data that there is for them forbids shipping one).

    Args:
        question: What to answer; only a JSON file with questions of its own does without.
        model: A flaxgen folder of a model that was trained to read.
        passage: The passages. Without any, --file or standard input is read, one a line.
        file: Read the passages from this file, one a line; or from a .json file: a list of texts, an object with "passages", or a list of
            objects with "question" and "passages", which are all answered.
        mode: An extractive answer stands letter for letter in a passage; a generative one is whatever the model writes.
        beams: How many answers are followed at a time.
        longer: Cut passages that are too long for the model, and say so; or refuse them.
        html: Write a page with the passages, the answer marked in them.
        json: Print one JSON object for each question.
        debug: Show the whole trace of an error.
    """
    asked = _asked(question, passage, file)
    if model is None:
        raise ValueError("no --model given, and no reader comes with flaxgen; train one (python -m train reading) or convert one")
    if html is not None:
        terminal.check_target("--html", html)
    with terminal.waiting("loading"):
        from flaxgen import compilation, reader

        compilation.keep()
        made = reader.Reader.load(model, longer=longer)
    with terminal.waiting("reading"):
        answers = list(made.answers(asked, mode=mode, beams=beams))
    for answer in answers:
        if answer.cut:
            numbers = ", ".join(str(number + 1) for number in answer.cut)
            print(f"flaxgen: longer than the model reads, and cut: passage {numbers}; split such into several", file=sys.stderr)
        if answer.question_cut:
            print(f"flaxgen: longer than the model reads, and cut: the question {answer.question:.20}…; ask more briefly", file=sys.stderr)
        _show(answer, json, len(answers) > 1)
    if html is not None:
        from flaxgen import highlight

        html.write_text(highlight.page(answers), encoding="utf-8")


def _show(answer, json: bool, several: bool) -> None:
    if json:
        names = ("question", "text", "quote", "passage", "span", "confidence", "score", "chances", "dismissed", "cut", "question_cut")
        terminal.print_json(**{name: getattr(answer, name) for name in names})
        return
    from rich import console

    from flaxgen import highlight

    where = console.Console(highlight=False, soft_wrap=True)
    if several:
        where.print(answer.question, style="italic", markup=False)
    coloured = where.color_system is not None and not where.no_color
    marks = ("", "") if coloured else ("【", "】")
    where.print(highlight.text(answer, marks), end="\n" if several else "")


def _asked(question: str | None, passage: tuple[str, ...], file: pathlib.Path | None) -> list[tuple[str, list[str]]]:
    """The questions and their passages; ValueError where there are none, or in two places."""
    if passage and file is not None:
        raise ValueError("both --passage and --file are given; keep one of them")
    if question is not None and not question.strip():
        raise ValueError("the question is empty; ask something, such as 谁写了红楼梦？")
    if question is not None:
        question = terminal.given(question, None, EXAMPLE)
    if not passage and file is None and sys.stdin.isatty():
        raise ValueError("no passages given; write them behind --passage, name a --file, or pipe them in, one a line")
    if passage:
        listed: Any = [terminal.given(one, None, EXAMPLE) for one in passage]
    else:
        text = terminal.given(None, file, EXAMPLE)
        listed = _parsed(file, text) if file is not None and file.suffix.lower() == ".json" else text.split("\n")
    where = str(file) if file is not None else "standard input" if not passage else "--passage"
    if isinstance(listed, list) and any(isinstance(one, dict) and "question" in one for one in listed):
        if question is not None:
            raise ValueError(f"{where} has questions of its own; leave {question!r} out")
        return [_own(f"{where}[{number}]", one) for number, one in enumerate(listed)]
    if question is None:
        raise ValueError(f"no question given; write it behind the command:  {EXAMPLE}")
    return [(question, _passages(where, {"passages": listed} if isinstance(listed, list) else listed))]


def _own(where: str, found: Any) -> tuple[str, list[str]]:
    """A question with its own passages."""
    if not isinstance(found, dict) or "question" not in found:
        raise ValueError(f"{where} has no question, as others there have: got {_short(found)}; {SHAPE}")
    question = _text(f"{where}.question", found["question"])
    if not question.strip():
        raise ValueError(f"{where}.question is empty; ask something")
    return question, _passages(where, found)


def _parsed(file: pathlib.Path, text: str) -> Any:
    try:
        return notation.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON ({error}); {SHAPE}") from None


def _passages(where: str, found: Any) -> list[str]:
    listed = found.get("passages") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise ValueError(f"{where}: got {_short(found)}; {SHAPE}")
    return [_text(f"{where}.passages[{n}]", one.get("passage") if isinstance(one, dict) else one) for n, one in enumerate(listed)]


def _text(where: str, found: Any) -> str:
    if not isinstance(found, str):
        raise ValueError(f"{where}: got {_short(found)}, wanted a text; {SHAPE}")
    if any("\ud800" <= one <= "\udfff" for one in found):
        raise ValueError(f"{where}: got {_short(found)}, which holds half a character (a lone surrogate); write it anew")
    return found


def _short(found: Any) -> str:
    shown = notation.dumps(found, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
    return f"{shown:.60}"
