"""AdamW at its edge of stability: the limit, the concave problem and the flow, each against an independent route."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from grokutils import flow, losses, tasks
from grokutils.linearization import linearize
from grokutils.models import two_layer


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("beta1", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("lr", [1e-3, 0.1])
def test_below_the_limit_adam_s_step_with_v_held_is_stable_and_above_it_is_not(lr, beta1):
    def growth(s):
        # (m, x) ↦ (β₁m + (1 − β₁)sx, x − lr m⁺)
        A = np.array([[beta1, (1 - beta1) * s], [-lr * beta1, 1 - lr * (1 - beta1) * s]])
        return np.abs(np.linalg.eigvals(A)).max()

    limit = flow.edge_of_adam(lr, beta1)
    assert growth(0.999 * limit) < 1 < growth(1.001 * limit)


def by_gradient(J, base, weight, limit):
    """The same maximum by L-BFGS over a full root, from another start."""
    R = (0.1 * randn(len(J), len(J), seed=9)).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [R],
        lr=0.5,
        max_iter=3000,
        tolerance_grad=1e-12,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        v = base + weight * (R.mT @ J).square().sum(0)
        value = limit * R.square().sum() - (2 / weight * v.sqrt()).sum()
        value.backward()
        return value

    optimizer.step(closure)
    return (base + weight * (R.mT @ J).square().sum(0)).detach()


@pytest.mark.parametrize("steady", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_the_oscillation_is_at_the_edge_and_the_maximum_of_the_concave_problem(seed, steady):
    J = randn(6, 15, seed=seed)
    base = torch.zeros(15).double() if steady else 0.02 * randn(15, seed=20 + seed).square() + 1e-3
    weight = (
        torch.ones(15).double()
        if steady
        else 0.5 + torch.rand(15, generator=torch.Generator().manual_seed(seed)).double()
    )
    limit = 40.0
    found = flow.edge_oscillation(J, base, weight, limit)
    v = base + weight * found.fed(J)
    M = (J / v.sqrt()) @ J.mT
    assert torch.linalg.eigvalsh(M)[-1] < limit * 1.002
    assert (M @ found.root - limit * found.root).norm() < 3e-3 * limit * found.root.norm()
    assert torch.allclose(v.sqrt(), by_gradient(J, base, weight, limit).sqrt(), rtol=5e-3, atol=1e-4)
    again = flow.edge_oscillation(J, base, weight, limit, found)
    assert torch.allclose(base + weight * again.fed(J), v, rtol=2e-3)


def test_nothing_oscillates_below_the_edge():
    J = randn(6, 15)
    top = float(torch.linalg.eigvalsh(J @ J.mT)[-1])
    one = torch.ones(15).double()
    assert flow.edge_oscillation(J, one, one, 1.001 * top) is None
    assert flow.edge_oscillation(J, one, one, 0.999 * top) is not None


def test_with_one_output_the_metric_is_the_slopes_worked_out_by_hand():
    a = torch.tensor([[3.0, -1.0, 0.5, 0.0]], dtype=torch.float64)
    found = flow.edge_oscillation(a, torch.zeros(4).double(), torch.ones(4).double(), 7.0)
    assert torch.allclose(found.fed(a).sqrt(), a[0].abs() * a.abs().sum() / 7, rtol=1e-3)


def test_adamw_on_a_linear_model_ends_in_the_metric_of_the_concave_problem():
    J, y, lr = randn(6, 15, seed=1), randn(6, seed=11), 2e-3
    theta = torch.nn.Parameter(torch.zeros(15, dtype=torch.float64))
    optimizer = torch.optim.AdamW([theta], lr=lr, betas=(0.9, 0.99), weight_decay=0.05)
    roots = []
    for t in range(9000):
        optimizer.zero_grad()
        (J @ theta - y).square().mean().backward()
        optimizer.step()
        if t > 5000:
            roots.append(optimizer.state[theta]["exp_avg_sq"].sqrt())
    own = torch.stack(roots).mean(0)
    limit = flow.edge_of_adam(lr) * 6 / 2
    named = flow.edge_oscillation(J, torch.zeros(15).double(), torch.ones(15).double(), limit).fed(J).sqrt()
    assert np.corrcoef(own, named)[0, 1] > 0.99
    assert 0.85 < named.sum() / own.sum() < 1.02  # on average a run stays a little below the limit


def test_the_flow_keeps_to_the_edge_and_is_the_quiet_one_before():
    p, lr, w, beta2 = 5, 2e-3, 0.2, 0.95
    network, task = two_layer(p, 24, p, "gelu"), tasks.modular(p, train_fraction=0.7, seed=1)
    theta, v = network.init(1), torch.full((network.d,), 1e-4, dtype=torch.float64)
    count = task.Y_train.numel()
    common = {"lr": lr, "weight_decay": w, "beta2": beta2}
    edge = flow.EdgeAdam(network, task.X_train, v, 100, outputs=count, **common)
    quiet = flow.QuietAdam(v, 100, **common)
    seen = []

    def look(row, theta):
        J = torch.func.jacrev(lambda t: network(t, task.X_train).flatten())(theta)
        top = torch.linalg.eigvalsh((J / edge.at(theta, row["tau"])) @ J.mT)[-1] / edge.limit
        seen.append((float(top), edge.oscillation is not None))
        return False

    options = {"lam": losses.lam("squared_error", task.Y_train, w), "tolerance": 1e-2}
    flow.follow(network, theta, task, tau_end=0.3, inertia=edge, callback=look, **options)
    tops = [top for top, oscillates in seen if oscillates]
    assert tops
    assert max(tops) < 1.03
    still = [oscillates for _, oscillates in seen].index(True)
    assert still > 2
    early = 4 * lr * w  # before anything oscillates
    ends = [
        flow.follow(network, theta, task, tau_end=early, inertia=inertia, **options).theta_end.values
        for inertia in (flow.EdgeAdam(network, task.X_train, v, 100, outputs=count, **common), quiet)
    ]
    assert np.allclose(*ends, rtol=1e-6)


@pytest.mark.parametrize("outputs", [1, 2])
def test_one_output_s_oscillation_feeds_v_with_just_what_keeps_it_at_the_edge(outputs):
    """Its size by bisection, what v keeps and gains by adding up over the step."""
    model, X = two_layer(3, 4, 1, "softplus"), randn(1, 3)
    lr, w, beta1, beta2, epsilon, step = 0.05, 0.2, 0.8, 0.95, 1e-3, 100
    start = torch.full((model.d,), 1e-4, dtype=torch.float64)
    adam = flow.EdgeAdam(
        model,
        X,
        start,
        step,
        outputs=outputs,
        lr=lr,
        weight_decay=w,
        beta1=beta1,
        beta2=beta2,
        epsilon=epsilon,
    )
    theta, later, tau = model.init(0), model.init(0) * 0.99, 0.2
    adam.passed(theta, 0.0)
    now = adam.at(later, tau)
    clock = lambda t: np.log(beta2 ** -(step + t / (lr * w)) - 1)  # noqa: E731
    passed = clock(tau) - clock(0.0)
    fading = 1 - (w * (later + (later - theta) / tau)).square()
    kept = torch.linspace(0, passed, 20_001, dtype=torch.float64)
    weight = torch.trapezoid(torch.exp(-fading[:, None] * (passed - kept)), kept)
    J = linearize(model, later, X).jacobian()[0]
    top = lambda v: float((J.square() / (v.sqrt() + epsilon)).sum())  # noqa: E731
    limit = 2 * 1.8 / 0.2 / lr * outputs / 2
    base = start * torch.exp(-fading * passed)
    assert top(base) > limit
    low, high = 0.0, 1e3
    for _ in range(200):
        size = (low + high) / 2
        low, high = (size, high) if top(base + size * weight * J.square()) > limit else (low, size)
    expected = (base + low * weight * J.square()).sqrt() + epsilon
    assert torch.allclose(now, expected, rtol=1e-3)
    assert torch.equal(adam.at(later, tau), now)  # asked again at the same point
    adam.passed(later, tau)
    assert torch.equal(adam.at(later, tau), now)
    assert float(adam.oscillation.fed(J[None]).sum()) == pytest.approx(
        low * float(J.square().sum()), rel=1e-3
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"beta1": 1.0}, "beta1 = 1"),
        ({"outputs": 0}, "outputs = 0"),
        ({"lr": 0.0}, "lr = 0"),
        ({"beta2": 1.0}, "beta2 = 1"),
    ],
)
def test_refuses(change, words):
    given = {"outputs": 1, "lr": 1e-3, "weight_decay": 0.1}
    flow.EdgeAdam(two_layer(5, 8, 5, "gelu"), torch.eye(5).double(), torch.ones(80).double(), 3, **given)
    given |= change
    with pytest.raises(ValueError, match=words):
        flow.EdgeAdam(two_layer(5, 8, 5, "gelu"), torch.eye(5).double(), torch.ones(80).double(), 3, **given)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"limit": 0.0}, r"^limit = 0"),
        ({"base": torch.ones(3).double()}, r"base of shape \(3,\)"),
        ({"base": -torch.ones(5).double()}, r"^base of .* and not negative$"),
        ({"weight": torch.zeros(5).double()}, r"^weight of .* and positive$"),
        ({"J": torch.ones(5).double()}, r"^J\b"),
    ],
)
def test_the_concave_problem_refuses(change, words):
    given = {
        "J": randn(3, 5),
        "base": torch.zeros(5).double(),
        "weight": torch.ones(5).double(),
        "limit": 1.0,
        **change,
    }
    with pytest.raises(ValueError, match=words):
        flow.edge_oscillation(**given)


@pytest.mark.parametrize(
    ("lr", "beta1", "words"),
    [(0.0, 0.9, "lr = 0"), (-1.0, 0.9, "lr = -1"), (0.1, 1.0, "beta1 = 1"), (0.1, -0.1, "beta1 = -0.1")],
)
def test_the_edge_refuses(lr, beta1, words):
    with pytest.raises(ValueError, match=f"^{words}"):
        flow.edge_of_adam(lr, beta1)
