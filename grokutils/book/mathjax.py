"""MathJax from its installed package, so that no page asks the network for it."""

from __future__ import annotations

import shutil
from importlib.metadata import distribution
from pathlib import Path


def copy(target: Path, parts: tuple[str, ...]) -> None:
    """Copy files and folders of MathJax, and its licence, into ``target``; raises PackageNotFoundError."""
    source = Path(distribution("django-static-mathjax").locate_file("mathjax/static/mathjax"))
    for part in parts:
        (target / part).parent.mkdir(parents=True, exist_ok=True)
        if (source / "es5" / part).is_dir():
            shutil.copytree(source / "es5" / part, target / part, dirs_exist_ok=True)
        else:
            shutil.copy2(source / "es5" / part, target / part)
    shutil.copy2(source / "LICENSE", target)
