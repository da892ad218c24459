"""Tables on the device against the tables of text.tables, and walks that end in a match."""

import itertools
import random
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen import automata
from flaxgen.text import bytepair, tables, wordpiece

MERGES = (("t", "h"), ("th", "e"), ("a", "a"), ("1", "2"), ("ä", "»"), ("ä»", "Ĭ"))
BYTES = bytepair.BytePair((*bytepair.alphabet(), *map("".join, MERGES), "<|endoftext|>"), MERGES)
WORDS = wordpiece.WordPiece(("[PAD]", "[UNK]", *"ab1.'今天", "the", "##a", "##1", "s", "##hare"))
VOCAB = len(BYTES) + 5


def rows():
    return [
        tables.constraint(BYTES, regex="[a-z]{2,9}"),
        None,
        tables.constraint(WORDS, regex="(a|今| )+"),
        tables.constraint(BYTES, choices=["the", "12", "今"]),
        tables.stop(BYTES, ["aa", "今"]),
    ]


def test_the_device_says_what_the_tables_say():
    given = automata.stacked(rows(), VOCAB)
    allowed, walk = jax.jit(automata.allowed), jax.jit(automata.walk)
    made = [automata.NEUTRAL if row is None else row for row in rows()]
    tokens = (0, 5, *WORDS.control.values(), len(WORDS) - 1, 256, len(BYTES) - 1, VOCAB - 1)
    for state in range(max(len(row.left_Q) for row in made)):
        state_B = np.array([min(state, len(row.left_Q) - 1) for row in made], np.int32)
        after_BV = np.array([[row.after(q, token) for token in range(VOCAB)] for q, row in zip(state_B, made, strict=True)])
        left_BV = np.stack([row.left_Q[after_V] for after_V, row in zip(after_BV, made, strict=True)])
        for left in (0, 1, 3, 50):
            allowed_BV, accepting_B = allowed(given, state_B, jnp.full((5,), left))
            np.testing.assert_array_equal(allowed_BV, (after_BV >= 0) & (left_BV <= left))
        assert accepting_B.tolist() == [row.left_Q[q] == 0 for q, row in zip(state_B, made, strict=True)]
        for token in tokens:
            walked_B = walk(given, state_B, jnp.full((5,), token))
            np.testing.assert_array_equal(walked_B, np.where(after_BV[:, token] >= 0, after_BV[:, token], state_B))


def test_nothing_may_follow_where_a_choice_is_complete_or_a_stop_string_stands():
    given = automata.stacked(rows(), VOCAB)
    state_B = jnp.zeros(5, jnp.int32)
    assert not automata.over(given, state_B, jnp.full_like(state_B, 9)).any() and not automata.hit(given, state_B).any()
    for token in BYTES.encode("aa") * 2:
        state_B = automata.walk(given, state_B, jnp.full((5,), token))
    assert automata.hit(given, state_B).tolist() == [False, False, False, False, True]
    (the,) = BYTES.encode("the")
    assert automata.over(given, automata.walk(given, jnp.zeros(5, jnp.int32), jnp.full((5,), the)), jnp.full((5,), 9)).tolist() == [
        False,
        False,
        False,
        True,
        False,
    ]


def test_tables_of_one_bucket_compile_once():
    compiled = jax.jit(automata.allowed)
    before = compiled._cache_size()
    for pattern in ("a+", "[ab]{3}", "b.?", "(the )*"):
        given = automata.stacked([tables.constraint(BYTES, regex=pattern), None], VOCAB)
        compiled(given, jnp.zeros(2, jnp.int32), jnp.full((2,), 9))
    assert compiled._cache_size() == before + 1


def test_a_bucket_can_be_asked_for_and_what_does_not_fit_is_refused():
    long = tables.constraint(BYTES, regex="[a-z]{70}")
    assert automata.bucket([None]) == automata.BUCKETS[0] and automata.bucket([None, long]) == automata.BUCKETS[1]
    assert automata.stacked([None], VOCAB, size=automata.BUCKETS[1]).left_BQ.shape == (1, automata.BUCKETS[1][0])
    with pytest.raises(ValueError, match=r"got a table of \(71, "):
        automata.stacked([long], VOCAB, size=automata.BUCKETS[0])
    with pytest.raises(ValueError, match=f"over {len(BYTES)} tokens, wanted at most .* over 50"):
        automata.stacked([long], 50)
    with pytest.raises(ValueError, match="wanted at most"):
        automata.bucket([long._replace(left_Q=np.zeros(1 << 15, np.int32))])


def answers(text, patterns, seed) -> list[tuple[str, str]]:
    """(pattern, answer) of each pattern that the vocabulary can write, drawn from random logits, with few tokens to spare."""
    made = []
    for pattern in patterns:
        try:
            made.append((pattern, tables.constraint(text, regex=pattern)))
        except ValueError as error:
            assert re.search("make a text that matches|only the empty text|is the most there may be", str(error)), error
    room = np.array([table.left_Q[0] + n % 5 for n, (_, table) in enumerate(made)])
    given, end = automata.stacked([table for _, table in made], VOCAB, size=automata.BUCKETS[1]), VOCAB - 1
    state_B, drawn, key = jnp.zeros(len(made), jnp.int32), [], jax.random.key(seed)
    for count in range(room.max(initial=0)):
        token_B, state_B = _draw(given, state_B, room - count - 1, jax.random.fold_in(key, count))
        drawn.append(token_B)
    rows = zip(made, room, np.stack(drawn, 1).tolist(), strict=True) if drawn else ()
    return [(pattern, text.decode([*itertools.takewhile(lambda i: i != end, ids[:most])])) for (pattern, _), most, ids in rows]


@jax.jit
def _draw(given, state_B, left_B, key):
    allowed_BV, accepting_B = automata.allowed(given, state_B, left_B)
    logit_BV = 3 * jax.random.normal(key, allowed_BV.shape)
    token_B = jnp.argmax(jnp.where(allowed_BV.at[:, -1].set(accepting_B), logit_BV, -jnp.inf), axis=1)
    return token_B, automata.walk(given, state_B, token_B)


@pytest.mark.parametrize("text", [BYTES, WORDS], ids=lambda text: text.kind)
def test_random_logits_steered_by_a_table_end_in_a_match_when_tokens_run_short(text):
    patterns = ["[ab1.]{3,8}", "(?:[12]+[.'])+a", r"(?:今|天| ?\w)+", ".{2,7}", "the.*", "a", r"[^\n]*'s[^\n]*"]
    for pattern, answer in answers(text, patterns, 0) + answers(text, patterns[::-1], 1):
        assert re.fullmatch(pattern, answer), (pattern, answer)


def random_pattern(draw: random.Random, depth: int = 3) -> str:
    if depth == 0 or draw.random() < 0.3:
        atoms = [
            "a",
            "b",
            "1",
            "the",
            "今",
            "天",
            ".",
            r"\w",
            r"\d",
            "[ab1]",
            "[^a今]",
            " ",
            "'s",
            r"[.\s]",
            "(?i:S)",
            "aa",
            r"\.",
            "[今-夯]",
        ]
        return draw.choice(atoms)
    inner = [random_pattern(draw, depth - 1) for _ in range(draw.randrange(1, 4))]
    joined = "".join(inner) if draw.random() < 0.6 else f"(?:{'|'.join(inner)})"
    return f"(?:{joined}){draw.choice(['*', '+', '?', '{2}', '{1,3}', '{,2}', '+?'])}" if draw.random() < 0.5 else joined


@pytest.mark.parametrize("count", [24, pytest.param(200, marks=pytest.mark.nightly), pytest.param(2000, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("text", [BYTES, WORDS], ids=lambda text: text.kind)
def test_random_logits_steered_by_random_patterns_end_in_a_match(text, count):
    draw, drawn = random.Random(count), 0
    for seed in range(count // 8):
        for pattern, answer in answers(text, [random_pattern(draw) for _ in range(8)], seed):
            assert re.fullmatch(pattern, answer), (pattern, answer)
            drawn += 1
    assert drawn > count / 2
