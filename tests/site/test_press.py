"""The downloads: stand-alone notebooks, the zip file and the printed page."""

from __future__ import annotations

import re
import zipfile
from concurrent.futures import ThreadPoolExecutor

import chapters
import nbformat
import pytest
from pypdf import PdfReader

from grokutils.book import press

RAW = re.compile(r"^:{3,}|^`{3,}\{|\{(?:eq|cite|numref|ref|doc|term|prf:ref|glue)[\w:]*\}`", re.M)


def text_of(notebook: dict) -> str:
    """All that a notebook says in Markdown."""
    return "\n\n".join(
        "".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"
    )


@pytest.mark.parametrize("page", chapters.chapters())
def test_chapter_offers_one_notebook_that_runs_alone_and_reads_as_text(page, site):
    html = (site / f"{page}.html").read_text(encoding="utf-8")
    (link,) = set(re.findall(r'href="([^":]*\.ipynb)"', html))
    notebook = nbformat.read((site / page).parent / link, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    setup = next(cell for cell in code if "setup" in cell.metadata.get("tags", []))
    assert "ARCHIVE = " in setup.source
    committed = [cell for cell in chapters.code(page) if cell.source.strip()]
    assert [(cell.source, cell.outputs) for cell in code if cell is not setup] == [
        (cell.source, cell.outputs) for cell in committed if "setup" not in cell.metadata.get("tags", [])
    ]
    for cell in code:
        folded = cell.metadata.get("jupyter", {}).get("source_hidden", False)
        assert folded == ("idea" not in cell.metadata.get("tags", []))
    text = text_of(notebook)
    assert RAW.findall(text) == []
    source = text_of(chapters.notebook(page))
    assert text.count("\\tag{") == len(re.findall(r"\$\$ ?\([\w-]+\)", source))
    theorems = re.findall(r"^:{3,}\{prf:(theorem|lemma|definition|corollary)\}", source, re.M)
    assert len(re.findall(r"\*\*(?:Theorem|Lemma|Definition|Corollary) \d+\*\*", text)) == len(theorems)
    for key in ("Question", "Answer"):
        assert (f"**{key}.**" in text) == (f"**{key}.**" in source)


@pytest.mark.parametrize("raw", [":::{prf:theorem}", "as in {eq}`eq-1`", "```{figure} a.png", "{cite:t}`a`"])
def test_the_search_for_raw_directives_finds_what_it_should(raw):
    assert RAW.search(raw)


def test_zip_file_holds_every_page_in_one_folder(site, tmp_path):
    target = tmp_path / "book.zip"
    press.pack(site, target)
    with zipfile.ZipFile(target) as archive:
        names = set(archive.namelist())
    assert {f"{press.NAME}/{page}.html" for page in [*chapters.pages(), "index"]} <= names
    assert all(name.startswith(f"{press.NAME}/") for name in names)


def test_contents_tell_the_page_of_each_chapter(tmp_path, browser):
    assert browser.is_connected()  # Chromium is there, or this is skipped
    chapters_of = "".join(
        f'<section id="part-{n}"><h1>Part {n}</h1>{"<p>words</p>" * 150 * n}</section>' for n in (1, 2, 3)
    )
    page, target = tmp_path / "book.html", tmp_path / "book.pdf"
    page.write_text(f'<title>A Book</title><article class="bd-article">{chapters_of}</article>')
    with ThreadPoolExecutor(1) as pool:  # the tests' own browser holds this thread's event loop
        pool.submit(press.print_pdf, page, target).result()
    read = PdfReader(target)
    texts = [sheet.extract_text() for sheet in read.pages]
    told = dict(re.findall(r"Part (\d)\s+(\d+)", texts[1]))  # after the title page
    begins = {str(n): 1 + next(at for at, text in enumerate(texts[2:], 2) if f"Part {n}" in text.split("words")[0]) for n in (1, 2, 3)}  # fmt: skip
    assert {n: int(at) for n, at in told.items()} == begins
    assert len(set(begins.values())) == 3


def test_a_page_prints_as_pdf(site, tmp_path, browser):
    target = tmp_path / "page.pdf"
    assert browser.is_connected()  # Chromium is there, or this is skipped
    with ThreadPoolExecutor(1) as pool:  # the tests' own browser holds this thread's event loop
        pool.submit(press.print_pdf, site / "book" / "glossary.html", target).result()
    written = target.read_bytes()
    assert written.startswith(b"%PDF-")
    assert written.count(b"/Type /Page\n") >= 2
