"""Kernels that give the same numbers on every machine: their threads, their environment, what this machine offers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

THREADS = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB_MAXIMUM")
# Of Python's own variables only those that say where packages are; the others (PYTHONOPTIMIZE, PYTHONSTARTUP …)
# change what code does.
KEPT = {"PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONNOUSERSITE", "PYTHONPLATLIBDIR"}
DROPPED = {"MPLBACKEND"}  # the kernel chooses how to draw
OUTPUTS = 60  # seconds that a finished cell's outputs may take to arrive
CGROUP = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def environment(folder: str | os.PathLike) -> dict[str, str]:
    """The environment of a kernel that may write its own settings into ``folder``.

    One thread, whatever else the machine does: two kernels that share cores lose more by waiting for each other's
    threads than they gain, and the last digits would depend on the machine. A reader's matplotlibrc, IPython
    start-up files and profile, and PYTHON* variables stay outside.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in DROPPED and (not name.startswith("PYTHON") or name in KEPT)
    }
    return {
        **kept,
        **{f"{pool}_NUM_THREADS": "1" for pool in THREADS},
        "IPYTHONDIR": os.fspath(folder),
        "MATPLOTLIBRC": os.devnull,
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",
    }


def client(notebook, **options):
    """An nbclient whose kernel is the one of this Python, whatever a reader has installed as "python3".

    A cell whose outputs do not come is an error: nbclient by itself waits for 4 s, and goes on without them.
    """
    from nbclient import NotebookClient
    from traitlets.config import Config

    config = Config({"KernelSpecManager": {"kernel_dirs": []}})
    honest = {"iopub_timeout": OUTPUTS, "raise_on_iopub_timeout": True, "record_timing": False}
    return NotebookClient(notebook, config=config, **honest, **options)


def execute(client, folder: str | os.PathLike, settings: str | os.PathLike) -> None:
    """Execute a client's notebook in ``folder``, its kernel's own settings in ``settings``.

    Cells' own streams come as outputs; what the kernel says of itself is dropped.
    """
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    client.execute(cwd=os.fspath(folder), env=environment(settings), **quiet)


def cores() -> int:
    """Cores that this process may use, by affinity and cgroup."""
    from dask.system import cpu_count

    return cpu_count()


def memory() -> int:
    """Bytes that this process may use: of the machine, of its container, or of its job."""
    from distributed.system import memory_limit

    return min([memory_limit(), *_limits()])


def _limits():
    """Memory limits of the cgroups (version 2) that this process is in, inner ones first."""
    try:
        own = OWN_CGROUP.read_text(encoding="utf-8").strip().rpartition(":")[2].lstrip("/")
    except OSError:
        return
    for group in (CGROUP / own, *(CGROUP / own).parents):
        limit = group / "memory.max"
        if group.is_relative_to(CGROUP) and limit.is_file() and (text := limit.read_text().strip()).isdigit():
            yield int(text)
