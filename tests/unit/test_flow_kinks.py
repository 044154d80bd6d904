"""ReLU's flow slides along kinks: its path against training and against a smoothed network's."""

import numpy as np
import pytest
import torch

from grokutils import flow, losses, models, tasks, training


@pytest.fixture(scope="module")
def memorized():
    """A ReLU network on a table, its memorized point, and λ; lr·w = 5e-4 up to there."""
    task, model = tasks.modular(5, seed=1), models.two_layer(5, 40, 5, "relu")
    run = training.train(model, task, 600, seed=1, lr=0.5, weight_decay=1e-3, record_at=2)
    theta = torch.from_numpy(run.theta_end.values[0])
    return model, task, theta, losses.lam("squared_error", task.Y_train, 1e-3)


def test_path_is_that_of_gradient_descent_in_small_steps(memorized):
    model, task, theta, lam = memorized
    run = training.train(model, task, 20_000, theta0=theta, lr=0.05, weight_decay=1e-3, record_at=2)
    end = run.theta_end.values[0]
    path = flow.follow(model, theta, task, lam=lam, tau_end=1.0, tolerance=1e-5)
    assert int(path.pinned[-1]) > 0
    assert np.linalg.norm(path.theta_end.values - end) < 5e-3 * np.linalg.norm(end - theta.numpy())
    assert (np.diff(path.objective) <= 1e-9 * path.objective[:-1].values).all()


def test_time_depends_neither_on_the_tolerance_nor_on_the_integrator(memorized):
    """The other integrator: SciPy's LSODA with dense Jacobians, for a smooth σ.

    Its kink is rounded over 3e-4, which moves the time by 0.7 %, in proportion to that width.
    """
    model, task, theta, lam = memorized
    paths = [flow.follow(model, theta, task, lam=lam, tau_end=1.0, tolerance=tol) for tol in (1e-4, 5e-5)]
    level = 0.5 * float(paths[0].norm2[0] + paths[0].norm2[-1])
    first, second = (float(np.interp(-level, -path.norm2, path.tau)) for path in paths)
    assert second == pytest.approx(first, rel=5e-3)

    def nearly(Z, width=3e-4):
        return width * torch.nn.functional.softplus(Z / width)

    smooth = models.two_layer(5, 40, 5, nearly)
    other = flow.reference(smooth, theta, task.X_train, task.Y_train, lam=lam, tau_end=1.0, rtol=1e-5)
    assert float(np.interp(-level, -other.norm2, other.tau)) == pytest.approx(first, rel=1e-2)


def test_a_users_own_relu_is_held_as_the_named_one(memorized):
    model, task, theta, lam = memorized
    own = models.two_layer(5, 40, 5, lambda Z: torch.relu(Z))
    ends = [flow.follow(each, theta, task, lam=lam, tau_end=0.1).theta_end.values for each in (model, own)]
    np.testing.assert_allclose(*ends, rtol=0, atol=1e-9)


def test_uneven_decay_with_kinks_is_refused(memorized):
    model, task, theta, lam = memorized
    with pytest.raises(ValueError, match="same decay for all"):
        flow.follow(model, theta, task, lam=lam, tau_end=0.1, penalty=flow.WeightedDecay(model, {"E": 2.0}))
