"""The predicted step against training, and the warnings where its assumptions fail."""

import numpy as np
import pytest
import torch

from grokutils import delay, networks, tasks, training, zero_loss

TASK = tasks.modular(11, train_fraction=0.8, seed=0)
NETWORK = networks.two_layer(11, 96, 11, "gelu")


def test_prediction_meets_training_within_its_error_and_one_percent():
    lr, w = 4.0, 2e-4
    made = delay.predict_delay(NETWORK, TASK, lr, w)
    assert not made.warnings
    steps = round(1.2 * made.step)
    runs = training.train(
        NETWORK, TASK, steps, lr=lr, weight_decay=w, record_at=range(made.memorized, steps, 5)
    )
    run = runs.isel(run=0, step=runs.step.values >= made.memorized)
    measured = delay.crossing(run, TASK) / (lr * w)
    assert measured == pytest.approx(made.step, rel=0.01)
    assert made.memorized < 0.5 * made.step
    assert f"step {made.step:.4g}" in str(made)
    assert made.flow.tau.values[0] == pytest.approx(lr * w * made.memorized)


def test_sharpness_is_the_largest_curvature():
    task = tasks.modular(3, seed=0)
    network = networks.two_layer(3, 8, 3, "tanh")
    theta = network.init(1)
    J = zero_loss.jacobian(network, theta, task.X_train)
    expected = 2 * float(torch.linalg.eigvalsh(J @ J.T)[-1]) / len(J)
    assert delay.sharpness(network, theta, task) == pytest.approx(expected, rel=1e-4)


def test_memorized_point_is_on_the_runs_own_path():
    step, theta = delay.memorize(NETWORK, TASK, 4.0, 2e-4, seed=3)
    again = training.train(
        NETWORK, TASK, step, seed=3, lr=4.0, weight_decay=2e-4, record_at=2, keep_theta=True
    )
    np.testing.assert_allclose(again.theta.values[0, -1], theta)
    zero = float(TASK.Y_train.square().mean())
    assert float(again.train_loss[0, -1]) <= delay.MEMORIZED * zero
    assert float(again.train_accuracy[0, -1]) == 1


def test_run_that_cannot_memorize_is_said_so():
    made = delay.predict_delay(NETWORK, TASK, 1.0, 0.05, patience=500)
    assert np.isnan(made.step)
    assert made.flow is None
    assert any("does not memorize" in note for note in made.warnings)
    assert "not within" in str(made)


def test_learning_rate_beyond_stability_is_named():
    task, network = tasks.modular(5, seed=0), networks.two_layer(5, 20, 5, "gelu")
    limit = 2 / delay.sharpness(network, network.init(0), task)
    made = delay.predict_delay(network, task, 1.05 * limit, 1e-3, patience=200, tau_end=0.5)
    assert any("stability limit at the start" in note for note in made.warnings)


@pytest.mark.parametrize(
    "change", [{"lr": 0.0}, {"weight_decay": 0.0}, {"momentum": 1.0}, {"threshold": -1.0}]
)
def test_bad_arguments_are_named(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        delay.predict_delay(NETWORK, TASK, **{"lr": 1.0, "weight_decay": 1e-3, **change})
