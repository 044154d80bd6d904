"""The smallest norm on the zero-loss set by a few linear solves instead of many gradient steps (chapter 16).

One implicit Euler step of the slow flow θ′ = Jᵀμ − θ (what follows from the study's theorem 4.14), of length s in slow time, ends where

    θ₊ = θ + s(Jᵀμ − θ₊),    F + J(θ₊ − θ) − y + λμ = 0.

With h = s/(1 + s), r = F − y and ε = λ/h this is the projected step

    θ₊ = (1 − h)θ + Jᵀ(K + ε)⁻¹(hJθ − r),    K = JJᵀ.

ε = 0 is the limit λ → 0, θ₊ = (1 − h)θ + J⁺(hJθ − r). h = 0 at fixed ε is an implicit step of the fast phase, of gradient flow on ½L for a
time 1/ε: a damped Gauss–Newton step towards Z. h → 1 at ε = 0 is the point of smallest norm on the linearized zero-loss set.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from . import _checks, losses, records
from .errors import NoMultipliersError, StoppedError
from .flow.events import margins
from .flow.follow import check_limit, check_model, check_start, check_task, in_float64
from .flow.multipliers import Multipliers
from .linearization import KINDS, Linearization, Sides, linearize
from .linearization.solving import FACTORED
from .models import Model, TwoLayer
from .schedules import spectrum
from .tasks import Task

SWITCHES = 8  # solutions of one step with other sides of the kinks, after which no kink is let go any more
ACCURACY = {True: 1e-6, False: 1e-4}  # of ‖θ‖ that a solve may lose, where K is factored and where not
RIDGE = {
    True: 1e-10,
    False: 1e-3,
}  # ε over K_max of projected steps: J⁺ of a J that has lost rank; where K is not factored, λ > 0
LOOKS = 4  # products with K that estimate K_max


def projected_step(
    lin: Linearization, Y: Tensor, h: float, epsilon: float = 0.0, solver: Multipliers | None = None
) -> tuple[Tensor, Tensor]:
    """θ₊ = (1 − h)θ + Jᵀν with (K + ε)ν = hJθ − r, and ν, from the linearization at θ.

    Parameters
    ----------
    lin : at θ (d,).
    Y : (n, m), targets.
    h : in [0, 1].
    epsilon : ε ≥ 0.
    solver : counts products and keeps a factor from one step to the next; None factors K here.

    Returns
    -------
    θ₊ (d,) and ν (n, m).

    Raises
    ------
    ValueError
        h outside [0, 1], or ε below 0.
    NoMultipliersError
        K + ε is singular in floating point.
    """
    h, epsilon = _checks.real("h", h, 0, 1), _checks.real("epsilon", epsilon, 0)
    return _end(lin, lin.theta, Y, h, epsilon, solver)


def _end(lin, theta: Tensor, Y: Tensor, h: float, epsilon: float, solver) -> tuple[Tensor, Tensor]:
    """The step from ``theta``, with ``lin`` there or nearby. Where kinks are held D⁻¹ stands before θ and Jᵀ."""
    start = (1 - h) * lin.free(theta)
    u = Y - lin.outputs - lin.jvp(start - lin.theta)
    if solver is None:
        nu = lin.solve(u, lam=epsilon)
    else:
        accuracy = ACCURACY[Y.numel() <= FACTORED] * float(theta.norm())
        nu = solver.solve(lin, u, 1.0, epsilon, torch.zeros_like(u), accuracy)
    return start + lin.free(lin.vjp(nu)), nu


def minimize_norm(
    model: Model,
    task: Task,
    *,
    theta0: Tensor | None = None,
    seed: int = 0,
    init_scale: float = 1.0,
    h: float = 0.5,
    landing: int = 3,
    damping: float = 3e-3,
    ridge: float | None = None,
    solves: int = 20,
    until: float | None = None,
    kind: str = "auto",
    seconds: float | None = None,
    callback: Callable[[dict, Tensor], bool | None] | None = None,
) -> xr.Dataset:
    """Go down in norm along the zero-loss set of the training half of ``task`` by projected steps.

    They are implicit Euler steps of the slow flow dθ/dτ = −P_Tθ (what follows from the study's theorem 4.14).
    First ``landing`` damped Gauss–Newton steps towards that set, then steps of h; each costs one linearization and one solve with
    K = JJᵀ. ReLU networks of two layers have their kinks held, as in :func:`grokutils.flow.follow`. Squared error only: it has a zero.

    Parameters
    ----------
    model : network of any kind, with d ≥ nm.
    task : to fit; its held-out half is only looked at.
    theta0 : (d,), where to begin; a draw of ``model.init(seed, init_scale)`` where it is left out.
    seed : of that draw.
    init_scale : of that draw.
    h : of each projected step, in (0, 1); h/(1 − h) is its slow time.
    landing : steps before, with h = 0; 0 for a network that has memorized.
    damping : ε of these, over the largest eigenvalue of K.
    ridge : ε of projected steps, over the largest eigenvalue of K; where it is left out 1e-10 while K is factored (up to 2500
        outputs), 1e-3 where its equations are searched. ε is λ/h: the descent is that of L_λ.
    solves : in all, landing included.
    until : held-out accuracy at which to end, or None.
    kind : of linearization, as for :func:`~grokutils.linearization.linearize`; "auto" is structured or matrix-free.
    seconds : of processor time after which no further solve begins.
    callback : called with each solve's record, a dict, and θ; ends where it returns True.

    Returns
    -------
    Dataset with dim step, the number of solves so far: coordinate ``tau`` (slow time of the implicit steps), ``train_loss``,
        ``test_loss`` (PyTorch's means), ``train_accuracy`` and ``test_accuracy`` (where there are classes), ``norm2``,
        ``residual`` = ‖F − Y‖, ``theta_end`` (parameter). In attrs ``products`` and ``factorizations`` count work with K,
        ``seconds`` is processor time; ``ended`` is "solves", "until",
        "seconds" or "callback".

    Raises
    ------
    ValueError
        Arguments that do not fit, or fewer parameters than constraints (assumption 4.1).
    StoppedError
        K is singular, or θ is not finite any more. What was reached is in its ``records``.
    """
    check_model(model)
    task = in_float64(task)
    if theta0 is None:
        theta0 = model.init(seed, init_scale)
    theta = check_start(model, theta0)
    check_task(model, task, losses.squared_error, theta)
    check_limit(model, task, losses.squared_error, None)
    h = _checks.real("h", h, 0, 1, open_low=True, open_high=True)
    landing = _checks.integer("landing", landing, 0)
    ridge = RIDGE[task.Y_train.numel() <= FACTORED] if ridge is None else _checks.real("ridge", ridge, 0)
    solves = _checks.integer("solves", solves, 1)
    until = math.inf if until is None else _checks.real("until", until, 0, 1)
    if math.isfinite(until) and not task.classification:
        raise ValueError(
            f"until = {until!r}: task '{task.name}' has no classes, so no accuracy; must be None"
        )
    damping = _checks.real("damping", damping, 0)
    seconds = math.inf if seconds is None else _checks.real("seconds", seconds, 0, open_low=True)
    _checks.one_of("kind", kind, KINDS)
    _checks.function("callback", callback)
    if kind == "auto":
        kind = "structured" if isinstance(model, TwoLayer) else "matrix_free"
    run = _Solves(model, task, kind)
    run.record(theta)
    began, ended = time.process_time(), "solves"
    try:
        for number in range(solves):
            slide = number >= landing
            theta = run.solve(theta, h if slide else 0.0, ridge if slide else damping)
            row = run.record(theta)
            if callback is not None and callback(row, theta):
                ended = "callback"
            elif row.get("test_accuracy", -1.0) >= until:
                ended = "until"
            elif time.process_time() - began > seconds:
                ended = "seconds"
            else:
                continue
            break
    except NoMultipliersError as error:
        reached = run.dataset(theta, "stopped", time.process_time() - began)
        raise StoppedError(
            f"stopped after {reached.sizes['step'] - 1} solves: {error}. The record so far is in .records",
            reached,
        ) from error
    return run.dataset(theta, ended, time.process_time() - began)


class _Solves:
    """One descent, and its records."""

    def __init__(self, model: Model, task: Task, kind: str):
        self.model, self.task, self.kind = model, task, kind
        self.solver, self.tau = Multipliers(), 0.0
        self.rows: list[dict[str, float]] = []
        self.pinned: Tensor | None = None

    def solve(self, theta: Tensor, h: float, damping: float) -> Tensor:
        """One step with ε = ``damping`` · K_max."""
        X, Y, model = self.task.X_train, self.task.Y_train, self.model
        sides = None if model.kinks is None else Sides.at(X @ model.matrices(theta)["E"], self.pinned)
        at, attempt, epsilon = theta, 0, math.nan
        while True:
            lin = linearize(model, at, X, self.kind, sides)
            if attempt == 0:
                r = lin.outputs - Y
                epsilon = damping * float(spectrum(lin, r if r.any() else torch.ones_like(r), LOOKS)[0].max())
                self.solver.products += LOOKS
            at, nu = _end(lin, theta, Y, h, epsilon, self.solver)
            if not torch.isfinite(at).all():
                raise NoMultipliersError("a step ended at numbers that are not finite")
            other = None
            if sides is not None and model.kinks is not None:
                E, W = model.matrices(at).values()
                other = sides.fitting(X @ E, nu @ W.mT, 1.0, model.kinks, attempt >= SWITCHES)
            if other is None:
                self.tau, self.pinned = self.tau + h / (1 - h), None if sides is None else sides.pinned
                return at
            sides, attempt = other, attempt + 1

    def record(self, theta: Tensor) -> dict:
        """Measure θ."""
        row = {"tau": self.tau, "norm2": float(theta @ theta)}
        for part in ("train", "test"):
            F, Y = self.model(theta, getattr(self.task, f"X_{part}")), getattr(self.task, f"Y_{part}")
            row[f"{part}_loss"] = float((F - Y).square().mean())
            if self.task.classification:
                row[f"{part}_accuracy"] = float((margins(F, Y) > 0).double().mean())
        row["residual"] = math.sqrt(row["train_loss"] * self.task.Y_train.numel())
        self.rows.append(row)
        return row

    def dataset(self, theta: Tensor, ended: str, seconds: float) -> xr.Dataset:
        """The records so far."""
        columns = {name: ("step", np.array([row[name] for row in self.rows])) for name in self.rows[0]}
        tau = columns.pop("tau")
        baselines = {
            f"{part}_baseline": ((), float(getattr(self.task, f"Y_{part}").square().mean()))
            for part in ("train", "test")
        }
        attributes = {
            "model": self.model.name,
            "loss": "squared_error",
            "products": self.solver.products,
            "factorizations": self.solver.factorizations,
            "seconds": seconds,
            "ended": ended,
        }
        return xr.Dataset(
            {**columns, **baselines, "theta_end": ("parameter", theta.numpy().copy())},
            coords={"step": np.arange(len(self.rows)), "tau": tau},
            attrs={**attributes, **records.provenance()},
        )
