import json

import pytest

from train import poetry


def poem(body, title="題", genre="诗"):
    return poetry.clean(poetry.Poem(title, body, "誰", genre), lambda text: text)


def test_forms_are_read_off_the_lines():
    assert poem("床前明月光，疑是地上霜。\n举头望明月，低头思故乡。").form == "五绝"
    assert poem("一二三四五六七，一二三四五六七。").form == "七言"
    assert poem("前不见古人，后不见来者。\n念天地之悠悠，独怆然而涕下。").form == "诗"
    assert poem("一二三四五，一二三四五。", genre="词").form == "词"


def test_notes_quotes_and_narrow_punctuation_are_cleaned():
    assert poem("“床前明月光”,\n疑是地上霜（一作：似）").body == "床前明月光，疑是地上霜。"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("", "empty"),
        ("□前明月光，疑是地上霜。", "characters lost"),
        ("床前明月光，疑是地上霜。" * 12, "longer than 112 characters"),
        ("床前moon光，疑是地上霜。", "other characters than Han and punctuation"),
        ("床前明月光。", "fragment"),
        ("床前明月光，疑是地上霜，举头望明月。", "fragment"),
    ],
)
def test_what_is_not_whole_is_dropped_with_its_reason(body, reason):
    assert poem(body) == reason


@pytest.mark.parametrize(
    ("title", "wanted"),
    [
        ("橫吹曲辭 洛陽陌", "洛陽陌"),
        ("逍搖堂五詠  其二", "逍搖堂五詠其二"),
        ("登高（并序）", "登高"),
        ("句", ""),
        ("一" * 13, ""),
        ("A title", ""),
    ],
)
def test_titles_are_short_and_plain_or_absent(title, wanted):
    assert poetry.heading(title) == wanted


def test_a_document_begins_with_verse_title_or_form_and_always_the_same_way():
    poems = [poetry.Poem("静夜思", f"床前明月光，疑是地上霜{'霜' * i}。", "李白", "诗") for i in range(200)]
    texts = [poetry.render(each, 0) for each in poems]
    assert texts == [poetry.render(each, 0) for each in poems]
    titled = [text for text in texts if text.startswith("《静夜思》")]
    formed = [text for text in texts if text[0] not in "床《"]
    assert 60 < len(titled) < 100 and 8 < len(formed) < 35 and len(texts) - len(titled) - len(formed) > 75


def test_poems_that_share_two_lines_with_held_out_ones_are_left_out():
    mine = [poetry.Poem("", "床前明月光，疑是地上霜。", "", "诗"), poetry.Poem("", "床前明月光，独照故乡人。", "", "诗")]
    kept, count = poetry.apart(mine, mine[:1])
    assert kept == mine[1:] and count == 1


def test_another_folder_is_refused_with_the_command_that_fetches_the_package(tmp_path):
    with pytest.raises(ValueError, match="npm pack chinese-poetry@2"):
        poetry.prepare(tmp_path, tmp_path / "out")


def test_a_prepared_package_is_simplified_split_and_counted(tmp_path, monkeypatch):
    pytest.importorskip("opencc", reason="OpenCC comes with the extra poetry")
    monkeypatch.setattr(poetry, "RARE", 1)
    monkeypatch.setattr(poetry, "HELD_OUT", 0.2)
    found = [poetry.Poem("夜", f"牀前明月光{chr(0x4E00 + i)}，疑是地上霜。", "", "词") for i in range(50)]
    monkeypatch.setattr(poetry, "collect", lambda dist: found)
    (tmp_path / "dist" / "quantangshi").mkdir(parents=True)
    counts = poetry.prepare(tmp_path, tmp_path / "out")
    assert counts["read"] == 50 and counts["train"] + counts["dev"] + counts["heldout"] == 50 - counts.get("dropped: duplicate", 0)
    lines = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == counts["train"] and all("床前明月光" in line["text"] for line in lines)
