"""Learning energies: the losses' vectors, the chains of the buffer, the sampler's own loss, and what runs away."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen import replay, weights
from flaxgen.models import energy, energy_config
from flaxgen.tasks import contrast

DATA_B, SAMPLE_B = jnp.asarray([0.2, -0.4]), jnp.asarray([0.5, 0.1])
CONFIG = energy_config.Config(6, 1, 3, ((4, "down"),))
TASK = contrast.Contrast(energy.Energy(CONFIG), moves=4, buffer=11)


@dataclasses.dataclass(frozen=True)
class Bowl:
    """height + stiffness |x - 0.4|² / 2: chains and gradients are known by hand, and it compiles sooner than a network."""

    config: energy_config.Config

    def apply(self, params, x_BYXC, label_B=None, *, key_B=None):
        return params["params"]["stiffness"] / 2 * jnp.square(x_BYXC - 0.4).sum((1, 2, 3)) + params["params"]["height"]


BOWL = contrast.Contrast(
    Bowl(dataclasses.replace(CONFIG, norm="none")), moves=4, step=0.3, noise=0.0, clip=0.0, regulariser=0.0, buffer=11, largest=50.0
)
HOLLOW = {"params": {"stiffness": jnp.float32(0.7), "height": jnp.float32(0.1)}}


def batch(rows=3, classes=0):
    image_BYXC = np.random.default_rng(0).integers(0, 256, (rows, 6, 6, 1)).astype(np.uint8)
    return {"image_BYXC": image_BYXC} | ({"label_B": np.arange(rows) % classes} if classes else {})


def begun(task):
    """Parameters and carry as they begin, without the time that compiling their draws takes."""
    draw, c = np.random.default_rng(0), task.model.config
    flat = {path: np.ones(shape) if path.endswith("/gain") else np.zeros(shape) for path, shape in c.shapes().items()}
    for path in flat:
        if path.endswith("kernel"):
            spread = 1e-10 if "conv_1" in path else 0.5 if path == "out/kernel" else 1.0
            flat[path] = spread * draw.normal(size=flat[path].shape)
    power = {path: draw.normal(size=flat[path].shape[-1]) for path in c.normalised()}
    buffer = replay.empty(task.buffer, (c.size, c.size, c.channels))
    return jax.tree.map(jnp.float32, weights.nest(flat)), contrast.Carry(buffer, jax.tree.map(jnp.float32, power))


def row_keys(key, number):
    """The keys of three rows by which an update draws: number 0 for the noise in data, 1 for where chains begin."""
    return jnp.stack([jax.random.fold_in(jax.random.fold_in(key, number), row) for row in range(3)])


def taught(task):
    """The loss, what comes with it, and its gradient, compiled."""
    return jax.jit(jax.value_and_grad(task.loss, has_aux=True))


@pytest.fixture(scope="module")
def bowl():
    return taught(BOWL)


@pytest.mark.parametrize(("kind", "value"), [("cd", -0.4), ("logsumexp", -0.360509339582324), ("softplus", 0.5142161143243169)])
def test_losses_of_hand_made_energies(kind, value):
    assert float(contrast.contrast(DATA_B, SAMPLE_B, kind)) == pytest.approx(value, abs=1e-6)


def test_the_regulariser_has_the_same_sign_for_data_and_samples():
    assert float(contrast.squares(DATA_B, SAMPLE_B)) == pytest.approx(0.23, abs=1e-6)
    total = contrast.contrast(DATA_B, SAMPLE_B, "cd") + contrast.squares(DATA_B, SAMPLE_B)
    assert float(total) == pytest.approx(-0.17, abs=1e-6)


def test_data_are_spread_within_their_step():
    image_BYXC = jnp.asarray([0, 255], jnp.uint8).reshape(2, 1, 1, 1)
    found = np.asarray(contrast.dequantised(image_BYXC, jax.random.split(jax.random.key(0), 2))).ravel()
    assert 0 <= found[0] < 1 / 256 and 255 / 256 <= found[1] < 1


def test_the_chains_end_in_the_buffer_and_the_next_update_begins_there(bowl):
    carry = BOWL.carry(jax.random.key(1))
    for number in range(3):
        (_, (carry, facts)), _ = bowl(HOLLOW, carry, jax.random.key(number), batch())
        assert int(carry.buffer.count) == 3 * (number + 1)
        assert float(facts["fresh"]) == 1.0 if number < 2 else float(facts["fresh"]) < 1.0
    assert float(facts["weight"]) == 3 and {"energy_data", "energy_sample", "move"} <= set(facts)


def test_the_samples_of_a_class_conditional_model_teach_without_being_taught():
    """With kl="none" the gradient is that of the energies at fixed points, by the data's labels; smooth, as the buffer rounds points."""
    config = dataclasses.replace(CONFIG, classes=2, activation="swish", last="same")
    task = contrast.Contrast(energy.Energy(config), moves=2, buffer=5, regulariser=0.0)
    (params, carry), given = begun(task), batch(classes=2)
    (_, (after, _)), grad = taught(task)(params, carry, jax.random.key(3), given)
    ends_BYXC = (after.buffer.image_NYXC[:3] + 0.5) / 255
    data_BYXC = contrast.dequantised(given["image_BYXC"], row_keys(jax.random.key(3), 0))

    def by_hand(params):
        normal = task.normalised(params, carry.power)[0]
        return (task.model.apply(normal, data_BYXC, given["label_B"]) - task.model.apply(normal, ends_BYXC, given["label_B"])).mean()

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=0.02 * float(jnp.abs(b).max()) + 1e-4), grad, jax.jit(jax.grad(by_hand))(params)
    )
    assert float(jnp.abs(grad["params"]["block_00"]["bias_0"]).sum(1).min()) > 0


def test_the_sampler_is_taught_through_its_last_move_or_all_of_them_and_to_keep_samples_apart(bowl):
    """By hand: a move takes y = x - 0.4 to (1 - step k) y, so what energy and distance of the last y change by k in a move is known."""
    k, step, moves, carry, key = 0.7, 0.3, 4, BOWL.carry(jax.random.key(1)), jax.random.key(3)
    first_BYXC = replay.draw(carry.buffer, row_keys(key, 1), 0.05)[0]
    y_BD = (np.asarray(first_BYXC, np.float64).reshape(3, -1) - 0.4) * (1 - step * k) ** moves
    energy, nearest_B = k / 2 * np.square(y_BD).sum(1).mean(), np.sort(np.linalg.norm(y_BD[:, None] - y_BD, axis=2))[:, 1]
    found = {"none": bowl(HOLLOW, carry, key, batch())}
    for kl in ("last", "chain"):
        found[kl] = taught(dataclasses.replace(BOWL, kl=kl, kl_weight=2.0, entropy=0.5))(HOLLOW, carry, key, batch())
    value = {kl: float(each[0][0]) for kl, each in found.items()}
    slope = {kl: float(each[1]["params"]["stiffness"]) for kl, each in found.items()}
    more = 2 * (energy + 0.1) - 0.5 * np.log(nearest_B).mean()
    through_one = (2 * 2 * energy - 0.5) * -step / (1 - step * k)
    for kl, count in (("last", 1), ("chain", moves)):
        assert value[kl] - value["none"] == pytest.approx(more, rel=1e-4)
        assert slope[kl] - slope["none"] == pytest.approx(count * through_one, rel=1e-4)


def test_the_distance_between_samples_is_that_to_the_nearest_other():
    x_BYXC = jnp.asarray([[0.0, 0.0], [0.3, 0.4], [1.0, 1.0]]).reshape(3, 2, 1, 1)
    assert float(contrast.spread(x_BYXC)) == pytest.approx(np.log([0.5, 0.5, np.hypot(0.7, 0.6)]).mean(), abs=1e-5)


def test_a_share_of_images_is_augmented_each_by_its_own_key():
    image_BYXC, key_B = batch(5)["image_BYXC"] / np.float32(255), jax.random.split(jax.random.key(2), 5)
    augment = jax.jit(contrast.augmented)
    np.testing.assert_array_equal(augment(image_BYXC, key_B, 0.0), image_BYXC)
    made_BYXC = augment(image_BYXC, key_B, 1.0)
    assert (np.abs(made_BYXC - image_BYXC).max((1, 2, 3)) > 0.01).all() and made_BYXC.min() >= 0 and made_BYXC.max() <= 1
    np.testing.assert_allclose(augment(image_BYXC[::-1], key_B[::-1], 1.0), made_BYXC[::-1], atol=1e-6)


def test_a_network_with_all_of_it_has_finite_slopes():
    words = {"kl": "chain", "entropy": 0.3, "augment": 0.5}
    task = contrast.Contrast(energy.Energy(dataclasses.replace(CONFIG, classes=2, dropout=0.5)), moves=3, buffer=5, **words)
    params, carry = begun(task)
    _, grad = taught(task)(params, carry, jax.random.key(0), batch(classes=2))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grad))
    assert float(jnp.abs(grad["params"]["block_00"]["bias_0"]).sum(1).min()) > 0


def test_energies_that_run_away_are_a_bad_update(bowl):
    for height, sane in ((30.0, True), (60.0, False), (-60.0, False), (np.nan, False)):
        params = {"params": HOLLOW["params"] | {"height": jnp.float32(height)}}
        (value, _), _ = bowl(params, BOWL.carry(jax.random.key(1)), jax.random.key(0), batch())
        assert np.isfinite(value) == sane


def test_the_exported_kernels_have_the_norm_divided_out():
    params, carry = begun(TASK)[0], TASK.carry(jax.random.key(1))
    step = jax.jit(lambda power: TASK.normalised(params, power)[1])
    for _ in range(300):
        carry = dataclasses.replace(carry, power=step(carry.power))
    kernel = np.asarray(TASK.export(params, carry)["params"]["block_00"]["conv_0"]["kernel"])
    assert np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), 2) == pytest.approx(1, abs=1e-3)


def test_it_overfits_one_image():
    task = contrast.Contrast(energy.Energy(energy_config.Config(6, 1, 8, ((8, "down"),))), moves=10, buffer=60)
    image_BYXC = np.zeros((8, 6, 6, 1), np.uint8)
    image_BYXC[:, 1:4, 2:5] = 250

    def update(state, number):
        params, moment, carry = state
        (_, (carry, _)), grads = jax.value_and_grad(task.loss, has_aux=True)(
            params, carry, jax.random.key(number), {"image_BYXC": image_BYXC}
        )
        moment = jax.tree.map(lambda m, g: 0.99 * m + 0.01 * g * g, moment, grads)
        params = jax.tree.map(lambda p, g, m: p - 0.02 * g / (jnp.sqrt(m) + 1e-8), params, grads, moment)
        return (params, moment, carry), None

    params, carry = begun(task)
    state = (params, jax.tree.map(jnp.zeros_like, params), carry)
    (_, _, carry), _ = jax.jit(lambda state: jax.lax.scan(update, state, jnp.arange(400)))(state)
    distance = np.abs(np.asarray(carry.buffer.image_NYXC, float) - image_BYXC[0]).mean() / 255
    assert distance < 0.1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"loss_kind": "hinge"}, "loss_kind='hinge': wanted one of cd, logsumexp, softplus"),
        ({"kl": "all"}, "kl='all'"),
        ({"moves": 0}, "moves=0: wanted a whole number of at least 1"),
        ({"fresh": 1.5}, "fresh=1.5: wanted a share from 0 to 1"),
        ({"noise": float("nan")}, "noise=nan: wanted a finite number"),
        ({"entropy": 0.1}, "entropy=0.1 moves samples, which kl='none' holds"),
    ],
)
def test_settings_that_cannot_be_are_refused(fields, words):
    with pytest.raises(ValueError) as caught:
        dataclasses.replace(TASK, **fields)
    assert words in str(caught.value)
