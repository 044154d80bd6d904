"""Real kernels on real local Dask clusters: whatever is killed, every case ends up there once."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import nbformat
import pandas as pd
import psutil
import pytest
import xarray as xr
from sweep import small
from typer.testing import CliRunner

from grokutils.book.rerun import cli, execution, page
from grokutils.book.rerun.store import DiskFull, Store


@pytest.mark.parametrize("seed", range(3))
def test_forty_cases_with_kills_at_random_moments(seed, folder):
    sweep = ["sweep", "small.ipynb", "-p", "n=1:5", "-p", "seed=0:10", "--measure", "total", "-o", "out",
             "--retries", 9, "--json"]  # fmt: skip
    generator = random.Random(seed)
    left = ["worker", "kernel", "worker", "kernel", "command"]
    generator.shuffle(left)
    done, code = [], -signal.SIGKILL
    while code == -signal.SIGKILL:
        process = small.start(*sweep, folder=folder)
        for event in small.events(process):
            if event["event"] == "done":
                done.append(event["case"])
            assert event["event"] != "failed", event
            if event["event"] == "cell" and left and generator.random() < 0.2:
                kill(left.pop(), process, generator)
        code = small.finish(process)[0]
        assert small.gone(folder), "kernels outlive the command"
    assert (code, left) == (0, [])
    assert len(done) == len(set(done))
    kept = {path.name for path in (folder / "out/cases").iterdir()}
    assert len(kept) == 40
    assert set(done) <= kept
    assert list((folder / "out/failed").iterdir()) == []
    small.table(folder / "out")
    found = pd.read_parquet(folder / "out/table.parquet")
    measured = found[found.kind == "measure"]
    assert sorted(measured.value) == sorted(10.0 * n + seed for n in range(1, 5) for seed in range(10))
    verdicts = found[found.kind == "claim"].set_index("case").verdict
    assert (verdicts == "holds").sum() == 20


def kill(what: str, process: subprocess.Popen, generator: random.Random) -> None:
    """Kill a command, or one of its workers, or one of their kernels."""
    if what == "command":
        process.kill()
        return
    found = small.workers(process)
    if what == "kernel":
        found = [child for worker in found for child in worker.children(recursive=True)] or found
    with contextlib.suppress(psutil.Error):
        generator.choice(found).kill()


def test_killed_and_repeated_gives_the_same_table(folder):
    sweep = ["sweep", "small.ipynb", "-p", "seed=0:8", "--measure", "total"]
    assert small.finish(small.start(*sweep, "-o", "whole", folder=folder))[0] == 0
    stopped = small.start(*sweep, "-o", "cut", "--json", folder=folder)
    count = 0
    for event in small.events(stopped):
        count += event["event"] == "done"
        if count == 3:
            stopped.kill()
            break
    small.finish(stopped)
    assert small.gone(folder), "kernels outlive the command"
    times = lambda: {p.parent.name: p.stat().st_mtime_ns for p in folder.glob("cut/cases/*/case.json")}  # noqa: E731
    kept = times()
    assert 3 <= len(list((folder / "cut/cases").iterdir())) < 8
    code, said, _ = small.finish(small.start(*sweep, "-o", "cut", folder=folder))
    assert code == 0
    assert "missing" in said
    assert times().items() >= kept.items()
    assert small.table(folder / "cut") == small.table(folder / "whole")
    again = small.finish(small.start(*sweep, "-o", "cut", folder=folder))
    assert again[0] == 0
    assert "8 finished, 0 to run" in again[1]


def test_two_commands_at_once_share_the_work(folder):
    sweep = ["sweep", "small.ipynb", "-p", "seed=0:10", "-o", "out", "--workers", 1, "--json"]
    both = [small.start(*sweep, folder=folder) for _ in range(2)]
    ends = [small.finish(process) for process in both]
    assert [(code, err) for code, _, err in ends] == [(0, "")] * 2
    said = [[json.loads(line) for line in out.splitlines()] for _, out, _ in ends]
    done = [event["case"] for events in said for event in events if event["event"] == "done"]
    assert len(done) == len(set(done)) == 10
    assert small.table(folder / "out").count(b"\n") == 11


def test_commands_that_start_together_put_the_mathematics_there_once(tmp_path):
    (tmp_path / ".part").mkdir()
    together = threading.Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        for end in [pool.submit(lambda: (together.wait(), page.assets(tmp_path))) for _ in range(4)]:
            end.result()
    assert (tmp_path / "assets/mathjax/tex-mml-chtml.js").is_file()
    assert not list((tmp_path / ".part").iterdir())


def test_failures_are_kept_listed_limited_and_stop_nothing(folder):
    sweep = ["sweep", "small.ipynb", "-p", "do=add,wait,fill,die,save", "-o", "out", "--time-limit", 15,
             "--memory-limit", 0.4, "--retries", 1, "--measure", "norm=float(runs.norm.min()) if do == 'save' else 0"]  # fmt: skip
    code, said, err = small.finish(small.start(*sweep, folder=folder))
    assert code == 1
    assert "2 finished, 3 failed, 0 left" in said
    ended = [line for line in err.splitlines() if line.startswith("[")]
    assert len(ended) == 5, "a line for each case, where nobody watches"
    assert ended[-1].startswith("[5/5] do=")
    assert "Traceback" not in err
    for words in ("TimeLimit: took longer than 15 s", "MemoryLimit: took more than 0.40 GB", "kernel died"):
        assert words in said
    facts = [json.loads(path.read_text()) for path in (folder / "out/failed").glob("*/case.json")]
    assert {fact["parameters"]["do"]: fact["tries"] for fact in facts} == {"wait": 1, "fill": 1, "die": 2}
    code, said, _ = small.finish(
        small.start("sweep", "small.ipynb", "-p", "fail=true", "-p", "seed=0,1", "-o", "out", folder=folder)
    )
    assert code == 1
    (place, _) = sorted(
        path for path in (folder / "out/failed").iterdir() if "asked to" in (path / "case.json").read_text()
    )
    notebook = nbformat.read(place / "notebook.ipynb", 4)
    assert [
        o.evalue for cell in notebook.cells for o in cell.get("outputs", []) if o.output_type == "error"
    ] == ["asked to"]
    assert "asked to" in (place / "page.html").read_text()
    assert (
        "failed before (RuntimeError: asked to)"
        in small.finish(
            small.start(
                "sweep", "small.ipynb", "-p", "fail=true", "-p", "seed=0,1", "-o", "out", folder=folder
            )
        )[1]
    )
    shown = CliRunner().invoke(cli.app, ["report", str(folder / "out")])
    assert shown.exit_code == 0, shown.output
    page = (folder / "out/report.html").read_text()
    assert "http" not in page
    assert page.count("<img") >= 1
    assert "TimeLimit" in page


def test_run_leaves_notebook_page_claims_and_records(folder):
    code, said, _ = small.finish(
        small.start("run", "small.ipynb", "-p", "do=save", "-p", "n=4", "--records", "runs", folder=folder)
    )
    assert code == 0, said
    (place,) = (folder / "results/small/cases").iterdir()
    assert str(place.relative_to(folder) / "page.html") in said
    assert json.loads((place / "claims.json").read_text())[0]["verdict"] == "holds"
    assert (place / "files/note.txt").read_text() == "kept"
    assert "http" not in (place / "page.html").read_text().replace("http://www.w3.org", "")
    small.table(folder / "results/small")
    with xr.open_dataset(folder / "results/small/records_runs.nc", engine="h5netcdf") as kept:
        assert dict(kept.sizes) == {"case": 1, "run": 1, "step": 7}
        assert kept.n.values.tolist() == [4]


def test_interrupted_it_says_so_and_leaves_nothing_running(folder):
    process = small.start("sweep", "small.ipynb", "-p", "do=add,wait", "-o", "out", "--json", folder=folder)
    for event in small.events(process):
        if event["event"] == "done":
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to workers as well
            break
    code, said, err = small.finish(process)
    assert code == 130
    end = json.loads(said.splitlines()[-1])
    assert (end["finished"], end["left"]) == (1, 1)
    assert "Traceback" not in err
    assert small.gone(folder)


# Python calls a finalizer wherever it likes, and drops what is raised there, with a traceback.
IN_A_FINALIZER = """
import os, signal
from grokutils.book.rerun import progress
from grokutils.book.rerun.cli import app

class Interrupt:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass

finished = progress.Json.finished

def interrupted(self, case, result):
    finished(self, case, result)
    Interrupt()

progress.Json.finished = interrupted
app()
"""


def test_an_interrupt_in_a_finalizer_ends_it_like_any_other(folder):
    process = small.start(
        "sweep", "small.ipynb", "-p", "do=add,wait", "-o", "out", "--json", folder=folder, code=IN_A_FINALIZER
    )
    code, said, err = small.finish(process)
    assert code == 130, err
    assert "Traceback" not in err
    assert json.loads(said.splitlines()[-1])["stopped"] == "interrupted"
    assert small.gone(folder)


def test_a_disk_that_fills_up_leaves_what_was_there(tmp_path, monkeypatch):
    store = Store(tmp_path / "out")
    store.prepare("small")
    store.keep("0" * 16, {"case.json": b"old", "files/a": b"1"}, failed=False)
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for case in ("0" * 16, "1" * 16):
        calls.clear()
        with pytest.raises(DiskFull):
            store.keep(case, {"case.json": b"new", "files/a": b"2"}, failed=False)
    monkeypatch.undo()
    assert (store.place("0" * 16) / "case.json").read_bytes() == b"old"
    assert not store.place("1" * 16).exists()
    assert list((tmp_path / "out/.part").iterdir()) == []


def test_a_worker_with_other_code_refuses():
    result = execution.execute({}, {}, "0" * 16, "another version")
    assert result["status"] == "failed"
    assert "another version" in result["error"]


SRUN = """\
#!/bin/bash
# Stands in for Slurm's: as many tasks, all on this machine.
command=()
for word in "$@"; do
  case $word in --ntasks=*) tasks=${word#*=} ;; --*) [ ${#command[@]} = 0 ] || command+=("$word") ;; *) command+=("$word") ;; esac
done
for _ in $(seq "$tasks"); do "${command[@]}" & done
wait
"""


def test_the_file_for_slurm_runs_as_it_is(folder):
    (folder / "srun").write_text(SRUN)
    (folder / "srun").chmod(0o755)
    environment = {
        **os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHON": sys.executable,
        "PYTHONPATH": str(small.ROOT), "SLURM_NTASKS": "3",
    }  # fmt: skip
    job = [small.ROOT / "book/_static/sweep.slurm", "small.ipynb", "-p", "seed=0:3", "-o", "out"]
    end = subprocess.run(["bash", *job], cwd=folder, env=environment, capture_output=True, timeout=small.WAIT)
    assert end.returncode == 0, end.stderr
    assert small.table(folder / "out").count(b"\n") == 4
    assert not list(folder.glob(".scheduler-*"))
