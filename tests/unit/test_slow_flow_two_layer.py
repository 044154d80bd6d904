"""The structured slow flow against the dense one, against training, and between its own two solvers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grokutils import networks, slow_flow, tasks, training, zero_loss
from grokutils.slow_flow.two_layer import Multipliers, Point


def small(activation: str = "softplus", seed: int = 0, width: int = 7, n: int = 3):
    """A network with 2 outputs, a task of random numbers, and a start."""
    g = torch.Generator().manual_seed(seed)
    X, X_test = (torch.randn(k, 3, generator=g, dtype=torch.float64) for k in (n, 4))
    network = networks.two_layer(3, width, 2, activation)
    theta = torch.randn(network.d, generator=g, dtype=torch.float64)
    fitted = network(theta + 0.3 * torch.randn(network.d, generator=g, dtype=torch.float64), X)
    return network, theta, tasks.regression(X, fitted, X_test, torch.randn(4, 2, generator=g))


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 10**6), st.sampled_from(["relu", "tanh", "quadratic", "softplus", "gelu"]))
def test_structure_gives_the_jacobian_of_automatic_differentiation(seed, activation):
    network, theta, task = small(activation, seed)
    J = zero_loss.jacobian(network, theta, task.X_train)
    point = Point(network, theta, task.X_train)
    v, u = theta.flip(0), task.Y_train
    torch.testing.assert_close(point.gram(), J @ J.T)
    torch.testing.assert_close(point.push(v).flatten(), J @ v)
    torch.testing.assert_close(point.pull(u), J.T @ u.flatten())


def test_both_solvers_find_the_multipliers():
    network, theta, task = small("relu", width=12)
    point, u = Point(network, theta, task.X_train), task.Y_train
    factored = Multipliers(1e-12, dense=True).solve(point, 0.3, 1e-3, u)
    searched = Multipliers(1e-12, dense=False).solve(point, 0.3, 1e-3, u)
    torch.testing.assert_close(searched, factored, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(0.3 * point.push(point.pull(factored)) + 1e-3 * factored, u)


@pytest.mark.parametrize("activation", ["softplus", "quadratic", "tanh"])
def test_limit_agrees_with_the_dense_flow_to_a_millionth(activation):
    network, theta, task = small(activation)
    theta = zero_loss.project(network, theta, task.X_train, task.Y_train)
    dense = slow_flow.simulate(network, theta, task.X_train, task.Y_train, 0.5, points=2)
    ours = slow_flow.follow(network, theta, task, 0.5, tolerance=1e-9, max_step=5e-4)
    scale = np.linalg.norm(dense.theta[-1])
    assert np.linalg.norm(ours.theta_end - dense.theta[-1]) < 1e-6 * scale
    assert float(ours.residual.max()) < 1e-8


def test_finite_decay_agrees_with_dense_gradient_flow_to_a_millionth():
    network, theta, task = small()
    dense = slow_flow.gradient_flow(network, theta, task.X_train, task.Y_train, 0.05, 0.5, points=2)
    ours = slow_flow.follow(network, theta, task, 0.5, 0.05, tolerance=3e-10, max_step=5e-4)
    assert np.linalg.norm(ours.theta_end - dense.theta[-1]) < 1e-6 * np.linalg.norm(dense.theta[-1])


def test_error_is_of_second_order_in_the_step():
    network, theta, task = small()
    ends = {
        h: slow_flow.follow(network, theta, task, 0.5, tolerance=0.1, max_step=h).theta_end.values
        for h in (1e-2, 5e-3, 2.5e-3)
    }
    coarse, fine = (np.linalg.norm(ends[h] - ends[h / 2]) for h in (1e-2, 5e-3))
    assert 3 < coarse / fine < 5.5


def test_limit_is_approached_in_proportion_to_weight_decay():
    network, theta, task = small()
    on_Z = zero_loss.project(network, theta, task.X_train, task.Y_train)
    limit, *near = (
        slow_flow.follow(network, on_Z, task, 0.5, lam, tolerance=1e-7).theta_end for lam in (0.0, 1e-3, 1e-4)
    )
    first, second = (float(np.linalg.norm(end - limit)) for end in near)
    assert first / second == pytest.approx(10, rel=0.15)


def test_cost_does_not_grow_when_decay_falls():
    network, theta, task = small()
    steps = [slow_flow.follow(network, theta, task, 1.0, lam).sizes["step"] for lam in (1e-2, 1e-6)]
    assert steps[1] < 2 * steps[0]


@pytest.mark.parametrize("activation", ["quadratic", "relu"])
def test_gradient_descent_follows_it(activation):
    """Training with w is the flow at λ = n·m·w/2 in τ = lr·w·steps, up to O(lr·w) (and kinks)."""
    task = tasks.modular(5, seed=1)
    network = networks.two_layer(5, 40, 5, activation)
    lr, w = 1.0, 1e-3
    start = training.train(network, task, 300, seed=1, lr=lr, weight_decay=w, keep_theta=True, record_at=2)
    theta = torch.from_numpy(start.theta.values[:, -1])
    runs = training.train(
        network, task, 1000, start=theta, lr=lr, weight_decay=w, keep_theta=True, record_at=2
    )
    flow = slow_flow.follow(network, theta[0], task, 1.0, task.Y_train.numel() * w / 2, tolerance=3e-4)
    moved = np.linalg.norm(runs.theta.values[0, -1] - theta[0].numpy())
    assert (
        np.linalg.norm(flow.theta_end.values - runs.theta.values[0, -1])
        < {"quadratic": 2e-3, "relu": 3e-2}[activation] * moved
    )
    assert float(flow.train_loss[-1]) == pytest.approx(float(runs.train_loss[0, -1]), rel=0.06)


def test_norm_identity_of_a_homogeneous_network():
    """dV/dτ = −2V + 2L²yᵀK⁻¹y on Z, with L = 2 for ReLU."""
    network, theta, task = small("relu", width=20)
    flow = slow_flow.follow(network, theta, task, 1e-3, max_step=5e-4, keep_theta=True)
    V, tau = flow.norm2.values, flow.tau.values
    start = torch.from_numpy(flow.theta.values[0])
    K = Point(network, start, task.X_train).gram()
    y = task.Y_train.reshape(-1)
    expected = -2 * V[0] + 8 * float(y @ torch.linalg.solve(K, y))
    assert (V[-1] - V[0]) / tau[-1] == pytest.approx(expected, rel=1e-2)


def test_both_solvers_follow_the_same_path_and_until_ends_it():
    network, theta, task = small("relu", width=20)
    ends = [
        slow_flow.follow(network, theta, task, 0.3, 1e-2, dense=dense).theta_end for dense in (True, False)
    ]
    np.testing.assert_allclose(*ends, rtol=0, atol=1e-3)
    whole = slow_flow.follow(network, theta, task, 0.3, 1e-2)
    relative = whole.test_loss.values / float(task.Y_test.square().mean())
    target = 0.5 * (relative[0] + relative.min())
    part = slow_flow.follow(network, theta, task, 0.3, 1e-2, until=target)
    assert part.sizes["step"] < whole.sizes["step"] or relative[-1] > target


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tau_end": 0.0}, "tau_end"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"max_step": 0.0}, "max_step"),
        ({"until": 0.0}, "until"),
        ({"theta0": torch.ones(3).double()}, "theta0 has 3 entries"),
        ({"network": torch.relu}, "network is a"),
        ({"task": None}, "task is a"),
        ({"network": networks.two_layer(4, 7, 2), "theta0": torch.ones(42).double()}, "does not fit"),
        ({"network": networks.two_layer(3, 1, 2), "theta0": torch.ones(5).double()}, "d ≥ nm"),
    ],
)
def test_bad_arguments_are_named(change, message):
    network, theta, task = small()
    good = {"network": network, "theta0": theta, "task": task, "tau_end": 1.0}
    with pytest.raises(ValueError, match=message):
        slow_flow.follow(**{**good, **change})


def test_a_limit_on_time_ends_it_and_ctrl_c_keeps_the_record(monkeypatch):
    network, theta, task = small()
    ended = lambda **how: slow_flow.follow(network, theta, task, 1.0, 0.1, **how).attrs["ended"]  # noqa: E731
    assert ended() == "tau_end"
    assert ended(seconds=1e-9) == "seconds"
    assert ended(until=1e9) == "until"
    solve, calls = Multipliers.solve, []

    def interrupted(self, *arguments):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return solve(self, *arguments)

    monkeypatch.setattr(Multipliers, "solve", interrupted)
    with pytest.raises(KeyboardInterrupt) as stopped:
        slow_flow.follow(network, theta, task, 1.0, 0.1)
    assert 0 < stopped.value.records.tau[-1] < 1
    assert stopped.value.records.sizes["step"] >= 2


def test_singular_start_stops_with_its_record():
    network, theta, task = small()
    with pytest.raises(slow_flow.StoppedError, match=r"singular|lost full rank|Gauss"):
        slow_flow.follow(
            network,
            0 * theta,
            tasks.regression(
                torch.cat([task.X_train] * 2),
                torch.cat([task.Y_train, -task.Y_train]),
                task.X_test,
                task.Y_test,
            ),
            1.0,
        )
