"""Stand-alone notebooks: a chapter and the helper package in one file, which needs no repository."""

from __future__ import annotations

import base64
import copy
import io
import zipfile
from functools import cache
from pathlib import Path

import tomllib

from .inputs import PUBLISHING, ROOT

SETUP_CELL = """#@title Set-up: run this first. grokutils, the book's helper package, is inside this notebook.
# ARCHIVE, at the end of this cell, is a zip file with the files of grokutils, in base64. They are
# unpacked into a temporary folder and imported from there. Nothing is fetched, except from the package
# index those packages that grokutils needs and that are missing here.
import base64, importlib, importlib.metadata, io, subprocess, sys, tempfile, zipfile


def unpack(archive, needed):
    here = {{d.metadata["Name"].lower() for d in importlib.metadata.distributions()}}
    missing = [name for name in needed if name.split(">=")[0] not in here]
    if missing:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", *missing]
        done = subprocess.run(pip, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"Could not install {{', '.join(missing)}}:\\n{{done.stderr[-1000:]}}")
    folder = tempfile.mkdtemp(prefix="grokutils-")
    zipfile.ZipFile(io.BytesIO(base64.b64decode(archive))).extractall(folder)
    sys.path.insert(0, folder)
    importlib.invalidate_caches()


NEEDED = {needed}
ARCHIVE = "{archive}"
if "grokutils" not in sys.modules:
    unpack(ARCHIVE, NEEDED)"""


def packed(notebook: dict, root: Path = ROOT) -> dict:
    """A copy of a chapter that carries the package in its set-up cell."""
    made = copy.deepcopy(notebook)
    records = any("delay.stored(" in "".join(c["source"]) for c in made["cells"])
    cell = SETUP_CELL.format(needed=_needed(root), archive=_archive(root, records))
    (setup,) = [c for c in made["cells"] if "setup" in c["metadata"].get("tags", [])]
    setup["source"] = cell.splitlines(keepends=True)
    setup["metadata"].update(
        cellView="form", jupyter={"source_hidden": True}
    )  # folded in Colab, in JupyterLab
    return made


def _needed(root: Path) -> list[str]:
    """What grokutils depends on, as pyproject.toml has it."""
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]


@cache
def _archive(root: Path, records: bool) -> str:
    """The package without its publishing part, its ``records`` only if asked for: the same bytes for the same files."""
    package = root / "grokutils"
    files = [path for kind in ("py", "css", "js") for path in package.rglob(f"*.{kind}")]
    files += package.rglob("*.nc") if records else ()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(files):
            if PUBLISHING.name not in path.relative_to(package).parts[:-1]:
                entry = zipfile.ZipInfo(path.relative_to(root).as_posix())
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, path.read_bytes())
    return base64.b64encode(packed.getvalue()).decode()
