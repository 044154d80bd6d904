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
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from ... import parameters
from .chapter import Chapter, Refused, meant

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
    code: str  # the chapter's, when the case was planned


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
) -> list[Case]:
    """All cases, each checked: products of what is ``given`` with the rows of a ``table``, or random ``draws``.

    Raises
    ------
    Refused
        The first thing that is wrong, in one sentence.
    """
    axes = _axes(chapter, given)
    rows = [{}] if table is None else _table(chapter, table)
    for name in sorted(set(axes) & {name for row in rows for name in row}):
        raise Refused(f"{name}: given both by -p and by a column of {table}")
    if len(rows) * (draws or 1) > MOST:
        raise Refused(f"the sweep has {len(rows) * draws} cases: more than {MOST}")
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
    code, defaults = chapter.code(), {name: p.checked(p.default) for name, p in chapter.parameters.items()}
    for some, row in itertools.product(list(chosen), rows):
        values = defaults | row | some
        identity = json.dumps([chapter.name, code, values], sort_keys=True)
        name = hashlib.sha256(identity.encode()).hexdigest()[:16]
        found[name] = Case(name, values, code)  # the same case twice counts once
    return list(found.values())


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


def _known(chapter: Chapter, name: str, where: str = "") -> None:
    if name in chapter.parameters:
        return
    near, known = meant(name, chapter.parameters), ", ".join(chapter.parameters)
    raise Refused(f"{where}{name} is no parameter of this chapter{near}: {known}")


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


def _fitting(parameter: parameters.Parameter, value, where: str = ""):
    try:
        value = parameter.checked(value)
        json.dumps(value)  # the name of the case, and its record
    except ValueError as error:
        raise Refused(f"{where}{error}") from error
    except TypeError as error:
        raise Refused(f"{where}{parameter.name} = {value!r}: must be made of numbers, text, lists") from error
    return value


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
        value = ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text
    return value if parameter.type not in ("int", "float") or isinstance(value, int | float) else text


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
            some = {name: chapter.parameters[name].checked(value) for name, value in some.items()}
        except ValueError:
            continue
        found.setdefault(json.dumps(some, sort_keys=True), some)
        if len(found) == draws:
            return list(found.values())
    raise Refused(f"--random {draws}: only {len(found)} different cases were found to draw; ask for fewer")


def _table(chapter: Chapter, path: Path) -> list[dict]:
    """Rows of a table of cases: a YAML list of mappings, or CSV with names in its first line."""
    reader = {".yaml": _yaml, ".yml": _yaml, ".csv": _csv}.get(path.suffix.lower())
    if reader is None:
        raise Refused(f"table '{path}': must end in .yaml, .yml or .csv")
    try:
        if path.stat().st_size > LARGEST:
            raise Refused(f"table '{path}': larger than {LARGEST // 10**6} MB")
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets begin their CSV with a mark
    except UnicodeDecodeError as error:
        raise Refused(f"table '{path}': cannot be read (is not UTF-8 text; save it as UTF-8)") from error
    except OSError as error:
        raise Refused(f"table '{path}': cannot be read ({error.strerror})") from error
    rows = list(itertools.islice(reader(chapter, f"table '{path}'", text), MOST + 1))
    if not rows:
        raise Refused(f"table '{path}': holds no cases")
    if len(rows) > MOST:
        raise Refused(f"table '{path}': holds more than {MOST} cases")
    return rows


def _yaml(chapter: Chapter, table: str, text: str) -> Iterator[dict]:
    """Rows of YAML. Values are read as on the command line: YAML itself takes 1:30 for 90, 010 for 8, 1e-3 for text."""
    try:
        for event in yaml.parse(text, yaml.BaseLoader):
            if isinstance(event, yaml.AliasEvent):
                raise Refused(f"{table}: refers to itself by '*'; write the values out")
            if tag := getattr(event, "tag", None):
                raise Refused(f"{table}, line {event.start_mark.line + 1}: is not plain YAML ({tag})")
        tree = yaml.compose(text, yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise Refused(f"{table}: is not plain YAML{where} ({getattr(error, 'problem', error)})") from error
    nodes = [] if tree is None else tree.value
    plain = isinstance(tree, yaml.SequenceNode | None)
    if not plain or not all(isinstance(node, yaml.MappingNode) for node in nodes):
        raise Refused(f"{table}: must be a list of cases, each like '- {{p: 23, seed: 0}}'")
    for row in nodes:
        where = f"{table}, line {row.start_mark.line + 1}: "
        names = [str(name.value) for name, _ in row.value]
        for name in names:
            _known(chapter, name, where)
        if len(set(names)) < len(names):
            raise Refused(f"{where}names a parameter twice")
        yield {
            name: _fitting(chapter.parameters[name], _plain(chapter.parameters[name], node), where)
            for name, (_, node) in zip(names, row.value, strict=True)
        }


def _plain(parameter: parameters.Parameter, node: yaml.Node):
    """A node's value: a list of scalars, a scalar as the command line reads it, or text where it is quoted."""
    if isinstance(node, yaml.MappingNode):
        return {str(key.value): _plain(parameter, value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_plain(parameter, entry) for entry in node.value]
    if parameter.type == "str" or node.style:
        return node.value
    return _value(parameter, node.value)


def _csv(chapter: Chapter, table: str, text: str) -> Iterator[dict]:
    head = text.partition("\n")[0]
    # as spreadsheets in many countries write it
    delimiter = next((mark for mark in ",;\t" if mark in head), ",")
    lines = csv.reader(io.StringIO(text), strict=True, delimiter=delimiter)
    try:
        names = [name.strip() for name in next(lines, [])]
        for name in names:
            _known(chapter, name, f"{table}: ")
        if len(set(names)) < len(names):
            raise Refused(f"{table}: names a column twice")
        for line in filter(None, lines):
            where = f"{table}, line {lines.line_num}: "
            if len(line) != len(names):
                raise Refused(f"{where}{len(line)} entries, but {len(names)} columns")
            known = [chapter.parameters[name] for name in names]
            texts = zip(known, line, strict=True)
            yield {p.name: _fitting(p, _value(p, entry.strip()), where) for p, entry in texts}
    except csv.Error as error:
        raise Refused(f"{table}, line {lines.line_num}: is not CSV ({error})") from error
