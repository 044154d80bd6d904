"""Argument checks. Each raises ``ValueError`` naming the argument, the value and what is allowed."""

from __future__ import annotations

import math
import numbers

import numpy as np
import torch


def integer(name: str, value, low: int, high: int | None = None) -> int:
    """Return ``value`` as an int in [low, high]."""
    allowed = f"an integer of at least {low}" if high is None else f"an integer from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{name} = {value!r}: must be {allowed}{_unquoted(name, value)}")
    whole = int(value)
    if whole < low or (high is not None and whole > high):
        raise ValueError(f"{name} = {value!r}: must be {allowed}")
    return whole


def real(
    name: str, value, low=-math.inf, high=math.inf, *, open_low: bool = False, open_high: bool = False
) -> float:
    """Return ``value`` as a finite float between ``low`` and ``high`` (ends excluded where open)."""
    left, right = "(" if open_low or low == -math.inf else "[", ")" if open_high or high == math.inf else "]"
    allowed = f"a finite number in {left}{low:g}, {high:g}{right}"
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ValueError(f"{name} = {value!r}: must be {allowed}{_unquoted(name, value)}")
    below = value <= low if open_low else value < low
    above = value >= high if open_high else value > high
    if below or above:
        raise ValueError(f"{name} = {value!r}: must be {allowed}")
    return float(value)


def _unquoted(name: str, value) -> str:
    """What to write in place of a number that arrived as text."""
    try:
        return f"; without quotes, {name} = {value.strip()}" if math.isfinite(float(value)) else ""
    except (AttributeError, TypeError, ValueError):
        return ""


def flag(name: str, value) -> bool:
    """Return ``value`` as a bool: text and numbers, of which all but 0 and "" would count as True, are refused."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} = {value!r}: must be True or False")
    return bool(value)


def function(name: str, value) -> None:
    """Refuse a ``value`` that is neither None nor can be called."""
    if value is not None and not callable(value):
        raise ValueError(f"{name} = {value!r}: must be a function, or None")


def floating(name: str, value) -> torch.dtype:
    """Return ``value`` if it is torch.float64 or torch.float32."""
    if value not in (torch.float64, torch.float32):
        raise ValueError(f"{name} = {value!r}: must be torch.float64 (or torch.float32)")
    return value


def one_of(name: str, value, allowed) -> None:
    """Refuse a ``value`` that is not among ``allowed``."""
    if value not in allowed:
        raise ValueError(f"{name} = {value!r}: must be one of {', '.join(map(repr, allowed))}")


def tensor(name: str, value, ndim: int | None = None) -> torch.Tensor:
    """Return ``value`` if it is a finite floating-point tensor (of ``ndim`` dimensions, where given)."""
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"{name} is a {type(value).__name__}: must be a torch.Tensor")
    if value.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name} has dtype {value.dtype}: must be torch.float64 (or torch.float32)")
    if ndim is not None and value.ndim != ndim:
        raise ValueError(f"{name} has shape {tuple(value.shape)}: must have {ndim} dimensions")
    # the smallest and the largest are NaN where any entry is
    ends = torch.stack(torch.aminmax(value.detach())) if value.numel() else value
    if not known(ends.isfinite().all()):
        raise ValueError(f"{name} holds NaN or infinite values: every entry must be finite")
    return value


def known(condition: torch.Tensor) -> bool:
    """The truth of ``condition``, and True under ``torch.func.vmap``, which cannot look at values."""
    try:
        return bool(condition)
    except RuntimeError as error:
        if "vmap" not in str(error):
            raise
        return True


def same(what: str, **values) -> None:
    """Refuse named ``values`` that are not all equal (dtypes, devices, lengths)."""
    if len(set(values.values())) > 1:
        listed = ", ".join(f"{name} has {value}" for name, value in values.items())
        raise ValueError(f"{what} must agree: {listed}")
