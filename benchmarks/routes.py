"""To 99 % of the held-out pairs by each route, in a process of its own: time, evaluations, peak memory, growth with p.

All routes start from the same embedding. L-BFGS minimizes R(E); "adaptive" and "Euler" follow eq. 20; "joint flow" is
the slow flow of both layers at the λ of training, which stops at a held-out loss of 0.1 of the zero predictor's;
"training" is gradient descent itself at the same λ. Euler's steps of 1e-3, the study's, are what the others are
measured against.
"""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch
from scipy.integrate import RK23
from scipy.optimize import minimize

from benchmarks import _record
from grokutils import flow, isolated, models, tasks, training

SIZES = ((13, 96), (19, 192))  # (p, width), width above the number of training pairs
ACTIVATION = "quadratic"  # at these sizes ReLU's joint flow and training end below 99 %
FRACTION = 0.8
EULER = 5000  # steps of 1e-3, and evaluations by the others, after which a route is given up
LAM, CHUNK, STEPS = 0.05, 5000, 100_000  # training's λ, and its steps: between looks, at most
SMALL = {"sizes": ((5, 24),), "steps": CHUNK}


class Problem:
    """A task, its start, and eq. 20 that stops by itself once 99 % are right."""

    def __init__(self, p: int, width: int, steps: int):
        self.steps = steps  # of training, at most
        self.task = tasks.modular(p, train_fraction=FRACTION, seed=0)
        generator = torch.Generator().manual_seed(0)
        self.E0 = torch.randn(p, width, generator=generator, dtype=torch.float64) * p**-0.5
        self.model = models.two_layer(p, width, p, ACTIVATION)
        self.count = 0

    def right(self, E) -> bool:
        """Whether 99 % of the held-out pairs are right with the best readout."""
        guess = self.model.activation.value(self.task.X_test @ E) @ isolated.readout(
            E, self.task.X_train, self.task.Y_train, ACTIVATION
        )
        return float((guess.argmax(1) == self.task.Y_test.argmax(1)).double().mean()) >= 0.99

    def velocity(self, E):
        """Eq. 20, counted."""
        self.count += 1
        return isolated.velocity(E, self.task.X_train, self.task.Y_train, ACTIVATION)


def euler(problem: Problem) -> bool:
    """Steps of 1e-3, looked at every 20."""
    E = problem.E0
    for step in range(1, EULER + 1):
        E = E + 1e-3 * problem.velocity(E)
        if step % 20 == 0 and problem.right(E):
            return True
    return False


def adaptive(problem: Problem) -> bool:
    """SciPy's RK23 with the tolerances of isolated.simulate."""
    shape, std = problem.E0.shape, problem.E0.shape[0] ** -0.5
    slope = lambda _, flat: problem.velocity(torch.from_numpy(flat).view(shape)).numpy().ravel()  # noqa: E731
    solver = RK23(slope, 0.0, problem.E0.numpy().ravel(), 10.0, rtol=1e-3, atol=1e-3 * std)
    while solver.status == "running" and problem.count < EULER:
        solver.step()
        if problem.right(torch.from_numpy(solver.y).view(shape)):
            return True
    return False


def lbfgs(problem: Problem) -> bool:
    """SciPy's L-BFGS on R(E); what it passes through has no time."""

    def R(flat):
        E = torch.from_numpy(flat.copy()).view_as(problem.E0)
        if problem.right(E):
            raise StopIteration
        slope = -2 * problem.velocity(E)
        return float(
            isolated.cost(E, problem.task.X_train, problem.task.Y_train, ACTIVATION)
        ), slope.numpy().ravel()

    try:
        minimize(R, problem.E0.numpy().ravel(), jac=True, method="L-BFGS-B", options={"maxfun": EULER})
    except StopIteration:
        return True
    return False


def start(problem: Problem):
    """The same embedding with its best readout: both layers on the zero-loss set."""
    W = isolated.readout(problem.E0, problem.task.X_train, problem.task.Y_train, ACTIVATION)
    return problem.model.flat(E=problem.E0, W=W)


def joint_flow(problem: Problem) -> bool:
    """The slow flow at training's λ."""
    task = problem.task
    run = flow.follow(problem.model, start(problem), task, lam=LAM, tau_end=5.0, tolerance=1e-2, until=0.1)
    problem.count = run.attrs["products"]
    return bool((run.test_accuracy >= 0.99).any())


def train(problem: Problem) -> bool:
    """Gradient descent, looked at every CHUNK steps; the time is that of the whole search."""
    theta = start(problem)
    lr, decay = (problem.E0.shape[0] / 13) ** 2, 2 * LAM / problem.task.Y_train.numel()
    for _ in range(problem.steps // CHUNK):
        run = training.train(
            problem.model, problem.task, CHUNK, theta0=theta, lr=lr, weight_decay=decay,
            record_at=[0, CHUNK],
        )  # fmt: skip
        problem.count += CHUNK
        theta = torch.from_numpy(run.theta_end.values[0])
        if float(run.test_accuracy.isel(step=-1).max()) >= 0.99:
            return True
    return False


ROUTES = {
    "L-BFGS": lbfgs,
    "adaptive": adaptive,
    "joint flow": joint_flow,
    "training": train,
    "Euler 1e-3": euler,
}
UNITS = {"joint flow": "products with K", "training": "steps"}


def measured(name: str, p: int, width: int, steps: int) -> tuple[bool, float, int, float]:
    """Whether it got there, seconds, evaluations, MB that the process took at most, torch included."""
    torch.set_num_threads(1)
    problem = Problem(p, width, steps)
    began = time.perf_counter()
    reached = ROUTES[name](problem)
    took = time.perf_counter() - began
    return reached, took, problem.count, _record.peak_memory()


def main(sizes=SIZES, steps=STEPS) -> list[dict]:
    """The rows, printed as they come; growth is over the smaller size, training takes ``steps`` at most."""
    rows, before = [], {}
    for p, width in sizes:
        took = {}
        for name in reversed(ROUTES):  # Euler first: the others are measured against it
            fresh = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
            with fresh as pool:
                reached, seconds, count, memory = pool.submit(measured, name, p, width, steps).result()
            took[name] = seconds if reached else np.nan
            grown = f"; {seconds / before[name]:.1f} × the smaller p" if name in before else ""
            got = "" if reached else "99 % not reached; "
            note = f"{got}{count} {UNITS.get(name, 'evaluations')}, at most {memory:.0f} MB, torch included{grown}"
            ratio = took["Euler 1e-3"] / seconds
            against = {"against": "Euler 1e-3", "ratio": ratio} if reached and np.isfinite(ratio) else {}
            if name == "Euler 1e-3":
                against = {}
            rows.append(
                _record.row(
                    "To 99 % of the held-out pairs",
                    name,
                    seconds,
                    "s",
                    size=f"p = {p}, width {width}",
                    note=note,
                    **against,
                )
            )
            before[name] = seconds
    return rows


if __name__ == "__main__":
    main()
