"""The slow flow of a two-layer network at the weight decay of a real run, or in the limit λ → 0, by one implicit method.

With multipliers μ in place of the residual, r(θ) = F(θ) − y = −λμ, training in slow time is

    dθ/dτ = J(θ)ᵀμ − θ,    r(θ) + λμ = 0,

and λ = 0 gives dθ/dτ = −P_T(θ)θ on Z. A step of length h with the two-step backward formula (BDF2) takes J at the
point that the last steps extrapolate to, θ*, so that it needs one solve with c K + λI, c = γh/(1 + γh), and no more
whatever λ is:

    θ₊ = (b + γh J*ᵀμ)/(1 + γh),    F(θ*) + J*(θ₊ − θ*) − y = −λμ,

where b combines the last two points. Its error is O(h²), the constraint's O(h⁴), and what is left of the latter the
next step takes back: no separate return to Z is needed. With ReLU a step is solved again, from where it ended, until
it is known which pre-activations it holds at their kinks (:mod:`.kinks`).
"""

from __future__ import annotations

import time
from collections import deque
from itertools import count

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from .. import _checks, records
from ..networks import Network
from ..tasks import Task
from .dense import StoppedError
from .kinks import Sides, SlidingPoint
from .two_layer import Multipliers, NoMultipliersError, Point

FIRST = 1e-5  # length of the first step, in τ
SHORTEST = 1e-14
MANY = 200_000  # steps after which a flow gives up
SWITCHES = (
    8  # solutions of one step, each with other sides of the kinks, after which no kink is let go any more
)
CLOSE = 1e-10  # of ‖y‖: residual at which a start counts as on Z


def follow(
    network: Network,
    theta0: Tensor,
    task: Task,
    tau_end: float,
    weight_decay: float = 0.0,
    tolerance: float = 1e-4,
    max_step: float = 0.05,
    until: float | None = None,
    seconds: float | None = None,
    keep_theta: bool = False,
    dense: bool | None = None,
) -> xr.Dataset:
    """Follow the slow flow of ``network`` on the training half of ``task`` from ``theta0`` (d,) to slow time ``tau_end``.

    At λ = ``weight_decay`` > 0 this is gradient flow on L_λ itself, −∇L_λ/2λ in slow time, from any start; the cost
    does not depend on λ. At λ = 0 it is the limit, dθ/dτ = −P_Tθ, and ``theta0`` is first taken to Z by Gauss–Newton
    steps. λ is the study's: n·d_out·w/2 for training on the mean squared error with PyTorch's decay w.

    Parameters
    ----------
    tolerance : of the estimated error of one step, relative to ‖θ‖. With kinks, which are met and left at ends of steps
        only, the whole error falls more slowly with it than without.
    max_step : greatest step in τ.
    until : stop once the held-out loss, relative to that of the output 0, is below this.
    seconds : of processor time after which no further step begins.
    keep_theta : also keep θ at every step.
    dense : form and factor K (True), search by conjugate gradients (False), or decide by the size of K.

    Returns
    -------
    Dataset with dim step, one entry for each step, and coordinate ``tau``: ``train_loss`` and ``test_loss`` (means over
        samples and outputs, as ``training.train`` records them), ``test_accuracy``, ``norm2`` = ‖θ‖², ``residual`` =
        ‖F(θ) − Y‖, ``drift`` = ‖F(θ) − Y + λμ‖, the constraint's error, ``pinned``, the number of pre-activations held
        at a kink, ``theta`` (step, parameter) if kept, and ``theta_end`` (parameter). ``products`` in attrs counts
        factorizations of K, or products with it; ``ended`` tells by which of "tau_end", "until", "seconds" it ended.

    Raises
    ------
    ValueError
        Arguments that do not fit, or fewer parameters than constraints at λ = 0.
    StoppedError, KeyboardInterrupt
        K is singular in floating point, or no step is short enough; or Ctrl-C. What was reached is in its ``records``.
    """
    lam, tau_end, max_step, until = _check(network, theta0, task, tau_end, weight_decay, max_step, until)
    tolerance = _checks.real("tolerance", tolerance, 1e-12, 0.1, open_low=True)
    seconds = np.inf if seconds is None else _checks.real("seconds", seconds, 0, open_low=True)
    flow = _Flow(network, task, lam, tolerance, dense, keep_theta)
    try:
        flow.run(theta0.detach(), tau_end, max_step, until, seconds)
    except KeyboardInterrupt as stopped:
        stopped.records = flow.dataset()
        raise
    except NoMultipliersError as error:
        raise StoppedError(
            f"stopped after tau = {flow.tau:.6g}: {error}. The record so far is in .records", flow.dataset()
        ) from error
    return flow.dataset()


class _Flow:
    """One run of :func:`follow`."""

    def __init__(self, network, task, lam, tolerance, dense, keep_theta):
        self.network, self.task, self.lam, self.keep_theta = network, task, lam, keep_theta
        self.tolerance, self.X, self.Y = tolerance, task.X_train, task.Y_train
        self.multipliers = Multipliers(min(1e-6, 1e-2 * tolerance), dense)
        self.past = deque(maxlen=3)  # (τ, θ), the newest last
        slope = network.activation.slope(torch.tensor([-1.0, 1.0], dtype=torch.float64))
        self.slopes = (
            None if network.activation.smooth else tuple(slope.tolist())
        )  # on both sides of the kink
        self.pinned = None  # (n, width), at the end of the last step
        self.rows, self.thetas, self.refused, self.ended = [], [], 0, "tau_end"

    @property
    def tau(self) -> float:
        return self.past[-1][0] if self.past else 0.0

    def run(
        self, theta: Tensor, tau_end: float, max_step: float, until: float | None, seconds: float
    ) -> None:
        began = time.process_time()
        if self.lam == 0:
            theta = self._to_zero_loss(theta)
        self._accept(0.0, theta, None, self.pinned)
        h = FIRST
        while self.tau < tau_end * (1 - 1e-12):
            if len(self.rows) >= MANY:
                raise NoMultipliersError(f"{MANY} steps did not suffice")
            if time.process_time() - began > seconds:
                self.ended = "seconds"
                break
            h = min(h, max_step, tau_end - self.tau)
            theta, mu, pinned, error = self._step(h)
            ratio = error / self.tolerance
            if ratio > 2:
                self.refused += 1
                if h < SHORTEST:
                    raise NoMultipliersError("no step is short enough for this tolerance")
                h *= max(0.2, 0.9 * ratio ** (-1 / 3))
                continue
            self._accept(self.tau + h, theta, mu, pinned)
            if until is not None and self.rows[-1]["test_loss"] <= until * self.zero_loss:
                self.ended = "until"
                break
            h *= min(1.5, max(0.3, 0.9 * max(ratio, 1e-9) ** (-1 / 3)))

    @property
    def zero_loss(self) -> float:
        return float(self.task.Y_test.square().mean())

    def _step(self, h: float) -> tuple[Tensor, Tensor, Tensor | None, float]:
        """θ, μ and what is pinned a step of length ``h`` further, and the estimated relative error of that step."""
        star, b, gamma, share = self._extrapolated(h)
        shrink, at, sides = 1 + gamma * h, star, self._sides(star)
        for attempt in count():
            point = self._point(at, sides)
            free = point.free(b) / shrink
            gap = point.outputs - self.Y + point.push(free - at)
            mu = self.multipliers.solve(point, gamma * h / shrink, self.lam, -gap)
            at = free + gamma * h / shrink * point.free(point.pull(mu))
            error = share * float((at - star).norm() / at.norm().clamp(min=1e-300))
            if sides is None:
                return at, mu, None, error
            E, W = self.network.matrices(at).values()
            other = sides.fitting(
                self.X @ E, mu @ W.mT, shrink / (gamma * h), self.slopes, attempt >= SWITCHES
            )
            if other is None:
                return at, mu, sides.pinned, error
            sides = other

    def _sides(self, theta: Tensor) -> Sides | None:
        if self.slopes is None:
            return None
        return Sides.at(self.X @ self.network.matrices(theta)["E"], self.pinned)

    def _point(self, theta: Tensor, sides: Sides | None) -> Point:
        if sides is None:
            return Point(self.network, theta, self.X)
        return SlidingPoint(self.network, theta, self.X, sides, self.slopes)

    def _extrapolated(self, h: float) -> tuple[Tensor, Tensor, float, float]:
        """θ* at τ + h, BDF2's b and γ, and which share of θ₊ − θ* is the step's error (Milne's device)."""
        (*_, (t, now)) = self.past
        if len(self.past) == 1:
            return now, now, 1.0, 0.5  # the first step is an implicit Euler step
        t1, before = self.past[-2]
        omega = h / (t - t1)
        gamma = (1 + omega) / (1 + 2 * omega)
        b = ((1 + omega) ** 2 * now - omega**2 * before) / (1 + 2 * omega)
        star = now + omega * (now - before)
        if len(self.past) == 2:
            return star, b, gamma, 0.3
        t2, first = self.past[-3]
        bend = ((now - before) / (t - t1) - (before - first) / (t1 - t2)) / (t - t2)
        ratio = gamma * h / (h + t - t2)
        return star + h * (h + t - t1) * bend, b, gamma, ratio / (1 + ratio)

    def _to_zero_loss(self, theta: Tensor) -> Tensor:
        for _ in range(50):
            point = Point(self.network, theta, self.X)
            r = point.outputs - self.Y
            if r.norm() <= CLOSE * self.Y.norm():
                return theta
            self.multipliers.last = None
            theta = theta - point.pull(self.multipliers.solve(point, 1.0, 0.0, r))
        raise NoMultipliersError("theta0 is too far from Z: Gauss–Newton steps do not lead there")

    def _accept(self, tau: float, theta: Tensor, mu: Tensor | None, pinned: Tensor | None) -> None:
        self.past.append((tau, theta))
        self.pinned = pinned
        r = self.network(theta, self.X) - self.Y
        guess = self.network(theta, self.task.X_test)
        right = guess.argmax(1) == self.task.Y_test.argmax(1)
        row = {
            "tau": tau,
            "train_loss": float(r.square().mean()),
            "test_loss": float((guess - self.task.Y_test).square().mean()),
            "test_accuracy": float(right.double().mean()),
            "norm2": float(theta @ theta),
            "residual": float(r.norm()),
            "drift": np.nan if mu is None else float((r + self.lam * mu).norm()),
            "pinned": 0 if pinned is None else int(pinned.sum()),
        }
        self.rows.append(row)
        if self.keep_theta:
            self.thetas.append(theta.numpy().copy())

    def dataset(self) -> xr.Dataset:
        columns = (
            {name: ("step", np.array([row[name] for row in self.rows])) for name in self.rows[0]}
            if self.rows
            else {}
        )
        tau = columns.pop("tau", ("step", np.zeros(0)))
        if self.rows:
            columns["theta_end"] = ("parameter", self.past[-1][1].numpy().copy())
        if self.thetas:
            columns["theta"] = (("step", "parameter"), np.array(self.thetas))
        settings = {
            "flow": "slow",
            "weight_decay": self.lam,
            "tolerance": self.tolerance,
            "activation": self.network.activation.name,
            "products": self.multipliers.products,
            "refused": self.refused,
            "ended": self.ended,
        }
        coordinates = {"step": np.arange(len(self.rows)), "tau": tau}
        return xr.Dataset(columns, coords=coordinates, attrs={**settings, **records.provenance()})


def _check(network, theta0, task, tau_end, weight_decay, max_step, until):
    if not isinstance(network, Network):
        raise ValueError(f"network is a {type(network).__name__}: must be a networks.Network of two layers")
    if not isinstance(task, Task):
        raise ValueError(f"task is a {type(task).__name__}: must be a tasks.Task")
    if _checks.tensor("theta0", theta0, ndim=1).dtype != torch.float64 or len(theta0) != network.d:
        raise ValueError(
            f"theta0 has {len(theta0)} entries of {theta0.dtype}: must have {network.d} of torch.float64"
        )
    if (task.X_train.shape[1], task.Y_train.shape[1]) != (network.d_in, network.d_out):
        raise ValueError(
            f"task '{task.name}' does not fit a network of {network.d_in} inputs, {network.d_out} outputs"
        )
    lam = _checks.real("weight_decay", weight_decay, 0)
    if lam == 0 and network.d < task.Y_train.numel():
        raise ValueError(
            f"network has {network.d} parameters for {task.Y_train.numel()} outputs: must have d ≥ nm "
            "(assumption 4.1), or give weight_decay > 0"
        )
    tau_end = _checks.real("tau_end", tau_end, 0, open_low=True)
    max_step = _checks.real("max_step", max_step, 0, open_low=True)
    return lam, tau_end, max_step, None if until is None else _checks.real("until", until, 0, open_low=True)
