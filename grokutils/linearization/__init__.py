"""J = ∇F at a point, of any network: products with it, K = JJᵀ, and (cK + λH⁻¹)μ = u, behind one face.

Three kinds: :class:`Dense` holds J, :class:`MatrixFree` only multiplies with it, :class:`Structured` knows the
formulas of two-layer networks, kinks included. :func:`linearize` chooses.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .. import _checks
from ..models import Model, ModuleModel, TwoLayer, check_outputs
from .base import Linearization, factor, syrk
from .dense import Dense
from .inputs import Inputs
from .kinks import SPRING, Sides
from .matrix_free import MatrixFree
from .structured import Structured

__all__ = [
    "KINDS",
    "SPRING",
    "Dense",
    "Linearization",
    "MatrixFree",
    "Sides",
    "Structured",
    "check",
    "factor",
    "linearize",
    "outputs",
    "syrk",
]

KINDS = ("auto", "dense", "matrix_free", "structured")
DENSE_ROWS = 1500  # nm up to which J is worth forming
DENSE_BYTES = 2**30  # of J, up to which it may be


def linearize(
    model: Callable[[Tensor, Tensor], Tensor],
    theta: Tensor,
    X: Tensor,
    kind: str = "auto",
    sides: Sides | None = None,
) -> Linearization:
    """F and J = ∇F of ``model`` at ``theta`` on inputs ``X``: all outputs, and their Jacobian (nm, d) as products, K = JJᵀ and solves.

    Parameters
    ----------
    model : a :class:`~grokutils.models.Model`, or any callable ``f(theta, X) -> (n, m)`` in torch operations.
    theta : (d,), float64.
    X : (n, …) inputs, samples first: float64, or integer tokens.
    kind : "dense", "matrix_free", "structured" (two-layer networks only), or "auto": structured where it can be, dense
        up to 1500 outputs, matrix-free beyond.
    sides : of the kinks, for a two-layer network that bends: linear on each side, 0 where pinned.

    Returns
    -------
    Linearization, with ``outputs`` (n, m), ``jvp``, ``vjp``, ``product``, ``gram``, ``singular_values`` and ``solve``.

    Raises
    ------
    ValueError
        Arguments that do not fit, outputs that are not (n, m), or a module whose backward pass is not F's derivative.
    """
    _checks.one_of("kind", kind, KINDS)
    check(model, theta, X)
    theta = theta.detach()
    if isinstance(model, TwoLayer) and kind in ("auto", "structured"):
        if sides is None:
            return Structured(model, theta, X)
        return Structured.with_sides(model, theta, X, sides)
    if kind == "structured" or sides is not None:
        raise ValueError(
            f"kind = {kind!r}, sides given: {sides is not None}: only a two_layer network has structure"
        )
    with torch.enable_grad():
        at = theta.clone().requires_grad_()
        F = model(at, X)
    check_outputs(F, X, getattr(model, "name", "f"), theta.dtype)
    if not torch.isfinite(F).all():
        raise ValueError("theta: the outputs there are NaN or infinite")
    if not F.requires_grad:
        raise ValueError("model: the outputs do not depend on theta")
    if isinstance(model, ModuleModel):
        model.check_derivative(theta, X)
    rows = F.numel()
    small = rows <= DENSE_ROWS and 8 * rows * len(theta) <= DENSE_BYTES
    if kind == "dense" or (kind == "auto" and small):
        return Dense(model, theta, X, F.detach())
    return MatrixFree(theta, at, F)


def outputs(model: Callable[[Tensor, Tensor], Tensor], theta: Tensor, X: Tensor) -> Tensor:
    """F (n, m) of ``model`` at ``theta`` (d,) alone; a two-layer network's by the structure of ``X``, the same numbers."""
    if not isinstance(model, TwoLayer):
        return model(theta, X)
    E, W = model.matrices(theta).values()
    return model.activation.value(Inputs.of(X).times(E)) @ W


def check(model: Callable[[Tensor, Tensor], Tensor], theta: Tensor, X: Tensor) -> None:
    """Refuse what :func:`linearize` refuses before any work, by ``ValueError``."""
    if not callable(model) or isinstance(model, torch.nn.Module):
        hint = "; give from_module(model)" if isinstance(model, torch.nn.Module) else ""
        raise ValueError(
            f"model is a {type(model).__name__}: must be a Model, or a function f(theta, X) -> (n, m){hint}"
        )
    if _checks.tensor("theta", theta, ndim=1).dtype != torch.float64:
        raise ValueError(f"theta has dtype {theta.dtype}: must be torch.float64, or rank means little")
    if not isinstance(X, Tensor):
        raise ValueError(f"X is a {type(X).__name__}: must be a torch.Tensor with samples first")
    if X.is_floating_point() and X.dtype != torch.float64:
        raise ValueError(f"X has dtype {X.dtype}: must be torch.float64, as theta")
    if isinstance(model, Model):
        if len(theta) != model.d:
            raise ValueError(f"theta has shape {tuple(theta.shape)}: must be ({model.d},) for {model.name}")
        model.check(X)
