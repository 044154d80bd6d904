"""The book as the tests see it: the pages that _toc.yml lists, and what their notebooks hold."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import nbformat
import yaml

ROOT = Path(__file__).resolve().parents[1]
CLAIM = "application/vnd.grokutils.claim+json"
PLOTLY = "application/vnd.plotly.v1+json"
LIVE = "application/vnd.grokutils.live+json"


def pages() -> list[str]:
    """Every page's name (path without suffix, from the root), in reading order."""
    found = []

    def walk(entry):
        if isinstance(entry, dict):
            found.extend(entry[key] for key in ("root", "file") if key in entry)
            for value in entry.values():
                walk(value)
        elif isinstance(entry, list):
            for value in entry:
                walk(value)

    walk(yaml.safe_load((ROOT / "_toc.yml").read_text()))
    return found


def chapters() -> list[str]:
    """The pages that are notebooks."""
    return [page for page in pages() if (ROOT / f"{page}.ipynb").exists()]


@cache
def notebook(page: str) -> nbformat.NotebookNode:
    """A chapter as committed."""
    return nbformat.read(ROOT / f"{page}.ipynb", as_version=4)


def code(page: str) -> list[nbformat.NotebookNode]:
    """A chapter's code cells."""
    return [cell for cell in notebook(page).cells if cell.cell_type == "code"]


def tagged(page: str, tag: str) -> list[nbformat.NotebookNode]:
    """A chapter's cells with a tag."""
    return [cell for cell in notebook(page).cells if tag in cell.metadata.get("tags", [])]


def sources(page: str, tag: str = "") -> list[str]:
    """A chapter's code, of all cells or of those with a tag, as its page shows it."""
    cells = tagged(page, tag) if tag else code(page)
    return [cell.source.strip() for cell in cells if cell.source.strip()]


def outputs(cells) -> list[nbformat.NotebookNode]:
    """What cells left, in order."""
    return [output for cell in cells for output in cell.get("outputs", [])]


def claims(cells) -> list[dict]:
    """The claims among the outputs of cells, in order."""
    return [o["data"][CLAIM] for o in outputs(cells) if CLAIM in o.get("data", {})]
