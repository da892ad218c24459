"""The command `flaxgen couplet`: lower lines for upper ones."""

import pathlib
import sys
from typing import Annotated, Literal

import tyro

from flaxgen import terminal

Lines = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[LINE ...]")]
File = Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FILE")]
Folder = Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FOLDER")]
Switch = tyro.conf.FlagCreatePairsOff[bool]
Kept = Annotated[Switch, tyro.conf.arg(help_behavior_hint="(by default asked for)")]
EXAMPLE = "flaxgen couplet 晚风摇树树还挺"


def couplet(
    lines: Lines = (),
    *,
    model: Folder = None,
    file: File = None,
    best: int = 1,
    tones: Kept = True,
    ends: Kept = True,
    repeats: Kept = True,
    fresh: Kept = True,
    book: Literal["mandarin", "pingshui"] = "mandarin",
    alternatives: int = 0,
    png: File = None,
    ink: Literal["black", "gold"] = "black",
    font: File = None,
    json: Switch = False,
    debug: Switch = False,
) -> None:
    """Answer the upper line of a couplet with a lower one: the likeliest that obeys the rules.

    Examples:  flaxgen couplet 晚风摇树树还挺
               flaxgen couplet 鱼跃此时海 --best 5 --alternatives 3
               flaxgen couplet 科学空间 --png couplet.png --ink gold
               flaxgen couplet 只有香如故 --no-tones --no-ends --no-repeats --no-fresh     by the article's one rule

    No answer has the upper line's character at the same place, and punctuation stays where it is; every other rule can be switched off.

    Args:
        lines: Upper lines. Without any, --file or standard input is read, a line each.
        model: A flaxgen folder, as python -m train couplet makes them; by default the bundled model.
        file: Read the upper lines from this file.
        best: How many lower lines, the likeliest first.
        tones: Do not ask that level tones (平) stand against oblique ones (仄) at every second character of a clause and at its last.
        ends: Do not ask that the lower line ends level, or oblique below an upper one that can only be read level.
        repeats: Do not ask that what the upper line repeats is repeated at the same places, and only there.
        fresh: Do not ask that characters of the upper line stand nowhere in the lower one.
        book: Tones as they are spoken today, or by the rhyme book of regulated verse (平水韵).
        alternatives: Print so many of the likeliest characters of every place.
        png: Draw the couplet on two scrolls of red paper (wants the extra `pictures`).
        ink: Of the picture.
        font: The font file of the picture, by default one that is found on this machine.
        json: Print one JSON object a line.
        debug: Show the whole trace of an error.
    """
    given = _given(lines, file)
    if png is None and (font is not None or ink != "black"):
        raise ValueError("--ink and --font are about the picture; name it with --png FILE")
    if png is not None and len(given) != 1:
        raise ValueError(f"--png draws one couplet, and {len(given)} lines are given; give one")
    if png is not None and png.suffix.lower() != ".png":
        raise ValueError(f"--png {png}: wanted a name that ends in .png")
    if png is not None:
        from flaxgen import picture

        terminal.check_target("--png", png)
        picture.check(font)
    with terminal.waiting("loading"):
        from flaxgen import compilation, couplets

        compilation.keep()
        writer = couplets.Couplets() if model is None else couplets.Couplets.load(model)
    rules = couplets.Rules(tones=tones, ends=ends, repeats=repeats, fresh=fresh, book=book)
    with terminal.waiting("writing"):
        found = writer.each([line for _, line in given], best=best, rules=rules, alternatives=alternatives)
    failed = [f"{name}{answer}" for (name, _), answer in zip(given, found, strict=True) if isinstance(answer, ValueError)]
    answers = [answer for answer in found if not isinstance(answer, ValueError)]
    if (lines and failed) or not answers:
        raise ValueError(failed[0])
    for several in answers:
        _warn(several[0])
        if json:
            facts = [{"text": one.text, "score": one.score} for one in several]
            places = {"alternatives": several[0].alternatives} if alternatives else {}
            terminal.print_json(upper=several[0].upper, answers=facts, unknown=several[0].unknown, **places)
        else:
            terminal.show(_told(several, blank=len(answers) > 1))
    for why in failed:
        print(f"flaxgen: {why}", file=sys.stderr)
    if failed:
        print(f"flaxgen: {len(failed)} of {len(given)} lines are not answered", file=sys.stderr)
    if png is not None:
        picture.draw(answers[0][0].upper, answers[0][0].text, png, ink=ink, font=font)


def _given(lines: tuple[str, ...], file: pathlib.Path | None) -> list[tuple[str, str]]:
    """The upper lines, each behind what errors call it: nothing where it is the only argument, else its number from 1."""
    if lines and file is not None:
        raise ValueError("both lines and --file are given; keep one of them")
    if len(lines) == 1:
        return [("", terminal.given(lines[0], None, EXAMPLE))]
    texts = [terminal.given(line, None, EXAMPLE) for line in lines] or terminal.given(None, file, EXAMPLE).split("\n")
    where = f"{file} " if file is not None else ""
    return [(f"{where}line {number}: ", text) for number, text in enumerate(texts, 1) if text.strip()]


def _told(answers, *, blank: bool) -> str:
    """The upper line, its answers and the alternatives of every place."""
    rows = [answers[0].upper]
    rows += [one.text if len(answers) == 1 else f"{one.text}  {one.score:.2f}" for one in answers]
    for above, places in zip(answers[0].upper, answers[0].alternatives, strict=True):
        if places:
            rows.append(f"  {above}  " + "  ".join(f"{character} {chance:.3f}" for character, chance in places))
    return "\n".join(rows) + ("\n\n" if blank else "\n")


def _warn(answer) -> None:
    from flaxgen import couplets

    if answer.unknown:
        print(f"flaxgen: the model does not know {answer.unknown}; it answers without reading them", file=sys.stderr)
    if len(answer.upper) > couplets.TRAINED:
        print(f"flaxgen: {len(answer.upper)} characters; such models are trained on up to {couplets.TRAINED}", file=sys.stderr)
