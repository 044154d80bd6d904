"""Run the cells of notebooks until one fails: JSON of each one's cells on standard input, what failed on standard output.

Each notebook has a copy of this process to itself, so that what all of them import is imported once.
"""

from __future__ import annotations

import json
import os
import sys

import pandas
import scipy.stats
import sympy
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

import grokutils
from grokutils import figures

IMPORTED = (figures, pandas, scipy.stats, sympy, *(getattr(grokutils, name) for name in grokutils.__all__))


def failure(cells: list[str]) -> dict | None:
    """Which of the cells failed first, and how."""
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    for number, cell in enumerate(cells):
        result = shell.run_cell(cell, store_history=True)
        if error := result.error_before_exec or result.error_in_exec:
            return {"cell": number, "name": type(error).__name__, "text": str(error)}
    return None


def in_a_copy(cells: list[str]) -> dict | None:
    """The same, from a copy of this process."""
    ours, theirs = os.pipe()
    copy = os.fork()
    if copy == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        with open(theirs, "w") as answer:
            json.dump(failure(cells), answer)
        os._exit(0)
    os.close(theirs)
    with open(ours) as answer:
        said = answer.read()
    os.waitpid(copy, 0)
    return json.loads(said)


if __name__ == "__main__":
    json.dump({name: in_a_copy(cells) for name, cells in json.load(sys.stdin).items()}, sys.stdout)
