"""A chapter as the command line sees it: where it is, what it takes, what its outputs depend on."""

from __future__ import annotations

import difflib
import hashlib
import importlib.metadata
import json
import re
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
import warnings
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from ... import parameters
from .. import inputs

NUMERICS = ("torch", "numpy", "scipy", "sympy", "xarray")  # versions that numbers may depend on
LARGEST = 20_000_000  # bytes of a notebook that is worth reading
LONGEST = 80  # letters of a name
PATIENCE = 20  # seconds for an address to answer


_ONE_READER = threading.Lock()  # Python 3.11's parser fails where two threads of a worker parse much at once


class Refused(ValueError):  # noqa: N818
    """A request that cannot be met, said in one sentence."""


def meant(word: str, known) -> str:
    """The nearest of the ``known`` words, as a question in brackets; nothing where none is known."""
    near = difflib.get_close_matches(word, filter(None, known), n=1, cutoff=0)
    return f" (did you mean {near[0]}?)" if near else ""


@dataclass(frozen=True)
class Chapter:
    """A notebook without its outputs, and what it declares."""

    name: str
    notebook: dict = field(repr=False)
    parameters: dict[str, parameters.Parameter]
    size: int  # bytes, with its outputs
    seconds: float | None = None  # that it took with its own parameters

    @property
    def title(self) -> str:
        """The notebook's first heading."""
        for cell in self.notebook.cells:
            if found := re.search(r"^# +(.+)$", cell.source, re.M):
                return found[1]
        return self.name

    def code(self) -> str:
        """Hash of all that outputs depend on besides the parameters: cells, grokutils, numerical packages."""
        return inputs.notebook(self.notebook.cells, version())


def version() -> str:
    """The version of the code on disk, now: a hash of grokutils' science and of the numerical packages here."""
    with _ONE_READER:
        return _version(inputs.stamp())


@cache
def _version(stamp: tuple) -> str:
    digest = hashlib.sha256(inputs.code().encode())
    for name in NUMERICS:
        digest.update(f"{name} {importlib.metadata.version(name).split('+')[0]}\n".encode())
    return digest.hexdigest()[:16]


@cache
def commit() -> str:
    """The commit of the clone that grokutils stands in, with ``-dirty`` where files differ; empty outside one."""
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    if not (inputs.ROOT / ".git").exists():
        return ""
    try:
        found = subprocess.run(describe, cwd=inputs.ROOT, capture_output=True, text=True, timeout=5)
        return found.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def of_the_book() -> dict[str, Path]:
    """The chapters of the clone that grokutils stands in, by name; none for an installed package."""
    if not (inputs.ROOT / "_toc.yml").exists():
        return {}
    from .. import chapters

    return {path.stem: path for path in chapters.notebooks()}


def find(text: str) -> Chapter:
    """The chapter of that number, name, path or address.

    Raises
    ------
    Refused
        Nothing there, or nothing that could be re-run.
    """
    address = urllib.parse.urlsplit(text)
    if address.scheme in ("http", "https"):
        return read(_fetched(text), Path(urllib.parse.unquote(address.path)).stem)
    if address.scheme == "file" and address.netloc in ("", "localhost"):
        text = urllib.request.url2pathname(address.path)
    elif "://" in text:
        raise Refused(f"chapter '{text}': only http, https and file addresses of this machine are read")
    known = of_the_book()
    for name, path in known.items() if text else ():
        if text in (name, name.partition("_")[2]) or text.zfill(2) == name.partition("_")[0]:
            return read(path.read_bytes(), name)
    if Path(text).suffix or "/" in text or "\\" in text:
        return _local(text)
    if not known:
        instead = "give a notebook's path or address"
        raise Refused(f"chapter '{text}': this grokutils came without the book; {instead}")
    words = [*known, *(name.partition("_")[2] for name in known)]
    raise Refused(f"there is no chapter '{text}'{meant(text, words)}: `grokutils list` shows them all")


def _local(text: str) -> Chapter:
    path = Path(text).expanduser()
    try:
        if not path.is_file():
            raise Refused(f"chapter '{text}': there is no such file")
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise Refused(f"chapter '{text}': cannot be read ({error.strerror})") from error
    return read(data, path.stem)


def _fetched(address: str) -> bytes:
    # GitHub's address of the page that shows a notebook, and of the notebook
    address = re.sub(r"^(https://github\.com/[^/]+/[^/]+)/blob/", r"\1/raw/", address)
    try:
        with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
            return answer.read(LARGEST + 1)
    except (urllib.error.URLError, OSError, ValueError) as error:
        why = getattr(error, "reason", error)
        raise Refused(f"chapter '{address}': cannot be fetched ({why})") from error


def read(data: bytes, name: str) -> Chapter:
    """The chapter in a notebook's bytes. Nothing of it is executed."""
    import nbformat

    # browsers and Colab name files "Copy of X", "X (1)"; folders are named by letters, digits, "_", "-" and "."
    name = re.sub(r"[^\w.-]+", "_", name).strip("_.-")[:LONGEST] or "notebook"
    if len(data) > LARGEST:
        raise Refused(f"chapter '{name}': larger than {LARGEST // 10**6} MB, so no chapter")
    try:
        content = json.loads(data)
        if not isinstance(content["cells"], list) or content["nbformat"] != 4:
            raise ValueError
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # cells without an id, as older notebooks have
            notebook = nbformat.v4.reads(json.dumps(content))
            nbformat.validate(notebook, relax_add_props=True)
    except Exception as error:  # a file from elsewhere may be broken in any way
        raise Refused(f"chapter '{name}': is not a notebook (of version 4)") from error
    language = notebook.metadata.get("kernelspec", {}).get("language", "python")
    if language != "python":
        raise Refused(f"chapter '{name}': is written in {language}, not in Python")
    tagged = [cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise Refused(f"chapter '{name}': {len(tagged)} cells are tagged 'parameters'; there must be one")
    try:
        declared = parameters.declared(tagged[0]) or parameters.plain(tagged[0])
    except ValueError as error:
        raise Refused(f"chapter '{name}': {error}") from error
    if not declared or not all(map(str.isidentifier, declared)):
        raise Refused(f"chapter '{name}': its parameters cell sets none, in lines like 'name = value'")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    about = notebook.metadata.get("grokutils")
    seconds = about.get("seconds") if isinstance(about, dict) else None
    return Chapter(name, notebook, declared, len(data), seconds if isinstance(seconds, int | float) else None)
