"""Schedulers that fall silent, workers that are lost, commands that end: told within seconds, ended in words."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from sweep import small


@pytest.fixture
def dask(folder):
    """A scheduler and a worker with two threads: (address, scheduler, worker)."""
    quiet = {
        "cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL,
        "env": {**os.environ, "PYTHONPATH": str(small.ROOT), "PWD": str(folder)},
    }  # fmt: skip
    where = folder / "scheduler.json"
    start = [sys.executable, "-m", "dask"]
    scheduler = subprocess.Popen(
        [*start, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", where],
        **quiet,
    )  # fmt: skip
    worker = subprocess.Popen(
        [*start, "worker", "--scheduler-file", where, "--nthreads", "2", "--no-dashboard", "--no-nanny"],
        **quiet,
    )
    try:
        until(where.exists)
        address = json.loads(where.read_text())["address"]
        until(
            lambda: "finished" in small.finish(sweep(folder, address, "do=add"))[1]
        )  # until the worker is there
        yield address, scheduler, worker
    finally:
        for process in (scheduler, worker):
            with contextlib.suppress(psutil.Error):
                for one in (*psutil.Process(process.pid).children(recursive=True), process):
                    one.kill()
            process.wait()


def until(true, patience: float = 120) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + patience
    while not true():
        assert time.monotonic() < end
        time.sleep(0.2)


def sweep(folder, address: str, values: str) -> subprocess.Popen:
    """A sweep by a command that gives up sooner than a reader's."""
    line = "from grokutils.book.rerun import cli, cluster; cluster.SILENT, cluster.LOST = 3, 6; cli.app()"
    return small.start(
        "sweep",
        "small.ipynb",
        "-p",
        values,
        "-o",
        "out",
        "--json",
        "--scheduler",
        address,
        folder=folder,
        code=line,
    )


def in_work(process: subprocess.Popen) -> None:
    """Read what a command says until its endless case is in work."""
    for event in small.events(process):
        if event["event"] == "cell" and event["cell"] == 3:
            return
    raise AssertionError("it ended")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("frozen scheduler", "the scheduler does not answer"),
        ("killed scheduler", "the scheduler was lost"),
        ("frozen worker", "no worker gives a sign of life"),
        ("killed worker", "no worker is left"),
    ],
)
def test_silence_is_told_and_ends_the_command(what, words, dask, folder):
    address, scheduler, worker = dask
    process = sweep(folder, address, "do=wait")
    in_work(process)
    how, whom = what.split()
    victim = {"scheduler": scheduler, "worker": worker}[whom]
    victim.send_signal(signal.SIGSTOP if how == "frozen" else signal.SIGKILL)
    began = time.monotonic()
    events = list(small.events(process))
    code, _, err = small.finish(process)
    assert time.monotonic() - began < 60
    assert code == 3, err
    assert words in events[-1]["stopped"]
    assert "Traceback" not in err
    if words != "the scheduler was lost":
        assert any(event["event"] == "note" and words in event["text"] for event in events)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_command_that_ends_takes_its_remote_kernels_with_it(how, dask, folder):
    address, *_ = dask
    process = sweep(folder, address, "do=wait")
    in_work(process)
    process.send_signal(how)
    code, _, err = small.finish(process)
    assert code == (-9 if how == signal.SIGKILL else 130)
    assert "Traceback" not in err
    assert small.gone(folder, patience=30)
