"""Activations by name or as any elementwise callable, each with its derivative."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from . import _checks


@dataclass(frozen=True)
class Activation:
    """σ and σ′, elementwise on tensors of any shape."""

    name: str
    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    smooth: bool  # twice continuously differentiable, as the study's theorems ask (assumption 4.2)


def _relu_slope(Z: Tensor) -> Tensor:
    return Z.sign().clamp_(min=0)  # PyTorch's convention: σ′(0) = 0; three times faster than a comparison


def _leaky_slope(Z: Tensor) -> Tensor:
    return torch.full_like(Z, 0.1).masked_fill_(Z > 0, 1.0)


def _gelu_slope(Z: Tensor) -> Tensor:
    cdf = 0.5 * (1 + torch.erf(Z / 2**0.5))
    return cdf + Z * torch.exp(-0.5 * Z * Z) / (2 * torch.pi) ** 0.5


NAMED = {
    a.name: a
    for a in (
        Activation("relu", torch.relu, _relu_slope, smooth=False),
        Activation(
            "leaky_relu", lambda Z: torch.nn.functional.leaky_relu(Z, 0.1), _leaky_slope, smooth=False
        ),
        Activation("identity", lambda Z: Z, torch.ones_like, smooth=True),
        Activation("quadratic", torch.square, lambda Z: 2 * Z, smooth=True),
        Activation("softplus", lambda Z: torch.logaddexp(Z, torch.zeros_like(Z)), torch.sigmoid, smooth=True),
        Activation("tanh", torch.tanh, lambda Z: 1 - torch.tanh(Z) ** 2, smooth=True),
        Activation("gelu", torch.nn.functional.gelu, _gelu_slope, smooth=True),
    )
}


def activation(spec: str | Callable[[Tensor], Tensor]) -> Activation:
    """Return the activation that ``spec`` names, or wrap an elementwise callable.

    A callable's derivative comes from automatic differentiation, and it is taken to be smooth.

    Raises
    ------
    ValueError
        An unknown name, or a callable that does not act elementwise.
    """
    if isinstance(spec, Activation):
        return spec
    if callable(spec):
        return _from_callable(spec)
    _checks.one_of("activation", spec, tuple(NAMED))
    return NAMED[spec]


def _from_callable(function: Callable[[Tensor], Tensor]) -> Activation:
    probe = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3)
    try:
        result = function(probe)
        # An elementwise function gives the same for a part in another shape; softmax, cumsum, centring do not.
        part = function(probe.flatten()[2:])
        elementwise = result.shape == probe.shape and torch.allclose(
            result.flatten()[2:], part, equal_nan=True
        )
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise _not_elementwise(function) from error
    if not elementwise or result.dtype != probe.dtype:
        raise _not_elementwise(function)

    def slope(Z: Tensor) -> Tensor:
        # Reverse mode: PyTorch's forward mode has one level for all threads, and runs go side by side in threads.
        with torch.enable_grad():
            Z = Z.detach().requires_grad_()
            return torch.autograd.grad(function(Z).sum(), Z)[0]

    return Activation(getattr(function, "__name__", "callable"), function, slope, smooth=True)


def _not_elementwise(function) -> ValueError:
    return ValueError(f"activation = {function!r}: a callable must map a tensor elementwise to one like it")
