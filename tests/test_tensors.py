import json
import os

import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as package

from flaxgen import errors, tensors


@pytest.fixture
def arrays():
    random = np.random.default_rng(0)
    return {
        "block_00/kernel": random.standard_normal((5, 7)).astype(np.float32), "scalar": np.array(-3, np.int64),
        "empty": np.zeros((0, 3), np.float16), "bf": random.standard_normal((3, 4, 5)).astype(ml_dtypes.bfloat16),
        "flags": np.array([True, False, True]), 'odd "名"\n': np.arange(9, dtype=np.int8), "double": random.standard_normal(3),
    }  # fmt: skip


def write(path, arrays, metadata=None):
    tensors.write(path, [(name, each.dtype, each.shape) for name, each in arrays.items()], arrays.values(), metadata or {"by": "us"})
    return path


def same(found: np.ndarray, wanted: np.ndarray) -> bool:
    return found.dtype == wanted.dtype and found.shape == wanted.shape and found.tobytes() == wanted.tobytes()


def test_what_is_written_reads_back_here_and_in_the_safetensors_package(arrays, tmp_path):
    path = write(tmp_path / "model.safetensors", arrays)
    entries, other = tensors.index(tmp_path), package.load_file(str(path))
    assert list(entries) == list(arrays) and other.keys() == arrays.keys()
    for name, array in arrays.items():
        assert same(tensors.read(entries[name]), array) and same(other[name], array)
        pieces = [piece.copy() for piece in tensors.chunks(entries[name], 64)]
        assert b"".join(piece.tobytes() for piece in pieces) == array.tobytes()


def test_what_the_safetensors_package_writes_reads_here(arrays, tmp_path):
    package.save_file(arrays, str(tmp_path / "theirs.safetensors"))
    entries = tensors.index(tmp_path / "theirs.safetensors")
    assert entries.keys() == arrays.keys() and all(same(tensors.read(entries[name]), array) for name, array in arrays.items())


def test_a_transposed_array_is_written_in_c_order(tmp_path):
    turned = np.arange(48, dtype=np.float32).reshape(6, 8).T
    entries = tensors.index(write(tmp_path / "m.safetensors", {"a": turned}))
    np.testing.assert_array_equal(tensors.read(entries["a"]), turned)


def test_a_flipped_byte_anywhere_is_found(arrays, tmp_path):
    raw = write(tmp_path / "model.safetensors", arrays).read_bytes()
    spoiled = tmp_path / "spoiled.safetensors"
    for place in range(len(raw)):
        for mask in (1 << place % 8, 0x20) if place < 1200 and place % 3 == 0 else (1 << place % 8,):
            spoiled.write_bytes(raw[:place] + bytes([raw[place] ^ mask]) + raw[place + 1 :])
            with pytest.raises(errors.CheckpointError):
                for entry in tensors.index(spoiled).values():
                    tensors.read(entry)


def test_a_flipped_byte_of_a_tensor_is_refused_by_name(arrays, tmp_path):
    path = write(tmp_path / "model.safetensors", arrays)
    entry = tensors.index(path)["bf"]
    with open(path, "r+b") as file:
        file.seek(entry.offset + 17)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 4]))
    with pytest.raises(errors.Corrupt, match=r"'bf'.*crc32c"):
        tensors.read(tensors.index(path)["bf"])
    with pytest.raises(errors.Corrupt, match=r"'bf'.*crc32c"):
        list(tensors.chunks(tensors.index(path)["bf"], 64))


def test_a_file_cut_off_anywhere_is_refused(arrays, tmp_path):
    raw = write(tmp_path / "model.safetensors", arrays).read_bytes()
    spoiled = tmp_path / "spoiled.safetensors"
    for end in range(0, len(raw), 5):
        spoiled.write_bytes(raw[:end])
        with pytest.raises((errors.Incomplete, errors.Corrupt)):
            tensors.index(spoiled)
    spoiled.write_bytes(raw + b"\0")
    with pytest.raises(errors.Corrupt, match="speaks of"):
        tensors.index(spoiled)


def raw_file(header, data=b"", length=None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def one(**fields):
    return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | fields}


HOSTILE = {
    "huge header length": (raw_file({}, length=1 << 63), errors.TooLarge),
    "header length past the end": (raw_file({}, length=50), errors.Incomplete),
    "not an object": (raw_file(b"[]"), errors.Corrupt),
    "not JSON": (raw_file(b"{nope"), errors.Corrupt),
    "not text": (raw_file(b'{"\xff":1}'), errors.Corrupt),
    "deep recursion": (raw_file(b'{"a":' + b"[" * 100_000), errors.Corrupt),
    "endless objects": (raw_file(b'{"a":[' + b"{}," * 400_000 + b"{}]}"), errors.TooLarge),
    "a key twice": (raw_file(b'{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}',
                             bytes(4)), errors.Corrupt),
    "an overlap": (raw_file(one() | {"b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, bytes(12)), errors.Corrupt),
    "a hole": (raw_file(one() | {"b": {"dtype": "F32", "shape": [1], "data_offsets": [12, 16]}}, bytes(16)), errors.Corrupt),
    "2^63 elements": (raw_file(one(shape=[1 << 63]), bytes(8)), errors.Corrupt),
    "2^62 elements": (raw_file(one(shape=[1 << 62], data_offsets=[0, 1 << 62]), bytes(8)), errors.Corrupt),
    "zero times 2^62": (raw_file(one(shape=[0, 1 << 62, 1 << 62], data_offsets=[0, 0])), errors.Corrupt),
    "2^62 offsets": (raw_file(one(data_offsets=[1 << 62, (1 << 62) + 8]), bytes(8)), errors.Corrupt),
    "negative axis": (raw_file(one(shape=[-2]), bytes(8)), errors.Corrupt),
    "a fraction": (raw_file(one(shape=[2.0]), bytes(8)), errors.Corrupt),
    "a truth": (raw_file(one(shape=[True]), bytes(4)), errors.Corrupt),
    "offsets backwards": (raw_file(one(data_offsets=[8, 0]), bytes(8)), errors.Corrupt),
    "three offsets": (raw_file(one(data_offsets=[0, 8, 16]), bytes(8)), errors.Corrupt),
    "no offsets": (raw_file(one(data_offsets=[]), bytes(8)), errors.Corrupt),
    "an unknown dtype": (raw_file(one(dtype="F33"), bytes(8)), errors.Corrupt),
    "a list as dtype": (raw_file(one(dtype=["F32"]), bytes(8)), errors.Corrupt),
    "an unknown field": (raw_file(one(code="import os"), bytes(8)), errors.Corrupt),
    "too many axes": (raw_file(one(shape=[1] * 8 + [2]), bytes(8)), errors.TooLarge),
    "a long name": (raw_file({"n" * 1025: one()["a"]}, bytes(8)), errors.TooLarge),
    "half a surrogate": (raw_file(b'{"\\ud800":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}', bytes(4)), errors.Corrupt),
    "too many tensors": (raw_file(b'{"":0' + b"".join(b',"%d":0' % number for number in range(100_001)) + b"}"), errors.TooLarge),
    "a number of 5000 digits": (raw_file(b'{"a":' + b"9" * 5000 + b"}"), errors.Corrupt),
    "metadata that is no text": (raw_file({"__metadata__": {"a": 1}}), errors.Corrupt),
    "a checksum too few": (raw_file({"__metadata__": {"flaxgen.crc32c": "00000000"}} | one(), bytes(8)), errors.Corrupt),
    "nothing at all": (b"", errors.Incomplete),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers_are_refused(name, tmp_path):
    raw, kind = HOSTILE[name]
    (tmp_path / "m.safetensors").write_bytes(raw)
    with pytest.raises(kind):
        tensors.index(tmp_path / "m.safetensors")


def sharded(folder, arrays):
    names = list(arrays)
    where = {}
    for number, part in enumerate((names[::2], names[1::2])):
        file = f"model-{number + 1:05d}-of-00002.safetensors"
        write(folder / file, {name: arrays[name] for name in part})
        where |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return where


def test_shards_read_as_one(arrays, tmp_path):
    sharded(tmp_path, arrays)
    for path in (tmp_path, tmp_path / "model.safetensors.index.json"):
        entries = tensors.index(path)
        assert entries.keys() == arrays.keys() and all(same(tensors.read(entries[name]), arrays[name]) for name in arrays)


def test_an_index_that_disagrees_with_its_shards_lists_how(arrays, tmp_path):
    where = sharded(tmp_path, arrays)
    one, two = sorted(set(where.values()))
    changed = {name: file for name, file in where.items() if name != "scalar"} | {"ghost": one, "bf": one}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": changed}))
    with pytest.raises(errors.Mismatch) as refusal:
        tensors.index(tmp_path)
    for part in ("3 problems", "'scalar' of " + two, "'ghost' is missing", "'bf' lies in " + two):
        assert part in str(refusal.value)


@pytest.mark.parametrize("name", ["../m.safetensors", "/etc/passwd", "..", "", "a\0b", "sub/m", "\\\\host\\m", "n" * 300, "\ud800"])
def test_a_shards_name_stays_in_its_folder(name, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(errors.Unsafe):
        tensors.index(tmp_path)


def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_not(arrays, tmp_path):
    (tmp_path / "in").mkdir()
    where = sharded(tmp_path / "in", arrays)
    file = min(where.values())
    (tmp_path / "in" / file).rename(tmp_path / "in/real")
    (tmp_path / "in" / file).symlink_to("real")
    assert tensors.index(tmp_path / "in").keys() == arrays.keys()
    (tmp_path / "in/real").rename(tmp_path / "out")
    (tmp_path / "in/real").symlink_to("../out")
    with pytest.raises(errors.Unsafe, match="link that leads out"):
        tensors.index(tmp_path / "in")


def test_a_missing_shard_a_pipe_and_a_folder_are_refused_by_name(arrays, tmp_path):
    where = sharded(tmp_path, arrays)
    (tmp_path / min(where.values())).unlink()
    with pytest.raises(errors.Incomplete, match="no such file"):
        tensors.index(tmp_path)
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(errors.Unsafe, match="plain file"):
        tensors.index(tmp_path / "pipe.safetensors")


def test_a_folder_without_tensors_or_with_several_files_is_refused(arrays, tmp_path):
    with pytest.raises(errors.Incomplete, match="found none"):
        tensors.index(tmp_path)
    for name in "ab":
        write(tmp_path / f"{name}.safetensors", arrays)
    with pytest.raises(errors.Incomplete, match=r"a\.safetensors, b\.safetensors"):
        tensors.index(tmp_path)


def test_a_failed_write_leaves_no_file(arrays, tmp_path):
    entries = [("a", np.dtype(np.float32), (2, 3))]
    for given in ([np.zeros((2, 2), np.float32)], [np.zeros((2, 3), np.float64)], []):
        with pytest.raises(ValueError):
            tensors.write(tmp_path / "m.safetensors", entries, given, {})
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="twice"):
        tensors.write(tmp_path / "m.safetensors", entries * 2, [], {})


def test_pieces_of_a_tensor_make_the_same_file_as_the_whole(tmp_path):
    array = np.arange(60, dtype=np.float32).reshape(5, 12)
    one = write(tmp_path / "one", {"a": array}).read_bytes()
    pieces = (piece for piece in np.split(array.reshape(-1), [7, 8, 40]))
    tensors.write(tmp_path / "two", [("a", array.dtype, array.shape)], [pieces], {"by": "us"})
    assert (tmp_path / "two").read_bytes() == one
