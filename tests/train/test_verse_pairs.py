import collections
import gzip

import numpy as np
import pytest

from flaxgen.text import single
from train import couplets, poetry, regulated

LINES = [("一二三", "四五六"), ("七八九", "十百千"), ("天地", "日月"), ("山水", "花鸟"), ("风云", "雨雪"), ("春", "秋")]
TEXT = single.Single.build([side for pair in LINES for side in pair], least=1)


def written(path, pairs=LINES):
    path.write_text("".join(f"{upper}\t{lower}\n" for upper, lower in pairs), encoding="utf-8")
    return str(path)


@pytest.fixture
def built(tmp_path):
    return couplets.build(written(tmp_path / "a.tsv"), TEXT, longest=16)


def test_a_table_two_files_a_folder_and_their_gzips_are_read_alike(tmp_path):
    spaced = [[" ".join(side) for side in pair] for pair in LINES]
    (tmp_path / "test").mkdir()
    for index, name in enumerate(("in.txt", "out.txt")):
        content = "".join(f"{pair[index]} \n" for pair in spaced).encode()
        (tmp_path / "test" / name).write_bytes(content)
        (tmp_path / f"test_{name}.gz").write_bytes(gzip.compress(content))
    (tmp_path / "b.tsv.gz").write_bytes(gzip.compress("".join(f"{u}\t{l}\r\n" for u, l in LINES).encode("utf-8-sig")))
    for words in (
        written(tmp_path / "a.tsv"),
        tmp_path / "b.tsv.gz",
        tmp_path / "test",
        tmp_path / "test" / "in.txt",
        tmp_path / "test_in.txt.gz",
    ):
        assert list(couplets.pairs(str(words), longest=16)) == LINES


def test_a_table_may_have_a_name_that_ends_in_in_and_hold_empty_lines(tmp_path):
    for name in ("train.txt", "main.txt", "plain.txt"):
        (tmp_path / name).write_text("一二\t三四\n\n五\t六\n", encoding="utf-8")
        assert list(couplets.pairs(str(tmp_path / name), longest=16)) == [("一二", "三四"), ("五", "六")]
    (tmp_path / "main.txt").write_text("一二\t三四\n\n五六\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 3: wanted"):
        list(couplets.pairs(str(tmp_path / "main.txt"), longest=16))


def test_sides_of_two_lengths_and_long_ones_are_left_out(tmp_path):
    words = written(tmp_path / "a.tsv", [("一二", "三"), ("一二三", "四五六"), ("", ""), ("一", "二")])
    assert list(couplets.pairs(words, longest=2)) == [("一", "二")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("一二\n", r"line 1: wanted `upper<TAB>lower`, got '一二'"),
        ("一\t二\t三\n", "line 1: wanted"),
        ("一二\t三\n", "holds no couplet whose two lines have the same number of characters"),
        ("", "holds no couplet"),
    ],
)
def test_a_table_of_another_shape_is_refused(tmp_path, content, words):
    (tmp_path / "a.tsv").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        list(couplets.pairs(str(tmp_path / "a.tsv"), longest=16))


def test_files_that_are_missing_or_of_two_lengths_or_no_text_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no couplets at nowhere; give data=FILE"):
        list(couplets.pairs("nowhere", longest=16))
    (tmp_path / "in.txt").write_text("一\n二\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"out\.txt is not there"):
        list(couplets.pairs(str(tmp_path), longest=16))
    (tmp_path / "out.txt").write_text("三\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"out\.txt ends before line 2"):
        list(couplets.pairs(str(tmp_path), longest=16))
    (tmp_path / "out.txt").write_text("三\n四\n五\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"out\.txt has more lines"):
        list(couplets.pairs(str(tmp_path), longest=16))
    (tmp_path / "a.tsv").write_bytes("天\t地\n".encode("gb18030"))
    with pytest.raises(ValueError, match="wanted UTF-8 text"):
        list(couplets.pairs(str(tmp_path / "a.tsv"), longest=16))
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress("天\t地\n".encode())[:-6])
    with pytest.raises(ValueError, match="gzipped"):
        list(couplets.pairs(str(tmp_path / "a.tsv.gz"), longest=16))


def test_batches_have_one_length_and_the_characters_of_their_lines(built):
    assert len(built) == 6 and built.weight() == 13
    for place in range(9):
        batch = built.batch(3, place, 2)
        assert batch["token_BT"].shape == batch["target_BT"].shape and len(batch["row_B"]) == 2
        for upper, lower in zip(batch["token_BT"].tolist(), batch["target_BT"].tolist(), strict=True):
            assert (TEXT.decode(upper), TEXT.decode(lower)) in LINES


def test_an_epoch_holds_every_couplet_and_lengths_in_proportion(tmp_path):
    many = [(f"{chr(0x4E00 + i)}天", "日月") for i in range(24)] + [(chr(0x4E00 + i), "日") for i in range(8)]
    built = couplets.build(written(tmp_path / "a.tsv", many), single.Single.build((u for u, _ in many), least=1), longest=16)
    for epoch in range(3):
        batches = [built.batch(0, 8 * epoch + place, 4) for place in range(8)]
        assert collections.Counter(batch["token_BT"].shape[1] for batch in batches) == {2: 6, 1: 2}
        rows = [tuple(row) for batch in batches for row in batch["token_BT"].tolist()]
        assert len(set(rows)) == len(rows) == 32


def test_a_batch_is_a_function_of_seed_and_place_and_can_be_cut(built):
    whole = built.batch(7, 5, 4)
    for cut in (slice(0, 1), slice(1, 4)):
        part = built.batch(7, 5, 4, cut)
        assert all((part[name] == whole[name][cut]).all() for name in whole)
    assert any((built.batch(8, place, 4)["token_BT"].shape != built.batch(7, place, 4)["token_BT"].shape) for place in range(20))


def test_what_is_measured_is_every_couplet_once(built):
    rows = []
    for batch in built.parts(2, most=100):
        keep_B = batch["weight_B"] > 0
        assert len(keep_B) == 2
        rows += [tuple(row) for row in batch["token_BT"][keep_B].tolist()]
    assert sorted(rows) == sorted(tuple(TEXT.encode(upper)) for upper, _ in LINES)
    assert sum(int(batch["weight_B"].sum()) for batch in built.parts(2, most=3)) == 4  # a share of each length, at least one


def test_other_couplets_have_another_digest_and_are_refused(tmp_path, built):
    other = written(tmp_path / "b.tsv", LINES[:-1])
    assert couplets.build(written(tmp_path / "c.tsv"), TEXT, longest=16, known=built.digest).digest == built.digest
    with pytest.raises(ValueError, match="is not the text that the run was started on"):
        couplets.build(other, TEXT, longest=16, known=built.digest)


def test_the_antitheses_of_a_regulated_poem_are_its_second_and_third_couplet():
    poem = poetry.Poem("蝉", "西陆蝉声唱，南冠客思侵。那堪玄鬓影，来对白头吟。露重飞难进，风多响易沉。无人信高洁，谁为表予心。", "", "诗")
    assert list(regulated.antitheses([poem])) == [("那堪玄鬓影", "来对白头吟"), ("露重飞难进", "风多响易沉")]
    assert list(regulated.antitheses([poetry.Poem("", "床前明月光，疑是地上霜。举头望明月，低头思故乡。", "", "诗")])) == []


def test_the_couplets_of_this_checkout_can_be_read():
    pairs = list(couplets.pairs("train/couplets.tsv", longest=16))
    assert len(pairs) == 400 and {len(upper) for upper, _ in pairs} == {5, 7}
    assert np.mean([upper == lower for upper, lower in pairs]) == 0
