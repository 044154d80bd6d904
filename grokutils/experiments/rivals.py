"""Other ways to train, many runs side by side, each gradient counted: what the rule of chapter 16 is compared with."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..models import Model
from ..tasks import Task

LOOK = 25  # steps between removals of runs that are done


def _grid(**lists) -> list[dict]:
    return [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]


# What is searched for each cell: 24 settings a method, written before the first search.
GRIDS: dict[str, list[dict]] = {
    "constant": _grid(lr=(1, 2, 4, 8), w=(2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3)),
    "momentum": _grid(beta=(0.8, 0.9), lr=(1, 2, 4, 8), w=(5e-4, 1e-3, 2e-3)),
    "AdamW": _grid(lr=(3e-3, 1e-2, 3e-2, 1e-1), w=(0.25, 0.5, 1, 2, 4, 8)),
    "Grokfast": _grid(alpha=(0.8, 0.95), amplify=(2, 5), lr=(0.5, 1, 2), w=(2e-3, 6e-3)),
    "Muon": _grid(lr=(0.01, 0.03, 0.1, 0.3), w=(0.1, 0.25, 0.5, 1, 2, 4)),
    "cyclic": _grid(lr=(2, 4), w=(5e-4, 1e-3, 2e-3, 4e-3), period=(20, 50, 100)),
    "ramp": _grid(lr=(2, 4), w=(1e-3, 2e-3, 4e-3), period=(20, 50, 100, 200)),
    "controller": _grid(lr=(2, 4), b=(0.01, 0.03, 0.1), gain=(0.02, 0.05, 0.1, 0.2)),
}
BETA = 0.9  # momentum of cyclic and ramped decay and of the controller
FLOOR, CEILING = 1e-5, 0.1  # of the controller's decay

Column = dict[str, Tensor]  # settings, (runs, 1) each
Rule = Callable[[Tensor, Tensor, Tensor, int, Column, Column, Model], Tensor]


def _heavy_ball(theta, gradient, memory: Column, beta, lr, w) -> Tensor:
    memory["v"] = beta * memory.get("v", torch.zeros_like(theta)) + gradient + w * theta
    return theta - lr * memory["v"]


def _constant(theta, gradient, loss, step, s, memory, model):
    return theta - s["lr"] * (gradient + s["w"] * theta)


def _momentum(theta, gradient, loss, step, s, memory, model):
    return _heavy_ball(theta, gradient, memory, s["beta"], s["lr"], s["w"])


def _adamw(theta, gradient, loss, step, s, memory, model):
    zero = torch.zeros_like(theta)
    memory["m"] = 0.9 * memory.get("m", zero) + 0.1 * gradient
    memory["v"] = 0.999 * memory.get("v", zero) + 0.001 * gradient.square()
    size = (memory["v"] / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
    return theta * (1 - s["lr"] * s["w"]) - s["lr"] * memory["m"] / (1 - 0.9 ** (step + 1)) / size


def _grokfast(theta, gradient, loss, step, s, memory, model):
    average = memory.get("average", gradient)
    memory["average"] = s["alpha"] * average + (1 - s["alpha"]) * gradient
    return theta - s["lr"] * (gradient + s["amplify"] * memory["average"] + s["w"] * theta)


def _muon(theta, gradient, loss, step, s, memory, model):
    memory["v"] = 0.95 * memory.get("v", torch.zeros_like(theta)) + 0.05 * gradient
    ahead = 0.05 * gradient + 0.95 * memory["v"]
    parts = {
        name: orthogonalized(M) * max(1.0, M.shape[-2] / M.shape[-1]) ** 0.5
        for name, M in model.matrices(ahead).items()
    }
    return theta * (1 - s["lr"] * s["w"]) - s["lr"] * model.flat(**parts)


def orthogonalized(M: Tensor) -> Tensor:
    """UVᵀ of M = UsVᵀ (..., k, l), roughly: five quintic Newton–Schulz steps, as in Muon and torch.optim.Muon."""
    turned = M.shape[-2] > M.shape[-1]
    M = M.mT if turned else M
    M = M / M.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    a, b, c = 3.4445, -4.7750, 2.0315
    for _ in range(5):
        A = M @ M.mT
        M = a * M + (b * A + c * A @ A) @ M
    return M.mT if turned else M


def _cyclic(theta, gradient, loss, step, s, memory, model):
    w = s["w"] * (1 + torch.cos(2 * np.pi * step / s["period"])) / 2
    return _heavy_ball(theta, gradient, memory, BETA, s["lr"], w)


def _ramp(theta, gradient, loss, step, s, memory, model):
    w = s["w"] * (step / s["period"]).clamp(max=1.0)
    return _heavy_ball(theta, gradient, memory, BETA, s["lr"], w)


def _controller(theta, gradient, loss, step, s, memory, model):
    w = memory.get("w", torch.full_like(loss, 1e-4))
    memory["w"] = (w * (s["b"] / loss.clamp(min=1e-12)) ** s["gain"]).clamp(FLOOR, CEILING)
    return _heavy_ball(theta, gradient, memory, BETA, s["lr"], memory["w"])


def _then_none(theta, gradient, loss, step, s, memory, model):
    """Decay until the held-out loss is halved (the loop keeps that in ``memory``), then none."""
    w = torch.where(memory["done"] > 0, 0.0, s["w"])
    return _heavy_ball(theta, gradient, memory, s["beta"], s["lr"], w)


RULES: dict[str, Rule] = {
    "constant": _constant,
    "momentum": _momentum,
    "AdamW": _adamw,
    "Grokfast": _grokfast,
    "Muon": _muon,
    "cyclic": _cyclic,
    "ramp": _ramp,
    "controller": _controller,
    "then none": _then_none,
}


def descend(
    model: Model,
    tasks: Sequence[Task],
    theta: Tensor,
    method: str,
    settings: Sequence[dict],
    limit: int,
    fits: Sequence = (np.inf,),
    both: bool = True,
) -> dict[str, np.ndarray]:
    """Train R runs side by side until the clocks below have struck in each, or ``limit`` gradients.

    Parameters
    ----------
    tasks : R tasks of equal sizes.
    theta : (R, d), where to begin.
    method : a name of :data:`RULES`.
    settings : R dicts of numbers with the names that the method reads.
    limit : most gradients.
    fits : levels of the training loss as shares of that of the output 0, for all runs, or a list for each.
    both : whether the accuracy's clock is waited for.

    Returns
    -------
    ``loss`` (R, levels): gradients at which the held-out loss is at most half the output 0's and the training loss at most that
    level; ``accuracy`` (R,): at which 99 % of the held-out samples are right; NaN where not within the limit. ``train_loss``
    and ``test_accuracy`` (R,) at the end. ``spent``: gradients of all runs together.
    """
    X, Y, Xt, Yt = (torch.stack([getattr(t, name) for t in tasks]) for name in ("X_train", "Y_train", "X_test", "Y_test"))  # fmt: skip
    base, held = Y.square().mean((1, 2)), Yt.square().mean((1, 2))
    columns = {key: torch.tensor([[float(s[key])] for s in settings], dtype=Y.dtype) for key in settings[0]}
    R, levels = len(tasks), torch.tensor(fits, dtype=Y.dtype).expand(len(tasks), -1)
    struck = torch.full(levels.shape, torch.nan, dtype=Y.dtype)
    accurate = torch.full((R,), torch.nan, dtype=Y.dtype)
    end = torch.full((2, R), torch.nan, dtype=Y.dtype)
    alive, spent = torch.arange(R), 0
    memory: Column = {}
    for step in range(limit + 1):
        at = theta.detach().requires_grad_()
        losses = (model.forward(model.matrices(at), X) - Y).square().mean((1, 2))
        (gradient,) = torch.autograd.grad(losses.sum(), at)
        with torch.no_grad():
            F = model.forward(model.matrices(theta), Xt)
            share = losses.detach() / base
            half = (F - Yt).square().mean((1, 2)) <= 0.5 * held
            right = (F.argmax(-1) == Yt.argmax(-1)).double().mean(1)
            fit = half[:, None] & (share[:, None] <= levels[alive])
            struck[alive] = torch.where(struck[alive].isnan() & fit, float(step), struck[alive])
            new = accurate[alive].isnan() & (right >= 0.99)
            accurate[alive] = torch.where(new, float(step), accurate[alive])
            end[:, alive] = torch.stack([share, right])
            done = half[:, None].double()
            memory["done"] = torch.maximum(memory.get("done", done), done)
            theta = RULES[method](theta, gradient, share[:, None], step, columns, memory, model)
            spent += len(alive)
            if step % LOOK == 0 or step == limit:
                open_ = struck[alive].isnan().any(1) | (accurate[alive].isnan() & both)
                keep = open_ & theta.isfinite().all(1) & (share < 1e3)
                if not keep.any():
                    break
                if not keep.all():
                    alive, theta = alive[keep], theta[keep]
                    X, Y, Xt, Yt, base, held = (t[keep] for t in (X, Y, Xt, Yt, base, held))
                    columns = {key: value[keep] for key, value in columns.items()}
                    memory = {key: value[keep] for key, value in memory.items()}
    return {
        "loss": struck.numpy(),
        "accuracy": accurate.numpy(),
        "train_loss": end[0].numpy(),
        "test_accuracy": end[1].numpy(),
        "spent": np.array(spent),
    }
