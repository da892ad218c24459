"""Spectral normalisation: kernels divided by their largest singular value, which power iteration follows from update to update."""

from typing import Literal

import jax
import jax.numpy as jnp

from flaxgen.protocols import Array

Kind = Literal["full", "lower"]
TINY = 1e-30  # added to squared norms; kernels of 1e-10 must not vanish in them
FLOOR = 1e-6


def begin(kernels: dict[str, Array], key: Array) -> dict[str, Array]:
    """{path: u_F} drawn at random: where power iteration begins for each of the kernels by path, (..., in, out)."""
    return {
        path: _unit(jax.random.normal(jax.random.fold_in(key, place), (kernels[path].shape[-1],)))
        for place, path in enumerate(sorted(kernels))
    }


def normalise(
    kernels: dict[str, Array], power: dict[str, Array], kinds: dict[str, Kind], *, iterations: int = 1
) -> tuple[dict[str, Array], dict[str, Array]]:
    """(kernels over their largest singular values, power) after some steps of power iteration, which no gradient passes.

    A kernel is looked at as the matrix (rest, out), as Miyato et al. 2018 do. "full": w / s. "lower": w min(1, s) / s with s + 1e-6 for s,
    so that a kernel that begins near nothing stays as it is until s reaches 1 (Du and Mordatch 2019, ebm_code_release).
    """
    made, moved = {}, {}
    for path, kernel in kernels.items():
        w_DF, u_F = kernel.reshape(-1, kernel.shape[-1]), power[path]
        still_DF = jax.lax.stop_gradient(w_DF)
        for _ in range(iterations):
            v_D = _unit(jnp.einsum("DF,F->D", still_DF, u_F, precision="highest"))
            u_F = _unit(jnp.einsum("DF,D->F", still_DF, v_D, precision="highest"))
        sigma = jnp.einsum("D,DF,F->", v_D, w_DF, u_F, precision="highest")
        scale = 1 / sigma if kinds[path] == "full" else jnp.minimum(1.0, sigma + FLOOR) / (sigma + FLOOR)
        made[path], moved[path] = kernel * scale, u_F
    return made, moved


def _unit(x_D: Array) -> Array:
    return x_D * jax.lax.rsqrt(jnp.square(x_D).sum() + TINY)
