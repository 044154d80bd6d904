"""What the cheapest network for a whole addition table costs, at larger p than the price curves (chapter 11)."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

import pandas as pd

from .. import records
from ..price import price
from . import price as curves

PATH = str(files("grokutils") / "data" / "tables.nc")


@dataclass(frozen=True)
class Case:
    """One table, searched from two random starts by a quadratic network."""

    p: int
    seed: int


CASES = [Case(p, 0) for p in (19, 23)]


def measure(case: Case, iterations: int = 500) -> list[dict]:
    """One row: the price ``value`` and the greatest among the starts, ``worst``."""
    X, Y, _ = curves.table(curves.Case(case.p, "quadratic", "a + b", case.seed))
    found = price(X, Y, "quadratic", starts=2, seed=1000 * case.seed, iterations=iterations)
    return [{"value": found.value, "worst": max(found.starts)}]


def stored() -> pd.DataFrame:
    """The rows that the package holds."""
    return records.load(PATH).to_dataframe()
