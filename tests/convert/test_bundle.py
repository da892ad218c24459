import pathlib
import shutil

import google_crc32c
import ml_dtypes
import numpy as np
import pytest

from convert.bundle import messages, read, snappy, sorted_table, wire, write
from flaxgen import errors


def bundle(folder, arrays, name="model.ckpt"):
    """A bundle by our writer."""
    folder.mkdir(exist_ok=True)
    entries = [(key, arrays[key].dtype, arrays[key].shape) for key in sorted(arrays)]
    write.write(folder / name, entries, ([arrays[key].reshape(-1)] for key in sorted(arrays)))
    return folder / name


@pytest.fixture
def arrays():
    random = np.random.default_rng(0)
    return {
        "a/kernel": random.standard_normal((5, 7)).astype(np.float32), "a/bias": random.standard_normal(7).astype(np.float16),
        "b": random.standard_normal((2, 3, 4)).astype(ml_dtypes.bfloat16), "step": np.array(-7, np.int64),
        "double": random.standard_normal(3), "flags": np.array([True, False]), "empty": np.zeros((0, 3), np.float32),
        **{f"many/{number:03d}": np.full(3, number, np.int32) for number in range(300)},
    }  # fmt: skip


def test_what_is_written_reads_back(arrays, tmp_path):
    found = read.index(bundle(tmp_path / "b", arrays))
    assert list(found) == sorted(arrays)
    for name, array in arrays.items():
        again = read.read(found[name])
        assert (again.dtype, again.shape, again.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_a_bundle_of_tensorflow_with_every_type_two_shards_and_partitions(golden):
    """Written by TensorFlow 1.15.5: its Saver(sharded=True) over two devices, with variables cut along either axis."""
    found, wanted = read.index(golden / "bundle_kinds/model.ckpt"), np.load(golden / "bundle_kinds/expected.npz")
    assert {name for name, each in found.items() if isinstance(each, read.Sliced)} == {"rows", "cols"}
    assert len({each.path for each in found.values() if not isinstance(each, read.Sliced)}) == 2
    for name, variable in found.items():
        array = read.read(variable)
        expected = wanted[name] if name in wanted else wanted[f"{name}_bits"].view(ml_dtypes.bfloat16)
        assert (array.dtype, array.shape, array.tobytes()) == (expected.dtype, expected.shape, expected.tobytes()), name


@pytest.mark.parametrize("step", ["100000", "220000"])
def test_our_entries_and_header_are_tensorflows_bytes(step, golden):
    items = dict(sorted_table.items((golden / f"gpt2_ml_real_index/model.ckpt-{step}.index").read_bytes()))
    assert items[b""] == messages.pack_header(1)
    for key, value in items.items():
        if key:
            each = messages.record(value)
            assert messages.pack_record(messages.DTYPES[each.dtype], each.shape, each.offset, each.size, each.masked_crc) == value
    assert dict(sorted_table.items(sorted_table.table(items.items()))) == items


def test_a_flipped_byte_anywhere_is_found(golden, tmp_path):
    for file in (golden / "bundle_kinds").glob("model.*"):
        shutil.copyfile(file, tmp_path / file.name)
    for file in sorted(tmp_path.glob("model.*")):
        raw = file.read_bytes()
        for place in range(0, len(raw), 1 if file.suffix == ".index" else 5):
            file.write_bytes(raw[:place] + bytes([raw[place] ^ 1 << place % 8]) + raw[place + 1 :])
            with pytest.raises(errors.CheckpointError):
                for variable in read.index(tmp_path / "model.ckpt").values():
                    read.read(variable)
        file.write_bytes(raw)


def test_files_cut_off_anywhere_are_refused(golden, tmp_path):
    for file in (golden / "bundle_kinds").glob("model.*"):
        shutil.copyfile(file, tmp_path / file.name)
    for file in sorted(tmp_path.glob("model.*")):
        raw = file.read_bytes()
        for end in range(0, len(raw), 7):
            file.write_bytes(raw[:end])
            with pytest.raises((errors.Corrupt, errors.Incomplete)):
                read.index(tmp_path / "model.ckpt")
        file.unlink()
        with pytest.raises(errors.Incomplete, match="no such file"):
            read.index(tmp_path / "model.ckpt")
        file.write_bytes(raw)


def test_a_wrong_checksum_names_the_tensor(arrays, tmp_path):
    prefix = bundle(tmp_path / "b", arrays)
    entry = read.index(prefix)["b"]
    with open(entry.path, "r+b") as file:
        file.seek(entry.offset + 5)
        file.write(b"\x55")
    with pytest.raises(errors.Corrupt, match=r"'b'.*crc32c"):
        read.read(read.index(prefix)["b"])


def hostile(tmp_path, records: dict[bytes, bytes], data: bytes = bytes(64)) -> pathlib.Path:
    """A bundle whose index holds these records as they are."""
    (tmp_path / "m.data-00000-of-00001").write_bytes(data)
    (tmp_path / "m.index").write_bytes(sorted_table.table(sorted({b"": messages.pack_header(1), **records}.items())))
    return tmp_path / "m"


def entry(dtype=1, shape=(2,), shard=0, offset=0, size=8, more=b""):
    dims = b"".join(wire.field(2, wire.field(1, axis % (1 << 64))) for axis in shape)
    numbers = b"".join(wire.field(number, value % (1 << 64)) for number, value in ((1, dtype), (3, shard), (4, offset), (5, size)))
    return numbers + wire.field(2, dims) + wire.fixed32(6, sorted_table.masked(google_crc32c.value(bytes(8)))) + more


def cut(*extents):
    return wire.field(7, b"".join(wire.field(1, wire.field(1, start) + wire.field(2, length)) for start, length in extents))


WRONG = {
    "2^63 elements": entry(shape=((1 << 63) - 1,)), "zero times 2^62": entry(shape=(0, 1 << 62, 1 << 62), size=0),
    "2^62 bytes": entry(shape=(1 << 60,), size=1 << 62), "a negative axis": entry(shape=(-2,)), "a negative size": entry(size=-8),
    "a negative offset": entry(offset=-8), "an offset past the end": entry(offset=60), "a size that is not the shape's": entry(size=12),
    "nine axes": entry(shape=(1,) * 8 + (2,)), "an unknown dtype": entry(dtype=77), "a shard that is not there": entry(shard=1),
    "shard 2^31": entry(shard=1 << 31), "half a message": entry()[:-2], "a group": b"\x0b" + entry(), "field zero": b"\x00\x01" + entry(),
    "a long number": b"\x08" + b"\xff" * 11, "an unknown rank": entry(more=wire.field(2, wire.field(3, 1))),
    "slices that are missing": entry(more=cut((0, 1))), "slices of other axes": entry(more=cut((0, 1), (0, 1))),
    "too many slices": entry(more=cut((0, 1)) * 1025), "a slice of a string": entry(dtype=7, more=cut((0, 1))),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_hostile_entries_are_refused(name, tmp_path):
    with pytest.raises(errors.CheckpointError, match=r"m\.index|m\.data") as refusal:
        read.index(hostile(tmp_path, {b"a": WRONG[name]}))
    assert type(refusal.value) is not errors.CheckpointError


def test_other_kinds_of_tensor_are_named_and_not_read(tmp_path):
    found = read.index(hostile(tmp_path, {b"_CHECKPOINTABLE_OBJECT_GRAPH": entry(dtype=7, shape=(), size=9)}))
    assert found["_CHECKPOINTABLE_OBJECT_GRAPH"].dtype == "string"
    with pytest.raises(errors.Mismatch, match="string"):
        read.chunks(found["_CHECKPOINTABLE_OBJECT_GRAPH"])


def test_slices_must_cover_the_variable_exactly_once(tmp_path):
    def sliced(*pieces):
        extents = [((start, length),) for start, length in pieces]
        records = {b"a": entry(shape=(4,), size=0, more=b"".join(cut(*each) for each in extents))}
        records |= {messages.slice_key(b"a", each): entry(shape=(each[0][1],), size=4 * each[0][1]) for each in extents}
        return read.index(hostile(tmp_path, records))

    assert sliced((0, 2), (2, 2))["a"].shape == (4,)
    for pieces in (((0, 2),), ((0, 2), (1, 2)), ((0, 2), (3, 2)), ((0, 2), (2, 1), (2, 1)), ((0, 4), (0, 4))):
        with pytest.raises(errors.Corrupt, match=r"exactly once|does not come after"):
            sliced(*pieces)


def test_slices_that_no_variable_speaks_of_are_refused(tmp_path):
    with pytest.raises(errors.Corrupt, match="no variable speaks of"):
        read.index(hostile(tmp_path, {messages.slice_key(b"a", ((0, 1),)): entry()}))


def test_names_that_are_no_text_or_too_long_are_refused(tmp_path):
    with pytest.raises(errors.Corrupt, match="not text"):
        read.index(hostile(tmp_path, {b"\xff\xfe": entry()}))
    with pytest.raises(errors.TooLarge, match="1,025 bytes"):
        read.index(hostile(tmp_path, {b"n" * 1025: entry()}))


def test_a_big_endian_bundle_and_one_without_a_header_are_refused(tmp_path):
    prefix = hostile(tmp_path, {b"": messages.pack_header(1) + wire.field(2, 1)})
    with pytest.raises(errors.Mismatch, match="big-endian"):
        read.index(prefix)
    (tmp_path / "m.index").write_bytes(sorted_table.table([(b"a", entry())]))
    with pytest.raises(errors.Corrupt, match="header is missing"):
        read.index(tmp_path / "m")


def test_ordered_numbers_are_tensorflows():
    """Values from tensorflow/core/lib/strings/ordered_code_test.cc and by its rules at the borders of each length."""
    cases = {0: "80", -1: "7f", 63: "bf", 64: "c040", -64: "40", -65: "3fbf", 8191: "dfff", 8192: "e02000", -8192: "2000",
             1 << 20: "f0100000", (1 << 63) - 1: "ffc07fffffffffffffff", -(1 << 63): "003f8000000000000000"}  # fmt: skip
    assert {value: messages._ordered(value).hex() for value in cases} == cases
    keys = [messages.slice_key(b"v", ((value, 1),)) for value in sorted(cases)]
    assert keys == sorted(keys)


def packed(*parts, length):
    return wire.number(length) + b"".join(parts)


def test_snappy_takes_every_kind_of_element():
    copies = (bytes([1 | 0 << 2 | 0 << 5, 4]), bytes([2 | 5 << 2, 1, 0]), bytes([3 | 1 << 2, 2, 0, 0, 0]))
    raw = packed(b"\x0cabcd", copies[0], b"\xf0\x03wxyz", *copies[1:], length=20)
    assert snappy.decompress(raw, 100) == b"abcd" + b"abcd" + b"wxyz" + b"zzzzzz" + b"zz"


@pytest.mark.parametrize("raw,reason", [
    (packed(length=1 << 40), "at most"),
    (packed(b"\x0cab", length=4), "runs past"),
    (packed(b"\x00a", b"\x01\x02", length=5), "reaches back"),
    (packed(b"\x00a", b"\x01\x00", length=5), "reaches back"),
    (packed(b"\x00a", b"\x02\x01", length=2), "cut off"),
    (packed(b"\x00a", b"\xfe\x01\x00" * 1000, length=10), "holds more"),
    (packed(b"\x00a", length=9), "not the 9"),
    (packed(b"\xf0", length=9), "cut off"),
    (b"\xff" * 11, "64 bits"),
    (b"", "cut off"),
])  # fmt: skip
def test_snappy_that_lies_is_refused(raw, reason):
    with pytest.raises(ValueError, match=reason):
        snappy.decompress(raw, 1 << 20)
