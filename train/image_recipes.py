"""The recipes of models of images by name."""

import dataclasses

from train.classifier_settings import Classifier
from train.image_settings import Energy, Flow

CLOTHES = "T-shirt|trousers|pullover|dress|coat|sandal|shirt|sneaker|bag|ankle boot"
CIFAR = "airplane|automobile|bird|cat|deer|dog|frog|horse|ship|truck"
GUARD = {"patience": 3, "rollbacks": 6, "steep": 1e3}  # of what may run away


def energy_fashion(size: str = "full") -> Energy:
    """An energy of Fashion-MNIST's clothes by class, small enough for two cores: the bundled model."""
    full = Energy(
        data="runs/fashion", dev="runs/fashion", condition="class", names=CLOTHES, labels="kept", augment=0.1, squeeze=2, stem=32,
        filters="32- 64 64- 64", moves=20, batch=64, steps=1600, optimizer="adam-0", rate=2e-3, schedule="constant", warmup=50,
        decay=0.0, clip=1.0, ema=0.99, every=200, look=200, shown=40, drawn=300, stride=20.0, features="flaxgen/bundled/features", **GUARD,
    )  # fmt: skip
    return full if size == "full" else brief(full, squeeze=4, stem=4, filters="6- 8", moves=5, buffer=200, features="")


def energy_cifar10(size: str = "full") -> Energy:
    """An energy of CIFAR-10 without labels as published, with an average besides: ResNet32Large, 60 moves (Du & Mordatch 2019)."""
    full = Energy(
        data="runs/cifar10", dev="runs/cifar10", network="32-large", stem=0, moves=60, batch=128, steps=100_000, optimizer="adam-0",
        rate=3e-4, schedule="constant", warmup=0, decay=0.0, clip=0.0, ema=0.999, every=1000, look=1000, **GUARD,
    )  # fmt: skip
    return full if size == "full" else brief(full, **TINY_NETWORK)


def energy_cifar10_classes(size: str = "full") -> Energy:
    """The same by class: ResNet32, the chains with the labels of the data."""
    full = dataclasses.replace(energy_cifar10(), network="32", condition="class", names=CIFAR)
    return full if size == "full" else brief(full, **TINY_NETWORK, names=CLOTHES)


def energy_imagenet32(size: str = "full") -> Energy:
    """An energy of ImageNet32 by class as published: ResNet32Wider of 256 filters, batch 32."""
    full = dataclasses.replace(
        energy_cifar10(), data="runs/imagenet32", dev="runs/imagenet32", network="32-wider", condition="class", batch=32
    )
    return full if size == "full" else brief(full, **TINY_NETWORK)


def flow_digits(size: str = "full") -> Flow:
    """A matrix-exponential flow on scikit-learn's 8 × 8 digits of 16 levels, for minutes of two cores; more updates learn by heart."""
    full = Flow(
        data="digits", dev="digits", flows="4 2 2", hidden=16, blocks=1, bits=4, batch=64, steps=900, optimizer="adamax", rate=0.1,
        schedule="constant", warmup=75, decay=0.0, clip=0.0, ema=0.99, every=250, look=75, **GUARD,
    )  # fmt: skip
    return full if size == "full" else brief(full, flows="1 1", hidden=6, blocks=1)


def flow_fashion(size: str = "full") -> Flow:
    """The same on Fashion-MNIST's clothes: the bundled model."""
    full = dataclasses.replace(
        flow_digits(),
        data="runs/fashion",
        dev="runs/fashion",
        flows="3 3",
        hidden=24,
        bits=8,
        batch=32,
        steps=5000,
        rate=0.03,
        schedule="wsd",
        cooldown=1500,
        lower=0.5,
        every=250,
        look=250,
    )
    return full if size == "full" else brief(full, flows="1 1", hidden=6, blocks=1)


def flow_cifar10(size: str = "full") -> Flow:
    """A matrix-exponential flow on CIFAR-10 as published: 50 epochs, Adamax at 0.01, halved after 40 (Xiao & Liu 2020)."""
    full = Flow(
        data="runs/cifar10", dev="runs/cifar10", flips="horizontal", batch=64, steps=50 * 782, optimizer="adamax", rate=1e-2,
        schedule="halves", warmup=782, cooldown=40 * 782, decay=0.0, clip=0.0, ema=0.999, every=782, look=782, **GUARD,
    )  # fmt: skip
    return full if size == "full" else brief(full, flows="1 1", hidden=6, blocks=1)


def flow_imagenet32(size: str = "full") -> Flow:
    """The same on ImageNet32: 50 epochs, halved after 20 and after 40, a longer average."""
    epoch = 20_019
    full = dataclasses.replace(
        flow_cifar10(), data="runs/imagenet32", dev="runs/imagenet32", flips="none", steps=50 * epoch, warmup=epoch, cooldown=20 * epoch,
        ema=0.9999, every=2000, look=epoch,
    )  # fmt: skip
    return full if size == "full" else brief(full, flows="1 1", hidden=6, blocks=1)


TINY_NETWORK = {"network": "own", "squeeze": 4, "stem": 4, "filters": "6- 8", "moves": 5, "buffer": 200}


def brief(full: Energy | Flow, **small) -> Energy | Flow:
    """The recipe on a few images of this checkout, ending within a minute on one core."""
    data = {"data": "train/clothes.npz", "dev": "train/clothes.npz", "batch": 16, "shown": 12}
    steps = {"steps": 60, "warmup": 5, "cooldown": 20, "every": 30, "look": 30}
    return dataclasses.replace(full, **(data | steps | small))


def classifier(size: str = "full") -> Classifier:
    """Labels of Fashion-MNIST's images, or of yours: the features that samples are measured with."""
    full = Classifier(
        data="runs/fashion", dev="runs/fashion", batch=64, steps=6000, optimizer="adam", rate=2e-3, schedule="linear",
        warmup=100, decay=0.0, every=500, look=500,
    )  # fmt: skip
    small = {"filters": "6- 8- 10", "batch": 32, "steps": 100, "every": 50, "look": 50, "warmup": 10}
    return full if size == "full" else dataclasses.replace(full, data="train/clothes.npz", dev="train/clothes.npz", **small)


RECIPES = {
    "energy-fashion": energy_fashion,
    "energy-cifar10": energy_cifar10,
    "energy-cifar10-classes": energy_cifar10_classes,
    "energy-imagenet32": energy_imagenet32,
    "flow-digits": flow_digits,
    "flow-fashion": flow_fashion,
    "flow-cifar10": flow_cifar10,
    "flow-imagenet32": flow_imagenet32,
    "classifier": classifier,
}
