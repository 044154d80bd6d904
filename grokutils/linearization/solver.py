"""(cK + λH⁻¹)μ = u, by one Cholesky factor at small size and by preconditioned conjugate gradients at large."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.linalg import lapack
from scipy.sparse.linalg import LinearOperator, cg
from torch import Tensor

from ..errors import NoMultipliersError
from ..losses import Curvature
from .base import Linearization, factor
from .matrix_free import MatrixFree
from .structured import Structured

FACTORED = 2500  # outputs nm up to which the matrix is formed and factored at every point
LAGGED = 6000  # outputs nm up to which it is formed at all: now and then, to precondition many searches
MOST_PRODUCTS = 500  # with K, of one search
WORN = 30  # products of one search after which the next begins with a new preconditioner

Operator = Callable[[np.ndarray], np.ndarray]


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
        self.last: np.ndarray | None = None  # the last solution, as the search counts it
        self._lagged: np.ndarray | None = None  # what preconditioners are made of, kept until it is worn

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
        small = u.numel() <= FACTORED and not isinstance(lin, MatrixFree)
        if small if self.factor is None else self.factor:
            L = self._cholesky(lin, c, lam, H)
            w = _back(L, right.reshape(-1, 1).numpy()).reshape(right.shape)
            return H.root(torch.from_numpy(w))
        return H.root(self._searched(lin, right, c, lam, H))

    def renew(self) -> None:
        """Make the next preconditioner anew, as after a jump to another point."""
        self._lagged = None

    def _cholesky(self, lin: Linearization, c: float, lam: float, H: Curvature) -> np.ndarray:
        """The lower factor of cSᵀKS + λI, samples first."""
        K = lin.gram()
        if type(H) is not Curvature:
            n, m = lin.outputs.shape
            rows = torch.func.vmap(lambda row: H.root_transposed(row.view(n, m)).flatten())
            K = rows(rows(K).mT.contiguous())
        K.mul_(c).diagonal().add_(lam)
        self.factorizations += 1
        L = factor(K)
        if L is None:
            raise NoMultipliersError("K = JJᵀ is singular: J has lost full rank (theorem 4.10)")
        return L

    def _searched(self, lin: Linearization, right: Tensor, c: float, lam: float, H: Curvature) -> Tensor:
        n, m = right.shape
        before = self.products

        def times(w: np.ndarray) -> np.ndarray:
            # the search keeps the few outputs in rows, (m, n), as two-layer networks like them
            self.products += 1
            W = torch.from_numpy(w.reshape(m, n)).mT
            image = H.root_transposed(lin.product(H.root(W)))
            return image.mT.mul(c).add_(W.mT, alpha=lam).flatten().numpy()

        w, failed = cg(
            LinearOperator((n * m,) * 2, times, dtype=np.float64),
            right.mT.flatten().numpy(),
            x0=self.last if self.last is not None and self.last.size == n * m else None,
            rtol=self.tolerance,
            maxiter=MOST_PRODUCTS,
            M=LinearOperator((n * m,) * 2, self._preconditioner(lin, c, lam, H), dtype=np.float64),
        )
        if failed:
            raise NoMultipliersError(f"no multipliers within {MOST_PRODUCTS} products: K is near singular")
        if self.products - before > WORN:
            self.renew()
        self.last = w
        return torch.from_numpy(w.reshape(m, n)).mT

    def _preconditioner(self, lin: Linearization, c: float, lam: float, H: Curvature) -> Operator:
        """A factor of the whole matrix, lagged; or of one that has the same block G ⊙ T for each output."""
        n, m = lin.outputs.shape
        whole = n * m <= LAGGED and not isinstance(lin, Structured)
        size = n * m if whole else n
        made = self._lagged if self._lagged is not None and len(self._lagged) == size else None
        if whole:
            made = self._cholesky(lin, c, lam, H) if made is None else made
            self._lagged = L = made
            return lambda w: _back(L, w.reshape(m, n).T.reshape(-1, 1)).reshape(n, m).T.ravel()
        if isinstance(lin, Structured):
            G = lin.sample_gram()
        else:
            self._lagged = lin.sample_gram().numpy() if made is None else made
            G = torch.from_numpy(self._lagged)
        G = c * G * _overlaps(H, lin.outputs)
        G.diagonal().add_(lam)
        L = factor(G)
        if L is None:
            raise NoMultipliersError("hidden features of the samples depend linearly: J has lost full rank")
        return lambda w: _back(L, w.reshape(m, n).T).T.ravel()


def _overlaps(H: Curvature, F: Tensor) -> Tensor:
    """T (n, n), T_ij² = ‖S_i‖²‖S_j‖²/m² in Frobenius' norm: what H makes of the blocks of G ⊗ I, roughly."""
    if type(H) is Curvature:
        return torch.ones((), dtype=F.dtype)
    units = torch.eye(F.shape[1], dtype=F.dtype)
    size = sum(H.root(unit.expand_as(F)).square().sum(1) for unit in units).div_(F.shape[1]).sqrt_()
    return size[:, None] * size


def _back(L: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(LLᵀ)⁻¹ ``right`` (k, columns), in Fortran's order."""
    return lapack.dpotrs(L, right, lower=1)[0]
