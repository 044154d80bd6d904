"""The slow flow's parts by structure, against the obvious alternative in the same run, and their growth with p.

- Multipliers: K from H, S, W and one Cholesky factor, against J by automatic differentiation and JJᵀ.
- Products with K: Jᵀ and J as thin products, against the formed K.
- A solve with K at the study's size, by preconditioned conjugate gradients; K itself would need 2.7 GB there.
- To 99 % of the held-out pairs: L-BFGS on R(E) against Euler steps of eq. 20.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch
from scipy.optimize import minimize

from grokutils import isolated, networks, tasks, zero_loss
from grokutils.slow_flow.two_layer import Multipliers, Point

REPEATS = 5
EULER = 5000  # steps of 1e-3 after which Euler's method is given up


def seconds(call, repeats: int) -> float:
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def setting(p: int, width: int):
    task = tasks.modular(p, seed=0)
    network = networks.two_layer(p, width, p)
    return network, task, network.init(0, scheme="normal")


def multipliers(repeats: int) -> None:
    print("One solve with K = JJᵀ: by structure, and by automatic differentiation")
    print(
        f"{'p':>4}{'width':>7}{'nm':>7}{'structure ms':>14}{'autodiff ms':>13}{'ratio':>8}{'difference':>12}"
    )
    for p, width in ((5, 40), (7, 64), (11, 128)):
        network, task, theta = setting(p, width)

        def ours(network=network, theta=theta, task=task):
            point = Point(network, theta, task.X_train)
            return Multipliers(1e-8, dense=True).solve(point, 1.0, 0.0, task.Y_train)

        def plain(network=network, theta=theta, task=task):
            J = zero_loss.jacobian(network, theta, task.X_train)
            return torch.linalg.solve(J @ J.T, task.Y_train.reshape(-1)).view_as(task.Y_train)

        gap = float((ours() - plain()).norm() / plain().norm())
        fast, slow = seconds(ours, repeats), seconds(plain, repeats)
        nm = task.Y_train.numel()
        print(
            f"{p:4}{width:7}{nm:7}{1e3 * fast:14.2f}{1e3 * slow:13.2f}{slow / fast:8.1f}{gap:12.0e}",
            flush=True,
        )


def products(repeats: int) -> None:
    print("\nOne product with K, never formed; and one solve, to 1e-6, by conjugate gradients")
    print(
        f"{'p':>4}{'width':>7}{'nm':>7}{'product ms':>12}{'growth':>8}{'predicted':>11}{'products':>10}{'solve s':>9}{'K MB':>8}"
    )
    before = None
    for p, width in ((11, 512), (23, 512), (37, 512)):
        network, task, theta = setting(p, width)
        point, nm = Point(network, theta, task.X_train), task.Y_train.numel()
        took = seconds(lambda: point.push(point.pull(task.Y_train)), repeats)  # noqa: B023
        solver = Multipliers(1e-6, dense=False)
        start = time.perf_counter()
        solver.solve(point, 0.02, 0.0, task.Y_train)
        whole = time.perf_counter() - start
        grown = "" if before is None else f"{took / before[0]:8.1f}{nm / before[1]:11.1f}"
        print(
            f"{p:4}{width:7}{nm:7}{1e3 * took:12.2f}{grown:>19}{solver.products:10}{whole:9.2f}{8e-6 * nm**2:8.0f}",
            flush=True,
        )
        before = took, nm  # predicted: work ∝ nm × width


def minimizing(p: int = 23, width: int = 320) -> None:
    print(f"\nTo 99 % of the held-out pairs at p = {p}, width {width}")
    task = tasks.modular(p, seed=0)
    E0 = torch.randn(p, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * p**-0.5

    def right(E):
        guess = torch.relu(task.X_test @ E) @ isolated.readout(E, task.X_train, task.Y_train)
        return float((guess.argmax(1) == task.Y_test.argmax(1)).double().mean()) >= 0.99

    count = 0

    def R(flat):
        nonlocal count
        count += 1
        E = torch.from_numpy(flat.copy()).view_as(E0)
        if right(E):
            raise StopIteration
        slope = -2 * isolated.velocity(E, task.X_train, task.Y_train)
        return float(isolated.cost(E, task.X_train, task.Y_train)), slope.numpy().ravel()

    start = time.perf_counter()
    try:
        minimize(R, E0.numpy().ravel(), jac=True, method="L-BFGS-B", options={"maxfun": 500})
        note = "not reached"
    except StopIteration:
        note = "reached"
    print(f"L-BFGS       {count:6} evaluations {time.perf_counter() - start:8.2f} s  {note}", flush=True)
    E, start, note = E0, time.perf_counter(), "not reached"
    for step in range(1, EULER + 1):
        E = E + 1e-3 * isolated.velocity(E, task.X_train, task.Y_train)
        if step % 20 == 0 and right(E):
            note = "reached"
            break
    print(f"Euler 1e-3   {step:6} evaluations {time.perf_counter() - start:8.2f} s  {note}")


def main() -> None:
    """Print the tables."""
    print(f"threads: {torch.get_num_threads()}, float64, NumPy {np.__version__}, torch {torch.__version__}")
    multipliers(REPEATS)
    products(REPEATS)
    minimizing()


if __name__ == "__main__":
    main()
