"""The same work by the package as it was at commit 41983fc, unpacked from this repository's history, on this machine in this run.

- Predicting a delay at p = 11, from memorization, which is all that the old package could.
- A product with K, not formed; and beside its own matrix products and two copies of an array of hidden units, alone.
- The joint flow from initialization to 99 % of the held-out pairs.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from benchmarks import _record, growth
from grokutils import delay, models, tasks
from grokutils.linearization import linearize

COMMIT = "41983fc"
ROOT = Path(__file__).resolve().parents[1]
NAME = f"The package at commit {COMMIT}, in the same run (CPU time)"
# at p = 11: activation, width, share to train on, repeats in a round, rounds in which old and new take turns
DELAYS = (("gelu", 96, 0.8, 5, 5), ("relu", 64, 0.9, 1, 3))
P, LR, W = 11, 2.0, 1e-4
PRODUCTS = ((37, 512), (113, 4608))  # (p, width)
FLOWS = ((37, 512), (59, 1536), (113, 4608))
LIMIT = 3600.0  # processor seconds for one flow
REPEATS = 5
SMALL = {"delays": (), "products_": ((5, 24),), "flows_": ((5, 24),), "limit": 30.0}

# What the old package is asked, in a process of its own: the case comes on standard input, processor seconds go out.
THEN = """
import json, statistics, sys, time
import torch
from threadpoolctl import threadpool_limits
from grokutils import delay, networks, slow_flow, tasks
from grokutils.slow_flow.two_layer import Point

torch.set_num_threads(1)
case = json.load(sys.stdin)


def seconds(call):
    began = time.process_time()
    call()
    return time.process_time() - began


with threadpool_limits(1):
    p, width, activation = case["p"], case["width"], case["activation"]
    network = networks.two_layer(p, width, p, activation)
    if case["what"] == "delay":
        task = tasks.modular(p, train_fraction=case["share"], seed=0)
        small = tasks.modular(5, seed=0)  # a burn-in: what a first call loads is not counted
        delay.predict_delay(networks.two_layer(5, 24, 5, activation), small, case["lr"], 1e-3)
        call = lambda: delay.predict_delay(network, task, case["lr"], case["w"])
        took = statistics.median(seconds(call) for _ in range(case["repeats"]))
    elif case["what"] == "product":
        task = tasks.modular(p, seed=0)
        point = Point(network, network.init(0, scheme="normal"), task.X_train)
        call = lambda: point.push(point.pull(task.Y_train))
        call()
        took = statistics.median(seconds(call) for _ in range(case["repeats"]))
    else:
        task = tasks.modular(p, seed=0)
        call = lambda: slow_flow.follow(
            network, network.init(0), task, case["tau_end"], case["lam"],
            tolerance=case["tolerance"], until=case["held_out"], seconds=case["limit"], dense=False,
        )
        took = seconds(call)
print(json.dumps(took))
"""


def unpack(folder: str) -> bool:
    """Put the old package into ``folder``; False where the checkout has no such history."""
    archive = ["git", "-C", str(ROOT), "archive", COMMIT, "grokutils"]
    made = subprocess.run(archive, capture_output=True, check=False)
    if made.returncode:
        return False
    with tarfile.open(fileobj=BytesIO(made.stdout)) as packed:
        packed.extractall(folder, filter="data")
    return True


def then(folder: str, **case) -> float:
    """Processor seconds that the old package takes for a case."""
    asked = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", THEN],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": folder},
        input=json.dumps(case),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(asked.stdout.splitlines()[-1])


def seconds(call) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def median(call, repeats: int = REPEATS) -> float:
    """Median processor seconds of some calls, after a burn-in."""
    call()
    return statistics.median(seconds(call) for _ in range(repeats))


def predictions(folder: str, cases) -> Iterator[dict]:
    """Predicting a delay, from memorization and from the initial weights, after a burn-in."""
    for activation, width, share, repeats, rounds in cases:
        task, model = (
            tasks.modular(P, train_fraction=share, seed=0),
            models.two_layer(P, width, P, activation),
        )
        case = {"what": "delay", "p": P, "width": width, "activation": activation, "share": share}
        old, new = [], {"memorization": [], "init": []}
        for _ in range(rounds):
            old.append(then(folder, **case, lr=LR, w=W, repeats=repeats))
            for start, took in new.items():
                call = partial(delay.predict_delay, model, task, lr=LR, weight_decay=W, start=start)
                took.append(median(call, repeats))
        for start, took in new.items():
            ratios = sorted(then_ / now for then_, now in zip(old, took, strict=True))
            yield _record.row(
                NAME, f"predicting a delay, from {start}", statistics.median(took), "s", against="the old one, from memorization",
                ratio=statistics.median(ratios), size=f"p = {P}, width {width}, {activation}",
                note=f"median of {rounds} rounds, from {ratios[0]:.1f} to {ratios[-1]:.1f}",
            )  # fmt: skip


def products(folder: str, sizes) -> Iterator[dict]:
    """One product with K, not formed."""
    for p, width in sizes:
        task, model = tasks.modular(p, seed=0), models.two_layer(p, width, p)
        lin = linearize(model, model.init(0, scheme="normal"), task.X_train)
        took = median(lambda: lin.product(task.Y_train))  # noqa: B023
        old = then(folder, what="product", p=p, width=width, activation="relu", repeats=REPEATS)
        alone = floor(lin.H, lin.W, task.Y_train)
        yield _record.row(
            NAME, "one product with K, not formed", 1e3 * took, "ms", against="the old one", ratio=old / took,
            size=f"p = {p}, width {width}",
            note=f"{took / alone:.2f} times its three matrix products and two copies of H, timed alone",
        )  # fmt: skip


def floor(H, W, Y) -> float:
    """Processor seconds of what a product cannot do without: uWᵀ, AW, HHᵀu, and two arrays of the size of H written."""
    A, B, HH = torch.empty_like(H), torch.empty_like(H), H @ H.mT
    return sum(
        median(call)
        for call in (
            lambda: torch.mm(Y, W.mT, out=A),
            lambda: W.mT @ H.mT,
            lambda: Y.mT @ HH,
            lambda: B.copy_(H),
            lambda: A.copy_(H),
        )
    )


def flows(folder: str, sizes, limit: float) -> Iterator[dict]:
    """From initialization to 99 % of the held-out pairs, K not formed."""
    how = {
        "tau_end": growth.TAU_END,
        "lam": growth.LAM,
        "tolerance": growth.TOLERANCE,
        "held_out": growth.HELD_OUT,
    }
    for p, width in sizes:
        took = growth.alone(p, width, limit)
        old = then(folder, what="flow", p=p, width=width, activation=growth.ACTIVATION, limit=limit, **how)
        yield _record.row(
            NAME, "from initialization to 99 %", took["seconds"], "s", against="the old one", ratio=old / took["seconds"],
            size=f"p = {p}, width {width}", note="" if took["reached"] else f"not reached within {limit:g} s",
        )  # fmt: skip


def main(delays=DELAYS, products_=PRODUCTS, flows_=FLOWS, limit: float = LIMIT) -> list[dict]:
    """The rows, printed as they come; none where the old package cannot be had."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        if not unpack(folder):
            print(f"commit {COMMIT} is not in this checkout: nothing to compare with", flush=True)
            return []
        return [
            *predictions(folder, delays),
            *products(folder, products_),
            *flows(folder, flows_, limit),
        ]


if __name__ == "__main__":
    main()
