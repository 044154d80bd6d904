"""The scorecard as a picture and as a table, and the page of rules: both from the claims of this build."""

from __future__ import annotations

from collections import Counter

from ..claims import KINDS, MARKS, PROVED
from . import cells
from .rendering import claims_of

COLUMNS = {**KINDS, PROVED: "proved"}
SHORT = {  # verdicts as class names, in the order of counts and legends
    "holds": "holds",
    "holds with a correction": "correction",
    "fails": "fails",
    "not testable here": "here",
    PROVED: PROVED,
}


def claims(app, docname: str) -> list[dict]:
    """Every claim of the build in reading order, with its page and its link from ``docname``; what is not said of it is filled in."""
    known, found = claims_of(app.env), []
    empty = {"kind": "study", "rule": "", "reported": "", "measured": "", "note": "", "changes": []}
    for page in app.env.collect_relations():
        for record in known.get(page, ()):
            verdict = record["verdict"]
            shown = {
                "page": page,
                "chapter": cells.number(page) or page.rpartition("/")[2],
                "link": f"{app.builder.get_relative_uri(docname, page)}#claim-{record['name']}",
                "mark": MARKS[verdict],
                "short": SHORT[verdict],
            }
            found.append({**empty, **record, **shown})
    return found


def scorecard(app, docname: str, node) -> dict:
    """Three counts, the grid, the filters and the table."""
    found, uri = claims(app, docname), app.builder.get_relative_uri
    tally = Counter((claim["kind"], claim["verdict"]) for claim in found)
    seen = {claim["verdict"]: claim for claim in found}
    titles = {claim["page"]: app.env.titles[claim["page"]].astext() for claim in found}
    chapters = {claim["chapter"]: titles[claim["page"]] for claim in found}
    verdicts = {short: verdict for verdict, short in SHORT.items()}
    return {
        "claims": found,
        "total": Counter(claim["kind"] for claim in found),
        "said": {kind: said({v: tally[kind, v] for v in SHORT}) for kind in KINDS},
        "real": tally["slip", "fails"],
        "columns": COLUMNS,
        "kinds": [kind for kind in COLUMNS if any(claim["kind"] == kind for claim in found)],
        "pages": [{"name": name, "title": titles[name], "link": uri(docname, name)} for name in titles],
        "legend": [seen[v] for v in SHORT if v in seen],
        "choices": {"chapter": chapters, "kind": COLUMNS, "verdict": verdicts},
    }


def said(counts: dict[str, int]) -> str:
    """How many claims came out how, in words."""
    several = {v: v.replace("holds", "hold").replace("fails", "fail") for v in counts}
    parts = [f"{count} {v if count == 1 else several[v]}" for v, count in counts.items() if count]
    return ", ".join(parts) or "none"


def rules(app, docname: str, node) -> dict:
    """Every change of a rule: first form, change, effect."""
    return {"changes": [(claim, change) for claim in claims(app, docname) for change in claim["changes"]]}
