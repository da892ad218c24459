import numpy as np
import pytest

from flaxgen.measure import perplexity, trigram

TRAIN = [[0, 1, 2, 3], [0, 1, 2, 4], [2, 1, 0, 3], [0, 1, 3, 4]] * 5
DEV = [[0, 1, 2, 4], [2, 1, 0, 4], [1, 0, 3]]


def test_probabilities_of_all_tokens_sum_to_one_after_any_context():
    model = trigram.Trigram.fit(TRAIN, DEV, vocab=6)
    for context in ([0, 1], [5, 5], [3, 0]):
        log_prob = [model.log_prob([[*context, w]])[-1] for w in range(6)]
        np.testing.assert_allclose(np.exp(log_prob).sum(), 1, rtol=1e-9)


def test_each_part_is_the_counted_ratio():
    model = trigram.Trigram.fit(TRAIN, DEV, vocab=6)
    chance_NC, _ = model._parts([[0, 1, 2]])
    wanted = [1 / 6, sum(text.count(2) for text in TRAIN) / 80, 10 / 20, 10 / 15]
    np.testing.assert_allclose(chance_NC[2], wanted)


def test_em_finds_better_weights_than_equal_ones():
    model = trigram.Trigram.fit(TRAIN, DEV, vocab=6)
    equal = trigram.Trigram(6, model.grams, np.full_like(model.weight, 0.25))
    assert perplexity.perplexity(model.log_prob(DEV)) < perplexity.perplexity(equal.log_prob(DEV))
    np.testing.assert_allclose(model.weight.sum(axis=1), 1)


def test_the_first_token_of_a_text_is_not_counted():
    model = trigram.Trigram.fit(TRAIN, DEV, vocab=6)
    assert len(model.log_prob([[0, 1, 2], [3, 4]])) == 3


def test_an_order_of_memory_is_learnt():
    rng = np.random.default_rng(0)
    texts = [[int(a), int(b), int((a + b) % 7)] for a, b in rng.integers(7, size=(400, 2))]
    model = trigram.Trigram.fit(texts[:300], texts[300:350], vocab=7)
    assert np.exp(-model.log_prob(texts[350:])[1::2].mean()) < 1.5


def test_no_texts_are_refused():
    with pytest.raises(ValueError, match="wanted at least one"):
        trigram.Trigram.fit([], DEV, vocab=6)
