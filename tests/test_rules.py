"""What a Rule may hold, how one becomes a Rule a row, and which fields contradict each other."""

import json
import re

import numpy as np
import pytest

from flaxgen import rules


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": "hot"},
        {"temperature": True},
        {"temperature": None},
        {"top_p": 1.5},
        {"top_p": float("nan")},
        {"top_p": [0.5, 0.6]},
        {"top_p": []},
        {"top_k": 2.5},
        {"top_k": -1},
        {"top_k": 2**40},
        {"min_p": -0.1},
        {"min_p": 1.01},
        {"typical_p": 2},
        {"repetition_penalty": 0},
        {"repetition_penalty": -1.0},
        {"presence_penalty": float("inf")},
        {"frequency_penalty": float("nan")},
        {"no_repeat_ngram": -1},
        {"no_repeat_ngram": 1.0},
        {"min_tokens": -1},
        {"max_tokens": 0},
        {"max_tokens": [3, None, 4]},
        {"min_ends": 0},
        {"logit_bias": [(1, 2.0)]},
        {"logit_bias": {1: float("nan")}},
        {"logit_bias": {1: float("inf")}},
        {"logit_bias": {1: True}},
        {"logit_bias": {1.5: 1.0}},
        {"logit_bias": {-1: 1.0}},
        {"ban": 5},
        {"ban": [-1]},
        {"ban": [True]},
        {"ban": [[]]},
        {"ban": [[1, 2.5]]},
        {"ban": [""]},
        {"ban": [[1, "a"]]},
        {"end": 3},
        {"end": ["a"]},
        {"end": "a"},
        {"stop": [""]},
        {"stop": ""},
        {"stop": [3]},
        {"stop": None},
        {"regex": 3},
        {"choices": "yes"},
        {"choices": []},
        {"choices": ["yes", ""]},
        {"choices": [3]},
        {"choices": ["a", "\ud800"]},
        {"stop": ["\udc00a"]},
    ],
    ids=str,
)
def test_a_rule_out_of_range_is_refused_by_its_field(wrong):
    with pytest.raises(ValueError, match=rf"^(Rule\()?{next(iter(wrong))}"):
        rules.spread(rules.Rule(**wrong), 3)


def test_an_error_says_what_was_given_and_wanted():
    with pytest.raises(ValueError, match=re.escape("Rule(temperature=-1): wanted a number from 0.0 to 10000.0")):
        rules.Rule(temperature=-1).check()
    with pytest.raises(
        ValueError, match=re.escape("Rule(top_k=[1, 2]): wanted a whole number from 0 to 2147483647, or one for each of the 3")
    ):
        rules.spread(rules.Rule(top_k=[1, 2]), 3)


@pytest.mark.parametrize(
    ("fields", "both"),
    [
        ({"min_tokens": 5, "max_tokens": 4}, ("min_tokens=5", "max_tokens=4")),
        ({"regex": "a", "choices": ["a"]}, ("regex", "choices")),
        ({"regex": "a", "min_tokens": 1}, ("regex", "min_tokens=1")),
        ({"choices": ["a"], "min_tokens": 1}, ("choices", "min_tokens=1")),
        ({"regex": "a", "min_ends": 2}, ("regex", "min_ends=2")),
        ({"regex": "a", "no_repeat_ngram": 2}, ("regex", "no_repeat_ngram=2")),
        ({"regex": "a+", "stop": ["a"]}, ("regex", "stop=('a',)", "use one of the two")),
        ({"choices": ["a"], "stop": "b"}, ("choices", "stop=('b',)", "use one of the two")),
        ({"choices": ["a"], "ban": [[1, 2]]}, ("choices", "ban", "[1, 2]")),
    ],
    ids=str,
)
def test_two_fields_that_contradict_each_other_are_both_named(fields, both):
    with pytest.raises(ValueError) as refused:
        rules.Rule(**fields).check()
    assert all(name in str(refused.value) for name in both)


def test_one_rule_becomes_a_rule_a_row_of_plain_numbers():
    rule = rules.Rule(temperature=[0, 1, 0.5], top_k=np.array([3, 4, 5]), min_p=0.25, ban=[np.int64(3), [1, 2], "ab"], stop="x", end=[])
    found = rules.spread(rule, 3)
    assert [one.temperature for one in found] == [0, 1, 0.5] and [one.top_k for one in found] == [3, 4, 5]
    assert {one.min_p for one in found} == {0.25} and {one.ban for one in found} == {((3,), (1, 2), "ab")}
    assert found[0].stop == ("x",) and found[0].end == () and found[0].max_tokens is None
    assert rules.spread(found, 3) == found


def test_a_list_of_rules_is_one_a_row():
    with pytest.raises(ValueError, match=r"got 2 of Rule, wanted .* a list of 3"):
        rules.spread([rules.Rule(), rules.Rule()], 3)
    with pytest.raises(ValueError, match="dict"):
        rules.spread([rules.Rule(), {}], 2)


def test_a_rule_changes_into_another_and_stays_as_it_was():
    rule = rules.Rule(top_k=3)
    assert rule.replace(top_p=0.5) == rules.Rule(top_k=3, top_p=0.5) and rule == rules.Rule(top_k=3)
    with pytest.raises(TypeError, match="mood"):
        rule.replace(mood=1)


def test_fields_come_back_from_json_as_they_were():
    fields = {"top_p": np.float32(0.5), "top_k": [3], "max_tokens": None, "ban": [np.int64(3), [1, 2], "ab"], "end": (2,), "stop": "x"}
    fields |= {"logit_bias": {5: 1.5, "5": -np.inf, np.int64(6): 2}}
    held = json.loads(json.dumps(rules.as_json(fields), allow_nan=False))
    found = rules.spread(rules.of_json(held), 1)
    assert found == rules.spread(rules.Rule(**fields), 1) and found[0].logit_bias == {5: 1.5, "5": -np.inf, 6: 2}
    assert rules.as_json({"top_p": 0.95}) == {"top_p": 0.95} and rules.as_json(None) is None
    assert rules.of_json({"logit_bias": {"5": 1.5}}) == rules.Rule(logit_bias={"5": 1.5})
