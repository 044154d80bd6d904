"""ReLU's flow slides along kinks: its algebra, and its path against training and against a smoothed network's."""

import numpy as np
import pytest
import torch

from grokutils import networks, slow_flow, tasks, training, zero_loss
from grokutils.slow_flow.kinks import SPRING, Sides, SlidingPoint
from grokutils.slow_flow.two_layer import Multipliers, Point

SLOPES = {"relu": (0.0, 1.0), "leaky_relu": (0.1, 1.0)}


def pinned_point(activation: str):
    """A network, a point of it with a tenth of its pre-activations pinned, and the matrices J and D."""
    g = torch.Generator().manual_seed(0)
    network = networks.two_layer(3, 9, 2, activation)
    theta, X = (torch.randn(*shape, generator=g, dtype=torch.float64) for shape in ((network.d,), (4, 3)))
    E = network.matrices(theta)["E"]
    sides = Sides.at(X @ E, torch.rand(4, 9, generator=g) < 0.1)
    low, high = SLOPES[activation]
    S = torch.where(sides.on, high, low).double() * ~sides.pinned

    def linear(t, X):
        E, W = network.matrices(t).values()
        return (S * (X @ E)) @ W

    springs = torch.func.jacrev(lambda t: (X @ network.matrices(t)["E"])[sides.pinned])(theta)
    D = torch.eye(network.d, dtype=torch.float64) + springs.T @ springs / SPRING
    return SlidingPoint(network, theta, X, sides, (low, high)), zero_loss.jacobian(linear, theta, X), D, theta


@pytest.mark.parametrize("activation", SLOPES)
def test_structure_gives_what_springs_leave_of_the_jacobian(activation):
    point, J, D, theta = pinned_point(activation)
    assert len(point.units)
    torch.testing.assert_close(point.free(theta), torch.linalg.solve(D, theta), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(point.push(theta).flatten(), J @ theta)
    torch.testing.assert_close(point.gram(), J @ torch.linalg.solve(D, J.T), rtol=1e-6, atol=1e-6)


def test_both_solvers_find_the_multipliers_with_springs():
    point, *_ = pinned_point("relu")
    u = torch.ones(4, 2, dtype=torch.float64)
    factored, searched = (
        Multipliers(1e-12, dense=dense).solve(point, 0.3, 1e-2, u) for dense in (True, False)
    )
    torch.testing.assert_close(searched, factored, rtol=1e-7, atol=1e-9)


def test_nothing_pinned_is_the_plain_point():
    network = networks.two_layer(3, 9, 2, "relu")
    theta, X = network.init(0), torch.eye(3, dtype=torch.float64)
    sides = Sides.at(X @ network.matrices(theta)["E"])
    slid, plain = SlidingPoint(network, theta, X, sides, (0.0, 1.0)), Point(network, theta, X)
    torch.testing.assert_close(slid.gram(), plain.gram())
    torch.testing.assert_close(slid.outputs, plain.outputs)


def test_sides_that_do_not_fit_are_moved():
    """Rows of z: each pre-activation with its pull μWᵀ, and where it has to go next."""
    on, pinned = (
        torch.tensor([[True, False, False, False, False, False]]),
        torch.zeros(1, 6, dtype=torch.bool),
    )
    pinned[0, 3:] = True
    Z = torch.tensor([[-1.0, 1.0, 1.0, -0.5 * SPRING, 2 * SPRING, -2 * SPRING]])
    pull = torch.tensor([[-1.0, -1.0, 1.0, -1.0, -1.0, -1.0]])
    after = Sides(on, pinned).fitting(Z, pull, 1.0, (0.0, 1.0))
    # caught, caught, through to on; a force > 0 would need s < 0: off; one below the pull needs s > 1: on
    assert after.pinned.tolist() == [[True, True, False, False, False, False]]
    assert after.on.tolist() == [[False, False, True, False, True, False]]
    held = Sides(on, pinned).fitting(Z, pull, 1.0, (0.0, 1.0), hold=True)
    assert held.pinned.all()


@pytest.fixture(scope="module")
def memorized():
    """A ReLU network on a table, its memorized point, and λ; lr·w = 5e-4 from there on."""
    task, network = tasks.modular(5, seed=1), networks.two_layer(5, 40, 5, "relu")
    start = training.train(
        network, task, 600, seed=1, lr=0.5, weight_decay=1e-3, keep_theta=True, record_at=2
    )
    return network, task, torch.from_numpy(start.theta.values[0, -1]), task.Y_train.numel() * 1e-3 / 2


def test_path_is_that_of_gradient_descent_in_small_steps(memorized):
    network, task, theta, lam = memorized
    run = training.train(
        network, task, 20_000, start=theta[None], lr=0.05, weight_decay=1e-3, keep_theta=True, record_at=2
    )
    end = run.theta.values[0, -1]
    flow = slow_flow.follow(network, theta, task, 1.0, lam, tolerance=1e-5)
    moved = np.linalg.norm(end - theta.numpy())
    assert int(flow.pinned[-1]) > 0
    assert np.linalg.norm(flow.theta_end.values - end) < 5e-3 * moved


def test_time_does_not_depend_on_the_tolerance_nor_on_the_integrator(memorized):
    """The other integrator: SciPy's LSODA with dense Jacobians, for a smooth σ.

    Its kink is rounded over 3e-4, which moves the time by 0.7 %, in proportion to that width.
    """
    network, task, theta, lam = memorized
    flows = [slow_flow.follow(network, theta, task, 1.0, lam, tolerance=tol) for tol in (1e-4, 5e-5)]
    level = 0.5 * float(flows[0].norm2[0] + flows[0].norm2[-1])
    first, second = (float(np.interp(-level, -flow.norm2, flow.tau)) for flow in flows)
    assert second == pytest.approx(first, rel=5e-3)

    def nearly(Z, width=3e-4):
        return width * torch.nn.functional.softplus(Z / width)

    smooth = networks.two_layer(5, 40, 5, nearly)
    other = slow_flow.gradient_flow(smooth, theta, task.X_train, task.Y_train, lam, 1.0, rtol=1e-5)
    assert float(np.interp(-level, -other.norm2, other.tau)) == pytest.approx(first, rel=1e-2)
