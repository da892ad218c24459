import dataclasses
import json

import pytest
import tiny

from convert import vocabulary
from flaxgen import errors

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "天", "气", "不", "错", "。", "a", "b", "##b"]


@pytest.fixture
def folder(tmp_path):
    return tiny.folder(tmp_path / "ours", tiny.BETWEEN)


def words(path, tokens=TOKENS):
    path.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return path


def pieces(path):
    """A byte-pair vocabulary of so many tokens, with the bytes that its tokenizer wants."""
    from flaxgen.text import bytepair

    tokens = [*bytepair.alphabet(), "<|endoftext|>"]
    (path / "encoder.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (path / "vocab.bpe").write_text("#version: 0.2\n")
    return path / "encoder.json", len(tokens)


def test_a_vocabulary_is_named_or_found_and_travels_both_ways(folder, tmp_path, capsys):
    named = words(tmp_path / "words.txt")
    assert tiny.run(folder, tmp_path / "one", "--vocab", named) == 0
    assert json.loads((tmp_path / "one/config.json").read_text())["text"]["kind"] == "wordpiece"
    assert tiny.run(tmp_path / "one", tmp_path / "foreign", "--to", "gpt2-ml") == 0
    assert (tmp_path / "foreign/vocab.txt").read_text(encoding="utf-8").split() == TOKENS
    assert tiny.run(tmp_path / "foreign", tmp_path / "back") == 0
    assert (tmp_path / "back/vocab.txt").read_bytes() == (tmp_path / "one/vocab.txt").read_bytes()
    assert "13 entries" in capsys.readouterr().out


def test_a_vocabulary_that_keeps_case_says_so_in_transformers_paper(folder, tmp_path):
    assert tiny.run(folder, tmp_path / "one", "--vocab", words(tmp_path / "vocab.txt")) == 0
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert tiny.run(folder, tmp_path / "two", "--vocab", tmp_path / "vocab.txt") == 0
    cases = [json.loads((tmp_path / name / "config.json").read_text())["text"]["case"] for name in ("one", "two")]
    assert cases == ["lower", "keep"]


def test_without_a_vocabulary_ids_only_is_said_aloud(folder, tmp_path, capsys):
    assert tiny.run(folder, tmp_path / "one") == 0
    assert "ids only" in capsys.readouterr().out
    assert json.loads((tmp_path / "one/config.json").read_text())["text"] is None


@pytest.mark.parametrize("count", [1, 2, 3, -1, -2])
def test_a_vocabulary_of_another_length_is_refused_with_the_reason(count, folder, tmp_path, capsys):
    tokens = TOKENS[:count] if count < 0 else [*TOKENS, *"ABC"[:count]]
    assert tiny.run(folder, tmp_path / "one", "--vocab", words(tmp_path / "words.txt", tokens)) == errors.Mismatch.exit_code
    assert f"has {13 + count} entries, the model 13 rows" in capsys.readouterr().err
    assert not (tmp_path / "one").exists()


def test_two_rows_are_reserved_only_in_the_model_that_was_trained_so(tmp_path):
    def found(rows, lines):
        named = words(tmp_path / "vocab.txt", ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *map(str, range(lines - 4))])
        return vocabulary.find(tmp_path, named, None, rows).reserved

    assert found(21130, 21128) == 2 and found(21130, 21130) == 0 and found(8021, 8021) == 0
    for rows, lines in ((21130, 21129), (21130, 21127), (8021, 8019), (21132, 21130), (21128, 21126)):
        with pytest.raises(errors.Mismatch, match="another model's"):
            found(rows, lines)


def test_byte_pairs_bring_their_end_token_and_keep_openais_file_names(tmp_path):
    named, count = pieces(tmp_path)
    ours = tiny.folder(tmp_path / "ours", dataclasses.replace(tiny.PRE_TANH, vocab=count))
    assert tiny.run(ours, tmp_path / "one", "--vocab", named) == 0
    card = json.loads((tmp_path / "one/config.json").read_text())
    assert card["end"] == [count - 1] and card["text"]["kind"] == "bytepair"
    assert tiny.run(tmp_path / "one", tmp_path / "tf", "--to", "gpt2-tf") == 0
    assert json.loads((tmp_path / "tf/encoder.json").read_text())["<|endoftext|>"] == count - 1 and (tmp_path / "tf/vocab.bpe").exists()
    assert tiny.run(tmp_path / "tf", tmp_path / "back") == 0
    assert json.loads((tmp_path / "back/config.json").read_text())["end"] == [count - 1]


def test_byte_pairs_without_their_merges_are_refused(folder, tmp_path, capsys):
    named, _ = pieces(tmp_path)
    (tmp_path / "vocab.bpe").unlink()
    assert tiny.run(folder, tmp_path / "one", "--vocab", named) == errors.Incomplete.exit_code
    assert "merges" in capsys.readouterr().err


def test_two_vocabularies_beside_the_source_have_to_be_chosen_from(tmp_path, capsys):
    source = tiny.foreign(tmp_path / "ml", "gpt2-ml")
    words(source / "vocab.txt")
    pieces(source)
    assert tiny.run(source, tmp_path / "one") == errors.Mismatch.exit_code
    assert "--vocab FILE" in capsys.readouterr().err
    assert tiny.run(source, tmp_path / "one", "--vocab", source / "vocab.txt") == 0


def test_another_vocabulary_in_a_flaxgen_folder_is_found_by_its_digest(folder, tmp_path, capsys):
    assert tiny.run(folder, tmp_path / "one", "--vocab", words(tmp_path / "words.txt")) == 0
    words(tmp_path / "one/vocab.txt", [*TOKENS[:-2], "c", "d"])
    assert tiny.run(tmp_path / "one", tmp_path / "two") == errors.Mismatch.exit_code
    assert "sha256" in capsys.readouterr().err


@pytest.mark.shared
def test_the_published_vocabularies_fit_their_own_models_only(shared):
    folder = shared / "data/vocab"
    fitting = {("clue-vocab.txt", 8021): 0, ("bert-base-chinese-vocab.txt", 21130): 2, ("gpt2-encoder.json", 50257): 0,
               ("gpt2-vocab.bpe", 50257): 0}  # fmt: skip
    for (name, rows), reserved in fitting.items():
        found = vocabulary.find(folder, folder / name, None, rows)
        assert found.reserved == reserved and found.end == ((50256,) if rows == 50257 else None)
        for other in {8021, 21130, 50257, 50270} - {rows}:
            with pytest.raises(errors.Mismatch, match="another model's"):
                vocabulary.find(folder, folder / name, None, other)
