"""Cases on Dask workers: a cluster of this machine's cores, or any scheduler by its address."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import queue
import signal
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import dask
import psutil
from distributed import Client, KilledWorker, LocalCluster, WorkerPlugin

from . import chapter, execution
from .cases import Case
from .chapter import Refused
from .store import Store

PATIENCE = 5  # seconds for a scheduler to answer, and for its first worker to come
GLANCE = 0.5  # seconds between looks at what another command has finished


class SchedulerLost(Exception):  # noqa: N818
    """The scheduler is gone; what was finished is kept."""


@dataclass(frozen=True)
class Limits:
    """What one case may take."""

    seconds: float | None
    memory: int | None  # bytes
    retries: int  # after a lost worker or a dead kernel; an error in the notebook would only come again


class _NoInterrupt(WorkerPlugin):
    """Ctrl-C in a terminal goes to every process there; the command alone decides what it means."""

    name = "grokutils-no-interrupt"

    def setup(self, worker) -> None:
        with contextlib.suppress(ValueError):  # not the worker's main thread
            signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def connected(address: str | None, workers: int, retries: int) -> Iterator[Client]:
    """A client of the scheduler at ``address``, or of ``workers`` processes of this machine, on loopback only.

    Raises
    ------
    Refused
        No scheduler answers at ``address``, or it has no worker.
    """
    for name in ("distributed", "tornado", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        if address is None:
            stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": retries}))
            scratch = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="grokutils-", ignore_cleanup_errors=True)
            )
            dashboard = "127.0.0.1:0" if importlib.util.find_spec("bokeh") else None
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address=dashboard,
                memory_limit=0,  # kernels are processes of their own, with a limit of ours
                local_directory=scratch,
                silence_logs=logging.CRITICAL,
            )
            client = Client(stack.enter_context(cluster))
            stack.callback(client.close)
            client.register_plugin(_NoInterrupt())
        else:
            try:
                client = Client(address, timeout=PATIENCE)
            except (OSError, ValueError, TypeError, ImportError) as error:
                raise Refused(f"--scheduler '{address}': no Dask scheduler answers there") from error
            stack.callback(_close, client)
            try:
                client.wait_for_workers(1, timeout=PATIENCE)
            except TimeoutError as error:
                raise Refused(
                    f"--scheduler '{address}': it has no workers; start some, then repeat"
                ) from error
        yield client


def _close(client: Client) -> None:
    """Leave a scheduler, which may be gone: what ended the work is said, not that leaving failed."""
    with contextlib.suppress(OSError, RuntimeError):  # TimeoutError and Dask's own are OSErrors
        client.close(timeout=PATIENCE)


def share_of_memory(workers: int) -> int:
    """Bytes that each of ``workers`` cases at a time may take of this machine."""
    return int(0.9 * psutil.virtual_memory().total / workers)


def run(
    client: Client, store: Store, notebook: dict, cases: list[Case], limits: Limits, threads: int, watch
) -> None:
    """Run ``cases``, each kept as soon as it is finished; ``watch`` is told all that happens.

    Raises
    ------
    SchedulerLost, DiskFull
        Nothing more can be done now. What was finished is kept.
    """
    began = time.time()
    waiting, running, tries = deque(cases), {}, dict.fromkeys((case.id for case in cases), 0)
    finished: queue.SimpleQueue = queue.SimpleQueue()
    client.subscribe_topic(
        execution.TOPIC, lambda event: watch.cell(*(event[1][key] for key in ("case", "cell", "cells")))
    )

    def submit(case: Case) -> None:
        tries[case.id] += 1
        future = client.submit(
            execution.execute,
            notebook,
            case.values,
            case.id,
            chapter.version(),
            threads,
            limits.seconds,
            limits.memory,
            key=f"{case.id}-{os.getpid()}-{tries[case.id]}",
            pure=False,
        )
        running[future.key] = case, future
        future.add_done_callback(finished.put)

    def start() -> None:
        """Claim and submit cases while there are workers for them; those that another command has wait."""
        room = 2 * sum(client.nthreads().values())
        for _ in range(len(waiting)):
            if len(running) >= max(room, 1):
                return
            case = waiting.popleft()
            if store.done(case.id):
                watch.elsewhere(case)
            elif not store.claim(case.id):
                waiting.append(case)
            elif store.done(case.id) or _failed_since(store, case.id, began):
                store.release(case.id)
                watch.elsewhere(case)
            else:
                watch.submitted(case)
                submit(case)

    def finish(future) -> None:
        case, _ = running.pop(future.key)
        if future.status in ("cancelled", "lost"):
            raise SchedulerLost
        if future.status == "error":
            error = future.exception()
            often = f"its worker died, {limits.retries + 1} times"
            result = execution.lost(
                often if isinstance(error, KilledWorker) else f"{type(error).__name__}: {error}"
            )
        else:
            try:
                result = future.result(timeout=60)
            except Exception as error:
                raise SchedulerLost from error
        if result["status"] == "died" and tries[case.id] <= limits.retries:
            watch.again(case, result["error"])
            submit(case)
            return
        result["tries"] = tries[case.id]
        store.keep_result(case, result)
        store.release(case.id)
        watch.finished(case, result)

    try:
        while waiting or running:
            if client.status != "running":
                raise SchedulerLost
            with _as_lost():
                start()
            with contextlib.suppress(queue.Empty):
                finish(finished.get(timeout=GLANCE))
    finally:
        with contextlib.suppress(Exception):
            client.unsubscribe_topic(execution.TOPIC)
            client.cancel([future for _, future in running.values()], force=True)


def _failed_since(store: Store, case_id: str, began: float) -> bool:
    place = store.place(case_id, failed=True) / "case.json"
    return place.exists() and place.stat().st_mtime > began


@contextlib.contextmanager
def _as_lost():
    try:
        yield
    except (OSError, TimeoutError) as error:
        if type(error).__module__.startswith("distributed") or isinstance(error, TimeoutError):
            raise SchedulerLost from error
        raise
