"""The end of one implicit step: Newton's method for its multipliers, as many as there are outputs.

A step of length h, with what the last steps combine to, b, and J at the point θ* that they extrapolate to, ends where

    θ₊ = b + γh(Jᵀμ − ∇h(θ₊) + force),    ½∂L/∂F(F₊) + λμ = 0,    F₊ = F(θ*) + J(θ₊ − θ*).

Of the penalty h the part m∘θ is taken at θ₊, with its metric m (1 for weight decay), the rest at θ*. With D = 1 + γh m

    θ₊ = D⁻¹(b + γh(m∘θ* − ∇h(θ*) + force) + γh Jᵀμ),

(under an inertia I, which stands before dθ/dτ, with D = I + γh m and I∘b in place of b,) and μ is all that has to be found: by one linear equation for squared error, by a few for any other convex loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import NoMultipliersError
from ..linearization import Linearization
from ..linearization.base import syrk
from ..losses import Loss, SquaredError
from .multipliers import Multipliers

CORRECTIONS = 15  # of Newton's, after which a step is given up as too long


class Weighted(Linearization):
    """A linearization as seen by √D∘θ, with JD^{−½} in place of J; ``D`` (d,) positive."""

    def __init__(self, lin: Linearization, D: Tensor):
        self.lin, self.root, self.theta, self.outputs = lin, D.sqrt(), lin.theta, lin.outputs

    def jvp(self, v: Tensor) -> Tensor:
        return self.lin.jvp(v / self.root)

    def vjp(self, u: Tensor) -> Tensor:
        return self.lin.vjp(u) / self.root

    def gram(self) -> Tensor:
        return syrk(self.lin.jacobian() / self.root)


@dataclass(frozen=True)
class Step:
    """What a step is made of: γh, the metric m, I∘b + γh(m∘θ* − ∇h(θ*) + force), and the inertia I."""

    length: float
    metric: float | Tensor
    start: Tensor  # (d,)
    inertia: float | Tensor = 1.0

    def end(
        self,
        lin: Linearization,
        Y: Tensor,
        loss: Loss,
        lam: float,
        mu: Tensor,
        solver: Multipliers,
        accuracy: float,
    ) -> tuple[Tensor, Tensor]:
        """θ₊ (d,) to ``accuracy`` and μ (n, m), found from the guess ``mu``.

        Raises
        ------
        NoMultipliersError
            Newton's method does not converge: the step is too long; or K is singular.
        """
        seen: Linearization
        D = self.inertia + self.length * self.metric
        if not isinstance(D, Tensor):
            shrink = D
            seen, c = lin, self.length / shrink
            theta = lin.free(self.start) / shrink
            pull = lambda u: c * lin.free(lin.vjp(u))  # noqa: E731
        else:
            seen, c = Weighted(lin, D), self.length
            theta = self.start / D
            pull = lambda u: c * lin.vjp(u) / D  # noqa: E731
        F = lin.outputs + lin.jvp(theta - lin.theta)
        if isinstance(loss, SquaredError):
            mu = solver.solve(seen, Y - F, c, lam, mu, accuracy)
            return theta + pull(mu), mu
        moved, size = pull(mu), torch.inf
        for _ in range(CORRECTIONS):
            theta, F = theta + moved, F + lin.jvp(moved)
            rho = -(loss.gradient(F, Y) + lam * mu)
            correction = solver.correct(seen, rho, c, lam, loss.curvature(F, Y), accuracy)
            moved, mu = pull(correction), mu + correction
            size, before = float(moved.norm()), size
            if size <= accuracy:
                return theta + moved, mu
            if not size < 2 * before:
                break
        raise NoMultipliersError("Newton's method does not find the multipliers of a step")
