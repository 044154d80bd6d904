"""The price of a training set: the smallest squared norm at which a two-layer network fits it.

V = min ‖E‖² + ‖W‖² subject to σ(XE)W = Y. The best readout for given embeddings is known (eq. 15), so what is left is
R(E) (eqs. 16 and 19), minimized by L-BFGS from several random starts. A second route, :func:`on_the_constraint`,
knows nothing of eq. 15. For quadratic networks and the whole table of modular addition, :func:`table` is a closed form
and :func:`table_network` a network that attains it.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from scipy.optimize import linprog, minimize
from torch import Tensor

from . import _checks
from .activations import activation as named
from .isolated.closed_form import Inputs, Motion

LAM = 1e-3  # the λ of the last stage; what it leaves of V is removed to first order
FIRST = (1e-1, 1e-2)  # λ of the first stage, start by start: neither is the better one for all labels
MEMORY = 20  # pairs of steps and gradients that L-BFGS keeps


@dataclass(frozen=True, eq=False)
class Price:
    """The cheapest network found for a training set.

    ``value`` is V, extrapolated to λ → 0; ``bound`` is the minimum at λ > 0 of L/λ + ‖θ‖², below V wherever the start found
    the global minimum. ``starts`` holds each start's value. The network is σ(X ``E``) ``W``.
    """

    value: float
    bound: float
    starts: tuple[float, ...]
    E: Tensor  # (d_in, width)
    W: Tensor  # (width, d_out)


def price(
    X: Tensor,
    Y: Tensor,
    activation="quadratic",
    *,
    width: int | None = None,
    starts: int = 3,
    seed: int = 0,
    iterations: int = 500,
) -> Price:
    """V of the training set (``X``, ``Y``): the best of several starts.

    Each start anneals λ by tenths down to ``LAM``, since R is smoother the larger λ is. At a minimum over θ at λ,
    r = F − Y and V_λ = ‖r‖²/λ + ‖θ‖², dV_λ/dλ = −‖r/λ‖², so that V ≈ V_λ + ‖r‖²/λ up to O(λ²).
    No start knows more than the training set, so what the network found says elsewhere is its own.

    Parameters
    ----------
    X : (n, d_in).
    Y : (n, d_out).
    activation : a name or an elementwise callable.
    width : hidden units; n + 8 where it is left out, more than any minimum seen uses.
    starts : number of random starts.
    seed : of the first start; the others follow it.
    iterations : of L-BFGS in the last stage; earlier stages take at most 300.

    Raises
    ------
    ValueError
        Arguments that do not fit.
    """
    for name, value in (("X", X), ("Y", Y)):
        _checks.tensor(name, value, ndim=2)
    _checks.same("dtypes", X=X.dtype, Y=Y.dtype)
    _checks.same("lengths", X=len(X), Y=len(Y))
    width = len(X) + 8 if width is None else _checks.integer("width", width, 1)
    starts = _checks.integer("starts", starts, 1)
    seed = _checks.integer("seed", seed, 0)
    iterations = _checks.integer("iterations", iterations, 1)
    sigma, inputs = named(activation), Inputs(X)
    found = []
    for number in range(starts):
        E = _random(X.shape[1], width, seed + number).to(X.dtype)
        for lam in _ladder(FIRST[number % len(FIRST)]):
            E = _descend(E, inputs, Y, sigma, lam, iterations if lam == LAM else min(300, iterations))
        at = Motion(E, inputs, Y, sigma, LAM)
        bound = float(E.square().sum() + (Y.mT * at.AY_T).sum())
        found.append((bound + LAM * float(at.AY_T.square().sum()), bound, E, at.readout))
    value, bound, E, W = min(found, key=lambda each: each[0])
    return Price(value, bound, tuple(each[0] for each in found), E, W)


def accuracy(network: Price, X: Tensor, Y: Tensor, activation="quadratic") -> float:
    """Share of the rows of ``X`` whose greatest output is the label's."""
    outputs = named(activation).value(X @ network.E) @ network.W
    return float((outputs.argmax(1) == Y.argmax(1)).double().mean())


def _random(d_in: int, width: int, seed: int) -> Tensor:
    drawn = torch.randn(d_in, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn * 2 / math.sqrt(width)


def _ladder(first: float) -> list[float]:
    return [first * 10.0**-k for k in range(round(math.log10(first / LAM)))] + [LAM]


def _descend(E: Tensor, X: Inputs, Y: Tensor, sigma, lam: float, iterations: int) -> Tensor:
    """L-BFGS on R_λ(E)/λ = ‖E‖² + Tr(Yᵀ(HHᵀ + λI)⁻¹Y), whose gradient is −2 times the velocity of eq. 20."""

    def cost(flat: np.ndarray) -> tuple[float, np.ndarray]:
        here = torch.from_numpy(flat.reshape(E.shape)).to(E.dtype)
        at = Motion(here, X, Y, sigma, lam)
        value = float(here.square().sum() + (Y.mT * at.AY_T).sum())
        return value, at.velocity.mul_(-2).numpy().astype(np.float64).ravel()

    options = {"maxcor": MEMORY, "maxiter": iterations, "maxfun": 2 * iterations, "ftol": 1e-9, "gtol": 1e-6}
    start = E.numpy().astype(np.float64).ravel()
    found = minimize(cost, start, jac=True, method="L-BFGS-B", options=options)
    return torch.from_numpy(found.x.reshape(E.shape)).to(E.dtype)


def on_the_constraint(
    X: Tensor, Y: Tensor, activation="quadratic", *, width: int, starts: int = 3, seed: int = 0
) -> float:
    """V by another route: ‖θ‖² minimized over both layers, σ(XE)W = Y held as a constraint (SLSQP).

    For small sets: each iteration solves a dense system in all parameters. Only starts that end with every residual
    below 1e-8 count.

    Raises
    ------
    ValueError
        No start that ends on the constraint: a layer that is too narrow.
    """
    sigma, d_in, m = named(activation), X.shape[1], Y.shape[1]
    if (d_in + m) * width < Y.numel():  # SciPy 1.17's SLSQP writes past its arrays there
        raise ValueError(
            f"width = {width}: too few parameters, {(d_in + m) * width}, for {Y.numel()} constraints"
        )
    pick = torch.eye(m, dtype=X.dtype)

    def parts(theta: np.ndarray) -> tuple[Tensor, Tensor]:
        whole = torch.from_numpy(theta)
        return whole[: d_in * width].reshape(d_in, width), whole[d_in * width :].reshape(width, m)

    def residual(theta: np.ndarray) -> np.ndarray:
        E, W = parts(theta)
        return (sigma.value(X @ E) @ W - Y).numpy().ravel()

    def jacobian(theta: np.ndarray) -> np.ndarray:
        E, W = parts(theta)
        Z = X @ E
        by_E = torch.einsum("ia,ih,hc->icah", X, sigma.slope(Z), W).reshape(len(X) * m, -1)
        by_W = torch.einsum("ih,cd->ichd", sigma.value(Z), pick).reshape(len(X) * m, -1)
        return torch.cat([by_E, by_W], 1).numpy()

    held = {"type": "eq", "fun": residual, "jac": jacobian}
    values = []
    for number in range(starts):
        theta = np.random.default_rng([seed, number]).normal(size=(d_in + m) * width) * 2 / math.sqrt(width)
        options = {"maxiter": 1000, "ftol": 1e-12}
        end = minimize(
            lambda t: (t @ t, 2 * t), theta, jac=True, constraints=held, method="SLSQP", options=options
        )
        if np.abs(residual(end.x)).max() < 1e-8:
            values.append(float(end.fun))
    if not values:
        raise ValueError(
            f"width = {width}: no start ended on the constraint; must be enough units to fit the data"
        )
    return min(values)


# The whole table of modular addition, quadratic networks ---------------------------------------------------------

_Z = (1 + math.sqrt(257)) / 40
RING = 3 / 16 * (3 + math.sqrt(257)) * (40 / (1 + math.sqrt(257))) ** (1 / 3)  # a: one frequency, five units
PAIR = 3 / 2 ** (4 / 3)  # one pair learned by heart: a unit of its own


def table(p: int) -> float:
    """The price of the whole table of a + b mod p for a quadratic network: p^(1/3) [a (p − 3)/2 + b].

    a = :data:`RING` is the price of a frequency whose five units have phases 2πj/5. One frequency has two rings of three
    instead, which also carry the constant; b ≈ 5.4288 is their price. :func:`table_network` attains it, so it is an upper
    bound; that nothing is cheaper is measured, not proved. For primes p ≥ 5.
    """
    p = _prime(p)
    return p ** (1 / 3) * (RING * (p - 3) / 2 + 3 * float((_twin_rings() ** 2).sum()))


def table_lower_bound(p: int) -> float:
    """A proved lower bound of the same price.

    After balancing V = (3/2^(2/3)) Σ_h (|e_h|²|w_h|)^(2/3), and each term is the Schatten-2/3 quasi-norm (to the power 2/3) of a
    rank-one matrix e_h ⊗ (e_h ⊗ w_h). Those are subadditive (Rotfel'd), so the unfoldings of T = Σ_h e_h ⊗ e_h ⊗ w_h bound the sum.
    """
    T = table_tensor(_prime(p))
    spectra = (np.linalg.svd(each, compute_uv=False) for each in (T.reshape(p, -1), T.reshape(p * p, p)))
    return 3 / 2 ** (2 / 3) * max(float((s ** (2 / 3)).sum()) for s in spectra)


def table_tensor(p: int) -> np.ndarray:
    """T (p, p, p) with T(a, a, c) + T(b, b, c) + 2 T(a, b, c) = 1 where a + b = c mod p, else 0.

    Every quadratic network that computes the table has Σ_h e_h(a) e_h(b) w_h(c) = T(a, b, c): the table determines it.
    """
    a, b, c = np.ogrid[:p, :p, :p]
    same = lambda x: ((x - c) % p == 0).astype(float)  # noqa: E731
    return (same(a + b) - same(2 * a) / 4 - same(2 * b) / 4) / 2


def table_network(p: int) -> tuple[Tensor, Tensor]:
    """E (p, units) and W (units, p) of a quadratic network with the whole table, at the price :func:`table`.

    A ring at frequency k has units e(a) = x₀ + x₁ cos(ka + φ) and w(c) = y₀ + y₁ cos(kc + 2φ) + y₂ cos(kc/2 + φ), angles in units of
    2π/p and waves of norm one, φ evenly spaced; k/2 is taken mod p. y₁ carries the answer at frequency k; the squares e(a)² that
    come with it are cancelled, at k/2, by x₀x₁y₂.
    """
    p = _prime(p)
    x = _Z ** (1 / 3)
    five = np.array([math.sqrt(0.05 / x), x, 0.0, math.sqrt(2) / 5 / x**2, -math.sqrt(0.05 / x)])
    columns = [_ring(p, 1, 3, each) for each in _twin_rings()]
    columns += [_ring(p, k, 5, five) for k in range(2, (p + 1) // 2)]
    E, W = (np.concatenate(part, axis=1) * p ** (1 / 6) for part in zip(*columns, strict=True))
    return torch.from_numpy(E), torch.from_numpy(W.T.copy())


def _ring(p: int, k: int, phases: int, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x0, x1, y0, y1, y2 = weights
    phi = 2 * np.pi * np.arange(phases) / phases
    angle = 2 * np.pi * np.arange(p)[:, None] / p
    half = k * (p + 1) // 2 % p
    wave = lambda frequency, phase: math.sqrt(2) * np.cos(frequency * angle + phase)  # noqa: E731
    e = (x0 + x1 * wave(k, phi)) / math.sqrt(p)
    w = (y0 + y1 * wave(k, 2 * phi) + y2 * wave(half, phi)) / math.sqrt(p)
    return e, w


@cache
def _twin_rings() -> np.ndarray:
    """(2, 5): the weights x₀, x₁, y₀, y₁, y₂ of the two rings of three, in units of p^(1/6).

    Each row of ``target`` is what the products must sum to: the constant, the answer, the cancelled squares, and three products
    that three phases let through and five would not.
    """
    target = np.array([1 / 12, 0, -1 / 12, math.sqrt(2) / 3, 0, 0])

    def products(v: np.ndarray) -> np.ndarray:
        x0, x1, y0, y1, y2 = v.reshape(2, 5).T
        return np.array([y0 * x0**2, y0 * x1**2, x0 * x1 * y2, x1**2 * y1, x0 * x1 * y1, x1**2 * y2]).sum(1)

    start = np.array([0.06, 0.86, -0.06, 0.6, -0.08, 0.54, -0.4, 0.28, 0.15, 0.36])
    held = {"type": "eq", "fun": lambda v: products(v) - target}
    options = {"ftol": 1e-15, "maxiter": 500}
    end = minimize(
        lambda v: (v @ v, 2 * v), start, jac=True, constraints=held, method="SLSQP", options=options
    )
    return end.x.reshape(2, 5)


def _prime(p: int) -> int:
    p = _checks.integer("p", p, 5)
    if any(p % q == 0 for q in itertools.takewhile(lambda q: q * q <= p, itertools.count(2))):
        raise ValueError(f"p = {p}: must be a prime of at least 5")
    return p


# Solved cases: what "the smallest norm" means where one can tell -----------------------------------------------------


def l1(X: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """min ‖β‖₁ with Xβ = y, and its β: half the price of y for a diagonal network β = u ⊙ v.

    Parameters
    ----------
    X : (n, d), of full row rank.
    y : (n,).
    """
    d = X.shape[1]
    found = linprog(np.ones(2 * d), A_eq=np.hstack([X, -X]), b_eq=y, method="highs")
    return float(found.fun), found.x[:d] - found.x[d:]


def nuclear(
    known: np.ndarray, values: np.ndarray, penalty: float = 1.0, iterations: int = 3000
) -> tuple[float, np.ndarray]:
    """min ‖M‖_* with the known entries given, and its M: half the price of the entries for M = UV.

    By the alternating direction method of multipliers: shrink the singular values, restore the entries.

    Parameters
    ----------
    known : (rows, columns), truth values.
    values : (rows, columns), read where ``known``.
    penalty : of the split; affects the speed only.
    iterations : number of rounds.
    """
    M, dual = np.where(known, values, 0.0), np.zeros(known.shape)
    for _ in range(iterations):
        left, s, right = np.linalg.svd(M + dual, full_matrices=False)
        low = (left * np.maximum(s - 1 / penalty, 0)) @ right
        M = np.where(known, values, low - dual)
        dual += M - low
    return float(np.linalg.svd(M, compute_uv=False).sum()), M
