"""Networks as functions f(θ, X) of one flat parameter vector, so that J = ∇F(θ) is a matrix."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from . import _checks, activations
from .activations import Activation

SCHEMES = ("pytorch", "normal")


@dataclass(frozen=True)
class Network:
    """ŷ = σ(XE)W without biases, as a function ``f(theta, X)`` that torch.func can differentiate.

    ``theta`` is (..., d): E (d_in × width) row by row, then W (width × d_out) row by row.
    """

    d_in: int
    width: int
    d_out: int
    activation: Activation

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Shape of each parameter matrix, in the order in which θ holds them."""
        return {"E": (self.d_in, self.width), "W": (self.width, self.d_out)}

    @property
    def d(self) -> int:
        """Number of parameters."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def __call__(self, theta: Tensor, X: Tensor) -> Tensor:
        """Outputs ŷ (..., n, d_out) at ``theta`` (..., d) and inputs ``X`` (n, d_in)."""
        E, W = self.matrices(theta).values()
        return self.activation.value(X @ E) @ W

    def matrices(self, theta: Tensor) -> dict[str, Tensor]:
        """``theta`` (..., d) as its named matrices, views wherever strides allow.

        Raises
        ------
        ValueError
            A ``theta`` of another length.
        """
        if theta.ndim == 0 or theta.shape[-1] != self.d:
            raise ValueError(f"theta has shape {tuple(theta.shape)}: its last dimension must be d = {self.d}")
        parts = theta.split([math.prod(shape) for shape in self.shapes.values()], dim=-1)
        return {
            name: part.reshape(*theta.shape[:-1], *shape)
            for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)
        }

    def flat(self, **matrices: Tensor) -> Tensor:
        """θ (..., d) from all of its named matrices: the inverse of :meth:`matrices`.

        Raises
        ------
        ValueError
            Missing or unknown names, or a matrix of another shape.
        """
        if matrices.keys() != self.shapes.keys():
            raise ValueError(f"matrices = {sorted(matrices)}: must be {', '.join(self.shapes)}")
        for name, shape in self.shapes.items():
            if matrices[name].shape[-2:] != shape:
                raise ValueError(f"{name} has shape {tuple(matrices[name].shape)}: must end in {shape}")
        return torch.cat([matrices[name].flatten(-2) for name in self.shapes], dim=-1)

    def init(
        self,
        seed: int,
        scale: float = 1.0,
        scheme: str = "pytorch",
        dtype: torch.dtype = torch.float64,
    ) -> Tensor:
        """A random θ (d,), ``scale`` times the draw of ``scheme``.

        "pytorch": U(−1/√fan_in, 1/√fan_in), number for number what two ``torch.nn.Linear(bias=False)`` of this
        dtype hold when made in order after ``torch.manual_seed(seed)``. "normal": N(0, 1/fan_in), the scale
        at which unit inputs stay units; three times the variance of the first.

        Raises
        ------
        ValueError
            A seed below 0, a scale that is not positive, or an unknown scheme.
        """
        scale = _checks.real("scale", scale, 0, open_low=True)
        _checks.one_of("scheme", scheme, SCHEMES)
        generator = torch.Generator().manual_seed(_checks.integer("seed", seed, 0))
        drawn = {}
        for name, (fan_in, fan_out) in self.shapes.items():
            draw = torch.empty(fan_out, fan_in, dtype=dtype)  # the transpose: nn.Linear keeps (out, in)
            if scheme == "pytorch":
                bound = math.sqrt(3.0) * (math.sqrt(1 / 3) / math.sqrt(fan_in))  # rounds as nn.Linear's does
                draw.uniform_(-bound, bound, generator=generator)
            else:
                draw.normal_(0, 1 / math.sqrt(fan_in), generator=generator)
            drawn[name] = draw.T
        return scale * self.flat(**drawn)


def two_layer(
    d_in: int, width: int, d_out: int, activation: str | Callable[[Tensor], Tensor] = "relu"
) -> Network:
    """The study's network ŷ = σ(XE)W (STUDY.md section 3), with any activation of the package.

    Raises
    ------
    ValueError
        A size below 1, or an unknown activation.
    """
    sizes = {"d_in": d_in, "width": width, "d_out": d_out}
    checked = {name: _checks.integer(name, size, 1) for name, size in sizes.items()}
    return Network(**checked, activation=activations.activation(activation))
