"""The prose: its spelling, every numbered figure is spoken of, every "how we know" leads to a claim."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

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


def misspelt(folder: Path) -> dict[str, list[str]]:
    """What the speller says of the texts in a folder, by their names: it reads its dictionary once for all of them."""
    command = [
        sys.executable,
        "-m",
        "codespell_lib",
        "--ignore-words-list",
        KNOWN,
        *sorted(os.listdir(folder)),
    ]
    said = subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout
    found = {}
    for line in said.splitlines():
        found.setdefault(line.split(":")[0].removeprefix("./"), []).append(line)
    return found


@pytest.fixture(scope="module")
def mistakes(tmp_path_factory) -> dict[str, list[str]]:
    """The speller's findings of all texts, and of one that has a mistake."""
    folder = tmp_path_factory.mktemp("texts")
    for page in TEXTS:
        (folder / page.replace("/", ".")).write_text(text(page), encoding="utf-8")
    (folder / "wrong").write_text("teh weights")
    return misspelt(folder)


@pytest.mark.parametrize("page", TEXTS)
def test_spelling(page, mistakes):
    assert mistakes.get(page.replace("/", "."), []) == []


def test_the_speller_finds_what_it_should(mistakes):
    (line,) = mistakes["wrong"]
    assert "the" in line
