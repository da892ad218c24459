"""A run's training state, saved in the background and verified when it is read. The only place that knows Orbax."""

import concurrent.futures
import json
import math
import pathlib
import sys
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from train import commit, digest, quiet

PATIENCE = 600  # seconds that one process waits for the others to have written their part
NEWEST = 64  # steps that are tried, at most
Damaged = commit.Damaged


class Unsaved(RuntimeError):
    """A step could not be saved; the older ones are as they were."""


class Checkpoints:
    """The saved steps of one run in `folder`: the newest `keep`, and the one of the lowest score.

    Orbax writes the arrays, each process its own part; `commit` decides what exists; `digest` finds what Orbax restores without a word, as
    a flipped bit. In a run of several processes all of them make the same calls on one shared folder; process 0 alone renames, removes and
    writes what is shared. Opening a folder changes nothing in it, so a run that goes on can be read.
    """

    def __init__(self, folder: pathlib.Path, keep: int = 2):
        if keep < 1:
            raise ValueError(f"keep={keep}: wanted the number of checkpoints to keep, 1 or more")
        quiet.orbax()
        self.folder = folder.absolute()
        self.lost: list[tuple[int, str]] = []  # the steps that the last load passed over, and why
        self._steps = commit.Steps(self.folder, keep)
        self._cleared = False
        self._pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: concurrent.futures.Future | None = None
        self._orbax = _orbax()

    def steps(self) -> list[int]:
        """The steps that exist, oldest first."""
        return list(self._steps.whole())

    def best(self) -> int | None:
        """The step of the lowest score; None where none has a score."""
        return self._steps.best()

    def fresh(self) -> bool:
        """Whether no step was ever saved here. Where steps() is empty and this is False, all that was saved is damaged."""
        return self._steps.fresh()

    def save(self, step: int, state: Any, facts: dict, score: float | None = None) -> None:
        """Returns when the arrays of `state` may be donated; the writing goes on, and `check` and `wait` tell how it went.

        facts: JSON-able; they come back exactly as given. Steps from `step` on, which a run that was rolled back left behind, are replaced.
        """
        self.wait()
        kept = json.loads(json.dumps(facts))
        if repr(kept) != repr(facts):
            raise ValueError(f"the facts of step {step} do not survive JSON: {facts!r}; wanted numbers, strings, lists, dicts by str")
        leaves = digest.named(state)
        arrays = {path: digest.raw(leaf) for path, leaf in leaves.items()}
        sums = digest.of(arrays)
        record = {"facts": kept, "score": score if score is not None and math.isfinite(score) else None}
        record["leaves"] = {path: [list(leaf.shape), str(leaf.dtype), sums[path]] for path, leaf in leaves.items()}
        try:
            self.clear()
            some = {path: array for path, array in arrays.items() if array.size}  # Orbax refuses an array without elements
            self._orbax.save(self._steps.saving(step) / "state", args=ocp.args.StandardSave(some))
        except Exception as error:
            raise self._unsaved(step, error) from error
        self._pending = self._pool.submit(self._finish, step, record)

    def check(self) -> None:
        """Raises Unsaved when a save in the background has failed; costs nothing."""
        if self._pending is not None and self._pending.done():
            pending, self._pending = self._pending, None
            pending.result()

    def wait(self) -> None:
        """Returns when the last save is on disk, or raises Unsaved."""
        if self._pending is not None:
            concurrent.futures.wait([self._pending])
        self.check()

    def close(self) -> None:
        """Waits, as `wait`, and ends the threads. A program that ends without this may lose the step that it is saving."""
        try:
            self.wait()
        finally:
            self._pool.shutdown()
            self._orbax.close()

    def load(self, like: Any, step: int | None = None, damaged: Literal["refuse", "older"] = "refuse") -> tuple[Any, dict]:
        """(state, facts) of a step, by default the newest, every leaf verified.

        like: a tree of jax.ShapeDtypeStruct; its shardings are followed, without one a leaf goes to the default device. A damaged step is
        refused with Damaged; with "older" it is set aside as N.corrupt, standard error says so, and the newest good one before it is taken.
        """
        self.wait()
        if damaged == "older":
            self.clear()
        self.lost = []
        numbers = _told([number for number in reversed(self._steps.numbers()) if step is None or number <= step])
        if not numbers or step not in (None, numbers[0]):
            raise ValueError(f"{self.folder} holds no step{'' if step is None else f' {step}'}; it holds {self.steps() or 'none'}")
        for number in numbers:
            try:
                found = self._read(number, like)
            except Damaged as error:
                if damaged == "refuse":
                    raise Damaged(f"{error}; {self._remedy(number)}") from error
                self._set_aside(number, error)
                continue
            if self.lost:
                count = self.lost[0][0] - number
                _say(f"going on from step {number}: {'1 update is' if count == 1 else f'{count} updates are'} lost, and made again")
            return found
        why = commit.listed([why for _, why in self.lost])
        raise Damaged(f"{self.folder} holds no good step ({why}); bring one back from a copy, or start the run anew in another folder")

    def _finish(self, step: int, record: dict) -> None:
        """Waits for Orbax, and commits; in the background."""
        try:
            self._orbax.wait_until_finished()
            if jax.process_index() == 0:
                self._steps.commit(step, record)
        except Exception as error:
            raise self._unsaved(step, error) from error

    def _read(self, step: int, like: Any) -> tuple[Any, dict]:
        """(state, facts) of one step, or Damaged, in every process alike."""
        folder, found, trouble = self._steps.at(step), {}, None
        try:
            manifest = self._steps.manifest(step)
            if manifest is None:
                raise Damaged(f"{folder} is damaged: {commit.MANIFEST} is missing, not whole, or another step's")
            _compare(folder, digest.named(like), manifest["leaves"])
            commit.check(folder, manifest["files"])
            found = self._restore(folder, {path: _plan(leaf) for path, leaf in digest.named(like).items()}, manifest["files"])
        except Damaged as error:
            trouble = error
        if _any(trouble is not None):
            raise trouble or Damaged(f"{folder} could not be read by another process")
        wrong = [path for path, text in digest.of(found).items() if text != manifest["leaves"][path][2]]
        if wrong:
            raise Damaged(f"{folder} is damaged at {commit.listed(wrong)} (digest differs)")
        leaves, tree = jax.tree.flatten(like)
        return tree.unflatten([digest.typed(array, leaf) for array, leaf in zip(found.values(), leaves, strict=True)]), manifest["facts"]

    def _restore(self, folder: pathlib.Path, wanted: dict[str, jax.ShapeDtypeStruct], files: dict) -> dict[str, jax.Array]:
        some = {path: leaf for path, leaf in wanted.items() if leaf.size}
        try:
            found = self._orbax.handler.restore(folder / "state", args=ocp.args.StandardRestore(some))
        except (MemoryError, PermissionError, jax.errors.JaxRuntimeError):  # the machine's trouble, not the file's
            raise
        except Exception as error:
            changed = commit.changed(folder, files)
            raise Damaged(f"{folder} is damaged{' in ' if changed else ''}{commit.listed(changed)}: {_root(error)}") from error
        found |= {path: jax.device_put(np.zeros(leaf.shape, leaf.dtype), leaf.sharding) for path, leaf in wanted.items() if not leaf.size}
        return {path: found[path] for path in wanted}

    def clear(self) -> None:
        """Before a program first writes or falls back, and after a save that failed."""
        if not self._cleared and jax.process_index() == 0:
            self._steps.clear()
        self._cleared = True

    def _set_aside(self, step: int, error: Damaged) -> None:
        self.lost.append((step, str(error)))
        if jax.process_index() == 0:
            _say(f"{error}; set aside as {self._steps.set_aside(step)}")

    def _remedy(self, step: int) -> str:
        older = [other for other in self.steps() if other < step]
        return f"remove that folder to go on from step {older[-1]}" if older else "no older step is left: start the run anew"

    def _unsaved(self, step: int, error: Exception) -> Unsaved:
        self._cleared = False
        self._orbax = _orbax()  # the old one would repeat its error
        steps = self.steps()
        if step in steps:
            return Unsaved(f"step {step} is saved in {self.folder}, but older ones could not be removed ({_root(error)}); see to that")
        left = f"step {steps[-1]} is the newest that is whole" if steps else "no step is saved yet"
        return Unsaved(f"step {step} could not be saved in {self.folder} ({_root(error)}); {left}. See to that, then resume the run")


def _orbax() -> ocp.AsyncCheckpointer:
    options = ocp.options.AsyncOptions(timeout_secs=PATIENCE, create_directories_asynchronously=False)
    return ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler(), async_options=options)


def _plan(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """What to restore for a leaf, always with a sharding: Orbax would otherwise take that of the run that saved."""
    sharding = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    bits = jax.eval_shape(digest.raw, leaf)
    return jax.ShapeDtypeStruct(bits.shape, bits.dtype, sharding=sharding)


def _compare(folder: pathlib.Path, like: dict[str, jax.ShapeDtypeStruct], leaves: dict[str, list]) -> None:
    """A state of another model or optimizer is a ValueError, not damage: it must not set good steps aside."""
    wrong = []
    for path in sorted({*like, *leaves}):
        wanted = [list(like[path].shape), str(like[path].dtype)] if path in like else "none"
        got = leaves[path][:2] if path in leaves else "none"
        if got != wanted:
            wrong.append(f"{path} ({got}, wanted {wanted})")
    if wrong:
        raise ValueError(f"{folder} holds another state: {commit.listed(wrong)}; give the settings that the run was started with")


def _told(numbers: list[int]) -> list[int]:
    """What process 0 sees in the folder: another may look a moment too early."""
    if jax.process_count() == 1:
        return numbers
    row_N = np.full(NEWEST, -1, np.int32)
    row_N[: len(numbers[:NEWEST])] = numbers[:NEWEST]
    return [int(number) for number in multihost_utils.broadcast_one_to_all(row_N) if number >= 0]


def _any(here: bool) -> bool:
    """Whether it is so in any process."""
    return here if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.array([here])).any())


def _root(error: BaseException) -> str:
    """Of the error at the root, as TensorStore's, which names leaf and file where Orbax's does not."""
    while error.__cause__:
        error = error.__cause__
    line = str(error).partition("\n")[0].partition(" [tensorstore_spec")[0]
    return f"{type(error).__name__}: {line if len(line) <= 500 else f'{line[:200]} … {line[-300:]}'}"


def _say(words: str) -> None:
    if jax.process_index() == 0:
        print(words, file=sys.stderr, flush=True)
