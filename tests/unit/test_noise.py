"""Forces of noise and the metric of Adam, each by an independent route."""

import itertools

import numpy as np
import pytest
import torch

from grokutils import flow, models, tasks, zero_loss
from grokutils.linearization import linearize


def small(depth: int = 2, n: int = 3):
    g = torch.Generator().manual_seed(1)
    X, X_test = (torch.randn(k, 3, generator=g, dtype=torch.float64) for k in (n, 4))
    model = models.two_layer(3, 7, 2, "softplus") if depth == 2 else models.mlp([3, 5, 5, 2], "softplus")
    theta = torch.randn(model.d, generator=g, dtype=torch.float64)
    Y = model(theta + 0.3 * torch.randn(model.d, generator=g, dtype=torch.float64), X)
    Y_test = torch.randn(4, 2, generator=g, dtype=torch.float64)
    return model, theta, tasks.from_tensors(X, Y, X_test, Y_test)


class Scaled(models.Model):
    """f(φ/√D): the same network in the coordinates in which the metric D is Euclid's."""

    def __init__(self, model, D):
        super().__init__("scaled", {"phi": (model.d,)})
        self.model, self.root = model, D.sqrt()

    def forward(self, parameters, X):
        return self.model(parameters["phi"] / self.root, X)


class Fixed:
    """A constant inertia."""

    def __init__(self, D, decoupled):
        self.D, self.decoupled = D, decoupled

    def at(self, theta, tau):
        return self.D

    def force(self, theta, inertia):
        return torch.zeros_like(theta)

    def passed(self, theta, tau):
        pass


@pytest.mark.parametrize("decoupled", [True, False])
def test_an_inertia_is_another_choice_of_coordinates(decoupled):
    model, theta, task = small()
    D = torch.rand(model.d, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 0.3
    run = flow.follow(model, theta, task, lam=0.02, tau_end=0.4, tolerance=1e-6, inertia=Fixed(D, decoupled))
    other = Scaled(model, D)
    weights = {"penalty": None if decoupled else Weights(1 / D)}
    plain = flow.follow(other, theta * D.sqrt(), task, lam=0.02, tau_end=0.4, tolerance=1e-6, **weights)
    back = plain.theta_end.values / D.sqrt().numpy()
    assert np.linalg.norm(run.theta_end.values - back) < 1e-4 * np.linalg.norm(back)


class Weights:
    """½ Σ a θ²."""

    def __init__(self, a):
        self.a = a

    def value(self, theta):
        return 0.5 * float(self.a @ theta.square())

    def gradient(self, theta):
        return self.a * theta

    def metric(self, theta):
        return self.a


@pytest.mark.parametrize("depth", [2, 3])
def test_squared_slopes_are_the_diagonal(depth):
    model, theta, task = small(depth)
    J = linearize(model, theta, task.X_train, "dense").jacobian()
    assert torch.allclose(flow.squared_slopes(model, theta, task.X_train), J.square().sum(0))


def test_label_noise_has_the_gradient_that_it_says():
    model, theta, task = small()
    h = flow.LabelNoise(model, task.X_train, 0.2, decay=0.4)
    v = torch.randn(model.d, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    rise = (h.value(theta + 1e-5 * v) - h.value(theta - 1e-5 * v)) / 2e-5
    assert rise == pytest.approx(float(h.gradient(theta) @ v), rel=1e-7)
    K = linearize(model, theta, task.X_train).gram()
    assert h.value(theta) == pytest.approx(0.2 * float(theta @ theta) + 0.2 * float(K.trace()), rel=1e-10)
    assert h.metric(theta) == 0.4
    whole = flow.LabelNoise(model, task.X_train, 0.2)
    assert torch.allclose(whole.gradient(theta) - h.gradient(theta), 0.6 * theta)


def test_noise_of_one_unit_drifts_as_its_stationary_fluctuations_say():
    """Third derivative of the loss against the covariance of the linearized noise, on Z of (uv − 1)²."""
    u, d, lr = 1.7, 0.3, 0.01
    theta = torch.tensor([u, 1 / u], dtype=torch.float64)
    J = torch.tensor([1 / u, u], dtype=torch.float64)
    normal, tangent = J / J.norm(), torch.tensor([u, -1 / u], dtype=torch.float64) / J.norm()
    S = lr * d**2 * torch.outer(normal, normal)  # Lyapunov's equation with H = 2JJᵀ and noise 4d²JJᵀ
    loss = lambda t: (t[0] * t[1] - 1) ** 2  # noqa: E731
    third = torch.func.jacrev(torch.func.jacrev(torch.func.grad(loss)))(theta)
    drift = -0.5 * lr * torch.einsum("ijk,jk->i", third, S) @ tangent
    pair = lambda t, X: (t[0] * t[1]).view(1, 1)  # noqa: E731
    trace = torch.func.grad(lambda t: torch.func.jacrev(pair)(t, None).square().sum())(theta)
    assert float(drift) == pytest.approx(float(-lr * lr * d**2 * trace @ tangent), rel=1e-10)


def test_adams_metric_is_the_root_of_the_mean_square_of_its_noise():
    """The gradient of one noisy step is −(2d/nm)Jᵀξ, here drawn often enough to average its square."""
    model, theta, task = small()
    adam = flow.Adam(model, task.X_train, noise=0.3, outputs=6)
    J = linearize(model, theta, task.X_train, "dense").jacobian()
    draws = torch.randn(200_000, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    drawn = (2 * 0.3 / 6 * draws @ J).square().mean(0)
    assert torch.allclose(adam.at(theta, 0.0).square(), drawn, rtol=0.03)
    exact = (0.1**2 * J.square().sum(0)).sqrt()
    assert torch.allclose(adam.at(theta, 0.0), exact + 1e-8, rtol=1e-12, atol=1e-12)
    rough = flow.Adam(model, task.X_train, noise=0.3, outputs=6, epsilon=0.5)
    assert torch.allclose(rough.at(theta, 0.0), exact + 0.5, rtol=1e-12)
    # what is left out: no push, no memory, AdamW's decay
    adam.passed(theta, 0.0)
    assert torch.equal(
        adam.at(theta + 1, 0.1), flow.Adam(model, task.X_train, noise=0.3, outputs=6).at(theta + 1, 0.0)
    )
    assert torch.equal(adam.force(theta, exact), torch.zeros_like(theta))
    assert adam.decoupled


def test_adams_memory_goes_on_from_point_to_point():
    """In two steps as in one, while v(θ) moves evenly; and what was only tried leaves no trace."""
    model, theta, task = small()
    made = {"noise": 0.1, "outputs": 6, "memory": 0.2, "epsilon": 0.0}
    once, twice = (flow.Adam(model, task.X_train, **made) for _ in range(2))
    slow = [flow.squared_slopes(model, theta + a, task.X_train) for a in (0.0, 0.5)]
    middle = (1 / 30) ** 2 * (slow[0] + slow[1]) / 2  # v(θ) half-way
    for adam in (once, twice):
        adam.passed(theta, 0.4)
    twice._v = lambda t: middle  # the point half-way, by what it has
    twice.at(theta - 3, 0.55)
    twice.passed(theta, 0.5)
    del twice._v
    assert torch.allclose(twice.at(theta + 0.5, 0.6), once.at(theta + 0.5, 0.6), rtol=1e-10)


def test_force_of_adams_noise_counts_each_weight_by_its_own_inertia():
    model, theta, task = small()
    adam = flow.Adam(model, task.X_train, noise=0.1, outputs=6, push=0.3)
    inertia = torch.rand(model.d, generator=torch.Generator().manual_seed(5), dtype=torch.float64) + 0.2
    v = torch.randn(model.d, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    weighed = lambda t: float((flow.squared_slopes(model, t, task.X_train) / inertia).sum())  # noqa: E731
    rise = (weighed(theta + 1e-5 * v) - weighed(theta - 1e-5 * v)) / 2e-5
    assert float(adam.force(theta, inertia) @ v) == pytest.approx(-0.3 * rise, rel=1e-6)


def test_adam_remembers_v_for_as_long_as_its_second_average_does():
    model, theta, task = small()
    made = {"noise": 0.1, "outputs": 6}
    late, prompt = (
        flow.Adam(model, task.X_train, memory=memory, epsilon=0.0, **made) for memory in (0.2, 0.0)
    )
    far = theta + 0.5
    late.passed(theta, 0.0)
    v0, v1 = (prompt.at(t, 0.0).square() for t in (theta, far))
    s = np.linspace(0, 0.3, 20001)  # v(θ) moves evenly from v0 to v1
    weight = np.exp(-(0.3 - s) / 0.2) / 0.2
    expected = v0 * np.exp(-1.5) + v0 * np.trapezoid(weight * (1 - s / 0.3), s)
    expected = expected + v1 * np.trapezoid(weight * s / 0.3, s)
    assert torch.allclose(late.at(far, 0.3).square(), expected, rtol=1e-6)
    given = flow.Adam(model, task.X_train, memory=0.2, start=4 * v0, epsilon=0.0, **made)
    given.passed(theta, 0.0)
    assert torch.allclose(
        given.at(far, 0.3).square() - late.at(far, 0.3).square(), 3 * v0 * np.exp(-1.5), rtol=1e-6
    )
    held = flow.Adam(model, task.X_train, frozen=theta, epsilon=0.0, **made)
    assert torch.allclose(held.at(far, 0.3).square(), v0)


def test_force_of_adams_noise_is_that_of_label_noise_where_all_weights_weigh_the_same():
    model, theta, task = small()
    adam = flow.Adam(model, task.X_train, noise=0.1, outputs=6, push=0.3)
    plain = flow.LabelNoise(model, task.X_train, 0.3, decay=0.0)
    equal = torch.ones(model.d, dtype=torch.float64)
    assert torch.allclose(adam.force(theta, equal), -plain.gradient(theta))


def test_force_of_minibatches_is_the_mean_over_all_batches():
    model, theta, task = small(n=4)
    X, n, m, b, lr, w = task.X_train, 4, 2, 2, 0.5, 1e-3
    force = flow.Minibatches(model, X, m, lr, w, b)
    lin = linearize(model, theta, X)
    Y = lin.outputs + n * m * w / 2 * lin.solve(lin.jvp(theta), 1.0, n * m * w / 2)  # so θ is on the plateau

    def mean_square(t):
        def of(batch):
            loss = lambda s: (model(s, X[batch]) - Y[batch]).square().mean()  # noqa: E731
            return torch.func.grad(loss)(t).square().sum()

        batches = [list(batch) for batch in itertools.combinations(range(n), b)]
        return torch.stack([of(batch) for batch in batches]).mean() - of(list(range(n)))

    expected = -lr / (4 * w) * torch.func.grad(mean_square)(theta)
    J = linearize(model, theta, X, "dense").jacobian()
    ours, exact = (zero_loss.project_tangent(J, each) for each in (force(theta), expected))
    assert float((ours - exact).norm()) < 1e-6 * float(exact.norm())
    assert not flow.Minibatches(model, X, m, lr, w, n)(theta).any()


@pytest.mark.parametrize(
    ("what", "change"),
    [
        (flow.LabelNoise, {"strength": -1}),
        (flow.LabelNoise, {"decay": -1}),
        (flow.Adam, {"noise": 0}),
        (flow.Adam, {"outputs": 0}),
        (flow.Adam, {"push": -1}),
        (flow.Adam, {"memory": -1}),
        (flow.Adam, {"epsilon": -1}),
        (flow.Minibatches, {"batch_size": 0}),
        (flow.Minibatches, {"batch_size": 9}),
        (flow.Minibatches, {"weight_decay": 0}),
        (flow.Minibatches, {"outputs": 0}),
        (flow.Minibatches, {"lr": 0}),
    ],
)
def test_bad_arguments_are_named(what, change):
    model, _, task = small()
    given = {
        flow.LabelNoise: {"strength": 0, "decay": 0},
        flow.Adam: {"noise": 0.1, "outputs": 1, "push": 0, "memory": 0, "epsilon": 0},
        flow.Minibatches: {"outputs": 1, "lr": 0.1, "weight_decay": 1e-3, "batch_size": 1},
    }[what]
    what(model, task.X_train, **given)  # the least that is allowed
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=rf"\b{name} = {value}"):
        what(model, task.X_train, **{**given, **change})


def test_one_sample_has_no_other_batches():
    model, theta, task = small()
    assert not flow.Minibatches(model, task.X_train[:1], 2, 0.5, 1e-3, 1)(theta).any()
    assert flow.Minibatches(model, task.X_train[:2], 2, 0.5, 1e-3, 1)(theta).any()  # two have


def test_kinks_cannot_be_held_under_an_inertia():
    model = models.two_layer(3, 7, 2, "relu")
    _, _, task = small()
    theta = model.init(0)
    with pytest.raises(ValueError, match="inertia"):
        flow.follow(model, theta, task, lam=0.1, tau_end=0.1, inertia=Fixed(torch.ones(model.d), True))


def quiet(w=0.5, step=40, beta2=0.98):
    start = torch.tensor([0.3, 2.0, 1e-4], dtype=torch.float64)
    return start, flow.QuietAdam(start, step, lr=1e-2, weight_decay=w, beta2=beta2)


def test_quiet_adam_averages_the_square_of_what_its_flow_implies():
    # step by step, as Adam does it, along a path that is given
    w, step, beta2, lr, steps = 0.5, 400, 0.998, 1e-3, 2000
    v = torch.tensor([0.3, 2.0, 1e-4], dtype=torch.float64)
    adam = flow.QuietAdam(v, step, lr=lr, weight_decay=w, beta2=beta2)
    theta = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    speed = torch.tensor([0.2, 0.3, -1.0], dtype=torch.float64)
    raw, tau = v * (1 - beta2**step), 0.0
    adam.passed(theta, 0.0)
    for t in range(step + 1, step + steps + 1):
        hat = raw / (1 - beta2 ** (t - 1))
        g = -w * hat.sqrt() * (theta + speed * tau + speed)
        raw, tau = beta2 * raw + (1 - beta2) * g.square(), tau + lr * w
        if t % 20 == 0:
            adam.passed(theta + speed * tau, tau)
    told = adam.at(theta + speed * tau, tau) - 1e-8
    assert torch.allclose(told, (raw / (1 - beta2 ** (step + steps))).sqrt(), rtol=0.01)


def test_quiet_adam_that_rests_decays_with_the_correction_for_its_start():
    v, adam = quiet()
    zero = torch.zeros(3, dtype=torch.float64)
    adam.passed(zero, 0.0)
    steps = 100
    told = (adam.at(zero, steps * 1e-2 * 0.5) - 1e-8).square()
    exact = v * 0.98**steps * (1 - 0.98**40) / (1 - 0.98 ** (40 + steps))
    assert torch.allclose(told, exact, rtol=1e-10)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"step": 0}, "step = 0"),
        ({"lr": 0.0}, "lr = 0"),
        ({"weight_decay": -1.0}, "weight_decay = -1"),
        ({"weight_decay": 0.0}, "weight_decay = 0"),
        ({"beta2": 1.0}, "beta2 = 1"),
        ({"beta2": 0.0}, "beta2 = 0"),
        ({"epsilon": -1.0}, "epsilon = -1"),
    ],
)
def test_quiet_adam_refuses(change, words):
    given = {"step": 1, "lr": 1e-3, "weight_decay": 0.1, "beta2": 0.9, "epsilon": 0}
    flow.QuietAdam(torch.ones(2), **given)  # the least that is allowed
    flow.QuietAdam(torch.ones(2), 1, lr=1e-3, weight_decay=0.1)  # and what is not said
    given |= change
    with pytest.raises(ValueError, match=rf"\b{words}"):
        flow.QuietAdam(torch.ones(2), **given)
