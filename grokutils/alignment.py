"""Which way a two-layer network should move along Z, kinks included, and what its pre-activations did (chapter 06).

Z = {F(θ) = y} of ŷ = σ(XE)W is bent sharply where a pre-activation x_i·e_h is 0 and σ is ReLU. ``pinned`` (n, width)
marks pre-activations held at 0; with the rows N = ∂(x_i·e_h)/∂θ of those, the tangent space of Z ∩ {pinned} is the
null space of J and N together. J is never formed: the structured linearization gives K = J(I − N⁺N)Jᵀ.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import lapack
from torch import Tensor

from . import _checks
from .errors import SingularJacobianError
from .linearization import Structured, check, factor
from .models import TwoLayer

RIGID = (
    1e-13  # softness of what holds pre-activations: far below what is asked of a projection, above rounding
)


class Tangent:
    """The tangent space of Z at ``theta`` (d,), or of Z with some pre-activations pinned at 0.

    Parameters
    ----------
    X : (n, d_in) training inputs.
    pinned : (n, width) booleans; None pins nothing. Where a pre-activation is pinned, σ′ there does not matter.
    slopes : (n, width) in place of σ′(XE), such as its average over recent steps.

    Raises
    ------
    ValueError
        Arguments that do not fit.
    SingularJacobianError
        J, restricted to displacements that keep what is pinned, without full rank.
    """

    def __init__(
        self,
        network: TwoLayer,
        theta: Tensor,
        X: Tensor,
        pinned: Tensor | None = None,
        slopes: Tensor | None = None,
    ):
        _check_network(network)
        check(network, theta, X)
        shape = len(X), network.width
        if slopes is not None and _checks.tensor("slopes", slopes).shape != shape:
            raise ValueError(f"slopes has shape {tuple(slopes.shape)}: must be {shape}")
        self.pinned = torch.zeros(shape, dtype=torch.bool) if pinned is None else pinned
        if self.pinned.shape != shape or self.pinned.dtype != torch.bool:
            raise ValueError(
                f"pinned has shape {tuple(self.pinned.shape)} and dtype {self.pinned.dtype}: must be {shape}, torch.bool"
            )
        self.network, self.theta = network, theta
        self.point = Structured(network, theta, X, slopes, self.pinned, RIGID)
        self._factor = factor(self.point.gram())
        if self._factor is None:
            raise SingularJacobianError(
                f"theta is a singular point: J has numerically dependent rows among displacements that keep the "
                f"{int(self.pinned.sum())} pinned pre-activations"
            )

    @property
    def kinks(self) -> int:
        """Rank of N: how many dimensions the pinned pre-activations take away."""
        return self.point.held

    def project(self, v: Tensor) -> Tensor:
        """The part of ``v`` (d,) in the tangent space, (d,)."""
        return self._split(v)[0]

    def norm_descent(self) -> Tensor:
        """−P_T θ, (d,): dθ/dτ of the slow flow, on Z or on Z ∩ {pinned}."""
        return -self.project(self.theta)

    def duty(self) -> Tensor:
        """The share of time that each pinned pre-activation must spend above 0 to stay pinned, (n, width).

        For ReLU: s in N θ̇ = 0 with θ̇ = −P_T θ = J_sᵀμ − θ, where J_s has σ′ = s at what is pinned. NaN where nothing
        is pinned, and in hidden units whose pinned inputs depend linearly, which leave s undetermined.
        """
        tangent, mu = self._split(self.theta)
        X, M = self.point.X.matrix, mu @ self.point.W.mT  # M: what σ′ = 1 would contribute, (n, width)
        # what holds the kinks, Nᵀν: −θ̇ = P_T θ has no other part outside the row space of J
        missing = self.network.matrices(self.theta - tangent - self.point.vjp(mu))["E"]  # (d_in, width)
        share = torch.full_like(M, torch.nan)
        for h in self.point.units.tolist():
            rows = self.pinned[:, h]
            if torch.linalg.matrix_rank(X[rows]) == rows.sum():
                nu = torch.linalg.lstsq(X[rows].mT, missing[:, h : h + 1]).solution[:, 0]
                share[rows, h] = nu / M[rows, h]
        return share

    def _split(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """P v (d,) and the multipliers μ (n, m) with P v = (I − N⁺N)(v − Jᵀμ)."""
        tangent, mu = self.point.free(v), torch.zeros_like(self.point.outputs)
        for _ in range(2):  # the second round removes what rounding in K left
            right = self.point.jvp(tangent).reshape(-1, 1).numpy()
            solved: np.ndarray = lapack.dpotrs(self._factor, right, lower=1)[0]
            more = torch.from_numpy(solved.reshape(mu.shape))
            mu, tangent = mu + more, self.point.free(tangent - self.point.vjp(more))
        return tangent, mu


def sign_changes(network: TwoLayer, path: Tensor, X: Tensor) -> tuple[Tensor, Tensor]:
    """How often each pre-activation x_i·e_h changed sign along ``path`` (steps, d), and its share of time above 0.

    Both (n, width). The share leaves out the last point, which opens the next step.

    Raises
    ------
    ValueError
        A path of fewer than two points, or of another network.
    """
    _check_network(network)
    if _checks.tensor("path", path, ndim=2).shape[0] < 2:
        raise ValueError(f"path has {len(path)} points: must have at least 2")
    on = X @ network.matrices(path)["E"] > 0  # (steps, n, width)
    return (on[1:] != on[:-1]).sum(0), on[:-1].to(X.dtype).mean(0)


def cosine(u: Tensor, v: Tensor) -> float:
    """Cosine of the angle between ``u`` and ``v``, each (d,); NaN where one of them is 0."""
    return float(u @ v / (u.norm() * v.norm()))


def _check_network(network) -> None:
    if not isinstance(network, TwoLayer):
        raise ValueError(f"network is a {type(network).__name__}: must be a two_layer network")
