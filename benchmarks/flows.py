"""The linear equations of the slow flow by structure, against the obvious alternative in the same run, and their growth with p.

- A solve with K = JJᵀ: from the formulas of two layers, against J by automatic differentiation and JJᵀ.
- A product with K and a solve, K not formed: at the study's size it would need 2.7 GB.
- A step of the flow, and what a flow costs when λ falls.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import torch

from benchmarks import _record
from grokutils import flow, models, tasks, zero_loss
from grokutils.flow.multipliers import Multipliers
from grokutils.linearization import linearize

REPEATS = 5
SMALL = {"dense": ((5, 40),), "sparse": ((5, 40),)}


def seconds(call) -> float:
    """Median of REPEATS timings, after a burn-in."""
    call()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def setting(p: int, width: int, activation: str = "relu"):
    task = tasks.modular(p, seed=0)
    model = models.two_layer(p, width, p, activation)
    return model, task, model.init(0, scheme="normal")


def multipliers(sizes) -> Iterator[dict]:
    """One solve with K = JJᵀ: by structure, and by automatic differentiation."""
    for p, width in sizes:
        model, task, theta = setting(p, width)

        def ours(model=model, theta=theta, task=task):
            return linearize(model, theta, task.X_train).solve(task.Y_train)

        def plain(model=model, theta=theta, task=task):
            J = zero_loss.jacobian(model, theta, task.X_train)
            return torch.linalg.solve(J @ J.T, task.Y_train.reshape(-1)).view_as(task.Y_train)

        gap = float((ours() - plain()).norm() / plain().norm())
        fast, slow = seconds(ours), seconds(plain)
        yield _record.row(
            "The joint slow flow", "one solve with K, by structure", 1e3 * fast, "ms",
            against="J by automatic differentiation", ratio=slow / fast,
            size=f"p = {p}, width {width}", note=f"relative difference {gap:.0e}",
        )  # fmt: skip


def products(sizes) -> Iterator[dict]:
    """One product with K, never formed, and one solve with it by conjugate gradients; the growth of both with p."""
    before = None
    for p, width in sizes:
        model, task, theta = setting(p, width)
        lin, nm = linearize(model, theta, task.X_train), task.Y_train.numel()
        took = seconds(lambda: lin.product(task.Y_train))  # noqa: B023
        solver, c = Multipliers(), 0.02
        start = time.perf_counter()
        solver.solve(lin, task.Y_train, c, 0.0, torch.zeros_like(task.Y_train), 1e-6 * float(theta.norm()))
        whole = time.perf_counter() - start
        size, name = f"p = {p}, width {width}", "The joint slow flow"
        # predicted: work ∝ nm × width
        grown = (
            f"; {took / before[0]:.1f} × the smaller p, predicted {nm * width / before[1]:.1f}"
            if before
            else ""
        )
        note = f"K would need {8e-6 * nm**2:.0f} MB{grown}"
        yield _record.row(name, "one product with K, not formed", 1e3 * took, "ms", size=size, note=note)
        note = f"{solver.products} products, to 1e-6 of ‖θ‖"
        yield _record.row(name, "one solve with K, preconditioned", whole, "s", size=size, note=note)
        before = took, nm * width


def steps(p: int = 11, width: int = 128) -> Iterator[dict]:
    """One step of the limit flow, against one velocity by the Jacobian of any network; and a flow at a small λ."""
    model, task, theta = setting(p, width, "gelu")
    size, name = f"p = {p}, width {width}", "The joint slow flow"

    def follow(lam: float):
        return flow.follow(model, theta, task, lam=lam, tau_end=0.5)

    def dense():
        J = zero_loss.jacobian(model, theta, task.X_train)
        return theta - J.T @ torch.linalg.solve(J @ J.T, J @ theta)

    counted = follow(0.0).sizes["step"] - 1
    step, projection = seconds(lambda: follow(0.0)) / counted, seconds(dense)
    yield _record.row(
        name, "one implicit step at λ = 0", 1e3 * step, "ms", against="one explicit velocity −P_Tθ by the Jacobian",
        ratio=projection / step, size=size, note="steps refused are counted in",
    )  # fmt: skip
    large, small = (seconds(lambda: follow(lam)) for lam in (1e-2, 1e-6))  # noqa: B023
    yield _record.row(
        name, "a flow at λ = 1e-6", small, "s", against="at λ = 1e-2", ratio=large / small, size=size
    )


def main(dense=((5, 40), (7, 64), (11, 128)), sparse=((11, 512), (23, 512), (37, 512))) -> list[dict]:
    """The rows, printed as they come."""
    torch.set_num_threads(1)
    return [*multipliers(dense), *products(sparse), *steps(*dense[-1])]


if __name__ == "__main__":
    main()
