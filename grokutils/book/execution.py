"""Execute chapters, as many at a time as there are cores, each on one thread."""

from __future__ import annotations

import platform
import re
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from tqdm import tqdm

from . import inputs, kernels
from .chapters import record

VERSIONS = ("torch", "numpy", "scipy", "sympy", "matplotlib", "plotly", "xarray")  # recorded beside Python's
TIMEOUT = 1800  # seconds that one cell may take


def refresh(chapters: list[Path]) -> list[Path]:
    """Execute again, in place, the chapters whose outputs are not of the present code; returns those that failed."""
    stale = [path for path in chapters if record(path).get("inputs") != inputs.notebook(_read(path).cells)]
    return _all(stale, _write)


def fill_cache(chapters: list[Path]) -> list[Path]:
    """Execute into the build's cache the chapters that it lacks; returns those that failed."""
    cache = get_cache(inputs.cache())
    missing = []
    for path in chapters:
        try:
            cache.match_cache_notebook(_read(path))
        except KeyError:
            missing.append(path)
    return _all(missing, _cache)


def _all(paths: list[Path], keep) -> list[Path]:
    """Execute ``paths`` and ``keep`` each result as it comes; whatever ends one stops none of the others."""
    failed = []
    # long chapters first, so that none is left to run alone at the end
    paths = sorted(paths, key=lambda path: -record(path).get("seconds", 0))
    with ProcessPoolExecutor(kernels.cores()) as pool, tqdm(total=len(paths), desc="chapters") as bar:
        running = {pool.submit(_execute, path): path for path in paths}
        for done in as_completed(running):
            path = running[done]
            try:
                notebook, seconds, error = done.result()
            except Exception as raised:  # the process is gone
                error = f"{type(raised).__name__}: {raised}"
            if error:
                failed.append(path)
                bar.write(f"FAILED {path.name}\n{error}")
            else:
                keep(path, notebook, seconds)
                bar.write(f"executed {path.name}")
                for text in _warnings(notebook):
                    bar.write(f"{path.name} warns: {text}")
            bar.update()
    if failed:
        print(f"failed: {', '.join(path.name for path in failed)}")
    return failed


def _execute(path: Path) -> tuple[nbformat.NotebookNode, float, str]:
    """The executed notebook, how long it took, and what ended it early: an error, a time limit, a dead kernel."""
    notebook, error, began = _read(path), "", time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as own:
        try:
            kernels.execute(kernels.client(notebook, timeout=TIMEOUT), path.parent, own)
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}"
    return notebook, time.monotonic() - began, error


def _warnings(notebook: nbformat.NotebookNode) -> list[str]:
    """What cells wrote to standard error, which the pages do not show."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output.text.strip() for output in outputs if output.get("name") == "stderr"]


def _write(path: Path, notebook: nbformat.NotebookNode, seconds: float) -> None:
    """Store an executed notebook so that the same code and outputs give the same bytes."""
    made = {
        "inputs": inputs.notebook(notebook.cells),
        "seconds": round(seconds),
        "date": datetime.now(UTC).date().isoformat(),
        "processor": processor(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}},
    }
    known, before = _read(path), record(path)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"grokutils": made, "kernelspec": kernel, "language_info": {"name": "python"}}
    notebook.metadata = nbformat.from_dict(metadata)
    for cell in notebook.cells:
        kept = {key: cell.metadata[key] for key in ("tags", "mystnb") if cell.metadata.get(key)}
        cell.metadata = nbformat.from_dict(kept)
        if cell.cell_type == "code" and "idea" not in cell.metadata.get("tags", []):
            cell.metadata["jupyter"] = {"source_hidden": True}  # folded in JupyterLab as on the page
    same = made.keys() == before.keys() and made["inputs"] == before["inputs"]
    if same and known.cells == notebook.cells:
        notebook.metadata = known.metadata  # nothing changed: the record of the first such run stands
    nbformat.validate(notebook)
    scratch = path.with_suffix(".part")
    nbformat.write(notebook, scratch)
    scratch.replace(path)


def processor() -> str:
    """The processor's name, as Linux or Python knows it."""
    facts = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.+)$", facts.read_text(), re.M) if facts.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def _cache(path: Path, notebook: nbformat.NotebookNode, seconds: float) -> None:
    bundle = CacheBundleIn(notebook, str(path), data={"execution_seconds": seconds})
    get_cache(inputs.cache()).cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


def _read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)
