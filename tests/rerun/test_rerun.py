"""Every chapter says which parameters it takes, and refuses wrong ones at once, in words. (That it runs with other ones: tests/alone.)"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import chapters
import nbformat
import papermill
import pytest
from click.testing import CliRunner
from papermill.cli import papermill as command
from papermill.exceptions import PapermillExecutionError
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from grokutils import parameters

SHORT = "book/errata"
every_chapter = pytest.mark.parametrize("page", chapters.chapters())


@pytest.fixture(autouse=True)
def backend_of_notebooks(monkeypatch):
    """Kernels choose how matplotlib draws, as they do for a reader."""
    monkeypatch.delenv("MPLBACKEND", raising=False)


def run(page: str, values: dict, folder):
    """Re-run a chapter with ``values`` in an empty ``folder``; returns the notebook and the error, if any."""
    work, result = folder / "work", folder / "out.ipynb"
    work.mkdir()
    error = None
    try:
        papermill.execute_notebook(
            os.fspath(chapters.ROOT / f"{page}.ipynb"),
            os.fspath(result),
            values,
            cwd=os.fspath(work),
            progress_bar=False,
            execution_timeout=200,
        )
    except PapermillExecutionError as raised:
        error = raised
    return nbformat.read(result, as_version=4), error


def declared(page: str) -> dict[str, parameters.Parameter]:
    """What a chapter's parameters cell declares."""
    (cell,) = chapters.tagged(page, "parameters")
    return parameters.declared(cell.source)


def outside(parameter: parameters.Parameter):
    """A value of the right type that ``parameter`` must refuse; None where every value is allowed."""
    rule = parameter.allowed.removeprefix("each ")
    if rule.startswith("one of "):
        value = "nothing of the kind"
    elif interval := re.match(r"[\[(]\s*([^,\s]+)", rule):
        whole = parameter.type == "int" or (
            parameter.type == "list" and isinstance(parameter.default[0], int)
        )
        value = (int if whole else float)(float(interval[1]) - 1)
    else:
        return None
    return [value] if parameter.type == "list" else value


def wrong(page: str, fault: str) -> tuple[str, object, list[str]]:
    """A parameter's name, a value that must be refused, and words of the refusal."""
    known = declared(page)
    if fault == "unknown name":
        return "not_a_parameter", 1, ["not_a_parameter", *known]
    # the last one, so that a check that stops after the first would be seen
    bad = {n: outside(p) if fault == "out of range" else {"not": "a value"} for n, p in known.items()}
    name, value = [(n, v) for n, v in bad.items() if v is not None][-1]
    return name, value, [name, repr(value), known[name].type, known[name].allowed.removeprefix("each ")]


# What chapters differ in is where they call the check, not what it finds: one of them tries every fault.
@pytest.mark.parametrize("fault", ["out of range", "wrong type", "unknown name"])
def test_papermill_shows_the_refusal_of_wrong_parameters(fault, tmp_path):
    name, value, words = wrong(SHORT, fault)
    notebook, error = run(SHORT, {name: value}, tmp_path)
    assert error is not None, f"ran with {name} = {value!r}"
    assert error.ename == "ValueError"
    assert [word for word in words if word not in error.evalue] == [], error.evalue
    status = [
        (cell.metadata.papermill.status, cell.source)
        for cell in notebook.cells
        if cell.cell_type == "code" and "papermill-error-cell-tag" not in cell.metadata.get("tags", [])
    ]
    begun = [source for state, source in status if state != "pending"]
    assert "parameters.check()" in begun[-1].splitlines()
    assert len(begun) < len(status)


def injected(page: str) -> list[str]:
    """A chapter's code cells when papermill was given a value that is out of range."""
    name, value, _ = wrong(page, "out of range")
    read = load_notebook_node(os.fspath(chapters.ROOT / f"{page}.ipynb"))
    made = parameterize_notebook(read, {name: value}, kernel_name="python3", language="python")
    return [cell.source for cell in made.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def failures() -> dict[str, dict]:
    """What failed first in each chapter with a value out of range."""
    program = [sys.executable, "-W", "ignore", os.fspath(Path(__file__).with_name("until_failure.py"))]
    cells = json.dumps({page: injected(page) for page in chapters.chapters()})
    return json.loads(subprocess.run(program, input=cells, check=True, capture_output=True, text=True).stdout)


@every_chapter
def test_refuses_wrong_parameters_before_it_computes(page, failures):
    name, value, words = wrong(page, "out of range")
    failed, cells = failures[page], injected(page)
    assert failed is not None, f"ran with {name} = {value!r}"
    assert failed["name"] == "ValueError"
    assert [word for word in words if word not in failed["text"]] == [], failed["text"]
    assert "parameters.check()" in cells[failed["cell"]].splitlines()
    assert failed["cell"] < len(cells) - 1


@every_chapter
def test_every_parameter_has_a_range_with_two_ends(page):
    open_ended = [
        p for p in declared(page).values() if p.type != "bool" and (not p.allowed or "inf" in p.allowed)
    ]
    assert open_ended == [], "wrong values must be refused before anything is computed"


@every_chapter
def test_papermill_lists_every_parameter_with_type_default_and_range(page):
    shown = CliRunner().invoke(command, ["--help-notebook", os.fspath(chapters.ROOT / f"{page}.ipynb")])
    assert shown.exit_code == 0, shown.output
    blocks = dict(re.findall(r"^  (\w+): (.+(?:\n {20,}.+)*)", shown.output, re.M))
    known = declared(page)
    assert set(blocks) == set(known), "papermill passes over a line that holds more than one '='"
    for name, parameter in known.items():
        kind, default = re.match(r"(\w+) \(default (.+?)\)\s", blocks[name]).groups()
        assert kind == parameter.type
        assert ast.literal_eval(default) == parameter.default
        assert f"{parameter.allowed}. {parameter.meaning}".strip(". ") in " ".join(blocks[name].split())
