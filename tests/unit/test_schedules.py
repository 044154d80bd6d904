"""Settings from theory: the plateau, the spectrum and the steps against independent routes; bad input."""

import math

import numpy as np
import pytest
import torch

from grokutils import from_theory, linearize, modular, two_layer
from grokutils.errors import GrokutilsError
from grokutils.schedules import critical_momentum, largest_lam, plateau_loss, spectrum, steps_per_tau

NET = two_layer(5, 32, 5, "gelu")
TASK = modular(5, train_fraction=0.7, seed=1)


def linear_problem(n=6, d=10):
    generator = torch.Generator().manual_seed(0)
    A, theta, X = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((n, d), (d,), (n, 1))
    )
    return linearize(lambda t, X: (A @ t)[:, None], theta, X, kind="dense"), A, theta


def test_the_plateau_is_where_decay_and_loss_balance_in_a_linear_model():
    lin, A, z = linear_problem()
    K, lam = A @ A.T, 0.3
    a = torch.linalg.solve(K @ K + lam * K, -lam * (A @ z))  # minimizes |Ka|² + λ|z + Aᵀa|²
    assert plateau_loss(lin, lam) == pytest.approx(float((K @ a).square().sum()), rel=1e-10)
    assert plateau_loss(lin, 0.0) == 0


def test_the_spectrum_integrates_functions_of_K():
    lin, A, theta = linear_problem()
    u = (A @ theta)[:, None]
    nodes, weights = spectrum(lin, u, 6)
    assert nodes.max() == pytest.approx(float(torch.linalg.eigvalsh(A @ A.T)[-1]), rel=1e-10)
    lam = largest_lam(nodes, weights, 0.5)
    assert plateau_loss(lin, lam) == pytest.approx(0.5, rel=1e-8)
    nodes, weights = spectrum(lin, u, 2)  # exact up to degree 3
    K = A @ A.T
    for degree in range(4):
        exact = float(u[:, 0] @ torch.linalg.matrix_power(K, degree) @ u[:, 0])
        assert (weights * nodes**degree).sum() == pytest.approx(exact, rel=1e-10)


def test_a_space_that_ends_early_ends_the_spectrum():
    lin, A, _ = linear_problem()
    values, vectors = torch.linalg.eigh(A @ A.T)
    nodes, weights = spectrum(lin, 2 * vectors[:, -1:], 4)
    assert nodes == pytest.approx([float(values[-1])])
    assert weights == pytest.approx([4.0])


@pytest.mark.parametrize("share", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("ratio", [30.0, 1000.0])
def test_the_critical_momentum_damps_fastest_and_the_steps_are_heavy_balls(ratio, share):
    beta = critical_momentum(ratio, share)
    lr_w = 2 * share * (1 + beta) / (ratio + 1)
    assert (1 + beta - lr_w) ** 2 == pytest.approx(4 * beta, rel=1e-9)
    best = steps_per_tau(ratio, share, beta)
    assert all(best < steps_per_tau(ratio, share, other) for other in (0.0, 0.9 * beta, 0.5 * (1 + beta)))
    for momentum in (0.0, 0.8 * beta):
        rate, x, v, sizes = 2 * share * (1 + momentum) / (ratio + 1), 1.0, 0.0, []
        for _ in range(3000):
            v = momentum * v + x
            x -= rate * v
            sizes.append(abs(x))
        measured = -1000 / math.log(sizes[1500] / sizes[500])
        assert steps_per_tau(ratio, share, momentum) == pytest.approx(measured, rel=1e-3)


def test_the_two_laws_are_its_limits():
    q = 1e6
    assert steps_per_tau(q) == pytest.approx(q / 2, rel=1e-5)
    assert steps_per_tau(q, 0.7, critical_momentum(q, 0.7)) == pytest.approx(math.sqrt(q / 0.7) / 2, rel=1e-2)
    assert critical_momentum(0.5) == 0


def test_a_plan_says_what_it_rests_on_and_goes_on_from_memory():
    plan = from_theory(NET, TASK, 0.05, seed=2)
    size = float(TASK.Y_train.square().sum())
    assert float((NET(plan.theta, TASK.X_train) - TASK.Y_train).square().sum()) <= 0.05 * size
    assert plan.plateau == pytest.approx(0.05, rel=1e-6)
    exact = plateau_loss(linearize(NET, plan.theta, TASK.X_train), plan.lam) / size
    assert exact == pytest.approx(0.05, rel=0.2)
    assert plan.after.weight_decay == pytest.approx(2 * plan.lam / TASK.Y_train.numel())
    assert plan.evaluations == plan.steps + 2 * plan.products
    assert plan.products == 15
    assert "plateau loss" in str(plan)
    again = from_theory(NET, TASK, 0.05, theta0=plan.theta)
    assert again.steps == 0
    assert again.after == plan.after
    assert from_theory(NET, TASK, 0.01, theta0=plan.theta).lam < plan.lam


def test_a_learning_rate_past_its_limit_is_halved():
    from grokutils.schedules import _memorize

    theta, lr, steps = _memorize(NET, TASK, NET.init(2), 1e4, 3000)
    assert lr < 1e3
    assert 0 < steps < 3000
    assert torch.isfinite(theta).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"model": 3}, "model is a int"),
        ({"tolerated_loss": 0.0}, "tolerated_loss = 0.0: must be a finite number in (0, 1)"),
        ({"tolerated_loss": "0.1"}, "without quotes"),
        ({"products": 1}, "products = 1: must be an integer of at least 2"),
        ({"patience": 0}, "patience = 0"),
        ({"theta0": torch.zeros(3)}, "theta0 has 3 entries"),
        ({"task": 1}, "task is a int"),
    ],
)
def test_bad_input_is_refused_by_name(arguments, said):
    with pytest.raises(ValueError) as caught:
        from_theory(**{"model": NET, "task": TASK, **arguments})
    assert said in str(caught.value)


def test_what_cannot_be_answered_is_said():
    with pytest.raises(GrokutilsError, match="has not memorized within 1 steps"):
        from_theory(NET, TASK, patience=1)
    with pytest.raises(GrokutilsError, match="tolerate less"):
        largest_lam(np.array([1.0]), np.array([0.1]), 0.2)
    lin, *_ = linear_problem()
    with pytest.raises(GrokutilsError, match="no start"):
        spectrum(lin, torch.zeros(6, 1, dtype=torch.float64), 2)
    for wrong in (0.0, -1.0):
        with pytest.raises(ValueError, match="ratio"):
            critical_momentum(wrong)
    with pytest.raises(ValueError, match="share"):
        steps_per_tau(10.0, 1.5)
