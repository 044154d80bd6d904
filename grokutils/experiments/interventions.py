"""Interventions from one landed point, what each one's own flow predicts, and the runs that test it (chapter 12).

``python -m grokutils.experiments interventions predict`` writes what is predicted, ``… interventions run`` reads it and makes the runs,
``… interventions ball`` the runs without decay inside a ball. Rows say when they were made: that is the order.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from .. import flow, losses, records, tasks, training, zero_loss
from ..flow import Decay, GroupNorms, Penalty, WeightedDecay
from ..interventions import (
    Flatness,
    Scaled,
    instead_of_decay,
    norm_at_most,
    only_descent,
    without_descent,
)
from ..linearization import linearize
from ..models import TwoLayer, two_layer
from ..tasks import Task
from .running import run

PATHS = {
    name: str(files("grokutils") / "data" / f"interventions_{name}.nc") for name in ("predict", "run", "ball")
}
SETTINGS = {  # lr·w = 0.0012: slow time 1 is 833 steps
    "gelu": {"p": 9, "width": 40, "fraction": 0.85, "lr": 1.5, "w": 8e-4},
    "quadratic": {"p": 11, "width": 48, "fraction": 0.85, "lr": 1.5, "w": 8e-4},
}
SEEDS = range(100, 105)
POINTS = 60  # of each stored curve
HORIZON, WATCHED = (
    2.5,
    1.5,
)  # times the plain run's delay: how far a flow is followed; how far a run that is to do nothing is
NOISE = 0.15  # of the pull of decay at the start: the pull of label noise towards flat places
ROUNDING = 0.02  # of |θ_i| in ℓ1, in units of θ
LEVELS = (0.25, 0.5, 0.75)  # of the way from the landed norm to the norm at which the limit flow generalizes
EVERY, AVERAGED = 5, 300  # steps between records; steps over which θ is averaged where there is noise
BALL_STEPS = 2500

# Written before the first run, for seeds that nothing had used.
RULES = {
    "kept": "A prediction of an intervention's own flow is kept by a run if both generalize (held-out loss at half of that of the output "
    "0) and slow times agree within 3 %, or neither does: the flow within 2.5 times the delay under plain decay, the run within 1.5 times. Each "
    "intervention and activation by itself: kept in every run.",
    "only-the-component": "With the component along −P_Tθ taken out no run generalizes; with that component alone every run does, within "
    "2 % of the limit flow's time.",
    "penalized-norm": "With decay on E alone every run generalizes, and the total norm is higher then than at the landed point.",
    "rivals": "A rival names an observable (total norm, tr K, how far K turned, distance) that has, when a run generalizes, the value that it "
    "has when the plain flow does: it keeps a prediction if slow times agree within 10 %, or neither comes. The book's account does better "
    "if it keeps more of the predictions than each rival, for each activation.",
    "ball": "Without decay, inside the ball of the limit flow's norm at a quarter, a half and three quarters of the way to its "
    "generalization, gradient descent ends with the limit flow's held-out loss at that norm, within 3 %, in every run.",
}
INTERVENTIONS = {
    "plain decay": "the run itself",
    "decay off": "no decay",
    "norm clamped": "decay on, θ scaled back to its norm after each step",
    "descent removed": "decay on, each update without its component along −P_Tθ",
    "descent only": "each update is that component and nothing else",
    "random drift": "a constant random force in place of decay",
    "decay on E": "decay on the first layer only",
    "decay on W": "decay on the second layer only",
    "ℓ1": "the gradient of Σ|θ_i| in place of θ",
    "flatness": "the gradient of tr K in place of θ",
    "label noise": "no decay, fresh noise on the labels in each step",
    "noise and decay": "both",
}
STILL = ("decay off", "norm clamped", "descent removed")  # nothing moves along Z


@dataclass(frozen=True)
class Case:
    """One landed point."""

    activation: str
    seed: int


# Not predicted to generalize at all: gelu with seed 102. Another stands in its place.
CASES = [Case("gelu", seed) for seed in (*SEEDS, 105)] + [Case("quadratic", seed) for seed in SEEDS]


@dataclass(frozen=True, eq=False)
class Landed:
    """A network on Z, reached without decay, and the pulls that are set against each other there."""

    model: TwoLayer
    task: Task
    theta: Tensor
    lr: float
    w: float
    noise: float  # standard deviation of label noise
    penalties: dict[str, Penalty]
    drift: Tensor  # (d,) the constant force

    @property
    def lam(self) -> float:
        """The study's λ."""
        return losses.lam("squared_error", self.task.Y_train, self.w)

    @property
    def clock(self) -> flow.Event:
        """The held-out loss falls to half of that of the output 0."""
        return flow.held_out_loss(self.model, self.task)


def landed(case: Case) -> Landed:
    """Train without decay until the table is memorized, then Gauss–Newton steps onto Z. ℓ1, flatness and drift pull as long along Z as decay."""
    chosen = SETTINGS[case.activation]
    p, lr, w = chosen["p"], chosen["lr"], chosen["w"]
    model = two_layer(p, chosen["width"], p, case.activation)
    task = tasks.modular(p, train_fraction=chosen["fraction"], seed=case.seed)
    memorized = flow.memorized(model, task)
    run = training.train(
        model, task, 20_000, seed=case.seed, lr=2.0, weight_decay=0.0, record_at=range(0, 20_000, 20),
        until=lambda record: memorized.value(record.theta[0]) <= 0,
    )  # fmt: skip
    theta = zero_loss.gauss_newton(
        model, torch.from_numpy(run.theta_end.values[0]), task.X_train, task.Y_train
    )
    lin = linearize(model, theta, task.X_train)

    def length(v: Tensor) -> float:
        return float((v - lin.vjp(lin.solve(lin.jvp(v)))).norm())

    pull, generator = length(theta), torch.Generator().manual_seed(case.seed)
    drift = torch.randn(model.d, generator=generator, dtype=torch.float64)
    l1, flat = GroupNorms(torch.arange(model.d), ROUNDING), Flatness(model, task.X_train)
    of_flat = pull / length(flat.gradient(theta))
    penalties: dict[str, Penalty] = {
        "plain decay": Decay(),
        "decay on E": WeightedDecay(model, {"W": 0.0}),
        "decay on W": WeightedDecay(model, {"E": 0.0}),
        "ℓ1": Scaled((pull / length(l1.gradient(theta)), l1)),
        "flatness": Scaled((of_flat, flat)),
        "label noise": Scaled((NOISE * of_flat, flat)),
        "noise and decay": Scaled((1.0, Decay()), (NOISE * of_flat, flat)),
        "random drift": Scaled((0.0, Decay())),
    }
    noise = (
        task.Y_train.numel() * (NOISE * of_flat * w / lr) ** 0.5
    )  # a step of it pulls by lr·(lr d²/N²)∇tr K
    return Landed(model, task, theta, lr, w, noise, penalties, drift * pull / length(drift))


# What is predicted --------------------------------------------------------------------------------------------------


def predict(case: Case) -> list[dict]:
    """One row for each intervention: slow time of the clock on its own flow, and when rivals' observables have the plain flow's value."""
    at, tau_end, rows, levels = landed(case), 8.0, [], None
    for name in INTERVENTIONS:
        path = followed(at, name, tau_end)
        seen = None if path is None else observed(at, path)
        if name == "plain decay":
            assert path is not None
            tau = float(path.event_tau[0])
            tau_end = HORIZON * tau if np.isfinite(tau) else 8.0
            levels = {key: np.interp(tau, path.tau, values) for key, values in seen.items()}
        rows.append({"intervention": name, **foretold(path, seen, levels, tau_end), "when": time.time()})
    return rows


def followed(at: Landed, name: str, tau_end: float) -> xr.Dataset | None:
    """The flow of an intervention, to its clock or ``tau_end``; None where it stays where it is."""
    if name in STILL:
        return None
    return flow.follow(
        at.model, at.theta, at.task,
        lam=0.0 if name == "descent only" else at.lam,
        penalty=at.penalties.get(name),
        force=(lambda theta: at.drift) if name == "random drift" else None,
        tau_end=tau_end, tolerance=3e-4, until=at.clock, keep_theta=True,
    )  # fmt: skip


def observed(at: Landed, path: xr.Dataset) -> dict[str, np.ndarray]:
    """What rivals look at, along a flow: total norm, tr K, how far K turned (one minus the cosine), distance from the start."""
    flat = Flatness(at.model, at.task.X_train)
    thetas = torch.from_numpy(path.theta.values)
    first = linearize(at.model, thetas[0], at.task.X_train).gram()
    turned = []
    for theta in thetas:
        K = linearize(at.model, theta, at.task.X_train).gram()
        turned.append(1 - float((K * first).sum() / (K.norm() * first.norm())))
    return {
        "norm": path.norm2.values,
        "flatness": np.array([flat.value(theta) for theta in thetas]),
        "kernel": np.array(turned),
        "distance": (thetas - thetas[0]).norm(dim=1).numpy(),
    }


def foretold(path, seen, levels, tau_end: float) -> dict:
    """The columns of a prediction."""
    grid = np.linspace(0, tau_end, POINTS)
    row = {"tau": np.nan, "until": tau_end, "curve_tau": grid}
    still = np.full(POINTS, np.nan)
    row |= {
        "curve_loss": still,
        "curve_norm2": still,
        "norm2": np.nan,
        "flat_start": np.nan,
        "flat_end": np.nan,
    }
    row |= {f"by_{key}": np.nan for key in levels}
    if path is None:
        return row
    row["tau"] = float(path.event_tau[0])
    for key, values in seen.items():
        falls = levels[key] < values[0]
        row[f"by_{key}"] = first_time(
            path.tau.values, values - levels[key] if falls else levels[key] - values
        )
    past = grid > float(path.tau[-1])
    for name, column in (("curve_loss", path.test_loss / path.test_baseline), ("curve_norm2", path.norm2)):
        row[name] = np.where(past, np.nan, np.interp(grid, path.tau, column))
    row["norm2"] = float(path.norm2[-1])
    row["flat_start"], row["flat_end"] = seen["flatness"][[0, -1]]
    return row


def first_time(tau: np.ndarray, values: np.ndarray) -> float:
    """Where ``values``, linear between ``tau``, first fall to 0 (a millionth of their start counts as 0); NaN if never."""
    small = 1e-6 * abs(values[0])
    below = np.flatnonzero(values <= small)
    if not len(below):
        return float("nan")
    i = int(below[0])
    if i == 0 or values[i] >= 0:
        return float(tau[i])
    return float(tau[i - 1] + values[i - 1] / (values[i - 1] - values[i]) * (tau[i] - tau[i - 1]))


# The runs ------------------------------------------------------------------------------------------------------------


def measure(case: Case) -> list[dict]:
    """One run for each intervention, a quarter longer than its prediction, or :data:`WATCHED` times the plain delay where none is."""
    told = stored("predict")
    told = told[(told.activation == case.activation) & (told.seed == case.seed)].set_index("intervention").tau
    if not len(told):
        raise ValueError(f"{case}: has no predictions; run `interventions predict` first")
    at, plain = landed(case), float(told["plain decay"])
    if not np.isfinite(plain):
        return []
    return [
        {
            "intervention": name,
            **ran(at, name, 1.25 * told[name] if np.isfinite(told[name]) else WATCHED * plain),
        }
        for name in INTERVENTIONS
    ]


def ran(at: Landed, name: str, tau_end: float) -> dict:
    """The columns of a run."""
    pace = at.lr * at.w
    steps = round(tau_end / pace)
    run = trained(at, name, steps)
    tau, loss = pace * run.step.values, (run.test_loss / run.test_baseline).values
    if "noise" in name:  # of θ averaged over the steps around, or fluctuations would add to it
        smooth = pd.DataFrame(run.theta.values).rolling(AVERAGED // EVERY, center=True, min_periods=1).mean()
        F = at.model(torch.tensor(smooth.to_numpy()), at.task.X_test)
        loss = ((F - at.task.Y_test).square().mean((1, 2)) / at.task.Y_test.square().mean()).numpy()
    grid = np.linspace(0, pace * steps, POINTS)
    end = torch.from_numpy(run.theta_end.values)
    flat = Flatness(at.model, at.task.X_train)
    return {
        "tau": first_time(tau, loss - 0.5),
        "until": pace * steps,
        "curve_tau": grid,
        "curve_loss": np.interp(grid, tau, loss),
        "curve_norm2": np.interp(grid, tau, run.norm2.values),
        "norm2_start": float(run.norm2[0]),
        "norm2": float(run.norm2[-1]),
        "accuracy": float(run.test_accuracy[-1]),
        "train": float(run.train_loss[-1] / run.train_baseline),
        "flat_start": flat.value(at.theta),
        "flat_end": flat.value(end),
        "when": time.time(),
    }


def trained(at: Landed, name: str, steps: int) -> xr.Dataset:
    """Gradient descent from the landed point under an intervention."""
    X, hooks = at.task.X_train, []
    if name == "norm clamped":
        hooks = [training.clamp_norm()]
    elif name == "descent removed":
        hooks = [without_descent(at.model, X)]
    elif name == "descent only":
        hooks = [only_descent(at.model, X)]
    elif name == "random drift":
        hooks = [instead_of_decay(lambda theta: -at.drift)]
    elif name in at.penalties and name not in ("plain decay", "label noise", "noise and decay"):
        hooks = [instead_of_decay(at.penalties[name].gradient)]
    return training.train(
        at.model, at.task, steps, theta0=at.theta, lr=at.lr,
        weight_decay=0.0 if name in ("decay off", "label noise") else at.w,
        label_noise=at.noise if "noise" in name else 0.0, hooks=hooks,
        record_at=range(0, steps, EVERY), keep_theta="noise" in name,
    ).isel(run=0)  # fmt: skip


def ball(case: Case) -> list[dict]:
    """Gradient descent without decay inside balls of smaller and smaller norm, beside the limit flow at equal norm."""
    at = landed(case)
    path = flow.follow(at.model, at.theta, at.task, lam=0, tau_end=8.0, tolerance=1e-4, until=at.clock)
    rows = []
    for level in LEVELS:
        norm2 = float(path.norm2[0] + level * (path.norm2[-1] - path.norm2[0]))
        run = training.train(
            at.model, at.task, BALL_STEPS, theta0=at.theta, lr=at.lr, weight_decay=0.0, hooks=[norm_at_most(norm2)],
            record_at=2,
        ).isel(run=0)  # fmt: skip
        rows.append(
            {
                "level": level,
                "norm2_start": float(path.norm2[0]),
                "bound": norm2,
                "norm2": float(run.norm2[-1]),
                "train": float(run.train_loss[-1] / run.train_baseline),
                "loss": float(run.test_loss[-1] / run.test_baseline),
                "start": float(path.test_loss[0] / path.test_baseline),
                "flow": float(np.interp(-norm2, -path.norm2, path.test_loss) / path.test_baseline),
                "when": time.time(),
            }
        )
    return rows


def stored(name: str) -> pd.DataFrame:
    """The rows of "predict", "run" or "ball" that the package holds, without curves."""
    held = records.load(PATHS[name])
    return held.drop_vars([key for key in held if "point" in held[key].dims]).to_dataframe()


# What the rules compare --------------------------------------------------------------------------------------------

RIVALS = ("norm", "flatness", "kernel", "distance")
WITHIN, RIVALS_WITHIN = 0.03, 0.10


def scores(told: pd.DataFrame, ran: pd.DataFrame) -> pd.DataFrame:
    """Predictions beside their runs, one row an intervention and landed point, where the run itself (plain decay) generalizes.

    ``tau`` and ``tau_ran``, NaN for never; ``error`` = tau ÷ tau_ran − 1; ``kept``; and for each rival ``by_…`` (slow time) and ``kept_…``.
    """
    keys = ["activation", "seed", "intervention"]
    both = told.set_index(keys).join(ran.set_index(keys).add_suffix("_ran"), how="inner").reset_index()
    both["error"] = both.tau / both.tau_ran - 1
    both["kept"] = agree(both.tau, both.tau_ran, WITHIN)
    for rival in RIVALS:
        both[f"kept_{rival}"] = agree(both[f"by_{rival}"], both.tau_ran, RIVALS_WITHIN)
    return both


def agree(tau: pd.Series, other: pd.Series, within: float) -> pd.Series:
    """Whether both are never (NaN), or neither is and they differ by at most a share ``within`` of the second."""
    return (tau.isna() & other.isna()) | ((tau / other - 1).abs() <= within)


MAKERS: dict[str, Callable[[Case], list[dict]]] = {"predict": predict, "run": measure, "ball": ball}


def main(what: str) -> None:
    """Make one of the three files, or what is left of it: ``what`` is "predict", "run" or "ball"."""
    run(CASES, MAKERS[what], PATHS[what])
