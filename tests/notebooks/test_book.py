"""What must agree across chapters: the names of claims and the bibliography."""

from __future__ import annotations

import re
from collections import Counter

import chapters

from grokutils.book import __main__, inputs, styles


def test_names_of_claims_are_unique_in_the_book():
    names = Counter(
        claim["name"] for page in chapters.chapters() for claim in chapters.claims(chapters.code(page))
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_every_measured_claim_has_a_rule_and_the_study_answers_only_for_what_it_says():
    """What stands on the scorecard in the study's name must be in the study."""
    for page in chapters.chapters():
        for claim in chapters.claims(chapters.code(page)):
            if claim["kind"] != "proved":
                assert claim["rule"], (page, claim["name"])
                assert claim["kind"] == "book" or "not in the study" not in claim["reported"], (
                    page,
                    claim["name"],
                )


def test_bibliography_and_citations_agree():
    entries = re.findall(r"^@\w+\{([^,]+),", (chapters.ROOT / "book/references.bib").read_text(), re.M)
    texts = [cell.source for page in chapters.chapters() for cell in chapters.notebook(page).cells]
    texts += [
        (chapters.ROOT / f"{page}.md").read_text()
        for page in chapters.pages()
        if page not in chapters.chapters()
    ]
    cited = {
        key.strip()
        for text in texts
        for keys in re.findall(r"\{cite[\w:]*\}`([^`]+)`", text)
        for key in keys.split(",")
    }
    assert [key for key, count in Counter(entries).items() if count > 1] == []
    assert cited == set(entries)


def test_a_built_site_is_current_until_anything_that_it_shows_changes(tmp_path, monkeypatch):
    root, site = tmp_path / "repository", tmp_path / "_build/html"
    names = ("_config.yml", "_toc.yml", "benchmarks/record.json", "pyproject.toml", "requirements.txt")
    shown = [
        root / name for name in (*names, "book/intro.md", "book/_static/book.css", "grokutils/book/tables.py")
    ]
    for path in (*shown, site / "index.html"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a")
    original = inputs.site
    monkeypatch.setattr(inputs, "site", lambda: original(root))
    current = lambda: __main__.main(["current", str(site)]) == 0  # noqa: E731
    assert not current()
    for path in shown:
        __main__.main(["built", str(site)])
        assert current()
        path.write_text("b")
        assert not current(), path
        path.write_text("a")
        assert not current(), "a build that failed may have left anything"
    __main__.main(["built", str(site)])
    (root / "grokutils/__pycache__").mkdir()
    (root / "grokutils/__pycache__/a.pyc").write_text("a")
    assert current()
    monkeypatch.setenv("BOOK_ADDRESS", "someone/else")
    assert not current()


def test_style_sheets_lose_the_rules_that_no_page_can_match():
    css = (
        ".used .here,.gone:hover,.used:not(.gone)>p{color:red}#gone,h1{margin:0}.gone{color:blue}"
        "@media print{.gone{margin:0}}@media screen{.gone,.here{margin:1px}}@font-face{font-family:x}"
    )
    assert styles.without_unused(css, {"used", "here"}) == (
        ".used .here,.used:not(.gone)>p{color:red}h1{margin:0}@media screen{.here{margin:1px}}@font-face{font-family:x}"
    )


def test_the_package_cites_the_study_and_no_file_that_is_not_shipped():
    citing = {
        path.name: named
        for path in (chapters.ROOT / "grokutils").rglob("*.py")
        for named in re.findall(r"\b[A-Z]{4,}\.md\b", path.read_text())
        if not (chapters.ROOT / named).exists()
    }
    assert citing == {}
