"""One step of each optimizer on all runs' parameters at once, with PyTorch's defaults and conventions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

OPTIMIZERS = ("gd", "adam", "adamw")
BETAS, EPSILON = (0.9, 0.999), 1e-8


class Optimizer:
    """Updates a flat ``theta`` in place; ``lr`` and ``weight_decay`` are numbers or tensors like theta.

    "gd": v ← momentum·v + ∇L + wθ, θ ← θ − lr·v. "adam" adds wθ to the gradient, "adamw" shrinks θ by lr·w.
    ``state`` is what a checkpoint must keep beside θ.
    """

    def __init__(self, name: str, theta: Tensor, lr, weight_decay, momentum: float):
        self.name, self.lr, self.weight_decay, self.momentum = name, lr, weight_decay, momentum
        self.kept = 1 - lr * weight_decay  # share of θ that one step's decay leaves
        slots = 2 if name != "gd" else int(momentum > 0)
        self.state = [torch.zeros_like(theta) for _ in range(slots)]
        self.scratch = torch.empty_like(theta)

    def step(self, theta: Tensor, gradient: Tensor, count: int) -> None:
        """Make step number ``count`` (from 1); overwrites ``gradient``."""
        if self.name == "gd" and not self.state:
            theta.mul_(self.kept).sub_(gradient.mul_(self.lr))
            return
        if self.name == "adamw":
            theta.mul_(self.kept)
        else:
            gradient.add_(torch.mul(theta, self.weight_decay, out=self.scratch))
        if self.name == "gd":
            velocity = self.state[0].mul_(self.momentum).add_(gradient)
            theta.sub_(torch.mul(velocity, self.lr, out=self.scratch))
            return
        first, second = self.state
        first.lerp_(gradient, 1 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        size = torch.sqrt(second, out=self.scratch)
        size.div_(math.sqrt(1 - BETAS[1] ** count)).add_(EPSILON)
        update = torch.div(first, size, out=self.scratch)
        theta.sub_(update.mul_(self.lr).div_(1 - BETAS[0] ** count))
