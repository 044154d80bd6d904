"""Settings of a batch of runs: checked before any work, and recognized again by a checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .. import _checks, records
from ..networks import Network
from ..tasks import Task
from .gradients import LOSSES, REDUCTIONS
from .optimizers import OPTIMIZERS

PER_RUN = ("seed", "init_scale", "lr", "readout_speed", "weight_decay")


@dataclass(frozen=True)
class Settings:
    """What a batch of R runs does. Fields in ``PER_RUN``, and tasks, hold R values each."""

    network: Network
    tasks: tuple[Task, ...]
    seed: tuple[int, ...]
    init_scale: tuple[float, ...]
    lr: tuple[float, ...]
    readout_speed: tuple[float, ...]
    weight_decay: tuple[float, ...]
    schedule: np.ndarray  # steps at which to record, ascending, from 0
    loss: str
    reduction: str
    optimizer: str
    momentum: float
    batch_size: int | None
    start: Tensor  # (R, d)

    @property
    def shared(self) -> dict[str, str | int | float]:
        """Settings that all runs share, as dataset attributes."""
        names = ("loss", "reduction", "optimizer", "momentum")
        batch = "all samples" if self.batch_size is None else self.batch_size
        return {
            **{name: getattr(self, name) for name in names},
            "batch_size": batch,
            "width": self.network.width,
            "activation": self.network.activation.name,
            "dtype": str(self.start.dtype).removeprefix("torch."),
        }

    @property
    def fingerprint(self) -> str:
        """A hash of everything that decides the numbers."""
        probe = self.network.activation.value(torch.linspace(-2, 2, 9, dtype=torch.float64))
        arrays = [probe, self.start, torch.as_tensor(self.schedule)]
        for task in self.tasks:
            arrays += [task.X_train, task.Y_train, task.X_test, task.Y_test]
        digest = hashlib.sha256(repr([self.shared, *(getattr(self, n) for n in PER_RUN)]).encode())
        for array in arrays:
            digest.update(array.contiguous().numpy().tobytes())
        return digest.hexdigest()


def check(
    network, task, steps, seed, init_scale, start, lr, readout_speed, weight_decay, record_at, **shared
) -> Settings:
    """Settings from the arguments of :func:`grokutils.training.train`, or a ValueError that says what is wrong."""
    if not isinstance(network, Network):
        raise ValueError(f"network is a {type(network).__name__}: must be a networks.Network")
    steps = _checks.integer("steps", steps, 1)
    per_run = {
        "task": task if isinstance(task, Sequence) else (task,),
        **{
            name: tuple(value) if isinstance(value, Sequence | np.ndarray | range) else (value,)
            for name, value in zip(PER_RUN, (seed, init_scale, lr, readout_speed, weight_decay), strict=True)
        },
    }
    lengths = {name: len(values) for name, values in per_run.items()}
    if start is not None:
        lengths["start"] = len(_checks.tensor("start", start, ndim=2))
    R = max(lengths.values())
    if not set(lengths.values()) <= {1, R}:
        listed = ", ".join(f"{name} has {length}" for name, length in lengths.items() if length != 1)
        raise ValueError(f"settings listed run by run must have equal lengths: {listed}")
    tasks, seed, init_scale, lr, readout_speed, weight_decay = (
        tuple(values) * (R // len(values)) for values in per_run.values()
    )
    for one in dict.fromkeys(tasks):
        _check_task(one, network, tasks[0])
    for value in seed:
        _checks.integer("seed", value, 0)
    for name, values, zero in (
        ("lr", lr, False),
        ("readout_speed", readout_speed, False),
        ("weight_decay", weight_decay, True),
    ):
        for value in values:
            _checks.real(name, value, 0, open_low=not zero)
    _check_shared(**shared)
    if shared["batch_size"] is not None:
        sizes = {one.n_train for one in tasks}
        if len(sizes) > 1:
            raise ValueError(f"batch_size needs runs of equally many training samples; these have {sizes}")
        _checks.integer("batch_size", shared["batch_size"], 1, sizes.pop())
    if shared["loss"] == "cross_entropy":
        for one in dict.fromkeys(tasks):
            _check_probabilities(one)
    dtype = tasks[0].X_train.dtype
    if start is None:
        start = torch.stack(
            [network.init(s, scale, dtype=dtype) for s, scale in zip(seed, init_scale, strict=True)]
        )
    elif start.shape[1] != network.d or start.dtype != dtype:
        raise ValueError(
            f"start has shape {tuple(start.shape)} and dtype {start.dtype}: must be (runs, {network.d}) of {dtype}"
        )
    start = start.expand(R, -1)
    return Settings(
        network,
        tasks,
        seed,
        init_scale,
        lr,
        readout_speed,
        weight_decay,
        _schedule(steps, record_at),
        start=start,
        **shared,
    )


def _check_shared(loss, reduction, optimizer, momentum, batch_size):
    _checks.one_of("loss", loss, LOSSES)
    _checks.one_of("reduction", reduction, REDUCTIONS)
    _checks.one_of("optimizer", optimizer, OPTIMIZERS)
    momentum = _checks.real("momentum", momentum, 0, 1, open_high=True)
    if momentum and optimizer != "gd":
        raise ValueError(
            f"momentum = {momentum!r}: must be 0 for optimizer = {optimizer!r}, which has its own"
        )


def _check_task(task: Task, network: Network, first: Task) -> None:
    if not isinstance(task, Task):
        raise ValueError(f"task is a {type(task).__name__}: must be a tasks.Task")
    for part in ("train", "test"):
        X, Y = getattr(task, f"X_{part}"), getattr(task, f"Y_{part}")
        if not len(X):
            raise ValueError(f"task '{task.name}' has no {part} samples: both parts must be non-empty")
        if (X.shape[1], Y.shape[1]) != (network.d_in, network.d_out):
            raise ValueError(
                f"task '{task.name}' maps {X.shape[1]} inputs to {Y.shape[1]} outputs: "
                f"must be {network.d_in} to {network.d_out}, as the network does"
            )
    _checks.same("dtypes of tasks", first=first.X_train.dtype, **{task.name: task.X_train.dtype})


def _check_probabilities(task: Task) -> None:
    for Y in (task.Y_train, task.Y_test):
        if (Y < 0).any() or not torch.allclose(Y.sum(1), Y.new_ones(len(Y))):
            raise ValueError(
                f"loss = 'cross_entropy': the targets of task '{task.name}' must be probabilities, each row summing to 1"
            )


def _schedule(steps: int, record_at) -> np.ndarray:
    if isinstance(record_at, int) and not isinstance(record_at, bool):
        return records.log_spaced(steps, _checks.integer("record_at", record_at, 2))
    chosen = np.asarray(record_at)
    if (
        chosen.ndim != 1
        or not chosen.size
        or chosen.dtype.kind not in "iu"
        or chosen.min() < 0
        or chosen.max() > steps
    ):
        raise ValueError(
            f"record_at = {record_at!r}: must be a number of records, or steps from 0 to {steps}"
        )
    return np.unique(np.concatenate([[0], chosen, [steps]]))
