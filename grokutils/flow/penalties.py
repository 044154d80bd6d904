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


class ProductNorm:
    """(L/2) Π ‖W_l‖^(2/L) over the L parameters of a model: ½‖θ‖² where all layers are equally large, and blind to their balance.

    Parameters
    ----------
    model : whose parameters are meant.
    """

    def __init__(self, model):
        self.model = model

    def _squares(self, theta: Tensor) -> list[Tensor]:
        return [W.square().sum().clamp(min=1e-300) for W in self.model.matrices(theta).values()]

    def value(self, theta: Tensor) -> float:
        """h, a number."""
        squares = self._squares(theta)
        return 0.5 * len(squares) * float(torch.stack(squares).log().mean().exp())

    def gradient(self, theta: Tensor) -> Tensor:
        """∇h, (d,)."""
        return self.metric(theta) * theta

    def metric(self, theta: Tensor) -> Tensor:
        """Π ‖W_l‖^(2/L) / ‖W_l‖² for each parameter, (d,): ∇h = metric ∘ θ."""
        squares = self._squares(theta)
        mean = torch.stack(squares).log().mean().exp()
        parts = zip(self.model.matrices(theta).values(), squares, strict=True)
        return torch.cat([(mean / square).expand(W.numel()) for W, square in parts])


class NuclearNorms:
    """Σ tr √(W_lᵀW_l + ε²): the nuclear norms of all parameters, rounded at 0.

    Parameters
    ----------
    model : whose parameters, all of them matrices, are meant.
    rounding : ε, in units of θ.

    Raises
    ------
    ValueError
        A parameter that is no matrix, or a rounding that is not positive.
    """

    def __init__(self, model, rounding: float = 1e-3):
        self.model, self.rounding = model, _checks.real("rounding", rounding, 0, open_low=True)
        for name, shape in model.shapes.items():
            if len(shape) != 2:
                raise ValueError(f"{name} has shape {shape}: must be a matrix")

    def value(self, theta: Tensor) -> float:
        """h, a number."""
        matrices = self.model.matrices(theta).values()
        return sum(
            float((torch.linalg.svdvals(W).square() + self.rounding**2).sqrt().sum()) for W in matrices
        )

    def gradient(self, theta: Tensor) -> Tensor:
        """∇h, (d,)."""
        parts = {}
        for name, W in self.model.matrices(theta).items():
            U, s, V = torch.linalg.svd(W, full_matrices=False)
            parts[name] = (U * (s / (s.square() + self.rounding**2).sqrt())) @ V
        return self.model.flat(**parts)

    def metric(self, theta: Tensor) -> Tensor:
        """For each layer ‖W_l‖_*/‖W_l‖², (d,): what of ∇h lies along θ."""
        parts = []
        for W in self.model.matrices(theta).values():
            ratio = torch.linalg.svdvals(W).sum() / W.square().sum().clamp(min=1e-300)
            parts.append(ratio.expand(W.numel()))
        return torch.cat(parts)
