"""The linear toys of figures 1 and 2, solved exactly (SymPy): gradient flow and gradient descent."""

from __future__ import annotations

from collections.abc import Callable

import sympy as sp


def linear_flow(X, y, theta_0, lam, t) -> sp.Matrix:
    """θ(t), the gradient flow dθ/dt = −∇L_λ (eq. 3) of L_λ = ‖Xθ − y‖² + λ‖θ‖² from θ(0) = θ₀.

    Each eigenspace of XᵀX, with eigenvalue μ and projector P_μ, relaxes on its own, at the rate 2(μ + λ):
    P_μ θ(t) = P_μ Xᵀy / (μ + λ) + e^{−2(μ + λ)t} (P_μ θ₀ − P_μ Xᵀy / (μ + λ)).

    Parameters
    ----------
    X : (k, d) exact numbers: integers, rationals or SymPy expressions.
    y : k of them, the targets.
    theta_0 : d of them, the start.
    lam : λ, a number or symbol; a number must be positive (λ → 0 is a limit to take, not a value).
    t : time, a number or symbol.

    Returns
    -------
    (d, 1) SymPy matrix.

    Raises
    ------
    ValueError
        Shapes that do not fit, floats (the result would not be exact), or λ ≤ 0.
    """
    t = sp.sympify(t)
    return _relax(X, y, theta_0, lam, lambda rate: sp.exp(-rate * t))


def linear_descent(X, y, theta_0, lam, lr, n) -> sp.Matrix:
    """θ_n, n steps of gradient descent θ ← θ − lr ∇L_λ(θ): as `linear_flow`, with (1 − lr · rate)ⁿ for e^{−rate · t}."""
    lr, n = sp.sympify(lr), sp.sympify(n)
    return _relax(X, y, theta_0, lam, lambda rate: (1 - lr * rate) ** n)


def _relax(X, y, theta_0, lam, factor: Callable[[sp.Expr], sp.Expr]) -> sp.Matrix:
    X, y, theta_0, lam = sp.Matrix(X), sp.Matrix(y), sp.Matrix(theta_0), sp.sympify(lam)
    for name, value, shape in (("y", y, (X.rows, 1)), ("theta_0", theta_0, (X.cols, 1))):
        if value.shape != shape:
            raise ValueError(f"{name} has shape {value.shape}: must be {shape} to fit X of shape {X.shape}")
    for name, value in (("X", X), ("y", y), ("theta_0", theta_0), ("lam", lam)):
        if value.has(sp.Float):
            raise ValueError(f"{name} = {value}: must be exact (integers, rationals, symbols), not floats")
    if lam.is_positive is False:
        raise ValueError(f"lam = {lam}: must be positive")
    gram = X.T * X  # (d, d)
    eigenvalues = sorted(gram.eigenvals(), key=sp.default_sort_key)
    resting, moving = sp.zeros(X.cols, 1), sp.zeros(X.cols, 1)
    for mu in eigenvalues:
        P = sp.eye(X.cols)  # projector on the eigenspace, as a polynomial in XᵀX: needs no eigenvectors
        for other in eigenvalues:
            if other != mu:
                P = P * (gram - other * sp.eye(X.cols)) / (mu - other)
        end = (P * X.T * y / (mu + lam)).applyfunc(sp.factor)
        resting += end
        moving += (P * theta_0 - end).applyfunc(sp.factor) * factor(2 * (mu + lam))
    # kept as a sum of decaying exponentials: one fraction would hold growing ones, which overflow in floats
    return resting.applyfunc(sp.factor) + moving
