"""What the benchmarks found, as tidy rows, and where and when: ``record.json``, which the book's page shows."""

from __future__ import annotations

import datetime
import json
import os
import platform
import resource
import sys
from importlib.metadata import version
from pathlib import Path

from grokutils.book.execution import processor

PATH = Path(__file__).with_name("record.json")
PACKAGES = ("torch", "numpy", "scipy", "distributed")


def row(benchmark: str, what: str, value: float, unit: str, **more) -> dict:
    """One measurement, printed; ``more`` is any of against, ratio (how many times better), size, threads, note."""
    found = {
        "benchmark": benchmark,
        "what": what,
        "against": "",
        "value": float(f"{value:.3g}"),
        "unit": unit,
        "ratio": None,
        "size": "",
        "threads": 1,
        "note": "",
        **more,
    }
    if found["ratio"] is not None:
        found["ratio"] = float(f"{found['ratio']:.3g}")
    times = "" if found["ratio"] is None else f"  {found['ratio']:g} × {found['against']}"
    print(f"{found['size']:24} {what:34} {found['value']:10g} {unit}{times}  {found['note']}", flush=True)
    return found


def peak_memory() -> float:
    """MB that this process took at most. Linux's own high-water mark: ``ru_maxrss`` also counts the parent's."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        (kilobytes,) = [line.split()[1] for line in lines if line.startswith("VmHWM")]
        return int(kilobytes) / 1024
    except (OSError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def origin() -> dict:
    """Machine and versions."""
    return {
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }


def others(names: list[str], path: Path = PATH) -> list[dict]:
    """What the record holds of other benchmarks; SystemExit where it comes from elsewhere, since one table has one machine."""
    record = json.loads(path.read_text(encoding="utf-8"))
    if any(record[key] != value for key, value in origin().items()):
        sys.exit(
            "the record was made on another machine or with other versions: run all benchmarks, without --renew"
        )
    return [row for row in record["rows"] if row["of"] not in names]


def write(rows: list[dict], path: Path = PATH) -> None:
    """Put the record in its place, whole or not at all."""
    record = {**origin(), "date": datetime.datetime.now(datetime.UTC).date().isoformat(), "rows": rows}
    scratch = path.with_suffix(".part")
    scratch.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(scratch, path)
