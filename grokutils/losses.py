"""Losses as functions of the outputs F (n, m) and targets Y (n, m), with what an implicit step needs of them.

A loss L is summed over samples, as in the study: L_λ = L + λ‖θ‖². Its gradient and curvature come with a factor ½, so
that for squared error the gradient is the residual F − Y and the curvature the identity. A loss of one's own is a
subclass of :class:`Loss`, or of one of the losses here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import _checks


class Curvature:
    """H = SSᵀ, acting on each sample's outputs; this one is the identity, which squared error has."""

    def root(self, U: Tensor) -> Tensor:
        """SU, (n, m)."""
        return U

    def root_transposed(self, U: Tensor) -> Tensor:
        """SᵀU, (n, m)."""
        return U

    def times(self, U: Tensor) -> Tensor:
        """HU, (n, m)."""
        return self.root(self.root_transposed(U))


class SoftmaxCurvature(Curvature):
    """½(diag p − ppᵀ) for each row p of ``P`` (n, m): S = (I − p1ᵀ) diag(p/2)^½."""

    def __init__(self, P: Tensor):
        self.P, self.half = P, (0.5 * P).sqrt()

    def root(self, U: Tensor) -> Tensor:
        U = self.half * U
        return U - self.P * U.sum(1, keepdim=True)

    def root_transposed(self, U: Tensor) -> Tensor:
        return self.half * (U - (self.P * U).sum(1, keepdim=True))


class Loss:
    """What a loss must have; ``F`` and ``Y`` are (n, m)."""

    name: str

    def value(self, F: Tensor, Y: Tensor) -> Tensor:
        """L, a scalar: the sum over samples."""
        raise NotImplementedError

    def gradient(self, F: Tensor, Y: Tensor) -> Tensor:
        """½ ∂L/∂F, (n, m)."""
        raise NotImplementedError

    def curvature(self, F: Tensor, Y: Tensor) -> Curvature:
        """½ ∂²L/∂F² as a product SSᵀ."""
        raise NotImplementedError

    def check(self, Y: Tensor) -> None:
        """Refuse targets that do not fit the loss, by ``ValueError``."""
        raise NotImplementedError

    def count(self, Y: Tensor) -> int:
        """How many terms PyTorch's mean of this loss averages over."""
        raise NotImplementedError


class SquaredError(Loss):
    """L = ‖F − Y‖², the study's (eq. 1), for outputs F and targets Y (n, m) of any real values.

    PyTorch's ``MSELoss`` is its mean over all nm terms: λ = nm·w/2 for ``weight_decay`` w.
    """

    name = "squared_error"

    def value(self, F: Tensor, Y: Tensor) -> Tensor:
        return (F - Y).square().sum()

    def gradient(self, F: Tensor, Y: Tensor) -> Tensor:
        return F - Y

    def curvature(self, F: Tensor, Y: Tensor) -> Curvature:
        return Curvature()

    def check(self, Y: Tensor) -> None:
        _checks.tensor("Y", Y, ndim=2)

    def count(self, Y: Tensor) -> int:
        return Y.numel()


class CrossEntropy(Loss):
    """L = −Σ Y log softmax(F), for outputs F (n, m); rows of Y (n, m) are probabilities of the m ≥ 2 classes.

    PyTorch's ``CrossEntropyLoss`` is its mean over the n samples: λ = n·w/2 for ``weight_decay`` w. The study does not cover it.
    """

    name = "cross_entropy"

    def value(self, F: Tensor, Y: Tensor) -> Tensor:
        return -(Y * torch.log_softmax(F, 1)).sum()

    def gradient(self, F: Tensor, Y: Tensor) -> Tensor:
        return 0.5 * (torch.softmax(F, 1) - Y)

    def curvature(self, F: Tensor, Y: Tensor) -> Curvature:
        return SoftmaxCurvature(torch.softmax(F, 1))

    def check(self, Y: Tensor) -> None:
        _checks.tensor("Y", Y, ndim=2)
        if Y.shape[1] < 2:
            raise ValueError(
                "Y has one column: cross_entropy needs the probabilities of at least two classes"
            )
        if (Y < 0).any() or not torch.allclose(Y.sum(1), torch.ones_like(Y[:, 0]), rtol=0, atol=1e-6):
            raise ValueError(
                "Y has rows that are no probabilities: for cross_entropy each must be at least 0 and sum to 1"
            )

    def count(self, Y: Tensor) -> int:
        return len(Y)


squared_error, cross_entropy = SquaredError(), CrossEntropy()
LOSSES: dict[str, Loss] = {
    "squared_error": squared_error,
    "mse": squared_error,
    "cross_entropy": cross_entropy,
}


def loss(spec: str | Loss) -> Loss:
    """The loss that ``spec`` names, or ``spec`` itself where it is one.

    Raises
    ------
    ValueError
        An unknown name.
    """
    if isinstance(spec, Loss):
        return spec
    if not isinstance(spec, str) or spec not in LOSSES:
        raise ValueError(f"loss = {spec!r}: must be one of {', '.join(map(repr, LOSSES))}, or a losses.Loss")
    return LOSSES[spec]


def lam(spec: str | Loss, Y: Tensor, weight_decay: float) -> float:
    """The study's λ of training on PyTorch's mean loss with ``weight_decay`` w: λ = count(Y)·w/2.

    A step of gradient descent on the mean moves θ along −(∇L/count + wθ) = −∇L_λ/count.
    """
    return loss(spec).count(Y) * _checks.real("weight_decay", weight_decay, 0) / 2


def weight_decay(spec: str | Loss, Y: Tensor, lam: float) -> float:
    """PyTorch's w of the study's λ = ``lam``: the inverse of :func:`lam`."""
    return 2 * _checks.real("lam", lam, 0) / loss(spec).count(Y)
