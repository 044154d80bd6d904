"""What the build does with a chapter that takes too long, dies or warns: it is named, and costs no other."""

from __future__ import annotations

import nbformat
import pytest

from grokutils.book import execution

CHAPTERS = {
    "good": "print(6 * 7)",
    "slow": "import time\ntime.sleep(60)",
    "dead": "import os\nos._exit(9)",
    "wrong": "1 / 0",
    "warns": "import warnings\nwarnings.warn('look here')",
}


@pytest.fixture
def chapters(tmp_path):
    """A notebook of each kind, by its name."""
    found = {}
    for name, source in CHAPTERS.items():
        cells = [nbformat.v4.new_code_cell(source)]
        found[name] = tmp_path / f"{name}.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=cells), found[name])
    return found


def test_whatever_ends_a_chapter_costs_one_chapter_and_is_named(chapters, monkeypatch, capsys):
    monkeypatch.setattr(execution, "TIMEOUT", 5)
    kept = {}
    failed = execution._all(
        list(chapters.values()), lambda path, notebook, _: kept.update({path.stem: notebook})
    )
    assert {path.stem for path in failed} == {"slow", "dead", "wrong"}
    assert set(kept) == {"good", "warns"}
    assert kept["good"].cells[0].outputs[0].text == "42\n"
    said = capsys.readouterr()
    for words in (
        "CellTimeoutError",
        "DeadKernelError",
        "ZeroDivisionError",
        "warns.ipynb warns",
        "look here",
    ):
        assert words in said.out + said.err
    assert said.out.splitlines()[-1].startswith("failed: ")
