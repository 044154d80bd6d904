"""Gradient flow in slow time by one implicit method, for any model and loss, at λ > 0 or in the limit λ → 0.

With multipliers μ in place of the pull of the loss, training in slow time is

    dθ/dτ = J(θ)ᵀμ − ∇h(θ),    ½∂L/∂F + λμ = 0,

h = ½‖θ‖² unless another penalty is given; with squared error λ = 0 gives dθ/dτ = −P_T(θ)θ on Z. An
optimizer that divides by the gradient's own size has an inertia I(θ) before dθ/dτ (:mod:`.noise`). Steps are those of the two-step
backward formula (BDF2) with J at the point that the last steps extrapolate to, so that one linear solve a step is enough for
squared error whatever λ is. The error is O(h²), the constraint's O(h⁴), and what is left of the latter the next step
takes back: no separate return to Z is needed. With kinks a step is solved again, from where it ended, until it is
known which pre-activations it holds at 0.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import NoMultipliersError
from ..linearization import Linearization, Sides, linearize, outputs
from ..linearization.solving import FACTORED
from ..losses import Loss
from ..models import Model
from . import first_order
from .events import Event, first_zero
from .implicit import Step
from .multipliers import Multipliers
from .noise import Inertia
from .penalties import Penalty

SHORTEST = 1e-14  # step in τ
MOST_STEPS = 200_000
GROWTH = 2.0  # of one step over the one before; BDF2 is stable up to 1 + √2
FAST = 1.5  # speed ‖θ′‖/‖θ‖ above which it is the loss that moves θ: decay alone has at most 1
FINER = (
    20.0  # times the tolerance is smaller there: what is lost in the fast phase no later decay brings back
)
CLOSE = 1e-10  # of ‖Y‖: residual at which a start counts as on Z
SWITCHES = 8  # solutions of one step with other sides of the kinks, after which no kink is let go any more
SHARE = 0.01  # of the tolerance that may be lost in solving for the multipliers
OWN = 0.1  # of a smooth step's own error, likewise
LEAST = 1e-4  # of the tolerance, below which no error of a step is aimed at
TOO_LONG = 8.0  # stands for the error ratio of a step that is too long for a reason of another kind
POWERS = (
    60,
    2,
)  # at most so many products estimate the largest eigenvalue at the start, and keep it at each step
SETTLED = (
    1e-2  # of that eigenvalue, which is within the residual of its vector: enough where products are dear
)


@dataclass
class Point:
    """Where an accepted step ended."""

    tau: float
    theta: Tensor
    outputs: Tensor  # (n, m)
    mu: Tensor | None  # (n, m)
    pinned: Tensor | None  # (n, width), pre-activations held at 0
    objective: float  # L + 2λh, or ‖F − Y‖ at λ = 0
    drift: float  # ‖½∂L/∂F + λμ‖, the error of the constraint
    sharpness: float  # largest eigenvalue of J H Jᵀ
    seen: Tensor  # (d,), the weights: θ, or at first order those beside the point θ of Z
    slip: float = 0.0  # sum of the estimated errors so far, along the path, as a time
    ratio: float = 0.0  # of the second to the first term of the expansion in λ, at first order
    erred: float = 1.0  # estimated error of the step, over the tolerance; at most 1


@dataclass
class _End:
    """Where a step ends, before it is accepted."""

    theta: Tensor
    mu: Tensor | None
    pinned: Tensor | None
    lin: Linearization
    outputs: Tensor | None = None
    slip: float = 0.0
    erred: float = 1.0


@dataclass
class Integrator:
    """One run; ``points`` yields its accepted steps."""

    model: Model
    X: Tensor
    Y: Tensor
    loss: Loss
    lam: float
    penalty: Penalty
    force: Callable[[Tensor], Tensor] | None
    kind: str  # of linearization
    tolerance: float
    max_step: float
    inertia: Inertia | None = None
    first: float = 0.0  # λ of the first-order flow, whose integration itself is at λ = 0
    solver: Multipliers = field(default_factory=Multipliers)
    past: deque[Point] = field(
        default_factory=lambda: deque(maxlen=4)
    )  # the last points, the newest at the end
    refused: int = 0
    power: Tensor | None = None  # (n, m), the vector of the largest eigenvalue
    near: tuple[Tensor, Tensor] | None = None  # μ₀ and ν where they were last needed

    # The run

    def points(self, theta: Tensor, tau_end: float) -> Iterator[Point]:
        """Accepted points from ``theta`` at τ = 0 to ``tau_end``.

        Raises
        ------
        NoMultipliersError
            K is singular in floating point, or no step is short enough.
        """
        if self.lam == 0:
            theta = self._to_zero_loss(theta)
        yield self._accept(0.0, _End(theta, None, None, self._linearized(theta, self._sides(theta))))
        h = self.tolerance
        for _ in range(MOST_STEPS):
            now = self.past[-1]
            if now.tau >= tau_end * (1 - 1e-12):
                return
            h = min(h, self.max_step, tau_end - now.tau)
            ratio, end = self._try(h)
            if end is None:
                self.refused += 1
                if h < SHORTEST:
                    raise NoMultipliersError("no step is short enough for this tolerance")
                order = 1 / 2 if len(self.past) == 1 else 1 / 3
                h *= max(0.1, 0.9 * ratio**-order)
                continue
            yield self._accept(now.tau + h, end)
            h *= min(GROWTH, 0.9 * max(ratio, 1e-9) ** (-1 / 3))
        raise NoMultipliersError(f"{MOST_STEPS} steps did not suffice")

    def between(self, tau: float) -> Tensor:
        """θ (d,) at a slow time inside the last step: the polynomial through the last points."""
        points = list(self.past)[-4:]
        return interpolated(points, [point.seen for point in points], tau)

    def time_of(self, event: Event, value: float) -> float:
        """Slow time at which ``event`` came inside the last step, at whose end it has ``value`` ≤ 0."""
        if len(self.past) == 1:
            return self.past[-1].tau
        low, high = self.past[-2].tau, self.past[-1].tau
        return first_zero(lambda tau: event.value(self.between(tau)), low, high, value, 1e-6 * (high - low))

    # A step

    def _try(self, h: float) -> tuple[float, _End | None]:
        """The step's error over the tolerance, and its end; None where it must be shorter."""
        star, b, gamma, share = self._extrapolated(h)
        try:
            end = self._end(star, b, gamma * h, self.past[-1].tau + h)
        except NoMultipliersError:
            if h < SHORTEST or self.lam == 0:
                raise
            return TOO_LONG, None
        size, moved = float(end.theta.norm().clamp(min=1e-300)), end.theta - self.past[-1].theta
        error = share * (end.theta - star)
        # Else every kink would ask for tiny steps; and where an optimizer has inertia its flow is no closer to it for them
        held = self.inertia is None and (self.model.smooth or self.model.kinks is not None)
        fast = held and float(moved.norm()) > FAST * h * size
        ratio = float(error.norm()) / (size * self.tolerance / (FINER if fast else 1.0))
        if not ratio <= 2:  # also NaN
            return (ratio if ratio < torch.inf else TOO_LONG), None
        end.outputs = outputs(self.model, end.theta, self.X)
        if not self._possible(end):
            return TOO_LONG, None
        end.slip = float(error @ moved) / max(float(moved @ moved), 1e-300) * h
        end.erred = min(1.0, max(LEAST, float(error.norm()) / (size * self.tolerance)))
        return ratio, end

    def _possible(self, end: _End) -> bool:
        """Whether a gradient flow can go there: L_λ does not rise, or at λ = 0 the point is on Z."""
        assert end.outputs is not None
        objective = self._objective(end.theta, end.outputs)
        if self.lam == 0:
            return objective <= self.tolerance * float(self.Y.norm())
        driven = self.force is not None or self.inertia is not None
        return driven or objective <= self.past[-1].objective * (1 + 1e-9)

    def _objective(self, theta: Tensor, F: Tensor) -> float:
        if self.lam == 0:
            return float((F - self.Y).norm())
        return float(self.loss.value(F, self.Y)) + 2 * self.lam * self.penalty.value(theta)

    def _step(self, star: Tensor, b: Tensor, length: float, tau: float) -> Step:
        inertia: float | Tensor
        if self.inertia is None:
            metric = self.penalty.metric(star)
            push, inertia = metric * star - self.penalty.gradient(star), 1.0
        else:
            inertia = self.inertia.at(star, tau)
            metric, push = inertia, self.inertia.force(star, inertia)
            if not self.inertia.decoupled:
                metric = self.penalty.metric(star)
                push = push + metric * star - self.penalty.gradient(star)
        if self.force is not None:
            push = push + self.force(star)
        if self.first:
            sides = self._sides(star)
            lin = self._linearized(star, sides)
            mu0, nu = self._near(lin)
            push = push + self.first * first_order.correction(
                lambda theta: self._linearized(theta, sides), lin, mu0, nu
            )
        return Step(length, metric, inertia * b + length * push, inertia)

    def _end(self, star: Tensor, b: Tensor, length: float, tau: float) -> _End:
        step, mu, sides = self._step(star, b, length, tau), self._likely(tau), self._sides(star)
        # From a good guess the search ends just where it may: where there is one, short of what the step itself errs
        share = SHARE if self.model.kinks else min(SHARE, OWN * self.past[-1].erred)
        at, accuracy = star, share * self._allowed(star)
        attempt = 0
        while True:
            lin = self._linearized(at, sides)
            at, mu = step.end(lin, self.Y, self.loss, self.lam, mu, self.solver, accuracy)
            if sides is None or self.model.kinks is None:
                return _End(at, mu, None, lin)
            E, W = self.model.matrices(at).values()
            stiffness = float(1 + length * step.metric) / length  # kinks are held under plain decay only
            other = sides.fitting(self.X @ E, mu @ W.mT, stiffness, self.model.kinks, attempt >= SWITCHES)
            if other is None:
                return _End(at, mu, sides.pinned, lin)
            sides, attempt = other, attempt + 1

    def _likely(self, tau: float) -> Tensor:
        """A guess of μ (n, m) at τ: where smooth, on the polynomial through the last three."""
        known = [(point, point.mu) for point in list(self.past)[-3:] if point.mu is not None]
        if not known:
            return torch.zeros_like(self.Y)
        if self.model.kinks:
            return known[-1][1]
        points, multipliers = zip(*known, strict=True)
        return interpolated(points, multipliers, tau)

    def _allowed(self, theta: Tensor) -> float:
        """Error of θ that a step may have: a share of ‖θ‖, and on F no more than what keeps the constraint."""
        last, error = self.past[-1], self.tolerance * float(theta.norm())
        if self.lam == 0:
            F = self.tolerance * float(self.Y.norm())
        elif last.mu is None:
            return error
        else:
            F = self.lam * float(last.mu.norm())
        return min(error, F / max(last.sharpness, 1e-300) ** 0.5)

    def _sides(self, theta: Tensor) -> Sides | None:
        if self.model.kinks is None:
            return None
        pinned = self.past[-1].pinned if self.past else None
        return Sides.at(self.X @ self.model.matrices(theta)["E"], pinned)

    def _linearized(self, theta: Tensor, sides: Sides | None) -> Linearization:
        return linearize(self.model, theta, self.X, self.kind, sides)

    def _extrapolated(self, h: float) -> tuple[Tensor, Tensor, float, float]:
        """θ* at τ + h, BDF2's b and γ, and which share of θ₊ − θ* is the step's error (Milne's device)."""
        now = self.past[-1]
        if len(self.past) == 1:
            return now.theta, now.theta, 1.0, 0.5  # the first step is an implicit Euler step
        before = self.past[-2]
        omega = h / (now.tau - before.tau)
        gamma = (1 + omega) / (1 + 2 * omega)
        b = ((1 + omega) ** 2 * now.theta - omega**2 * before.theta) / (1 + 2 * omega)
        star = now.theta + omega * (now.theta - before.theta)
        if len(self.past) == 2:
            return star, b, gamma, 0.3
        first = self.past[-3]
        rise = (now.theta - before.theta) / (now.tau - before.tau)
        bend = (rise - (before.theta - first.theta) / (before.tau - first.tau)) / (now.tau - first.tau)
        ratio = gamma * h / (h + now.tau - first.tau)
        return star + h * (h + now.tau - before.tau) * bend, b, gamma, ratio / (1 + ratio)

    def _accept(self, tau: float, end: _End) -> Point:
        F = outputs(self.model, end.theta, self.X) if end.outputs is None else end.outputs
        drift = (
            torch.nan if end.mu is None else float((self.loss.gradient(F, self.Y) + self.lam * end.mu).norm())
        )
        slip = end.slip + (self.past[-1].slip if self.past else 0.0)
        objective, sharpness = self._objective(end.theta, F), self._sharpness(end.lin, F)
        if self.inertia is not None:
            self.inertia.passed(end.theta, tau)
        seen, ratio = end.theta, 0.0
        if self.first:
            lin = self._linearized(end.theta, self._pinned_sides(end))
            _, nu = self._near(lin)
            beside, further = (first_order.shift(lin, u) for u in (nu, self._solve(lin, nu, None)))
            seen = seen + self.first * beside
            ratio = self.first * float(further.norm() / beside.norm().clamp(min=1e-300))
        made = Point(
            tau, end.theta, F, end.mu, end.pinned, objective, drift, sharpness, seen, slip, ratio, end.erred
        )  # fmt: skip
        self.past.append(made)
        return made

    def _near(self, lin: Linearization) -> tuple[Tensor, Tensor]:
        """μ₀ and ν of the first-order flow."""
        self.near = first_order.multipliers(lin, self._solve, self.near)
        return self.near

    def _solve(self, lin: Linearization, u: Tensor, guess: Tensor | None) -> Tensor:
        accuracy = SHARE**2 * self.tolerance * float(lin.theta.norm()) * min(1.0, 1 / self.first)
        return self.solver.solve(lin, u, 1.0, 0.0, torch.zeros_like(u) if guess is None else guess, accuracy)

    def _pinned_sides(self, end: _End) -> Sides | None:
        if self.model.kinks is None:
            return None
        return Sides.at(self.X @ self.model.matrices(end.theta)["E"], end.pinned)

    def _sharpness(self, lin: Linearization, F: Tensor) -> float:
        """Largest eigenvalue of SᵀJJᵀS, by a power iteration that goes on from step to step."""
        S, most = self.loss.curvature(F, self.Y), POWERS[self.power is not None]
        enough, product = (SETTLED, lin.rough_product) if self.Y.numel() > FACTORED else (0.0, lin.product)
        # a product with K is cheaper, but knows of pinned pre-activations
        times = product if self.model.kinks is None else lambda w: lin.jvp(lin.vjp(w))
        image = self._spread() if self.power is None else self.power
        size = 0.0
        for _ in range(most):
            u = image / image.norm().clamp(min=1e-300)
            image = S.root_transposed(times(S.root(u)))
            size = float((u * image).sum())
            if float((image - size * u).norm()) < enough * size:
                break
        self.power = image
        return size

    def _spread(self) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(self.Y.shape, generator=generator, dtype=self.Y.dtype)

    def _to_zero_loss(self, theta: Tensor) -> Tensor:
        for _ in range(50):
            lin = self._linearized(theta, None)
            r = lin.outputs - self.Y
            if r.norm() <= CLOSE * self.Y.norm():
                return theta
            accuracy = 0.1 * CLOSE * float(theta.norm())
            theta = theta - lin.vjp(self.solver.solve(lin, r, 1.0, 0.0, torch.zeros_like(r), accuracy))
        raise NoMultipliersError("theta0 is too far from Z: Gauss–Newton steps do not lead there")


def interpolated(points: Sequence[Point], values: Sequence[Tensor], tau: float) -> Tensor:
    """The polynomial through ``values`` at ``points``, at slow time ``tau``."""
    total = torch.zeros_like(values[0])
    for i, (one, value) in enumerate(zip(points, values, strict=True)):
        weight = 1.0
        for j, other in enumerate(points):
            if i != j:
                weight *= (tau - other.tau) / (one.tau - other.tau)
        total = total + weight * value
    return total
