"""Inception V3 as FID and the Inception score are defined by: the TensorFlow graph of 2015-12-05, as pytorch-fid ported it."""

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from flaxgen.protocols import Array, Params

SIDE, FEATURES, CLASSES = 299, 2048, 1008
Resize = Literal["torch", "tensorflow"]


@dataclasses.dataclass(frozen=True)
class Unit:
    """A convolution, its normalisation folded into kernel and bias, and max(0, x); edges are padded only at stride 1 with `pad`."""

    name: str
    out: int
    size: tuple[int, int] = (1, 1)
    stride: int = 1
    pad: Literal["SAME", "VALID"] = "SAME"


# A branch is a row of steps: a Unit, a pooling, or a pair of Units side by side.
Pool = Literal["mean", "max", "max down"]
Step = Unit | Pool | tuple[Unit, Unit]
Branch = tuple[Step, ...]


def _a(pool: int) -> tuple[Branch, ...]:
    double = (Unit("branch3x3dbl_1", 64), Unit("branch3x3dbl_2", 96, (3, 3)), Unit("branch3x3dbl_3", 96, (3, 3)))
    return (
        (Unit("branch1x1", 64),),
        (Unit("branch5x5_1", 48), Unit("branch5x5_2", 64, (5, 5))),
        double,
        ("mean", Unit("branch_pool", pool)),
    )


def _b() -> tuple[Branch, ...]:
    double = (Unit("branch3x3dbl_1", 64), Unit("branch3x3dbl_2", 96, (3, 3)), Unit("branch3x3dbl_3", 96, (3, 3), 2, "VALID"))
    return (Unit("branch3x3", 384, (3, 3), 2, "VALID"),), double, ("max down",)


def _c(inner: int) -> tuple[Branch, ...]:
    seven = (Unit("branch7x7_1", inner), Unit("branch7x7_2", inner, (1, 7)), Unit("branch7x7_3", 192, (7, 1)))
    double = (
        Unit("branch7x7dbl_1", inner),
        Unit("branch7x7dbl_2", inner, (7, 1)),
        Unit("branch7x7dbl_3", inner, (1, 7)),
        Unit("branch7x7dbl_4", inner, (7, 1)),
        Unit("branch7x7dbl_5", 192, (1, 7)),
    )
    return (Unit("branch1x1", 192),), seven, double, ("mean", Unit("branch_pool", 192))


def _d() -> tuple[Branch, ...]:
    three = (Unit("branch3x3_1", 192), Unit("branch3x3_2", 320, (3, 3), 2, "VALID"))
    seven = (Unit("branch7x7x3_1", 192), Unit("branch7x7x3_2", 192, (1, 7)), Unit("branch7x7x3_3", 192, (7, 1)))
    return three, (*seven, Unit("branch7x7x3_4", 192, (3, 3), 2, "VALID")), ("max down",)


def _e(pool: Pool) -> tuple[Branch, ...]:
    def cross(name: str) -> tuple[Unit, Unit]:
        return Unit(f"{name}a", 384, (1, 3)), Unit(f"{name}b", 384, (3, 1))

    three = (Unit("branch3x3_1", 384), cross("branch3x3_2"))
    double = (Unit("branch3x3dbl_1", 448), Unit("branch3x3dbl_2", 384, (3, 3)), cross("branch3x3dbl_3"))
    return (Unit("branch1x1", 320),), three, double, (pool, Unit("branch_pool", 192))


STEM: Branch = (
    Unit("Conv2d_1a_3x3", 32, (3, 3), 2, "VALID"),
    Unit("Conv2d_2a_3x3", 32, (3, 3), 1, "VALID"),
    Unit("Conv2d_2b_3x3", 64, (3, 3)),
    "max down",
    Unit("Conv2d_3b_1x1", 80, pad="VALID"),
    Unit("Conv2d_4a_3x3", 192, (3, 3), 1, "VALID"),
    "max down",
)
# The last block takes maxima where all others take means: so the graph is that FID was defined by.
MIXED = {"Mixed_5b": _a(32), "Mixed_5c": _a(64), "Mixed_5d": _a(64), "Mixed_6a": _b()}
MIXED |= {"Mixed_6b": _c(128), "Mixed_6c": _c(160), "Mixed_6d": _c(160), "Mixed_6e": _c(192)}
MIXED |= {"Mixed_7a": _d(), "Mixed_7b": _e("mean"), "Mixed_7c": _e("max")}


def units() -> dict[str, tuple[int, int, int, int]]:
    """The kernel's shape (height, width, in, out) of every unit, by the name that torch's modules have, in forward order."""
    found: dict[str, tuple[int, int, int, int]] = {}
    width = _widths(found, "", STEM, 3)
    for block, branches in MIXED.items():
        width = sum(_widths(found, f"{block}.", branch, width) for branch in branches)
    return found


def _widths(found: dict, prefix: str, branch: Branch, width: int) -> int:
    """Notes the units of a branch that reads `width` channels; the channels that it gives."""
    for step in branch:
        if isinstance(step, str):
            continue
        pair = step if isinstance(step, tuple) else (step,)
        found |= {prefix + unit.name: (*unit.size, width, unit.out) for unit in pair}
        width = sum(unit.out for unit in pair)
    return width


def apply(params: Params, image_BYXC: Array, *, resize: Resize = "torch") -> tuple[Array, Array]:
    """(feature_BD, prob_BV): 2,048 features before the last layer, and softmax of its 1,008 logits without their bias, as published.

    params: {unit: {"kernel", "bias"}} and {"fc": {"kernel"}}, the last (out, in). image_BYXC: 0 to 255, 3 channels, any size, which is
    brought to 299 by 299 pixels.
    resize: "torch" as pytorch-fid does, half pixels and x / 127.5 - 1; "tensorflow" as the first code of FID, corners at 0 and x / 128 - 1.
    """
    x_BYXC = image_BYXC.astype(jnp.float32)
    rows_PY, columns_QX = (jnp.asarray(resizing(size, SIDE, resize)) for size in x_BYXC.shape[1:3])
    x_BPXC = jnp.einsum("PY,BYXC->BPXC", rows_PY, x_BYXC, precision="highest")
    x_BPQC = jnp.einsum("QX,BPXC->BPQC", columns_QX, x_BPXC, precision="highest")
    x_BYXC = _branch(params, "", STEM, x_BPQC / 127.5 - 1 if resize == "torch" else (x_BPQC - 128) / 128)
    for block, branches in MIXED.items():
        x_BYXC = jnp.concatenate([_branch(params, f"{block}.", branch, x_BYXC) for branch in branches], axis=-1)
    feature_BD = x_BYXC.mean((1, 2))
    kernel_VD = params["fc"]["kernel"]
    logit_BV = jnp.einsum("BD,VD->BV", feature_BD, kernel_VD, precision="highest")
    return feature_BD, jax.nn.softmax(logit_BV, axis=-1)


def resizing(size: int, wanted: int, how: Resize) -> np.ndarray:
    """The matrix (wanted, size) that interpolates linearly between pixels, none left out when it makes smaller."""
    place_P = np.arange(wanted) * (size / wanted)
    if how == "torch":
        place_P = np.maximum(place_P + 0.5 * size / wanted - 0.5, 0)
    low_P = np.minimum(place_P.astype(int), size - 1)
    matrix_PY = np.zeros((wanted, size), np.float32)
    np.add.at(matrix_PY, (np.arange(wanted), low_P), 1 - (place_P - low_P))
    np.add.at(matrix_PY, (np.arange(wanted), np.minimum(low_P + 1, size - 1)), place_P - low_P)
    return matrix_PY


def folded(kernel_FCYX: np.ndarray, scale_F, bias_F, mean_F, variance_F) -> dict[str, np.ndarray]:
    """{"kernel", "bias"} of a unit, of torch's kernel without bias and of the normalisation behind it (epsilon 0.001)."""
    gain_F = np.asarray(scale_F, np.float64) / np.sqrt(np.asarray(variance_F, np.float64) + 1e-3)
    kernel_YXCF = (kernel_FCYX * gain_F[:, None, None, None]).transpose(2, 3, 1, 0)
    return {"kernel": np.ascontiguousarray(kernel_YXCF, np.float32), "bias": (bias_F - mean_F * gain_F).astype(np.float32)}


def _branch(params: Params, prefix: str, branch: Branch, x_BYXC: Array) -> Array:
    for step in branch:
        if isinstance(step, str):
            x_BYXC = _pool(x_BYXC, step)
        else:
            pair = step if isinstance(step, tuple) else (step,)
            x_BYXC = jnp.concatenate([_unit(params[prefix + unit.name], unit, x_BYXC) for unit in pair], axis=-1)
    return x_BYXC


def _unit(params: Params, unit: Unit, x_BYXC: Array) -> Array:
    y_BYXF = jax.lax.conv_general_dilated(
        x_BYXC, params["kernel"], (unit.stride,) * 2, unit.pad, dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
    )
    return jax.nn.relu(y_BYXF + params["bias"][None, None, None])


def _pool(x_BYXC: Array, kind: Pool) -> Array:
    if kind == "mean":
        return nn.avg_pool(x_BYXC, (3, 3), (1, 1), "SAME", count_include_pad=False)
    return nn.max_pool(x_BYXC, (3, 3), (2, 2), "VALID") if kind == "max down" else nn.max_pool(x_BYXC, (3, 3), (1, 1), "SAME")


PARAMETERS = sum(math.prod(shape) for shape in units().values()) + FEATURES * CLASSES
