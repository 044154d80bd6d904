"""AdamW without noise at its edge of stability, with squared error: the oscillations of the weights feed v̂ (chapter 15).

Once the data are fitted v̂ falls, and with it the step that a weight can stand, until the steepest directions oscillate. The oscillation
feeds v̂ just as much as keeps it from falling further. How much in which direction is the answer to a concave problem.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import _checks
from ..linearization import linearize
from ..models import Model
from .noise import QuietAdam

DIRECTIONS = 40  # on the outputs that may oscillate; chapter 15 saw at most 24 near the edge
ROUNDS = (8, 1)  # in which the steepest directions are found again, at first and along a path
TURNS = (12, 3)  # subspace iterations of each
SMALL = 1e-3  # share of the largest amplitude that is next to nothing
SEED = 1e-3  # of oscillation in every direction, so that each can grow
FASTEST = 50.0  # exponent of one iteration
MOST = 400  # iterations
SETTLED = 1e-4  # relative change of v in an iteration at which they end
LEAST = 1e-100  # √v or v that is divided by
STILL = 1e-3  # 1 − (drift's share of v) nearer to 0 than that counts as that


@dataclass(frozen=True)
class Oscillation:
    """A covariance C on the outputs, up to the factor (2/nm)², that feeds v with diag(JᵀCJ).

    Attributes
    ----------
    root : R (nm, k), C = RRᵀ; its columns are orthogonal.
    steep : (nm, l), orthonormal, what M is steepest along.
    """

    root: Tensor
    steep: Tensor

    def fed(self, J: Tensor) -> Tensor:
        """diag(JᵀCJ), (d,)."""
        return (self.root.mT @ J).square().sum(0)


def edge_oscillation(
    J: Tensor,
    base: Tensor,
    weight: Tensor,
    limit: float,
    start: Oscillation | None = None,
    epsilon: float = 0.0,
) -> Oscillation | None:
    """The oscillation that keeps AdamW at its edge; None where it is not there.

    With v = base + weight∘diag(JᵀCJ) and M = J diag(1/√v) Jᵀ it is the C ⪰ 0 for which M ⪯ limit, and MC = limit C: what oscillates is at
    the edge, and nothing is beyond it. These are the conditions of a maximum of Σᵢ (2/weightᵢ)√vᵢ − limit tr C, which is concave in C, and
    strictly so in v: there is one v.

    Parameters
    ----------
    J : (nm, d).
    base : (d,), of v without oscillation, not negative; 0 for a steady v, which only the oscillation feeds.
    weight : (d,), positive.
    limit : largest eigenvalue that M may have.
    start : a guess, as an earlier answer.
    epsilon : added to √v.

    Raises
    ------
    ValueError
        Shapes that do not fit, or numbers out of range.
    """
    J, limit = _checks.tensor("J", J, ndim=2), _checks.real("limit", limit, 0, open_low=True)
    for name, each, fits in (("base", base, (base >= 0).all()), ("weight", weight, (weight > 0).all())):
        if each.shape != J.shape[1:] or not fits:
            sign = "positive" if name == "weight" else "not negative"
            raise ValueError(
                f"{name} of shape {tuple(each.shape)}: must be ({J.shape[1]},), as J has columns, and {sign}"
            )
    along = start is not None
    if start is None:
        v = base + weight * J.square().sum(0)
        count = min(DIRECTIONS, len(J))
        steep = torch.randn(len(J), count, dtype=J.dtype, generator=torch.Generator().manual_seed(0))
        start = Oscillation(J.new_zeros(len(J), 0), steep)
    else:
        v = base + weight * start.fed(J)
    for _ in range(ROUNDS[along]):
        steep = start.steep
        for _ in range(TURNS[along]):
            steep = torch.linalg.qr(J @ ((steep.mT @ J) / _root(v, epsilon)).mT)[0]
        found = _within(steep, J, base, weight, limit, start.root, epsilon)
        if found is None:
            return None
        start, v = found, base + weight * found.fed(J)
    return start


def _within(
    steep: Tensor, J: Tensor, base: Tensor, weight: Tensor, limit: float, root: Tensor, epsilon: float
) -> Oscillation | None:
    """:func:`edge_oscillation` among the directions of ``steep`` (nm, l) and ``root`` (nm, k), its guess."""
    Q = torch.linalg.qr(torch.cat([root, steep], 1)[:, : len(J)])[0]
    seen = Q.mT @ J
    steepest = lambda v: torch.linalg.eigh((seen / _root(v, epsilon)) @ seen.mT)  # noqa: E731
    if base.any() and steepest(base)[0][-1] <= limit:
        return None
    everywhere = weight * seen.square().sum(0)
    # Alike in all directions, and at the edge by itself: where nothing is known, the guess
    unit = float(steepest(everywhere)[0][-1]) / limit
    B = unit * (SEED if root.shape[1] else 1.0) * torch.eye(Q.shape[1], dtype=J.dtype)
    B[:, : root.shape[1]] += Q.mT @ root
    v = base
    for _ in range(MOST):
        fed = weight * (B.mT @ seen).square().sum(0)
        last, v = v, base + fed
        sizes, vectors = steepest(v)
        if float((v - last).abs().max() / v.max()) < SETTLED and sizes[-1] < limit * (1 + 10 * SETTLED):
            break
        # Beyond the edge oscillations grow, below they fade, as fast as the share that C has of v leaves stable
        power = min(1 / float((fed / v.clamp(min=LEAST)).max()), FASTEST)
        B = (vectors * (sizes.clamp(min=0) / limit) ** power) @ (vectors.mT @ B)
    vectors, sizes, _ = torch.linalg.svd(B)
    kept = sizes > SMALL * sizes[0]
    return Oscillation(Q @ (vectors[:, kept] * sizes[kept]), steep)


def _root(v: Tensor, epsilon: float) -> Tensor:
    return (v.sqrt() + epsilon).clamp(min=LEAST)  # v is 0 where no output depends on a weight


def edge_of_adam(lr: float, beta1: float = 0.9) -> float:
    """2(1 + β₁)/((1 − β₁) lr): a steeper direction, in Adam's metric, does not stay bounded (its weights change sign at each step and grow)."""
    beta1 = _checks.real("beta1", beta1, 0, 1, open_high=True)
    return 2 * (1 + beta1) / ((1 - beta1) * _checks.real("lr", lr, 0, open_low=True))


class EdgeAdam(QuietAdam):
    """√v̂ + ε of AdamW without noise, where its own oscillations feed v̂; squared error.

    As :class:`QuietAdam`, and in addition v̂′ has diag(JᵀCJ), C such that lr·sharpness in Adam's metric never passes 2(1 + β₁)/(1 − β₁).

    Parameters
    ----------
    model : network.
    X : (n, …) training inputs.
    start : v̂ (d,) at τ = 0.
    step : of the run at τ = 0, at least 1.
    outputs : nm, or how many terms the mean loss averages over.
    lr, weight_decay : of the run; AdamW's decay.
    beta1, beta2 : in [0, 1) and (0, 1).
    epsilon : Adam's.

    Raises
    ------
    ValueError
        A number out of range.
    """

    def __init__(
        self, model: Model, X: Tensor, start: Tensor, step: int, *, outputs: int, lr: float, weight_decay: float,
        beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8,
    ):  # fmt: skip
        super().__init__(start, step, lr=lr, weight_decay=weight_decay, beta2=beta2, epsilon=epsilon)
        self.model, self.X = model, X
        self.limit = edge_of_adam(lr, beta1) * _checks.integer("outputs", outputs, 1) / 2
        self.oscillation: Oscillation | None = None
        self._tried: tuple[float, Tensor, Tensor, Oscillation | None] | None = None

    def _now(self, theta: Tensor, tau: float) -> Tensor:
        if self._theta is None or tau <= self._tau:
            return self._v
        if self._tried is not None and self._tried[0] == tau and torch.equal(self._tried[1], theta):
            return self._tried[2]
        fading, passed = self._fading(theta, tau)
        fading = torch.where(fading.abs() < STILL, STILL, fading)
        base, weight = super()._now(theta, tau), -torch.expm1(-fading * passed) / fading
        J = linearize(self.model, theta, self.X).jacobian()
        found = edge_oscillation(J, base, weight, self.limit, self.oscillation, self.epsilon)
        v = base if found is None else base + weight * found.fed(J)
        self._tried = tau, theta.clone(), v, found
        return v

    def passed(self, theta: Tensor, tau: float) -> None:
        """Keep v̂ and the oscillation where an accepted step ended."""
        super().passed(theta, tau)
        if self._tried is not None:
            self.oscillation = self._tried[3]
            self._tried = None
