"""Learning rate, weight decay and momentum from the theory of the slow flow, with nothing searched (chapter 16).

After memorization squared error rests on a plateau: in the linear model of the network about a point z of Z the residual that
decay holds up is r = −λ(K + λ)⁻¹Jz, so the training loss is λ²‖(K + λ)⁻¹Jz‖². A tolerated loss therefore names a largest λ.
Stability names the learning rate, 2(1 + β)/S with S the sharpness; and the ratio q = K_max/λ of the fastest to the slowest rate names
the momentum that damps the slowest critically.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from scipy.optimize import brentq
from torch import Tensor

from . import _checks, losses
from .errors import GrokutilsError, SingularJacobianError
from .flow.events import memorized
from .flow.follow import check_model, check_start, check_task, in_float64
from .linearization import Linearization, linearize
from .models import Model, TwoLayer
from .tasks import Task

BEFORE, AFTER = 0.3, 0.7  # share of the largest stable learning rate, before and after memorization
EARLY_MOMENTUM = 0.9  # before memorization, where no theory here names one
CLIMB = 1.5  # times its least: a training loss that shows a learning rate past its limit
PER_PRODUCT = 2  # gradient evaluations that one product with K costs: one backward and one forward derivative


@dataclass(frozen=True)
class Stage:
    """Settings of gradient descent, in PyTorch's convention: ``train(model, task, steps, **vars(stage))``."""

    lr: float
    weight_decay: float
    momentum: float


@dataclass(frozen=True, eq=False)
class Plan:
    """What :func:`from_theory` found.

    Attributes
    ----------
    before : Stage
        Settings until the network has memorized.
    after : Stage
        Settings from there on.
    theta : (d,)
        Where it had memorized.
    steps : int
        Gradient evaluations until then.
    products : int
        Products with K that the spectra took.
    lam : float
        The study's λ of ``after``.
    plateau : float
        Training loss that this λ holds up, as a share of that of the output 0.
    ratio : float
        q = K_max/λ.
    """

    before: Stage
    after: Stage
    theta: Tensor
    steps: int
    products: int
    lam: float
    plateau: float
    ratio: float

    @property
    def evaluations(self) -> int:
        """Gradient evaluations spent so far, those of the spectra included."""
        return self.steps + PER_PRODUCT * self.products

    @property
    def steps_per_tau(self) -> float:
        """Steps in which the slowest mode falls by a factor e, see :func:`steps_per_tau`."""
        return steps_per_tau(self.ratio, AFTER, self.after.momentum)

    def __str__(self) -> str:
        rows = [
            f"{name}: lr {stage.lr:.3g}, weight decay {stage.weight_decay:.2g}, momentum {stage.momentum:.3g}"
            for name, stage in (("before", self.before), ("after", self.after))
        ]
        return "\n".join(
            [
                *rows,
                "It rests on:",
                f"- lam = {self.lam:.3g}, whose plateau loss λ²‖(K + λ)⁻¹Jθ‖² is {self.plateau:.2g} of the output 0's;",
                f"- {BEFORE:g} and {AFTER:g} of the largest stable learning rate, 2(1 + momentum)/sharpness;",
                f"- critical damping of the slowest mode at K_max/lam = {self.ratio:.3g}:",
                f"  {self.steps_per_tau:.3g} steps for one unit of slow time.",
                f"Spent: {self.steps} gradient steps until memorized, {self.products} products with K.",
            ]
        )


def from_theory(
    model: Model,
    task: Task,
    tolerated_loss: float = 0.03,
    *,
    theta0: Tensor | None = None,
    seed: int = 0,
    products: int = 10,
    patience: int = 2000,
) -> Plan:
    """Settings that make ``model`` generalize soon, at a training loss that is tolerated; for squared error.

    It trains without decay until the network has memorized (5 % of the output 0's loss, all samples right), which costs
    ``Plan.steps`` gradient evaluations, and reads the spectrum of K there. Nothing is searched, and held-out data are not looked at.

    Parameters
    ----------
    model : network of any kind.
    task : to be trained; its held-out half is not looked at.
    tolerated_loss : training loss on the plateau, as a share of that of the output 0, in (0, 1).
    theta0 : (d,), where to begin; a draw of ``model.init(seed)`` where it is left out. A memorized one needs no steps.
    seed : of that draw.
    products : with K for the spectrum after memorization (Lanczos); the first takes half as many.
    patience : most gradient steps until memorization.

    Returns
    -------
    Plan, with the settings before and after memorization, in PyTorch's convention, and what they rest on.

    Raises
    ------
    ValueError
        Arguments that do not fit.
    SingularJacobianError
        J = 0 at ``theta0``.
    GrokutilsError
        The network does not memorize within ``patience``; or no decay holds up as much loss as is tolerated.
    """
    check_model(model)
    task = in_float64(task)
    tolerated_loss = _checks.real("tolerated_loss", tolerated_loss, 0, 1, open_low=True, open_high=True)
    products = _checks.integer("products", products, 2)
    patience = _checks.integer("patience", patience, 1)
    theta = check_start(model, model.init(seed) if theta0 is None else theta0)
    check_task(model, task, losses.squared_error, theta)
    X, Y = task.X_train, task.Y_train
    count = Y.numel()
    kind = "structured" if isinstance(model, TwoLayer) else "matrix_free"
    lin = linearize(model, theta, X, kind)
    first = spectrum(lin, lin.outputs - Y, products // 2)
    sharp = 2 * float(first[0].max()) / count
    if not sharp > 0:
        raise SingularJacobianError("theta0 is a singular point: J = 0 there, no learning rate moves it")
    theta, early, steps = _memorize(model, task, theta, BEFORE * 2 * (1 + EARLY_MOMENTUM) / sharp, patience)
    before = Stage(early, 0.0, EARLY_MOMENTUM)
    lin = linearize(model, theta, X, kind)
    nodes, weights = spectrum(lin, lin.jvp(theta), products)
    size = float(Y.square().sum())
    lam = largest_lam(nodes, weights, tolerated_loss * size)
    ratio = float(nodes.max()) / lam
    momentum = critical_momentum(ratio, AFTER)
    lr = AFTER * 2 * (1 + momentum) / (2 * (float(nodes.max()) + lam) / count)
    after = Stage(lr, losses.weight_decay("squared_error", Y, lam), momentum)
    plateau = _held_up(nodes, weights, lam) / size
    return Plan(before, after, theta, steps, products // 2 + products, lam, plateau, ratio)


def spectrum(lin: Linearization, start: Tensor, products: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes ν (k,) and weights ω (k,) with uᵀf(K)u ≈ Σ ω f(ν) for u = ``start`` (n, m), by Lanczos' method.

    Gauss quadrature: exact for polynomials f of degree below 2k (Golub and Meurant). The largest node is K_max from below.
    k is ``products``, or fewer where the Krylov space ends.

    Raises
    ------
    GrokutilsError
        ``start`` is 0.
    """
    size = float(start.norm())
    if not size > 0:
        raise GrokutilsError("the spectrum has no start: Jθ or the residual is 0")
    basis, diagonal, off = [start / size], [], []
    for _ in range(products):
        q = basis[-1]
        w = lin.product(q)
        diagonal.append(float((q * w).sum()))
        for _ in range(2):  # orthogonal to rounding
            for other in basis:
                w = w - (w * other).sum() * other
        rest = float(w.norm())
        if rest <= 1e-12 * max(diagonal):
            break
        off.append(rest)
        basis.append(w / rest)
    nodes, vectors = eigh_tridiagonal(np.array(diagonal), np.array(off[: len(diagonal) - 1]))
    return nodes, size**2 * vectors[0] ** 2


def plateau_loss(lin: Linearization, lam: float) -> float:
    """λ²‖(K + λ)⁻¹Jθ‖², summed over samples and outputs: the training loss that decay holds up near θ on Z.

    Raises
    ------
    ValueError
        λ below 0.
    """
    lam = _checks.real("lam", lam, 0)
    return lam**2 * float(lin.solve(lin.jvp(lin.theta), lam=lam).square().sum()) if lam else 0.0


def largest_lam(nodes: np.ndarray, weights: np.ndarray, loss: float) -> float:
    """The λ whose plateau loss Σ ω λ²/(ν + λ)² is ``loss``.

    Raises
    ------
    GrokutilsError
        None has as much: it grows to Σ ω = ‖Jθ‖² only.
    """
    top = float(weights.sum())
    if loss >= top:
        raise GrokutilsError(
            f"no decay holds up a loss of {loss:.3g}: at most ‖Jθ‖² = {top:.3g}; tolerate less"
        )
    excess = lambda x: math.log(_held_up(nodes, weights, math.exp(x)) / loss)  # noqa: E731
    middle = math.log(float(nodes.max()))
    return math.exp(brentq(excess, middle - 50, middle + 50))


def _held_up(nodes: np.ndarray, weights: np.ndarray, lam: float) -> float:
    return float((weights * (lam / (np.maximum(nodes, 0) + lam)) ** 2).sum())


def critical_momentum(ratio: float, share: float = 1.0) -> float:
    """β that damps the slowest mode critically: (1 − √β)² = lr·w, with lr ``share`` of its limit and q = ``ratio``.

    lr·w = 2·share·(1 + β)/(q + 1) in gradient descent with heavy ball (Polyak), with S = 2(K_max + λ)/nm and w = 2λ/nm; 0 where q + 1 ≤ 2·share.

    Raises
    ------
    ValueError
        A ratio that is not positive, or a share outside (0, 1].
    """
    Q, c = _condition(ratio, share)
    if 2 * c >= Q:
        return 0.0
    root = (Q - 2 * math.sqrt(c * (Q - c))) / (Q - 2 * c)  # of (1 − x)² Q = 2c(1 + x²), the smaller one
    return root**2


def steps_per_tau(ratio: float, share: float = 1.0, momentum: float = 0.0) -> float:
    """Steps in which the slowest mode, that of weight decay, falls by a factor e: one unit of slow time without momentum.

    −1/ln|z| for the larger root z of z² − (1 + β − lr·w)z + β = 0, lr·w as in :func:`critical_momentum`. For large q = ``ratio``
    it is q/2·share without momentum and √(q/share)/2 at the critical one.

    Raises
    ------
    ValueError
        A ratio that is not positive, a share outside (0, 1], or a momentum outside [0, 1).
    """
    Q, c = _condition(ratio, share)
    beta = _checks.real("momentum", momentum, 0, 1, open_high=True)
    b = 1 + beta - 2 * c * (1 + beta) / Q
    inside = b * b - 4 * beta
    z = (abs(b) + math.sqrt(inside)) / 2 if inside > 0 else math.sqrt(beta)
    return -1 / math.log(z) if 0 < z < 1 else math.inf if z >= 1 else 0.0


def _condition(ratio: float, share: float) -> tuple[float, float]:
    return _checks.real("ratio", ratio, 0, open_low=True) + 1, _checks.real(
        "share", share, 0, 1, open_low=True
    )


def _memorize(model: Model, task: Task, theta: Tensor, lr: float, patience: int) -> tuple[Tensor, float, int]:
    """θ at memorization by heavy-ball steps without decay, the learning rate then, and the number of gradients.

    Sharpness grows on the way. Where the loss climbs to :data:`CLIMB` times its least, the step was past the limit: back to the
    best point, with half the learning rate.
    """
    X, Y, event = task.X_train, task.Y_train, memorized(model, task)
    velocity, best, least = torch.zeros_like(theta), theta, math.inf
    for step in range(patience + 1):
        at = theta.clone().requires_grad_()
        with torch.enable_grad():
            loss = (model(at, X) - Y).square().mean()
        now = float(loss.detach())
        if not now <= CLIMB * least:  # also NaN
            theta, velocity, lr = best, torch.zeros_like(theta), lr / 2
            continue
        if now < least:
            best, least = theta, now
            if event.value(theta) <= 0:
                return theta, lr, step
        velocity = EARLY_MOMENTUM * velocity + torch.autograd.grad(loss, at)[0]
        theta = theta - lr * velocity
    raise GrokutilsError(
        f"has not memorized within {patience} steps, at lr = {lr:.3g}: give a memorized theta0"
    )
