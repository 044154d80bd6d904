"""What a reader types: list, describe, run, sweep, status, collect, report."""

from __future__ import annotations

import ast
import functools
import json
import os
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from . import cases, chapter, work
from .chapter import Refused
from .store import DiskFull, Store

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Re-run the book's chapters with other parameters: one, or a sweep on a cluster.",
)  # fmt: skip
BAD = 2  # the exit code of what is refused; work.py has the others
LONGEST = 350  # letters of a sentence, which may hold what was typed

Which = Annotated[
    str,
    typer.Argument(metavar="CHAPTER", help="A chapter's number or name, or a notebook's path or address."),
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the results [results/CHAPTER].")]
Given = Annotated[
    list[str] | None,
    typer.Option(
        "-p",
        metavar="NAME=VALUES",
        help="23 · 23,31,37 · 0:10 (without 10) · 0.1~1 or 1e-4~1e-2~log with --random",
    ),
]
Measure = Annotated[
    list[str] | None, typer.Option(help="NAME=EXPRESSION, or a variable of the chapter: a number to keep.")
]
Records = Annotated[
    list[str] | None, typer.Option(help="A variable of the chapter that holds an xarray dataset, to keep.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")]
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder of results.")]
Scheduler = Annotated[
    str | None, typer.Option(help="Address of a running Dask scheduler, as tcp://HOST:8786.")
]
Workers = Annotated[
    int | None, typer.Option(min=1, max=1024, help="Cases at a time on this machine [its cores].")
]
Seconds = Annotated[float | None, typer.Option("--time-limit", min=0.1, help="Seconds that a case may take.")]
Memory = Annotated[
    float | None,
    typer.Option("--memory-limit", min=0.05, help="GB that a case may take [a share of this machine's]."),
]
Retries = Annotated[int, typer.Option(min=0, max=20, help="New tries after a lost worker or a dead kernel.")]


def in_a_sentence(command):
    """Turn what cannot be done into one sentence and an exit code."""

    @functools.wraps(command)
    def told(*args, **options):
        try:
            return command(*args, **options)
        except Refused as error:
            text, code = str(error), BAD
        except (DiskFull, OSError) as error:
            text, code = str(error), work.STOPPED
        typer.echo(f"grokutils: {text if len(text) < LONGEST else text[:LONGEST] + ' …'}", err=True)
        raise typer.Exit(code)

    return told


@app.command("list")
@in_a_sentence
def list_(as_json: AsJson = False) -> None:
    """The chapters, how long each takes, and what it takes."""
    known = chapter.of_the_book()
    if not known:
        raise Refused(
            "this grokutils came without the book; `describe` and `run` take a notebook's path or address"
        )
    for name, path in known.items():
        found = chapter.read(path.read_bytes(), name)
        if as_json:
            typer.echo(
                json.dumps({"chapter": name, "seconds": found.seconds, "parameters": list(found.parameters)})
            )
            continue
        typer.echo(
            f"{name}  ({_duration(found.seconds)})\n    {found.title}\n    {', '.join(found.parameters)}"
        )


@app.command()
@in_a_sentence
def describe(which: Which, as_json: AsJson = False) -> None:
    """A chapter's parameters: type, default, range, meaning."""
    found = chapter.find(which)
    if as_json:
        declared = [vars(parameter) for parameter in found.parameters.values()]
        typer.echo(json.dumps({"chapter": found.name, "seconds": found.seconds, "parameters": declared}))
        return
    typer.echo(f"{found.title}\n{found.name}, {_duration(found.seconds)} with these:\n")
    width = max(len(f"{p.name} = {p.default!r}") for p in found.parameters.values())
    for p in found.parameters.values():
        setting = f"{p.name} = {p.default!r}".ljust(width)
        typer.echo(f"  {setting}  {p.type:5}  {p.allowed or 'any'}. {p.meaning}")


@app.command()
@in_a_sentence
def run(
    which: Which, p: Given = None, out: Out = None, measure: Measure = None, records: Records = None,
    scheduler: Scheduler = None, time_limit: Seconds = None, memory_limit: Memory = None, retries: Retries = 2,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Run a chapter once: its notebook, its page, its claims and what it saves, in one folder."""
    found, notebook, extra = _asked(which, measure, records)
    wanted = cases.planned(found, p or [], extra=extra)
    if len(wanted) > 1:
        raise Refused(f"run: these are {len(wanted)} cases, not one; use `grokutils sweep`")
    store = _store(out, found)
    limits = (time_limit, memory_limit, retries)
    work.work(found, notebook, wanted, extra, store, scheduler, 1, limits, as_json, os.cpu_count() or 1)
    if not as_json:
        place = store.place(wanted[0].id)
        for claim in json.loads((place / "claims.json").read_text(encoding="utf-8")):
            typer.echo(f"  {claim['verdict']}: {claim['statement']}")
        typer.echo(f"page      {place / 'page.html'}\nnotebook  {place / 'notebook.ipynb'}")


@app.command()
@in_a_sentence
def sweep(
    which: Which, p: Given = None,
    table: Annotated[Path | None, typer.Option(help="Cases from a file: a YAML list of mappings, or CSV.")] = None,
    draws: Annotated[int | None, typer.Option("--random", help="Draw so many cases at random.")] = None,
    draw_seed: Annotated[int, typer.Option("--random-seed", help="Seed of these draws.")] = 0,
    out: Out = None, measure: Measure = None, records: Records = None, scheduler: Scheduler = None,
    workers: Workers = None, time_limit: Seconds = None, memory_limit: Memory = None, retries: Retries = 2,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Run a chapter over products, ranges, a table of cases or random draws. Repeat the command to go on."""
    if not p and table is None:
        raise Refused("sweep: nothing is swept; give values by -p NAME=VALUE,VALUE or a --table of cases")
    found, notebook, extra = _asked(which, measure, records)
    wanted = cases.planned(found, p or [], table, draws, draw_seed, extra)
    store = _store(out, found)
    cores = os.cpu_count() or 1
    workers = min(workers or cores, len(wanted))
    limits = (time_limit, memory_limit, retries)
    work.work(
        found, notebook, wanted, extra, store, scheduler, workers, limits, as_json, max(1, cores // workers)
    )


@app.command()
@in_a_sentence
def status(folder: Folder, as_json: AsJson = False) -> None:
    """What of a folder's sweeps is finished, running, failed or missing."""
    store = Store(folder).existing()
    for plan in store.plans():
        states = {case_id: _state(store, case_id) for case_id in plan["cases"]}
        count = Counter(states.values())
        if as_json:
            typer.echo(
                json.dumps({"sweep": plan["sweep"], "chapter": plan["chapter"], **count, "cases": states})
            )
            continue
        typer.echo(
            f"{plan['chapter']}, sweep {plan['sweep']}: {work.counted(len(states))}, {_counted(count)}"
        )
        failed = [case_id for case_id, state in states.items() if state == "failed"]
        work.show([f"{_label(plan, i)}: {store.failure(i)['error'].splitlines()[0]}" for i in failed])


@app.command()
@in_a_sentence
def collect(folder: Folder) -> None:
    """One tidy table of all finished cases (Parquet and CSV), and their records as xarray datasets."""
    from . import collect

    for path in collect.write(Store(folder).existing()):
        typer.echo(path)


@app.command()
@in_a_sentence
def report(folder: Folder) -> None:
    """One page that shows a folder's results: summary, figures, table, links to every executed notebook."""
    from . import report

    typer.echo(report.write(Store(folder).existing()))


def _asked(which: str, measure: list[str] | None, records: list[str] | None):
    """The chapter, the notebook that answers what is asked, and that as text."""
    found = chapter.find(which)
    measures = {}
    for text in measure or []:
        name, equals, expression = text.partition("=")
        name, expression = name.strip(), (expression if equals else name).strip()
        try:
            ast.parse(expression, mode="eval")
        except (SyntaxError, ValueError):
            raise Refused(f"--measure '{text}': '{expression}' is no Python expression") from None
        if not name.isidentifier() or name in measures:
            raise Refused(f"--measure '{text}': must be NAME=EXPRESSION, with names that differ")
        measures[name] = expression
    for name in records or []:
        if not name.isidentifier():
            raise Refused(f"--records '{name}': must be the name of one of the chapter's variables")
    from .execution import measuring_cell

    cell = measuring_cell(measures, records or [])
    notebook = {**found.notebook, "cells": [*found.notebook.cells, *([cell] if cell else [])]}
    return found, json.loads(json.dumps(notebook)), cell.source if cell else ""


def _store(out: Path | None, found: chapter.Chapter) -> Store:
    store = Store(out or Path("results") / found.name)
    store.prepare(found.name)
    return store


def _state(store: Store, case_id: str) -> str:
    if store.done(case_id):
        return "finished"
    if store.running(case_id):
        return "running"
    return "failed" if store.failure(case_id) else "missing"


def _label(plan: dict, case_id: str) -> str:
    return " ".join(f"{name}={plan['cases'][case_id][name]}" for name in plan["swept"]) or case_id


def _counted(count: Counter) -> str:
    return ", ".join(
        f"{count[state]} {state}" for state in ("finished", "running", "failed", "missing") if count[state]
    )


def _duration(seconds: int | None) -> str:
    return (
        "time not measured"
        if seconds is None
        else f"{seconds} s"
        if seconds < 90
        else f"{seconds / 60:.1f} min"
    )
