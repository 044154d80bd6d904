"""The slow flow at a finite λ, K not formed, from PyTorch's initialization through memorization to 99 % of the held-out pairs.

From below the study's size to three times its modulus, on one thread, each size in a process of its own that gives up after LIMIT
seconds of processor time. A product with K takes two passes through the model, of 6·n·p·width multiplications: that is the
growth that is predicted. How many products it takes to get there is measured only.
"""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks import _record
from grokutils import flow, models, tasks
from grokutils.errors import StoppedError

SIZES = (
    (23, 256),
    (37, 512),
    (59, 1536),
    (113, 4608),
)  # (p, width), width above the number of training pairs
LIMIT = 600.0
SMALL = {"sizes": ((5, 24),), "limit": 30.0}
ACTIVATION, LAM, TOLERANCE, TAU_END, HELD_OUT = "quadratic", 0.1, 1e-3, 3.0, 0.1


def measured(p: int, width: int, limit: float) -> dict:
    """What one size took: products, seconds, MB at most with torch included, and how far it got."""
    torch.set_num_threads(1)
    task = tasks.modular(p, seed=0)
    model = models.two_layer(p, width, p, ACTIVATION)
    began = time.process_time()
    try:
        with threadpool_limits(1):
            run = flow.follow(
                model, model.init(0), task, lam=LAM, tau_end=TAU_END,
                tolerance=TOLERANCE, until=HELD_OUT, seconds=limit,
            )  # fmt: skip
        ended = run.attrs["ended"]
    except StoppedError as stopped:
        run, ended = stopped.records, "K near singular"
    right = run.test_accuracy.values if run.sizes["step"] else np.zeros(1)
    there = np.flatnonzero(right >= 0.99)
    return {
        "work": 6.0 * task.n_train * p * width,
        "products": run.attrs["products"],
        "seconds": time.process_time() - began,
        "memory": _record.peak_memory(),
        "steps": run.sizes["step"],
        "tau": float(run.tau[there[0] if there.size else -1]) if run.sizes["step"] else 0.0,
        "right": float(right.max()),
        "reached": bool(there.size),
        "ended": ended,
    }


def alone(p: int, width: int, limit: float) -> dict:
    """:func:`measured` in a process of its own, whose memory is its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
        return fresh.submit(measured, p, width, limit).result()


def main(sizes=SIZES, limit: float = LIMIT) -> list[dict]:
    """The rows, printed as they come; growth is over the size before."""
    rows, before = [], None
    for p, width in sizes:
        got = alone(p, width, limit)
        each = got["seconds"] / max(got["products"], 1)
        grown = (
            f"; a product takes {each / before[0]:.1f} × that of the smaller p, predicted {got['work'] / before[1]:.1f}"
            if before
            else ""
        )
        where = (
            f"99 % at τ = {got['tau']:.2f}"
            if got["reached"]
            else f"ended by {got['ended']} at τ = {got['tau']:.2f}, {got['right']:.0%} right"
        )
        rows.append(
            _record.row(
                "From initialization to 99 % by the joint flow", f"{got['products']} products, {got['steps']} steps",
                got["seconds"], "s", size=f"p = {p}, width {width}",
                note=f"{where}; at most {got['memory']:.0f} MB, torch included{grown}",
            )
        )  # fmt: skip
        before = each, got["work"]
    return rows


if __name__ == "__main__":
    main()
