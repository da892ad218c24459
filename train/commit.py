"""What makes a saved step exist: a whole manifest, written last, in a folder that then takes the step's name.

120/          state/ and manifest.json: step, score, facts, shape, dtype and digest of each leaf, size of each file, sha256 of all that
130.saving/   a save under way, or cut short      110.deleted/  one that is being removed      120.corrupt/  damaged, set aside
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import time

MANIFEST = "manifest.json"
SMALL = 2**20  # bytes up to which a file has a sha256 in the manifest; what is larger is arrays, whose leaves have digests


class Damaged(ValueError):
    """A step on disk is not what was saved; the words name the step, and the leaf or the file."""


@dataclasses.dataclass(frozen=True)
class Steps:
    """The steps of one run: the newest `keep`, and the one of the lowest score.

    Every change is one rename, so that a process that dies at any moment leaves each step whole or absent.
    """

    folder: pathlib.Path
    keep: int

    def numbers(self) -> list[int]:
        """The folders that are named as steps, oldest first, whole or not."""
        return sorted(int(path.name) for path in self._entries() if path.name.isdecimal())

    def whole(self) -> dict[int, dict]:
        """Step -> manifest of those that exist, oldest first."""
        found = {number: self.manifest(number) for number in self.numbers()}
        return {number: manifest for number, manifest in found.items() if manifest}

    def manifest(self, step: int) -> dict | None:
        return read(self.at(step), step)

    def best(self) -> int | None:
        """The step of the lowest score, the newer of two; None where none has a score."""
        scores = {step: manifest["score"] for step, manifest in self.whole().items() if manifest["score"] is not None}
        return min(scores, key=lambda step: (scores[step], -step), default=None)

    def fresh(self) -> bool:
        """Whether no step was ever saved here, neither a good one nor one that is damaged now."""
        return not any(path.name.partition(".corrupt")[0].isdecimal() for path in self._entries())

    def at(self, step: int) -> pathlib.Path:
        return self.folder / str(step)

    def saving(self, step: int) -> pathlib.Path:
        return self.folder / f"{step}.saving"

    def commit(self, step: int, record: dict) -> None:
        """N.saving, written whole, becomes step N, and what is not kept goes. record: JSON-able."""
        saving = self.saving(step)
        inside = sorted(saving.rglob("*"))
        files = {str(path.relative_to(saving)): [path.stat().st_size, _sum(path)] for path in inside if path.is_file()}
        for path in [*inside, saving]:
            sync(path)
        write(saving, record | {"step": step, "files": files})
        self._publish(step)
        kept = {*list(self.whole())[-self.keep :], self.best()}
        for number in self.numbers():
            if number not in kept:
                self._remove(number)

    def clear(self) -> None:
        """What a killed program left: a save that was whole but for its name becomes a step, all else is removed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self._entries():
            name, _, kind = path.name.partition(".")
            if kind == "saving" and name.isdecimal() and read(path, int(name)):
                self._publish(int(name))
            elif kind in ("saving", "deleted"):
                _discard(path)

    def set_aside(self, step: int) -> str:
        """The name that the folder of a damaged step has from now on."""
        names = (f"{step}.corrupt{end}" for end in ["", *(f"-{n}" for n in range(2, 1000))])
        aside = next(name for name in names if not (self.folder / name).exists())
        self.at(step).rename(self.folder / aside)
        return aside

    def _publish(self, step: int) -> None:
        for number in self.numbers():
            if number >= step:  # of a past that was rolled back
                self._remove(number)
        self.saving(step).rename(self.at(step))
        sync(self.folder)

    def _remove(self, step: int) -> None:
        gone = self.folder / f"{step}.deleted"
        shutil.rmtree(gone, ignore_errors=True)
        self.at(step).rename(gone)  # at once: a step is never half there
        shutil.rmtree(gone)

    def _entries(self) -> list[pathlib.Path]:
        return sorted(self.folder.iterdir()) if self.folder.is_dir() else []


def read(folder: pathlib.Path, step: int) -> dict | None:
    """The manifest in a folder; None where it is absent, damaged, or another step's."""
    try:
        found = json.loads((folder / MANIFEST).read_bytes())
        whole = found.pop("sha256") == sha256(found) and found["step"] == step
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return found if whole else None


def write(folder: pathlib.Path, record: dict) -> None:
    """The manifest of `folder`, on disk when this returns."""
    with open(folder / MANIFEST, "w", encoding="utf-8") as file:
        json.dump({"sha256": sha256(record)} | record, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    sync(folder)


def check(folder: pathlib.Path, files: dict[str, list]) -> None:
    """Damaged, where a file of a step is missing or has another size: the cheap half of the check."""
    wrong = []
    for name, (size, _) in files.items():
        path = folder / name
        got = f"{path.stat().st_size} bytes" if path.is_file() else "missing"
        if got != f"{size} bytes":
            wrong.append(f"{name} ({got}, wanted {size} bytes)")
    if wrong:
        raise Damaged(f"{folder} is damaged: {listed(wrong)}")


def changed(folder: pathlib.Path, files: dict[str, list]) -> list[str]:
    """The small files of a step that are not as they were, or cannot be read; some of them nobody needs."""
    wrong = []
    for name, (_, wanted) in files.items():
        try:
            same = not wanted or _sum(folder / name) == wanted
        except OSError:
            same = False
        if not same:
            wrong.append(name)
    return wrong


def _discard(folder: pathlib.Path) -> None:
    """Removes a folder in which threads of a save that failed may still be writing."""
    for pause in (0.01, 0.1, 1):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(pause)
    shutil.rmtree(folder)


def _sum(path: pathlib.Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.stat().st_size <= SMALL else None


def sha256(record: dict) -> str:
    """Of the canonical JSON."""
    return hashlib.sha256(json.dumps(record, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sync(path: pathlib.Path) -> None:
    """Returns when a file, or the names in a folder, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def listed(names: list[str]) -> str:
    """The first 20 and how many there are more."""
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
