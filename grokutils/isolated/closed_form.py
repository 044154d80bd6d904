"""Closed forms of a two-layer network whose readout is always optimal (the study's eqs. 15 to 20).

Shapes: ``X`` (n, d_in), ``Y`` (n, d_out), embeddings ``E`` (..., d_in, width) with any leading batch dimensions,
H = σ(XE) (..., n, width), readout W (..., width, d_out). ``lam`` is the study's λ, of
L_λ = ‖HW − Y‖² + λ(‖E‖² + ‖W‖²); 0 stands for the limit λ → 0, which needs more hidden units than samples.
Every form solves with K = HHᵀ + λI by one Cholesky factorization: no inverse, no YYᵀ.
"""

from __future__ import annotations

import threading

import torch
from scipy.linalg import blas, lapack
from torch import Tensor

from .. import _checks, tasks
from ..activations import NAMED, Activation, activation
from ..errors import SingularGramError

# A pivot L_jj² of a singular matrix comes out as rounding error, positive as often as not. It stays below some
# 6 K_jj machine epsilons (measured up to 400 samples); this factor keeps a distance from that.
ROUNDING = 30


def readout(E: Tensor, X: Tensor, Y: Tensor, activation="relu", lam: float = 0.0) -> Tensor:
    """The optimal second layer φ(E), (..., width, d_out).

    Eq. 15, (HᵀH + λI)⁻¹HᵀY, computed as Hᵀ(HHᵀ + λI)⁻¹Y, which is the same for λ > 0 and becomes the
    minimum-norm interpolant H⁺Y (eq. 18) at λ = 0.

    Raises
    ------
    ValueError
        Arguments that do not fit, or λ = 0 with no more hidden units than samples.
    SingularGramError
        HHᵀ + λI without a Cholesky factor.
    """
    sigma, lam = _check(E, X, Y, activation, lam)
    H = sigma.value(X @ E)
    return H.mT @ _inverse_times(Y, H, lam)


def cost(E: Tensor, X: Tensor, Y: Tensor, activation="relu", lam: float = 0.0) -> Tensor:
    """R(E)/λ = ‖E‖² + Tr(Yᵀ(HHᵀ + λI)⁻¹Y), shape (...): eq. 19 at λ = 0, and eq. 16 exactly at every λ > 0.

    Differentiable, by reverse and forward mode and under ``vmap`` (which cannot look at values: singular problems are
    then not refused). Raises as :func:`readout` does.
    """
    sigma, lam = _check(E, X, Y, activation, lam)
    H = sigma.value(X @ E)
    AY = _inverse_times(Y, H, lam)
    return E.square().sum((-2, -1)) + (Y * AY).sum((-2, -1))


def velocity(E: Tensor, X: Tensor, Y: Tensor, activation="relu", lam: float = 0.0) -> Tensor:
    """dE/dτ of the isolated dynamics, (..., d_in, width): eq. 20 at λ = 0, and exact at every λ > 0.

    Xᵀ[(A Y Yᵀ A H) ⊙ σ′(XE)] − E with A = (HHᵀ + λI)⁻¹, which is −½ of the gradient of :func:`cost`.
    Not differentiable. Raises as :func:`readout` does.
    """
    sigma, lam = _check(E, X, Y, activation, lam)
    with torch.no_grad():
        return Motion(E, Inputs(X), Y, sigma, lam).velocity


class Scratch(threading.local):
    """Arrays of each thread that outlive a call: new pages from the system would cost half as much as the work."""

    def __init__(self):
        self.arrays: dict[str, Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """An array of this shape and of the dtype of ``like``; holds anything, and is valid until it is taken again."""
        found = self.arrays.get(name)
        if found is None or found.shape != shape or found.dtype != like.dtype:
            found = self.arrays[name] = like.new_empty(shape)
        return found


SCRATCH = Scratch()


class Inputs:
    """X as a linear map: rows that are sums of two one-hots are gathered, others multiplied."""

    def __init__(self, X: Tensor):
        self.X = X
        self.ends = tasks.ends(X)

    def times(self, E: Tensor, into: Tensor, other: Tensor) -> Tensor:
        """XE, written to ``into`` (..., n, width); overwrites ``other``, which is like it."""
        if self.ends is None:
            return torch.matmul(self.X, E, out=into)
        for rows, out in zip(self.ends, (into, other), strict=True):
            torch.index_select(E, -2, rows, out=out)
        return into.add_(other)

    def back(self, pull: Tensor) -> Tensor:
        """Xᵀ pull, (..., d_in, width)."""
        if self.ends is None:
            return self.X.mT @ pull
        total = pull.new_zeros(*pull.shape[:-2], self.X.shape[1], pull.shape[-1])
        for rows in self.ends:
            total.index_add_(-2, rows, pull)
        return total


class Motion:
    """What one evaluation of eq. 20 computes, kept for those who record it (unchecked arguments).

    Its arrays are scratch: they hold until the thread makes the next one.
    """

    def __init__(self, E: Tensor, X: Inputs, Y: Tensor, sigma: Activation, lam: float):
        self.E, self.X, self.sigma = E, X, sigma
        hidden, samples = (*E.shape[:-2], len(Y), E.shape[-1]), (*E.shape[:-2], len(Y), len(Y))
        self.other = SCRATCH.take("other", hidden, E)
        self.Z = X.times(E, SCRATCH.take("hidden", hidden, E), self.other)  # (..., n, width)
        self.relu = sigma == NAMED["relu"]  # a callable of the user's may have that name, too
        self.H = self.Z.relu_() if self.relu else sigma.value(self.Z)
        self.factor = _in_place(
            self.H, lam, SCRATCH.take("gram", samples, E)
        )  # lower triangle of (..., n, n)
        self.AY_T = _solved(self.factor, Y)  # (..., d_out, n)
        self.readout_T = self.AY_T @ self.H  # (..., d_out, width)

    @property
    def readout(self) -> Tensor:
        """W, (..., width, d_out)."""
        return self.readout_T.mT

    @property
    def velocity(self) -> Tensor:
        pull = torch.matmul(self.AY_T.mT, self.readout_T, out=self.other)  # (..., n, width)
        if self.relu:  # σ′(Z) is 1 where H > 0, and 0 elsewhere; in one pass
            torch.ops.aten.threshold_backward.grad_input(pull, self.H, 0, grad_input=pull)
        else:
            pull.mul_(self.sigma.slope(self.Z))
        return self.X.back(pull).sub_(self.E)


def _in_place(H: Tensor, lam: float, K: Tensor) -> Tensor:
    """Lower Cholesky factor of HHᵀ + λI, written to ``K``, whose upper triangle is not meant to be read.

    BLAS and LAPACK themselves: PyTorch computes both triangles and copies twice, half as long again at n = 492.
    """
    double = H.dtype == torch.float64
    syrk, potrf = (blas.dsyrk, lapack.dpotrf) if double else (blas.ssyrk, lapack.spotrf)
    flat, whole = H.contiguous().numpy().reshape(-1, *H.shape[-2:]), K.numpy().reshape(-1, *K.shape[-2:])
    for each, out in zip(flat, whole, strict=True):  # transposes are what Fortran calls contiguous
        syrk(1.0, each.T, trans=1, lower=1, c=out.T, overwrite_c=1)
    diagonal = K.diagonal(dim1=-2, dim2=-1)
    scale = diagonal.add_(lam).clone()
    failed = [potrf(out.T, lower=1, clean=0, overwrite_a=1)[1] for out in whole]
    _check_pivots(torch.tensor(failed), diagonal, scale)
    return K.mT


def _solved(factor: Tensor, Y: Tensor) -> Tensor:
    """(AY)ᵀ, (..., d_out, n), from the factor of A⁻¹."""
    potrs = lapack.dpotrs if Y.dtype == torch.float64 else lapack.spotrs
    result = Y.mT.expand(*factor.shape[:-2], -1, -1).clone(memory_format=torch.contiguous_format)
    matrices = zip(*(M.numpy().reshape(-1, *M.shape[-2:]) for M in (factor.mT, result)), strict=True)
    for K, rows in matrices:
        potrs(K.T, rows.T, lower=1, overwrite_b=1)
    return result


def _inverse_times(Y: Tensor, H: Tensor, lam: float) -> Tensor:
    """(HHᵀ + λI)⁻¹Y, (..., n, d_out), differentiable; raises :class:`SingularGramError` where there is none."""
    K = H @ H.mT + lam * torch.eye(len(Y), dtype=H.dtype, device=H.device)
    L, failed = torch.linalg.cholesky_ex(K)
    _check_pivots(failed, L.detach().diagonal(dim1=-2, dim2=-1), K.detach().diagonal(dim1=-2, dim2=-1))
    # expanded, since PyTorch's forward mode gives wrong numbers where Y is broadcast
    return torch.cholesky_solve(Y.expand(*K.shape[:-2], *Y.shape), L)


def _check_pivots(failed: Tensor, pivots: Tensor, scale: Tensor) -> None:
    lost = pivots.square() <= ROUNDING * torch.finfo(pivots.dtype).eps * scale
    if not _checks.known((~lost).all() & (failed == 0).all()):
        raise SingularGramError(
            "HHᵀ is numerically singular: some training samples have hidden features that depend linearly on the "
            "others'. More hidden units, another seed or a lam > 0 makes the readout well defined"
        )


def _check(E, X, Y, spec, lam) -> tuple[Activation, float]:
    for name, value in (("X", X), ("Y", Y)):
        _checks.tensor(name, value, ndim=2)
    if _checks.tensor("E", E).ndim < 2:
        raise ValueError(f"E has shape {tuple(E.shape)}: must be (..., d_in, width)")
    _checks.same("dtypes", E=E.dtype, X=X.dtype, Y=Y.dtype)
    if X.shape[1] != E.shape[-2]:
        raise ValueError(
            f"E has shape {tuple(E.shape)}: must be (..., {X.shape[1]}, width) to follow X of {tuple(X.shape)}"
        )
    if len(X) != len(Y):
        raise ValueError(f"Y has {len(Y)} rows: must have one for each of the {len(X)} rows of X")
    lam = _checks.real("lam", lam, 0)
    if lam == 0:
        check_width(E.shape[-1], len(X))
    return activation(spec), lam


def check_width(width: int, n_train: int) -> None:
    """Refuse a hidden layer too narrow for an interpolating readout (the study asks d_h > n)."""
    if width <= n_train:
        raise ValueError(
            f"width = {width}: must be greater than the number of training samples, {n_train}, "
            "for a readout of zero training loss (or give lam > 0)"
        )
