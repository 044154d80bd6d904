"""One point of the two-layer network ŷ = σ(XE)W as its slow flow sees it: F, J and K = JJᵀ, by structure.

With H = σ(XE) and S = σ′(XE), both (n, width), a displacement v = (dE, dW) and multipliers u (n, m):

- Jv = (S ⊙ X dE)W + H dW;    Jᵀu = (Xᵀ[S ⊙ uWᵀ], Hᵀu);
- K = (HHᵀ) ⊗ I + ((XXᵀ) ⊗ 11ᵀ) ⊙ MMᵀ with the rows M_(i,c) = S_i ⊙ W_c, of length width.

J itself, (nm, d), is never formed.
"""

from __future__ import annotations

import torch
from scipy.sparse.linalg import LinearOperator, cg
from torch import Tensor

from ..linearization.base import syrk as gram
from ..networks import Network

DENSE = 2500  # constraints nm up to which K is formed and factored; beyond, conjugate gradients
CG_ITERATIONS = 500


class NoMultipliersError(ArithmeticError):
    """cK + λI could not be solved with: K is singular in floating point."""


class Point:
    """F, J and K at ``theta`` (d,) on inputs ``X`` (n, d_in)."""

    def __init__(self, network: Network, theta: Tensor, X: Tensor):
        self.X, (self.E, self.W) = X, network.matrices(theta).values()
        Z = X @ self.E
        self.H, self.S = network.activation.value(Z), network.activation.slope(Z)  # (n, width)

    @property
    def outputs(self) -> Tensor:
        """F(θ), (n, m)."""
        return self.H @ self.W

    def push(self, v: Tensor) -> Tensor:
        """Jv, (n, m), for ``v`` (d,)."""
        split = self.E.numel()
        dE, dW = v[:split].view_as(self.E), v[split:].view_as(self.W)
        return (self.S * (self.X @ dE)) @ self.W + self.H @ dW

    def pull(self, u: Tensor) -> Tensor:
        """Jᵀu, (d,), for ``u`` (n, m)."""
        return torch.cat([(self.X.mT @ (self.S * (u @ self.W.mT))).flatten(), (self.H.mT @ u).flatten()])

    def free(self, v: Tensor) -> Tensor:
        """``v`` (d,), less what kinks hold fast: nothing here."""
        return v

    def gram(self) -> Tensor:
        """K = JJᵀ, (nm, nm)."""
        n, m = len(self.X), self.W.shape[1]
        M = (self.S[:, None, :] * self.W.mT).flatten(0, 1)  # (nm, width)
        K = gram(M).view(n, m, n, m) * gram(self.X)[:, None, :, None]
        K.diagonal(dim1=1, dim2=3).add_(gram(self.H)[:, :, None])
        return K.view(n * m, n * m)


class Multipliers:
    """Solves (cK + λI)μ = u, by a factor of K at small size and by preconditioned conjugate gradients at large.

    The preconditioner is the readout's share of K, (c HHᵀ + λI) ⊗ I: one Cholesky factor of size n. Each solution
    starts the next search. ``products`` counts multiplications by K.
    """

    def __init__(self, tolerance: float, dense: bool | None = None):
        self.tolerance, self.dense, self.products, self.last = tolerance, dense, 0, None

    def solve(self, point: Point, c: float, lam: float, u: Tensor) -> Tensor:
        """μ, (n, m)."""
        dense = u.numel() <= DENSE if self.dense is None else self.dense
        mu = self._factored(point, c, lam, u) if dense else self._searched(point, c, lam, u)
        self.last = mu
        return mu

    def _factored(self, point, c, lam, u):
        K = point.gram().mul_(c)
        K.diagonal().add_(lam)
        L, failed = torch.linalg.cholesky_ex(K)
        if failed:
            raise NoMultipliersError("K = JJᵀ has no Cholesky factor: J has lost full rank (theorem 4.10)")
        self.products += 1
        return torch.cholesky_solve(u.reshape(-1, 1), L).view_as(u)

    def _searched(self, point, c, lam, u):
        G = gram(point.H).mul_(c)
        G.diagonal().add_(lam)
        L, failed = torch.linalg.cholesky_ex(G)
        if failed:
            raise NoMultipliersError("HHᵀ has no Cholesky factor: hidden features are linearly dependent")

        def times(v):
            self.products += 1
            v = torch.from_numpy(v).view_as(u)
            return (c * point.push(point.free(point.pull(v))) + lam * v).flatten().numpy()

        def precondition(v):
            return torch.cholesky_solve(torch.from_numpy(v).view_as(u), L).flatten().numpy()

        size = (u.numel(),) * 2
        mu, failed = cg(
            LinearOperator(size, times, dtype=float),
            u.flatten().numpy(),
            x0=None if self.last is None else self.last.flatten().numpy(),
            rtol=self.tolerance,
            maxiter=CG_ITERATIONS,
            M=LinearOperator(size, precondition, dtype=float),
        )
        if failed:
            raise NoMultipliersError(
                f"no multipliers within {CG_ITERATIONS} products with K: K is near singular"
            )
        return torch.from_numpy(mu).view_as(u)
