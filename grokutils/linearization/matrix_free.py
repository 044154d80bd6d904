"""J through its products only, by automatic differentiation: the network is evaluated once, J never formed."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Linearization

TOGETHER = 2**19  # entries of Jᵀu, or of u, for the products with K that are made at once
PROBES = 2  # random directions of the outputs over which K is averaged


class MatrixFree(Linearization):
    """Keeps the graph of Jᵀu as a function of u; it is linear, so that its own backward pass is Jv.

    Reverse mode twice, in place of forward mode: that has one level for all threads, and fewer operations know it.
    """

    def __init__(self, theta: Tensor, at: Tensor, F: Tensor):
        """``F`` (n, m) is the network's output at ``at``, a copy of ``theta`` (d,) that has a graph."""
        self.theta, self.outputs, self._theta, self._F = theta, F.detach(), at, F
        with torch.enable_grad():
            self._u = torch.zeros_like(F).requires_grad_()
            (self._pulled,) = torch.autograd.grad(F, at, self._u, create_graph=True)

    def jvp(self, v: Tensor) -> Tensor:
        return torch.autograd.grad(self._pulled, self._u, v, retain_graph=True)[0]

    def vjp(self, u: Tensor) -> Tensor:
        return torch.autograd.grad(self._F, self._theta, u, retain_graph=True)[0]

    def gram(self) -> Tensor:
        size, together = self.shape[0], self._together
        K = self.theta.new_empty(size, size)
        for start in range(0, size, together):
            rows = K[start : start + together]
            units = torch.zeros_like(rows)
            units[:, start : start + together].fill_diagonal_(1.0)
            rows.copy_(self._products(units.view(-1, *self.outputs.shape)).flatten(1))
        return K

    def sample_gram(self) -> Tensor:
        """The mean over outputs of K's blocks (n, n), estimated: zᵀK_ij z/m for random signs z (m,)."""
        n, m = self.outputs.shape
        signs = torch.randint(2, (PROBES, m), generator=torch.Generator().manual_seed(0)) * 2 - 1
        G = self.theta.new_zeros(n, n)
        for z in signs.to(G.dtype):
            for rows in torch.arange(n).split(self._together):
                units = self.theta.new_zeros(len(rows), n, m)
                units[torch.arange(len(rows)), rows] = z
                G[rows] += self._products(units) @ z
        return (G + G.mT) / (2 * PROBES * m)

    @property
    def _together(self) -> int:
        return max(1, TOGETHER // max(self.shape))

    def _products(self, U: Tensor) -> Tensor:
        """K times each of ``U`` (k, n, m)."""
        batched = {"retain_graph": True, "is_grads_batched": True}
        try:
            (V,) = torch.autograd.grad(self._F, self._theta, U, **batched)
            return torch.autograd.grad(self._pulled, self._u, V, **batched)[0]
        except RuntimeError:  # a backward pass that is written for one gradient only
            return torch.stack([self.product(u) for u in U])
