"""What may be set in runs that learn from images: energies and flows."""

import dataclasses
from typing import ClassVar

from train.classifier_settings import blocks
from train.settings import Settings, setting

DATA = "images: a folder of idx files, of CIFAR's batches or ImageNet32's archives, a file of them, an .npz with x and y, or digits"


@dataclasses.dataclass(frozen=True)
class Pictures(Settings):
    """What both kinds share."""

    # data
    data: str = setting("", DATA)
    dev: str = setting("", "the same, not learnt from, for the score in the log; of a folder its test part; empty for none")
    pad: int = setting(0, "black pixels that are put around each image")
    flips: str = setting("none", "horizontal: each image is mirrored by chance, half of them", choices=("none", "horizontal"))
    # watching
    shown: int = setting(32, "images in the grids of each look", least=1, movable=True)

    def __post_init__(self):
        super().__post_init__()
        if self.adversarial != "none":
            raise ValueError(f"adversarial={self.adversarial} moves the token embedding; images have none, leave it out")
        if self.layer_rate != 1:
            raise ValueError(f"layer_rate={self.layer_rate} is for models that are fine-tuned layer by layer; leave it out")


@dataclasses.dataclass(frozen=True)
class Energy(Pictures):
    """An energy model of images, and the chains it is contrasted with (Du and Mordatch 2019)."""

    kind: ClassVar[str] = "energy"

    # data
    condition: str = setting("none", "class: an energy for every class of the labels", choices=("none", "class"))
    names: str = setting("", "of the classes in their order, with | between, for who paints with the model", movable=True)
    # model
    network: str = setting(
        "own", "by stem= and filters=, or as published for 32 pixels: 32, 32-large, 32-wider", choices=("own", "32", "32-large", "32-wider")
    )
    stem: int = setting(32, "filters of the first convolution; of a published network of its first blocks, 0: as published")
    filters: str = setting("32- 64 64- 64", "of each residual block of network=own; a minus behind: height and width are halved after it")
    squeeze: int = setting(1, "side of the squares of pixels that are one pixel to network=own", least=1)
    activation: str = setting("leaky", "of network=own", choices=("leaky", "swish"))
    norm: str = setting("spectral", "of the kernels of network=own in training", choices=("spectral", "none"))
    dropout: float = setting(0.0, "share of a block's activations dropped in network=own", most=0.999)
    # learning
    contrast: str = setting("cd", "the loss of energies of data and samples", choices=("cd", "logsumexp", "softplus"))
    regulariser: float = setting(1.0, "weight of the mean squares of both energies")
    chain: str = setting("published", "moves as published, or true Langevin dynamics", choices=("published", "true"))
    moves: int = setting(60, "of a chain in every update", least=1)
    step: float = setting(10.0, "of a move")
    noise: float = setting(0.005, "standard deviation of a move's noise; with chain=true a factor of it, 1 as Langevin's equation has it")
    bound: float = setting(0.01, "largest slope of a number that a move follows; 0: any")
    buffer: int = setting(10_000, "images that chains have reached and later ones go on from", least=1)
    fresh: float = setting(0.05, "share of chains that begin with noise", most=1)
    augment: float = setting(0.0, "share of the other chains that begin with an image turned, resized and shifted", most=1)
    labels: str = setting("data", "of chains: those of the data, or kept: an image stays of its class", choices=("data", "kept"))
    kl: str = setting(
        "none", "whether samples learn to lie low too: through the last move, or the chain", choices=("none", "last", "chain")
    )
    kl_weight: float = setting(1.0, "of that loss")
    entropy: float = setting(0.0, "weight of the distance between samples, with kl=")
    iterations: int = setting(1, "of power iteration an update, for norm=spectral", least=1)
    largest: float = setting(100.0, "mean energy, or gap of data and samples, from which on an update counts as run away")
    lower: float = setting(0.5, "what the rate is multiplied by whenever the run goes back; 1: it stays", least=1e-6, most=1)
    # watching
    drawn: int = setting(100, "moves from noise to an image at each look, and by who paints with the model", least=1, movable=True)
    stride: float = setting(0.0, "step of these moves; 0: that of training", movable=True)
    features: str = setting(
        "", "a folder of the recipe classifier: how far samples are from dev= is logged, the nearest are kept", movable=True
    )

    def __post_init__(self):
        super().__post_init__()
        blocks(self.filters)
        if self.network == "own" and not self.stem:
            raise ValueError("stem=0: network=own wants filters of its first convolution, as stem=32")
        if self.parallel == "pmap":
            raise ValueError("parallel=pmap keeps a whole copy a device, and the buffer is one for all of them; leave parallel= out")
        rows = self.batch // self.accumulate
        if rows >= self.buffer:
            raise ValueError(f"buffer={self.buffer} holds no more images than the {rows} rows of a batch; give a larger buffer=")
        if self.entropy and self.kl == "none":
            raise ValueError(f"entropy={self.entropy} moves samples, which kl=none holds; give kl=last or kl=chain")
        if self.features and not self.dev:
            raise ValueError(f"features={self.features} compares samples with dev=; give that too")


@dataclasses.dataclass(frozen=True)
class Flow(Pictures):
    """A density of images by invertible steps (Xiao and Liu 2020)."""

    kind: ClassVar[str] = "flow"

    # model
    flows: str = setting("8 4 2", "steps of each level")
    hidden: int = setting(128, "width of the networks of the couplings", least=1)
    blocks: int = setting(8, "residual blocks of each of them")
    coupling: str = setting(
        "exponential", "what a step does to half of the channels", choices=("exponential", "low-rank", "affine", "additive")
    )
    mixing: str = setting("exponential", "of the channels", choices=("exponential", "plu", "standard"))
    rank: int = setting(3, "of the matrices of coupling=low-rank", least=1)
    bits: int = setting(8, "of an image's levels; lower ones are dropped", least=1, most=8)
    # learning
    first: int = setting(512, "images that scales and shifts are fitted to before the first update", least=1)
    least: float = setting(1e-8, "deviation that smaller ones count as in that fit: a black margin's are near 0", least=1e-30)
    # watching
    temperature: float = setting(1.0, "of the images drawn at each look, and by who paints with the model", movable=True)

    def __post_init__(self):
        super().__post_init__()
        if self.dtype != "float32":
            raise ValueError(f"dtype={self.dtype}: a flow is inverted, which wants float32; leave dtype= out")
        levels(self.flows)


def levels(words: str) -> tuple[int, ...]:
    """ "8 4 2" as (8, 4, 2)."""
    if not words.split() or not all(word.isdecimal() and int(word) > 0 for word in words.split()):
        raise ValueError(f"flows={words}: wanted the steps of each level, as flows='8 4 2'")
    return tuple(map(int, words.split()))
