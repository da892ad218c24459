"""What may be set in a run of a classifier of images."""

import dataclasses
import re
from typing import ClassVar

from train.settings import Settings, setting


@dataclasses.dataclass(frozen=True)
class Classifier(Settings):
    """A label for every image: the features that samples are measured with."""

    kind: ClassVar[str] = "classifier"

    # data
    data: str = setting("", "labelled images to learn from: a folder of idx files or CIFAR's batches, an .npz with x and y, or digits")
    # model
    filters: str = setting("16- 32 64- 96 96", "of each convolution; a minus behind: height and width are halved after it")
    dropout: float = setting(0.2, "share of the features dropped", most=0.999)

    def __post_init__(self):
        super().__post_init__()
        blocks(self.filters)


def blocks(words: str) -> tuple[tuple[int, str], ...]:
    """ "16- 32" as ((16, "down"), (32, "same"))."""
    found = [re.fullmatch(r"([1-9]\d{0,4})(-?)", word) for word in words.split()]
    if not found or not all(found):
        raise ValueError(f"filters={words}: wanted whole numbers, each with a minus behind where it goes down, as filters='16- 32 64-'")
    return tuple((int(one[1]), "down" if one[2] else "same") for one in found)
