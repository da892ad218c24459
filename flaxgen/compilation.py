"""The persistent compilation cache of the programs."""

import os
import pathlib

import jax


def keep() -> None:
    """Keeps compiled programs in the user's cache folder, so that a command starts faster the next time.

    A folder that the user has set (JAX_COMPILATION_CACHE_DIR) is left as it is.
    """
    if jax.config.jax_compilation_cache_dir is None:
        root = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(root / "flaxgen" / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
