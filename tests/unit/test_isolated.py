"""Closed forms of section 3 against automatic differentiation, other formulas, symmetries and limits."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from grokutils import errors, isolated, tasks
from grokutils.activations import NAMED, activation
from grokutils.isolated.closed_form import SCRATCH, Inputs, Motion

float64 = torch.float64
RTOL = 1e-9


def close(actual, expected, rtol=RTOL):
    """Relative to the largest entry: the error that a linear solve leaves is relative to the whole."""
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= rtol * expected.abs().max() + 1e-300


def problem(seed, n, d_in, d_out, width, batch=()):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=float64)  # noqa: E731
    return draw(*batch, d_in, width), draw(n, d_in), draw(n, d_out)


def gram_plus(E, X, name, lam):
    H = NAMED[name].value(X @ E)
    return H, H @ H.mT + lam * torch.eye(len(X), dtype=float64)


@st.composite
def cases(draw, lams=(0.0, 1e-3, 0.1, 5.0), names=tuple(NAMED), batches=((),), wide=False):
    """(E, X, Y, activation, λ) whose linear systems are well conditioned; n ≥ width where λ > 0."""
    lam, name = draw(st.sampled_from(lams)), draw(st.sampled_from(names))
    n, d_in, d_out = draw(st.integers(1, 6)), draw(st.integers(1, 6)), draw(st.integers(1, 4))
    width = draw(st.integers(1, 12)) if lam and not wide else n + draw(st.integers(1, 12))
    E, X, Y = problem(draw(st.integers(0, 2**20)), n, d_in, d_out, width, draw(st.sampled_from(batches)))
    _, K = gram_plus(E, X, name, lam)
    assume((torch.linalg.cond(K) < 1e5).all())
    return E, X, Y, name, lam


def textbook_cost(E, X, Y, name, lam):
    """Eq. 19 with an explicit inverse."""
    _, K = gram_plus(E, X, name, lam)
    return E.square().sum() + torch.trace(Y.T @ torch.linalg.inv(K) @ Y)


def loss(E, W, X, Y, name, lam):
    """L_λ of eq. 1."""
    misfit = NAMED[name].value(X @ E) @ W - Y
    return misfit.square().sum() + lam * (E.square().sum() + W.square().sum())


@given(cases())
def test_cost_is_eq_19(case):
    close(isolated.cost(*case), textbook_cost(*case))


@given(cases())
def test_velocity_is_minus_half_the_gradient_of_the_cost(case):
    E, *rest = case
    E = E.requires_grad_()
    for function in (textbook_cost, isolated.cost):
        (slope,) = torch.autograd.grad(function(E, *rest), E)
        close(isolated.velocity(E.detach(), *rest), -slope / 2)


@given(cases(names=[name for name in NAMED if NAMED[name].smooth]))
def test_velocity_is_the_costs_difference_quotient(case):
    E, *rest = case
    V = isolated.velocity(E, *rest)
    D = torch.randn(E.shape, generator=torch.Generator().manual_seed(1), dtype=float64)
    h = 1e-4 / max(1.0, float(V.norm()))
    quotient = (isolated.cost(E + h * D, *rest) - isolated.cost(E - h * D, *rest)) / (2 * h)
    scale = float(V.norm() * D.norm())
    assert float(quotient) == pytest.approx(float(-2 * (V * D).sum()), rel=1e-3, abs=1e-3 * scale)


@given(cases())
def test_velocity_is_eq_20_written_out(case):
    E, X, Y, name, _ = case
    H, K = gram_plus(*case[:2], *case[3:])
    A = torch.linalg.inv(K)
    close(isolated.velocity(*case), X.T @ ((A @ Y @ Y.T @ A @ H) * NAMED[name].slope(X @ E)) - E)


@given(cases(lams=(1e-3, 0.1, 5.0)))
def test_readout_is_eq_15_and_minimizes_the_loss(case):
    E, X, Y, name, lam = case
    W = isolated.readout(*case)
    H, _ = gram_plus(E, X, name, lam)
    primal = torch.linalg.solve(H.T @ H + lam * torch.eye(H.shape[1], dtype=float64), H.T @ Y)
    close(W, primal, 1e-7)  # the primal system may be conditioned worse than the one assumed above
    (slope,) = torch.autograd.grad(loss(E, W.requires_grad_(), *case[1:]), W)
    assert slope.abs().max() <= RTOL * 2 * (H.T @ Y).abs().max()
    bump = torch.randn(W.shape, generator=torch.Generator().manual_seed(2), dtype=float64)
    assert loss(E, W + 1e-2 * bump, *case[1:]) > loss(E, W, *case[1:])


@given(cases(lams=(0.0,)))
def test_readout_without_decay_is_the_shortest_interpolant(case):
    E, X, Y, name, _ = case
    W, (H, _) = isolated.readout(*case), gram_plus(E, X, name, 0)
    close(W, torch.linalg.pinv(H) @ Y)
    close(H @ W, Y)
    null = torch.eye(H.shape[1], dtype=float64) - torch.linalg.pinv(H) @ H
    other = W + null @ torch.randn(W.shape, generator=torch.Generator().manual_seed(3), dtype=float64)
    close(H @ other, Y)
    assert other.norm() > W.norm()


@given(cases(lams=(1e-3, 0.1, 5.0)))
def test_closed_forms_are_exact_at_every_decay(case):
    """R of eq. 16 is λ times the cost; by the envelope theorem its slope is L_λ's at a fixed readout (theorem 5.1)."""
    E, *rest, lam = case
    W = isolated.readout(*case)
    assert float(isolated.cost(*case)) == pytest.approx(float(loss(E, W, *rest, lam)) / lam, rel=1e-8)
    E.requires_grad_()
    (slope,) = torch.autograd.grad(loss(E, W, *rest, lam), E)
    close(isolated.velocity(E.detach(), *rest, lam), -slope / (2 * lam), 1e-7)


@given(cases(lams=(0.0,)))
def test_decay_lowers_the_cost_to_first_order_by_its_derivative(case):
    """0 ≤ R₀ − R_λ/λ ≤ λ‖K⁻¹Y‖²: Tr(Yᵀ(K + λ)⁻¹Y) falls and is convex in λ."""
    E, X, Y, name, _ = case
    _, K = gram_plus(E, X, name, 0)
    AY = torch.linalg.solve(K, Y)
    lam = 1e-3 / float(torch.linalg.inv(K).norm())
    drop = float(isolated.cost(*case) - isolated.cost(E, X, Y, name, lam))
    bound = lam * float(AY.square().sum())
    assert 0.99 * bound <= drop <= 1.0001 * bound


DEGREES = {"relu": 1, "leaky_relu": 1, "identity": 1, "quadratic": 2}


@given(cases(names=tuple(DEGREES)))
def test_norm_law_of_homogeneous_activations(case):
    """½ d‖E‖²/dτ = k‖W‖² − ‖E‖² at every λ, where σ(cz) = cᵏσ(z) for c > 0 (Euler's relation for eq. 19)."""
    E, k = case[0], DEGREES[case[3]]
    speed = float((E * isolated.velocity(*case)).sum())
    norms = k * float(isolated.readout(*case).square().sum()), float(E.square().sum())
    assert speed == pytest.approx(norms[0] - norms[1], rel=1e-9, abs=1e-9 * sum(norms))


@given(cases(), st.integers(0, 2**20))
def test_symmetries(case, seed):
    """Hidden units, samples, inputs and outputs may be permuted; inputs and outputs may be rotated."""
    E, X, Y, *rest = case
    V, W, R = (f(*case) for f in (isolated.velocity, isolated.readout, isolated.cost))
    generator = torch.Generator().manual_seed(seed)
    units, samples = (torch.randperm(n, generator=generator) for n in (E.shape[1], len(X)))
    turn_in, turn_out = (
        torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=float64)).Q for d in (len(E), Y.shape[1])
    )
    tokens = torch.randperm(len(E), generator=generator)
    for moved, expected_V, expected_W in (
        ((E[:, units], X, Y), V[:, units], W[units]),
        ((E, X[samples], Y[samples]), V, W),
        ((E[tokens], X[:, tokens], Y), V[tokens], W),
        ((turn_in @ E, X @ turn_in.T, Y), turn_in @ V, W),
        ((E, X, Y @ turn_out), V, W @ turn_out),
    ):
        close(isolated.velocity(*moved, *rest), expected_V)
        close(isolated.readout(*moved, *rest), expected_W)
        close(isolated.cost(*moved, *rest), R)


@given(cases(batches=((1,), (3,), (2, 2)), wide=True))
def test_batches_are_loops(case):
    E, *rest = case
    alone = E.reshape(-1, *E.shape[-2:])
    for function in (isolated.cost, isolated.velocity, isolated.readout):
        together = function(E, *rest)
        one_by_one = torch.stack([function(e, *rest) for e in alone])
        close(together, one_by_one.reshape(E.shape[:-2] + one_by_one.shape[1:]), 1e-10)


@given(cases())
def test_a_callable_activation_is_like_a_named_one(case):
    E, X, Y, name, lam = case
    function = NAMED[name].value
    close(isolated.velocity(E, X, Y, lambda Z: function(Z), lam), isolated.velocity(*case))


@given(cases())
def test_arguments_stay_as_they_were(case):
    copies = [value.clone() for value in case[:3]]
    for function in (isolated.cost, isolated.velocity, isolated.readout):
        function(*case)
    assert all(torch.equal(a, b) for a, b in zip(copies, case[:3], strict=True))


@given(cases())
def test_single_precision_stays_single_and_is_near(case):
    E, X, Y, *rest = case
    for function in (isolated.cost, isolated.velocity, isolated.readout):
        single = function(E.float(), X.float(), Y.float(), *rest)
        assert single.dtype == torch.float32
        exact = function(E, X, Y, *rest)
        assert (single - exact).norm() <= 0.2 * exact.norm()  # conditions up to 1e5, squared in the gradient


@pytest.mark.filterwarnings(
    "ignore:`torch.jit.script` is deprecated"
)  # forward mode's first use, inside torch
@given(cases(lams=(0.1, 5.0), batches=((), (3,)), wide=True))
def test_forward_mode_and_vmap_agree_with_reverse_mode(case):
    E, *rest = case
    D = torch.randn(E.shape, generator=torch.Generator().manual_seed(1), dtype=float64)
    _, slope = torch.func.jvp(lambda E: isolated.cost(E, *rest), (E,), (D,))
    close(slope, -2 * (isolated.velocity(E, *rest) * D).sum((-2, -1)), 1e-7)
    many = torch.stack([E, E + 0.01 * D])
    close(torch.func.vmap(lambda E: isolated.cost(E, *rest))(many), isolated.cost(many, *rest))
    gradients = torch.func.vmap(torch.func.grad(lambda E: isolated.cost(E, *rest).sum()))(many)
    close(gradients, -2 * isolated.velocity(many, *rest), 1e-7)


@pytest.mark.parametrize("batch", [(), (3,), (2, 2)])
@pytest.mark.parametrize("operation", ["add", "subtract"])
def test_gathered_inputs_are_the_product(batch, operation):
    task = tasks.modular(5, operation)
    X, gathered = task.X_train, Inputs(task.X_train)
    generator = torch.Generator().manual_seed(0)
    E = torch.randn(*batch, X.shape[1], 30, generator=generator, dtype=float64)
    P = torch.randn(*batch, len(X), 30, generator=generator, dtype=float64)
    assert gathered.ends is not None
    into, other = torch.empty(2, *P.shape, dtype=float64)
    close(gathered.times(E, into, other), X @ E, 1e-14)
    close(gathered.back(P), X.T @ P, 1e-14)
    doubled = isolated.velocity(E / 2, 2 * X, task.Y_train)  # rows that are not sums of one-hots
    close(2 * (doubled + E / 2), 4 * (isolated.velocity(E, X, task.Y_train) + E), 1e-9)


def test_a_motion_without_decay_fits():
    E, X, Y = problem(0, 5, 4, 3, 20)
    at = Motion(E, Inputs(X), Y, activation("relu"), 0.0)
    close(at.H @ at.readout, Y, 1e-10)
    close(at.readout, isolated.readout(E, X, Y), 1e-12)


@pytest.mark.parametrize("function", [isolated.cost, isolated.velocity, isolated.readout])
@given(seed=st.integers(0, 2**20), n=st.integers(2, 60), dtype=st.sampled_from([torch.float32, float64]))
def test_duplicate_inputs_are_singular(function, seed, n, dtype):
    E, X, Y = problem(seed, n, 8, 3, 2 * n + 8)
    E, X, Y = E.to(dtype), torch.cat([X, X[:1]]).to(dtype), torch.cat([Y, Y[:1]]).to(dtype)
    with pytest.raises(errors.SingularGramError, match="More hidden units"):
        function(E, X, Y)
    assert torch.isfinite(function(E, X, Y, lam=0.1)).all()


def test_one_singular_member_of_a_batch_is_enough():
    E, X, Y = problem(0, 4, 3, 2, 12, batch=(3,))
    E[1] = 0
    with pytest.raises(errors.SingularGramError):
        isolated.velocity(E, X, Y)


def test_scratch_is_reused_and_never_given_away():
    E, X, Y = problem(0, 5, 4, 3, 20)
    first = isolated.velocity(E, X, Y)
    held = {name: array.data_ptr() for name, array in SCRATCH.arrays.items()}
    copy = first.clone()
    isolated.velocity(E + 1, X, Y)
    assert {name: array.data_ptr() for name, array in SCRATCH.arrays.items()} == held
    assert torch.equal(first, copy)
    assert first.data_ptr() not in held.values()


E, X, Y = problem(0, 4, 3, 2, 12)
BAD = [
    ({"E": E[:, :4]}, r"width = 4: must be greater than the number of training samples, 4"),
    ({"activation": "sigmoid"}, r"activation = 'sigmoid': must be one of 'relu'"),
    ({"activation": lambda Z: Z.softmax(-1)}, r"activation = .*elementwise"),
    ({"lam": -0.1}, r"lam = -0.1: .*\[0, inf\)"),
    ({"lam": float("nan")}, r"lam = nan: .*\[0, inf\)"),
    ({"lam": "0.1"}, r"lam = '0.1'"),
    ({"E": E.clone().index_fill_(0, torch.tensor(0), torch.nan)}, "E holds NaN or infinite values"),
    ({"X": X.clone().index_fill_(0, torch.tensor(0), torch.inf)}, "X holds NaN or infinite values"),
    ({"Y": Y / 0}, "Y holds NaN or infinite values"),
    ({"E": E[0]}, r"E has shape \(12,\): must be \(..., d_in, width\)"),
    ({"X": X[:, :2]}, r"E has shape \(3, 12\): must be \(..., 2, width\)"),
    ({"Y": Y[:3]}, "Y has 3 rows: .* 4 rows of X"),
    ({"Y": Y[:, 0]}, r"Y has shape \(4,\): must have 2 dimensions"),
    ({"X": X.long()}, r"X has dtype torch.int64: must be torch.float64"),
    ({"E": E.half()}, r"E has dtype torch.float16: must be torch.float64"),
    ({"E": E.float()}, r"dtypes must agree: E has torch.float32, X has torch.float64"),
    ({"Y": Y.numpy()}, r"Y is a ndarray: must be a torch.Tensor"),
    ({"E": None}, r"E is a NoneType: must be a torch.Tensor"),
]


@pytest.mark.parametrize("function", [isolated.cost, isolated.velocity, isolated.readout])
@pytest.mark.parametrize(("changed", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_arguments(function, changed, message):
    with pytest.raises(ValueError, match=message):
        function(**{"E": E, "X": X, "Y": Y, **changed})
