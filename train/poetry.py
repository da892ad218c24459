"""Verse for the recipe `poetry`: the npm package chinese-poetry, cleaned, in Simplified characters, split and written as JSONL.

    npm pack chinese-poetry@2.0.1 && tar xf chinese-poetry-2.0.1.tgz       (MIT; a folder package/ with dist/)
    python -m train prepare-poetry package runs/verse

Nothing is fetched. One poem is one document, and starts in one of three ways, so that a user may begin with any of them:
`床前明月光，疑是地上霜。…`, `《静夜思》床前明月光，…` or `五绝《静夜思》床前明月光，…`.
"""

import collections
import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Callable, Iterator

LONGEST = 112  # characters of verse; with title and end a poem then fits a row of 128
RARE = 20  # a rarer character has too few examples to be learnt, and half the vocabulary would be such characters
HELD_OUT, DEV = 0.01, 0.005
SHAPES = {(5, 4): "五绝", (7, 4): "七绝", (5, 8): "五律", (7, 8): "七律"}
STOPS = "，。？！；：、"
WIDE = str.maketrans({",": "，", "?": "？", "!": "！", ";": "；", ":": "：", ".": "。", "．": "。", "﹐": "，"})
QUOTES = str.maketrans("", "", "“”‘’「」『』\"'《》〈〉 　\t\r\n\u200b\ufeff")
NOTE = re.compile(r"[(（\[〔【{][^)）\]〕】}]*[)）\]〕】}]")
VERSE = re.compile(rf"[\u4e00-\u9fff{STOPS}]+")
HAN = re.compile(r"[\u4e00-\u9fff]+")


@dataclasses.dataclass(frozen=True)
class Poem:
    """genre: 诗, 词, 曲 or 古 (the Book of Songs, the Songs of Chu, Cao Cao)."""

    title: str
    body: str
    author: str
    genre: str

    @property
    def clauses(self) -> list[str]:
        return HAN.findall(self.body)

    @property
    def form(self) -> str:
        """五绝, 七绝, 五律, 七律 for four or eight clauses of one length, 五言 or 七言 for more, else the genre."""
        lengths = {len(clause) for clause in self.clauses}
        if self.genre == "诗" and lengths in ({5}, {7}):
            (length,) = lengths
            return SHAPES.get((length, len(self.clauses)), {5: "五言", 7: "七言"}[length])
        return self.genre


def prepare(source: pathlib.Path, target: pathlib.Path, *, seed: int = 0) -> dict[str, int]:
    """Writes train.jsonl, dev.jsonl, heldout.jsonl and facts.json into `target`; returns the counts of facts.json."""
    parts, counts = split(source, seed)
    target.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        with open(target / f"{name}.jsonl", "w", encoding="utf-8") as file:
            for poem in part:
                record = {"text": render(poem, seed), "form": poem.form, "title": poem.title, "author": poem.author}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
    counts["characters of verse in train"] = sum(len(poem.body) for poem in parts["train"])
    note(target, seed, counts)
    return counts


def note(target: pathlib.Path, seed: int, counts: dict[str, int]) -> None:
    """Writes facts.json."""
    facts = {"source": "chinese-poetry 2.0.1 (npm), MIT", "seed": seed, "counts": counts}
    (target / "facts.json").write_text(json.dumps(facts, ensure_ascii=False, indent=1), encoding="utf-8")


def split(source: pathlib.Path, seed: int) -> tuple[dict[str, list[Poem]], dict[str, int]]:
    """The poems of train, dev and heldout, and the counts of what was read and dropped."""
    if not (source / "dist" / "quantangshi").is_dir():
        raise ValueError(f"{source} is not the unpacked package: no dist/quantangshi in it. Get it with: npm pack chinese-poetry@2.0.1")
    simplify = simplifier()
    counts: collections.Counter[str] = collections.Counter()
    poems: dict[str, Poem] = {}
    for found in collect(source / "dist"):
        counts["read"] += 1
        poem = clean(found, simplify)
        if isinstance(poem, str):
            counts[f"dropped: {poem}"] += 1
        elif "".join(poem.clauses) in poems:
            counts["dropped: duplicate"] += 1
        else:
            poems["".join(poem.clauses)] = poem
    counts[f"dropped: a character seen fewer than {RARE} times"] = len(poems) - len(poems := common(poems))
    parts: dict[str, list[Poem]] = {"train": [], "dev": [], "heldout": []}
    for key, poem in poems.items():
        draw = chance(seed, "split", key)
        parts["heldout" if draw < HELD_OUT else "dev" if draw < HELD_OUT + DEV else "train"].append(poem)
    parts["train"], leaked = apart(parts["train"], parts["dev"] + parts["heldout"])
    parts["dev"], more = apart(parts["dev"], parts["heldout"])
    counts["dropped: shares two clauses with a held-out poem"] = leaked + more
    counts.update({name: len(part) for name, part in parts.items()})
    return parts, dict(counts)


def simplifier() -> Callable[[str], str]:
    """What turns Traditional characters into Simplified ones."""
    try:
        import opencc
    except ImportError:
        raise ImportError("preparing verse needs OpenCC: pip install 'flaxgen[poetry]'") from None
    return opencc.OpenCC("t2s").convert


def collect(dist: pathlib.Path) -> Iterator[Poem]:
    """Every poem as it stands in the package; the well-known collections come first, so their wording wins over a duplicate's."""
    sources = [
        ("quantangshi/唐诗三百首.json", "诗"),
        ("shuimotangshi/*.json", "诗"),
        ("songci/宋词三百首.json", "词"),
        ("nalanxingde/*.json", "词"),
        ("wudaishici/huajianji/*juan.json", "词"),
        ("wudaishici/nantang/poetrys.json", "词"),
        ("caocaoshiji/*.json", "古"),
        ("shijing/*.json", "古"),
        ("chuci/*.json", "古"),
        ("quantangshi/poet.tang.*.json", "诗"),
        ("quantangshi/poet.song.*.json", "诗"),
        ("songci/ci.song.*.json", "词"),
        ("yuanqu/*.json", "曲"),
    ]
    for pattern, genre in sources:
        paths = sorted(dist.glob(pattern))
        if not paths:
            raise ValueError(f"{dist / pattern} matches no file; wanted version 2.0.1 of chinese-poetry")
        for path in paths:
            for record in json.loads(path.read_text(encoding="utf-8")):
                lines = record.get("paragraphs") or record.get("para") or record.get("content") or []
                title = record.get("title") or record.get("rhythmic") or ""
                yield Poem(title, "\n".join(lines), record.get("author") or "", genre)


def clean(poem: Poem, simplify) -> Poem | str:
    """The poem in Simplified characters and plain punctuation, or the reason why it is left out."""
    lines = NOTE.sub("", poem.body).translate(WIDE).split("\n")
    lines = [line.translate(QUOTES).strip() for line in lines]
    body = "".join(line if line[-1] in STOPS else line + "。" for line in lines if line)
    if not body:
        return "empty"
    if "□" in body or "○" in body:
        return "characters lost"
    if len(body) > LONGEST:
        return f"longer than {LONGEST} characters"
    body = simplify(body)
    if not VERSE.fullmatch(body):
        return "other characters than Han and punctuation"
    if re.search(rf"[{STOPS}]{{2}}", body) or body[0] in STOPS or len(HAN.findall(body)) < 2 or len(body) < 10:
        return "fragment"
    if poem.genre == "诗" and (len(HAN.findall(body)) % 2 or len({len(clause) for clause in HAN.findall(body)}) > 3):
        return "fragment"
    body = body[:-1] + "。" if body[-1] in "，、；：" else body
    return Poem(simplify(heading(poem.title)), body, simplify(poem.author), poem.genre)


def heading(title: str) -> str:
    """A title of at most 12 Han characters, or nothing: `橫吹曲辭 洛陽陌` is 洛陽陌, `逍搖堂五詠  其二` is 逍搖堂五詠其二."""
    parts = re.split(r"[\s　·・/]+", NOTE.sub("", title).strip())
    while len(parts) > 1 and not re.match("其|之", parts[-1]) and parts[0].endswith(("辭", "辞", "歌", "曲", "調", "宫", "吕")):
        parts = parts[1:]
    joined = "".join(parts)
    return joined if HAN.fullmatch(joined) and len(joined) <= 12 and joined != "句" else ""


def common(poems: dict[str, Poem]) -> dict[str, Poem]:
    """The poems whose characters each stand at least RARE times in all of them together, so that a vocabulary of about 6,000 closes."""
    seen = collections.Counter(character for poem in poems.values() for character in poem.title + poem.body)
    return {key: poem for key, poem in poems.items() if all(seen[character] >= RARE for character in poem.title + poem.body)}


def apart(poems: list[Poem], others: list[Poem]) -> tuple[list[Poem], int]:
    """The poems that share fewer than two clauses of five or more characters with `others`, and how many did not."""
    seen = {clause for poem in others for clause in poem.clauses if len(clause) >= 5}
    kept = [poem for poem in poems if sum(clause in seen for clause in poem.clauses) < 2]
    return kept, len(poems) - len(kept)


def render(poem: Poem, seed: int) -> str:
    """The document: half begin with the verse, the others with 《title》, one in five of these with the form before it."""
    draw = chance(seed, "render", poem.body)
    if not poem.title or draw < 0.5:
        return poem.body
    return ("" if draw < 0.9 else poem.form) + f"《{poem.title}》{poem.body}"


def chance(seed: int, purpose: str, text: str) -> float:
    """A number in [0, 1) that depends on nothing but its arguments."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{text}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
