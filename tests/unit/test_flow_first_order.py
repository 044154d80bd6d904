"""The first-order flow: its error's order, solved cases, and two other ways to write its equation."""

import numpy as np
import pytest
import torch

from grokutils import flow, models, tasks, zero_loss
from grokutils.flow import first_order
from grokutils.flow.reference import reference
from grokutils.linearization import linearize


def start(depth: int = 2):
    """A network, a task with two outputs, and a point of Z."""
    g = torch.Generator().manual_seed(1)
    X, X_test = (torch.randn(k, 3, generator=g, dtype=torch.float64) for k in (3, 4))
    model = models.two_layer(3, 8, 2, "softplus") if depth == 2 else models.mlp([3, 5, 5, 2], "softplus")
    theta = torch.randn(model.d, generator=g, dtype=torch.float64)
    Y = model(theta + 0.2 * torch.randn(model.d, generator=g, dtype=torch.float64), X)
    task = tasks.from_tensors(X, Y, X_test, torch.randn(4, 2, generator=g, dtype=torch.float64))
    return model, zero_loss.project(model, theta, X, Y), task


def solve(lin, u, guess):
    return lin.solve(u)


@pytest.mark.parametrize("depth", [2, 3])
def test_error_falls_with_the_square_of_lambda_and_the_limit_flows_with_lambda(depth):
    model, theta, task = start(depth)
    lin = linearize(model, theta, task.X_train)
    kappa, apart = float(lin.singular_values()[-1]) ** 2, {False: [], True: []}
    for share in (0.04, 0.01):
        lam = share * kappa
        true = reference(model, theta, task.X_train, task.Y_train, lam=lam, tau_end=0.2, points=2, rtol=1e-8)
        for first, errors in apart.items():
            run = flow.follow(
                model, theta, task, lam=lam if first else 0.0, first_order=first, tau_end=0.2, tolerance=1e-7
            )
            errors.append(np.linalg.norm(run.theta_end.values - true.theta.values[-1]))
    slopes = {first: np.log(errors[0] / errors[1]) / np.log(4) for first, errors in apart.items()}
    assert slopes[False] == pytest.approx(1, abs=0.1)
    assert slopes[True] == pytest.approx(2, abs=0.2)
    assert apart[True][1] < 0.1 * apart[False][1]


def test_kinds_of_linearization_agree():
    model, theta, task = start()
    ends = [
        flow.follow(model, theta, task, lam=0.01, first_order=True, tau_end=0.2, kind=kind).theta_end.values
        for kind in ("structured", "dense", "matrix_free")
    ]
    assert np.allclose(ends[0], ends[1], rtol=1e-6, atol=1e-8)
    assert np.allclose(ends[0], ends[2], rtol=1e-6, atol=1e-8)


def test_two_weights_whose_product_is_given_have_a_solution():
    """w₁w₂ = c: D = w₁² − w₂² falls as e^(−2τ) at every λ, and w₁w₂ = c − 2λc/√(D² + 4c²) on the slow manifold."""
    one = torch.ones(1, 1, dtype=torch.float64)
    model, c, tau = models.two_layer(1, 1, 1, "identity"), 1.5, 0.4
    task = tasks.from_tensors(one, c * one, 2 * one, 3 * one)
    theta = torch.tensor([3.0, 0.5], dtype=torch.float64)
    D = (9 - 0.25) * np.exp(-2 * tau)
    gaps = []
    for lam in (0.1, 0.05):
        run = flow.follow(model, theta, task, lam=lam, first_order=True, tau_end=tau, tolerance=1e-9)
        w1, w2 = run.theta_end.values
        u = c - 2 * lam * c / np.hypot(D, 2 * c)
        gaps.append((abs(w1 * w2 - u), abs(w1**2 - w2**2 - D)))
    for larger, smaller in zip(*gaps, strict=True):
        assert larger < 5e-3
        assert smaller == pytest.approx(larger / 4, rel=0.2)


def test_it_is_steepest_descent_of_a_corrected_norm_in_the_metric_beside_zero_loss():
    model, theta, task = start()
    X, lam = task.X_train, 0.1
    lin = linearize(model, theta, X)
    mu, nu = first_order.multipliers(lin, solve)
    push = first_order.correction(lambda t: linearize(model, t, X), lin, mu, nu)

    def half(t):  # ½‖μ₀‖²
        J = torch.func.jacrev(lambda s: model(s, X).flatten())(t)
        return 0.5 * torch.linalg.solve(J @ J.mT, J @ t).square().sum()

    J = lin.jacobian()
    v = -zero_loss.project_tangent(J, theta)
    bend = torch.func.hessian(lambda t: (nu * model(t, X)).sum())(theta)
    metric = torch.eye(model.d, dtype=torch.float64) - 2 * lam * bend
    tangent = zero_loss.project_tangent
    steepest = tangent(J, torch.func.grad(half)(theta)) + tangent(J, 2 * bend @ v)
    assert torch.allclose(tangent(J, push), steepest, rtol=1e-5, atol=1e-7)
    assert torch.linalg.eigvalsh(metric)[0] > 0


def test_seen_at_the_weights_it_is_the_equation_with_the_multipliers_rate():
    """dθ/dτ = −θ + Jᵀ(μ₀ − λK⁻¹μ₀′), up to λ²."""
    model, theta, task = start()
    X, errors = task.X_train, []

    def mu0(t):
        J = torch.func.jacrev(lambda s: model(s, X).flatten())(t)
        return torch.linalg.solve(J @ J.mT, J @ t)

    for lam in (0.02, 0.01):
        run = flow.follow(
            model,
            theta,
            task,
            lam=lam,
            first_order=True,
            tau_end=0.02,
            max_step=0.002,
            tolerance=1e-9,
            keep_theta=True,
        )
        at = torch.from_numpy(run.theta.values)
        times, k = run.tau.values, len(run.tau) - 3
        fit = np.polynomial.polynomial.polyfit(times[k - 2 : k + 3] - times[k], at[k - 2 : k + 3].numpy(), 4)
        J = torch.func.jacrev(lambda s: model(s, X).flatten())(at[k])
        K = J @ J.mT
        slow = J.mT @ mu0(at[k]) - at[k]
        rate = torch.func.jvp(mu0, (at[k],), (slow,))[1]
        expected = slow - lam * J.mT @ torch.linalg.solve(K, rate)
        errors.append(float((torch.from_numpy(fit[1]) - expected).norm()))
    assert errors[1] == pytest.approx(errors[0] / 4, rel=0.3)


def test_reports_where_its_weights_are_and_its_regime():
    model, theta, task = start()
    lin = linearize(model, theta, task.X_train)
    mu, nu = first_order.multipliers(lin, solve)
    run = flow.follow(model, theta, task, lam=1e-3, first_order=True, tau_end=0.1, keep_theta=True)
    beside = theta - 1e-3 * lin.vjp(nu)
    assert np.allclose(run.theta.values[0], beside, atol=1e-9)
    assert float(run.norm2[0]) == pytest.approx(float(beside @ beside))
    assert float(run.residual[0]) == pytest.approx(1e-3 * float(mu.norm()), rel=0.02)
    further = lin.vjp(lin.solve(nu))
    assert float(run.ratio[0]) == pytest.approx(1e-3 * float(further.norm() / lin.vjp(nu).norm()), rel=1e-3)
    assert run.attrs["flow"] == "first order"
    assert run.attrs["lam"] == 1e-3


def test_landed_is_who_is_beside_zero_loss_or_comes_no_nearer():
    model, theta, task = start()
    lam = 1e-4
    lin = linearize(model, theta, task.X_train)
    beside = theta + lam * first_order.shift(lin, first_order.multipliers(lin, solve)[1])
    assert flow.Landing(model, task, lam)(beside)  # at first sight
    assert not flow.Landing(model, task, lam)(theta)  # on Z itself: its residual is not -λμ₀ but 0
    off = lambda share: beside + share * (theta - beside)  # noqa: E731
    nears = flow.Landing(model, task, lam)
    assert [nears(off(share)) for share in (3.0, 0.9, 0.5, 0.6)] == [False, False, False, True]
    beyond = flow.Landing(model, task, lam)
    assert [beyond(off(share)) for share in (2.0, 3.0)] == [
        False,
        False,
    ]  # farther than Z itself: still on its way
    strict = flow.Landing(model, task, lam, close=0.5)
    assert [strict(off(share)) for share in (0.6, 0.4)] == [False, True]


def test_begins_where_training_has_settled_beside_zero_loss():
    model, theta, task = start()
    landing = flow.Landing(model, task, 1e-3)
    run = flow.follow(
        model,
        theta + 0.3,
        task,
        lam=1e-3,
        tau_end=1.0,
        tolerance=1e-6,
        callback=lambda row, at: landing(at),
        keep_theta=True,
    )
    assert run.attrs["ended"] == "callback"
    for at, there in ((0, False), (-1, True)):
        point = torch.from_numpy(run.theta.values[at])
        lin = linearize(model, point, task.X_train)
        mu = first_order.multipliers(lin, solve)[0]
        apart = float((lin.outputs - task.Y_train + 1e-3 * mu).norm() / (1e-3 * mu.norm()))
        assert (apart <= 0.02) == there


@pytest.mark.parametrize(
    "how", [{"lam": 0.0}, {"lam": 0.1, "penalty": flow.Decay()}, {"lam": 0.1, "force": abs}]
)
def test_wrong_uses_are_refused(how):
    model, theta, task = start()
    with pytest.raises(ValueError, match="first_order with lam"):
        flow.follow(model, theta, task, first_order=True, tau_end=0.1, **how)


def test_only_decay_moves_the_point_where_training_would_land():
    """dΦ/dτ = −DΦ(θ)θ off Z too: what the junction is the integral of."""
    model, theta, task = start()
    theta, X, Y, h = theta + 0.2, task.X_train, task.Y_train, 1e-3

    def lands(at):
        return flow.landing(model, at, X, Y, rtol=1e-7)

    run = flow.follow(model, theta, task, lam=0.3, tau_end=h, tolerance=1e-9)
    moved = lands(torch.from_numpy(run.theta_end.values)) - lands(theta)
    middle = 0.5 * (theta + torch.from_numpy(run.theta_end.values))
    expected = -h * (lands(1.001 * middle) - lands(0.999 * middle)) / 0.002
    assert float((moved - expected).norm() / expected.norm()) < 0.01
    gone = torch.from_numpy(run.theta_end.values) - theta
    assert float(gone.norm()) > 3 * float(moved.norm()), "the loss has moved θ much farther than Φ"
