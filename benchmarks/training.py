"""Steps per second of training, against a plain dense PyTorch loop of the same network in the same run.

"p = 113": the usual task of the grokking literature, a ReLU network of width 200, AdamW, float32. Training samples
are 40 % of the 113² = 12,769 ordered pairs, rounded down: 5,107. "p = 11": the study's own small network, gradient
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
from grokutils import networks, tasks
from grokutils.training import loop, settings

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


def ordered_pairs(p: int = 113, fraction: float = 0.4, seed: int = 0) -> tasks.Task:
    """Addition over ordered pairs, ⌊0.4 · 113²⌋ = 5,107 of them for training."""
    pairs = torch.cartesian_prod(torch.arange(p), torch.arange(p))
    pairs = pairs[torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))]
    eye = torch.eye(p)
    X, Y = eye[pairs[:, 0]] + eye[pairs[:, 1]], eye[pairs.sum(1) % p]
    n = int(fraction * len(pairs))
    return tasks.Task("ordered pairs", X[:n], Y[:n], X[n:], Y[n:], pairs[:n], pairs[n:], p)


SETUPS = {
    "p = 113": Setup(ordered_pairs(), 200, "adamw", 1e-3, 1.0, ("mse", "cross_entropy"), steps=6),
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


def batched(setup: Setup, loss: str, seeds: int) -> loop._Runs:
    p = setup.task.p
    checked = settings.check(
        networks.two_layer(p, setup.width, p), setup.task, 10**6, range(seeds), 1.0, None, setup.lr, 1.0,
        setup.weight_decay, 2, loss=loss, reduction="mean", optimizer=setup.optimizer, momentum=0.0, batch_size=None,
    )  # fmt: skip
    return loop._Runs(checked, keep_theta=False)


def seconds(advance, steps: int) -> float:
    start = time.perf_counter()
    advance(steps)
    return (time.perf_counter() - start) / steps


def compared(setup: Setup, loss: str, seeds: int, repeats: int) -> tuple[float, float, str]:
    """Steps of one seed a second, how many times the plain loop's that is, and the range of this ratio."""
    plain, ours = Plain(setup, loss), batched(setup, loss, seeds)
    plain.advance(3)  # burn-in, and the check that both do the same work
    ours.advance(3)
    np.testing.assert_allclose(ours.E[0].T, plain.net[0].weight.detach(), atol=1e-4)
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
    torch.set_num_threads(before)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--repeats", type=int, default=7, help="timings, of which the median counts (default: %(default)s)"
    )
    main(parser.parse_args().repeats)
