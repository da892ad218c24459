import jax
import jax.numpy as jnp
import numpy as np

from flaxgen.nn import recurrent


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def read(x_TD, input_FD, bias_F, kernel_FU):
    """state_TU of an LSTM, step by step in float64."""
    state_U = cell_U = np.zeros(kernel_FU.shape[1])
    found = []
    for x_D in x_TD:
        i_U, f_U, n_U, o_U = np.split(input_FD @ x_D + bias_F + kernel_FU @ state_U, 4)
        cell_U = sigmoid(f_U + 1) * cell_U + sigmoid(i_U) * np.tanh(n_U)
        state_U = sigmoid(o_U) * np.tanh(cell_U)
        found.append(state_U)
    return np.stack(found)


def test_both_directions_are_lstms_of_their_own():
    layer, x_BTD = recurrent.BiLSTM(3), jax.random.normal(jax.random.key(0), (2, 5, 4))
    params = layer.init(jax.random.key(1), x_BTD)
    params = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), params)
    tree = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])
    for row, x_TD in enumerate(np.asarray(x_BTD, np.float64)):
        there_TU, back_TU = (
            read(x_TD[::turn], tree[way]["input"]["kernel"], tree[way]["input"]["bias"], tree[way]["kernel"])[::turn]
            for way, turn in (("forward", 1), ("backward", -1))
        )
        wanted_TD = np.concatenate([there_TU, back_TU], axis=1) @ tree["map"]["kernel"].T + tree["map"]["bias"]
        np.testing.assert_allclose(layer.apply(params, x_BTD)[row], wanted_TD, atol=1e-5)


def test_the_state_forgets_nothing_that_a_long_line_says_first():
    gate_TGBF = jnp.zeros((9, 1, 1, 4)).at[0].set(5.0).at[:, ..., 1].set(9.0).at[:, ..., 3].set(9.0)
    state_TGBU = recurrent.lstm(gate_TGBF, jnp.zeros((1, 4, 1)))
    np.testing.assert_allclose(state_TGBU[:, 0, 0, 0], state_TGBU[0, 0, 0, 0], atol=1e-2)
