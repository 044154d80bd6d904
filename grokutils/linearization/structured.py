"""J of the two-layer network ŷ = σ(XE)W by its structure.

With H = σ(XE) and S = σ′(XE), both (n, width), a displacement v = (dE, dW) and multipliers u (n, m):

- Jv = (S ⊙ X dE)W + H dW;    Jᵀu = (Xᵀ[S ⊙ uWᵀ], Hᵀu);
- K = (HHᵀ) ⊗ I + ((XXᵀ) ⊗ 11ᵀ) ⊙ MMᵀ with the rows M_(i,c) = S_i ⊙ W_c, of length width.

J itself, (nm, d), is never formed. With given sides of the kinks F is linear in z on each, z = 0 where pinned, and
springs put D⁻¹ between J and Jᵀ (:mod:`.kinks`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..models import TwoLayer
from .base import Linearization, syrk
from .kinks import SPRING, Sides


class Structured(Linearization):
    """F, J and K of a two-layer network at ``theta`` (d,) on inputs ``X`` (n, d_in)."""

    def __init__(self, model: TwoLayer, theta: Tensor, X: Tensor, sides: Sides | None = None):
        self.theta, self.X, (self.E, self.W) = theta, X, model.matrices(theta).values()
        Z = X @ self.E
        self.units = torch.zeros(0, dtype=torch.long)  # those with a D_h other than I
        if sides is None:
            self.H, self.S = model.activation.value(Z), model.activation.slope(Z)  # (n, width)
        else:
            low, high = model.kinks
            self.S = torch.where(sides.on, high, low).to(theta.dtype).masked_fill_(sides.pinned, 0.0)
            self.H = self.S * Z
            self._spring(sides.pinned)
        self.outputs = self.H @ self.W

    def _spring(self, pinned: Tensor) -> None:
        self.units = pinned.any(0).nonzero()[:, 0]
        stiff = pinned[:, self.units].mT.to(self.theta.dtype) / SPRING
        X = self.X
        D = (stiff @ (X[:, :, None] * X[:, None, :]).flatten(1)).view(-1, *(X.shape[1],) * 2)
        D.diagonal(dim1=1, dim2=2).add_(1.0)
        self.D_inverse = (
            torch.cholesky_inverse(torch.linalg.cholesky(D)) if len(D) else D
        )  # (units, d_in, d_in)

    def jvp(self, v: Tensor) -> Tensor:
        split = self.E.numel()
        dE, dW = v[:split].view_as(self.E), v[split:].view_as(self.W)
        return (self.S * (self.X @ dE)) @ self.W + self.H @ dW

    def vjp(self, u: Tensor) -> Tensor:
        return torch.cat([(self.X.mT @ (self.S * (u @ self.W.mT))).flatten(), (self.H.mT @ u).flatten()])

    def free(self, v: Tensor) -> Tensor:
        if not len(self.units):
            return v
        v = v.clone()
        dE = v[: self.E.numel()].view_as(self.E)
        dE[:, self.units] = (self.D_inverse @ dE[:, self.units].mT[:, :, None])[:, :, 0].mT
        return v

    def gram(self) -> Tensor:
        n, m = self.outputs.shape
        if not len(self.units):
            M = (self.S[:, None, :] * self.W.mT).flatten(0, 1)  # (nm, width)
            K = syrk(M).view(n, m, n, m) * syrk(self.X)[:, None, :, None]
        else:
            G = syrk(self.X).repeat(len(self.W), 1, 1)  # XD_h⁻¹Xᵀ, (width, n, n)
            G[self.units] = self.X @ self.D_inverse @ self.X.mT
            G *= self.S.mT[:, :, None] * self.S.mT[:, None, :]
            WW = (self.W[:, :, None] * self.W[:, None, :]).flatten(1)  # (width, m²)
            K = (G.flatten(1).mT @ WW).view(n, n, m, m).transpose(1, 2).contiguous()
        K.diagonal(dim1=1, dim2=3).add_(syrk(self.H)[:, :, None])
        return K.view(n * m, n * m)

    def sample_gram(self) -> Tensor:
        return syrk(self.H)
