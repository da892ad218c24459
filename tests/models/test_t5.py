"""T5: the originals' logits, caches, padding, causality, sizes and types."""

import dataclasses
import json
import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flaxgen
from convert import command
from flaxgen import weights
from flaxgen.models import architectures, t5, t5_config
from flaxgen.nn import attention

ROOT = pathlib.Path(__file__).parents[1]
# Odd and unequal sizes, and heads that together are no wider than half the model.
GATED = t5_config.Config(37, 14, 1, 3, 2, 10, "gated_gelu", "own", decoder_layers=2, buckets=8, distance=11)
RELU = dataclasses.replace(GATED, activation="relu", head="tied", layers=2, decoder_layers=1, head_width=5)
B, S, T = 4, 6, 5
random = np.random.default_rng(5)
SOURCE, TARGET = random.integers(0, 37, (B, S)), random.integers(0, 37, (B, T))
VALID = np.arange(S) < np.array([6, 4, 1, 5])[:, None]


@partial(jax.jit, static_argnums=0, static_argnames=("kind", "method", "head"))
def run(model, params, *arguments, **named):
    return model.apply(params, *arguments, **named)


def made(config, dtype=jnp.float32, seed=0):
    """A model and parameters of about one, so that nothing is lost among larger numbers."""
    noise = np.random.default_rng(seed)
    flat = {name: noise.normal(name.endswith("scale"), 0.4, shape).astype(np.float32) for name, shape in config.shapes().items()}
    return t5.T5(config, dtype), jax.tree.map(jnp.asarray, weights.nest(flat))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    def load(folder):
        target = tmp_path_factory.mktemp("t5") / "model"
        assert command.main([str(folder), str(target)]) == 0
        return flaxgen.load(target)[:2]

    return load


def check(folder, model, params):
    expected = np.load(folder / "expected.npz")
    fresh = jax.jit(model.apply)  # traced anew, as a fault may have been planted meanwhile
    logit_BTV, _ = fresh(params, expected["input_ids"], expected["decoder_input_ids"], valid_BT=expected["attention_mask"])
    assert logit_BTV.dtype == jnp.float32
    np.testing.assert_allclose(logit_BTV, expected["logits"], atol=2e-4, rtol=0)


@pytest.mark.parametrize("name", ["t5", "mt5_1_1"])
def test_logits_are_those_of_the_reference(name, loaded):
    check(ROOT / "golden/google_t5" / name, *loaded(ROOT / "golden/google_t5" / name))


@pytest.mark.shared
@pytest.mark.parametrize("name", ["google_t5/t5", "google_t5/t5_1_1", "google_t5/mt5_1_1", "transformers/t5", "transformers/t5_1_1"])
def test_logits_are_those_of_every_reference(name, loaded, shared):
    check(shared / "oracle" / name, *loaded(shared / "oracle" / name))


@pytest.mark.parametrize("fault", ["scale", "turned", "gate", "erf"])
def test_a_planted_fault_shows_in_the_logits(fault, loaded, monkeypatch):
    name = "t5" if fault == "scale" else "mt5_1_1"
    model, params = loaded(ROOT / "golden/google_t5" / name)
    flat = weights.flatten(params)
    if fault == "scale":
        monkeypatch.setattr(t5.T5, "unembed", lambda self, hidden_BTD: self.embed.product(hidden_BTD))
    elif fault == "turned":
        path = "decoder/block_01/cross/o/kernel"  # (48, 64): its inside turned round
        flat[path] = flat[path].reshape(64, 48).T
    elif fault == "gate":
        one, other = "encoder/block_00/mlp/gate/kernel", "encoder/block_00/mlp/up/kernel"
        flat[one], flat[other] = flat[other], flat[one]
    else:
        gelu = jax.nn.gelu
        monkeypatch.setattr(jax.nn, "gelu", lambda x, approximate: gelu(x, approximate=False))
    with pytest.raises(AssertionError, match="Mismatched"):
        check(ROOT / "golden/google_t5" / name, model, weights.nest(flat))


@pytest.mark.parametrize("config", [GATED, RELU], ids=["gated", "relu"])
def test_parameters_are_those_of_the_sizes_and_start_by_the_key(config):
    model = t5.T5(config)
    params = jax.jit(model.init)(jax.random.key(0), SOURCE, TARGET)
    assert {name: leaf.shape for name, leaf in weights.flatten(params).items()} == config.shapes()
    logit_BTV, _ = run(model, params, SOURCE, TARGET)
    assert 0.1 < jnp.std(logit_BTV) < 20


@pytest.mark.parametrize(("config", "pieces"), [(GATED, (1, 1, 1, 1, 1)), (RELU, (2, 3))], ids=["gated", "relu"])
def test_cached_equals_uncached(config, pieces):
    model, params = made(config)
    whole_BTV, _ = run(model, params, SOURCE, TARGET, valid_BT=VALID)
    logit_BTV, caches = run(model, params, SOURCE, TARGET[:, : pieces[0]], valid_BT=VALID, caches=(model.cache(B, 7),))
    found, start = [logit_BTV], pieces[0]
    for piece in pieces[1:]:
        logit_BTV, caches = run(model, params, None, TARGET[:, start : start + piece], caches=caches)
        found.append(logit_BTV)
        start += piece
    np.testing.assert_allclose(jnp.concatenate(found, axis=1), whole_BTV, atol=1e-5)
    assert caches[1].length_B.tolist() == [T] * B and caches[0].length_B.tolist() == VALID.sum(axis=1).tolist()


def test_answers_share_their_source_and_what_they_begin_with():
    """Two answers of each source, which go on from one prompt in a cache of their own."""
    model, params = made(GATED)
    tail = np.random.default_rng(1).integers(0, 37, (2 * B, 3))
    source = run(model, params, SOURCE, VALID, method="encode")
    _, caches = run(model, params, None, TARGET[:, :2], caches=(source, model.cache(B, 2)))
    logit_BTV, _ = run(model, params, None, tail, caches=(*caches, model.cache(2 * B, 4)))
    again = [np.repeat(each, 2, axis=0) for each in (SOURCE, TARGET[:, :2], VALID)]
    whole_BTV, _ = run(model, params, again[0], np.concatenate([again[1], tail], axis=1), valid_BT=again[2])
    np.testing.assert_allclose(logit_BTV, whole_BTV[:, 2:], atol=1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_changes_nothing(side):
    model, params = made(RELU)
    alone_BTV, _ = run(model, params, SOURCE[1:2, :4], TARGET[1:2, :3])
    cut = (lambda x, n: np.pad(x[:, :n], ((0, 0), (0, 3)))) if side == "right" else (lambda x, n: np.pad(x[:, :n], ((0, 0), (3, 0))))
    masks = [cut(np.ones((1, n), bool), n) for n in (4, 3)]
    padded_BTV, _ = run(model, params, cut(SOURCE[1:2], 4), cut(TARGET[1:2], 3), valid_BT=masks[0], target_valid_BT=masks[1])
    np.testing.assert_allclose(padded_BTV[:, masks[1][0]], alone_BTV, atol=1e-5)


def test_an_answer_sees_all_of_its_source_and_nothing_after_itself():
    model, params = made(GATED)
    rest = params["params"]

    def logits(table_VD):
        tree = {"params": rest | {"embed": {"token": {"embedding": table_VD}}}}
        return model.apply(tree, np.array([[1, 2, 3]]), np.array([[4, 5, 6, 7]]))[0][0].sum(axis=1)

    slope_TVD = jax.jit(jax.jacobian(logits))(rest["embed"]["token"]["embedding"])
    seen_TV = np.abs(slope_TVD).sum(axis=2) > 0
    assert seen_TV[:, [1, 2, 3]].all() and seen_TV[:, [4, 5, 6, 7]].tolist() == np.tri(4, dtype=bool).tolist()


def test_the_face_of_the_decoder_is_that_of_a_language_model():
    model, params = made(RELU)
    decoder = t5.Decoder(RELU)
    source = run(decoder, params, SOURCE, VALID, method="encode")
    hidden_BTD, caches = run(decoder, params, TARGET, caches=(source, decoder.cache(B, T)), head="hidden")
    whole_BTV, _ = run(model, params, SOURCE, TARGET, valid_BT=VALID)
    np.testing.assert_allclose(run(decoder, params, hidden_BTD, method="unembed"), whole_BTV, atol=1e-5)
    assert len(caches) == 2 and caches[1].length_B.tolist() == [T] * B


def test_bfloat16_stays_finite_and_logits_are_float32():
    model, params = made(GATED, jnp.bfloat16)
    logit_BTV, caches = run(model, params, SOURCE, TARGET, valid_BT=VALID, caches=(model.cache(B, T),))
    wide_BTV, _ = run(made(GATED)[0], params, SOURCE, TARGET, valid_BT=VALID)
    assert logit_BTV.dtype == jnp.float32 and caches[0].k[0].dtype == caches[1].v[0].dtype == jnp.bfloat16
    assert jnp.isfinite(logit_BTV).all() and jnp.abs(logit_BTV - wide_BTV).max() < 0.1 * jnp.abs(wide_BTV).max()


@pytest.mark.parametrize("config", [GATED, RELU], ids=["gated", "relu"])
def test_a_folder_holds_it_in_float32_and_in_int8(config, tmp_path):
    model, params = made(config)
    flaxgen.save(tmp_path / "one", model, params, end=[1])
    again, read, text = flaxgen.load(tmp_path / "one")
    assert again == model and text is None and weights.describe(tmp_path / "one")["end"] == [1]
    assert all(np.array_equal(leaf, weights.flatten(read)[name]) for name, leaf in weights.flatten(params).items())
    flaxgen.save(tmp_path / "two", model, params, dtype="int8")
    again, read, _ = flaxgen.load(tmp_path / "two", dtype="int8")
    whole_BTV, _ = run(model, params, SOURCE, TARGET, valid_BT=VALID)
    logit_BTV, _ = run(again, read, SOURCE, TARGET, valid_BT=VALID)
    assert 0 < jnp.abs(logit_BTV - whole_BTV).max() < 0.1 * jnp.abs(whole_BTV).max()


def test_a_depth_that_no_file_has_is_refused_at_once(tmp_path):
    flaxgen.save(tmp_path / "one", *made(RELU))
    card = json.loads((tmp_path / "one/config.json").read_text())
    card["config"]["decoder_layers"] = 10**12
    (tmp_path / "one/config.json").write_text(json.dumps(card))
    with pytest.raises(flaxgen.CheckpointError, match=r"1000000000000 layers in config\.json"):
        flaxgen.load(tmp_path / "one")


def test_int8_caches_are_near():
    model, params = made(GATED)
    source = run(model, params, SOURCE, VALID, kind="int8", method="encode")
    logit_BTV, caches = run(model, params, None, TARGET, caches=(source, model.cache(B, T, "int8")))
    whole_BTV, _ = run(model, params, SOURCE, TARGET, valid_BT=VALID)
    assert caches[0].k[0].number.dtype == jnp.int8
    assert 0 < jnp.abs(logit_BTV - whole_BTV).max() < 0.05 * jnp.abs(whole_BTV).max()


def test_dropout_is_a_function_of_the_row_s_key():
    model, params = made(dataclasses.replace(GATED, dropout=0.3))
    keys = jax.random.split(jax.random.key(2), B)
    one, _ = run(model, params, SOURCE, TARGET, key_B=keys)
    two, _ = run(model, params, SOURCE[2:], TARGET[2:], key_B=keys[2:])
    np.testing.assert_allclose(one[2:], two, atol=1e-4)
    assert jnp.abs(one - run(model, params, SOURCE, TARGET)[0]).max() > 0.1


@pytest.mark.parametrize(
    ("wishes", "why"),
    [
        ({"source_BT": None}, "source_BT is None"),
        ({"caches": (t5.T5(GATED).cache(B, 3),)}, "5 tokens a row for a cache of 3 slots"),
        ({"head": "pool"}, 'wanted "logits"'),
    ],
)
def test_what_cannot_be_is_refused(wishes, why):
    model, params = made(GATED)
    with pytest.raises(ValueError, match=why):
        jax.eval_shape(lambda: model.apply(params, **{"source_BT": SOURCE, "target_BT": TARGET} | wishes))


REFUSED = {
    "vocab": (0, "positive whole number"), "heads": (True, "positive whole number"), "activation": ("silu", "relu, gated_gelu"),
    "head": ("scaled", "tied, own"), "buckets": (9, "even number"), "distance": (4, "more than half"), "start": (37, "from 0 to 36"),
    "dropout": (1, "up to 1"), "decoder_layers": (0, "positive whole number"), "epsilon": ("1", "a number"),
}  # fmt: skip


@pytest.mark.parametrize("field", REFUSED)
def test_a_wrong_size_is_refused_by_name(field):
    value, why = REFUSED[field]
    with pytest.raises(ValueError, match=f"{field}.*{why}"):
        dataclasses.replace(GATED, **{field: value})
    assert architectures.config("t5", dataclasses.asdict(GATED)) == GATED


def test_no_text_is_too_long():
    model, params = made(RELU)
    far = np.random.default_rng(0).integers(0, 37, (1, 300))
    logit_BTV, _ = run(model, params, far, far[:, :9])
    assert jnp.isfinite(logit_BTV).all() and RELU.positions < attention.HIDDEN
