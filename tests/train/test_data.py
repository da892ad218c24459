import hashlib
import json

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import flaxgen.text.build
from train import corpus, data, shuffle, table

END = 26
TINY = "train/tiny.jsonl"


def letters(text):
    return [ord(character) - ord("a") for character in text]


def source(path, *documents):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents), encoding="utf-8")
    return str(path)


def build(folder, words, length=9, **given):
    return data.build(folder / "rows", words, letters, END, **{"length": length, "vocab": 27, "recipe": "letters"} | given)


def rows(folder, documents, **given):
    return build(folder, source(folder / "text.jsonl", *documents), **given)


def words(count, start=0):
    """Documents of a letter of their own, 3 to 12 long."""
    return [chr(97 + (start + i) % 26) * (3 + (7 * i) % 10) for i in range(count)]


def same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == second[name].dtype
        np.testing.assert_array_equal(first[name], second[name], strict=True)


def everything(made):
    return made.part(0, len(made), len(made))


def test_a_row_holds_whole_documents_each_with_its_end(tmp_path):
    made = rows(tmp_path, ["abc", "defg", "hi"])
    token_RT = made.tables[0].read(np.arange(len(made)))[0]
    ends = "".join("." if token == END else chr(97 + token) for token in token_RT[token_RT != data.EMPTY])
    assert sorted(ends.split(".")) == ["", "abc", "defg", "hi"]
    assert all(row[0] != END for row in token_RT)


def test_every_token_after_the_first_of_a_row_is_a_target_once(tmp_path):
    made = rows(tmp_path, ["abcdefghijklmnopqrstuvwxyz", "abc"])
    batch = everything(made)
    targets = batch["target_BT"][batch["weight_BT"] > 0]
    assert sorted(targets.tolist()) == sorted([*range(1, 26), END, *range(1, 3), END])
    assert (batch["token_BT"][:, 1:] == batch["target_BT"][:, :-1]).all()
    assert made.weight() == len(targets)


@pytest.mark.parametrize(
    ("length", "digest"),
    [
        (64, "ce4af7b07d706aa59fadcee422dcd21b66ba322fcf3165e3588514e5b94b0af1"),
        (192, "b376c5e1ddf590b3beb61c6c4b0c44374be84ee36f66c1375d41613ce941f1e2"),
    ],
)
def test_the_batches_of_verse_are_those_that_the_bundled_model_learnt_from(tmp_path, length, digest):
    text = flaxgen.text.build.vocabulary(corpus.documents("train/tiny.jsonl"), size=6200)
    given = {"length": length, "vocab": len(text), "recipe": "verse"}
    made = data.build(tmp_path, TINY, text.encode, text.control["[SEP]"], **given)
    found = hashlib.sha256()
    for place in range(40):
        batch = made.batch(7, place, 8)
        for name in ("token_BT", "target_BT", "weight_BT"):
            found.update(batch[name].tobytes() + str((batch[name].dtype, batch[name].shape)).encode())
    assert found.hexdigest() == digest


def test_a_batch_is_a_function_of_seed_and_place(tmp_path):
    made = rows(tmp_path, words(60))
    (tmp_path / "again").mkdir()
    again = rows(tmp_path / "again", words(60))
    for place in (0, 7, 31):
        same(made.batch(5, place, 4), again.batch(5, place, 4))
    assert (made.batch(5, 0, 4)["token_BT"] != made.batch(6, 0, 4)["token_BT"]).any()


def test_batches_that_cross_an_epoch_lose_no_row(tmp_path):
    made = rows(tmp_path, [chr(97 + i) * 8 for i in range(7)])
    seen = np.concatenate([made.batch(1, place, 3)["token_BT"][:, 0] for place in range(7)])
    assert sorted(seen.tolist()) == sorted([*range(7)] * 3)


@hypothesis.given(st.integers(1, 300), st.integers(0, 2**31), st.integers(0, 5))
def test_each_epoch_is_an_order_of_its_own(count, seed, epoch):
    orders = shuffle.shuffle(np.arange(3 * count) + epoch * count, count, seed).reshape(3, count)
    assert (np.sort(orders) == np.arange(count)).all()
    if count > 20:
        assert len({tuple(order) for order in orders.tolist()}) == 3


def test_orders_reach_far_beyond_what_fits_in_memory():
    count = 10**12
    places = np.arange(0, count, count // 1000)
    found = shuffle.shuffle(places, count, 1)
    assert len(set(found.tolist())) == len(places) and 0 <= found.min() <= found.max() < count
    assert 0.4 < found.mean() / count < 0.6


@pytest.mark.parametrize("states", [500, pytest.param(5000, marks=pytest.mark.nightly)])
def test_an_iterator_restored_at_any_state_gives_all_remaining_batches(tmp_path, monkeypatch, states):
    monkeypatch.setattr(data, "CYCLE", 101)
    mixture = f"{source(tmp_path / 'a.jsonl', *words(60))}*3 {source(tmp_path / 'b.jsonl', *words(23, 9))}*1"
    made, size = build(tmp_path, mixture, neighbours="hidden"), 4
    assert 10 * len(made) < states * size  # many epochs and cycles
    whole = [made.batch(5, place, size) for place in range(states)]
    stacked = {name: np.concatenate([batch[name] for batch in whole]) for name in whole[0]}
    for state in range(states):
        restored = data.load(tmp_path / "rows")
        same(restored.batch(5, state, size), whole[state])
        # The rest of the run at once, as the last rows of a batch that is as large as the run: thousands of small ones take minutes.
        rest = restored.batch(5, 0, states * size, slice(state * size, None))
        same(rest | {"row_B": rest["row_B"] % size}, {name: array[state * size :] for name, array in stacked.items()})


@pytest.mark.parametrize("weights", [("", ""), ("*0.7", "*0.3")])
def test_one_two_and_four_processes_read_the_same_batches(tmp_path, weights):
    names = (source(tmp_path / "a.jsonl", *words(60)), source(tmp_path / "b.jsonl", *words(23, 9)))
    made = build(tmp_path, " ".join(map("".join, zip(names, weights, strict=True))), neighbours="hidden")
    for place in range(40):
        whole = made.batch(3, place, 8)
        assert whole["row_B"].tolist() == list(range(8))
        for count in (1, 2, 4):
            parts = [made.batch(3, place, 8, slice(8 // count * i, 8 // count * (i + 1))) for i in range(count)]
            same({name: np.concatenate([part[name] for part in parts]) for name in whole}, whole)


def test_sources_without_weights_are_one_corpus_of_which_an_epoch_reads_every_row_once(tmp_path):
    made = build(tmp_path, f"{source(tmp_path / 'a.jsonl', *words(40))} {source(tmp_path / 'b.jsonl', *words(9))}")
    first, second = (made.batch(3, epoch, len(made))["token_BT"] for epoch in range(2))
    ordered = [sorted(map(tuple, batch.tolist())) for batch in (first, second, everything(made)["token_BT"])]
    assert ordered[0] == ordered[1] == ordered[2]
    assert (first != second).any()


@pytest.mark.parametrize(("weights", "shares"), [((0.7, 0.3), [7000, 3000]), ((1, 1, 1), [3334, 3333, 3333]), ((2e-4, 1), [2, 9998])])
def test_weighted_sources_have_exactly_their_shares_of_a_cycle(tmp_path, weights, shares):
    parts = [f"{source(tmp_path / f'{i}.jsonl', *[chr(97 + i) * 8] * 40)}*{weight}" for i, weight in enumerate(weights)]
    made = build(tmp_path, " ".join(parts))
    letter_B = made.batch(4, 1, data.CYCLE)["token_BT"][:, 0]
    assert np.bincount(letter_B).tolist() == shares
    tenth = np.bincount(letter_B[:1000], minlength=len(shares))
    assert (np.abs(tenth - np.asarray(shares) / 10) < 50).all()  # mixed throughout


def test_each_weighted_source_has_its_own_epochs(tmp_path):
    small = source(tmp_path / "a.jsonl", *(chr(97 + i) * 8 for i in range(7)))
    made = build(tmp_path, f"{small}*1 {source(tmp_path / 'b.jsonl', *(chr(107 + i) * 8 for i in range(11)))}*1")
    letter_B = made.batch(4, 0, data.CYCLE)["token_BT"][:, 0]
    for first, count in ((0, 7), (10, 11)):
        seen = np.bincount(letter_B[(letter_B >= first) & (letter_B < first + count)])[first:]
        assert seen.sum() == 5000 and seen.max() - seen.min() <= 1


def test_a_weight_too_small_to_count_is_refused(tmp_path):
    names = [source(tmp_path / f"{i}.jsonl", "abc") for i in range(2)]
    with pytest.raises(ValueError, match=r"0.jsonl: its weight is less than one of 10,000"):
        build(tmp_path, f"{names[0]}*0.00001 {names[1]}*1")


def test_hidden_neighbours_have_floors_and_their_first_tokens_are_no_targets(tmp_path):
    token_BT = np.array([[0, 1, END, 3, 4, 5, END, 7, data.EMPTY, data.EMPTY]])
    start_BT = np.array([[1, 0, 0, 1, 0, 0, 0, 1, 0, 0]], bool)
    batch = data.split(token_BT, start_BT)
    assert batch["floor_BT"].tolist() == [[1, 1, 1, 4, 4, 4, 4, 8, 8]]
    assert batch["weight_BT"].tolist() == [[1, 1, 0, 1, 1, 1, 0, 0, 0]]
    assert batch["floor_BT"].dtype == np.int32


@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture], max_examples=30)
@hypothesis.given(st.lists(st.integers(1, 30), min_size=1, max_size=30))
def test_hidden_documents_start_at_rank_one_of_their_own(tmp_path, sizes):
    """The tables' rows are the same as with seen neighbours; a floor is the rank of the place behind the last end token."""
    hidden = rows(tmp_path, ["a" * size for size in sizes], neighbours="hidden", length=31)
    batch, start = everything(hidden), hidden.tables[0].read(np.arange(len(hidden)))[1]
    seen = everything(rows(tmp_path, ["a" * size for size in sizes], length=31))
    assert (batch["token_BT"] == seen["token_BT"]).all() and (batch["target_BT"] == seen["target_BT"]).all()
    for token_T, floor_T, weight_T, start_T, target_T in zip(
        batch["token_BT"], batch["floor_BT"], batch["weight_BT"], start, seen["weight_BT"], strict=True
    ):
        floor = 1
        for place, token in enumerate(token_T):
            if target_T[place] or floor_T[place] == floor:
                assert floor_T[place] == floor and start_T[place] == (place == floor - 1)
            if token == END:
                floor = place + 2
        assert (weight_T == target_T * (token_T != END)).all()
    assert hidden.weight() == batch["weight_BT"].sum() == sum(sizes)


def test_one_document_a_row_is_cut_and_zero_padded_as_gpt2_ml_has_it(tmp_path):
    made = rows(tmp_path, ["abcdefghijklmn", "abc", "a", "abcd"], rows="single", shortest=3)
    batch = everything(made)
    assert batch["token_BT"].tolist() == [[*range(9)], [0, 1, 2, 3, END, 0, 0, 0, 0]]
    assert batch["weight_BT"].tolist() == [[1] * 8 + [0], [1] * 4 + [0] * 5]
    assert "floor_BT" not in batch


@pytest.mark.parametrize(("vocab", "dtype"), [(65_535, "<u2"), (65_536, "<i4")])
def test_the_largest_id_of_either_width_comes_back(tmp_path, vocab, dtype):
    source(tmp_path / "text.jsonl", "abc")
    given = {"length": 5, "vocab": vocab, "recipe": "", "neighbours": "hidden"}
    made = data.build(tmp_path / "rows", tmp_path / "text.jsonl", lambda text: [0, vocab - 1], None, **given)
    assert made.tables[0].layout.dtype == dtype
    assert made.tables[0].read(np.arange(1))[0].tolist() == [[0, vocab - 1, *[data.EMPTY] * 4]]
    assert everything(made)["target_BT"].tolist() == [[vocab - 1, 0, 0, 0, 0]]


def test_rows_in_their_order_are_filled_up_with_empty_ones(tmp_path):
    made = rows(tmp_path, [chr(97 + i) * 8 for i in range(5)], neighbours="hidden")
    token_BT = everything(made)["token_BT"]
    parts = [made.part(start, 4, 3) for start in (0, 3)]
    assert (np.concatenate([part["token_BT"] for part in parts])[:4] == token_BT[:4]).all()
    assert [part["weight_BT"].any(1).tolist() for part in parts] == [[True] * 3, [True, False, False]]
    same({name: array[1:] for name, array in parts[1].items()}, made.part(3, 4, 3, slice(1, None)))
    assert not made.part(3, 99, 4)["weight_BT"][2:].any()


def test_the_same_corpus_is_not_read_into_rows_again(tmp_path, monkeypatch):
    made = rows(tmp_path, ["abc"])
    monkeypatch.setattr(table, "write", None)
    assert rows(tmp_path, ["abc"]).digest == made.digest


def test_changed_text_and_changed_settings_make_new_rows(tmp_path):
    first = rows(tmp_path, ["abc"])
    changed = rows(tmp_path, ["abd"])
    assert everything(changed)["token_BT"][0, 2] == 3
    given = [{"recipe": "other"}, {"length": 8}, {"neighbours": "hidden"}, {"rows": "single"}, {"shortest": 1}, {"vocab": 70_000}]
    assert len({first.digest, changed.digest, *(rows(tmp_path, ["abc"], **each).digest for each in given)}) == 8
    assert everything(first)["token_BT"][0, 2] == 2  # who still reads the old rows is not disturbed


def test_a_corpus_other_than_the_known_one_is_refused_and_changes_nothing(tmp_path):
    first = rows(tmp_path, ["abc"])
    with pytest.raises(ValueError, match=r"text.jsonl is not the text that the run was started on .* restore it, or give another out="):
        rows(tmp_path, ["abd"], known=first.digest)
    assert data.load(tmp_path / "rows").digest == first.digest
    assert rows(tmp_path, ["abc"], known=first.digest).digest == first.digest


def test_a_corpus_that_changes_while_it_is_read_is_refused(tmp_path):
    path = source(tmp_path / "text.jsonl", "abc", "def")

    def encode(text):
        with open(path, "a") as file:
            file.write("\n")
        return letters(text)

    with pytest.raises(ValueError, match=r"text.jsonl was changed while it was read"):
        data.build(tmp_path / "rows", path, encode, END, length=9, vocab=27, recipe="")
    assert list((tmp_path / "rows").iterdir()) == []


@pytest.mark.parametrize("given", [{}, {"rows": "single"}, {"shortest": 5}])
def test_a_corpus_without_a_document_is_refused(tmp_path, given):
    with pytest.raises(ValueError, match=r"text.jsonl holds no document of more than"):
        build(tmp_path, source(tmp_path / "text.jsonl", *([""] if not given else ["", "a" * given.get("shortest", 0)])), **given)
