"""What must agree across chapters: the names of claims and the bibliography."""

from __future__ import annotations

import re
from collections import Counter

import chapters


def test_names_of_claims_are_unique_in_the_book():
    names = Counter(
        claim["name"] for page in chapters.chapters() for claim in chapters.claims(chapters.code(page))
    )
    assert [name for name, count in names.items() if count > 1] == []


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
