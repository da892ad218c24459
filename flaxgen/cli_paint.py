"""The command `flaxgen paint`: images out of energies and flows."""

import dataclasses
import pathlib
from typing import Annotated, Any, Literal, get_args

import numpy as np
import tyro

from flaxgen import canvas, gallery, showing, terminal

Folders = Annotated[tuple[pathlib.Path, ...], tyro.conf.arg(metavar="FOLDER")]
Images = Annotated[tuple[pathlib.Path, ...], tyro.conf.arg(metavar="IMAGE")]
Pair = Annotated[tuple[pathlib.Path, ...], tyro.conf.arg(metavar="IMAGE IMAGE")]
Words = Annotated[tuple[str, ...], tyro.conf.arg(metavar="CLASS")]
Mask = Annotated[str | None, tyro.conf.arg(metavar="{top,bottom,left,right,middle,FILE}")]
Number = Annotated[float | None, tyro.conf.arg(metavar="FLOAT")]
Whole = Annotated[int | None, tyro.conf.arg(metavar="INT")]
Switch = tyro.conf.FlagCreatePairsOff[bool]
AT_ONCE = 50  # moves at most, between which Ctrl-C is heard
NOWHERE = showing.Outputs()
ONLY = {
    "flow": ("between", "temperature"),
    "energy": ("like", "inpaint", "mask", "denoise", "label", "moves", "step", "noise", "clip", "strip"),
}


@dataclasses.dataclass(frozen=True)
class Wishes:
    """How images are drawn, in the place of what the model's folder says.

    Attributes:
        moves: Of the chain.
        step: How far a move goes down the energy.
        noise: How much noise a move adds.
        clip: The most that a slope counts; 0 for no limit.
        temperature: Of a flow; below 1 plays safe, above 1 dares.
    """

    moves: Whole = None
    step: Number = None
    noise: Number = None
    clip: Number = None
    temperature: Number = None

    @property
    def said(self) -> dict[str, Any]:
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


@dataclasses.dataclass(frozen=True)
class Given:
    """Images of yours to begin with, of any format and size: cropped in the middle, resized, and made grey where the model paints in grey.

    Attributes:
        like: Start from these in the place of noise; images of yours may be of any format and size.
        inpaint: Paint anew what --mask marks of these, and leave the rest.
        mask: Half of the image, its middle, or a picture, white where to paint.
        denoise: Clean these of noise; --moves says how far the chain may go.
        between: Paint the way from one to another (a flow).
        score: Only say how much these look like what the model has learnt.
    """

    like: Images = ()
    inpaint: Images = ()
    mask: Mask = None
    denoise: Images = ()
    between: Pair = ()
    score: Images = ()

    @property
    def files(self) -> tuple[pathlib.Path, ...]:
        return (*self.like, *self.inpaint, *self.denoise, *self.between, *self.score)

    @property
    def pictures(self) -> tuple[pathlib.Path, ...]:
        """Of the mask, where it is none of the regions."""
        return (pathlib.Path(self.mask),) if self.mask and self.mask not in get_args(canvas.Region) else ()

    def check(self) -> None:
        """ValueError where two things are asked for at once, or a file is not there."""
        asked = [f"--{name}" for name in ("like", "inpaint", "denoise", "between", "score") if getattr(self, name)]
        if len(asked) > 1:
            raise ValueError(f"{' and '.join(asked)} are given; keep one of them")
        if self.inpaint and self.mask is None:
            raise ValueError(f"--inpaint wants a --mask: {', '.join(get_args(canvas.Region))}, or a picture, white where to paint")
        if self.mask is not None and not self.inpaint:
            raise ValueError("--mask marks what --inpaint paints anew; name the images with --inpaint")
        if self.between and len(self.between) != 2:
            raise ValueError(f"--between goes from one image to another; wanted 2, got {len(self.between)}")
        if self.files:
            gallery.check()
        for path in (*self.files, *self.pictures):
            if not path.is_file():
                what = f", and --mask is none of {', '.join(get_args(canvas.Region))}" if path in self.pictures else ""
                raise ValueError(f"{path}: {'not a plain file' if path.exists() else 'no such file'}{what}")

    def check_apart(self, outputs: dict[str, pathlib.Path]) -> None:
        """ValueError where what is read would be written over."""
        for name, target in outputs.items():
            if target.resolve() in {path.resolve() for path in (*self.files, *self.pictures)}:
                raise ValueError(f"--{name} {target} is an image that is read, and would be lost; name another file to write")


def paint(
    *,
    model: Folders = (),
    flow: Switch = False,
    join: Literal["mean", "sum"] = "mean",
    samples: Whole = None,
    label: Words = (),
    seed: int = 0,
    given: Annotated[Given, tyro.conf.arg(name="")] = Given(),
    wishes: Annotated[Wishes, tyro.conf.arg(name="")] = Wishes(),
    outputs: Annotated[showing.Outputs, tyro.conf.arg(name="")] = NOWHERE,
    debug: Switch = False,
) -> None:
    """Paint images: the chain of an energy model walks from noise to what it has learnt, a flow paints at once.

    Examples:  flaxgen paint                                           in the terminal, as they come into being
               flaxgen paint --samples 64 --png clothes.png --gif chain.gif --strip strip.png
               flaxgen paint --inpaint shoe.png --mask bottom --png whole.png
               flaxgen paint --flow --temperature 0.7 --png clothes.png
               flaxgen paint --flow --between shirt.png boot.png --gif way.gif
               flaxgen paint --score shirt.png cat.png                 which is more like clothes (higher)
               flaxgen paint --model weights/a weights/b --join sum    what both models agree on

    Without --png, --strip or --gif the images are shown in the terminal; where there is none, they go to paint.png, or paint-2.png, ...

    Args:
        model: Flaxgen folders: an energy model or several, or a flow; by default the energy model of clothes that comes with flaxgen.
        flow: In the place of that, the flow of clothes that comes with flaxgen.
        join: Energies of several models: their mean is an ensemble, their sum paints what all agree on.
        samples: How many images, by default 16, or whole lines of a conditional model's classes; of each image of --like and
            --inpaint 4; steps of --between 8.
        label: Classes of a conditional model, by name or number, in turn; by default all, of your images the likeliest one.
        seed: The same seed paints the same images again.
        debug: Show the whole trace of an error.
    """
    _check_words(model, flow, join, samples, given, wishes, outputs)
    used = {name: bool(value) for name, value in dataclasses.asdict(given).items()} | dict.fromkeys((*wishes.said, *outputs.files), True)
    used["label"] = bool(label)
    if not model:
        _check_used("flow" if flow else "energy", used)
    with terminal.waiting("loading"):
        from flaxgen import compilation, painter

        compilation.keep()
        made = painter.Painter.load(*(model or [painter.bundled("flow" if flow else "energy")]), join=join)
    kind = "energy" if isinstance(made, painter.Painter) else "flow"
    _check_used(kind, used)
    read_BYXC = np.stack([gallery.read(path, made.shape) for path in given.files]) if given.files else None
    if given.score:
        terminal.show(_scores(made, kind, given.score, read_BYXC, label))
    elif given.between:
        _way(made, read_BYXC, samples or 8, outputs)
    elif kind == "flow":
        samples = samples or 16
        outputs.check_size(samples, None, made.shape, 1)
        with terminal.waiting("painting"):
            image_BYXC = made(samples, seed=seed, **wishes.said)
        _show(image_BYXC, None, outputs)
    else:
        whole_lines = made.classes * max(1, round(16 / made.classes)) if made.classes and not label else 16
        count = samples or (1 if given.denoise else 4 if given.files else whole_lines)
        _walk(made, given, read_BYXC, count, label, seed, wishes.said, outputs)


def _check_words(model, flow: bool, join: str, samples: int | None, given: Given, wishes: Wishes, outputs: showing.Outputs) -> None:
    """ValueError or ImportError where options do not go together, or files cannot be read or written."""
    if model and flow:
        raise ValueError("both --model and --flow are given; keep one of them")
    if samples is not None and samples < (2 if given.between else 1):
        raise ValueError(f"--samples {samples}: wanted a whole number of at least {2 if given.between else 1}")
    if samples is not None and (given.denoise or given.score):
        raise ValueError("--samples says nothing about --denoise and --score, which answer each image once; leave it out")
    if join == "sum" and len(model) < 2:
        raise ValueError("--join sum adds energies up; name two models or more with --model")
    given.check()
    outputs.check()
    given.check_apart(outputs.files)
    if given.score and (wishes.said or outputs.files):
        raise ValueError(f"--score paints nothing; leave --{' and --'.join((*wishes.said, *outputs.files))} out")
    if given.between and wishes.said:
        raise ValueError(f"--between draws nothing; leave --{' and --'.join(wishes.said)} out")


def _check_used(kind: str, used: dict[str, bool]) -> None:
    """ValueError where an option is about the other kind of model."""
    other = "energy" if kind == "flow" else "flow"
    wrong = [f"--{name}" for name in ONLY[other] if used.get(name)]
    if kind == "flow" and used.get("gif") and not used.get("between"):
        wrong.append("--gif (of a flow it shows --between)")
    if wrong:
        what = "a flow, which paints at once" if kind == "flow" else "an energy model; --flow takes the flow that comes with flaxgen"
        raise ValueError(f"{', '.join(wrong)}: not of {what}")


def _walk(made, given: Given, read_BYXC, samples: int, label: tuple[str, ...], seed: int, wishes: dict, outputs: showing.Outputs) -> None:
    """Runs the chain of an energy model while a person watches, and shows or writes what comes of it."""
    rows = samples * (1 if read_BYXC is None else len(read_BYXC))
    moves = made.sampling.changed(**wishes).moves
    every = min(AT_ONCE, max(1, moves // gallery.FRAMES))
    chain = {"seed": seed, "every": every, "label": _in_turn(label, rows), **wishes}
    beside = 2 if given.inpaint else 0 if read_BYXC is None else 1
    turns = len(label) or made.classes
    columns = samples + beside if beside else turns if 1 < turns <= samples else None
    counts = [0, *range(1, moves, every), moves]
    outputs.check_size(rows // samples * (samples + beside), columns, made.shape, len(counts))
    left = [] if read_BYXC is None else [read_BYXC]
    with terminal.waiting("starting"):
        if given.inpaint:
            hole_BYXC = canvas.mask(_hole(given.mask, made.shape), len(read_BYXC), made.shape)
            frames = made.inpainting(read_BYXC, hole_BYXC[..., 0], samples, **chain)
            left += [np.where(hole_BYXC, np.uint8(canvas.GREY), read_BYXC)]
        else:
            frames = made.stream(samples, like=read_BYXC, **({"noise": 0.0} if given.denoise else {}) | chain)

    def arrange(frame_BYXC: np.ndarray) -> np.ndarray:
        """What was given at the left of what came of it."""
        if not left:
            return frame_BYXC
        painted = frame_BYXC.reshape(len(read_BYXC), samples, *made.shape)
        return np.concatenate([*(image_BYXC[:, None] for image_BYXC in left), painted], axis=1).reshape(-1, *made.shape)

    kept = gallery.FRAMES if outputs.strip or outputs.gif else 1
    film = showing.watched(frames, counts, kept, arrange, columns, shown=not outputs.files and showing.on_terminal())
    outputs.write(film, arrange, columns)


def _way(made, ends_BYXC: np.ndarray, steps: int, outputs: showing.Outputs) -> None:
    """A flow's way from one image to another; an animation goes back too."""
    still = dataclasses.replace(outputs, gif=None) if outputs.png is not None or outputs.gif is None else None
    if still:
        still.check_size(steps, steps, made.shape, 1)
    with terminal.waiting("painting"):
        image_BYXC = made.interpolate(*ends_BYXC, steps)
    if outputs.gif is not None:
        way = [image_YXC[None] for image_YXC in (*image_BYXC[1:], *image_BYXC[-2::-1])]
        showing.Outputs(gif=outputs.gif, scale=outputs.scale).write(way, lambda image_BYXC: image_BYXC, None)
    if still:
        _show(image_BYXC, steps, still)


def _show(image_BYXC: np.ndarray, columns: int | None, outputs: showing.Outputs) -> None:
    """What a flow has painted, on the terminal or as files."""
    outputs.write([image_BYXC], lambda image_BYXC: image_BYXC, columns)
    if not outputs.files and showing.on_terminal():
        showing.show(image_BYXC, columns)


def _in_turn(label: tuple[str, ...], rows: int) -> list[str] | None:
    """One of the labels for each row, None where there are none."""
    return [label[row % len(label)] for row in range(rows)] if label else None


def _hole(mask: str, shape: tuple[int, int, int]) -> Any:
    """What canvas.mask takes: the name of a region, or the light parts of a picture."""
    if mask in get_args(canvas.Region):
        return mask
    return gallery.read(pathlib.Path(mask), (*shape[:2], 1))[:, :, 0] > canvas.GREY


def _scores(made, kind: str, paths: tuple[pathlib.Path, ...], image_BYXC: np.ndarray, label: tuple[str, ...]) -> str:
    """A row an image, the more it looks like what the model has learnt the higher the number."""
    if kind == "energy":
        with terminal.waiting("comparing"):
            energy_B = made.energy(image_BYXC, label=_in_turn(label, len(paths)))
        rows = [f"{-energy:14.4f}  {path}" for energy, path in zip(energy_B, paths, strict=True)]
        return "\n".join(["minus energy    image", *rows, ""])
    with terminal.waiting("comparing"):
        log_prob_B = made.log_prob(image_BYXC)
    bits_B = -log_prob_B / (np.log(2) * image_BYXC[0].size)
    rows = [f"{nats:15.2f}  {bits:14.4f}  {path}" for nats, bits, path in zip(log_prob_B, bits_B, paths, strict=True)]
    return "\n".join(["log probability  bits/dimension  image", *rows, ""])
