"""A chapter is an essay that runs: its opening, what code it shows, and that its tables are tables."""

from __future__ import annotations

import re
from itertools import pairwise

import chapters
import pytest

NUMBERED = [page for page in chapters.chapters() if re.match(r"\d\d_", page.rpartition("/")[2])]
MOST_LINES = 80  # of visible code in one chapter
COLUMNS = re.compile(r"\S {2,}\S.* {2,}\S")

every_chapter = pytest.mark.parametrize("page", NUMBERED)


def is_idea(cell) -> bool:
    """Whether a cell shows its code."""
    return cell.cell_type == "code" and "idea" in cell.metadata.get("tags", [])


def printed_tables(text: str) -> bool:
    """Whether a text has at least three lines of three columns set apart by blanks."""
    return sum(bool(COLUMNS.search(line)) for line in text.split("\n")) >= 3


@every_chapter
def test_opens_with_its_question_and_its_answer_in_two_sentences(page):
    first = chapters.notebook(page).cells[0].source
    paragraphs = [text for text in first.split("\n\n") if text.startswith("**")]
    assert paragraphs[0].startswith("**Question.** ")
    assert paragraphs[1].startswith("**Answer.** ")
    answer = re.sub(r"\s+", " ", paragraphs[1].removeprefix("**Answer.** "))
    assert 1 <= len(re.findall(r"[.!?](?= [A-Z$]|$)", answer)) <= 3
    assert not re.match(r"# \d", first), "the number comes from the file's name"


@every_chapter
def test_one_cell_leads(page):
    (lead,) = chapters.tagged(page, "lead")
    assert any(output.output_type in ("display_data", "execute_result") for output in lead.outputs)


@every_chapter
def test_shows_little_code_and_never_two_cells_in_a_row(page):
    cells = [cell for cell in chapters.notebook(page).cells if cell.source.strip()]
    lines = sum(bool(line.strip()) for cell in cells if is_idea(cell) for line in cell.source.split("\n"))
    assert 0 < lines <= MOST_LINES, "the idea itself is code that one reads"
    pairs = [b.id for a, b in pairwise(cells) if is_idea(a) and is_idea(b)]
    assert pairs == []


@pytest.mark.parametrize("page", chapters.chapters())
def test_prints_no_table_in_columns(page):
    streams = [o.text for o in chapters.outputs(chapters.code(page)) if o.output_type == "stream"]
    assert [text[:200] for text in streams if printed_tables(text)] == []


@pytest.mark.parametrize(
    ("text", "is_table"),
    [
        ("a   b   c\n1   2   3\n4   5   6\n", True),
        ("a   b   c\n1   2   3\n", False),
        ("one sentence.  And another.\n" * 5, False),
    ],
)
def test_the_search_for_tables_finds_what_it_should(text, is_table):
    assert printed_tables(text) == is_table
