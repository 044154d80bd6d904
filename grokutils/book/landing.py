"""The first page: results whose numbers come from claims, and a card for every chapter."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util import logging

from ..claims import MARKS
from . import cells, head, pictures, scorecard, tables

WORDS_A_MINUTE = 200  # of a text with equations


class Finding(tables.Made):
    """``{finding} name``: one result; its number is found in what that claim measured.

    ``:number:`` is a regular expression; its groups, or all that it matches, are shown, joined by ``:join:``.
    """

    required_arguments = 1
    has_content = True
    option_spec: ClassVar = {
        "number": directives.unchanged_required,
        "join": directives.unchanged,
        "unit": directives.unchanged,
    }

    def run(self) -> list[nodes.Node]:
        options = {"join": " ", "unit": "", **self.options}
        made = tables.placeholder(table=self.name, claim=self.arguments[0], **options)
        self.set_source_info(made)
        text = nodes.container(classes=["finding-text"])
        self.state.nested_parse(self.content, self.content_offset, text)
        return [nodes.container("", made, text, classes=["finding"])]


def finding(app, docname: str, node) -> dict:
    """A number, large, and the verdict that it led to."""
    found = {claim["name"]: claim for claim in scorecard.claims(app, docname)}
    claim = found.get(node["claim"], {"measured": "no such claim"})
    match = re.search(node["number"], claim["measured"])
    if match is None:
        text = f"{node['number']!r} is not in what claim {node['claim']!r} measured: {claim['measured']}"
        logging.getLogger(__name__).warning(text, location=node)
        return {}
    number = f"{node['join'].join(match.groups() or [match[0]]).strip()} {node['unit']}"
    return {"number": number.strip(), "link": claim["link"]}


def cards(app, docname: str, node) -> dict:
    """A card for each chapter: picture, question, answer, reading time, verdicts, running time."""
    claims = Counter((claim["page"], claim["verdict"]) for claim in scorecard.claims(app, docname))
    made = []
    for page in filter(cells.number, app.env.collect_relations()):
        doctree = app.env.get_doctree(page)
        said = {word: sentence(paragraph) for word, paragraph in cells.opening(doctree).items()}
        card = {
            "link": app.builder.get_relative_uri(docname, page),
            "picture": pictures.CARD.format(pictures.of_page(app, page)),
            "title": app.env.titles[page].astext(),
            "question": said.get("question"),
            "answer": (said.get("answer") or head.description(doctree)).partition(". ")[0].rstrip("."),
            "verdicts": [(v, s, claims[page, v]) for v, s in scorecard.SHORT.items() if claims[page, v]],
            "minutes": minutes(doctree),
            "run": tables.duration(Path(app.env.doc2path(page))),
        }
        made.append(card)
    return {"cards": made, "marks": MARKS}


def sentence(paragraph) -> str:
    """A paragraph of the opening without the bold word that it begins with."""
    return " ".join("".join(child.astext() for child in paragraph.children[1:]).split())


def minutes(doctree) -> int:
    """How long the text takes to read: paragraphs and lists, without code and what cells print."""
    words = 0
    for paragraph in doctree.findall(nodes.paragraph):
        parent = paragraph.parent
        while parent is not None and not isinstance(parent, nodes.container):
            parent = parent.parent
        if parent is None or not parent.get("nb_element"):
            words += len(paragraph.astext().split())
    return max(1, round(words / WORDS_A_MINUTE))
