"""What the book tells of itself: how long its chapters take, on which machine they ran, how fast the package is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from . import chapters, templating
from .inputs import ROOT

SPEEDS = ROOT / "benchmarks" / "record.json"  # written by `make bench`


class placeholder(nodes.General, nodes.Element):  # noqa: N801
    """Where a table goes once every document is read; ``table`` names which."""


class Made(SphinxDirective):
    """A directive whose content is made of all documents, once they are read."""

    def run(self) -> list[nodes.Node]:
        return [placeholder(table=self.name)]


class Benchmarks(SphinxDirective):
    """``{benchmarks}``: what `make bench` measured when it last ran, with its machine and its date."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(SPEEDS))
        return [nodes.raw("", benchmarks(json.loads(SPEEDS.read_text(encoding="utf-8"))), format="html")]


def outdated(app, env) -> list[str]:
    """Documents with tables: they depend on all others, so they are written anew at every build."""
    return [name for name in env.found_docs if any(env.get_doctree(name).findall(placeholder))]


def filler(makers: dict[str, Callable]) -> Callable:
    """A listener to Sphinx's event for resolved documents: ``makers[table](app, docname, node)`` fills its template."""

    def fill(app, doctree, docname: str) -> None:
        for node in list(doctree.findall(placeholder)):
            name = node["table"]
            values = {"root": "../" * docname.count("/"), **makers[name](app, docname, node)}
            node.replace_self(nodes.raw("", templating.filled(f"{name}.html", **values), format="html"))

    return fill


def execution(app, docname: str, node) -> dict:
    """For every notebook the time, date, machine and versions of its stored outputs."""
    rows = []
    for name in app.env.collect_relations():
        path = Path(app.env.doc2path(name))
        if path.suffix == ".ipynb":
            link, title = app.builder.get_relative_uri(docname, name), app.env.titles[name].astext()
            rows.append((link, title, duration(path), chapters.record(path)))
    return {"rows": rows}


def state_duration(app, doctree) -> None:
    """Say under a chapter's title how long it takes."""
    path = Path(app.env.doc2path(app.env.docname))
    title = doctree.next_node(nodes.title)
    if path.suffix == ".ipynb" and title is not None:
        text = f"Time to run: {duration(path)} on one core."
        title.replace_self([title, nodes.paragraph("", text, classes=["chapter-time"])])


def duration(path: Path) -> str:
    """How long a notebook took when it was last executed for the repository, in words."""
    seconds = chapters.record(path).get("seconds")
    if seconds is None:
        return "not measured"
    return f"{max(5, 5 * round(seconds / 5)):.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def benchmarks(record: dict) -> str:
    """The tables of a record of benchmarks, one for each kind."""
    return templating.filled("benchmarks.html", **record)
