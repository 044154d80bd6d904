"""A chapter that takes no time, and commands that run as a reader runs them."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import nbformat
import psutil
from chapters import ROOT

PARAMETERS = """\
n: int = 3  # [1, 999]. Terms.
prime: int = 5  # [2, 99] prime. A prime.
lr: float = 0.1  # (0, 1]. A rate.
kind: str = "a"  # one of a | b. A word.
text: str = ""  # Any text.
fail: bool = False  # Whether to fail.
lams: list = [0.1]  # each (0, 1]. Some rates.
seed: int = 0  # [0, inf). Seed.
do: str = "add"  # one of add | wait | fill | die | save. What to do.
"""
WORK = """\
import os, time
from grokutils import claims, parameters
parameters.check()
total = 10 * n + seed
if fail:
    raise RuntimeError("asked to")
if do == "wait":
    time.sleep(60)
if do == "fill":
    much = [bytearray(10**7) for _ in range(100)]
    time.sleep(60)
if do == "die":
    os._exit(9)
if do == "save":
    import numpy as np, xarray as xr
    tau = np.linspace(0, 1, 3 + n)
    runs = xr.Dataset({"norm": (("run", "step"), np.exp(-tau)[None])}, {"tau": ("step", tau)})
    open("note.txt", "w").write("kept")
claims.claim("total-even", reported="even", measured=str(total), holds=total % 2 == 0)
"""


def chapter(folder: Path, parameters: str = PARAMETERS, work: str = WORK) -> Path:
    """Write the chapter into ``folder``."""
    cells = [
        nbformat.v4.new_markdown_cell("# A small chapter"),
        nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(work),
    ]
    path = folder / "small.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def command(*arguments, folder: Path) -> subprocess.Popen:
    """Start a command in ``folder``, in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "grokutils", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def events(process: subprocess.Popen):
    """What a command with --json says, as it says it."""
    for line in process.stdout:
        yield json.loads(line)


def workers(process: subprocess.Popen) -> list[psutil.Process]:
    """The Dask workers of a command that live."""
    found = []
    for child in psutil.Process(process.pid).children():
        with contextlib.suppress(psutil.Error):  # killed a moment ago
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def answering(server: socket.socket, answer: bytes) -> None:
    """Let a socket give each caller the same answer, and hang up."""

    def serve():
        with contextlib.suppress(OSError):
            while True:
                caller, _ = server.accept()
                caller.sendall(answer)
                caller.close()

    threading.Thread(target=serve, daemon=True).start()
