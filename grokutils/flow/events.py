"""Moments of a flow: when a function of θ first falls to 0, found inside a step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.optimize import brentq
from torch import Tensor

from .. import _checks, records
from ..linearization import outputs
from ..losses import Loss
from ..losses import loss as loss_of
from ..tasks import Task


@dataclass(frozen=True)
class Event:
    """The first moment at which ``value`` (a continuous function of θ) is 0 or less.

    Parameters
    ----------
    name : under which a record keeps its slow time.
    value : θ (d,) ↦ a number.
    """

    name: str
    value: Callable[[Tensor], float]


def held_out_loss(
    model, task: Task, threshold: float = records.GENERALIZED["loss"], loss: str | Loss = "squared_error"
) -> Event:
    """The held-out loss falls to ``threshold`` times that of the output 0.

    Raises
    ------
    ValueError
        A threshold that is not positive, or targets of which the output 0 is right.
    """
    threshold, loss = _checks.real("threshold", threshold, 0, open_low=True), loss_of(loss)
    X, Y = task.X_test, task.Y_test
    level = threshold * _baseline(task, "test", loss)
    return Event(
        f"loss {threshold:g}", lambda theta: float(loss.value(outputs(model, theta, X), Y)) / level - 1
    )


def held_out_accuracy(model, task: Task, threshold: float = records.GENERALIZED["accuracy"]) -> Event:
    """The share ``threshold`` of the held-out samples is right.

    Raises
    ------
    ValueError
        A threshold outside (0, 1], or targets with a single output, which have no classes.
    """
    threshold = _checks.real("threshold", threshold, 0, 1, open_low=True)
    if not task.classification:
        raise ValueError(
            f"task '{task.name}' has targets that are no classes: an accuracy needs one-hot targets; use the held-out loss"
        )
    needed = math.ceil(threshold * len(task.Y_test) - 1e-9)

    def missing(theta: Tensor) -> float:  # continuous in θ, as the share itself is not
        return -float(
            margins(outputs(model, theta, task.X_test), task.Y_test).sort(descending=True).values[needed - 1]
        )

    return Event(f"accuracy {threshold:g}", missing)


def memorized(
    model, task: Task, loss: str | Loss = "squared_error", share: float = records.MEMORIZED["loss"]
) -> Event:
    """The training loss is at most ``share`` of the output 0's and, where there are classes, all samples are right.

    Raises
    ------
    ValueError
        A share that is not positive, or targets of which the output 0 is right.
    """
    loss, X, Y = loss_of(loss), task.X_train, task.Y_train
    share = _checks.real("share", share, 0, open_low=True)
    level, classes = share * _baseline(task, "train", loss), task.classification

    def missing(theta: Tensor) -> float:
        F = outputs(model, theta, X)
        over = float(loss.value(F, Y)) / level - 1
        return max(over, -float(margins(F, Y).min())) if classes else over

    return Event("memorized", missing)


def _baseline(task: Task, part: str, loss: Loss) -> float:
    """Loss of the output 0."""
    Y = getattr(task, f"Y_{part}")
    loss.check(Y)
    level = float(loss.value(torch.zeros_like(Y), Y))
    if not level > 0:
        raise ValueError(
            f"task '{task.name}' has Y_{part} of which the output 0 is right: its loss is {level:g}, so that none is relative to it"
        )
    return level


def margins(F: Tensor, Y: Tensor) -> Tensor:
    """By how much the output of each sample's class exceeds the others, (n,); positive where the sample is right."""
    chosen = Y.argmax(1, keepdim=True)
    own = F.gather(1, chosen)[:, 0]
    return own - F.scatter(1, chosen, -torch.inf).amax(1)


def first_zero(
    value: Callable[[float], float], low: float, high: float, at_high: float, resolution: float
) -> float:
    """Where ``value`` of slow time, positive at ``low`` and ``at_high`` ≤ 0 at ``high``, is 0."""
    if at_high == 0:
        return high
    return float(brentq(value, low, high, xtol=resolution, rtol=1e-12))
