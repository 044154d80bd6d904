"""The implicit flow against the reference, between linearizations, in its order, and in what every gradient flow obeys."""

import numpy as np
import pytest
import torch

from grokutils import flow, losses, models, records, tasks, training, zero_loss
from grokutils.errors import StoppedError
from grokutils.flow.integrator import Integrator
from grokutils.flow.multipliers import Multipliers
from grokutils.linearization import linearize

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
        records.check(
            flow.reference(model, start, task.X_train, task.Y_train, lam=lam, tau_end=0.1, points=2)
        )


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
    with pytest.warns(UserWarning, match="kinks that its flow does not hold"):
        run = flow.follow(model, theta, task, lam=0.1, tau_end=0.2)
    assert float(np.diff(run.tau).max()) <= 0.01 + 1e-12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tau_end": 0.0}, "tau_end"),
        ({"lam": -1.0}, "lam"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"max_step": 0.0}, "max_step"),
        ({"until": 0.0}, "until"),
        ({"until": "lunch"}, "until"),
        ({"events": [len]}, "events holds a builtin"),
        ({"kind": "sparse"}, "kind"),
        ({"loss": "hinge"}, "loss"),
        ({"loss": "cross_entropy"}, "probabilities"),
        ({"penalty": 2.0}, "penalty is a float"),
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


def test_cross_entropy_has_no_limit():
    model, theta, task = small("cross_entropy")
    with pytest.raises(ValueError, match="infinity"):
        flow.follow(model, theta, task, lam=0.0, loss="cross_entropy", tau_end=1.0)
