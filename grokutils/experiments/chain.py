"""Two files that belong together: predictions, and the runs that test them, each run with the hash of its own prediction."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr

from .. import _progress, records


def fingerprint(row: xr.Dataset) -> str:
    """A hash of one prediction: its case and all its numbers."""
    digest = hashlib.sha256()
    for name in sorted([*row.coords, *row.data_vars]):
        values = np.asarray(row[name].values)
        shown = (
            np.array2string(values, precision=12, threshold=10**6)
            if values.dtype.kind == "f"
            else str(values)
        )
        digest.update(f"{name}={shown};".encode())
    return digest.hexdigest()[:16]


def table(rows: list[dict], listed: list[dict]) -> xr.Dataset:
    """Rows with the cases that made them, (run, …)."""
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    dims = ("run", "axis", "point")
    data = {name: (dims[: values.ndim], values) for name, values in columns.items()}
    coordinates = {name: ("run", np.array([case[name] for case in listed])) for name in listed[0]}
    return xr.Dataset(data, coords=coordinates, attrs=records.provenance())


def together(listed: list[dict], kinds: list, make: Callable) -> Callable:
    """A function (case, …) → row that makes the rows of all cases of a kind at once, when the first of them is asked for.

    ``make`` takes their places in ``listed`` and returns their rows.
    """
    made: dict[int, dict] = {}

    def row(case: dict, *_) -> dict:
        at = listed.index(case)
        if at not in made:
            same = [i for i, kind in enumerate(kinds) if kind == kinds[at]]
            made.update(zip(same, make(same), strict=True))
        return made[at]

    return row


def main(what: str, listed: list[dict], paths: dict, predicted: Callable, trained: Callable) -> None:
    """Make the file of "predict" or of "train", or what is left of it.

    ``predicted`` (case) → row; ``trained`` (case, its stored prediction) → row, to which the prediction's hash is added. Rows are dicts
    with the same names, of numbers, texts or (2, k) arrays.
    """
    path = records.writable(paths[what])
    foretold = records.load(paths["predict"]) if what == "train" else None
    if foretold is not None:
        listed = listed[: foretold.sizes["run"]]
    rows: list[dict] = []
    if Path(path).exists():
        left = records.load(path)
        rows = [{name: left[name].values[i] for name in left.data_vars} for i in range(left.sizes["run"])]
    with _progress.bar(len(listed), "runs") as bar:
        bar.update(len(rows))
        for i, case in list(enumerate(listed))[len(rows) :]:
            if foretold is None:
                row = predicted(case)
            else:
                told = foretold.isel(run=i)
                row = {**trained(case, told), "tests": fingerprint(told)}
            rows.append({**row, "when": time.time()})
            records.save(table(rows, listed[: len(rows)]), path)
            bar.update()
