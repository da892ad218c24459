"""Automata of patterns against `re.fullmatch`, on random patterns and random texts, and what is refused."""

import random
import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flaxgen.text import automaton, regular, utf8

LETTERS = "abAk1 \n今é\u212a😀ſ_"

items = st.one_of(
    st.sampled_from(
        ["a", "b", "k", "今", "é", ".", r"\d", r"\w", r"\s", r"\W", "[ab]", "[^a]", "[a-k今]", r"[\s1]", r"[^\w\n]", "😀", r"\n", "^", "$"]
    ),
    st.sampled_from([r"\A", r"\Z", "(?:)", "ab", "[^\n今]", r"\S", r"\D", "s"]),
)
patterns = st.recursive(
    items,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["*", "+", "?", "*?", "+?", "??", "{2}", "{1,3}", "{0,2}?", "{,2}", "{2,}"])).map(
            lambda p: f"(?:{p[0]}){p[1]}"
        ),
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3).map("|".join),
        inner.map(lambda p: f"({p})"),
        inner.map(lambda p: f"(?P<n{abs(hash(p))}>{p})").filter(lambda p: _whole(p)),
        st.tuples(st.sampled_from(["i", "s", "m", "a", "-i", "-s", "s-i", "a-i"]), inner).map(lambda p: f"(?{p[0]}:{p[1]})"),
    ),
    max_leaves=7,
)
flags = st.sampled_from(["", "", "(?i)", "(?a)", "(?s)", "(?m)", "(?im)", "(?x)", "(?ia)"])
texts = st.lists(st.text(LETTERS, max_size=5), min_size=8, max_size=8)


def _whole(pattern):
    try:
        return re.compile(pattern)
    except re.error:
        return False


def matches(found, text, units):
    if not len(found.next_QC):
        return False
    state = found.walk(0, automaton.units(text, units))
    return state >= 0 and bool(found.accepting_Q[state])


@given(flag=flags, pattern=patterns, texts=texts)
@settings(max_examples=400, deadline=None)
@example(flag="", pattern="a$\n", texts=["a\n", "a", "\n"])
@example(flag="(?m)", pattern="(?:^a$\n?)*", texts=["a\na", "a\na\n", "aa", "a\n\n", ""])
@example(flag="", pattern="(?:a|b$|\n)*", texts=["ab\n", "b\n", "b\na", "b\n\n"])
@example(flag="(?i)", pattern="[^k]ss", texts=["ass", "kſs", "\u212ass", "aſS"])
def test_an_automaton_accepts_what_fullmatch_matches(flag, pattern, texts):
    check(flag + pattern, texts)


@pytest.mark.nightly
@given(flag=flags, pattern=patterns, texts=texts)
@settings(max_examples=10_000, deadline=None)
def test_an_automaton_accepts_what_fullmatch_matches_at_length(flag, pattern, texts):
    check(flag + pattern, texts)


def check(pattern, texts):
    if not _whole(pattern):
        return
    for units in ("characters", "bytes"):
        found = regular.compiled(pattern, units)
        for text in texts + [t[:i] for t in texts[:2] for i in range(len(t))]:
            assert matches(found, text, units) == (re.fullmatch(pattern, text) is not None), (units, text)


@given(flag=flags, pattern=patterns, seed=st.integers(0, 99))
@settings(max_examples=200, deadline=None)
def test_every_way_through_an_automaton_is_a_match(flag, pattern, seed):
    if not _whole(flag + pattern):
        return
    found, draw = regular.compiled(flag + pattern, "characters"), random.Random(seed)
    unit_of = {c: int(found.bound_I[found.class_I == c][0]) for c in set(found.class_I.tolist())}
    state, text = 0, ""
    for _ in range(12):
        if not len(found.next_QC):
            return
        if found.accepting_Q[state]:
            assert re.fullmatch(flag + pattern, text)
        open_C = np.flatnonzero(found.next_QC[state] >= 0)
        if not open_C.size:
            return
        c = draw.choice(open_C.tolist())
        state, text = int(found.next_QC[state, c]), text + chr(unit_of[c])


@pytest.mark.parametrize(
    "pattern", [r"\w", r"\d", r"\s", ".", "(?s).", r"(?i)[k-sß]", r"[^\W\d_]", "[\u0780-\u07ff\uffff\U00010000-\U00010fff]"]
)
def test_bytes_spell_just_the_characters_of_a_class(pattern):
    found = regular.compiled(pattern, "bytes")
    for number in [*range(0x3000), *range(0x3000, 0x110000, 61), 0xFFFF, 0x10000, 0x10FFFF]:
        if not 0xD800 <= number < 0xE000:
            assert matches(found, chr(number), "bytes") == (re.fullmatch(pattern, chr(number)) is not None), hex(number)


def test_bytes_that_are_no_character_are_never_accepted():
    found = regular.compiled("(?s).+", "bytes")
    draw = random.Random(0)
    heads = [
        b"",
        b"\xc0",
        b"\xc1",
        b"\xe0\x80",
        b"\xe0\x9f",
        b"\xed\xa0",
        b"\xed\xbf",
        b"\xf0\x80",
        b"\xf0\x8f\xbf",
        b"\xf4\x90",
        b"\xf5",
        b"\xff",
    ]
    for _ in range(4000):
        data = draw.choice(heads) + bytes(
            draw.choice([draw.randrange(256), draw.randrange(0x80, 0xC0)]) for _ in range(draw.randrange(1, 4))
        )
        try:
            valid = bool(data.decode())
        except UnicodeDecodeError:
            valid = False
        state = found.walk(0, [*data])
        assert (state >= 0 and bool(found.accepting_Q[state])) == valid, data


def test_equal_languages_have_equal_automata():
    for one, other in [("(a|b)*", "[ab]*"), ("a{2,}|a", "a+"), ("(ab|ac)d", "a[bc]d"), ("x?x?x?", "x{0,3}")]:
        first, second = regular.compiled(one, "characters"), regular.compiled(other, "characters")
        assert first.next_QC.shape == second.next_QC.shape and (first.accepting_Q == second.accepting_Q).all()
    assert regular.compiled(".{1,40}", "characters").next_QC.shape == (41, 2)
    assert len(regular.compiled("(a|b)*a(a|b){4}", "bytes").next_QC) == 2**5


@pytest.mark.parametrize(
    ("pattern", "what"),
    [
        (r"(a)\1", "a back-reference at place 3"),
        (r"(?P<x>a)(?P=x)", "a back-reference at place 8"),
        (r"\\1[(?=](?=b)", "a look-around at place 8"),
        (r"a(?<=a)", "a look-around at place 1"),
        (r"a(?!b)", "a negative look-around at place 1"),
        (r"[\b](?<!b)", "a negative look-around at place 4"),
        (r"a \bc", "a word boundary at place 2"),
        (r"a\B", "a word boundary at place 1"),
        (r"a*+b", "a possessive repeat at place 1"),
        (r"\++a{1,2}+", "a possessive repeat at place 4"),
        (r"(?>a)b", "an atomic group at place 0"),
        (r"(a)?(?(1)b|c)", r"a conditional group at place 4"),
        ("(a", "missing .*, unterminated subpattern at position 0; `re` does not take it either"),
        ("[b-a]", "bad character range b-a at position 1"),
        ("(" * 5000 + ")" * 5000, "nested too deeply"),
        ("(a|b)*a(a|b){30}", "reached 16,384 states and was not done"),
        ("(?:){99999999}", "reached 65,536 parts"),
        ("((a{1,999}){1,999}){1,999}", "reached 65,536 parts"),
        (".{0,3000}.{0,3000}.{0,3000}", "reached .* steps of building"),
    ],
)
def test_what_no_table_can_do_is_refused_by_name_and_place(pattern, what):
    with pytest.raises(ValueError, match=what):
        regular.compiled(pattern, "characters")


def test_a_pattern_that_nothing_matches_has_no_states():
    assert len(regular.compiled("a^b", "characters").next_QC) == 0
    assert len(regular.compiled(r"[^\s\S]", "bytes").next_QC) == 0
    assert len(regular.compiled("[\ud800-\udfff]", "bytes").next_QC) == 0


@given(members=st.lists(st.tuples(st.integers(0, 0x10FFFF), st.integers(0, 0x10FFFF)), max_size=3), seed=st.integers(0, 999))
@settings(max_examples=200, deadline=None)
def test_a_tree_of_bytes_holds_just_its_characters(members, seed):
    members = [(min(pair), max(pair)) for pair in members]
    member = [pair for i, pair in enumerate(sorted(members)) if i == 0 or pair[0] > max(p[1] for p in sorted(members)[:i])]
    draw, root = random.Random(seed), utf8.tree(tuple((low, high, label) for label, (low, high) in enumerate(member)))
    numbers = [n for pair in members for n in (*pair, pair[0] - 1, pair[1] + 1)] + [draw.randrange(0x110000) for _ in range(20)]
    for number in (n for n in numbers if 0 <= n < 0x110000 and not 0xD800 <= n < 0xE000):
        node = root
        for byte in chr(number).encode():
            node = next((below for low, high, below in node or () if low <= byte <= high), None)
        assert node == next((label for label, (low, high) in enumerate(member) if low <= number <= high), None)


def test_texts_listed_and_texts_held():
    for units in ("characters", "bytes"):
        found = automaton.listed(["今天", "今", "abc", "abd"], units)
        assert [matches(found, t, units) for t in ["今", "今天", "abc", "abd", "ab", "", "天", "abcd"]] == [True] * 4 + [False] * 4
        held = automaton.holding(["aba", "b今", "bb"], units)
        for text in ("", "aba", "xabab", "ab今", "abb", "ab", "b天今", "ababa今"):
            assert matches(held, text, units) == any(s in text for s in ("aba", "b今", "bb"))
