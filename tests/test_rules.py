"""What a Rule may hold, how one becomes a Rule a row, and which fields contradict each other."""

import pytest

from flaxgen import rules


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": "hot"},
        {"top_p": 1.5},
        {"top_k": 2.5},
        {"top_k": -1},
        {"top_p": float("nan")},
        {"top_p": [0.5, 0.6]},
    ],
)
def test_a_rule_out_of_range_is_refused_by_its_field(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        rules.spread(rules.Rule(**wrong), 3)
