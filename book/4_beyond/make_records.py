"""The predictions of chapter 11 and the training runs that test them, each made once and kept with the package.

    python book/4_beyond/make_records.py predict    writes grokutils/data/delay_predictions.nc
    python book/4_beyond/make_records.py train      reads that file and writes grokutils/data/delay_trainings.nc

Predictions see a run up to memorization only. The second file names the first one's hash and date: that is the order.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import itertools
import os
import platform
import subprocess
import time
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from scipy.integrate import RK23

from grokutils import delay, isolated, networks, records, slow_flow, tasks, training
from grokutils.slow_flow.two_layer import Point

DATA = Path(delay.__file__).parent / "data"
PREDICTIONS, TRAININGS = DATA / "delay_predictions.nc", DATA / "delay_trainings.nc"
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
    listed = []
    for seed, (lr, w) in itertools.product((0, 1), pace):
        listed += [{"seed": seed, "lr": lr, "w": w}]
        listed += [
            {
                "seed": seed,
                "lr": lr,
                "w": w,
                "activation": "quadratic",
                "fraction": 0.85,
            }
        ]
        listed += [
            {
                "seed": seed,
                "lr": lr,
                "w": w,
                "activation": "relu",
                "fraction": 0.9,
                "width": 64,
            }
        ]
    for seed, (lr, w) in itertools.product((2, 3), pace[1:]):
        listed += [{"seed": seed, "lr": lr, "w": w, "fraction": 0.9, "width": 128}]
        listed += [
            {
                "seed": seed,
                "lr": 2.0,
                "w": w,
                "activation": "relu",
                "fraction": 0.9,
                "width": 128,
            }
        ]
        listed += [
            {
                "seed": seed,
                "lr": lr,
                "w": w,
                "activation": "quadratic",
                "p": 13,
                "fraction": 0.7,
            }
        ]
    for scale, w in itertools.product((0.5, 2.0), (1e-4, 5e-4)):
        listed += [{"seed": 4, "scale": scale, "w": w, "lr": 1.0}]
        listed += [
            {
                "seed": 4,
                "scale": scale,
                "w": w,
                "lr": 1.0,
                "activation": "quadratic",
                "fraction": 0.85,
            }
        ]
        listed += [
            {
                "seed": 4,
                "scale": scale,
                "w": w,
                "lr": 1.0,
                "activation": "relu",
                "fraction": 0.9,
                "width": 64,
            }
        ]
    for lr in (0.5, 1.0, 4.0):  # the same λ and start at other learning rates
        listed += [{"seed": 0, "lr": lr, "w": 5e-4}]
    listed += [{"seed": seed, "p": 13, "lr": 2.0, "w": 2e-4} for seed in (0, 1, 2)]
    for activation in (
        "gelu",
        "quadratic",
        "relu",
    ):  # small tables, predicted not to generalize
        listed += [
            {
                "p": 7,
                "width": 48,
                "activation": activation,
                "lr": 1.0,
                "w": 1e-3,
                "seed": s,
            }
            for s in (0, 1)
        ]
    for seed, activation in itertools.product((5, 6, 7), ("gelu", "quadratic")):
        one = {"seed": seed, "activation": activation, "fraction": 0.85, "w": 2e-4}
        listed += [{**one, "lr": 0.2, "momentum": 0.9}, {**one, "lr": 1.0, "batch": 28}]
        listed += [{**one, "lr": 1e-3, "w": 0.05, "optimizer": "adamw"}]
    return [{**BASE, **PLAIN, **case} for case in listed]


def setting(case: dict):
    network = networks.two_layer(
        case["p"], case["width"], case["p"], case["activation"]
    )
    return network, tasks.modular(
        case["p"], train_fraction=case["fraction"], seed=case["seed"]
    )


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
    found = delay.memorize(network, task, case["lr"], case["w"], **options(case))
    row = dict.fromkeys(
        ("step", "error", "tau", "tau_limit", "tau_eq20", "kappa", "V", "warned"),
        np.nan,
    )
    row |= {
        "curve": np.full((2, GRID), np.nan),
        "sharp_start": np.nan,
        "sharp": np.nan,
        "memorized": -1,
        "tau_34": np.nan,
    }
    if found is None:
        return row
    step, theta = found
    begin = pace * step
    smooth = network.activation.smooth
    if case["optimizer"] == "gd" and not case["batch"]:
        kept = {
            "seed": case["seed"],
            "init_scale": case["scale"],
            "momentum": case["momentum"],
            "tau_end": TAU_END,
        }
        made = delay.predict_delay(network, task, case["lr"], case["w"], **kept)
        flow = made.flow
        row |= {"error": made.error, "warned": float(bool(made.warnings))}
        row |= {"sharp_start": made.sharpness[0], "sharp": made.sharpness[1]}
    else:  # λ means nothing to AdamW: the limit
        lam = (
            0.0
            if case["optimizer"] == "adamw"
            else task.Y_train.numel() * case["w"] / 2
        )
        flow = slow_flow.follow(network, theta, task, TAU_END, lam, until=0.49)
        flow = flow.assign_coords(tau=flow.tau + begin)
    row |= {
        "tau": delay.crossing(flow, task),
        "tau_34": delay.crossing(flow, task, 0.75),
        "memorized": step,
    }
    row |= {"step": row["tau"] / pace, "V": float(theta @ theta)}
    grid = np.linspace(begin, float(flow.tau[-1]), GRID)
    relative = flow.test_loss / float(task.Y_test.square().mean())
    row["curve"] = np.array([grid, np.interp(grid, flow.tau, relative)])
    if case["optimizer"] == "gd" and not case["batch"] and not case["momentum"]:
        limit = slow_flow.follow(
            network,
            theta,
            task,
            TAU_END - begin,
            0.0,
            1e-4 if smooth else 3e-3,
            until=0.49,
        )
        row["tau_limit"] = begin + delay.crossing(limit, task)
        row["tau_eq20"] = begin + isolated_time(network, theta, task)
        if case["activation"] in DEGREE:
            point = Point(network, theta, task.X_train)
            F = point.outputs.reshape(-1)  # Jθ = LF
            held = DEGREE[case["activation"]] ** 2 * float(
                F @ torch.linalg.solve(point.gram(), F)
            )
            row["kappa"] = held / row["V"]  # the share of V that is not tangent
    row["seconds"] = time.process_time() - begun
    return row


def isolated_time(network, theta, task) -> float:
    """Slow time of eq. 20 from the embeddings of θ to the same threshold."""
    E, level = network.matrices(theta)["E"], 0.5 * float(task.Y_test.square().mean())

    def slope(_, flat):
        at = torch.from_numpy(flat).view_as(E)
        return (
            isolated.velocity(at, task.X_train, task.Y_train, network.activation)
            .numpy()
            .ravel()
        )

    solver, last = (
        RK23(slope, 0.0, E.numpy().ravel(), TAU_END, rtol=1e-3, atol=1e-4),
        None,
    )
    for _ in range(4000):
        at = torch.from_numpy(solver.y).view_as(E)
        W = isolated.readout(at, task.X_train, task.Y_train, network.activation)
        loss = float(
            (network.activation.value(task.X_test @ at) @ W - task.Y_test)
            .square()
            .mean()
        )
        if loss <= level:
            return (
                solver.t
                if last is None
                else last[0]
                + (solver.t - last[0]) * (last[1] - level) / (last[1] - loss)
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
    row["V_grok"] = (
        float(np.interp(tau, run.tau, run.norm**2)) if np.isfinite(tau) else np.nan
    )
    row["plateau"] = float(np.median(run.train_loss)) / zero_train
    row["end"], row["accuracy"] = (
        float(run.test_loss[-1]) / zero,
        float(run.test_accuracy[-1]),
    )
    grid = np.linspace(float(run.tau[0]), float(run.tau[-1]), GRID)
    row["curve"] = np.array([grid, np.interp(grid, run.tau, run.test_loss) / zero])
    row["seconds"] = time.process_time() - begun
    return row


def table(rows: list[dict], listed: list[dict], **attrs) -> xr.Dataset:
    columns = {}
    for name in rows[0]:
        values = np.array([row.get(name, np.nan) for row in rows])
        columns[name] = (("run", "axis", "point")[: values.ndim], values)
    coordinates = {
        name: ("run", np.array([case[name] for case in listed])) for name in listed[0]
    }
    git = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=DATA
    ).stdout.strip()
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    facts = {
        "made": now,
        "code": git,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread used",
    }
    return xr.Dataset(
        columns, coords=coordinates, attrs={**records.provenance(), **facts, **attrs}
    )


def digest() -> str:
    return hashlib.sha256(PREDICTIONS.read_bytes()).hexdigest()[:16]


def main() -> None:
    """Make one of the two files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["predict", "train"])
    what = parser.parse_args().what
    torch.set_num_threads(1)
    listed = cases()
    if what == "predict" and TRAININGS.exists():
        raise SystemExit(
            f"{TRAININGS.name} exists: new predictions would come after the runs that test them"
        )
    foretold = records.load(PREDICTIONS) if what == "train" else None
    rows = []
    for i, case in enumerate(listed):
        rows.append(
            predicted(case) if foretold is None else trained(case, foretold.isel(run=i))
        )
        shown = {
            k: case[k] for k in ("p", "activation", "w", "lr", "seed", "optimizer")
        }
        print(
            i,
            len(listed),
            shown,
            {k: np.round(v, 4) for k, v in rows[-1].items() if k != "curve"},
            flush=True,
        )
    made = table(
        rows,
        listed,
        **(
            {"predictions": digest(), "predicted": foretold.attrs["made"]}
            if foretold
            else {}
        ),
    )
    records.save(made, PREDICTIONS if foretold is None else TRAININGS)


if __name__ == "__main__":
    main()
