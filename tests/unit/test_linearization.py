"""Three kinds of linearization against each other and against plain differentiation; solutions; memory; refusals."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grokutils import linearization, losses, models, tasks
from grokutils.errors import NoMultipliersError
from grokutils.linearization import (
    SPRING,
    Dense,
    Linearization,
    MatrixFree,
    Sides,
    Structured,
    factor,
    kinks,
    linearize,
    matrix_free,
    outputs,
    solving,
    syrk,
)
from grokutils.linearization.inputs import Inputs
from grokutils.linearization.sharpness import sharpness

few = settings(max_examples=8)
seeds = st.integers(0, 10**6)


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def module():
    with torch.random.fork_rng():
        return models.from_module(
            torch.nn.Sequential(
                torch.nn.Linear(3, 6), torch.nn.LayerNorm(6), torch.nn.ReLU(), torch.nn.Linear(6, 2)
            )
        )


def encoder():
    """PyTorch's own attention, whose fused kernels have no second derivative."""

    class Encoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(5, 4)
            self.layer = torch.nn.TransformerEncoderLayer(4, 2, 6, 0.0, "gelu", batch_first=True)
            self.out = torch.nn.Linear(4, 3)

        def forward(self, X):
            return self.out(self.layer(self.embedding(X)).mean(1))

    with torch.random.fork_rng():
        return models.from_module(Encoder())


MODELS = {
    "tanh": lambda: models.two_layer(3, 7, 2, "tanh"),
    "relu": lambda: models.two_layer(3, 7, 2, "relu"),
    "callable": lambda: models.two_layer(3, 7, 2, torch.sin),
    "one output": lambda: models.two_layer(3, 7, 1, "quadratic"),
    "mlp": lambda: models.mlp([3, 6, 5, 2], bias=True),
    "transformer": lambda: models.transformer(5, 3, 4, width=8, heads=2, layers=2, layer_norm=True),
    "module": module,
    "encoder": encoder,
}


def case(name, seed, n=5):
    """A model, θ and inputs."""
    model = MODELS[name]()
    tokens = torch.randint(5, (n, 3), generator=torch.Generator().manual_seed(seed))
    X = tokens if name in ("transformer", "encoder") else gaussian(n, 3, seed=seed)
    return model, gaussian(model.d, seed=seed + 1), X


def kinds(model):
    structured = ["structured"] if isinstance(model, models.TwoLayer) else []
    return ["dense", "matrix_free", *structured]


@pytest.mark.parametrize("name", MODELS)
@few
@given(seed=seeds)
def test_all_kinds_are_the_jacobian(name, seed):
    model, theta, X = case(name, seed)
    J = torch.func.jacrev(lambda t: model(t, X).flatten())(theta)
    scale = float(J.norm().clamp(min=1))
    for kind in kinds(model):
        lin = linearize(model, theta, X, kind)
        v, u = gaussian(model.d, seed=seed + 2), gaussian(*lin.outputs.shape, seed=seed + 3)
        close = {"rtol": 0, "atol": 1e-11 * scale**2}
        assert lin.shape == J.shape
        torch.testing.assert_close(lin.outputs, model(theta, X))
        torch.testing.assert_close(lin.jvp(v).flatten(), J @ v, **close)
        torch.testing.assert_close(lin.vjp(u), J.T @ u.flatten(), **close)
        torch.testing.assert_close(lin.product(u).flatten(), J @ (J.T @ u.flatten()), **close)
        torch.testing.assert_close(lin.gram(), J @ J.T, **close)
        torch.testing.assert_close(lin.jacobian(), J, **close)
        # adjoint to rounding, whatever J is
        gap = abs(float((lin.jvp(v) * u).sum() - v @ lin.vjp(u)))
        assert gap <= 1e-12 * scale * float(v.norm() * u.norm())


@pytest.mark.parametrize("name", ["tanh", "mlp", "transformer"])
def test_singular_values_agree(name):
    model, theta, X = case(name, 0)
    expected = torch.linalg.svdvals(linearize(model, theta, X, "dense").jacobian())
    for kind in kinds(model):
        found = linearize(model, theta, X, kind).singular_values()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-8 * float(expected[0]))


@pytest.mark.parametrize("name", ["tanh", "mlp", "transformer"])
@pytest.mark.parametrize("factored", [True, False])
@pytest.mark.parametrize("lam", [0.3, 1e-3])
def test_solutions_meet_their_equation(name, factored, lam):
    model, theta, X = case(name, 1)
    for kind in kinds(model):
        lin = linearize(model, theta, X, kind)
        u = gaussian(*lin.outputs.shape, seed=4)
        mu = lin.solve(u, 0.7, lam, tolerance=1e-11, factored=factored)
        assert (0.7 * lin.product(mu) + lam * mu - u).norm() <= 2e-11 * u.norm()


@few
@given(seed=seeds)
def test_a_singular_curvature_is_the_limit_of_regular_ones(seed):
    """(cK + λ(H + εI)⁻¹)μ = u for the H of cross-entropy, whose rows sum to 0."""
    model, theta, X = case("mlp", seed)
    lin = linearize(model, theta, X)
    u, H = gaussian(5, 2, seed=seed), losses.cross_entropy.curvature(lin.outputs, None)
    full = torch.stack([H.times(unit.view(5, 2)).flatten() for unit in torch.eye(10, dtype=torch.float64)])
    regular = torch.linalg.inv(full + 1e-9 * torch.eye(10, dtype=torch.float64))
    expected = torch.linalg.solve(0.7 * lin.gram() + 0.3 * regular, u.flatten()).view(5, 2)
    for factored in (True, False):
        mu = lin.solve(u, 0.7, 0.3, H, 1e-12, factored)
        torch.testing.assert_close(mu, expected, rtol=1e-5, atol=1e-6)


def test_a_singular_gram_matrix_is_refused_at_no_decay_only():
    model, theta, X = case("tanh", 0)
    lin = linearize(model, theta, torch.cat([X, X[:1]]))  # one sample, given two times
    with pytest.raises(NoMultipliersError, match="lost full rank"):
        lin.solve(torch.ones(6, 2, dtype=torch.float64))
    assert torch.isfinite(lin.solve(torch.ones(6, 2, dtype=torch.float64), lam=1e-3)).all()


def test_gathered_inputs_give_the_same():
    """Sums of one-hots, in either representation, against the same X hidden from the gathers by a factor."""
    for operation in ("add", "subtract"):
        X = tasks.modular(5, operation).X_train
        model = models.two_layer(X.shape[1], 9, 5, "gelu")
        theta = model.init(0)
        lin = linearize(model, theta, X)
        assert lin.X.ends is not None
        E, W = model.matrices(theta).values()
        plain = linearize(model, model.flat(E=2 * E, W=W), X / 2)
        assert plain.X.ends is None
        u = gaussian(*lin.outputs.shape)
        D = model.flat(E=2 * torch.ones_like(E), W=torch.ones_like(W))  # dF/dE = 2 dF/d(2E)
        torch.testing.assert_close(lin.vjp(u), D * plain.vjp(u))
        torch.testing.assert_close(lin.jvp(theta), plain.jvp(D * theta))
        torch.testing.assert_close(lin.product(u), lin.jvp(lin.vjp(u)))


def test_inputs_that_are_changed_in_place_are_seen():
    model, theta, X = case("tanh", 0)
    first = linearize(model, theta, X).outputs
    X.mul_(2)
    assert not torch.equal(first, linearize(model, theta, X).outputs)
    torch.testing.assert_close(linearize(model, theta, X).outputs, model(theta, X))


class Plain(Linearization):
    """Two products with a matrix, and nothing of its own beyond."""

    def __init__(self, lin):
        self.lin, self.theta, self.outputs = lin, lin.theta, lin.outputs

    def jvp(self, v):
        return self.lin.jvp(v)

    def vjp(self, u):
        return self.lin.vjp(u)


def test_two_products_are_enough_for_all_the_rest():
    model, theta, X = case("mlp", 0)
    lin = linearize(model, theta, X, "dense")
    plain, J = Plain(lin), lin.jacobian()
    torch.testing.assert_close(plain.jacobian(), J)
    torch.testing.assert_close(plain.gram(), J @ J.T)
    torch.testing.assert_close(plain.product(gaussian(5, 2)).flatten(), J @ (J.T @ gaussian(10)))
    blocks = (J @ J.T).view(5, 2, 5, 2)
    torch.testing.assert_close(plain.sample_gram(), (blocks[:, 0, :, 0] + blocks[:, 1, :, 1]) / 2)
    scale = 1e-7 * float(J.norm())
    torch.testing.assert_close(plain.singular_values(), lin.singular_values(), rtol=0, atol=scale)


def test_inputs_are_kept_while_they_stay_what_they_are():
    X, held_out = gaussian(4, 3), gaussian(2, 3)
    kept, other = Inputs.of(X), Inputs.of(held_out)
    assert kept is not other
    assert Inputs.of(X) is kept
    assert Inputs.of(held_out) is other
    assert Inputs.of(X.clone()) not in (kept, other)
    kept = Inputs.of(X)
    X.mul_(2)
    assert Inputs.of(X) is not kept


@pytest.mark.parametrize("gathered", [True, False])
def test_products_with_inputs_fill_the_arrays_that_they_are_given(gathered):
    X = tasks.modular(3).X_train
    X = X if gathered else X * gaussian(*X.shape)
    inputs, E = Inputs(X), gaussian(X.shape[1], 4)
    out, spare = torch.zeros(2, len(X), 4, dtype=torch.float64)
    assert (inputs.ends is not None) == gathered
    assert inputs.times(E, out, spare) is out
    torch.testing.assert_close(out, X @ E)
    assert bool(spare.any()) == gathered  # half of the sum


# ---- kinks


def test_a_side_stays_what_it_is_beyond_its_kink():
    """The other side of every pre-activation: F and J are those of the linear network."""
    model, theta, X = case("relu", 0)
    on = X @ model.matrices(theta)["E"] <= 0
    sides = Sides(on, torch.zeros_like(on))

    def linear(t):
        E, W = model.matrices(t).values()
        return ((X @ E) * on) @ W

    lin, u = linearize(model, theta, X, sides=sides), gaussian(5, 2)
    J = torch.func.jacrev(lambda t: linear(t).flatten())(theta)
    torch.testing.assert_close(lin.outputs, linear(theta))
    torch.testing.assert_close(lin.vjp(u), J.T @ u.flatten())
    torch.testing.assert_close(lin.jvp(theta).flatten(), J @ theta)
    torch.testing.assert_close(lin.gram(), J @ J.T)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
@few
@given(seed=seeds, share=st.sampled_from([0.0, 0.1, 0.5]))
def test_pinned_pre_activations_leave_what_springs_leave(activation, seed, share):
    model, X = models.two_layer(3, 6, 2, activation), gaussian(4, 3, seed=seed)
    theta = gaussian(model.d, seed=seed + 1)
    pinned = torch.rand(4, 6, generator=torch.Generator().manual_seed(seed)) < share
    sides = Sides.at(X @ model.matrices(theta)["E"], pinned)
    low, high = model.kinks
    S = (low + (high - low) * sides.on.double()) * ~pinned

    def linear(t):
        E, W = model.matrices(t).values()
        return (S * (X @ E)) @ W

    J = torch.func.jacrev(lambda t: linear(t).flatten())(theta)
    N = torch.func.jacrev(lambda t: (X @ model.matrices(t)["E"])[pinned])(theta)
    # D⁻¹ = (I + NᵀN/spring)⁻¹, by the identity that keeps digits
    soft = N @ N.T + SPRING * torch.eye(len(N), dtype=torch.float64)
    D = torch.eye(model.d, dtype=torch.float64) - N.T @ torch.linalg.solve(soft, N)
    lin = linearize(model, theta, X, sides=sides)
    close = {"rtol": 0, "atol": 2e-6}  # rounding of the dense route, over the spring
    torch.testing.assert_close(lin.outputs, linear(theta))
    torch.testing.assert_close(lin.jvp(theta).flatten(), J @ theta)
    torch.testing.assert_close(lin.free(theta), D @ theta, **close)
    torch.testing.assert_close(lin.gram(), J @ D @ J.T, **close)
    assert lin.held == int(torch.linalg.matrix_rank(N))
    units = torch.eye(8, dtype=torch.float64).view(8, 4, 2)
    products = torch.stack([lin.product(unit).flatten() for unit in units])
    torch.testing.assert_close(products, lin.gram(), rtol=0, atol=1e-10)


def test_sides_that_do_not_fit_are_moved():
    """Rows of z: each pre-activation with its pull μWᵀ, and where it has to go next."""
    on, pinned = torch.tensor([[True] + 5 * [False]]), torch.tensor([3 * [False] + 3 * [True]])
    Z = torch.tensor([[-1.0, 1.0, 1.0, -0.5 * SPRING, 2 * SPRING, -2 * SPRING]])
    pull = torch.tensor([[-1.0, -1.0, 1.0, -1.0, -1.0, -1.0]])
    after = Sides(on, pinned).fitting(Z, pull, 1.0, (0.0, 1.0))
    # caught, caught, through to on; a force > 0 would need s < 0: off; one below the pull needs s > 1: on
    assert after.pinned.tolist() == [[True, True, False, False, False, False]]
    assert after.on.tolist() == [[False, False, True, False, True, False]]
    assert Sides(on, pinned).fitting(Z, pull, 1.0, (0.0, 1.0), hold=True).pinned.all()


@pytest.fixture
def one(monkeypatch):
    """What becomes of one pre-activation, given in units of a spring that is exact: (on, pinned), or None where it fits."""
    monkeypatch.setattr(kinks, "SPRING", 2.0**-30)

    def moved(on, pinned, z, pull, slopes, hold=False):
        sides = Sides(torch.tensor([[on]]), torch.tensor([[pinned]]))
        Z, pull = (torch.tensor([[each]], dtype=torch.float64) for each in (z * 2.0**-30, pull))
        after = sides.fitting(Z, pull, 2.0, slopes, hold)
        return None if after is None else (after.on.item(), after.pinned.item())

    return moved


OFF, ON, PINNED = (False, False), (True, False), (False, True)


@pytest.mark.parametrize(
    ("before", "z", "pull", "after"),
    [
        # on the side where it was taken to be; 0 is off
        (OFF, -1.0, -1.0, None),
        (OFF, 0.0, -1.0, None),
        (ON, 1.0, -1.0, None),
        # on the wrong side: caught where the pull is towards 0 from both sides, through otherwise
        (OFF, 1.0, -0.5, PINNED),
        (ON, -1.0, -0.5, PINNED),
        (ON, 0.0, -0.5, PINNED),
        (OFF, 1.0, 0.5, ON),
        (ON, -1.0, 0.5, OFF),
        (OFF, 1.0, 0.0, ON),
        # pinned, with force q = −2z: held for pull ≤ q ≤ 0.25 pull, the ends included
        (PINNED, 0.25, -1.0, None),
        (PINNED, 0.125, -1.0, None),
        (PINNED, 0.5, -1.0, None),
        (PINNED, 0.12, -1.0, OFF),
        (PINNED, -0.1, -1.0, OFF),
        (PINNED, 0.51, -1.0, ON),
        # and let go where nothing pulls it to 0 any more, to the side to which it is pulled
        (PINNED, -0.5, 0.5, OFF),
        (PINNED, 0.0, 0.0, ON),
        (PINNED, 0.1, 0.5, ON),
    ],
)
def test_one_pre_activation_goes_where_filippov_sends_it(one, before, z, pull, after):
    assert one(*before, z, pull, (0.25, 1.0)) == after


@pytest.mark.parametrize(
    ("before", "z", "after"),
    [(OFF, -1.0, None), (ON, 1.0, None), (OFF, 1.0, PINNED), (ON, -1.0, PINNED), (PINNED, 1.0, None)],
)
@pytest.mark.parametrize("pull", [-1.0, 1.0])
def test_nothing_is_let_go_while_holding(one, before, z, pull, after):
    assert one(*before, z, pull, (0.0, 1.0), hold=True) == after


def test_holding_leaves_what_fits_where_it_is():
    sides = Sides(torch.tensor([[True, True, False]]), torch.tensor([[False, False, False]]))
    after = sides.fitting(torch.tensor([[1.0, -1.0, -1.0]]), -torch.ones(1, 3), 1.0, (0.0, 1.0), hold=True)
    assert after.on.tolist() == [[True, False, False]]
    assert after.pinned.tolist() == [[False, True, False]]


def test_relu_at_0_is_off_and_stays_pinned_without_force(one):
    at = Sides.at(torch.tensor([[-1.0, 0.0, 1.0]]))
    assert at.on.tolist() == [[False, False, True]]
    assert not at.pinned.any()
    pinned = Sides.at(torch.tensor([[-1.0, 0.0, 1.0]]), torch.tensor([[True, True, True]]))
    assert not pinned.on.any()
    assert one(False, True, 0.0, -1.0, (0.0, 1.0)) is None


# ---- solutions


class Counting(Linearization):
    """Another linearization, with its calls counted."""

    def __init__(self, lin):
        self.lin, self.theta, self.outputs = lin, lin.theta, lin.outputs
        self.products = self.grams = 0

    def product(self, u):
        self.products += 1
        return self.lin.product(u)

    def gram(self):
        self.grams += 1
        return self.lin.gram()

    def sample_gram(self):
        return self.lin.sample_gram()


class Uneven(losses.Curvature):
    """H = S² with a diagonal S that differs from sample to sample by four orders."""

    def __init__(self, n):
        self.S = torch.logspace(-2, 2, n, dtype=torch.float64)[:, None]

    def root(self, U):
        return self.S * U

    root_transposed = root


class Mixing(losses.Curvature):
    """H = SSᵀ with one lower triangular matrix S for all samples."""

    S = torch.tensor([[2.0, 0.0], [1.0, 0.5]], dtype=torch.float64)

    def root(self, U):
        return U @ self.S.T

    def root_transposed(self, U):
        return U @ self.S


def regression(n=30, d_in=40, m=1, seed=0):
    """XΘ, whose K is XXᵀ ⊗ I."""
    X = gaussian(n, d_in, seed=seed) * torch.logspace(0, 2, n, dtype=torch.float64)[:, None]
    return linearize(lambda t, X: X @ t.view(d_in, m), gaussian(d_in * m, seed=seed + 1), X, "matrix_free"), X


@pytest.mark.parametrize("outputs", [30, 31, None])
def test_what_is_small_is_factored_and_what_is_large_searched(monkeypatch, outputs):
    """Up to FACTORED outputs, or as the argument says."""
    lin, u = Counting(regression(m=1)[0]), gaussian(30, 1, seed=2)
    if outputs:
        monkeypatch.setattr(solving, "FACTORED", outputs)
    lin.solve(u, lam=0.1)
    assert (lin.grams, lin.products) == (1, 0)
    monkeypatch.setattr(solving, "FACTORED", 29)
    lin.solve(u, lam=0.1)
    assert lin.grams == 1
    assert lin.products > 0
    before = lin.products
    lin.solve(u, lam=0.1, factored=True)
    assert (lin.grams, lin.products) == (2, before)
    monkeypatch.setattr(solving, "FACTORED", 10**6)
    lin.solve(u, lam=0.1, factored=False)
    assert lin.grams == 2
    assert lin.products > before


def test_a_solution_is_that_of_the_gram_matrix_itself_unless_told_otherwise():
    model, theta, X = case("mlp", 0)
    lin, u = linearize(model, theta, X), gaussian(5, 2)
    expected = torch.linalg.solve(lin.gram(), u.flatten()).view(5, 2)
    torch.testing.assert_close(lin.solve(u), expected, rtol=1e-6, atol=1e-8)
    K = lin.gram() + 0.1 * torch.eye(10, dtype=torch.float64)
    expected = torch.linalg.solve(K, u.flatten()).view(5, 2)
    torch.testing.assert_close(lin.solve(u, lam=0.1, factored=False), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("H", [losses.Curvature(), Uneven(30)])
def test_a_preconditioner_of_the_right_sizes_saves_products(H):
    """K = XXᵀ ⊗ I and H diagonal: it is the matrix itself, and the second product finds that out."""
    lin = Counting(regression(m=3)[0])
    u = gaussian(30, 3, seed=2)
    mu = lin.solve(u, 0.5, 1e-3, H, 1e-8, factored=False)
    assert lin.products <= 3
    back = 0.5 * H.times(lin.product(mu)) + 1e-3 * mu  # H times the equation
    assert (back - H.times(u)).norm() <= 1e-6 * H.times(u).norm()


def test_a_search_that_does_not_end_says_after_how_many_products(monkeypatch):
    monkeypatch.setattr(solving, "MOST_PRODUCTS", 2)
    model, theta, X = case("mlp", 0)
    with pytest.raises(
        NoMultipliersError, match=r"^no multipliers within 2 products with K: it is near singular$"
    ):
        linearize(model, theta, X).solve(gaussian(5, 2), lam=1e-6, factored=False)


@pytest.mark.parametrize("kind", ["dense", "matrix_free"])
@pytest.mark.parametrize("factored", [True, False])
def test_a_curvature_that_mixes_outputs_is_on_both_sides(kind, factored):
    model, theta, X = case("mlp", 2)
    lin, u, H = linearize(model, theta, X, kind), gaussian(5, 2), Mixing()
    inverse = torch.block_diag(*[torch.linalg.inv(Mixing.S @ Mixing.S.T)] * 5)
    expected = torch.linalg.solve(0.7 * lin.gram() + 0.3 * inverse, u.flatten()).view(5, 2)
    torch.testing.assert_close(lin.solve(u, 0.7, 0.3, H, 1e-12, factored), expected, rtol=1e-8, atol=1e-9)


def test_overlaps_are_the_sizes_of_the_curvatures_blocks():
    P = torch.softmax(3 * gaussian(4, 3), 1)
    H = losses.SoftmaxCurvature(P)
    blocks = [0.5 * (torch.diag(p) - torch.outer(p, p)) for p in P]
    size = torch.stack([block.trace() / 3 for block in blocks]).sqrt()  # ‖S‖² = tr H
    torch.testing.assert_close(solving._overlaps(H, P), torch.outer(size, size))
    torch.testing.assert_close(
        solving._overlaps(losses.Curvature(), P), torch.ones(4, 4, dtype=torch.float64)
    )


@pytest.mark.parametrize("scale", [1e-40, 1.0, 1e40])
def test_a_factor_is_refused_by_rounding_at_any_scale(scale):
    """Rows and columns may differ in scale as well."""
    sizes = torch.logspace(-4, 4, 12, dtype=torch.float64)
    for seed in range(20):  # rounding makes the last pivot of a singular matrix positive as often as not
        A = gaussian(12, 15, seed=seed)
        for each in (A, A * sizes[:, None]):
            K = scale * (each @ each.T)
            L = np.tril(factor(K.clone()))
            np.testing.assert_allclose(L @ L.T / scale, K / scale, rtol=1e-10, atol=1e-14)
        A[-1] = A[:-1].sum(0)
        for each in (A, A * sizes[:, None]):
            assert factor(scale * (each @ each.T)) is None
    assert factor(-scale * torch.eye(3, dtype=torch.float64)) is None


@pytest.mark.parametrize("shape", [(4, 6), (2, 4, 6)])
def test_a_matrix_times_itself(shape):
    A = gaussian(*shape)
    torch.testing.assert_close(syrk(A), A @ A.mT)


def test_a_factor_takes_the_memory_of_its_matrix():
    K = gaussian(8, 12)
    K = K @ K.T
    assert np.shares_memory(factor(K), K.numpy())


def test_singular_is_said_in_full():
    lin, _ = regression(n=4, d_in=3)
    with pytest.raises(
        NoMultipliersError,
        match=r"^cK \+ λI is singular: J has lost full rank \(theorem 4\.10\), and λ is too small to mend it$",
    ):
        lin.solve(gaussian(4, 1))


@pytest.mark.parametrize("m", [1, 16])
def test_an_estimate_of_samples_overlap_is_exact_where_outputs_are_alike(m):
    lin, X = regression(n=6, d_in=7, m=m)
    torch.testing.assert_close(lin.sample_gram(), X @ X.T)


@pytest.mark.parametrize("together", [1, 2**19])
def test_an_estimate_of_samples_overlap_is_near_the_mean_over_outputs(monkeypatch, together):
    """One output: exact. Many: within the sampling error of two probes, and symmetric."""
    monkeypatch.setattr(matrix_free, "TOGETHER", together)
    model, theta, X = case("one output", 0)
    pair = [linearize(model, theta, X, kind) for kind in ("matrix_free", "dense")]
    torch.testing.assert_close(pair[0].sample_gram(), pair[1].gram())
    torch.testing.assert_close(pair[1].sample_gram(), pair[1].gram())
    torch.testing.assert_close(pair[0].gram(), pair[1].gram())
    model = models.mlp([3, 8, 24])
    theta = gaussian(model.d, seed=1)
    estimate = linearize(model, theta, X, "matrix_free").sample_gram()
    K = linearize(model, theta, X, "dense").gram().view(5, 24, 5, 24)
    mean = torch.stack([K[:, c, :, c] for c in range(24)]).mean(0)
    assert torch.equal(estimate, estimate.mT)
    assert (estimate - mean).norm() < 0.3 * mean.norm()
    torch.testing.assert_close(linearize(model, theta, X, "dense").sample_gram(), mean)


# ---- what a linearization costs


def peak() -> int:
    """The process's high-water mark in bytes since :func:`forget_peak`."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured as Linux tells it")
@pytest.mark.parametrize(
    ("model", "kind"),
    [(models.mlp([20, 30, 15]), "matrix_free"), (models.two_layer(20, 30, 15, "gelu"), "structured")],
)
def test_neither_products_nor_a_search_form_the_gram_matrix(model, kind):
    lin = linearize(model, model.init(0), gaussian(400, 20), kind)
    u = torch.ones(400, 15, dtype=torch.float64)
    forget_peak()
    before = peak()
    lin.product(u)
    lin.solve(u, lam=1.0)
    assert peak() - before < 6000**2 * 8 / 4  # K itself would take 288 MB


def test_auto_takes_the_kind_that_fits():
    model, theta, X = case("mlp", 0)
    assert type(linearize(model, theta, X)).__name__ == "Dense"
    assert isinstance(linearize(model, theta, gaussian(1000, 3)), MatrixFree)
    model, theta, X = case("relu", 0)
    assert isinstance(linearize(model, theta, X), Structured)


def test_auto_is_dense_up_to_its_rows_and_its_bytes(monkeypatch):
    model, theta, X = case("mlp", 0)  # 10 outputs, 71 parameters
    for rows, size, kind in [(10, 5680, Dense), (9, 5680, MatrixFree), (10, 5679, MatrixFree)]:
        monkeypatch.setattr(linearization, "DENSE_ROWS", rows)
        monkeypatch.setattr(linearization, "DENSE_BYTES", size)
        assert type(linearize(model, theta, X)) is kind
        assert type(linearize(model, theta, X, "dense")) is Dense


@pytest.mark.parametrize(("together", "batches"), [(2**24, 1), (2 * 2 * 71, 3), (1, 5)])
def test_samples_are_differentiated_one_by_one_in_batches(monkeypatch, together, batches):
    monkeypatch.setattr(linearization.dense, "TOGETHER", together)
    model, theta, X = case("mlp", 0)
    seen = []

    def watched(theta, X):
        seen.append(len(X))
        return model(theta, X)

    J = linearize(watched, theta, X, "dense").jacobian()
    assert seen == [5, *batches * [1], 5]  # outputs, J, and the product that checks it
    torch.testing.assert_close(J, torch.func.jacrev(lambda t: model(t, X).flatten())(theta))


@pytest.mark.parametrize(("together", "batches"), [(2**19, 1), (4 * 71, 3), (1, 10)])
def test_products_are_made_in_batches(monkeypatch, together, batches):
    monkeypatch.setattr(matrix_free, "TOGETHER", together)
    model, theta, X = case("mlp", 0)
    lin, sizes = linearize(model, theta, X, "matrix_free"), []
    products = lin._products
    monkeypatch.setattr(lin, "_products", lambda U: sizes.append(len(U)) or products(U))
    torch.testing.assert_close(lin.gram(), linearize(model, theta, X, "dense").gram())
    assert len(sizes) == batches
    assert sum(sizes) == 10


@pytest.mark.parametrize("share", [1.0, 1e-6])
def test_samples_that_depend_on_each_other_are_differentiated_as_a_whole(share):
    def centred(theta, X):
        F = X @ theta.view(3, 2)
        return F - share * F.mean(0)

    theta, X = gaussian(6), gaussian(4, 3)
    J = torch.func.jacrev(lambda t: centred(t, X).flatten())(theta)
    torch.testing.assert_close(linearize(centred, theta, X, "dense").jacobian(), J)


# ---- sharpness


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("name", ["relu", "mlp"])
def test_sharpness_is_the_top_of_the_hessian(name, loss):
    """Of the linearized network's mean loss, by automatic differentiation."""
    model, theta, X = case(name, 3)
    Y = torch.softmax(gaussian(5, 2, seed=1), 1)
    task = tasks.from_tensors(X, Y, X, Y)
    J, F = linearize(model, theta, X, "dense").jacobian(), model(theta, X)
    mean = {"mse": torch.nn.functional.mse_loss, "cross_entropy": torch.nn.functional.cross_entropy}[loss]
    gradient = torch.func.grad(lambda s: mean(F + (J @ (s - theta)).view_as(F), Y))
    hessian = torch.func.jacrev(gradient)(theta)
    assert sharpness(model, theta, task, loss) == pytest.approx(
        float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-5
    )


def test_sharpness_of_one_output_and_again():
    model, theta, X = case("one output", 0, n=1)
    task = tasks.from_tensors(X, X[:, :1], X, X[:, :1])
    J = linearize(model, theta, X, "dense").jacobian()
    assert sharpness(model, theta, task) == pytest.approx(2 * float(J.square().sum()))
    model, theta, X = case("mlp", 0, n=40)
    task = tasks.from_tensors(X, X[:, :2], X, X[:, :2])
    top = 2 * float(torch.linalg.eigvalsh(linearize(model, theta, X, "dense").gram())[-1]) / 80
    assert sharpness(model, theta, task) == pytest.approx(top, rel=1e-6)
    assert sharpness(model, theta, task) == sharpness(model, theta, task)  # to the last digit


# ---- bad input


class Flat(models.Model):
    """Forgets that outputs have two dimensions."""

    def forward(self, parameters, X):
        return X @ parameters["w"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": 3}, "model is a int: must be a Model, or a function"),
        ({"theta": gaussian(35).float()}, "theta has dtype torch.float32: must be torch.float64"),
        ({"theta": gaussian(34)}, r"theta has shape \(34,\): must be \(35,\)"),
        ({"theta": gaussian(1, 35)}, r"^theta has shape \(1, 35\): must have 1 dimensions$"),
        ({"model": lambda t, X: X * t[0], "theta": gaussian(1, 3)}, r"^theta has shape \(1, 3\)"),
        ({"model": Flat("flat", {"w": (3,)}), "theta": gaussian(3)}, r"^flat returned shape \(5,\)"),
        ({"theta": gaussian(35) * torch.nan}, "theta holds NaN"),
        ({"theta": [0.0] * 35}, "theta is a list"),
        ({"X": gaussian(5, 3).float()}, "X has dtype torch.float32: must be torch.float64"),
        ({"X": gaussian(5, 3).numpy()}, "X is a ndarray"),
        ({"X": gaussian(5, 3) / 0}, "X holds NaN"),
        ({"X": gaussian(5, 4)}, r"must be \(n, 3\)"),
        ({"kind": "sparse"}, "kind = 'sparse': must be one of 'auto'"),
        (
            {"model": MODELS["mlp"](), "theta": gaussian(71), "kind": "structured"},
            "^kind = 'structured', sides given: False: only a two_layer network has structure$",
        ),
        (
            {"kind": "dense", "sides": Sides(*torch.zeros(2, 5, 7).bool())},
            "^kind = 'dense', sides given: True: only",
        ),
        (
            {"model": models.two_layer(3, 7, 2, "tanh"), "sides": Sides(*torch.zeros(2, 5, 7).bool())},
            "^sides given: .* has no kinks$",
        ),
        ({"model": lambda t, X: t}, r"^f returned shape \(35,\): must return \(n, m\)"),
        ({"model": lambda t, X: (X @ t[:3, None]) / 0}, "^theta: the outputs there are NaN or infinite$"),
        ({"model": lambda t, X: X, "kind": "matrix_free"}, "^model: the outputs do not depend on theta$"),
    ],
)
def test_bad_arguments_are_named(change, message):
    good = {"model": MODELS["relu"](), "theta": gaussian(35), "X": gaussian(5, 3)}
    with pytest.raises(ValueError, match=message):
        linearize(**{**good, **change})


def test_the_readout_s_product_is_formed_once_it_pays_and_agrees(monkeypatch):
    monkeypatch.setattr(linearization.structured, "FEW", 0.0)
    model, X, U = models.two_layer(4, 9, 2, "gelu"), gaussian(20, 4), gaussian(20, 2, seed=1)
    lin = linearize(model, gaussian(model.d), X)
    products = []
    for count in range(1, 8):  # formed when 2·m·count reaches n
        products.append(lin.product(U))
        assert (lin._HH is None) == (4 * count < 20)
    whole = (lin.gram() @ U.flatten()).view_as(U)
    assert all(torch.allclose(product, whole, rtol=1e-12, atol=1e-12) for product in products)


def test_in_single_precision_products_are_as_exact_as_that():
    X = tasks.modular(5).X_train
    model = models.two_layer(5, 12, 5, "gelu")
    theta = model.init(0)
    lin = linearize(model, theta, X)
    u = torch.randn(len(X), 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    exact = lin.product(u)
    rough = lin.rough_product(u)
    assert rough.dtype == torch.float64
    assert torch.equal(lin.product(u), exact)  # the two share nothing that is written to
    assert torch.equal(lin.rough_product(u), rough)
    assert 1e-9 < (rough - exact).norm() / exact.norm() < 1e-6
    relu = models.two_layer(5, 12, 5, "relu")
    Z = X @ relu.matrices(theta)["E"]
    for other in (
        linearize(model, theta, X + 0.1),  # where X is multiplied, not gathered
        linearize(model, theta, X, "dense"),
        linearize(relu, theta, X, sides=Sides.at(Z, Z.abs() < 0.05)),  # with held kinks
    ):
        assert torch.equal(other.rough_product(u), other.product(u))


def test_outputs_alone_are_those_of_the_model_to_the_last_bit():
    task = tasks.modular(5, seed=0)
    for model in (models.two_layer(5, 12, 5, "relu"), models.mlp([5, 6, 5], "gelu")):
        for X in (task.X_train, task.X_test, task.X_train + 0.1):
            assert torch.equal(outputs(model, model.init(0), X), model(model.init(0), X))


@pytest.mark.parametrize(
    ("name", "value"), [("c", -1.0), ("lam", -1.0), ("tolerance", 0.0), ("tolerance", 1.0)]
)
def test_solve_refuses_numbers_out_of_range(name, value):
    lin = linearize(MODELS["relu"](), gaussian(35), gaussian(5, 3))
    with pytest.raises(ValueError, match=f"^{name} = {value}"):
        lin.solve(gaussian(5, 2), **{name: value})
