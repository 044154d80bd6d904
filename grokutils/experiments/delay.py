"""The predictions of chapter 13 and the training runs that test them, each made once and kept with the package.

``python -m grokutils.experiments delay predict`` writes the predictions; ``delay train`` reads them and writes the trainings.
Predictions see a run up to memorization only. Both files say when each run's row was made: that is the order. Either
command goes on where it was interrupted, and ``train`` trains whatever is predicted.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import os
import platform
import subprocess
import time
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr
from scipy.integrate import RK23

from .. import _progress, delay, flow, isolated, losses, records, tasks, training
from ..errors import NoMultipliersError, StoppedError
from ..linearization import linearize
from ..models import two_layer

DATA = Path(str(files("grokutils") / "data"))
PATHS = {"predict": DATA / "delay_predictions.nc", "train": DATA / "delay_trainings.nc"}
TAU_END = 10.0
GRID = 60  # points of each stored curve
DEGREE = {"relu": 2, "quadratic": 3}  # of homogeneity
BASE = {
    "p": 11,
    "width": 96,
    "fraction": 0.8,
    "activation": "gelu",
    "scale": 1.0,
    "lr": 2.0,
    "w": 1e-4,
    "seed": 0,
}
PLAIN = {"momentum": 0.0, "batch": 0, "optimizer": "gd"}


def cases() -> list[dict]:
    """Every run. lr·w covers two decades; λ = n·p·w/2 from about 0.006 to 0.6."""
    pace = [(1.0, 2e-5), (2.0, 1e-4), (2.0, 5e-4), (3.0, 2e-3 / 3)]
    quadratic = {"activation": "quadratic", "fraction": 0.85}
    relu = {"activation": "relu", "fraction": 0.9, "width": 64}
    both, product = ({}, quadratic), itertools.product
    kinked = [{"seed": s, "lr": 2.0, "w": w, **relu} for s, w in product(range(5), (1e-4, 3e-4))]
    kinked += [{"lr": 1.0, "w": 2e-5, **relu}]
    kinked += [{"seed": s, "lr": 2.0, "w": 1e-4, **relu, "width": 128} for s in (0, 1, 2)]
    listed = [{"seed": s, "lr": lr, "w": w, **more} for s, (lr, w), more in product((0, 1, 2), pace, both)]
    larger = (
        {"fraction": 0.9, "width": 128},
        {"activation": "quadratic", "p": 13, "fraction": 0.7},
    )
    listed += [
        {"seed": s, "lr": lr, "w": w, **more} for s, (lr, w), more in product((2, 3), pace[1:], larger)
    ]
    scaled = product((0.5, 2.0), (1e-4, 5e-4), both)
    listed += [{"seed": 4, "scale": scale, "w": w, "lr": 1.0, **more} for scale, w, more in scaled]
    listed += [
        {"lr": lr, "w": 2e-4} for lr in (0.5, 1.0, 4.0)
    ]  # the same λ and start at other learning rates
    listed += [{"seed": s, "p": 13, "lr": 2.0, "w": 2e-4} for s in (0, 1)]
    listed += [{"lr": 1.0, "w": 2e-3, **more} for more in both]
    small = {"p": 7, "width": 48, "lr": 1.0, "w": 1e-3}
    listed += [
        {**small, "activation": a, "seed": s} for a, s in product(("gelu", "quadratic", "relu"), (0, 1))
    ]
    for seed, activation in product((5, 6, 7), ("gelu", "quadratic")):
        one = {"seed": seed, "activation": activation, "fraction": 0.85, "w": 2e-4}
        listed += [{**one, "lr": 0.2, "momentum": 0.9}, {**one, "lr": 1.0, "batch": 28}]
        listed += [{**one, "lr": 1e-3, "w": 0.05, "optimizer": "adamw"}]
    mixed = np.random.default_rng(0).permutation(len(listed))  # so that every part is a mixture
    listed = [listed[i] for i in mixed]
    study = {"p": 37, "width": 512, "fraction": 0.7, "lr": 12.0}  # the study's size
    study["activation"] = "quadratic"
    large = [{**study, "seed": s, "w": w} for s, w in ((0, 1e-5), (1, 1e-5), (0, 4e-6))]
    large += [{**study, "p": 23, "w": 2e-5, "lr": 8.0}]
    steeper = {"activation": "relu", "p": 13, "fraction": 0.85, "w": 2e-4, "lr": 2.0}
    large += [{**steeper, "seed": s} for s in (0, 1, 2)]  # ReLU where the loss falls through
    listed = [*listed, *kinked, *large]
    return [{**BASE, **PLAIN, **case} for case in listed]


def setting(case: dict):
    network = two_layer(case["p"], case["width"], case["p"], case["activation"])
    return network, tasks.modular(case["p"], train_fraction=case["fraction"], seed=case["seed"])


def options(case: dict) -> dict:
    return {
        "seed": case["seed"],
        "init_scale": case["scale"],
        "momentum": case["momentum"],
        "optimizer": case["optimizer"],
        "batch_size": case["batch"] or None,
    }


def predicted(case: dict) -> dict:
    """One prediction, and what the other laws need, from the run up to memorization."""
    network, task = setting(case)
    pace = case["lr"] * case["w"] / (1 - case["momentum"])
    begun = time.process_time()
    names = "step error tau tau_34 tau_limit tau_eq20 kappa V warned sharp_start sharp seconds flow_seconds flow_steps"
    row = {
        "curve": np.full((2, GRID), np.nan),
        "memorized": -1,
        **dict.fromkeys(names.split(), np.nan),
    }
    if case["optimizer"] == "gd" and not case["batch"]:
        kept = {
            "seed": case["seed"],
            "init_scale": case["scale"],
            "momentum": case["momentum"],
        }
        made = delay.predict_delay(
            network, task, lr=case["lr"], weight_decay=case["w"], tau_end=TAU_END, **kept
        )
        step, theta, path = made.start, made.theta, made.flow
        row |= {"error": made.error, "warned": float(bool(made.warnings))}
        row |= {"sharp_start": made.sharpness[0], "sharp": made.sharpness[1]}
        if path is None:
            return row
    else:  # λ means nothing to AdamW: the limit
        found = delay.memorize(network, task, lr=case["lr"], weight_decay=case["w"], **options(case))
        if found is None:
            return row
        step, theta = found
        lam = 0.0 if case["optimizer"] == "adamw" else losses.lam("squared_error", task.Y_train, case["w"])
        path = flow.follow(network, theta, task, lam=lam, tau_end=TAU_END, until=0.49)
        path = path.assign_coords(tau=path.tau + pace * step)
    begin, tolerance = pace * step, 1e-4 if network.activation.smooth else 1e-3
    row |= {
        "tau": delay.crossing(path, task),
        "tau_34": delay.crossing(path, task, 0.75),
        "memorized": step,
    }
    row |= {"step": row["tau"] / pace, "V": float(theta @ theta)}
    grid = np.linspace(begin, float(path.tau[-1]), GRID)
    relative = path.test_loss / float(task.Y_test.square().mean())
    row["curve"] = np.array([grid, np.interp(grid, path.tau, relative)])
    if case["optimizer"] == "gd" and not case["batch"] and not case["momentum"]:
        alone = time.process_time()
        try:
            limit = flow.follow(
                network, theta, task, lam=0, tau_end=TAU_END - begin, tolerance=tolerance, until=0.49
            )
        except StoppedError as stopped:  # K is near singular in the limit
            limit = stopped.records
        row["flow_seconds"] = time.process_time() - alone
        row["flow_steps"] = limit.sizes["step"]
        row["tau_limit"] = begin + delay.crossing(limit, task)
        row["tau_eq20"] = begin + isolated_time(network, theta, task)
        if case["activation"] in DEGREE:
            lin = linearize(network, theta, task.X_train)
            F = lin.outputs  # Jθ = LF
            with contextlib.suppress(NoMultipliersError):  # near singular
                mu = lin.solve(F, 1.0, 0.0)
                held = DEGREE[case["activation"]] ** 2 * float((F * mu).sum())
                row["kappa"] = held / row["V"]  # the share of V that is not tangent
    row["seconds"] = time.process_time() - begun
    return row


def isolated_time(network, theta, task) -> float:
    """Slow time of eq. 20 from the embeddings of θ to the same threshold."""
    E, level = network.matrices(theta)["E"], 0.5 * float(task.Y_test.square().mean())

    def slope(_, flat):
        at = torch.from_numpy(flat).view_as(E)
        return isolated.velocity(at, task.X_train, task.Y_train, network.activation).numpy().ravel()

    solver, last = (
        RK23(slope, 0.0, E.numpy().ravel(), TAU_END, rtol=1e-3, atol=1e-4),
        None,
    )
    for _ in range(4000):
        at = torch.from_numpy(solver.y).view_as(E)
        W = isolated.readout(at, task.X_train, task.Y_train, network.activation)
        loss = float((network.activation.value(task.X_test @ at) @ W - task.Y_test).square().mean())
        if loss <= level:
            return (
                solver.t
                if last is None
                else last[0] + (solver.t - last[0]) * (last[1] - level) / (last[1] - loss)
            )
        last = solver.t, loss
        if solver.status != "running" or solver.step():
            break
    return np.nan


def trained(case: dict, foretold: xr.Dataset) -> dict:
    """One real run, half as long again as the prediction."""
    network, task = setting(case)
    pace = case["lr"] * case["w"] / (1 - case["momentum"])
    expected = float(foretold.tau)
    steps = round((1.5 * expected if np.isfinite(expected) else TAU_END) / pace)
    first = max(int(foretold.memorized), 0)
    begun = time.process_time()
    at = np.unique(np.linspace(first, steps, 1500).round().astype(int))
    runs = training.train(
        network,
        task,
        steps,
        lr=case["lr"],
        weight_decay=case["w"],
        record_at=at,
        **options(case),
    )
    run = runs.isel(run=0)
    run = run.isel(step=run.step.values >= first)
    run = run.assign_coords(tau=("step", run.step.values * pace))
    zero, zero_train = (float(Y.square().mean()) for Y in (task.Y_test, task.Y_train))
    tau = delay.crossing(run, task)
    row = {
        "tau": tau,
        "step": tau / pace,
        "tau_34": delay.crossing(run, task, 0.75),
        "steps": steps,
    }
    row["V_grok"] = float(np.interp(tau, run.tau, run.norm2)) if np.isfinite(tau) else np.nan
    row["plateau"] = float(np.median(run.train_loss)) / zero_train
    row["end"], row["accuracy"] = (
        float(run.test_loss[-1]) / zero,
        float(run.test_accuracy[-1]),
    )
    grid = np.linspace(float(run.tau[0]), float(run.tau[-1]), GRID)
    row["curve"] = np.array([grid, np.interp(grid, run.tau, run.test_loss) / zero])
    row["seconds"] = time.process_time() - begun
    return row


def table(rows: list[dict], listed: list[dict]) -> xr.Dataset:
    columns = {}
    for name in rows[0]:
        values = np.array([row.get(name, np.nan) for row in rows])
        columns[name] = (("run", "axis", "point")[: values.ndim], values)
    coordinates = {name: ("run", np.array([case[name] for case in listed])) for name in listed[0]}
    git = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=DATA
    ).stdout.strip()
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    facts = {
        "made": now,
        "code": git,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread used",
    }
    return xr.Dataset(columns, coords=coordinates, attrs={**records.provenance(), **facts})


def done(path: Path) -> list[dict]:
    """Rows that a run of this script which was interrupted has left."""
    if not path.exists():
        return []
    left = records.load(path)
    return [{name: left[name].values[i] for name in left.data_vars} for i in range(left.sizes["run"])]


def main(what: str, listed: list[dict] | None = None, paths: dict | None = None) -> None:
    """Make one of the two files, or what is left of it: ``what`` is "predict" or "train", ``paths`` name both files."""
    listed, paths = cases() if listed is None else listed, paths or PATHS
    path, foretold = records.writable(paths[what]), None
    if what == "train":
        foretold = records.load(paths["predict"])
        listed = listed[: foretold.sizes["run"]]
    rows = done(path)
    with _progress.bar(len(listed), "runs") as bar:
        bar.update(len(rows))
        for i, case in list(enumerate(listed))[len(rows) :]:
            rows.append(predicted(case) if foretold is None else trained(case, foretold.isel(run=i)))
            rows[-1]["when"] = time.time()
            records.save(table(rows, listed[: len(rows)]), path)  # what is done stays
            bar.update()


# What the rules compare --------------------------------------------------------------------------------------------

# ReLU runs (seed, lr, w; p = 11, width 64) that had been trained before the present flow predicted them
KNOWN = ((0, 2.0, 1e-4), (1, 2.0, 1e-4), (0, 1.0, 2e-5))
FEW = 3  # runs of a cell, below which no law is fitted to it


def scores(told: xr.Dataset, ran: xr.Dataset) -> pd.DataFrame:
    """The stored predictions beside their runs, one row a run, with relative errors (predicted ÷ measured − 1).

    Columns: the case; ``lam`` and ``pace`` = lr·w/(1 − β); ``plain`` (gradient descent, no momentum, all samples), ``waits``
    (memorizes, and is not predicted to generalize before), ``scored`` (waits, predicted and measured), ``failed`` (waits, only
    one of both); ``predicted`` and ``measured`` steps; ``later`` (step of generalization ÷ of memorization) and ``groks``;
    errors ``of_step``, ``of_delay`` of the flow at the run's λ and ``limit_tau``, ``limit_delay`` of the limit flow; ``known``
    (outcome known before the prediction), ``plateau`` and ``end`` (training and last held-out loss, relative to the output 0),
    ``flow_seconds``, ``seconds`` (of the run).
    """
    columns = {name: told[name].values for name in told.coords}
    pace = (told.lr * told.w / (1 - told.momentum)).values
    pairs = np.round(told.fraction * told.p * (told.p + 1) / 2)
    memorized, predicted_step, measured = told.memorized.values, told.step.values, ran.step.values
    plain = ((told.optimizer == "gd") & (told.batch == 0) & (told.momentum == 0)).values
    waits = (memorized > 0) & ~(predicted_step <= memorized)
    exist = np.isfinite(predicted_step), np.isfinite(measured)
    scored = waits & exist[0] & exist[1]
    waited = np.where(scored, ran.tau.values - pace * memorized, np.nan)
    later = np.where(scored, measured / np.maximum(memorized, 1), np.nan)
    cases_of = zip(told.seed.values, told.lr.values, told.w.values, strict=True)
    known = np.array([case in KNOWN for case in cases_of]) & (told.activation == "relu").values
    return pd.DataFrame(
        {
            **columns,
            "lam": (pairs * told.p * told.w / 2).values,
            "pace": pace,
            "plain": plain,
            "memorizes": memorized > 0,
            "waits": waits,
            "scored": scored,
            "failed": waits & (exist[0] ^ exist[1]),
            "predicted": predicted_step,
            "measured": measured,
            "later": later,
            "groks": later >= records.GROKS,
            "of_step": predicted_step / measured - 1,
            "of_delay": (told.tau.values - pace * memorized) / waited - 1,
            "limit_tau": told.tau_limit.values / ran.tau.values - 1,
            "limit_delay": (told.tau_limit.values - pace * memorized) / waited - 1,
            "known": known & (told.width == 64).values & (told.p == 11).values,
            "covered": abs(predicted_step - measured) <= told.error.values,
            "plateau": ran.plateau.values,
            "end": ran.end.values,
            "flow_seconds": told.flow_seconds.values,
            "seconds": ran.seconds.values,
            "steps": ran.steps.values,
        }
    )


def rivals(told: xr.Dataset, ran: xr.Dataset) -> pd.DataFrame:
    """Relative errors of the delay in slow time by other laws, one row a run, NaN where a law names none.

    ``constant`` and ``calibrated``, (log V_mem − log V*)/2c, are fitted in each cell (activation, p, width, fraction, scale) by least
    squares of the relative error, where it has :data:`FEW` scored runs; ``equation 20``; ``norm``, from the measured norm at
    the end; ``frozen`` direction, where κ < 1/2.
    """
    runs = scores(told, ran)
    chosen = (runs.scored & runs.plain).to_numpy()
    begin = (runs.pace * told.memorized.values).to_numpy()
    waited = np.where(chosen, ran.tau.values - begin, np.nan)
    log_V, ones = np.log(np.where(chosen, told.V.values, 1.0)), np.ones(len(runs))
    cells = runs[chosen].groupby(["activation", "p", "width", "fraction", "scale"]).groups.values()

    def fitted(*parts) -> np.ndarray:
        found = np.full(len(runs), np.nan)
        for cell in (np.asarray(rows) for rows in cells if len(rows) >= FEW):
            A = np.stack([part[cell] for part in parts], 1)
            found[cell] = A @ np.linalg.lstsq(A / waited[cell, None], np.ones(len(cell)), rcond=None)[0]
        return found

    degree = runs.activation.map(DEGREE).to_numpy(float)
    kappa = np.where(told.kappa.values < 0.5, told.kappa.values, np.nan)
    delays = {
        "constant": fitted(ones),
        "calibrated": fitted(log_V, ones),
        "equation 20": told.tau_eq20.values - begin,
        "norm": 0.5 * (log_V - np.log(ran.V_grok.values)),
        "frozen": np.log((1 - kappa) / kappa) / (2 * degree),
    }
    return pd.DataFrame({name: law / waited - 1 for name, law in delays.items()})
