"""`python -m train`: the command line of the trainer."""

import argparse
import pathlib
import sys

HELP = """\
python -m train RECIPE [tiny=true] [key=value …]     start a run, or resume the one that lies in out=
python -m train export DIR TARGET [--force]          write the newest checkpoint of a run as a flaxgen folder (bf16)
python -m train prepare-poetry PACKAGE VERSES        clean and split the npm package chinese-poetry for the recipe poetry
python -m train publish-poetry DIR VERSES TARGET     export a run of it with scores, curve and card

recipes
  poetry         verse, one character a token: the model that flaxgen brings along

settings
  out=runs/RECIPE                the run's folder; a run that lies there goes on from its newest checkpoint
  tiny=false                     true: a size that ends within a minute, on a small text of this checkout
{settings}

examples
  python -m train poetry tiny=true out=runs/try
  python -m train poetry steps=8000 seed=1 out=runs/poetry
  python -m train export runs/poetry weights/poetry

Ctrl-C or SIGTERM once: the update under way is finished and saved; the same command goes on later. Twice: at once.
Large pages make it 10 to 15 % faster on Linux: GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python -m train …
"""


def main(argv: list[str]) -> int:
    """The exit code of a command line without the program's name."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0 if argv else 2
    try:
        return command(argv[0], argv[1:])
    except KeyboardInterrupt:
        print("stopped before the first update; nothing is lost", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 1


def command(name: str, words: list[str]) -> int:
    from train import recipes

    if name == "export":
        options = parser("export", "DIR", "TARGET", "--force").parse_args(words)
        from train import run

        run.export(pathlib.Path(options.DIR), pathlib.Path(options.TARGET), force=options.force)
        print(f"wrote {options.TARGET}")
        return 0
    if name == "prepare-poetry":
        options = parser(name, "PACKAGE", "VERSES").parse_args(words)
        from train import poetry

        for what, count in poetry.prepare(pathlib.Path(options.PACKAGE), pathlib.Path(options.VERSES)).items():
            print(f"{count:>12,}  {what}")
        return 0
    if name == "publish-poetry":
        options = parser(name, "DIR", "VERSES", "TARGET", "--force").parse_args(words)
        from train import card, score

        scores = card.publish(*map(pathlib.Path, (options.DIR, options.VERSES, options.TARGET)), force=options.force)
        print(score.describe(scores))
        return 0
    if name not in recipes.RECIPES:
        known = ", ".join([*recipes.RECIPES, "export", "prepare-poetry", "publish-poetry"])
        raise ValueError(f"unknown recipe {name!r}; choose from {known}. See python -m train --help")
    given = recipes.pairs(words)
    out = given.pop("out", f"runs/{name}")
    if not out:
        raise ValueError("out= is empty; name the folder of the run, as out=runs/try")
    folder = pathlib.Path(out)
    size = recipes.size(given.pop("tiny", "false"))
    settings = recipes.RECIPES[name](size)
    recipes.override(settings, given)  # a mistake is named before anything is imported or written
    from flaxgen import compilation
    from train import run

    compilation.keep()
    return run.train(name, settings, given, folder)


def parser(name: str, *arguments: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog=f"python -m train {name}")
    for argument in arguments:
        made.add_argument(argument, **({"action": "store_true"} if argument.startswith("-") else {}))
    return made


def help_text() -> str:
    from train import recipes

    return HELP.format(settings=recipes.table(recipes.poetry()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
