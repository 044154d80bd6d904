"""The implicit flow against the reference, between linearizations, in its order, and in what every gradient flow obeys."""

import re
import time

import numpy as np
import pytest
import torch

from grokutils import flow, losses, models, records, tasks, training, zero_loss
from grokutils.errors import NoMultipliersError, StoppedError
from grokutils.flow import events, implicit, integrator, multipliers
from grokutils.flow.implicit import Step
from grokutils.flow.integrator import Integrator, Point
from grokutils.flow.multipliers import Multipliers
from grokutils.linearization import Sides, linearize
from grokutils.linearization.sharpness import sharpness

DECAY = flow.Decay()


def small(
    loss: str = "squared_error", depth: int = 2, seed: int = 0, n: int = 3, activation: str = "softplus"
):
    """A network with 2 outputs, a task of random inputs, and a start that does not fit it."""
    g = torch.Generator().manual_seed(seed)
    X, X_test = (torch.randn(k, 3, generator=g, dtype=torch.float64) for k in (n, 4))
    model = models.two_layer(3, 7, 2, activation) if depth == 2 else models.mlp([3, 5, 5, 2], activation)
    theta = torch.randn(model.d, generator=g, dtype=torch.float64)
    if loss == "cross_entropy":
        Y, Y_test = (torch.eye(2, dtype=torch.float64)[torch.arange(k) % 2] for k in (n, 4))
    else:
        Y = model(theta + 0.3 * torch.randn(model.d, generator=g, dtype=torch.float64), X)
        Y_test = torch.randn(4, 2, generator=g, dtype=torch.float64)
    return model, theta, tasks.from_tensors(X, Y, X_test, Y_test)


def on_zero_loss(**how):
    model, theta, task = small(**how)
    return model, zero_loss.project(model, theta, task.X_train, task.Y_train), task


def gap(run, end) -> float:
    """Relative distance of a flow's end from another θ."""
    end = np.asarray(end)
    return float(np.linalg.norm(run.theta_end.values - end) / np.linalg.norm(end))


# Against the reference, and between kinds


@pytest.mark.parametrize(
    ("loss", "depth"), [("squared_error", 2), ("squared_error", 3), ("cross_entropy", 3)]
)
def test_gradient_flow_is_that_of_the_reference_from_any_start(loss, depth):
    model, theta, task = small(loss, depth)
    exact = flow.reference(
        model, theta, task.X_train, task.Y_train, lam=0.05, tau_end=0.05, points=2, rtol=1e-8, loss=loss
    )
    run = flow.follow(model, theta, task, lam=0.05, loss=loss, tau_end=0.05, tolerance=1e-7)
    assert gap(run, exact.theta[-1]) < 1e-5
    assert run.attrs["ended"] == "tau_end"


@pytest.mark.parametrize("depth", [2, 3])
def test_limit_is_that_of_the_reference_and_stays_on_zero_loss(depth):
    model, theta, task = on_zero_loss(depth=depth)
    exact = flow.reference(
        model, theta, task.X_train, task.Y_train, lam=0.0, tau_end=0.3, points=2, rtol=1e-9
    )
    run = flow.follow(model, theta, task, lam=0.0, tau_end=0.3, tolerance=1e-8)
    assert gap(run, exact.theta[-1]) < 3e-6
    assert (run.residual <= 1e-8 * float(task.Y_train.norm())).all()


@pytest.mark.parametrize(
    ("loss", "lam"), [("squared_error", 0.0), ("squared_error", 0.03), ("cross_entropy", 0.03)]
)
def test_kinds_of_linearization_give_the_same_flow(loss, lam):
    model, theta, task = small(loss)
    ends = [
        flow.follow(model, theta, task, lam=lam, loss=loss, tau_end=0.3, tolerance=1e-5, kind=kind)
        for kind in ("structured", "dense", "matrix_free")
    ]
    assert gap(ends[0], ends[1].theta_end) < 1e-6
    assert gap(ends[0], ends[2].theta_end) < 1e-6


@pytest.mark.parametrize(("loss", "depth"), [("squared_error", 2), ("cross_entropy", 3)])
def test_gradient_descent_in_small_steps_follows_it(loss, depth):
    """PyTorch's w and lr: τ = lr·w·steps, λ = count·w/2."""
    model, theta, task = small(loss, depth)
    lr, w, steps = 0.02, 0.05, 1000
    run = training.train(
        model, task, steps, theta0=theta, lr=lr, weight_decay=w, loss=loss, keep_theta=True, record_at=2
    )
    end = run.theta.values[0, -1]
    lam = losses.lam(loss, task.Y_train, w)
    followed = flow.follow(model, theta, task, lam=lam, loss=loss, tau_end=lr * w * steps, tolerance=1e-6)
    assert np.linalg.norm(followed.theta_end - end) < 5e-3 * np.linalg.norm(end - theta.numpy())
    assert float(followed.train_loss[-1]) == pytest.approx(float(run.train_loss[0, -1]), rel=5e-3)
    assert float(followed.test_loss[-1]) == pytest.approx(float(run.test_loss[0, -1]), rel=5e-3)


# Order, cost, and the estimate of the error


@pytest.mark.parametrize(("loss", "lam"), [("squared_error", 0.0), ("cross_entropy", 0.1)])
def test_error_is_of_second_order_in_the_step(loss, lam):
    model, theta, task = small(loss)
    if lam:  # past the fast phase, in which the step follows the tolerance
        theta = torch.from_numpy(
            flow.follow(model, theta, task, lam=lam, loss=loss, tau_end=0.5).theta_end.values
        )
    ends = {
        h: flow.follow(
            model, theta, task, lam=lam, loss=loss, tau_end=0.5, tolerance=0.1, max_step=h
        ).theta_end.values
        for h in (1e-2, 5e-3, 2.5e-3)
    }
    coarse, fine = (np.linalg.norm(ends[h] - ends[h / 2]) for h in (1e-2, 5e-3))
    assert 3 < coarse / fine < 5.5


def test_cost_does_not_grow_when_decay_falls():
    model, theta, task = small()
    runs = [flow.follow(model, theta, task, lam=lam, tau_end=1.0) for lam in (1e-2, 1e-6)]
    assert runs[1].attrs["products"] < 2 * runs[0].attrs["products"]
    assert runs[1].attrs["factorizations"] <= 12


def test_an_old_factor_goes_once_it_has_cost_more_than_a_new_one(monkeypatch):
    """Where K is not formed, its factor is cheap beside many products; the flow is the same."""
    monkeypatch.setattr(multipliers, "FACTORED", 0)
    model, task = models.two_layer(7, 48, 7, "gelu"), tasks.modular(7, seed=0)
    renewed, kept = (
        (
            monkeypatch.setattr(multipliers, "WORTH", worth),
            flow.follow(model, model.init(0), task, lam=0.03, tau_end=1.0),
        )[1]
        for worth in (6, np.inf)
    )
    assert renewed.attrs["factorizations"] > kept.attrs["factorizations"]
    assert renewed.attrs["products"] < 0.95 * kept.attrs["products"]
    assert gap(renewed, kept.theta_end) < 1e-5


def test_a_weighted_linearization_is_that_of_the_scaled_weights():
    model, theta, task = small()
    lin = linearize(model, theta, task.X_train, "dense")
    D = torch.rand(model.d, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 0.3
    seen, J = implicit.Weighted(lin, D), lin.jacobian()
    torch.testing.assert_close(seen.gram(), J / D @ J.mT)
    u = torch.randn(*lin.outputs.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.testing.assert_close(seen.product(u), (J / D @ J.mT @ u.flatten()).view_as(u))


def test_products_in_single_precision_lead_to_the_same_weights(monkeypatch):
    monkeypatch.setattr(multipliers, "FACTORED", 0)
    model, task = models.two_layer(7, 48, 7, "gelu"), tasks.modular(7, seed=0)
    follow = lambda: flow.follow(model, model.init(0), task, lam=0.03, tau_end=1.0, tolerance=1e-6)  # noqa: E731
    rough = follow()
    monkeypatch.setattr(multipliers, "ROUGH", np.inf)
    exact = follow()
    assert 0 < gap(rough, exact.theta_end) < 1e-8
    assert rough.attrs["products"] == pytest.approx(exact.attrs["products"], rel=0.02)


@pytest.mark.parametrize("lam", [1e-1, 1e-5, 1e-8])
def test_after_products_in_single_precision_the_exact_residual_is_as_small_as_asked(monkeypatch, lam):
    """Also where λ is tiny beside K, and single precision alone would not resolve it."""
    monkeypatch.setattr(multipliers, "FACTORED", 0)
    search, left = Multipliers._search, []

    def searched(self, times, u, x, enough, *rest):
        found, used = search(self, times, u, x, enough, *rest)
        if found is not None and used:
            r = u - times(found)
            r = r.flatten().numpy()
            left.append(r @ self._precondition(r) / enough)
        return found, used

    monkeypatch.setattr(Multipliers, "_search", searched)
    model, task = models.two_layer(11, 96, 11, "gelu"), tasks.modular(11, seed=0)
    flow.follow(model, model.init(0), task, lam=lam, tau_end=0.5, tolerance=1e-4)
    assert len(left) > 100
    assert max(left) < 1.05


def test_slip_bounds_the_error_of_the_time_and_falls_with_the_tolerance():
    """Against a fine flow, at a norm that both pass."""
    model, theta, task = on_zero_loss()
    event = flow.Event("fallen", lambda t: float(t @ t) - 0.8 * float(theta @ theta))
    fine, coarse = (
        flow.follow(model, theta, task, lam=0.0, tau_end=1.0, tolerance=tolerance, until=event)
        for tolerance in (1e-7, 1e-3)
    )
    error = abs(float(coarse.event_tau[0]) - float(fine.event_tau[0]))
    assert error < abs(float(coarse.slip[-1])) < 30 * error
    assert abs(float(fine.slip[-1])) < 1e-2 * abs(float(coarse.slip[-1]))


# One step: its formula, its length, its multipliers


def on_a_curve(theta_of, *times, **how):
    """An integrator whose last points lie on the curve ``theta_of``."""
    model, _, task = small()
    fixed = {"penalty": DECAY, "force": None, "kind": "structured", "tolerance": 1e-4, "max_step": 1.0}
    path = Integrator(
        how.pop("model", model),
        task.X_train,
        task.Y_train,
        losses.squared_error,
        **{"lam": 0.1, **fixed, **how},
    )
    for tau in times:
        at = theta_of(tau)
        path.past.append(Point(tau, at, model(at, task.X_train), None, None, 1.0, 0.0, 1.0, at))
    return path


def polynomial(degree):
    """A curve (τ) → θ and its derivative, for the network of :func:`small`."""
    C = torch.randn(degree + 1, 35, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (
        lambda tau: sum(c * tau**k for k, c in enumerate(C)),
        lambda tau: sum(k * c * tau ** (k - 1) for k, c in enumerate(C) if k),
    )


def test_two_step_formula_and_extrapolations_are_exact_on_polynomials():
    """Of degree 2 with unequal steps: BDF2, and θ* from three points; of degree 1, θ* from two; and Euler's first step."""
    theta, slope = polynomial(2)
    path, h = on_a_curve(theta, 0.1, 0.3, 0.45), 0.25
    star, b, gamma, _ = path._extrapolated(h)
    torch.testing.assert_close(star, theta(0.7))
    torch.testing.assert_close(b + gamma * h * slope(0.7), theta(0.7))
    line, steady = polynomial(1)
    star, b, gamma, share = on_a_curve(line, 0.3, 0.45)._extrapolated(h)
    torch.testing.assert_close(star, line(0.7))
    torch.testing.assert_close(b + gamma * h * steady(0.7), line(0.7))
    assert share == 0.3
    star, b, gamma, share = on_a_curve(line, 0.3)._extrapolated(h)
    assert torch.equal(star, line(0.3))
    assert torch.equal(b, line(0.3))
    assert (gamma, share) == (1.0, 0.5)


def test_milnes_estimate_is_exact_on_a_cubic():
    theta, slope = polynomial(3)
    star, b, gamma, share = on_a_curve(theta, 0.1, 0.3, 0.45)._extrapolated(0.25)
    end = b + gamma * 0.25 * slope(0.7)
    torch.testing.assert_close(share * (end - star), end - theta(0.7))


def test_times_inside_a_step_are_those_of_a_cubic_through_four_points():
    theta, _ = polynomial(3)
    path = on_a_curve(theta, 0.0, 0.1, 0.25, 0.5)
    for tau in (0.25, 0.31, 0.5):
        torch.testing.assert_close(path.between(tau), theta(tau))
    event = flow.Event("passed", lambda t: float((theta(0.4) - t) @ (theta(0.5) - theta(0.25))))
    at_end = event.value(theta(0.5))
    assert path.time_of(event, at_end) == pytest.approx(0.4, abs=1e-6)
    assert path.time_of(event, 0.0) == 0.5
    assert on_a_curve(theta, 0.2).time_of(event, -1.0) == 0.2  # it was so from the beginning
    two = on_a_curve(polynomial(1)[0], 0.2, 0.6)
    torch.testing.assert_close(two.between(0.3), polynomial(1)[0](0.3))


def scripted(monkeypatch, ratios, **how):
    """An integrator whose steps have the errors ``ratios`` (over the tolerance, refused above 2), and what it tries."""
    theta, tried, given = torch.ones(35, dtype=torch.float64), [], iter(ratios)
    path = on_a_curve(lambda tau: theta, **how)

    def tries(self, h):
        tried.append(h)
        ratio = next(given)
        return ratio, theta if ratio <= 2 else None

    def accepts(self, tau, end):
        self.past.append(Point(tau, theta, None, None, None, 1.0, 0.0, 1.0, theta))
        return self.past[-1]

    monkeypatch.setattr(Integrator, "_try", tries)
    monkeypatch.setattr(Integrator, "_accept", accepts)
    return path, tried, (point.tau for point in path.points(theta, 1.0))


def test_steps_grow_and_shrink_by_the_order_of_their_error(monkeypatch):
    ratios = [8.0, 1e3, 1e-9, 1.0, 2.0, 8.0, 1e9, 1e-300, 0.0]
    path, tried, taus = scripted(monkeypatch, ratios)
    reached = [next(taus) for _ in range(6)]
    first = [0.9 / 8**0.5, 0.1]  # Euler's first step, whose error is of second order
    later = [2.0, 0.9, 0.9 / 2 ** (1 / 3), 0.45, 0.1, 2.0]
    assert tried[0] == path.tolerance
    np.testing.assert_allclose(np.divide(tried[1:], tried[:-1]), first + later)
    np.testing.assert_allclose(reached, np.cumsum([0.0, *np.array(tried)[[2, 3, 4, 7, 8]]]))
    assert path.refused == 4


def test_steps_keep_to_the_greatest_one_and_end_where_they_are_told_to(monkeypatch):
    _, tried, taus = scripted(monkeypatch, [0.0] * 9, max_step=0.3, tolerance=0.1)
    np.testing.assert_allclose(list(taus), [0.0, 0.1, 0.3, 0.6, 0.9, 1.0])
    np.testing.assert_allclose(tried, [0.1, 0.2, 0.3, 0.3, 0.1])


def test_steps_are_finer_while_the_loss_moves_the_weights(monkeypatch):
    def steps(start, lam):
        model, theta, task = start()
        counts = []
        for finer in (20.0, 1.0):
            monkeypatch.setattr(integrator, "FINER", finer)
            run = flow.follow(model, theta, task, lam=lam, tau_end=0.05, tolerance=1e-3)
            counts.append(run.sizes["step"])
        return counts

    fine, coarse = steps(small, 1e-2)
    assert fine > 1.5 * coarse  # 20^⅓ is 2.7
    fine, coarse = steps(on_zero_loss, 0.0)
    assert fine == coarse


def test_sides_of_kinks_that_go_round_in_circles_are_held(monkeypatch):
    """A step is solved again while its sides do not fit; from the ninth time on nothing is let go."""
    model, theta, task = small(activation="relu")
    holds = []

    def never(self, Z, pull, stiffness, slopes, hold):
        holds.append(hold)
        assert slopes == (0.0, 1.0)
        assert stiffness == pytest.approx(1001)  # (1 + γh)/γh
        return None if hold else self

    monkeypatch.setattr(Sides, "fitting", never)
    path = on_a_curve(lambda tau: theta, model=model)
    path.past.append(Point(0.0, theta, model(theta, task.X_train), None, None, 1.0, 0.0, 1.0, theta))
    end = path._end(theta, theta, 1e-3, 0.0)
    assert holds == 8 * [False] + [True]
    assert not end.pinned.any()


def test_a_step_that_cannot_be_taken_asks_for_a_shorter_one(monkeypatch):
    theta = small()[1]

    def failing(self, *of):
        raise NoMultipliersError("not there")

    def lost(self, *of):
        return integrator._End(theta * torch.nan, None, None, None)

    for end in (failing, lost):
        monkeypatch.setattr(Integrator, "_end", end)
        assert on_a_curve(lambda tau: theta, 0.0)._try(1e-3) == (integrator.TOO_LONG, None)
    monkeypatch.setattr(Integrator, "_end", failing)
    for h, lam in [(1e-3, 0.0), (1e-15, 0.1)]:  # where a shorter one would not help
        with pytest.raises(NoMultipliersError, match="not there"):
            on_a_curve(lambda tau: theta, 0.0, lam=lam)._try(h)


def test_no_way_on_is_said(monkeypatch):
    model, theta, task = small()

    def follow():
        flow.follow(model, theta, task, lam=0.1, tau_end=1.0)

    with monkeypatch.context() as patch:
        patch.setattr(integrator, "MOST_STEPS", 20)
        with pytest.raises(
            StoppedError, match=r"^stopped after tau = 0\.\d+: 20 steps did not suffice\. The rec"
        ) as stopped:
            follow()
        assert 1 < stopped.value.records.sizes["step"] <= 21
    with monkeypatch.context() as patch:
        patch.setattr(Integrator, "_try", lambda self, h: (integrator.TOO_LONG, None))
        with pytest.raises(StoppedError, match="tau = 0: no step is short enough for this tolerance"):
            follow()


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
@pytest.mark.parametrize("metric", [1.0, 0.3, "uneven"])
def test_a_step_ends_where_its_two_equations_hold(loss, metric):
    """(1 + γh m)θ₊ = start + γh Jᵀμ and ½∂L/∂F(F₊) + λμ = 0, for any guess of μ."""
    model, theta, task = small(loss)
    lin, loss, lam, length = linearize(model, theta, task.X_train), losses.loss(loss), 0.02, 0.4
    if metric == "uneven":
        metric = torch.linspace(0, 3, model.d, dtype=torch.float64)
    step, solver = Step(length, metric, 0.9 * theta), Multipliers()
    guess = torch.full_like(task.Y_train, 0.1)
    end, mu = step.end(lin, task.Y_train, loss, lam, guess, solver, 1e-10)
    F = lin.outputs + lin.jvp(end - theta)
    torch.testing.assert_close((1 + length * metric) * end, 0.9 * theta + length * lin.vjp(mu))
    torch.testing.assert_close(loss.gradient(F, task.Y_train), -lam * mu, rtol=1e-7, atol=1e-9)


class Misjudged(losses.CrossEntropy):
    """A curvature that is ``factor`` times as large as it is."""

    def __init__(self, factor):
        self.factor = factor

    def curvature(self, F, Y):
        class Scaled(losses.SoftmaxCurvature):
            root = lambda S, U: self.factor**0.5 * losses.SoftmaxCurvature.root(S, U)  # noqa: E731
            root_transposed = lambda S, U: self.factor**0.5 * losses.SoftmaxCurvature.root_transposed(S, U)  # noqa: E731

        return Scaled(torch.softmax(F, 1))


def test_newtons_method_says_that_it_fails(monkeypatch):
    """At once where its corrections grow, or after CORRECTIONS of them."""
    model, theta, task = small("cross_entropy")
    lin, solver, asked = linearize(model, theta, task.X_train), Multipliers(), []
    correct = solver.correct
    monkeypatch.setattr(solver, "correct", lambda *of: asked.append(1) or correct(*of))

    def end(factor):
        asked.clear()
        loss = Misjudged(factor)
        Step(0.4, 1.0, theta).end(lin, task.Y_train, loss, 0.02, 0 * task.Y_train, solver, 1e-8)

    fails = r"^Newton's method does not find the multipliers of a step$"
    end(1.0)
    needed = len(asked)
    with pytest.raises(NoMultipliersError, match=fails):
        end(0.05)
    assert len(asked) < 5
    monkeypatch.setattr(implicit, "CORRECTIONS", needed)
    end(1.0)
    monkeypatch.setattr(implicit, "CORRECTIONS", needed - 1)
    with pytest.raises(NoMultipliersError, match=fails):
        end(1.0)


def dense(lin, c, lam, H=None):
    """cK + λI as a matrix; cHK + λI for a curvature H."""
    size = lin.outputs.numel()
    K, one = c * lin.gram(), torch.eye(size, dtype=torch.float64)
    if H is not None:
        K = torch.stack([H.times(e.view_as(lin.outputs)).flatten() for e in one]).T @ K
    return K + lam * one


@pytest.mark.parametrize("few", [True, False])
@pytest.mark.parametrize("lam", [0.0, 0.3])
def test_multipliers_keep_their_factor_while_it_serves(monkeypatch, few, lam):
    """One factor solves at its own point by one product, at near points by some, and at far c is replaced."""
    monkeypatch.setattr(multipliers, "FACTORED", 6 if few else 5)
    model, theta, task = small()
    X, solver = task.X_train, Multipliers()
    lin, u = linearize(model, theta, X), task.Y_train
    zero = torch.zeros_like(u)

    def check(lin, c, guess=zero):
        before = solver.products
        mu = solver.solve(lin, u, c, lam, guess, 1e-10)
        expected = torch.linalg.solve(dense(lin, c, lam), u.flatten()).view_as(u)
        error = c * lin.vjp(mu - expected)
        assert error.norm() <= 2e-10
        return solver.products - before

    assert check(lin, 0.5) <= (1 if few else 10)
    near = linearize(model, theta * 1.01, X)
    assert check(near, 0.5) <= 10
    assert check(near, 2.0) <= 12
    assert solver.factorizations == 1
    exact = torch.linalg.solve(dense(near, 2.0, lam), u.flatten()).view_as(u)
    assert check(near, 2.0, exact) == 1  # a guess is looked at, and found good
    check(near, 0.5 * 31)
    assert solver.factorizations == (2 if lam else 1)
    check(near, 0.5 / 1.1)
    assert solver.factorizations == (3 if lam else 1)
    far = linearize(model, -3 * theta.flip(0), X)
    check(far, 0.5)


@pytest.mark.parametrize("few", [True, False])
def test_corrections_solve_their_equation(monkeypatch, few):
    monkeypatch.setattr(multipliers, "FACTORED", 6 if few else 5)
    model, theta, task = small("cross_entropy")
    lin, rho, solver = (
        linearize(model, theta, task.X_train),
        torch.randn(3, 2, generator=torch.Generator().manual_seed(3)).double(),
        Multipliers(),
    )
    H = losses.cross_entropy.curvature(lin.outputs, None)
    for c in (0.4, 0.5, 50.0):
        d = solver.correct(lin, rho, c, 0.1, H, 1e-10)
        expected = torch.linalg.solve(dense(lin, c, 0.1, H), rho.flatten()).view_as(rho)
        torch.testing.assert_close(d, expected, rtol=1e-7, atol=1e-8)
    assert solver.factorizations == 2
    assert solver.products <= (9 if few else 30)


@pytest.mark.parametrize("c", [1e-3, 1.0, 1e3])
def test_accuracy_bounds_the_error_of_the_weights_and_is_not_exceeded_for_nothing(monkeypatch, c):
    monkeypatch.setattr(multipliers, "FACTORED", 5)
    model, theta, task = small("cross_entropy", n=12)
    lin, lam = linearize(model, theta, task.X_train), 0.1
    u = torch.randn(12, 2, generator=torch.Generator().manual_seed(3)).double()
    H = losses.cross_entropy.curvature(lin.outputs, None)
    for how in ("solve", "correct"):
        matrix = dense(lin, c, lam, None if how == "solve" else H)
        exact = torch.linalg.solve(matrix, u.flatten()).view_as(u)
        asked, size = [], float(c * lin.vjp(exact).norm())
        for share in (1e-1, 1e-4, 1e-9):
            solver = Multipliers()
            last = (torch.zeros_like(u), share * size) if how == "solve" else (H, share * size)
            error = c * lin.vjp(getattr(solver, how)(lin, u, c, lam, *last) - exact).norm()
            assert 1e-9 * share * size < error <= 1.5 * share * size
            asked.append(solver.products)
        assert asked[0] < asked[1] < asked[2]
    u5 = torch.linalg.solve(dense(lin, 5 * c, lam), u.flatten()).view_as(u)
    size = float(5 * c * lin.vjp(u5).norm())
    solver = Multipliers()
    solver.solve(lin, u, c, lam, torch.zeros_like(u), 1e-9 * size)
    before = solver.products
    error = 5 * c * lin.vjp(solver.solve(lin, u, 5 * c, lam, torch.zeros_like(u), 1e-2 * size) - u5).norm()
    assert error <= 0.03 * size  # with the factor of another c
    assert solver.factorizations == 1
    assert solver.products - before < before


def test_multipliers_that_are_not_found_are_said(monkeypatch):
    model, theta, task = small(activation="tanh")

    def solve(theta):
        lin, u = linearize(model, theta, task.X_train), task.Y_train
        Multipliers().solve(lin, u, 1.0, 0.0, torch.zeros_like(u), 1e-10)

    with pytest.raises(
        NoMultipliersError, match=r"^K = JJᵀ has no Cholesky factor: J has lost full rank \(theor"
    ):
        solve(0 * theta)
    with monkeypatch.context() as patch:
        patch.setattr(multipliers, "FACTORED", 5)
        with pytest.raises(
            NoMultipliersError, match=r"^HHᵀ has no Cholesky factor: hidden features are linear"
        ):
            solve(0 * theta)
        patch.setattr(multipliers, "MOST_PRODUCTS", 1)
        with pytest.raises(
            NoMultipliersError, match=r"^no multipliers within 1 products: K is near singular$"
        ):
            solve(theta)


def test_a_start_is_taken_to_zero_loss_by_gauss_newton_steps():
    model, theta, task = small()
    path = on_a_curve(lambda tau: theta, lam=0.0)
    end, t = path._to_zero_loss(theta), theta
    assert (model(end, task.X_train) - task.Y_train).norm() <= 1e-10 * task.Y_train.norm()
    assert torch.equal(path._to_zero_loss(end), end)
    for _ in range(20):
        lin = linearize(model, t, task.X_train, "dense")
        t = t - torch.linalg.lstsq(lin.J, (lin.outputs - task.Y_train).view(-1, 1)).solution[:, 0]
    torch.testing.assert_close(end, t, rtol=1e-7, atol=1e-8)


def test_a_start_from_which_nothing_leads_to_zero_loss_is_said():
    """θ² = −1: Newton's steps never end."""

    class Parabola(models.Model):
        def forward(self, parameters, X):
            return parameters["w"].square() * X

    one = torch.ones(1, 1, dtype=torch.float64)
    task = tasks.from_tensors(one, -one, one, -one)
    with pytest.raises(StoppedError, match="theta0 is too far from Z: Gauss–Newton steps do not lead there"):
        flow.follow(Parabola("parabola", {"w": (1,)}), 0.7 * one[0], task, lam=0.0, tau_end=1.0)


# What every gradient flow obeys


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-4])
def test_regularized_loss_never_rises(loss, tolerance):
    model, theta, task = small(loss, activation="gelu")
    run = flow.follow(model, theta, task, lam=0.01, loss=loss, tau_end=1.0, tolerance=tolerance)
    total = run.train_loss * losses.loss(loss).count(task.Y_train) + 0.01 * run.norm2
    np.testing.assert_allclose(run.objective, total)
    assert (np.diff(run.objective) <= 1e-9 * run.objective[:-1].values).all()


def test_a_step_that_raises_the_loss_is_refused(monkeypatch):
    """What Milne's estimate would let through: here it is told that nothing is an error."""
    model, theta, task = small(activation="tanh")
    steps = Integrator._extrapolated
    monkeypatch.setattr(Integrator, "_extrapolated", lambda self, h: (*steps(self, h)[:3], 0.0))
    run = flow.follow(model, 3 * theta, task, lam=1e-3, tau_end=0.3, max_step=0.3)
    assert run.attrs["refused"] > 0
    assert (np.diff(run.objective) <= 1e-9 * run.objective[:-1].values).all()
    limit = flow.follow(*on_zero_loss(activation="tanh"), lam=0.0, tau_end=2.0, max_step=2.0, tolerance=1e-3)
    assert (limit.residual <= 1e-3 * float(task.Y_train.norm())).all()


def test_limit_is_approached_in_proportion_to_decay():
    model, theta, task = on_zero_loss()
    limit, *near = (
        flow.follow(model, theta, task, lam=lam, tau_end=0.5, tolerance=1e-7).theta_end
        for lam in (0.0, 1e-3, 1e-4)
    )
    first, second = (float(np.linalg.norm(end - limit)) for end in near)
    assert first / second == pytest.approx(10, rel=0.15)


def test_plateau_and_sharpness_have_their_values():
    model, theta, task = on_zero_loss(activation="gelu")
    lam = 1e-4
    run = flow.follow(model, theta, task, lam=lam, tau_end=0.5, tolerance=1e-6)
    lin = linearize(model, torch.from_numpy(run.theta_end.values), task.X_train, "dense")
    K = lin.gram()
    lag = torch.linalg.solve(K, lin.jvp(lin.theta).flatten())  # −r/λ
    assert float(run.residual[-1]) == pytest.approx(lam * float(lag.norm()), rel=2e-2)
    assert float(run.sharpness[-1]) == pytest.approx(
        2 * float(torch.linalg.eigvalsh(K)[-1]) / len(K), rel=1e-3
    )


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_where_products_are_dear_fewer_of_them_keep_the_sharpness_within_a_hundredth(activation, monkeypatch):
    """Also at its start, where the vector is still a random one, and with kinks, whose pins are no part of it."""
    model, task = models.two_layer(5, 24, 5, activation), tasks.modular(5, seed=0)
    products = 0

    def counted(self, lin, F, original=Integrator._sharpness):
        nonlocal products
        lin = Counted(lin)
        size = original(self, lin, F)
        products += lin.products
        return size

    monkeypatch.setattr(Integrator, "_sharpness", counted)
    follow = lambda: flow.follow(model, model.init(0), task, lam=0.05, tau_end=0.5).sharpness  # noqa: E731
    exact = follow()
    every, products = products, 0
    monkeypatch.setattr(integrator, "FACTORED", 0)
    found = follow()
    assert products < 0.9 * every
    assert found.values == pytest.approx(exact.values, rel=1e-2)
    assert float(found[0]) == pytest.approx(sharpness(model, model.init(0), task), rel=1e-2)


class Counted:
    """A linearization that counts what passes through J Jᵀ."""

    def __init__(self, lin):
        self.lin, self.products = lin, 0

    def vjp(self, u):
        return self.lin.vjp(u)

    def jvp(self, v):
        self.products += 1
        return self.lin.jvp(v)

    def product(self, u):
        self.products += 1
        return self.lin.product(u)

    def rough_product(self, u):
        self.products += 1
        return self.lin.rough_product(u)


# Events


def test_events_are_found_inside_steps():
    model, theta, task = small()
    norms = [
        flow.Event(f"norm {share}", lambda t, s=share: float(t @ t) - s * float(theta @ theta))
        for share in (0.9, 0.7)
    ]
    coarse, fine = (
        flow.follow(model, theta, task, lam=1e-2, tau_end=1.0, tolerance=tolerance, events=norms)
        for tolerance in (1e-3, 1e-7)
    )
    assert np.isfinite(fine.event_tau).all()
    np.testing.assert_allclose(coarse.event_tau, fine.event_tau, rtol=1e-2)
    assert coarse.event.values.tolist() == ["norm 0.9", "norm 0.7"]
    steps = np.diff(coarse.tau)
    assert (
        np.abs(coarse.tau.values[:, None] - coarse.event_tau.values).min(0).max() > 0.02 * steps.max()
    )  # between


def test_clocks_read_what_the_record_shows():
    task = tasks.modular(5, train_fraction=0.8, seed=1)
    model = models.two_layer(5, 40, 5, "gelu")
    events = [
        flow.memorized(model, task),
        flow.held_out_loss(model, task, 0.9),
        flow.held_out_accuracy(model, task, 1.0),
    ]
    run = flow.follow(model, model.init(3), task, lam=0.02, tau_end=3.0, events=events)
    zero = {part: float(getattr(task, f"Y_{part}").square().mean()) for part in ("train", "test")}
    reached = [
        (run.train_loss <= 0.05 * zero["train"]) & (run.train_accuracy == 1),
        run.test_loss <= 0.9 * zero["test"],
        run.test_accuracy == 1,
    ]
    for one, tau in zip(reached, run.event_tau.values, strict=True):
        first = np.flatnonzero(one)
        if not first.size:
            assert np.isnan(tau)
            continue
        assert run.tau[max(first[0] - 1, 0)] <= tau <= run.tau[first[0]]
    assert np.isfinite(run.event_tau[0])


def test_records_are_those_of_the_schema():
    task = tasks.modular(5, train_fraction=0.8, seed=1)
    model = models.two_layer(5, 40, 5, "gelu")
    run = flow.follow(
        model,
        model.init(0),
        task,
        lam=0.02,
        tau_end=1.0,
        keep_theta=True,
        events=[flow.memorized(model, task)],
    )
    records.check(run)
    found = records.memorization(run, "loss", coordinate="tau")
    assert float(found) == pytest.approx(float(run.event_tau[0]), rel=1e-2)
    model, theta, task = small(n=1)
    for lam in (0.0, 0.1):
        start = zero_loss.project(model, theta, task.X_train, task.Y_train)
        exact = flow.reference(model, start, task.X_train, task.Y_train, lam=lam, tau_end=0.1, points=2)
        records.check(exact)
        said = (
            {"flow": "gradient", "method": "LSODA", "rtol": 1e-9}
            if lam
            else {"flow": "slow", "method": "DOP853"}
        )
        assert {**exact.attrs, **said, "lam": lam, "ended": "tau_end"} == exact.attrs


def test_values_of_events_are_those_of_their_definitions():
    model, theta, task = small()
    F, Y = model(theta, task.X_test), task.Y_test
    half = flow.held_out_loss(model, task, 0.5)
    assert half.name == "loss 0.5"
    assert half.value(theta) == pytest.approx(float((F - Y).square().sum() / (0.5 * Y.square().sum())) - 1)
    known = flow.memorized(model, task, share=0.3)
    F, Y = model(theta, task.X_train), task.Y_train
    assert known.name == "memorized"
    assert known.value(theta) == pytest.approx(float((F - Y).square().sum() / (0.3 * Y.square().sum())) - 1)


def test_classes_are_memorized_when_both_loss_and_every_margin_say_so():
    model, theta, task = small("cross_entropy")
    F, Y = model(theta, task.X_train), task.Y_train
    level = float(losses.cross_entropy.value(torch.zeros_like(Y), Y))
    over = lambda share: float(losses.cross_entropy.value(F, Y)) / (share * level) - 1  # noqa: E731
    margin = float((2 * (F * Y).sum(1) - F.sum(1)).min())  # of two classes
    for share in (1e-3, 1e3):
        event = flow.memorized(model, task, "cross_entropy", share)
        assert event.value(theta) == pytest.approx(max(over(share), -margin))
    assert over(1e-3) > -margin > over(1e3)


def test_margins_are_over_the_best_other_class():
    F = torch.tensor([[3.0, 1.0, 2.0], [-1.0, -2.0, -5.0], [0.0, 4.0, 4.0]])
    assert events.margins(F, torch.eye(3)).tolist() == [1.0, -1.0, 0.0]


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
def test_a_record_holds_what_its_columns_say(loss):
    """Every column again from θ."""
    model, theta, task = small("cross_entropy", activation="tanh")
    penalty = flow.WeightedDecay(model, {"W": 2.0})
    run = flow.follow(
        model, theta, task, lam=0.05, loss=loss, tau_end=0.1, keep_theta=True, penalty=penalty, tolerance=1e-3
    )
    which = {
        "squared_error": torch.nn.functional.mse_loss,
        "cross_entropy": torch.nn.functional.cross_entropy,
    }
    mean, zero = which[loss], torch.zeros_like(task.Y_train)
    assert set(run.coords) == {"step", "tau"}
    assert run.step.values.tolist() == list(range(run.sizes["step"]))
    assert run.tau.dims == ("step",)
    assert run.tau[0] == 0
    assert float(run.tau[-1]) == pytest.approx(0.1)
    np.testing.assert_array_equal(run.theta[0], theta)
    np.testing.assert_array_equal(run.theta[-1], run.theta_end)
    assert np.isnan(run.drift[0])
    assert (run.drift[1:] < 0.05 * run.residual[1:]).all()
    assert run.slip[0] == 0
    assert (run.pinned == 0).all()
    for step, at in enumerate(torch.from_numpy(run.theta.values)):
        now = run.isel(step=step)
        for part in ("train", "test"):
            F, Y = model(at, getattr(task, f"X_{part}")), getattr(task, f"Y_{part}")
            assert float(now[f"{part}_loss"]) == pytest.approx(float(mean(F, Y)))
            assert float(now[f"{part}_accuracy"]) == (F.argmax(1) == Y.argmax(1)).double().mean()
        F = model(at, task.X_train)
        total = float(losses.loss(loss).value(F, task.Y_train)) + 0.1 * penalty.value(at)
        assert float(now.norm2) == pytest.approx(float(at @ at))
        assert float(now.objective) == pytest.approx(total)
        assert float(now.residual) == pytest.approx(float((F - task.Y_train).norm()))
    assert float(run.train_baseline) == pytest.approx(float(mean(zero, task.Y_train)))
    test = torch.zeros_like(task.Y_test)
    assert float(run.test_baseline) == pytest.approx(float(mean(test, task.Y_test)))
    assert float(run.sharpness[0]) == pytest.approx(sharpness(model, theta, task, loss), rel=1e-2)
    said = {
        "flow": "slow",
        "model": model.name,
        "loss": loss,
        "lam": 0.05,
        "tolerance": 1e-3,
        "ended": "tau_end",
    }
    assert {name: run.attrs[name] for name in said} == said
    assert run.attrs["products"] >= run.sizes["step"] - 1
    assert run.attrs["factorizations"] >= 1


def test_accuracy_clock_needs_classes_and_counts_samples():
    model, theta, task = small()
    with pytest.raises(ValueError, match="no classes"):
        flow.held_out_accuracy(model, task)
    Y = torch.eye(2, dtype=torch.float64)
    X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).double()
    labels = model(theta, X).argmax(1)
    labels[0] = 1 - labels[0]  # three of four right
    task = tasks.from_tensors(X, Y[labels], X, Y[labels])
    assert flow.held_out_accuracy(model, task, 0.75).value(theta) <= 0
    assert flow.held_out_accuracy(model, task, 0.76).value(theta) > 0


def test_a_flow_ends_where_it_is_told_to():
    model, theta, task = small()

    def ended(**how):
        return flow.follow(model, theta, task, lam=0.1, tau_end=1.0, **how)

    half = flow.Event("half", lambda t: float(t @ t) - 0.8 * float(theta @ theta))
    seen = []
    assert ended().attrs["ended"] == "tau_end"
    assert ended(seconds=1e-9).attrs["ended"] == "seconds"
    assert (
        ended(seconds=1.5 * time.process_time()).attrs["ended"] == "tau_end"
    )  # what went before does not count
    assert ended(until=1e9).attrs["ended"] == "until"
    by_name, by_event = ended(events=[half], until="half"), ended(until=half)
    assert by_name.attrs["ended"] == by_event.attrs["ended"] == "until"
    assert float(by_name.event_tau[0]) == float(by_event.event_tau[0]) < float(by_name.tau[-1]) < 1
    stopped = ended(callback=lambda row, t: seen.append((row["tau"], t)) or len(seen) == 4, keep_theta=True)
    assert stopped.attrs["ended"] == "callback"
    assert [tau for tau, _ in seen] == stopped.tau.values.tolist()
    np.testing.assert_array_equal(stopped.theta, [t.numpy() for _, t in seen])


def test_ctrl_c_keeps_the_record(monkeypatch):
    model, theta, task = small()
    solve, calls = Multipliers.solve, []

    def interrupted(self, *arguments):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return solve(self, *arguments)

    monkeypatch.setattr(Multipliers, "solve", interrupted)
    with pytest.raises(KeyboardInterrupt) as stopped:
        flow.follow(model, theta, task, lam=0.1, tau_end=1.0)
    assert 0 < stopped.value.records.tau[-1] < 1


def test_singular_start_stops_with_its_record():
    model, theta, task = small(n=1)
    twice = tasks.from_tensors(
        torch.cat([task.X_train] * 2), torch.cat([task.Y_train, -task.Y_train]), task.X_test, task.Y_test
    )
    with pytest.raises(StoppedError, match=r"singular|full rank|Gauss") as stopped:
        flow.follow(model, 0 * theta, twice, lam=0.0, tau_end=1.0)
    assert stopped.value.records.sizes["step"] == 0
    assert stopped.value.records.tau.dims == ("step",)


# Penalties and forces


def test_penalties_have_the_gradients_that_they_say():
    model, theta, _ = small()
    groups = torch.arange(model.d) % 4
    penalties = (DECAY, flow.WeightedDecay(model, {"E": 3.0}), flow.GroupNorms(groups, 0.1))
    for penalty in (*penalties, flow.ProductNorm(model), flow.NuclearNorms(model, 0.1)):
        change = [
            (penalty.value(theta + 1e-6 * e) - penalty.value(theta - 1e-6 * e)) / 2e-6
            for e in torch.eye(model.d, dtype=torch.float64)
        ]
        numeric = torch.tensor(change, dtype=torch.float64)
        torch.testing.assert_close(penalty.gradient(theta), numeric, rtol=1e-6, atol=1e-6)


def test_the_product_of_norms_is_blind_to_balance_and_nuclear_norms_bend_radially():
    model, theta, _ = small()
    product, nuclear = flow.ProductNorm(model), flow.NuclearNorms(model, 1e-6)
    E, W = model.matrices(theta).values()
    assert product.value(model.flat(E=2 * E, W=W / 2)) == pytest.approx(product.value(theta))
    assert product.value(theta) == pytest.approx(float(E.norm() * W.norm()))
    torch.testing.assert_close(product.metric(theta) * theta, product.gradient(theta))
    along = float((nuclear.metric(theta) * theta) @ theta)
    assert along == pytest.approx(nuclear.value(theta), rel=1e-6)
    assert float(nuclear.gradient(theta) @ theta) == pytest.approx(along, rel=1e-6)
    with pytest.raises(ValueError, match="must be a matrix"):
        flow.NuclearNorms(models.mlp([2, 3, 1], bias=True))


def test_a_flow_under_another_penalty_is_gradient_descent_on_it():
    model, theta, task = small()
    groups = torch.arange(model.d) % 4
    lam, dt, steps = 0.05, 2e-4, 5000
    for penalty in (flow.WeightedDecay(model, {"E": 4.0, "W": 0.5}), flow.GroupNorms(groups, 0.1)):
        t = theta.clone()
        for _ in range(steps):
            lin = linearize(model, t, task.X_train)
            t = t - dt * (lin.vjp(lin.outputs - task.Y_train) + lam * penalty.gradient(t))
        run = flow.follow(
            model, theta, task, lam=lam, tau_end=lam * dt * steps, tolerance=1e-6, penalty=penalty
        )
        assert gap(run, t) < 2e-4
        assert (np.diff(run.objective) < 0).all()


def test_equal_ratios_are_plain_decay_at_the_limit_too():
    model, theta, task = on_zero_loss()
    plain = flow.follow(model, theta, task, lam=0.0, tau_end=0.4, tolerance=1e-6)
    same = flow.follow(
        model, theta, task, lam=0.0, tau_end=0.4, tolerance=1e-6, penalty=flow.WeightedDecay(model, {})
    )
    assert gap(same, plain.theta_end) < 1e-7


def test_a_force_along_the_loss_does_nothing_in_the_limit_and_decay_undone_stands_still():
    model, theta, task = on_zero_loss()
    still = flow.follow(model, theta, task, lam=0.0, tau_end=0.4, force=lambda t: t)
    assert gap(still, theta) < 1e-6
    pushed = flow.follow(
        model, theta, task, lam=0.0, tau_end=0.4, tolerance=1e-6,
        force=lambda t: linearize(model, t, task.X_train).vjp(torch.ones_like(task.Y_train)),
    )  # fmt: skip
    free = flow.follow(model, theta, task, lam=0.0, tau_end=0.4, tolerance=1e-6)
    assert gap(pushed, free.theta_end) < 1e-5


# Refusals and warnings


def test_float32_is_followed_in_float64():
    model, theta, task = small()
    single = tasks.from_tensors(
        *(getattr(task, k).float() for k in ("X_train", "Y_train", "X_test", "Y_test"))
    )
    run = flow.follow(model, theta.float(), single, lam=0.1, tau_end=0.1)
    assert run.theta_end.dtype == np.float64
    assert gap(run, flow.follow(model, theta, task, lam=0.1, tau_end=0.1).theta_end) < 1e-5


def test_unheld_kinks_are_said_and_met_in_small_steps():
    model, theta, task = small(depth=3, activation="relu")
    with pytest.warns(UserWarning, match=re.escape(f"{model.name} has kinks that its flow does not hold")):
        run = flow.follow(model, theta, task, lam=0.1, tau_end=0.2)
    assert float(np.diff(run.tau).max()) <= 0.01 + 1e-12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tau_end": 0.0}, "tau_end"),
        ({"lam": -1.0}, "lam"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"max_step": 0.0}, "max_step"),
        ({"until": 0.0}, r"^until = 0\.0"),
        ({"until": "lunch"}, "^until = 'lunch'"),
        ({"events": [len]}, "events holds a builtin"),
        ({"kind": "sparse"}, "kind"),
        ({"loss": "hinge"}, "loss"),
        ({"loss": "cross_entropy"}, "probabilities"),
        ({"penalty": 2.0}, "penalty is a float"),
        (
            {"penalty": flow.Event("penalty", len)},
            "penalty is a Event without gradient, metric: see flow.Penalty",
        ),
        ({"tau_end": -1.0}, r"^tau_end = -1\.0"),
        ({"tolerance": 0.2}, r"^tolerance = 0\.2: must be a finite number in \(1e-12, 0\.1\]$"),
        ({"seconds": 0.0}, r"^seconds = 0\.0: must be a finite number in \(0, inf\)$"),
        ({"max_step": -1.0}, r"^max_step = -1\.0"),
        ({"kind": "sparse"}, "^kind = 'sparse': must be one of 'auto'"),
        ({"theta0": torch.ones(3).double()}, "theta0 has 3 entries"),
        ({"theta0": torch.full((35,), 1e200, dtype=torch.float64)}, "theta0"),
        ({"model": torch.relu}, "model is a"),
        ({"task": None}, "task is a"),
        ({"model": models.two_layer(4, 7, 2), "theta0": torch.ones(42).double()}, "does not fit"),
        ({"model": models.two_layer(3, 7, 3), "theta0": torch.ones(42).double()}, "Y_train"),
        ({"model": models.two_layer(3, 1, 2), "theta0": torch.ones(5).double(), "lam": 0.0}, "d ≥ nm"),
    ],
)
def test_bad_arguments_are_named(change, message):
    model, theta, task = small()
    good = {"model": model, "theta0": theta, "task": task, "tau_end": 1.0, "lam": 0.1}
    with pytest.raises(ValueError, match=message):
        flow.follow(**{**good, **change})


def test_penalties_and_events_name_what_they_refuse():
    model, theta, task = small("cross_entropy")
    groups = torch.arange(model.d) % 4
    for call, message in [
        (lambda: flow.held_out_loss(model, task, 0.0), r"^threshold = 0\.0"),
        (
            lambda: flow.held_out_accuracy(model, task, 0.0),
            r"^threshold = 0\.0: must be a finite number in \(0, 1\]$",
        ),
        (lambda: flow.held_out_accuracy(model, task, 1.1), r"^threshold = 1\.1"),
        (lambda: flow.WeightedDecay(model, {"V": 1.0}), "^ratios = 'V': must be one of 'E', 'W'$"),
        (lambda: flow.WeightedDecay(model, {"W": -1.0}), r"^ratios\['W'\] = -1\.0"),
        (lambda: flow.GroupNorms(groups, 0.0), r"^rounding = 0\.0"),
        (lambda: flow.GroupNorms(groups.double()), "^groups must be a vector of integers from 0"),
        (lambda: flow.GroupNorms(groups[None]), "^groups must be a vector of integers from 0"),
        (lambda: flow.GroupNorms(groups - 1), "^groups must be a vector of integers from 0"),
        (lambda: flow.GroupNorms([0, 1]), "^groups must be a vector of integers from 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    assert flow.held_out_accuracy(model, task, 1.0).name == "accuracy 1"
    assert flow.WeightedDecay(model, {"E": 0.0}).value(theta) == pytest.approx(
        0.5 * float(model.matrices(theta)["W"].square().sum())
    )
    norms = [float((theta[groups == g].square().sum() + 0.25).sqrt()) for g in range(4)]
    assert flow.GroupNorms(groups, 0.5).value(theta) == pytest.approx(sum(norms))


def test_as_many_parameters_as_outputs_are_enough():
    model = models.two_layer(2, 2, 2, "softplus")  # 8 for 4 samples with 2 outputs
    X = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)).double()
    theta = model.init(0)
    task = tasks.from_tensors(X, model(theta, X), X, model(theta, X))
    assert flow.follow(model, theta, task, lam=0.0, tau_end=1e-3).sizes["step"] > 1


def test_cross_entropy_has_no_limit():
    model, theta, task = small("cross_entropy")
    with pytest.raises(ValueError, match="infinity"):
        flow.follow(model, theta, task, lam=0.0, loss="cross_entropy", tau_end=1.0)


# The guess of a step's multipliers


def test_polynomial_through_points_is_exact_where_it_should_be():
    g = torch.Generator().manual_seed(0)
    coefficients = torch.randn(3, 4, 2, generator=g, dtype=torch.float64)
    at = lambda tau: sum(c * tau**k for k, c in enumerate(coefficients))  # noqa: E731
    times = (0.3, 0.5, 1.2)
    points = [Point(tau, *[None] * 4, 0.0, 0.0, 0.0, None, 0.0) for tau in times]
    found = integrator.interpolated(points, [at(tau) for tau in times], 1.7)
    torch.testing.assert_close(found, at(1.7), rtol=1e-12, atol=1e-12)
    alone = integrator.interpolated(points[:1], [at(0.3)], 1.7)
    torch.testing.assert_close(alone, at(0.3))


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy"])
def test_guessed_multipliers_save_products_and_keep_to_the_tolerance(loss, monkeypatch):
    model, theta, task = small(loss, n=6)
    how = {"lam": 0.01, "loss": loss, "tau_end": 0.3, "tolerance": 1e-5}
    guessed = flow.follow(model, theta, task, **how)
    none = torch.zeros_like(task.Y_train)
    last = lambda self, tau: none if self.past[-1].mu is None else self.past[-1].mu  # noqa: E731
    monkeypatch.setattr(Integrator, "_likely", last)
    plain = flow.follow(model, theta, task, **how)
    assert guessed.attrs["products"] < 0.85 * plain.attrs["products"]
    moved = np.linalg.norm(guessed.theta_end - plain.theta_end) / np.linalg.norm(plain.theta_end)
    assert moved < 1e-5
