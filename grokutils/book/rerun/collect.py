"""What a folder's cases found: one tidy table, and their records as xarray datasets."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections import defaultdict
from pathlib import Path

import pandas as pd
import xarray as xr

from . import measures
from .chapter import Refused
from .store import Store, read_json

COLUMNS = ["kind", "name", "verdict", "measured", "value"]


def table(store: Store, asked: dict[str, str] | None = None) -> pd.DataFrame:
    """One row for each claim and measure of each finished case, and for each failed case; sorted.

    ``asked`` are measures to add now, of what the cases kept. Columns: ``case``, every parameter (lists as JSON), then
    ``kind`` (claim, measure, none or failed), ``name``, ``verdict`` and ``measured`` of a claim, or the error of a
    failed case or measure, ``value`` of a measure.

    Raises
    ------
    Refused
        Nothing is finished yet.
    """
    rows, asked = [], {**store.measures(), **(asked or {})}
    for case_id, values in store.cases().items():
        if not store.done(case_id) and store.failure(case_id) is None:
            continue
        own = {"case": case_id, **{_column(name): _plain(value) for name, value in values.items()}}
        rows += [{**own, **row} for row in _rows(store, case_id, values, asked)]
    if not rows:
        raise Refused(f"'{store.folder}': no case is finished yet")
    names = [name for name in rows[0] if name not in COLUMNS]
    found = pd.DataFrame(rows).reindex(columns=names + COLUMNS)
    for name in names:
        if found[name].map(type).nunique() > 1:
            found[name] = found[name].map(str)
    found = found.astype({**dict.fromkeys(COLUMNS, "string"), "value": float})
    return found.sort_values([*names[1:], "case", "kind", "name"], kind="stable", ignore_index=True)


def _rows(store: Store, case_id: str, values: dict, asked: dict[str, str]) -> list[dict]:
    if not store.done(case_id):
        return [{"kind": "failed", "measured": store.failure(case_id)["error"]}]
    place = store.place(case_id)
    claims = [
        # proved: nothing measured
        {"kind": "claim", **{key: claim.get(key) for key in ("name", "verdict", "measured")}}
        for claim in read_json(place / "claims.json") or []
    ]
    good = {name: one for name, one in measures.kept(place).items() if not one["fault"]}
    measured = {**good, **measures.of(place, values, asked)}
    rows = claims + [
        {"kind": "measure", "name": name, "value": one["value"], "measured": one["fault"] or None}
        for name, one in measured.items()
    ]
    return rows or [{"kind": "none"}]


def _column(name: str) -> str:
    return f"parameter_{name}" if name in ("case", *COLUMNS) else name


def _plain(value):
    return json.dumps(value) if isinstance(value, list | dict) or value is None else value


def records(store: Store) -> dict:
    """The records that the cases saved, by file name: datasets with one more dimension, ``case``, and its parameters."""
    found = defaultdict(list)
    for case_id, values in store.cases().items():
        for path in sorted((store.place(case_id) / "files").glob("*.nc")):
            with xr.open_dataset(path, engine="h5netcdf") as stored:
                one = stored.load().expand_dims(case=[case_id])
            taken = {
                f"parameter_{name}" if name in one.variables else _column(name): _plain(value)
                for name, value in values.items()
            }
            found[path.stem].append(one.assign_coords({name: ("case", [v]) for name, v in taken.items()}))
    return {name: _joined(name, several) for name, several in found.items()}


def _joined(name: str, several: list):
    """Datasets of several cases as one; where a case has fewer steps or runs than another it has NaN."""
    counted = {d for one in several for d in one.dims if d not in one.indexes}
    several = [one.assign_coords({d: range(one.sizes[d]) for d in counted & {*one.dims}}) for one in several]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            joined = xr.concat(several, dim="case", join="outer", combine_attrs="drop_conflicts")
    except (ValueError, TypeError) as error:
        raise Refused(f"records '{name}': those of different cases do not fit together ({error})") from error
    return joined.drop_vars(counted)


def write(store: Store, asked: dict[str, str] | None = None, out: Path | None = None) -> list[Path]:
    """Write ``table.parquet``, ``table.csv`` and ``records_NAME.nc`` into ``out``; returns their paths."""
    out, found = out or store.folder, table(store, asked)
    contents = {"table.parquet": found.to_parquet(index=False), "table.csv": found.to_csv(index=False)}
    with tempfile.TemporaryDirectory() as scratch:
        for name, dataset in records(store).items():
            packed = Path(scratch, "records.nc")
            dataset.to_netcdf(packed, engine="h5netcdf")
            contents[f"records_{name}.nc"] = packed.read_bytes()
    for name, content in contents.items():
        store.write(out / name, content)
    return [out / name for name in contents]
