"""The transformer against itself: cached and uncached, causality, layer loops, dtypes, sizes."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen import weights
from flaxgen.models import config as sizes
from flaxgen.models import dispatched, presets, transformer

WIRINGS = ("pre", "between")


def tiny(wiring: str, **changes) -> transformer.Transformer:
    config = sizes.Config(37, 23, 12, 3, 3, 20, wiring, "gelu", init_range=0.4)
    return transformer.Transformer(dataclasses.replace(config, **changes))


def params_of(model: transformer.Transformer):
    """Random parameters, norms and biases too, so that none of them hides behind its initial value."""
    noise = np.random.default_rng(3)
    shapes = sizes.shapes(model.config).items()
    return weights.nest({name: jnp.asarray(noise.normal(name.endswith("scale"), 0.4, shape), jnp.float32) for name, shape in shapes})


apply = jax.jit(lambda model, *given, **named: model.apply(*given, **named), static_argnums=0, static_argnames="head")


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
        ("gpt2-ml-base", 124_449_792),
        ("gpt2-ml-large", 311_573_504),
        ("gpt2-ml-mega", 1_373_809_152),
        ("gpt2-ml-mega-21130", 1_393_944_576),
    ],
)
def test_a_preset_has_the_published_number_of_parameters(name, count):
    assert sum(math.prod(shape) for shape in sizes.shapes(presets.PRESETS[name]).values()) == count


@pytest.mark.parametrize("wiring", WIRINGS)
def test_init_gives_the_tree_that_shapes_lists(wiring):
    model = tiny(wiring)
    tree = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 2), int))
    assert {name: leaf.shape for name, leaf in weights.flatten(tree).items()} == sizes.shapes(model.config)


@pytest.mark.parametrize("wiring", WIRINGS)
def test_cached_equals_uncached_at_every_position_of_a_ragged_batch(wiring):
    model = tiny(wiring)
    params, (rows, steps) = params_of(model), (2, 23)
    token_BT = np.random.default_rng(0).integers(0, 37, (rows, steps))
    length_B = np.array([14, 23])
    valid_BT = np.arange(steps) < length_B[:, None]
    wanted_BTV, _ = apply(model, params, token_BT, valid_BT=valid_BT)
    caches = (model.cache(rows, steps),)
    for t in range(steps):
        logit_BTV, caches = apply(model, params, token_BT[:, t : t + 1], valid_BT=valid_BT[:, t : t + 1], caches=caches)
        for row in np.flatnonzero(valid_BT[:, t]):
            assert jnp.abs(logit_BTV[row, 0] - wanted_BTV[row, t]).max() <= 1e-5
            assert logit_BTV[row, 0].argmax() == wanted_BTV[row, t].argmax()
    assert caches[-1].length_B.tolist() == length_B.tolist()


@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("cut", [1, 6, 12])
def test_a_prompt_cache_and_an_answer_cache_equal_one_pass(wiring, cut):
    model = tiny(wiring)
    params = params_of(model)
    token_BT = np.random.default_rng(1).integers(0, 37, (2, 13))
    wanted_BTV, _ = apply(model, params, token_BT)
    _, (prompt,) = apply(model, params, token_BT[:, :cut], caches=(model.cache(2, 12),))
    logit_BTV, (kept, _) = apply(model, params, token_BT[:, cut:], caches=(prompt, model.cache(2, 15)))
    assert jnp.abs(logit_BTV - wanted_BTV[:, cut:]).max() <= 1e-5
    assert jax.tree.all(jax.tree.map(jnp.array_equal, kept, prompt))


@pytest.mark.parametrize("wiring", WIRINGS)
def test_samples_share_the_cache_of_their_prompt(wiring):
    model = tiny(wiring)
    params = params_of(model)
    noise = np.random.default_rng(2)
    prompt_BT, answer_BT = noise.integers(0, 37, (2, 5)), noise.integers(0, 37, (6, 4))
    whole_BT = np.concatenate([np.repeat(prompt_BT, 3, axis=0), answer_BT], axis=1)
    _, (prompt,) = apply(model, params, prompt_BT, caches=(model.cache(2, 7),))
    logit_BTV, _ = apply(model, params, answer_BT, caches=(prompt, model.cache(6, 4)))
    assert jnp.abs(logit_BTV - apply(model, params, whole_BT)[0][:, 5:]).max() <= 1e-5


@pytest.mark.parametrize("wiring", WIRINGS)
def test_padding_on_either_side_changes_no_logit_and_garbage_in_it_does_not_leak(wiring):
    model = tiny(wiring)
    params = params_of(model)
    ids = np.random.default_rng(4).integers(0, 37, 6)
    alone_TV = apply(model, params, ids[None])[0][0]
    for left in (0, 1, 5):
        token_BT = np.full((1, 11), 36)
        token_BT[0, left : left + 6] = ids
        valid_BT = np.zeros((1, 11), bool)
        valid_BT[0, left : left + 6] = True
        logit_BTV, _ = apply(model, params, token_BT, valid_BT=valid_BT)
        assert jnp.abs(logit_BTV[0, left : left + 6] - alone_TV).max() <= 1e-5
        _, (cache,) = apply(model, params, token_BT, valid_BT=valid_BT, caches=(model.cache(1, 6),))
        assert cache.length_B.tolist() == [6]


@pytest.mark.parametrize("wiring", WIRINGS)
def test_no_token_sees_a_later_one(wiring):
    model = tiny(wiring)
    params = params_of(model)
    token_BT = np.random.default_rng(5).integers(0, 37, (1, 7))

    def logits_of(embedding_VD):
        tree = params["params"]
        embed = tree["embed"] | {"position": {"embedding": embedding_VD}}
        return apply(model, {"params": tree | {"embed": embed}}, token_BT)[0][0]

    gradient_TVPD = jax.jacrev(logits_of)(params["params"]["embed"]["position"]["embedding"])
    reach_TP = np.abs(gradient_TVPD).sum(axis=(1, 3))[:, :7]
    assert (np.triu(reach_TP, 1) == 0).all() and (np.tril(reach_TP) + np.triu(np.ones_like(reach_TP), 1) > 0).all()


def test_ranks_let_a_prefix_see_itself_whole():
    model = tiny("pre")
    params = params_of(model)
    token_BT = np.random.default_rng(6).integers(0, 37, (1, 5))
    other_BT = token_BT.copy()
    other_BT[0, 1] += 1
    rank_BT = np.array([[1, 1, 1, 2, 3]])
    changed_TV = apply(model, params, token_BT, rank_BT=rank_BT)[0][0] - apply(model, params, other_BT, rank_BT=rank_BT)[0][0]
    assert (jnp.abs(changed_TV).max(axis=1) > 1e-4).all()


@pytest.mark.parametrize("wiring", WIRINGS)
def test_documents_packed_into_one_row_have_the_logits_they_have_alone(wiring):
    model = tiny(wiring)
    params = params_of(model)
    noise = np.random.default_rng(10)
    first, second, third = (noise.integers(0, 37, length) for length in (4, 7, 2))
    token_BT = np.stack([np.concatenate([first, second]), np.concatenate([second, first])])
    floor_BT = np.array([[1] * 4 + [5] * 7, [1] * 7 + [8] * 4])
    logit_BTV, _ = apply(model, params, token_BT, floor_BT=floor_BT)
    alone, alone_too = (apply(model, params, document[None])[0][0] for document in (first, second))
    for row, wanted_TV in enumerate((jnp.concatenate([alone, alone_too]), jnp.concatenate([alone_too, alone]))):
        assert jnp.abs(logit_BTV[row] - wanted_TV).max() <= 1e-5
    # The same through a cache, where the floor of a later call lies in an earlier one.
    _, caches = apply(model, params, token_BT, floor_BT=floor_BT, caches=(model.cache(2, 13),))
    logit_BTV, _ = apply(model, params, np.stack([third, third]), floor_BT=np.array([[5, 5], [12, 12]]), caches=caches)
    assert jnp.abs(logit_BTV[0] - apply(model, params, np.concatenate([second, third])[None])[0][0, 7:]).max() <= 1e-5
    assert jnp.abs(logit_BTV[1] - apply(model, params, third[None])[0][0]).max() <= 1e-5


@pytest.mark.parametrize("wiring", WIRINGS)
def test_what_one_document_learns_has_no_gradient_at_its_neighbour_in_the_row(wiring):
    model = tiny(wiring)
    params = params_of(model)
    token_BT, floor_BT = np.array([[1, 2, 3, 20, 21, 22, 23]]), np.array([[1, 1, 1, 4, 4, 4, 4]])

    def loss(params, tokens):
        return jnp.square(apply(model, params, token_BT, floor_BT=floor_BT, head="hidden")[0][0, tokens]).sum()

    first = jax.grad(loss)(params, slice(0, 3))["params"]["embed"]["token"]["embedding"]
    second = jax.grad(loss)(params, slice(3, 7))["params"]["embed"]["token"]["embedding"]
    assert (first[20:24] == 0).all() and (jnp.abs(first[1:4]).sum(axis=1) > 0).all()
    assert (second[1:4] == 0).all() and (jnp.abs(second[20:24]).sum(axis=1) > 0).all()


@pytest.mark.parametrize("wiring", WIRINGS)
def test_low_rank_leaves_beside_a_kernel_add_their_product_to_it(wiring):
    model = tiny(wiring)
    params = params_of(model)
    noise = np.random.default_rng(11)
    flat = weights.flatten(params)
    added, merged = dict(flat), dict(flat)
    for name in [name for name in flat if name.endswith("/kernel")]:
        a, b = (noise.normal(0, 0.2, shape).astype(np.float32) for shape in ((2, flat[name].shape[1]), (flat[name].shape[0], 2)))
        added |= {f"{name}_a": a, f"{name}_b": b}
        merged[name] = flat[name] + b @ a
    token_BT = noise.integers(0, 37, (2, 6))
    logit_BTV, _ = apply(model, weights.nest(added), token_BT)
    wanted_BTV, _ = apply(model, weights.nest(merged), token_BT)
    assert jnp.abs(logit_BTV - wanted_BTV).max() <= 2e-5
    assert jnp.abs(logit_BTV - apply(model, params, token_BT)[0]).max() > 0.1


@pytest.mark.parametrize("wiring", WIRINGS)
def test_layers_dispatched_from_the_host_give_the_same_hidden_states(wiring):
    model = tiny(wiring)
    params = params_of(model)
    token_BT = np.random.default_rng(8).integers(0, 37, (2, 6))
    wanted_BTD, _ = apply(model, params, token_BT, head="hidden")
    hidden_BTD, _ = dispatched.apply(model, params, token_BT, caches=(model.cache(2, 7),))
    assert jnp.abs(hidden_BTD - wanted_BTD).max() <= 1e-5


@pytest.mark.parametrize("wiring", WIRINGS)
def test_bfloat16_activations_stay_finite_and_near(wiring):
    model = tiny(wiring, init_range=0.02)
    params = model.init(jax.random.key(0), np.zeros((1, 2), int))
    token_BT = np.random.default_rng(9).integers(0, 37, (2, 23))
    wanted_BTV, _ = apply(model, params, token_BT)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    logit_BTV, _ = apply(transformer.Transformer(model.config, jnp.bfloat16), half, token_BT)
    assert logit_BTV.dtype == jnp.float32
    assert jnp.abs(logit_BTV - wanted_BTV).max() <= 0.02 * jnp.abs(wanted_BTV).max() + 0.02


@pytest.mark.parametrize(
    ("field", "value"),
    [("heads", 5), ("layers", 0), ("wiring", "sideways"), ("activation", "swish"), ("dropout", 1.0), ("vocab", 3.0), ("epsilon", "1")],
)
def test_a_config_that_makes_no_sense_is_refused_by_its_field(field, value):
    good = dataclasses.asdict(tiny("pre").config)
    with pytest.raises(ValueError, match="heads" if field == "heads" else field):
        sizes.Config(**good | {field: value})


def test_stacking_keeps_the_order_of_more_than_a_hundred_layers():
    tree = {"params": {sizes.block_name(layer): {"bias": jnp.full(1, layer)} for layer in range(103)}}
    assert transformer.stack(tree)["params"]["block"]["bias"][:, 0].tolist() == list(range(103))


def test_a_cache_too_small_and_an_unknown_head_are_refused():
    model = tiny("pre")
    with pytest.raises(ValueError, match="3 tokens a row for a cache of 2 slots"):
        model.apply(params_of(model), np.zeros((1, 3), int), caches=(model.cache(1, 2),))
    with pytest.raises(ValueError, match="head='nsp'"):
        model.apply(params_of(model), np.zeros((1, 3), int), head="nsp")


def test_rows_longer_than_the_context_are_refused():
    model = tiny("pre")
    with pytest.raises(ValueError, match="24 tokens a row; the model has 23 positions"):
        model.apply(params_of(model), np.zeros((1, 24), int))
