"""The reference page: docstrings read by napoleon and summed up by autosummary, with the chapters that use each name."""

from __future__ import annotations

import ast
import importlib
import json
import re
from functools import cache
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.ext.napoleon import Config, NumpyDocstring
from sphinx.util.docutils import SphinxDirective

from . import chapters
from .inputs import ROOT

# Code and roles stay as they are; elsewhere norms, powers and indices must not be taken for markup.
MARKUP = re.compile(r"(``.+?``|:\w+:`.+?`)")

NAPOLEON = Config(napoleon_use_rtype=False, napoleon_use_ivar=True)

# As data flows; a module that is not named here comes after these.
ORDER = (
    "tasks", "activations", "models", "losses", "linearization", "zero_loss", "flow", "training", "isolated",
    "records", "fourier", "alignment", "delay", "symbolic", "toys",
)  # fmt: skip
MODULE = """## {module}

```{{eval-rst}}
.. currentmodule:: grokutils.{module}
.. autosummary::
   :nosignatures:

   {names}

.. automodule:: grokutils.{module}
```
"""


class Modules(SphinxDirective):
    """``{modules}``: every public module of grokutils, documented from its docstrings."""

    def run(self) -> list[nodes.Node]:
        text = "\n".join(MODULE.format(module=m, names="\n   ".join(names(m))) for m in modules())
        made = nodes.section()
        made.document = self.state.document
        self.state.nested_parse(StringList(text.splitlines(), source="grokutils"), 0, made, match_titles=True)
        return made.children


def names(module: str) -> list[str]:
    """Public names of one module of the package that can be called, as it lists them or as they stand there."""
    found = importlib.import_module(f"grokutils.{module}")
    own = [key for key, value in vars(found).items() if getattr(value, "__module__", "") == found.__name__]
    public = getattr(found, "__all__", [key for key in own if not key.startswith("_")])
    return [key for key in public if callable(getattr(found, key))]


def modules(root: Path = ROOT) -> list[str]:
    """Public modules of the package, in reading order."""
    here = [path.stem for path in (root / "grokutils").glob("*.py")]
    here += [path.parent.name for path in (root / "grokutils").glob("*/__init__.py")]
    public = [name for name in here if not name.startswith("_") and name != "book"]
    return sorted(public, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))


def process_docstring(app, what, name, obj, options, lines: list[str]) -> None:
    """Sphinx's event for each docstring: keep |x| and x_k, read the sections, and add the chapters."""
    text = _split("\n".join(map(_escaped, lines))).splitlines()
    lines[:] = NumpyDocstring(text, NAPOLEON, app, what, name, obj, options).lines()
    if what in ("class", "exception", "function") and (used := users().get(name)):
        links = ", ".join(f":doc:`{_short(page)} </{page}>`" for page in used)
        lines += ["", f"*Used in:* {links}.", ""]


def _escaped(line: str) -> str:
    parts = MARKUP.split(line)
    parts[::2] = [re.sub(r"([|*])|(?<=\w)(_)(?!\w)", r"\\\g<0>", part) for part in parts[::2]]
    line = "".join(parts)
    line = re.sub(r":data:`(.+?)`", r"``\1``", line)  # constants have no entry of their own
    return re.sub(r":(func|class|exc):`(\w+\.\w+)`", r":\1:`\2 <grokutils.\2>`", line)


def _split(text: str) -> str:
    """In sections, "name : meaning" on one line as napoleon wants it: the meaning on lines of its own, not a type."""
    before, rule, sections = text.partition("\n---")
    return before + rule + re.sub(r"^(\S.*?) : (.*)$", r"\1\n    \2", sections, flags=re.M)


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
