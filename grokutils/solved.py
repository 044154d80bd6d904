"""Cases in which the smallest norm can be computed: linear regression, diagonal networks, matrix completion."""

from __future__ import annotations

import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize import linprog


def l2(X: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """min ‖θ‖² with Xθ = y, and its θ = X⁺y: the price of y for linear regression.

    Parameters
    ----------
    X : (n, d), of full row rank.
    y : (n,).
    """
    theta = np.linalg.pinv(X) @ y
    return float(theta @ theta), theta


def l1(X: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """min ‖β‖₁ with Xβ = y, and its β: half the price of y for a diagonal network β = u ⊙ v.

    Parameters
    ----------
    X : (n, d), of full row rank.
    y : (n,).
    """
    d = X.shape[1]
    found = linprog(np.ones(2 * d), A_eq=np.hstack([X, -X]), b_eq=y, method="highs")
    return float(found.fun), found.x[:d] - found.x[d:]


def nuclear(
    known: np.ndarray, values: np.ndarray, penalty: float = 1.0, iterations: int = 3000
) -> tuple[float, np.ndarray]:
    """min ‖M‖_* with the known entries given, and its M: half the price of the entries for M = UV.

    By the alternating direction method of multipliers: shrink the singular values, restore the entries.

    Parameters
    ----------
    known : (rows, columns), truth values.
    values : (rows, columns), read where ``known``.
    penalty : of the split; affects the speed only.
    iterations : number of rounds.
    """
    M, dual = np.where(known, values, 0.0), np.zeros(known.shape)
    for _ in range(iterations):
        left, s, right = np.linalg.svd(M + dual, full_matrices=False)
        low = (left * np.maximum(s - 1 / penalty, 0)) @ right
        M = np.where(known, values, low - dual)
        dual += M - low
    return float(np.linalg.svd(M, compute_uv=False).sum()), M


def recovery(
    X: np.ndarray, truth: np.ndarray, *, error: float = 1e-3, tau_end: float = 200.0
) -> tuple[float, float]:
    """When the slow flow of a diagonal network β = u ⊙ u finds a sparse non-negative vector, and its certificate's gap.

    The flow dβ/dτ = 2β(g − 1), g = Xᵀ(X diag(β) Xᵀ)⁻¹y, y = X truth, starts at the positive interpolant whose smallest
    entry is greatest (at most a half). At rest g is the dual certificate of the smallest ‖β‖₁.

    Parameters
    ----------
    X : (n, d).
    truth : (d,), non-negative; zero off its support.
    error : ‖β − truth‖²/‖truth‖² that counts as found.
    tau_end : slow time at which to give up.

    Returns
    -------
    Slow time, and 1 − max g off the support; both NaN where no positive interpolant exists, another vector is
    cheaper, the time is over, or the certificate is lost in rounding.
    """
    n, d = X.shape
    y, off = X @ truth, truth == 0
    inside = linprog(
        np.r_[np.zeros(d), -1],
        A_ub=np.hstack([-np.eye(d), np.ones((d, 1))]),
        b_ub=np.zeros(d),
        A_eq=np.hstack([X, np.zeros((n, 1))]),
        b_eq=y,
        bounds=[(None, None)] * d + [(None, 0.5)],
    )
    if not inside.success or inside.x[-1] < 1e-3:
        return float("nan"), float("nan")

    def rate(_, v):  # of v = log β; least squares, for X diag(β) Xᵀ loses its rank on the way
        return 2 * (X.T @ np.linalg.lstsq((X * np.exp(v)) @ X.T, y, rcond=1e-13)[0] - 1)

    def gone(_, v):
        return v[off].max() - np.log(1e-5)

    gone.terminal = True
    flow = solve_ivp(
        rate, (0, tau_end), np.log(inside.x[:d]), method="LSODA", rtol=1e-7, atol=1e-9, events=gone
    )
    if flow.status != 1:
        return float("nan"), float("nan")
    reached = np.sum((np.exp(flow.y.T) - truth) ** 2, 1) < error * np.sum(truth**2)
    gap = float(-rate(0, flow.y[:, -1])[off].max() / 2)
    if not reached.any() or gap <= 0:  # rounding may hide the certificate
        return float("nan"), float("nan")
    return float(flow.t[reached.argmax()]), gap
