"""What a training step costs: floating-point operations a token, bytes a device, and what known devices can do.

Letters as in flaxgen.protocols: L layers, D width, F hidden width, V vocabulary, T tokens a row, H heads. Only matrix products are counted,
2 operations a multiply-add, attention whole (the masked half is computed too), as in Kaplan et al. 2020 (section 2.1), PaLM (Chowdhery et
al. 2022, appendix B) and Megatron-LM (Narayanan et al. 2021, appendix). Biases, norms, softmax and the optimizer are left out.
"""

import math
import re
from typing import Any, Literal

import jax
import numpy as np

from flaxgen.models import config as sizes

Remat = Literal["none", "dots", "full"]
Dtype = Literal["float32", "bfloat16"]
ROW_AXES = ("data", "fsdp")  # the mesh axes that share out the rows of a batch

# What one layer keeps of a token for the backward pass, by policy (tests/train/test_flops.py holds it against what jax keeps): arrays of D
# elements that every device holds whole, and those that the axis "tensor" splits, of D, of F and of H T elements, all in the activations'
# dtype. "dots" in the wiring "between" keeps one of D more.
KEPT = {"none": (4, 4, 2, 1), "dots": (2, 3, 1, 0), "full": (1, 0, 0, 0)}

# Dense FLOP/s of one jax device from the makers' data sheets: products of bfloat16 with float32 sums (float16 where there is no bfloat16),
# and of float32 without tf32, since flaxgen asks for the highest precision; a TPU takes six bfloat16 passes for it. The first name counts.
PEAKS = (
    ("B200", 2250e12, 80e12),  # nvidia.com DGX B200 data sheet
    ("GH200", 989e12, 67e12),
    ("H200", 989e12, 67e12),  # nvidia.com H200 data sheet: 1,979 with sparsity
    ("H100 PCIe", 756e12, 51e12),  # nvidia.com H100 data sheet
    ("H100 NVL", 835e12, 60e12),
    ("H100", 989e12, 67e12),
    ("A100", 312e12, 19.5e12),  # nvidia.com A100 data sheet
    ("A10", 125e12, 31.2e12),  # nvidia.com A10 data sheet
    ("V100", 125e12, 15.7e12),  # nvidia.com V100 data sheet, SXM2, float16
    ("L40S", 362e12, 91.6e12),  # nvidia.com L40S data sheet
    ("L4", 121e12, 30.3e12),  # nvidia.com L4 data sheet: 242 with sparsity
    ("T4", 65e12, 8.1e12),  # nvidia.com T4 data sheet, float16
    ("RTX 4090", 165.2e12, 82.6e12),  # Ada GPU architecture whitepaper, appendix A
    ("RTX 3090", 71e12, 35.6e12),  # GA102 whitepaper, appendix A
    ("TPU v6 lite", 918e12, 153e12),  # cloud.google.com/tpu/docs/v6e
    ("TPU v6e", 918e12, 153e12),
    ("TPU v5 lite", 197e12, 32.8e12),  # cloud.google.com/tpu/docs/v5e
    ("TPU v5e", 197e12, 32.8e12),
    ("TPU v5p", 459e12, 76.5e12),  # cloud.google.com/tpu/docs/v5p
    ("TPU v5", 459e12, 76.5e12),
    ("TPU v4", 275e12, 45.8e12),  # cloud.google.com/tpu/docs/v4
    ("TPU v3", 61.5e12, 10.2e12),  # cloud.google.com/tpu/docs/v3: 123 a chip of two devices
    ("TPU v2", 22.5e12, 3.8e12),  # 45 a chip of two devices
)


def peak(device_kind: str, dtype: Dtype = "bfloat16") -> float | None:
    """FLOP/s of one device of the kind that jax names, or None where it is not known (as for a CPU)."""
    found = [rest for name, *rest in PEAKS if re.search(rf"\b{name}\b", device_kind, re.IGNORECASE)]
    return found[0][0 if dtype == "bfloat16" else 1] if found else None


def parameters(config: sizes.Config) -> int:
    """V D + P D + L (4 D^2 + 2 D F) and the biases and norms, P positions; the output head is the token embedding."""
    return sum(map(math.prod, sizes.shapes(config).values()))


def forward(config: sizes.Config, length: int) -> int:
    """FLOPs a token, forward: L (2 (4 D^2 + 2 D F) + 4 T D) + 2 D V; 4 T D are the scores and the mixing of values."""
    return config.layers * _layer(config, length) + 2 * config.width * config.vocab


def _layer(config: sizes.Config, length: int) -> int:
    width, hidden = config.width, config.hidden
    return 2 * (4 * width**2 + 2 * width * hidden) + 4 * length * width


def a_token(config: sizes.Config, length: int, *, frozen: int = 0) -> int:
    """Model FLOPs a token, forward and backward: 3 times `forward`, since every product has two in its gradient; MFU is by these.

    frozen: elements of kernels that are not trained; each saves the 2 FLOPs of its own gradient. (What LoRA adds, 6 r (in + out) a
    kernel, is under 1 % and not counted; nor is what is saved where the lowest layers are frozen and nothing flows back through them.)
    """
    return 3 * forward(config, length) - 2 * frozen


def executed(config: sizes.Config, length: int, remat: Remat, *, chunks: int = 1, frozen: int = 0) -> int:
    """FLOPs a token that the device does, `a_token` and what is computed again in the backward pass; HFU is by these.

    "dots" does scores and mixing again, 4 T D a layer; "full" all of a layer, save the last product in the wiring "pre", whose result
    nothing asks for. A loss in chunks does the output head again, 8 V D in place of 6, V rounded up to whole chunks.
    """
    last = 2 * config.width * config.hidden if config.wiring == "pre" else 0
    again = {"none": 0, "dots": 4 * length * config.width, "full": _layer(config, length) - last}[remat]
    piece = -(-config.vocab // chunks)
    head = 2 * config.width * (4 * piece * -(-config.vocab // piece) - 3 * config.vocab) if chunks > 1 else 0
    return a_token(config, length, frozen=frozen) + config.layers * again + head


def formula(config: sizes.Config, length: int) -> str:
    """The count of `a_token` in words and numbers, for the start of a run."""
    c = config
    symbols = "3 × (L × (2 × (4 D² + 2 D F) + 4 T D) + 2 D V)"
    numbers = f"L={c.layers} D={c.width} F={c.hidden} T={length} V={c.vocab}"
    return f"FLOPs a token, forward and backward: {symbols} = {a_token(c, length):.4g} with {numbers}"


def per_device(tree: Any, specs: Any, mesh: dict[str, int]) -> int:
    """Bytes of a tree of arrays or ShapeDtypeStructs on one device; specs: the same tree of PartitionSpecs; mesh: axis -> size."""
    total = 0
    leaves, places = jax.tree.leaves(tree), jax.tree.leaves(specs, is_leaf=lambda x: isinstance(x, jax.sharding.PartitionSpec))
    for leaf, spec in zip(leaves, places, strict=True):
        shape = list(leaf.shape)
        for axis, names in enumerate(spec):
            parts = math.prod(mesh.get(name, 1) for name in ((names,) if isinstance(names, str) else names or ()))
            shape[axis] = -(-shape[axis] // parts)
        total += math.prod(shape) * leaf.dtype.itemsize
    return total


def activations(
    config: sizes.Config, *, rows: int, length: int, dtype: Dtype = "float32", remat: Remat = "none", tensor: int = 1
) -> dict[str, int]:
    """Bytes that `rows` rows on one device take: what all layers keep for the backward pass, and the layer that is at work in it.

    That layer's gradients take about what "none" keeps of a layer; computed again, two and a half times that (measured with XLA on a CPU).
    """
    kept, whole = (_kept(config, length, dtype, policy, tensor) for policy in (remat, "none"))
    work = whole * (1.0 if remat == "none" else 2.5)
    return {"kept by the layers": int(rows * length * config.layers * kept), "one layer": int(rows * length * work)}


def _kept(config: sizes.Config, length: int, dtype: Dtype, remat: Remat, tensor: int) -> float:
    """Bytes a token and layer; dropout keeps two masks of a byte an element."""
    whole, split, hidden, scores = KEPT[remat]
    whole += remat == "dots" and config.wiring == "between"
    masks = 2 * config.width if config.dropout and remat == "none" else 0
    elements = config.width * (whole + split / tensor) + (config.hidden * hidden + config.heads * length * scores) / tensor
    return elements * itemsize(dtype) + masks


def logits(config: sizes.Config, *, rows: int, length: int, chunks: int = 1) -> int:
    """Bytes of the float32 logits of `rows` rows, of one chunk of the vocabulary at a time: themselves, exponentials and gradient."""
    return 3 * 4 * rows * length * -(-config.vocab // chunks)


def memory(
    config: sizes.Config,
    trees: dict[str, tuple[Any, Any]],
    mesh: dict[str, int],
    *,
    batch: int,
    length: int,
    dtype: Dtype = "float32",
    remat: Remat = "none",
    chunks: int = 1,
    accumulate: int = 1,
) -> dict[str, int]:
    """Bytes on one device by what they are for, and their sum as "total".

    trees: {"masters": (shapes, specs), "optimizer": ..., "frozen": ...}, from jax.eval_shape and flaxgen.sharding; the latter two may be
    absent. batch: rows of an update on all devices together. What is
    held between updates is exact; the rest is estimated as `activations` and `logits` say.
    """
    held = {name: per_device(*pair, mesh) for name, pair in trees.items()}
    rows = -(-batch // (accumulate * math.prod(mesh.get(axis, 1) for axis in ROW_AXES)))
    shown = {"parameters": held["masters"], "frozen parameters": held.get("frozen", 0), "optimizer": held.get("optimizer", 0)}
    shown |= {"gradients": held["masters"], "summed gradients": held["masters"] if accumulate > 1 else 0}
    shown["parameters at work"] = _at_work(config, mesh, dtype)
    work = activations(config, rows=rows, length=length, dtype=dtype, remat=remat, tensor=mesh.get("tensor", 1))
    work["the logits"] = logits(config, rows=rows, length=length, chunks=chunks)
    shown["kept by the layers"] = work.pop("kept by the layers")
    most = max(work, key=work.get)  # the loss is done before the backward pass enters the layers
    shown[f"at work: {most}"] = work[most]
    return shown | {"total": sum(shown.values())}


def _at_work(config: sizes.Config, mesh: dict[str, int], dtype: Dtype) -> int:
    """Bytes of what is gathered over "fsdp" and rounded to dtype: two layers (one at work, one fetched), and the token embedding.

    Gathered parameters have gathered gradients, in float32, until these are summed and shared out again.
    """
    gathered = mesh.get("fsdp", 1) > 1
    if not gathered and dtype == "float32":
        return 0
    layer = sum(math.prod(shape) for path, shape in sizes.shapes(config).items() if path.startswith(sizes.block_name(0)))
    layer, table = layer // mesh.get("tensor", 1), config.vocab * config.width
    return (2 * layer + table) * itemsize(dtype) + (4 * (layer + table) if gathered else 0)


def itemsize(dtype: Dtype) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
