"""What a sweep keeps, and under which circumstances: other code, other measures, a reader's own settings, archives."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import time

import pandas as pd
import pytest
from sweep import small
from typer.testing import CliRunner

from grokutils.book import inputs, kernels
from grokutils.book.rerun import cli, store
from grokutils.book.rerun.store import Store


def said(*arguments) -> str:
    """What a command says that goes well."""
    answer = CliRunner().invoke(cli.app, list(map(str, arguments)))
    assert answer.exit_code == 0, answer.output
    return answer.stdout


def facts(folder) -> list[dict]:
    """What is known of each finished case."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("out/cases/*/case.json"))]


def test_code_that_changes_under_a_sweep_is_never_misfiled(folder):
    package = folder / "copy/grokutils"
    shutil.copytree(small.ROOT / "grokutils", package, ignore=shutil.ignore_patterns("__pycache__"))
    sweep = ["sweep", "small.ipynb", "-p", "seed=0:4", "-o", "out", "--workers", 1, "--json"]
    process = small.start(*sweep, folder=folder, PYTHONPATH=str(package.parent))
    for event in small.events(process):
        if event["event"] == "done":
            with (package / "_checks.py").open("a") as file:
                file.write("\n\nCHANGED = True\n")
            break
    code, out, err = small.finish(process)
    assert code == 3, err
    assert "changed on disk" in json.loads(out.splitlines()[-1])["stopped"]
    before = facts(folder)
    assert len(before) == 1
    code, out, _ = small.finish(small.start(*sweep, folder=folder, PYTHONPATH=str(package.parent)))
    assert code == 0
    after = facts(folder)
    assert sorted(fact["parameters"]["seed"] for fact in after) == [0, 0, 1, 2, 3]
    assert len({fact["version"] for fact in after}) == len({fact["code"] for fact in after}) == 2
    assert len({fact["version"] for fact in after if fact not in before}) == 1
    assert b"CHANGED" not in small.table(folder / "out")
    assert small.table(folder / "out").count(b"\n") == 5


def test_measures_cost_a_nan_at_worst_and_can_be_added_afterwards(folder):
    sweep = ["sweep", "small.ipynb", "-p", "do=save", "-p", "seed=0:2", "-o", "out", "--records", "runs"]
    code, out, err = small.finish(small.start(*sweep, "--measure", "bad=total.nothing", folder=folder))
    assert code == 0, err
    assert "bad is NaN (AttributeError" in err
    run = facts(folder)
    assert all(fact[key] for fact in run for key in ("host", "date", "python", "seconds", "version", "code"))
    # of what is kept: parameters, records, claims; the same cases, nothing runs
    later = ["top=float(runs.norm.max())", "twice=2*seed", "even=claims['total-even']['verdict'] == 'holds'"]
    asked = [word for text in later for word in ("--measure", text)]
    out = said("sweep", folder / "small.ipynb", *sweep[2:], *asked, "--out", folder / "out")
    assert "2 finished, 0 to run" in out
    small.table(folder / "out")
    found = pd.read_parquet(folder / "out/table.parquet")
    wide = found[found.kind == "measure"].pivot(index="seed", columns="name", values="value")
    assert wide.top.tolist() == [1, 1]
    assert wide.twice.tolist() == [0, 2]
    assert wide.even.tolist() == [1, 0]
    assert "bad" not in wide, "a measure that is corrected or dropped leaves no column"
    said("collect", folder / "out", "--measure", "three=3*seed", "--out", folder / "elsewhere")
    found = pd.read_parquet(folder / "elsewhere/table.parquet")
    assert found[found.name == "three"].value.tolist() == [0, 3]
    # what only the kernel knew: the cases run again, and stay the same cases
    code, out, _ = small.finish(small.start(*sweep, "--measure", "total", folder=folder))
    assert code == 0
    assert "0 finished, 2 to run" in out
    assert [fact["id"] for fact in facts(folder)] == [fact["id"] for fact in run]
    small.table(folder / "out")
    found = pd.read_parquet(folder / "out/table.parquet")
    assert sorted(found[found.name == "total"].value) == [30, 31]


HOSTILE = {
    ".config/matplotlib/matplotlibrc": "text.usetex: True\nfigure.facecolor: black\n",
    ".ipython/profile_default/startup/00.py": "total = 'mine'; import builtins; builtins.claims = None\n",
    ".ipython/profile_default/ipython_config.py": "get_config().InteractiveShell.ast_node_interactivity = 'all'\n",
    ".local/share/jupyter/kernels/python3/kernel.json": '{"argv": ["/bin/false"], "display_name": "x", "language": "python"}',
    ".config/dask/distributed.yaml": "distributed:\n  worker:\n    daemon: nonsense\n  comm:\n    require-encryption: true\n",
    "start.py": "print('start')\n",
}
VARIABLES = {
    "PYTHONOPTIMIZE": "1", "PYTHONHASHSEED": "7", "PYTHONWARNINGS": "always", "PYTHONUTF8": "0",
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0", "DASK_SCHEDULER_ADDRESS": "tcp://127.0.0.1:9",
    "OMP_NUM_THREADS": "7", "MPLBACKEND": "nonsense", "VIRTUAL_ENV": "/nowhere",
}  # fmt: skip


def test_a_readers_own_configuration_changes_no_result(folder):
    probe = (
        "import hashlib, os, matplotlib\nassert_works = False\ntry:\n    assert False\nexcept AssertionError:\n"
        "    assert_works = True\n"
        "print(assert_works, matplotlib.rcParams['text.usetex'], matplotlib.rcParams['figure.facecolor'],\n"
        "      matplotlib.get_backend(), os.environ['OMP_NUM_THREADS'], sorted({'a', 'b', 'c'}, key=hash), list({'a', 'b', 'c'}),\n"
        "      'total' in globals())\n1\n2\n"
    )
    small.chapter(folder, work=probe)
    home = folder / "home"
    for name, text in HOSTILE.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    seen = {}
    for name, environment in {
        "plain": {"HOME": str(folder)},
        "hostile": {"HOME": str(home), "PYTHONSTARTUP": str(home / "start.py"), **VARIABLES},
    }.items():
        code, out, err = small.finish(
            small.start("run", "small.ipynb", "-o", name, folder=folder, **environment)
        )
        assert code == 0, out + err
        (path,) = (folder / name).glob("cases/*/notebook.ipynb")
        seen[name] = [cell.get("outputs") for cell in json.loads(path.read_text())["cells"]]
    assert seen["hostile"] == seen["plain"]
    assert "True False white" in str(seen["plain"])
    assert "inline 1" in str(seen["plain"])


def test_cores_and_memory_are_this_process_own(tmp_path, monkeypatch):
    code = "from grokutils.book import kernels; print(kernels.cores())"
    found = subprocess.run(["taskset", "-c", "0", sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.strip() == "1"
    monkeypatch.setattr(kernels, "CGROUP", tmp_path)
    monkeypatch.setattr(kernels, "OWN_CGROUP", tmp_path / "own")
    whole = kernels.memory()
    (tmp_path / "own").write_text("0::/job/step\n")
    (tmp_path / "job/step").mkdir(parents=True)
    (tmp_path / "job/step/memory.max").write_text("max\n")
    assert kernels.memory() == whole
    (tmp_path / "job/memory.max").write_text("1000000\n")
    assert kernels.memory() == 1_000_000
    (tmp_path / "job/step/memory.max").write_text("500000\n")
    assert kernels.memory() == 500_000


@pytest.mark.parametrize(
    ("mask", "file", "folder"), [(0o022, 0o644, 0o755), (0o027, 0o640, 0o750), (0o002, 0o664, 0o775)]
)
def test_files_have_the_users_own_mode(mask, file, folder, tmp_path):
    before = os.umask(mask)
    try:
        kept = Store(tmp_path / "out")
        kept.prepare("small")
        kept.keep("0" * 16, {"case.json": b"{}", "files/a": b"1"}, failed=False)
        kept.write(kept.folder / "plans/1.json", "{}")
    finally:
        os.umask(before)
    for path in kept.folder.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (folder if path.is_dir() else file), path


def archive(folder, count: int = 3):
    """A folder of results as a sweep leaves it, without running one."""
    kept = Store(folder / "out")
    kept.prepare("small")
    cases = {f"{i:016x}": {"n": i, "seed": 0} for i in range(count)}
    plan = {"sweep": "1", "chapter": "small", "title": "Small", "code": "c", "swept": ["n"], "cases": cases}
    kept.write(kept.folder / "plans/1.json", json.dumps(plan))
    for case_id, values in cases.items():
        files = {
            "case.json": json.dumps({"parameters": values, "seconds": 1.0}),
            "claims.json": "[]",
            "measures.json": "{}",
        }
        kept.keep(case_id, {name: text.encode() for name, text in files.items()}, failed=False)
    os.close(kept._lock)
    return kept.folder


def test_an_archive_that_cannot_be_written_is_read(folder, monkeypatch):
    out = archive(folder)
    really = os.open

    def read_only(path, flags, *rest, **options):
        if str(path).startswith(str(out)) and flags & (os.O_RDWR | os.O_WRONLY):
            raise OSError(30, "Read-only file system")
        return really(path, flags, *rest, **options)

    monkeypatch.setattr(store.os, "open", read_only)
    access = lambda path, mode: mode != os.W_OK or not str(path).startswith(str(out))  # noqa: E731
    monkeypatch.setattr(cli.os, "access", access)
    assert "3 finished" in said("status", out)
    answer = CliRunner().invoke(cli.app, ["collect", str(out)])
    assert (answer.exit_code, "--out" in answer.stderr) == (2, True)
    said("collect", out, "--out", folder / "mine")
    said("report", out, "--out", folder / "mine")
    page = (folder / "mine/report.html").read_text()
    assert 'href="../out/cases/0000000000000000/page.html"' in page
    (out / ".lock").unlink()
    assert "3 finished" in said("status", out)


def test_a_finished_sweep_needs_no_room(folder, monkeypatch):
    run = ["sweep", str(folder / "small.ipynb"), "-p", "n=1,2", "-o", str(folder / "out")]
    found = cli.chapter.find(run[1])
    kept = Store(folder / "out")
    kept.prepare("small")
    for case in cli.cases.planned(found, ["n=1,2"]):
        kept.keep(case.id, {"case.json": b"{}", "claims.json": b"[]"}, failed=False)
    os.close(kept._lock)
    monkeypatch.setattr("grokutils.book.rerun.store.ROOM", 10**18)
    assert "2 finished, 0 to run" in said(*run)


def test_what_a_killed_command_was_about_to_replace_is_put_back(folder):
    out = archive(folder)
    (out / "cases" / f"{1:016x}").rename(out / ".part" / f"cases.{1:016x}.abc")
    kept = Store(out)
    kept.prepare("small")
    assert kept.done(f"{1:016x}")
    assert list((out / ".part").iterdir()) == []


def test_a_dry_run_says_time_and_disk_and_leaves_nothing(folder):
    run = [
        "sweep",
        str(folder / "small.ipynb"),
        "-p",
        "n=1:13",
        "-o",
        str(folder / "out"),
        "--workers",
        "2",
        "--dry-run",
    ]
    first = said(*run)
    assert "12 cases, 0 finished, 12 to run" in first
    assert "n=1: would run" in first
    assert "and 2 more" in first
    assert "time: not known" in first
    assert "disk: about" in first
    assert not (folder / "out").exists()
    kept = Store(folder / "out")
    kept.prepare("small")
    (case,) = cli.cases.planned(cli.chapter.find(run[1]), ["n=1"])
    record = {"case.json": b'{"seconds": 100, "overhead": 20}', "claims.json": b"[]"}
    kept.keep(case.id, record, failed=False)
    os.close(kept._lock)
    again = said(*run)
    assert "1 finished, 11 to run" in again
    assert "time: about 11.0 min, 2 at a time (from the time of the finished cases)" in again
    assert "from the time of the chapter" in said("run", "9", "--dry-run", "-o", folder / "nothing")


def test_version_names_the_code():
    assert cli.chapter.version() in said("--version")


def fastest(*command: str) -> float:
    """The shortest of some runs, seconds."""
    times = []
    for _ in range(4):
        began = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        times.append(time.perf_counter() - began)
    return min(times)


def test_help_comes_at_once():
    loaded = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "grokutils", "--help"], capture_output=True, text=True
    ).stderr  # fmt: skip
    names = {line.rpartition("|")[2].strip() for line in loaded.splitlines()}
    slow = {
        "torch",
        "numpy",
        "pandas",
        "matplotlib",
        "distributed",
        "dask",
        "nbformat",
        "nbclient",
        "papermill",
        "xarray",
    }
    assert names & slow == set()
    # half a second where Python starts in 0.025 s
    assert fastest("-m", "grokutils", "--help") < 20 * fastest("-c", "pass")


def test_a_console_without_greek_and_a_reader_who_leaves(folder):
    shown = small.finish(small.start("describe", "9", folder=folder, PYTHONIOENCODING="cp1252"))
    assert (shown[0], shown[2]) == (0, "")
    line = f"{sys.executable} -m grokutils list | head -1"
    left = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=small.WAIT)
    assert left.stdout.startswith("01_")
    assert left.stderr == ""


def test_data_files_are_part_of_what_outputs_depend_on(tmp_path):
    for name in ("data/a.nc", "book/page.py", "science.py"):
        (tmp_path / "grokutils" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "grokutils" / name).write_text("a")
    hashes = [inputs.code(tmp_path)]
    for name in ("data/a.nc", "science.py", "data/new.csv"):
        (tmp_path / "grokutils" / name).write_text("b")
        hashes.append(inputs.code(tmp_path))
    assert len(set(hashes)) == 4
    (tmp_path / "grokutils/book/page.py").write_text("b")
    assert inputs.code(tmp_path) == hashes[-1]
