"""Learning to answer: the loss, what does not count, and a tiny T5 that learns to turn its sources round."""

import dataclasses

import jax
import numpy as np
import pytest

from flaxgen import loop, rules
from flaxgen.chains import seq2seq as answering
from flaxgen.models import t5, t5_config
from flaxgen.tasks import seq2seq
from train import optimizers
from train import step as steps

SIZES = t5_config.Config(17, 14, 1, 3, 4, 20, "gated_gelu", "own", buckets=8, distance=11, dropout=0.0, start=2)
TIED = dataclasses.replace(SIZES, activation="relu", head="tied")
SOURCES = [[5, 9, 3, 14], [7, 4], [11, 6, 16]]
ANSWERS = [[*source[::-1], 1] for source in SOURCES]


def made(config, **changes):
    task = seq2seq.Seq2Seq(t5.T5(config), **changes)
    return task, jax.jit(task.init)(jax.random.key(0))


@pytest.mark.parametrize("config", [SIZES, TIED], ids=["own", "tied"])
def test_the_loss_is_the_mean_over_the_answers_alone(config):
    task, params = made(config)
    given = seq2seq.batch(SOURCES, ANSWERS, config.start)
    loss, (carry, facts) = jax.jit(task.loss)(params, (), jax.random.key(1), given)
    wanted = []
    forward = jax.jit(task.model.apply)
    for source, answer in zip(SOURCES, ANSWERS, strict=True):
        pad = 4 - len(source)
        logit_BTV, _ = forward(
            params, np.array([[*source, *[0] * pad]]), np.array([[2, *answer[:-1], *[0] * pad]]), valid_BT=np.arange(4)[None] < len(source)
        )
        log_prob_TV = jax.nn.log_softmax(logit_BTV[0])
        wanted += [-log_prob_TV[place, token] for place, token in enumerate(answer)]
    assert carry == () and facts["weight"] == len(wanted) == 12
    np.testing.assert_allclose(loss, np.mean(wanted), rtol=1e-5)


def test_chunks_of_the_vocabulary_and_bfloat16_give_about_the_same():
    task, params = made(TIED)
    given = seq2seq.batch(SOURCES, ANSWERS, 2)
    whole = jax.jit(task.nats)(params, given)
    np.testing.assert_allclose(jax.jit(dataclasses.replace(task, chunks=5).nats)(params, given), whole, atol=1e-5)
    np.testing.assert_allclose(jax.jit(dataclasses.replace(task, dtype="bfloat16").nats)(params, given), whole, atol=0.2)


def test_a_batch_begins_with_the_start_and_weighs_the_answers():
    given = seq2seq.batch([[5, 6], [7]], [[8, 9, 1], [1]], 0)
    assert given["source_BT"].tolist() == [[5, 6], [7, 0]] and given["valid_BT"].tolist() == [[True, True], [True, False]]
    assert given["token_BT"].tolist() == [[0, 8, 9], [0, 1, 0]] and given["target_BT"].tolist() == [[8, 9, 1], [1, 0, 0]]
    assert given["weight_BT"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_it_learns_to_turn_its_sources_round():
    """With dropout; its first ten losses are pinned, and the chain says in the end what was learnt."""
    task = seq2seq.Seq2Seq(t5.T5(dataclasses.replace(SIZES, dropout=0.05)))
    rule = optimizers.build("adamw", steps=150, rate=8e-3, warmup=5, decay=0.0, clip=1.0)
    given, losses = seq2seq.batch(SOURCES, ANSWERS, 2), []
    state = steps.start(task, rule, jax.random.key(0))
    for _ in range(120):
        state, facts = steps.update(task, rule, state, jax.random.key(1), given)
        losses.append(float(facts["loss"]))
    assert losses[-1] < 0.1
    np.testing.assert_allclose(losses[:10], PINNED, rtol=1e-4)
    chain, begun = answering.plan(task.model, SOURCES, room=8, end=[1], rule=rules.Rule(temperature=0))
    assert loop.generate(chain, state.params, jax.random.key(0), begun, steps=8).rows() == ANSWERS


PINNED = [3.050626, 3.117325, 2.914693, 2.573455, 2.35542, 2.207795, 1.780363, 1.739454, 1.483347, 1.425021]


@pytest.mark.parametrize(("sources", "answers"), [([[1]], []), ([], []), ([[1], []], [[1], [1]]), ([[1]], [[]])])
def test_sources_and_answers_that_do_not_pair_are_refused(sources, answers):
    with pytest.raises(ValueError, match="wanted as many"):
        seq2seq.batch(sources, answers, 0)
    with pytest.raises(ValueError, match="dtype='float16'"):
        seq2seq.Seq2Seq(t5.T5(SIZES), "float16")
    with pytest.raises(ValueError, match="chunks=18"):
        seq2seq.Seq2Seq(t5.T5(SIZES), chunks=18)
