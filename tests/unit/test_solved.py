"""The smallest norms of the solved cases."""

import math

import numpy as np
import pytest
from scipy.optimize import linprog

from grokutils.solved import l1, l2, nuclear, recovery


def test_l2_is_the_projection_on_the_rows():
    rng = np.random.default_rng(1)
    X, theta = rng.normal(size=(3, 8)), rng.normal(size=8)
    value, found = l2(X, X @ theta)
    rows = np.linalg.qr(X.T)[0]
    assert found == pytest.approx(rows @ (rows.T @ theta))
    assert value == pytest.approx(np.sum((rows.T @ theta) ** 2))


def test_l1_finds_the_sparse_vector():
    rng = np.random.default_rng(0)
    X, beta = rng.normal(size=(15, 30)), np.r_[1.0, -2.0, np.zeros(28)]
    value, found = l1(X, X @ beta)
    assert value == pytest.approx(3.0)
    assert found == pytest.approx(beta, abs=1e-7)


def test_nuclear_finds_the_best_free_entry():
    """[[1, 2], [2, ?]], against a search over the one free entry."""
    known = np.array([[True, True], [True, False]])
    entry = np.linspace(-5, 5, 10001)
    whole = np.array([[[1.0, 2.0], [2.0, x]] for x in entry])
    expected = np.linalg.svd(whole, compute_uv=False).sum(1)
    value, M = nuclear(known, np.array([[1.0, 2.0], [2.0, 9.0]]))
    assert value == pytest.approx(expected.min(), rel=1e-5)
    assert M[0].tolist() == [1.0, 2.0]


def test_recovery_takes_longer_the_smaller_the_gap():
    X = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.3]])
    truth = np.array([1.0, 1.0, 0.0])
    tau, gap = recovery(X, truth)
    assert gap == pytest.approx(
        1 - 0.8, abs=1e-3
    )  # g = 1 on both of the support's columns, so (1, 1) · (.5, .3) off it
    nearer = recovery(X + np.array([[0, 0, 0.1], [0, 0, 0]]), truth)
    assert nearer[1] == pytest.approx(0.1, abs=1e-3)
    assert nearer[0] > 1.5 * tau


def test_recovery_of_what_is_not_the_cheapest():
    X = np.array([[1.0, 0.0, 0.7], [0.0, 1.0, 0.7]])
    assert all(math.isnan(value) for value in recovery(X, np.array([1.0, 1.0, 0.0])))


def test_recovery_without_a_certificate_is_none():
    """The truth is the cheapest non-negative vector here, and yet the gap that is computed at the end is negative."""
    X = np.random.default_rng([1, 9, 0]).normal(size=(9, 24))
    truth = np.r_[np.ones(3), np.zeros(21)]
    cheapest = linprog(np.ones(24), A_eq=X, b_eq=X @ truth)
    assert cheapest.x == pytest.approx(truth, abs=1e-7)
    assert all(math.isnan(value) for value in recovery(X, truth))
