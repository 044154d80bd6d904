"""Hooks for :func:`grokutils.training.train`: functions (state, step) that stand around each step.

What comes before ``step()`` sees the gradient, what comes after sees the new θ. A hook of one's own, for example
decay that is switched off midway: ``def hook(state, step): state.weight_decay *= state.step < 1000; step()``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .. import _checks
from .general import Hook, State


def freeze(**masks: bool | Tensor) -> Hook:
    """Keep parameters where they are: ``freeze(E=True)``, or some entries by a mask, ``freeze(E=mask)``."""

    def hook(state: State, step: Callable[[], None]) -> None:
        for name in masks:
            _checks.one_of("freeze", name, tuple(state.parameters))
        kept = {name: state.parameters[name].clone() for name in masks}
        step()
        for name, mask in masks.items():
            own = state.parameters[name]
            own.copy_(torch.where(torch.as_tensor(mask), kept[name], own))

    return hook


def clamp_norm(norm: float | None = None) -> Hook:
    """Hold ‖θ‖ at ``norm``, or at what it is before the first step, by scaling θ after each step."""
    if norm is not None:
        norm = _checks.real("norm", norm, 0, open_low=True)

    def hook(state: State, step: Callable[[], None]) -> None:
        held = state.memory.setdefault("norm", state.theta.norm() if norm is None else torch.tensor(norm))
        step()
        state.theta.mul_(held / state.theta.norm())

    return hook


def filter_gradient(decay: float = 0.98, amplify: float = 2.0) -> Hook:
    """Grokfast: add to the gradient ``amplify`` times its own exponential average, of weight ``decay``."""
    decay = _checks.real("decay", decay, 0, 1, open_high=True)
    amplify = _checks.real("amplify", amplify, 0)

    def hook(state: State, step: Callable[[], None]) -> None:
        average = state.memory.setdefault("average", state.gradient.clone())
        average.lerp_(state.gradient, 1 - decay)
        state.gradient.add_(average, alpha=amplify)
        step()

    return hook
