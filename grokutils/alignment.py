"""Which way a two-layer network should move along Z, kinks included, and what its pre-activations did (chapter 06).

Z = {F(θ) = y} of ŷ = σ(XE)W is bent sharply where a pre-activation x_i·e_h is 0 and σ is ReLU. ``pinned`` (n, width)
marks pre-activations held at 0; with the rows N = ∂(x_i·e_h)/∂θ of those, the tangent space of Z ∩ {pinned} is the
null space of J and N together. J is never formed: K = JJᵀ comes from the network's structure, and N acts on one
hidden unit at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import _checks
from .linearization import Structured
from .networks import Network
from .zero_loss import ProjectionError, SingularJacobianError

DEPENDENT = 1e-9  # eigenvalues of a unit's pinned inputs below this count as 0: inputs are of order one
ROUNDING = 30  # a pivot of K below this many machine epsilons of its diagonal is rounding error


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
        network: Network,
        theta: Tensor,
        X: Tensor,
        pinned: Tensor | None = None,
        slopes: Tensor | None = None,
    ):
        self.network = _network(network)
        self.theta, self.point = theta, _point(network, theta, X)
        shape = len(X), network.width
        if slopes is not None:
            if _checks.tensor("slopes", slopes).shape != shape:
                raise ValueError(f"slopes has shape {tuple(slopes.shape)}: must be {shape}")
            self.point.S = slopes
        self.pinned = torch.zeros(shape, dtype=torch.bool) if pinned is None else pinned
        if self.pinned.shape != shape or self.pinned.dtype != torch.bool:
            raise ValueError(
                f"pinned has shape {tuple(self.pinned.shape)} and dtype {self.pinned.dtype}: must be {shape}, torch.bool"
            )
        # an orthonormal basis of each unit's pinned inputs: rows of N, without those that depend on others
        values, vectors = torch.linalg.eigh(torch.einsum("na,nh,nb->hab", X, self.pinned.to(X.dtype), X))
        self.unit, column = torch.nonzero(values > DEPENDENT, as_tuple=True)  # (rank N,)
        self.basis = vectors[self.unit, :, column]  # (rank N, d_in)
        self.factor = self._factor()

    @property
    def kinks(self) -> int:
        """Rank of N: how many dimensions the pinned pre-activations take away."""
        return len(self.unit)

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
        off = self.point.S.masked_fill(self.pinned, 0.0)
        E_of = lambda flat: self.network.matrices(flat)["E"]  # noqa: E731
        M = mu @ self.point.W.mT  # what σ′ = 1 would contribute, for each x_i·e_h: (n, width)
        missing = E_of(self.theta - tangent) - self.point.X.mT @ (off * M)  # Nᵀν, (d_in, width)
        share = torch.full_like(M, torch.nan)
        rank = torch.bincount(self.unit, minlength=self.network.width)
        for h in torch.nonzero((rank > 0) & (rank == self.pinned.sum(0))).flatten().tolist():
            rows = self.pinned[:, h]
            nu = torch.linalg.lstsq(self.point.X[rows].mT, missing[:, h : h + 1]).solution[:, 0]
            share[rows, h] = nu / M[rows, h]
        return share

    def _free(self, v: Tensor) -> Tensor:
        """``v`` without its part in the row space of N."""
        if not self.kinks:
            return v
        E, W = self.network.matrices(v).values()
        along = (self.basis * E.mT[self.unit]).sum(1, keepdim=True) * self.basis  # (rank N, d_in)
        return self.network.flat(E=E.index_add(1, self.unit, -along.mT), W=W)

    def _factor(self) -> Tensor:
        """Cholesky factor of J(I − N⁺N)Jᵀ = K − (JV)(JV)ᵀ with the columns V of the basis."""
        n, m = len(self.point.X), self.network.d_out
        K = self.point.gram()
        scale = K.diagonal().clone()
        if self.kinks:
            M = (self.point.S[:, None, :] * self.point.W.mT)[..., self.unit]  # (n, m, rank N)
            JV = (M * (self.point.X @ self.basis.mT)[:, None, :]).view(n * m, -1)
            K = K - JV @ JV.mT
        L, failed = torch.linalg.cholesky_ex(K)
        if failed or (L.diagonal().square() <= ROUNDING * torch.finfo(K.dtype).eps * scale).any():
            raise SingularJacobianError(
                f"theta is a singular point: J has numerically dependent rows among displacements that keep the "
                f"{int(self.pinned.sum())} pinned pre-activations"
            )
        return L

    def _split(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """P v (d,) and the multipliers μ (n, m) with P v = (I − N⁺N)(v − Jᵀμ)."""
        tangent = self._free(v)
        mu = torch.zeros(len(self.point.X), self.network.d_out, dtype=v.dtype)
        for _ in range(2):  # the second round removes what rounding in K left
            more = torch.cholesky_solve(self.point.jvp(tangent).reshape(-1, 1), self.factor).view_as(mu)
            mu, tangent = mu + more, tangent - self._free(self.point.vjp(more))
        return tangent, mu


def singular_range(network: Network, theta: Tensor, X: Tensor) -> tuple[float, float]:
    """Smallest and largest singular value of J at ``theta`` (d,), from the eigenvalues of K = JJᵀ.

    A smallest value below 1e-8 of the largest is rounding error. Raises ValueError for arguments that do not fit.
    """
    values = torch.linalg.eigvalsh(_point(_network(network), theta, X).gram()).clamp(min=0).sqrt()
    return float(values[0]), float(values[-1])


def onto(
    network: Network, theta: Tensor, X: Tensor, Y: Tensor, tolerance: float = 1e-10, max_iterations: int = 50
) -> Tensor:
    """A point of Z near ``theta``, (d,), by Gauss–Newton steps −J⁺(F − y) until ‖F − y‖ ≤ ``tolerance``.

    Its distance from proj_Z(θ) is second order in the distance of θ from Z (compare :func:`zero_loss.project`, which
    finds the nearest point itself where Z is smooth).

    Raises
    ------
    ValueError
        Arguments that do not fit.
    ProjectionError
        No convergence within ``max_iterations``.
    """
    if _checks.tensor("Y", Y).shape != (len(X), network.d_out):
        raise ValueError(f"Y has shape {tuple(Y.shape)}: must be {(len(X), network.d_out)}")
    for _ in range(max_iterations):
        tangent = Tangent(network, theta, X)
        r = tangent.point.outputs - Y
        if r.norm() <= tolerance:
            return theta
        theta = theta - tangent.point.vjp(torch.cholesky_solve(r.reshape(-1, 1), tangent.factor).view_as(r))
    raise ProjectionError(
        f"no point of Z within max_iterations = {max_iterations}: residual {float(r.norm()):.1e}"
    )


def sign_changes(network: Network, path: Tensor, X: Tensor) -> tuple[Tensor, Tensor]:
    """How often each pre-activation x_i·e_h changed sign along ``path`` (steps, d), and its share of time above 0.

    Both (n, width). The share leaves out the last point, which opens the next step.

    Raises
    ------
    ValueError
        A path of fewer than two points, or of another network.
    """
    if _checks.tensor("path", path, ndim=2).shape[0] < 2:
        raise ValueError(f"path has {len(path)} points: must have at least 2")
    on = X @ _network(network).matrices(path)["E"] > 0  # (steps, n, width)
    return (on[1:] != on[:-1]).sum(0), on[:-1].to(X.dtype).mean(0)


def cosine(u: Tensor, v: Tensor) -> float:
    """Cosine of the angle between ``u`` and ``v``, each (d,); NaN where one of them is 0."""
    return float(u @ v / (u.norm() * v.norm()))


def _network(network) -> Network:
    if not isinstance(network, Network):
        raise ValueError(f"network is a {type(network).__name__}: must be a networks.Network")
    return network


def _point(network: Network, theta: Tensor, X: Tensor) -> Structured:
    if _checks.tensor("theta", theta, ndim=1).dtype != torch.float64:
        raise ValueError(f"theta has dtype {theta.dtype}: must be torch.float64, or rank means little")
    if _checks.tensor("X", X, ndim=2).shape[1] != network.d_in:
        raise ValueError(f"X has shape {tuple(X.shape)}: must be (n, {network.d_in})")
    return Structured(network, theta, X)
