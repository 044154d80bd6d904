"""Steps of two-layer networks, all runs at once: the fast path of training."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from .. import losses
from ..models import TwoLayer
from .data import Rows, label_noise, rows, shuffled
from .gradients import Loss
from .optimizers import Kernel
from .settings import Settings

CACHED_ENTRIES = 2**18  # of one hidden layer that still fit a core's cache: larger batches are done in parts


def serves(settings: Settings) -> bool:
    """Whether the runs are of the kind that this does; :mod:`.general` makes the same steps for all others."""
    return (
        isinstance(settings.model, TwoLayer)
        and settings.loss in (losses.squared_error, losses.cross_entropy)
        and settings.rule.kernel
        and not settings.hooks
        and (settings.batch_size is None or not any(settings.per_run["label_noise"]))
    )


class Batched:
    """All runs' parameters as one flat tensor: every E, then every V = Wᵀ, so that one operation moves all."""

    look = 500  # steps between looks for a run that diverged

    def __init__(self, settings: Settings):
        assert isinstance(settings.model, TwoLayer)
        self.settings, self.model = settings, settings.model
        net, R = self.model, len(settings.tasks)
        matrices = net.matrices(settings.theta0)
        self.E_shape, self.V_shape = (R, net.d_in, net.width), (R, net.d_out, net.width)
        self.flat = torch.cat([matrices["E"].flatten(), matrices["W"].mT.flatten()])
        self.gradient = torch.empty_like(self.flat)
        self.E, self.V = self._layers(self.flat)
        self.gradient_E, self.gradient_V = self._layers(self.gradient)
        self.optimizer = Kernel(settings.rule, self.flat)
        self.lr = self.weight_decay = np.full(R, np.nan)
        self.noisy = any(settings.per_run["label_noise"])
        full = settings.batch_size is None
        merge = full and not self.noisy  # equal samples have labels of their own under noise
        train = rows([(task.X_train, task.Y_train) for task in settings.tasks], merge)
        test = rows([(task.X_test, task.Y_test) for task in settings.tasks], merge=True)
        size = max(1, CACHED_ENTRIES // (net.width * (settings.batch_size or train.Y.shape[1])))
        self.parts = [slice(first, min(first + size, R)) for first in range(0, R, size)]
        self.train = [self._loss(train.runs(part)) for part in self.parts]
        self.test = [self._loss(test.runs(part)) for part in self.parts]
        self.epoch, self.order = -1, torch.empty(0)  # of each run's samples in this epoch, (R, n)

    def _loss(self, part: Rows) -> Loss:
        return Loss(self.model.activation, self.settings.loss is losses.squared_error, part)

    def _layers(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        split = math.prod(self.E_shape)
        return flat[:split].view(self.E_shape), flat[split:].view(self.V_shape)

    @property
    def theta(self) -> Tensor:
        """(R, d)"""
        return torch.cat([self.E.flatten(1), self.V.mT.flatten(1)], dim=1)

    def _spread(self, first: np.ndarray, second: np.ndarray) -> float | Tensor:
        """Values of each run, for its layers 1 and 2, as a tensor like θ; one number where all are equal."""
        if (first == first[0]).all() and (second == first[0]).all():
            return float(first[0])
        result = torch.empty_like(self.flat)
        for layer, values in zip(self._layers(result), (first, second), strict=True):
            layer.copy_(torch.from_numpy(values)[:, None, None])
        return result

    def step(self, step: int, lr: np.ndarray, weight_decay: np.ndarray) -> np.ndarray:
        """Make step number ``step`` (from 0); returns lr · weight_decay, (R,)."""
        if lr is not self.lr or weight_decay is not self.weight_decay:
            self.lr, self.weight_decay, self.pace = lr, weight_decay, lr * weight_decay
            speeds = lr * np.array(self.settings.per_run["readout_speed"])
            self.optimizer.rates(self._spread(lr, speeds), self._spread(weight_decay, weight_decay))
        for part, loss in zip(self.parts, self._batch(step), strict=True):
            targets = self._noisy(part, loss.targets, step) if self.noisy else None
            loss.gradient(self.E[part], self.V[part], self.gradient_E[part], self.gradient_V[part], targets)
        self.optimizer.step(self.flat, self.gradient, step + 1)
        return self.pace

    def _batch(self, step: int) -> list[Loss]:
        size = self.settings.batch_size
        if size is None:
            return self.train
        n = self.settings.tasks[0].n_train
        epoch, batch = divmod(step, -(-n // size))
        if epoch != self.epoch:
            orders = [shuffled(seed, epoch, n) for seed in self.settings.per_run["seed"]]
            self.epoch, self.order = epoch, torch.stack(orders)
        index = self.order[:, batch * size : (batch + 1) * size]
        return [
            self._loss(loss.rows.take(index[part])) for part, loss in zip(self.parts, self.train, strict=True)
        ]

    def _noisy(self, part: slice, targets: Tensor, step: int) -> Tensor:
        """``targets`` (R, d_out, n) of some runs with this step's label noise."""
        result = targets.clone()
        runs = range(*part.indices(len(self.settings.tasks)))
        for at, run in enumerate(runs):
            task, seed = self.settings.tasks[run], self.settings.per_run["seed"][run]
            noise = label_noise(seed, step, task.Y_train, self.settings.per_run["label_noise"][run])
            result[at, :, : task.n_train] += noise.mT
        return result

    def measure(self) -> dict[str, np.ndarray]:
        """Losses, and shares of samples whose largest output is the right one, each (R,)."""
        measured = {}
        for kind, parts in (("train", self.train), ("test", self.test)):
            each = [
                loss.measure(self.E[part], self.V[part]) for part, loss in zip(self.parts, parts, strict=True)
            ]
            for name, values in zip(("loss", "accuracy", "silent"), zip(*each, strict=True), strict=True):
                measured[f"{kind}_{name}"] = torch.cat(values).numpy()
        return measured

    def state(self) -> dict:
        """Everything that the next steps depend on."""
        return {"theta": self.flat.clone(), "optimizer": [slot.clone() for slot in self.optimizer.state]}

    def restore(self, state: dict) -> None:
        """Go to where ``state`` was taken."""
        self.flat.copy_(state["theta"])
        for own, stored in zip(self.optimizer.state, state["optimizer"], strict=True):
            own.copy_(stored)
