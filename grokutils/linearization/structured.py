"""J of the two-layer network ŷ = σ(XE)W by its structure.

With H = σ(XE) and S = σ′(XE), both (n, width), a displacement v = (dE, dW) and multipliers u (n, m):

- Jv = (S ⊙ X dE)W + H dW;    Jᵀu = (Xᵀ[S ⊙ uWᵀ], Hᵀu);
- K = (HHᵀ) ⊗ I + ((XXᵀ) ⊗ 11ᵀ) ⊙ MMᵀ with the rows M_(i,c) = S_i ⊙ W_c, of length width.

J itself, (nm, d), is formed only where it is asked for. Pinned pre-activations put D⁻¹ between J and Jᵀ (:mod:`.kinks`): the pinned inputs of
hidden unit h, rows of X_h, give D_h⁻¹ = I − B_hᵀB_h with B_h = L⁻¹X_h and LLᵀ = X_hX_hᵀ + spring·I.
"""

from __future__ import annotations

from copy import copy

import torch
from torch import Tensor

from ..models import TwoLayer
from .base import Linearization, syrk
from .inputs import Inputs
from .kinks import SPRING, Sides

FEW = 1e9  # multiplications, n²·width, below which HHᵀ is formed at once


class Structured(Linearization):
    """F, J and K of a two-layer network at ``theta`` (d,) on inputs ``X`` (n, d_in).

    Parameters
    ----------
    slopes : (n, width) in place of σ′(XE), such as its average over recent steps.
    pinned : (n, width) booleans: pre-activations held at 0, where σ′ does not matter.
    spring : softness of what holds them; 0 would be rigid.
    """

    def __init__(
        self,
        model: TwoLayer,
        theta: Tensor,
        X: Tensor,
        slopes: Tensor | None = None,
        pinned: Tensor | None = None,
        spring: float = SPRING,
    ):
        self.theta, self.X = theta, Inputs.of(X)
        self.E, self.W = model.matrices(theta).values()
        Z = self.X.times(self.E)
        if slopes is None:
            self.H, self.S = model.activation.with_slope(Z)  # (n, width)
        else:
            self.H, self.S = model.activation.value(Z), slopes
        self._hold(pinned, spring)
        self.outputs = self.H @ self.W
        self._HH: Tensor | None = None
        self._products = 0
        self._scratch: tuple[Tensor, Tensor] | None = None
        self._single: Structured | None = None

    @classmethod
    def with_sides(cls, model: TwoLayer, theta: Tensor, X: Tensor, sides: Sides) -> Structured:
        """Linear in z on each of the given sides of the kinks, and 0 where pinned: H = S ⊙ XE."""
        if model.kinks is None:
            raise ValueError(f"sides given: {model.name} has no kinks")
        low, high = model.kinks
        slopes = torch.full_like(sides.on, low, dtype=theta.dtype).masked_fill_(sides.on, high)
        lin = cls(model, theta, X, slopes, sides.pinned)
        lin.H = lin.X.times(lin.E).mul_(lin.S)
        lin.outputs = lin.H @ lin.W
        return lin

    def _hold(self, pinned: Tensor | None, spring: float) -> None:
        """B (units, most, d_in) of the hidden units that have pinned inputs, filled up with rows 0."""
        self.units = self.B = torch.zeros(0)
        if pinned is None or not pinned.any():
            return
        self.S = self.S.masked_fill(pinned, 0.0)
        hidden, sample = pinned.mT.nonzero(as_tuple=True)  # sorted by hidden unit
        self.units, unit, counts = hidden.unique_consecutive(return_inverse=True, return_counts=True)
        place = torch.arange(len(hidden)) - (counts.cumsum(0) - counts)[unit]
        rows = self.E.new_zeros(len(self.units), int(counts.max()), self.E.shape[0])
        rows[unit, place] = self.X.matrix[sample]
        self._pins = unit, place
        G = rows @ rows.mT
        diagonal = rows.new_ones(rows.shape[:2])
        diagonal[unit, place] = spring
        G.diagonal(dim1=1, dim2=2).add_(diagonal)
        self.B = torch.linalg.solve_triangular(torch.linalg.cholesky(G), rows, upper=False)

    @property
    def held(self) -> int:
        """How many dimensions the pinned pre-activations take away."""
        return round(float(self.B.square().sum()))

    def jvp(self, v: Tensor) -> Tensor:
        dE, dW = self._layers(v)
        return self._push(dE).add_((dW.mT @ self.H.mT).mT)

    def vjp(self, u: Tensor) -> Tensor:
        return torch.cat([self._pull(u).flatten(), (u.mT @ self.H).mT.flatten()])

    def free(self, v: Tensor) -> Tensor:
        if not len(self.units):
            return v
        v = v.clone()
        self._release(self._layers(v)[0])
        return v

    def product(self, u: Tensor) -> Tensor:
        return self._push(self._release(self._pull(u))).add_(self._by_readout(u))

    def rough_product(self, u: Tensor) -> Tensor:
        if self.X.ends is None or len(self.units):
            return self.product(u)
        if self._single is None:
            made = self._single = copy(self)
            made.E, made.W, made.H, made.S = (M.float() for M in (self.E, self.W, self.H, self.S))
            made._HH = None if self._HH is None else self._HH.float()
            made._scratch = None
        return self._single.product(u.float()).double()

    def _by_readout(self, u: Tensor) -> Tensor:
        """HHᵀu, (n, m): by HHᵀ where that is there, or is worth its n²·width by the products so far, each 2·n·width·m without it."""
        (n, width), m = self.H.shape, u.shape[1]
        self._products += 1
        if self._HH is None and n**2 * width > FEW and 2 * m * self._products < n:
            return ((u.mT @ self.H) @ self.H.mT).mT
        return (u.mT @ self.sample_gram()).mT

    def jacobian(self) -> Tensor:
        n, m = self.outputs.shape
        of_E = torch.einsum("ix,ih,ha->iaxh", self.X.matrix, self.S, self.W)
        of_W = self.H.new_zeros(n, m, *self.W.shape)
        of_W.diagonal(dim1=1, dim2=3).copy_(self.H[:, :, None])
        return torch.cat([of_E.flatten(2), of_W.flatten(2)], dim=2).flatten(0, 1)

    def gram(self) -> Tensor:
        n, m = self.outputs.shape
        K = syrk(self._rows(self.S)).view(n, m, n, m)
        K *= self.X.gram()[:, None, :, None]
        if len(self.units):
            unit, place = self._pins
            hidden = self.units[unit]
            V = self.S[:, hidden] * (
                self.X.matrix @ self.B[unit, place].mT
            )  # one column for each pin, (n, pins)
            V = V[:, None] * self.W[hidden].mT  # (n, m, pins)
            K -= syrk(V.flatten(0, 1)).view(n, m, n, m)
        K.diagonal(dim1=1, dim2=3).add_(self.sample_gram()[:, :, None])
        return K.view(n * m, n * m)

    def sample_gram(self) -> Tensor:
        """HHᵀ (n, n): the readout's share of K is HHᵀ ⊗ I."""
        if self._HH is None:
            self._HH = syrk(self.H)
        return self._HH

    def _rows(self, S: Tensor) -> Tensor:
        return (S[:, None, :] * self.W.mT).flatten(0, 1)  # (nm, width)

    def _layers(self, v: Tensor) -> tuple[Tensor, Tensor]:
        split = self.E.numel()
        return v[:split].view_as(self.E), v[split:].view_as(self.W)

    # In the two products arrays of the size of H stay in two scratch arrays, and the few outputs lie in rows, (m, n):
    # BLAS is half as fast again with the long side contiguous.

    def _arrays(self) -> tuple[Tensor, Tensor]:
        if self._scratch is None:
            self._scratch = torch.empty_like(self.H), torch.empty_like(self.H)
        return self._scratch

    def _pull(self, u: Tensor) -> Tensor:
        """Xᵀ[S ⊙ uWᵀ], (d_in, width)."""
        A, _ = self._arrays()
        return self.X.transposed_times(torch.mm(u, self.W.mT, out=A).mul_(self.S))

    def _push(self, dE: Tensor) -> Tensor:
        """(S ⊙ X dE)W, (n, m)."""
        A, B = self._arrays()
        return (self.W.mT @ self.X.times(dE, A, B).mul_(self.S).mT).mT

    def _release(self, dE: Tensor) -> Tensor:
        """D⁻¹dE in place."""
        if len(self.units):
            part = dE.index_select(1, self.units).mT[:, :, None]  # (units, d_in, 1)
            held = torch.bmm(self.B.mT, torch.bmm(self.B, part))[:, :, 0]
            dE.index_add_(1, self.units, held.mT, alpha=-1)
        return dE
