"""Closed forms of a two-layer network whose readout is always optimal (STUDY.md section 3).

Shapes: ``X`` (n, d_in), ``Y`` (n, d_out), embeddings ``E`` (..., d_in, width) with any leading batch dimensions,
H = σ(XE) (..., n, width), readout W (..., width, d_out). ``weight_decay`` is the study's λ, of
L_λ = ‖HW − Y‖² + λ(‖E‖² + ‖W‖²); 0 stands for the limit λ → 0, which needs more hidden units than samples.
Every form solves with K = HHᵀ + λI by one Cholesky factorization: no inverse, no YYᵀ.
"""

from __future__ import annotations

import torch
from scipy.linalg import lapack
from torch import Tensor

from .. import _checks, tasks
from ..activations import Activation, activation

# A pivot L_jj² of a singular matrix comes out as rounding error, positive as often as not. It stays below some
# 6 K_jj machine epsilons (measured up to 400 samples); this factor keeps a distance from that.
ROUNDING = 30


class SingularGramError(ArithmeticError):
    """HHᵀ + λI is not positive definite in floating point: the readout is not determined."""


def readout(E: Tensor, X: Tensor, Y: Tensor, activation="relu", weight_decay: float = 0.0) -> Tensor:
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
    sigma, weight_decay = _check(E, X, Y, activation, weight_decay)
    H = sigma.value(X @ E)
    return H.mT @ torch.cholesky_solve(Y, factor(H @ H.mT, weight_decay))


def cost(E: Tensor, X: Tensor, Y: Tensor, activation="relu", weight_decay: float = 0.0) -> Tensor:
    """R(E)/λ = ‖E‖² + Tr(Yᵀ(HHᵀ + λI)⁻¹Y), shape (...): eq. 19 at λ = 0, and eq. 16 exactly at every λ > 0.

    Differentiable. Raises as :func:`readout` does.
    """
    sigma, weight_decay = _check(E, X, Y, activation, weight_decay)
    H = sigma.value(X @ E)
    AY = torch.cholesky_solve(Y, factor(H @ H.mT, weight_decay))  # (..., n, d_out)
    return E.square().sum((-2, -1)) + (Y * AY).sum((-2, -1))


def velocity(E: Tensor, X: Tensor, Y: Tensor, activation="relu", weight_decay: float = 0.0) -> Tensor:
    """dE/dτ of the isolated dynamics, (..., d_in, width): eq. 20 at λ = 0, and exact at every λ > 0.

    Xᵀ[(A Y Yᵀ A H) ⊙ σ′(XE)] − E with A = (HHᵀ + λI)⁻¹, which is −½ of the gradient of :func:`cost`.
    Not differentiable. Raises as :func:`readout` does.
    """
    sigma, weight_decay = _check(E, X, Y, activation, weight_decay)
    with torch.no_grad():
        return Motion(E, Inputs(X), Y, sigma, weight_decay).velocity


class Inputs:
    """X as a linear map: rows that are sums of two one-hots are gathered, others multiplied."""

    def __init__(self, X: Tensor):
        self.X = X
        self.ends = tasks.ends(X)

    def __matmul__(self, E: Tensor) -> Tensor:
        """XE, (..., n, width)."""
        if self.ends is None:
            return self.X @ E
        left, right = self.ends
        return E.index_select(-2, left).add_(E.index_select(-2, right))

    def back(self, pull: Tensor) -> Tensor:
        """Xᵀ pull, (..., d_in, width)."""
        if self.ends is None:
            return self.X.mT @ pull
        total = pull.new_zeros(*pull.shape[:-2], self.X.shape[1], pull.shape[-1])
        for rows in self.ends:
            total.index_add_(-2, rows, pull)
        return total


class Motion:
    """What one evaluation of eq. 20 computes, kept for those who record it (unchecked arguments)."""

    def __init__(self, E: Tensor, X: Inputs, Y: Tensor, sigma: Activation, weight_decay: float):
        self.E, self.X, self.sigma = E, X, sigma
        self.Z = X @ E  # (..., n, width)
        self.H = sigma.value(self.Z)  # (..., n, width)
        self.factor = factor(gram(self.H), weight_decay)  # (..., n, n), lower triangle
        self.AY = torch.cholesky_solve(Y, self.factor)  # (..., n, d_out)
        self.readout = (self.AY.mT @ self.H).mT  # (..., width, d_out)

    @property
    def velocity(self) -> Tensor:
        pull = self.AY @ self.readout.mT  # (..., n, width)
        return self.X.back(pull.mul_(self.sigma.slope(self.Z))).sub_(self.E)


def gram(H: Tensor) -> Tensor:
    """HHᵀ for (..., n, width), outside automatic differentiation.

    On the CPU NumPy sees that both factors are one matrix and calls BLAS syrk: half the work of a general product.
    """
    if H.device.type != "cpu":
        return H @ H.mT
    array = H.numpy()
    return torch.from_numpy(array @ array.swapaxes(-1, -2))


def factor(K: Tensor, weight_decay: float) -> Tensor:
    """Lower Cholesky factor of K + λI; raises :class:`SingularGramError` where there is none.

    Outside automatic differentiation K is overwritten, and the factor's upper triangle is not meant to be read.
    """
    if weight_decay:
        K = K + weight_decay * torch.eye(K.shape[-1], dtype=K.dtype, device=K.device)
    scale = K.detach().diagonal(dim1=-2, dim2=-1).clone()
    in_place = K.device.type == "cpu" and not K.requires_grad
    L, failed = _in_place(K) if in_place else torch.linalg.cholesky_ex(K)
    pivots = L.detach().diagonal(dim1=-2, dim2=-1)
    if failed.any() or (pivots.square() <= ROUNDING * torch.finfo(K.dtype).eps * scale).any():
        raise SingularGramError(
            "HHᵀ is numerically singular: some training samples have hidden features that depend linearly on the "
            "others'. More hidden units, another seed or a weight_decay > 0 makes the readout well defined"
        )
    return L


def _in_place(K: Tensor) -> tuple[Tensor, Tensor]:
    """LAPACK's factorization into the memory of K; PyTorch's makes two copies, a third of its time at n = 492."""
    potrf = {torch.float64: lapack.dpotrf, torch.float32: lapack.spotrf}[K.dtype]
    failed = [
        potrf(each.T, lower=1, clean=0, overwrite_a=1)[1]  # the transpose is what Fortran calls contiguous
        for each in K.numpy().reshape(-1, *K.shape[-2:])
    ]
    return K.mT, torch.tensor(failed)


def _check(E, X, Y, spec, weight_decay) -> tuple[Activation, float]:
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
    weight_decay = _checks.real("weight_decay", weight_decay, 0)
    if weight_decay == 0:
        check_width(E.shape[-1], len(X))
    return activation(spec), weight_decay


def check_width(width: int, n_train: int) -> None:
    """Refuse a hidden layer too narrow for an interpolating readout (the study asks d_h > n)."""
    if width <= n_train:
        raise ValueError(
            f"width = {width}: must be greater than the number of training samples, {n_train}, "
            "for a readout of zero training loss (or give weight_decay > 0)"
        )
