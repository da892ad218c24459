"""Every test runs on 8 simulated devices, with warnings as errors, no silent rank promotion and a shared compilation cache."""

import os
import pathlib
import tempfile

import pytest

from tests import programs

MAPS = 20_000
CACHE = pathlib.Path(tempfile.gettempdir()) / f"flaxgen-tests-{os.getuid()}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # else scipy waits for threads in vain where processes outnumber cores
os.environ.setdefault("NPROC", "32")  # threads for sums over simulated devices, which block one each (see train/hosts.py)
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")


@pytest.fixture(scope="module", autouse=True)
def few_programs():
    """Forgets compiled programs before their memory maps are as many as a process may have (65,530): then the compiler would crash."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MAPS:
        programs.forget()


@pytest.fixture(scope="session")
def golden() -> pathlib.Path:
    """Small arrays made by the reference implementations."""
    return pathlib.Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """Reference outputs and data beside the checkout; tests that need them skip where they are absent."""
    folder = pathlib.Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"the reference folder {folder.name}/ does not lie beside this checkout")
    return folder
