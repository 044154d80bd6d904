"""Interventions on training: take one thing out of an update, or put one in, and see whether a network still generalizes.

Hooks for :func:`grokutils.training.train`, penalties for :func:`grokutils.flow.follow`, and a criterion that says from runs
with other decays whether the fall of the norm is what a delay waits for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from . import _checks
from .flow.multipliers import Multipliers
from .flow.penalties import Penalty
from .linearization import linearize
from .models import Model, TwoLayer
from .training.general import Hook, State

NORM, OTHER, MIXED = "norm", "something else", "mixed"
LATE = 4.0  # delays after which a run without decay counts as one that never generalizes
STEEP, FLAT = -0.75, -0.25  # elasticities: below, the delay is decay's; above, it is not
SOON = 1.5  # delays within which a run without decay counts as hardly held up


class TangentDescent:
    """−P_T(θ)θ = Jᵀ(JJᵀ)⁻¹Jθ − θ, (d,), at one point after another, each solve starting from the last one's multipliers.

    Parameters
    ----------
    model : any network.
    X : training inputs, samples first.
    accuracy : of the result, relative to ‖θ‖.
    """

    def __init__(self, model: Model, X: Tensor, accuracy: float = 1e-11):
        self.model, self.X, self.accuracy = model, X, accuracy
        self._solver, self._mu = Multipliers(), None

    def __call__(self, theta: Tensor) -> Tensor:
        lin = linearize(self.model, theta, self.X)
        u = lin.jvp(theta)
        guess = torch.zeros_like(u) if self._mu is None else self._mu
        self._mu = self._solver.solve(lin, u, 1.0, 0.0, guess, self.accuracy * float(theta.norm()))
        return lin.vjp(self._mu) - theta


def without_descent(model: Model, X: Tensor) -> Hook:
    """Take out of each update its component along −P_T(θ)θ, with θ from before the step.

    Parameters
    ----------
    model : that is trained.
    X : training inputs, samples first.
    """
    return _along(model, X, keep=False)


def only_descent(model: Model, X: Tensor) -> Hook:
    """Leave of each update its component along −P_T(θ)θ and nothing else; parameters as for :func:`without_descent`."""
    return _along(model, X, keep=True)


def _along(model: Model, X: Tensor, keep: bool) -> Hook:
    descent = TangentDescent(model, X)

    def hook(state: State, step: Callable[[], None]) -> None:
        before = state.theta.clone()
        direction = descent(before)
        step()
        update = state.theta - before
        part = direction * (direction @ update) / (direction @ direction)
        state.theta.copy_(before + part if keep else state.theta - part)

    return hook


def instead_of_decay(pull: Callable[[Tensor], Tensor]) -> Hook:
    """``pull`` (θ) → (d,) in the place of θ: a step follows the gradient plus weight_decay · pull(θ)."""

    def hook(state: State, step: Callable[[], None]) -> None:
        state.gradient.add_(pull(state.theta), alpha=state.weight_decay)
        state.weight_decay = 0.0
        step()

    return hook


def norm_at_most(norm2: float) -> Hook:
    """Scale θ back to ‖θ‖² = ``norm2`` after each step that leaves that ball.

    Raises
    ------
    ValueError
        A bound that is not positive.
    """
    norm2 = _checks.real("norm2", norm2, 0, open_low=True)

    def hook(state: State, step: Callable[[], None]) -> None:
        step()
        state.theta.mul_((norm2 / state.theta.square().sum()).sqrt().clamp(max=1))

    return hook


class Scaled:
    """``factor`` times a penalty, or the sum of several (factor, penalty).

    Parameters
    ----------
    terms : pairs of a number and a penalty (:class:`grokutils.flow.Penalty`); a negative factor is taken explicitly.
    """

    def __init__(self, *terms: tuple[float, Penalty]):
        self.terms = terms

    def value(self, theta: Tensor) -> float:
        """h, a number."""
        return sum(factor * penalty.value(theta) for factor, penalty in self.terms)

    def gradient(self, theta: Tensor) -> Tensor:
        """∇h, (d,)."""
        return torch.stack([factor * penalty.gradient(theta) for factor, penalty in self.terms]).sum(0)

    def metric(self, theta: Tensor) -> float | Tensor:
        """About the diagonal of ∇²h, ≥ 0."""
        return sum(max(factor, 0.0) * penalty.metric(theta) for factor, penalty in self.terms)


class Flatness:
    """tr K = ‖J‖² of a two-layer network, the sum of the Hessian's eigenvalues on Z up to a factor: what flat minima have little of.

    tr K = m‖H‖² + Σ_ih |x_i|² σ′(z_ih)² |w_h|², with m outputs, H = σ(Z), Z = XE.

    Parameters
    ----------
    model : a two-layer network.
    X : (n, d_in), training inputs.

    Raises
    ------
    ValueError
        Another kind of network.
    """

    def __init__(self, model: TwoLayer, X: Tensor):
        if not isinstance(model, TwoLayer):
            raise ValueError(f"model is a {type(model).__name__}: must be a two_layer network")
        self.model, self.X, self.squares = model, X, X.square().sum(1)[:, None]

    def _value(self, theta: Tensor) -> Tensor:
        E, W = self.model.matrices(theta).values()
        Z = self.X @ E
        slopes = self.squares * self.model.activation.slope(Z).square()
        return (
            self.model.d_out * self.model.activation.value(Z).square().sum()
            + (slopes @ W.square().sum(1)).sum()
        )

    def value(self, theta: Tensor) -> float:
        """h, a number."""
        return float(self._value(theta))

    def gradient(self, theta: Tensor) -> Tensor:
        """∇h, (d,)."""
        with torch.enable_grad():
            at = theta.detach().requires_grad_()
            return torch.autograd.grad(self._value(at), at)[0]

    def metric(self, theta: Tensor) -> float:
        """∇h·θ/‖θ‖², the curvature along θ of what is nearly homogeneous."""
        return max(float(self.gradient(theta) @ theta / (theta @ theta)), 0.0)


@dataclass(frozen=True)
class Cause:
    """What :func:`cause` found.

    Attributes
    ----------
    ratio : float
        Delay without decay ÷ delay with it; inf where it was given up.
    elasticity : float
        d ln delay / d ln w, from w to 2w.
    verdict : str
        "norm", "something else" or "mixed".
    """

    ratio: float
    elasticity: float
    verdict: str


def cause(delay: Callable[[float, float], float], weight_decay: float) -> Cause:
    """Whether a delay waits for the norm, by intervention from one memorized point: decay off, and decay doubled.

    A delay that waits for norm descent has elasticity −1 (slow time is w·steps) and no end without decay; one that does not knows
    nothing of w. It is "norm" if the run without decay does not generalize within :data:`LATE` delays and the elasticity is at most
    :data:`STEEP`; "something else" if that run takes at most :data:`SOON` delays and the elasticity is at least :data:`FLAT`; else "mixed".

    Parameters
    ----------
    delay : (weight_decay, patience) → steps from the memorized point to generalization, inf if more than patience.
    weight_decay : w > 0, at which the run in question was made.

    Raises
    ------
    ValueError
        A decay that is not positive, or a run that does not generalize with it: then there is no delay to explain.
    """
    weight_decay = _checks.real("weight_decay", weight_decay, 0, open_low=True)
    with_it = delay(weight_decay, math.inf)
    if not 0 < with_it < math.inf:
        raise ValueError(
            f"weight_decay = {weight_decay:g}: the run has a delay of {with_it} steps; must be positive and finite"
        )
    doubled = delay(2 * weight_decay, 2 * with_it)
    ratio = delay(0.0, LATE * with_it) / with_it
    elasticity = math.log2(doubled / with_it)
    if ratio == math.inf and elasticity <= STEEP:
        verdict = NORM
    elif ratio <= SOON and elasticity >= FLAT:
        verdict = OTHER
    else:
        verdict = MIXED
    return Cause(ratio, elasticity, verdict)
