"""Many processes as one run: joining, agreeing, and who writes. jax's own runtime does the work."""

import contextlib
import fcntl
import itertools
import os
import pathlib
from collections.abc import Iterator

import jax
from jax._src import distributed  # the coordination service has no public name

# What a launcher sets to the number of processes; jax.distributed finds address and number of each by itself.
LAUNCHERS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
PODS = ("TPU_WORKER_HOSTNAMES", "MEGASCALE_COORDINATOR_ADDRESS")  # with commas between them where there are several
DETECT = "detect"
THREADS = 32
PATIENCE = 48 * 3600 * 1000  # ms
_waits = itertools.count()


def join(coordinator: str = "", processes: int = 0, process: int = -1) -> None:
    """Makes this process a member of the run that its launcher started, or that the three flags describe; alone it does nothing.

    coordinator: HOST:PORT of process 0, or "detect" where jax shall find out itself (Kubernetes, with jax[k8s]). Must be called before
    anything else of jax.
    """
    given = (bool(coordinator), processes > 0, process >= 0)
    several = any(int(os.environ.get(name, "1")) > 1 for name in LAUNCHERS) or any("," in os.environ.get(name, "") for name in PODS)
    if any(given) or several or int(os.environ.get("JAX_NUM_CPU_DEVICES", "1")) > 1:
        # A CPU device that waits in a sum blocks a thread of XLA's pool, which has as many as the machine has cores. Two sums that devices
        # take up in another order then wait for each other for ever; NPROC is what the pool's size is read from.
        os.environ.setdefault("NPROC", str(max(THREADS, os.cpu_count() or 1)))
    if given == (True, False, False) and coordinator == DETECT:
        jax.distributed.initialize()
        return
    if any(given) and not all(given):
        raise ValueError(
            "coordinator=HOST:PORT, processes=N and process=0…N-1 go together; give all three, or none where a launcher is detected"
        )
    if all(given):
        if process >= processes:
            raise ValueError(f"process={process} processes={processes}: wanted a process from 0 to {processes - 1}")
        jax.distributed.initialize(coordinator, processes, process)
    elif several:
        jax.distributed.initialize()


def first() -> bool:
    """Whether this process is the one that writes what all share."""
    return jax.process_index() == 0


def wait(name: str) -> None:
    """Returns when all processes have come here, however long one of them reads or writes; all make the same calls in the same order.

    jax.experimental.multihost_utils.sync_global_devices is a sum on the devices, whose first one gives up after half a minute.
    """
    if jax.process_count() > 1:
        distributed.global_state.client.wait_at_barrier(f"flaxgen-{name}-{next(_waits)}", timeout_in_ms=PATIENCE)


def alone() -> bool:
    return jax.process_count() == 1


@contextlib.contextmanager
def alone_in(folder: pathlib.Path) -> Iterator[None]:
    """Keeps other runs out of a folder while this one trains in it; the system frees it when the process ends, however it ends."""
    if not first():
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / "lock"
    with open(lock, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another process is training in {folder}; wait for its end, or start another run with out=DIR") from None
        try:
            yield
        finally:
            if list(folder.iterdir()) == [lock]:  # a start that was refused leaves nothing
                lock.unlink()
                folder.rmdir()
