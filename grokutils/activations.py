"""Activations by name or as any elementwise callable, each with its derivative."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from . import _checks

JUMP = 1e-3  # change of the slope, relative to its size, over an interval of NARROW that makes it a bend
NARROW = 1e-9


@dataclass(frozen=True)
class Activation:
    """σ and σ′, elementwise on tensors of any shape."""

    name: str
    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    both: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None  # (σ, σ′) at once, where that takes less
    smooth: bool = True  # continuously differentiable; the study's theorems ask for it (assumption 4.2)
    kink: tuple[float, float] | None = None  # slopes below and above 0, where σ consists of these two lines

    def with_slope(self, Z: Tensor) -> tuple[Tensor, Tensor]:
        """σ(Z) and σ′(Z)."""
        return self.both(Z) if self.both else (self.value(Z), self.slope(Z))


def _relu_slope(Z: Tensor) -> Tensor:
    return Z.sign().clamp_(min=0)  # PyTorch's convention: σ′(0) = 0; three times faster than a comparison


def _gelu_both(Z: Tensor) -> tuple[Tensor, Tensor]:
    cdf = 0.5 * (1 + torch.erf(Z / 2**0.5))
    return Z * cdf, cdf + Z * torch.exp(-0.5 * Z * Z) / (2 * torch.pi) ** 0.5


def _tanh_both(Z: Tensor) -> tuple[Tensor, Tensor]:
    value = torch.tanh(Z)
    return value, 1 - value**2


def _bent(name: str, value: Callable[[Tensor], Tensor], low: float, high: float) -> Activation:
    """Two lines through 0, of slope ``low`` below and ``high`` above."""

    def slope(Z: Tensor) -> Tensor:
        return torch.full_like(Z, low).masked_fill_(Z > 0, high)

    return Activation(name, value, slope, smooth=False, kink=(low, high))


NAMED = {
    a.name: a
    for a in (
        Activation("relu", torch.relu, _relu_slope, smooth=False, kink=(0.0, 1.0)),
        _bent("leaky_relu", lambda Z: torch.nn.functional.leaky_relu(Z, 0.1), 0.1, 1.0),
        Activation("identity", lambda Z: Z, torch.ones_like),
        Activation("quadratic", torch.square, lambda Z: 2 * Z),
        Activation("softplus", lambda Z: torch.logaddexp(Z, torch.zeros_like(Z)), torch.sigmoid),
        Activation("tanh", torch.tanh, lambda Z: _tanh_both(Z)[1], _tanh_both),
        Activation("gelu", torch.nn.functional.gelu, lambda Z: _gelu_both(Z)[1], _gelu_both),
    )
}


def activation(spec: str | Activation | Callable[[Tensor], Tensor]) -> Activation:
    """Return the activation that ``spec`` names, or wrap an elementwise callable.

    A callable's derivative comes from automatic differentiation. Where it bends is found numerically: a ``torch.relu``
    or ``nn.LeakyReLU`` of the user's has the same kinks as the named ones.

    Raises
    ------
    ValueError
        An unknown name, or a callable that does not act elementwise.
    """
    if isinstance(spec, Activation):
        return spec
    if callable(spec):
        return _from_callable(spec)
    if not isinstance(spec, str) or spec not in NAMED:
        _checks.one_of("activation", repr(spec) if isinstance(spec, list) else spec, tuple(NAMED))
    return NAMED[spec]


def _from_callable(function: Callable[[Tensor], Tensor]) -> Activation:
    probe = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3)
    try:
        result = function(probe.clone())
        # An elementwise function gives the same for a part in another shape; softmax, cumsum, centring do not.
        part = function(probe.flatten()[2:].clone())
        elementwise = result.shape == probe.shape and torch.allclose(
            result.flatten()[2:], part, equal_nan=True
        )
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise _not_elementwise(function) from error
    if not elementwise or result.dtype != probe.dtype:
        raise _not_elementwise(function)

    def value(Z: Tensor) -> Tensor:
        return function(Z)

    def slope(Z: Tensor) -> Tensor:
        # Reverse mode: PyTorch's forward mode has one level for all threads, and runs go side by side in threads.
        with torch.enable_grad():
            Z = Z.detach().requires_grad_()
            return torch.autograd.grad(function(Z).sum(), Z)[0]

    name = getattr(function, "__name__", type(function).__name__)
    kink = _two_lines(value)
    if kink is not None:
        return _bent(name, value, *kink)
    return Activation(name, value, slope, smooth=not _bends(slope))


def _two_lines(value: Callable[[Tensor], Tensor]) -> tuple[float, float] | None:
    """The slopes of a function that consists of two different lines through 0; else None."""
    Z = torch.logspace(-6, 4, 201, dtype=torch.float64)
    with torch.no_grad():
        slopes = [value(sign * Z) / (sign * Z) for sign in (-1, 1)]
    if any(not bool((each - each[0]).abs().max() <= 1e-9 * each[0].abs().clamp(min=1)) for each in slopes):
        return None
    low, high = (round(float(each.median()), 12) for each in slopes)
    return (low, high) if low != high else None


def _bends(slope: Callable[[Tensor], Tensor]) -> bool:
    """Whether the slope jumps somewhere in [−8, 8]: halve the intervals across which it changes most, and look."""
    left = torch.linspace(-8.05, 8, 3211, dtype=torch.float64)
    left, right = left[:-1], left[1:]
    size = float(slope(left).abs().max().clamp(min=1e-3))
    while float(right[0] - left[0]) > NARROW:
        middle = 0.5 * (left + right)
        left, right = torch.cat([left, middle]), torch.cat([middle, right])
        change = (slope(right) - slope(left)).abs()
        change, order = change.topk(min(16, len(change)))
        left, right = left[order], right[order]
    return bool((change > JUMP * size).any())


def _not_elementwise(function) -> ValueError:
    return ValueError(f"activation = {function!r}: a callable must map a tensor elementwise to one like it")
