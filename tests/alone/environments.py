"""Environments like Colab's: made once and kept by what they hold, or copied for a test to change."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

from chapters import ROOT

HERE = Path(__file__).parent
KEPT = ROOT / ".venv-colab"
KINDS = {  # each made from another, with what a list adds
    "bare": (None, "colab.txt"),  # torch, numpy, sympy, matplotlib, ipykernel and nothing else
    "colab": ("bare", "colab-science.txt"),  # all that Colab has of what grokutils needs
}


def copy(kind: str) -> Path:
    """A new environment with the packages of ``kind``; its files are links, so that it costs a second."""
    made = kept(kind)
    fresh = made.with_name(f"{made.name}-{uuid.uuid4().hex[:8]}")
    shutil.copytree(made, fresh, symlinks=True, copy_function=os.link)
    return fresh


def remove(environment: Path) -> None:
    """Remove a copy."""
    subprocess.run(["rm", "-rf", environment], check=True)


def python(environment: Path) -> Path:
    """The interpreter of an environment."""
    return environment / "bin" / "python"


def versions(environment: Path) -> dict[str, str]:
    """Every installed distribution and its version."""
    code = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    found = subprocess.run(
        [python(environment), "-I", "-c", code], check=True, capture_output=True, text=True
    )
    return json.loads(found.stdout)


def kernel(environment: Path, folder: Path) -> str:
    """Write a kernel specification for an environment into ``folder`` (for JUPYTER_PATH); returns its name."""
    where = folder / "kernels" / "colab"
    where.mkdir(parents=True)
    command = [str(python(environment)), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    specification = {"argv": command, "display_name": "Like Colab", "language": "python"}
    (where / "kernel.json").write_text(json.dumps(specification))
    return where.name


def kept(kind: str) -> Path:
    """The environment of ``kind``, made if there is none yet; not to be changed."""
    base, wanted = KINDS[kind]
    made_from = sys.version.encode() + b"".join((HERE / KINDS[k][1]).read_bytes() for k in (base, kind) if k)
    target = KEPT / f"{kind}-{hashlib.sha256(made_from).hexdigest()[:12]}"
    start = kept(base) if base else None
    KEPT.mkdir(exist_ok=True)
    with (KEPT / "lock").open("w") as lock:  # workers wait for the one that makes it
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            part = KEPT / "part"
            shutil.rmtree(part, ignore_errors=True)
            if start:
                shutil.copytree(start, part, symlinks=True, copy_function=os.link)
            else:
                subprocess.run([sys.executable, "-m", "venv", part], check=True)
            pip = [python(part), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
            subprocess.run([*pip, "-r", HERE / wanted], check=True)
            part.rename(target)
    return target
