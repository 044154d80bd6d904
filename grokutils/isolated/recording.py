"""What is recorded of a run of eq. 20: one state's numbers, a run's dataset, several runs', and those on disk."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from scipy.linalg import lapack
from torch import Tensor

from .. import records
from ..activations import NAMED, Activation
from ..tasks import Task
from .closed_form import Motion

DATA = ("X_train", "Y_train", "X_test", "Y_test")


@dataclass(frozen=True)
class Plan:
    """What each run does; ``grid`` holds the slow times at which it is recorded."""

    width: int
    sigma: Activation
    init_std: float
    method: str
    step: float
    grid: np.ndarray
    lam: float
    tolerance: float
    snapshots: tuple[float, ...]

    @property
    def kept(self) -> list[int]:
        """The records nearest to the snapshots' slow times."""
        return sorted({int(np.abs(self.grid - tau).argmin()) for tau in self.snapshots})


def described(task: Task, s: Plan) -> dict:
    """Settings as dataset attributes."""
    return {
        "task": task.name,
        "width": s.width,
        "activation": s.sigma.name if NAMED.get(s.sigma.name) == s.sigma else _sampled(s.sigma),
        "init_std": s.init_std,
        "method": s.method,
        "step": s.step,
        "tau_end": float(s.grid[-1]),
        "lam": s.lam,
        "tolerance": s.tolerance if s.method == "adaptive" else 0.0,
        "points": len(s.grid),
        "snapshots": json.dumps(s.snapshots),
        **records.provenance(),
    }


def _sampled(sigma: Activation) -> str:
    """A callable's name and some of its values: two lambdas have the same name."""
    values = sigma.value(torch.linspace(-2, 2, 9, dtype=torch.float64))
    return f"{sigma.name}: {' '.join(f'{value:.5g}' for value in values.tolist())}"


def _checksum(task: Task, start: Tensor | None) -> int:
    """Of a task's data (tasks of one name differ by split) and of a start that was given."""
    arrays = [getattr(task, name) for name in DATA] + ([] if start is None else [start])
    crc = 0
    for array in arrays:
        crc = zlib.crc32(array.contiguous().numpy(), crc)
    return crc


def stored(path, settings: dict, wanted: dict[int, tuple[Task, Tensor | None]]) -> dict[int, xr.Dataset]:
    """Finished runs at ``path``, by seed."""
    path = records.writable(path)
    if not Path(path).exists():
        return {}
    try:
        found = records.load(path)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"path = '{path}': is not a file of records ({error}); choose another path"
        ) from error
    there = {key: np.asarray(found.attrs.get(key)).item() for key in settings}
    other = {key: value for key, value in there.items() if value != settings[key]}
    if other:
        raise ValueError(f"path = '{path}': holds records of other settings, {other}; choose another path")
    done = {int(seed): found.isel(run=i, drop=True) for i, seed in enumerate(found.seed.values)}
    for seed, given in wanted.items():
        if seed in done and int(done[seed]["checksum"].item()) != _checksum(*given):
            raise ValueError(
                f"path = '{path}': holds seed {seed} of other data or start; choose another path"
            )
    return done


def joined(runs: dict[int, xr.Dataset], settings: dict, ended: str = "tau_end") -> xr.Dataset:
    """Runs as one dataset; an unfinished run has NaN where it did not get."""
    settings = {**settings, "ended": ended}
    if not runs:
        return xr.Dataset(attrs=settings)
    whole = xr.concat(
        list(runs.values()), dim="run", join="outer", data_vars="all", coords="minimal", compat="override"
    )
    longest = max(runs.values(), key=lambda run: run.sizes["step"])
    return whole.assign_coords(
        run=np.arange(len(runs)), seed=("run", list(runs)), tau=("step", longest["tau"].data)
    ).assign_attrs(settings)


def measured(at: Motion, task: Task, s: Plan) -> dict:
    """What is recorded of one state."""
    E, W = at.E, at.readout
    trained = at.H @ W  # (n_train, d_out)
    tested = s.sigma.value(task.X_test @ E) @ W  # (n_test, d_out)
    norm2_E, norm2_W = float(E.square().sum()), float(W.square().sum())
    numbers = {
        "train_loss": float((trained - task.Y_train).square().mean()),
        "test_loss": float((tested - task.Y_test).square().mean()),
        "residual": float((trained - task.Y_train).norm()),
        "norm2_E": norm2_E,
        "norm2_W": norm2_W,
        "norm2": norm2_E + norm2_W,
        "cost": norm2_E + float((task.Y_train.mT * at.AY_T).sum()),
        "condition": _condition(at, s.lam),
    }
    if not task.classification:
        return numbers
    predicted, right = (
        torch.cat([trained, tested]).argmax(1),
        torch.cat([task.Y_train, task.Y_test]).argmax(1),
    )
    train, test = (predicted == right).double().split([len(trained), len(tested)])
    return {
        **numbers,
        "train_accuracy": float(train.mean()),
        "test_accuracy": float(test.mean()),
        "prediction": predicted.numpy().astype(np.int16),
    }


def _condition(at: Motion, lam: float) -> float:
    """LAPACK's 1-norm condition estimate from the Cholesky factor: O(n²), where an exact one is O(n³)."""
    factor = at.factor.double().numpy()
    H = at.H.double().numpy()
    norm = np.linalg.norm(H @ H.T, 1) + lam  # HHᵀ has no negative diagonal entry
    reciprocal, _ = lapack.dpocon(factor, norm, uplo="L")
    return float(1 / reciprocal) if reciprocal else np.inf


def as_dataset(log: list[dict], task: Task, start: Tensor | None, s: Plan) -> xr.Dataset:
    """One run's records."""
    scalars = [key for key in log[0] if key not in ("tau", "prediction", "E")]
    run = xr.Dataset(
        {key: ("step", [entry[key] for entry in log]) for key in scalars},
        coords={"step": np.arange(len(log)), "tau": ("step", [entry["tau"] for entry in log])},
    )
    if len(task.pairs_train) and task.classification:
        pairs = torch.cat([task.pairs_train, task.pairs_test]).numpy()
        order = np.lexsort((pairs[:, 1], pairs[:, 0]))  # the same order for every split
        predictions = np.stack([entry["prediction"] for entry in log])[:, order]
        run["prediction"] = (("step", "pair"), predictions)
        run["is_train"] = ("pair", order < task.n_train)
        run = run.assign_coords(a=("pair", pairs[order, 0]), b=("pair", pairs[order, 1]))
    if near := [log[i] for i in s.kept if i < len(log)]:  # an unfinished run has only those that it reached
        run["E"] = (("snapshot", "token", "unit"), np.stack([entry["E"].numpy() for entry in near]))
        run = run.assign_coords(snapshot=[entry["tau"] for entry in near])
    run["checksum"] = _checksum(task, start)
    baselines = {part: getattr(task, f"Y_{part}").square().mean().item() for part in ("train", "test")}
    return run.assign_coords({f"{part}_baseline": value for part, value in baselines.items()})
