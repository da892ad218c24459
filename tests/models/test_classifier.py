import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen import weights
from flaxgen.models import classifier, classifier_config
from flaxgen.tasks import classification

SMALL = classifier_config.Config(size=7, channels=2, classes=5, blocks=((3, "down"), (4, "same")))
TASK = classification.Classification(classifier.Classifier(SMALL))
nats = jax.jit(TASK.nats)


def init(seed: int) -> dict:
    """Random parameters, biases too, without the time that compiling their draws takes."""
    noise = np.random.default_rng(seed)
    drawn = {path: noise.normal(size=shape, scale=(2 / np.prod(shape[:-1])) ** 0.5) for path, shape in SMALL.shapes().items()}
    return weights.nest({path: array.astype(np.float32) for path, array in drawn.items()})


def batch(rows: int = 6, seed: int = 0) -> dict:
    noise = np.random.default_rng(seed)
    return {"image_BYXC": noise.integers(0, 256, (rows, 7, 7, 2), np.uint8), "label_B": (np.arange(rows) % 5).astype(np.int32)}


def test_shapes_are_those_of_the_module_and_json_gives_the_config_back():
    shapes = jax.eval_shape(TASK.init, jax.random.key(0))
    assert {path: leaf.shape for path, leaf in weights.flatten(shapes).items()} == SMALL.shapes()
    assert classifier_config.Config(**json.loads(json.dumps(dataclasses.asdict(SMALL)))) == SMALL


def test_logits_are_those_of_the_features_and_features_those_of_the_defining_loops():
    params = init(1)
    image_BYXC = jnp.asarray(batch(2)["image_BYXC"] / np.float32(255))
    x = np.asarray(2 * image_BYXC - 1, np.float64)
    for name, down in (("block_00", True), ("block_01", False)):
        kernel, bias = (np.asarray(params["params"][name][leaf], np.float64) for leaf in ("kernel", "bias"))
        wide = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = sum(wide[:, i : i + x.shape[1], j : j + x.shape[2]] @ kernel[i, j] for i in range(3) for j in range(3)) + bias
        x = np.maximum(x, 0)
        if down:
            x = x[:, :6, :6].reshape(2, 3, 2, 3, 2, -1).mean((2, 4))
    feature_BD = TASK.model.apply(params, image_BYXC, method=classifier.Classifier.features)
    np.testing.assert_allclose(feature_BD, x.mean((1, 2)), rtol=1e-5)
    out = params["params"]["out"]
    wanted = np.asarray(feature_BD) @ np.asarray(out["kernel"]).T + np.asarray(out["bias"])
    np.testing.assert_allclose(TASK.model.apply(params, image_BYXC), wanted, rtol=1e-5)


def test_the_loss_is_the_mean_over_the_rows_that_count():
    params, given = init(2), batch(4)
    nats_B = np.asarray(nats(params, given))
    weighted = given | {"weight_B": np.array([1.0, 0.0, 1.0, 0.0], np.float32)}
    loss, (_, facts) = jax.jit(TASK.loss)(params, (), jax.random.key(0), weighted)
    assert float(loss) == pytest.approx((nats_B[0] + nats_B[2]) / 2, rel=1e-6) and facts["weight"] == 2


def test_dropout_of_a_row_depends_on_its_number_alone():
    task = classification.Classification(classifier.Classifier(dataclasses.replace(SMALL, dropout=0.5)))
    params, given, loss = init(2), batch(4), jax.jit(task.loss)
    losses = [
        loss(params, (), jax.random.key(1), jax.tree.map(lambda leaf: leaf[rows], given) | {"row_B": np.arange(4)[rows]})[0]
        for rows in (slice(0, 4), slice(0, 2), slice(2, 4))
    ]
    assert float(losses[0]) == pytest.approx((float(losses[1]) + float(losses[2])) / 2, rel=1e-5)


def test_it_learns_one_batch_by_heart():
    given = batch()

    @jax.jit
    def update(params):
        (loss, _), slope = jax.value_and_grad(TASK.loss, has_aux=True)(params, (), jax.random.key(0), given)
        return loss, jax.tree.map(lambda leaf, change: leaf - 0.5 * change, params, slope)

    params = init(3)
    for _ in range(400):
        loss, params = update(params)
    assert float(loss) < 0.05 and TASK.right(params, given).all()


def test_bfloat16_stays_finite_and_near():
    params, given = init(4), batch(4)
    near = jax.jit(classification.Classification(TASK.model, dtype="bfloat16").nats)(params, given)
    np.testing.assert_allclose(near, nats(params, given), atol=0.05)
    convolution, x_BYXC = classifier.Convolution(3, True), jnp.ones((1, 7, 7, 2), jnp.bfloat16)
    assert jax.eval_shape(convolution.apply, {"params": params["params"]["block_00"]}, x_BYXC).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"classes": 1}, "config field 'classes' is 1; wanted a whole number of at least 2"),
        ({"blocks": ()}, "config field 'blocks' is ()"),
        ({"blocks": ((3, "up"),)}, "config field 'blocks' is ((3, 'up'),)"),
        ({"blocks": ((3, "down"),) * 3}, "halves 7 pixels 3 times"),
        ({"dropout": 1.0}, "config field 'dropout' is 1.0"),
    ],
)
def test_sizes_that_make_no_model_are_refused_by_field(changed, complaint):
    with pytest.raises(ValueError) as error:
        dataclasses.replace(SMALL, **changed)
    assert complaint in str(error.value)
