"""The reference flows against closed forms, invariants, a second integrator and training at small weight decay."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grokutils import flow, zero_loss
from grokutils.errors import StoppedError

ONE = torch.ones(1, 1, dtype=torch.float64)


def vector(*entries):
    return torch.tensor(entries, dtype=torch.float64)


def limit(f, theta0, X, Y, tau_end, points=101, rtol=1e-10, tolerance=1e-8, method="DOP853"):
    return flow.reference(
        f,
        theta0,
        X,
        Y,
        lam=0.0,
        tau_end=tau_end,
        points=points,
        rtol=rtol,
        tolerance=tolerance,
        method=method,
    )


def training_flow(f, theta0, X, Y, lam, tau_end, points=101, rtol=1e-9, method="LSODA"):
    return flow.reference(f, theta0, X, Y, lam=lam, tau_end=tau_end, points=points, rtol=rtol, method=method)


def product(theta, X):
    return theta.prod() * X


def network(width: int, d_in: int = 2):
    """A two-layer tanh network with one output."""

    def f(theta, X):
        W1, W2 = theta[: d_in * width].reshape(d_in, width), theta[d_in * width :].reshape(width, 1)
        return torch.tanh(X @ W1) @ W2

    return f


def on_zero_loss(seed: int, n: int = 2, width: int = 4):
    """A network with random parameters and the targets that they fit."""
    g = torch.Generator().manual_seed(seed)
    f = network(width)
    X = torch.randn(n, 2, generator=g, dtype=torch.float64)
    theta = torch.randn(3 * width, generator=g, dtype=torch.float64)
    return f, theta, X, f(theta, X)


# Closed forms


@pytest.mark.parametrize("method", ["DOP853", "RK45"])
def test_two_weights_follow_their_closed_form(method):
    c, w = 1.5, 2.5
    run = limit(product, vector(w, c / w), ONE, c * ONE, 3.0, points=31, method=method)
    D = (w**2 - (c / w) ** 2) * np.exp(-2 * run.tau.values)
    V = np.hypot(D, 2 * c)
    np.testing.assert_allclose(run.norm2, V, rtol=0, atol=1e-8)
    np.testing.assert_allclose(run.theta, np.sqrt([(V + D) / 2, (V - D) / 2]).T, rtol=0, atol=1e-8)


def test_linear_regression_loses_its_null_component_exponentially():
    g = torch.Generator().manual_seed(0)
    X, theta0 = torch.randn(3, 5, generator=g, dtype=torch.float64), torch.randn(5, generator=g).double()
    run = limit(lambda t, X: X @ t[:, None], theta0, X, X @ theta0[:, None], 4.0, points=9)
    kept = torch.linalg.pinv(X) @ X @ theta0
    expected = kept + torch.exp(-torch.tensor(run.tau.values))[:, None] * (theta0 - kept)
    np.testing.assert_allclose(run.theta, expected, rtol=0, atol=1e-8)


@settings(deadline=None, max_examples=6)
@given(st.lists(st.floats(0.4, 2.0), min_size=2, max_size=4))
def test_differences_of_squares_in_a_chain_decay_at_rate_two(w):
    w = vector(*w)
    run = limit(product, w, ONE, w.prod() * ONE, 1.0, points=4)
    D = run.theta.values**2 - run.theta.values[:, :1] ** 2
    np.testing.assert_allclose(D, D[0] * np.exp(-2 * run.tau.values)[:, None], rtol=0, atol=1e-8)


@settings(deadline=None, max_examples=4)
@given(st.integers(0, 10**6))
def test_balance_matrix_of_a_factorization_decays_at_rate_two(seed):
    g = torch.Generator().manual_seed(seed)
    theta0 = torch.randn(12, generator=g, dtype=torch.float64)
    X = torch.eye(2, dtype=torch.float64)

    def factors(t, X):
        return X @ t[:6].reshape(2, 3) @ t[6:].reshape(3, 2)

    run = limit(factors, theta0, X, factors(theta0, X), 1.0, points=4)
    W1, W2 = run.theta.values[:, :6].reshape(-1, 2, 3), run.theta.values[:, 6:].reshape(-1, 3, 2)
    Q = W1.transpose(0, 2, 1) @ W1 - W2 @ W2.transpose(0, 2, 1)
    np.testing.assert_allclose(Q, Q[0] * np.exp(-2 * run.tau.values)[:, None, None], rtol=0, atol=1e-8)


# Invariants on random networks


@settings(deadline=None, max_examples=6)
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_flow_stays_on_zero_loss_and_never_gains_norm(seed, n):
    f, theta0, X, Y = on_zero_loss(seed, n)
    run = limit(f, theta0, X, Y, 0.5, points=6, tolerance=1e-6, rtol=1e-8)
    outputs = np.array([zero_loss.outputs(f, torch.tensor(t), X) for t in run.theta.values])
    np.testing.assert_allclose(outputs, np.broadcast_to(Y.reshape(-1), outputs.shape), rtol=0, atol=1e-8)
    assert (np.diff(run.norm2) < 0).all()
    assert (run.drift <= 1e-6).all()


def test_norm_falls_at_the_rate_of_the_tangent_part():
    f, theta0, X, Y = on_zero_loss(3)
    run = limit(f, theta0, X, Y, 2e-3, points=3)
    middle = torch.tensor(run.theta.values[1])
    rate = (run.norm2.values[2] - run.norm2.values[0]) / 2e-3
    assert rate == pytest.approx(-2 * float(zero_loss.norm_descent(f, middle, X).square().sum()), rel=1e-5)


def test_flow_ends_at_a_critical_point_of_the_norm():
    f, theta0, X, Y = on_zero_loss(4)
    run = limit(f, theta0, X, Y, 25.0, points=2, rtol=1e-8)
    last = torch.tensor(run.theta.values[-1])
    J = zero_loss.jacobian(f, last, X)
    mu = torch.linalg.lstsq(J.T, last[:, None]).solution[:, 0]  # Lagrange: θ = Jᵀμ
    assert (J.T @ mu - last).norm() < 1e-3 * last.norm()
    assert zero_loss.norm_descent(f, theta0, X).norm() > 0.1 * theta0.norm()  # it was not one at the start


# Convergence


def test_error_falls_with_the_tolerance_and_two_integrators_agree():
    f, theta0, X, Y = on_zero_loss(5)
    ends = {
        (method, rtol): limit(f, theta0, X, Y, 1.0, 2, rtol, 0.1, method).theta.values[-1]
        for method in ("DOP853", "RK45")
        for rtol in (1e-3, 1e-6, 1e-9)
    }
    best = limit(f, theta0, X, Y, 1.0, 2, 1e-12).theta.values[-1]
    errors = [np.abs(ends["RK45", rtol] - best).max() for rtol in (1e-3, 1e-6, 1e-9)]
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    np.testing.assert_allclose(ends["DOP853", 1e-9], ends["RK45", 1e-9], rtol=0, atol=1e-7)


def test_tight_tolerance_shortens_steps_until_drift_obeys_it():
    f, theta0, X, Y = on_zero_loss(5)
    loose = limit(f, theta0, X, Y, 1.0, 5, rtol=1e-3, method="RK45", tolerance=1e-2)
    tight = limit(f, theta0, X, Y, 1.0, 5, rtol=1e-3, method="RK45", tolerance=1e-7)
    assert loose.drift.max() > 1e-7
    assert 0 < tight.drift.max() <= 1e-7


def test_training_approaches_the_slow_flow_in_proportion_to_weight_decay():
    f, theta0, X, Y = on_zero_loss(6)
    slow = limit(f, theta0, X, Y, 1.0, points=5)
    errors = [
        float(abs(training_flow(f, theta0, X, Y, lam, 1.0, points=5).theta - slow.theta).max())
        for lam in (1e-3, 1e-4)
    ]
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.1)


def test_plateau_residual_and_loss_have_their_constants():
    f, theta0, X, Y = on_zero_loss(7)
    lam = 1e-5
    last = training_flow(f, theta0, X, Y, lam, 0.5, points=2).isel(step=-1)
    theta = torch.tensor(last.theta.values)
    J = zero_loss.jacobian(f, theta, X)
    expected = torch.linalg.solve(J @ J.T, J @ theta)  # −r/λ
    r = zero_loss.outputs(f, theta, X) - Y.reshape(-1)
    np.testing.assert_allclose(r, -lam * expected, rtol=2e-3)
    assert float(last.loss) == pytest.approx(lam**2 * float(expected.square().sum()), rel=4e-3)
    assert float(last.residual) == pytest.approx(float(r.norm()))


@pytest.mark.parametrize("method", ["BDF", "LSODA", "Radau"])
def test_charge_decays_exactly_at_every_weight_decay(method):
    run = training_flow(product, vector(2.0, 0.1), ONE, ONE, 0.3, 2.0, 5, rtol=1e-9, method=method)
    D = run.theta.values[:, 0] ** 2 - run.theta.values[:, 1] ** 2
    np.testing.assert_allclose(D, D[0] * np.exp(-2 * run.tau), rtol=0, atol=1e-6)
    assert (np.diff(run.norm2) < 0).all()


def test_landing_keeps_the_charge_and_reaches_zero_loss():
    start = vector(2.0, 0.1)
    end = flow.landing(product, start, ONE, ONE)
    assert end.prod() == pytest.approx(1, abs=1e-12)
    assert end[0] ** 2 - end[1] ** 2 == pytest.approx(4 - 0.01, abs=1e-8)
    assert (
        torch.equal(flow.landing(product, end, ONE, ONE), end)
        or (flow.landing(product, end, ONE, ONE) - end).norm() < 1e-12
    )


def test_slow_flow_is_the_landing_of_a_start_shrunk_by_its_decay():
    """One output of a homogeneous network: θ(τ) = Φ(e^{−τ}θ₀)."""
    theta0 = vector(1.8, 0.5, 1.1)
    c = float(theta0.prod())
    run = limit(product, theta0, ONE, c * ONE, 1.0, points=3)
    for tau, theta in zip(run.tau.values, run.theta.values, strict=True):
        landed = flow.landing(product, np.exp(-tau) * theta0, ONE, c * ONE)
        np.testing.assert_allclose(theta, landed, rtol=0, atol=1e-7)


# Records and error paths


def test_many_starts_make_many_runs():
    starts = torch.stack([vector(2.0, 0.5), vector(0.5, 2.0), vector(1.0, 1.0)])
    run = limit(product, starts, ONE, ONE, 1.0, points=4)
    assert run.theta.dims == ("run", "step", "parameter")
    assert dict(run.sizes) == {"run": 3, "step": 4, "parameter": 2}
    assert run.tau.dims == ("step",)
    np.testing.assert_allclose(run.theta[0], run.theta[1].values[:, ::-1], rtol=0, atol=1e-12)
    np.testing.assert_allclose(run.theta[2], 1.0, rtol=0, atol=1e-12)  # the minimum does not move
    np.testing.assert_allclose(run.norm2, (run.theta**2).sum("parameter"))
    np.testing.assert_allclose(run.sigma_min, np.sqrt(run.norm2), rtol=1e-9)  # J = (w₂, w₁)


def test_start_off_zero_loss_is_refused_with_its_distance():
    with pytest.raises(ValueError, match=r"residual 1, distance about 0\.4.*zero_loss\.project"):
        limit(product, vector(1.0, 2.0), ONE, ONE, 1.0)


def test_too_few_parameters_are_refused():
    X = torch.eye(2, dtype=torch.float64)
    for run in (
        lambda: limit(lambda t, X: X * t, vector(1.0), X, X, 1.0),
        lambda: flow.landing(lambda t, X: X * t, vector(1.0), X, X),
    ):
        with pytest.raises(ValueError, match="d ≥ nm"):
            run()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tau_end": 0.0}, "tau_end"),
        ({"tau_end": float("inf")}, "tau_end"),
        ({"points": 1}, "points"),
        ({"rtol": 0.5}, "rtol"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"method": "Euler"}, "method"),
        ({"Y": torch.ones(2, 1, dtype=torch.float64)}, "Y has shape"),
        ({"theta0": torch.ones(2)}, "float64"),
        ({"theta0": torch.ones(2, 2, 2, dtype=torch.float64)}, "theta0 has shape"),
    ],
)
def test_bad_arguments_are_named(change, message):
    good = {"f": product, "theta0": vector(1.0, 1.0), "X": ONE, "Y": ONE, "tau_end": 1.0}
    with pytest.raises(ValueError, match=message):
        limit(**{**good, **change})


@pytest.mark.parametrize("lam", [-1.0, float("nan")])
def test_negative_decay_is_refused(lam):
    with pytest.raises(ValueError, match="lam"):
        training_flow(product, vector(1.0, 1.0), ONE, ONE, lam, 1.0)


def test_limit_needs_a_loss_with_minimizers():
    Y = torch.tensor([[1.0, 0.0]]).double()
    with pytest.raises(ValueError, match="infinity"):
        flow.reference(
            lambda t, X: t[None] * X, vector(1.0, 1.0), ONE, Y, lam=0.0, tau_end=1.0, loss="cross_entropy"
        )


def test_cross_entropy_comes_to_rest_where_its_gradient_meets_decay():
    X, Y = torch.eye(2, dtype=torch.float64), torch.tensor([[0.9, 0.1], [0.2, 0.8]]).double()

    def f(t, X):
        return X @ t.reshape(2, 2)

    run = flow.reference(
        f, vector(0.1, -0.2, 0.3, 0.0), X, Y, lam=0.1, tau_end=30.0, points=2, loss="cross_entropy"
    )
    theta = torch.tensor(run.theta.values[-1])
    force = (torch.softmax(f(theta, X), 1) - Y).flatten()
    torch.testing.assert_close(force, -2 * 0.1 * theta, rtol=0, atol=1e-7)


def test_singular_point_on_the_way_stops_and_keeps_the_record():
    # On w₁w₂ = 0 the flow runs down the first axis into the origin, where J = (w₂, w₁) vanishes; a second,
    # regular output keeps the other singular value at 1.
    def f(t, X):
        return torch.stack([t[0] * t[1], t[2]])[None] * X

    with pytest.raises(StoppedError, match="full rank") as stopped:
        limit(f, vector(1.0, 0.0, 1.0), ONE, torch.tensor([[0.0, 1.0]]).double(), 40.0, 41)
    reached = stopped.value.records
    assert 10 < reached.sizes["step"] < 41
    np.testing.assert_allclose(reached.theta[:, 0], np.exp(-reached.tau), rtol=0, atol=1e-8)
    np.testing.assert_allclose(reached.sigma_min, np.exp(-reached.tau), rtol=0, atol=1e-8)


def test_singular_start_is_recorded_and_refused():
    with pytest.raises(StoppedError, match="theta0") as stopped:
        limit(product, vector(0.0, 0.0), ONE, 0 * ONE, 1.0)
    assert stopped.value.records.sizes["step"] == 1


def test_flow_stops_at_a_kink_of_zero_loss_and_keeps_the_record():
    """On w₁ = c + |w₂|/5 both weights shrink until w₂ = 0, where Z bends by an angle and the flow cannot cross."""

    def f(t, X):
        return (t[0] - 0.2 * t[1].abs()) * X

    theta0 = vector(1.0, 0.5)
    with pytest.raises(StoppedError) as stopped:
        limit(f, theta0, ONE, f(theta0, ONE), 10.0, 101)
    assert 1 < stopped.value.records.sizes["step"] < 101


def test_landing_that_never_reaches_zero_loss_says_so():
    with pytest.raises(StoppedError, match="no point of Z") as stopped:
        flow.landing(product, vector(0.0, 0.0), ONE, ONE)  # a saddle of L
    assert float(stopped.value.records.residual[0]) == pytest.approx(1)


def test_training_that_cannot_go_on_keeps_its_record():
    def f(t, X):
        return t.sum().sqrt() * X  # pulled towards −1, to where the root ends with an infinite slope

    with pytest.raises(StoppedError) as stopped:
        training_flow(f, vector(0.5, 0.5), ONE, -ONE, 0.1, 5.0, points=5001)
    assert 1 < stopped.value.records.sizes["step"] < 5001
    assert np.isfinite(stopped.value.records.theta).all()


@pytest.mark.parametrize("method", ["BDF", "LSODA", "Radau"])
def test_start_with_infinite_outputs_is_refused(method):
    with pytest.raises(ValueError, match=r"F\(theta0\) holds NaN or infinite"):
        training_flow(product, vector(1e200, 1e200), ONE, ONE, 0.1, 1.0, method=method)
