"""Predicting a delay against training through it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from threadpoolctl import threadpool_limits

from benchmarks import _record
from grokutils import delay, models, tasks, training

CASES = (("gelu", 96, 0.8), ("relu", 64, 0.9))  # activation, width, share to train on
P, LR, W = 11, 2.0, 1e-4
SMALL = {"cases": CASES[:1]}


def timed(call):
    began = time.process_time()
    result = call()
    return result, time.process_time() - began


def rows(cases) -> Iterator[dict]:
    """Both starts of a prediction, for each case."""
    for activation, width, share in cases:
        task, model = (
            tasks.modular(P, train_fraction=share, seed=0),
            models.two_layer(P, width, P, activation),
        )
        how = {"lr": LR, "weight_decay": W}
        small = models.two_layer(5, 24, 5, activation)  # a burn-in: what a first call loads is not counted
        delay.predict_delay(small, tasks.modular(5, seed=0), lr=LR, weight_decay=1e-3)
        size = f"p = {P}, width {width}, {activation}"
        for start in ("memorization", "init"):
            made, took = timed(lambda: delay.predict_delay(model, task, start=start, **how))  # noqa: B023
            steps = int(made.step)
            _, whole = timed(lambda: training.train(model, task, steps, record_at=100, **how))  # noqa: B023
            yield _record.row(
                "Predicting a delay (CPU time)", f"from {start}", took, "s", against="training through it",
                ratio=whole / took, size=size,
                note=f"predicted step {steps}",
            )  # fmt: skip


def main(cases=CASES) -> list[dict]:
    """The rows, printed as they come."""
    torch.set_num_threads(1)
    with threadpool_limits(1):
        return list(rows(cases))


if __name__ == "__main__":
    main()
