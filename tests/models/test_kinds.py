"""BERT and its kin as choices of the one Transformer: masks by application, positions, sharing, heads, training."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxgen import weights
from flaxgen.models import config as sizes
from flaxgen.models import layers, transformer
from flaxgen.nn import sinusoidal
from flaxgen.tasks import language

POST = {"wiring": "post", "activation": "gelu", "epsilon": 1e-12, "segments": 2, "init_range": 0.4}
KINDS = {
    "bert": {"outputs": ("mlm", "pool", "nsp")},
    "nezha": {"position": "relative", "outputs": ("mlm",)},
    "roformer": {"position": "rotary", "outputs": ("mlm",)},
    "roformer_v2": {"position": "rotary", "norm": "bare", "embedding": 8},
    "albert": {"sharing": "all", "embedding": 8, "outputs": ("mlm",)},
    "electra": {"embedding": 8, "outputs": ("discriminator",)},
    "gpt": {"embedding_norm": "none"},
}


def tiny(kind: str, application: str = "encoder", **changes) -> transformer.Transformer:
    return transformer.Transformer(sizes.Config(37, 90, 12, 2, 3, 20, **POST | KINDS[kind] | {"application": application} | changes))


def params_of(model: transformer.Transformer):
    noise = np.random.default_rng(3)
    shapes = model.config.shapes().items()
    return weights.nest({name: jnp.asarray(noise.normal(name.endswith("scale"), 0.4, shape), jnp.float32) for name, shape in shapes})


apply = jax.jit(lambda model, *given, **named: model.apply(*given, **named), static_argnums=0, static_argnames="head")


@pytest.mark.parametrize("kind", KINDS)
def test_init_gives_the_tree_that_shapes_lists(kind):
    model = tiny(kind)
    tree = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 2), int))
    assert {name: leaf.shape for name, leaf in weights.flatten(tree).items()} == model.config.shapes()
    drawn = jax.eval_shape(lambda key: layers.init(model, key, "unroll"), jax.random.key(0))
    assert {name: leaf.shape for name, leaf in weights.flatten(drawn).items()} == model.config.shapes()


@pytest.mark.parametrize("kind", ["nezha", "roformer_v2"])
def test_a_prefix_read_whole_and_an_answer_read_token_by_token_give_what_one_pass_gives(kind):
    model, steps = tiny(kind, "unilm"), 80
    params, noise = params_of(model), np.random.default_rng(0)
    token_BT = noise.integers(0, 37, (2, steps))
    prefix_B = np.array([70, 61])
    segment_BT = (np.arange(steps) >= prefix_B[:, None]).astype(int)
    whole_BTV, _ = apply(model, params, token_BT, segment_BT=segment_BT)
    valid_BT = np.arange(70) < prefix_B[:, None]
    _, caches = apply(model, params, token_BT[:, :70], valid_BT=valid_BT, segment_BT=segment_BT[:, :70] * 0, caches=(model.cache(2, 70),))
    caches = (*caches, model.cache(2, 10))
    for step in range(10):
        next_BT = np.take_along_axis(token_BT, (prefix_B + step)[:, None], axis=1)
        logit_BTV, caches = apply(model, params, next_BT, segment_BT=np.ones((2, 1), int), caches=caches)
        for row, prefix in enumerate(prefix_B):
            np.testing.assert_allclose(logit_BTV[row, 0], whole_BTV[row, prefix + step], rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", ["nezha", "albert"])
def test_a_causal_model_read_in_pieces_gives_what_one_pass_gives(kind):
    model = tiny(kind, "lm")
    params, token_BT = params_of(model), np.random.default_rng(0).integers(0, 37, (2, 17))
    whole_BTV, _ = apply(model, params, token_BT)
    caches, parts = (model.cache(2, 17),), []
    for start, stop in ((0, 9), (9, 10), (10, 17)):
        part_BTV, caches = apply(model, params, token_BT[:, start:stop], caches=caches)
        parts.append(part_BTV)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole_BTV, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("kind", "application"), [("bert", "unilm"), ("nezha", "lm"), ("nezha", "encoder"), ("gpt", "lm"), ("albert", "encoder")]
)
def test_who_sees_whom_is_the_application(kind, application):
    model, place_T = tiny(kind, application), np.arange(6)
    token_BT = np.tile(np.arange(6), (7, 1))
    token_BT[place_T, place_T] = 30  # row s differs from the last row in token s alone
    hidden_BTD, _ = apply(model, params_of(model), token_BT, segment_BT=np.tile([0, 0, 0, 1, 1, 1], (7, 1)), head="hidden")
    seen_ST = np.abs(np.asarray(hidden_BTD[:6] - hidden_BTD[6:])).max(axis=-1) > 1e-6
    last_T = {"lm": place_T, "unilm": np.maximum(place_T, 2), "encoder": np.full(6, 5)}[application]
    np.testing.assert_array_equal(seen_ST, place_T[:, None] <= last_T[None])


@pytest.mark.parametrize("kind", ["bert", "nezha"])
def test_training_gives_the_same_loss_scanned_and_unrolled_and_learns_one_batch_by_heart(kind):
    model = tiny(kind, "unilm", dropout=0.0, init_range=0.1)
    noise = np.random.default_rng(5)
    token_BT = noise.integers(0, 37, (3, 12))
    segment_BT = np.tile(np.arange(12) >= 6, (3, 1)).astype(int)
    batch = {"token_BT": token_BT[:, :-1], "target_BT": token_BT[:, 1:], "weight_BT": segment_BT[:, 1:].astype(np.float32)}
    batch["segment_BT"] = segment_BT[:, :-1]
    unrolled, scanned = (language.Language(model, loop=loop) for loop in ("unroll", "scan"))
    params = unrolled.init(jax.random.key(0))
    loss = jax.jit(lambda task, tree: task.loss(tree, (), jax.random.key(1), batch)[0], static_argnums=0)
    values = [loss(task, tree) for task, tree in ((unrolled, params), (scanned, transformer.stack(params)))]
    np.testing.assert_allclose(*values, rtol=2e-6)
    logit_BTV, _ = apply(model, params, batch["token_BT"], segment_BT=batch["segment_BT"])
    nats_BT = -np.take_along_axis(jax.nn.log_softmax(logit_BTV), batch["target_BT"][..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(values[0], (nats_BT * batch["weight_BT"]).sum() / batch["weight_BT"].sum(), rtol=2e-6)
    optimizer = optax.adam(3e-2)

    @jax.jit
    def learn(params, moments):
        loss, slope = jax.value_and_grad(lambda params: unrolled.loss(params, (), jax.random.key(1), batch)[0])(params)
        moves, moments = optimizer.update(slope, moments)
        return optax.apply_updates(params, moves), moments, loss

    moments = optimizer.init(params)
    for _ in range(80):
        params, moments, loss = learn(params, moments)
    assert loss < 0.1


@pytest.mark.parametrize("kind", ["bert", "nezha", "electra", "roformer_v2"])
def test_bfloat16_stays_finite_in_every_head(kind):
    model = dataclasses.replace(tiny(kind), dtype=jnp.bfloat16)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params_of(model))
    every = jax.jit(lambda tree, token_BT: model.apply(tree, model.apply(tree, token_BT, head="hidden")[0], method="read_off"))
    for given in every(params, np.arange(14).reshape(2, 7)):
        assert np.isfinite(np.asarray(given, np.float32)).all()


def test_heads_have_their_shapes_and_an_absent_one_is_refused():
    model = tiny("bert")
    shapes = {"logits": (2, 5, 37), "mlm": (2, 5, 37), "hidden": (2, 5, 12), "pool": (2, 12), "nsp": (2, 2)}
    for head, shape in shapes.items():
        given, _ = jax.eval_shape(lambda tree, head=head: model.apply(tree, jnp.zeros((2, 5), int), head=head), params_of(model))
        assert given.shape == shape
    with pytest.raises(ValueError, match="hidden, logits, mlm, nsp, pool"):
        model.apply(params_of(model), jnp.zeros((2, 5), int), head="discriminator")
    with pytest.raises(ValueError, match="segment_BT is missing"):
        tiny("bert", "unilm").apply(params_of(model), jnp.zeros((2, 5), int))


def test_nezha_reads_a_table_of_sines_up_to_64_and_rotary_angles_turn_pairs():
    vector_BTSK = np.asarray(sinusoidal.sines(np.array([[[-99, -64, 0, 3, 64, 99]]]), 4, jnp.float32))[0, 0]
    row_S = np.array([0, 0, 64, 67, 128, 128])
    wanted_SK = np.stack([np.sin(row_S), np.cos(row_S), np.sin(row_S / 100), np.cos(row_S / 100)], axis=-1)
    np.testing.assert_allclose(vector_BTSK, wanted_SK, atol=1e-5)
    np.testing.assert_allclose(sinusoidal.angles(np.array([[3]]), 4)[0, 0], [3, 3, 0.03, 0.03], rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"outputs": ("tied", "mlm")}, "one way to its logits"),
        ({"outputs": ("nsp",)}, "without 'pool'"),
        ({"outputs": ("mlm", "talk")}, "outputs"),
        ({"position": "rotary", "heads": 4, "width": 12}, "even width"),
        ({"segments": -1}, "segments"),
        ({"application": "decoder"}, "lm, encoder, unilm"),
        ({"embedding": 0}, "embedding"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused_in_words(changes, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(tiny("bert").config, **changes)
