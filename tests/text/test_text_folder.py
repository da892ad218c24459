"""The tokenizer of a flaxgen folder."""

import subprocess
import sys

import pytest

import flaxgen.text
from flaxgen import errors
from flaxgen.text import build, bytepair, wordpiece

TEXTS = {
    "wordpiece": build.vocabulary(["今天天气不错"], size=300),
    "cased": build.vocabulary(["今天"], size=400, case="keep"),
    "bytepair": bytepair.BytePair((*bytepair.alphabet(), "th", "<|endoftext|>"), (("t", "h"),)),
}


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_saved_loads_by_its_section(tmp_path, name):
    section = TEXTS[name].save(tmp_path)
    assert flaxgen.text.load(tmp_path, section) == TEXTS[name]
    assert flaxgen.text.load(str(tmp_path), section | {"reserved": 2, "newer": "ignored"}) == TEXTS[name]


@pytest.mark.parametrize("section", [None, {"kind": None}])
def test_a_folder_without_a_vocabulary_has_no_tokenizer(tmp_path, section):
    assert flaxgen.text.load(tmp_path, section) is None


@pytest.mark.parametrize("name", TEXTS)
def test_any_flipped_byte_is_refused_by_name(tmp_path, name):
    section = TEXTS[name].save(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        data = path.read_bytes()
        for place in range(0, len(data), max(1, len(data) // 60)):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            with pytest.raises(errors.Mismatch, match=f"{path.name}: its sha256 is"):
                flaxgen.text.load(tmp_path, section)
        path.write_bytes(data)


def test_another_vocabulary_of_the_same_length_is_refused(tmp_path):
    section = TEXTS["wordpiece"].save(tmp_path)
    tokens = TEXTS["wordpiece"].tokens
    wordpiece.WordPiece((*tokens[:-2], tokens[-1], tokens[-2])).save(tmp_path)
    with pytest.raises(errors.Mismatch, match=r"vocab\.txt: its sha256 is"):
        flaxgen.text.load(tmp_path, section)


def test_a_missing_file_is_refused_by_name(tmp_path):
    section = TEXTS["bytepair"].save(tmp_path)
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(errors.Incomplete, match=r"there is no vocabulary file .*merges\.txt"):
        flaxgen.text.load(tmp_path, section)


WRONG = {
    "other kind": ({"kind": "sentencepiece"}, "got|is 'sentencepiece', wanted one of"),
    "no kind": ({}, "is None, wanted one of"),
    "unhashable kind": ({"kind": ["wordpiece"]}, "wanted one of"),
    "list": ([], "is 'list', wanted"),
    "no hash": ({"kind": "wordpiece"}, "wanted one for each of"),
    "hash of another file": ({"kind": "wordpiece", "sha256": {"../vocab.txt": "00"}}, "wanted one for each of"),
    "hash of no text": ({"kind": "wordpiece", "sha256": {"vocab.txt": None}}, "config.json names None"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_section_is_refused(tmp_path, name):
    section, message = WRONG[name]
    TEXTS["wordpiece"].save(tmp_path)
    with pytest.raises(errors.Mismatch, match=message):
        flaxgen.text.load(tmp_path, section)


def test_an_unknown_case_is_refused(tmp_path):
    section = TEXTS["wordpiece"].save(tmp_path) | {"case": "upper"}
    with pytest.raises(errors.Mismatch, match='wanted "lower" or "keep"'):
        flaxgen.text.load(tmp_path, section)


def test_tokenizers_import_without_jax():
    code = "import sys, flaxgen.text.wordpiece, flaxgen.text.prompt, flaxgen.text.build; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
