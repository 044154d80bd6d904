"""symbolic: every formula is held against torch autograd, explicit matrices or a second derivation."""

import numpy as np
import pytest
import sympy as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grokutils import symbolic

few = settings(deadline=None, max_examples=6)
n, d, h, m = sp.symbols("n d h m", positive=True, integer=True)
lam = sp.Symbol("lambda", positive=True)
X, E, W, Y = (sp.MatrixSymbol(*s) for s in (("X", n, d), ("E", d, h), ("W", h, m), ("Y", n, m)))
dE = sp.MatrixSymbol("dE", d, h)  # noqa: N816
sigma = symbolic.unknown("sigma")
H = symbolic.Apply(sigma, X * E)
RIDGE = sp.trace(E.T * E) + sp.trace(Y.T * (H * H.T + lam * sp.Identity(n)).I * Y)
TANH = {"sigma": torch.tanh, "sigma_prime": lambda z: 1 - torch.tanh(z) ** 2}
TANH_NUMPY = {"sigma": np.tanh, "sigma_prime": lambda z: 1 - np.tanh(z) ** 2}


def gradient(R):
    return symbolic.read_off(symbolic.differential(R, {E: dE}), dE)


def normal(seed, *shapes):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def linear_problem(seed, sizes=(2, 2, 1)):
    """A linear two-layer network on random integers, and a point of its Z with rational coordinates."""
    d_in, width, d_out = sizes
    rng = np.random.default_rng(seed)
    whole = lambda r, c: sp.Matrix(r, c, [int(v) for v in rng.integers(1, 6, r * c)])  # noqa: E731
    E0, W0, X0 = whole(d_in, width), whole(width, d_out), whole(1, d_in)
    problem = symbolic.two_layer(
        symbolic.entries("e", d_in, width), symbolic.entries("w", width, d_out), X0, X0 * E0 * W0
    )
    return problem, [*E0, *W0]


# Networks written out


@given(st.integers(0, 10**6), st.sampled_from([(2, 2, 1), (1, 2, 2), (3, 2, 1)]))
@few
def test_tangent_and_normal_split_the_space(seed, sizes):
    problem, point = linear_problem(seed, sizes)
    T, N = problem.tangent(point), problem.normal(point)
    assert (T.T * N).is_zero_matrix
    assert sp.Matrix.hstack(T, N).rank() == len(problem.theta)


def test_p_projects_on_the_tangent_space():
    problem = symbolic.Problem(
        symbolic.entries("w", 3), sp.Matrix([sp.prod(symbolic.entries("w", 3))]), sp.Matrix([6])
    )
    P = problem.at(problem.P, [1, 2, 3])
    assert P * problem.tangent([1, 2, 3]) == problem.tangent([1, 2, 3])
    assert (P * problem.normal([1, 2, 3])).is_zero_matrix


@given(st.integers(0, 10**6))
@few
def test_hessian_on_the_zero_loss_set_is_twice_the_gram_matrix_of_j(seed):
    problem, point = linear_problem(seed)
    J = problem.at(problem.J, point)
    assert problem.at(problem.loss, point) == 0
    assert problem.at(problem.hessian, point) == 2 * J.T * J
    off = [point[0] + 1, *point[1:]]
    J_off = problem.at(problem.J, off)
    assert problem.at(problem.hessian, off) != 2 * J_off.T * J_off


@given(st.integers(0, 10**6))
@few
def test_derivatives_of_a_network_agree_with_autograd(seed):
    (theta, X0, Y0) = normal(seed, (6,), (2, 2), (2, 1))
    exact = sp.Matrix(X0.tolist()), sp.Matrix(Y0.tolist())
    problem = symbolic.two_layer(symbolic.entries("e", 2, 2), symbolic.entries("w", 2), *exact, sp.tanh)

    def loss(t):
        return (torch.tanh(X0 @ t[:4].view(2, 2)) @ t[4:, None] - Y0).square().sum() + 0.3 * t.square().sum()

    formula = problem.regularized(sp.Rational(3, 10))
    run = lambda f: symbolic.numeric([problem.theta], f)(theta)  # noqa: E731
    torch.testing.assert_close(run(formula), loss(theta))
    first = run(problem.gradient + sp.Rational(6, 10) * problem.theta)[:, 0]
    torch.testing.assert_close(first, torch.func.grad(loss)(theta))
    second = run(problem.hessian) + 0.6 * torch.eye(6, dtype=torch.float64)
    torch.testing.assert_close(second, torch.autograd.functional.hessian(loss, theta))


def test_singular_point_loses_the_normal_space():
    w = symbolic.entries("w", 2)
    problem = symbolic.Problem(w, sp.Matrix([w[0] * w[1]]), sp.Matrix([0]))
    assert problem.normal([0, 0]).shape == (2, 0)
    assert problem.tangent([0, 0]) == sp.eye(2)


def test_taylor_remainder_is_the_integral_form():
    x, s = sp.symbols("x s", positive=True)
    f = sp.exp(2 * x) + x**3
    T, r = symbolic.taylor(f, x, 2)
    integral = sp.integrate((1 - s) ** 2 / 2 * f.diff(x, 3).subs(x, s * x), (s, 0, 1))
    assert sp.simplify(T + x**3 * r - f) == 0
    assert sp.simplify(r - integral) == 0


def test_taylor_of_a_matrix_shows_an_unbounded_remainder():
    x = sp.Symbol("x", positive=True)
    _, (smooth, rough) = symbolic.taylor(sp.Matrix([sp.sin(x), x ** sp.Rational(3, 2)]), x, 1)
    assert sp.limit(smooth, x, 0) == 0
    assert sp.limit(rough, x, 0) == sp.oo


# Matrix calculus

FORMULAS = {
    "sum and product": sp.trace((X * E + 2 * Y * W.T).T * (X * E + 2 * Y * W.T)),
    "inverse": sp.trace(Y.T * (X * E * E.T * X.T + lam * sp.Identity(n)).I * Y),
    "Hadamard product": sp.trace(Y.T * sp.hadamard_product(X * E, X * E) * W),
    "elementwise": 3 * sp.trace((H * W - Y).T * (H * W - Y)),
    "transposed twice": sp.trace(W.T * (H.T * Y * Y.T * H) * W) - sp.trace(E * E.T),
    "ridge": RIDGE,
    "factored sum": 2
    * (sp.trace(E.T * E) + lam * (sp.trace(W.T * E.T * E * W) - sp.trace(E.T * X.T * Y * W.T))),
}


@pytest.mark.parametrize("R", FORMULAS.values(), ids=FORMULAS)
def test_gradient_by_differentials_agrees_with_autograd(R):
    values = normal(1, (3, 6), (5, 3), (6, 2), (5, 2))
    arguments = [E, X, W, Y, lam]
    f = symbolic.numeric(arguments, R, functions=TANH)
    G = symbolic.numeric(arguments, gradient(R), functions=TANH)
    expected = torch.func.grad(f)(*values, 0.3)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(G(*values, 0.3), expected)


@pytest.mark.parametrize("R", [RIDGE, FORMULAS["elementwise"]], ids=["ridge", "elementwise"])
def test_gradient_by_differentials_is_exact_on_explicit_matrices(R):
    e = symbolic.entries("e", 2, 2)
    small = {E: e, X: symbolic.entries("x", 2, 2), W: symbolic.entries("w", 2), Y: symbolic.entries("y", 2)}
    written, G = symbolic.explicit(R, small), symbolic.explicit(gradient(R), small)
    for i, j in np.ndindex(2, 2):
        difference = sp.together(written.diff(e[i, j]) - G[i, j])
        assert sp.expand(sp.fraction(difference)[0]) == 0


RULE_CASES = {
    "product": X * E,
    "transpose": H.T,
    "Hadamard product": sp.hadamard_product(X * E, Y * W.T),
    "Hadamard power": sp.HadamardPower(X * E, 3),
    "elementwise": H,
    "inverse": (E.T * X.T * X * E + sp.Identity(h)).I,
    "sum": X * E + H,
}


@pytest.mark.parametrize(("rule", "formula"), RULE_CASES.items(), ids=RULE_CASES)
def test_each_rule_is_the_derivative_of_the_written_out_matrix(rule, formula):
    t = sp.Symbol("t", real=True)
    e, de = symbolic.entries("e", 2, 2), symbolic.entries("f", 2, 2)
    fixed = {X: sp.Matrix([[1, 2], [3, -1]]), W: sp.Matrix([2, 1]), Y: sp.Matrix([1, -3])}
    steps = []
    dM = symbolic.differential(formula, {E: dE}, steps)
    assert steps[-1].rule == rule
    assert steps[-1].result == dM
    moved = symbolic.explicit(formula, {E: e + t * de} | fixed).diff(t).subs(t, 0)
    stated = symbolic.explicit(dM, {E: e, dE: de} | fixed)
    numerator = (moved - stated).applyfunc(lambda q: sp.expand(sp.fraction(sp.together(q))[0]))
    assert numerator == sp.zeros(*moved.shape)


def test_differential_follows_several_symbols_and_leaves_constants_alone():
    dW = sp.MatrixSymbol("dW", h, m)
    assert symbolic.differential(E * W, {E: dE, W: dW}) == dE * W + E * dW
    assert symbolic.differential(E * W, {W: dW}) == E * dW
    assert symbolic.differential(X * X.T, {E: dE}) == sp.ZeroMatrix(n, n)
    assert symbolic.differential(lam * sp.trace(X.T * X), {E: dE}) == 0


def test_a_rule_is_recorded_once_for_each_subformula():
    steps = []
    symbolic.differential(RIDGE, {E: dE}, steps)
    formulas = [step.formula for step in steps]
    assert len(formulas) == len(set(formulas))
    written = symbolic.latex(steps)
    assert written.count(r"\text{(") == len(steps)
    assert r"\,{\mathrm{d}E}^{T}\,X^{T}" in written.replace(" ", "")


@pytest.mark.parametrize(
    "formula",
    [sp.trace(E * E.T) ** 2, sp.trace(E.T * E) * E, sp.det(E.T * E), sp.trace(E.T * E) * sp.trace(H.T * H)],
)
def test_an_operation_without_a_rule_is_refused(formula):
    with pytest.raises(ValueError, match="formula"):
        symbolic.differential(formula, {E: dE})


@pytest.mark.parametrize("dR", [sp.trace(dE.T * dE), sp.trace(E.T * dE) ** 2, lam * E])
def test_what_is_not_linear_in_de_is_refused(dR):
    with pytest.raises(ValueError, match="dR holds"):
        symbolic.read_off(dR, dE)


# Numbers


def test_torch_and_numpy_give_the_same_numbers_on_batches():
    values = normal(3, (4, 3, 6), (5, 3), (5, 2))
    for formula in (RIDGE, gradient(RIDGE)):
        torch_result = symbolic.numeric([E, X, Y, lam], formula, "torch", TANH)(*values, 0.2)
        numpy_result = symbolic.numeric([E, X, Y, lam], formula, "numpy", TANH_NUMPY)(
            *(v.numpy() for v in values), 0.2
        )
        assert torch_result.shape[0] == 4
        np.testing.assert_allclose(torch_result.numpy(), numpy_result, rtol=1e-9)
        one = symbolic.numeric([E, X, Y, lam], formula, "torch", TANH)(values[0][2], *values[1:], 0.2)
        torch.testing.assert_close(torch_result[2], one)


a, b = sp.symbols("a b", real=True)
SCALARS = sp.Matrix(
    [
        [a * sp.exp(b), sp.sqrt(2) * sp.tanh(a), sp.Max(a, b, 0)],
        [sp.Piecewise((a, a > 0), (a / 10, a > -1), (3, True)), sp.sign(b), sp.Min(a, b)],
        [sp.log(1 + sp.exp(a)), 1, sp.pi * abs(a) ** sp.Rational(1, 3) + sp.sqrt(1 + a**2)],
    ]
)


@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=1, max_size=4))
@few
def test_explicit_matrices_of_arrays(points):
    grid = np.array(points).T
    numpy_result = symbolic.numeric([a, b], SCALARS, "numpy")(*grid)
    torch_result = symbolic.numeric([a, b], SCALARS, "torch")(*torch.tensor(grid))
    assert numpy_result.shape == (len(points), 3, 3)
    np.testing.assert_allclose(torch_result.numpy(), numpy_result, rtol=1e-12, atol=1e-12)
    for k, (u, v) in enumerate(points):
        exact = np.array(SCALARS.subs({a: sp.Float(u), b: sp.Float(v)}).evalf().tolist(), dtype=float)
        np.testing.assert_allclose(numpy_result[k], exact, rtol=1e-9, atol=1e-12)


def test_torch_functions_are_differentiable():
    relu = symbolic.numeric([a], sp.Piecewise((a, a > 0), (a / 10, True)) + sp.Max(a, 0))
    at = torch.tensor([-2.0, 3.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(relu(at).sum(), at)
    torch.testing.assert_close(slope, torch.tensor([0.1, 2.0], dtype=torch.float64))


def test_a_matrix_argument_of_several_columns_is_one_array():
    e = symbolic.entries("e", 2, 2)
    f = symbolic.numeric([e, symbolic.entries("w", 2)], e * symbolic.entries("w", 2))
    E0, w0 = normal(5, (2, 2), (2,))
    torch.testing.assert_close(f(E0, w0)[:, 0], E0 @ w0)


def test_unknown_functions_differentiate_to_their_own_primes():
    z = sp.Symbol("z", real=True)
    assert sigma(z**2).diff(z) == 2 * z * symbolic.unknown("sigma", 1)(z**2)
    assert symbolic.unknown("sigma", 1).__name__ == "sigma_prime"
    assert sp.latex(symbolic.Apply(sp.tanh, X * E).slope()) == r"1 - \tanh^{2}{\left({X E} \right)}"


def test_a_backend_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"backend = 'jax'.*'torch'"):
        symbolic.numeric([a], a, "jax")
