"""One case, in a worker: a fresh kernel in an empty folder, watched over its time and its memory."""

from __future__ import annotations

import contextlib
import json
import platform
import re
import socket
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import nbformat
import psutil
from distributed import get_worker

from ...claims import MIME as CLAIM_MIME
from .. import kernels
from . import chapter, measures, page

TOPIC = "grokutils"  # of progress events on a Dask cluster
GLANCE = 0.2  # seconds between looks at a kernel


def execute(notebook: dict, values: dict, case_id: str, version: str, seconds=None, memory=None) -> dict:
    """Run a chapter with ``values``; returns ``status`` (done, failed or died), ``error`` and the ``files`` to keep.

    Whatever the chapter does, this returns. Code that is not of ``version``, before or after, is an error.
    """
    if chapter.version() != version:
        where = f"the worker on {socket.gethostname()}"
        return lost(f"{where} holds another version of grokutils or of its packages")
    from nbclient.exceptions import CellExecutionError, DeadKernelError
    from papermill.parameterize import parameterize_notebook

    started = time.monotonic()
    source = nbformat.from_dict(notebook)
    source.metadata.setdefault("papermill", nbformat.NotebookNode())  # papermill takes these for given
    for cell in source.cells:
        cell.metadata.setdefault("tags", [])
    source = parameterize_notebook(source, values, kernel_name="python3", language="python")
    source.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    status, error = "done", ""
    with tempfile.TemporaryDirectory(prefix="grokutils-", ignore_cleanup_errors=True) as scratch:
        folder, own = Path(scratch, "work"), Path(scratch, "settings")
        folder.mkdir()
        own.mkdir()
        guard = Guard(case_id, source, seconds, memory)
        try:
            kernels.execute(guard.client(folder), folder, own)
        except CellExecutionError as raised:
            status, error = "failed", f"{raised.ename}: {raised.evalue}"
        except (DeadKernelError, RuntimeError, OSError) as raised:
            status, error = "died", f"the kernel died ({raised})"
        finally:
            guard.stop()
        if guard.verdict:  # whatever the kernel's end looked like from here
            status, error = "failed", guard.verdict
        files = _left(folder)
    if chapter.version() != version:
        return lost("grokutils was changed while the case ran")
    source.metadata.pop("papermill", None)
    took = guard.ended - guard.began if guard.began else 0.0
    facts = {
        "status": status,
        "error": re.sub(r"\x1b\[[\d;]*m", "", error),
        "seconds": round(took, 3),
        "overhead": round(time.monotonic() - started - took, 3),
        **machine(),
    }
    summaries, faults = _summaries(source)
    return {**facts, "faults": faults, "files": {**files, **summaries}}


def machine() -> dict:
    """Where and when something ran, and of which commit's code."""
    return {
        "host": socket.gethostname(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "version": chapter.version(),
        "commit": chapter.commit(),
    }


def lost(why: str) -> dict:
    """The result of a case that left nothing but the reason."""
    return {"status": "failed", "error": why, "seconds": 0.0, "overhead": 0.0, **machine(), "files": {}}


class Guard:
    """Watches one kernel: tells which cell it is in, and ends it when it takes too much or nobody wants it any more."""

    def __init__(self, case_id: str, notebook, seconds: float | None, memory: int | None):
        self.case_id, self.notebook, self.seconds, self.memory = case_id, notebook, seconds, memory
        self.total = sum(cell.cell_type == "code" for cell in notebook.cells)
        self.count = 0
        self.began = self.ended = 0.0
        self.verdict = ""
        self.worker = None
        with contextlib.suppress(
            ValueError
        ):  # no worker's thread; the hooks below may be called in yet another
            self.worker = get_worker()
        self.key = self.worker and self.worker.get_current_task()
        self._over = threading.Event()

    def client(self, folder: Path):
        """The nbclient that runs the notebook under this guard."""
        self._client = kernels.client(
            self.notebook,
            timeout=None,
            kernel_name="python3",
            startup_timeout=120,
            resources={"metadata": {"path": str(folder)}},
            on_notebook_start=self._start,
            on_cell_execute=self._cell,
            on_cell_executed=self._stamp,
            on_cell_error=self._stamp,
        )
        return self._client

    def stop(self) -> None:
        """End the watch, and what is left of the kernel."""
        self._over.set()
        self.ended = self.ended or time.monotonic()
        with contextlib.suppress(AttributeError, psutil.Error):
            if self._client.km is not None:
                _kill(psutil.Process(self._client.km.provisioner.process.pid))

    def _start(self, **_) -> None:
        self.began = time.monotonic()
        kernel = psutil.Process(self._client.km.provisioner.process.pid)
        threading.Thread(target=self._watch, args=(kernel,), daemon=True).start()

    def _cell(self, **_) -> None:
        self.count += 1
        if self.worker is not None:
            self.worker.log_event(TOPIC, {"case": self.case_id, "cell": self.count, "cells": self.total})

    def _stamp(self, **_) -> None:
        self.ended = time.monotonic()

    def _watch(self, kernel: psutil.Process) -> None:
        while not self._over.wait(GLANCE):
            if self.seconds is not None and time.monotonic() - self.began > self.seconds:
                self.verdict = f"TimeLimit: took longer than {self.seconds:g} s"
            elif self.memory is not None and _memory(kernel) > self.memory:
                self.verdict = f"MemoryLimit: took more than {self.memory / 1e9:.2f} GB"
            elif self.worker is not None and self._unwanted():
                self.verdict = "Cancelled: the command that asked for it has ended"
            if self.verdict:
                _kill(kernel)
                return

    def _unwanted(self) -> bool:
        task = self.worker.state.tasks.get(self.key)
        return task is None or task.state == "cancelled"


def _memory(kernel: psutil.Process) -> int:
    total = 0
    with contextlib.suppress(psutil.Error):
        for process in (kernel, *kernel.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
    return total


def _kill(kernel: psutil.Process) -> None:
    with contextlib.suppress(psutil.Error):
        for process in (*kernel.children(recursive=True), kernel):
            with contextlib.suppress(psutil.Error):
                process.kill()


def _left(folder: Path) -> dict[str, bytes]:
    """What the chapter saved in its folder; links are not followed."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(part.is_symlink() for part in (path, *path.parents)):
            found[f"files/{path.relative_to(folder).as_posix()}"] = path.read_bytes()
    return found


def _summaries(notebook) -> tuple[dict[str, bytes], dict[str, str]]:
    """The files that a case keeps besides its own, and why measures could not be taken."""
    claims, measured = [], {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if CLAIM_MIME in data:
                claims.append(dict(data[CLAIM_MIME]))
            measured.update(data.get(measures.MIME, {}))
    files = {
        "notebook.ipynb": nbformat.writes(notebook).encode(errors="replace"),
        "page.html": page.of(notebook).encode(errors="replace"),
        "claims.json": json.dumps(claims, indent=1).encode(),
        "measures.json": json.dumps(measured, indent=1).encode(),
    }
    return files, {name: one["fault"] for name, one in measured.items() if one["fault"]}
