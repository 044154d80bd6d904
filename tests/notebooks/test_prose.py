"""The prose: its spelling, every numbered figure is spoken of, every "how we know" leads to a claim."""

from __future__ import annotations

import re
import subprocess
import sys

import chapters
import pytest

every_chapter = pytest.mark.parametrize("page", chapters.chapters())


def prose(page: str) -> str:
    """A chapter's text cells, joined."""
    return "\n\n".join(cell.source for cell in chapters.notebook(page).cells if cell.cell_type == "markdown")


def numbered_figures(page: str) -> list[str]:
    """Labels of a chapter's figures: those that cells draw and those that the text includes."""
    drawn = [cell.metadata.get("mystnb", {}).get("figure", {}).get("name") for cell in chapters.code(page)]
    return [name for name in drawn if name] + re.findall(r"^:name: (fig-\S+)", prose(page), re.M)


@every_chapter
def test_every_numbered_figure_is_referred_to_in_the_text(page):
    referred = set(re.findall(r"\{(?:numref|ref)\}`(?:[^`<]*<)?(fig-[\w-]+)>?`", prose(page)))
    assert [name for name in numbered_figures(page) if name not in referred] == []


@every_chapter
def test_how_we_know_leads_to_claims_of_the_chapter(page):
    links = re.findall(r'href="#claim-([^"]+)"', prose(page))
    claims = {claim["name"] for claim in chapters.claims(chapters.code(page))}
    assert set(links) <= claims


# A mean absolute percentage error is not a misspelt map.
KNOWN = "MAPE"
TEXTS = [*chapters.pages(), "README", "CONTRIBUTING"]


def text(page: str) -> str:
    """A page's markdown; of a notebook also its alt texts and claims."""
    if page not in chapters.chapters():
        return (chapters.ROOT / f"{page}.md").read_text(encoding="utf-8")
    cells = chapters.notebook(page).cells
    parts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    outputs = chapters.outputs(chapters.code(page))
    parts += [o.get("metadata", {}).get("image/png", {}).get("alt", "") for o in outputs]
    parts += [str(value) for claim in chapters.claims(chapters.code(page)) for value in claim.values()]
    return "\n\n".join(parts)


def misspelt(words: str) -> str:
    command = [sys.executable, "-m", "codespell_lib", "--ignore-words-list", KNOWN, "-"]
    return subprocess.run(command, input=words, capture_output=True, text=True).stdout


@pytest.mark.parametrize("page", TEXTS)
def test_spelling(page):
    assert misspelt(text(page)) == ""


def test_the_speller_finds_what_it_should():
    assert "the" in misspelt("teh weights")
