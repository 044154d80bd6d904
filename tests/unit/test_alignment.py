"""Tangent directions of two-layer networks against dense linear algebra, and the law of sliding along kinks."""

from __future__ import annotations

import pytest
import torch

from grokutils import alignment, models, tasks, training, zero_loss
from grokutils.errors import ProjectionError, SingularJacobianError
from grokutils.linearization import linearize

N, D_IN, WIDTH, D_OUT = 5, 4, 12, 3


def draw(activation="softplus", seed=0):
    """A small network, its parameters and inputs."""
    f = models.two_layer(D_IN, WIDTH, D_OUT, activation=activation)
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(N, D_IN, generator=generator, dtype=torch.float64)
    return f, torch.randn(f.d, generator=generator, dtype=torch.float64), X, generator


def pin(generator, share=0.25):
    return torch.rand(N, WIDTH, generator=generator) < share


def rows(f, X, pinned):
    """N, one row ∂(x_i·e_h)/∂θ for each pinned pre-activation, written out."""
    found = []
    for i, h in torch.nonzero(pinned).tolist():
        E = torch.zeros(f.d_in, f.width, dtype=torch.float64)
        E[:, h] = X[i]
        found.append(f.flat(E=E, W=torch.zeros(f.width, f.d_out, dtype=torch.float64)))
    return torch.stack(found)


def put_on_kinks(f, theta, X, pinned):
    """``theta`` moved to where the pinned pre-activations are 0."""
    return zero_loss.project_tangent(rows(f, X, pinned), theta)


@pytest.mark.parametrize("activation", ["softplus", "quadratic", "relu"])
def test_projection_is_that_of_the_dense_jacobian(activation):
    f, theta, X, generator = draw(activation)
    v = torch.randn(f.d, generator=generator, dtype=torch.float64)
    expected = zero_loss.project_tangent(zero_loss.jacobian(f, theta, X), v)
    tangent = alignment.Tangent(f, theta, X)
    torch.testing.assert_close(tangent.project(v), expected, rtol=0, atol=1e-11)
    torch.testing.assert_close(tangent.norm_descent(), -tangent.project(theta))
    assert tangent.kinks == 0


@pytest.mark.parametrize("share", [0.1, 0.4])
@pytest.mark.parametrize("seed", range(3))
def test_pinned_rows_join_those_of_the_dense_jacobian(share, seed):
    f, theta, X, generator = draw("softplus", seed)
    pinned = pin(generator, share)
    both = torch.cat([zero_loss.jacobian(f, theta, X), rows(f, X, pinned)])
    tangent = alignment.Tangent(f, theta, X, pinned=pinned)
    expected = zero_loss.project_tangent(both, theta)
    torch.testing.assert_close(tangent.project(theta), expected, rtol=0, atol=1e-10)
    assert tangent.kinks == torch.linalg.matrix_rank(rows(f, X, pinned))
    assert (rows(f, X, pinned) @ tangent.norm_descent()).abs().max() < 1e-11


def test_pinning_all_inputs_of_a_unit_counts_their_rank():
    f, theta, X, _ = draw()
    pinned = torch.zeros(N, WIDTH, dtype=torch.bool)
    pinned[:, 0] = True
    assert alignment.Tangent(f, theta, X, pinned=pinned).kinks == min(N, D_IN)


def test_slopes_of_pinned_pre_activations_do_not_matter():
    f, theta, X, generator = draw("relu")
    pinned = pin(generator)
    theta = put_on_kinks(f, theta, X, pinned)
    slopes = f.activation.slope(X @ f.matrices(theta)["E"])
    one, other = (
        alignment.Tangent(f, theta, X, pinned=pinned, slopes=slopes.masked_fill(pinned, value))
        for value in (0.0, 0.7)
    )
    torch.testing.assert_close(one.norm_descent(), other.norm_descent(), rtol=0, atol=1e-11)


@pytest.mark.parametrize("seed", range(3))
def test_jacobian_averaged_by_the_duty_gives_the_sliding_direction(seed):
    """The chapter's theorem: with σ′ = s on the kinks, −P_T θ neither leaves them nor Z, and no rows are needed."""
    f, theta, X, generator = draw("relu", seed)
    pinned = pin(generator, 0.15)
    theta = put_on_kinks(f, theta, X, pinned)
    sliding = alignment.Tangent(f, theta, X, pinned=pinned)
    duty = sliding.duty()
    assert torch.equal(torch.isnan(duty), ~pinned)
    slopes = torch.where(pinned, duty, f.activation.slope(X @ f.matrices(theta)["E"]))
    averaged = alignment.Tangent(f, theta, X, slopes=slopes)
    torch.testing.assert_close(averaged.norm_descent(), sliding.norm_descent(), rtol=0, atol=1e-9)


def test_duty_leaves_dependent_inputs_open():
    f, theta, X, _ = draw("relu")
    pinned = torch.zeros(N, WIDTH, dtype=torch.bool)
    pinned[:, 0] = True  # N > D_IN inputs of one unit depend linearly
    pinned[0, 1] = True
    duty = alignment.Tangent(f, theta, X, pinned=pinned).duty()
    assert torch.isnan(duty[:, 0]).all()
    assert torch.isfinite(duty[0, 1])


def test_training_slides_along_kinks():
    """On what keeps changing sign, training moves as the theorem says, and is above 0 as often as it says."""
    task = tasks.modular(5, train_fraction=0.8)
    f = models.two_layer(5, 40, 5, activation="relu")
    run = training.train(f, task, 5100, weight_decay=3e-4, record_at=range(4900, 5101), keep_theta=True)
    path = torch.from_numpy(run.theta.values[0, 1:])
    changes, above = alignment.sign_changes(f, path[:101], task.X_train)
    update, theta = path[200] - path[100], path[100]
    pinned = changes >= 2
    assert pinned.sum() > 20
    sliding = alignment.Tangent(f, theta, task.X_train, pinned=pinned)
    plain = alignment.Tangent(f, theta, task.X_train)
    cosines = [alignment.cosine(update, tangent.norm_descent()) for tangent in (plain, sliding)]
    assert cosines[0] < 0.95
    assert cosines[1] > 0.98
    errors = (sliding.duty() - above)[pinned].abs()
    assert errors.nanmedian() < 0.05


def test_singular_range_is_that_of_the_dense_jacobian():
    f, theta, X, _ = draw("tanh")
    values = zero_loss.singular_values(zero_loss.jacobian(f, theta, X))
    assert tuple(linearize(f, theta, X).singular_values()[[-1, 0]].tolist()) == pytest.approx(
        (float(values[-1]), float(values[0])), rel=1e-9
    )


def test_gauss_newton_lands_near_the_nearest_point():
    """Halving the distance from Z quarters the distance of the landing point from the nearest one."""
    f, theta, X, generator = draw("tanh")
    v = torch.randn(f.d, generator=generator, dtype=torch.float64)
    apart = []
    for h in (4e-2, 2e-2, 1e-2):
        start = theta + h * v / v.norm()
        z = zero_loss.gauss_newton(f, start, X, f(theta, X))
        assert (f(z, X) - f(theta, X)).norm() <= 1e-10
        apart.append(float((z - zero_loss.project(f, start, X, f(theta, X))).norm()))
    assert apart[0] > 1e-9
    assert apart[1] / apart[0] < 0.3
    assert apart[2] / apart[1] < 0.3


def test_gauss_newton_says_when_it_does_not_arrive():
    f, theta, X, _ = draw("tanh")
    with pytest.raises(ProjectionError, match="max_iterations = 1"):
        zero_loss.gauss_newton(f, theta, X, f(theta, X) + 1, max_iterations=1)


def test_sign_changes_are_counted():
    f = models.two_layer(1, 2, 1, activation="relu")
    X = torch.ones(1, 1, dtype=torch.float64)
    signs = [(1, 1), (-1, 1), (1, 1), (1, 1), (-1, 1)]
    path = torch.tensor([[a, b, 1.0, 1.0] for a, b in signs], dtype=torch.float64)
    changes, above = alignment.sign_changes(f, path, X)
    assert changes.tolist() == [[3, 0]]
    assert above.tolist() == [[0.75, 1.0]]


def test_a_singular_point_is_refused():
    f, theta, X, _ = draw("relu")
    with pytest.raises(SingularJacobianError, match="singular point"):
        alignment.Tangent(f, torch.zeros_like(theta), X)
    twice = torch.cat([X, X[:1]])
    with pytest.raises(SingularJacobianError, match="pinned"):
        alignment.Tangent(f, theta, twice)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network": torch.relu}, "network is a"),
        ({"theta": torch.zeros(3)}, "theta has"),
        ({"theta": torch.zeros(3, dtype=torch.float64)}, "theta has shape"),
        ({"X": torch.zeros(2, D_IN + 1, dtype=torch.float64)}, "X has shape"),
        ({"pinned": torch.zeros(N, WIDTH)}, "pinned has shape"),
        ({"slopes": torch.zeros(N, 1, dtype=torch.float64)}, "slopes has shape"),
    ],
)
def test_bad_arguments_are_named(change, words):
    f, theta, X, _ = draw()
    with pytest.raises(ValueError, match=words):
        alignment.Tangent(**{"network": f, "theta": theta, "X": X, **change})


def test_short_paths_are_refused():
    f, theta, X, _ = draw()
    with pytest.raises(ValueError, match="at least 2"):
        alignment.sign_changes(f, theta[None], X)
