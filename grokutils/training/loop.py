"""The training loop: many runs at once, recorded, resumable, stopped when a run diverges."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from .. import _progress, records
from ..networks import Network
from ..tasks import Task
from . import settings as settings_
from .data import rows, shuffled
from .gradients import Loss
from .optimizers import Optimizer
from .settings import PER_RUN, Settings

CACHED = 2**18  # entries of one hidden layer that still fit a core's cache: larger batches are done in parts
LOOK = 500  # steps between looks for a run that diverged


class DivergedError(ArithmeticError):
    """A step was too large for a run; ``records`` holds all runs up to the last good record."""

    def __init__(self, message: str, records: xr.Dataset):
        super().__init__(message)
        self.records = records


def train(
    network: Network,
    task: Task | Sequence[Task],
    steps: int,
    *,
    seed: int | Sequence[int] = 0,
    init_scale: float | Sequence[float] = 1.0,
    start: Tensor | None = None,
    lr: float | Sequence[float] = 1.0,
    readout_speed: float | Sequence[float] = 1.0,
    weight_decay: float | Sequence[float] = 1e-4,
    loss: str = "mse",
    reduction: str = "mean",
    optimizer: str = "gd",
    momentum: float = 0.0,
    batch_size: int | None = None,
    record_at: int | Sequence[int] = 100,
    keep_theta: bool = False,
    checkpoint: str | os.PathLike | None = None,
) -> xr.Dataset:
    """Train ``network`` on ``task``; the defaults are the study's (STUDY.md section 4, figures 5 and 7).

    The conventions are PyTorch's: the gradient of the loss as ``reduction`` takes it ("mean" of the squared
    error over samples and outputs, of the cross-entropy over samples; "sum" is the study's L) plus
    ``weight_decay`` · θ. The study's λ is weight_decay/2 for "sum", and n·d_out·weight_decay/2 for the "mean"
    of the squared error of n samples.

    Parameters
    ----------
    task : one for all runs, or one for each run.
    seed, init_scale, lr, readout_speed, weight_decay : one value, or one for each run; lists have equal lengths.
        Layer 1 learns at ``lr``, layer 2 at ``lr · readout_speed``. ``seed`` draws ``network.init(seed,
        init_scale)`` and the order of minibatches.
    start : (runs, d) initial parameters, in place of drawn ones.
    loss : "mse" or "cross_entropy". optimizer : "gd", "adam" or "adamw", with PyTorch's betas and epsilon.
    momentum : of "gd", in [0, 1); it makes time run 1/(1 − momentum) times faster.
    batch_size : samples of a minibatch, taken from a fresh order each epoch (:func:`shuffled`); None for all.
    record_at : how many log-spaced records, or the steps to record; 0 and ``steps`` always are.
    keep_theta : also keep θ at every record.
    checkpoint : a .nc file, written at every record. If it exists, the runs resume from it, bit for bit.

    Returns
    -------
    Dataset with dims (run, step): ``train_loss``, ``test_loss`` (as ``reduction`` takes them),
    ``train_accuracy``, ``test_accuracy`` (where there is more than one output), ``norm`` = ‖θ‖ and, if kept,
    ``theta`` (run, step, parameter); coordinates are the settings of each run and ``tau`` = lr · weight_decay ·
    step. The dtype is the task's.

    Raises
    ------
    ValueError
        A bad setting, before any work; a checkpoint that other settings wrote.
    DivergedError
        Parameters that are not finite any more; the records so far are in its ``records``.
    """
    settings = settings_.check(
        network, task, steps, seed, init_scale, start, lr, readout_speed, weight_decay, record_at,
        loss=loss, reduction=reduction, optimizer=optimizer, momentum=momentum, batch_size=batch_size,
    )  # fmt: skip
    path = None if checkpoint is None else records.writable(checkpoint)
    runs = _Runs(settings, keep_theta)
    if path is not None and path.exists():
        runs.resume(path)
    schedule = settings.schedule
    with _progress.bar(steps, "training") as bar:
        bar.update(runs.step)
        while runs.recorded < len(schedule):
            target = int(schedule[runs.recorded])
            while runs.step < target:
                count = min(LOOK, target - runs.step)
                runs.advance(count)
                bar.update(count)
                runs.stop_if_diverged()
            runs.record()
            if path is not None:
                runs.save(path)
    return runs.dataset()


class _Runs:
    """All runs' parameters as one flat tensor: every E, then every V = Wᵀ, so that one operation moves all."""

    def __init__(self, settings: Settings, keep_theta: bool):
        self.settings = settings
        net, R = settings.network, len(settings.tasks)
        matrices = net.matrices(settings.start)
        self.E_shape, self.V_shape = (R, net.d_in, net.width), (R, net.d_out, net.width)
        self.theta = torch.cat([matrices["E"].flatten(), matrices["W"].mT.flatten()])
        self.gradient = torch.empty_like(self.theta)
        self.E, self.V = self._layers(self.theta)
        self.gradient_E, self.gradient_V = self._layers(self.gradient)
        speeds = np.multiply(settings.lr, settings.readout_speed)
        rate, decay = self._spread(settings.lr, speeds), self._spread(*[settings.weight_decay] * 2)
        self.optimizer = Optimizer(settings.optimizer, self.theta, rate, decay, settings.momentum)
        full = settings.batch_size is None
        train = rows([(task.X_train, task.Y_train) for task in settings.tasks], merge=full)
        test = rows([(task.X_test, task.Y_test) for task in settings.tasks], merge=True)
        self.parts = _parts(R, net.width * (train.Y.shape[1] if full else settings.batch_size))
        self.train = [self._loss(train.runs(part)) for part in self.parts]
        self.test = [self._loss(test.runs(part)) for part in self.parts]
        self.step = self.recorded = 0
        self.order = None  # of each run's samples in this epoch, (R, n)
        self.values = {}
        measured = ["train_loss", "test_loss", "norm"]
        if net.d_out > 1:
            measured += ["train_accuracy", "test_accuracy"]
        for name in measured:
            self.values[name] = np.full((R, len(settings.schedule)), np.nan)
        if keep_theta:
            dtype = settings.start.numpy().dtype
            self.values["theta"] = np.full((R, len(settings.schedule), net.d), np.nan, dtype=dtype)

    def _loss(self, part) -> Loss:
        return Loss(self.settings.network.activation, self.settings.loss, self.settings.reduction, part)

    def _layers(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        split = int(np.prod(self.E_shape))
        return flat[:split].view(self.E_shape), flat[split:].view(self.V_shape)

    def _spread(self, first, second) -> float | Tensor:
        """Values of each run, for its layers 1 and 2, as a tensor like θ; one number where all are equal."""
        if len({*first, *second}) == 1:
            return float(first[0])
        result = torch.empty_like(self.theta)
        for layer, values in zip(self._layers(result), (first, second), strict=True):
            layer.copy_(torch.tensor(values, dtype=torch.float64)[:, None, None])
        return result

    def advance(self, count: int) -> None:
        """Make ``count`` steps."""
        for _ in range(count):
            losses = self.train if self.settings.batch_size is None else self._minibatch()
            for part, loss in zip(self.parts, losses, strict=True):
                loss.gradient(self.E[part], self.V[part], self.gradient_E[part], self.gradient_V[part])
            self.step += 1
            self.optimizer.step(self.theta, self.gradient, self.step)

    def _minibatch(self) -> list[Loss]:
        size, n = self.settings.batch_size, self.settings.tasks[0].n_train
        epoch, batch = divmod(self.step, -(-n // size))
        if batch == 0 or self.order is None:
            self.order = torch.stack([shuffled(seed, epoch, n) for seed in self.settings.seed])
        index = self.order[:, batch * size : (batch + 1) * size]
        return [
            self._loss(loss.rows.take(index[part])) for part, loss in zip(self.parts, self.train, strict=True)
        ]

    def record(self) -> None:
        """Measure all runs now."""
        column = (slice(None), self.recorded)
        for kind, losses in (("test", self.test), ("train", self.train)):
            measured = [
                loss.measure(self.E[part], self.V[part])
                for part, loss in zip(self.parts, losses, strict=True)
            ]
            values, accuracies, silent = (torch.cat(each).numpy() for each in zip(*measured, strict=True))
            self.values[f"{kind}_loss"][column] = values
            if f"{kind}_accuracy" in self.values:
                self.values[f"{kind}_accuracy"][column] = accuracies
        self._stop(~np.isfinite(values), "left the finite numbers")
        theta = torch.cat([self.E.flatten(1), self.V.mT.flatten(1)], dim=1)  # (R, d)
        self.values["norm"][column] = theta.norm(dim=1).numpy()
        if "theta" in self.values:
            self.values["theta"][column] = theta.numpy()
        self.recorded += 1
        norm = self.values["norm"]
        # a huge step can leave a finite network that decay alone moves: no hidden unit is active any more
        self._stop(silent & (norm[column] > norm[:, 0]), "fell silent on all samples")

    def stop_if_diverged(self) -> None:
        """Raise if a run's parameters are not finite."""
        if not torch.isfinite(self.theta).all():
            finite = torch.isfinite(self.E.flatten(1)).all(1) & torch.isfinite(self.V.flatten(1)).all(1)
            self._stop(~finite.numpy(), "left the finite numbers")

    def _stop(self, bad: np.ndarray, what: str) -> None:
        if not bad.any():
            return
        named = [
            f"run {r} ({', '.join(f'{name} = {getattr(self.settings, name)[r]:g}' for name in PER_RUN)})"
            for r in np.flatnonzero(bad)
        ]
        raise DivergedError(
            f"{'; '.join(named)} {what} before step {self.step + 1}: a smaller lr is needed. "
            f"The records up to step {self.settings.schedule[self.recorded - 1]} are in this error's .records.",
            self.dataset(),
        )

    def dataset(self) -> xr.Dataset:
        """The records so far."""
        settings, step = self.settings, self.settings.schedule[: self.recorded]
        pace = np.multiply(settings.lr, settings.weight_decay)
        coordinates = {name: ("run", list(getattr(settings, name))) for name in PER_RUN}
        return xr.Dataset(
            {
                name: (("run", "step", "parameter")[: values.ndim], values[:, : self.recorded].copy())
                for name, values in self.values.items()
            },
            coords={
                "run": np.arange(len(settings.tasks)),
                "step": step,
                "tau": (("run", "step"), pace[:, None] * step),
                "task": ("run", [task.name for task in settings.tasks]),
                "n_train": ("run", [task.n_train for task in settings.tasks]),
                **coordinates,
            },
            attrs={**settings.shared, **records.provenance()},
        )

    def save(self, path: Path) -> None:
        """Write everything that the rest of the run depends on."""
        state = torch.stack([self.theta, *self.optimizer.state])
        whole = self.dataset().assign(state=(("slot", "entry"), state.numpy()))
        records.save(whole.assign_attrs(fingerprint=self.settings.fingerprint), path)

    def resume(self, path: Path) -> None:
        """Go to where the checkpoint at ``path`` was written."""
        stored = records.load(path)
        same = stored.attrs.get("fingerprint") == self.settings.fingerprint
        if not same or not set(self.values) <= set(stored):
            raise ValueError(
                f"checkpoint = '{path}': was written by other settings, data or another network; "
                "delete it, or give another name"
            )
        self.recorded = stored.sizes["step"]
        self.step = int(stored.step[-1])
        for name, values in self.values.items():
            values[:, : self.recorded] = stored[name].values
        for own, value in zip((self.theta, *self.optimizer.state), stored["state"].values, strict=True):
            own.copy_(torch.from_numpy(value))


def _parts(R: int, entries: int) -> list[slice]:
    size = max(1, CACHED // entries)
    return [slice(first, min(first + size, R)) for first in range(0, R, size)]
