"""Exact solutions of the linear toys: they satisfy their equations, and agree with SciPy and with plain descent."""

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm

from grokutils import toys

lam, t, lr = sp.symbols("lambda t eta", positive=True)
n = sp.Symbol("n", integer=True, nonnegative=True)

entries = st.integers(-3, 3)


@st.composite
def problems(draw):
    k, d = 1, draw(st.integers(1, 3))  # more samples mean nested radicals, slow and no new code
    X = [[draw(entries) for _ in range(d)] for _ in range(k)]
    return X, [draw(entries) for _ in range(k)], [draw(entries) for _ in range(d)]


def gradient(X, y, theta, lam):
    X, y = sp.Matrix(X), sp.Matrix(y)
    return 2 * X.T * (X * theta - y) + 2 * lam * theta


@pytest.mark.parametrize(
    ("X", "y", "start"),
    [
        ([[1, 1]], [2], [-1, 1]),
        ([[1, 1, 1]], [3], sp.symbols("a b c", real=True)),
        ([[sp.Rational(1, 10), 1]], [2], sp.symbols("a b", real=True)),
        ([[1, 2, 0], [0, 1, -1]], [1, 4], [1, 1, 1]),
    ],
)
def test_flow_satisfies_its_equation_exactly(X, y, start):
    theta = toys.linear_flow(X, y, start, lam, t)
    assert (theta.diff(t) + gradient(X, y, theta, lam)).applyfunc(sp.simplify) == sp.zeros(len(start), 1)
    assert theta.subs(t, 0).applyfunc(sp.simplify) == sp.Matrix(start)


def test_descent_satisfies_its_recursion_exactly():
    X, y, start = [[1, 1]], [2], sp.symbols("a b", real=True)
    theta = toys.linear_descent(X, y, start, lam, lr, n)
    step = theta.subs(n, n + 1) - theta + lr * gradient(X, y, theta, lam)
    assert step.applyfunc(sp.simplify) == sp.zeros(2, 1)
    assert theta.subs(n, 0).applyfunc(sp.simplify) == sp.Matrix(start)


@settings(deadline=None, max_examples=15)
@given(problems(), st.sampled_from([0.01, 0.3]), st.sampled_from([0.05, 2.0]))
def test_flow_agrees_with_the_matrix_exponential(problem, lam_value, time):
    X, y, start = problem
    theta = toys.linear_flow(X, y, start, lam, t)
    measured = np.array(theta.subs({lam: sp.Rational(str(lam_value)), t: sp.Rational(str(time))}), complex)
    X, y, start = np.array(X, float), np.array(y, float), np.array(start, float)
    M = X.T @ X + lam_value * np.eye(X.shape[1])
    end = np.linalg.solve(M, X.T @ y)
    np.testing.assert_allclose(measured[:, 0], end + expm(-2 * time * M) @ (start - end), atol=1e-9)


@settings(deadline=None, max_examples=8)
@given(problems(), st.integers(0, 30))
def test_descent_agrees_with_a_plain_loop(problem, steps):
    X, y, start = problem
    rate, decay = sp.Rational(1, 100), sp.Rational(1, 10)
    theta = sp.Matrix(start)
    loop = np.array(start, float)
    A, b = np.array(X, float), np.array(y, float)
    for _ in range(steps):
        loop = loop - 0.01 * (2 * A.T @ (A @ loop - b) + 0.2 * loop)
    theta = np.array(toys.linear_descent(X, y, start, decay, rate, steps).evalf(30), complex)
    np.testing.assert_allclose(theta[:, 0], loop, atol=1e-9)


def test_limit_of_small_decay_is_the_slow_flow_of_linear_regression():
    """λ → 0 at fixed τ = 2λt: θ = X⁺y + e^{−τ} N θ₀, N the projector on the null space of X."""
    tau = sp.Symbol("tau", positive=True)
    X, y, start = sp.Matrix([[1, 1, 1]]), sp.Matrix([3]), sp.Matrix(sp.symbols("a b c", real=True))
    slow = toys.linear_flow(X, y, start, lam, tau / (2 * lam)).applyfunc(lambda e: sp.limit(e, lam, 0, "+"))
    expected = X.pinv() * y + sp.exp(-tau) * (sp.eye(3) - X.pinv() * X) * start
    assert (slow - expected).applyfunc(sp.simplify) == sp.zeros(3, 1)


def test_a_null_matrix_leaves_pure_decay():
    assert toys.linear_flow([[0, 0]], [5], [1, -2], lam, t) == sp.exp(-2 * lam * t) * sp.Matrix([1, -2])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"y": [1, 2]}, "y has shape"),
        ({"theta_0": [1]}, "theta_0 has shape"),
        ({"theta_0": [0.5, 1]}, "theta_0 = .*exact"),
        ({"lam": 0}, "lam = 0: must be positive"),
        ({"lam": -1}, "lam = -1: must be positive"),
        ({"lam": 0.1}, "lam = .*exact"),
    ],
)
def test_bad_arguments_are_named(changed, message):
    arguments = {"X": [[1, 1]], "y": [2], "theta_0": [0, 1], "lam": lam, "t": t} | changed
    with pytest.raises(ValueError, match=message):
        toys.linear_flow(**arguments)
