"""The linear equations of implicit steps, by conjugate gradients that keep the Cholesky factor of an earlier step.

From step to step K changes little: a factor of one step preconditions the next dozens. A flow takes two or three
factorizations instead of one for each step, and some five products with K a step, each far cheaper.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from scipy.linalg import blas, lapack
from torch import Tensor

from ..errors import NoMultipliersError
from ..linearization import Linearization
from ..linearization.solving import FACTORED, _overlaps
from ..losses import Curvature

PATIENCE = 12  # products after which a search with an old factor is given up for a new one
RANGE = 30.0  # how far c may go from that of the factor while λ > 0
MOST_PRODUCTS = 1000  # of a search with a new one
ROUGH = 1e-8  # of rᵀM⁻¹r at the guess: down to there a search is content with products in single precision
WORTH = 6  # products that a factor of HHᵀ costs: once an old one has cost so many more than a new one would have, it goes


class Multipliers:
    """Solves (cK + λI)μ = u at one point after another.

    Attributes
    ----------
    products : int
        Multiplications by K so far.
    factorizations : int
        Cholesky factors so far.
    """

    def __init__(self):
        self.products = self.factorizations = 0
        self._precondition: Callable[[np.ndarray], np.ndarray] | None = None
        self._patience, self._c = PATIENCE, 1.0  # and c of the factor
        self._fresh = 0  # products of the search with the factor when it was new,
        self._excess = 0  # and beyond these since

    def solve(
        self, lin: Linearization, u: Tensor, c: float, lam: float, guess: Tensor, accuracy: float
    ) -> Tensor:
        """μ (n, m) with (cK + λI)μ = ``u``, searched from ``guess``.

        ``accuracy`` bounds the error in θ, of c D⁻¹Jᵀμ: for a residual r of the equation its square is at most
        c rᵀ(cK + λI)⁻¹r, which the preconditioner estimates.

        Raises
        ------
        NoMultipliersError
            K is singular in floating point.
        """

        def times(w: Tensor, product=lin.product) -> Tensor:
            return self._through(product, w, c) + lam * w

        roughly = partial(times, product=lin.rough_product)

        self._keep(c, lam)
        matrix = lambda: self._matrix(lin, c, lam, None)  # noqa: E731
        # without λ small eigenvalues of K would drown in single precision
        return self._solve(times, u, guess, accuracy**2 / c, matrix, c, roughly if lam else None)

    def correct(
        self, lin: Linearization, rho: Tensor, c: float, lam: float, curvature: Curvature, accuracy: float
    ) -> Tensor:
        """Newton's correction dμ (n, m): (cHK + λI)dμ = ``rho``, for the curvature H = SSᵀ of the loss.

        As (cSᵀKS + λI)w = cSᵀKρ and dμ = (ρ − Sw)/λ, which asks nothing of H; λ > 0. ``accuracy`` and errors are those of
        :meth:`solve`.
        """

        def times(w: Tensor) -> Tensor:
            return curvature.root_transposed(self._through(lin.product, curvature.root(w), c)) + lam * w

        right = curvature.root_transposed(self._through(lin.product, rho, c))
        enough = (accuracy * lam) ** 2 / c
        matrix = lambda: self._matrix(lin, c, lam, curvature)  # noqa: E731
        self._keep(c, lam)
        w = self._solve(times, right, torch.zeros_like(right), enough, matrix, c)
        return (rho - curvature.root(w)) / lam

    def _through(self, product: Callable[[Tensor], Tensor], w: Tensor, c: float) -> Tensor:
        self.products += 1
        return c * product(w)

    def _keep(self, c: float, lam: float) -> None:
        """Forget a factor of another c, unless that only scales it."""
        if lam and not 1 / RANGE <= c / self._c <= RANGE:
            self._precondition = None

    def _solve(
        self, times, u: Tensor, guess: Tensor, enough: float, matrix, c: float, roughly=None
    ) -> Tensor:
        found = None
        if self._precondition is not None:
            found, used = self._search(times, u, guess, enough * c / self._c, self._patience, roughly)
            self._excess += used - self._fresh
        if found is None:
            self._precondition, self._c = matrix(), c
            found, self._fresh = self._search(times, u, guess, enough, MOST_PRODUCTS, roughly)
            self._patience, self._excess = PATIENCE + 2 * self._fresh, 0
        elif u.numel() > FACTORED and self._excess > WORTH:
            self._precondition = None  # of the next step
        if found is None:
            raise NoMultipliersError(f"no multipliers within {MOST_PRODUCTS} products: K is near singular")
        return found

    def _search(
        self, times, u: Tensor, x: Tensor, enough: float, patience: int, roughly=None
    ) -> tuple[Tensor | None, int]:
        """Conjugate gradients until rᵀM⁻¹r ≤ ``enough`` or lost in rounding; SciPy's stop at ‖r‖ alone.

        The residual of the guess is exact; its correction is searched by products in single precision, where it need be no better.
        """

        inverse = self._precondition
        assert inverse is not None

        def precondition(r: Tensor) -> Tensor:
            return torch.from_numpy(inverse(r.flatten().numpy())).view_as(r)

        r = u - times(x) if x.any() else u
        z = precondition(r)
        size = float((r * z).sum())
        enough = max(enough, 1e-28 * abs(float((u * precondition(u)).sum())))
        dear = u.numel() > FACTORED and enough >= ROUGH * size
        product = roughly if dear and roughly is not None else times
        p = z
        for used in range(patience):
            if size <= enough:
                return x, used
            q = product(p)
            bend = float((p * q).sum())
            if not bend > 0 and product is not times:
                product, q = times, times(p)
                bend = float((p * q).sum())
            if not bend > 0:  # also NaN
                raise NoMultipliersError("cK + λI is singular: J has lost full rank (theorem 4.10)")
            step = size / bend
            x, r = x + step * p, r - step * q
            z = precondition(r)
            size, before = float((r * z).sum()), size
            p = z + size / before * p
        return (x if size <= enough else None), patience

    def _matrix(self, lin: Linearization, c: float, lam: float, H: Curvature | None):
        """w ↦ M⁻¹w for M = cSᵀKS + λI, or for what is cheaper and near it where that is too large."""
        n, m = lin.outputs.shape
        if n * m > FACTORED:
            G = lin.sample_gram()
            if H is not None:
                G = G * _overlaps(H, lin.outputs)
            L = self._factor(G, c, lam, "HHᵀ has no Cholesky factor: hidden features are linearly dependent")
            return lambda w: lapack.dpotrs(L, w.reshape(n, m), lower=1)[0].ravel()
        K = lin.gram()
        if H is not None:
            rows = torch.vmap(lambda row: H.root_transposed(row.view(n, m)).flatten())
            K = rows(rows(K).mT.contiguous())
        L = self._factor(K, c, lam, "K = JJᵀ has no Cholesky factor: J has lost full rank (theorem 4.10)")
        return lambda w: blas.dtrsv(L, blas.dtrsv(L, w, lower=1), lower=1, trans=1)

    def _factor(self, K: Tensor, c: float, lam: float, failure: str) -> np.ndarray:
        K = K.mul(c)
        K.diagonal().add_(lam)
        self.factorizations += 1
        L, failed = lapack.dpotrf(K.numpy().T, lower=1, clean=0, overwrite_a=1)  # K is symmetric
        if failed or not np.isfinite(L.diagonal()).all():
            raise NoMultipliersError(failure)
        return L
