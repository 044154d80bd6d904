"""A chapter that takes no time, and commands that run as a reader runs them."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import psutil
from chapters import ROOT
from typer.testing import CliRunner

from grokutils.book.rerun import cli

WAIT = 200  # seconds that a command may take here

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
    time.sleep(300)
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


def start(*arguments, folder: Path, code: str = "", **environment: str) -> subprocess.Popen:
    """Start a command in ``folder``, in a session of its own; its kernels can be told from others' by PWD.

    ``code`` is run instead of the package, if given.
    """
    return subprocess.Popen(
        [sys.executable, *(("-c", code) if code else ("-m", "grokutils")), *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PWD": str(folder), **environment},
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


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    """Wait for a command; its exit code, and what it said."""
    out, err = process.communicate(timeout=WAIT)
    return process.returncode, out, err


def table(folder) -> bytes:
    """The collected table."""
    answer = CliRunner().invoke(cli.app, ["collect", str(folder)])
    assert answer.exit_code == 0, answer.output
    return (folder / "table.csv").read_bytes()


def survivors(folder) -> list[int]:
    """Kernels that still run although the command that started them is gone."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        line = " ".join(process.info["cmdline"] or [])
        ours = (process.info["environ"] or {}).get("PWD", "") == str(folder)
        if "ipykernel_launcher" in line and ours:
            found.append(process.pid)
    return found


def gone(folder, patience=15) -> bool:
    """Whether no kernel of a command in ``folder`` is left, after a while at most."""
    end = time.monotonic() + patience
    while survivors(folder) and time.monotonic() < end:
        time.sleep(0.3)
    return not survivors(folder)
