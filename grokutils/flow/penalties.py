"""Penalties h(θ) that a flow follows instead of weight decay: θ′ = Jᵀμ − ∇h, of L + 2λh.

An object with three methods serves as one: ``value`` (θ) → number, ``gradient`` (θ) → (d,), and ``metric`` (θ) → (d,) or
a number, ≥ 0: roughly the diagonal of ∇²h, what an implicit step takes implicitly. Where ∇h = metric · θ with a constant
metric nothing is approximated.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from .. import _checks


class Penalty(Protocol):
    """What a flow asks of a penalty h."""

    def value(self, theta: Tensor) -> float:
        """h(θ)."""

    def gradient(self, theta: Tensor) -> Tensor:
        """∇h(θ), (d,)."""

    def metric(self, theta: Tensor) -> float | Tensor:
        """About the diagonal of ∇²h(θ), (d,), or one number ≥ 0 for all."""


class Decay:
    """½‖θ‖²: weight decay, the same for all."""

    def value(self, theta: Tensor) -> float:
        """h, a number."""
        return 0.5 * float(theta @ theta)

    def gradient(self, theta: Tensor) -> Tensor:
        """∇h, (d,)."""
        return theta

    def metric(self, theta: Tensor) -> float:
        """∇²h = 1."""
        return 1.0


class WeightedDecay:
    """½ Σ a_i θ_i²: weight decay that differs between parameters, by their names or one by one.

    Parameters
    ----------
    model : whose parameters are meant.
    ratios : name of a parameter of ``model.shapes`` → how many times λ it feels; 1 for those that are not named.

    Raises
    ------
    ValueError
        A name that the model has not, or a ratio below 0.
    """

    def __init__(self, model, ratios: dict[str, float]):
        for name, ratio in ratios.items():
            _checks.one_of("ratios", name, tuple(model.shapes))
            _checks.real(f"ratios['{name}']", ratio, 0)
        self.weights = model.flat(
            **{
                name: torch.full(shape, float(ratios.get(name, 1.0)), dtype=torch.float64)
                for name, shape in model.shapes.items()
            }
        )

    def value(self, theta: Tensor) -> float:
        """h, a number."""
        return 0.5 * float(self.weights @ theta.square())

    def gradient(self, theta: Tensor) -> Tensor:
        """∇h, (d,)."""
        return self.weights * theta

    def metric(self, theta: Tensor) -> Tensor:
        """The diagonal of ∇²h, (d,)."""
        return self.weights


class GroupNorms:
    """Σ √(‖θ_g‖² + ε²) over groups g of parameters (a hidden unit's weights, say): the group lasso, rounded at 0.

    Parameters
    ----------
    groups : (d,) integers from 0, the group of each parameter.
    rounding : ε, in units of θ.

    Raises
    ------
    ValueError
        Groups that are no vector of integers, or a rounding that is not positive.
    """

    def __init__(self, groups: Tensor, rounding: float = 1e-3):
        if (
            not isinstance(groups, Tensor)
            or groups.dtype != torch.int64
            or groups.ndim != 1
            or groups.min() < 0
        ):
            raise ValueError(
                "groups must be a vector of integers from 0, of dtype torch.int64, one for each parameter"
            )
        self.groups, self.rounding = groups, _checks.real("rounding", rounding, 0, open_low=True)

    def _norms(self, theta: Tensor) -> Tensor:
        squares = theta.new_zeros(int(self.groups.max()) + 1).index_add_(0, self.groups, theta.square())
        return (squares + self.rounding**2).sqrt()

    def value(self, theta: Tensor) -> float:
        """h, a number."""
        return float(self._norms(theta).sum())

    def gradient(self, theta: Tensor) -> Tensor:
        """∇h, (d,)."""
        return theta * self.metric(theta)

    def metric(self, theta: Tensor) -> Tensor:
        """1/‖θ_g‖ for each parameter, (d,): the stiff part of ∇²h, but for its radial direction."""
        return 1 / self._norms(theta)[self.groups]
