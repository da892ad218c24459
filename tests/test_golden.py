"""Converted checkpoints against the outputs of the original implementations, and planted faults that must show."""

import dataclasses

import jax
import numpy as np
import pytest

import flaxgen
from convert import command
from flaxgen import loop, rules, weights
from flaxgen.chains import autoregressive, scoring
from flaxgen.models import transformer

LOGITS = 1e-4
LOG_PROBABILITIES = 2e-4
SOURCES = ("gpt2_ml", "openai_gpt2", "transformers/gpt2", "bert4keras/gpt2", "bert4keras/gpt2_ml")
apply = jax.jit(lambda model, *given, **named: model.apply(*given, **named)[0], static_argnums=0)


@pytest.fixture(scope="session", params=SOURCES)
def original(request, golden, tmp_path_factory):
    """(the reference arrays, model, params) of one original implementation, through our conversion."""
    source = golden / request.param
    target = tmp_path_factory.mktemp("golden") / "model"
    assert command.main([str(source), str(target)]) == 0
    model, params, text = flaxgen.load(target)
    assert text is None
    return request.param, np.load(source / "expected.npz"), model, params


@pytest.fixture(scope="session")
def converted(golden, tmp_path_factory):
    def load(name):
        target = tmp_path_factory.mktemp("greedy") / "model"
        assert command.main([str(golden / name), str(target)]) == 0
        return flaxgen.load(target)[:2]

    return load


def difference(name: str, expected, model, params) -> float:
    """The largest difference to the reference, as a multiple of what is allowed."""
    valid_BT = None
    token_BT = expected["input_ids"]
    rows, steps = token_BT.shape
    length_B = expected["lengths"] if "lengths" in expected else np.full(rows, steps)
    if name.startswith("bert4keras"):
        valid_BT = np.arange(steps) < length_B[:, None]
    logit_BTV = np.asarray(apply(model, params, token_BT, valid_BT=valid_BT))
    worst = 0.0
    for row, length in enumerate(length_B):
        if name.startswith("bert4keras"):
            wanted_TV = expected["output_0"][row, :length].astype(np.float64)
            log_probability_TV = np.asarray(jax.nn.log_softmax(logit_BTV[row, :length]))
            gap = np.abs(log_probability_TV - np.log(np.maximum(wanted_TV, 1e-30)))[wanted_TV > 1e-6].max() / LOG_PROBABILITIES
        else:
            gap = np.abs(logit_BTV[row, :length] - expected["logits"][row, :length]).max() / LOGITS
        worst = max(worst, gap)
    return worst


def test_the_logits_are_those_of_the_original(original):
    assert difference(*original) <= 1


def swapped(params, first: str, second: str):
    flat = weights.flatten(params)
    changed = {
        name.replace(first, "\0").replace(second, first).replace("\0", second) if (first in name or second in name) else name: leaf
        for name, leaf in flat.items()
    }
    return weights.nest(changed)


def transposed(params, part: str):
    return weights.nest({name: leaf.T if name.endswith(f"{part}/kernel") else leaf for name, leaf in weights.flatten(params).items()})


def test_the_loss_is_that_of_the_original(golden, converted):
    """gpt2-ml weighs every target but id 0, and divides by their number."""
    model, params = converted("gpt2_ml")
    expected = np.load(golden / "gpt2_ml" / "expected.npz")
    token_BT = expected["input_ids"]
    log_prob_BT = scoring.score(model, params, token_BT, np.full(len(token_BT), token_BT.shape[1]))
    np.testing.assert_allclose(-log_prob_BT[token_BT[:, 1:] != 0].mean(), expected["loss"], rtol=1e-5)


FAULTS = {
    "a missed transpose": lambda model, params: (model, transposed(params, "attend/q")),
    "a missed transpose of the output": lambda model, params: (model, transposed(params, "attend/o")),
    "epsilon 1e-12": lambda model, params: (changed(model, epsilon=1e-12), params),
    "the other gelu": lambda model, params: (
        changed(model, activation={"gelu": "gelu_tanh", "gelu_tanh": "gelu"}[model.config.activation]),
        params,
    ),
    "the norms in the other order": lambda model, params: (model, swapped(params, "norm_0", "norm_1")),
    "query and value swapped": lambda model, params: (model, swapped(params, "attend/q", "attend/v")),
    "other heads": lambda model, params: (changed(model, heads=2), params),
}


def changed(model, **fields):
    return transformer.Transformer(dataclasses.replace(model.config, **fields))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_shows(original, fault):
    name, expected, model, params = original
    assert difference(name, expected, *FAULTS[fault](model, params)) > 1, fault


def greedy(model, params, prompts, steps, **wishes):
    """The tokens of each row, drawn together from prompts of their own lengths."""
    length_B = np.array([len(prompt) for prompt in prompts])
    token_BT = np.zeros((len(prompts), length_B.max()), int)
    for row, prompt in enumerate(prompts):
        token_BT[row, : len(prompt)] = prompt
    chain = autoregressive.Autoregressive(model, room=steps)
    seen_BS = wishes.pop("seen", None)
    rule = rules.Rule(temperature=0, **wishes.pop("rule", {}))
    given = autoregressive.prompt(token_BT, length_B, rule=rule, vocab=model.config.vocab, **wishes)
    if seen_BS is not None:
        given = given.replace(before_BS=seen_BS.astype(np.int32), before_length_B=np.full(len(seen_BS), seen_BS.shape[1], np.int32))
    return loop.generate(chain, params, jax.random.key(0), given, steps=steps).rows()


def test_gpt2_ml_continues_greedily_to_its_contexts_end_as_the_original_does(golden, converted):
    reference = np.load(golden / "gpt2_ml" / "greedy.npz")
    prompt_BT = reference["prompt"]
    wanted_BN = reference["tokens"][:, prompt_BT.shape[1] :]
    assert greedy(*converted("gpt2_ml"), prompt_BT, wanted_BN.shape[1]) == wanted_BN.tolist()


def test_openai_gpt2_continues_greedily_as_the_original_does(golden, converted):
    wanted_BN = np.load(golden / "openai_gpt2" / "expected.npz")["greedy"]
    assert greedy(*converted("openai_gpt2"), wanted_BN[:, :5], 30) == wanted_BN[:, 5:].tolist()


@pytest.mark.parametrize(
    ("reference", "wishes"),
    [
        ("greedy_no_eos", {}),
        ("greedy", {"end": 1}),
        ("greedy_min_new_14", {"end": 1, "rule": {"min_tokens": 14}}),
        ("greedy_rep_penalty_1.3", {"end": 1, "rule": {"repetition_penalty": 1.3}, "seen": 1}),
        ("greedy_no_repeat_ngram_2", {"end": 1, "rule": {"no_repeat_ngram": 2}, "seen": 1}),
    ],
)
def test_a_ragged_batch_continues_greedily_as_transformers_does(golden, converted, reference, wishes):
    expected = np.load(golden / "transformers/gpt2/expected.npz")
    end = int(expected["eos"])
    prompts = [ids[mask == 1].tolist() for ids, mask in zip(expected["left_ids"], expected["left_mask"], strict=True)]
    wishes = wishes | ({"end": [end]} if "end" in wishes else {})
    wishes |= {"seen": expected["left_ids"]} if "seen" in wishes else {}  # transformers' penalties see the padding on the left
    wanted_BN = expected[reference]
    wanted = (wanted_BN[:, expected["left_ids"].shape[1] :] if wanted_BN.shape[1] > 24 else wanted_BN).tolist()
    if wishes:
        wanted = [row[: row.index(end) + 1] if end in row else row for row in wanted]
    assert greedy(*converted("transformers/gpt2"), prompts, 24, **wishes) == wanted


def test_left_padding_gives_the_logits_that_transformers_gives(golden, converted):
    expected = np.load(golden / "transformers/gpt2/expected.npz")
    valid_BT = expected["left_mask"] == 1
    logit_BTV = apply(*converted("transformers/gpt2"), expected["left_ids"], valid_BT=valid_BT)
    assert np.abs(logit_BTV - expected["left_logits"])[valid_BT].max() <= LOGITS
