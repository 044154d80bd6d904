"""The report of a sweep of a thousand cases, of every type, on a screen, on a phone and in the dark."""

from __future__ import annotations

import json
import os
from collections import Counter

import nbformat
import numpy as np
import pandas as pd
import pytest

from grokutils.book.rerun import page, report
from grokutils.book.rerun.store import Store

COUNT = 1000
VERDICTS = ["holds", "fails", "holds with a correction", "not testable here"]


def values(i: int) -> dict:
    """A case's parameters: an int with many values, a bool, text, inf, and two that are fixed."""
    return {
        "n": i % 125,
        "flag": i % 2 == 0,
        "kind": "ab"[i // 500],
        "limit": [1.0, float("inf")][i // 250 % 2],
        "p": 7,
        "s": "x",
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of a thousand cases, each of which kept what a sweep keeps."""
    where = tmp_path_factory.mktemp("report") / "out"
    store = Store(where)
    store.prepare("many")
    cases = {f"{i:016x}": values(i) for i in range(COUNT)}
    plan = {
        "sweep": "1",
        "chapter": "many",
        "title": "Many cases",
        "code": "c0de",
        "version": "v",
        "swept": [],
        "cases": cases,
    }
    store.write(where / "plans/1.json", json.dumps(plan))
    about = {
        "seconds": 61.0,
        "host": "node7",
        "date": "2026-01-02T03:04:05+00:00",
        "commit": "abc123",
        "python": "3.12.1",
    }
    for i, (case_id, some) in enumerate(cases.items()):
        place = store.place(case_id)
        place.mkdir()
        claim = {"name": "a-claim", "verdict": VERDICTS[i % 4], "measured": "m"}
        one = {"expression": "e", "fault": ""}
        measured = {
            "half": {**one, "value": repr(float(i % 125)) if i % 10 else "inf"},
            "case": {**one, "value": "1.0"},
        }
        (place / "case.json").write_text(json.dumps({"parameters": some, **about}))
        (place / "claims.json").write_text(json.dumps([claim]))
        (place / "measures.json").write_text(json.dumps(measured))
    os.close(store._lock)
    report.write(store)
    return where


def test_it_says_what_was_run_with_what_where_and_when(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    for words in (
        "1000 cases of many",
        "p = 7, s = x",
        "c0de",
        "abc123",
        "node7",
        "2026-01-02",
        "16.9 h in all",
        "61 s a case",
    ):
        assert words in text
    assert text.count("<tr data-text=") == COUNT
    assert "http" not in text
    assert len(text) < 3_000_000


@pytest.mark.parametrize(
    "axes", [["flag"], ["kind"], ["limit"], ["n"], ["flag", "limit"], ["n", "kind"], ["n", "flag", "kind"]]
)
def test_any_type_is_drawn(axes):
    data = pd.DataFrame([values(i) for i in range(0, COUNT, 7)])[axes]
    figure, alt = report._figure(data.assign(y=np.arange(len(data)) % 5.0), axes, "half")
    assert alt.startswith("half: from 0 at") or "half: from" in alt
    panel = figure.axes[0]
    for axis in (panel.xaxis, panel.yaxis):
        assert len(axis.get_ticklabels()) <= report.TICKS + 3
    drawn = [line.get_ydata() for line in panel.lines] + [image.get_array() for image in panel.images]
    assert any(np.isfinite(np.ma.filled(np.ma.asarray(some, float), np.nan)).any() for some in drawn)
    endless, words = report._figure(data.assign(y=np.inf), axes, "never")
    assert "infinite" in words
    assert endless.axes


def test_what_could_not_be_tested_neither_holds_nor_fails():
    found = pd.DataFrame(
        {
            "case": list("abcd"),
            "n": [1, 1, 2, 2],
            "kind": "claim",
            "name": "c",
            "verdict": VERDICTS,
            "value": np.nan,
        }
    )
    wide = report._wide(found, ["n"])
    ((_, alt),) = report._all_figures(wide, found, ["n"])
    assert alt == "share where c holds: from 0.5 at n = 1 to 1 at n = 2"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_it_can_be_sorted_and_filtered_and_fits(scheme, width, folder, browser):
    opened = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 800})
    faults = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.goto((folder / "report.html").as_uri())
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.evaluate("document.documentElement.scrollHeight") < 6000
    shown = opened.locator("tbody tr[data-text]:visible")
    opened.fill("input", "n=3 flag=true")
    expected = Counter((values(i)["n"], values(i)["flag"]) for i in range(COUNT))[3, True]
    assert opened.text_content("output") == f"{expected} of {COUNT} cases"
    assert shown.count() <= Counter(str(values(i)["n"]).startswith("3") for i in range(COUNT))[True]
    opened.fill("input", "")
    opened.click("th button:text-is('n')")
    first = lambda: opened.evaluate("document.querySelector('.scroll tbody tr').cells[1].textContent")  # noqa: E731
    assert first() == "0"
    opened.click("th button:text-is('n')")
    assert first() == "124"
    opened.evaluate("document.querySelector('.scroll').scrollTop = 5000")
    top = opened.evaluate(
        "document.querySelector('.scroll th').getBoundingClientRect().top - document.querySelector('.scroll').getBoundingClientRect().top"
    )
    assert abs(top) < 3
    ground, ink = opened.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
    assert ground != ink
    assert faults == []
    opened.close()


MYST = """# A chapter

$$x = y$$ (here)

See {eq}`here`, {eq}`elsewhere-far`, {cite:t}`power2022grokking,saxe2014exact`, [chapter four](04_orthogonality.ipynb#a),
{prf:ref}`a-theorem` and [Dask](https://docs.dask.org). `a_very_long_name_without_any_space_that_a_phone_cannot_break_anywhere`

| a | b | c | d | e | f | g |
|---|---|---|---|---|---|---|
| aaaaaaaaaaaaa | bbbbbbbbbbbbbb | cccccccccccccccc | dddddddddddd | eeeeeeeee | ffffffff | ggggggg |
"""


def test_the_page_of_a_case_has_no_broken_references_and_fits_a_phone(tmp_path, browser):
    (tmp_path / "out/.part").mkdir(parents=True)
    page.assets(tmp_path / "out")
    picture = nbformat.v4.new_output(
        "display_data",
        {"text/html": '<img alt="" width="900" src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">'},
    )
    code = nbformat.v4.new_code_cell("x = 1  # " + "a long line " * 20, outputs=[picture])
    text = page.of(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(MYST), code]))
    assert "Power 2022, Saxe 2014" in text
    assert "chapter four," in text
    assert "ipynb" not in text
    place = tmp_path / "out/cases/1/page.html"
    place.parent.mkdir(parents=True)
    place.write_text(text, encoding="utf-8")
    opened = browser.new_page(viewport={"width": 390, "height": 800})
    opened.goto(place.as_uri())
    opened.evaluate("window.MathJax.startup.promise.then(() => true)")
    assert "(???)" not in opened.inner_text("body")
    assert "(elsewhere far)" in opened.inner_text("body")
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390
    opened.close()
