"""(cK + λH⁻¹)μ = u, by one Cholesky factor at small size and by preconditioned conjugate gradients at large."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, cg
from torch import Tensor

from ..errors import NoMultipliersError
from ..losses import Curvature
from .base import Linearization
from .matrix_free import MatrixFree

FACTORED = 2500  # outputs nm up to which the matrix is formed and factored
MOST_PRODUCTS = 500  # of one search
TOO_MANY = 30  # products of one search after which the next begins with a new preconditioner


class Solver:
    """Solves at one point after another, and remembers from each what helps at the next.

    Parameters
    ----------
    tolerance : of the residual, relative to the right-hand side, where the solution is searched.
    factor : form and factor the matrix each time (True), search by conjugate gradients (False), or decide by its size
        and kind.

    Attributes
    ----------
    products : int
        Multiplications by K so far.
    factorizations : int
        Cholesky factors of an nm × nm matrix so far.
    """

    def __init__(self, tolerance: float = 1e-10, factor: bool | None = None):
        self.tolerance, self.factor = tolerance, factor
        self.products = self.factorizations = 0
        self.last: Tensor | None = None  # the last solution in the coordinates of the search
        self.preconditioner: Tensor | None = None  # a lagged Cholesky factor

    def solve(
        self,
        lin: Linearization,
        u: Tensor,
        c: float = 1.0,
        lam: float = 0.0,
        curvature: Curvature | None = None,
    ) -> Tensor:
        """μ (n, m) with (cK + λH⁻¹)μ = ``u`` (n, m).

        With H = SSᵀ, μ = S(cSᵀKS + λI)⁻¹Sᵀu, which needs no inverse of H: where H is singular this is the limit of
        H + εI as ε → 0. ``curvature`` None is H = I.

        Raises
        ------
        NoMultipliersError
            The matrix has no Cholesky factor, or no solution is found.
        """
        H = Curvature() if curvature is None else curvature
        right = H.root_transposed(u)
        factor = (
            self.factor
            if self.factor is not None
            else u.numel() <= FACTORED and not isinstance(lin, MatrixFree)
        )
        w = self._factored(lin, right, c, lam, H) if factor else self._searched(lin, right, c, lam, H)
        return H.root(w)

    def forget(self) -> None:
        """Begin anew, as after a jump to another point."""
        self.last = None

    def _matrix(self, lin: Linearization, c: float, lam: float, H: Curvature) -> Tensor:
        """cSᵀKS + λI, (nm, nm)."""
        K = lin.gram()
        if type(H) is not Curvature:
            n, m = lin.outputs.shape
            rows = torch.vmap(lambda row: H.root_transposed(row.view(n, m)).flatten())
            K = rows(rows(K).mT.contiguous())
        K.mul_(c).diagonal().add_(lam)
        return K

    def _cholesky(self, A: Tensor) -> Tensor:
        self.factorizations += 1
        L, failed = torch.linalg.cholesky_ex(A)
        if failed:
            raise NoMultipliersError("cK + λI has no Cholesky factor: J has lost full rank (theorem 4.10)")
        return L

    def _factored(self, lin, right: Tensor, c: float, lam: float, H: Curvature) -> Tensor:
        L = self._cholesky(self._matrix(lin, c, lam, H))
        return torch.cholesky_solve(right.reshape(-1, 1), L).view_as(right)

    def _searched(self, lin, right: Tensor, c: float, lam: float, H: Curvature) -> Tensor:
        size, before = right.numel(), self.products
        precondition = self._preconditioner(lin, c, lam, H)

        def times(w):
            self.products += 1
            w = torch.from_numpy(w).view_as(right)
            return (c * H.root_transposed(lin.product(H.root(w))) + lam * w).flatten().numpy()

        w, failed = cg(
            LinearOperator((size, size), times, dtype=np.float64),
            right.flatten().numpy(),
            x0=None if self.last is None or self.last.shape != right.shape else self.last.flatten().numpy(),
            rtol=self.tolerance,
            maxiter=MOST_PRODUCTS,
            M=LinearOperator((size, size), precondition, dtype=np.float64),
        )
        if failed:
            raise NoMultipliersError(
                f"no multipliers within {MOST_PRODUCTS} products with K: K is near singular"
            )
        if self.products - before > TOO_MANY:
            self.preconditioner = None
        self.last = torch.from_numpy(w).view_as(right)
        return self.last

    def _preconditioner(self, lin, c: float, lam: float, H: Curvature):
        G = lin.sample_gram()
        if G is not None:  # K's share G ⊗ I, one factor of size n
            G.mul_(c).diagonal().add_(lam)
            L, failed = torch.linalg.cholesky_ex(G)
            if failed:
                raise NoMultipliersError("HHᵀ has no Cholesky factor: hidden features are linearly dependent")
            shape = lin.outputs.shape
            return lambda w: torch.cholesky_solve(torch.from_numpy(w).view(shape), L).flatten().numpy()
        if self.preconditioner is None or len(self.preconditioner) != lin.outputs.numel():
            self.preconditioner = self._cholesky(self._matrix(lin, c, lam, H))
        L = self.preconditioner
        return lambda w: torch.cholesky_solve(torch.from_numpy(w).view(-1, 1), L).flatten().numpy()
