"""Records of runs: ``xarray.Dataset`` with dims (run, step), saved to disk whole or not at all."""

from __future__ import annotations

import os
import platform
import tempfile
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from . import _checks
from ._version import __version__


def provenance() -> dict[str, str]:
    """Where numbers come from: versions of what computed them, as dataset attributes."""
    return {
        "grokutils": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "numpy": np.__version__,
    }


def log_spaced(steps: int, points: int) -> np.ndarray:
    """Step numbers from 0 to ``steps``, both included, close to evenly spaced in log(1 + step)."""
    steps = _checks.integer("steps", steps, 1)
    points = _checks.integer("points", points, 2)
    return np.unique(np.round(np.expm1(np.linspace(0, np.log1p(steps), points))).astype(int))


def writable(path: str | os.PathLike) -> Path:
    """Return ``path`` if a file can be written there; called before work starts, not after.

    Raises
    ------
    ValueError
        A folder that does not exist or is read-only, or a name that is not a netCDF file's or is a folder's.
    """
    path = Path(path)
    if path.suffix != ".nc":
        raise ValueError(f"path = '{path}': must end in .nc")
    if path.is_dir():
        raise ValueError(f"path = '{path}': is a folder; must be a file's name")
    if not path.parent.is_dir():
        raise ValueError(f"path = '{path}': the folder '{path.parent}' does not exist")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            return path
    except OSError as error:
        raise ValueError(f"path = '{path}': cannot write there ({error.strerror})") from error


def save(records: xr.Dataset, path: str | os.PathLike) -> None:
    """Write ``records`` as netCDF so that ``path`` holds the old file or the new one, never a part.

    Raises
    ------
    ValueError
        A path that cannot be written (see :func:`writable`).
    OSError
        A disk that fills up on the way; what was at ``path`` is still there.
    """
    path = writable(path)
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    try:
        records.to_netcdf(scratch, engine="h5netcdf")
        with open(scratch, "rb") as written:
            os.fsync(written.fileno())
        os.replace(scratch, path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


def load(path: str | os.PathLike) -> xr.Dataset:
    """Read records back into memory."""
    with xr.open_dataset(path, engine="h5netcdf") as stored:
        return stored.load()


def first_crossing(values: xr.DataArray, threshold: float, coordinate: str = "tau") -> xr.DataArray:
    """First value of ``coordinate`` at which ``values`` (run, step) reach ``threshold``, for each run.

    Linear between records; NaN for a run that never gets there.
    """
    values = values.transpose(..., "step")
    along = values[coordinate].broadcast_like(values).transpose(*values.dims).values
    data = values.values
    result = np.full(data.shape[:-1], np.nan)
    for index in np.ndindex(result.shape):
        reached = np.flatnonzero(data[index] >= threshold)
        if not reached.size:
            continue
        i = reached[0]
        if i == 0:
            result[index] = along[index][0]
            continue
        low, high = data[index][i - 1], data[index][i]
        share = (threshold - low) / (high - low)
        result[index] = along[index][i - 1] + share * (along[index][i] - along[index][i - 1])
    kept = values.isel(step=0, drop=True)
    return kept.copy(data=result).rename(f"{coordinate} at {threshold:g}")
