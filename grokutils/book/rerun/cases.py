"""Cases of a sweep: from what a reader types or writes in a table to checked sets of parameters."""

from __future__ import annotations

import ast
import csv
import hashlib
import io
import itertools
import json
import math
import random
import re
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from ... import parameters
from .chapter import Chapter, Refused

MOST = 100_000  # cases of one sweep
LARGEST = 20_000_000  # bytes of a table
RANGE = re.compile(r"(-?\d+):(-?\d+)(?::(-?\d+))?")
NUMBER = r"([-+\d.eE]+)"
INTERVAL = re.compile(rf"{NUMBER}~{NUMBER}(~log)?")


@dataclass(frozen=True)
class Case:
    """One run of a chapter: every parameter's value, and a name that depends on all that its outputs depend on."""

    id: str
    values: dict


@dataclass(frozen=True)
class Interval:
    """LOW~HIGH, or LOW~HIGH~log: where values are drawn from at random."""

    low: float
    high: float
    log: bool

    def draw(self, generator: random.Random, whole: bool):
        """One value, uniform in itself or in its logarithm."""
        if whole and not self.log:
            return generator.randint(math.ceil(self.low), math.floor(self.high))
        if self.log:
            value = math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = generator.uniform(self.low, self.high)
        return round(value) if whole else float(f"{value:.6g}")


def planned(
    chapter: Chapter,
    given: list[str],
    table: Path | None = None,
    draws: int | None = None,
    draw_seed: int = 0,
    extra: str = "",
) -> list[Case]:
    """All cases, each checked: products of what is ``given`` with the rows of a ``table``, or random ``draws``.

    ``extra`` is what else the outputs depend on (the measures asked for).

    Raises
    ------
    Refused
        The first thing that is wrong, in one sentence.
    """
    axes = _axes(chapter, given)
    rows = [{}] if table is None else _table(chapter, table)
    for name in sorted(set(axes) & {name for row in rows for name in row}):
        raise Refused(f"{name}: given both by -p and by a column of {table}")
    if draws is None:
        for name, axis in axes.items():
            if isinstance(axis, Interval):
                raise Refused(f"{name}: an interval to draw from needs --random, the number of cases to draw")
        count = len(rows) * math.prod(map(len, axes.values()))
        if count > MOST:
            raise Refused(f"the sweep has {count} cases: more than {MOST}; draw some of them by --random")
        chosen = (dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))
    else:
        chosen = _drawn(chapter, axes, draws, draw_seed)
    found = {}
    for some, row in itertools.product(list(chosen), rows):
        case = _checked(chapter, {**row, **some}, extra)
        found[case.id] = case  # the same case twice counts once
    return list(found.values())


def _checked(chapter: Chapter, some: dict, extra: str) -> Case:
    values = {name: _fitting(p, some.get(name, p.default)) for name, p in chapter.parameters.items()}
    identity = json.dumps([chapter.name, chapter.code(), values, extra], sort_keys=True)
    return Case(hashlib.sha256(identity.encode()).hexdigest()[:16], values)


def _axes(chapter: Chapter, given: list[str]) -> dict[str, list | Interval]:
    axes = {}
    for text in given:
        name, equals, values = text.partition("=")
        name = name.strip()
        if not equals or not name or not values.strip():
            raise Refused(f"-p '{text}': must be NAME=VALUE, NAME=VALUE,VALUE or NAME=FIRST:END")
        _known(chapter, name)
        if name in axes:
            raise Refused(f"{name}: given twice; put its values in one, as in -p {name}=1,2")
        axes[name] = _axis(chapter.parameters[name], values.strip())
    return axes


def _known(chapter: Chapter, name) -> None:
    try:
        parameters.unknown(str(name), chapter.parameters)
    except ValueError as error:
        raise Refused(str(error)) from error


def _axis(parameter: parameters.Parameter, text: str) -> list | Interval:
    name = parameter.name
    if found := parameter.type in ("int", "float") and INTERVAL.fullmatch(text):
        return _interval(parameter, *found.groups())
    if found := parameter.type == "int" and RANGE.fullmatch(text):
        first, end, step = int(found[1]), int(found[2]), int(found[3] or 1)
        values = range(first, end, step) if step else range(0)
        if not values:
            raise Refused(f"{name} = {text}: is an empty range; FIRST:END ends before END")
        if len(values) > MOST:
            raise Refused(f"{name} = {text}: holds {len(values)} values, more than {MOST}")
        return list(values)
    return [_fitting(parameter, _value(parameter, piece)) for piece in _pieces(name, text)]


def _fitting(parameter: parameters.Parameter, value):
    try:
        return parameter.checked(value)
    except ValueError as error:
        raise Refused(str(error)) from error


def _interval(parameter: parameters.Parameter, low: str, high: str, log: str | None) -> Interval:
    # an end need not be prime; what is drawn is checked again
    bounds = replace(parameter, allowed=re.sub(r" (odd|even|prime)$", "", parameter.allowed))
    ends = [_fitting(bounds, _value(bounds, end)) for end in (low, high)]
    if ends[0] >= ends[1] or (log and ends[0] <= 0):
        raise Refused(
            f"{parameter.name} = {low}~{high}: must be LOW~HIGH with LOW < HIGH, both positive for ~log"
        )
    return Interval(*ends, log is not None)


def _pieces(name: str, text: str) -> list[str]:
    """``text`` cut at the commas that stand outside brackets and quotes."""
    pieces, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "[(":
            depth += 1
        elif letter in ")]":
            depth -= 1
        if letter == "," and not depth and not quote:
            pieces.append("")
        else:
            pieces[-1] += letter
    if depth or quote or not all(piece.strip() for piece in pieces):
        raise Refused(f"{name} = {text}: a value is missing, or a bracket or a quote is not closed")
    return [piece.strip() for piece in pieces]


def _value(parameter: parameters.Parameter, text: str):
    """What ``text`` means for ``parameter``; text that means nothing is left for the check to refuse."""
    if parameter.type == "bool":
        return {"true": True, "false": False}.get(text.lower(), text)
    if parameter.type == "str":
        quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
        return text[1:-1] if quoted else text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _drawn(chapter: Chapter, axes: dict, draws: int, seed: int) -> list[dict]:
    """Different random cases; a drawn whole number outside the declared range (a composite p) is drawn again."""
    if not axes:
        raise Refused("--random: needs at least one -p to draw from, as in -p lr=0.1~1")
    if not 1 <= draws <= MOST:
        raise Refused(f"--random {draws}: must be from 1 to {MOST}")
    generator = random.Random(seed)
    found: dict[str, dict] = {}
    for _ in range(1000 + 100 * draws):
        some = {}
        for name, axis in axes.items():
            whole = chapter.parameters[name].type == "int"
            some[name] = axis.draw(generator, whole) if isinstance(axis, Interval) else generator.choice(axis)
        try:
            for name, axis in axes.items():
                if isinstance(axis, Interval):
                    chapter.parameters[name].checked(some[name])
        except ValueError:
            continue
        found.setdefault(json.dumps(some, sort_keys=True), some)
        if len(found) == draws:
            return list(found.values())
    raise Refused(f"--random {draws}: only {len(found)} different cases were found to draw; ask for fewer")


def _table(chapter: Chapter, path: Path) -> list[dict]:
    """Rows of a table of cases: a YAML list of mappings, or CSV with names in its first line."""
    reader = {".yaml": _yaml, ".yml": _yaml, ".csv": _csv}.get(path.suffix)
    if reader is None:
        raise Refused(f"table '{path}': must end in .yaml, .yml or .csv")
    try:
        if path.stat().st_size > LARGEST:
            raise Refused(f"table '{path}': larger than {LARGEST // 10**6} MB")
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets begin their CSV with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"table '{path}': cannot be read ({getattr(error, 'strerror', error)})") from error
    rows = reader(chapter, path, text)
    if not rows:
        raise Refused(f"table '{path}': holds no cases")
    if len(rows) > MOST:
        raise Refused(f"table '{path}': holds {len(rows)} cases, more than {MOST}")
    return rows


def _yaml(chapter: Chapter, path: Path, text: str) -> list[dict]:
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise Refused(f"table '{path}': refers to itself by '*'; write the values out")
        rows = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, Refused):
            raise
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise Refused(
            f"table '{path}': is not plain YAML{where} ({getattr(error, 'problem', error)})"
        ) from error
    if rows is None:
        return []
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Refused(f"table '{path}': must be a list of cases, each like '- {{p: 23, seed: 0}}'")
    for row, written in zip(rows, yaml.compose(text, yaml.SafeLoader).value, strict=True):
        for name in row:
            _known(chapter, name)
        if len(row) < len(written.value):
            raise Refused(f"table '{path}': names a parameter twice in line {written.start_mark.line + 1}")
    return rows


def _csv(chapter: Chapter, path: Path, text: str) -> list[dict]:
    lines = csv.reader(io.StringIO(text), strict=True)
    try:
        names = [name.strip() for name in next(lines, [])]
        for name in names:
            _known(chapter, name)
        if len(set(names)) < len(names):
            raise Refused(f"table '{path}': names a column twice")
        rows = []
        for line in filter(None, lines):
            if len(line) != len(names):
                raise Refused(
                    f"table '{path}', line {lines.line_num}: {len(line)} entries, but {len(names)} columns"
                )
            texts = zip(names, line, strict=True)
            rows.append({name: _value(chapter.parameters[name], entry.strip()) for name, entry in texts})
    except csv.Error as error:
        raise Refused(f"table '{path}', line {lines.line_num}: is not CSV ({error})") from error
    return rows
