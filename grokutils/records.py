"""Records of runs: ``xarray.Dataset`` with one name, unit and reduction for each quantity, whoever wrote it.

Also here: the book's one definition of memorizing, generalizing and grokking, and files that are written whole
or not at all.
"""

from __future__ import annotations

import os
import platform
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from . import _checks
from ._version import __version__


@dataclass(frozen=True)
class Quantity:
    """What a recorded name means; ``dims`` are those of one run, and several runs have a first dimension ``run``."""

    dims: tuple[str, ...]
    meaning: str
    low: float = -np.inf
    high: float = np.inf


_PATH = ("step",)
MEAN = "as PyTorch's mean: squared error over samples and outputs, cross-entropy over samples"
SCHEMA = {
    "step": Quantity(_PATH, "optimizer steps so far; in a flow, the number of the record", 0),
    "tau": Quantity(_PATH, "slow time: lr × weight_decay × steps / (1 − momentum)", 0),
    "train_loss": Quantity(_PATH, f"training loss, {MEAN}", 0),
    "test_loss": Quantity(_PATH, f"held-out loss, {MEAN}", 0),
    "train_accuracy": Quantity(
        _PATH, "share of training samples whose largest output is the right one", 0, 1
    ),
    "test_accuracy": Quantity(_PATH, "share of held-out samples whose largest output is the right one", 0, 1),
    "norm2": Quantity(_PATH, "‖θ‖²", 0),
    "norm2_E": Quantity(_PATH, "‖E‖², the embeddings' part of ‖θ‖²", 0),
    "norm2_W": Quantity(_PATH, "‖W‖², the readout's part of ‖θ‖²", 0),
    "residual": Quantity(_PATH, "‖F − Y‖ on the training samples, not squared", 0),
    "objective": Quantity(_PATH, "L_λ = L + 2λh of a flow, summed; ‖F − Y‖ at λ = 0", 0),
    "loss": Quantity(_PATH, "L, summed over samples and outputs", 0),
    "drift": Quantity(_PATH, "error of a flow's constraint: ‖½∂L/∂F + λμ‖, or the distance from Z"),
    "sharpness": Quantity(_PATH, "largest eigenvalue of the mean loss's Hessian (Gauss–Newton)", 0),
    "slip": Quantity(_PATH, "estimated error of a flow's slow time so far"),
    "ratio": Quantity(
        _PATH, "of the second to the first term of a first-order flow's expansion: λ‖JᵀK⁻²μ₀‖/‖JᵀK⁻¹μ₀‖", 0
    ),
    "pinned": Quantity(_PATH, "pre-activations held at a kink", 0),
    "sigma_min": Quantity(_PATH, "smallest singular value of J", 0),
    "event_tau": Quantity(("event",), "slow time at which an event came; NaN if it did not", 0),
    "cost": Quantity(_PATH, "R(E)/λ of the isolated dynamics (eqs. 16 and 19)"),
    "condition": Quantity(_PATH, "LAPACK's estimate, in the 1-norm, of the condition of HHᵀ + λI", 1),
    "evaluations": Quantity(_PATH, "evaluations of the right-hand side so far", 0),
    "prediction": Quantity(("step", "pair"), "class of the largest output", 0),
    "theta": Quantity(("step", "parameter"), "θ"),
    "theta_end": Quantity(("parameter",), "θ where the run ended"),
    "E": Quantity(("snapshot", "token", "unit"), "embeddings at the slow times of ``snapshot``"),
    "is_train": Quantity(("pair",), "whether the pair is trained on"),
    "checksum": Quantity((), "of the task's data"),
    "train_baseline": Quantity((), f"training loss of the output 0, {MEAN}", 0),
    "test_baseline": Quantity((), f"held-out loss of the output 0, {MEAN}", 0),
}


def check(runs: xr.Dataset) -> xr.Dataset:
    """Return ``runs`` if every record is one of :data:`SCHEMA`, as it says.

    Raises
    ------
    ValueError
        An unknown name, other dimensions, a value out of range, a slow time that falls, or no word on how the
        runs ended (attribute ``ended``).
    """
    for name in ("step", "tau"):
        if name not in runs.coords:
            raise ValueError(f"records have no coordinate '{name}'")
    for name in (*runs.data_vars, "step", "tau"):
        if name not in SCHEMA:
            raise ValueError(f"record '{name}' is not in records.SCHEMA: give it a name, or use one of those")
        known, values = SCHEMA[name], runs[name]
        if tuple(dim for dim in values.dims if dim != "run") != known.dims:
            raise ValueError(f"record '{name}' has dimensions {values.dims}: must be {known.dims}")
        if values.dtype.kind in "fiu" and ((values < known.low) | (values > known.high)).any():
            raise ValueError(f"record '{name}' leaves [{known.low:g}, {known.high:g}]: {known.meaning}")
    if (runs.tau.diff("step") < 0).any():
        raise ValueError("record 'tau' falls: slow time never does")
    if not runs.attrs.get("ended"):
        raise ValueError("records do not say in their attribute 'ended' how the runs ended")
    return runs


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
    scratch = path.with_name(
        f".{path.name}.{secrets.token_hex(8)}"
    )  # made by netCDF, so the user's umask rules
    try:
        records.to_netcdf(scratch, engine="h5netcdf")
        with open(scratch, "rb") as written:
            os.fsync(written.fileno())
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
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


# --- when a run memorizes, generalizes and groks ---------------------------------------------------------------

CLOCKS = ("loss", "accuracy")
MEMORIZED = {"loss": 0.05, "accuracy": 0.99}  # of the training samples
GENERALIZED = {"loss": 0.5, "accuracy": 0.99}  # of the held-out samples
GROKS = 10.0  # times as long to generalize as to memorize


def memorization(
    runs: xr.Dataset, clock: str = "accuracy", threshold: float | None = None, coordinate: str = "step"
) -> xr.DataArray:
    """When each run has learned its training samples, in ``coordinate``; NaN if never.

    Parameters
    ----------
    clock : "accuracy" (the training accuracy rises to ``threshold``) or "loss" (the training loss falls to
        ``threshold`` times that of the output 0).
    threshold : of the clock; :data:`MEMORIZED` where it is left out.
    coordinate : "step" or "tau".

    Raises
    ------
    ValueError
        Another clock, a threshold outside (0, 1], or records without what the clock reads.
    """
    return _reached(runs, "train", clock, threshold, MEMORIZED, coordinate)


def generalization(
    runs: xr.Dataset, clock: str = "accuracy", threshold: float | None = None, coordinate: str = "step"
) -> xr.DataArray:
    """When each run gets held-out samples right: :func:`memorization`'s clocks on those, and :data:`GENERALIZED`."""
    return _reached(runs, "test", clock, threshold, GENERALIZED, coordinate)


def groks(runs: xr.Dataset, clock: str = "accuracy", threshold: float | None = None) -> xr.DataArray:
    """Whether each run generalizes, and takes at least :data:`GROKS` times as long as it takes to memorize.

    Parameters as in :func:`generalization`; memorization is read off the same clock at its own threshold.
    """
    return generalization(runs, clock, threshold) >= GROKS * memorization(runs, clock)


def _reached(runs, part: str, clock: str, threshold, standard: dict[str, float], coordinate: str):
    _checks.one_of("clock", clock, CLOCKS)
    _checks.one_of("coordinate", coordinate, ("step", "tau"))
    threshold = standard[clock] if threshold is None else threshold
    threshold = _checks.real("threshold", threshold, 0, 1, open_low=True)
    needed = [f"{part}_{clock}"] + [f"{part}_baseline"] * (clock == "loss")
    for name in needed:
        if name not in runs:
            raise ValueError(f"clock = {clock!r}: these records have no '{name}' ({SCHEMA[name].meaning})")
    if clock == "accuracy":
        return first_crossing(runs[needed[0]], threshold, coordinate)
    return first_crossing(-runs[needed[0]] / runs[needed[1]], -threshold, coordinate)
