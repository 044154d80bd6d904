"""J as a matrix, by automatic differentiation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .base import Linearization, syrk

TOGETHER = 2**24  # entries of J that one batch of backward passes makes


class Dense(Linearization):
    """Holds J (nm, d)."""

    def __init__(self, model: Callable[[Tensor, Tensor], Tensor], theta: Tensor, X: Tensor, outputs: Tensor):
        self.theta, self.outputs = theta, outputs
        self.J = self._by_samples(model, X)

    def _by_samples(self, model, X: Tensor) -> Tensor:
        """One sample's rows at a time, since no sample's outputs depend on the others; checked against a product."""
        n, m = self.outputs.shape

        def rows(x: Tensor) -> Tensor:
            return torch.func.jacrev(lambda t: model(t, x[None])[0])(self.theta)  # (m, d)

        try:
            chunk = max(1, TOGETHER // (m * len(self.theta)))
            J = torch.func.vmap(rows, chunk_size=chunk)(X).flatten(0, 1)  # (nm, d)
            u = torch.randn(n, m, generator=torch.Generator().manual_seed(0), dtype=self.theta.dtype)
            whole = torch.func.vjp(lambda t: model(t, X), self.theta)[1](u)[0]
            if (J.mT @ u.flatten() - whole).norm() <= 1e-10 * J.norm() * u.norm():
                return J.detach()
        except (RuntimeError, ValueError):
            pass  # written for a whole batch only
        try:
            return torch.func.jacrev(lambda t: model(t, X).flatten())(self.theta).detach()
        except RuntimeError:
            return self._by_rows(model, X)

    def _by_rows(self, model, X: Tensor) -> Tensor:
        """One row at a time: a torch.autograd.Function of the old style knows neither torch.func nor batches of gradients."""
        with torch.enable_grad():
            at = self.theta.clone().requires_grad_()
            F = model(at, X).flatten()
        return torch.stack([torch.autograd.grad(f, at, retain_graph=True)[0] for f in F])

    def jvp(self, v: Tensor) -> Tensor:
        return (self.J @ v).view_as(self.outputs)

    def vjp(self, u: Tensor) -> Tensor:
        self.check_outputs("u", u)
        return self.J.mT @ u.flatten()

    def jacobian(self) -> Tensor:
        return self.J

    def gram(self) -> Tensor:
        return syrk(self.J)

    def singular_values(self) -> Tensor:
        return torch.linalg.svdvals(self.J)
