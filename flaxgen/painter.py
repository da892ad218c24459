"""Images out of energies: model folders as something to call."""

import importlib.resources
import os
import pathlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal, get_args

import jax
import numpy as np

from flaxgen import canvas, drawing, energies, flow_painter, loop, weights
from flaxgen.chains import langevin
from flaxgen.drawing import Sampling
from flaxgen.errors import Mismatch
from flaxgen.protocols import Array, Params

Join = Literal["mean", "sum"]


def bundled(kind: Literal["energy", "flow"] = "energy") -> pathlib.Path:
    """The folder of a model of clothes that comes with flaxgen."""
    if kind not in ("energy", "flow"):
        raise ValueError(f'kind={kind!r}: wanted "energy" or "flow"')
    return pathlib.Path(str(importlib.resources.files("flaxgen"))) / "bundled" / kind


class Painter:
    """Paints images with energy models, by a Langevin chain that starts from noise.

    >>> painter = Painter()                                    # the small model of clothes that comes with flaxgen
    >>> image_BYXC = painter(samples=16, seed=0)               # uint8
    >>> for image_BYXC in painter.stream(samples=4, every=5):  # as they come into being
    >>> image_BYXC = painter.inpaint(image_YXC, "bottom", samples=10)

    models, params: an Energy of flaxgen.models and its tree, or a tuple of each: the "mean" of energies is an ensemble of one density,
    their "sum" has the product of the densities, what all models agree on. sampling: what calls go by unless told otherwise.
    Wishes of a call are moves, step, noise and clip, in the place of `sampling`'s. Image b depends on the seed and b, not on how many
    are asked for, to rounding.
    """

    def __init__(self, models: Any = None, params: Params = None, *, join: Join = "mean", sampling: Sampling | None = None):
        if isinstance(models, str | os.PathLike):
            raise ValueError(f"Painter({os.fspath(models)!r}) names a folder; of folders, Painter.load makes a painter")
        if models is not None and params is None:
            raise ValueError("models are given without params; give the tree of parameters that belongs to them, of several a tuple")
        if models is None:
            models, params, _ = weights.load(bundled())
            sampling = sampling or drawing.of(weights.describe(bundled()))
        several = isinstance(models, Sequence)
        self.models, self.params = (tuple(models), tuple(params)) if several else ((models,), (params,))
        self.sampling = sampling or Sampling()
        if join not in get_args(Join):
            raise ValueError(f"join={join!r}: wanted one of {', '.join(get_args(Join))}")
        if len(self.models) != len(self.params):
            raise ValueError(f"{len(self.models)} models with {len(self.params)} trees of parameters; wanted one for each")
        self.shape, self.classes = _checked(self.models, self.sampling)
        self._energy = (energies.mean if join == "mean" else energies.total)(*self.models)

    @classmethod
    def load(cls, *folders, join: Join = "mean", dtype: weights.Dtype | None = None) -> "Painter | flow_painter.FlowPainter":
        """The painter of one flaxgen folder or of several energies; of a flow's folder the FlowPainter.

        What the first folder says of sampling holds for all.
        """
        if not folders:
            raise ValueError("no folder given; name one or several, or call Painter() for the model that comes with flaxgen")
        cards = [weights.describe(folder) for folder in folders]
        if len(folders) == 1 and cards[0]["architecture"] == "flow":
            return flow_painter.FlowPainter.load(folders[0], dtype=dtype)
        for folder, card in zip(folders, cards, strict=True):
            _check_kind(card["config"], folder)
        models, params = zip(*(weights.load(folder, dtype=dtype)[:2] for folder in folders), strict=True)
        return cls(models, params, join=join, sampling=drawing.of(cards[0]))

    def __call__(self, samples: int = 16, *, label: Any = None, like: Any = None, seed: int = 0, **wishes: Any) -> np.ndarray:
        """image_BYXC, uint8.

        label: of a conditional model, a name or number for all, or a list of them; by default every class in turn, where chains start from
        images the class in which their energy is lowest.
        like: an image or several that chains start from in the place of noise, `samples` from each, side by side.
        """
        return _last(self.stream(samples, label=label, like=like, seed=seed, every=None, **wishes))

    def stream(
        self, samples: int = 16, *, label: Any = None, like: Any = None, seed: int = 0, every: int | None = 1, **wishes: Any
    ) -> Iterator[np.ndarray]:
        """What a call gives, as it comes into being: before the first move, after it, and after every `every` more (None: at the end)."""
        samples = drawing.whole("samples", samples, 1)
        if like is None:
            return self._walk(samples, self._labels(label, samples, None), None, None, seed, every, wishes)
        like_BYXC = canvas.images("like", like, self.shape)
        label_B = self._labels(label, len(like_BYXC) * samples, like_BYXC)
        return self._walk(len(like_BYXC) * samples, label_B, like_BYXC.repeat(samples, axis=0), None, seed, every, wishes)

    def inpaint(self, image: Any, mask: Any, samples: int = 1, *, label: Any = None, seed: int = 0, **wishes: Any) -> np.ndarray:
        """image_BYXC with what the mask marks painted anew, `samples` times for each image, side by side; all else stays as it was.

        mask: "top", "bottom", "left", "right" or "middle", or booleans YX or BYX, true where to paint.
        label: of a conditional model; by default the class in which the energy of the image is lowest, that part of it grey.
        """
        return _last(self.inpainting(image, mask, samples, label=label, seed=seed, every=None, **wishes))

    def inpainting(
        self, image: Any, mask: Any, samples: int = 1, *, label: Any = None, seed: int = 0, every: int | None = 1, **wishes: Any
    ) -> Iterator[np.ndarray]:
        """What `inpaint` gives, as `stream` does."""
        image_BYXC = canvas.images("image", image, self.shape)
        samples = drawing.whole("samples", samples, 1)
        kept_BYXC = ~canvas.mask(mask, len(image_BYXC), self.shape)
        label_B = self._labels(label, len(image_BYXC) * samples, np.where(kept_BYXC, image_BYXC, np.uint8(canvas.GREY)))
        known_BYXC, kept_BYXC = (each_BYXC.repeat(samples, axis=0) for each_BYXC in (image_BYXC, kept_BYXC))
        return self._walk(len(known_BYXC), label_B, known_BYXC, kept_BYXC, seed, every, wishes)

    def denoise(self, image: Any, *, label: Any = None, seed: int = 0, **wishes: Any) -> np.ndarray:
        """image_BYXC that the chain makes of damaged images: few moves stay near them, many paint others.

        The chain adds no noise of its own unless told.
        """
        return self(1, label=label, like=image, seed=seed, **({"noise": 0.0} | wishes))

    def energy(self, image: Any, *, label: Any = None) -> np.ndarray:
        """energy_B, float32: low for what looks like the images learnt from, so minus the energy tells strangers from them.

        label: of a conditional model; by default the class in which the energy is lowest.
        """
        image_BYXC = canvas.images("image", image, self.shape)
        if label is None and self.classes:
            return self._of_classes(image_BYXC).min(axis=0)
        return self._energies(image_BYXC, self._labels(label, len(image_BYXC), None))

    def _of_classes(self, image_BYXC: np.ndarray) -> np.ndarray:
        """energy_LB of the images in every class L."""
        return np.stack([self._energies(image_BYXC, np.full(len(image_BYXC), one, np.int32)) for one in range(self.classes)])

    def _energies(self, image_BYXC: np.ndarray, label_B: np.ndarray | None) -> np.ndarray:
        found, rows = [], len(image_BYXC)
        for row_B in canvas.blocks(rows):
            place_B = np.minimum(row_B, rows - 1)
            x_BYXC = canvas.middle(image_BYXC[place_B])
            found.append(_energies(self._energy, self.params, x_BYXC, self._given(label_B, place_B)))
        return np.concatenate(found)[:rows]

    def _walk(self, rows, label_B, known_BYXC, kept_BYXC, seed, every, wishes) -> Iterator[np.ndarray]:
        """The frames of a call; everything is checked before the first is asked for."""
        unknown = sorted({*wishes} - {"moves", "step", "noise", "clip"})
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: no wish of a chain; there are moves, step, noise and clip")
        sampling, key = self.sampling.changed(**wishes), drawing.key(seed)
        every = max(1, sampling.moves - 1) if every is None else drawing.whole("every", every, 1)
        chain, starts, films = langevin.Langevin(self._energy, sampling.kind), [], []
        for row_B in canvas.blocks(rows):
            place_B = np.minimum(row_B, rows - 1)
            x_BYXC, key_B = drawing.drawn(key, row_B, self.shape, "uniform")
            if known_BYXC is not None:
                start_BYXC = canvas.middle(known_BYXC[place_B])
                x_BYXC = start_BYXC if kept_BYXC is None else np.where(kept_BYXC[place_B], start_BYXC, x_BYXC)
            given = langevin.start(
                x_BYXC,
                step=sampling.step,
                noise=sampling.noise,
                clip=sampling.clip,
                label_B=self._given(label_B, place_B),
                # Given also where nothing is kept, so that one program does for both.
                kept_BYXC=np.zeros(x_BYXC.shape, bool) if kept_BYXC is None else kept_BYXC[place_B],
            )
            starts.append(x_BYXC)
            films.append(loop.stream(chain, self.params, key_B, given, steps=sampling.moves, every=every))
        return _frames(rows, starts, films)

    def _labels(self, label: Any, rows: int, known_BYXC: np.ndarray | None) -> np.ndarray | None:
        if self.classes and label is None and known_BYXC is not None:
            return self._of_classes(known_BYXC).argmin(axis=0).astype(np.int32).repeat(rows // len(known_BYXC))
        if self.classes:
            return canvas.labels(label, self.sampling.classes or self.classes, rows)
        if label is not None:
            raise ValueError(f"label={label!r}: this model knows no classes; leave it out")
        return None

    def _given(self, label_B: np.ndarray | None, place_B: np.ndarray) -> Any:
        """Labels as flaxgen.energies.Sum wants them, None for models without classes."""
        return label_B if label_B is None else tuple(label_B[place_B] if model.config.classes else None for model in self.models)


@partial(jax.jit, static_argnames="energy")
def _energies(energy: energies.Sum, params: Params, x_BYXC: Array, label_B: Any) -> Array:
    return energy(params, x_BYXC, label_B, None)


def _frames(rows: int, starts: list[Array], films: list[Iterator[Array]]) -> Iterator[np.ndarray]:
    """The images of all blocks, at the start and whenever the chains tell."""
    yield canvas.pixels(np.concatenate(starts))[:rows]
    for parts in zip(*films, strict=True):
        x_BYXC = np.concatenate(parts)[:rows]
        if not np.isfinite(x_BYXC).all():
            raise FloatingPointError("the chain has left the numbers; the model's weights are damaged, or its step or noise is too large")
        yield canvas.pixels(x_BYXC)


def _last(frames: Iterator[np.ndarray]) -> np.ndarray:
    for image_BYXC in frames:  # noqa: B007
        pass
    return image_BYXC


def _check_kind(config: Any, what: Any) -> None:
    if config.architecture != "energy":
        raise Mismatch(
            f"{what} is a {config.architecture!r}; wanted an energy model of images, as python -m train energy-fashion makes them"
            + ("; flows paint one at a time" if config.architecture == "flow" else "")
        )


def _checked(models: tuple, sampling: Sampling) -> tuple[tuple[int, int, int], int]:
    """The shape of the images and the number of classes that all models share."""
    for model in models:
        _check_kind(model.config, type(model).__name__)
    shapes = {(model.config.size, model.config.size, model.config.channels) for model in models}
    classes = {model.config.classes for model in models} - {0}
    if len(shapes) != 1 or len(classes) > 1:
        raise Mismatch(f"models of images {sorted(shapes)} and of {sorted(classes)} classes cannot paint together; join models of one kind")
    count = max(classes, default=0)
    if sampling.classes and len(sampling.classes) != count:
        raise Mismatch(f"{len(sampling.classes)} names for {count} classes; give each class its name")
    return shapes.pop(), count
