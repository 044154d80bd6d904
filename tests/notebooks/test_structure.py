"""Every chapter is built like every other: set-up, parameters, check, text and code in turns, the same end.

That the stored outputs are what the code gives is nbval's part (see the Makefile); here is what a notebook looks like.
"""

from __future__ import annotations

import json
import re
from itertools import pairwise

import chapters
import nbformat
import pytest

from grokutils import parameters
from grokutils.book import address

CHAPTERS = chapters.chapters()
NUMBERED = [page for page in CHAPTERS if re.match(r"\d\d_", page.rpartition("/")[2])]
ENDING = ["What could be wrong", "Exercises", "Further reading"]
PLACES = r"(?<![\w.:/~])/(?:content|home|mnt|opt|private|root|tmp|usr|Users|var|work)/"

every_chapter = pytest.mark.parametrize("page", CHAPTERS)
numbered_chapters = pytest.mark.parametrize("page", NUMBERED)


def text_of(output) -> str:
    """What an output says, without its pictures."""
    if output.output_type == "stream":
        return output.text
    shown = {mime: value for mime, value in output.get("data", {}).items() if not mime.startswith("image/")}
    return json.dumps(shown, ensure_ascii=False)


def prose(page: str) -> str:
    """A chapter's text cells, joined."""
    return "\n\n".join(cell.source for cell in chapters.notebook(page).cells if cell.cell_type == "markdown")


def headings(page: str) -> list[str]:
    """Second-level headings, in order."""
    unfenced = re.sub(r"^(`{3,}).*?^\1", "", prose(page), flags=re.M | re.S)
    return re.findall(r"^## +(.+?) *$", unfenced, re.M)


def test_the_book_has_chapters():
    assert CHAPTERS


def test_no_notebook_is_left_out_of_the_table_of_contents():
    committed = {
        path.relative_to(chapters.ROOT).with_suffix("").as_posix()
        for path in (chapters.ROOT / "book").rglob("*.ipynb")
        if ".ipynb_checkpoints" not in path.parts
    }
    assert committed == set(CHAPTERS)


@every_chapter
def test_file_is_valid_small_and_normalized(page):
    notebook = chapters.notebook(page)
    nbformat.validate(notebook)
    ids = [cell.id for cell in notebook.cells]
    assert len(ids) == len(set(ids))
    assert (chapters.ROOT / f"{page}.ipynb").stat().st_size < 700_000
    assert notebook.metadata.kernelspec.name == "python3"
    assert not {"jupytext", "papermill", "widgets"} & set(notebook.metadata)
    assert not [cell.id for cell in notebook.cells if "execution" in cell.metadata], (
        "holds times of execution"
    )


@every_chapter
def test_opens_with_title_set_up_parameters_and_their_check(page):
    first, *_ = chapters.notebook(page).cells
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    setup, declaration, following, *_ = chapters.code(page)
    assert "setup" in setup.metadata.get("tags", [])
    assert chapters.tagged(page, "setup") == [setup]
    assert setup.source == address.setup_cell(address.stored())
    assert chapters.tagged(page, "parameters") == [declaration]
    assert parameters.declared(declaration.source)
    assert "parameters.check()" in following.source.splitlines(), "must check its parameters right after them"


@numbered_chapters
def test_ends_as_all_do(page):
    assert headings(page)[-3:] == ENDING
    _, exercises = prose(page).rsplit("\n## Exercises", 1)
    assert "dropdown" in exercises, "exercises come with hidden solutions"
    assert chapters.claims(chapters.code(page)), "a chapter makes claims"


@every_chapter
def test_every_cell_was_executed_in_order_and_went_well(page):
    cells = [cell for cell in chapters.code(page) if cell.source.strip()]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for output in chapters.outputs(cells):
        assert output.output_type != "error", output.evalue
        assert output.get("name") != "stderr", output.text
        assert not re.search(r"\w*Warning\b:", text_of(output)), text_of(output)


@every_chapter
def test_no_place_on_somebodys_machine(page):
    texts = [cell.source for cell in chapters.notebook(page).cells]
    texts += [text_of(output) for output in chapters.outputs(chapters.code(page))]
    assert [found for text in texts for found in re.findall(rf".{{0,40}}(?:{PLACES}).{{0,40}}", text)] == []


@every_chapter
def test_every_picture_says_what_it_shows(page):
    for output in chapters.outputs(chapters.code(page)):
        data = output.get("data", {})
        if "image/png" in data:
            assert len(output.metadata.get("image/png", {}).get("alt", "")) >= 20, "show it with figures.show"
        if chapters.PLOTLY in data:
            assert "image/png" in data, "a plotly figure needs a static twin: figures.show_plotly"
    assert "![](" not in prose(page)


@every_chapter
def test_no_code_cell_is_longer_than_a_screen(page):
    """What is shown fits half a screen; behind a mark a figure may take one cell, however it is wrapped."""
    most = {cell.id: 30 if "idea" in cell.metadata.get("tags", []) else 80 for cell in chapters.code(page)}
    long = {cell.id: n for cell in chapters.code(page) if (n := cell.source.count("\n")) > most[cell.id]}
    assert not long, "reusable code belongs in grokutils"


@every_chapter
def test_no_silent_folded_cell_stands_before_another_folded_one(page):
    """What puts out nothing belongs to the cell that needs it; only set-up and parameters stand alone."""
    silent = []
    for cell, follower in pairwise(chapters.notebook(page).cells):
        folded = all(
            c.cell_type == "code" and "idea" not in c.metadata.get("tags", []) for c in (cell, follower)
        )
        if folded and not cell.outputs and not {"setup", "parameters"} & set(cell.metadata.get("tags", [])):
            silent.append(cell.id)
    assert not silent, "join each with its follower"


@every_chapter
def test_no_number_is_typed_in_the_text(page):
    assert typed_decimals(prose(page)) == []


def typed_decimals(text: str) -> list[str]:
    """Decimals with two places or more in prose, with what stands around them.

    Code, addresses, citations, labels and what is numbered (theorem 4.14, arXiv:2511.01938) do not count.
    """
    for harmless in (
        r"^(`{3,}|~{3,}).*?^\1",  # fenced code
        r"\{[\w:.-]+\}`[^`]*`",  # roles
        r"`[^`]*`",  # code
        r"https?://\S+|\]\([^)]*\)|doi:\S+",  # addresses
        r"(?i)\barxiv[: ]*\d{4}\.\d{4,5}(?:v\d+)?",
        r"(?i)\b(?:theorem|lemma|corollary|remark|assumption|definition|proposition|section|version|python|torch)s?"
        r"[ ~]\d+(?:\.\d+)+(?:(?:,| and| or|–) ?\d+(?:\.\d+)+)*",
    ):
        text = re.sub(harmless, " ", text, flags=re.M | re.S)
    return re.findall(r".{0,30}(?<![\w^_{.\\(-])\d+\.\d{2,}(?![\w}]).{0,20}", text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The cosine reaches 0.93 here.", 1),
        ("Theorems 4.10 and 4.14, arXiv:2511.01938v3, `lr 0.01`, {eq}`eq-09-1.25`", 0),
        ("a [link](https://x.org/10.1145/12.345) and\n```\n0.123\n```\n", 0),
        ("$\\lambda = 0.25$ was measured", 1),
    ],
)
def test_the_search_for_typed_numbers_finds_what_it_should(text, found):
    assert len(typed_decimals(text)) == found
