"""Cases on Dask workers: a cluster of this machine's cores, or any scheduler by its address."""

from __future__ import annotations

import asyncio
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
from distributed import Client, KilledWorker, LocalCluster, WorkerPlugin, rpc
from distributed.security import Security

from . import chapter, execution
from .cases import Case
from .chapter import Refused
from .store import Store

PATIENCE = 5  # seconds for a scheduler to answer when the work starts
GLANCE = 0.5  # seconds between looks at what another command has finished
SILENT = 10  # seconds without a sign of life after which it is told
LOST = 60  # seconds without a scheduler's answer, or without a living worker, after which the work ends


class SchedulerLost(ConnectionError):  # noqa: N818
    """The scheduler or its workers are gone; what was finished is kept."""


class CodeChanged(ConnectionError):  # noqa: N818
    """grokutils is not any more what the sweep was planned with; nothing of the new code was filed."""


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
    for name in ["asyncio", *logging.root.manager.loggerDict]:
        if name.startswith(("distributed", "tornado", "asyncio")):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        yield _ours(stack, workers, retries) if address is None else _theirs(stack, address)


def _ours(stack: contextlib.ExitStack, workers: int, retries: int) -> Client:
    folder = tempfile.TemporaryDirectory(prefix="grokutils-", ignore_cleanup_errors=True)
    scratch = stack.enter_context(folder)
    # nothing of a reader's own Dask configuration, here or in the workers
    for name in [name for name in os.environ if name.startswith("DASK_")]:
        del os.environ[name]
    os.environ.update(DASK_CONFIG=scratch, DASK_ROOT_CONFIG=scratch)
    dask.config.refresh(paths=[])
    stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": retries}))
    cluster = LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0" if importlib.util.find_spec("bokeh") else None,
        memory_limit=0,  # kernels are processes of their own, with a limit of ours
        local_directory=scratch,
        silence_logs=logging.CRITICAL,
    )
    client = Client(stack.enter_context(cluster))
    stack.callback(client.close)
    client.register_plugin(_NoInterrupt())
    return client


def _theirs(stack: contextlib.ExitStack, address: str) -> Client:
    async def identity() -> dict:
        async with rpc(address, connection_args=Security().get_connection_args("client")) as scheduler:
            return await scheduler.identity()

    try:  # first a call that can be given up: a client may wait for ever
        known = asyncio.run(asyncio.wait_for(identity(), PATIENCE))
        client = Client(address, timeout=PATIENCE)
    except Exception as error:  # whatever listens there may answer anything
        why = f"no Dask scheduler answers there within {PATIENCE} s"
        raise Refused(f"--scheduler '{address}': {why}") from error
    stack.callback(_close, client)
    if not known["workers"]:
        raise Refused(f"--scheduler '{address}': it has no workers; start some, then repeat")
    return client


def _close(client: Client) -> None:
    """Leave a scheduler, which may be gone: what ended the work is said, not that leaving failed."""
    with contextlib.suppress(OSError, RuntimeError):  # TimeoutError and Dask's own are OSErrors
        client.close(timeout=PATIENCE)


class Pulse:
    """Signs of life of a scheduler and its workers."""

    def __init__(self, client: Client, watch):
        self.client, self.watch = client, watch
        self.threads = 0
        self._seen: dict[str, tuple] = {}  # of each worker: its last report, and when it came
        self._good = self._looked = time.monotonic()
        self._told, self._mute = False, set()

    def look(self) -> None:
        """Count the threads of living workers; tell of silence, and raise SchedulerLost when it lasts."""
        now = time.monotonic()
        if self.threads and now - self._looked < 4 * GLANCE:
            return
        why, alive = "the scheduler does not answer", {}
        try:
            workers = self.client.sync(self.client.scheduler.identity, callback_timeout=2)["workers"]
        except (TimeoutError, OSError):
            workers = {}
        else:
            why = "no worker is left" if not workers else "no worker gives a sign of life"
            for name, about in workers.items():
                last = about["last_seen"]
                if self._seen.get(name, (None,))[0] != last:
                    self._seen[name] = last, now
            alive = {n: w for n, w in workers.items() if now - self._seen[n][1] < SILENT}
            for name in workers.keys() - alive.keys() - self._mute:
                self.watch.note(f"worker {name} has given no sign of life for {SILENT} s; its cases wait")
            self._mute = workers.keys() - alive.keys()
        self._looked = now = time.monotonic()
        self.threads = sum(about["nthreads"] for about in alive.values())
        if alive:
            self._good = now
            if self._told:
                self.watch.note("workers are there again")
            self._told = False
        elif now - self._good > LOST:
            raise SchedulerLost(f"{why}, for {LOST} s")
        elif not self._told and now - self._good > GLANCE:
            self.watch.note(f"{why}; waiting for at most {LOST} s")
            self._told = True


def run(
    client: Client,
    store: Store,
    notebook: dict,
    cases: list[Case],
    limits: Limits,
    watch,
    lacks=None,
    interrupted=lambda: False,
) -> None:
    """Run ``cases``, each kept as soon as it is finished; ``watch`` is told all that happens.

    ``lacks`` says of a case whether it is still to be run (by default: unless it is finished), ``interrupted``
    whether the command was asked to end.

    Raises
    ------
    SchedulerLost, CodeChanged, DiskFull
        Nothing more can be done now. What was finished is kept.
    """
    version, lacks = chapter.version(), lacks or (lambda case: not store.done(case.id))
    before = {case.id: store.stamp(case.id) for case in cases}
    waiting, running, tries = deque(cases), {}, dict.fromkeys((case.id for case in cases), 0)
    finished: queue.SimpleQueue = queue.SimpleQueue()
    pulse = Pulse(client, watch)
    client.subscribe_topic(
        execution.TOPIC, lambda event: watch.cell(*(event[1][key] for key in ("case", "cell", "cells")))
    )

    def submit(case: Case) -> None:
        tries[case.id] += 1
        what = (notebook, case.values, case.id, version, limits.seconds, limits.memory)
        key = f"{case.id}-{os.getpid()}-{tries[case.id]}"
        future = client.submit(execution.execute, *what, key=key, pure=False)
        running[future.key] = case, future
        future.add_done_callback(finished.put)

    def start() -> None:
        """Claim and submit cases while there are workers for them; those that another command has wait."""
        for _ in range(len(waiting)):
            if len(running) >= max(2 * pulse.threads, 1):
                return
            case = waiting.popleft()
            if not store.claim(case.id):
                waiting.append(case)
            elif not lacks(case) or store.stamp(case.id) != before[case.id]:
                store.release(case.id)
                watch.finished(case, {"status": "elsewhere"})
            else:
                watch.submitted(case)
                submit(case)

    def finish(future) -> None:
        case, _ = running.pop(future.key)
        if future.status in ("cancelled", "lost"):
            raise SchedulerLost("the scheduler was lost")
        if future.status == "error":
            error = future.exception()
            why = f"{type(error).__name__}: {error}"
            if isinstance(error, KilledWorker):
                why = f"its worker died, {limits.retries + 1} times"
            result = execution.lost(why)
        else:
            try:
                result = future.result(timeout=60)
            except Exception as error:
                raise SchedulerLost("the scheduler was lost") from error
        if chapter.version() != version:
            raise CodeChanged("grokutils was changed on disk: nothing of the new code was kept")
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
            if interrupted():
                raise KeyboardInterrupt
            if client.status != "running":
                raise SchedulerLost("the scheduler was lost")
            pulse.look()
            start()
            with contextlib.suppress(queue.Empty):
                finish(finished.get(timeout=GLANCE))
    finally:
        with contextlib.suppress(Exception):
            client.unsubscribe_topic(execution.TOPIC)
            # cancelled, the workers' guards end the kernels
            futures = [future for _, future in running.values()]
            client.sync(client._cancel, futures, force=True, callback_timeout=PATIENCE)
