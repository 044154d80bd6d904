"""Claims: what a chapter measured, with a verdict that could have been another; and what it proved."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from ._display import publish

MIME = "application/vnd.grokutils.claim+json"
KINDS = {
    "study": "the study's",
    "slip": "its slips",
    "book": "the book's own",
}
PROVED = "proved"  # the kind and the verdict of what :func:`proved` shows: not counted with the others
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
    PROVED: "✓",
}


def claim(
    name: str,
    *,
    measured: str,
    holds,
    reported: str = "",
    kind: str = "study",
    statement: str = "",
    rule: str = "",
    note: str = "",
    changes: Sequence[tuple[str, str, str]] = (),
) -> None:
    """Show one measured claim in the chapter and hand it to the scorecard and the Rules page.

    Texts may hold mathematics between dollar signs.

    Parameters
    ----------
    name : identifier, unique in the book: lower-case words joined by hyphens. The scorecard links to it.
    measured : what this chapter's cells computed, formatted.
    holds : True or False as computed from the measured numbers, or "corrected" (true once a stated
        correction is made) or "untestable" (nothing run here could decide it).
    reported : what the study says, or what was expected.
    kind : "study" (the study states it), "slip" (printed in the study, and suspected to be a slip: it
        fails if it is one) or "book" (this book's own).
    statement : the claim in words; ``name`` serves where it is left out.
    rule : what decides, as written before the run.
    note : what a reader should know about the verdict.
    changes : for each change of the rule its first form, the change, and what the change did to the verdict.

    Raises
    ------
    ValueError
        A malformed name, a kind or a verdict that is none of these, or a change without its three texts.
    """
    _check_name(name)
    if kind not in KINDS:
        raise ValueError(f"kind = {kind!r}: must be one of {', '.join(map(repr, KINDS))}")
    changes = [list(change) if not isinstance(change, str) else [change] for change in changes]
    for change in changes:
        if len(change) != 3 or not all(isinstance(text, str) and text for text in change):
            raise ValueError(f"changes = {changes!r}: each must be three texts: first form, change, effect")
    record = {
        "name": name,
        "kind": kind,
        "statement": statement or name.replace("-", " "),
        "rule": rule,
        "reported": str(reported),
        "measured": str(measured),
        "verdict": _verdict(holds),
        "note": note,
        "changes": changes,
    }
    _show(record)


def proved(name: str, statement: str, *checks) -> None:
    """Show that an identity or theorem holds, as a small mark beside it, once its checks have passed.

    Parameters
    ----------
    name : as for :func:`claim`.
    statement : what is proved, in words or mathematics.
    checks : truth values (Python's, NumPy's, PyTorch's or SymPy's), at least one: what was compared, exactly
        or in numbers. All must be true.

    Raises
    ------
    ValueError
        A malformed name, no check, or a check that is no truth value.
    AssertionError
        A check is false: then either the proof or the code is wrong, and the chapter must not go on.
    """
    _check_name(name)
    if not checks:
        raise ValueError("checks = (): must be at least one truth value")
    for at, check in enumerate(checks, 1):
        if not _is_truth(check):
            raise ValueError(f"checks[{at - 1}] = {check!r}: must be a truth value")
        if not bool(check):
            raise AssertionError(f"{name}: check {at} of {len(checks)} failed: {statement}")
    _show({"name": name, "kind": PROVED, "statement": statement, "verdict": PROVED})


def _show(record: dict) -> None:
    publish({MIME: record, "text/html": as_html(record), "text/plain": as_text(record)})


def _check_name(name) -> None:
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", str(name)):
        raise ValueError(f"name = {name!r}: must be lower-case words joined by hyphens")


def _is_truth(value) -> bool:
    kind = str(getattr(value, "dtype", type(value).__name__))  # NumPy's, PyTorch's and SymPy's serve too
    known = ("bool", "torch.bool", "BooleanTrue", "BooleanFalse")
    return kind in known and getattr(value, "ndim", 0) == 0


def _verdict(holds) -> str:
    if _is_truth(holds):
        holds = bool(holds)
    if not isinstance(holds, bool | str) or holds not in VERDICTS:
        raise ValueError(f'holds = {holds!r}: must be True, False, "corrected" or "untestable"')
    return VERDICTS[holds]


SHOWN = ("rule", "reported", "measured", "note")


def as_text(record: dict) -> str:
    """One claim as lines of text."""
    head = f"{MARKS[record['verdict']]} {record['verdict']}: {record['statement']}"
    return "\n".join([head, *(f"  {key}: {record[key]}" for key in SHOWN if record.get(key))])


def as_html(record: dict) -> str:
    """One claim as a block of HTML; the class names are styled by the book and harmless elsewhere."""
    text = {key: html.escape(value) for key, value in record.items() if isinstance(value, str)}
    mark = MARKS[record["verdict"]]
    if record["verdict"] == PROVED:
        return (
            f'<p class="proved" id="claim-{text["name"]}"><span class="claim-verdict">{mark} proved</span> '
            f"{text['statement']}</p>"
        )
    kind = record["verdict"].split()[-1]  # holds, fails, correction, here
    rows = "".join(f"<dt>{key}</dt><dd>{text[key]}</dd>" for key in SHOWN if text.get(key))
    return (
        f'<div class="claim claim-{kind}" id="claim-{text["name"]}">'
        f'<p class="claim-head"><span class="claim-verdict">{mark} {text["verdict"]}</span> '
        f"{text['statement']}</p><dl>{rows}</dl></div>"
    )
