"""What the book tells of itself: how long its chapters take, on which machine they ran, how fast the package is."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

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
    """A listener to Sphinx's event for resolved documents: ``makers[table](app, docname, node)`` gives the HTML."""

    def fill(app, doctree, docname: str) -> None:
        for node in list(doctree.findall(placeholder)):
            node.replace_self(nodes.raw("", makers[node["table"]](app, docname, node), format="html"))

    return fill


def in_reading_order(env) -> list[str]:
    """Documents in the order of the table of contents."""
    order, stack = [], [env.config.root_doc]
    while stack:
        name = stack.pop()
        order.append(name)
        stack.extend(reversed(env.toctree_includes.get(name, [])))
    return order


def execution(app, docname: str, node) -> str:
    """For every notebook the time, date, machine and versions of its stored outputs."""
    rows = []
    for name in in_reading_order(app.env):
        path = Path(app.env.doc2path(name))
        if path.suffix != ".ipynb":
            continue
        link, title = app.builder.get_relative_uri(docname, name), app.env.titles[name].astext()
        record = _record(path)
        where = [f"{package} {number}" for package, number in record.get("versions", {}).items()]
        where = "; ".join(filter(None, [record.get("processor"), ", ".join(where)])) or "not recorded"
        rows.append(
            f'<tr><td><a href="{link}">{html.escape(title)}</a><br><small>{html.escape(where)}</small></td>'
            f"<td>{duration(path)}</td><td>{record.get('date', '')}</td></tr>"
        )
    head = "<thead><tr><th>chapter, machine and versions</th><th>time</th><th>date</th></tr></thead>"
    return f'<table class="chapters">{head}<tbody>{"".join(rows)}</tbody></table>'


def state_duration(app, doctree) -> None:
    """Say under a chapter's title how long it takes."""
    path = Path(app.env.doc2path(app.env.docname))
    title = next(iter(doctree.findall(nodes.title)), None)
    if path.suffix == ".ipynb" and title is not None:
        text = f"Time to run: {duration(path)} on one core."
        title.parent.insert(
            title.parent.index(title) + 1, nodes.paragraph("", text, classes=["chapter-time"])
        )


def duration(path: Path) -> str:
    """How long a notebook took when it was last executed for the repository, in words."""
    seconds = _record(path).get("seconds")
    if seconds is None:
        return "not measured"
    return f"{max(5, 5 * round(seconds / 5)):.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def _record(path: Path) -> dict:
    """What a notebook holds of its execution: see ``execution._write``."""
    return json.loads(path.read_text(encoding="utf-8"))["metadata"].get("grokutils", {})


def benchmarks(record: dict) -> str:
    """The tables of a record of benchmarks, one for each kind."""
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    parts = [
        f"<p>Measured on {record['date']}: {html.escape(record['machine'])}; {html.escape(versions)}.</p>"
    ]
    kinds = dict.fromkeys(row["benchmark"] for row in record["rows"])
    for kind in kinds:
        rows = "".join(_speed(row) for row in record["rows"] if row["benchmark"] == kind)
        parts.append(
            f'<table class="chapters speeds"><caption>{html.escape(kind)}</caption>'
            f"<thead><tr><th>what</th><th>value</th><th>ratio</th></tr></thead><tbody>{rows}</tbody></table>"
        )
    return "\n".join(parts)


def _speed(row: dict) -> str:
    threads = f"{row['threads']} thread{'s' if row['threads'] > 1 else ''}"
    about = "; ".join(filter(None, [row["size"], threads, row["note"]]))
    ratio = "" if row["ratio"] is None else f"{row['ratio']:g} × {row['against']}"
    what, about, ratio, unit = map(html.escape, (row["what"], about, ratio, row["unit"]))
    value = f'<span style="white-space: nowrap">{row["value"]:g}</span> {unit}'  # no number broken in two
    return f"<tr><td>{what}<br><small>{about}</small></td><td>{value}</td><td>{ratio}</td></tr>"
