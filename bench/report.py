"""What every bench ends with: a table on the screen, and JSON with machine, versions and date beside it."""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Sequence

RESULTS = pathlib.Path(__file__).parent / "results"


def machine() -> str:
    """Processor, cores and system in a line."""
    info = pathlib.Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, {platform.system()}"


def versions(packages: Sequence[str]) -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in packages} | {"python": platform.python_version()}


def table(rows: Sequence[dict]) -> str:
    """Rows with the same keys as aligned columns."""
    cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)


def _cell(value) -> str:
    if not isinstance(value, float):
        return "–" if value is None else str(value)
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def finish(name: str, rows: Sequence[dict], packages: Sequence[str], **facts) -> None:
    """Prints the table and writes bench/results/NAME.json."""
    print(table(rows))
    RESULTS.mkdir(exist_ok=True)
    report = facts | {"rows": list(rows), "machine": machine(), "versions": versions(packages), "date": datetime.date.today().isoformat()}
    (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
