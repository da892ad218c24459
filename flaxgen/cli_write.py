"""The commands write, score and many: a language model continues texts, or says how likely they are."""

import dataclasses
import pathlib
import sys
from typing import Annotated, Literal

import tyro

from flaxgen import terminal

Prompt = Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="TEXT")]
Texts = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="TEXT")]
Model = Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FOLDER")]
Source = Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FILE")]
Number = Annotated[float | None, tyro.conf.arg(metavar="FLOAT")]
Whole = Annotated[int | None, tyro.conf.arg(metavar="INT")]
Words = Annotated[tuple[str, ...], tyro.conf.arg(metavar="TEXT")]
Switch = tyro.conf.FlagCreatePairsOff[bool]
WRITE, SCORE = "flaxgen write 床前明月光", "flaxgen score 床前明月光，疑是地上霜。"


@dataclasses.dataclass(frozen=True)
class Choosing:
    """How a token is chosen: the model folder's own rule (top-p 0.95 where it has none), changed by these.

    Attributes:
        temperature: Below 1 plays safe, above 1 dares; 0 always takes the likeliest token.
        top_k: Keep only the k likeliest tokens; 0 keeps all.
        top_p: Keep the likeliest tokens whose probabilities reach p, the crossing one too.
        top_p_below: Keep tokens while their sum stays below p, as gpt2-ml's own sampler does.
        min_p: Keep tokens at least so many times as likely as the likeliest.
        typical_p: Keep the tokens whose surprise is nearest what is expected, until they reach p.
        repetition_penalty: Above 1, tokens that stand in the text already become less likely.
        no_repeat_ngram: No so many tokens in a row stand twice in the text.
        min_tokens: No end before so many tokens.
        ban: Texts that are not written in the tokens that each has when it stands alone; other tokens may still spell them.
        stop: Texts that end a continuation once they stand in it, and are cut off.
        regex: The whole continuation matches this regular expression.
        choices: The continuation is one of these.
    """

    temperature: Number = None
    top_k: Whole = None
    top_p: Number = None
    top_p_below: Number = None
    min_p: Number = None
    typical_p: Number = None
    repetition_penalty: Number = None
    no_repeat_ngram: Whole = None
    min_tokens: Whole = None
    ban: Words = ()
    stop: Words = ()
    regex: Annotated[str | None, tyro.conf.arg(metavar="PATTERN")] = None
    choices: Words = ()

    def changed(self, rule):
        """The rule with what was given here in the place of its own."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return rule.replace(**{name: value for name, value in given.items() if value not in (None, ())})


Rule = Annotated[Choosing, tyro.conf.arg(name="")]


def write(
    prompt: Prompt = None,
    *,
    model: Model = None,
    file: Source = None,
    samples: int = 1,
    tokens: Whole = None,
    rule: Rule = Choosing(),
    seed: int = 0,
    beams: int = 0,
    exact: Switch = False,
    longer: Literal["refuse", "sliding", "hierarchical"] = "refuse",
    json: Switch = False,
    debug: Switch = False,
) -> None:
    """Continue a text; the words appear as they are drawn.

    Examples:  flaxgen write 床前明月光      flaxgen write "Once upon a time" --model weights/gpt2 --tokens 60

    Args:
        prompt: What to continue. Without it, --file or standard input is read.
        model: A flaxgen folder, as python -m convert writes them; by default the bundled poetry model.
        file: Read the prompt from this file.
        samples: How many continuations, drawn together.
        tokens: How many tokens at most; by default 128, or as many as the model has room for.
        rule: How a token is chosen.
        seed: The same seed draws the same text again.
        beams: Search for the likeliest text with so many beams instead of drawing; 0 draws.
        exact: Draw the same bits whatever is drawn beside them; slower.
        longer: Refuse what exceeds the model's context; go on sliding: its second half is read again whenever it is full; or make the
            context four times as long from the positions it was trained with (hierarchical; without more training it reads worse).
        json: Print one JSON object with text, tokens and log-probabilities.
        debug: Show the whole trace of an error.
    """
    search = _search(beams, samples, seed, exact)
    text = terminal.given(prompt, file, WRITE)
    writer = _writer(model, longer=longer)
    wishes = {"tokens": tokens, "rule": rule.changed(_drawn_by(writer, beams)), "seed": seed, "exact": exact, **search}
    if json:
        with terminal.waiting("writing"):
            written = writer.write([text], samples=1 if beams else samples, **wishes)
        facts = ("text", "tokens", "log_probs", "finish", *(["score"] if beams else []))
        samples_of = [{name: getattr(one, name) for name in facts} for one in written[0]]
        terminal.print_json(prompt=text, seed=seed, samples=samples_of, tokens_per_second=written.stats.tokens_per_second)
    elif samples == 1 and not beams:
        pieces = writer.stream(text, **wishes)
        with terminal.waiting("reading the prompt"):
            first = next(pieces, "")
        terminal.show(text + first)
        for piece in pieces:
            terminal.show(piece)
        terminal.show("\n")
    else:
        with terminal.waiting("writing"):
            several = writer(text, samples=1 if beams else samples, **wishes)
        terminal.show("\n\n".join(f"[{number}] {text}{one}".rstrip() for number, one in enumerate(several, 1)) + "\n")


def score(
    texts: Texts = (),
    *,
    model: Model = None,
    file: Source = None,
    by_position: Switch = False,
    png: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FILE")] = None,
    json: Switch = False,
    debug: Switch = False,
) -> None:
    """Measure how likely a model finds each text: log-probability and perplexity, the first token not counted.

    Examples:  flaxgen score 床前明月光，疑是地上霜。 床前明月光，疑是地下铁。
               flaxgen score --file novel.txt --by-position --png novel.png

    Args:
        texts: The texts. Without any, --file or standard input is read, one text a line.
        model: A flaxgen folder; by default the bundled poetry model.
        file: Read the texts from this file, one a line; with --by-position the whole file is one text.
        by_position: Print perplexity by place in texts of any length instead, read in both ways that go beyond the context.
        png: Draw that, too (wants the extra `log`).
        json: Print one JSON object with the log-probability of every token.
        debug: Show the whole trace of an error.
    """
    if texts and file is not None:
        raise ValueError("both texts and --file are given; keep one of them")
    if png is not None and not by_position:
        raise ValueError("--png draws what --by-position measures; give both")
    if json and by_position:
        raise ValueError("--by-position prints a table, not JSON; leave out one of the two")
    if by_position:
        _print_by_position([terminal.given(text, None, SCORE) for text in texts] or [terminal.given(None, file, SCORE)], model, png)
        return
    lines = [terminal.given(text, None, SCORE) for text in texts]
    lines = lines or [line for line in terminal.given(None, file, SCORE).split("\n") if line.strip()]
    writer = _writer(model)
    with terminal.waiting("reading"):
        scores = writer.score(lines)
    if json:
        rows = [
            {"text": text, "log_probability": one.total, "perplexity": one.perplexity, "tokens": one.tokens, "log_probs": one.log_probs}
            for text, one in zip(lines, scores, strict=True)
        ]
        terminal.print_json(scores=rows)
        return
    terminal.show("log-probability  tokens  perplexity  text\n")
    for text, one in zip(lines, scores, strict=True):
        terminal.show(f"{one.total:15.2f}  {len(one.log_probs):6d}  {one.perplexity:10.2f}  {text}\n")


def _print_by_position(texts: list[str], model: pathlib.Path | None, png: pathlib.Path | None) -> None:
    from flaxgen.measure import by_position as places

    writer = _writer(model)
    with terminal.waiting("reading"):
        curves = writer.by_position(texts)
    terminal.show(places.table(curves) + "\n")
    if png is not None:
        places.draw(curves, png, trained=writer.model.config.positions)


def many(
    source: Annotated[pathlib.Path, tyro.conf.Positional, tyro.conf.arg(metavar="PROMPTS")],
    target: Annotated[pathlib.Path, tyro.conf.Positional, tyro.conf.arg(metavar="TEXTS.jsonl")],
    *,
    model: Model = None,
    tokens: Whole = None,
    rule: Rule = Choosing(),
    seed: int = 0,
    slots: Whole = None,
    exact: Switch = False,
    debug: Switch = False,
) -> None:
    """Continue every prompt of a file, many at once; one JSON object a line comes out, in the same order.

    Example:  flaxgen many prompts.txt texts.jsonl --tokens 60

    A run that was stopped goes on by the same command.

    Args:
        source: Prompts, one a line; or a .jsonl file with a field prompt.
        target: Where the lines go: {"prompt": ..., "text": ..., "finish": "end" | "length" | "stop" | "complete"}. Where the writing of
            one fails ("stuck" | "broken"), it has what came before and a field error, and the others go on.
        model: A flaxgen folder; by default the bundled poetry model.
        tokens: How many tokens at most for each prompt.
        rule: How a token is chosen.
        seed: The same seed draws the same texts again.
        slots: How many are written at once, by default 8; a text that is done makes place for the next.
        exact: Draw the same bits whatever is drawn beside them; slower.
        debug: Show the whole trace of an error.
    """
    from flaxgen import many as files

    prompts = files.prompts(source, target)
    writer = _writer(model)
    wishes = {"tokens": tokens, "rule": rule.changed(writer.rule), "seed": seed, "slots": slots, "exact": exact}
    with terminal.counting() as on_line:
        failed = files.run(writer, prompts, target, on_line=on_line, **wishes)
    if failed:
        print(f"flaxgen: {failed} of {len(prompts)} prompts failed; see the lines with an error in {target}", file=sys.stderr)


def _writer(model: pathlib.Path | None, **settings):
    with terminal.waiting("loading"):
        from flaxgen import compilation, pipelines

        compilation.keep()
        return pipelines.Writer(**settings) if model is None else pipelines.Writer.load(model, **settings)


def _search(beams: int, samples: int, seed: int, exact: bool) -> dict:
    """What of a writer's wishes asks for beams: nothing where there are none."""
    if not beams:
        return {}
    if 0 < beams < samples:
        raise ValueError(f"--beams {beams} --samples {samples}: wanted no more samples than beams; ask for --beams {samples}")
    if seed or exact:
        what = f"--seed {seed}" if seed else "--exact"
        raise ValueError(f"--beams {beams} {what}: beams are searched, and {what} is about drawing; leave one of them out")
    from flaxgen.chains import beam

    return {"search": beam.Search(beams=beams, returned=samples)}


def _drawn_by(writer, beams: int):
    """The rule that options change: the writer's own, or where beams search one that changes nothing."""
    from flaxgen import rules

    return rules.Rule() if beams else writer.rule
