"""Delays whose cause is known, to try the criterion of :func:`grokutils.interventions.cause` on (chapter 12).

Each case is a model, data, a start and a decay, with the answer that theory gives: the fall of the norm, something else, or both.
``python -m grokutils.experiments causes`` makes the records.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files

import pandas as pd
import torch
from torch import Tensor, nn

from .. import losses, records, tasks, training
from ..interventions import MIXED, NORM, OTHER, cause
from ..models import Model, from_module, two_layer
from ..tasks import Task

PATH = str(files("grokutils") / "data" / "causes.nc")
SEEDS = (200, 201, 202)
MOST = 40_000  # steps of a run

# Written before the first run with these seeds.
RULES = {
    "clear": "The criterion names the known cause of each of the twelve clear cases, in all seeds.",
    "mixed": "The criterion calls the two cases mixed in which, by construction, decay and a slow mode of the loss are equally fast.",
}


@dataclass(frozen=True)
class Case:
    """One delay."""

    name: str
    seed: int


@dataclass(frozen=True, eq=False)
class Setting:
    """What is trained, and when it counts as memorized and as generalized: losses, as shares of those of the output 0."""

    model: Model
    task: Task
    theta: Tensor  # (d,) start
    lr: float
    w: float
    answer: str
    loss: str = "squared_error"
    memorized: float = 0.05
    generalized: float = 0.5
    every: int = 5  # steps between looks


class Linear(nn.Module):
    """f(x) = Θx, without a random start."""

    def __init__(self, d_in: int, d_out: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_out, d_in))

    def forward(self, x):
        return x @ self.weight.mT


class Diagonal(nn.Module):
    """f(x) = (u ⊙ v)·x."""

    def __init__(self, d: int):
        super().__init__()
        self.u, self.v = nn.Parameter(torch.ones(d)), nn.Parameter(torch.ones(d))

    def forward(self, x):
        return x @ (self.u * self.v)[:, None]


class Product(nn.Module):
    """f(x) = Vᵀ Uᵀ x: a linear network of two layers."""

    def __init__(self, d_in: int, width: int, d_out: int):
        super().__init__()
        self.U, self.V = nn.Parameter(torch.ones(d_in, width)), nn.Parameter(torch.ones(width, d_out))

    def forward(self, x):
        return x @ self.U @ self.V


class Entries(nn.Module):
    """f(i, j) = (UV)_ij for tokens i, j."""

    def __init__(self, rows: int, columns: int, width: int):
        super().__init__()
        self.U, self.V = nn.Parameter(torch.ones(rows, width)), nn.Parameter(torch.ones(width, columns))

    def forward(self, x):
        return (self.U[x[:, 0]] * self.V.mT[x[:, 1]]).sum(1, keepdim=True)


class Lazy(nn.Module):
    """f(x) = α/√h Σ (φ(w_h·x) − φ(w_h⁰·x)), φ(z) = z + z²/2: the larger α, the less the features must move."""

    def __init__(self, start: Tensor, alpha: float):
        super().__init__()
        self.register_buffer("start", start)  # (d, h)
        self.w, self.scale = nn.Parameter(start.clone()), alpha / start.shape[1] ** 0.5

    def forward(self, x):
        z, before = x @ self.w, x @ self.start
        return self.scale * (z + z**2 / 2 - before - before**2 / 2).sum(1, keepdim=True)


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _linear(X: Tensor, truth: Tensor, X_test: Tensor, theta: Tensor, **options) -> Setting:
    model = from_module(Linear(X.shape[1], 1))
    return Setting(model, tasks.from_tensors(X, X @ truth, X_test, X_test @ truth), theta, **options)


def sums(inputs: int, start: list[float], seed: int) -> Setting:
    """The study's toys: one sample (1, …, 1)."""
    task = tasks.sum_toy(inputs, seed=seed)
    model = from_module(Linear(inputs, 1))
    return Setting(model, task, torch.tensor(start, dtype=torch.float64), lr=0.1, w=0.02, answer=NORM)


def modular(activation: str, p: int, width: int, seed: int) -> Setting:
    """The table of a + b."""
    model = two_layer(p, width, p, activation)
    task = tasks.modular(p, train_fraction=0.85, seed=seed)
    return Setting(model, task, model.init(seed), lr=2.0, w=4e-4, answer=NORM, every=10)


def few_samples(seed: int) -> Setting:
    """Linear regression with n < d, a truth in the span of the rows, and a large start."""
    X, rest = _normal(seed, 12, 20), _normal(seed + 1, 200, 20)
    truth = torch.linalg.pinv(X) @ X @ _normal(seed + 2, 20)
    return _linear(X, truth, rest, 4 * _normal(seed + 3, 20), lr=0.1, w=0.02, answer=NORM)


def diagonal(seed: int) -> Setting:
    """A sparse truth, a diagonal network, and a large start."""
    X, rest = _normal(seed, 14, 24), _normal(seed + 1, 200, 24)
    truth = torch.zeros(24, dtype=torch.float64)
    truth[:2] = 1.0
    start = torch.cat([torch.full((24,), 1.5).double(), _normal(seed + 2, 24)])
    task = tasks.from_tensors(X, X @ truth, rest, rest @ truth)
    return Setting(from_module(Diagonal(24)), task, start, lr=0.02, w=0.02, answer=NORM, every=10)


def completion(seed: int) -> Setting:
    """Entries of a matrix of rank one, UV of full width, and a large start."""
    M = _normal(seed, 7, 1) @ _normal(seed + 1, 1, 7)
    M = M * 7 / M.norm()
    where = torch.cartesian_prod(torch.arange(7), torch.arange(7))
    where = where[torch.randperm(49, generator=torch.Generator().manual_seed(seed))]
    Y = M[where[:, 0], where[:, 1]][:, None]
    task = tasks.from_tensors(where[:32], Y[:32], where[32:], Y[32:])
    return Setting(
        from_module(Entries(7, 7, 7)), task, 1.0 * _normal(seed + 2, 98), lr=0.2, w=0.01, answer=NORM
    )


def many_samples(seed: int) -> Setting:
    """Linear regression with n > d: a few directions that the samples hardly show."""
    X, rest = _normal(seed, 44, 40), _normal(seed + 1, 300, 40)
    start, slow = _normal(seed + 3, 40) / 40**0.5, {"lr": 0.2, "w": 1e-6}
    return _linear(X, _normal(seed + 2, 40) / 40**0.5, rest, start, **slow, answer=OTHER, generalized=0.1)


def steep_spectrum(seed: int) -> Setting:
    """Linear regression with n ≫ d, inputs whose variance falls as a power law, held-out inputs of equal variances."""
    scales = torch.arange(1, 11, dtype=torch.float64) ** -1.5
    X, rest, truth = _normal(seed, 100, 10) * scales, _normal(seed + 1, 300, 10), _normal(seed + 2, 10).sign()
    start, slow = torch.zeros(10).double(), {"lr": 0.3, "w": 1e-6}
    return _linear(X, truth, rest, start, **slow, answer=OTHER, memorized=0.1, generalized=0.25)


def small_start(seed: int) -> Setting:
    """A linear network of two layers from tiny weights: the strong mode fits the training set, the weak one is tested."""
    X, rest = _normal(seed, 60, 8), _normal(seed + 1, 200, 8)
    left, right = (torch.linalg.qr(_normal(seed + k, 8, 8))[0] for k in (2, 3))
    M = (3.0 * left[:, :1] @ right[:1]) + (0.5 * left[:, 1:2] @ right[1:2])
    rest = rest - rest @ left[:, :1] @ left[:, :1].mT  # the strong mode is silent there
    task = tasks.from_tensors(X, X @ M, rest, rest @ M)
    return Setting(
        from_module(Product(8, 8, 8)), task, 1e-3 * _normal(seed + 4, 128), lr=0.2, w=1e-6, answer=OTHER
    )


def lazy_to_rich(seed: int) -> Setting:
    """A network that first fits with the features it has, too many for its samples, and then moves them."""
    d, h = 15, 60
    X, rest = _normal(seed, 75, d), _normal(seed + 1, 300, d)
    beta = _normal(seed + 2, d, 1)
    beta = beta / beta.norm()
    task = tasks.from_tensors(X, (X @ beta) ** 2 - 1, rest, (rest @ beta) ** 2 - 1)
    start = _normal(seed + 3, d, h) / d**0.5
    model, slow = from_module(Lazy(start, 0.3)), {"lr": 0.07, "w": 1e-6}
    return Setting(model, task, start.flatten(), **slow, answer=OTHER, memorized=0.1, generalized=0.25)


def logit_scale(seed: int) -> Setting:
    """Logistic regression on separable classes: the logits grow without end, and the held-out loss falls with them."""
    X, rest = _normal(seed, 60, 5), _normal(seed + 1, 300, 5)
    task = tasks.from_tensors(*_labelled(X), *_labelled(rest), classes=2)
    model, slow = from_module(Linear(5, 2)), {"lr": 1.0, "w": 1e-6, "loss": "cross_entropy"}
    return Setting(
        model, task, 0.01 * _normal(seed + 2, 10), **slow, answer=OTHER, memorized=0.5, generalized=0.02
    )


def _labelled(X: Tensor) -> tuple[Tensor, Tensor]:
    X = X.clone()
    labels = (X[:, 0] > 0).long()
    X[:, 0] += 0.5 * X[:, 0].sign()  # a margin
    return X, labels


def slow_and_decayed(seed: int) -> Setting:
    """Linear regression whose one slow mode decays by loss and by weight decay at equal rates, and whose truth has none of it."""
    X = torch.linalg.qr(_normal(seed, 40, 8))[0] * 40**0.5
    X[:, 7] *= 0.07  # eigenvalue 2·0.07² of the mean loss's Hessian
    truth = torch.cat([torch.ones(7), torch.zeros(1)]).double()
    start = torch.cat([torch.zeros(7), torch.full((1,), 4.0)]).double()
    return _linear(X, truth, _normal(seed + 1, 300, 8), start, lr=0.2, w=2 * 0.07**2, answer=MIXED)


def slow_then_decayed(seed: int) -> Setting:
    """A slow mode that only the loss can fit and a null mode that only decay can clear, in turn."""
    X = torch.linalg.qr(_normal(seed, 40, 8))[0] * 40**0.5
    X[:, 6] *= 0.07
    X[:, 7] = 0.0
    truth = torch.cat([torch.ones(6), torch.full((1,), 3.0), torch.zeros(1)]).double()
    start = torch.cat([torch.zeros(7), torch.full((1,), 2.0)]).double()
    return _linear(X, truth, _normal(seed + 1, 300, 8), start, lr=0.2, w=0.003, answer=MIXED, memorized=0.05, generalized=0.3)  # fmt: skip


SETTINGS: dict[str, Callable[[int], Setting]] = {
    "two weights, one sample": lambda seed: sums(2, [-1.0, 1.0], seed),
    "three weights, one sample": lambda seed: sums(3, [-1.5, 0.5, 2.0], seed),
    "modular addition, gelu": lambda seed: modular("gelu", 11, 64, seed),
    "modular addition, quadratic": lambda seed: modular("quadratic", 11, 48, seed),
    "linear regression, n < d, large start": few_samples,
    "diagonal network, sparse truth, large start": diagonal,
    "matrix completion, large start": completion,
    "linear regression, n > d": many_samples,
    "linear regression, steep spectrum": steep_spectrum,
    "linear network, small start": small_start,
    "lazy to rich": lazy_to_rich,
    "logistic regression, logit scale": logit_scale,
    "slow mode and decay": slow_and_decayed,
    "slow mode, then decay": slow_then_decayed,
}
CASES = [Case(name, seed) for seed in SEEDS for name in SETTINGS]


def measure(case: Case) -> list[dict]:
    """One row: the known answer, the verdict, delay and memorization in steps, and how the norm moved between them."""
    setting = SETTINGS[case.name](case.seed)
    first, theta, memorized = until(setting, setting.theta, setting.w, MOST, "train")
    if not memorized:
        raise ValueError(f"{case}: does not memorize")
    seen: dict[float, tuple[float, float]] = {}

    def delay(w: float, patience: float) -> float:
        steps, end, reached = until(setting, theta, w, int(min(patience, MOST)), "test")
        seen.setdefault(w, (steps, float(end @ end)))
        return steps if reached else math.inf

    found = cause(delay, setting.w)
    steps, end = seen[setting.w]
    return [
        {
            "answer": setting.answer,
            "verdict": found.verdict,
            "ratio": found.ratio,
            "elasticity": found.elasticity,
            "memorized": first,
            "delay": steps,
            "norm2_start": float(theta @ theta),
            "norm2_end": end,
            "when": time.time(),
        }
    ]


def until(setting: Setting, theta: Tensor, w: float, most: int, part: str) -> tuple[float, Tensor, bool]:
    """Steps (linear between looks) until the loss of ``part`` is at the setting's level, θ there, and whether it got there."""
    Y = getattr(setting.task, f"Y_{part}")
    loss = losses.loss(setting.loss)
    level = (setting.memorized if part == "train" else setting.generalized) * float(
        loss.value(torch.zeros_like(Y), Y)
    )
    level /= loss.count(Y)
    run = training.train(
        setting.model, setting.task, most, theta0=theta, lr=setting.lr, weight_decay=w, loss=setting.loss,
        record_at=range(0, most, setting.every), until=lambda record: record.__dict__[f"{part}_loss"][0] <= level,
    ).isel(run=0)  # fmt: skip
    values, steps = run[f"{part}_loss"].values, run.step.values.astype(float)
    reached = bool(values[-1] <= level)
    at = steps[-1]
    if reached and len(values) > 1:
        at = steps[-2] + (values[-2] - level) / (values[-2] - values[-1]) * (steps[-1] - steps[-2])
    return float(at), torch.from_numpy(run.theta_end.values), reached


def stored() -> pd.DataFrame:
    """The rows that the package holds."""
    return records.load(PATH).to_dataframe()
