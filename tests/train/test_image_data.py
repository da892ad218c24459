import gzip

import numpy as np
import pytest

from train import images


def idx(path, array):
    raw = bytes([0, 0, 8, array.ndim]) + np.asarray(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


@pytest.fixture
def drawn():
    draw = np.random.default_rng(0)
    return draw.integers(0, 256, (11, 5, 7)), draw.integers(0, 3, 11)


@pytest.fixture
def folder(tmp_path, drawn):
    image, label = drawn
    for part, rows in (("train", slice(0, 7)), ("t10k", slice(7, None))):
        idx(tmp_path / f"{part}-images-idx3-ubyte.gz", image[rows])
        idx(tmp_path / f"{part}-labels-idx1-ubyte", label[rows])
    return tmp_path


def test_a_folder_of_idx_files_holds_two_parts_with_their_labels(folder, drawn):
    image, label = drawn
    for part, rows in (("train", slice(0, 7)), ("test", slice(7, None))):
        found = images.build(str(folder), part, labels="classes")
        np.testing.assert_array_equal(found.image_NYXC[..., 0], image[rows])
        np.testing.assert_array_equal(found.label_N, label[rows])
    assert images.build(str(folder / "t10k-images-idx3-ubyte.gz")).label_N is None


def test_cifars_binary_batches_and_imagenets_archives_are_read_in_their_order(tmp_path):
    draw = np.random.default_rng(1)
    row_N = draw.integers(0, 256, (12, 3, 32, 32)).astype(np.uint8)
    label_N = draw.integers(0, 10, 12).astype(np.uint8)
    for number in (1, 2, 10):
        kept = slice(*{1: (0, 5), 2: (5, 8), 10: (8, 12)}[number])
        raw = np.concatenate([label_N[kept, None], row_N[kept].reshape(-1, 3072)], axis=1)
        raw.tofile(tmp_path / f"data_batch_{number}.bin")
    found = images.build(str(tmp_path), labels="classes")
    np.testing.assert_array_equal(found.image_NYXC, row_N.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(found.label_N, label_N)
    other = tmp_path / "imagenet"
    other.mkdir()
    np.savez(other / "train_data_batch_1.npz", data=row_N.reshape(-1, 3072), labels=label_N + 1, mean=row_N.mean(0))
    again = images.build(str(other), labels="classes")
    np.testing.assert_array_equal(again.image_NYXC, found.image_NYXC)
    np.testing.assert_array_equal(again.label_N, found.label_N)


def test_archives_hold_images_by_the_usual_names(tmp_path, drawn):
    image, label = drawn
    np.savez(tmp_path / "a.npz", x=image.astype(np.uint8), y=label)
    np.savez(tmp_path / "b.npz", x_train=image[:7].astype(np.uint8), x_test=image[7:].astype(np.uint8))
    np.save(tmp_path / "c.npy", image.astype(np.uint8))
    assert images.build(str(tmp_path / "a.npz"), labels="classes").classes == label.max() + 1
    assert [len(images.build(str(tmp_path / "b.npz"), part)) for part in ("train", "test")] == [7, 4]
    assert images.build(str(tmp_path / "c.npy")).image_NYXC.shape == (11, 5, 7, 1)


def test_digits_come_from_scikit_learn_and_are_tested_on_other_writers():
    pytest.importorskip("sklearn")
    learnt, held = images.build("digits"), images.build("digits", "test")
    assert (len(learnt), len(held)) == (1500, 297) and learnt.image_NYXC.shape[1:] == (8, 8, 1)
    assert set(np.unique(learnt.image_NYXC)) == {15 * level for level in range(17)}


def test_every_image_comes_once_an_epoch_whatever_the_batch_and_its_parts(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(12, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 3), np.uint8))
    found = images.build(str(tmp_path / "a.npz"))
    epoch = [found.batch(3, place, 4) for place in range(3)]
    assert sorted(int(image[0, 0, 0]) for batch in epoch for image in batch["image_BYXC"]) == list(range(12))
    assert not np.array_equal(found.batch(3, 3, 4)["image_BYXC"], epoch[0]["image_BYXC"])
    part = found.batch(3, 1, 4, slice(2, 4))
    np.testing.assert_array_equal(part["image_BYXC"], epoch[1]["image_BYXC"][2:])
    assert part["row_B"].tolist() == [2, 3] and "label_B" not in part


def test_flips_mirror_about_half_of_the_images_and_the_same_ones_again(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.tile(np.arange(3, dtype=np.uint8), (200, 2, 1)))
    found = images.build(str(tmp_path / "a.npz"), flips="horizontal")
    image_BYX = found.batch(0, 0, 200)["image_BYXC"][..., 0]
    mirrored = int((image_BYX[:, 0, 0] == 2).sum())
    assert 70 < mirrored < 130
    np.testing.assert_array_equal(found.batch(0, 0, 200, slice(90, None))["image_BYXC"][..., 0], image_BYX[90:])


def test_padding_adds_black_pixels_around_and_changes_the_digest(folder):
    plain, padded = images.build(str(folder)), images.build(str(folder), pad=2)
    assert padded.image_NYXC.shape == (7, 9, 11, 1) and padded.image_NYXC[:, :2].max() == 0
    np.testing.assert_array_equal(padded.image_NYXC[:, 2:-2, 2:-2], plain.image_NYXC)
    assert padded.digest != plain.digest


def test_parts_hold_every_image_once_and_mark_what_fills_up(folder):
    batches = list(images.build(str(folder)).parts(3, 5))
    assert [batch["weight_B"].tolist() for batch in batches] == [[1, 1, 1], [1, 1, 0]]


@pytest.mark.parametrize(
    ("name", "raw", "wanted"),
    [
        ("train-images-idx3-ubyte", b"GIF89a", "this is no idx file"),
        ("train-images-idx3-ubyte", bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2, 1]), r"17 bytes, wanted 20 for \(1, 2, 2\)"),
        ("train-images-idx3-ubyte", bytes([0, 0, 8, 1, 0, 0, 0, 1, 9]), "1 axes, wanted 3"),
        ("train-images-idx3-ubyte.gz", b"no gzip", "fetch the file again"),
        ("train-images-idx3-ubyte", bytes([0, 0, 8, 3, *[255] * 12]), r"16 bytes, wanted [\d,]+ for \(4294967295, "),
        ("train-images-idx3-ubyte.gz", gzip.compress(bytes([0, 0, 8, 3, *[0, 0, 0, 1] * 3, 5, 6])), "more bytes, wanted 17 for"),
        ("data_batch_1.bin", b"12345", "wanted rows of 3,073"),
        ("data_batch_1.bin", bytes([10] * 3073), "labels up to 10, wanted 0 to 9"),
        ("train_data_batch_1.npz", b"12345", "wanted NumPy's own format"),
    ],
)
def test_a_file_that_is_damaged_is_refused_by_name(tmp_path, name, raw, wanted):
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(ValueError, match=wanted):
        images.build(str(tmp_path))


def test_whatever_damage_a_file_has_it_is_refused_in_words_or_read(tmp_path, drawn):
    """400 files cut or with some bytes changed; the checksums of archives and of gzip find each such change."""
    image, label = drawn[0].astype(np.uint8), drawn[1].astype(np.uint8)
    idx(tmp_path / "a-images-idx3", image)
    idx(tmp_path / "b-images-idx3.gz", image)
    np.save(tmp_path / "c.npy", image)
    np.savez(tmp_path / "d.npz", x=image, y=label)
    np.savez_compressed(tmp_path / "e.npz", x=image, y=label)
    draw, read = np.random.default_rng(0), 0
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for number in range(80):
            raw = bytearray(whole[: draw.integers(len(whole))] if number % 2 else whole)
            for place in draw.integers(len(raw), size=0 if number % 2 else 3):
                raw[place] ^= int(draw.integers(1, 256))
            path.write_bytes(raw)
            try:
                found = images.build(str(path))
            except ValueError as error:
                assert str(path) in str(error)
            else:
                read += 1
                assert found.image_NYXC.dtype == np.uint8 and (path.name[0] in "ac" or np.array_equal(found.image_NYXC[..., 0], image))
    assert read < 100


def test_an_array_and_an_archive_go_by_their_own_endings(tmp_path, drawn):
    np.save(tmp_path / "a.npy", drawn[0].astype(np.uint8))
    np.savez(tmp_path / "b.npz", x=drawn[0].astype(np.uint8))
    for name, other in (("a.npy", "a.npz"), ("b.npz", "b.npy")):
        (tmp_path / name).rename(tmp_path / other)
        with pytest.raises(ValueError, match=r"name files of one array \.npy, archives of several \.npz"):
            images.build(str(tmp_path / other))


def test_what_is_no_image_says_what_is_wanted(tmp_path, drawn):
    image, label = drawn
    np.savez(tmp_path / "floats.npz", x=image.astype(np.float32))
    np.savez(tmp_path / "names.npz", z=image.astype(np.uint8))
    np.savez(tmp_path / "few.npz", x=image.astype(np.uint8), y=label[:3])
    np.savez(tmp_path / "many.npz", x=image.astype(np.uint8), y=np.linspace(0, 70_000, 11).astype(int))
    np.savez(tmp_path / "flat.npz", x=image.astype(np.uint8).reshape(11, 35))
    for words, wanted in [
        ("floats.npz", "images of float32, wanted uint8"),
        ("names.npz", "holds z; wanted images as x"),
        ("few.npz", r"11 images and labels of the shape \(3,\)"),
        ("many.npz", "from 0 to 70000; wanted one each, from 0 to at most 65,535"),
        ("flat.npz", r"images of the shape \(11, 35\)"),
        ("nothing", "no images at .*nothing; give data=FOLDER"),
        ("", "holds no images of the part train"),
    ]:
        with pytest.raises(ValueError, match=wanted):
            images.build(str(tmp_path / words))
    np.savez(tmp_path / "bare.npz", x=image.astype(np.uint8))
    with pytest.raises(ValueError, match="holds no labels"):
        images.build(str(tmp_path / "bare.npz"), labels="classes")
    with pytest.raises(ValueError, match="no images at data="):
        images.build("")


def test_other_images_than_a_run_was_started_on_are_refused(folder):
    known = images.build(str(folder)).digest
    assert images.build(str(folder), known=known).digest == known
    with pytest.raises(ValueError, match="holds other images than the run was started on"):
        images.build(str(folder), labels="classes", known=known)
