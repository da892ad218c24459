"""Images to learn from: uint8 in memory, and batches of them as a pure function of (seed, place)."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np

from train import image_files
from train import shuffle as order

Batch = dict[str, np.ndarray]
Flips = Literal["none", "horizontal"]


@dataclasses.dataclass(frozen=True)
class Images:
    """Images of one size. label_N: int32 classes, None where they are not told to the model. digest: of both.

    flips: "horizontal" mirrors every other row of a batch, by chance.
    """

    image_NYXC: np.ndarray
    label_N: np.ndarray | None
    digest: str
    flips: Flips = "none"

    def __len__(self) -> int:
        return len(self.image_NYXC)

    def weight(self) -> int:
        """Images in one pass."""
        return len(self)

    @property
    def classes(self) -> int:
        """How many classes the labels name; 0 without labels."""
        return 0 if self.label_N is None else int(self.label_N.max()) + 1

    def batch(self, seed: int, place: int, size: int, rows: slice = slice(None)) -> Batch:
        """Batch number `place` of `size` images, or the part `rows` of it; row_B has their numbers in the whole batch.

        An epoch is a permutation of the images, drawn from (seed, epoch).
        """
        number_B = np.arange(size)[rows]
        at_B = order.shuffle(place * size + number_B, len(self), seed)
        mirrored_B = np.random.default_rng((seed, place)).random(size)[rows] < 0.5
        return self._read(at_B, mirrored_B & (self.flips == "horizontal")) | {"row_B": number_B.astype(np.int32)}

    def parts(self, size: int, most: int) -> Iterator[Batch]:
        """The first `most` images, or all of fewer, in batches of `size` rows; weight_B is 0 for rows that fill up the last."""
        count = min(most, len(self))
        for start in range(0, count, size):
            row_B = start + np.arange(size)
            found = self._read(np.minimum(row_B, count - 1), np.zeros(size, bool))
            yield found | {"row_B": row_B.astype(np.int32), "weight_B": (row_B < count).astype(np.float32)}

    def _read(self, at_B: np.ndarray, mirrored_B: np.ndarray) -> Batch:
        image_BYXC = np.asarray(self.image_NYXC[at_B])
        image_BYXC = np.where(mirrored_B[:, None, None, None], image_BYXC[:, :, ::-1], image_BYXC)
        return {"image_BYXC": image_BYXC} | ({} if self.label_N is None else {"label_B": self.label_N[at_B]})


def build(
    words: str,
    part: image_files.Part = "train",
    *,
    labels: Literal["unused", "classes"] = "unused",
    pad: int = 0,
    flips: Flips = "none",
    known: str | None = None,
) -> Images:
    """The images that data= (or dev=, the part "test") names, with `pad` pixels of 0 around; known: the digest that they must have."""
    image_NYXC, label_N = image_files.read(words, part)
    if not image_NYXC.size:
        raise ValueError(f"{words} holds no image; give other data=")
    if labels == "classes" and label_N is None:
        raise ValueError(f"{words} holds no labels; put them beside the images, or leave condition= out")
    label_N = label_N if labels == "classes" else None
    if pad:
        image_NYXC = np.pad(image_NYXC, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    digest = hashlib.sha256(f"{image_NYXC.shape} {labels}".encode())
    digest.update(np.ascontiguousarray(image_NYXC).data)
    digest.update(b"" if label_N is None else np.ascontiguousarray(label_N).data)
    if known not in (None, digest.hexdigest()):
        raise ValueError(f"{words} holds other images than the run was started on (digest differs); restore them, or give another out=")
    return Images(image_NYXC, label_N, digest.hexdigest(), flips)


def square(words: str, found: Images) -> tuple[int, int]:
    """(height and width, channels) of images; ValueError where they are no squares."""
    _, height, width, channels = found.image_NYXC.shape
    if height != width:
        raise ValueError(f"{words}: images of {height} × {width} pixels; wanted squares")
    return height, channels


def fitting(found: Images, words: str, sizes: Any) -> Images:
    """The images, or a ValueError where a model of these sizes does not read them."""
    got, wanted = found.image_NYXC.shape[1:], (sizes.size, sizes.size, sizes.channels)
    if got != wanted or found.classes > getattr(sizes, "classes", 0):
        raise ValueError(
            f"{words}: images of {got} and {found.classes} classes; the model reads {wanted} and {getattr(sizes, 'classes', 0)}. "
            "Give images of the same kind"
        )
    return found


def totals(run, sums: Callable, state, dev: Images, most: int) -> list[float]:
    """The sums over the first `most` images of what sums(state, batch), a Program.total, gives for a batch."""
    size, found = run.settings.batch // run.settings.accumulate, 0.0
    for batch in dev.parts(size, most):
        place = run.program.place(lambda part, batch=batch: {name: array[part] for name, array in batch.items()}, size)
        found += np.asarray(sums(state, place), np.float64)
    return found.tolist()
