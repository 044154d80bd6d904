"""What other people's files, habits and machines bring: read, or refused with the sentence that says what to write."""

from __future__ import annotations

import errno
import json
import shlex
import socket

import nbformat
import pytest
from sweep import small
from sweep.test_refusals import refused

from grokutils.book.rerun import cases, chapter, cluster, store

PLAIN = 'n = 3  # How many.\nlr = 0.1\nname = "a"\nflags = [1, 2]\noptions = {"a": 1}\nmaybe = None\n'

# a table's rows, as YAML or CSV: (name, text, words of the sentence)
TABLES = {
    "a ratio, which YAML takes for a time": ("t.yaml", "- seed: 0\n- seed: 1:30\n", ["line 2", "seed = '1:30'"]),
    "a leading zero, which YAML takes for octal": ("t.yaml", "- n: 010\n", ["line 1", "n = '010'"]),
    "yes for true": ("t.yaml", "- fail: yes\n", ["line 1", "fail = 'yes'", "bool"]),
    "on for true": ("t.yml", "- fail: true\n- fail: on\n", ["line 2", "fail = 'on'", "bool"]),
    "one for true": ("t.csv", "fail\n1\n", ["line 2", "fail = '1'", "bool"]),
    "a decimal comma": ("t.yaml", "- lr: 0,5\n", ["line 1", "lr = '0,5'", "write 0.5"]),
    "a per cent": ("t.csv", "lr\n50%\n", ["line 2", "lr = '50%'", "write 0.5"]),
    "a fraction": ("t.csv", "lr\n1/2\n", ["line 2", "lr = '1/2'"]),
    "a date": ("t.yaml", "- n: 2026-01-01\n", ["line 1", "n = '2026-01-01'"]),
    "nothing": ("t.yaml", "- n: 5\n  seed:\n", ["line 1", "seed = ''"]),
    "null": ("t.yaml", "- seed: null\n", ["line 1", "seed = 'null'"]),
    "a mapping for a number": ("t.yaml", "- n: {a: 1}\n", ["line 1", "n = {'a': 1}"]),
    "a list for a number": ("t.yaml", "- n: [1, 2]\n", ["line 1", "n = [1, 2]"]),
    "a number beyond all floats": ("t.yaml", "- lr: 1e999\n", ["line 1", "lr = inf"]),
    "a forced type": ("t.yaml", "- n: !!float 3\n", ["line 1", "not plain YAML"]),
    "a type of one's own": ("t.yaml", "- n: !mine 3\n", ["line 1", "not plain YAML"]),
    "one bad row of many": ("t.csv", "n,seed\n1,2\n1,3\n0,4\n", ["t.csv", "line 4", "n = 0", "[1, 999]"]),
    "an empty entry": ("t.csv", "n,seed\n1,\n", ["line 2", "seed = ''"]),
    "a quote not closed": ("t.csv", 'n,text\n1,"a\n', ["line", "not CSV"]),
    "names only": ("t.csv", "n,seed\n", ["no cases"]),
    "no names": ("t.csv", "1,2\n3,4\n", ["1 is no parameter"]),
    "a column without a name": ("t.csv", "n,\n1,2\n", [" is no parameter", "did you mean"]),
    "a column twice": ("t.csv", "n,n\n1,2\n", ["column twice"]),
    "a decimal comma between semicolons": ("t.csv", "n;lr\n1;0,5\n", ["line 2", "lr = '0,5'", "write 0.5"]),
    "a spreadsheet's UTF-16": ("t.csv", "n,lr\n1,0.5\n".encode("utf-16"), ["UTF-8"]),
    "a spreadsheet's Latin-1": ("t.csv", "text\né\n".encode("latin-1"), ["UTF-8"]),
    "YAML of numbers": ("t.yaml", "- 1\n- 2\n", ["list of cases"]),
    "JSON lines": ("t.json", '{"n": 1}\n', [".yaml", ".csv"]),
}  # fmt: skip

COMMANDS = {
    "papermill's way": ("run small.ipynb -p n 3", ["papermill", "-p n=3"]),
    "papermill's way, negative": ("sweep small.ipynb -p seed -1", ["papermill", "-p seed=-1"]),
    "papermill's way, later": ("sweep small.ipynb -p n=1,2 -p seed 4 -o out", ["papermill", "-p seed=4"]),
    "full-width digits": ("run small.ipynb -p n=３", ["n = '３'", "int"]),
    "a typographic minus": ("run small.ipynb -p seed=−3", ["seed = '−3'", "int"]),
    "a thin space": ("run small.ipynb -p 'n=1 000'", ["n = '1 000'", "int"]),
    "a decimal comma, which is two values": ("run small.ipynb -p lr=0,5", ["lr = 0", "(0, 1]"]),
    "a range of floats": ("sweep small.ipynb -p lr=0:1", ["lr = '0:1'"]),
    "a range with dots": ("sweep small.ipynb -p n=1..5", ["n = '1..5'"]),
    "a range with a dash": ("sweep small.ipynb -p n=1-5", ["n = '1-5'"]),
    "a range without a start": ("sweep small.ipynb -p n=:5", ["n = ':5'"]),
    "an interval of another law": ("sweep small.ipynb -p lr=0.1~1~exp --random 2", ["lr = '0.1~1~exp'"]),
    "an interval through zero": ("sweep small.ipynb -p lr=0~1~log --random 2", ["lr"]),
    "no draws": ("sweep small.ipynb -p n=1~9 --random 0", ["from 1 to"]),
    "negative draws": ("sweep small.ipynb -p n=1~9 --random -3", ["from 1 to"]),
    "other tools' parameters": ("run small.ipynb -p upstream=x", ["upstream is no parameter"]),
    "a measure of a name that nobody sets": ("run small.ipynb --measure x=totl", ["totl", "did you mean total"]),
    "a measure of a module that is not imported": ("run small.ipynb --measure x=torch.exp(1)", ["sets torch"]),
    "a measure named by a keyword's expression": ("run small.ipynb --measure x=lambda", ["expression"]),
    "a measure twice": ("run small.ipynb --measure x=n --measure x=seed", ["differ"]),
    "records that nobody sets": ("run small.ipynb --records run", ["no cell", "did you mean runs"]),
    "a folder named as a notebook": ("run folder.ipynb", ["no such file"]),
    "a notebook that a browser renamed": ("run small.ipynb.txt", ["no such file"]),
    "a web page saved as a notebook": ("run page.ipynb", ["not a notebook"]),
    "an empty file": ("describe empty.ipynb", ["not a notebook"]),
    "JSON that is a list": ("describe list.ipynb", ["not a notebook"]),
    "a name that no system takes": (f"run {'x' * 300}.ipynb", ["cannot be read"]),
    "two parameters cells": ("describe two.ipynb", ["2 cells", "one"]),
    "nothing literal in the parameters cell": ("describe computed.ipynb", ["sets none", "name = value"]),
    "a plain parameter of another type": ("run plain.ipynb -p n=fast", ["n = 'fast'", "int", "default 3"]),
    "a plain list": ("run plain.ipynb -p flags=3", ["flags = 3", "list"]),
    "a plain value that JSON cannot hold": ("run plain.ipynb -p maybe={1}", ["maybe = {1}"]),
    "an unknown plain parameter": ("run plain.ipynb -p m=3", ["m is no parameter", "did you mean"]),
    "a device for a folder": ("run small.ipynb -o /dev/null", ["file"]),
    "a folder below a file": ("run small.ipynb -o small.ipynb/out", ["cannot be written to"]),
    "a folder with a name too long": (f"run small.ipynb -o {'x' * 300}", ["cannot be written to"]),
    "the status of a file": ("status small.ipynb", ["no results"]),
    "a report of an empty folder": ("report folder.ipynb", ["no results"]),
    "a table from plans that are broken": ("collect broken", ["no case is finished"]),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder in which the commands run; no cluster can start there."""
    good = nbformat.read(small.chapter(tmp_path), 4)
    for name, change in {
        "two": lambda n: n.cells.append(n.cells[1]),
        "computed": lambda n: n.cells[1].update(source="n = len(str(3))\n"),
        "plain": lambda n: n.cells[1].update(source=PLAIN),
    }.items():
        changed = nbformat.from_dict(json.loads(json.dumps(good)))
        change(changed)
        (tmp_path / f"{name}.ipynb").write_text(json.dumps(changed))
    (tmp_path / "page.ipynb").write_text("<!doctype html><title>Sign in</title>")
    (tmp_path / "empty.ipynb").write_text("")
    (tmp_path / "list.ipynb").write_text("[]")
    (tmp_path / "folder.ipynb").mkdir()
    (tmp_path / "broken/plans").mkdir(parents=True)
    (tmp_path / "broken/chapter.txt").write_text("small\n")
    (tmp_path / "broken/plans/1.json").write_text("{")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster, "LocalCluster", None)
    return tmp_path


@pytest.mark.parametrize("what", TABLES)
def test_a_table_is_refused_with_its_row(what, folder):
    name, text, words = TABLES[what]
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    line = refused(["sweep", "small.ipynb", "--table", name])
    assert [word for word in [name, *words] if word not in line] == [], line


@pytest.mark.parametrize("what", COMMANDS)
def test_a_command_is_refused_in_a_sentence(what, folder):
    text, words = COMMANDS[what]
    line = refused(shlex.split(text))
    assert [word for word in words if word not in line] == [], line
    assert not list(folder.rglob("case.json"))


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_a_disk_without_locks_is_refused_and_not_taken_for_a_lock_that_is_held(number, folder, monkeypatch):
    def broken(*_):
        raise OSError(number, "No locks available")

    monkeypatch.setattr(store.fcntl, "lockf", broken)
    assert "keeps no locks" in refused(["run", "small.ipynb"])


def test_windows_gets_a_sentence_and_may_look(folder, monkeypatch):
    monkeypatch.setattr(store, "fcntl", None)
    assert "WSL" in refused(["run", "small.ipynb"])
    assert not (folder / "results").exists()


@pytest.mark.parametrize("kind", ["mute", "web", "closes"])
def test_a_socket_that_is_no_scheduler_is_refused_within_seconds(kind, folder):
    with socket.create_server(("127.0.0.1", 0)) as server:
        if kind != "mute":
            small.answering(server, b"HTTP/1.1 400 Bad Request\r\n\r\n" if kind == "web" else b"")
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        assert "no Dask scheduler answers" in refused(["run", "small.ipynb", "--scheduler", address])


@pytest.mark.parametrize(
    ("name", "text", "parameter", "value"),
    [
        ("t.yaml", "- lr: 1e-3\n", "lr", 0.001),
        ("t.yaml", "- lr: .5\n", "lr", 0.5),
        ("t.yaml", "- {n: '7'}\n", "n", 7),
        ("t.yaml", "- lams: [1e-1, 1]\n", "lams", [0.1, 1]),
        ("t.yaml", "- text: yes\n", "text", "yes"),
        ("t.yaml", "- text: 1:30\n", "text", "1:30"),
        ("t.yaml", "- fail: True\n", "fail", True),
        ("T.YAML", "\ufeff- n: 4\n", "n", 4),
        ("t.csv", "n;lr\n4;0.5\n", "lr", 0.5),
        ("t.csv", "n\tlr\n4\t5E-1\n", "lr", 0.5),
        ("t.csv", "n,lr\r\n4,0.5\r\n\r\n", "lr", 0.5),
    ],
)  # fmt: skip
def test_a_table_as_people_write_it_is_read_as_they_mean_it(name, text, parameter, value, folder):
    (folder / name).write_text(text, encoding="utf-8", newline="")
    (case,) = cases.planned(chapter.find("small.ipynb"), [], folder / name)
    assert case.values[parameter] == value
    assert type(case.values[parameter]) is type(value)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("Copy of small.ipynb", "Copy_of_small"),
        ("small (1).ipynb", "small_1"),
        ("Kopie von „κ“.ipynb", "Kopie_von_κ"),
        ("small.IPYNB", "small"),
        ("a'b&c.ipynb", "a_b_c"),
        ("().ipynb", "notebook"),
    ],
)
def test_a_notebook_by_any_name_is_read(name, known, folder):
    (folder / "small.ipynb").rename(folder / name)
    found = chapter.find(name)
    assert found.name == known
    assert chapter.find((folder / name).as_uri()).parameters == found.parameters


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_notebook_in_any_of_jsons_encodings_is_read(encoding, folder):
    text = (folder / "small.ipynb").read_text(encoding="utf-8")
    (folder / "small.ipynb").write_text(text, encoding=encoding)
    assert chapter.find("small.ipynb").title == "A small chapter"


def test_a_plain_parameters_cell_is_swept_by_the_types_of_its_defaults(folder):
    found = chapter.find("plain.ipynb")
    one, two = cases.planned(found, ["n=5", "lr=1", "flags=[],[3]", "maybe=0.5", "name='x, y'"])
    assert one.values == {"n": 5, "lr": 1.0, "name": "x, y", "flags": [], "options": {"a": 1}, "maybe": 0.5}
    assert two.values["flags"] == [3]
