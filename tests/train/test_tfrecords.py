import struct

import google_crc32c
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from train import tfrecords

# tf.train.Example(features=tf.train.Features(feature={"input_ids": int64_list [1, 300, 0]})).SerializeToString(), by google.protobuf 7.36
EXAMPLE = bytes.fromhex("0a170a150a09696e7075745f69647312081a060a0401ac0200")
ids = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30)


def varint(value):
    value &= 2**64 - 1
    out = []
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number, raw):
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def example(values, *, packed=True, name="input_ids"):
    numbers = field(1, b"".join(map(varint, values))) if packed else b"".join(varint(1 << 3) + varint(value) for value in values)
    other = field(1, field(1, b"other") + field(2, field(3, field(1, b"\7"))))
    return field(1, other + field(1, field(1, name.encode()) + field(2, field(3, numbers))))


def masked(raw):
    crc = google_crc32c.value(raw)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def frame(raw):
    size = struct.pack("<Q", len(raw))
    return size + masked(size) + raw + masked(raw)


def padded(values, width=9):
    return [*values, *[0] * (width - len(values))]


def file(folder, *records):
    path = folder / "a.tfrecord"
    path.write_bytes(b"".join(map(frame, records)))
    return path


def read(path):
    return [(found.tolist(), whole) for found, whole in tfrecords.documents(path)]


def test_an_example_made_by_protobuf_is_read(tmp_path):
    assert read(file(tmp_path, EXAMPLE)) == [([1, 300], False)]


def test_zeros_behind_a_document_are_no_part_of_it(tmp_path):
    assert read(file(tmp_path, example(padded([5, 0, 21129])), example(padded([])))) == [([5, 0, 21129], True), ([], True)]


def test_ids_that_fill_a_record_may_have_been_cut(tmp_path):
    path = file(tmp_path, example(padded(range(1, 8))), example(padded(range(1, 9))))
    assert [whole for _, whole in read(path)] == [True, False]


def test_an_empty_file_holds_no_document(tmp_path):
    assert read(file(tmp_path)) == []


@hypothesis.given(ids, st.booleans())
def test_any_int64_is_read_packed_or_one_by_one(values, packed):
    values = [*values, 1]
    assert tfrecords._ids(example(values, packed=packed)).tolist() == values


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (frame(example([1]))[:-1], r"record 1: .* bytes long; .* are left"),
        (frame(example([1])) + b"\0" * 15, "record 2: 15 bytes are left"),
        (struct.pack("<Q", 1 << 62) + masked(struct.pack("<Q", 1 << 62)) + bytes(9), "4,611,686,018,427,387,904 bytes long"),
        (b"\1" + frame(example([1]))[1:], "the length 1 has another crc32c"),
        (frame(example([1]))[:-9] + b"?" + frame(example([1]))[-8:], "its .* bytes have another crc32c"),
        (frame(example([1], name="ids")), "record 1: no whole numbers in a feature 'input_ids'"),
        (frame(example([1])[:-1]), "runs past the end"),
        (frame(field(1, field(1, field(1, b"input_ids") + field(2, field(3, field(1, b"\x80")))))), "a number is cut off"),
        (frame(field(1, field(1, field(1, b"input_ids") + field(2, field(3, field(1, b"\xff" * 9 + b"\2")))))), "more than 64 bits"),
        (frame(b"\x0f"), "wire type 7"),
        (frame(b"\x02\x00"), "number 0"),
    ],
)
def test_damage_is_named_with_file_and_record(tmp_path, raw, words):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=words) as caught:
        read(path)
    assert "a.tfrecord record" in str(caught.value) and "fetch or make it again" in str(caught.value)


WHOLE = b"".join(map(frame, (example(padded([7, 300, 9])), example(padded([5])))))


@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture], max_examples=300)
@hypothesis.given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_no_changed_byte_goes_unseen(tmp_path, place, change):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(WHOLE[:place] + bytes([WHOLE[place] ^ change]) + WHOLE[place + 1 :])
    with pytest.raises(ValueError, match=r"a.tfrecord record"):
        read(path)


@hypothesis.settings(max_examples=500)
@hypothesis.given(st.binary(max_size=60))
def test_any_bytes_are_numbers_or_a_named_error(raw):
    for message in (raw, field(1, raw), field(1, field(1, field(1, b"input_ids") + field(2, field(3, field(1, raw)))))):
        try:
            assert tfrecords._ids(message).dtype == np.int64
        except ValueError as error:
            assert str(error)
