"""The slow flow's parts by structure, against the obvious alternative in the same run, and their growth with p.

- A solve with K = JJᵀ: from H, S, W and one Cholesky factor, against J by automatic differentiation and JJᵀ.
- A product with K and a solve, K not formed: at the study's size it would need 2.7 GB.
- A step of the flow.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import torch

from benchmarks import _record
from grokutils import networks, slow_flow, tasks, zero_loss
from grokutils.slow_flow.two_layer import Multipliers, Point

REPEATS = 5


def seconds(call) -> float:
    """Median of REPEATS timings, after a burn-in."""
    call()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def setting(p: int, width: int):
    task = tasks.modular(p, seed=0)
    network = networks.two_layer(p, width, p)
    return network, task, network.init(0, scheme="normal")


def multipliers(sizes) -> Iterator[dict]:
    """One solve with K = JJᵀ: by structure, and by automatic differentiation."""
    for p, width in sizes:
        network, task, theta = setting(p, width)

        def ours(network=network, theta=theta, task=task):
            point = Point(network, theta, task.X_train)
            return Multipliers(1e-8, dense=True).solve(point, 1.0, 0.0, task.Y_train)

        def plain(network=network, theta=theta, task=task):
            J = zero_loss.jacobian(network, theta, task.X_train)
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
        network, task, theta = setting(p, width)
        point, nm = Point(network, theta, task.X_train), task.Y_train.numel()
        took = seconds(lambda: point.push(point.pull(task.Y_train)))  # noqa: B023
        solver = Multipliers(1e-6, dense=False)
        start = time.perf_counter()
        solver.solve(point, 0.02, 0.0, task.Y_train)
        whole = time.perf_counter() - start
        size, name = f"p = {p}, width {width}", "The joint slow flow"
        # predicted: work ∝ nm × width
        grown = f"; {took / before[0]:.1f} × the smaller p, predicted {nm / before[1]:.1f}" if before else ""
        note = f"K would need {8e-6 * nm**2:.0f} MB{grown}"
        yield _record.row(name, "one product with K, not formed", 1e3 * took, "ms", size=size, note=note)
        note = f"{solver.products} products, to 1e-6"
        yield _record.row(name, "one solve with K, not formed", whole, "s", size=size, note=note)
        before = took, nm


def steps(p: int = 11, width: int = 128) -> Iterator[dict]:
    """One step of the limit flow, against one by the Jacobian of any network (which also takes two solves)."""
    network, task, theta = setting(p, width)
    flow = slow_flow.follow(network, theta, task, 0.02, tolerance=1e-3)
    took = {}
    began = time.perf_counter()
    flow = slow_flow.follow(network, theta, task, 0.02, tolerance=1e-3)
    took["structure"] = (time.perf_counter() - began) / (flow.sizes["step"] - 1)

    def dense():
        J = zero_loss.jacobian(network, theta, task.X_train)
        return theta - J.T @ torch.linalg.solve(J @ J.T, J @ theta)

    took["projection"] = seconds(dense)
    yield _record.row(
        "The joint slow flow", "one implicit step at λ = 0", 1e3 * took["structure"], "ms",
        against="one explicit velocity −P_Tθ by the Jacobian", ratio=took["projection"] / took["structure"],
        size=f"p = {p}, width {width}", note="steps refused are counted in",
    )  # fmt: skip


def main(dense=((5, 40), (7, 64), (11, 128)), sparse=((11, 512), (23, 512), (37, 512))) -> list[dict]:
    """The rows, printed as they come."""
    torch.set_num_threads(1)
    return [*multipliers(dense), *products(sparse), *steps(*dense[-1])]


if __name__ == "__main__":
    main()
