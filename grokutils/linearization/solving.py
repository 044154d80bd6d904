"""(cK + λH⁻¹)μ = u at one point, by a Cholesky factor at small size and by preconditioned conjugate gradients at large.

A flow, which solves at one point after another, keeps its preconditioner (:mod:`grokutils.flow`).
"""

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

FACTORED = 2500  # outputs nm up to which the matrix is formed and factored
MOST_PRODUCTS = 1000  # with K, of one search

Operator = Callable[[np.ndarray], np.ndarray]


def solve(
    lin: Linearization, u: Tensor, c: float, lam: float, H: Curvature, tolerance: float, factored: bool | None
) -> Tensor:
    """As :meth:`.Linearization.solve`, with H = SSᵀ: μ = S(cSᵀKS + λI)⁻¹Sᵀu, which needs no inverse of H."""
    right = H.root_transposed(u)
    if u.numel() <= FACTORED if factored is None else factored:
        L = _whole(lin, c, lam, H)
        w = lapack.dpotrs(L, right.flatten().numpy(), lower=1)[0]
        return H.root(torch.from_numpy(w).view_as(right))
    return H.root(_searched(lin, right, c, lam, H, tolerance))


def _whole(lin: Linearization, c: float, lam: float, H: Curvature) -> np.ndarray:
    """The lower factor of cSᵀKS + λI."""
    K = lin.gram()
    if type(H) is not Curvature:
        shape = lin.outputs.shape
        rows = torch.func.vmap(lambda row: H.root_transposed(row.view(shape)).flatten())
        K = rows(rows(K).mT.contiguous())
    return _factor(K, c, lam)


def _factor(K: Tensor, c: float, lam: float) -> np.ndarray:
    K = K * c
    K.diagonal().add_(lam)
    L = factor(K)
    if L is None:
        raise NoMultipliersError(
            "cK + λI is singular: J has lost full rank (theorem 4.10), and λ is too small to mend it"
        )
    return L


def _searched(
    lin: Linearization, right: Tensor, c: float, lam: float, H: Curvature, tolerance: float
) -> Tensor:
    n, m = right.shape

    # The search keeps the few outputs in rows, (m, n), as products of two-layer networks and LAPACK do.
    def times(w: np.ndarray) -> np.ndarray:
        W = torch.from_numpy(w.reshape(m, n)).mT
        image = H.root_transposed(lin.product(H.root(W)))
        return image.mT.mul(c).add_(W.mT, alpha=lam).flatten().numpy()

    L = _factor(
        lin.sample_gram() * _overlaps(H, lin.outputs), c, lam
    )  # of a matrix with one block for all outputs

    def precondition(w: np.ndarray) -> np.ndarray:
        return lapack.dpotrs(L, w.reshape(m, n).T, lower=1)[0].T.ravel()

    operators = (LinearOperator((n * m,) * 2, each, dtype=np.float64) for each in (times, precondition))
    A, M = operators
    w, failed = cg(A, right.mT.flatten().numpy(), rtol=tolerance, maxiter=MOST_PRODUCTS, M=M)
    if failed:
        raise NoMultipliersError(
            f"no multipliers within {MOST_PRODUCTS} products with K: it is near singular"
        )
    return torch.from_numpy(w.reshape(m, n)).mT


def _overlaps(H: Curvature, F: Tensor) -> Tensor:
    """T (n, n), T_ij² = ‖S_i‖²‖S_j‖²/m² in Frobenius' norm: what H makes of the blocks of G ⊗ I, roughly."""
    units = torch.eye(F.shape[1], dtype=F.dtype)
    squares = torch.stack([H.root(unit.expand_as(F)).square().sum(1) for unit in units])
    size = squares.mean(0).sqrt()
    return size[:, None] * size
