"""Simulated grokking: eq. 20 from random embeddings, by Euler steps or integrated with error control."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

import numpy as np
import torch
import xarray as xr
from scipy.integrate import RK23
from threadpoolctl import threadpool_limits
from torch import Tensor

from .. import _checks, _progress, records
from ..activations import activation as named
from ..errors import DivergedError, SingularGramError
from ..tasks import Task
from . import recording
from .closed_form import Inputs, Motion, check_width

METHODS = ("euler", "adaptive")
BLOWN_UP = 1e8  # growth of ‖E‖² from which no run comes back
ENDINGS = {DivergedError: "diverged", SingularGramError: "singular", KeyboardInterrupt: "interrupted"}


def simulate(
    task: Task | Sequence[Task],
    width: int = 512,
    activation="relu",
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    *,
    start: Tensor | None = None,
    init_std: float | None = None,
    method: str = "euler",
    step: float = 1e-3,
    tau_end: float = 5.0,
    lam: float = 0.0,
    tolerance: float = 1e-3,
    points: int = 120,
    snapshots: Sequence[float] = (),
    path=None,
    progress: bool = True,
) -> xr.Dataset:
    """Follow eq. 20, dE/dτ, from ``start`` or from E ~ N(0, init_std²) for each seed; the defaults are the study's figure 6.

    Runs go side by side on PyTorch's number of threads, each on one thread of its own, so that a seed's numbers
    do not depend on how many there are.

    Parameters
    ----------
    task : a task, or one for each seed, all of the same shapes.
    width : hidden units, more than training samples unless ``lam`` is positive.
    activation : a name or an elementwise callable.
    seeds : of the initial embeddings, one run each; with a ``start``, the runs' names.
    start : initial embeddings, (d_in, width) or one for each seed, in place of drawn ones.
    init_std : standard deviation of the initial entries; d_in^(−1/2) where it is left out.
    method : "euler" (steps of ``step``, as in the study) or "adaptive" (SciPy's RK23: at the kinks of ReLU a
        higher order gains nothing; local error below ``tolerance``, relative to each entry and to ``init_std``).
    step : of slow time τ for Euler; for both methods the finest spacing of the records.
    tau_end : slow time to stop at.
    lam : the study's λ; 0 for the limit λ → 0.
    points : number of records, close to evenly spaced in log τ.
    snapshots : slow times at which to keep the embeddings (at the nearest record).
    path : .nc file for the records. Finished runs are saved there as they finish; a repeated call with
        the same settings loads them and computes only the missing ones.
    progress : show a bar where somebody watches.

    Returns
    -------
    Dataset with dims (run, step), named as in :data:`grokutils.records.SCHEMA`: ``train_loss``, ``test_loss``,
    ``residual``, ``norm2_E``, ``norm2_W``, ``norm2``, ``cost``, ``condition``, ``evaluations``; where the targets are
    classes, ``train_accuracy`` and ``test_accuracy``, and for a table also ``prediction`` (run, step, pair) with
    coordinates a, b, and ``is_train`` (run, pair). With ``snapshots``: ``E`` (run, snapshot, token, unit).

    Raises
    ------
    ValueError
        A bad argument, before any work starts; or a ``path`` that holds records of other settings.
    SingularGramError, DivergedError, KeyboardInterrupt
        What stopped a run. The exception's ``records`` has all that was computed, unfinished runs included.
    """
    seeds = [_checks.integer("seeds", seed, 0, 2**63 - 1) for seed in _several("seeds", seeds)]
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds = {seeds!r}: must be one or more different integers")
    tasks = [task] * len(seeds) if isinstance(task, Task) else list(_several("task", task))
    _checks.same("numbers of tasks and seeds", task=len(tasks), seeds=len(seeds))
    plan = _plan(
        tasks, start, width=width, activation=activation, init_std=init_std, method=method, step=step,
        tau_end=tau_end, lam=lam, tolerance=tolerance, points=points, snapshots=snapshots,
    )  # fmt: skip
    starts = [None] * len(seeds) if start is None else list(_starts(start, len(seeds)))
    described = recording.described(tasks[0], plan)
    wanted = dict(zip(seeds, zip(tasks, starts, strict=True), strict=True))
    done = recording.stored(path, described, wanted) if path is not None else {}
    missing = {seed: given for seed, given in wanted.items() if seed not in done}
    partial: dict[int, xr.Dataset] = {}
    try:
        for seed, run in _side_by_side(missing, plan, partial, progress):
            done[seed] = run
            if path is not None:
                records.save(recording.joined(done, described), path)
    except tuple(ENDINGS) as stopped:
        reached = {**done, **partial}
        stopped.records = recording.joined(
            {seed: reached[seed] for seed in seeds if seed in reached}, described, ENDINGS[type(stopped)]
        )
        raise
    return recording.joined({seed: done[seed] for seed in seeds}, described)


def _several(name: str, values) -> Iterable:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ValueError(f"{name} = {values!r}: must be a sequence")
    return values


def _starts(start: Tensor, runs: int) -> Tensor:
    """One start for each run, (runs, d_in, width)."""
    return start.expand(runs, -1, -1) if start.ndim == 2 else start


def _plan(
    tasks, start, *, width, activation, init_std, method, step, tau_end, lam, tolerance, points, snapshots
) -> recording.Plan:
    """Every argument checked, before any work."""
    width = _checks.integer("width", width, 1)
    lam = _checks.real("lam", lam, 0)
    for task in tasks:
        if not isinstance(task, Task):
            raise ValueError(f"task = {task!r}: must be a Task, or one for each seed")
        for name in recording.DATA:
            array, first = (_checks.tensor(name, getattr(t, name), ndim=2) for t in (task, tasks[0]))
            _checks.same(f"shapes of {name}", first=tuple(first.shape), other=tuple(array.shape))
            _checks.same("dtypes", X_train=tasks[0].X_train.dtype, other=array.dtype)
        if lam == 0:
            check_width(width, task.n_train)
    _checks.one_of("method", method, METHODS)
    X = tasks[0].X_train
    if start is not None:
        shape = (X.shape[1], width)
        _checks.same("dtypes", X_train=X.dtype, start=_checks.tensor("start", start).dtype)
        if init_std is not None or tuple(start.shape) not in (shape, (len(tasks), *shape)):
            raise ValueError(
                f"start has shape {tuple(start.shape)}: must be {shape} or {(len(tasks), *shape)}, without init_std"
            )
        init_std = float(start.square().mean().sqrt())
    init_std = (
        X.shape[1] ** -0.5 if init_std is None else _checks.real("init_std", init_std, 0, open_low=True)
    )
    step = _checks.real("step", step, 0, 1, open_low=True)
    tau_end = _checks.real("tau_end", tau_end, step)
    return recording.Plan(
        width=width,
        sigma=named(activation),
        init_std=init_std,
        method=method,
        step=step,
        grid=records.log_spaced(round(tau_end / step), points) * step,
        lam=lam,
        tolerance=_checks.real("tolerance", tolerance, 1e-12, 0.1),
        snapshots=tuple(
            _checks.real("snapshots", tau, 0, tau_end) for tau in _several("snapshots", snapshots)
        ),
    )


def _side_by_side(
    missing: dict[int, tuple[Task, Tensor | None]],
    plan: recording.Plan,
    partial: dict[int, xr.Dataset],
    progress: bool,
) -> Iterator[tuple[int, xr.Dataset]]:
    """Yield (seed, run) as runs finish; when one fails or the user interrupts, ``partial`` holds the others."""
    halt = threading.Event()
    total = len(missing) * len(plan.grid)
    with (
        _one_thread_each() as threads,
        _progress.bar(total, "eq. 20", progress) as bar,
        ThreadPoolExecutor(max_workers=threads) as pool,
    ):
        waiting: dict[Future, int] = {}
        logs: dict[int, list[dict]] = {seed: [] for seed in missing}
        try:
            for seed, given in missing.items():
                waiting[pool.submit(_run, seed, *given, plan, logs[seed], bar, halt)] = seed
            while waiting:
                finished, _ = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                    seed = waiting.pop(future)
                    yield seed, recording.as_dataset(logs.pop(seed), *missing[seed], plan)
        finally:
            halt.set()
            wait(waiting)
            partial.update(
                {s: recording.as_dataset(log, *missing[s], plan) for s, log in logs.items() if log}
            )


@contextmanager
def _one_thread_each() -> Iterator[int]:
    """Give each run one BLAS thread; yields how many runs may go side by side."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield threads
    finally:
        torch.set_num_threads(threads)


def _run(
    seed: int,
    task: Task,
    start: Tensor | None,
    plan: recording.Plan,
    log: list[dict],
    bar,
    halt: threading.Event,
) -> None:
    """One run; its records go to ``log`` as they are made."""
    torch.set_num_threads(1)  # PyTorch keeps this for each thread that it works in
    X = Inputs(task.X_train)
    if start is None:
        generator, shape = torch.Generator().manual_seed(seed), (task.X_train.shape[1], plan.width)
        start = plan.init_std * torch.randn(shape, generator=generator, dtype=task.X_train.dtype)

    def motion(E: Tensor) -> Motion:
        return Motion(E, X, task.Y_train, plan.sigma, plan.lam)

    path = {"euler": _euler, "adaptive": _adaptive}[plan.method]
    with torch.no_grad():
        for tau, at, evaluations in path(start, motion, plan, halt):
            kept = {"E": at.E.clone()} if len(log) in plan.kept else {}
            log.append({"tau": tau, "evaluations": evaluations, **recording.measured(at, task, plan), **kept})
            bar.update()


Course = Iterator[tuple[float, Motion, int]]  # slow time, state, evaluations so far


def _euler(E: Tensor, motion: Callable[[Tensor], Motion], s: recording.Plan, halt) -> Course:
    """The study's steps, E ← E + step · dE/dτ."""
    limit = BLOWN_UP * E.square().sum()
    at = motion(E)
    yield 0.0, at, 0
    done = 0
    for tau in s.grid[1:]:
        while done < round(tau / s.step):
            if halt.is_set():
                return
            E = torch.add(at.E, at.velocity, alpha=s.step)
            done += 1
            if not E.square().sum() <= limit:
                raise _too_large(s.step, f"the embeddings blew up at step {done}")
            try:
                at = motion(E)
            except SingularGramError as singular:
                # The cost is a barrier before every singular HHᵀ, so only a step that leaps over it gets there.
                raise _too_large(s.step, f"HHᵀ became singular at step {done}") from singular
        yield float(tau), at, done


def _too_large(step: float, what: str) -> DivergedError:
    return DivergedError(
        f'step = {step:g}: {what}; take a smaller step or method="adaptive"',
        None,  # simulate knows the records
    )


def _adaptive(E: Tensor, motion: Callable[[Tensor], Motion], s: recording.Plan, halt) -> Course:
    """The exact flow to within the tolerance."""

    def state(flat: np.ndarray) -> Tensor:
        return torch.from_numpy(flat).to(E.dtype).view_as(E)

    def slope(_, flat: np.ndarray) -> np.ndarray:
        if halt.is_set():
            raise InterruptedError
        return motion(state(flat)).velocity.numpy().ravel()

    yield 0.0, motion(E), 0
    try:
        solver = RK23(
            slope, 0.0, E.numpy().ravel(), s.grid[-1], rtol=s.tolerance, atol=s.tolerance * s.init_std
        )
        ahead = 1
        while solver.status == "running":
            trouble = solver.step()
            if solver.status == "failed":
                raise DivergedError(f"tolerance = {s.tolerance:g}: no step is small enough ({trouble})", None)
            between = solver.dense_output()
            while ahead < len(s.grid) and s.grid[ahead] <= solver.t:
                yield float(s.grid[ahead]), motion(state(between(s.grid[ahead]))), solver.nfev
                ahead += 1
    except InterruptedError:
        return
