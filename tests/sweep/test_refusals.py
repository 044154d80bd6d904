"""What cannot be done is refused in one clear sentence, at once, before any kernel or cluster starts."""

from __future__ import annotations

import json
import shlex
import time
from collections import namedtuple

import chapters
import nbformat
import pytest
from sweep import small
from typer.testing import CliRunner

from grokutils.book.rerun import chapter, cli, cluster

BILLION = "- a: &a [x]\n- b: &b [*a, *a]\n- c: [*b, *b]\n"

# what is wrong: (arguments, words that the sentence must hold); small.ipynb lies in the folder
COMMANDS = {
    "unknown chapter": ("run no_such_chapter", ["no chapter", "did you mean"]),
    "chapter misspelt": ("run simulated_groking", ["simulated_grokking"]),
    "no such file": ("run there/is/none.ipynb", ["no such file"]),
    "a scheme that is not fetched": ("run ftp://example.org/a.ipynb", ["http"]),
    "a file that is no notebook, by its address": ("describe file:///etc/passwd", ["not a notebook"]),
    "a file of another machine": ("describe file://elsewhere/a.ipynb", ["of this machine"]),
    "no name at all": ("describe ''", ["no chapter"]),
    "a notebook with broken tags": ("describe tags.ipynb", ["not a notebook"]),
    "a notebook with broken metadata": ("describe kernel.ipynb", ["not a notebook"]),
    "a notebook with broken text": ("describe source.ipynb", ["not a notebook"]),
    "an address that does not answer": ("run http://127.0.0.1:9/a.ipynb", ["cannot be fetched"]),
    "not a notebook": ("run broken.ipynb", ["not a notebook"]),
    "a notebook of an old version": ("run old.ipynb", ["not a notebook"]),
    "no parameters cell": ("run bare.ipynb", ["0 cells", "parameters"]),
    "parameters not declared": ("run vague.ipynb", ["parameter n", "range"]),
    "another language": ("run julia.ipynb", ["julia"]),
    "unknown parameter": ("run small.ipynb -p sed=1", ["sed", "did you mean seed"]),
    "no value": ("run small.ipynb -p n", ["NAME=VALUE"]),
    "an empty value": ("run small.ipynb -p n=", ["NAME=VALUE"]),
    "no name": ("run small.ipynb -p =3", ["NAME=VALUE"]),
    "wrong type": ("run small.ipynb -p n=1.5", ["n = 1.5", "int"]),
    "a word for a number": ("run small.ipynb -p lr=fast", ["lr = 'fast'", "float"]),
    "not finite": ("run small.ipynb -p lr=nan", ["lr = 'nan'"]),
    "out of range": ("run small.ipynb -p n=1000", ["n = 1000", "[1, 999]"]),
    "not prime": ("run small.ipynb -p prime=9", ["prime = 9", "prime"]),
    "not among the words": ("run small.ipynb -p kind=c", ["kind = 'c'", "a | b"]),
    "not a truth value": ("run small.ipynb -p fail=maybe", ["fail = 'maybe'", "bool"]),
    "not a list": ("run small.ipynb -p lams=0.1", ["lams = 0.1", "list"]),
    "an empty list": ("run small.ipynb -p lams=[]", ["lams = []"]),
    "a bracket not closed": ("run small.ipynb -p lams=[0.1", ["not closed"]),
    "code for a value": ("run small.ipynb -p n=__import__('os').getpid()", ["int"]),
    "one bad value of many": ("sweep small.ipynb -p seed=0:50 -p prime=2,3,4", ["prime = 4"]),
    "several cases to run": ("run small.ipynb -p n=1,2", ["sweep"]),
    "nothing swept": ("sweep small.ipynb", ["nothing is swept"]),
    "an empty range": ("sweep small.ipynb -p n=5:5", ["n = 5:5", "empty"]),
    "a range without steps": ("sweep small.ipynb -p n=1:5:0", ["empty"]),
    "a range too long": ("sweep small.ipynb -p seed=0:1000000000000", ["more than"]),
    "too many cases": ("sweep small.ipynb -p seed=0:9999 -p n=1:99", ["more than", "--random"]),
    "a name twice": ("sweep small.ipynb -p n=1 -p n=2", ["twice"]),
    "an interval without draws": ("sweep small.ipynb -p lr=0.1~1", ["--random"]),
    "an interval upside down": ("sweep small.ipynb -p lr=1~0.1 --random 3", ["LOW < HIGH"]),
    "an interval out of range": ("sweep small.ipynb -p lr=0.1~7 --random 3", ["lr"]),
    "more draws than there are": ("sweep small.ipynb -p n=1~3 --random 9", ["3 different"]),
    "no such table": ("sweep small.ipynb --table none.yaml", ["cannot be read"]),
    "a table of another kind": ("sweep small.ipynb --table cases.xls", [".yaml", ".csv"]),
    "malformed YAML": ("sweep small.ipynb --table bad.yaml", ["bad.yaml", "line 2"]),
    "YAML that is no list": ("sweep small.ipynb --table mapping.yaml", ["list of cases"]),
    "YAML that makes objects": ("sweep small.ipynb --table object.yaml", ["not plain YAML"]),
    "YAML that grows": ("sweep small.ipynb --table billion.yaml", ["*"]),
    "YAML that says it twice": ("sweep small.ipynb --table twice.yaml", ["twice", "line 1"]),
    "an interval that is not of numbers": ("sweep small.ipynb -p lr=e~1 --random 3", ["lr = 'e'"]),
    "an interval of broken whole numbers": ("sweep small.ipynb -p n=1.5~9 --random 3", ["n = 1.5", "int"]),
    "something long": ("run small.ipynb -p n=" + "9" * 4000, ["n = 999", "…"]),
    "an empty table": ("sweep small.ipynb --table empty.yaml", ["no cases"]),
    "a table that is not text": ("sweep small.ipynb --table binary.csv", ["cannot be read"]),
    "an unknown column": ("sweep small.ipynb --table column.csv", ["nn", "did you mean"]),
    "a ragged table": ("sweep small.ipynb --table ragged.csv", ["line 3", "entries"]),
    "a parameter in the table and beside it": ("sweep small.ipynb --table good.csv -p n=3", ["n", "column"]),
    "a results folder that is a file": ("run small.ipynb -o good.csv", ["file"]),
    "somebody else's folder": ("run small.ipynb -o full", ["not empty"]),
    "another chapter's folder": ("run small.ipynb -o other", ["holds results of chapter other"]),
    "a name that leads out of the folder": ("run small.ipynb --records ../../x", ["name"]),
    "a measure that is no expression": ("run small.ipynb --measure x=1+", ["expression"]),
    "no results to show": ("status nowhere", ["no results"]),
    "no results to collect": ("collect full", ["no results"]),
    "nothing to report yet": ("report other", ["no case is finished"]),
    "a scheduler that is not there": ("run small.ipynb --scheduler tcp://127.0.0.1:9", ["no Dask scheduler"]),
    "an address that is none": ("run small.ipynb --scheduler nonsense://x", ["no Dask scheduler"]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with all that the commands above name."""
    where = tmp_path_factory.mktemp("refusals")
    good = nbformat.read(small.chapter(where), 4)

    def write(name, text):
        (where / name).write_text(text)

    write("broken.ipynb", "{")
    write("old.ipynb", json.dumps({"nbformat": 3, "cells": []}))
    for name, change in {
        "bare": lambda n: n.cells.pop(1),
        "vague": lambda n: n.cells[1].update(source="n: int = 3  # [3. Terms"),
        "julia": lambda n: n.metadata.update(
            kernelspec={"name": "j", "display_name": "j", "language": "julia"}
        ),
        "tags": lambda n: n.cells[0].metadata.update(tags=None),
        "kernel": lambda n: n.metadata.update(kernelspec="python3"),
        "source": lambda n: n.cells[0].update(source=5),
    }.items():
        changed = nbformat.from_dict(json.loads(json.dumps(good)))
        change(changed)
        write(f"{name}.ipynb", json.dumps(changed))
    write("bad.yaml", "- {n: 3}\n- {n: [3}\n")
    write("mapping.yaml", "n: 3\n")
    write("object.yaml", "- !!python/object/apply:os.mkdir [owned]\n")
    write("billion.yaml", BILLION)
    write("empty.yaml", "")
    write("twice.yaml", "- {n: 3, n: 4}\n")
    (where / "binary.csv").write_bytes(b"\xff\xfe\x00")
    write("column.csv", "nn\n3\n")
    write("ragged.csv", "n,seed\n1,2\n3\n")
    write("good.csv", "n,seed\n1,2\n")
    write("cases.xls", "")
    (where / "full").mkdir()
    write("full/thesis.txt", "mine")
    (where / "other").mkdir()
    write("other/chapter.txt", "other\n")
    (where / "other/plans").mkdir()
    return where


def refused(arguments: list[str]) -> str:
    """The sentence with which a command is refused."""
    started = time.monotonic()
    answer = CliRunner().invoke(cli.app, arguments)
    assert time.monotonic() - started < 15
    assert answer.exit_code == 2, answer.output
    (line,) = answer.stderr.strip().splitlines()
    assert line.startswith("grokutils: ")
    assert len(line) < 400
    return line


@pytest.mark.parametrize("what", COMMANDS)
def test_refused_in_a_sentence_before_anything_starts(what, folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(cluster, "LocalCluster", None)  # whoever starts one fails
    text, words = COMMANDS[what]
    line = refused(shlex.split(text))
    assert [word for word in words if word not in line] == [], line
    assert not (folder / "owned").exists()
    assert not list(folder.rglob("case.json"))


def test_no_space_is_refused_before_anything_starts(folder, monkeypatch):
    monkeypatch.chdir(folder)
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 10**6)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    assert "1 MB are free" in refused(["run", "small.ipynb", "-o", "tight"])


def test_a_folder_that_cannot_be_written_is_refused(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert "cannot be written to" in refused(["run", "small.ipynb", "-o", "/proc/nowhere"])


def test_list_and_describe_say_what_the_chapters_declare():
    shown = CliRunner().invoke(cli.app, ["list"]).stdout
    for page in chapters.chapters():
        name = page.rpartition("/")[2]
        assert name in shown
        lines = CliRunner().invoke(cli.app, ["describe", name, "--json"]).stdout
        declared = chapter.find(name).parameters
        assert [p["name"] for p in json.loads(lines)["parameters"]] == list(declared)
        told = CliRunner().invoke(cli.app, ["describe", name]).stdout
        assert all(f"  {p} = " in told for p in declared)
