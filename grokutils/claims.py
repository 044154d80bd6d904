"""Claims: what the study reports beside what a chapter measured, with a verdict that could have been another."""

from __future__ import annotations

import html
import re

from ._display import publish

MIME = "application/vnd.grokutils.claim+json"
VERDICTS = {
    True: "holds",
    False: "fails",
    "corrected": "holds with a correction",
    "untestable": "not testable here",
}
MARKS = {
    "holds": "✓",
    "fails": "✗",
    "holds with a correction": "≈",
    "not testable here": "?",
}


def claim(name: str, *, reported: str, measured: str, holds, statement: str = "", note: str = "") -> None:
    """Show one claim in the chapter and hand it to the scorecard page.

    Parameters
    ----------
    name : identifier, unique in the book: lower-case words joined by hyphens. The scorecard links to it.
    reported : what the study says.
    measured : what this chapter's cells computed, formatted.
    holds : True or False as computed from the measured numbers, or "corrected" (true once a stated
        correction is made) or "untestable" (nothing run here could decide it).
    statement : the claim in words; ``name`` serves where it is left out.
    note : what a reader should know about the verdict.

    Raises
    ------
    ValueError
        A malformed name or a verdict that is none of these.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", str(name)):
        raise ValueError(f"name = {name!r}: must be lower-case words joined by hyphens")
    verdict = _verdict(holds)
    record = {
        "name": name,
        "statement": statement or name.replace("-", " "),
        "reported": str(reported),
        "measured": str(measured),
        "verdict": verdict,
        "note": note,
    }
    publish({MIME: record, "text/html": as_html(record), "text/plain": as_text(record)})


def _verdict(holds) -> str:
    kind = str(getattr(holds, "dtype", type(holds).__name__))  # NumPy's and PyTorch's truth values serve too
    if kind in ("bool", "torch.bool") and getattr(holds, "ndim", 0) == 0:
        holds = bool(holds)
    if not isinstance(holds, bool | str) or holds not in VERDICTS:
        raise ValueError(f'holds = {holds!r}: must be True, False, "corrected" or "untestable"')
    return VERDICTS[holds]


def as_text(record: dict) -> str:
    """One claim as lines of text."""
    lines = [
        f"{MARKS[record['verdict']]} {record['verdict']}: {record['statement']}",
        f"  reported: {record['reported']}",
        f"  measured: {record['measured']}",
    ]
    return "\n".join(lines + ([f"  note: {record['note']}"] if record["note"] else []))


def as_html(record: dict) -> str:
    """One claim as a block of HTML; the class names are styled by the book and harmless elsewhere."""
    text = {key: html.escape(value) for key, value in record.items()}
    kind = record["verdict"].split()[-1]  # holds, fails, correction, here
    rows = "".join(
        f"<dt>{key}</dt><dd>{text[key]}</dd>" for key in ("reported", "measured", "note") if text[key]
    )
    return (
        f'<div class="claim claim-{kind}" id="claim-{text["name"]}">'
        f'<p class="claim-head"><span class="claim-verdict">{MARKS[record["verdict"]]} {text["verdict"]}</span> '
        f"{text['statement']}</p><dl>{rows}</dl></div>"
    )
