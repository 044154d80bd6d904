"""The training loop: many runs at once, recorded, resumable, stopped when a run diverges."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from .. import _checks, _progress, records
from ..errors import DivergedError
from ..losses import Loss
from ..models import Model
from ..tasks import Task
from . import settings as settings_
from .batched import Batched, serves
from .general import General, Hook
from .settings import PER_RUN, Settings


def train(
    model: Model,
    task: Task | Sequence[Task],
    steps: int,
    *,
    seed: int | Sequence[int] = 0,
    init_scale: float | Sequence[float] = 1.0,
    theta0: Tensor | None = None,
    lr: float | Sequence[float] | Callable[[float], float] = 1.0,
    readout_speed: float | Sequence[float] = 1.0,
    weight_decay: float | Sequence[float] | Callable[[float], float] = 1e-4,
    loss: str | Loss = "squared_error",
    optimizer: str | Callable[..., torch.optim.Optimizer] = "gd",
    momentum: float = 0.0,
    batch_size: int | None = None,
    label_noise: float | Sequence[float] = 0.0,
    hooks: Hook | Sequence[Hook] = (),
    record_at: int | Sequence[int] = 100,
    keep_theta: bool = False,
    callback: Callable[[SimpleNamespace], object] | None = None,
    until: Callable[[SimpleNamespace], object] | None = None,
    checkpoint: str | os.PathLike | None = None,
) -> xr.Dataset:
    """Train ``model`` on ``task``; the defaults are the study's (its figures 5 and 7).

    The conventions are PyTorch's: a step follows the gradient of the mean loss plus ``weight_decay`` · θ. The study's
    λ is ``losses.lam(loss, task.Y_train, weight_decay)``. Two-layer networks under the common optimizers are trained
    by a kernel that does all runs at once; everything else by automatic differentiation, one run after the other.

    Parameters
    ----------
    model : network of any kind.
    task : one for all runs, or one for each run.
    steps : at which to end, counted from the start of the run (also of one that is resumed).
    seed : of ``model.init(seed, init_scale)``, of minibatches and of noise. One value, or one for each run; lists have equal
        lengths.
    init_scale : of ``model.init(seed, init_scale)``; one value, or one for each run.
    theta0 : (d,) or (runs, d) initial parameters, of the task's dtype, in place of drawn ones.
    lr : learning rate: one value, one for each run, or a function of ``step`` (from 0) or of slow time ``tau``: the name
        of its argument says which.
    weight_decay : PyTorch's w, given as ``lr`` is.
    readout_speed : the last parameter of ``model.shapes`` learns at ``lr · readout_speed``.
    loss : a name of :data:`grokutils.losses.LOSSES`, or a loss.
    optimizer : "gd", another name of torch.optim in small letters ("adamw"), or a function (params, lr, weight_decay)
        that makes an optimizer, as ``functools.partial(torch.optim.AdamW, betas=(0.9, 0.98))``.
    momentum : of "gd", in [0, 1); it makes time run 1/(1 − momentum) times faster.
    batch_size : samples of a minibatch, taken from a fresh order each epoch (:func:`shuffled`); None for all.
    label_noise : standard deviation of what is added to all training targets, anew in each step.
    hooks : functions (state, step) around each step, which they make by ``step()``; see ``training.hooks`` and
        :class:`.general.State`. The first is the outermost.
    record_at : how many log-spaced records, or the steps to record; 0 and ``steps`` always are.
    keep_theta : also keep θ at every record.
    callback : called with each record: an object with ``step``, ``tau``, the records' names (R values each) and
        ``theta`` (R, d).
    until : called with each record; the runs end when it is true (of all of them, where it gives R values).
    checkpoint : a .nc file, written at every record. If it exists, the runs resume from it, bit for bit; more
        ``steps`` extend a finished run.

    Returns
    -------
    Dataset with dims (run, step), named as in :data:`grokutils.records.SCHEMA`: ``train_loss``, ``test_loss``,
    ``train_accuracy``, ``test_accuracy`` (where the targets are classes), ``norm2``, ``theta_end`` and, if kept,
    ``theta``; coordinates are the settings of each run, ``tau``, and the losses of the output 0. The attribute
    ``ended`` is "steps" or "until".

    Raises
    ------
    ValueError
        A bad setting, before any work; a checkpoint that other settings wrote, or that has gone further.
    DivergedError
        Parameters that are not finite any more; the records so far are in its ``records``.
    KeyboardInterrupt
        The records so far are in its ``records``.
    """
    settings = settings_.check(
        model, task, steps, theta0=theta0, loss=loss, optimizer=optimizer, momentum=momentum, batch_size=batch_size,
        record_at=record_at, hooks=hooks, keep_theta=keep_theta, seed=seed, init_scale=init_scale, lr=lr,
        readout_speed=readout_speed, weight_decay=weight_decay, label_noise=label_noise,
    )  # fmt: skip
    _checks.function("callback", callback)
    _checks.function("until", until)
    path = None if checkpoint is None else records.writable(checkpoint)
    runs = _Runs(settings)
    if path is not None and path.exists():
        runs.resume(path)
    try:
        with _progress.bar(steps, "training") as bar:
            for record in runs.records(bar, path):
                if callback is not None:
                    callback(record)
                if until is not None and np.all(until(record)):
                    return runs.dataset("until")
    except KeyboardInterrupt as stopped:
        stopped.records = runs.dataset("interrupted")  # type: ignore[attr-defined]
        raise
    return runs.dataset("steps")


class _Runs:
    """The runs: where they are, and their records."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.engine = Batched(settings) if serves(settings) else General(settings)
        R = len(settings.tasks)
        self.step, self.tau = 0, np.zeros(R)
        self.log: list[dict[str, np.ndarray]] = []  # what is recorded at each step, (R,) or (R, d)
        self.steps: list[int] = []
        scheduled = [
            isinstance(settings.per_run[name], settings_.Schedule) for name in ("lr", "weight_decay")
        ]
        self.rates = None if any(scheduled) else self._rates(0)
        self.classes = all(task.classification for task in dict.fromkeys(settings.tasks))
        self.scale = settings.theta0.norm(dim=1).numpy()

    def _rates(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        lr, weight_decay = (self.settings.rate(name, step, self.tau) for name in ("lr", "weight_decay"))
        return lr, weight_decay

    def records(self, bar, path: Path | None):
        """Yield each record, the last of a resumed run first, and write it to ``path``."""
        bar.update(self.step)
        if self.log:
            yield self._last()
        for target in self.settings.steps.tolist():
            if self.log and target <= self.step:
                continue
            while self.step < target:
                count = min(self.engine.look if self.rates else 1, target - self.step)
                self._advance(count)
                bar.update(count)
            self._record()
            if path is not None:
                self._save(path)
            yield self._last()

    def _advance(self, count: int) -> None:
        """Make ``count`` steps, or stop at the first that leaves the finite numbers."""
        before = (self.engine.state(), self.step, self.tau) if count > 1 else None
        decayed = np.zeros_like(self.tau)  # Σ lr · weight_decay
        for step in range(self.step, self.step + count):
            decayed += self.engine.step(step, *(self.rates or self._rates(step)))
        self.step += count
        self.tau = self.tau + self.settings.rule.speed * decayed
        finite = torch.isfinite(self.engine.theta).all(1).numpy()
        if finite.all():
            return
        if before is None:
            self._stop(~finite, "left the finite numbers")
        state, self.step, self.tau = before
        self.engine.restore(state)
        for _ in range(count):
            self._advance(1)

    def _record(self) -> None:
        """Measure all runs now."""
        measured, theta = self.engine.measure(), self.engine.theta
        silent, _ = measured.pop("train_silent"), measured.pop("test_silent")
        self._stop(~np.isfinite(measured["train_loss"]), "left the finite numbers")
        norm = theta.norm(dim=1).numpy()
        kept = {"theta": theta.numpy()} if self.settings.keep_theta else {}
        if not self.classes:
            measured = {name: values for name, values in measured.items() if name.endswith("loss")}
        numbers = {**measured, "tau": self.tau, "norm2": norm**2}
        self.log.append({**{name: values.astype(float) for name, values in numbers.items()}, **kept})
        self.steps.append(self.step)
        # a huge step can leave a finite network that decay alone moves: no hidden unit is active any more
        self._stop(silent & (norm > self.scale), "fell silent on all samples")

    def _last(self) -> SimpleNamespace:
        return SimpleNamespace(**{**self.log[-1], "step": self.steps[-1], "theta": self.engine.theta})

    def _stop(self, bad: np.ndarray, what: str) -> None:
        if not bad.any():
            return
        settings = {
            name: values for name, values in self.settings.per_run.items() if isinstance(values, tuple)
        }
        named = [
            f"run {r} ({', '.join(f'{name} = {values[r]:g}' for name, values in settings.items())})"
            for r in np.flatnonzero(bad)
        ]
        kept = (
            f"The records up to step {self.steps[-1]} are" if self.log else "No record was made that could be"
        )
        raise DivergedError(
            f"{'; '.join(named)} {what} at step {self.step}: a smaller lr is needed. {kept} in this error's .records.",
            self.dataset("diverged"),
        )

    def dataset(self, ended: str) -> xr.Dataset:
        """The records so far."""
        settings, R = self.settings, len(self.settings.tasks)
        dims = ("run", "step", "parameter")
        names = self.log[0] if self.log else ()
        columns = {name: np.stack([entry[name] for entry in self.log], axis=1) for name in names}
        tau = columns.pop("tau", np.empty((R, 0)))
        per_run = {name: v for name, v in settings.per_run.items() if isinstance(v, tuple)}
        return xr.Dataset(
            {
                **{name: (dims[: values.ndim], values) for name, values in columns.items()},
                "theta_end": (("run", "parameter"), self.engine.theta.numpy()),
            },
            coords={
                "run": np.arange(R),
                "step": np.array(self.steps, dtype=int),
                "tau": (("run", "step"), tau),
                "task": ("run", [task.name for task in settings.tasks]),
                "n_train": ("run", [task.n_train for task in settings.tasks]),
                **{name: ("run", list(per_run[name])) for name in PER_RUN if name in per_run},
                **{f"{part}_baseline": ("run", values) for part, values in self._baselines().items()},
            },
            attrs={**settings.attributes, "ended": ended, **records.provenance()},
        )

    def _baselines(self) -> dict[str, list[float]]:
        """Losses of the output 0."""
        loss = self.settings.loss
        targets = {
            part: [getattr(task, f"Y_{part}") for task in self.settings.tasks] for part in ("train", "test")
        }
        return {
            part: [float(loss.value(torch.zeros_like(Y), Y)) / loss.count(Y) for Y in each]
            for part, each in targets.items()
        }

    def _save(self, path: Path) -> None:
        """Write everything that the rest of the runs depends on."""
        buffer = io.BytesIO()
        torch.save(self.engine.state(), buffer)
        whole = self.dataset("unfinished").assign(
            state=("byte", np.frombuffer(buffer.getvalue(), dtype=np.uint8))
        )
        records.save(whole.assign_attrs(fingerprint=self.settings.fingerprint), path)

    def resume(self, path: Path) -> None:
        """Go to where the checkpoint at ``path`` was written."""
        try:
            stored = records.load(path)
        except (OSError, ValueError) as error:
            raise ValueError(f"checkpoint = '{path}': is not a file of records ({error})") from error
        if stored.attrs.get("fingerprint") != self.settings.fingerprint:
            raise ValueError(
                f"checkpoint = '{path}': was written by other settings, data or another model; "
                "delete it, or give another name"
            )
        self.steps = stored.step.values.tolist()
        self.step, end = self.steps[-1], int(self.settings.steps[-1])
        if self.step > end:
            raise ValueError(
                f"steps = {end}: checkpoint '{path}' has gone to step {self.step}; give at least that"
            )
        names = ["tau", *(name for name in stored.data_vars if "step" in stored[name].dims)]
        self.log = [{name: stored[name].values[:, i] for name in names} for i in range(len(self.steps))]
        self.tau = self.log[-1]["tau"]
        self.engine.restore(torch.load(io.BytesIO(stored["state"].values.tobytes()), weights_only=True))
