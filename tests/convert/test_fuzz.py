"""Damaged and hostile files: structure-aware mutations, a reduced count by default and the large one nightly."""

import contextlib
import json
import random
import resource
import time

import google_crc32c
import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors import numpy as package

from convert.bundle import messages, read, snappy, sorted_table, wire
from flaxgen import errors, tensors

INTERESTING = [0, 1, 7, 8, 9, 255, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -1]


def counts(reduced: int, large: int):
    return pytest.mark.parametrize("count", [reduced, pytest.param(large, marks=pytest.mark.nightly)])


def mutated(choose: random.Random, raw: bytes, most: int = 4) -> bytes:
    """Bytes with a few flips, cuts, repeats and insertions, at `most` places."""
    out = bytearray(raw)
    for _ in range(choose.randint(1, most)):
        place = choose.randrange(len(out) + 1)
        kind = choose.randrange(5)
        if kind == 0 and place < len(out):
            out[place] ^= 1 << choose.randrange(8)
        elif kind == 1:
            del out[place : place + choose.randint(1, 9)]
        elif kind == 2:
            out[place:place] = choose.randbytes(choose.randint(1, 9))
        elif kind == 3:
            out[place : place + 8] = (choose.choice(INTERESTING) % (1 << 64)).to_bytes(8, "little")
        else:
            out[place:place] = out[place : place + choose.randint(1, 30)]
    return bytes(out)


def changed(choose: random.Random, value):
    """A JSON value with one thing in it changed, at any depth."""
    if isinstance(value, dict) and value and choose.random() < 0.8:
        key = choose.choice(list(value))
        what = choose.random()
        if what < 0.1:
            return {name: each for name, each in value.items() if name != key}
        if what < 0.2:
            return value | {key + choose.choice(["", "2", "\0", "n" * 2000]): value[key]}
        return value | {key: changed(choose, value[key])}
    if isinstance(value, list) and value and choose.random() < 0.8:
        place = choose.randrange(len(value))
        return [*value[:place], changed(choose, value[place]), *value[place + (choose.random() < 0.9) :]]
    return choose.choice([*INTERESTING, None, True, 1.5, "F32", "BF16", "U8", "", [], [0], [1] * 9, {}, [[]], "../x"])


def held(limit: float = 512e6) -> None:
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < limit + held.before


@contextlib.contextmanager
def bounded():
    """No hang (ten seconds of the processor), and nothing but a CheckpointError comes out."""
    start = time.process_time()
    with contextlib.suppress(errors.CheckpointError):
        yield
    assert time.process_time() - start < 10


@pytest.fixture(autouse=True)
def memory():
    held.before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    yield
    held()


@counts(1_500, 1_000_000)
def test_what_is_accepted_of_safetensors_is_what_the_package_accepts(count, tmp_path):
    choose, path = random.Random(0), tmp_path / "m.safetensors"
    header = {"__metadata__": {"by": "us"}, "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
              "b/c": {"dtype": "I64", "shape": [], "data_offsets": [24, 32]},
              "d": {"dtype": "F16", "shape": [0, 5], "data_offsets": [32, 32]},
              "e": {"dtype": "U8", "shape": [7], "data_offsets": [32, 39]}}  # fmt: skip
    data, accepted = bytes(range(39)), 0
    for _ in range(count):
        text = json.dumps(changed(choose, header) if choose.random() < 0.7 else header).encode()
        text += b" " * (-len(text) % 8)
        raw = len(text).to_bytes(8, "little") + text + data
        raw = raw if choose.random() < 0.6 else mutated(choose, raw)
        path.write_bytes(raw)
        found = None
        with bounded():
            found = {name: tensors.read(entry) for name, entry in tensors.index(path).items()}
        if found is not None:
            accepted += 1
            try:
                theirs = package.load_file(str(path))  # `load` of bytes knows no BF16
            except SafetensorError as error:
                raise AssertionError(f"the package refuses what is accepted here: {raw!r}") from error
            assert theirs.keys() == found.keys()
            assert all(theirs[name].shape == each.shape and theirs[name].tobytes() == each.tobytes() for name, each in found.items())
    assert accepted > count // 50


@counts(400, 200_000)
def test_damage_to_one_place_of_a_file_of_ours_never_passes(count, tmp_path):
    """Two places at once can take both marks of the checksums away, and then the file is a stranger's."""
    choose, path = random.Random(1), tmp_path / "m.safetensors"
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.arange(4, dtype=np.int64)}
    tensors.write(path, [(name, each.dtype, each.shape) for name, each in arrays.items()], arrays.values(), {})
    raw = path.read_bytes()
    for _ in range(count):
        spoiled = mutated(choose, raw, most=1)
        path.write_bytes(spoiled)
        with bounded():
            found = {name: tensors.read(entry) for name, entry in tensors.index(path).items()}
            same = found.keys() == arrays.keys() and all(found[name].tobytes() == each.tobytes() for name, each in arrays.items())
            assert same, spoiled


def spoiled_index(choose: random.Random, items: list[tuple[bytes, bytes]]) -> bytes:
    """An index that is damaged below its checksums: in an entry, in a block, or in the file."""
    pairs = list(items)
    where = choose.random()
    if where < 0.5:
        place = choose.randrange(len(pairs))
        key, value = pairs[place]
        pairs[place] = (key, mutated(choose, value)) if choose.random() < 0.8 else (mutated(choose, key), value)
        if choose.random() < 0.8:
            pairs = sorted(dict(pairs).items())
    raw = sorted_table.table(pairs)
    if where < 0.5:
        return raw
    if where < 0.8:  # a block's bytes, its checksum made right again
        size = len(raw) - sorted_table.FOOTER
        first = next(end for end in range(5, size) if _right(raw, 0, end))
        body = mutated(choose, raw[: first - 5])[: first - 5].ljust(first - 5, b"\0")
        kind = bytes([choose.choice([0, 1, 1, 2])])
        crc = sorted_table.masked(google_crc32c.value(body + kind)).to_bytes(4, "little")
        return body + kind + crc + raw[first:]
    return mutated(choose, raw)


def _right(raw: bytes, start: int, end: int) -> bool:
    crc = int.from_bytes(raw[end - 4 : end], "little")
    return sorted_table.masked(google_crc32c.value(raw[start : end - 4])) == crc


@counts(1_000, 1_000_000)
def test_a_damaged_bundle_index_gives_named_errors_only(count, golden, tmp_path):
    choose = random.Random(2)
    for file in (golden / "bundle_kinds").glob("*.data*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    items = list(sorted_table.items((golden / "bundle_kinds/model.ckpt.index").read_bytes()))
    for _ in range(count):
        (tmp_path / "model.ckpt.index").write_bytes(spoiled_index(choose, items))
        with bounded():
            for variable in read.index(tmp_path / "model.ckpt").values():
                if not isinstance(variable, read.Opaque):
                    read.read(variable)


@counts(5_000, 2_000_000)
def test_random_snappy_messages_and_records_raise_value_errors_only(count):
    choose = random.Random(3)
    good = wire.number(20) + b"\x0cabcd\x01\x04\xf0\x03wxyz\x16\x01\x00\x07\x02\x00\x00\x00"
    header = messages.pack_header(1)
    entry = messages.pack_record(np.dtype(np.float32), (3, 4), 100, 48, 7)
    for _ in range(count):
        for parse, raw in ((lambda raw: snappy.decompress(raw, 1 << 16), good), (messages.record, entry), (messages.header, header)):
            start = time.process_time()
            with contextlib.suppress(ValueError):
                parse(mutated(choose, raw) if choose.random() < 0.8 else choose.randbytes(choose.randint(0, 40)))
            assert time.process_time() - start < 10
