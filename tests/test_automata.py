"""Tables on the device against the tables of text.tables, and walks that end in a match."""

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
    deepest = max(len(row.left_Q) for row in rows() if row is not None)
    for state in range(deepest):
        state_B = jnp.array([min(state, 0 if row is None else len(row.left_Q) - 1) for row in rows()])
        for left in (0, 1, 3, 50):
            allowed_BV, accepting_B = automata.allowed(given, state_B, jnp.full((5,), left))
            for b, row in enumerate(rows()):
                if row is None:
                    assert allowed_BV[b].all() and accepting_B[b]
                    continue
                after_V = np.array([row.after(int(state_B[b]), token) for token in range(VOCAB)])
                np.testing.assert_array_equal(allowed_BV[b], (after_V >= 0) & (row.left_Q[after_V] <= left))
                assert accepting_B[b] == (row.left_Q[state_B[b]] == 0)
                for token in (0, 5, *WORDS.control.values(), len(WORDS) - 1, 256, len(BYTES) - 1, VOCAB - 1):
                    token_B = jnp.full((5,), token)
                    walked = int(automata.walk(given, state_B, token_B)[b])
                    assert walked == (after_V[token] if after_V[token] >= 0 else state_B[b])


def test_nothing_may_follow_where_a_choice_is_complete_or_a_stop_string_stands():
    given = automata.stacked(rows(), VOCAB)
    state_B = jnp.zeros(5, jnp.int32)
    assert not automata.over(given, state_B).any() and not automata.hit(given, state_B).any()
    for token in BYTES.encode("aa") * 2:
        state_B = automata.walk(given, state_B, jnp.full((5,), token))
    assert automata.hit(given, state_B).tolist() == [False, False, False, False, True]
    (the,) = BYTES.encode("the")
    assert automata.over(given, automata.walk(given, jnp.zeros(5, jnp.int32), jnp.full((5,), the))).tolist() == [
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


@pytest.mark.parametrize("text", [BYTES, WORDS], ids=lambda text: text.kind)
@pytest.mark.parametrize("pattern", ["[ab1.]{3,8}", "(?:[12]+[.'])+a", r"(?:今|天| ?\w)+", ".{2,7}", "the.*"])
def test_random_logits_steered_by_a_table_end_in_a_match_when_tokens_run_short(text, pattern):
    table = tables.constraint(text, regex=pattern)
    batch, room = 6, int(table.left_Q[0]) + np.array([0, 1, 2, 5, 9, 0])
    given = automata.stacked([table] * batch, VOCAB)
    end = VOCAB - 1

    @jax.jit
    def draw(key, state_B, count):
        allowed_BV, accepting_B = automata.allowed(given, state_B, room - count - 1)
        logit_BV = jnp.where(allowed_BV.at[:, end].set(accepting_B), jax.random.normal(key, (batch, VOCAB)), -jnp.inf)
        token_B = jnp.argmax(logit_BV, axis=1)
        return token_B, automata.walk(given, state_B, token_B)

    state_B, drawn = jnp.zeros(batch, jnp.int32), []
    for count in range(room.max()):
        token_B, state_B = draw(jax.random.key(count), state_B, count)
        drawn.append(token_B)
    for b, ids in enumerate(np.stack(drawn, 1).tolist()):
        ids = ids[: room[b]]
        answer = text.decode(ids[: ids.index(end)] if end in ids else ids)
        assert re.fullmatch(pattern, answer), answer
