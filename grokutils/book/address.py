"""The repository's address: it stands in pyproject.toml, and is stamped from there into all that shows it."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import tomllib

from .inputs import ROOT

PLACEHOLDER = "OWNER/REPOSITORY"
STAMPED = ("_config.yml", "README.md", "CITATION.cff")  # besides every chapter's set-up cell
SETUP_CELL = """# Set-up: does nothing where grokutils is installed; elsewhere (Colab) installs it from the book's address.
import importlib.util, os, subprocess, sys

ADDRESS = os.environ.get("GROKUTILS_ADDRESS", "git+https://github.com/OWNER/REPOSITORY@main")
if importlib.util.find_spec("grokutils") is None:
    if "OWNER/" in ADDRESS:
        sys.exit(
            "This chapter needs the book's helper package, grokutils, and this copy does not know its address yet.\\n"
            "Ways out: open the chapter inside a clone of the book and run `make lab` there; or run\\n"
            "`pip install PATH_OR_ADDRESS_OF_THE_BOOK` first; or set the environment variable GROKUTILS_ADDRESS to that address."
        )
    done = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", ADDRESS], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"grokutils could not be installed from {ADDRESS}:\\n{done.stderr[-1000:]}")
    importlib.invalidate_caches()
"""


@dataclass(frozen=True)
class Address:
    """A repository on GitHub, OWNER/NAME, and the branch to read from."""

    repository: str
    branch: str = "main"

    @classmethod
    def parsed(cls, text: str) -> Address:
        """Read OWNER/NAME or OWNER/NAME@BRANCH; raises ValueError for anything else."""
        found = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", text)
        if found is None:
            raise ValueError(f"address = {text!r}: must be OWNER/NAME or OWNER/NAME@BRANCH")
        return cls(found[1], found[2] or "main")


def stored(root: Path = ROOT) -> Address:
    """The address that pyproject.toml gives."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return Address.parsed(project["urls"]["Repository"].removeprefix("https://github.com/"))


def of_build() -> Address | None:
    """The address to build for: BOOK_ADDRESS, or the stored one; None while that is a placeholder."""
    given = os.environ.get("BOOK_ADDRESS")
    where = Address.parsed(given) if given else stored()
    return None if where.repository == PLACEHOLDER else where


def setup_cell(where: Address) -> str:
    """The text of every chapter's set-up cell."""
    return SETUP_CELL.replace(f"{PLACEHOLDER}@main", f"{where.repository}@{where.branch}").rstrip("\n")


def disagreements(chapters: list[Path], root: Path = ROOT) -> list[str]:
    """Every place that does not show the stored address, in words."""
    where = stored(root)
    wrong = [
        f"{path.relative_to(root)}: no set-up cell of the house"
        for path in chapters
        if _cell(path)[1] is None
    ]
    for path in chapters:
        _, cell = _cell(path)
        if cell is not None and "".join(cell["source"]).rstrip("\n") != setup_cell(where):
            wrong.append(
                f"{path.relative_to(root)}: its set-up cell does not give {where.repository}@{where.branch}"
            )
    for name in STAMPED:
        links = set(
            re.findall(r"github\.com/([\w.-]+/[\w.-]+?)(?:\.git|[/@\s\"')]|$)", (root / name).read_text())
        )
        wrong += [f"{name}: links to {link}, not {where.repository}" for link in links - {where.repository}]
    return wrong


def stamp(where: Address, chapters: list[Path], root: Path = ROOT) -> list[Path]:
    """Write the address wherever it stands; returns the files that changed."""
    before = stored(root)
    changed = []
    for path in [root / name for name in ("pyproject.toml", *STAMPED)]:
        changed += _rewritten(path, path.read_text().replace(before.repository, where.repository))
    for path in chapters:
        notebook, cell = _cell(path)
        if cell is not None:
            cell["source"] = setup_cell(where).splitlines(keepends=True)
            changed += _rewritten(path, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
    return changed


def _cell(path: Path) -> tuple[dict, dict | None]:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if "setup" in cell["metadata"].get("tags", []):
            return notebook, cell
    return notebook, None


def _rewritten(path: Path, text: str) -> list[Path]:
    if path.read_text(encoding="utf-8") == text:
        return []
    path.write_text(text, encoding="utf-8")
    return [path]
