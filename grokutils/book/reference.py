"""The reference page: docstrings in the house's form, each with the chapters that use what it describes."""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from . import chapters
from .inputs import ROOT

RULE = re.compile(r"-{3,}$")
# Code and roles stay as they are; elsewhere norms, powers and indices must not be taken for markup.
MARKUP = re.compile(r"(``.+?``|:\w+:`.+?`)")

# As data flows; a module that is not named here comes after these.
ORDER = (
    "tasks",
    "activations",
    "networks",
    "training",
    "zero_loss",
    "flow",
    "isolated",
    "symbolic",
    "toys",
    "records",
)


class Modules(SphinxDirective):
    """``{modules}``: every public module of grokutils, documented from its docstrings."""

    def run(self) -> list[nodes.Node]:
        text = [
            line
            for name in modules()
            for line in (f"## {name}", "", "```{eval-rst}", f".. automodule:: grokutils.{name}", "```", "")
        ]
        made = nodes.section()
        made.document = self.state.document
        self.state.nested_parse(StringList(text, source="grokutils"), 0, made, match_titles=True)
        return made.children


def modules(root: Path = ROOT) -> list[str]:
    """Public modules of the package, in reading order."""
    here = [path.stem for path in (root / "grokutils").glob("*.py")]
    here += [path.parent.name for path in (root / "grokutils").glob("*/__init__.py")]
    public = [name for name in here if not name.startswith("_") and name != "book"]
    return sorted(public, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))


def process_docstring(app, what, name, obj, options, lines: list[str]) -> None:
    """Sphinx's event for each docstring: write sections as lists, keep |x| and x_k, and add the chapters."""
    lines[:] = _as_rst([_escaped(line) for line in lines])
    if what in ("class", "exception", "function") and (used := users().get(name)):
        links = ", ".join(f":doc:`{_short(page)} </{page}>`" for page in used)
        lines += ["", f"*Used in:* {links}.", ""]


def _escaped(line: str) -> str:
    parts = MARKUP.split(line)
    parts[::2] = [re.sub(r"([|*])|(?<=\w)(_)(?!\w)", r"\\\g<0>", part) for part in parts[::2]]
    line = "".join(parts)
    line = re.sub(r":data:`(.+?)`", r"``\1``", line)  # constants have no entry of their own
    return re.sub(r":(func|class|exc):`(\w+\.\w+)`", r":\1:`\2 <grokutils.\2>`", line)


def _as_rst(lines: list[str]) -> list[str]:
    """Headings underlined by hyphens become bold words, and their "name : meaning" entries a definition list."""
    made: list[str] = []
    section = None
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if RULE.fullmatch(following.strip()) and line.strip():
            section = line.strip()
            made += ["", f"**{section}**", ""]
        elif RULE.fullmatch(line.strip()) and section:
            continue
        elif section and line and not line[0].isspace():
            term, _, meaning = line.partition(" : ")
            made += [
                "",
                f"``{term}``" if section != "Returns" else term,
                *([f"    {meaning}"] if meaning else []),
            ]
        else:
            made.append(line)
    return made


def _short(page: str) -> str:
    stem = page.rpartition("/")[2]
    return stem[:2] if stem[:2].isdigit() else stem


@cache
def users(root: Path = ROOT) -> dict[str, list[str]]:
    """For each name of the package, with dots, the chapters whose code uses it, in reading order."""
    found: dict[str, list[str]] = {}
    for path in chapters.notebooks(root):
        page = path.relative_to(root).with_suffix("").as_posix()
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        for name in sorted(_names("\n".join(code))):
            found.setdefault(name, []).append(page)
    return found


def _names(code: str) -> set[str]:
    """Every name of grokutils that ``code`` uses, as ``grokutils.module.name``."""
    tree = ast.parse(code)
    here, found = {}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "grokutils":
            here |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in here:
            found.add(here[node.id])
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in here:
            found.add(f"{here[node.value.id]}.{node.attr}")
    return found
