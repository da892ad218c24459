"""Forgetting all compiled programs, and how often that was done."""

forgotten = 0


def forget() -> None:
    global forgotten
    import jax

    jax.clear_caches()
    forgotten += 1
