"""Simulated grokking: eq. 20 from random embeddings, by Euler steps or integrated with error control."""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from scipy.integrate import RK23
from scipy.linalg import lapack
from threadpoolctl import threadpool_limits
from torch import Tensor

from .. import _checks, _progress, records
from ..activations import NAMED, Activation, activation
from ..tasks import Task
from .closed_form import Motion, SingularGramError, check_width

METHODS = ("euler", "adaptive")
DATA = ("X_train", "Y_train", "X_test", "Y_test")
BLOWN_UP = 1e8  # growth of ‖E‖² from which no run comes back


class DivergedError(ArithmeticError):
    """A step that made the embeddings blow up."""


@dataclass(frozen=True)
class _Settings:
    """One run's settings; ``grid`` holds the slow times at which it is recorded."""

    width: int
    sigma: Activation
    init_std: float
    method: str
    step: float
    grid: np.ndarray
    weight_decay: float
    tolerance: float
    snapshots: tuple[float, ...]

    @property
    def kept(self) -> list[int]:
        """The records nearest to the snapshots' slow times."""
        return sorted({int(np.abs(self.grid - tau).argmin()) for tau in self.snapshots})


def simulate(
    task: Task | Sequence[Task],
    width: int = 512,
    activation="relu",
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    *,
    init_std: float | None = None,
    method: str = "euler",
    step: float = 1e-3,
    tau_end: float = 5.0,
    weight_decay: float = 0.0,
    tolerance: float = 1e-3,
    points: int = 120,
    snapshots: Sequence[float] = (),
    path=None,
    progress: bool = True,
) -> xr.Dataset:
    """Follow eq. 20, dE/dτ, from E ~ N(0, init_std²) for each seed; the defaults are the study's figure 6.

    Runs go side by side on PyTorch's number of threads, each on one thread of its own, so that a seed's numbers
    do not depend on how many there are.

    Parameters
    ----------
    task : a task, or one for each seed, all of the same shapes.
    width : hidden units, more than training samples unless ``weight_decay`` is positive.
    activation : a name or an elementwise callable.
    seeds : of the initial embeddings, one run each.
    init_std : standard deviation of the initial entries; d_in^(−1/2) where it is left out.
    method : "euler" (steps of ``step``, as in the study) or "adaptive" (SciPy's RK23: at the kinks of ReLU a
        higher order gains nothing; local error below ``tolerance``, relative to each entry and to ``init_std``).
    step : of slow time τ for Euler; for both methods the finest spacing of the records.
    tau_end : slow time to stop at.
    weight_decay : the study's λ; 0 for the limit λ → 0.
    points : number of records, close to evenly spaced in log τ.
    snapshots : slow times at which to keep the embeddings (at the nearest record).
    path : .nc file for the records. Finished runs are saved there as they finish; a repeated call with
        the same settings loads them and computes only the missing ones.
    progress : show a bar where somebody watches.

    Returns
    -------
    Dataset with dims (run, step): ``tau``, ``evaluations`` of eq. 20 so far, ``test_accuracy``,
    ``train_accuracy``, ``test_loss`` (mean over samples of ‖ŷ − y‖²), ``residual`` ‖HW − Y‖/‖Y‖,
    ``norm_E`` and ``norm_W`` (squared Frobenius norms), ``cost``, ``condition`` (LAPACK's estimate in the
    1-norm, of HHᵀ + λI), ``data`` (run; a checksum of the run's task). For a modular task ``prediction`` (run, step, pair) with coordinates a, b, and
    ``is_train`` (run, pair). With ``snapshots``: ``E`` (run, snapshot, token, unit).

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
    settings = _settings(
        tasks, width, activation, init_std, method, step, tau_end, weight_decay, tolerance, points, snapshots
    )
    described = _described(tasks[0], settings)
    wanted = dict(zip(seeds, tasks, strict=True))
    done = _stored(path, described, wanted) if path is not None else {}
    missing = {seed: task for seed, task in wanted.items() if seed not in done}
    partial: dict[int, xr.Dataset] = {}
    try:
        for seed, run in _side_by_side(missing, settings, partial, progress):
            done[seed] = run
            if path is not None:
                records.save(_joined(done, described), path)
    except (SingularGramError, DivergedError, KeyboardInterrupt) as stopped:
        reached = {**done, **partial}
        stopped.records = _joined({seed: reached[seed] for seed in seeds if seed in reached}, described)
        raise
    return _joined({seed: done[seed] for seed in seeds}, described)


def _several(name: str, values) -> Iterable:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ValueError(f"{name} = {values!r}: must be a sequence")
    return values


def _settings(
    tasks, width, spec, init_std, method, step, tau_end, weight_decay, tolerance, points, snapshots
) -> _Settings:
    """Every argument checked, before any work."""
    width = _checks.integer("width", width, 1)
    weight_decay = _checks.real("weight_decay", weight_decay, 0)
    for task in tasks:
        if not isinstance(task, Task):
            raise ValueError(f"task = {task!r}: must be a Task, or one for each seed")
        for name in DATA:
            array, first = (_checks.tensor(name, getattr(t, name), ndim=2) for t in (task, tasks[0]))
            _checks.same(f"shapes of {name}", first=tuple(first.shape), other=tuple(array.shape))
            _checks.same("dtypes", X_train=tasks[0].X_train.dtype, other=array.dtype)
        if weight_decay == 0:
            check_width(width, task.n_train)
    _checks.one_of("method", method, METHODS)
    d_in = tasks[0].X_train.shape[1]
    init_std = d_in**-0.5 if init_std is None else _checks.real("init_std", init_std, 0, open_low=True)
    step = _checks.real("step", step, 0, 1, open_low=True)
    tau_end = _checks.real("tau_end", tau_end, step)
    tolerance = _checks.real("tolerance", tolerance, 1e-12, 0.1)
    grid = records.log_spaced(round(tau_end / step), points) * step
    kept = tuple(_checks.real("snapshots", tau, 0, tau_end) for tau in _several("snapshots", snapshots))
    return _Settings(width, activation(spec), init_std, method, step, grid, weight_decay, tolerance, kept)


def _described(task: Task, s: _Settings) -> dict:
    """Settings as dataset attributes."""
    return {
        "task": task.name,
        "width": s.width,
        "activation": s.sigma.name if s.sigma.name in NAMED else _sampled(s.sigma),
        "init_std": s.init_std,
        "method": s.method,
        "step": s.step,
        "tau_end": float(s.grid[-1]),
        "weight_decay": s.weight_decay,
        "tolerance": s.tolerance if s.method == "adaptive" else 0.0,
        "points": len(s.grid),
        "snapshots": json.dumps(s.snapshots),
        **records.provenance(),
    }


def _sampled(sigma: Activation) -> str:
    """A callable's name and some of its values: two lambdas have the same name."""
    values = sigma.value(torch.linspace(-2, 2, 9, dtype=torch.float64))
    return f"{sigma.name}: {' '.join(f'{value:.5g}' for value in values.tolist())}"


def _checksum(task: Task) -> int:
    """Of a task's data: tasks of one name differ by split."""
    crc = 0
    for name in DATA:
        crc = zlib.crc32(getattr(task, name).contiguous().numpy(), crc)
    return crc


def _stored(path, described: dict, wanted: dict[int, Task]) -> dict[int, xr.Dataset]:
    """Finished runs at ``path``, by seed."""
    path = records.writable(path)
    if not Path(path).exists():
        return {}
    try:
        stored = records.load(path)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"path = '{path}': is not a file of records ({error}); choose another path"
        ) from error
    there = {key: np.asarray(stored.attrs.get(key)).item() for key in described}
    other = {key: value for key, value in there.items() if value != described[key]}
    if other:
        raise ValueError(f"path = '{path}': holds records of other settings, {other}; choose another path")
    done = {int(seed): stored.isel(run=i, drop=True) for i, seed in enumerate(stored.seed.values)}
    for seed, task in wanted.items():
        if seed in done and int(done[seed]["data"].item()) != _checksum(task):
            raise ValueError(f"path = '{path}': holds seed {seed} of other data; choose another path")
    return done


def _joined(runs: dict[int, xr.Dataset], described: dict) -> xr.Dataset:
    """Runs as one dataset; an unfinished run has NaN where it did not get."""
    if not runs:
        return xr.Dataset(attrs=described)
    whole = xr.concat(
        list(runs.values()), dim="run", join="outer", data_vars="all", coords="minimal", compat="override"
    )
    longest = max(runs.values(), key=lambda run: run.sizes["step"])
    return whole.assign_coords(
        run=np.arange(len(runs)), seed=("run", list(runs)), tau=("step", longest["tau"].data)
    ).assign_attrs(described)


def _side_by_side(
    missing: dict[int, Task], settings: _Settings, partial: dict[int, xr.Dataset], progress: bool
) -> Iterator[tuple[int, xr.Dataset]]:
    """Yield (seed, run) as runs finish; when one fails or the user interrupts, ``partial`` holds the others."""
    halt = threading.Event()
    total = len(missing) * len(settings.grid)
    with (
        _one_thread_each() as threads,
        _progress.bar(total, "eq. 20", progress) as bar,
        ThreadPoolExecutor(max_workers=threads) as pool,
    ):
        waiting: dict[Future, int] = {}
        logs: dict[int, list[dict]] = {seed: [] for seed in missing}
        try:
            for seed, task in missing.items():
                waiting[pool.submit(_run, seed, task, settings, logs[seed], bar, halt)] = seed
            while waiting:
                finished, _ = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                    seed = waiting.pop(future)
                    yield seed, _as_dataset(logs.pop(seed), missing[seed], settings)
        finally:
            halt.set()
            wait(waiting)
            partial.update({s: _as_dataset(log, missing[s], settings) for s, log in logs.items() if log})


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


def _run(seed: int, task: Task, settings: _Settings, log: list[dict], bar, halt: threading.Event) -> None:
    """One run; its records go to ``log`` as they are made."""
    torch.set_num_threads(1)  # PyTorch keeps this for each thread that it works in
    d_in = task.X_train.shape[1]
    generator = torch.Generator().manual_seed(seed)
    E = torch.randn(d_in, settings.width, generator=generator, dtype=task.X_train.dtype) * settings.init_std
    path = {"euler": _euler, "adaptive": _adaptive}[settings.method]
    for tau, E, evaluations in path(E, task, settings, halt):  # noqa: B020
        kept = {"E": E} if len(log) in settings.kept else {}
        log.append({"tau": tau, "evaluations": evaluations, **_measured(E, task, settings), **kept})
        bar.update()


def _motion(E: Tensor, task: Task, s: _Settings) -> Motion:
    return Motion(E, task.X_train, task.Y_train, s.sigma, s.weight_decay)


def _euler(E: Tensor, task: Task, s: _Settings, halt) -> Iterator[tuple[float, Tensor, int]]:
    """The study's steps, E ← E + step · dE/dτ."""
    limit = BLOWN_UP * E.square().sum()
    yield 0.0, E, 0
    done = 0
    for tau in s.grid[1:]:
        while done < round(tau / s.step):
            if halt.is_set():
                return
            E = E + s.step * _motion(E, task, s).velocity
            done += 1
            if not E.square().sum() <= limit:
                raise DivergedError(
                    f"step = {s.step:g}: the embeddings blew up at step {done}; "
                    'take a smaller step or method="adaptive"'
                )
        yield float(tau), E, done


def _adaptive(E: Tensor, task: Task, s: _Settings, halt) -> Iterator[tuple[float, Tensor, int]]:
    """The exact flow to within the tolerance."""

    def slope(_, flat: np.ndarray) -> np.ndarray:
        if halt.is_set():
            raise InterruptedError
        at = torch.from_numpy(flat).to(E.dtype).view_as(E)
        return _motion(at, task, s).velocity.numpy().ravel()

    yield 0.0, E, 0
    try:
        solver = RK23(
            slope, 0.0, E.numpy().ravel(), s.grid[-1], rtol=s.tolerance, atol=s.tolerance * s.init_std
        )
        ahead = 1
        while solver.status == "running":
            trouble = solver.step()
            if solver.status == "failed":
                raise DivergedError(f"tolerance = {s.tolerance:g}: no step is small enough ({trouble})")
            between = solver.dense_output()
            while ahead < len(s.grid) and s.grid[ahead] <= solver.t:
                at = torch.from_numpy(between(s.grid[ahead])).to(E.dtype).view_as(E)
                yield float(s.grid[ahead]), at, solver.nfev
                ahead += 1
    except InterruptedError:
        return


def _measured(E: Tensor, task: Task, s: _Settings) -> dict:
    """What is recorded of one state."""
    at = _motion(E, task, s)
    W = at.readout
    trained = at.H @ W  # (n_train, d_out)
    tested = s.sigma.value(task.X_test @ E) @ W  # (n_test, d_out)
    norm_E, norm_W = E.square().sum(), W.square().sum()
    return {
        "test_accuracy": _accuracy(tested, task.Y_test),
        "train_accuracy": _accuracy(trained, task.Y_train),
        "test_loss": float((tested - task.Y_test).square().sum(1).mean()),
        "residual": float((trained - task.Y_train).norm() / task.Y_train.norm()),
        "norm_E": float(norm_E),
        "norm_W": float(norm_W),
        "cost": float(norm_E + (task.Y_train * at.AY).sum()),
        "condition": _condition(at, s.weight_decay),
        "prediction": torch.cat([trained, tested]).argmax(1).numpy().astype(np.int16),
    }


def _accuracy(outputs: Tensor, Y: Tensor) -> float:
    return float((outputs.argmax(1) == Y.argmax(1)).double().mean())


def _condition(at: Motion, weight_decay: float) -> float:
    """LAPACK's 1-norm condition estimate from the Cholesky factor: O(n²), where an exact one is O(n³)."""
    factor = at.factor.double().numpy()
    norm = np.linalg.norm(at.gram.double().numpy(), 1) + weight_decay  # HHᵀ has no negative diagonal entry
    reciprocal, _ = lapack.dpocon(factor, norm, uplo="L")
    return float(1 / reciprocal) if reciprocal else np.inf


def _as_dataset(log: list[dict], task: Task, s: _Settings) -> xr.Dataset:
    """One run's records."""
    scalars = [key for key in log[0] if key not in ("tau", "prediction", "E")]
    run = xr.Dataset(
        {key: ("step", [entry[key] for entry in log]) for key in scalars},
        coords={"step": np.arange(len(log)), "tau": ("step", [entry["tau"] for entry in log])},
    )
    if task.p is not None:
        pairs = torch.cat([task.pairs_train, task.pairs_test]).numpy()
        order = np.lexsort((pairs[:, 1], pairs[:, 0]))  # the same order for every split
        predictions = np.stack([entry["prediction"] for entry in log])[:, order]
        run["prediction"] = (("step", "pair"), predictions)
        run["is_train"] = ("pair", order < task.n_train)
        run = run.assign_coords(a=("pair", pairs[order, 0]), b=("pair", pairs[order, 1]))
    if near := [log[i] for i in s.kept if i < len(log)]:  # an unfinished run has only those that it reached
        run["E"] = (("snapshot", "token", "unit"), np.stack([entry["E"].numpy() for entry in near]))
        run = run.assign_coords(snapshot=[entry["tau"] for entry in near])
    run["data"] = _checksum(task)
    return run
