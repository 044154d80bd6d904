"""Chapter 15: AdamW without noise, with squared error, at its edge of stability. Predictions first, then the runs that test them.

``python -m grokutils.experiments edge predict`` and ``… edge train``; either is saved after every case and goes on where it stopped.
A prediction sees a run up to memorization. Each training carries the hash of the prediction that it tests.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from .. import flow, records
from ..linearization import linearize
from ..models import TwoLayer
from ..tasks import Task
from . import adamw, chain

DATA = Path(str(files("grokutils") / "data"))
PATHS = {"predict": DATA / "edge_predictions.nc", "train": DATA / "edge_trainings.nc"}

# Written before the first prediction, after pilots with seeds 9101 to 9104 (gelu errs by .7 to 4.2 %; one quadratic network by 8 %, its
# held-out loss not halved in time).
RULES = {
    "edge": "AdamW, full batch, squared error, gelu, at least 12 runs whose held-out loss falls to half of the output 0's (lr, w, β₂ and p varied; seeds "
    "that nothing had used): the flow in which oscillations at the edge feed v̂ errs by at most 5 % (mean absolute error of the delay).",
    "edge-metric": "At the end of each of these runs that sits at its edge (lr·sharpness in Adam's metric at least .95 of the limit) the √v̂ that the concave problem "
    "names from the weights alone is the run's: correlation over the weights at least .95, and their sums within 10 %.",
    "edge-quadratic": "The same flow on quadratic networks (3 seeds): whether the held-out loss is halved by slow time 4 is told right, and where it is "
    "the delay within 5 %.",
}
CLOCKS = {"": 0.5, "_early": 0.75}


def fed(case: dict, network: TwoLayer, task: Task, step: int, v: Tensor) -> flow.Inertia:
    """The law in which the oscillations feed v̂."""
    return flow.EdgeAdam(
        network, task.X_train, v, step, outputs=task.Y_train.numel(),
        lr=case["lr"], weight_decay=case["w"], beta2=case["beta2"],
    )  # fmt: skip


LAWS = {"frozen": adamw.frozen, "moving": adamw.moving, "fed": fed}
BASE = {
    "p": 11, "width": 48, "fraction": 0.85, "activation": "gelu", "loss": "squared_error",
    "lr": 1e-3, "w": 0.2, "beta2": 0.99, "tau_end": 4.0, "seed": 0, "perturbed": 0.0,
}  # fmt: skip


def cases() -> list[dict]:
    """Five cells of three seeds, quadratic networks, and the first run of each cell again from a start that is perturbed: the floor."""
    cells: list[dict] = [
        {},
        {"lr": 5e-4},
        {"w": 0.1},
        {"lr": 5e-4, "beta2": 0.998},
        {"p": 13, "width": 64},
        {"activation": "quadratic"},
    ]
    listed = [
        {**BASE, **cell, "seed": 1600 + 3 * at + k, "perturbed": 0.0}
        for at, cell in enumerate(cells)
        for k in range(3)
    ]
    return listed + [{**case, "perturbed": 1e-6} for case in listed[: 3 * len(cells) : 3]]


def predicted(case: dict) -> dict:
    """The row of a prediction."""
    return adamw.predicted(case, LAWS, CLOCKS)


def trained(case: dict, told: xr.Dataset) -> dict:
    """The row of a run, with what :func:`compared` says of its end."""
    row, theta, v = adamw.trained(case, CLOCKS)
    network, task = adamw.setting(case)
    return {**row, **compared(network, task, theta, v, case["lr"])}


def compared(network: TwoLayer, task: Task, theta: Tensor, v: Tensor, lr: float) -> dict:
    """√v̂ of a run beside what the concave problem names at its weights: correlation, ratio of the sums, and how near the run is to its edge.

    ``edge`` is the largest lr·sharpness in Adam's metric over the limit, ``near`` how many eigenvalues have at least .95 of the limit, and
    ``oscillating`` how many directions the problem names.
    """
    J = linearize(network, theta, task.X_train).jacobian()
    limit = flow.edge_of_adam(lr) * len(J) / 2
    found = flow.edge_oscillation(J, torch.zeros_like(v), torch.ones_like(v), limit)
    assert found is not None
    own, named = v.sqrt(), found.fed(J).sqrt()
    sizes = torch.linalg.eigvalsh((J / (own + 1e-8)) @ J.mT) / limit
    return {
        "agreement": float(np.corrcoef(own, named)[0, 1]),
        "ratio": float(named.sum() / own.sum()),
        "edge": float(sizes[-1]),
        "near": int((sizes > 0.95).sum()),
        "oscillating": found.root.shape[1],
    }


def main(what: str, listed: list[dict] | None = None, paths: dict | None = None) -> None:
    """Make one of the two files, or what is left of it: ``what`` is "predict" or "train"."""
    chain.main(what, cases() if listed is None else listed, paths or PATHS, predicted, trained)


def stored() -> tuple[xr.Dataset, xr.Dataset]:
    """The predictions and the trainings that the package holds."""
    return records.load(PATHS["predict"]), records.load(PATHS["train"])


def scores(told: xr.Dataset, ran: xr.Dataset) -> pd.DataFrame:
    """One row a run, see :func:`adamw.scores`."""
    return adamw.scores(told, ran, LAWS, CLOCKS)
