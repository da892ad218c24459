"""exact=True: a request's tokens and log-probabilities have the same bits alone, in any batch, streamed, from a context, guessed or not."""

import random

import pytest

import flaxgen
from tests import writers

NEEDLE = "天地玄黄宇宙洪荒日月盈昃"


@pytest.fixture(scope="module")
def writer():
    return writers.characters(rule=flaxgen.Rule())


def rule_of(noise: random.Random) -> flaxgen.Rule:
    """A random rule of any family."""
    return noise.choice(
        [
            flaxgen.Rule(temperature=noise.uniform(0, 2), top_k=noise.randrange(9)),
            flaxgen.Rule(repetition_penalty=noise.uniform(1, 2), min_p=noise.uniform(0, 0.1)),
            flaxgen.Rule(typical_p=noise.uniform(0.5, 1), no_repeat_ngram=noise.randrange(4)),
            flaxgen.Rule(regex="[天地日月]{3,}。?"),
            flaxgen.Rule(choices=["日月", "天地玄黄", "sunny day"]),
            flaxgen.Rule(stop=["月", "日盈"], logit_bias={7: 2.0}, ban=[9]),
        ]
    )


def crowd(noise: random.Random, rule: flaxgen.Rule):
    """A batch of up to 12 prompts with the needle at a random place: prompts, rules, seeds and the place."""
    rows = noise.randrange(1, 13)
    at = noise.randrange(rows)
    prompts = ["".join(noise.choices(writers.WORDS[5:23], k=noise.randrange(1, 40))) for _ in range(rows)]
    rules, seeds = [rule_of(noise) for _ in range(rows)], [noise.randrange(99) for _ in range(rows)]
    prompts[at], rules[at], seeds[at] = NEEDLE, rule, 7
    return prompts, rules, seeds, at


def found(writing) -> tuple:
    return tuple(writing.tokens), tuple(writing.log_probs)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("batches", [20, pytest.param(1000, marks=pytest.mark.nightly)])
def test_a_request_has_the_same_bits_in_every_batch_and_slot(writer, temperature, batches):
    noise, rule = random.Random(1), flaxgen.Rule(temperature=temperature)
    seen = set()
    for _ in range(batches):
        prompts, rules, seeds, at = crowd(noise, rule)
        seen.add(found(writer.write(prompts, tokens=16, rule=rules, seed=seeds, exact=True)[at][0]))
    assert len(seen) == 1


def test_without_exact_the_bits_depend_on_the_batch(writer):
    noise, seen = random.Random(2), set()
    for rows in (1, 2, 5):
        prompts = [NEEDLE, *("天" * noise.randrange(1, 40) for _ in range(rows - 1))]
        seen.add(found(writer.write(prompts, tokens=16, rule=flaxgen.Rule(temperature=0), seed=7)[0][0]))
    assert len(seen) > 1


def test_the_same_bits_come_streamed_guessed_or_not_from_a_context_and_among_many(writer):
    wishes = {"tokens": 20, "rule": flaxgen.Rule(temperature=1.3), "exact": True, "seed": 7}
    (one,) = writer.write([NEEDLE], **wishes)[0]
    assert "".join(writer.stream(NEEDLE, **wishes)) == one.text
    assert writer.write([NEEDLE], speculate=0, **wishes)[0][0] == one
    many = list(writer.write_many(["日月", NEEDLE, "盈"] * 5, **wishes))
    assert [many[place] for place in (1, 4, 13)] == [one] * 3
    for cut in (1, 5, 11):
        context = writer.read(NEEDLE, after=writer.read(NEEDLE[:cut]))
        assert writer.write([context, "日月"], **wishes)[0][0] == one


def test_samples_are_what_each_alone_would_be(writer):
    wishes = {"tokens": 9, "exact": True, "seed": 3}
    together = writer.write([NEEDLE, "日月"], samples=3, **wishes)
    assert together[0] == writer.write([NEEDLE], samples=3, **wishes)[0]
    assert len({one.text for one in together[0]}) > 1


def test_a_saved_context_is_the_one_that_was_saved(writer, tmp_path):
    wishes = {"tokens": 12, "exact": True}
    context = writer.read(NEEDLE)
    context.save(tmp_path / "context")
    assert writer.write([writer.load_context(tmp_path / "context")], **wishes)[0] == writer.write([NEEDLE], **wishes)[0]
    other = writers.characters(width=44)
    with pytest.raises(flaxgen.CheckpointError, match="read the text again"):
        other.load_context(tmp_path / "context")
    with pytest.raises(ValueError, match="another model"):
        other(context)
