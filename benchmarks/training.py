"""Steps per second of training, against a plain dense PyTorch loop of the same network in the same run.

"p = 113": the usual task of the grokking literature, a ReLU network of width 200, AdamW, float32. Training samples
are 40 % of the 113² = 12,769 ordered pairs: 5,108. "p = 11": the study's own small network, gradient
descent on 59 unordered pairs, which spends its time in the overhead of operations. Every step uses all samples.
Both sides train from the same numbers and must agree before they are timed.

Why the package's loop is faster: sums of one-hots are gathered instead of multiplied; (a, b) and (b, a) are one
sample with count 2; the backward pass is written out; V = Wᵀ keeps long sides contiguous; seeds share operations.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks import _record
from grokutils import models, tasks
from grokutils.training import settings
from grokutils.training.batched import Batched
from grokutils.training.general import General

CRITERIA = {"mse": torch.nn.MSELoss(), "cross_entropy": torch.nn.CrossEntropyLoss()}


@dataclass(frozen=True)
class Setup:
    """A task, a network's width, an optimizer; ``steps`` of one seed are timed at once."""

    task: tasks.Task
    width: int
    optimizer: str
    lr: float
    weight_decay: float
    losses: tuple[str, ...]
    steps: int


SETUPS = {
    "p = 113": Setup(
        tasks.modular(113, train_fraction=0.4, ordered=True, representation="sum", dtype=torch.float32),
        200,
        "adamw",
        1e-3,
        1.0,
        ("mse", "cross_entropy"),
        steps=6,
    ),
    "p = 11": Setup(
        tasks.modular(11, train_fraction=59 / 66, dtype=torch.float32),
        128,
        "gd",
        1.0,
        1e-4,
        ("mse",),
        steps=400,
    ),
}
SMALL = {
    "repeats": 1,
    "setups": {
        "p = 5": Setup(tasks.modular(5, dtype=torch.float32), 16, "gd", 1.0, 1e-4, ("mse",), steps=20)
    },
}


class Plain:
    """What one writes first: two bias-free linear layers, one-hot inputs, autograd, torch.optim."""

    def __init__(self, setup: Setup, loss: str):
        torch.manual_seed(0)
        self.task, self.criterion = setup.task, CRITERIA[loss]
        first = torch.nn.Linear(setup.task.p, setup.width, bias=False)
        second = torch.nn.Linear(setup.width, setup.task.p, bias=False)
        self.net = torch.nn.Sequential(first, torch.nn.ReLU(), second)
        kind = {"adamw": torch.optim.AdamW, "gd": torch.optim.SGD}[setup.optimizer]
        self.optimizer = kind(self.net.parameters(), lr=setup.lr, weight_decay=setup.weight_decay)

    def advance(self, steps: int) -> None:
        for _ in range(steps):
            self.optimizer.zero_grad()
            self.criterion(self.net(self.task.X_train), self.task.Y_train).backward()
            self.optimizer.step()


class Ours:
    """The package's fast path, or its general loop for any model, without records."""

    def __init__(self, setup: Setup, loss: str, seeds: int, engine: type = Batched):
        p = setup.task.p
        checked = settings.check(
            models.two_layer(p, setup.width, p), setup.task, 10**6, theta0=None, loss=loss, optimizer=setup.optimizer,
            momentum=0.0, batch_size=None, record_at=2, hooks=(), keep_theta=False, seed=range(seeds), init_scale=1.0,
            lr=setup.lr, readout_speed=1.0, weight_decay=setup.weight_decay, label_noise=0.0,
        )  # fmt: skip
        self.engine, self.step = engine(checked), 0
        self.rates = [checked.rate(name, 0, None) for name in ("lr", "weight_decay")]

    def advance(self, steps: int) -> None:
        for _ in range(steps):
            self.engine.step(self.step, *self.rates)
            self.step += 1


def seconds(advance, steps: int) -> float:
    start = time.perf_counter()
    advance(steps)
    return (time.perf_counter() - start) / steps


def compared(
    setup: Setup, loss: str, seeds: int, repeats: int, engine: type = Batched
) -> tuple[float, float, str]:
    """Steps of one seed a second, how many times the plain loop's that is, and the range of this ratio."""
    plain, ours = Plain(setup, loss), Ours(setup, loss, seeds, engine)
    plain.advance(3)  # burn-in, and the check that both do the same work
    ours.advance(3)
    E = ours.engine.theta[0, : plain.net[0].weight.numel()].view(-1, setup.width)
    np.testing.assert_allclose(E.T, plain.net[0].weight.detach(), atol=1e-4)
    # in turns, so that a neighbour's load hits both sides alike
    times = [
        (seconds(plain.advance, setup.steps), seconds(ours.advance, max(1, setup.steps // seeds)) / seeds)
        for _ in range(repeats)
    ]
    ratios = sorted(slow / fast for slow, fast in times)
    rate = 1 / statistics.median(fast for _, fast in times)
    return rate, statistics.median(ratios), f"ratio from {ratios[0]:.2f} to {ratios[-1]:.2f}"


def main(repeats: int = 7, setups=SETUPS) -> list[dict]:
    """The rows, printed as they come; the median of ``repeats`` timings counts."""
    rows = []
    before = torch.get_num_threads()
    for name, setup in setups.items():
        for loss, threads, seeds in itertools.product(setup.losses, (1, 2), (1, 16)):
            torch.set_num_threads(threads)
            rate, ratio, note = compared(setup, loss, seeds, repeats)
            what = f"{setup.optimizer}, {loss.replace('_', '-')}, {seeds} seed{'s' if seeds > 1 else ''}"
            size = f"{name}, width {setup.width}, float32"
            rows.append(
                _record.row(
                    "Training, full batch", what, rate, "steps of a seed a second", size=size, threads=threads,
                    against="a plain dense PyTorch loop", ratio=ratio, note=note,
                )
            )  # fmt: skip
        torch.set_num_threads(1)
        rate, ratio, note = compared(setup, setup.losses[0], 1, repeats, General)
        rows.append(
            _record.row(
                "Training, full batch", f"{setup.optimizer}, the loop for any model", rate, "steps a second",
                size=f"{name}, width {setup.width}, float32", against="a plain dense PyTorch loop", ratio=ratio, note=note,
            )
        )  # fmt: skip
    torch.set_num_threads(before)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--repeats", type=int, default=7, help="timings, of which the median counts (default: %(default)s)"
    )
    main(parser.parse_args().repeats)
