"""Stand-alone notebooks: a chapter and the helper package in one file, which needs no repository."""

from __future__ import annotations

import base64
import copy
import io
import re
import zipfile
from functools import cache
from pathlib import Path

import tomllib

from .inputs import PUBLISHING, ROOT

SETUP_CELL = """#@title Set-up: run this first. grokutils, the book's helper package, is inside this notebook.
# ARCHIVE, at the end of this cell, is a zip file with the files of grokutils, in base64. They are
# unpacked into a temporary folder and imported from there. Nothing is fetched, except from the package
# index those packages that grokutils needs and that are missing here.
import base64, importlib, importlib.util, io, subprocess, sys, tempfile, zipfile


def unpack(archive, needed):
    # by import, not by metadata: a neighbour's broken package is none of ours
    found = {{name: importlib.util.find_spec(name) for name in needed}}
    missing = [needed[name] for name in needed if found[name] is None or found[name].origin is None]
    if missing:
        print("Installing", ", ".join(missing))
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--retries", "1", "--timeout", "20"]
        done = subprocess.run([*pip, *missing], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            said = done.stdout.decode(errors="replace")[-1000:]
            sys.exit(
                "These packages are missing and could not be installed: " + ", ".join(missing) + "\\n"
                "Install them another way (conda, apt, a virtual environment) and run this cell again.\\n"
                "pip said:\\n" + said
            )
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
    cell = SETUP_CELL.format(needed=_needed(root), archive=_archive(root, _experiments(made)))
    (setup,) = [c for c in made["cells"] if "setup" in c["metadata"].get("tags", [])]
    setup["source"] = cell.splitlines(keepends=True)
    setup["metadata"].update(cellView="form", jupyter={"source_hidden": True})  # folded: Colab, JupyterLab
    return made


def _needed(root: Path) -> dict[str, str]:
    """What grokutils depends on, as pyproject.toml has it, by the names that are imported."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = ((re.split("[<>=]", wanted)[0], wanted) for wanted in project["dependencies"])
    return {{"pillow": "PIL"}.get(name, name): wanted for name, wanted in names}


def _experiments(notebook: dict) -> tuple[str, ...]:
    """The experiments whose records a chapter reads, by the names that it imports."""
    code = "\n".join("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code")
    lines = re.findall(r"^from grokutils\.experiments(?:\.(\w+))? import (.+)", code, re.MULTILINE)
    return tuple(sorted({name for line in lines for name in re.findall(r"\w+", line[0] or line[1])}))


@cache
def _archive(root: Path, experiments: tuple[str, ...]) -> str:
    """The package without its publishing part, and the records of some experiments: the same bytes for the same files."""
    package = root / "grokutils"
    files = [path for kind in ("py", "css", "js") for path in package.rglob(f"*.{kind}")]
    files += [path for name in experiments for path in package.glob(f"data/{name}*.nc")]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(files):
            if PUBLISHING.name not in path.relative_to(package).parts[:-1]:
                entry = zipfile.ZipInfo(path.relative_to(root).as_posix())
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, path.read_bytes())
    return base64.b64encode(packed.getvalue()).decode()
