"""Settings of a batch of runs: checked before any work, and recognized again by a checkpoint."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import _checks, losses, records
from ..losses import Loss
from ..models import Model, check_outputs
from ..tasks import Task
from . import optimizers
from .optimizers import Rule

PER_RUN = ("seed", "init_scale", "lr", "readout_speed", "weight_decay", "label_noise")
CLOCKS = ("step", "tau")  # what a schedule may be a function of


@dataclass(frozen=True)
class Schedule:
    """A setting that changes with the step or with slow time."""

    name: str
    function: Callable[[float], float]
    of: str

    def __call__(self, step: int, tau: np.ndarray) -> np.ndarray:
        """Its value for each run, (R,)."""
        at = np.full(len(tau), step) if self.of == "step" else tau
        return np.array(
            [_checks.real(f"{self.name} at {self.of} {t:g}", self.function(t), 0) for t in at.tolist()]
        )


@dataclass(frozen=True)
class Settings:
    """What a batch of R runs does; ``per_run`` holds R values of each name of :data:`PER_RUN`, or a schedule."""

    model: Model
    tasks: tuple[Task, ...]
    theta0: Tensor  # (R, d)
    per_run: dict[str, tuple | Schedule]
    steps: np.ndarray  # at which to record, ascending, from 0
    loss: Loss
    rule: Rule
    batch_size: int | None
    hooks: tuple[Callable, ...]
    keep_theta: bool

    def rate(self, name: str, step: int, tau: np.ndarray) -> np.ndarray:
        """A setting of each run at a step, (R,)."""
        value = self.per_run[name]
        return value(step, tau) if isinstance(value, Schedule) else np.array(value)

    @property
    def attributes(self) -> dict[str, str | int | float]:
        """What all runs share, as dataset attributes."""
        schedules = {k: f"function of {v.of}" for k, v in self.per_run.items() if isinstance(v, Schedule)}
        return {
            "model": self.model.name,
            "loss": self.loss.name,
            "optimizer": self.rule.name,
            "momentum": self.rule.momentum,
            "batch_size": "all samples" if self.batch_size is None else self.batch_size,
            "dtype": str(self.theta0.dtype).removeprefix("torch."),
            **schedules,
        }

    @property
    def fingerprint(self) -> str:
        """A hash of everything that decides the numbers, but not of where the runs end."""
        shown = [self.attributes, self.rule.options, self.model.shapes, self.keep_theta]
        shown += [getattr(hook, "__qualname__", type(hook).__qualname__) for hook in self.hooks]
        for name in PER_RUN:
            value = self.per_run[name]
            shown.append([value.function(t) for t in _PROBES] if isinstance(value, Schedule) else value)
        digest = hashlib.sha256(repr(shown).encode())
        for array in (*_constants(self.model), self.theta0, *self._data()):
            digest.update(array.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def _data(self) -> list[Tensor]:
        F = torch.linspace(-1, 1, self.tasks[0].Y_train.numel()).view_as(self.tasks[0].Y_train)
        probe = self.loss.gradient(
            F, self.tasks[0].Y_train
        )  # a loss of the user's may have the name of another
        arrays = (t for task in self.tasks for t in (task.X_train, task.Y_train, task.X_test, task.Y_test))
        return [probe, *arrays]


_PROBES = (0, *(10**k for k in range(8)))


def _constants(model: Model) -> list[Tensor]:
    """What else a model consists of: its activation, or a module's buffers and frozen weights."""
    activation, module = getattr(model, "activation", None), getattr(model, "module", None)
    if activation is not None:
        return [activation.value(torch.linspace(-2, 2, 9, dtype=torch.float64))]
    if module is None:
        return []
    shown = torch.frombuffer(bytearray(repr(module).encode()), dtype=torch.uint8)
    return [shown, *(value for key, value in module.state_dict().items() if key not in model.shapes)]


def check(
    model,
    task,
    steps,
    *,
    theta0,
    loss,
    optimizer,
    momentum,
    batch_size,
    record_at,
    hooks,
    keep_theta,
    **per_run,
) -> Settings:
    """Settings from the arguments of :func:`grokutils.training.train`, or a ValueError that says what is wrong."""
    if not isinstance(model, Model):
        hint = ": give from_module(model)" if isinstance(model, torch.nn.Module) else ""
        raise ValueError(f"model is a {type(model).__name__}: must be a models.Model{hint}")
    steps = _checks.integer("steps", steps, 1)
    several = {"task": tuple(task) if isinstance(task, Sequence) and not isinstance(task, str) else (task,)}
    several |= {name: _values(name, value) for name, value in per_run.items() if not callable(value)}
    lengths = {name: len(values) for name, values in several.items()}
    if theta0 is not None:
        theta0 = _checks.tensor("theta0", theta0)
        theta0 = theta0[None] if theta0.ndim == 1 else _checks.tensor("theta0", theta0, ndim=2)
        lengths["theta0"] = len(theta0)
    R = max(lengths.values())
    if not set(lengths.values()) <= {1, R}:
        listed = ", ".join(f"{name} has {length}" for name, length in lengths.items() if length != 1)
        raise ValueError(f"settings listed run by run must have equal lengths: {listed}")
    several = {name: values * (R // len(values)) for name, values in several.items()}
    tasks = several.pop("task")
    settings: dict[str, Any] = {
        **several,
        **{name: _schedule(name, value) for name, value in per_run.items() if callable(value)},
    }
    loss, rule = losses.loss(loss), optimizers.rule(optimizer, momentum)
    distinct = tuple(dict.fromkeys(tasks))
    for one in distinct:
        _check_task(one, model, loss, tasks[0])
    dtype = tasks[0].Y_train.dtype
    if theta0 is None:
        pairs = zip(settings["seed"], settings["init_scale"], strict=True)
        theta0 = torch.stack([model.init(seed, scale, dtype=dtype) for seed, scale in pairs])
    if theta0.shape[1] != model.d or theta0.dtype != dtype:
        raise ValueError(
            f"theta0 has shape {tuple(theta0.shape)} and dtype {theta0.dtype}: must be (runs, {model.d}) of {dtype}"
        )
    for one in distinct:
        _check_outputs(one, model, theta0[0])
    if batch_size is not None:
        sizes = {one.n_train for one in tasks}
        if len(sizes) > 1:
            raise ValueError(f"batch_size needs runs of equally many training samples; these have {sizes}")
        batch_size = _checks.integer("batch_size", batch_size, 1, sizes.pop())
    if not callable(hooks) and not isinstance(hooks, Sequence):
        raise ValueError(f"hooks = {hooks!r}: must be a function (state, step), or a list of them")
    hooks = (hooks,) if callable(hooks) else tuple(hooks)
    for hook in hooks:
        if not callable(hook):
            raise ValueError(f"hooks: {hook!r} is not a function (state, step)")
    return Settings(
        model, tasks, theta0.expand(R, -1), settings, _record_steps(steps, record_at), loss, rule, batch_size,
        hooks, _checks.flag("keep_theta", keep_theta),
    )  # fmt: skip


def _values(name: str, value) -> tuple:
    """One setting as a tuple: of one value, or of those of each run."""
    if isinstance(value, np.ndarray | Tensor):
        value = value.tolist()
    values = tuple(value) if isinstance(value, Sequence | range) and not isinstance(value, str) else (value,)
    if name == "seed":
        return tuple(_checks.integer(name, each, 0) for each in values)
    positive = name not in ("weight_decay", "label_noise")
    return tuple(_checks.real(name, each, 0, open_low=positive) for each in values)


def _schedule(name: str, function: Callable) -> Schedule:
    if name not in ("lr", "weight_decay"):
        raise ValueError(f"{name} = {function!r}: only lr and weight_decay may change during a run")
    try:
        (of,) = (p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty)
    except (TypeError, ValueError):
        of = ""
    if of not in CLOCKS:
        raise ValueError(
            f"{name} is a function: its one argument must be named step or tau, to say what it is a schedule of"
        )
    return Schedule(name, function, of)


def _check_task(task: Task, model: Model, loss: Loss, first: Task) -> None:
    if not isinstance(task, Task):
        raise ValueError(f"task is a {type(task).__name__}: must be a tasks.Task")
    for part in ("train", "test"):
        X, Y = getattr(task, f"X_{part}"), getattr(task, f"Y_{part}")
        if not len(X):
            raise ValueError(f"task '{task.name}' has no {part} samples: both parts must be non-empty")
        try:
            model.check(X)
            loss.check(Y)
        except ValueError as error:
            raise ValueError(f"task '{task.name}', {part} samples: {error}") from error
    _checks.same("dtypes of tasks", first=first.Y_train.dtype, **{task.name: task.Y_train.dtype})


def _check_outputs(task: Task, model: Model, theta: Tensor) -> None:
    with torch.no_grad():
        F = model(theta, task.X_train[:2])
    check_outputs(F, task.X_train[:2], model.name)
    if F.shape[1] != task.Y_train.shape[1]:
        raise ValueError(
            f"task '{task.name}' has {task.Y_train.shape[1]} targets a sample: {model.name} gives {F.shape[1]} outputs"
        )


def _record_steps(steps: int, record_at) -> np.ndarray:
    if isinstance(record_at, int | np.integer | str | float) and not isinstance(record_at, bool):
        return records.log_spaced(steps, _checks.integer("record_at", record_at, 2))
    chosen = np.asarray(record_at)
    whole = chosen.ndim == 1 and chosen.size and chosen.dtype.kind in "iu"
    if not whole or chosen.min() < 0 or chosen.max() > steps:
        raise ValueError(
            f"record_at = {record_at!r}: must be a number of records, or steps from 0 to {steps}"
        )
    return np.unique(np.concatenate([[0], chosen, [steps]]))
