"""Images and their labels out of the files of known data sets: idx, CIFAR's binary batches, NumPy's archives, scikit-learn's digits."""

import contextlib
import gzip
import math
import pathlib
import re
import zlib
from typing import Any, Literal

import numpy as np

Part = Literal["train", "test"]
Found = tuple[np.ndarray, np.ndarray | None]

HELD_OUT = 297  # of scikit-learn's 1,797 digits, the last, which other people wrote
IDX = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}
PATTERNS = {  # of other files, several of one part
    "train": ("data_batch_*.bin", "train_data_batch_*.npz"),
    "test": ("test_batch.bin", "val_data.npz"),
}
IMAGES, LABELS = ("x", "image", "images", "data"), ("y", "label", "labels")
CLASSES = 2**16  # more are no labels; a model has rows for each
DEFLATED = 1032  # bytes that one byte of a gzipped file can stand for
ADVICE = (
    "give data=FOLDER of idx files (train-images-idx3-ubyte[.gz] …, as of MNIST or Fashion-MNIST), of CIFAR-10's data_batch_*.bin or of "
    "ImageNet32's train_data_batch_*.npz; data=FILE.npz with x and y, data=FILE.npy, or data=digits for scikit-learn's"
)


def read(words: str, part: Part) -> Found:
    """(uint8 image_NYXC, int32 label_N or None) of what data= names; a folder, or an archive with x_train and x_test, holds two parts."""
    if words == "digits":
        return digits(part)
    path = pathlib.Path(words).expanduser()
    if words and path.is_dir():
        return folder(path, part)
    if not words or not path.is_file():
        raise ValueError(f"no images at {words or 'data='}; {ADVICE}")
    if path.suffix == ".npz":
        return archive(path, part)
    if path.suffix == ".npy":
        return shaped(path, opened(path, np.ndarray, path, mmap_mode="r")), None
    if path.suffix == ".bin":
        return cifar(path)
    return idx_pair(path)


def digits(part: Part) -> Found:
    """scikit-learn's 8 × 8 digits, whose 17 levels become multiples of 15: 1,500 to learn from, 297 by other people to test with."""
    try:
        from sklearn import datasets
    except ImportError:
        raise ImportError("data=digits comes with scikit-learn; install it with pip install scikit-learn, or give other data=") from None
    found = datasets.load_digits()
    kept = slice(-HELD_OUT) if part == "train" else slice(-HELD_OUT, None)
    return (found.images[kept, ..., None] * 15).astype(np.uint8), found.target[kept].astype(np.int32)


def folder(path: pathlib.Path, part: Part) -> Found:
    """All files of that part, in the order of their names."""
    for name in (IDX[part], f"{IDX[part]}.gz"):
        if (path / name).is_file():
            return idx_pair(path / name)
    for pattern in PATTERNS[part]:
        files = sorted(path.glob(pattern), key=lambda file: [int(number) for number in re.findall(r"\d+", file.name)])
        if files:
            images, labels = zip(*(cifar(file) if file.suffix == ".bin" else archive(file, part) for file in files), strict=True)
            return np.concatenate(images), None if any(label is None for label in labels) else np.concatenate(labels)
    raise ValueError(f"{path} holds no images of the part {part} ({IDX[part]}[.gz], {', '.join(PATTERNS[part])}); {ADVICE}")


def idx_pair(path: pathlib.Path) -> Found:
    """Images of an idx file, and the labels of the file beside it that is named for them."""
    image = idx(path)
    if image.ndim != 3:
        raise ValueError(f"{path}: {image.ndim} axes, wanted 3 (images, rows, columns); name the file of the images")
    name = path.name.removesuffix(".gz").replace("images-idx3", "labels-idx1")
    beside = [path.with_name(other) for other in (name, f"{name}.gz") if path.with_name(other).is_file()]
    label = idx(beside[0]) if beside and "labels" in name else None
    return image[..., None], counted(path, image, label)


def idx(path: pathlib.Path) -> np.ndarray:
    """The uint8 array of an idx file (LeCun's MNIST format), gzipped by its name; of more bytes than its header tells one is read."""
    zipped = path.suffix == ".gz"
    most = path.stat().st_size * (DEFLATED if zipped else 1)
    with (gzip.open if zipped else open)(path, "rb") as file:
        try:
            head = file.read(4)
            axes = head[3] if len(head) == 4 and head[:3] == b"\0\0\x08" else 0
            sizes = file.read(4 * axes)
            shape = tuple(int(size) for size in np.frombuffer(sizes[: len(sizes) // 4 * 4], ">u4"))
            raw = file.read(min(math.prod(shape), most) + 1)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{path}: {error}; fetch the file again") from None
    if not 1 <= axes <= 4 or len(shape) < axes:
        raise ValueError(f"{path}: begins with {head.hex() or 'nothing'}, wanted 000008 and the number of axes; this is no idx file")
    start, count = 4 + 4 * axes, math.prod(shape)
    if len(raw) != count:
        found = "more" if len(raw) > count else f"{start + len(raw):,}"
        raise ValueError(f"{path}: {found} bytes, wanted {start + count:,} for {shape}; fetch the file again")
    return np.frombuffer(raw, np.uint8).reshape(shape)


def cifar(path: pathlib.Path) -> Found:
    """CIFAR-10's binary version: rows of a byte for the label and 3 × 32 × 32 for the image."""
    raw = np.fromfile(path, np.uint8)
    if not raw.size or raw.size % 3073:
        raise ValueError(f"{path}: {raw.size:,} bytes, wanted rows of 3,073; give CIFAR-10's binary version")
    row_N = raw.reshape(-1, 3073)
    if row_N[:, 0].max() > 9:
        raise ValueError(f"{path}: labels up to {row_N[:, 0].max()}, wanted 0 to 9; give CIFAR-10's binary version")
    return planar(row_N[:, 1:]), row_N[:, 0].astype(np.int32)


def archive(path: pathlib.Path, part: Part) -> Found:
    """x and y of an .npz (or x_train … x_test, or ImageNet32's data and labels, whose labels begin at 1)."""
    with open(path, "rb") as file:  # which np.load leaves open where it fails
        found = opened(path, np.lib.npyio.NpzFile, file)
        names = set(found.files)
        name = next((n for n in (f"x_{part}", *IMAGES) if n in names), None)
        if name is None:
            raise ValueError(f"{path} holds {', '.join(sorted(names)) or 'nothing'}; wanted images as {', '.join(IMAGES)}")
        other = next((n for n in (f"y_{part}", *LABELS) if n in names), None)
        with told(path):
            image, label = found[name], None if other is None else found[other].reshape(-1)
    image = shaped(path, image)
    if label is not None and label.dtype.kind not in "iu":
        raise ValueError(f"{path}: labels of {label.dtype}, wanted whole numbers")
    if label is not None and name == "data":
        label = label.astype(np.int64) - 1
    return image, counted(path, image, label)


def opened(path: pathlib.Path, kind: type, source: Any, **how) -> Any:
    """What np.load gives, of that kind: an array that a .npy holds, or the archive of a .npz. source: the path, or the open file."""
    with told(path):
        found = np.load(source, allow_pickle=False, **how)
    if not isinstance(found, kind):
        raise ValueError(f"{path}: holds a {type(found).__name__}; name files of one array .npy, archives of several .npz")
    return found


@contextlib.contextmanager
def told(path: pathlib.Path):
    """What NumPy raises where a file is damaged, as a ValueError that names it."""
    try:
        yield
    except Exception as error:  # tokenize.TokenError, zlib.error and BadZipFile among others
        raise ValueError(f"{path}: {error}; wanted NumPy's own format, whole and without pickles") from None


def shaped(path: pathlib.Path, array: np.ndarray) -> np.ndarray:
    """uint8 images with their axis of channels: of (N, Y, X), (N, Y, X, C), or of rows of 3 × S × S."""
    if array.dtype != np.uint8:
        raise ValueError(f"{path}: images of {array.dtype}, wanted uint8 from 0 to 255")
    if array.ndim == 2 and 0 < math.isqrt(array.shape[1] // 3) ** 2 * 3 == array.shape[1]:
        return planar(array)
    array = array[..., None] if array.ndim == 3 else array
    if array.ndim != 4 or not 1 <= array.shape[3] <= 4:
        raise ValueError(f"{path}: images of the shape {array.shape}, wanted (images, height, width) or (images, height, width, channels)")
    return array


def planar(row_ND: np.ndarray) -> np.ndarray:
    """Images of rows that hold all of red, then of green, then of blue."""
    size = math.isqrt(row_ND.shape[1] // 3)
    return np.ascontiguousarray(row_ND.reshape(-1, 3, size, size).transpose(0, 2, 3, 1))


def counted(path: pathlib.Path, image: np.ndarray, label: np.ndarray | None) -> np.ndarray | None:
    """int32 labels, one for each image."""
    if label is None:
        return None
    low, high = int(label.min(initial=0)), int(label.max(initial=0))
    if label.shape != image.shape[:1] or low < 0 or high >= CLASSES:
        found = f"{len(image):,} images and labels of the shape {label.shape} from {low} to {high}"
        raise ValueError(f"{path}: {found}; wanted one each, from 0 to at most {CLASSES - 1:,}")
    return label.astype(np.int32)
