"""The page of benchmarks shows what the record says, and the record is written whole or not at all."""

from __future__ import annotations

import json
import runpy

import pytest
import torch

pytest.importorskip("sphinx")
from grokutils.book import tables


def test_the_page_shows_every_row_of_the_record():
    record = json.loads(tables.SPEEDS.read_text(encoding="utf-8"))
    page = tables.benchmarks(record)
    assert record["date"] in page
    assert page.count("<tr><td>") == len(record["rows"]) > 0
    for row in record["rows"]:
        assert f">{row['value']:g}</span> {row['unit']}<" in page
        assert row["ratio"] is None or f"{row['ratio']:g} ×" in page


def test_a_record_that_cannot_be_written_leaves_the_old_one(tmp_path):
    record = runpy.run_path(str(tables.SPEEDS.with_name("_record.py")))
    path = tmp_path / "record.json"
    rows = [record["row"]("kind", "a < b", 1.2345, "ms", against="b", ratio=2.0)]
    record["write"](rows, path)
    before = path.read_text(encoding="utf-8")
    assert "a &lt; b" in tables.benchmarks(json.loads(before))
    with pytest.raises(TypeError):
        record["write"]([{"value": object()}], path)
    assert path.read_text(encoding="utf-8") == before


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(p.stem for p in tables.SPEEDS.parent.glob("[!_]*.py")))
def test_each_benchmark_runs_at_its_smallest_and_leaves_the_record_alone(name, monkeypatch, capsys):
    monkeypatch.syspath_prepend(tables.ROOT)
    from benchmarks import __main__ as command

    before = tables.SPEEDS.read_bytes()
    with torch.random.fork_rng(devices=[]):  # a rival, PyTorch's own network, draws from the global generator
        command.main(["--small", name])
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"== {name}"
    assert len(said) > 1
    assert tables.SPEEDS.read_bytes() == before


def test_an_unknown_benchmark_is_named_with_those_that_there_are(monkeypatch, capsys):
    monkeypatch.syspath_prepend(tables.ROOT)
    from benchmarks import __main__ as command

    with pytest.raises(SystemExit, match="2"):
        command.main(["speed"])
    assert "no benchmark speed: choose among before, delays, flows" in capsys.readouterr().err


@pytest.mark.slow
def test_growth_says_how_far_each_size_got_and_stops_in_time(monkeypatch):
    monkeypatch.syspath_prepend(tables.ROOT)
    from benchmarks import growth

    first, second = growth.main(((5, 24), (7, 40)), limit=60)
    assert "predicted" not in first["note"]
    assert "predicted" in second["note"]
    assert all(row["unit"] == "s" and row["value"] > 0 and "MB" in row["note"] for row in (first, second))
    (stopped,) = growth.main(((7, 40),), limit=1e-9)
    assert "ended by seconds at τ = 0.00" in stopped["note"]


def test_a_part_is_renewed_only_on_the_record_s_own_machine(tmp_path):
    record = runpy.run_path(str(tables.SPEEDS.with_name("_record.py")))
    path = tmp_path / "record.json"
    rows = [{**record["row"]("kind", "a", 1.0, "ms"), "of": name} for name in ("flows", "delays")]
    record["write"](rows, path)
    assert record["others"](["flows"], path) == rows[1:]
    moved = json.loads(path.read_text(encoding="utf-8")) | {"machine": "another"}
    path.write_text(json.dumps(moved), encoding="utf-8")
    with pytest.raises(SystemExit, match="another machine"):
        record["others"](["flows"], path)
