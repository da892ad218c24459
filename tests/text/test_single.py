import pytest

import flaxgen.text
from flaxgen import errors
from flaxgen.text import single

TEXT = single.Single(("[UNK]", "天", "地", "，"))


def test_places_of_ids_are_places_of_characters():
    assert TEXT.encode("天 雨，地\n") == [1, 0, 3, 2]
    assert TEXT.decode([1, 0, 3, 2]) == "天□，地"


def test_ids_of_reserved_rows_are_unknown_and_negative_ones_refused():
    assert TEXT.decode([9]) == "□"
    with pytest.raises(ValueError, match="id: got -1"):
        TEXT.decode([-1])


def test_a_stream_gives_a_character_an_id():
    stream = TEXT.stream(after=[1])
    assert [stream.push(i) for i in (2, 0)] == ["地", "□"] and stream.finish() == ""


def test_a_vocabulary_holds_what_stands_often_enough_the_most_frequent_first():
    text = single.Single.build(["一二 二三", "三三四\t五"], least=2)
    assert text.tokens == ("[UNK]", "三", "二")


def test_what_is_saved_loads(tmp_path):
    assert flaxgen.text.load(tmp_path, TEXT.save(tmp_path)) == TEXT
    assert single.Single.load(tmp_path / "vocab.txt") == TEXT


@pytest.mark.parametrize("tokens", [(), ("天",), ("[UNK]", "天地"), ("[UNK]", " "), ("[UNK]", ""), ("[UNK]", "天", "天")])
def test_what_is_no_vocabulary_of_characters_is_refused(tokens):
    with pytest.raises(errors.Mismatch, match="single characters"):
        single.Single(tokens)


def test_another_tokenizer_s_file_is_refused_by_name(tmp_path):
    (tmp_path / "vocab.txt").write_text("[UNK]\n##a\n")
    with pytest.raises(errors.Mismatch, match=r"vocab\.txt: wanted \[UNK\]"):
        single.Single.load(tmp_path / "vocab.txt")
