"""Trained networks on either side of the edge that price curves foretell (chapter 11), by the instrument of chapter 10's maps."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

import pandas as pd

from .. import models, records, tasks
from ..errors import DivergedError
from ..training import train

PATH = str(files("grokutils") / "data" / "edge.nc")

# Written before the runs, and before anything but the verdicts in the text of chapter 10 had been looked at.
RULES = {
    "edge": "Networks are trained as in the maps of chapter 10 (128 units, its λ, slow time 6, five splits and starts, four shares of the "
    "table) on every table of a + b whose price curves were stored by then. At the end they get half of the held-out pairs right, all "
    "five splits together, if and only if n is at least the number of pairs from which on the cheapest network does: true of at "
    "least 90 % of the cells.",
}
TABLES = (("relu", 11), ("gelu", 11), ("gelu", 13), ("quadratic", 11), ("quadratic", 13), ("quadratic", 17))
SHARES = (0.45, 0.6, 0.75, 0.9)
SEEDS = range(5)
WIDTH, MOMENTUM, PACE, TAU = 128, 0.9, 16.0, 6.0
LAM = 59 * 11 * 1e-4 / 2  # the study's: p = 11, 59 pairs, w = 1e-4


@dataclass(frozen=True)
class Case:
    """One cell of a map."""

    p: int
    activation: str
    share: float


CASES = [Case(p, activation, share) for activation, p in TABLES for share in SHARES]


def measure(case: Case) -> list[dict]:
    """A row a split: ``n`` known pairs, and the share ``right`` of ``held_out`` pairs at the end."""
    data = [tasks.modular(case.p, "add", case.share, seed) for seed in SEEDS]
    w = 2 * LAM / (data[0].n_train * case.p)
    rate = PACE * (case.p / 11) ** 2
    try:
        runs = train(
            models.two_layer(case.p, WIDTH, case.p, case.activation),
            data,
            round(TAU / (rate * w)),
            seed=SEEDS,
            lr=rate * (1 - MOMENTUM),
            weight_decay=w,
            momentum=MOMENTUM,
            record_at=2,
        )
    except DivergedError as error:
        runs = error.records
    return [
        {"seed": seed, "n": task.n_train, "held_out": len(task.X_test), "right": float(right)}
        for seed, task, right in zip(SEEDS, data, runs.test_accuracy.values[:, -1], strict=True)
    ]


def stored() -> pd.DataFrame:
    """The rows that the package holds, as :func:`measure` makes them."""
    return records.load(PATH).to_dataframe()
