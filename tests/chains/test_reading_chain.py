"""The reader's chains against the original procedure in plain numpy, its recorded answers, and what they promise."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest
import reading_plainly as plain
from hypothesis import given, settings
from hypothesis import strategies as st

import flaxgen
from convert import command
from flaxgen import automata, loop, weights
from flaxgen.chains import reading, reading_at_once
from flaxgen.models import config as sizes
from flaxgen.models import transformer
from flaxgen.text import factors, wordpiece

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
KEY = jax.random.key(7)
END, MASK = 3, 4
HEADS, ROOM, WIDTH = 3, 5, 19
TINY = sizes.Config(23, 32, 18, 2, HEADS, 20, "post", "gelu", epsilon=1e-12, segments=2, outputs=("mlm",), application="unilm")
MODEL = transformer.Transformer(TINY)
ENCODER = transformer.Transformer(dataclasses.replace(TINY, application="encoder"))


def tree(seed: int, towards_end: float = 0.0, config=TINY):
    """Random parameters; the larger `towards_end`, the likelier is [SEP]."""
    noise = np.random.default_rng(seed)
    made = {name: noise.normal(name.endswith("scale"), 0.5, shape).astype(np.float32) for name, shape in config.shapes().items()}
    made["mlm/bias"][END] += towards_end
    return made


def asked(noise, count: int):
    """Some questions of up to three passages, as `plain.prefixes` has them."""

    def tokens(low, high):
        return noise.integers(5, 12, noise.integers(low, high)).tolist()

    found = []
    for _ in range(count):
        question = plain.cut(tokens(1, 4), 6)[1:]
        found.append([(plain.cut(tokens(0, 11), 12), question) for _ in range(noise.integers(1, 4))])
    return found


def prompt(questions, mode, *, passages=3, room=ROOM, width=WIDTH, vocab=23, size=(96, 64, 1 << 13), row=lambda p, q: [*p, *q]):
    token_BPT, length_BP = np.zeros((len(questions), passages, width), np.int32), np.zeros((len(questions), passages), np.int32)
    for b, rows in enumerate(questions):
        for p, (passage, question) in enumerate(rows):
            ids = row(passage, question)
            token_BPT[b, p, : len(ids)], length_BP[b, p] = ids, len(ids)
    made = reading.Prompt(token_BPT, length_BP, np.full(len(questions), room, np.int32), None, None)
    if mode == "generative":
        return made
    found = [factors.factors([passage[1:-1] for passage, _ in rows] + [()] * (passages - len(rows))) for rows in questions]
    holds_BQP = np.zeros((len(questions), size[0], passages), bool)
    for b, each in enumerate(found):
        holds_BQP[b, : len(each.holds_QP)] = each.holds_QP
    return made.replace(runs=automata.stacked([each.table for each in found], vocab, size=size), holds_BQP=holds_BQP)


def answers(made, questions, mode="extractive", beams=3, keep="caches", model=MODEL, **how):
    chain = reading.Reading(model, END, mode, beams, ROOM, keep)
    return loop.generate(chain, weights.nest(made), KEY, prompt(questions, mode, **how), steps=ROOM)


def test_votes_are_those_of_the_article():
    shares = [[0.9, 0.0, 0.0], [0.9, 0.1, 0.0], [0.9, 0.9, 0.0], [0.9, 0.1, 0.9]]
    remain_BP = np.array([[True, True, True]] * 3 + [[True, True, False]])
    vote_BRV = reading.vote(np.array(shares, np.float32)[:, None, :, None], remain_BP)
    np.testing.assert_allclose(vote_BRV[:, 0, 0], [0.42631579, 0.41, 0.57857143, 0.41], rtol=1e-6)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    target = tmp_path_factory.mktemp("reader") / "model"
    assert command.main([str(GOLDEN / "bert4keras" / "bert_unilm"), str(target)]) == 0
    model, params, _ = flaxgen.load(target, application="unilm")
    text = wordpiece.WordPiece.load(GOLDEN / "decode" / "reader_vocab.txt")
    return model, params, text, json.loads((GOLDEN / "decode" / "reader_bert_unilm.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("beams", [1, 2, 3])
@pytest.mark.parametrize(("mode", "name"), [("extractive", "extractive"), ("generative", "abstractive")])
def test_the_answers_are_those_of_bert4keras(original, mode, name, beams):
    model, params, text, recorded = original
    cases = [case for case in recorded["cases"] if (case["mode"], case["topk"]) == (name, beams)]
    chain = reading.Reading(model, END, mode, beams, recorded["max_a_len"])
    for case in cases:
        flat = weights.flatten(params)
        flat["mlm/bias"] = flat["mlm/bias"].at[END].add(case["sep_logit_bias"])
        rows = plain.prefixes(text.encode, case["question"], case["passages"], recorded["max_p_len"], recorded["max_q_len"])
        room = recorded["max_a_len"]
        start = prompt([rows], mode, passages=4, room=room, width=52, vocab=len(text), size=(320, 131, 1 << 17))
        found = loop.generate(chain, weights.nest(flat), KEY, start, steps=room)
        assert text.decode(found.rows()[0]) == case["answer"]
    assert len(cases) > 1


@pytest.mark.parametrize(("mode", "beams"), [("extractive", 3), ("generative", 3)])
def test_answers_scores_and_dismissals_are_those_of_the_plain_procedure(mode, beams):
    noise = np.random.default_rng(5)
    dismissed = ended = 0
    for seed in range(5):
        made, questions = tree(seed, 2 * seed), asked(noise, 3)
        found = answers(made, questions, mode, beams)
        for b, rows in enumerate(questions):
            score, tokens, left = plain.seek(plain.unilm(made, HEADS), rows, mode, beams, ROOM)
            assert found.rows()[b] == tokens
            assert np.flatnonzero(found.remain_BP[b]).tolist() == left
            np.testing.assert_allclose(found.score_B[b], score, atol=2e-4)
            dismissed += len(rows) - len(left)
            ended += len(tokens) < ROOM
    assert 3 < dismissed < 20 and ended > 2 and found.done_B.all()


def test_passages_alone_find_the_answer_as_probable_as_they_do_in_plain_numpy():
    made = tree(3)
    (rows,) = asked(np.random.default_rng(1), 1)
    found = answers(made, [rows] * 3)
    predict, tokens = plain.unilm(made, HEADS), found.rows()[0]
    for p, (passage, question) in enumerate(rows):
        each = [predict([*passage, *question], tokens[:n])[token] for n, token in enumerate(tokens)]
        np.testing.assert_allclose(found.log_prob_BP[0, p], np.log(each).sum(), atol=1e-3)
        np.testing.assert_allclose(found.silence_BP[0, p], predict([*passage, *question], [])[END], rtol=1e-3)


@pytest.mark.parametrize("position", ["learned", "rotary", pytest.param("relative", marks=pytest.mark.nightly)])
def test_kept_caches_change_no_answer(position):
    noise, model = np.random.default_rng(8), transformer.Transformer(dataclasses.replace(TINY, position=position))
    for seed in range(3):
        made, questions = tree(seed, seed, model.config), asked(noise, 3)
        one, other = (answers(made, questions, keep=keep, model=model) for keep in ("caches", "nothing"))
        assert one.rows() == other.rows()
        np.testing.assert_allclose(one.score_B, other.score_B, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.floats(-2, 3))
def test_an_extractive_answer_stands_whole_in_a_passage_that_was_not_dismissed(seed, towards_end):
    questions = asked(np.random.default_rng(seed), 3)
    found = answers(tree(seed % 1000, towards_end), questions)
    for tokens, rows, remain_P in zip(found.rows(), questions, found.remain_BP, strict=True):
        run = tokens[:-1] if tokens[-1] == END else tokens
        heard = [passage[1:-1] for (passage, _), heard in zip(rows, remain_P, strict=False) if heard]
        assert END not in run
        assert not run or any(row[i : i + len(run)] == run for row in heard for i in range(len(row)))


def test_where_all_passages_are_dismissed_the_answer_is_empty_and_certain():
    found = answers(tree(1, 50.0), asked(np.random.default_rng(2), 3))
    assert found.rows() == [[END]] * 3 and not found.remain_BP.any()
    np.testing.assert_array_equal(found.score_B, 0)


def test_passages_and_questions_that_are_not_there_change_nothing():
    made, noise = tree(2), np.random.default_rng(6)
    (rows,) = asked(noise, 1)
    together = answers(made, [rows, *asked(noise, 2)])
    alone = answers(made, [rows, [], []])
    assert alone.rows()[0] == together.rows()[0] and alone.rows()[1:] == [[END]] * 2


def test_what_the_model_cannot_read_is_refused():
    questions, params = asked(np.random.default_rng(2), 3), weights.nest(tree(0))
    chain = reading.Reading(MODEL, END, "extractive", 2, ROOM)

    def refused(message, start=None, chain=chain, steps=ROOM):
        with pytest.raises(ValueError, match=message):
            loop.generate(chain, params, KEY, prompt(questions, "extractive") if start is None else start, steps=steps)

    whole = prompt(questions, "extractive")
    refused("'encoder'; a reader wants", chain=reading.Reading(ENCODER, END))
    refused("beams=23: wanted 1 to 22", chain=reading.Reading(MODEL, END, "extractive", 23, ROOM))
    refused("end=23: wanted the id of", chain=reading.Reading(MODEL, 23, "extractive", 1, ROOM))
    refused("without runs; make the prompt for this mode", prompt(questions, "generative"))
    refused("answers of up to 5 tokens in steps=3", steps=3)
    refused("wanted 0 to 19, the padded width", whole.replace(length_BP=whole.length_BP + 20))
    refused("the model has ids 0 to 22", whole.replace(token_BPT=whole.token_BPT + 20))
    refused("limits run from 0 to 0 tokens; wanted 1 to room=5", whole.replace(limit_B=np.zeros(3, int)))
    refused("wanted [(]B, P, T[)]", whole.replace(length_BP=whole.length_BP[0]))
    refused("wanted 1 to 2 for each question", whole.replace(beams_B=np.array([1, 2, 3])))
    refused("runs over 30 tokens", prompt(questions, "extractive", vocab=30))
    longer = prompt(questions, "extractive", width=40)
    refused("the model has 32 positions: cut them", longer.replace(length_BP=np.full((3, 3), 30)))


def test_weights_that_give_no_numbers_are_an_error():
    made = tree(0)
    made["embed/segment/embedding"][1] = np.nan  # the answer's tokens alone
    with pytest.raises(FloatingPointError, match="question 0: the model's logits are not finite"):
        answers(made, asked(np.random.default_rng(3), 3))


def test_answers_at_once_are_those_of_the_plain_procedure():
    noise, room = np.random.default_rng(9), 4
    chain = reading_at_once.AtOnce(ENCODER, END, "extractive", room)

    def row(passage, question):
        return [passage[0], *[MASK] * room, END, *question, *passage[1:]]

    whole = 0
    for seed in range(4):
        made, questions = tree(seed, seed / 2), asked(noise, 3)
        start = prompt(questions, "extractive", width=24, room=room, row=row)
        found = loop.generate(chain, weights.nest(made), KEY, start, steps=1)
        for b, rows in enumerate(questions):
            wanted = plain.at_once(made, HEADS, rows, room, MASK)
            assert found.rows()[b][: len(rows)] == [tokens for tokens, _ in wanted]
            np.testing.assert_allclose(found.score_BP[b, : len(rows)], [score for _, score in wanted], rtol=2e-3)
            whole += sum(len(tokens) > 2 for tokens, _ in wanted)
    assert whole > 3


def test_passages_elect_the_answer_of_the_most_votes():
    assert reading_at_once.elect(["a", "b", "", "b"], [0.9, 0.6, 1.0, 0.6]) == ("a", pytest.approx(0.81 / 1.9))
    assert reading_at_once.elect(["a", "b", "b"], [0.7, 0.7, 0.7])[0] == "b"
    assert reading_at_once.elect(["", ""], [0.9, 0.9]) == ("", 0.0)


def test_answers_at_once_refuse_what_they_cannot_read():
    questions, params = asked(np.random.default_rng(2), 3), weights.nest(tree(0))
    for message, chain in (
        ("'unilm'; answers at once want", reading_at_once.AtOnce(MODEL, END, "extractive", 4)),
        ("rows of 19 tokens for answers of 19", reading_at_once.AtOnce(ENCODER, END, "extractive", 19)),
        ("end=-1: wanted", reading_at_once.AtOnce(ENCODER, -1, "extractive", 4)),
        ("with runs; make the prompt", reading_at_once.AtOnce(ENCODER, END, "generative", 4)),
    ):
        start = prompt(questions, "extractive", room=1)
        with pytest.raises(ValueError, match=message):
            loop.generate(chain, params, KEY, start, steps=1)
