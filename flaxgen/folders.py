"""A folder that appears whole or not at all."""

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def staged(target: pathlib.Path, *, force: bool = False) -> Iterator[pathlib.Path]:
    """A temporary sibling of `target` to write into; fsynced and renamed to `target` when the block ends well, removed when it does not.

    An existing target is a FileExistsError, before anything is written, unless `force`; then the old one stands until the new one is whole.
    """
    target = pathlib.Path(os.path.abspath(target))
    if not force:
        refuse_existing(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    work = pathlib.Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield work
        _open_up(work)
        for path in sorted(work.rglob("*")):
            _sync(path)
        _sync(work)
        if not force:
            refuse_existing(target)  # it may have come into being meanwhile
        _swap(work, target)
        _sync(target.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def refuse_existing(target: pathlib.Path) -> None:
    """FileExistsError when something lies at `target` already."""
    if os.path.lexists(target):
        raise FileExistsError(f"{target} exists already; nothing was written. Choose another name, or allow it to be replaced (force)")


def _open_up(work: pathlib.Path) -> None:
    """Gives `work` the permissions a plain mkdir would have given."""
    mask = os.umask(0)
    os.umask(mask)
    work.chmod(0o777 & ~mask)


def _swap(work: pathlib.Path, target: pathlib.Path) -> None:
    if not os.path.lexists(target):
        work.rename(target)
        return
    old = pathlib.Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    target.rename(old / target.name)
    try:
        work.rename(target)
    except BaseException:
        (old / target.name).rename(target)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _sync(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
