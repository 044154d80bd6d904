"""Losses: gradients and curvatures against automatic differentiation, PyTorch's means, and a third loss in ten lines."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grokutils import losses
from grokutils.losses import CrossEntropy, Curvature

NAMES = {"squared_error": torch.nn.functional.mse_loss, "cross_entropy": torch.nn.functional.cross_entropy}


def draw(seed, n=4, m=3, scale=3.0):
    g = torch.Generator().manual_seed(seed)
    F = scale * torch.randn(n, m, generator=g, dtype=torch.float64)
    return F, torch.softmax(torch.randn(n, m, generator=g, dtype=torch.float64), 1)


class LabelSmoothed(CrossEntropy):
    """Cross-entropy with targets moved towards equal probabilities by a share ``epsilon``."""

    name = "label_smoothed"

    def __init__(self, epsilon=0.1):
        self.epsilon = epsilon

    def value(self, F, Y):
        return super().value(F, (1 - self.epsilon) * Y + self.epsilon / Y.shape[1])

    def gradient(self, F, Y):
        return super().gradient(F, (1 - self.epsilon) * Y + self.epsilon / Y.shape[1])


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy", LabelSmoothed()])
@settings(max_examples=8)
@given(seed=st.integers(0, 10**6))
def test_gradient_and_curvature_are_half_the_derivatives(loss, seed):
    loss, (F, Y) = losses.loss(loss), draw(seed)
    loss.check(Y)
    U = draw(seed + 1)[0]
    value = lambda F: loss.value(F, Y)  # noqa: E731
    torch.testing.assert_close(loss.gradient(F, Y), torch.func.grad(value)(F) / 2)
    H = loss.curvature(F, Y)
    along = torch.func.grad(lambda F: (torch.func.grad(value)(F) * U).sum())(F) / 2
    torch.testing.assert_close(H.times(U), along)
    V = draw(seed + 2)[0]
    torch.testing.assert_close((H.root(U) * V).sum(), (U * H.root_transposed(V)).sum())


@pytest.mark.parametrize("name", NAMES)
def test_count_is_what_pytorch_averages_over(name):
    loss, (F, Y) = losses.loss(name), draw(0)
    torch.testing.assert_close(loss.value(F, Y) / loss.count(Y), NAMES[name](F, Y))


def test_label_smoothing_is_pytorchs():
    F, Y = draw(0)
    ours = LabelSmoothed(0.2).value(F, Y) / 4
    torch.testing.assert_close(ours, torch.nn.functional.cross_entropy(F, Y, label_smoothing=0.2))


@pytest.mark.parametrize("name", NAMES)
def test_decay_converts_so_that_a_step_is_one_of_the_penalized_loss(name):
    """∇(mean) + wθ = ∇(L + λ‖θ‖²)/count."""
    Y, theta, w = draw(0)[1], draw(1)[0], 1e-3
    lam, count = losses.lam(name, Y, w), losses.loss(name).count(Y)
    mean = torch.func.grad(lambda t: NAMES[name](t, Y))(theta) + w * theta
    whole = torch.func.grad(lambda t: losses.loss(name).value(t, Y) + lam * t.square().sum())(theta)
    torch.testing.assert_close(mean, whole / count)
    assert losses.weight_decay(name, Y, lam) == pytest.approx(w)


def test_squared_error_has_the_residual_and_the_identity():
    F, Y = draw(0)
    assert torch.equal(losses.squared_error.gradient(F, Y), F - Y)
    assert type(losses.squared_error.curvature(F, Y)) is Curvature
    assert losses.loss("mse") is losses.squared_error


def test_probabilities_may_be_0_or_1_and_miss_their_sum_by_rounding_only():
    losses.cross_entropy.check(torch.eye(3))
    losses.cross_entropy.check(torch.tensor([[0.5, 0.5 + 8e-7]], dtype=torch.float64))
    with pytest.raises(ValueError, match="sum to 1"):
        losses.cross_entropy.check(torch.tensor([[0.5, 0.5 + 2e-6]], dtype=torch.float64))


NO_PROBABILITIES = (
    "^Y has rows that are no probabilities: for cross_entropy each must be at least 0 and sum to 1$"
)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: losses.loss("hinge"),
            "^loss = 'hinge': must be one of 'squared_error', 'mse', 'cross_entropy', or a losses.Loss$",
        ),
        (lambda: losses.loss(["mse"]), r"loss = \['mse'\]"),
        (lambda: losses.cross_entropy.check(torch.ones(3, 2)), NO_PROBABILITIES),
        (lambda: losses.cross_entropy.check(torch.tensor([[1.5, -0.5]])), NO_PROBABILITIES),
        (
            lambda: losses.cross_entropy.check(torch.ones(3, 1)),
            "^Y has one column: cross_entropy needs the probabilities of at least two classes$",
        ),
        (lambda: losses.cross_entropy.check(torch.tensor([0, 1])), "Y has dtype torch.int64"),
        (lambda: losses.cross_entropy.check(torch.ones(1, 2, 1) / 2), r"Y has shape \(1, 2, 1\)"),
        (lambda: losses.squared_error.check(torch.ones(3)), "Y has shape"),
        (lambda: losses.squared_error.check(torch.full((2, 2), torch.nan)), "NaN or infinite"),
        (lambda: losses.squared_error.check([[1.0]]), "Y is a list"),
        (lambda: losses.lam("mse", torch.ones(2, 2), -1.0), "weight_decay = -1.0"),
        (lambda: losses.weight_decay("mse", torch.ones(2, 2), "1e-3"), "lam = '1e-3'"),
        (lambda: losses.weight_decay("mse", torch.ones(2, 2), -1.0), "lam = -1.0"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
