"""Generative models in pure-functional JAX/Flax."""
