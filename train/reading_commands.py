"""`python -m train prepare-reading` and `python -m train evaluate`."""

import argparse
import json
import pathlib

PREPARE = """\
Writes train.json, dev.json and heldout.json (and cloze.json) from files of questions, for the recipe `reading`.
Known shapes: WebQA.json and SogouQA.json of bojone, WebQA's own *.ann.json, and CMRC 2018, DRCD or SQuAD."""
EVALUATE = """\
Asks a reader the questions of DATA, and prints Accuracy, F1 and Final as SogouQA's tool counts them, beside two baselines:
the sentence that shares most characters with the question, and the longest part of it that is not in the question.
Questions without an answer are left out."""


def prepare(words: list[str]) -> int:
    made = parser("prepare-reading", PREPARE)
    made.add_argument("target", metavar="TARGET", type=pathlib.Path, help="the folder that is written")
    made.add_argument("sources", metavar="DATA", nargs="+", type=pathlib.Path, help="files of questions")
    made.add_argument(
        "--window", type=at_least(0), default=0, help="characters of a passage that contexts of CMRC, DRCD, SQuAD are cut into; 0: whole"
    )
    made.add_argument("--wrong", type=at_least(-1), default=-1, help="passages kept in train.json that do not answer a question; -1: all")
    made.add_argument(
        "--cloze", type=at_least(0), default=0, help="questions made with a gap of each passage of train.json, into cloze.json"
    )
    made.add_argument("--cloze-window", type=at_least(0), default=0, help="characters of their passages at most; 0: as they are")
    made.add_argument("--cloze-gap", type=at_least(1), default=6, help="characters of their gaps at most")
    made.add_argument("--simplify", action="store_true", help="Traditional characters to Simplified ones (wants OpenCC)")
    made.add_argument("--skip", action="store_true", help="leave out questions of another shape, in place of stopping at the first")
    made.add_argument(
        "--order", type=pathlib.Path, help="a shuffled index (random_order.json): every third of it is held out, as published"
    )
    made.add_argument("--seed", type=int, default=0, help="of the split and of the cloze questions")
    options = made.parse_args(words)
    from train import exercises

    plan = exercises.Plan(
        window=options.window,
        wrong=options.wrong,
        cloze=options.cloze,
        cloze_window=options.cloze_window,
        cloze_gap=options.cloze_gap,
        damaged="skip" if options.skip else "refuse",
        order=order(options.order) if options.order else (),
        seed=options.seed,
    )
    counts = exercises.prepare(options.sources, options.target, plan, simplifier() if options.simplify else str)
    for what, count in counts.items():
        print(f"{count:>12,}  {what}")
    return 0


def evaluate(words: list[str]) -> int:
    made = parser("evaluate", EVALUATE)
    made.add_argument("model", metavar="MODEL", type=pathlib.Path, help="a flaxgen folder that can read")
    made.add_argument(
        "data", metavar="DATA", nargs="+", type=pathlib.Path, help="files of questions, of the shapes that prepare-reading knows"
    )
    made.add_argument("--predictions", type=pathlib.Path, help="write id<TAB>answer there; what such a file has already is not asked again")
    made.add_argument("--mode", choices=("extractive", "generative"), default="extractive", help="answers stand in a passage, or need not")
    made.add_argument("--beams", type=at_least(1), default=1, help="answers followed at a time")
    made.add_argument("--window", type=at_least(0), default=0, help="as of prepare-reading")
    made.add_argument("--most", type=at_least(0), default=0, help="only so many questions, the first; 0: all")
    made.add_argument("--json", action="store_true", help="scores as JSON")
    options = made.parse_args(words)
    from flaxgen import terminal
    from train import questions

    if options.predictions is not None:
        terminal.check_target("--predictions", options.predictions)
    asked = [each for path in options.data for each in questions.load(path, window=options.window)][: options.most or None]
    from flaxgen import compilation

    compilation.keep()
    from flaxgen import reader
    from train import evaluate as scoring

    how = {"predictions": options.predictions, "mode": options.mode, "beams": options.beams}
    scores = scoring.evaluate(reader.Reader.load(options.model), asked, **how)
    if options.json:
        print(json.dumps({name: {"accuracy": s.accuracy, "f1": s.f1, "final": s.final} for name, s in scores.items()}, ensure_ascii=False))
    else:
        print(scoring.table(scores))
    return 0


def order(path: pathlib.Path) -> tuple[int, ...]:
    """A JSON list of whole numbers."""
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"--order {path} cannot be read ({error.strerror}); name a JSON list of whole numbers") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"--order {path} is no JSON in UTF-8 ({error}); wanted a JSON list of whole numbers") from None
    if not isinstance(found, list) or not all(type(each) is int for each in found):
        raise ValueError(f"--order {path}: wanted a JSON list of whole numbers, a shuffled index of all questions")
    return tuple(found)


def at_least(least: int):
    """An argparse type: whole numbers from `least` on."""

    def number(word: str) -> int:
        try:
            found = int(word)
        except ValueError:
            found = least - 1
        if found < least:
            raise argparse.ArgumentTypeError(f"{word}: wanted a whole number of at least {least}")
        return found

    return number


def simplifier():
    try:
        import opencc
    except ImportError:
        raise ImportError("--simplify needs OpenCC: pip install 'flaxgen[poetry]'") from None
    return opencc.OpenCC("t2s").convert


def parser(name: str, what: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=f"python -m train {name}", description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
