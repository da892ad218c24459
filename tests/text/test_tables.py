"""Tables over tokens against what `decode` and `re.fullmatch` say of every short sequence of tokens."""

import itertools
import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxgen.text import build, bytepair, comb, minimal, spacing, tables, wordpiece

END = "<|endoftext|>"
CONTROL = ("[PAD]", "[UNK]", "[SEP]", "\u2028")


def grown(*merges: str) -> bytepair.BytePair:
    pairs = tuple(tuple(merge.split(" ")) for merge in merges)
    made = dict.fromkeys("".join(pair) for pair in pairs)
    return bytepair.BytePair((*bytepair.alphabet(), *made, END), pairs)


BYTES = grown("t h", "Ġ th", "Ġth e", "th e", "a a", "aa a", "1 2", "ä »", "ä» Ĭ", "ä»Ĭ å", "å ¤", "Ċ Ċ", '" :', "Ġ a")
# What decides about blanks: words, continuations, signs of every kind, quotations, addresses, numbers, contractions, ideographs.
PIECES = (
    *("a", "b", "ab", "the", "##a", "##b", "##ab", "s", "##s", "re", "r", "##e", "##hare", "t", "l", "##l"),
    *("1", "23", "##4", ".", ",", ":", "/", "##.", "'", '"', "@", "-", "(", ")", "[", "]", "!", "##!", "##'", '##"'),
    *("今", "天", "年代", "##今", "。", "“", "·", "a'", "1.", "##1:", "x:", ":/", "##"),
)
WORDS = wordpiece.WordPiece((*CONTROL, *PIECES, "##\u2028"))
PATTERNS = [
    *(".{1,5}", "[^ ]+", "[a-z ]+", r"\w+( \w+)*", r"[0-9.,:/ ]+", r".*'s.*", ".* .*", "(ab|a b)+"),
    *(r'("[^"]*"|[^"])*', ".*[今天].?", "a.b?|b ?.a", r"\S+ \S+ .", "(?i)A[' ].*"),
]


def accepted(table: tables.Table, ids) -> bool:
    state = 0
    for i in ids:
        state = table.after(state, i)
        if state < 0:
            return False
    return bool(table.left_Q[state] == 0)


def check_all(text, pattern, ids, longest) -> int:
    """Every sequence of these ids, up to a length: accepted if and only if its text matches; the number of those that are."""
    wanted = {s for n in range(1, longest + 1) for s in itertools.product(ids, repeat=n) if fits(pattern, text, s)}
    banned = [i for i in range(len(text)) if i not in ids]
    try:
        table = tables.constraint(text, regex=pattern, banned=banned)
    except ValueError as error:
        assert not wanted and ("make a text that matches" in str(error) or "only the empty" in str(error))
        return 0
    for n in range(1, longest + 1):
        for sequence in itertools.product(ids, repeat=n):
            assert accepted(table, sequence) == (sequence in wanted), ([text.tokens[i] for i in sequence], text.decode(sequence))
    for sequence in wanted:
        assert table.left_Q[0] <= len(sequence)
    return len(wanted)


def fits(pattern, text, ids) -> bool:
    if text.kind == "bytepair":
        try:
            b"".join(text.shown[i] for i in ids).decode()
        except UnicodeDecodeError:
            return False
    elif any(text.joints[i] is None for i in ids):
        return False
    return re.fullmatch(pattern, text.decode(ids)) is not None


@given(picked=st.lists(st.sampled_from(PIECES), min_size=2, max_size=7, unique=True), pattern=st.sampled_from(PATTERNS))
@settings(max_examples=100, deadline=None)
def test_pieces_are_let_through_if_and_only_if_their_text_matches(picked, pattern):
    check_all(WORDS, pattern, [WORDS.tokens.index(piece) for piece in picked], 4)


@pytest.mark.nightly
@given(picked=st.lists(st.sampled_from(PIECES), min_size=3, max_size=8, unique=True), pattern=st.sampled_from(PATTERNS))
@settings(max_examples=1000, deadline=None)
def test_pieces_are_let_through_if_and_only_if_their_text_matches_at_length(picked, pattern):
    check_all(WORDS, pattern, [WORDS.tokens.index(piece) for piece in picked], 4)


@pytest.mark.parametrize("pattern", [*PATTERNS[:4], "(今|天)+", "[^今]+", r"\s?the.*", "[今-夯]{1,2}", 'a{2,5}":', r"\d{1,3}\n*"])
def test_bytes_are_let_through_if_and_only_if_their_text_matches(pattern):
    shown = ["a", "aa", "aaa", " a", " the", "1", "12", "\n\n", '":', "今"]
    cut = [b"\xe4", b"\xe4\xbb", b"\x8a", b"\xe4\xbb\x8a\xe5", b"\xa4", b"\xa9", b"\xe5\xa4"]
    ids = [BYTES.shown.index(data) for data in [*map(str.encode, shown), *cut]]
    assert check_all(BYTES, pattern, ids, 4) > 0


@pytest.mark.parametrize("text", [WORDS, BYTES], ids=lambda text: text.kind)
def test_choices_are_let_through_however_they_are_cut(text):
    choices = ["ab", "a b", "the a", "今天", "今"]
    table = tables.constraint(text, choices=choices)
    ids = [i for i in range(len(text)) if (text.kind == "wordpiece" and text.joints[i]) or (text.kind == "bytepair" and text.shown[i])]
    found = {""}
    reached = [(0, ())]
    for _ in range(8):
        reached = [(q, (*sequence, i)) for state, sequence in reached for i in ids if (q := table.after(state, i)) >= 0]
        found |= {text.decode(sequence) for state, sequence in reached if table.left_Q[state] == 0}
    assert found == {"", *choices} and not reached


@given(pattern=st.sampled_from([*PATTERNS, "[a-z]{3}[0-9]{2}", "(今天|天)+。"]), seed=st.integers(0, 10_000))
@settings(max_examples=200, deadline=None)
def test_a_walk_that_heeds_the_tokens_left_ends_in_a_match(pattern, seed):
    draw = random.Random(seed)
    for text in (WORDS, BYTES):
        table = tables.constraint(text, regex=pattern)
        assert 0 < table.left_Q.max() < tables.NEVER
        budget, state, ids = int(table.left_Q[0]) + draw.randrange(6), 0, []
        while table.left_Q[state] or draw.random() < 0.7:
            room = budget - len(ids) - 1
            allowed = [i for i in range(len(text)) if (q := table.after(state, i)) >= 0 and table.left_Q[q] <= room]
            if not allowed:
                break
            ids.append(draw.choice(allowed))
            state = table.after(state, ids[-1])
        assert len(ids) <= budget and re.fullmatch(pattern, text.decode(ids)), text.decode(ids)


def test_tokens_without_text_are_never_let_through():
    for text in (WORDS, BYTES):
        table = tables.constraint(text, regex="(?s).+", banned=[text.tokens.index("a")])
        silent = [*text.control.values(), text.tokens.index("a")]
        silent += [text.tokens.index(t) for t in ("\u2028", "##\u2028") if t in text.tokens]
        assert not table.class_V[silent].any() and all(table.after(q, i) < 0 for q in range(len(table.left_Q)) for i in silent)
        assert table.after(0, len(text) + 5) < 0


STOPS = [["a"], ["今天"], [" a", "b 今"], ["it's", "s "], ["ab", "b"], ["\n\n"], ["1.2", ": "], ["the' share"], ["aa", "天"], ['" a']]


@given(strings=st.sampled_from(STOPS), ids=st.lists(st.sampled_from(range(len(WORDS) + 2)), max_size=14), cut=st.integers(0, 5))
@settings(max_examples=600, deadline=None)
def test_a_stop_table_hits_once_a_string_stands_in_the_pieces(strings, ids, cut):
    check_stop(WORDS, strings, ids[:cut], ids[cut:])


SHOWN = [*range(256, len(BYTES) + 2), *(BYTES.shown.index(bytes([b])) for b in b"ab12\n\xe4\xbb\x8a\xe5\xa4\xa9 ")]


@given(strings=st.sampled_from(STOPS), ids=st.lists(st.sampled_from(SHOWN), max_size=14), cut=st.integers(0, 5))
@settings(max_examples=600, deadline=None)
def test_a_stop_table_hits_once_a_string_stands_in_the_bytes(strings, ids, cut):
    check_stop(BYTES, strings, ids[:cut], ids[cut:])


def check_stop(text, strings, before, ids):
    table = tables.stop(text, strings, after=before)
    stream, written, state = text.stream(before), "", 0
    for i in ids:
        written += stream.push(i)
        state = table.after(state, i)
        assert (table.left_Q[state] == 0) == any(s in written for s in strings), written
        if table.left_Q[state] == 0:
            assert all(table.after(state, other) < 0 for other in range(len(text)))
            return


@given(ids=st.lists(st.integers(0, len(WORDS) - 1), max_size=25), cut=st.integers(0, 25))
@settings(max_examples=500, deadline=None)
def test_a_stream_with_the_memory_of_another_goes_on_like_it(ids, cut):
    first, second = WORDS.stream(), WORDS.stream()
    for i in ids[:cut]:
        first.push(i)
    second.remember(first.memory)
    for i in ids[cut:]:
        assert first.push(i) == second.push(i) and first.memory == second.memory
    assert first.finish() == second.finish()


def test_pieces_of_one_habit_move_a_stream_alike():
    text = build.vocabulary(["今天天气不错科学空间"], size=400)
    pairs = [f"{a}{b}" for a in "x1.:/'" for b in "y2.:/']"]
    text = wordpiece.WordPiece(tuple(dict.fromkeys((*text.tokens, *PIECES, *pairs))))
    alike: dict[tuple, list[int]] = {}
    for i, joint in enumerate(text.joints):
        if joint is not None:
            alike.setdefault(spacing.habit(joint), []).append(i)
    memories = {text.stream().memory}
    for _ in range(3):
        for memory, members in itertools.product([*memories], alike.values()):
            after = set()
            for i in (members[0], members[-1], members[len(members) // 2]):
                stream, own = text.stream(), text.joints[i].text
                stream.remember(memory)
                given = stream.push(i)
                after.add((stream.memory, given.removesuffix(own) if stream.memory.held is None else given))
            assert len(after) == 1, (memory, [text.tokens[i] for i in members[:5]])
            memories.add(after.pop()[0])
    assert len(memories) > 60


def test_a_second_request_is_answered_from_memory_and_memory_is_bounded():
    text = grown("a a")
    first = tables.constraint(text, regex="a+")
    assert tables.constraint(text, regex="a+") is first
    assert tables.stop(text, ["a"], after=[1]) is tables.stop(text, ["a"], after=[5, 6])
    for n in range(1, 70):
        tables.constraint(text, regex=f"a{{{n}}}")
    assert len(text.tables) <= 66 and tables.constraint(text, regex="a+") is not first


@pytest.mark.parametrize("text", [WORDS, BYTES], ids=lambda text: text.kind)
@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "wanted one of the two"),
        ({"regex": "a", "choices": ["a"]}, "wanted one of the two"),
        ({"regex": 5}, "got int, wanted a pattern"),
        ({"choices": []}, "choices: got none, wanted at least one text"),
        ({"choices": ["a", ""]}, "choices: got an empty text among them"),
        ({"choices": "ab"}, "wanted a list of texts"),
        ({"choices": ["a", 3]}, "wanted a list of texts"),
        ({"regex": "()"}, "only the empty text matches"),
        ({"regex": "a^b"}, "make a text that matches"),
        ({"regex": "[ab]{30}", "budget": (20, 99, 9999)}, r"31 states, \d+ classes of tokens, wanted at most 20 states, 99 classes"),
        (
            {"regex": "[ab]{30}", "budget": (40, 99, 50)},
            "cells, wanted at most 40 states, 99 classes of tokens, 50 cells; use smaller repeat",
        ),
        ({"choices": ["a" * 50], "budget": (20, 99, 9999)}, "choices, 1 texts: .* wanted at most 20 states.* offer fewer"),
        ({"regex": r"(?=a)a"}, "a look-around at place 0"),
        ({"choices": ["\ud800"]}, "half a surrogate pair"),
        ({"regex": "\ud800+"}, "make a text that matches"),
    ],
)
def test_what_cannot_be_a_constraint_is_refused(text, asked, message):
    with pytest.raises(ValueError, match=message):
        tables.constraint(text, **asked)


def test_what_the_vocabulary_cannot_write_is_refused():
    with pytest.raises(
        ValueError, match="no tokens of this vocabulary of 54 make a text that matches; it knows no capital letters; blanks"
    ):
        tables.constraint(WORDS, regex="A+")
    with pytest.raises(ValueError, match="1 tokens are banned; change the pattern"):
        tables.constraint(BYTES, regex="b+", banned=[BYTES.tokens.index("b")])
    assert tables.unwritable(WORDS, ["a", "A", "今  天", "今天", "\n"]) == ("A", "今  天", "\n")
    assert tables.unwritable(BYTES, ["A", "\n ", "天"]) == ()
    with pytest.raises(ValueError, match="before anything is merged"):
        tables.constraint(WORDS, regex=".{1,900}")


@given(seed=st.integers(0, 10_000), rows=st.integers(1, 400), columns=st.integers(1, 700))
@settings(max_examples=40, deadline=None)
def test_a_comb_holds_a_table(seed, rows, columns):
    draw = np.random.default_rng(seed)
    density = np.minimum(1, draw.exponential(0.05, size=(rows, 1)))
    table_QC = np.where(draw.random((rows, columns)) < density, draw.integers(0, rows, (rows, columns)), -1)
    row_E, column_E = np.nonzero(table_QC >= 0)
    found = comb.packed(row_E, column_E, table_QC[row_E, column_E], (rows, columns))
    cell_QC = found.base_Q[:, None] + np.arange(columns)[None]
    inside_QC = cell_QC < len(found.owner_L)
    cell_QC = np.minimum(cell_QC, len(found.owner_L) - 1)
    held_QC = inside_QC & (found.owner_L[cell_QC] == np.arange(rows)[:, None]) if len(found.owner_L) else inside_QC
    assert (np.where(held_QC, found.value_L[cell_QC], -1) == table_QC).all() if len(found.owner_L) else (table_QC < 0).all()


@given(seed=st.integers(0, 10_000))
@settings(max_examples=100, deadline=None)
def test_a_small_automaton_is_the_least_and_says_the_same(seed):
    draw = random.Random(seed)
    states, symbols = draw.randrange(1, 9), draw.randrange(1, 4)
    edges = [(q, s, draw.randrange(states)) for q in range(states) for s in range(symbols) if draw.random() < 0.7]
    accepting = [draw.random() < 0.4 for _ in range(states)]
    moves = minimal.Moves(np.array(accepting), *np.array(edges, np.int64).reshape(-1, 3).T)
    trimmed = minimal.trimmed(moves)
    found = minimal.small(trimmed, symbols)
    next_QC, go = found.dense(), {(q, s): t for q, s, t in edges}

    def says(word) -> bool:
        q = 0
        for s in word:
            q = go.get((q, s), -1) if q >= 0 else -1
        return q >= 0 and accepting[q]

    def small_says(word) -> bool:
        q = 0 if len(next_QC) else -1
        for s in word:
            q = next_QC[q, found.class_S[s]] if q >= 0 else -1
        return bool(q >= 0 and found.moves.accepting_Q[q])

    words = [w for n in range(7) for w in itertools.product(range(symbols), repeat=n)]
    assert all(says(word) == small_says(word) for word in words)
    tails = [w for n in range(5) for w in itertools.product(range(symbols), repeat=n)]
    futures = {tuple(says((*word, *tail)) for tail in tails) for word in words if len(word) < 3}
    assert len(next_QC) >= len({f for f in futures if any(f)})
