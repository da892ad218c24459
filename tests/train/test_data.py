import json

import numpy as np
import pytest

from train import data


def letters(text):
    return [ord(character) - ord("a") for character in text]


def rows(folder, documents, length=9):
    path = folder / "text.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents), encoding="utf-8")
    return data.build(folder / "rows", path, letters, 26, length=length, recipe="letters")


def test_a_row_holds_whole_documents_each_with_its_end(tmp_path):
    made = rows(tmp_path, ["abc", "defg", "hi"])
    flat = made.token_RT[made.token_RT != data.EMPTY].tolist()
    texts = sorted("".join(chr(97 + i) for i in part) for part in split(flat, 26))
    assert texts == ["abc", "defg", "hi"]
    assert all(row[0] != 26 for row in made.token_RT)


def test_every_token_after_the_first_of_a_row_is_a_target_once(tmp_path):
    made = rows(tmp_path, ["abcdefghijklmnopqrstuvwxyz", "abc"])
    batch = data.split(made.token_RT)
    targets = batch["target_BT"][batch["weight_BT"] > 0]
    assert sorted(targets.tolist()) == sorted([*range(1, 26), 26, *range(1, 3), 26])
    assert (batch["token_BT"][:, 1:] == batch["target_BT"][:, :-1]).all()


def test_a_batch_is_a_function_of_seed_and_step(tmp_path):
    made = rows(tmp_path, ["abcdefgh"[: 3 + i % 5] for i in range(60)])
    again = rows(tmp_path, ["abcdefgh"[: 3 + i % 5] for i in range(60)])
    for step in (0, 7, 31):
        first, second = made.batch(5, step, 4), again.batch(5, step, 4)
        assert all((first[name] == second[name]).all() for name in first)
    assert (made.batch(5, 0, 4)["token_BT"] != made.batch(6, 0, 4)["token_BT"]).any()


def test_each_epoch_reads_every_row_once_in_its_own_order(tmp_path):
    count = 37
    orders = [data.permute(np.arange(count), count, 3, epoch) for epoch in range(3)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(count))
    assert len({tuple(order.tolist()) for order in orders}) == 3


def test_batches_that_cross_an_epoch_lose_no_row(tmp_path):
    made = rows(tmp_path, [chr(97 + i) * 8 for i in range(7)])
    seen = np.concatenate([made.batch(1, step, 3)["token_BT"][:, 0] for step in range(7)])
    assert sorted(seen.tolist()) == sorted([*range(7)] * 3)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 1000])
def test_the_permutation_keeps_any_count(count):
    assert sorted(data.permute(np.arange(count), count, 0, 0).tolist()) == list(range(count))


def test_changed_text_makes_new_rows(tmp_path):
    first = rows(tmp_path, ["abc"])
    assert rows(tmp_path, ["abc"]).digest == first.digest
    assert rows(tmp_path, ["abd"]).digest != first.digest
    assert rows(tmp_path, ["abd"]).token_RT[0, 2] == 3


def test_plain_text_is_cut_at_empty_lines(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("one\ntwo\n\n\nthree\n", encoding="utf-8")
    assert list(data.documents(path)) == ["one\ntwo", "three"]


def test_a_bad_line_is_named(tmp_path):
    path = tmp_path / "text.jsonl"
    path.write_text('{"text": "a"}\n{"body": "b"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match='line 2: wanted a JSON object with a field "text"'):
        list(data.documents(path))


def test_missing_data_says_what_to_give(tmp_path):
    with pytest.raises(ValueError, match="give data=FILE"):
        list(data.documents(tmp_path / "nothing.jsonl"))


def split(flat, end):
    parts, part = [], []
    for token in flat:
        if token == end:
            parts.append(part)
            part = []
        else:
            part.append(token)
    return parts
