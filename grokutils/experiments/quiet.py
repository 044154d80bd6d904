"""Chapter 15: AdamW without noise, with cross-entropy. Predictions first, then the runs that test them.

``python -m grokutils.experiments quiet predict`` and ``… quiet train``; either is saved after every case and goes on where it stopped.
A prediction sees a run up to memorization. Each training carries the hash of the prediction that it tests.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pandas as pd
import xarray as xr

from .. import records
from . import adamw, chain

DATA = Path(str(files("grokutils") / "data"))
PATHS = {"predict": DATA / "quiet_predictions.nc", "train": DATA / "quiet_trainings.nc"}

# Written before the first prediction, after a pilot with seed 9001. There the held-out loss was almost level at the book's usual half of
# the output 0's, so that this clock says little; hence three quarters. The other is shown too.
RULES = {
    "quiet": "AdamW, full batch, cross-entropy, at least 5 seeds that nothing had used and whose held-out loss falls to three quarters of the output 0's: the "
    "flow in which v̂ is a state errs by at most 2 % (mean absolute error of the delay), and whether it gets there by slow time 12 is told right for every seed.",
}
CLOCKS = {"": 0.75, "_half": 0.5}
LAWS = {"frozen": adamw.frozen, "state": adamw.moving}
BASE = {
    "p": 13, "width": 64, "fraction": 0.9, "activation": "gelu", "loss": "cross_entropy",
    "lr": 1e-3, "w": 1.0, "beta2": 0.999, "tau_end": 12.0,
}  # fmt: skip


def cases() -> list[dict]:
    """Six seeds, and the first of them again from a start that is perturbed: the floor below which no prediction can be judged."""
    return [{"seed": 1580 + k, "perturbed": 0.0} for k in range(6)] + [{"seed": 1580, "perturbed": 1e-6}]


def predicted(case: dict) -> dict:
    """The row of a prediction."""
    return adamw.predicted({**BASE, **case}, LAWS, CLOCKS)


def trained(case: dict, told: xr.Dataset) -> dict:
    """The row of a run."""
    return adamw.trained({**BASE, **case}, CLOCKS)[0]


def main(what: str, listed: list[dict] | None = None, paths: dict | None = None) -> None:
    """Make one of the two files, or what is left of it: ``what`` is "predict" or "train"."""
    chain.main(what, cases() if listed is None else listed, paths or PATHS, predicted, trained)


def stored() -> tuple[xr.Dataset, xr.Dataset]:
    """The predictions and the trainings that the package holds."""
    return records.load(PATHS["predict"]), records.load(PATHS["train"])


def scores(told: xr.Dataset, ran: xr.Dataset) -> pd.DataFrame:
    """One row a run, see :func:`adamw.scores`."""
    return adamw.scores(told, ran, LAWS, CLOCKS)
