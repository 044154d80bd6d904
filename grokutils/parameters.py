"""Parameters of a chapter: declared once, in the comments of its parameters cell, and checked against them.

A line of that cell reads ``name: type = default  # RANGE. Meaning.`` with a type among int, float, str, bool
and list, and a RANGE among

- ``[3, 199]``, ``(0, 1)``, ``[0, inf)``: an interval, its ends in or out, optionally followed by ``odd``,
  ``even`` or ``prime``;
- ``one of a | b | c``: words;
- ``each RANGE``: for the entries of a list, which must not be empty.

``papermill --help-notebook`` shows the same lines. The cell of a notebook from elsewhere, with plain lines
``name = default``, is read by :func:`plain`: types from the defaults, no ranges.
"""

from __future__ import annotations

import ast
import difflib
import io
import linecache
import math
import re
import tokenize
from dataclasses import dataclass

TYPES = {"int": int, "float": float, "str": str, "bool": bool, "list": list}
PLAIN = {**TYPES, "dict": dict, "any": object}  # what a plain cell's defaults may be
FOREIGN = re.compile(r"PAPERMILL_\w+|upstream|product")  # papermill --inject-paths; Ploomber
INTERVAL = re.compile(r"([\[(])\s*(\S+)\s*,\s*(\S+?)\s*([\])])\s*(odd|even|prime)?")
NUMBER = re.compile(r"[+-]?(inf|(\d+\.?\d*|\.\d+)(e[+-]?\d+)?)", re.I)
INJECTED = "# Parameters"  # papermill's first line above the values that it was given


@dataclass(frozen=True)
class Parameter:
    """One declared parameter."""

    name: str
    type: str
    default: object
    allowed: str  # the RANGE, as written
    meaning: str
    plain: bool = False  # from a cell without declarations: the type is the default's, every value is allowed

    def checked(self, value):
        """Return ``value`` as the declared type; NumPy's values and numbers that arrive as text are read.

        Raises
        ------
        ValueError
            A wrong type or a value outside the range; the text names the parameter, the value and what is allowed.
        """
        given, value = value, self._read(value)
        entries = value if self.type == "list" and not self.plain else [value]
        if not isinstance(entries, list | tuple) or not entries:
            raise self._error(given)
        rule = self.allowed.removeprefix("each ")
        if not all(self._fits(entry, rule) for entry in entries):
            raise self._error(given)
        return value

    def _read(self, value):
        """``value`` without NumPy's types, and as a number where text or a whole number stands for one."""
        value = value.tolist() if hasattr(value, "tolist") else value
        if self.type == "list" and isinstance(value, list | tuple):
            numbers = not self.plain and all(isinstance(entry, int | float) for entry in self.default)
            return [_number(entry) if numbers else entry for entry in value]
        if self.type in ("int", "float"):
            value = _number(value)
        whole = self.type == "float" and isinstance(value, int) and not isinstance(value, bool)
        return float(value) if whole and abs(value) < 1e300 else value

    def _fits(self, entry, rule: str) -> bool:
        if self.plain and self.type not in ("int", "float"):
            return isinstance(entry, PLAIN[self.type])
        if self.type == "bool":
            return isinstance(entry, bool)
        if rule.startswith("one of "):
            return entry in [word.strip() for word in rule.removeprefix("one of ").split("|")]
        if self.type == "str":
            return isinstance(entry, str)
        whole = self.type == "int" or (self.type == "list" and all(isinstance(x, int) for x in self.default))
        number = (isinstance(entry, int) and self.type != "float") or (
            isinstance(entry, float) and not whole and math.isfinite(entry)
        )
        return number and not isinstance(entry, bool) and (not rule or _inside(entry, rule))

    def _error(self, value) -> ValueError:
        if self.plain:
            return ValueError(
                f"{self.name} = {value!r}: must be {self.type}, as its default {self.default!r} is{_hint(value)}"
            )
        entries = "entries, each " if self.type == "list" and self.allowed else ""
        rule = self.allowed.removeprefix("each ")
        allowed = f" {entries}in {rule}" if rule[:1] in ("[", "(") else f" {entries}{rule}".rstrip()
        return ValueError(
            f"{self.name} = {value!r}: must be {self.type}{allowed}{_hint(value)}. {self.meaning}"
        )


def _number(value):
    """The number that a text stands for (``1e-1``, which YAML leaves text, or ``37``); else ``value``."""
    if not isinstance(value, str) or not NUMBER.fullmatch(value.strip()) or len(value) > 50:
        return value
    text = value.strip()
    return int(text) if re.fullmatch(r"[+-]?(0|[1-9]\d*)", text) else float(text)


def _hint(value) -> str:
    """What to write for a number that people write in another way."""
    if not isinstance(value, str):
        return ""
    if re.fullmatch(r"[+-]?\d+,\d+", value):
        return f" (write {value.replace(',', '.')})"
    if re.fullmatch(r"\d+(\.\d+)? *%", value):
        return f" (write {float(value.rstrip(' %')) / 100:g})"
    return " (write a number, without quotes)" if value[:1].isdigit() else ""


def _inside(number: float, rule: str) -> bool:
    left, low, high, right, kind = INTERVAL.fullmatch(rule).groups()
    above = number > float(low) if left == "(" else number >= float(low)
    below = number < float(high) if right == ")" else number <= float(high)
    return above and below and (kind is None or _KINDS[kind](number))


_KINDS = {
    "odd": lambda n: n % 2 == 1,
    "even": lambda n: n % 2 == 0,
    "prime": lambda n: n > 1 and all(n % k for k in range(2, math.isqrt(n) + 1)),
}


def declared(source: str) -> dict[str, Parameter]:
    """The parameters that a cell declares, by name; empty if it is not a parameters cell.

    Raises
    ------
    ValueError
        A line that declares a parameter in a way that is not understood, or a default outside its own range.
    """
    try:
        statements = ast.parse(source).body
    except SyntaxError:
        return {}
    statements = [s for s in statements if not _foreign(s)]
    if not statements or not all(isinstance(s, ast.AnnAssign) for s in statements):
        return {}
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    if not comments:  # a reader's own annotated names
        return {}
    found = {}
    for statement in statements:
        name, kind = ast.unparse(statement.target), ast.unparse(statement.annotation)
        comment = comments.get(statement.end_lineno, "")
        if kind not in TYPES or not comment or not _literal(statement.value):
            raise ValueError(f"parameter {name}: must be 'name: type = default  # RANGE. Meaning.'")
        if name in found:
            raise ValueError(f"parameter {name}: declared twice")
        allowed, meaning = _split(name, comment)
        parameter = Parameter(name, kind, ast.literal_eval(statement.value), allowed, meaning)
        parameter.checked(parameter.default)
        found[name] = parameter
    return found


def plain(source: str) -> dict[str, Parameter]:
    """The parameters of a cell that declares none: every ``name = literal``, with its comment as the meaning."""
    try:
        statements = ast.parse(source).body
    except SyntaxError:
        return {}
    lines, found = source.splitlines(), {}
    for s in statements:
        targets = getattr(s, "targets", [getattr(s, "target", None)])
        if len(targets) != 1 or not isinstance(targets[0], ast.Name) or _foreign(s) or not _literal(s.value):
            continue
        name, default = targets[0].id, ast.literal_eval(s.value)
        default = list(default) if isinstance(default, tuple) else default
        kind = next((k for k, t in PLAIN.items() if type(default) is t), "any")
        meaning = lines[s.end_lineno - 1][s.end_col_offset :].lstrip(" ;#")
        found[name] = Parameter(name, kind, default, "", meaning, plain=True)
    return found


def _foreign(statement: ast.stmt) -> bool:
    """Whether a statement sets what another tool wants there."""
    targets = getattr(statement, "targets", [getattr(statement, "target", None)])
    return all(isinstance(t, ast.Name) and FOREIGN.fullmatch(t.id) for t in targets)


def _literal(node: ast.expr | None) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def _split(name: str, comment: str) -> tuple[str, str]:
    """A comment's RANGE and its meaning."""
    each = "each " if comment.startswith("each ") else ""
    rest = comment.removeprefix(each)
    if rest.startswith("one of "):
        allowed, _, meaning = rest.partition(". ")
        return each + allowed, meaning
    if rest[:1] in "[(":
        interval = INTERVAL.match(rest)
        if interval is None or not all(NUMBER.fullmatch(end) for end in interval.group(2, 3)):
            raise ValueError(f"parameter {name}: the range in '{comment}' is not understood")
        return each + interval.group().strip(), rest[interval.end() :].lstrip(". ")
    return "", comment


def check() -> None:
    """Check the running notebook's parameters against their declarations; call it right after them.

    Reads the last parameters cell from the input history, so that the declaration is the one the reader sees.

    Raises
    ------
    ValueError
        A value of the wrong type or out of range, or an injected name that the chapter does not declare.
    RuntimeError
        No parameters cell was run in this session.
    """
    try:
        from IPython import get_ipython
    except ImportError:
        get_ipython = lambda: None  # noqa: E731

    shell = get_ipython()
    # nbval runs cells without a history, but the shell's compiler still keeps their source
    kept = [linecache.getlines(name) for name in getattr(shell.compile, "_filename_map", ())] if shell else []
    history = ["".join(lines) for lines in kept] + (shell.user_ns["In"] if shell else [])
    for source in reversed(history):
        if parameters := declared(source):
            break
    else:
        raise RuntimeError("no parameters cell was run yet: run it before parameters.check()")
    _refuse_unknown(history, parameters)
    for name, parameter in parameters.items():
        shell.user_ns[name] = parameter.checked(shell.user_ns[name])


def _refuse_unknown(history: list[str], parameters: dict[str, Parameter]) -> None:
    for source in history:
        if not source.startswith(INJECTED):
            continue
        for statement in ast.parse(source).body:
            for target in getattr(statement, "targets", []):
                unknown(ast.unparse(target), parameters)


def unknown(name: str, parameters: dict[str, Parameter]) -> None:
    """Refuse a ``name`` that is not declared, suggesting the nearest that is."""
    if name in parameters or FOREIGN.fullmatch(name):
        return
    near = difflib.get_close_matches(name, parameters, n=1, cutoff=0)
    raise ValueError(
        f"{name} is no parameter of this chapter (did you mean {near[0]}?): {', '.join(parameters)}"
    )
