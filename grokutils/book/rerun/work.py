"""One command's work: what of its cases is missing, run; what became of them, said."""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import typer

from .. import kernels
from . import chapter, measures, progress
from .store import DiskFull, Store

STOPPED, INTERRUPTED = 3, 130  # exit codes besides 0 and 1, which says that a case failed
SHOWN = 10  # cases that a list shows before it is cut


@dataclass(frozen=True)
class Asked:
    """What was typed: which cases of which chapter, what to keep of them, where and how they run."""

    chapter: chapter.Chapter
    cases: list
    store: Store
    measures: dict[str, str]
    records: list[str]
    scheduler: str | None
    workers: int | None
    seconds: float | None
    gigabytes: float | None
    retries: int
    as_json: bool

    def __post_init__(self):
        measures.check(self.chapter, self.measures, self.records)

    @property
    def swept(self) -> list[str]:
        """The parameters that differ between the cases."""
        values = [case.values for case in self.cases]
        return [name for name in values[0] if len({json.dumps(some[name]) for some in values}) > 1]

    @property
    def at_a_time(self) -> int:
        """How many cases run at a time on this machine."""
        return min(self.workers or kernels.cores(), len(self.cases))

    def lacks(self, case) -> bool:
        """Whether a case is not finished, or has not kept what is asked for and cannot tell it afterwards."""
        if not self.store.done(case.id):
            return True
        place = self.store.place(case.id)
        if not all((place / "files" / f"{name}.nc").is_file() for name in self.records):
            return True
        there = measures.kept(place)
        return any(
            found["fault"] and there.get(name, {}).get("expression") != found["expression"]
            for name, found in measures.of(place, case.values, self.measures).items()
        )


def dry_run(asked: Asked) -> None:
    """Say what would run, how long it may take and how much it may fill; nothing runs, nothing is written."""
    missing = [case for case in asked.cases if asked.lacks(case)]
    finished = [asked.store.facts(case.id) for case in asked.cases if asked.store.done(case.id)]
    seconds = [fact["seconds"] + fact["overhead"] for fact in finished if "overhead" in fact]
    each = statistics.median(seconds) if seconds else asked.chapter.seconds
    basis = "of the finished cases" if seconds else "of the chapter with its own parameters"
    _plan(asked, missing)
    show([f"{progress.label(case.id, case.values, asked.swept)}: would run" for case in missing])
    if missing and each is not None:
        total = each * len(missing) / (asked.at_a_time if asked.scheduler is None else 1)
        where = f"{asked.at_a_time} at a time" if asked.scheduler is None else "by one worker"
        typer.echo(f"time: about {progress.duration(total)}, {where} (from the time {basis})")
    elif missing:
        typer.echo("time: not known; run one case first")
    # a case keeps its notebook and its page, with the same pictures
    typer.echo(f"disk: about {2 * asked.chapter.size * len(missing) / 1e6:.1f} MB")


def work(asked: Asked) -> None:
    """Run what is missing; leaves by typer.Exit unless everything is there."""
    store, wanted = asked.store, asked.cases
    missing = [case for case in wanted if asked.lacks(case)]
    kind = (progress.Json if asked.as_json else progress.Watch)(missing, asked.swept)
    before = {case.id: store.failure(case.id) for case in missing}
    failed = sum(why is not None for why in before.values())
    if asked.as_json:
        counts = {"cases": len(wanted), "finished": len(wanted) - len(missing), "failed_before": failed}
        kind.say("plan", **counts, folder=str(store.folder))
    else:
        _plan(asked, missing)
        if len(missing) < len(wanted) or failed:
            reasons = {
                i: f"failed before ({progress.first_line(why['error'])})" if why else "missing"
                for i, why in before.items()
            }
            show([f"{kind.label(i)}: {why}" for i, why in reasons.items()])
    stopped = ""
    signals = Interrupts()
    try:
        if missing:
            store.room()
        note(asked)
        if missing:
            _run(asked, missing, kind, signals)
    except KeyboardInterrupt:
        stopped, code = "interrupted", INTERRUPTED
    except (DiskFull, ConnectionError) as error:
        stopped, code = str(error), STOPPED
    _end(kind, asked, stopped)
    if stopped or kind.failed:
        raise typer.Exit(code if stopped else 1)


class Interrupts:
    """Ctrl-C and SIGTERM: raised as KeyboardInterrupt, but the first one is only noted while a loop looks itself.

    A signal arrives anywhere; raised in a finalizer, it would leave a traceback and be dropped.
    """

    def __init__(self):
        self.came, self._looked_at = False, False
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, self._arrived)

    def _arrived(self, *_) -> None:
        first, self.came = not self.came, True
        if not (first and self._looked_at):
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def looked_at(self) -> Iterator[Callable[[], bool]]:
        """While a loop asks again and again, by what it is given, whether one came."""
        self._looked_at = True
        try:
            yield lambda: self.came
        finally:
            self._looked_at = False


def _plan(asked: Asked, missing: list) -> None:
    whole = len(asked.cases)
    done = f"{whole - len(missing)} finished, {len(missing)} to run"
    typer.echo(f"{asked.chapter.name}: {counted(whole)}, {done}")


def _run(asked: Asked, missing: list, kind, signals: Interrupts) -> None:
    from . import cluster, page

    page.assets(asked.store.folder)
    notebook = json.loads(json.dumps(asked.chapter.notebook))
    notebook["cells"] += measures.cell(asked.measures, asked.records)
    workers = min(asked.at_a_time, len(missing))
    memory = asked.gigabytes and int(asked.gigabytes * 1e9)
    if not memory and asked.scheduler is None:
        memory = int(0.9 * kernels.memory() / workers)
    limits = cluster.Limits(asked.seconds, memory, asked.retries)
    with cluster.connected(asked.scheduler, workers, asked.retries) as client, kind:
        if sys.stderr.isatty() and client.dashboard_link and not asked.as_json:
            kind.note(f"dashboard: {client.dashboard_link}")
        with signals.looked_at() as came:
            cluster.run(client, asked.store, notebook, missing, limits, kind, asked.lacks, came)


def _end(kind, asked: Asked, stopped: str) -> None:
    store = asked.store
    left = [case for case in asked.cases if asked.lacks(case) and case.id not in kind.failed]
    if asked.as_json:
        kind.say("end", finished=len(kind.done), failed=len(kind.failed), left=len(left), stopped=stopped)
        return
    for case_id, error in kind.failed.items():
        place = store.place(case_id, failed=True)
        typer.echo(f"failed  {kind.label(case_id)}: {progress.first_line(error)}\n        {place}")
    typer.echo(f"{len(kind.done)} finished, {len(kind.failed)} failed, {len(left)} left: {store.folder}")
    if stopped:
        rest = "what is finished is kept: repeat the command to run the rest"
        typer.echo(f"grokutils: {stopped}; {rest}", err=True)


def note(asked: Asked) -> None:
    """Write down what was asked for; the same request has the same name whatever the code's version."""
    found = asked.chapter
    cases = {case.id: case.values for case in asked.cases}
    request = json.dumps([found.name, list(cases.values())], sort_keys=True)
    name = hashlib.sha256(request.encode()).hexdigest()[:8]
    path = asked.store.folder / "plans" / f"{name}.json"
    code = found.code()
    plan = {
        "sweep": name, "chapter": found.name, "title": found.title, "code": code, "version": chapter.version(),
        "commit": chapter.commit(), "swept": asked.swept, "measures": asked.measures, "cases": cases,
    }  # fmt: skip
    asked.store.write(path, json.dumps(plan))


def show(lines: list[str]) -> None:
    """Show a list, cut where it gets long."""
    for line in lines[:SHOWN]:
        typer.echo(f"  {line}")
    if len(lines) > SHOWN:
        typer.echo(f"  … and {len(lines) - SHOWN} more")


def counted(number: int) -> str:
    """So many cases, in words."""
    return f"{number} case{'s' if number > 1 else ''}"
