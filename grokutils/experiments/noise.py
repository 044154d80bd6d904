"""Chapter 15: minibatches, label noise and AdamW. Predictions first, then the runs that test them.

``python -m grokutils.experiments noise predict`` and ``… noise train``; either is saved after every case and goes on where it stopped.
A prediction sees a run up to memorization. Each training carries the hash of the prediction that it tests. ``… noise after`` is what
was asked when all runs had been seen: it tests nothing, and decides nothing.
"""

from __future__ import annotations

import time
from collections import deque
from functools import lru_cache, partial
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from .. import delay, flow, losses, records, tasks, training
from ..errors import StoppedError
from ..losses import Loss
from ..models import TwoLayer, two_layer
from ..tasks import Task
from . import chain

DATA = Path(str(files("grokutils") / "data"))
PATHS = {
    "predict": DATA / "noise_predictions.nc",
    "train": DATA / "noise_trainings.nc",
    "after": DATA / "noise_afterwards.nc",
}

# Written before the first prediction, for seeds that nothing had used.
RULES = {
    "batches": "Minibatches switched on after memorization (w = 2e-5): the plain flow from there errs by at most 1 % (mean absolute error of the "
    "step, at least 3 seeds).",
    "batch-shift": "Minibatches from the start make generalization earlier in slow time than in the full-batch run of the same seed, by 0.6 lr "
    "(1/b − 1/n) within a factor of two, on average over at least 3 seeds.",
    "label-noise": "Label noise switched on after memorization, with decay: the flow with the force of the noise errs by at most 5 % (mean absolute "
    "error of the delay) at each level of noise, and by less than the flow without it; at least 5 noise seeds a level.",
    "label-noise-alone": "Label noise without decay: whether the run generalizes within the predicted span is what the flow of the noise alone says "
    "(every run, at least 3 seeds).",
    "label-noise-prevents": "Label noise with decay on quadratic networks: whether the run generalizes is what the flow with the force of the "
    "noise says (every run, at least 3 seeds, levels of noise on both sides of the crossover that the flow names).",
    "adamw": "AdamW with label noise, at least 12 runs (d, lr, w, β₂ varied): the flow in the metric √v that follows θ, with the noise's force and "
    "v's memory, errs by at most 5 % (mean absolute error of the delay). The Euclidean flow (the mean of √v for every weight), √v frozen, "
    "√v(θ), and √v(θ) with the force are scored beside it.",
    "adam-l2": "Adam with the ℓ2 penalty in the gradient, same metric and force, other decay: at most 5 % (at least 3 runs).",
}

BASE = {
    "kind": "adamw", "p": 11, "width": 48, "activation": "gelu", "fraction": 0.85, "seed": 0, "noise_seed": 0, "lr": 1e-3, "w": 0.2,
    "noise": 0.0, "batch": 0, "beta2": 0.999, "perturbed": 0.0,
}  # fmt: skip
TAU_END = {"gd": 6.0, "label": 3.0, "alone": 3.0, "batch": 6.0, "after": 6.0, "adamw": 8.0, "l2": 0.1}
LATE = ("gd", "label", "alone", "after")  # kinds of runs without noise up to memorization
SAME = {"label": "gd", "after": "gd", "batch": "gd"}  # kinds that are trained side by side
LONGER = 1.4
LONGEST = 600.0  # seconds after which the flow of one law is given up
ENOUGH = 0.4  # of the output 0's held-out loss: a run that is below has generalized and ends
RECORDS = 1200
WINDOW = 25  # records over which weights are averaged before a noisy run's clock is read
LAWS = ("plain", "frozen", "moving", "forced", "whole")
AFTER_LAWS = ("pushed", "frozen_pushed")  # Euclid's metric, or √v frozen, each with the noise's force in it


def cases() -> list[dict]:
    """Every run, in the order in which rules need them."""
    adam = {"kind": "adamw"}
    mixed = [
        {"noise": d, "lr": lr, "w": w, "beta2": b}
        for d, lr, w, b in (
            (0.2, 1e-3, 0.05, 0.999), (0.2, 1e-3, 0.05, 0.99), (0.4, 1e-3, 0.05, 0.999), (0.2, 1e-3, 0.1, 0.999),
            (0.2, 5e-4, 0.1, 0.999), (0.4, 1e-3, 0.1, 0.99), (0.2, 2e-3, 0.025, 0.999), (0.4, 5e-4, 0.1, 0.99),
            (0.1, 1e-3, 0.05, 0.999), (0.1, 1e-3, 0.1, 0.99), (0.4, 2e-3, 0.025, 0.99), (0.1, 5e-4, 0.1, 0.999),
        )
    ]  # fmt: skip
    listed = [{**adam, **each, "seed": 1510 + at} for at, each in enumerate(mixed)]
    listed += [{**adam, **mixed[0], "seed": 1510, "perturbed": 1e-6}]
    listed += [{"kind": "l2", "noise": 0.2, "lr": 1e-3, "w": 2e-5, "seed": 1530 + k} for k in range(3)]
    gd = {"lr": 1.0, "w": 2e-5}
    listed += [
        {**gd, "kind": "label", "noise": d, "seed": 1540, "noise_seed": k}
        for d in (0.22, 0.44)
        for k in range(5)
    ]
    for k in range(3):
        listed += [{**gd, "kind": "gd", "seed": 1550 + k}]
        listed += [{**gd, "kind": "batch", "batch": 8, "seed": 1550 + k}]
        listed += [{**gd, "kind": "after", "batch": 8, "seed": 1550 + k}]
    alone = {"kind": "alone", "w": 2e-4, "noise": 1.4}  # w is a unit of time here, nothing decays
    listed += [
        {**alone, "activation": a, "lr": lr, "seed": 1560 + k}
        for a, lr in (("gelu", 1.0), ("quadratic", 0.5))
        for k in range(3)
    ]
    listed += [
        {"kind": "label", "activation": "quadratic", "lr": 0.5, "w": 4e-4, "noise": d, "seed": 1570 + k}
        for d in (1.0, 2.0)  # four levels at first; computing is short
        for k in range(3)
    ]
    return [{**BASE, **case} for case in listed]


def setting(case: dict) -> tuple[TwoLayer, Task]:
    """The network and the data of a case."""
    p = case["p"]
    return two_layer(p, case["width"], p, case["activation"]), tasks.modular(
        p, train_fraction=case["fraction"], seed=case["seed"]
    )


def options(case: dict) -> dict:
    """Of the run from memorization on, as :func:`training.train` takes them."""
    made = {"lr": case["lr"], "weight_decay": 0.0 if case["kind"] == "alone" else case["w"]}
    if case["noise"]:
        made["label_noise"] = case["noise"]
    if case["batch"]:
        made["batch_size"] = case["batch"]
    if case["kind"] in ("adamw", "l2"):
        kind = torch.optim.AdamW if case["kind"] == "adamw" else torch.optim.Adam
        made["optimizer"] = partial(kind, betas=(0.9, case["beta2"]))
    return made


def started(case: dict, network: TwoLayer) -> Tensor:
    """Initial weights (d,), perturbed where the case says so."""
    start, generator = network.init(case["seed"]), torch.Generator().manual_seed(7)
    return start * (1 + case["perturbed"] * torch.randn(len(start), generator=generator).double())


def begun(case: dict) -> tuple[int, Tensor, dict]:
    """The run up to memorization: its step, θ (d,) and, of Adam, its averages m and v (d,) there.

    Full batches without noise for what is switched on after memorization.
    """
    network, task = setting(case)
    made = options({**case, "noise": 0.0, "batch": 0, "kind": "gd"} if case["kind"] in LATE else case)
    memorized, found = flow.memorized(network, task), {}
    start = started(case, network)

    def keep(state, step) -> None:
        step()
        found["optimizer"] = state.optimizer

    hooks = [keep] if case["kind"] in ("adamw", "l2") else []
    run = training.train(
        network, task, 20_000, theta0=start, seed=case["seed"] + 1000 * case["noise_seed"], hooks=hooks,
        record_at=range(0, 20_000, delay.LOOK), until=lambda record: memorized.value(record.theta[0]) <= 0, **made,
    ).isel(run=0)  # fmt: skip
    if run.attrs["ended"] != "until":
        return -1, start, {}
    step, theta = int(run.step[-1]), torch.from_numpy(run.theta_end.values)
    averages = {}
    if found:
        parts = list(found["optimizer"].state.values())
        for name, key, beta in (("m", "exp_avg", 0.9), ("v", "exp_avg_sq", case["beta2"])):
            averages[name] = torch.cat([part[key].flatten() for part in parts]) / (1 - beta**step)
    return step, theta, averages


def predicted(case: dict) -> dict:
    """The row of :func:`told`; computed once for all noise seeds where noise begins after what a prediction sees."""
    return dict(
        _told(tuple({**case, "noise_seed": 0 if case["kind"] in LATE else case["noise_seed"]}.items()))
    )


@lru_cache
def _told(items: tuple) -> dict:
    """τ from the run's start at which each law has the held-out loss halved; NaN where a law says never, or is none of the case's."""
    began, case = time.process_time(), dict(items)
    network, task = setting(case)
    step, theta, averages = begun(case)
    pace = case["lr"] * case["w"]
    row = {"memorized": step, "pace": pace, "strength": np.nan, **dict.fromkeys(LAWS, np.nan)}
    if step >= 0:
        lam = losses.lam("squared_error", task.Y_train, case["w"])
        count = task.Y_train.numel()
        strength = case["lr"] * case["noise"] ** 2 / (case["w"] * count**2)
        row["strength"] = strength
        for name, extra in laws(case, network, task, theta, averages, strength).items():
            row[name] = pace * step + halving(case, network, task, theta, lam, extra)
    row["seconds"] = time.process_time() - began
    return row


def halving(case: dict, network, task: Task, theta: Tensor, lam: float, extra: dict) -> float:
    """τ from memorization at which one law has the held-out loss halved; NaN where it says never, or cannot be followed."""
    try:
        path = flow.follow(
            network, theta, task, lam=lam, tau_end=TAU_END[case["kind"]], seconds=LONGEST, tolerance=3e-4, until=0.5, **extra
        )  # fmt: skip
    except StoppedError:
        return np.nan
    return float(path.event_tau[0])


def laws(case: dict, network, task: Task, theta: Tensor, averages: dict, strength: float) -> dict[str, dict]:
    """What each law adds to the flow at the run's λ."""
    X, count = task.X_train, task.Y_train.numel()
    if case["kind"] in ("gd", "batch"):
        return {"plain": {}}
    if case["kind"] == "after":
        force = flow.Minibatches(network, X, case["p"], case["lr"], case["w"], case["batch"])
        return {"plain": {}, "forced": {"force": force}}
    if case["kind"] == "label":
        return {"plain": {}, "forced": {"penalty": flow.LabelNoise(network, X, strength)}}
    if case["kind"] == "alone":
        return {"forced": {"penalty": flow.LabelNoise(network, X, strength, decay=0.0)}}
    common = {"noise": case["noise"], "outputs": count, "decoupled": case["kind"] == "adamw"}
    memory = case["lr"] * case["w"] / (1 - case["beta2"])
    made: dict[str, dict] = {
        "frozen": {"frozen": theta},
        "moving": {},
        "forced": {"push": strength},
        "whole": {"push": strength, "memory": memory, "start": averages["v"]},
    }
    laws = {name: {"inertia": flow.Adam(network, X, **common, **extra)} for name, extra in made.items()}
    return {"plain": {"inertia": Even(laws["frozen"]["inertia"], theta)}} | laws


class Even:
    """Euclid's metric at Adam's scale: every weight has the mean of √v at memorization as its inertia. The noise pushes if it does in ``adam``.

    Without that scale the decay of AdamW, a thousand times gradient descent's, would take the flow to 0.
    """

    def __init__(self, adam: flow.Adam, theta: Tensor):
        self.adam, self.decoupled = adam, adam.decoupled
        self.held = adam.at(theta, 0.0).mean().expand(theta.shape)

    def at(self, theta: Tensor, tau: float) -> Tensor:
        """(d,), all entries equal."""
        return self.held

    def force(self, theta: Tensor, inertia: Tensor) -> Tensor:
        """Adam's at this inertia, (d,); 0 where ``adam`` has no push."""
        return self.adam.force(theta, inertia)

    def passed(self, theta: Tensor, tau: float) -> None:
        """Nothing is remembered."""


def asked_after() -> list[dict]:
    """Cases of :func:`afterwards`: those of Adam, and noise alone where its flow says never, whose runs ended at half of the flow's span."""
    return [
        case
        for case in cases()
        if (case["kind"] in ("adamw", "l2") and not case["perturbed"])
        or (case["kind"] == "alone" and case["activation"] == "quadratic")
    ]


def afterwards(case: dict) -> dict:
    """What was asked when all runs had been seen.

    For Adam, τ of :data:`AFTER_LAWS` from the run's start; for noise alone ``tau`` and ``end`` of the same run over the whole span of its flow.
    """
    began = time.process_time()
    row = dict.fromkeys((*AFTER_LAWS, "tau", "end"), np.nan)
    network, task = setting(case)
    step, theta, _ = begun(case)
    pace = case["lr"] * case["w"]
    if case["kind"] == "alone":
        foretold = xr.Dataset({"memorized": ("run", [step]), "pace": ("run", [pace])})
        span = round(step + TAU_END[case["kind"]] / pace)
        run = trained([case], foretold, [span])[0]
        row |= {name: run[name] for name in ("tau", "end")}
    else:
        count = task.Y_train.numel()
        lam = losses.lam("squared_error", task.Y_train, case["w"])
        common = {"noise": case["noise"], "outputs": count, "decoupled": case["kind"] == "adamw"}
        common["push"] = case["lr"] * case["noise"] ** 2 / (case["w"] * count**2)
        frozen = flow.Adam(network, task.X_train, frozen=theta, **common)
        for name, inertia in zip(AFTER_LAWS, (Even(frozen, theta), frozen), strict=True):
            row[name] = pace * step + halving(case, network, task, theta, lam, {"inertia": inertia})
    return {**row, "seconds": time.process_time() - began}


def trained(listed: list[dict], foretold: xr.Dataset, ends: list[int] | None = None) -> list[dict]:
    """Rows of runs of one kind, side by side, each somewhat longer than the last law says, or up to its step in ``ends``, or until it has generalized.

    ``tau``: when the averaged weights have the held-out loss halved, ``raw``: when the weights themselves have; ``end``: the averaged weights'
    last held-out loss, relative to the output 0's.
    """
    began = time.process_time()
    network, _ = setting(listed[0])
    own = [setting(case)[1] for case in listed]
    pace, first = foretold.pace.values, foretold.memorized.values
    if (first < 0).any():
        raise StoppedError(f"no memorization in {np.array(listed)[first < 0]}", foretold)
    late = np.array([case["kind"] in ("label", "alone", "after") for case in listed])
    offsets = np.where(late, first, 0)
    starts = [begun(case)[1] if late[i] else started(case, network) for i, case in enumerate(listed)]
    if ends is None:
        ends = [length(case, foretold.isel(run=i)) for i, case in enumerate(listed)]
    steps = np.array(ends)
    chosen = {
        name: [options(case).get(name, 0.0) for case in listed]
        for name in ("lr", "weight_decay", "label_noise")
    }
    shared = {name: value for name, value in options(listed[0]).items() if name not in chosen}
    begin, longest = int((first - offsets).min()), int((steps - offsets).max())
    at = np.unique(np.linspace(begin, longest, RECORDS).round().astype(int))
    recent: deque[Tensor] = deque(maxlen=WINDOW)
    over = steps <= 0

    def done(record) -> np.ndarray:
        recent.append(record.theta.clone())
        if len(recent) == WINDOW and record.step >= begin:
            means = torch.stack(list(recent)).mean(0)
            low = np.array(
                [held_out(network, task, theta) < ENOUGH for task, theta in zip(own, means, strict=True)]
            )
            over[:] |= low | (record.step + offsets >= steps)
        return over

    run = training.train(
        network, own, longest, theta0=torch.stack(starts), seed=[case["seed"] + 1000 * case["noise_seed"] for case in listed],
        record_at=at, keep_theta=True, until=done, **chosen, **shared,
    )  # fmt: skip
    rows = []
    for i, task in enumerate(own):
        mine = run.isel(run=i)
        step = mine.step.values + offsets[i]
        mine, tau = mine.isel(step=(step >= first[i]) & (step <= steps[i])), step * pace[i]
        tau = tau[(step >= first[i]) & (step <= steps[i])]
        averaged, middles = smooth(network, task, mine.theta.values, tau)
        raw = mine.test_loss.values / float(task.Y_test.square().mean())
        rows.append({
            "tau": halved(averaged, middles), "raw": halved(raw, tau), "end": averaged[-1], "steps": round(tau[-1] / pace[i]),
            "accuracy": float(mine.test_accuracy[-1]),
        })  # fmt: skip
    return [{**row, "seconds": (time.process_time() - began) / len(rows)} for row in rows]


def length(case: dict, foretold: xr.Dataset) -> int:
    """Steps from the run's start after which a run that has not generalized is left."""
    pace, first = float(foretold.pace), int(foretold.memorized)
    told = [float(foretold[name]) for name in ("moving", "forced", "whole")]
    told += [float(foretold.plain)] if case["kind"] not in ("adamw", "l2") else []
    end = np.nanmax(told) * LONGER if np.isfinite(told).any() else 0.0
    if not end:  # no law has it generalize
        end = pace * first + TAU_END[case["kind"]] / 2
    return round(end / pace) + 100


def held_out(network, task: Task, theta: Tensor, loss: Loss = losses.squared_error) -> float:
    """Held-out loss, relative to that of the output 0."""
    F, Y = network(theta, task.X_test), task.Y_test
    return float(loss.value(F, Y) / loss.value(torch.zeros_like(Y), Y))


def smooth(
    network, task: Task, thetas: np.ndarray, tau: np.ndarray, loss: Loss = losses.squared_error
) -> tuple[np.ndarray, np.ndarray]:
    """Held-out loss of weights (record, d) averaged over :data:`WINDOW` records, relative to the output 0's, and the middles' τ."""
    sums = np.cumsum(np.concatenate([np.zeros((1, thetas.shape[1])), thetas]), axis=0)
    means = torch.from_numpy((sums[WINDOW:] - sums[:-WINDOW]) / WINDOW)
    middles = np.convolve(tau, np.ones(WINDOW) / WINDOW, mode="valid")
    return np.array([held_out(network, task, theta, loss) for theta in means]), middles


def halved(relative: np.ndarray, tau: np.ndarray) -> float:
    """τ at which a relative loss first is one half; NaN if never."""
    below = np.flatnonzero(relative <= 0.5)
    if not below.size:
        return np.nan
    i = below[0]
    return float(tau[i] if i == 0 else np.interp(-0.5, -relative[i - 1 : i + 1], tau[i - 1 : i + 1]))


def main(what: str, listed: list[dict] | None = None, paths: dict | None = None) -> None:
    """Make one of the files, or what is left of it: ``what`` is "predict", "train" or "after"."""
    if listed is None:
        listed = asked_after() if what == "after" else cases()
    paths = paths or PATHS
    train = predicted
    if what == "train":
        foretold = records.load(paths["predict"])
        listed = listed[: foretold.sizes["run"]]
        kinds = [
            (SAME.get(case["kind"], case["kind"]), *(case[name] for name in ("activation", "beta2", "batch")))
            for case in listed
        ]
        train = chain.together(
            listed, kinds, lambda same: trained([listed[i] for i in same], foretold.isel(run=same))
        )
    chain.main(what, listed, paths, afterwards if what == "after" else predicted, train)


def stored() -> tuple[xr.Dataset, xr.Dataset]:
    """The predictions and the trainings that the package holds."""
    return records.load(PATHS["predict"]), records.load(PATHS["train"])


def stored_after() -> pd.DataFrame:
    """One row a case of :func:`asked_after`: the case, and what :func:`afterwards` found."""
    found = records.load(PATHS["after"])
    return pd.DataFrame({name: found[name].values for name in (*found.coords, *found.data_vars)})


def scores(told: xr.Dataset, ran: xr.Dataset) -> pd.DataFrame:
    """One row a run: its case, ``delay`` (measured, in slow time from memorization), each law's relative error of it.

    Errors are ``of_plain`` … ``of_whole``; ``groks``: the averaged weights generalize at ten times memorization or later; ``chained``: the
    training names this very prediction.
    """
    runs = pd.DataFrame({name: told[name].values for name in told.coords})
    for part in (told, ran):
        for name in part.data_vars:
            if name not in ("seconds", "when", "tests"):
                runs[name] = part[name].values
    begin = runs.memorized * runs.pace
    runs["delay"] = runs.tau - begin
    for law in LAWS:
        runs[f"of_{law}"] = (runs[law] - begin) / runs.delay - 1
    runs["groks"] = runs.tau >= records.GROKS * begin
    runs["chained"] = [chain.fingerprint(told.isel(run=i)) == ran.tests.values[i] for i in range(len(runs))]
    return runs
