"""AdamW on full batches without noise: what the two experiments of chapter 15 that have no noise share.

A case is a dict: p, width, fraction, activation, loss, lr, w, beta2, tau_end, seed, and the relative size by which its start is perturbed.
Clocks are suffixes of columns → share of the output 0's held-out loss.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from .. import flow, losses, records, tasks, training
from ..errors import StoppedError
from ..models import TwoLayer, two_layer
from ..tasks import Task
from . import chain

LOOK = 20  # steps between looks
LONGEST = 900.0  # processor seconds after which a flow is given up
BEYOND = 0.9  # of the last clock's share: there a run ends


def setting(case: dict) -> tuple[TwoLayer, Task]:
    """The network and the data of a case."""
    p = case["p"]
    network = two_layer(p, case["width"], p, case["activation"])
    return network, tasks.modular(p, train_fraction=case["fraction"], seed=case["seed"])


def run(case: dict, steps: int, until=None) -> tuple[xr.Dataset, Tensor]:
    """The run itself, looked at every LOOK steps, and v̂ (d,) at its end."""
    network, task = setting(case)
    generator, start = torch.Generator().manual_seed(7), network.init(case["seed"])
    start = start * (1 + case["perturbed"] * torch.randn(len(start), generator=generator).double())
    held: dict = {}

    def keep(state, step) -> None:
        step()
        held["optimizer"] = state.optimizer

    made = training.train(
        network, task, steps, theta0=start, loss=case["loss"], lr=case["lr"], weight_decay=case["w"], hooks=[keep], until=until,
        optimizer=partial(torch.optim.AdamW, betas=(0.9, case["beta2"])), record_at=range(0, steps, LOOK),
    ).isel(run=0)  # fmt: skip
    v = torch.cat([part["exp_avg_sq"].flatten() for part in held["optimizer"].state.values()])
    return made, v / (1 - case["beta2"] ** max(int(made.step[-1]), 1))


def begun(case: dict) -> tuple[int, Tensor, Tensor]:
    """Memorization: its step, θ and v̂, (d,) each; step −1 where it does not come."""
    network, task = setting(case)
    memorized = flow.memorized(network, task, case["loss"])
    made, v = run(case, 20_000, lambda record: memorized.value(record.theta[0]) <= 0)
    step = int(made.step[-1]) if made.attrs["ended"] == "until" else -1
    return step, torch.from_numpy(made.theta_end.values), v


def predicted(case: dict, laws: dict[str, Callable], clocks: dict[str, float]) -> dict:
    """Step at which each law has each clock strike; NaN where it says never by slow time ``tau_end``.

    A law is a function (case, network, task, step, v̂) → inertia of the flow from memorization.
    """
    began = time.process_time()
    network, task = setting(case)
    step, theta, v = begun(case)
    row: dict = {"memorized": step, **{law + clock: np.nan for law in laws for clock in clocks}}
    if step >= 0:
        lam, pace = losses.lam(case["loss"], task.Y_train, case["w"]), case["lr"] * case["w"]
        for law, inertia in laws.items():
            events = [flow.held_out_loss(network, task, share, case["loss"]) for share in clocks.values()]
            last = min(zip(clocks.values(), events, strict=True), key=lambda pair: pair[0])[1]
            try:
                path = flow.follow(
                    network, theta, task, loss=case["loss"], lam=lam, tau_end=case["tau_end"] - pace * step,
                    inertia=inertia(case, network, task, step, v), tolerance=1e-3, until=last, seconds=LONGEST,
                    events=[event for event in events if event is not last],
                )  # fmt: skip
            except StoppedError:
                continue
            for clock, event in zip(clocks, events, strict=True):
                row[law + clock] = step + float(path.event_tau.sel(event=event.name)) / pace
    return {**row, "seconds": time.process_time() - began}


def frozen(case: dict, network: TwoLayer, task: Task, step: int, v: Tensor) -> flow.Inertia:
    """The law in which v̂ stays as it is at memorization."""
    return Held(v.sqrt() + 1e-8)


def moving(case: dict, network: TwoLayer, task: Task, step: int, v: Tensor) -> flow.Inertia:
    """The law in which v̂ follows the mean gradient."""
    return flow.QuietAdam(v, step, lr=case["lr"], weight_decay=case["w"], beta2=case["beta2"])


class Held:
    """An inertia (d,) that stays."""

    decoupled = True

    def __init__(self, inertia: Tensor):
        self.inertia = inertia

    def at(self, theta: Tensor, tau: float) -> Tensor:
        """(d,)."""
        return self.inertia

    def force(self, theta: Tensor, inertia: Tensor) -> Tensor:
        """None, (d,)."""
        return torch.zeros_like(theta)

    def passed(self, theta: Tensor, tau: float) -> None:
        """Nothing is remembered."""


def trained(case: dict, clocks: dict[str, float]) -> tuple[dict, Tensor, Tensor]:
    """The run to a little after its last clock, or to slow time ``tau_end``: its row, and θ and v̂ (d,) at its end."""
    began = time.process_time()
    network, task = setting(case)
    clock = flow.held_out_loss(network, task, BEYOND * min(clocks.values()), case["loss"])
    steps = round(case["tau_end"] / (case["lr"] * case["w"]))
    made, v = run(case, steps, lambda record: clock.value(record.theta[0]) <= 0)
    row = {
        **{
            f"step{suffix}": float(records.generalization(made, "loss", share))
            for suffix, share in clocks.items()
        },
        "accuracy": float(made.test_accuracy[-1]),
        "train_loss": float(made.train_loss[-1]),
        "steps": int(made.step[-1]),
        "seconds": time.process_time() - began,
    }
    return row, torch.from_numpy(made.theta_end.values), v


def scores(told: xr.Dataset, ran: xr.Dataset, laws, clocks) -> pd.DataFrame:
    """One row a run: its case, what was said and seen, and each law's relative errors of the delay, ``of_`` + law + clock."""
    runs = pd.DataFrame({name: told[name].values for name in told.coords})
    for part in (told, ran):
        for name in part.data_vars:
            if name not in ("seconds", "when", "tests"):
                runs[name] = part[name].values
    runs["delay"] = runs.step - runs.memorized
    for clock in clocks:
        for law in laws:
            runs[f"of_{law}{clock}"] = (runs[law + clock] - runs.memorized) / (
                runs["step" + clock] - runs.memorized
            ) - 1
    runs["chained"] = [chain.fingerprint(told.isel(run=i)) == ran.tests.values[i] for i in range(len(runs))]
    return runs
