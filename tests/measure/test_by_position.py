"""Likelihood by place, against counting by hand."""

import struct

import numpy as np
import pytest

from flaxgen.measure import by_position


def test_tokens_are_counted_where_they_stand_and_the_first_of_a_text_is_not():
    # Places 1 2 3 4 5 of one text, 1 2 of another; pieces of three places.
    curve = by_position.curve([-np.array([1.0, 2, 3, 4, 5]), -np.array([3.0, 6])], 3)
    assert curve.count_E.tolist() == [4, 3]
    np.testing.assert_allclose(curve.nats_E, [(1 + 2 + 3 + 6) / 4, (3 + 4 + 5) / 3])
    np.testing.assert_allclose(curve.perplexity_E, np.exp(curve.nats_E))


def test_a_curve_equals_a_count_by_dictionary_on_random_texts():
    noise = np.random.default_rng(5)
    texts = [-noise.random(length) for length in (1, 17, 40, 3, 0)]
    sums: dict[int, list[float]] = {}
    for text in texts:
        for place, value in enumerate(text, 1):
            sums.setdefault(place // 7, []).append(-value)
    curve = by_position.curve(texts, 7)
    assert curve.count_E.tolist() == [len(sums[piece]) for piece in range(6)]
    np.testing.assert_allclose(curve.nats_E, [np.mean(sums[piece]) for piece in range(6)])


def test_single_precision_is_summed_in_double():
    curve = by_position.curve([np.full(300_000, -0.1, np.float32)], 1 << 20)
    np.testing.assert_allclose(curve.nats_E, np.float32(0.1), rtol=1e-12)


def test_the_table_has_a_line_a_piece_and_a_dash_where_a_curve_ends():
    curves = {"plain": by_position.curve([-np.array([1.0, 2])], 2), "sliding": by_position.curve([-np.array([1.0, 2, 2, 2])], 2)}
    assert by_position.table(curves).split("\n") == [
        "places  tokens  plain, nats  perplexity  sliding, nats  perplexity",
        "   0–1       1        1.000         2.7          1.000         2.7",
        "   2–3       1        2.000         7.4          2.000         7.4",
        "   4–5       1            –           –          2.000         7.4",
    ]


def test_a_piece_of_the_width_one_at_place_0_holds_nothing():
    curve = by_position.curve([-np.array([1.0, 2])], 1)
    assert curve.count_E.tolist() == [0, 1, 1] and np.isnan(curve.nats_E[0])
    assert by_position.table({"plain": curve}).split("\n")[1].split() == ["0–0", "0", "–", "–"]


def test_the_picture_is_a_png_of_its_size(tmp_path):
    pytest.importorskip("matplotlib")
    curves = {name: by_position.curve([-np.arange(1.0, 9)], 2) for name in ("hierarchical", "sliding")}
    by_position.draw(curves, tmp_path / "new" / "longer.png", trained=4)
    raw = (tmp_path / "new" / "longer.png").read_bytes()
    assert raw[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", raw[16:24]) == (936, 494)


@pytest.mark.parametrize("width", [0, -1, 2.0, True, None])
def test_a_width_that_is_no_number_of_places_is_refused(width):
    with pytest.raises(ValueError, match="wanted a whole number of places"):
        by_position.curve([np.zeros(3)], width)


def test_no_tokens_and_infinite_ones_are_refused():
    with pytest.raises(ValueError, match="no token to count"):
        by_position.curve([np.zeros(0)], 3)
    with pytest.raises(FloatingPointError, match="1 of 2 log-probabilities"):
        by_position.curve([np.array([-1.0, -np.inf])], 3)


def test_curves_of_unequal_pieces_are_not_put_side_by_side():
    with pytest.raises(ValueError, match="2 curves of widths"):
        by_position.table({"a": by_position.curve([np.zeros(3)], 2), "b": by_position.curve([np.zeros(3)], 3)})
