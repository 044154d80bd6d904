"""What a chapter's outputs depend on, as a hash: the science code, the data in it, and the pinned environment."""

from __future__ import annotations

import ast
import hashlib
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PUBLISHING = Path(__file__).resolve().parent  # knows chapters, not physics: no output depends on it


def science(root: Path = ROOT) -> str:
    """Hash of grokutils without its publishing part, and of requirements.txt."""
    digest = _code(root)
    pins = (root / "requirements.txt").read_text(encoding="utf-8").splitlines()
    digest.update("\n".join(line for line in pins if line and not line.startswith("#")).encode())
    return digest.hexdigest()[:16]


def code(root: Path = ROOT) -> str:
    """Hash of grokutils without its publishing part, where the package may be installed without the book.

    Code is compared as Python sees it: comments, docstrings and layout do not count.
    """
    return _code(root).hexdigest()[:16]


def _code(root: Path):
    digest = hashlib.sha256()
    for path in map(Path, _files(root)):
        digest.update(path.relative_to(root).as_posix().encode())
        code = path.suffix == ".py"
        digest.update(_meaning(path.read_text(encoding="utf-8")).encode() if code else path.read_bytes())
    return digest


def _files(root: Path) -> list[str]:
    """Paths of the code and the data of grokutils without its publishing part, sorted."""
    found = []
    for folder, inner, names in os.walk(root / "grokutils"):
        inner[:] = {*inner} - {PUBLISHING.name, "__pycache__", ".ipynb_checkpoints"}
        found += [os.path.join(folder, name) for name in names if name[0] != "."]
    return sorted(found)


def stamp(root: Path = ROOT) -> tuple:
    """What changes when one of these files does, at less cost than a hash: it is asked for after every case."""
    facts = ((path, os.stat(path)) for path in _files(root))
    return tuple((path, fact.st_mtime_ns, fact.st_size) for path, fact in facts)


def cache(root: Path = ROOT) -> Path:
    """Where executed chapters are kept: a folder for each state of the science code and the environment.

    Its name is why no page is ever stale: jupyter-cache alone looks only at a notebook's code cells.
    """
    return root / "_build" / "executed" / science(root)


def notebook(cells: list[dict], around: str | None = None) -> str:
    """Hash of all that a notebook's outputs depend on: its code cells but set-up, and :func:`science` or ``around``."""
    digest = hashlib.sha256((around or science()).encode())
    for cell in cells:
        if cell["cell_type"] == "code" and "setup" not in cell["metadata"].get("tags", []):
            digest.update("".join(cell["source"]).encode())
            digest.update(b"\0")
    return digest.hexdigest()[:16]


def site(root: Path = ROOT) -> str:
    """Hash of all that the built pages depend on."""
    told = [os.environ.get(name, "") for name in ("BOOK_ADDRESS", "BOOK_DOWNLOADS")]
    digest = hashlib.sha256("\0".join(told).encode())
    single = ("_config.yml", "_toc.yml", "benchmarks/record.json", "pyproject.toml", "requirements.txt")
    files = [root / name for name in single]
    files += [
        path
        for folder in ("book", "grokutils")
        for path in sorted((root / folder).rglob("*"))
        if path.is_file() and not {"__pycache__", ".ipynb_checkpoints"} & set(path.parts)
    ]
    for path in files:
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _meaning(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            node.body[0].value.value = ""
    return ast.dump(tree)
