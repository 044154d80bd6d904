"""Which notebooks the book has: those that its table of contents names."""

from __future__ import annotations

from pathlib import Path

import yaml

from .inputs import ROOT


def notebooks(root: Path = ROOT) -> list[Path]:
    """Paths of the book's notebooks, in reading order."""
    contents = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    found: list[Path] = []

    def visit(entry) -> None:
        if isinstance(entry, dict):
            if "file" in entry and (path := root / f"{entry['file'].removesuffix('.ipynb')}.ipynb").exists():
                found.append(path)
            for key in ("parts", "chapters", "sections"):
                for child in entry.get(key, []):
                    visit(child)

    visit(contents)
    return found
