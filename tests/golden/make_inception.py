"""Writes tests/golden/inception/expected.npz: features of torchvision's Inception V3, changed as pytorch-fid does.

python tests/golden/make_inception.py      wants torch and torchvision
"""

import pathlib
import sys

import numpy as np
import torch
import torchvision
from torch.nn import functional

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


def main() -> None:
    from tests import inceptions

    inner = torchvision.models.inception
    plain, last = functional.avg_pool2d, []

    def pool(x, kernel_size, stride, padding):
        # FID's graph: means leave the padding out, and the last block takes maxima.
        where = {"kernel_size": kernel_size, "stride": stride, "padding": padding}
        return functional.max_pool2d(x, **where) if last else plain(x, **where, count_include_pad=False)

    network = inner.Inception3(num_classes=1008, aux_logits=False, init_weights=False).eval()
    network.load_state_dict({name: torch.from_numpy(array) for name, array in inceptions.drawn_weights().items()}, strict=False)
    inner.F.avg_pool2d = pool
    network.Mixed_7c.register_forward_pre_hook(lambda *_: last.append(True))
    captured = {}
    network.avgpool.register_forward_hook(lambda module, given, out: captured.update(feature=out.flatten(1)))
    x = torch.from_numpy(inceptions.drawn_image()).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        network(2 * functional.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False) - 1)
    target = ROOT / "tests" / "golden" / "inception" / "expected.npz"
    np.savez_compressed(target, feature_BD=captured["feature"].numpy())


if __name__ == "__main__":
    main()
