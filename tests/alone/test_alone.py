"""Every chapter runs alone in an empty folder, as in Colab: its set-up cell fetches what is missing and changes nothing else."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import chapters
import nbformat
import papermill
import pytest
from alone import environments
from papermill.exceptions import PapermillExecutionError
from rerun.small import SMALL

from grokutils.book.address import PLACEHOLDER

FLAGSHIP = "book/3_networks/09_simulated_grokking"


@pytest.fixture(scope="session")
def repository(tmp_path_factory) -> Path:
    """A clone of what is committed, to install from."""
    where = tmp_path_factory.mktemp("clone") / "book"
    subprocess.run(["git", "clone", "--quiet", chapters.ROOT, where], check=True)
    return where


@pytest.fixture
def fresh():
    """An environment with the five packages, to be changed."""
    environment = environments.copy("bare")
    yield environment
    environments.remove(environment)


@pytest.fixture(scope="session")
def colab():
    """An environment with all that Colab has; whoever installs grokutils there uninstalls it."""
    environment = environments.copy("colab")
    yield environment
    environments.remove(environment)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run one notebook alone in an environment, with grokutils at ``address``; what was installed before and after."""

    def runner(page: str, environment: Path, address: str, source: Path = chapters.ROOT):
        before = environments.versions(environment)
        assert "grokutils" not in before
        name = environments.kernel(environment, tmp_path / "jupyter")
        monkeypatch.setenv("JUPYTER_PATH", os.fspath(tmp_path / "jupyter"))
        monkeypatch.setenv("GROKUTILS_ADDRESS", address)
        for ours in ("PYTHONPATH", "MPLBACKEND"):
            monkeypatch.delenv(ours, raising=False)
        folder = tmp_path / "empty"
        folder.mkdir()
        result = tmp_path / "out.ipynb"
        error = None
        try:
            papermill.execute_notebook(
                os.fspath(source / f"{page}.ipynb"),
                os.fspath(result),
                SMALL.get(page),
                kernel_name=name,
                language="python",
                cwd=os.fspath(folder),
                progress_bar=False,
                execution_timeout=300,
            )
        except PapermillExecutionError as raised:
            error = raised
        return nbformat.read(result, as_version=4), error, before, environments.versions(environment)

    return runner


def check(page: str, notebook, error, before, after):
    """The chapter ran to its end, and all that was installed before is as it was."""
    assert error is None, error
    assert {name: after.get(name) for name in before} == before
    assert "grokutils" in after
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [o.text for o in chapters.outputs(cells) if o.get("name") == "stderr"] == []
    names = [claim["name"] for claim in chapters.claims(cells)]
    assert names == [claim["name"] for claim in chapters.claims(chapters.code(page))]


def test_flagship_runs_where_only_the_five_packages_are(run, fresh, repository):
    check(FLAGSHIP, *run(FLAGSHIP, fresh, f"git+file://{repository}", repository))


@pytest.mark.parametrize("page", chapters.chapters())
def test_chapter_runs_on_the_versions_that_colab_has(page, run, colab, repository):
    try:
        notebook, error, before, after = run(page, colab, f"git+file://{repository}", repository)
    finally:
        pip = [environments.python(colab), "-m", "pip", "uninstall", "--quiet", "--yes", "grokutils"]
        subprocess.run(pip, check=True)
    check(page, notebook, error, before, after)
    assert set(after) - set(before) == {"grokutils"}


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (
            f"git+https://github.com/{PLACEHOLDER}@main",
            ["does not know its address", "make lab", "pip install", "GROKUTILS_ADDRESS"],
        ),
        ("git+file:///no/such/repository", ["did not install from git+file:///no/such/repository"]),
    ],
)
def test_set_up_that_cannot_succeed_says_so_without_a_stack_trace(address, words, run):
    notebook, error, before, after = run(FLAGSHIP, environments.kept("bare"), address)
    assert error.ename == "SystemExit"
    assert after == before
    setup, *rest = [
        cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.startswith("# Set-up")
    ]
    assert not rest
    shown = "\n".join(line for o in setup.outputs for line in o.get("traceback", [o.get("text", "")]))
    assert [word for word in words if word not in shown] == []
    assert not re.search(r'Traceback|File "|---> |<ipython-input', shown)
