"""The downloads: stand-alone notebooks, the zip file and the printed page."""

from __future__ import annotations

import json
import re
import zipfile
from concurrent.futures import ThreadPoolExecutor

import chapters
import pytest

from grokutils.book import press


@pytest.mark.parametrize("page", chapters.chapters())
def test_chapter_offers_its_stand_alone_notebook(page, site):
    html = (site / f"{page}.html").read_text(encoding="utf-8")
    (link,) = set(re.findall(r'href="([^"]*standalone/[^"]+\.ipynb)"', html))
    notebook = json.loads(((site / page).parent / link).read_text(encoding="utf-8"))
    setup = next(cell for cell in notebook["cells"] if "setup" in cell["metadata"].get("tags", []))
    assert "ARCHIVE = " in "".join(setup["source"])
    committed = chapters.notebook(page).cells
    assert ["".join(cell["source"]) for cell in notebook["cells"] if cell is not setup] == [
        cell.source for cell in committed if "setup" not in cell.metadata.get("tags", [])
    ]


def test_zip_file_holds_every_page_in_one_folder(site, tmp_path):
    target = tmp_path / "book.zip"
    press.pack(site, target)
    with zipfile.ZipFile(target) as archive:
        names = set(archive.namelist())
    assert {f"{press.NAME}/{page}.html" for page in [*chapters.pages(), "index"]} <= names
    assert all(name.startswith(f"{press.NAME}/") for name in names)


def test_a_page_prints_as_pdf(site, tmp_path, browser):
    target = tmp_path / "page.pdf"
    assert browser.is_connected()  # Chromium is there, or this is skipped
    with ThreadPoolExecutor(1) as pool:  # the tests' own browser holds this thread's event loop
        pool.submit(press.print_pdf, site / "book" / "glossary.html", target).result()
    written = target.read_bytes()
    assert written.startswith(b"%PDF-")
    assert written.count(b"/Type /Page\n") >= 2
