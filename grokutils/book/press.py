"""The whole book as one file: a zip of the built site, and a PDF that Chromium prints."""

from __future__ import annotations

import shutil
import sys
import zipfile
from pathlib import Path

NAME = "the-geometry-of-grokking"
MINUTES = 10  # what Chromium may take to typeset the whole book, and again to print it
SCRIPT = Path(__file__).with_name("press.js")  # makes of the single page a book: title, contents, heads
PAPER = {"outline": True, "tagged": True, "prefer_css_page_size": True, "print_background": True}

# Page numbers in the contents; where nothing is listed, nothing happens.
NUMBER = """pages => document.querySelectorAll(".press-contents a").forEach(
  link => link.nextElementSibling.textContent = pages[decodeURIComponent(link.hash.slice(1))] ?? "")"""


def pack(site: Path, target: Path) -> None:
    """Write the built ``site`` as a zip file with one folder inside: unpack it and open index.html."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(site.rglob("*")):
            if path.is_file() and path.name not in (".buildinfo", "objects.inv"):
                archive.write(path, f"{NAME}/{path.relative_to(site).as_posix()}")


def whole(single: Path) -> Path:
    """The page with the whole book, from Sphinx's builder ``singlehtml``, put where its links begin."""
    return Path(shutil.copy(single / "book" / "intro.html", single / "book.html"))


def print_pdf(page: Path, target: Path) -> None:
    """Print an HTML page as a book, with its equations typeset; folded code is left out.

    Raises
    ------
    SystemExit
        No Chromium.
    """
    from playwright.sync_api import sync_playwright  # neither it nor pypdf is needed to build the site

    program = shutil.which("chromium")
    if program is None:
        sys.exit("no Chromium to print with: apt-get install chromium")
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
        browser = playwright.chromium.launch(executable_path=program, args=options)
        opened = browser.new_page(color_scheme="light")
        opened.set_default_timeout(MINUTES * 60_000)
        opened.goto(page.resolve().as_uri())
        opened.evaluate("window.MathJax?.startup?.promise?.then(() => true)")
        opened.emulate_media(media="print")
        opened.evaluate(SCRIPT.read_text(encoding="utf-8"))
        for _ in range(2):  # the second time, the contents know where each chapter came to lie
            opened.pdf(path=target, **PAPER)
            opened.evaluate(NUMBER, pages(target))
        browser.close()


def pages(pdf: Path) -> dict[str, int]:
    """The page, counted from 1, of every place in a PDF that a link leads to."""
    from pypdf import PdfReader

    read = PdfReader(pdf)
    places = read.named_destinations
    return {name.lstrip("/"): read.get_destination_page_number(places[name]) + 1 for name in places}
