"""Steps of any model with any optimizer of torch.optim, one run after the other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from .data import label_noise, shuffled
from .settings import Settings


class State:
    """One run, as a hook sees and changes it; all tensors share memory with the run's own.

    Attributes
    ----------
    run : its number, from 0.
    step : how many steps were made so far.
    theta : (d,), to be changed in place.
    gradient : (d,), of the mean loss, to be changed in place.
    parameters : θ by name and in shape, in the same memory.
    gradients : the gradient by name and in shape, in the same memory.
    lr : learning rate of this step; set it before the step is made.
    weight_decay : of this step, PyTorch's w; set it before the step is made.
    memory : a dict of tensors of the hook's own, kept in checkpoints.
    """

    def __init__(self, settings: Settings, run: int):
        self.run, self.step, self.memory = run, 0, {}  # type: int, int, dict[str, Tensor]
        self.theta = settings.theta0[run].clone()
        self.gradient = torch.zeros_like(self.theta)
        model = settings.model
        self.parameters = {name: nn.Parameter(view) for name, view in model.matrices(self.theta).items()}
        self.gradients = model.matrices(self.gradient)
        for name, each in self.parameters.items():
            each.grad = self.gradients[name]
        *first, last = self.parameters.values()
        self.speeds = [1.0] * bool(first) + [settings.per_run["readout_speed"][run]]
        groups = [{"params": group} for group in (first, [last]) if group]
        self.lr = self.weight_decay = 0.0
        self.optimizer = settings.rule.make(groups, lr=1.0, weight_decay=0.0)

    def update(self) -> None:
        """Let the optimizer make its step."""
        for group, speed in zip(self.optimizer.param_groups, self.speeds, strict=True):
            group["lr"], group["weight_decay"] = self.lr * speed, self.weight_decay
        self.optimizer.step()


Hook = Callable[[State, Callable[[], None]], None]


class General:
    """The runs, and what the loop asks of them."""

    look = 1  # steps between looks for a run that diverged

    def __init__(self, settings: Settings):
        self.settings = settings
        self.runs = [State(settings, run) for run in range(len(settings.tasks))]

    @property
    def theta(self) -> Tensor:
        """(R, d)"""
        return torch.stack([run.theta for run in self.runs])

    def step(self, step: int, lr: np.ndarray, weight_decay: np.ndarray) -> np.ndarray:
        """Make step number ``step`` (from 0); returns lr · weight_decay as hooks left them, (R,)."""
        for run in self.runs:
            run.step, run.lr, run.weight_decay = step, float(lr[run.run]), float(weight_decay[run.run])
            run.gradient.copy_(self._gradient(run))
            update: Callable[[], None] = run.update
            for hook in reversed(self.settings.hooks):
                update = partial(hook, run, update)
            with torch.no_grad():
                update()
        return np.array([run.lr * run.weight_decay for run in self.runs])

    def _gradient(self, run: State) -> Tensor:
        settings, task = self.settings, self.settings.tasks[run.run]
        X, Y, seed = task.X_train, task.Y_train, settings.per_run["seed"][run.run]
        if noise := settings.per_run["label_noise"][run.run]:
            Y = Y + label_noise(seed, run.step, Y, noise)
        if settings.batch_size is not None:
            epoch, batch = divmod(run.step, -(-len(X) // settings.batch_size))
            index = shuffled(seed, epoch, len(X))[batch * settings.batch_size :][: settings.batch_size]
            X, Y = X[index], Y[index]
        with torch.enable_grad():
            theta = run.theta.detach().requires_grad_()
            loss = settings.loss.value(settings.model(theta, X), Y) / settings.loss.count(Y)
        return torch.autograd.grad(loss, theta)[0]

    def measure(self) -> dict[str, np.ndarray]:
        """Losses, and shares of samples whose largest output is the right one, each (R,)."""
        measured: dict[str, list] = {}
        with torch.no_grad():
            for run, task in zip(self.runs, self.settings.tasks, strict=True):
                for part in ("train", "test"):
                    X, Y = getattr(task, f"X_{part}"), getattr(task, f"Y_{part}")
                    F = self.settings.model(run.theta, X)
                    loss = self.settings.loss.value(F, Y) / self.settings.loss.count(Y)
                    right = (F.argmax(1) == Y.argmax(1)).double().mean()
                    measured.setdefault(f"{part}_loss", []).append(float(loss))
                    measured.setdefault(f"{part}_accuracy", []).append(float(right))
                    measured.setdefault(f"{part}_silent", []).append(bool((F == 0).all()))
        return {name: np.array(values) for name, values in measured.items()}

    def state(self) -> dict:
        """Everything that the next steps depend on."""
        return {
            str(run.run): {"theta": run.theta, "memory": run.memory, "optimizer": run.optimizer.state_dict()}
            for run in self.runs
        }

    def restore(self, state: dict) -> None:
        """Go to where ``state`` was taken."""
        for run in self.runs:
            stored = state[str(run.run)]
            run.theta.copy_(stored["theta"])
            run.memory = stored["memory"]
            run.optimizer.load_state_dict(stored["optimizer"])
            parameters = [each for group in run.optimizer.param_groups for each in group["params"]]
            for index, values in stored["optimizer"]["state"].items():
                run.optimizer.state[parameters[index]].update(
                    values
                )  # PyTorch has cast some to the weights' dtype
