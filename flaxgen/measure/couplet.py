"""Lower lines of couplets against the rules, against each other and against reference lines."""

import itertools
from collections.abc import Iterable, Sequence

from flaxgen.text import antithesis, tones

RULES = ("copied", "tones", "ends", "repeats", "fresh")


def broken(upper: str, lower: str, book: tones.Book = "mandarin") -> set[str]:
    """The names of the rules that a lower line breaks: some of RULES.

    copied: a character stands at the same place in both. tones, ends, repeats, fresh: see antithesis.Rules. A character of no known tone
    breaks no rule, punctuation counts nowhere.

    broken("晚风摇树树还挺", "夜雨敲花花更香")  ->  set()
    broken("晚风摇树树还挺", "晨露润花草更红")  ->  {"repeats"}
    """
    _check(upper, lower)
    open_places = [place for place, one in enumerate(upper) if antithesis.is_open(one)]
    pairs = [(upper[place], lower[place]) for place in open_places]
    found, table = set(), tones.load(book)
    if any(above == below for above, below in pairs):
        found.add("copied")
    if {above for above, _ in pairs} & {below for _, below in pairs}:
        found.add("fresh")
    if any((a == b) != (c == d) for (a, c), (b, d) in itertools.combinations(pairs, 2)):
        found.add("repeats")
    for name, rules in (("tones", antithesis.Rules(ends=False)), ("ends", antithesis.Rules(tones=False))):
        asked = antithesis.wanted(upper, rules, table)
        if any(tone not in table.get(lower[place], tone) for place, tone in asked.items()):
            found.add(name)
    return found


def violations(pairs: Iterable[tuple[str, str]], book: tones.Book = "mandarin") -> dict[str, float]:
    """Share of couplets (upper, lower) that break each rule of RULES, and under "any" of those that break one of them."""
    found = [broken(upper, lower, book) for upper, lower in pairs]
    if not found:
        raise ValueError("no couplet to judge; wanted at least one pair of lines")
    shares = {name: sum(name in one for one in found) / len(found) for name in RULES}
    return shares | {"any": sum(map(bool, found)) / len(found)}


def copies(pairs: Iterable[tuple[str, str]]) -> int:
    """How many characters stand at the same place in both lines, punctuation apart."""
    return sum(a == b and antithesis.is_open(a) for upper, lower in pairs for a, b in zip(upper, lower, strict=True))


def distinct(lines: Iterable[str], size: int) -> float:
    """Share of different ones among all runs of `size` characters inside the clauses of the lines (distinct-n, Li et al. 2016)."""
    grams = [
        line[place : place + size] for line in lines for start, stop in antithesis.clauses(line) for place in range(start, stop - size + 1)
    ]
    if not grams:
        raise ValueError(f"no clause of {size} characters in the lines; wanted at least one")
    return len(set(grams)) / len(grams)


def accuracy(lines: Sequence[str], references: Sequence[str]) -> float:
    """Share of the references' characters that the lines have at the same places, punctuation apart."""
    hits = total = 0
    for line, reference in zip(lines, references, strict=True):
        _check(reference, line)
        for got, wanted in zip(line, reference, strict=True):
            hits, total = hits + (got == wanted and antithesis.is_open(wanted)), total + antithesis.is_open(wanted)
    if not total:
        raise ValueError("no character in the references; wanted at least one")
    return hits / total


def _check(upper: str, lower: str) -> None:
    if len(upper) != len(lower):
        raise ValueError(f"{upper!r} has {len(upper)} characters, {lower!r} {len(lower)}; the lines of a couplet have equally many")
