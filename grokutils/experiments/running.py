"""Running an experiment's cases: saved after each, resumable, every row with the case that made it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import xarray as xr

from .. import _progress, records


def run(cases: Sequence, measure: Callable, path) -> xr.Dataset:
    """Measure the ``cases`` that ``path`` does not hold yet.

    Parameters
    ----------
    cases : dataclass instances with fields of numbers and texts; the fields become columns.
    measure : case → list of rows, each a dict of numbers, texts and curves (arrays of one length) with the same keys; no rows
        where there is nothing to measure.
    path : .nc file; it holds the finished cases after each, whole or not at all.

    Returns
    -------
    Dataset with dim ``row``, one variable a column; curves also have dim ``point``.

    Raises
    ------
    ValueError
        A path that cannot be written, or that holds other columns.
    """
    path = records.writable(path)
    table = records.load(path) if Path(path).exists() else None
    with _progress.bar(len(cases), "cases") as bar:
        for case in cases:
            fields = asdict(case)
            if not held(table, fields):
                rows = [{**fields, **row} for row in measure(case)]
                if rows:
                    table = joined(table, rows)
                    records.save(table, path)
            bar.update()
    return xr.Dataset() if table is None else table


def held(table: xr.Dataset | None, fields: dict) -> bool:
    """Whether ``table`` has rows of the case with these fields."""
    if table is None:
        return False
    if missing := fields.keys() - table.data_vars.keys():
        raise ValueError(f"the file of records has no {', '.join(sorted(missing))}: choose another path")
    return bool(np.logical_and.reduce([table[name].values == value for name, value in fields.items()]).any())


def joined(table: xr.Dataset | None, rows: list[dict]) -> xr.Dataset:
    """``table`` with more rows."""
    columns = {}
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        columns[name] = (("row", "point")[: values.ndim], values)
    new = xr.Dataset(columns, attrs=records.provenance())
    if table is None:
        return new
    # what a file said of its texts' lengths would cut longer ones
    return xr.concat([table.drop_encoding(), new], dim="row", combine_attrs="override").drop_encoding()
