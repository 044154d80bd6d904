"""The first page: results whose numbers come from claims, and a card for every chapter."""

from __future__ import annotations

import html
import re
from collections import Counter
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util import logging

from ..claims import MARKS, PROVED
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
        made = tables.placeholder(
            table="finding",
            claim=self.arguments[0],
            pattern=self.options["number"],
            join=self.options.get("join", " "),
            unit=self.options.get("unit", ""),
        )
        self.set_source_info(made)
        text = nodes.container(classes=["finding-text"])
        self.state.nested_parse(self.content, self.content_offset, text)
        return [nodes.container("", made, text, classes=["finding"])]


def finding(app, docname: str, node) -> str:
    """A number, large, and the verdict that it led to."""
    found = {record["name"]: (page, record) for page, record in scorecard.claims(app)}
    page, record = found.get(node["claim"], ("", {"measured": ""}))
    match = re.search(node["pattern"], record["measured"])
    if match is None:
        text = f"{node['pattern']!r} is not in what claim {node['claim']!r} measured: {record['measured'] or 'no such claim'}"
        logging.getLogger(__name__).warning(text, location=node)
        return ""
    number = f"{node['join'].join(match.groups() or [match[0]]).strip()} {node['unit']}"
    link = scorecard.link(app, docname, page, record)
    return f'<a class="finding-number" href="{link}">{html.escape(number.strip())}</a>'


ALT = (
    "Above, four addition tables along slow time: at first only the training pairs are right, at the end all of them. "
    "Below, the embeddings of the tokens at the same times: a shapeless cloud becomes a ring."
)
CAPTION = (
    "A network whose readout always fits its training data, along slow time. Above, the addition table (grey: training pairs; "
    "blue: right; orange: wrong). Below, the tokens in the plane of one frequency. Nothing here has ever seen a test pair."
)
LIVE = ("laboratory", "laboratory_flows", "laboratory_drawing", "landing")  # its scripts, in this order


def live(app, docname: str, node) -> str:
    """The thing itself: a still picture, which landing.js replaces by the running equation."""
    root = "../" * docname.count("/")
    scripts = "".join(f'<script defer src="{root}_static/{name}.js"></script>' for name in LIVE)
    return (
        f'<link rel="stylesheet" href="{root}_static/laboratory.css">'
        f'<figure class="hero-figure"><div id="landing-live"><img src="{root}_static/cover.png" alt="{ALT}"></div>'
        f"<figcaption>{CAPTION}</figcaption></figure>{scripts}"
    )


def cards(app, docname: str, node) -> str:
    """A card for each chapter: picture, question, answer, reading time, verdicts, running time."""
    claims = Counter()
    for page, record in scorecard.claims(app):
        claims[page, record["verdict"]] += 1
    made = [
        card(app, docname, page, claims) for page in tables.in_reading_order(app.env) if cells.number(page)
    ]
    return f'<ol class="cards">{"".join(made)}</ol>'


def card(app, docname: str, page: str, claims: Counter) -> str:
    """One chapter's card."""
    doctree = app.env.get_doctree(page)
    said = cells.opening(doctree)
    title = html.escape(app.env.titles[page].astext())
    question = sentence(said["question"]) if "question" in said else ""
    answer = sentence(said["answer"]) if "answer" in said else head.description(doctree)
    answer = answer.partition(". ")[0].rstrip(".") + "."
    link = app.builder.get_relative_uri(docname, page)
    picture = pictures.of_page(app, page)
    root = "../" * docname.count("/")
    verdicts = [v for v in (*scorecard.ORDER, PROVED) if claims[page, v]]
    dots = "".join(
        f'<span class="dot dot-{scorecard.SHORT[v]}">{MARKS[v]}</span>' * claims[page, v] for v in verdicts
    )
    spoken = ", ".join(f"{claims[page, v]} {v}" for v in verdicts) or "no claims"
    run = tables.duration(Path(app.env.doc2path(page)))
    return (
        f'<li class="chapter-card"><a class="card-link" href="{link}">'
        f'<img src="{root}{pictures.CARD.format(picture)}" alt="" width="640" height="320">'
        f'<span class="card-title">{title}</span></a>'
        + (f'<p class="card-question">{html.escape(question)}</p>' if question else "")
        + f'<p class="card-answer">{html.escape(answer)}</p>'
        f'<p class="card-dots" role="img" aria-label="Verdicts: {spoken}">{dots}</p>'
        f'<p class="card-times">{minutes(doctree)} min to read · {run} to run</p></li>'
    )


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
