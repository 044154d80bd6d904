"""Optimizers: any of torch.optim's, and one step of the common ones on all runs' parameters at once."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .. import _checks

NAMED: dict[str, Any] = {
    name.lower(): kind
    for name, kind in vars(torch.optim).items()
    if inspect.isclass(kind)
    and issubclass(kind, torch.optim.Optimizer)
    and "weight_decay" in inspect.signature(kind).parameters
}
# What the kernel below knows: other options of these go to torch.optim.
KERNELS = {
    torch.optim.SGD: {"momentum"},
    torch.optim.Adam: {"betas", "eps"},
    torch.optim.AdamW: {"betas", "eps"},
}


@dataclass(frozen=True)
class Rule:
    """An optimizer that was tried once: ``make(groups, lr=…, weight_decay=…)`` builds it."""

    name: str
    make: Callable[..., torch.optim.Optimizer]
    options: dict  # torch's name for each → value
    kernel: bool  # whether :class:`Kernel` makes the same steps

    @property
    def momentum(self) -> float:
        """Of gradient descent; 0 for optimizers that divide by the gradient's size, whose momentum only averages."""
        return self.options["momentum"] if self.name in ("gd", "sgd") else 0.0

    @property
    def speed(self) -> float:
        """How many times faster than lr · weight_decay · steps slow time runs."""
        return (1 - self.options.get("dampening", 0)) / (1 - self.momentum) if self.momentum else 1.0


def rule(spec, momentum: float) -> Rule:
    """The optimizer that ``spec`` names or makes.

    Raises
    ------
    ValueError
        An unknown name, a factory that does not make an optimizer of the ``lr`` and ``weight_decay`` that it is given,
        or a ``momentum`` outside [0, 1) or for another optimizer than "gd".
    """
    momentum = _checks.real("momentum", momentum, 0, 1, open_high=True)
    if momentum and spec != "gd":
        raise ValueError(
            f"momentum = {momentum!r}: must be 0 for optimizer = {spec!r}, which has its own options"
        )
    if isinstance(spec, str):
        _checks.one_of("optimizer", spec, ("gd", *NAMED))
        name, make = spec, NAMED["sgd" if spec == "gd" else spec]
        if spec == "gd":
            make = lambda groups, **kw: torch.optim.SGD(groups, momentum=momentum, **kw)  # noqa: E731
    elif callable(spec):
        make = spec
    else:
        raise ValueError(f"optimizer = {spec!r}: must be a name, or a function (params, lr, weight_decay)")
    asked = {"lr": 0.125, "weight_decay": 0.0625}
    try:
        made = make([{"params": [nn.Parameter(torch.zeros(2, 2))]}], **asked)
    except TypeError as error:
        raise ValueError(
            f"optimizer = {spec!r}: cannot be made with params, lr and weight_decay ({error})"
        ) from error
    if not isinstance(made, torch.optim.Optimizer):
        raise ValueError(f"optimizer = {spec!r}: makes a {type(made).__name__}, not a torch.optim.Optimizer")
    if len(made.param_groups) != 1 or any(
        made.param_groups[0].get(key) != value for key, value in asked.items()
    ):
        raise ValueError(f"optimizer = {spec!r}: must use the params, lr and weight_decay that it is given")
    kind = type(made)
    name = spec if isinstance(spec, str) else kind.__name__.lower()
    options = {key: value for key, value in made.defaults.items() if key not in asked}
    kernel = kind in KERNELS
    if kernel:
        plain = kind([nn.Parameter(torch.zeros(1))], **asked).defaults
        kernel = {key for key, value in options.items() if value != plain[key]} <= KERNELS[kind]
    return Rule(name, make, options, kernel)


class Kernel:
    """Updates a flat ``theta`` in place as torch.optim's SGD, Adam or AdamW does.

    "sgd": v ← momentum·v + ∇L + wθ, θ ← θ − lr·v. "adam" adds wθ to the gradient, "adamw" shrinks θ by lr·w.
    ``state`` is what a checkpoint must keep beside θ.
    """

    def __init__(self, rule: Rule, theta: Tensor):
        self.adaptive = "betas" in rule.options
        self.decoupled, self.momentum = rule.name == "adamw", rule.momentum
        self.betas, self.epsilon = rule.options.get("betas", (0.0, 0.0)), rule.options.get("eps", 0.0)
        slots = 2 if self.adaptive else int(self.momentum > 0)
        self.state = [torch.zeros_like(theta) for _ in range(slots)]
        self.scratch = torch.empty_like(theta)

    def rates(self, lr: float | Tensor, weight_decay: float | Tensor) -> None:
        """Set what the next steps use: numbers, or tensors like theta."""
        self.lr, self.weight_decay = lr, weight_decay
        self.kept = 1 - lr * weight_decay  # share of θ that one step's decay leaves

    def step(self, theta: Tensor, gradient: Tensor, count: int) -> None:
        """Make step number ``count`` (from 1); overwrites ``gradient``."""
        if not self.state:
            theta.mul_(self.kept).sub_(gradient.mul_(self.lr))
            return
        if self.decoupled:
            theta.mul_(self.kept)
        else:
            gradient.add_(torch.mul(theta, self.weight_decay, out=self.scratch))
        if not self.adaptive:
            velocity = self.state[0].mul_(self.momentum).add_(gradient)
            theta.sub_(torch.mul(velocity, self.lr, out=self.scratch))
            return
        first, second = self.state
        first.lerp_(gradient, 1 - self.betas[0])
        second.mul_(self.betas[1]).addcmul_(gradient, gradient, value=1 - self.betas[1])
        size = torch.sqrt(second, out=self.scratch)
        size.div_(math.sqrt(1 - self.betas[1] ** count)).add_(self.epsilon)
        update = torch.div(first, size, out=self.scratch)
        theta.sub_(update.mul_(self.lr).div_(1 - self.betas[0] ** count))
