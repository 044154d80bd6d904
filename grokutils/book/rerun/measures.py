"""Numbers that a sweep keeps of each case: asked for by expressions, checked before, added afterwards."""

from __future__ import annotations

import ast
import builtins
import math
import re
import symtable
from pathlib import Path

from .chapter import Chapter, Refused, meant
from .store import read_json

MIME = "application/vnd.grokutils.measures+json"
CELL = """\
# Asked for on the command line
_measures = {{}}
for _name, _expression in {measures!r}.items():
    try:
        _measures[_name] = {{"expression": _expression, "value": repr(float(eval(_expression))), "fault": ""}}
    except Exception as _error:  # costs a number, not the case
        _fault = f"{{type(_error).__name__}}: {{_error}}"
        _measures[_name] = {{"expression": _expression, "value": "nan", "fault": _fault}}
for _name in {records!r}:
    from grokutils import records as _records

    _records.save(globals()[_name], f"{{_name}}.nc")
get_ipython().display_pub.publish({{"{mime}": _measures, "text/plain": str(_measures)}})
"""


def parsed(given: list[str] | None, records: list[str] | None = None) -> dict[str, str]:
    """Expressions by name, of what was given as NAME=EXPRESSION or as the name of a variable.

    Raises
    ------
    Refused
        No expression, no name, or one name for two expressions.
    """
    found = {}
    for text in given or []:
        name, equals, expression = text.partition("=")
        name, expression = name.strip(), (expression if equals else name).strip()
        try:
            ast.parse(expression, mode="eval")
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            raise Refused(f"--measure '{text}': '{expression}' is no Python expression") from None
        if not name.isidentifier() or name in found:
            raise Refused(f"--measure '{text}': must be NAME=EXPRESSION, with names that differ")
        found[name] = expression
    for name in records or []:
        if not name.isidentifier():
            raise Refused(f"--records '{name}': must be the name of one of the chapter's variables")
    return found


def check(chapter: Chapter, measures: dict[str, str], records: list[str]) -> None:
    """Refuse names that no cell of ``chapter`` sets; a cell with ``import *`` or magics may set anything."""
    cells = [cell for cell in chapter.notebook.cells if cell.cell_type == "code"]
    code = "\n".join(cell.source for cell in cells if "setup" not in cell.metadata.get("tags", []))
    try:
        known = {s.get_name() for s in _symbols(code, "exec") if s.is_assigned() or s.is_imported()}
    except (SyntaxError, ValueError):
        return
    if re.search(r"^\s*from .+ import \*", code, re.M):
        return
    asked = [("--measure", f"{n}={e}", _free(e)) for n, e in measures.items()]
    for option, text, wanted in [*asked, *(("--records", name, [name]) for name in records)]:
        for name in wanted:
            if name not in known:
                raise Refused(f"{option} '{text}': no cell of the chapter sets {name}{meant(name, known)}")


def _symbols(code: str, kind: str) -> list[symtable.Symbol]:
    """The names in ``code`` as Python's compiler sees them, those of inner scopes too."""
    scopes = [symtable.symtable(code, "code", kind)]
    for scope in scopes:
        scopes += scope.get_children()
    return [symbol for scope in scopes for symbol in scope.get_symbols()]


def _free(expression: str) -> list[str]:
    """The names that an expression takes from outside, but for Python's own."""
    symbols = _symbols(expression, "eval")
    return sorted({s.get_name() for s in symbols if s.is_global() and not s.is_assigned()} - {*dir(builtins)})


def cell(measures: dict[str, str], records: list[str]) -> list[dict]:
    """The cell that ends a run, if there is anything to ask."""
    if not measures and not records:
        return []
    source = CELL.format(measures=measures, records=records, mime=MIME)
    return [
        {"cell_type": "code", "id": "asked-for", "source": source, "execution_count": None, "outputs": [],
         "metadata": {"tags": ["measures"]}}
    ]  # fmt: skip


def kept(place: Path) -> dict[str, dict]:
    """What ``measures.json`` in a case's folder holds: for each name ``expression``, ``value`` and ``fault``."""
    found = (read_json(place / "measures.json") or {}).items()
    return {name: {**one, "value": float(one["value"])} for name, one in found if isinstance(one, dict)}


def of(place: Path, values: dict, measures: dict[str, str]) -> dict[str, dict]:
    """The ``measures`` of a finished case, from what it kept: its measures, or its records, claims and parameters."""
    there, found, names = kept(place), {}, None
    for name, expression in measures.items():
        if there.get(name, {}).get("expression") == expression:
            found[name] = there[name]
            continue
        names = names or _namespace(place, values)
        try:
            value, fault = float(eval(expression, names)), ""
        except Exception as error:
            value, fault = math.nan, f"{type(error).__name__}: {error}"
        found[name] = {"expression": expression, "value": value, "fault": fault}
    return found


def _namespace(place: Path, values: dict) -> dict:
    """Names that an expression finds after the run: parameters, records by their files' names, ``claims``, ``np``."""
    import numpy as np
    import xarray as xr

    from ... import records

    claims = read_json(place / "claims.json")
    return {
        "np": np,
        "xr": xr,
        "records": records,
        "claims": {claim["name"]: claim for claim in claims},
        **values,
        **{path.stem: records.load(path) for path in sorted((place / "files").glob("*.nc"))},
    }
