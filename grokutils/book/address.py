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
NOTEBOOKS = "notebooks"  # the branch that the publishing workflow writes for Colab
STAMPED = ("_config.yml", "README.md", "CITATION.cff")  # besides every chapter's set-up cell
SETUP_CELL = """# Set-up: nothing to do where grokutils is installed; elsewhere (Colab) it is fetched.
import importlib.util, os, subprocess, sys

BOOK = "git+https://github.com/OWNER/REPOSITORY@main"
BOOK = os.environ.get("GROKUTILS_ADDRESS", BOOK)
found = importlib.util.find_spec("grokutils")
if found is None or found.origin is None:  # a mere folder is not the package
    if "OWNER/" in BOOK:
        sys.exit(
            "This chapter needs grokutils, the book's helper package, and this copy of the\\n"
            "chapter does not know its address yet. Ways out:\\n"
            "- open the chapter in a clone of the book, by `make lab`;\\n"
            "- or run `pip install PATH_OR_ADDRESS_OF_THE_BOOK` first;\\n"
            "- or set the environment variable GROKUTILS_ADDRESS to that address."
        )
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--retries=1", BOOK]
    done = subprocess.run(pip, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        said = done.stdout.decode(errors="replace")[-1000:]
        sys.exit(
            f"grokutils did not install from {BOOK}. Without a network, the stand-alone\\n"
            f"copy of this chapter needs nothing. pip said:\\n{said}"
        )
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
    where, wrong = stored(root), []
    for path in chapters:
        _, cell = _cell(path)
        if cell is None or "".join(cell["source"]).rstrip("\n") != setup_cell(where):
            name, told = path.relative_to(root), f"{where.repository}@{where.branch}"
            wrong.append(f"{name}: no set-up cell that gives {told}")
    for name in STAMPED:
        links = re.findall(r"github\.com/([\w.-]+/[\w.-]+?)(?:\.git|[/@\s\"')]|$)", (root / name).read_text())
        others = {*links} - {where.repository}
        wrong += [f"{name}: links to {link}, not {where.repository}" for link in others]
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
