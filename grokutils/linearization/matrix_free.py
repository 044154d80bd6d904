"""J through its products only, by automatic differentiation: the network is evaluated once, J never formed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .base import Linearization

TOGETHER = 2**22  # entries of Jᵀu for the columns of K that are made at once


class MatrixFree(Linearization):
    """Keeps the graph of Jᵀu as a function of u; it is linear, so that its own backward pass is Jv.

    Reverse mode twice, in place of forward mode: that has one level for all threads, and fewer operations know it.
    """

    def __init__(self, model: Callable[[Tensor, Tensor], Tensor], theta: Tensor, X: Tensor):
        self.theta = theta
        with torch.enable_grad():
            self._theta = theta.clone().requires_grad_()
            self._F = model(self._theta, X)
            self._u = torch.zeros_like(self._F).requires_grad_()
            (self._pulled,) = torch.autograd.grad(self._F, self._theta, self._u, create_graph=True)
        self.outputs = self._F.detach()

    def jvp(self, v: Tensor) -> Tensor:
        return torch.autograd.grad(self._pulled, self._u, v, retain_graph=True)[0]

    def vjp(self, u: Tensor) -> Tensor:
        return torch.autograd.grad(self._F, self._theta, u, retain_graph=True)[0]

    def gram(self) -> Tensor:
        size, d = self.shape
        K = self.theta.new_empty(size, size)
        together = max(1, TOGETHER // d)
        for start in range(0, size, together):
            rows = min(together, size - start)
            units = self.theta.new_zeros(rows, size)
            units[:, start : start + rows].fill_diagonal_(1.0)
            (V,) = torch.autograd.grad(
                self._F,
                self._theta,
                units.view(rows, *self.outputs.shape),
                retain_graph=True,
                is_grads_batched=True,
            )
            (columns,) = torch.autograd.grad(
                self._pulled, self._u, V, retain_graph=True, is_grads_batched=True
            )
            K[start : start + rows] = columns.flatten(1)
        return K
