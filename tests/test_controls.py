"""Rules as arrays: families, buckets, and what a rule cannot mean with a vocabulary, a length or a model's own tokens."""

import jax
import numpy as np
import pytest

from flaxgen import automata, controls, rules
from flaxgen.text import wordpiece

VOCAB = 9
TEXT = wordpiece.WordPiece(("[PAD]", "[UNK]", "[END]", "a", "b", "##a", "##b", "天", "地"), end=(2,))


def made(*each: rules.Rule, limit=5, **wishes) -> controls.Controls:
    return controls.controls(each, vocab=VOCAB, limit=limit, **wishes)


@pytest.mark.parametrize(
    ("rule", "family"),
    [
        ({"temperature": 0.5, "top_k": 3, "top_p": 0.9, "min_tokens": 2, "max_tokens": 3, "min_ends": 2, "end": [3]}, "plain"),
        ({"logit_bias": {3: 1.0}, "ban": [4, [5]]}, "plain"),
        ({"min_p": 0.1}, "full"),
        ({"typical_p": [1, 0.5]}, "full"),
        ({"repetition_penalty": 1.1}, "full"),
        ({"presence_penalty": -1}, "full"),
        ({"frequency_penalty": 1}, "full"),
        ({"no_repeat_ngram": 2}, "full"),
        ({"ban": [[3, 4]]}, "full"),
        ({"ban": "ab"}, "full"),
        ({"stop": ["a"]}, "constrained"),
        ({"regex": "a"}, "constrained"),
        ({"choices": ["a"]}, "constrained"),
    ],
    ids=str,
)
def test_the_family_is_the_least_that_holds_the_rules(rule, family):
    assert controls.family([*rules.spread(rules.Rule(), 2), *rules.spread(rules.Rule(**rule), 2)]) == family


def test_a_family_narrower_than_the_rules_is_refused():
    assert made(rules.Rule(), family="full").full is not None
    with pytest.raises(ValueError, match="family='plain': wanted 'full'"):
        made(rules.Rule(min_p=0.5), family="plain")


def test_rows_hold_their_own_numbers_and_every_leaf_begins_with_rows():
    one = rules.Rule(temperature=0.5, max_tokens=3, end=[7, 8], ban=[[3, 4], 5], logit_bias={6: 2.0})
    found = made(one, rules.Rule(min_p=0.25), limit=[4, 5], end=[2], ban=[0, 1])
    assert {len(leaf) for leaf in jax.tree.leaves(found)} == {2}
    assert found.temperature_B.tolist() == [0.5, 1] and found.limit_B.tolist() == [3, 5] and found.full.min_p_B.tolist() == [0, 0.25]
    assert found.end_BE.tolist() == [[7, 8, -1, -1], [2, -1, -1, -1]]
    assert found.full.ban_BEN[0, 0].tolist() == [-1] * 6 + [3, 4] and (found.full.ban_BEN[1] == -1).all()
    bias_BV = np.asarray(controls.bias(found, VOCAB))
    assert bias_BV[0].tolist() == [-np.inf, -np.inf, 0, 0, 0, -np.inf, 2, 0, 0] and np.isinf(bias_BV[1]).nonzero()[0].tolist() == [0, 1]


def test_lists_of_any_length_fall_into_few_buckets():
    wide = controls.controls([rules.Rule(logit_bias=dict.fromkeys(range(17), 1.0), end=range(5))], vocab=50, limit=5)
    assert wide.bias_id_BE.shape == (1, 64) and wide.end_BE.shape == (1, 8)
    assert controls.bias(wide, 50).sum() == 17
    shapes = {made(rules.Rule(ban=[[3] * 2] * count)).full.ban_BEN.shape for count in range(1, 33)}
    assert shapes == {(1, 8, 8), (1, 32, 16)}
    assert made(rules.Rule(ban=[[3] * 9])).full.ban_BEN.shape == (1, 32, 16)
    for ban in ([[3] * 33], [[3] * 2] * 129):
        with pytest.raises(ValueError, match="at most 128 of at most 32"):
            made(rules.Rule(ban=ban))


def test_texts_become_the_tokens_they_are():
    found = made(rules.Rule(ban=["天", "ab"], logit_bias={"地": -1.0}), text=TEXT)
    assert found.full.ban_BEN[0, 0].tolist() == [-1] * 6 + [3, 6]
    assert controls.bias(found, VOCAB)[0].tolist() == [0, 0, 0, 0, 0, 0, 0, -np.inf, -1]


def test_an_end_that_a_rule_names_is_not_among_what_the_model_never_says():
    found = made(rules.Rule(end=[1]), end=[2], ban=[0, 1])
    assert np.isinf(controls.bias(found, VOCAB)[0]).nonzero()[0].tolist() == [0]


@pytest.mark.parametrize(
    ("rule", "wishes", "words"),
    [
        ({"min_tokens": 6}, {}, "min_tokens=6.*tokens=5"),
        ({}, {"limit": 0}, "tokens=0"),
        ({}, {"limit": [1, 2]}, "tokens="),
        ({}, {"limit": 2.5}, "tokens=2.5"),
        ({"end": [VOCAB]}, {}, "end: token id 9 .* 0 to 8"),
        ({"ban": [VOCAB]}, {}, "ban: token id 9"),
        ({"ban": [[3, VOCAB]]}, {}, "ban: token id 9"),
        ({"logit_bias": {VOCAB: 1.0}}, {}, "logit_bias: token id 9"),
        ({}, {"ban": [-1]}, "ban: token id -1"),
        ({"ban": list(range(VOCAB))}, {}, "all 9 tokens"),
        ({"ban": list(range(2, VOCAB))}, {"ban": [0, 1]}, "all 9 tokens"),
        ({"ban": list(range(1, VOCAB)), "min_tokens": 1}, {"end": [0]}, "min_tokens=1.*all tokens but the ends are banned"),
        ({"min_ends": 2}, {}, "min_ends=2.*no end tokens"),
        ({"min_ends": 2, "ban": [2]}, {"end": [2]}, r"min_ends=2.*\[2\] are all banned"),
        ({"ban": [3], "logit_bias": {3: 1.0}}, {}, "logit_bias.*ban.*token 3"),
        ({"logit_bias": {3: 1.0}}, {"ban": [3]}, "token 3 .* is banned"),
        ({"logit_bias": {"天": 1.0, 7: 2.0}}, {"text": TEXT}, "token 7 is given"),
        ({"logit_bias": {"ab": 1.0}}, {"text": TEXT}, "'ab' is 2 tokens"),
        ({"logit_bias": {"人": 1.0}}, {"text": TEXT}, "cannot spell '人'"),
        ({"ban": [" "]}, {"text": TEXT}, "cannot spell ' '"),
        ({"ban": ["天"]}, {}, r"Rule\(ban=…\) is about text"),
        ({"logit_bias": {"天": 1.0}}, {}, "logit_bias=….*about text"),
        ({"stop": ["天"]}, {}, "stop=….*about text"),
        ({"stop": ["天", "SUN", "a  b"]}, {"text": TEXT}, "vocabulary of 9, which knows no capital letters, make 'SUN', 'a  b'; leave"),
        ({"stop": ["[END]"]}, {"text": TEXT}, "stop.*make '.END.'"),
        ({"regex": "天"}, {}, "regex=….*about text"),
        ({"choices": ["天"]}, {}, "choices=….*about text"),
        ({"choices": ["天"], "ban": ["ab"]}, {"text": TEXT}, r"choices.*ban.*\[3, 6\]"),
    ],
    ids=str,
)
def test_what_a_rule_cannot_mean_here_is_refused_by_name(rule, wishes, words):
    with pytest.raises(ValueError, match=words):
        made(rules.Rule(**rule), **wishes)


def test_among_several_rows_the_wrong_one_is_named():
    with pytest.raises(ValueError, match=r"row 1: Rule\(min_tokens=6\)"):
        made(rules.Rule(), rules.Rule(min_tokens=6))


def test_a_constraint_that_needs_more_tokens_than_there_are_is_refused_with_both_numbers():
    wish = rules.Rule(regex="[天地]{3}(天地){2}")
    assert made(wish, limit=7, text=TEXT).constraint is not None
    with pytest.raises(ValueError, match="needs at least 7 tokens, tokens=5"):
        made(wish, limit=5, text=TEXT)
    with pytest.raises(ValueError, match="needs at least 7 tokens, max_tokens=6"):
        made(wish.replace(max_tokens=6), limit=9, text=TEXT)


def test_tokens_that_are_banned_or_end_the_row_are_no_part_of_a_text_that_must_match():
    for fields, wishes in (({"ban": [7]}, {}), ({"logit_bias": {7: -np.inf}}, {}), ({"end": [7]}, {}), ({}, {"ban": [7]})):
        found = made(rules.Rule(regex="[天地]+", **fields), text=TEXT, **wishes)
        allowed_BV, _ = automata.allowed(found.constraint, np.zeros(1, np.int32), np.full(1, 5, np.int32))
        assert np.flatnonzero(allowed_BV[0]).tolist() == [8]
        with pytest.raises(ValueError, match="tokens are banned"):
            made(rules.Rule(choices=["天", "天天"], **fields), text=TEXT, **wishes)


def test_rows_without_constraint_or_stop_are_neutral_beside_rows_that_have_them():
    found = made(rules.Rule(regex="天+"), rules.Rule(stop=["地"]), rules.Rule(), text=TEXT)
    zero_B, left_B = np.zeros(3, np.int32), np.full(3, 5, np.int32)
    allowed_BV, accepting_B = automata.allowed(found.constraint, zero_B, left_B)
    assert np.flatnonzero(allowed_BV[0]).tolist() == [7] and allowed_BV[1:].all() and accepting_B.tolist() == [False, True, True]
    state_B = automata.walk(found.stop, zero_B, np.full(3, 8, np.int32))
    assert automata.hit(found.stop, state_B).tolist() == [False, True, False]


def test_a_vocabulary_with_reserved_rows_and_a_prompt_are_allowed_for():
    found = controls.controls(
        [rules.Rule(regex="a b"), rules.Rule(stop=[" b"])], vocab=VOCAB + 3, limit=3, text=TEXT, ban=[0, 1, 9, 10, 11], after=[[7], [3]]
    )
    assert found.constraint.class_BV.shape == found.stop.class_BV.shape == (2, VOCAB + 3)
    for rule in ({"stop": ["a"]}, {"regex": "a"}):
        with pytest.raises(ValueError, match=r"over 9 tokens(?s:.)*the model's own tokenizer"):
            controls.controls([rules.Rule(**rule)], vocab=VOCAB - 1, limit=3, text=TEXT)
    state_B = automata.walk(found.stop, np.zeros(2, np.int32), np.full(2, 4, np.int32))
    assert automata.hit(found.stop, state_B).tolist() == [False, True]
