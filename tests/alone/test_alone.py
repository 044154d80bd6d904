"""Every chapter runs alone in an empty folder, as in Colab, with other parameters, from its stand-alone notebook: nothing there changes.

The flagship runs both ways where almost nothing is installed: with grokutils from its address, and stand-alone.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from functools import cache
from pathlib import Path

import chapters
import nbformat
import papermill
import pytest
from alone import environments
from alone.small import SMALL
from papermill.exceptions import PapermillExecutionError

from grokutils.book import standalone
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
def alone(tmp_path_factory) -> Path:
    """A folder with every chapter's stand-alone notebook, by the name of its page."""
    folder = tmp_path_factory.mktemp("alone")
    for page in chapters.chapters():
        (folder / page).parent.mkdir(parents=True, exist_ok=True)
        made = standalone.packed(json.loads((chapters.ROOT / f"{page}.ipynb").read_text(encoding="utf-8")))
        (folder / f"{page}.ipynb").write_text(json.dumps(made), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def versions():
    """What environments held when they were first asked: nothing but a notebook changes them, and that is seen afterwards."""
    return cache(environments.versions)


@pytest.fixture
def run(tmp_path, monkeypatch, versions):
    """Run one notebook alone in an environment, with grokutils at ``address``, if any; what was installed before and after."""

    def runner(page: str, environment: Path, address: str = "", source: Path = chapters.ROOT):
        before = versions(environment)
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
                SMALL[page],
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
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [o.text for o in chapters.outputs(cells) if o.get("name") == "stderr"] == []
    names = [claim["name"] for claim in chapters.claims(cells)]
    assert names == [claim["name"] for claim in chapters.claims(chapters.code(page))]


@pytest.mark.parametrize("way", ["from its address", "stand-alone"])
def test_flagship_runs_where_only_the_five_packages_are(way, run, fresh, repository, alone):
    if way == "stand-alone":
        *ran, after = run(FLAGSHIP, fresh, source=alone)
        assert "grokutils" not in after
    else:
        *ran, after = run(FLAGSHIP, fresh, f"git+file://{repository}", repository)
        assert "grokutils" in after
    check(FLAGSHIP, *ran, after)


def test_installing_from_the_address_adds_grokutils_alone_to_what_colab_has(repository):
    environment = environments.copy("colab")
    try:
        before = environments.versions(environment)
        pip = [
            environments.python(environment),
            "-m",
            "pip",
            "install",
            "--quiet",
            f"git+file://{repository}",
        ]
        subprocess.run(pip, check=True)
        after = environments.versions(environment)
    finally:
        environments.remove(environment)
    assert set(after) - set(before) == {"grokutils"}
    assert {name: after[name] for name in before} == before


def test_every_chapter_has_other_parameters_and_nothing_else_has():
    assert set(SMALL) == set(chapters.chapters()), "give the chapter small parameters in tests/alone/small.py"
    assert all(SMALL.values())


@pytest.mark.parametrize("page", chapters.chapters())
def test_stand_alone_chapter_runs_on_the_versions_that_colab_has(page, run, alone):
    notebook, error, before, after = run(page, environments.kept("colab"), source=alone)
    check(page, notebook, error, before, after)
    assert after == before


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
