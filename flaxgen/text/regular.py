r"""Regular expressions as automata: the texts that `re.fullmatch` matches, and no others.

Python's own parser reads the pattern and Python's own matcher says which characters a class holds, so flags, \w and case folding mean what
they mean to `re`. What no automaton can do, or only one of enormous size, is refused.
"""

import functools
import re
from re import _compiler, _parser  # the parse tree is nowhere public
from re import _constants as op

import numpy as np

from flaxgen.text import minimal, utf8
from flaxgen.text.automaton import UNITS, Automaton, Units, of_moves

PARTS, STATES, WORK = 1 << 16, 1 << 14, 1 << 21  # of a pattern, of its automaton, and moves looked at while it is made

# What an automaton has to know of the text that is still to come, by anchors passed: nothing; it is empty or a line feed; it is empty or
# begins with a line feed; it is empty.
_FREE, _LAST_LINE, _LINE_END, _EMPTY = range(4)
_START, _NEW_LINE, _INSIDE = range(3)  # what lies before a place
_SETS = (op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN)
_REFUSED = {
    op.GROUPREF: ("a back-reference", r"\\[1-9]|\(\?P="),
    op.GROUPREF_EXISTS: ("a conditional group", r"\(\?\("),
    op.ASSERT: ("a look-around", r"\(\?<?="),
    op.ASSERT_NOT: ("a negative look-around", r"\(\?<?!"),
    op.ATOMIC_GROUP: ("an atomic group", r"\(\?>"),
    op.POSSESSIVE_REPEAT: ("a possessive repeat", r"(?:[*+?]|\{[0-9,]*\})\+"),
}
_REFUSED_PLACES = {
    op.AT_BOUNDARY: ("a word boundary", r"\\b"),
    op.AT_NON_BOUNDARY: ("a word boundary", r"\\B"),
}
_token = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?#[^)]*\)|\(\?(?:P=|<?[=!]|\(|>)|(?:[*+?]|\{[0-9,]*\})\+|.", re.DOTALL)


def compiled(pattern: str, units: Units) -> Automaton:
    """The least automaton of a pattern; it has no states if nothing matches. ValueError names what is refused, and where it stands."""
    if not isinstance(pattern, str):
        raise ValueError(f"regex: got {type(pattern).__name__}, wanted a pattern as a str")
    try:
        tree = _parser.parse(pattern)
        parts = _Parts(pattern)
        end = parts.sequence(tree, tree.state.flags, parts.new())
    except RecursionError:
        raise ValueError(f"regex {_short(pattern)}: its groups are nested too deeply; write it with fewer") from None
    except (re.error, OverflowError) as error:
        raise ValueError(f"regex {_short(pattern)}: {error}; `re` does not take it either") from None
    found = _determined(parts, end)
    spelled = found if units == "characters" else utf8.in_bytes(found, STATES)
    if spelled is None:
        raise _too_large(pattern, "states over bytes", STATES)
    return spelled


def _too_large(pattern: str, what: str, number: int) -> ValueError:
    return ValueError(
        f"regex {_short(pattern)}: reached {number:,} {what} and was not done, which is the most there may be; "
        "use smaller repeat counts, or fewer alternatives that begin alike"
    )


def _short(pattern: str) -> str:
    return repr(pattern) if len(pattern) <= 80 else f"{pattern[:80]!r}…"


class _Parts:
    """A nondeterministic automaton under construction: passes take nothing, steps take a unit of a set (Thompson 1968)."""

    def __init__(self, pattern: str):
        self.pattern = pattern
        self.passes: list[list[tuple[int, int | None]]] = []  # (to, anchor that must hold)
        self.steps: list[list[tuple[int, int]]] = []  # (number of the set, to)
        self.sets: dict[tuple, int] = {((10, 10),): 0}  # the line feed always, for anchors

    def new(self, *, before: int | None = None) -> int:
        """A new part, which `before` passes to."""
        if len(self.steps) == PARTS:
            raise _too_large(self.pattern, "parts", PARTS)
        self.passes.append([])
        self.steps.append([])
        if before is not None:
            self.passes[before].append((len(self.steps) - 1, None))
        return len(self.steps) - 1

    def sequence(self, items, flags: int, at: int) -> int:
        """The part behind several items that begin at a part."""
        for kind, value in items:
            at = self.item(kind, value, flags, at)
        return at

    def item(self, kind, value, flags: int, at: int) -> int:
        if kind in _SETS:
            return self.step(_members(kind, tuple(value) if kind is op.IN else value, flags & _SET_FLAGS), at)
        if kind is op.BRANCH:
            end = self.new()
            for branch in value[1]:
                self.passes[self.sequence(branch, flags, self.new(before=at))].append((end, None))
            return end
        if kind is op.SUBPATTERN:
            _, added, removed, inner = value
            flags = (flags & ~_parser.TYPE_FLAGS if added & _parser.TYPE_FLAGS else flags) | added
            return self.sequence(inner, flags & ~removed, at)
        if kind in (op.MAX_REPEAT, op.MIN_REPEAT):
            return self.repeat(*value, flags, at)
        if kind is op.AT and value not in _REFUSED_PLACES:
            end = self.new()
            multiline = op.AT_MULTILINE.get(value, value) if flags & re.MULTILINE else value
            self.passes[at].append((end, multiline))
            return end
        raise _refusal(self.pattern, *(_REFUSED_PLACES[value] if kind is op.AT else _REFUSED.get(kind, (str(kind), "(?!)"))))

    def repeat(self, least: int, most: int, inner, flags: int, at: int) -> int:
        for _ in range(least):
            at = self.sequence(inner, flags, self.new(before=at))
        if most == op.MAXREPEAT:
            loop = self.new(before=at)
            self.passes[self.sequence(inner, flags, loop)].append((loop, None))
            return self.new(before=loop)
        end = self.new(before=at)
        for _ in range(most - least):
            at = self.sequence(inner, flags, self.new(before=at))
            self.passes[at].append((end, None))
        return end

    def step(self, member_I2: tuple, at: int) -> int:
        end = self.new()
        self.steps[at].append((self.sets.setdefault(member_I2, len(self.sets)), end))
        return end


_SET_FLAGS = re.IGNORECASE | re.ASCII | re.DOTALL | re.UNICODE


@functools.cache
def _every_character() -> str:
    return np.arange(UNITS, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")


@functools.lru_cache(maxsize=1 << 10)
def _members(kind, value, flags: int) -> tuple[tuple[int, int], ...]:
    """The intervals of the characters that one item matches: the runs that `re` itself finds among all characters in order."""
    if kind is op.LITERAL and not flags & re.IGNORECASE:
        return ((value, value),)
    state = _parser.State()
    state.flags = int(flags)
    item = _parser.SubPattern(state, [(kind, list(value) if kind is op.IN else value)])
    runs = _compiler.compile(_parser.SubPattern(state, [(op.MAX_REPEAT, (1, op.MAXREPEAT, item))]))
    return tuple((found.start(), found.end() - 1) for found in runs.finditer(_every_character()))


def _refusal(pattern: str, what: str, spelled: str) -> ValueError:
    place = next((f" at place {found.start()}" for found in _token.finditer(pattern) if re.match(spelled, found[0])), "")
    return ValueError(f"regex {_short(pattern)}: {what}{place} is more than a table of states can do; write the pattern without it")


def _determined(parts: _Parts, end: int) -> Automaton:
    """The subset construction; a state is a set of 4 * part + what must follow."""
    bound_I, class_I, classes = _partition([*parts.sets])
    newline = classes[0][0]
    pairs = [[(c, target) for s, target in steps for c in classes[s]] for steps in parts.steps]
    first = _closure(parts, frozenset((0,)), _START, end)
    place = {first: 0}
    closed: dict[tuple[frozenset[int], int], frozenset[int]] = {}
    members, edges, work = [first], [], 0
    for q, inside in enumerate(members):  # grows
        moves: dict[int, set[int]] = {}
        for element in inside:
            part, follows = element >> 2, element & 3
            work += len(pairs[part])
            for c, target in pairs[part]:
                if follows == _FREE:
                    moves.setdefault(c, set()).add(target << 2)
                elif c == newline and follows != _EMPTY:
                    moves.setdefault(c, set()).add(target << 2 | (_EMPTY if follows == _LAST_LINE else _FREE))
        for c, reached in moves.items():
            key = (frozenset(reached), _NEW_LINE if c == newline else _INSIDE)
            if key not in closed:
                closed[key] = _closure(parts, *key, end)
                work += 4 * len(closed[key])
            target = place.setdefault(closed[key], len(members))
            if target == len(members):
                members.append(closed[key])
            edges.append((q, c, target))
        if len(members) > STATES:
            raise _too_large(parts.pattern, "states", STATES)
        if work > WORK:
            raise _too_large(parts.pattern, "steps of building", WORK)
    edge_EX = np.array(edges, np.int64).reshape(-1, 3)
    accepting_Q = np.array([any(element >> 2 == end for element in inside) for inside in members])
    return of_moves(bound_I, class_I, minimal.Moves(accepting_Q, *edge_EX.T))


def _closure(parts: _Parts, elements: frozenset[int], before: int, end: int) -> frozenset[int]:
    """All that is reached without taking a unit, as far as it takes one then or is the end."""
    found, waiting = set(elements), [*elements]
    while waiting:
        element = waiting.pop()
        for target, anchor in parts.passes[element >> 2]:
            follows = _through(anchor, element & 3, before)
            if follows is not None and target << 2 | follows not in found:
                found.add(target << 2 | follows)
                waiting.append(target << 2 | follows)
    return frozenset(element for element in found if parts.steps[element >> 2] or element >> 2 == end)


def _through(anchor, follows: int, before: int) -> int | None:
    """What must follow once an anchor is passed; None where it does not hold."""
    if anchor is None:
        return follows
    if anchor in (op.AT_BEGINNING, op.AT_BEGINNING_STRING):
        return follows if before == _START else None
    if anchor is op.AT_BEGINNING_LINE:
        return follows if before != _INSIDE else None
    if anchor is op.AT_END_STRING or follows == _EMPTY:
        return _EMPTY
    if anchor is op.AT_END or follows == _LAST_LINE:
        return _LAST_LINE
    return _LINE_END


def _partition(sets: list[tuple]) -> tuple[np.ndarray, np.ndarray, list[list[int]]]:
    """Intervals in which all units are alike to all sets, their classes, and the classes of each set."""
    bound_I = np.unique([0, *(bound for member_I2 in sets for low, high in member_I2 for bound in (low, high + 1))])
    inside_SI = np.zeros((len(sets), len(bound_I)), bool)
    for inside_I, member_I2 in zip(inside_SI, sets, strict=True):
        for low, high in member_I2:
            inside_I[np.searchsorted(bound_I, low) : np.searchsorted(bound_I, high + 1)] = True
    known: dict[bytes, int] = {}
    class_I = np.array([known.setdefault(column.tobytes(), len(known)) for column in np.ascontiguousarray(inside_SI.T)])
    return bound_I, class_I, [np.unique(class_I[inside_I]).tolist() for inside_I in inside_SI]
