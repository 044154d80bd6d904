"""Which notebooks the book has: those that its table of contents names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import yaml

from .inputs import ROOT


def notebooks(root: Path = ROOT) -> list[Path]:
    """Paths of the book's notebooks, in reading order."""
    contents = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    found = (root / f"{name.removesuffix('.ipynb')}.ipynb" for name in _files(contents))
    return [path for path in found if path.exists()]


def record(path: Path) -> dict:
    """What a notebook holds of its execution: see ``execution._write``."""
    return json.loads(path.read_text(encoding="utf-8"))["metadata"].get("grokutils", {})


def _files(entry: dict) -> Iterator[str]:
    yield from filter(None, [entry.get("file")])
    for key in ("parts", "chapters", "sections"):
        for child in entry.get(key, ()):
            yield from _files(child)
