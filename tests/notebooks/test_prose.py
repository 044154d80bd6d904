"""The prose: every numbered figure is spoken of, every "how we know" leads to a claim."""

from __future__ import annotations

import re

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
