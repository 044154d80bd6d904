"""The zero-loss set: projectors as identities, J against two other routes, nearest points against closed forms."""

import numpy as np
import pytest
import sympy as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grokutils import zero_loss
from grokutils.activations import activation
from grokutils.zero_loss import (
    KinkError,
    ProjectionError,
    SingularJacobianError,
    gauss_newton,
    jacobian,
    norm_descent,
    normal_basis,
    outputs,
    project,
    project_tangent,
    singular_values,
)

few = settings(deadline=None, max_examples=20)
seeds = st.integers(0, 10_000)


def gaussian(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def low_rank(rows, columns, rank, seed):
    return gaussian(rows, rank, seed=seed) @ gaussian(rank, columns, seed=seed + 1)


def two_layer(d_in, width, d_out, sigma):
    act = activation(sigma).value

    def f(theta, X):
        E, W = theta.split([d_in * width, width * d_out])
        return act(X @ E.reshape(d_in, width)) @ W.reshape(width, d_out)

    return f


def parabola(theta, X):
    """One output y − x² for θ = (x, y): Z is the parabola of figure 4, X is not used."""
    return (theta[1] - theta[0] ** 2).reshape(1, 1)


ONE, ZERO = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)


@few
@given(rows=st.integers(1, 8), columns=st.integers(1, 12), rank=st.integers(1, 8), seed=seeds)
def test_tangent_projector_is_the_orthogonal_projector_on_the_null_space(rows, columns, rank, seed):
    rank = min(rank, rows, columns)
    J = low_rank(rows, columns, rank, seed)
    P = project_tangent(J, torch.eye(columns, dtype=torch.float64))
    torch.testing.assert_close(P, P.mT, rtol=0, atol=1e-12)
    torch.testing.assert_close(P @ P, P, rtol=0, atol=1e-12)
    assert (J @ P).abs().max() <= 1e-12 * singular_values(J)[0]
    assert round(float(P.trace())) == columns - rank
    expected = torch.eye(columns, dtype=torch.float64) - torch.linalg.pinv(J, rtol=1e-10) @ J
    torch.testing.assert_close(
        P, expected, rtol=0, atol=1e-7
    )  # pinv loses digits where J is badly conditioned


@few
@given(seed=seeds, power=st.integers(3, 9))
def test_projector_stays_exact_for_an_ill_conditioned_jacobian(seed, power):
    V, N = torch.linalg.qr(gaussian(4, 4, seed=seed))[0], torch.linalg.qr(gaussian(9, 4, seed=seed + 1))[0]
    J = V @ torch.diag(torch.logspace(0, -power, 4, dtype=torch.float64)) @ N.mT
    v = gaussian(9, seed=seed + 2)
    assert (J @ project_tangent(J, v)).norm() <= 1e-13 * v.norm()
    # the direction itself is determined to rounding over the smallest kept singular value
    torch.testing.assert_close(project_tangent(J, v), v - N @ (N.mT @ v), rtol=0, atol=1e-13 * 10**power)


def test_rank_tolerance_decides_which_directions_count():
    J = torch.diag(torch.tensor([1.0, 1e-6, 0.0], dtype=torch.float64))
    v = torch.ones(3, dtype=torch.float64)
    assert project_tangent(J, v).tolist() == [0, 0, 1]
    assert project_tangent(J, v, rank_tolerance=1e-3).tolist() == [0, 1, 1]
    assert normal_basis(J, rank_tolerance=1e-3).shape == (3, 1)
    assert project_tangent(torch.zeros(2, 3, dtype=torch.float64), v).tolist() == [1, 1, 1]


@few
@given(
    n=st.integers(1, 3),
    d_out=st.integers(1, 2),
    sigma=st.sampled_from(["tanh", "softplus", "quadratic"]),
    seed=seeds,
)
def test_jacobian_matches_finite_differences(n, d_out, sigma, seed):
    f, X = two_layer(2, 3, d_out, sigma), gaussian(n, 2, seed=seed)
    theta, h = gaussian(6 + 3 * d_out, seed=seed + 1), 1e-5
    J = jacobian(f, theta, X)
    assert J.shape == (n * d_out, len(theta))
    steps = h * torch.eye(len(theta), dtype=torch.float64)
    central = [(outputs(f, theta + e, X) - outputs(f, theta - e, X)) / (2 * h) for e in steps]
    torch.testing.assert_close(torch.stack(central, 1), J, rtol=1e-6, atol=1e-7)


def test_jacobian_matches_sympy():
    w = sp.symbols("w0:6", real=True)
    E, W = sp.Matrix(2, 2, w[:4]), sp.Matrix(2, 1, w[4:])
    samples = sp.Matrix([[1, 2], [-1, sp.Rational(1, 2)]])
    F = (samples * E).applyfunc(sp.tanh) * W
    theta = gaussian(6, seed=3)
    exact = F.jacobian(w).subs(dict(zip(w, theta.tolist(), strict=True))).evalf()
    X = torch.tensor(np.array(samples, dtype=float))
    ours = jacobian(two_layer(2, 2, 1, "tanh"), theta, X)
    torch.testing.assert_close(ours, torch.tensor(np.array(exact, dtype=float)), rtol=1e-12, atol=1e-12)


def test_norm_descent_keeps_the_outputs_and_lowers_the_norm():
    f, X, theta = two_layer(3, 5, 2, "tanh"), gaussian(3, 3, seed=0), gaussian(25, seed=1)
    v = norm_descent(f, theta, X)
    assert (jacobian(f, theta, X) @ v).norm() < 1e-12
    assert v @ theta == pytest.approx(-float(v @ v))  # P is a projector: −θᵀPθ = −‖Pθ‖²
    moved = [outputs(f, theta + h * v, X) - outputs(f, theta, X) for h in (1e-3, 5e-4)]
    assert moved[0].norm() / moved[1].norm() == pytest.approx(4, rel=0.02)  # second order in the step


@few
@given(x=st.floats(-2, 2), distance=st.floats(-0.45, 0.45))
def test_projection_inverts_the_normal_map_of_a_parabola(x, distance):
    normal = torch.tensor([-2 * x, 1.0], dtype=torch.float64)
    foot = torch.tensor(
        [x, x * x], dtype=torch.float64
    )  # 0.45 is less than the focal distance ½ at the vertex
    theta = foot + distance * normal / normal.norm()
    torch.testing.assert_close(project(parabola, theta, ONE, ZERO), foot, rtol=0, atol=1e-8)


@settings(deadline=None, max_examples=5)
@given(seed=seeds, away=st.floats(0.01, 0.5))
def test_projection_lands_on_z_at_right_angles(seed, away):
    f, X, Y = two_layer(3, 8, 2, "tanh"), gaussian(3, 3, seed=seed), 0.3 * gaussian(3, 2, seed=seed + 1)
    theta = gaussian(40, seed=seed + 2)
    theta = project(f, theta, X, Y) + away * gaussian(40, seed=seed + 3)
    z = project(f, theta, X, Y, tolerance=1e-11)
    assert (outputs(f, z, X) - Y.reshape(-1)).norm() <= 1e-11
    J, gap = jacobian(f, z, X), theta - z
    assert project_tangent(J, gap).norm() <= 1e-9 * gap.norm()
    for k in range(3):  # and no neighbour on Z is nearer
        neighbour = project(f, z + 1e-2 * gaussian(40, seed=seed + 10 + k), X, Y)
        assert (theta - neighbour).norm() >= gap.norm()


def test_projection_onto_a_flat_z_is_the_closed_form():
    X, Y, theta = gaussian(2, 5, seed=0), gaussian(2, 1, seed=1), gaussian(5, seed=2)
    z = project(lambda t, X: X @ t[:, None], theta, X, Y)
    expected = theta + torch.linalg.pinv(X) @ (Y[:, 0] - X @ theta)
    torch.testing.assert_close(z, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(project(lambda t, X: X @ t[:, None], z, X, Y), z, rtol=0, atol=1e-12)


def test_projection_refuses_a_critical_point_that_is_not_nearest():
    # on the axis above the focal point (0, 1/2) the vertex is the farthest of the three critical points
    with pytest.raises(ProjectionError, match="focal distance"):
        project(parabola, torch.tensor([0.0, 5.0], dtype=torch.float64), ONE, ZERO)
    z = project(parabola, torch.tensor([1e-3, 5.0], dtype=torch.float64), ONE, ZERO)
    assert float(z[0]) == pytest.approx(4.5**0.5, abs=1e-2)


def test_projection_refuses_an_empty_z():
    with pytest.raises((ProjectionError, SingularJacobianError)):
        project(lambda t, X: (t @ t).reshape(1, 1), gaussian(3, seed=0), ONE, -ONE)


def test_projection_says_when_it_gives_up():
    with pytest.raises(ProjectionError, match="max_iterations = 1"):
        project(parabola, torch.tensor([1.0, -3.0], dtype=torch.float64), ONE, ZERO, max_iterations=1)


def test_singular_points_are_refused_by_rank_and_singular_value():
    def product(t, X):
        return (t[0] * t[1]).reshape(1, 1)

    origin = torch.zeros(2, dtype=torch.float64)
    with pytest.raises(SingularJacobianError, match=r"rank 0 of 1, smallest singular value 0"):
        norm_descent(product, origin, ONE)
    with pytest.raises(SingularJacobianError, match="singular point"):
        project(product, origin, ONE, ZERO)
    twice = torch.tensor([[1.0, 2.0], [1.0, 2.0]], dtype=torch.float64)  # one sample, given two times
    with pytest.raises(SingularJacobianError, match="rank 1 of 2"):
        norm_descent(lambda t, X: X @ t[:, None], torch.ones(2, dtype=torch.float64), twice)


def test_gauss_newton_refuses_what_has_no_tangent_space():
    twice = torch.tensor([[1.0, 2.0], [1.0, 2.0]], dtype=torch.float64)
    with pytest.raises(SingularJacobianError, match="singular point"):
        gauss_newton(lambda t, X: X @ t[:, None], torch.ones(2, dtype=torch.float64), twice, twice[:, :1])
    with pytest.raises(ValueError, match="d ≥ nm"):
        gauss_newton(
            lambda t, X: X @ t[:, None], torch.ones(1, dtype=torch.float64), twice[:, :1], twice[:, :1]
        )


def test_kinks_are_refused_and_their_neighbours_are_not():
    f, X = two_layer(1, 3, 1, "relu"), torch.ones(1, 1, dtype=torch.float64)
    theta = torch.tensor([0.0, 1.0, -1.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    with pytest.raises(KinkError, match="pre-activation"):
        norm_descent(f, theta, X)
    theta[0] = 1e-4
    assert norm_descent(f, theta, X).shape == (6,)


def test_too_few_parameters_are_refused():
    X = gaussian(4, 3, seed=0)
    with pytest.raises(ValueError, match="d ≥ nm"):
        norm_descent(lambda t, X: X @ t[:, None], torch.ones(3, dtype=torch.float64), X)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: outputs(parabola, torch.ones(2), ONE), "float64"),
        (lambda: outputs(parabola, ONE, ONE), "theta has shape"),
        (lambda: outputs(lambda t, X: t, torch.ones(2, dtype=torch.float64), ONE), r"must return \(n, m\)"),
        (lambda: project(parabola, torch.ones(2, dtype=torch.float64), ONE, ZERO[0]), "Y has shape"),
        (
            lambda: project(parabola, torch.ones(2, dtype=torch.float64), ONE, ZERO, tolerance=0.0),
            "tolerance",
        ),
        (lambda: project_tangent(ONE, torch.ones(2, dtype=torch.float64)), "v has shape"),
        (lambda: project_tangent(ONE, ONE, rank_tolerance=1.0), "rank_tolerance"),
        (lambda: zero_loss.singular_values(ONE * torch.inf), "NaN or infinite"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
