"""Many processes as one run: joining, agreeing, and who writes. jax's own runtime does the work."""

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

# What a launcher sets to the number of processes; jax.distributed finds address and number of each by itself.
LAUNCHERS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
PODS = ("TPU_WORKER_HOSTNAMES", "MEGASCALE_COORDINATOR_ADDRESS", "JOBSET_NAME")


def join(coordinator: str = "", processes: int = 0, process: int = -1) -> None:
    """Makes this process a member of the run that its launcher started, or that the three flags describe; alone it does nothing.

    coordinator: HOST:PORT of process 0. Must be called before anything else of jax.
    """
    given = (bool(coordinator), processes > 0, process >= 0)
    if any(given) and not all(given):
        raise ValueError(
            "coordinator=HOST:PORT, processes=N and process=0…N-1 go together; give all three, or none where a launcher is detected"
        )
    if all(given):
        if process >= processes:
            raise ValueError(f"process={process} processes={processes}: wanted a process from 0 to {processes - 1}")
        jax.distributed.initialize(coordinator, processes, process)
    elif any(int(os.environ.get(name, "1")) > 1 for name in LAUNCHERS) or any("," in os.environ.get(name, "") for name in PODS):
        jax.distributed.initialize()


def first() -> bool:
    """Whether this process is the one that writes what all share."""
    return jax.process_index() == 0


def wait(name: str) -> None:
    """Returns when all processes have come to `name`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def same(value: int) -> int:
    """What process 0 holds."""
    return int(multihost_utils.broadcast_one_to_all(np.int64(value))) if jax.process_count() > 1 else value


def alone() -> bool:
    return jax.process_count() == 1


@contextlib.contextmanager
def alone_in(folder: pathlib.Path) -> Iterator[None]:
    """Keeps other runs out of a folder while this one trains in it; the system frees it when the process ends, however it ends."""
    if not first():
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another process is training in {folder}; wait for its end, or start another run with out=DIR") from None
        yield
