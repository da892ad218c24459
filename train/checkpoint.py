"""A run's training state on disk: whole or absent, verified by digest, the newest good one first. The only place that knows Orbax."""

import hashlib
import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp


class Checkpoints:
    """The saved steps of one run, the newest `keep` of them.

    Orbax writes into a temporary folder and renames it, so a killed run leaves the last whole step; the digest of every leaf is kept beside
    the arrays, because Orbax itself restores a flipped bit without a word.
    """

    def __init__(self, folder: pathlib.Path, keep: int = 2):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False, cleanup_tmp_directories=True)
        self.folder = folder.absolute()
        self.manager = ocp.CheckpointManager(self.folder, options=options, item_names=("state", "facts"))

    def steps(self) -> list[int]:
        return sorted(self.manager.all_steps())

    def save(self, step: int, state: Any, facts: dict) -> None:
        """Returns when the state is on disk. facts: JSON-able numbers of the run."""
        facts = facts | {"sha256": digests(state)}
        self.manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(state), facts=ocp.args.JsonSave(facts)), force=True)
        self.manager.wait_until_finished()

    def load(self, like: Any, step: int | None = None) -> tuple[Any, dict]:
        """(state, facts) of a step, by default the newest; damage is a ValueError naming step and leaf.

        like: a state with the tree, shapes and dtypes to expect.
        """
        step = self.steps()[-1] if step is None else step
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        try:
            found = self.manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract), facts=ocp.args.JsonRestore())
            )
        except Exception as error:
            what = str(error).partition("\n")[0][:160]
            raise ValueError(f"{self.folder / str(step)} cannot be read ({what}); {self._remedy(step)}") from error
        state, facts = found["state"], dict(found["facts"])
        wanted, got = facts.pop("sha256"), digests(state)
        wrong = [path for path in got if got[path] != wanted.get(path)]
        if wrong or len(wanted) != len(got):
            listed = ", ".join(wrong[:20]) or "missing leaves"
            raise ValueError(f"{self.folder / str(step)} is damaged at {listed} (sha256 differs); {self._remedy(step)}")
        return state, facts

    def _remedy(self, step: int) -> str:
        older = [str(other) for other in self.steps() if other < step]
        return f"remove that folder to go on from step {older[-1]}" if older else "no older step is left: start the run anew"


def digests(state: Any) -> dict[str, str]:
    """Path -> sha256 of each leaf's bytes, shape and dtype."""

    def digest(leaf):
        array = np.asarray(leaf)
        return hashlib.sha256(f"{array.dtype}{array.shape}".encode() + array.tobytes()).hexdigest()

    return {jax.tree_util.keystr(path): digest(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state)}
