"""The scorecard as a picture and as a table, and the page of rules: both from the claims of this build."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterable, Iterator

from ..claims import KINDS, MARKS, PROVED
from . import cells
from .rendering import claims_of
from .tables import in_reading_order

ORDER = ("holds", "holds with a correction", "fails", "not testable here")  # as counts and legends say them
COLUMNS = {**KINDS, PROVED: "proved"}
SHORT = {
    "holds": "holds",
    "fails": "fails",
    "holds with a correction": "correction",
    "not testable here": "here",
    PROVED: PROVED,
}  # as class names
RULES = ("rule", "first form", "change", "effect")


def claims(app) -> Iterator[tuple[str, dict]]:
    """Every claim of the build with its document, in reading order; what is not said of it is filled in."""
    known = claims_of(app.env)
    for name in in_reading_order(app.env):
        for record in known.get(name, ()):
            empty = {"kind": "study", "rule": "", "reported": "", "measured": "", "note": "", "changes": []}
            yield name, {**empty, **record}


def scorecard(app, docname: str, node) -> str:
    """Three counts, the grid, the filters and the table."""
    found = list(claims(app))
    return counts(found) + grid(app, docname, found) + filters(app, found) + table(app, docname, found)


def counts(found: list[tuple[str, dict]]) -> str:
    """What a reader can count in the grid, in three sentences, and what is not counted with it."""
    tally = Counter((record["kind"], record["verdict"]) for _, record in found)
    total = Counter(record["kind"] for _, record in found)

    def said(kind: str) -> str:
        parts = [f"{tally[kind, v]} {plural(v, tally[kind, v])}" for v in ORDER if tally[kind, v]]
        return ", ".join(parts) or "none"

    items = [
        f'<a href="?kind=study#all-claims">Of {total["study"]} statements of the study</a>: {said("study")}.',
        f'<a href="?kind=slip#all-claims">Of {total["slip"]} suspected slips</a> in its text, '
        f"{tally['slip', 'fails']} are real: the printed statement fails.",
        f'<a href="?kind=book#all-claims">Of {total["book"]} claims of this book\'s own</a>: {said("book")}.',
    ]
    proved = f"<p>Beside them stand {total[PROVED]} identities that are proved. They could not have come out otherwise, and are not counted.</p>"
    rows = "".join(f"<li>{item}</li>" for item in items)
    return f'<ul class="scorecard-counts">{rows}</ul>' + (proved if total[PROVED] else "")


def plural(verdict: str, count: int) -> str:
    """A verdict as a verb of ``count`` claims."""
    if count == 1:
        return verdict
    return verdict.replace("holds", "hold").replace("fails", "fail")


def link(app, docname: str, name: str, record: dict) -> str:
    """The address of a claim, seen from ``docname``."""
    return f"{app.builder.get_relative_uri(docname, name)}#claim-{record['name']}"


def short(name: str) -> str:
    """A chapter's number, or a page's own name."""
    return cells.number(name) or name.rpartition("/")[2]


def square(verdict: str) -> str:
    """A verdict's small square."""
    return f'<span class="dot dot-{SHORT[verdict]}" aria-hidden="true">{MARKS[verdict]}</span>'


def dot(app, docname: str, name: str, record: dict) -> str:
    """One claim as a small square that leads to it."""
    said = html.escape(f"{record['verdict']}: {record['statement']}")
    return (
        f'<a class="dot dot-{SHORT[record["verdict"]]}" href="{link(app, docname, name, record)}" title="{said}" aria-label="{said}" '
        f"{data(name, record)}>{MARKS[record['verdict']]}</a>"
    )


def data(name: str, record: dict) -> str:
    """What the filters look at."""
    return (
        f'data-chapter="{short(name)}" data-kind="{record["kind"]}" data-verdict="{SHORT[record["verdict"]]}"'
    )


def grid(app, docname: str, found) -> str:
    """Chapter by kind; every claim a square, coloured and marked by its verdict."""
    kinds = [kind for kind in COLUMNS if any(record["kind"] == kind for _, record in found)]
    rows = []
    for page in dict.fromkeys(name for name, _ in found):
        title = html.escape(app.env.titles[page].astext())
        row = f'<tr><th scope="row"><a href="{app.builder.get_relative_uri(docname, page)}">{title}</a></th>'
        for kind in kinds:
            own = (dot(app, docname, n, r) for n, r in found if n == page and r["kind"] == kind)
            row += f"<td>{''.join(own)}</td>"
        rows.append(f"{row}</tr>")
    seen = {record["verdict"] for _, record in found}
    legend = "".join(f"<span>{square(v)} {v}</span>" for v in (*ORDER, PROVED) if v in seen)
    return (
        f'<p class="scorecard-legend">{legend}</p><div class="table-scroll"><table class="scorecard-grid">'
        f"<thead><tr><td></td>{heads(COLUMNS[kind] for kind in kinds)}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def heads(columns: Iterable[str]) -> str:
    """The head of a table."""
    return "".join(f'<th scope="col">{column}</th>' for column in columns)


def filters(app, found) -> str:
    """Native controls over the grid and the table; without a script they are not there."""
    chapters = {short(page): app.env.titles[page].astext() for page, _ in found}
    verdicts = {SHORT[v]: v for v in (*ORDER, PROVED)}
    choices = {"chapter": chapters, "kind": COLUMNS, "verdict": verdicts}
    made = []
    for key, values in choices.items():
        options = "".join(f'<option value="{v}">{html.escape(t)}</option>' for v, t in values.items())
        made.append(
            f'<label>{key} <select name="{key}"><option value="">all</option>{options}</select></label>'
        )
    return (
        '<form class="scorecard-filters" hidden aria-label="Filter the claims">'
        f'{"".join(made)}<output aria-live="polite"></output></form>'
    )


def table(app, docname: str, found) -> str:
    """Every claim with its rule, what was reported and what was measured."""
    head = heads(("verdict", "claim", "reported", "measured"))
    rows = "".join(row(app, docname, name, record) for name, record in found)
    return f'<table class="scorecard" id="all-claims"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def row(app, docname: str, name: str, record: dict) -> str:
    """One claim as a row of the table."""
    text = {key: cells.typeset(html.escape(value)) for key, value in record.items() if key != "changes"}
    labels = (("rule", "Rule: "), ("note", ""))
    more = "".join(f"<br><small>{label}{text[key]}</small>" for key, label in labels if text[key])
    return (
        f"<tr {data(name, record)}>"
        f'<td data-label="verdict">{square(record["verdict"])} {text["verdict"]}'
        f"<br><small>{short(name)}, {COLUMNS[record['kind']]}</small></td>"
        f'<td data-label="claim"><a href="{link(app, docname, name, record)}">{text["statement"]}</a>{more}</td>'
        f'<td data-label="reported">{text["reported"]}</td><td data-label="measured">{text["measured"]}</td></tr>'
    )


def rules(app, docname: str, node) -> str:
    """Every change of a rule: first form, change, effect."""
    rows = []
    for name, record in claims(app):
        statement, rule = record["statement"], record["rule"] or "see the chapter"
        for change in record["changes"]:
            said, now, *told = (cells.typeset(html.escape(text)) for text in (statement, rule, *change))
            said = f'<a href="{link(app, docname, name, record)}">{said}</a><br><small>now: {now}</small>'
            texts = zip(RULES, (said, *told), strict=True)
            rows.append(
                "<tr>" + "".join(f'<td data-label="{key}">{text}</td>' for key, text in texts) + "</tr>"
            )
    if not rows:
        return "<p>No chapter of this build names a change.</p>"
    body = f"<thead><tr>{heads(RULES)}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<table class="scorecard rules">{body}</table>'
