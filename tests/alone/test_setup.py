"""The stand-alone set-up cell among broken neighbours, without a network, with an old pip, twice, in a read-only home."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import chapters
import pytest

from grokutils.book import address, standalone

CHAPTER = chapters.ROOT / "book/re_running.ipynb"


@pytest.fixture
def cell() -> str:
    """The stand-alone set-up cell of a chapter."""
    notebook = standalone.packed(json.loads(CHAPTER.read_text(encoding="utf-8")))
    (found,) = [c for c in notebook["cells"] if "setup" in c["metadata"].get("tags", [])]
    return "".join(found["source"])


def run(folder, *cells: str, **environment: str) -> subprocess.CompletedProcess:
    """Run cells one after the other in a fresh Python that has no grokutils."""
    hide = "import sys\nsys.meta_path = [f for f in sys.meta_path if 'grokutils' not in str(getattr(f, '__module__', ''))]\n"
    code = "\n".join([hide, *cells, "import grokutils\nprint('at', grokutils.__file__)"])
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-"],
        input=code,
        cwd=folder, env={**kept, **environment}, capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture
def empty(tmp_path):
    """An empty folder to run in."""
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


def test_it_runs_twice_in_one_session(cell, empty):
    done = run(empty, cell, cell)
    assert done.returncode == 0, done.stderr
    assert "grokutils-" in done.stdout
    assert "Installing" not in done.stdout


@pytest.mark.parametrize("neighbour", ["broken-1.0.dist-info", "torch", "scipy-9.dist-info/METADATA"])
def test_broken_neighbours_are_none_of_ours(neighbour, cell, empty):
    place = empty / "site" / neighbour
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("") if place.name == "METADATA" else place.mkdir()
    done = run(empty, cell, PYTHONPATH=str(empty / "site"))
    assert done.returncode == 0, done.stderr


def test_a_home_that_cannot_be_written(cell, empty):
    done = run(empty, cell, HOME="/proc/nowhere", MPLCONFIGDIR="")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("pip", ["no network", "no pip", "an old pip"])
def test_what_is_missing_and_cannot_be_installed_is_named(pip, cell, empty):
    cell = cell.replace("NEEDED = {", "NEEDED = {'no_such_module': 'no-such-package>=1', ")
    fake = empty / "fake/pip"
    if pip != "no network":
        fake.mkdir(parents=True)
        text = (
            "import sys\nsys.exit('no such option: --quiet')\n"
            if pip == "an old pip"
            else "raise ImportError('no pip')\n"
        )
        (fake / "__init__.py").write_text("")
        (fake / "__main__.py").write_text(text)
    nowhere = {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_CONFIG_FILE": os.devnull,
        "PYTHONPATH": str(fake.parent),
    }
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        nowhere.setdefault(name, "")
    done = run(empty, cell, **nowhere)
    assert done.returncode == 1
    assert "no-such-package>=1" in done.stderr
    assert "Install them another way" in done.stderr
    assert "Traceback" not in done.stderr.partition("pip said")[0]


def test_a_mere_folder_named_grokutils_is_not_the_package(empty):
    (empty / "grokutils").mkdir()
    done = run(empty, address.setup_cell(address.Address("OWNER/REPOSITORY")))
    assert done.returncode == 1
    assert "does not know its address" in done.stderr
