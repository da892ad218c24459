import json
import pathlib

import numpy as np
import pytest

from tests.train import test_tfrecords
from train import corpus


def write(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def lines(*texts):
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)


def letters(text):
    return [ord(character) - ord("a") for character in text]


def ids(path, *, end=26, vocab=27, **given):
    (source,) = corpus.sources(path)
    return [found.tolist() for found in corpus.sequences(source, letters, end, vocab=vocab, **given)]


def test_text_is_cut_at_empty_lines(tmp_path):
    path = write(tmp_path / "text.txt", "one\ntwo\n\n \nthree\n")
    assert list(corpus.documents(path)) == ["one\ntwo", "three"]


def test_text_without_an_empty_line_between_is_cut_at_every_line(tmp_path):
    path = write(tmp_path / "text.txt", "\n  one\ntwo\nthree\n\n")
    assert list(corpus.documents(path)) == ["one", "two", "three"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_on_any_system_and_a_byte_order_mark_is_no_text(tmp_path, end):
    path = write(tmp_path / "text.txt", end.join(["\ufeff一", "二", "", "三", ""]))
    assert list(corpus.documents(path)) == ["一\n二", "三"]
    path = write(tmp_path / "text.jsonl", "\ufeff" + end.join(['{"text": "一"}', "", '{"text": "二"}']))
    assert list(corpus.documents(path)) == ["一", "二"]


def test_a_long_document_comes_in_parts_that_end_with_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "DOCUMENT", 10)
    path = write(tmp_path / "text.txt", "aaaa\nbbbb\ncccc\n\nd\n")
    assert list(corpus.documents(path)) == ["aaaa\nbbbb", "cccc", "d"]


def test_a_line_without_end_is_refused_before_it_is_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "LINE", 10)
    with pytest.raises(ValueError, match="line 2: longer than 10 bytes"):
        list(corpus.documents(write(tmp_path / "text.txt", "a\n" + "b" * 11)))


@pytest.mark.parametrize(
    "line", ['{"body": "b"}', "[]", "text", '"text"', '{"text": 3}', '{"text": null}', '{"text": "\\ud800"}', '{"text": "a"', "[" * 9999]
)
def test_a_bad_line_is_named(tmp_path, line):
    path = write(tmp_path / "text.jsonl", '{"text": "a"}\n' + line + "\n")
    with pytest.raises(ValueError, match=r'text.jsonl line 2: wanted a JSON object with a field "text"'):
        list(corpus.documents(path))


@pytest.mark.parametrize(("encoding", "name"), [("gb18030", "GB18030"), ("utf-16", "UTF-16")])
def test_another_encoding_is_named_with_the_command_that_converts_it(tmp_path, encoding, name):
    path = write(tmp_path / "text.txt", "今天天气不错\n" * 3, encoding)
    with pytest.raises(ValueError, match=f"text.txt line 1: not UTF-8 at byte 0; perhaps {name}.*iconv -f {name} -t UTF-8 .*text.utf8.txt"):
        list(corpus.documents(path))


def test_damaged_text_is_named_with_its_byte(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"one\ntwo\xff\xff\n")
    with pytest.raises(ValueError, match="line 2: not UTF-8 at byte 7, nor GB18030"):
        list(corpus.documents(path))


@pytest.mark.parametrize("name", ["nothing.jsonl", "", "nothing*.txt", "a\0b", "x" * 9999])
def test_missing_data_says_what_to_give(tmp_path, name):
    with pytest.raises(ValueError, match="give data=FILE"):
        corpus.sources(name and f"{tmp_path}/{name}")


def test_a_folder_is_read_with_all_below_it_in_the_order_of_names(tmp_path):
    write(tmp_path / "c" / "b" / "2.jsonl", lines("two"))
    write(tmp_path / "c" / "a.txt", "one\n")
    write(tmp_path / "c" / "z.json", lines("three"))
    write(tmp_path / "c" / "README.md", "no corpus\n")
    write(tmp_path / "c" / ".git" / "x.txt", "no corpus\n")
    assert list(corpus.documents(tmp_path / "c")) == ["one", "two", "three"]
    with pytest.raises(ValueError, match=r"a folder with .jsonl"):
        corpus.sources(tmp_path / "c" / ".git" / "..")[0] and corpus.sources(write(tmp_path / "d" / "x.md", "").parent)


def test_a_pattern_takes_what_fits_it_and_json_lines_are_known_by_their_first_letter(tmp_path):
    write(tmp_path / "wiki_00", lines("zero"))
    write(tmp_path / "wiki_01", "one\n")
    assert list(corpus.documents(f"{tmp_path}/wiki_*")) == ["zero", "one"]


def test_a_name_with_a_blank_is_one_file_when_it_exists(tmp_path):
    path = write(tmp_path / "my novel*2.txt", "one\n")
    assert [source.files for source in corpus.sources(path)] == [(path,)]


def test_a_mixture_has_files_and_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.jsonl", lines("one"))
    write(tmp_path / "b.txt", "two\n")
    found = corpus.sources("a.jsonl*0.7  *.txt*3")
    assert [(source.name, source.files, source.weight) for source in found] == [
        ("a.jsonl", (pathlib.Path("a.jsonl"),), 0.7),
        ("*.txt", (pathlib.Path("b.txt"),), 3.0),
    ]
    assert [source.weight for source in corpus.sources("a.jsonl b.txt")] == [None, None]


def test_a_weight_of_nothing_and_weights_for_some_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.txt", "one\n")
    write(tmp_path / "b.txt", "two\n")
    with pytest.raises(ValueError, match=r"'a.txt\*0' has the weight 0"):
        corpus.sources("a.txt*0 b.txt*1")
    with pytest.raises(ValueError, match=r"b.txt without a weight .* write for example b.txt\*0.5"):
        corpus.sources("a.txt*0.5 b.txt")


def test_documents_get_their_end_and_short_ones_are_left_out(tmp_path):
    path = write(tmp_path / "a.jsonl", lines("abc", "", "ab", "abcd"))
    assert ids(path) == [[0, 1, 2, 26], [0, 1, 26], [0, 1, 2, 3, 26]]
    assert ids(path, shortest=2, end=None) == [[0, 1, 2], [0, 1, 2, 3]]


def test_tfrecords_are_read_beside_text_and_what_they_cut_has_no_end(tmp_path):
    write(tmp_path / "c" / "a.txt", "abc\n")
    example, padded = test_tfrecords.example, test_tfrecords.padded
    test_tfrecords.file(tmp_path / "c", example(padded([3, 4])), example(padded(range(1, 9))))
    assert ids(tmp_path / "c") == [[3, 4, 26], [1, 2, 3, 4, 5, 6, 7, 8], [0, 1, 2, 26]]
    with pytest.raises(ValueError, match=r"a.tfrecord holds token ids, no text"):
        list(corpus.documents(tmp_path / "c"))


def test_ids_of_another_vocabulary_are_named(tmp_path):
    path = test_tfrecords.file(tmp_path, test_tfrecords.example([1, 2, 0]), test_tfrecords.example([1, 27, 0]))
    with pytest.raises(ValueError, match=r"a.tfrecord document 2: token id 27, wanted 0 to 26"):
        ids(path)
    with pytest.raises(ValueError, match="document 1: token id -1"):
        ids(test_tfrecords.file(tmp_path, test_tfrecords.example([-1, 2, 0])))


def test_what_is_read_adds_up_to_the_size_of_the_files(tmp_path):
    write(tmp_path / "c" / "a.txt", "ab\r\n\r\nc")
    write(tmp_path / "c" / "b.jsonl", lines("ab"))
    test_tfrecords.file(tmp_path / "c", test_tfrecords.example([1, 2, 0]))
    (source,) = corpus.sources(tmp_path / "c")
    sizes = []
    assert len(list(corpus.sequences(source, letters, 26, vocab=27, note=sizes.append))) == 4
    assert sum(sizes) == corpus.size([source])


def test_the_digest_is_of_bytes_kinds_weights_and_facts_but_not_of_folders(tmp_path):
    def digest(name, text, weight="", facts=None):
        return corpus.digest(corpus.sources(f"{write(tmp_path / name, text)}{weight}"), facts or {})

    first = digest("a.txt", "one")
    assert digest("b/c.txt", "one") == first
    others = [digest("a.txt", "two"), digest("a.jsonl", "one"), digest("a.txt", "one", "*2"), digest("a.txt", "one", facts={"length": 3})]
    assert len({first, *others}) == 5


def test_ids_are_int32_arrays(tmp_path):
    (source,) = corpus.sources(write(tmp_path / "a.txt", "abc"))
    (found,) = corpus.sequences(source, letters, 26, vocab=27)
    assert found.dtype == np.int32
