"""Check one's own answer to an exercise of the book: ``exercises.check("08-2", answer)``.

No solution is stored here. A formula is compared, on random inputs, with the number that another route gives: a step of
descent, automatic differentiation, a least-squares solver, a count.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from scipy.optimize import brentq, minimize, minimize_scalar

from . import fourier, zero_loss


@dataclass(frozen=True)
class Exercise:
    """What is asked for, whether an answer is right, and what is said to it."""

    asked: str
    verify: Callable[[object], bool]
    right: str
    hint: str


REGISTRY: dict[str, Exercise] = {}


def check(exercise: str, answer) -> None:
    """Print whether ``answer`` solves ``exercise`` (chapter-number, as "08-2"), or a hint; None is not answered yet.

    Raises
    ------
    ValueError
        An exercise that is not there, or an answer of another kind than the one asked for.
    """
    if exercise not in REGISTRY:
        near = difflib.get_close_matches(str(exercise), REGISTRY, n=1, cutoff=0)[0]
        raise ValueError(
            f"exercise = {exercise!r}: must be one of {', '.join(REGISTRY)}; the nearest is {near!r}"
        )
    task = REGISTRY[exercise]
    if answer is None:
        print(f"Exercise {exercise}: not answered yet. Set `answer` to {task.asked}.")
    elif task.verify(answer):
        print(f"Exercise {exercise}: right. {task.right}")
    else:
        print(f"Exercise {exercise}: not right. Hint: {task.hint}")


def _formula(name: str, *arguments: str, draw, right: str, hint: str, tolerance: float = 1e-6):
    """Register an exercise answered by a function of ``arguments``; the decorated route computes the same otherwise."""
    asked = "a function of " + " and ".join(filter(None, [", ".join(arguments[:-1]), arguments[-1]]))

    def register(route):
        def verify(answer) -> bool:
            rng = np.random.default_rng(0)
            _check_takes(answer, len(arguments), asked)
            for inputs in islice(iter(lambda: draw(rng), None), 4):
                expected = np.asarray(route(*inputs))
                off = np.abs(_numbers(answer(*inputs), expected.shape) - expected)
                if not off.max() <= tolerance * max(1, np.abs(expected).max()):
                    return False
            return True

        REGISTRY[name] = Exercise(asked, verify, right, hint)
        return route

    return register


def _check_takes(answer, count: int, asked: str) -> None:
    if not callable(answer):
        raise ValueError(f"answer = {answer!r}: must be {asked}")
    try:
        inspect.signature(answer).bind(*range(count))
    except TypeError as error:
        raise ValueError(
            f"answer takes {inspect.signature(answer)}: must be {asked}, in this order"
        ) from error


def _numbers(value, shape: tuple[int, ...] | None) -> np.ndarray:
    """``value`` as numbers of ``shape``; NaN and infinities pass, and are then not right."""
    try:
        given = np.asarray(value, dtype=complex)
    except (TypeError, ValueError) as error:
        raise ValueError(f"answer gives {value!r}: must give numbers") from error
    if shape is not None and given.shape != shape:
        allowed = f"an array of shape {shape}" if shape else "one number"
        raise ValueError(f"answer gives shape {given.shape}: must give {allowed}")
    return given


def _ridge(H, Y, decay: float) -> np.ndarray:
    """The W of least ‖HW − Y‖² + decay ‖W‖², as a plain least-squares problem with more rows."""
    more = math.sqrt(decay) * np.eye(H.shape[1])
    nothing = np.zeros((H.shape[1], Y.shape[1]))
    return np.linalg.lstsq(np.vstack([H, more]), np.vstack([Y, nothing]), rcond=None)[0]


@_formula(
    "01-4", "lr", "w",
    draw=lambda rng: (rng.uniform(0.5, 1.5), rng.uniform(0.1, 0.4)),
    right="Counted in steps of descent under decay alone. In slow time it is about ln 2, whatever lr and w.",
    hint="each step multiplies every weight by the same number; which one, exactly? It need not be near 1.",
)  # fmt: skip
def _halving(lr, w):
    norm = [1.0]
    while norm[-1] > 0.5:
        norm.append(norm[-1] - lr * w * norm[-1])
    return np.interp(math.log(2), -np.log(norm), range(len(norm)))


@_formula(
    "02-2", "eta", "w1", "w2", "c",
    draw=lambda rng: (rng.uniform(0.05, 0.2), *rng.uniform(0.5, 2, 3)),
    right="So do steps of descent from random weights: each one shrinks the imbalance, at second order in eta.",
    hint="write g for the factor that both parts of the gradient share; the terms of first order in g cancel.",
)  # fmt: skip
def _imbalance(eta, w1, w2, c):
    pull = 2 * (w1 * w2 - c)
    after = w1 - eta * pull * w2, w2 - eta * pull * w1
    return (after[0] ** 2 - after[1] ** 2) / (w1**2 - w2**2)


@_formula(
    "03-2", "w1", "w2", "lam",
    draw=lambda rng: (*rng.uniform(0.5, 2, 2) * rng.choice([-1, 1], 2), rng.uniform(0.01, 0.1)),
    right="It agrees with the matrices J and K. For a fixed target the lag depends on the norm alone.",
    hint="J has one row, so K is a number. Which one, in terms of the norm? And mind signs: a lag is positive.",
)  # fmt: skip
def _lag(w1, w2, lam):
    theta = torch.tensor([w1, w2], dtype=torch.float64)
    J = zero_loss.jacobian(lambda t, X: t.prod().reshape(1, 1), theta, torch.zeros(1, 1, dtype=torch.float64))
    _, S, V = torch.linalg.svd(J, full_matrices=False)
    return float(lam * ((V @ theta) / S**2).norm())


def _small_target(answer) -> bool:
    y = _numbers(answer, None)
    if y.ndim != 1 or not y.size or np.any(y.imag) or not np.all(np.isfinite(y)) or np.any(y == 0):
        raise ValueError(f"answer = {answer!r}: must be a list of real numbers, none of them zero")
    u = torch.from_numpy(np.sqrt(np.abs(y)))  # u = ±v where the slow flow ends: every u² − v² has decayed
    theta = torch.cat([u, u * torch.from_numpy(np.sign(y.real))])
    J = zero_loss.jacobian(
        lambda t, X: (t[: len(u)] * t[len(u) :])[None], theta, torch.zeros(1, 1, dtype=torch.float64)
    )
    return float(zero_loss.singular_values(J)[-1]) < 0.01


REGISTRY["03-3"] = Exercise(
    "a list of targets",
    _small_target,
    "The singular values of J at the end of the slow flow say so. Regular is not the same as far from singular.",
    "the slow flow balances the two weights of each entry; which singular value does an entry then give J?",
)


@_formula(
    "04-1", "w1",
    draw=lambda rng: (rng.uniform(0.4, 2.5),),
    right="It is the slope of the cosine, measured a small step away from the set.",
    hint="no slope is negative, and it must stay the same if w1 and 1/w1 trade places.",
    tolerance=1e-3,
)  # fmt: skip
def _slope(w1):
    J = np.array([1 / w1, w1])
    return _cosine(np.array([w1, 1 / w1]) + 1e-5 * J / np.linalg.norm(J), 1, np.array([w1, -1 / w1])) / 1e-5


@_formula(
    "04-3", "w1", "w2",
    draw=lambda rng: (rng.uniform(1, 2), rng.uniform(0.1, 0.9)),
    right="It agrees with the gradient. Near the origin it has no bound.",
    hint="the nearest point of the cross lies on one of its axes; take the tangent and the distance there.",
)  # fmt: skip
def _cross(w1, w2):
    return _cosine(np.array([w1, w2]), 0, np.array([1, 0])) / abs(w2)


def _cosine(theta, target, tangent) -> float:
    """|cos| between the gradient of (w₁w₂ − target)² and a tangent."""
    gradient = 2 * (theta.prod() - target) * theta[::-1]
    return abs(gradient @ tangent) / np.linalg.norm(gradient) / np.linalg.norm(tangent)


@_formula(
    "05-3", "w1", "w2",
    draw=lambda rng: tuple(rng.uniform(0.5, 2, 2)),
    right="It agrees with the projected force. The rate is no function of the charge, so there is no law of decay.",
    hint="the data's force conserves the charge, so only the penalty's own force changes it; on how many weights does that act?",
)  # fmt: skip
def _charge(w1, w2):
    force = torch.tensor([-w1, 0.0], dtype=torch.float64)
    v = zero_loss.project_tangent(torch.tensor([[w2, w1]], dtype=torch.float64), force)
    return float(2 * w1 * v[0] - 2 * w2 * v[1])


@_formula(
    "06-1", "alpha", "beta",
    draw=lambda rng: tuple(rng.uniform(0.7, 2, 2)),
    right="Gradient descent on the toy spends that share of its steps above the kink.",
    hint="at this share the two slopes must cancel on average; the steeper side is left sooner.",
    tolerance=0.02,
)  # fmt: skip
def _share(alpha, beta):
    a, b, c, lr, w, steps, above = 1.0, 1.0, 1.0, 0.01, 1e-3, 20_000, 0
    for _ in range(steps):
        above += a > b
        slope = -alpha if a > b else beta
        pull = 2 * lr * (slope * (a - b) + c - 1)
        a, b, c = a - pull * slope - lr * w * a, b + pull * slope - lr * w * b, c - pull - lr * w * c
    return above / steps


@_formula(
    "07-1", "H", "B",
    draw=lambda rng: (rng.normal(size=(4, 6)), rng.normal(size=(6, 5))),
    right="The residual of a least-squares solver has just this matrix in it.",
    hint="only C is optimal, so which matrix plays the part of the hidden layer for it?",
)  # fmt: skip
def _in_place_of_gram(H, B, decay=0.5):
    one = np.eye(len(H))
    residual = one - H @ B @ _ridge(H @ B, one, decay)  # decay (M + decay I)⁻¹
    return decay * (np.linalg.inv(residual) - one)


@_formula(
    "07-3", "E", "H", "Y", "lam", "mu",
    draw=lambda rng: (*(rng.normal(size=s) for s in ((3, 6), (4, 6), (4, 2))), *rng.uniform(0.1, 2, 2)),
    right="It is the least cost that a least-squares solver finds.",
    hint="insert the optimal readout; the residual and the readout together leave one trace. Which decay is in A?",
)  # fmt: skip
def _reduced_cost(E, H, Y, lam, mu):
    W = _ridge(H, Y, mu)
    return np.sum((H @ W - Y) ** 2) + lam * np.sum(E**2) + mu * np.sum(W**2)


@_formula(
    "08-2", "k", "a", "b",
    draw=lambda rng: (rng.uniform(0.5, 8), *rng.uniform(0.2, 3, 2)),
    right="Automatic differentiation of a ReLU network with random data agrees. For k = 1 the imbalance decays by itself.",
    hint="the terms of the loss cancel; what does decay alone do to a, and what to b, with a readout k times as fast?",
)  # fmt: skip
def _pace(k, a, b, lam=0.3):
    torch_rng = torch.Generator().manual_seed(0)
    X, E, W, Y = (
        torch.randn(shape, generator=torch_rng, dtype=torch.float64)
        for shape in ((6, 4), (4, 3), (3, 2), (6, 2))
    )
    E[:, 0] *= math.sqrt(a) / E[:, 0].norm()
    W[0] *= math.sqrt(b) / W[0].norm()
    E.requires_grad_()
    W.requires_grad_()
    loss = (torch.relu(X @ E) @ W - Y).square().sum() + lam * (E.square().sum() + W.square().sum())
    to_E, to_W = torch.autograd.grad(loss, (E, W))
    return (-k * ((E * to_E)[:, 0].sum() - (W * to_W)[0].sum()) / lam).item()


@_formula(
    "09-4", "u", "v",
    draw=lambda rng: tuple(rng.normal(size=(2, 5))),
    right="`fourier.features` finds the same: a round circle, u and v alike and at right angles, shows in F_k as both marks.",
    hint="write cosine and sine as exponentials; one of the two averages to zero over the tokens. Mind the sign of i.",
)  # fmt: skip
def _feature(u, v, p=11, k=3):
    turn = 2 * np.pi * k * np.arange(p)[:, None] / p
    return fourier.features(torch.from_numpy(np.cos(turn) * u + np.sin(turn) * v))[k - 1].numpy()


@_formula(
    "10-3", "p", "s",
    draw=lambda rng: (int(rng.choice([7, 9, 11])), rng.uniform(0.4, 0.8)),
    right="Counted over random splits.",
    hint="not every pair has a twin that is another pair; and how likely is a twin to be among those trained on?",
    tolerance=0.025,
)  # fmt: skip
def _twins(p, s, splits=400):
    order = np.random.default_rng(0).random((splits, p * p)).argsort(1).argsort(1)
    trained = (order < s * p * p).reshape(splits, p, p)
    return np.sum(~trained & trained.swapaxes(1, 2)) / np.sum(~trained)


@_formula(
    "13-4", "K",
    draw=lambda rng: ((lambda J: J @ J.T)(rng.normal(size=(3, 6))),),
    right="Beyond it many steps of the linearized descent blow the residual up, below it they do not.",
    hint="look at one eigenvector of K at a time: by which number does a step multiply the residual along it?",
)  # fmt: skip
def _edge(K):
    def growth(lr):
        return math.log(np.linalg.norm(np.linalg.matrix_power(np.eye(len(K)) - 2 * lr * K, 64), 2))

    return brentq(growth, 0.5 / np.trace(K), 2 * len(K) / np.trace(K), xtol=1e-12)


@_formula(
    "14-3", "y", "L",
    draw=lambda rng: (float(rng.uniform(0.3, 3)), int(rng.integers(2, 6))),
    right="So an output of 8 costs 16 with two layers, 12 with three, and less than 12 with four.",
    hint="the layers end alike: which size has each, if their product is y?",
)  # fmt: skip
def _price_of_an_output(y, L):
    def price(rest):  # all layers but the last, as logarithms: any start will do
        w = np.exp(rest)
        return float((w**2).sum() + (y / w.prod()) ** 2)

    return minimize(price, np.linspace(0.1, 0.2, L - 1), tol=1e-14, options={"gtol": 1e-9}).fun


@_formula(
    "15-2", "lr", "d",
    draw=lambda rng: (rng.uniform(0.05, 0.4), rng.uniform(0.1, 2)),
    right="For small lr it is lr d²: the fluctuation that the theory of this chapter starts from.",
    hint="the residual becomes (1 − 2 lr) times itself plus 2 lr times the noise; when does its variance stay?",
)  # fmt: skip
def _plateau_variance(lr, d):
    variance = 0.0
    for _ in range(2000):
        variance = (1 - 2 * lr) ** 2 * variance + (2 * lr * d) ** 2
    return variance


@_formula(
    "11-2", "k",
    draw=lambda rng: (rng.uniform(1, 4),),
    right="ReLU has k = 1: both parts weigh the same. The quadratic unit has k = 2.",
    hint="keep the unit's output, scale e up and w down, and ask when the squared norm no longer changes.",
    tolerance=1e-4,
)  # fmt: skip
def _balance(k):
    cheapest = minimize_scalar(lambda t: math.exp(2 * t) + math.exp(-2 * k * t), method="golden", tol=1e-10)
    return math.exp(2 * (1 + k) * cheapest.x)  # |e|² ÷ |w|² with |w| = |e|^(−k)


@_formula(
    "12-2", "rate", "w",
    draw=lambda rng: (rng.uniform(0.1, 2), rng.uniform(0.1, 2)),
    right="No slow mode, and it is −1; no decay to speak of, and it is 0.",
    hint="the mode vanishes as exp(−(rate + w)t), so its delay is a number over rate + w.",
    tolerance=1e-4,
)  # fmt: skip
def _elasticity(rate, w):
    def late(decay):  # when e^(−(rate + decay)t) has fallen to a half
        return brentq(lambda t: math.exp(-(rate + decay) * t) - 0.5, 0, 100, xtol=1e-13, rtol=1e-13)

    return math.log(late(w * 1.001) / late(w / 1.001)) / (2 * math.log(1.001))


@_formula(
    "16-1", "h",
    draw=lambda rng: (rng.uniform(0.05, 0.95),),
    right="h = 1/2 is one unit of slow time.",
    hint="without any data J is empty: compare (1 − h)θ with an implicit Euler step of θ′ = −θ.",
)  # fmt: skip
def _slow_time_of_a_step(h):
    return brentq(lambda s: (1 - h) + s * (1 - h) - 1, 0, 1e3, xtol=1e-12)  # θ₊ = θ − sθ₊ with θ = 1


@_formula(
    "17-3", "n", "m", "w",
    draw=lambda rng: (int(rng.integers(2, 9)), int(rng.integers(1, 9)), rng.uniform(1e-4, 1e-2)),
    right="So does losses.lam(\"squared_error\", Y, w).",
    hint="PyTorch's mean divides the study's loss by the number of entries of Y; and the gradient of λ‖θ‖² is 2λθ.",
)  # fmt: skip
def _decay_of_the_study(n, m, w):
    Y, F, theta = (torch.full(shape, 2.0, dtype=torch.float64) for shape in ((n, m), (n, m), (3,)))
    F, theta = F.requires_grad_(), theta.requires_grad_()
    torch.nn.functional.mse_loss(F + 1, Y).backward()  # one step of PyTorch: gradient of the mean, and w θ
    of_the_sum = 2 * (F.detach() + 1 - Y)
    return w * float(of_the_sum[0, 0] / F.grad[0, 0]) / 2
