"""What a sweep adds to its notebooks' own time, what a second worker brings, and what a thousand cases cost.

The notebook computes for a second, say, on one thread. The obvious alternative is papermill, one command a case. The
thousand cases are simulated: everything is real but the workers, who answer at once.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
import types
from concurrent.futures import Future
from pathlib import Path

import nbformat

from benchmarks import _record
from grokutils.book.rerun import cases, chapter, cluster, collect, page, progress, work
from grokutils.book.rerun.store import Store, read_json

CASES, SECONDS, MANY = 8, 1.0, (100, 1000)
SMALL = {"count": 2, "seconds": 0.05, "many": (3, 6)}
PARAMETERS = "seed: int = 0  # [0, inf). Seed.\nseconds: float = 1.0  # [0, 60]. How long to compute."
WORK = """\
import time
end = time.process_time() + seconds
while time.process_time() < end:
    sum(range(1000))
"""


MEASURED = b'{"m": {"expression": "m", "value": "1.0", "fault": ""}}'


class Quiet(progress.Json):
    """Counts, and says nothing."""

    def say(self, *_, **__) -> None:
        """Nothing."""


class Prompt:
    """A cluster whose workers answer at once."""

    status = "running"

    def __init__(self, result: dict):
        self.result = result

    def submit(self, *_, key: str, **__) -> Future:
        """A future that is there already."""
        future = Future()
        future.key, future.status = key, "finished"
        future.set_result(dict(self.result))
        return future

    scheduler = types.SimpleNamespace(identity=None)

    def sync(self, *_, **__) -> dict:
        """Two workers, alive."""
        return {"workers": {name: {"nthreads": 1, "last_seen": time.time()} for name in ("one", "two")}}

    def _cancel(self, *_) -> None:
        """Nothing is left to cancel."""

    def subscribe_topic(self, *_) -> None:
        """Nothing is told between start and end."""

    unsubscribe_topic = subscribe_topic


def written(folder: Path) -> chapter.Chapter:
    """The notebook, as a chapter."""
    cells = [
        nbformat.v4.new_markdown_cell("# Compute"),
        nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(WORK),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "compute.ipynb")
    return chapter.find(str(folder / "compute.ipynb"))


def swept(found: chapter.Chapter, out: Path, workers: int, count: int, seconds: float) -> tuple[float, float]:
    """Wall-clock seconds of a sweep once its cluster is there, and the median time of its notebooks."""
    wanted = cases.planned(found, [f"seed=0:{count}", f"seconds={seconds}"])
    store = Store(out)
    store.prepare(found.name)
    page.assets(out)
    limits = cluster.Limits(None, None, 2)
    with cluster.connected(None, workers, 2) as client:
        warm = cases.planned(found, [f"seed={10**6}:{10**6 + workers}", "seconds=0"])
        cluster.run(client, store, found.notebook, warm, limits, Quiet(warm, []))
        began = time.perf_counter()
        cluster.run(client, store, found.notebook, wanted, limits, Quiet(wanted, []))
        took = time.perf_counter() - began
    own = [read_json(store.place(case.id) / "case.json")["seconds"] for case in wanted]
    return took, statistics.median(own)


def papermill(folder: Path, seconds: float) -> float:
    """Wall-clock seconds of one case by papermill's own command, the shorter of two."""
    line = ["papermill", "compute.ipynb", "out.ipynb", "-p", "seconds", str(seconds), "--no-progress-bar"]
    times = []
    for _ in range(2):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", *line], cwd=folder, check=True, capture_output=True)
        times.append(time.perf_counter() - began)
    return min(times)


def bookkeeping(found: chapter.Chapter, out: Path, count: int) -> float:
    """Seconds a case for all that a sweep does besides running notebooks: plan, claim, keep, count, collect."""
    result = {"status": "done", "error": "", "seconds": 1.0, "overhead": 0.5, "host": "here"}
    result["files"] = {"notebook.ipynb": b"{}", "claims.json": b"[]", "measures.json": MEASURED}
    began = time.perf_counter()
    wanted = cases.planned(found, [f"seed=0:{count}"])
    store = Store(out)
    store.prepare(found.name)
    asked = work.Asked(found, wanted, store, {}, [], None, 2, None, None, 2, False)
    work.note(asked)
    watch = Quiet(wanted, ["seed"])
    cluster.run(
        Prompt(result), store, found.notebook, wanted, cluster.Limits(None, None, 2), watch, asked.lacks
    )
    assert len(watch.done) == len(collect.table(store)) == count
    return (time.perf_counter() - began) / count


def main(count: int = CASES, seconds: float = SECONDS, many=MANY) -> list[dict]:
    """The rows, printed as they come."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = written(folder)
        alone = papermill(folder, seconds)
        walls, rows, size = {}, [], f"{count} cases of {seconds:g} s"
        for workers in (1, 2):
            walls[workers], own = swept(found, folder / f"by{workers}", workers, count, seconds)
            added = walls[workers] * workers / count - own
            note = f"workers kept busy; papermill's command adds {alone - own:.2g} s"
            rows.append(
                _record.row(
                    "A sweep of notebooks", "added to a notebook's own time", added, "s a case", size=size,
                    threads=workers, against="papermill, one command a case", ratio=(alone - own) / added, note=note,
                )
            )  # fmt: skip
        rows.append(
            _record.row(
                "A sweep of notebooks", "whole sweep, two workers", walls[2], "s", size=size,
                threads=2, against="one worker", ratio=walls[1] / walls[2],
            )
        )  # fmt: skip
        per = [bookkeeping(found, folder / f"many{n}", n) for n in many]
        for n, each in zip(many, per, strict=True):
            compared = {"against": f"{many[0]} cases", "ratio": per[0] / each} if n != many[0] else {}
            rows.append(
                _record.row("A sweep of notebooks", "bookkeeping, simulated workers", 1e3 * each, "ms a case",
                            size=f"{n} cases", **compared)
            )  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
