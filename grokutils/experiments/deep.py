"""Chapter 14: deeper networks and cross-entropy. Predictions first, then the runs that test them.

``python -m grokutils.experiments deep predict`` and ``… deep train``; either is saved after every case and goes on where it stopped.
A prediction sees a run up to memorization, or its initial weights only. Each training carries the hash of the prediction that it
tests. A run whose flow does not generalize by :data:`TAU_END` is not trained, and stays as a row. ``… deep after`` is what was asked
when all results had been seen: the isolated dynamics again, integrated a hundred times more finely.
"""

from __future__ import annotations

import time
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr
from scipy.integrate import RK23
from torch import Tensor

from .. import delay, fourier, losses, records, tasks, training
from ..models import Model, mlp, transformer, two_layer
from ..tasks import Task
from . import chain

DATA = Path(str(files("grokutils") / "data"))
PATHS = {
    "predict": DATA / "deep_predictions.nc",
    "train": DATA / "deep_trainings.nc",
    "after": DATA / "deep_afterwards.nc",
}

# Written before the first prediction, for seeds that nothing had used (timing runs: seeds 0 and 1).
RULES = {
    "depth": "Squared error, MLPs of three and four layers and deep linear completion of depth three and four, runs that grok by the "
    "loss clock (at least 12 in all, at least 3 a family): from memorization the mean absolute error of the step is at most .3 % in "
    "every family, and no run is predicted that does not come, or comes unpredicted.",
    "depth-init": "The same runs, from the initial weights alone: at most .5 % in every family.",
    "entropy": "Cross-entropy, two and three layers, runs that grok by the loss clock (at least 12 in all): from memorization at most "
    ".3 % for each depth.",
    "entropy-init": "The same runs, from the initial weights alone: at most 1 % for each depth.",
    "cost": "With cross-entropy, from one start the flow to slow time 2 takes at most twice as many steps at λ = 1e-6 as at 1e-2 "
    "(at least 3 seeds, means).",
    "transformer": "One layer, no layer norm, at least 5 seeds that grok: mean absolute error at most 1 % from memorization over the runs whose "
    "largest lr·sharpness on the predicted path stays below 2; every run in which it does not is announced by a warning.",
    "isolated": "Three layers, last layer eliminated: counting the readout's own motion brings the isolated delay to within 10 % of the joint "
    "flow's on average, and nearer than the plain isolated dynamics does (at least 3 seeds).",
    "fourier": "After grokking an MLP of three layers has the two-layer network's first layer: circles (power-weighted |cos(Re F, Im F)| at "
    "most half of what it was at memorization, on average), and frequencies that do not share hidden units (similarity within a frequency "
    "above that across, by a factor of 1.2 at least). Squared error and cross-entropy each by itself.",
}

TAU_END = 8.0
GRID = 60  # points of each stored curve
MOST_STEPS = 40_000  # predicted steps beyond which a run is too long for our computing, and is not trained
COARSE = 1e-3  # tolerance of a transformer's flow from its initial weights: minutes of computing even so
LONGER = 1.1  # times the predicted step, for which a run is trained
MEASURES = ("orthogonality", "balance", "frequencies", "separation")


BASE = {
    "family": "network", "depth": 3, "p": 11, "width": 48, "activation": "gelu", "fraction": 0.85, "scale": 2.0, "lr": 1.0, "w": 4e-4,
    "loss": "squared_error", "seed": 0, "isolate": False,
}  # fmt: skip


def cases() -> list[dict]:
    """Every run, in the order in which rules need them."""
    matrix = {
        "family": "completion",
        "p": 10,
        "width": 10,
        "activation": "identity",
        "fraction": 0.6,
        "w": 1e-3,
    }
    entropy = {"loss": "cross_entropy", "p": 13, "fraction": 0.95, "scale": 1.0}
    two = {**entropy, "depth": 2, "width": 52, "activation": "quadratic"}
    attention = {"family": "transformer", "fraction": 0.8, "scale": 1.0, "lr": 0.3}
    larger = {
        **attention,
        "loss": "cross_entropy",
        "p": 13,
        "fraction": 0.9,
        "width": 32,
        "scale": 2.0,
        "lr": 0.07,
        "w": 1e-3,
    }
    cells: list[tuple[int, dict]] = [  # how many seeds, and what differs from BASE
        (3, {}),
        (3, {**matrix, "depth": 3, "scale": 3.5, "lr": 0.1}),
        (3, {**matrix, "depth": 4, "scale": 3.0, "lr": 0.05}),
        (5, {**two, "w": 5e-4}),
        (5, {**two, "w": 2e-4}),
        (4, {**two, "p": 17, "width": 68, "fraction": 0.85, "w": 4e-4}),
        (3, {"depth": 4, "lr": 0.2, "w": 8e-4}),
        (3, {"w": 2e-4}),
        (3, {"depth": 2, "width": 64, "scale": 1.0, "lr": 2.0}),
        # what follows was written when the predictions of the cells above were there, before any training
        (6, {**two, "w": 5e-4}),
        (3, {"depth": 4, "lr": 0.2, "w": 4e-4, "scale": 2.5}),
        (2, {**entropy, "width": 32, "w": 2e-4}),
        (2, {**entropy, "width": 32, "activation": "quadratic", "scale": 1.5, "lr": 0.3, "w": 3e-4}),
        (1, {**entropy, "width": 32, "lr": 0.5, "w": 4e-4}),
        (2, {"depth": 4, "lr": 0.2, "w": 8e-4, "scale": 2.5}),
        (2, {**attention, "p": 7, "width": 16, "w": 2e-4}),
        # one of three did not grok, so that the family was too small: predicted when the runs up to there had been trained
        (4, {**matrix, "depth": 4, "scale": 3.0, "lr": 0.05}),
        # what follows was found with pilot seeds (0 to 99) when all of the above had been trained: cells in which more runs grok in time
        (5, {"depth": 4, "fraction": 0.95, "scale": 3.0, "lr": 0.2, "w": 6e-4}),
        (7, {**entropy, "p": 11, "width": 32, "lr": 0.5, "w": 5e-4}),
        (5, {"p": 9, "fraction": 0.93, "isolate": True}),  # width 48 > n = 42: the last layer alone can fit
        # found with pilot seeds (0 to 99) when all of the above had been trained: a transformer that groks
        (6, larger),
    ]
    listed = [{**BASE, **cell} for count, cell in cells for _ in range(count)]
    return [{**case, "seed": 1410 + at} for at, case in enumerate(listed)]


class Completion(Model):
    """A deep linear network W₁W₂…W_L of square matrices, read at index pairs: ``X`` (n, 2) integers ↦ entries (n, 1)."""

    def __init__(self, size: int, depth: int):
        self.size = size
        super().__init__(f"completion({size}, {depth})", {f"W{k}": (size, size) for k in range(1, depth + 1)})

    def check(self, X: Tensor) -> None:
        if X.dtype != torch.int64 or X.ndim != 2 or X.shape[1] != 2 or X.min() < 0 or X.max() >= self.size:
            raise ValueError(f"X: must be (n, 2) integers from 0 to {self.size - 1} for {self.name}")

    def forward(self, parameters, X: Tensor) -> Tensor:
        first, *rest = parameters.values()
        for W in rest:
            first = first @ W
        return first[X[:, 0], X[:, 1]][:, None]


def completion(size: int, fraction: float, seed: int) -> Task:
    """Entries of a random matrix of rank one, of mean square 1; a ``fraction`` of them known."""
    generator = torch.Generator().manual_seed(1000 + seed)
    left, right = torch.randn(2, size, generator=generator, dtype=torch.float64)
    M = torch.outer(left, right)
    M = M / M.square().mean().sqrt()
    pairs = torch.cartesian_prod(*2 * [torch.arange(size)])[torch.randperm(size**2, generator=generator)]
    known, rest = pairs.split([cut := round(fraction * size**2), size**2 - cut])
    return tasks.from_tensors(
        known, M[tuple(known.T)], rest, M[tuple(rest.T)], name=f"matrix {size} × {size} of rank one"
    )


def setting(case: dict) -> tuple[Model, Task]:
    """The network and the data of a case."""
    p, width, depth = case["p"], case["width"], case["depth"]
    if case["family"] == "completion":
        return Completion(p, depth), completion(p, case["fraction"], case["seed"])
    if case["family"] == "transformer":
        options = {"ordered": True, "representation": "tokens"}
        task = tasks.modular(p, train_fraction=case["fraction"], seed=case["seed"], **options)
        return transformer(
            p, 2, p, width=width, heads=2, mlp_width=2 * width, activation=case["activation"]
        ), task
    task = tasks.modular(p, train_fraction=case["fraction"], seed=case["seed"])
    if depth == 2:
        return two_layer(p, width, p, case["activation"]), task
    return mlp([p, *[width] * (depth - 1), p], case["activation"]), task


def settings(case: dict) -> dict:
    """Of the run, as :func:`training.train` and :func:`delay.predict_delay` take them."""
    return {
        "seed": case["seed"],
        "init_scale": case["scale"],
        "lr": case["lr"],
        "weight_decay": case["w"],
        "loss": case["loss"],
    }


# Predictions -------------------------------------------------------------------------------------------------------


def predicted(case: dict) -> dict:
    """One prediction from memorization and one from the initial weights; the isolated dynamics where the case asks for it."""
    model, task = setting(case)
    options = settings(case) | {"tau_end": TAU_END}
    began = time.process_time()
    coarse = {"tolerance": COARSE} if case["family"] == "transformer" else {}
    blind = delay.predict_delay(model, task, start="init", accuracy_thresholds=(), **options, **coarse)
    row = {"step_init": blind.step, "seconds_init": time.process_time() - began}
    row |= {"sharp_start": blind.sharpness[0], "sharp_init": blind.sharpness[1]}
    row["warned_init"] = float(any("stability" in note for note in blind.warnings))
    began = time.process_time()
    made = delay.predict_delay(model, task, accuracy_thresholds=(), **options)
    row |= {"step": made.step, "error": made.error, "tau": made.tau, "memorized": made.memorized}
    row |= {"sharp": made.sharpness[1], "warned": float(any("stability" in note for note in made.warnings))}
    row |= {"flow_steps": np.nan, "curve": np.full((2, GRID), np.nan), "seconds": time.process_time() - began}
    row |= {"isolated": np.nan, "isolated_metric": np.nan, "joint": np.nan}
    if made.flow is not None:
        row["flow_steps"] = made.flow.sizes["step"]
        grid = np.linspace(float(made.flow.tau[0]), float(made.flow.tau[-1]), GRID)
        relative = made.flow.test_loss / float(made.flow.test_baseline)
        row["curve"] = np.array([grid, np.interp(grid, made.flow.tau, relative)])
        if case["isolate"] and np.isfinite(made.step):
            lam = losses.lam(case["loss"], task.Y_train, case["w"])
            row["joint"] = made.tau - made.pace * made.start
            for name, counted in (("isolated", False), ("isolated_metric", True)):
                row[name] = isolated_time(model, made.theta, task, lam, counted, tau_end=3 * row["joint"])
    return row


class LastLayer:
    """An MLP whose last layer is always the best one, φ = Hᵀ(HHᵀ + λI)⁻¹Y, so that θ₁, all other layers, is what moves.

    With R = L_λ(θ₁, φ(θ₁)) the isolated dynamics is dθ₁/dτ = −∇R/2λ (theorem 5.1). It counts no cost of moving φ. Gradient flow on
    L_λ that is held on the graph of φ does, by the metric G = I + DφᵀDφ: dθ₁/dτ = −G⁻¹∇R/2λ.
    """

    def __init__(self, model: Model, task: Task, lam: float):
        self.model, self.task, self.lam = model, task, lam
        *_, self.last = model.shapes
        self.head = model.d - int(np.prod(model.shapes[self.last]))
        self.hidden = mlp([model.widths[0], *model.widths[1:-1]], model.activation)  # all layers but the last

    def features(self, theta: Tensor, X: Tensor) -> Tensor:
        """H (n, width)."""
        return self.model.activation.value(self.hidden(theta, X))

    def readout(self, theta: Tensor) -> Tensor:
        """φ(θ₁), (width, m)."""
        H = self.features(theta, self.task.X_train)
        return H.mT @ torch.linalg.solve(H @ H.mT + self.lam * torch.eye(len(H)).to(H), self.task.Y_train)

    def cost(self, theta: Tensor) -> Tensor:
        """R/2λ = ½‖θ₁‖² + ½ Tr Yᵀ(HHᵀ + λI)⁻¹Y."""
        H, Y = self.features(theta, self.task.X_train), self.task.Y_train
        fit = torch.linalg.solve(H @ H.mT + self.lam * torch.eye(len(H)).to(H), Y)
        return 0.5 * (theta @ theta) + 0.5 * (Y * fit).sum()

    def velocity(self, theta: Tensor, counted: bool) -> Tensor:
        """dθ₁/dτ, with the metric G where the readout's motion is ``counted``."""
        force = -torch.func.grad(self.cost)(theta)
        if not counted:
            return force
        D = torch.func.jacrev(lambda t: self.readout(t).flatten())(theta)  # Dφ, a row for each readout weight
        # (I + DᵀD)⁻¹ by Woodbury: there are fewer readout weights than others
        return force - D.mT @ torch.linalg.solve(torch.eye(len(D)).to(D) + D @ D.mT, D @ force)

    def held_out(self, theta: Tensor) -> float:
        """Held-out loss, relative to that of the output 0."""
        F = self.features(theta, self.task.X_test) @ self.readout(theta)
        return float((F - self.task.Y_test).square().sum() / self.task.Y_test.square().sum())


def isolated_time(
    model, theta: Tensor, task: Task, lam: float, counted: bool, tau_end: float, rtol=1e-2
) -> float:
    """Slow time from θ at which the held-out loss is halved, with the last layer eliminated; NaN if not by ``tau_end``."""
    alone = LastLayer(model, task, lam)

    def slope(_, flat):
        return alone.velocity(torch.from_numpy(flat), counted).numpy()

    solver = RK23(slope, 0.0, theta[: alone.head].numpy(), tau_end, rtol=rtol, atol=rtol / 10)
    before = 0.0, alone.held_out(theta[: alone.head])
    while solver.status == "running":
        solver.step()
        now = solver.t, alone.held_out(torch.from_numpy(solver.y))
        if now[1] <= 0.5 < before[1]:
            return before[0] + (now[0] - before[0]) * (before[1] - 0.5) / (before[1] - now[1])
        before = now
    return np.nan


def asked_after() -> list[dict]:
    """Cases of :func:`afterwards`: those in which a layer is eliminated."""
    return [case for case in cases() if case["isolate"]]


def afterwards(case: dict, rtol: float = 1e-4) -> dict:
    """What :func:`predicted` says of the isolated dynamics, integrated more finely."""
    model, task = setting(case)
    began = time.process_time()
    made = delay.predict_delay(model, task, accuracy_thresholds=(), **settings(case), tau_end=TAU_END)
    row = dict.fromkeys(("joint", "isolated", "isolated_metric"), np.nan)
    if np.isfinite(made.step):
        row["joint"] = made.tau - made.pace * made.start
        lam = losses.lam(case["loss"], task.Y_train, case["w"])
        for name, counted in (("isolated", False), ("isolated_metric", True)):
            row[name] = isolated_time(
                model, made.theta, task, lam, counted, tau_end=3 * row["joint"], rtol=rtol
            )
    return {**row, "seconds": time.process_time() - began}


# Trainings ---------------------------------------------------------------------------------------------------------


def trained(case: dict, foretold: xr.Dataset) -> dict:
    """The real run, somewhat longer than predicted; none where no generalization was predicted, or far off, or where flows are compared."""
    model, task = setting(case)
    told = [float(foretold[name]) for name in ("step", "step_init")]
    row = {
        "step": np.nan, "memorized": np.nan, "accuracy_step": np.nan, "steps": 0,
        "end": np.nan, "accuracy": np.nan, "norm2": np.nan, "curve": np.full((2, GRID), np.nan), "seconds": 0.0,
        **{f"{name}_{when}": np.nan for name in MEASURES for when in ("before", "after")},
    }  # fmt: skip
    if case["isolate"] or not np.isfinite(told).any() or np.nanmax(told) > MOST_STEPS:
        return row
    began = time.process_time()
    steps = round(LONGER * np.nanmax(told)) + 50
    first = int(foretold.memorized) if np.isfinite(foretold.memorized) else 0
    at = np.unique(np.r_[np.arange(0, first, 20), np.linspace(first, steps, 1000).round().astype(int)])
    kept = {}

    def keep(record):
        if record.step == first:
            kept["before"] = record.theta[0].clone()

    run = training.train(model, task, steps, record_at=at, callback=keep, **settings(case)).isel(run=0)
    kept["after"] = torch.from_numpy(run.theta_end.values)
    loss = losses.loss(case["loss"])
    zero = float(loss.value(torch.zeros_like(task.Y_test), task.Y_test)) / loss.count(task.Y_test)
    row |= {"steps": steps, "end": float(run.test_loss[-1]) / zero, "norm2": float(run.norm2[-1])}
    row["step"] = float(records.generalization(run, "loss"))
    row["memorized"] = float(records.memorization(run, "loss"))
    if task.classification:
        row["accuracy"] = float(run.test_accuracy[-1])
        row["accuracy_step"] = float(records.generalization(run, "accuracy"))
    grid = np.linspace(first, steps, GRID)
    row["curve"] = np.array([grid * case["lr"] * case["w"], np.interp(grid, run.step, run.test_loss) / zero])
    if case["family"] != "completion":
        for when, theta in kept.items():
            found = representation(next(iter(model.matrices(theta).values())))
            row |= {f"{name}_{when}": value for name, value in found.items()}
    row["seconds"] = time.process_time() - began
    return row


def representation(E: Tensor) -> dict[str, float]:
    """Fourier measures of embeddings ``E`` (p, width), frequencies weighted by their power.

    ``orthogonality`` |cos(Re F_k, Im F_k)| and ``balance`` (shorter ÷ longer of both): 0 and 1 for a circle; ``frequencies``: how many carry
    the power, 1/Σ share²; ``separation``: similarity of Re and Im within a frequency ÷ across.
    """
    F, share = fourier.features(E), fourier.power(E)
    ratio = fourier.balance(F)
    within, across = fourier.within_and_across(fourier.similarity(F))
    return {
        "orthogonality": float((share * fourier.orthogonality(F).abs()).sum()),
        "balance": float((share * torch.minimum(ratio, 1 / ratio)).sum()),
        "frequencies": float(1 / share.square().sum()),
        "separation": float(within / across),
    }


def main(what: str, listed: list[dict] | None = None, paths: dict | None = None) -> None:
    """Make one of the files, or what is left of it: ``what`` is "predict", "train" or "after"."""
    if listed is None:
        listed = asked_after() if what == "after" else cases()
    chain.main(what, listed, paths or PATHS, afterwards if what == "after" else predicted, trained)


def stored() -> tuple[xr.Dataset, xr.Dataset]:
    """The predictions and the trainings that the package holds."""
    return records.load(PATHS["predict"]), records.load(PATHS["train"])


def stored_after() -> pd.DataFrame:
    """One row a case of :func:`asked_after`: the case, and what :func:`afterwards` found."""
    found = records.load(PATHS["after"])
    return pd.DataFrame({name: found[name].values for name in (*found.coords, *found.data_vars)})


def scores(told: xr.Dataset, ran: xr.Dataset) -> pd.DataFrame:
    """One row a run: its case, ``lam``, predicted and measured steps, errors (predicted ÷ measured − 1), ``groks``, ``failed``,
    ``failed_init``, ``held_out`` (samples).

    ``failed``: trained, and only one of run and prediction (from memorization, or from the initial weights) generalizes. ``chained``: the training names this very prediction.
    """
    runs = pd.DataFrame({name: told[name].values for name in told.coords})
    runs["held_out"] = [len(setting(case)[1].X_test) for case in runs.to_dict("records")]
    for name in (
        "step",
        "step_init",
        "memorized",
        "sharp",
        "sharp_init",
        "warned",
        "warned_init",
        "flow_steps",
    ):
        runs[f"told_{name}"] = told[name].values
    for name in told.data_vars:
        if name.startswith("isolated") or name == "joint":
            runs[name] = told[name].values
    for name in ran.data_vars:
        if ran[name].ndim == 1:
            runs[name] = ran[name].values
    runs["trained"] = runs.steps > 0
    runs["groks"] = runs.step >= records.GROKS * runs.memorized
    runs["error"], runs["error_init"] = (
        runs[name] / runs.step - 1 for name in ("told_step", "told_step_init")
    )
    for told_by in ("", "_init"):
        runs[f"failed{told_by}"] = runs.trained & (runs.step.isna() != runs[f"told_step{told_by}"].isna())
    runs["chained"] = [chain.fingerprint(told.isel(run=i)) == ran.tests.values[i] for i in range(len(runs))]
    return runs
