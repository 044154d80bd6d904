"""Eq. 20 evaluated once: isolated.velocity beside automatic differentiation and beside the formula written naively.

And beside the sum of its own BLAS and LAPACK calls, each timed alone on the same arrays: what no arrangement of them
could beat. All on one thread, at the study's size for one seed and for five in a batch, and at a larger size, in both
precisions. Times are medians of CPU time over repeats that take turns, after a burn-in, so that other work on the
machine disturbs all alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import torch
from scipy.linalg import blas, lapack
from threadpoolctl import threadpool_limits
from torch import Tensor

from benchmarks import _record
from grokutils import isolated, tasks

SIZES = ((37, 512, 1), (37, 512, 5), (59, 1536, 1))  # (p, width, seeds); p = 37 is the study's figure 6
BURN_IN, REPEATS = 2, 7
SMALL = {"sizes": ((5, 24, 1),)}


def autograd_cholesky(E: Tensor, X: Tensor, Y: Tensor) -> Tensor:
    """−½∇R by reverse mode through isolated.cost, the best forward pass at hand."""
    E = E.detach().requires_grad_()
    (slope,) = torch.autograd.grad(isolated.cost(E, X, Y).sum(), E)
    return -slope / 2


def autograd_inverse(E: Tensor, X: Tensor, Y: Tensor) -> Tensor:
    """−½∇R by reverse mode through eq. 19 as printed, with torch.linalg.inv."""
    E = E.detach().requires_grad_()
    H = torch.relu(X @ E)
    R = E.square().sum((-2, -1)) + (Y * (torch.linalg.inv(H @ H.mT) @ Y)).sum((-2, -1))
    (slope,) = torch.autograd.grad(R.sum(), E)
    return -slope / 2


def formula_naive(E: Tensor, X: Tensor, Y: Tensor) -> Tensor:
    """Eq. 20 as printed: an explicit inverse, and YYᵀ formed."""
    Z = X @ E
    H = torch.relu(Z)
    A = torch.linalg.inv(H @ H.mT)
    return X.T @ ((A @ (Y @ Y.T) @ A @ H) * (Z > 0)) - E


ALTERNATIVES = {
    "isolated.velocity": isolated.velocity,
    "formula, naive": formula_naive,
    "autograd, Cholesky": autograd_cholesky,
    "autograd, inverse": autograd_inverse,
}


def own_calls(E: Tensor, X: Tensor, Y: Tensor) -> dict:
    """What isolated.velocity cannot do without, as calls of no argument."""
    double = E.dtype == torch.float64
    syrk, potrf, potrs = (
        (blas.dsyrk, lapack.dpotrf, lapack.dpotrs) if double else (blas.ssyrk, lapack.spotrf, lapack.spotrs)
    )
    H = torch.relu(X @ E)
    gram, fresh = (H @ H.mT for _ in range(2))
    factors = torch.linalg.cholesky(gram).numpy()
    right = Y.mT.expand(len(E), -1, -1).contiguous()
    W, pull = (
        torch.empty(len(E), *shape, dtype=E.dtype) for shape in ((Y.shape[1], E.shape[2]), H.shape[1:])
    )
    whole, copy = gram.numpy(), gram.clone()

    def factorize() -> None:
        for K in fresh.numpy():
            potrf(K.T, lower=1, clean=0, overwrite_a=1)

    return {
        "syrk": lambda: [
            syrk(1.0, h.T, trans=1, lower=1, c=K.T, overwrite_c=1)
            for h, K in zip(H.numpy(), whole, strict=True)
        ],
        "restore": lambda: fresh.copy_(copy),  # potrf destroys it: not counted
        "potrf": factorize,
        "potrs": lambda: [
            potrs(L.T, b.T, lower=0, overwrite_b=1) for L, b in zip(factors, right.numpy(), strict=True)
        ],
        "gemm W": lambda: torch.matmul(right, H, out=W),
        "gemm pull": lambda: torch.matmul(right.mT, W, out=pull),
    }


def flops(n: int, width: int, d_out: int) -> float:
    """Multiplications and additions that isolated.velocity needs for one seed.

    HHᵀ n²·width, one triangle, which is all that syrk computes (a general product would be twice that); Cholesky
    n³/3; two triangular solves n²·d_out each; Hᵀ(AY) and (AY)(·) 2·n·d_out·width each. XE and Xᵀ(·) only
    gather and add, and elementwise work is left out too.
    """
    return n**2 * width + n**3 / 3 + 2 * n**2 * d_out + 4 * n * d_out * width


def medians(calls: dict) -> dict[str, float]:
    """Median CPU seconds of each call, the calls taking turns."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(BURN_IN + REPEATS):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if repeat >= BURN_IN:
                seconds[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak(dtype: torch.dtype) -> float:
    """Operations a second of a 1024 × 1024 matrix product, the best of PyTorch's and NumPy's repeats."""
    M = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(0)).to(dtype)
    best = float("inf")
    for product in (lambda: M @ M, lambda: M.numpy() @ M.numpy()):
        for _ in range(BURN_IN + 5):
            start = time.process_time()
            product()
            best = min(best, time.process_time() - start)
    return 2 * 1024**3 / best


def main(sizes=SIZES) -> list[dict]:
    """The rows, printed as they come."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            return [row for dtype in (torch.float64, torch.float32) for row in _rows(dtype, sizes)]
    finally:
        torch.set_num_threads(threads)


def _rows(dtype: torch.dtype, sizes) -> Iterator[dict]:
    top = peak(dtype)
    kind = str(dtype).removeprefix("torch.")
    for p, width, seeds in sizes:
        task = tasks.modular(p, dtype=dtype)
        X, Y = task.X_train, task.Y_train
        generator = torch.Generator().manual_seed(0)
        E = torch.randn(seeds, p, width, generator=generator, dtype=torch.float64).to(dtype) * p**-0.5
        exact = isolated.velocity(E.double(), X.double(), Y.double())
        calls = {name: (lambda f=f: f(E, X, Y)) for name, f in ALTERNATIVES.items()}  # noqa: B023
        parts = own_calls(E, X, Y)
        took = medians({**calls, **parts})
        alone = {name: took.pop(name) for name in parts}
        alone.pop("restore")
        base = took["isolated.velocity"]
        size = f"p = {p}, width {width}, {seeds} seed{'s' if seeds > 1 else ''}, {kind}"
        rate = seeds * flops(len(X), width, p) / base
        share = f"{rate / top:.0%} of the measured matrix-product peak of {top / 1e9:.0f} Gflop/s"
        listed = ", ".join(f"{name} {1e3 * seconds:.2f}" for name, seconds in alone.items())
        yield _record.row(
            "One evaluation of eq. 20 (CPU time)", "isolated.velocity", 1e3 * base, "ms", size=size,
            against="the sum of its own BLAS and LAPACK calls", ratio=sum(alone.values()) / base,
            note=f"{base / sum(alone.values()):.2f} times the sum; alone, in ms: {listed}",
        )  # fmt: skip
        for name in list(took)[1:]:
            error = float(
                (calls[name]().double() - calls["isolated.velocity"]().double()).norm() / exact.norm()
            )
            yield _record.row(
                "One evaluation of eq. 20 (CPU time)", "isolated.velocity", 1e3 * base, "ms", size=size,
                against=name, ratio=took[name] / base, note=f"{share}; difference {error:.0e}",
            )  # fmt: skip


if __name__ == "__main__":
    main()
