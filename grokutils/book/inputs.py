"""What a chapter's outputs depend on, as a hash: the science code and the pinned environment."""

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
    for path in sorted((root / "grokutils").rglob("*.py")):
        if PUBLISHING.name not in path.relative_to(root / "grokutils").parts[:-1]:
            digest.update(path.relative_to(root).as_posix().encode())
            digest.update(_meaning(path.read_text(encoding="utf-8")).encode())
    return digest


def notebook(cells: list[dict], root: Path = ROOT) -> str:
    """Hash of all that a notebook's outputs depend on: its code cells but set-up, and :func:`science`."""
    digest = hashlib.sha256(science(root).encode())
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
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node) is not None
        ):
            node.body[0].value.value = ""
    return ast.dump(tree)
