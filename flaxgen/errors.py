"""What can be wrong with a checkpoint: one exception tree, and the shape of its messages.

A message says what failed and where (file, tensor, byte or field), what was expected, what was found, and what to do.
`exit_code` is what a command line returns for the class.
"""

from collections.abc import Sequence
from typing import ClassVar

SHOWN = 20


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says why and what to do."""

    exit_code: ClassVar[int] = 3


class Corrupt(CheckpointError):
    """The bytes are not what was written: a checksum differs or the structure is broken."""

    exit_code = 4


class Incomplete(CheckpointError):
    """Something that the checkpoint speaks of is not there: a file, a shard, the end of a file."""

    exit_code = 5


class Mismatch(CheckpointError):
    """Whole, but not what was asked for: names, shapes, sizes, a vocabulary, a configuration."""

    exit_code = 6


class Unsafe(CheckpointError):
    """Reading it could run code or leave its folder, so it is not read."""

    exit_code = 7


class TooLarge(CheckpointError):
    """Larger than a stated limit, or than the space there is."""

    exit_code = 8


def listing(head: str, problems: Sequence[str], advice: str = "") -> str:
    """A message with every problem on a line of its own: the first 20, and how many there are."""
    lines = [f"{head}: {len(problems)} problem{'s' if len(problems) != 1 else ''}"]
    lines += [f"  - {problem}" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"  ... and {len(problems) - SHOWN} more")
    return "\n".join([*lines, advice] if advice else lines)
