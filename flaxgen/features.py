"""What pictures are measured by: a network that gives each its features and the probabilities of its classes.

>>> features = flaxgen.features.bundled()                       # a small classifier of Fashion-MNIST
>>> flaxgen.features.compare(features, samples, held_out)       # {"classifier distance": ..., "classifier score": ...}

Any callable of uint8 image_BYXC that gives (feature_BD, prob_BV) will do, `distance` and `score` being what its numbers are called. FID and
Inception score are the names of numbers by the published Inception weights alone.
"""

import dataclasses
import functools
import importlib.resources
import os
import pathlib
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from flaxgen import errors, tensors, weights
from flaxgen.errors import Mismatch
from flaxgen.measure import frechet, inception_score
from flaxgen.models import classifier, inception
from flaxgen.protocols import Params

ROWS = 128  # images that go through a network at a time; the last are filled up, so that nothing compiles anew


class Features(Protocol):
    distance: str
    score: str

    def __call__(self, image_BYXC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(feature_BD, prob_BV) of uint8 images, at most ROWS."""


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
    """The features of a classifier that was trained here; its numbers compare with each other alone."""

    model: classifier.Classifier
    params: Params
    distance: str = "classifier distance"
    score: str = "classifier score"

    def __call__(self, image_BYXC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        c = self.model.config
        if image_BYXC.shape[1:] != (c.size, c.size, c.channels):
            raise ValueError(
                f"images of {image_BYXC.shape[1:]}; the classifier reads {(c.size, c.size, c.channels)}. Give one of that size"
            )
        return _classified(self.model, self.params, image_BYXC)


@dataclasses.dataclass(frozen=True, eq=False)
class Inception:
    """The features of Inception V3 that FID is defined by; images of 1 channel become grey ones of 3."""

    params: Params
    resize: inception.Resize = "torch"
    distance: str = "FID"
    score: str = "Inception score"

    def __call__(self, image_BYXC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if image_BYXC.shape[-1] not in (1, 3):
            raise ValueError(f"images of {image_BYXC.shape[-1]} channels; Inception reads 3, or 1 as grey")
        return _inception(self.params, np.broadcast_to(image_BYXC, (*image_BYXC.shape[:3], 3)), self.resize)


@functools.partial(jax.jit, static_argnums=0)
def _classified(model, params, image_BYXC):
    feature_BD = model.apply(params, image_BYXC / jnp.float32(255), method=classifier.Classifier.features)
    return feature_BD, jax.nn.softmax(model.apply(params, feature_BD, method=classifier.Classifier.logits), axis=-1)


_inception = functools.partial(jax.jit, static_argnames="resize")(
    lambda params, image, resize: inception.apply(params, image, resize=resize)
)


def bundled() -> Classifier:
    """The classifier of Fashion-MNIST that comes with flaxgen; it reads 28 by 28 grey pixels."""
    return load(pathlib.Path(str(importlib.resources.files("flaxgen"))) / "bundled" / "features")


def load(folder: str | os.PathLike) -> Classifier:
    """The features of a classifier that `python -m train classifier` trained and `python -m train export` wrote."""
    model, params, _ = weights.load(folder)
    if not isinstance(model, classifier.Classifier):
        raise Mismatch(f"{folder} holds a {model.config.architecture}, wanted a classifier; train one with python -m train classifier")
    return Classifier(model, params)


def load_inception(path: str | os.PathLike, *, resize: inception.Resize = "torch") -> Inception:
    """The published weights of FID, from safetensors with the names that pytorch-fid gives them.

    A .pth file can run code when it is read, so it is not; where torch is, safetensors.torch.save_file(torch.load(FILE), TARGET) makes one.
    resize: see inception.apply.
    """
    if pathlib.Path(path).suffix in (".pth", ".pt", ".bin"):
        raise errors.Unsafe(
            f'{path}: a pickle, which can run code, is not read; save it by safetensors.torch.save_file(torch.load("…"), "…")'
        )
    entries, shapes = tensors.index(path), inception.units()
    got = {name: tuple(entry.shape) for name, entry in entries.items() if not name.endswith("num_batches_tracked")}
    if got.get("fc.weight", (inception.CLASSES,))[0] == 1000:
        raise Mismatch(f"{path}: 1,000 classes, so these are torchvision's weights of ImageNet; FID's have 1,008 (pt_inception-2015-12-05)")
    wanted = {f"{name}.conv.weight": (out, width, *size) for name, (*size, width, out) in shapes.items()}
    norm = ("weight", "bias", "running_mean", "running_var")
    wanted |= {f"{name}.bn.{part}": (shape[-1],) for name, shape in shapes.items() for part in norm}
    wanted |= {"fc.weight": (inception.CLASSES, inception.FEATURES), "fc.bias": (inception.CLASSES,)}
    weights.check_shapes(path, got, wanted)
    params: dict[str, Any] = {"fc": {"kernel": tensors.read(entries["fc.weight"]).astype(np.float32)}}
    for name in shapes:
        parts = [tensors.read(entries[f"{name}.{part}"]) for part in ("conv.weight", *(f"bn.{part}" for part in norm))]
        params[name] = inception.folded(*parts)
    return Inception(jax.tree.map(jax.device_put, params), resize)


def of(features: Features, image_NYXC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(feature_ND, prob_NV) of any number of uint8 images."""
    image_NYXC = np.asarray(image_NYXC)
    if image_NYXC.ndim != 4 or image_NYXC.dtype != np.uint8 or not len(image_NYXC):
        raise ValueError(f"images of {image_NYXC.dtype} {image_NYXC.shape}; wanted uint8 of shape (N, Y, X, C), at least one")
    parts = []
    for start in range(0, len(image_NYXC), ROWS):
        part = image_NYXC[start : start + ROWS]
        filled = np.concatenate([part, np.repeat(part[-1:], ROWS - len(part), axis=0)])
        parts.append([np.asarray(each)[: len(part)] for each in features(filled)])
    feature_ND, prob_NV = (np.concatenate(each) for each in zip(*parts, strict=True))
    return feature_ND, prob_NV


def gaussian(features: Features, image_NYXC: np.ndarray) -> frechet.Gaussian:
    """The statistics of a reference set, to be saved and compared with later."""
    return frechet.Gaussian.of([of(features, image_NYXC)[0]])


def compare(features: Features, image_NYXC: np.ndarray, reference: np.ndarray | frechet.Gaussian, *, splits: int = 10) -> dict[str, float]:
    """{distance: ..., score: ..., score + " deviation": ...} by the names of the features' numbers.

    reference: uint8 images, or their statistics. The distance falls with the number of images on either side, so compare equal numbers.
    """
    feature_ND, prob_NV = of(features, image_NYXC)
    if not isinstance(reference, frechet.Gaussian):
        reference = gaussian(features, reference)
    score = inception_score.score(prob_NV, splits)
    away = frechet.distance(frechet.Gaussian.of([feature_ND]), reference)
    return {features.distance: away, features.score: score.mean, f"{features.score} deviation": score.deviation}
