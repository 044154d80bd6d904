"""Training near Z to first order in λ: the limit flow with its correction.

Training at λ > 0 does not run on Z but beside it, on the slow manifold θ = φ − λJᵀν + O(λ²) with φ on Z,

    Kμ₀ = Jφ,    Kν = μ₀,

where decay and loss balance: its residual is F − y = −λμ₀ + O(λ²). Put into dθ/dτ = −θ + Jᵀμ, F − y = −λμ, and projected on
the tangent space of Z, that gives the motion of φ,

    dφ/dτ = P_T[−φ + λ(H_ν v − H_μ₀ Jᵀν)],    v = −P_Tφ,    H_u = Σ_i u_i ∇²F_i,

with an error of O(λ²). It is steepest descent of ½‖φ‖² − ½λ‖μ₀‖² in the metric of the slow manifold, 1 − 2λH_ν. The same
motion seen at θ reads dθ/dτ = −θ + Jᵀ(μ₀ − λK⁻¹μ₀′), and starts at θ₀ − λJᵀν(θ₀) if training starts at θ₀ on Z.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..linearization import Linearization, linearize
from .multipliers import Multipliers

DIFFERENCE = 1e-5  # displacement relative to ‖θ‖ by which Hessians are applied

Solve = Callable[[Linearization, Tensor, Tensor | None], Tensor]


def multipliers(lin: Linearization, solve: Solve, guess: tuple | None = None) -> tuple[Tensor, Tensor]:
    """μ₀ and ν, each (n, m), at the point of ``lin`` on Z.

    Parameters
    ----------
    solve : (lin, u, guess) ↦ w with Kw = u.
    guess : μ₀ and ν near by.
    """
    first, second = guess or (None, None)
    mu = solve(lin, lin.jvp(lin.free(lin.theta)), first)
    return mu, solve(lin, mu, second)


def shift(lin: Linearization, nu: Tensor) -> Tensor:
    """−Jᵀν, (d,): how far the slow manifold lies beside Z, in units of λ."""
    return -lin.free(lin.vjp(nu))


def correction(
    linearized: Callable[[Tensor], Linearization], lin: Linearization, mu: Tensor, nu: Tensor
) -> Tensor:
    """H_ν v − H_μ₀Jᵀν, (d,): what dφ/dτ gains in units of λ, before the projection on the tangent space.

    Parameters
    ----------
    linearized : θ ↦ the linearization there, of the same kind and on the same sides of kinks as ``lin``.
    """
    v = lin.free(lin.vjp(mu) - lin.theta)
    return hessian_product(linearized, lin, nu, v) + hessian_product(linearized, lin, mu, shift(lin, nu))


def hessian_product(
    linearized: Callable[[Tensor], Linearization], lin: Linearization, u: Tensor, v: Tensor
) -> Tensor:
    """H_u v = Σ_i u_i ∇²F_i v, (d,), from J at two points near by."""
    size = float(v.norm())
    if size == 0:
        return torch.zeros_like(v)
    step = v * (DIFFERENCE * float(lin.theta.norm()) / size)
    difference = linearized(lin.theta + step).vjp(u) - linearized(lin.theta - step).vjp(u)
    return difference * (size / (2 * DIFFERENCE * float(lin.theta.norm())))


class Landing:
    """How far training is from the slow manifold, ‖r + λμ₀‖/‖λμ₀‖, and whether that has settled.

    The expansion begins there. A run that has just memorized is still on its way: along directions of small
    eigenvalues k of K what is left of its residual falls as exp(−kτ/λ) only, and moves it along Z meanwhile.

    Parameters
    ----------
    model : that is trained.
    task : on which, with squared error.
    lam : the study's λ.
    close : distance that is close enough.
    """

    def __init__(self, model, task, lam: float, close: float = 0.02):
        self.model, self.task, self.lam, self.close = model, task, lam, close
        self.solver, self.least = Multipliers(), torch.inf
        self.mu: Tensor | None = None

    def __call__(self, theta: Tensor) -> bool:
        """Whether ``theta`` (d,), the next point of a flow at λ, is as close to the slow manifold as it will be."""
        lin = linearize(self.model, theta, self.task.X_train)
        pull = lin.jvp(theta)
        guess = torch.zeros_like(pull) if self.mu is None else self.mu
        mu = self.solver.solve(lin, pull, 1.0, 0.0, guess, 1e-6 * float(theta.norm()))
        apart = float((lin.outputs - self.task.Y_train + self.lam * mu).norm() / (self.lam * mu.norm()))
        settled = apart <= self.close or (self.least < 1 and apart > self.least)
        self.mu, self.least = mu, min(self.least, apart)
        return settled
