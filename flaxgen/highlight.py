"""Answers for people to see: the passages with what supports the answer marked in them, on a terminal and as a page."""

import html
from collections.abc import Sequence

_PAGE = """<!doctype html>
<html lang="zh">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.7 "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif; }}
body {{ max-width: 46em; margin: 2em auto; padding: 0 1em; }}
h1 {{ font-size: 1.2em; margin: 2em 0 .3em; }}
.answer {{ font-size: 1.5em; margin: 0; }}
.facts, .chance {{ color: color-mix(in srgb, currentColor 60%, transparent); font-size: .85em; }}
ol {{ padding-left: 2em; }}
li {{ margin: .8em 0; white-space: pre-wrap; overflow-wrap: anywhere; }}
.other {{ opacity: .65; }}
mark {{ background: #ffe27a; color: #000; padding: 0 .15em; border-radius: .2em; }}
</style>
{body}
</html>
"""


def page(answers: Sequence) -> str:
    """A page of Answers (flaxgen.reader), whole by itself; whatever stands in them is shown as text."""
    title = html.escape(answers[0].question if len(answers) == 1 else f"{len(answers)} questions")
    return _PAGE.format(title=title, body="\n".join(map(_section, answers)))


def _section(answer) -> str:
    said = html.escape(answer.quote) if answer.quote.strip() else "no answer"
    items = [f"<h1>{html.escape(answer.question)}</h1>", f'<p class="answer">{said}</p>', f'<p class="facts">{facts(answer)}</p>', "<ol>"]
    for number, chance in enumerate(answer.chances):
        before, inside, after = map(html.escape, _cut(answer, number))
        kind = "" if number == answer.passage else ' class="other"'
        marked = f"<mark>{inside}</mark>" if inside else ""
        items.append(f'<li{kind}>{before}{marked}{after} <span class="chance">{chance:.1%}</span></li>')
    return "\n".join([*items, "</ol>"])


def facts(answer) -> str:
    """How sure the answer is and where it stands, in words."""
    where = "" if answer.passage is None else f" · passage {answer.passage + 1} of {len(answer.passages)}"
    span = "" if answer.span is None else f", characters {answer.span[0]} to {answer.span[1]}"
    parts = [*(["the question"] if answer.question_cut else []), *(f"passage {number + 1}" for number in answer.cut)]
    cut = f" · not read to the end: {', '.join(parts)}" if parts else ""
    return f"confidence {answer.confidence:.1%}{where}{span}{cut}"


def text(answer, marks: tuple[str, str] = ("", "")):
    """The same as text of `rich`: the answer, and the supporting passage with the answer in another colour and between `marks`.

    marks: for where colours are not seen.
    """
    from rich.text import Text

    made = Text()
    made.append((answer.quote if answer.quote.strip() else "(no answer)") + "\n", "bold")
    made.append(facts(answer) + "\n", "dim")
    if answer.passage is not None:
        before, inside, after = _cut(answer, answer.passage)
        made.append(before)
        if inside:
            made.append(inside.join(marks), "black on yellow")
        made.append(after + "\n")
    return made


def _cut(answer, number: int) -> tuple[str, str, str]:
    """A passage before, in and after the answer."""
    passage = answer.passages[number]
    start, end = answer.span if number == answer.passage and answer.span is not None else (len(passage), len(passage))
    return passage[:start], passage[start:end], passage[end:]
