"""How fast something was written, beside what the machine's memory would allow."""

import dataclasses
import functools
import time

import jax
import jax.numpy as jnp

from flaxgen.protocols import Params

PROBE = 1 << 28  # bytes, beyond every cache


@dataclasses.dataclass(frozen=True)
class Stats:
    """Seconds of one call and what it drew.

    tokens: drawn in all rows. seconds: of the whole call. first_token_seconds: until the last row had its first token. moves: steps of the
    decoder after that, each of which reads all weights once. weight_bytes: what it reads then.
    """

    tokens: int
    seconds: float
    first_token_seconds: float
    moves: int
    weight_bytes: int

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def bandwidth_share(self) -> float:
        """Weights read a second over what the memory gives, 0 to 1; the caches, read too, are not counted. NaN after a single move."""
        seconds = self.seconds - self.first_token_seconds
        return self.moves * self.weight_bytes / seconds / bandwidth() if self.moves and seconds > 0 else float("nan")


def weight_bytes(params: Params) -> int:
    """Bytes of all parameters."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(params))


@functools.cache
def bandwidth() -> float:
    """Bytes a second at which the default device sums an array of 256 MB, the best of five; measured once a process."""
    array = jnp.zeros(PROBE // 4, jnp.float32)
    total = jax.jit(jnp.sum)
    total(array).block_until_ready()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        total(array).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return PROBE / min(seconds)
