"""When will a network that has just memorized generalize? Its slow flow says, with nothing fitted.

Grokking is read off a continuous clock: the held-out loss falls to ``threshold`` times that of the output 0. One run of
gradient descent up to memorization, and one integration of the flow at the run's own λ from there, give the slow time
τ of that moment; the step follows from τ = lr·w·steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from . import _checks, records, slow_flow, training
from .networks import Network
from .slow_flow.two_layer import Point
from .tasks import Task

MEMORIZED = 0.05  # training loss, relative to that of the output 0, with all training samples right
LOOK = 20  # steps between looks whether a run has memorized
STABLE = 2.0  # lr times the largest curvature of the loss, beyond which gradient descent leaves its minimum
LEVEL = 0.05  # relative change of the time that goes with one of 2 % of the loss, beyond which the time is uncertain
LARGE_LOSS = 0.02  # relative training loss on the way above which the run is not near Z


@dataclass(frozen=True)
class Prediction:
    """What :func:`predict_delay` found; ``step`` is NaN where the flow does not generalize by its end."""

    step: float  # at which the held-out loss crosses the threshold
    error: float  # of ``step``, estimated: a coarser integration, and the finite step of gradient descent
    memorized: int  # step from which the flow was followed
    tau: float  # slow time of ``step``
    flow: xr.Dataset | None  # the path, with ``tau`` counted from the run's own start
    sharpness: tuple[float, float]  # lr times the largest curvature, at the start and at memorization
    warnings: tuple[str, ...]  # assumptions that do not hold
    theta: Tensor | None = None  # (d,), the memorized point

    def __str__(self) -> str:
        when = f"step {self.step:.4g} ± {self.error:.1g}" if np.isfinite(self.step) else "not within tau_end"
        return "; ".join([f"generalization at {when} (memorized at {self.memorized})", *self.warnings])


def predict_delay(
    network: Network,
    task: Task,
    lr: float,
    weight_decay: float,
    *,
    seed: int = 0,
    init_scale: float = 1.0,
    momentum: float = 0.0,
    threshold: float = 0.5,
    tau_end: float = 10.0,
    tolerance: float = 1e-4,
    patience: int = 20_000,
) -> Prediction:
    """Predict the step at which full-batch gradient descent on the mean squared error generalizes.

    Trains for as long as it takes to memorize, then follows the slow flow at λ = n·d_out·w/2 (:func:`slow_flow.follow`).

    Parameters
    ----------
    lr, weight_decay, momentum, seed, init_scale : of the run, in PyTorch's convention, as in :func:`training.train`.
    threshold : of the held-out loss, relative to that of the output 0.
    tau_end : slow time at which to give up. patience : steps within which the run must memorize.
    tolerance : of the flow.

    Raises
    ------
    ValueError
        Arguments that do not fit.
    """
    threshold = _checks.real("threshold", threshold, 0, open_low=True)
    w = _checks.real("weight_decay", weight_decay, 0, open_low=True)
    pace = (
        _checks.real("lr", lr, 0, open_low=True)
        * w
        / (1 - _checks.real("momentum", momentum, 0, 1, open_high=True))
    )
    start = network.init(seed, init_scale)
    sharp = lr * sharpness(network, start, task) / (1 + momentum)
    notes = [] if sharp < STABLE else [f"lr is {sharp / STABLE:.2g} times its stability limit at the start"]
    found = memorize(
        network, task, lr, w, seed=seed, init_scale=init_scale, momentum=momentum, patience=patience
    )
    if found is None:
        notes.append("the run does not memorize")
        return Prediction(np.nan, np.nan, patience, np.nan, None, (sharp, np.nan), tuple(notes))
    step, theta = found
    later = lr * sharpness(network, theta, task) / (1 + momentum)
    if later >= STABLE:
        notes.append(f"lr is {later / STABLE:.2g} times its stability limit at memorization")
    lam, begin = task.Y_train.numel() * w / 2, pace * step
    fine, coarse = (
        slow_flow.follow(network, theta, task, max(tau_end - begin, pace), lam, each, until=0.98 * threshold)
        for each in (tolerance, 4 * tolerance)
    )
    fine = fine.assign_coords(tau=fine.tau + begin)
    tau, other = crossing(fine, task, threshold), begin + crossing(coarse, task, threshold)
    if tau - crossing(fine, task, 1.02 * threshold) > LEVEL * tau:
        notes.append("the held-out loss is almost level at the threshold: the time is ill-determined")
    if float(fine.train_loss[-1]) > LARGE_LOSS * float(task.Y_train.square().mean()):
        notes.append("weight decay is large: the training loss does not stay small")
    smallest = (
        float(torch.linalg.eigvalsh(Point(network, theta, task.X_train).gram())[0])
        if _small(task)
        else np.nan
    )
    if smallest < 1e-8:
        notes.append(f"J is near singular at memorization: σ_min = {max(smallest, 0) ** 0.5:.1e}")
    error = abs(tau - other) / pace + 0.5 * tau + 1  # the latter: a step of Δτ = lr·w is explicit Euler's
    return Prediction(tau / pace, error, step, tau, fine, (sharp, later), tuple(notes), theta)


def memorize(
    network: Network, task: Task, lr: float, weight_decay: float, *, patience: int = 20_000, **options
) -> tuple[int, Tensor] | None:
    """The first looked-at step at which a run of :func:`training.train` has memorized, and its θ (d,); None if never.

    Memorized: all training samples right, and a training loss of at most MEMORIZED times that of the output 0.
    """
    at, steps = 0, 40 * LOOK
    while at < patience:
        steps = min(steps, patience)
        runs = training.train(
            network, task, steps, lr=lr, weight_decay=weight_decay,
            record_at=range(at, steps, LOOK), keep_theta=True, **options,
        ).isel(run=0)  # fmt: skip
        loss = runs.train_loss / float(task.Y_train.square().mean())
        hit = np.flatnonzero((loss <= MEMORIZED) & (runs.train_accuracy == 1))
        if hit.size:
            return int(runs.step[hit[0]]), torch.from_numpy(runs.theta.values[hit[0]])
        at, steps = steps, 4 * steps
    return None


def sharpness(network: Network, theta: Tensor, task: Task) -> float:
    """The largest curvature of the mean squared error near Z, 2λ_max(K)/nm, by power iteration."""
    point = Point(network, theta, task.X_train)
    u = task.Y_train / task.Y_train.norm()
    size = 0.0
    for _ in range(200):
        image = point.push(point.pull(u))
        size, before = float(image.norm()), size
        if size == 0 or abs(size - before) <= 1e-6 * size:
            break
        u = image / size
    return 2 * size / task.Y_train.numel()


def crossing(flow: xr.Dataset, task: Task, threshold: float = 0.5, start: int = 0) -> float:
    """Slow time at which ``test_loss`` (step) first falls to ``threshold`` of that of the output 0; NaN if never."""
    level = threshold * float(task.Y_test.square().mean())
    return float(records.first_crossing(-flow.test_loss.isel(step=slice(start, None)), -level))


def _small(task: Task) -> bool:
    return task.Y_train.numel() <= 1500


def stored(name: str) -> xr.Dataset:
    """Chapter 11's records: "predictions", and the "trainings" that were run after them to test them, (run, …).

    Raises
    ------
    FileNotFoundError
        An installation of grokutils without its data folder.
    """
    _checks.one_of("name", name, ("predictions", "trainings"))
    path = Path(__file__).parent / "data" / f"delay_{name}.nc"
    if not path.exists():
        raise FileNotFoundError(
            f"{path.name} is missing: book/4_beyond/make_records.py makes it, or install grokutils whole"
        )
    return records.load(path)
