"""Learning energies: the losses' vectors, the chains of the buffer, the sampler's own loss, and what runs away."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen import replay
from flaxgen.models import energy, energy_config
from flaxgen.tasks import contrast

DATA_B, SAMPLE_B = jnp.asarray([0.2, -0.4]), jnp.asarray([0.5, 0.1])
CONFIG = energy_config.Config(6, 1, 3, ((4, "down"),))
TASK = contrast.Contrast(energy.Energy(CONFIG), moves=4, buffer=11)


@dataclasses.dataclass(frozen=True)
class Bowl:
    """stiffness |x - 0.4|² / 2: an energy whose chains and gradients are known by hand, and which compiles at once."""

    config: energy_config.Config = dataclasses.replace(CONFIG, norm="none")

    def apply(self, params, x_BYXC, label_B=None, *, key_B=None):
        return params["params"]["stiffness"] / 2 * jnp.square(x_BYXC - 0.4).sum((1, 2, 3)) + params["params"]["height"]


BOWL = contrast.Contrast(Bowl(), moves=4, step=0.3, noise=0.0, clip=0.0, regulariser=0.0, buffer=11)
HOLLOW = {"params": {"stiffness": jnp.float32(0.7), "height": jnp.float32(0.1)}}


def batch(rows=3, classes=0):
    image_BYXC = np.random.default_rng(0).integers(0, 256, (rows, 6, 6, 1)).astype(np.uint8)
    return {"image_BYXC": image_BYXC} | ({"label_B": np.arange(rows) % classes} if classes else {})


def begun(task):
    return jax.jit(task.init)(jax.random.key(0)), jax.jit(task.carry)(jax.random.key(1))


def taught(**fields):
    """(loss, gradient by the stiffness) of the bowl with these settings, from noise."""
    task = dataclasses.replace(BOWL, **fields)
    (value, _), slope = jax.jit(jax.value_and_grad(task.loss, has_aux=True))(
        HOLLOW, task.carry(jax.random.key(1)), jax.random.key(3), batch()
    )
    return float(value), float(slope["params"]["stiffness"])


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


def test_the_chains_end_in_the_buffer_and_the_next_update_begins_there():
    loss, carry = jax.jit(BOWL.loss), BOWL.carry(jax.random.key(1))
    for number in range(3):
        _, (carry, facts) = loss(HOLLOW, carry, jax.random.key(number), batch())
        assert int(carry.buffer.count) == 3 * (number + 1)
        assert float(facts["fresh"]) == 1.0 if number < 2 else float(facts["fresh"]) < 1.0
    assert float(facts["weight"]) == 3 and {"energy_data", "energy_sample", "move"} <= set(facts)


def test_the_samples_teach_without_being_taught():
    """With kl="none" the gradient is that of the energies at fixed points."""
    task = dataclasses.replace(TASK, regulariser=0.0)
    params, carry = begun(task)
    key = jax.random.key(3)
    grad, (after, _) = jax.jit(jax.grad(task.loss, has_aux=True))(params, carry, key, batch())
    ends_BYXC = (after.buffer.image_NYXC[:3] + 0.5) / 255
    data_BYXC = (batch()["image_BYXC"] + 0.5) / 256

    def by_hand(params):
        normal = task.normalised(params, carry.power)[0]
        return (task.model.apply(normal, data_BYXC) - task.model.apply(normal, ends_BYXC)).mean()

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=0.02 * float(jnp.abs(b).max()) + 1e-4), grad, jax.jit(jax.grad(by_hand))(params)
    )


def test_the_sampler_is_taught_through_its_last_move_or_all_of_them():
    """By hand: a move takes y = x - 0.4 to (1 - step k) y, so the slope of |y|² k / 2 by k through one move, k held in it, is known."""
    k, step, moves = 0.7, 0.3, 4
    row_key_B = [jax.random.fold_in(jax.random.fold_in(jax.random.key(3), 1), row) for row in range(3)]  # what chains draw with
    first_BYXC = replay.draw(replay.empty(11, (6, 6, 1)), jnp.stack(row_key_B), 0.05)[0]
    energy_B = np.square(np.asarray(first_BYXC, np.float64) - 0.4).sum((1, 2, 3)) * (1 - step * k) ** (2 * moves) / 2
    plain, last, chain = (taught(kl=kl, kl_weight=2.0) for kl in ("none", "last", "chain"))
    assert last[0] == pytest.approx(plain[0] + 2 * (k * energy_B.mean() + 0.1), rel=1e-5) == pytest.approx(chain[0], rel=1e-5)
    through_one = 2 * k * energy_B.mean() * 2 * -step / (1 - step * k)
    assert last[1] - plain[1] == pytest.approx(through_one, rel=1e-4)
    assert chain[1] - plain[1] == pytest.approx(moves * through_one, rel=1e-4)


def test_through_the_last_move_is_through_the_chain_where_there_is_one_move():
    programs = [
        jax.make_jaxpr(jax.grad(dataclasses.replace(BOWL, kl=kl, moves=1).loss, has_aux=True))(
            HOLLOW, BOWL.carry(jax.random.key(1)), jax.random.key(3), batch()
        )
        for kl in ("last", "chain", "none")
    ]
    assert str(programs[0]) == str(programs[1]) != str(programs[2])


def test_the_sampler_of_a_network_is_taught_too():
    task = dataclasses.replace(TASK, kl="chain", entropy=0.3, moves=3)
    params, carry = begun(task)
    slope = jax.jit(jax.grad(task.loss, has_aux=True))(params, carry, jax.random.key(3), batch())[0]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))
    assert float(jnp.abs(slope["params"]["stem"]["kernel"]).max()) > 0


def test_samples_are_driven_apart_by_the_entropy_term():
    x_BYXC = jnp.asarray([[0.0, 0.0], [0.3, 0.4], [1.0, 1.0]]).reshape(3, 2, 1, 1)
    assert float(contrast.spread(x_BYXC)) == pytest.approx(np.log([0.5, 0.5, np.hypot(0.7, 0.6)]).mean(), abs=1e-5)
    # A stiffer bowl draws samples together by the factor 1 - step k, whose logarithm has the slope -step / (1 - step k) in one move.
    plain, apart = taught(kl="last"), taught(kl="last", entropy=0.3)
    assert apart[1] - plain[1] == pytest.approx(0.3 * 0.3 / (1 - 0.3 * 0.7), rel=1e-4)


def test_energies_that_run_away_are_a_bad_update():
    loss, carry = jax.jit(BOWL.loss), BOWL.carry(jax.random.key(1))
    for height, sane in ((90.0, True), (300.0, False), (-300.0, False), (np.nan, False)):
        params = {"params": HOLLOW["params"] | {"height": jnp.float32(height)}}
        assert np.isfinite(loss(params, carry, jax.random.key(0), batch())[0]) == sane
    high = {"params": HOLLOW["params"] | {"height": jnp.float32(300)}}
    assert np.isfinite(jax.jit(dataclasses.replace(BOWL, largest=1e6).loss)(high, carry, jax.random.key(0), batch())[0])


def test_the_exported_kernels_have_the_norm_divided_out():
    params, carry = begun(TASK)
    step = jax.jit(lambda power: TASK.normalised(params, power)[1])
    for _ in range(300):
        carry = dataclasses.replace(carry, power=step(carry.power))
    kernel = np.asarray(TASK.export(params, carry)["params"]["block_00"]["conv_0"]["kernel"])
    assert np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), 2) == pytest.approx(1, abs=1e-3)


def test_a_class_conditional_model_learns_by_the_data_s_labels():
    task = contrast.Contrast(energy.Energy(dataclasses.replace(CONFIG, classes=2, dropout=0.5)), moves=2, buffer=5)
    params, carry = begun(task)
    grad, _ = jax.jit(jax.grad(task.loss, has_aux=True))(params, carry, jax.random.key(0), batch(classes=2))
    assert float(jnp.abs(grad["params"]["block_00"]["bias_0"]).sum(1).min()) > 0


def test_it_overfits_one_image():
    task = contrast.Contrast(energy.Energy(energy_config.Config(6, 1, 8, ((8, "down"), (8, "same")))), moves=10, buffer=60)
    params, carry = begun(task)
    image_BYXC = np.zeros((8, 6, 6, 1), np.uint8)
    image_BYXC[:, 1:4, 2:5] = 250

    @jax.jit
    def update(params, moment, carry, key):
        (_, (carry, _)), grads = jax.value_and_grad(task.loss, has_aux=True)(params, carry, key, {"image_BYXC": image_BYXC})
        moment = jax.tree.map(lambda m, g: 0.99 * m + 0.01 * g * g, moment, grads)
        params = jax.tree.map(lambda p, g, m: p - 0.02 * g / (jnp.sqrt(m) + 1e-8), params, grads, moment)
        return params, moment, carry

    moment = jax.tree.map(jnp.zeros_like, params)
    for number in range(600):
        params, moment, carry = update(params, moment, carry, jax.random.key(number))
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
