"""One command's work: what of its cases is missing, run; what became of them, said."""

from __future__ import annotations

import hashlib
import json
import signal

import typer

from . import chapter, progress
from .store import DiskFull, Store

STOPPED, INTERRUPTED = 3, 130  # exit codes besides 0 and 1, which says that a case failed
SHOWN = 10  # cases that a list shows before it is cut


def work(found, notebook, wanted, extra, store, scheduler, workers, limits, as_json, threads) -> None:
    """Run what is missing of ``wanted``; leaves by typer.Exit unless everything is there."""
    swept = [name for name in found.parameters if len({json.dumps(case.values[name]) for case in wanted}) > 1]
    missing = [case for case in wanted if not store.done(case.id)]
    kind = progress.watch(missing, swept, as_json)
    before = {case.id: store.failure(case.id) for case in missing}
    failed = sum(why is not None for why in before.values())
    if as_json:
        kind.say(
            "plan",
            cases=len(wanted),
            finished=len(wanted) - len(missing),
            failed_before=failed,
            folder=str(store.folder),
        )
    else:
        typer.echo(
            f"{found.name}: {counted(len(wanted))}, {len(wanted) - len(missing)} finished, {len(missing)} to run"
        )
        if len(missing) < len(wanted) or failed:
            reasons = {
                i: f"failed before ({why['error'].splitlines()[0]})" if why else "missing"
                for i, why in before.items()
            }
            show([f"{kind.label(i)}: {why}" for i, why in reasons.items()])
    stopped = ""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        note(found, wanted, swept, extra, store)
        if missing:
            _run(notebook, missing, store, scheduler, workers, limits, threads, kind)
    except KeyboardInterrupt:
        stopped, code = "interrupted", INTERRUPTED
    except (DiskFull, ConnectionError) as error:
        stopped, code = str(error), STOPPED
    _end(kind, store, wanted, stopped, as_json)
    if stopped or kind.failed:
        raise typer.Exit(code if stopped else 1)


def _run(notebook, missing, store, scheduler, workers, limits, threads, kind) -> None:
    from . import cluster, page

    page.assets(store.folder)
    seconds, gigabytes, retries = limits
    memory = int(gigabytes * 1e9) if gigabytes else None if scheduler else cluster.share_of_memory(workers)
    with cluster.connected(scheduler, workers, retries) as client, kind:
        if isinstance(kind, progress.Lines) and client.dashboard_link and not scheduler:
            typer.echo(f"dashboard: {client.dashboard_link}", err=True)
        try:
            cluster.run(
                client, store, notebook, missing, cluster.Limits(seconds, memory, retries),
                1 if scheduler else threads, kind,
            )  # fmt: skip
        except cluster.SchedulerLost:
            raise ConnectionError("the scheduler was lost") from None


def _end(kind, store: Store, wanted: list, stopped: str, as_json: bool) -> None:
    left = [case for case in wanted if not store.done(case.id) and case.id not in kind.failed]
    if as_json:
        facts = {
            "finished": len(kind.done),
            "failed": len(kind.failed),
            "left": len(left),
            "stopped": stopped,
        }
        kind.say("end", **facts)
        return
    for case_id, error in kind.failed.items():
        typer.echo(
            f"failed  {kind.label(case_id)}: {error.splitlines()[0]}\n        {store.place(case_id, failed=True)}"
        )
    typer.echo(f"{len(kind.done)} finished, {len(kind.failed)} failed, {len(left)} left: {store.folder}")
    if stopped:
        typer.echo(
            f"grokutils: {stopped}; what is finished is kept: repeat the command to run the rest", err=True
        )


def note(found: chapter.Chapter, wanted: list, swept: list[str], extra: str, store: Store) -> None:
    """Write down what was asked for; the same request has the same name whatever the code's version."""
    values = [case.values for case in wanted]
    name = hashlib.sha256(json.dumps([found.name, values, extra], sort_keys=True).encode()).hexdigest()[:8]
    plan = {
        "sweep": name, "chapter": found.name, "title": found.title,
        "code": found.code(), "swept": swept, "cases": {case.id: case.values for case in wanted},
    }  # fmt: skip
    store.write(store.folder / "plans" / f"{name}.json", json.dumps(plan, ensure_ascii=False))


def show(lines: list[str]) -> None:
    """Show a list, cut where it gets long."""
    for line in lines[:SHOWN]:
        typer.echo(f"  {line}")
    if len(lines) > SHOWN:
        typer.echo(f"  … and {len(lines) - SHOWN} more")


def counted(number: int) -> str:
    """So many cases, in words."""
    return f"{number} case{'s' if number > 1 else ''}"
