"""What a reader types: list, describe, run, sweep, status, collect, report."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from ..._version import __version__
from . import cases, chapter, measures, work
from .chapter import Refused
from .progress import duration, first_line, label
from .store import STATES, DiskFull, Store

BAD, PIPE = 2, 141  # exit codes of what is refused, and of a reader who left; work.py has the others
LONGEST = 350  # letters of a sentence, which may hold what was typed


class Commands(typer.core.TyperGroup):
    """The commands; they know how papermill is told a parameter."""

    def parse_args(self, ctx, args):
        """Refuse ``-p NAME VALUE`` with what to write instead."""
        for option, name, value in zip(args, args[1:], args[2:], strict=False):
            if option == "-p" and name.isidentifier() and (value[:1] != "-" or value[1:2].isdigit()):
                told = f"grokutils: -p {name} {value}: is papermill's way; write -p {name}={value}"
                typer.echo(told, err=True)
                ctx.exit(BAD)
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Re-run the book's chapters with other parameters: one, or a sweep on a cluster.",
)  # fmt: skip

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
Later = Annotated[
    list[str] | None,
    typer.Option("--measure", help="NAME=EXPRESSION of a case's records, claims and parameters."),
]
Records = Annotated[
    list[str] | None, typer.Option(help="A variable of the chapter that holds an xarray dataset, to keep.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")]
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder of results.")]
Into = Annotated[Path | None, typer.Option("--out", "-o", help="Folder to write into [FOLDER].")]
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
Dry = Annotated[bool, typer.Option("--dry-run", help="Only say what would run, with its time and its disk.")]


def _version(wanted: bool) -> None:
    if wanted:
        about = ", ".join(filter(None, [f"code {chapter.version()}", chapter.commit()]))
        typer.echo(f"grokutils {__version__} ({about})")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version of the code.")] = False,
) -> None:  # fmt: skip
    """Re-run the book's chapters with other parameters: one, or a sweep on a cluster."""


def in_a_sentence(command):
    """Turn what cannot be done into one sentence and an exit code."""

    @functools.wraps(command)
    def told(*args, **options):
        try:
            return command(*args, **options)
        except Refused as error:
            text, code = str(error), BAD
        except BrokenPipeError:  # the reader of a pipe has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(PIPE) from None
        except KeyboardInterrupt:
            text, code = "interrupted", work.INTERRUPTED
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
        instead = "`describe` and `run` take a notebook's path or address"
        raise Refused(f"this grokutils came without the book; {instead}")
    for name, path in known.items():
        found = chapter.read(path.read_bytes(), name)
        if as_json:
            facts = {"chapter": name, "seconds": found.seconds, "parameters": list(found.parameters)}
            typer.echo(json.dumps(facts))
            continue
        typer.echo(
            f"{name}  ({duration(found.seconds)})\n    {found.title}\n    {', '.join(found.parameters)}"
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
    typer.echo(f"{found.title}\n{found.name}, {duration(found.seconds)} with these:\n")
    width = max(len(f"{p.name} = {p.default!r}") for p in found.parameters.values())
    for p in found.parameters.values():
        setting = f"{p.name} = {p.default!r}".ljust(width)
        typer.echo(f"  {setting}  {p.type:5}  {p.allowed or 'any'}. {p.meaning}")


@app.command()
@in_a_sentence
def run(
    which: Which, p: Given = None, out: Out = None, measure: Measure = None, records: Records = None,
    scheduler: Scheduler = None, time_limit: Seconds = None, memory_limit: Memory = None, retries: Retries = 2,
    dry_run: Dry = False, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Run a chapter once: its notebook, its page, its claims and what it saves, in one folder."""
    found = chapter.find(which)
    wanted = cases.planned(found, p or [])
    if len(wanted) > 1:
        raise Refused(f"run: these are {len(wanted)} cases, not one; use `grokutils sweep`")
    limits = (scheduler, 1, time_limit, memory_limit, retries, as_json)
    store = _work(found, wanted, out, measure, records, limits, dry_run)
    if not as_json and not dry_run:
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
    dry_run: Dry = False, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Run a chapter over products, ranges, a table of cases or random draws. Repeat the command to go on."""
    if not p and table is None:
        raise Refused("sweep: nothing is swept; give values by -p NAME=VALUE,VALUE or a --table of cases")
    found = chapter.find(which)
    wanted = cases.planned(found, p or [], table, draws, draw_seed)
    limits = (scheduler, workers, time_limit, memory_limit, retries, as_json)
    _work(found, wanted, out, measure, records, limits, dry_run)


@app.command()
@in_a_sentence
def status(folder: Folder, as_json: AsJson = False) -> None:
    """What of a folder's sweeps is finished, running, failed or missing."""
    store = Store(folder).existing()
    for plan in store.plans():
        states = {case_id: store.state(case_id) for case_id in plan["cases"]}
        count = Counter(states.values())
        if as_json:
            facts = {"sweep": plan["sweep"], "chapter": plan["chapter"], **count, "cases": states}
            typer.echo(json.dumps(facts))
            continue
        said = ", ".join(f"{count[state]} {state}" for state in STATES if count[state])
        typer.echo(f"{plan['chapter']}, sweep {plan['sweep']}: {work.counted(len(states))}, {said}")
        failed = [i for i, state in states.items() if state == "failed"]
        words = {i: label(i, plan["cases"][i], plan["swept"]) for i in failed}
        work.show([f"{words[i]}: {first_line(store.failure(i)['error'])}" for i in failed])


@app.command()
@in_a_sentence
def collect(folder: Folder, measure: Later = None, out: Into = None) -> None:
    """One tidy table of all finished cases (Parquet and CSV), and their records as xarray datasets."""
    asked = measures.parsed(measure)
    from . import collect

    for path in collect.write(Store(folder).existing(), asked, _into(out or folder)):
        typer.echo(path)


@app.command()
@in_a_sentence
def report(folder: Folder, measure: Later = None, out: Into = None) -> None:
    """One page that shows a folder's results: provenance, claims, figures, a table to sort, every notebook."""
    asked = measures.parsed(measure)
    os.environ["MATPLOTLIBRC"] = os.devnull  # a reader's own style stays outside
    from . import report

    typer.echo(report.write(Store(folder).existing(), asked, _into(out or folder)))


def _work(found, wanted, out, measure, records, limits, dry_run) -> Store:
    asked = measures.parsed(measure, records)
    store = Store(out or Path("results") / found.name)
    job = work.Asked(found, wanted, store, asked, records or [], *limits)
    if dry_run:
        work.dry_run(job)
    else:
        store.prepare(found.name)
        work.work(job)
    return store


def _into(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"--out '{folder}': cannot be written to ({error.strerror})") from error
    if not os.access(folder, os.W_OK):
        raise Refused(f"'{folder}': is read-only; give a folder to write into by --out")
    return folder
