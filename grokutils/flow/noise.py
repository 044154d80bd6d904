"""What noise adds to a slow flow: label noise under gradient descent and AdamW, minibatches, and the geometry of Adam.

Squared error with labels that are drawn anew at each step, y + ξ with ξ ~ N(0, d²): the residual keeps fluctuating with a variance that
its own pull and the noise balance, and F's curvature turns these fluctuations into a force along Z.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from .. import _checks
from ..linearization import linearize
from ..models import Model, TwoLayer

MOST_GROWTH = 20.0  # of log v̂ in one step that is tried: a longer one is refused anyway


class Inertia(Protocol):
    """What a flow asks of I in I∘dθ/dτ = Jᵀμ − decay + force.

    Attributes
    ----------
    decoupled : bool
        Whether decay is I∘θ, as AdamW's, in place of the penalty's ∇h.
    """

    decoupled: bool

    def at(self, theta: Tensor, tau: float) -> Tensor:
        """I (d,), positive, at the end of a step that is tried."""

    def force(self, theta: Tensor, inertia: Tensor) -> Tensor:
        """(d,), on the side of Jᵀμ."""

    def passed(self, theta: Tensor, tau: float) -> None:
        """Told of each accepted point, in order."""


def squared_slopes(model: Model, theta: Tensor, X: Tensor) -> Tensor:
    """The diagonal of JᵀJ, (d,), as a differentiable function of θ; its sum is tr K."""
    if isinstance(model, TwoLayer):
        E, W = model.matrices(theta).values()
        Z = X @ E
        slope = _slope(model, Z)
        return torch.cat(
            [
                (X.square().mT @ slope.square() * W.square().sum(1)).flatten(),
                model.activation.value(Z).square().sum(0)[:, None].expand(W.shape).flatten(),
            ]
        )
    return torch.func.jacrev(lambda t: model(t, X).flatten())(theta).square().sum(0)


def _slope(model: TwoLayer, Z: Tensor) -> Tensor:
    """σ′(Z) with a graph: σ's own derivative, where the activation's formula has none."""
    return torch.func.grad(lambda z: model.activation.value(z).sum())(Z)


class LabelNoise:
    """h = ½‖θ‖² + s tr K(θ), the penalty of gradient descent with label noise; s = lr d²/(w (nm)²).

    Per step the noise moves θ by −lr P (lr d²/(nm)²) ∇tr K along Z. Its force, over decay's wθ, is s∇tr K.

    Parameters
    ----------
    model : network.
    X : (n, …) training inputs.
    strength : s.
    decay : 1, or 0 for noise without weight decay (slow time is then that of the noise).

    Raises
    ------
    ValueError
        A strength or decay below 0.
    """

    def __init__(self, model: Model, X: Tensor, strength: float, decay: float = 1.0):
        self.model, self.X = model, X
        self.strength, self.decay = _checks.real("strength", strength, 0), _checks.real("decay", decay, 0)

    def value(self, theta: Tensor) -> float:
        """h, a number."""
        trace = float(squared_slopes(self.model, theta, self.X).sum())
        return 0.5 * self.decay * float(theta @ theta) + self.strength * trace

    def gradient(self, theta: Tensor) -> Tensor:
        """∇h, (d,)."""
        slope = torch.func.grad(lambda t: squared_slopes(self.model, t, self.X).sum())(theta)
        return self.decay * theta + self.strength * slope

    def metric(self, theta: Tensor) -> float:
        """The decay alone: the noise's part is taken explicitly."""
        return self.decay


class Adam:
    """√v + ε of Adam under label noise, as the inertia of its flow, and the noise's own force.

    Where the noise outweighs the mean gradient, v = (2d/nm)² diag(JᵀJ) up to the memory that β₂ leaves it: dv/dτ = (v(θ) − v)/memory,
    memory = lr w/(1 − β₂). In the metric √v label noise drifts as under gradient descent, with J v^(−1/4) in place of J.

    Parameters
    ----------
    model : network.
    X : (n, …) training inputs.
    noise : d.
    outputs : nm, or how many terms the mean loss averages over.
    frozen : θ (d,) at which v stays; None lets it follow.
    push : lr d²/(w (nm)²), the strength of the noise's force; 0 leaves it out.
    memory : of v, in slow time; 0 has v follow at once.
    start : v (d,) at τ = 0 where it remembers; v(θ) where None.
    epsilon : Adam's.
    decoupled : AdamW's decay; False is Adam with an ℓ2 penalty in the gradient.

    Raises
    ------
    ValueError
        A noise that is not positive, or another number below 0.
    """

    def __init__(
        self, model: Model, X: Tensor, *, noise: float, outputs: int, frozen: Tensor | None = None, push: float = 0.0,
        memory: float = 0.0, start: Tensor | None = None, epsilon: float = 1e-8, decoupled: bool = True,
    ):  # fmt: skip
        self.model, self.X, self.decoupled = model, X, decoupled
        self.scale = (
            2 * _checks.real("noise", noise, 0, open_low=True) / _checks.integer("outputs", outputs, 1)
        )
        self.push, self.memory = _checks.real("push", push, 0), _checks.real("memory", memory, 0)
        self.epsilon = _checks.real("epsilon", epsilon, 0)
        self.held = None if frozen is None else self._v(frozen)
        self.start = start
        self._last: tuple[float, Tensor, Tensor] | None = None  # τ, v and v(θ) at the last accepted point

    def _v(self, theta: Tensor) -> Tensor:
        return self.scale**2 * squared_slopes(self.model, theta, self.X)

    def _state(self, theta: Tensor, tau: float) -> tuple[Tensor, Tensor]:
        """v and v(θ), (d,) each; linear in τ between the last point and this one, the lag is exact."""
        now = self._v(theta)
        if self._last is None or not self.memory or tau <= self._last[0]:
            return now, now
        then, v, target = self._last
        x = (tau - then) / self.memory
        kept = torch.exp(torch.tensor(-x, dtype=now.dtype))
        late = (1 - kept) / x
        return kept * v + (late - kept) * target + (1 - late) * now, now

    def at(self, theta: Tensor, tau: float) -> Tensor:
        """√v + ε, (d,)."""
        v = self._state(theta, tau)[0] if self.held is None else self.held
        return v.clamp(min=0).sqrt() + self.epsilon

    def force(self, theta: Tensor, inertia: Tensor) -> Tensor:
        """−push ∇ Σ_a (JᵀJ)_aa/I_a, I held fixed; (d,)."""
        if not self.push:
            return torch.zeros_like(theta)
        return -self.push * torch.func.grad(
            lambda t: (squared_slopes(self.model, t, self.X) / inertia).sum()
        )(theta)

    def passed(self, theta: Tensor, tau: float) -> None:
        """Keep v where an accepted step ended."""
        if self.held is None and self.memory:
            v, target = self._state(theta, tau)
            if self._last is None and self.start is not None:
                v = self.start
            self._last = tau, v, target


class QuietAdam:
    """√v̂ + ε of AdamW without noise, as the inertia of its flow: v̂ is a state of the flow.

    In a full batch's flow the mean gradient is g = −w I∘(θ + θ′). Adam's average v̂ of its square, with the correction for its start, moves by
    (1 − β₂)/(1 − β₂^t)·(g² − v̂) in step t. As long as ε is small beside √v̂ that is v̂′ = ((w(θ + θ′))² − 1)v̂ in the time
    log(β₂^(−t) − 1).

    Parameters
    ----------
    start : v̂ (d,), positive where weights move, at τ = 0.
    step : of the run at τ = 0, at least 1.
    lr, weight_decay : of the run; AdamW's decay.
    beta2 : in (0, 1).
    epsilon : Adam's.

    Raises
    ------
    ValueError
        A number out of range.
    """

    decoupled = True

    def __init__(
        self, start: Tensor, step: int, *, lr: float, weight_decay: float, beta2: float = 0.999, epsilon: float = 1e-8
    ):  # fmt: skip
        self.step = _checks.integer("step", step, 1)
        self.w = _checks.real("weight_decay", weight_decay, 0, open_low=True)
        self.pace = _checks.real("lr", lr, 0, open_low=True) * self.w
        self.rate = -math.log(_checks.real("beta2", beta2, 0, 1, open_low=True, open_high=True))
        self.epsilon = _checks.real("epsilon", epsilon, 0)
        self._tau, self._v = 0.0, start
        self._theta: Tensor | None = None

    def _clock(self, tau: float) -> float:
        """log(β₂^(−t) − 1) at the step t that belongs to ``tau``."""
        t = self.rate * (self.step + tau / self.pace)
        return t + math.log1p(-math.exp(-t))

    def _now(self, theta: Tensor, tau: float) -> Tensor:
        if self._theta is None or tau <= self._tau:
            return self._v
        fading, passed = self._fading(theta, tau)
        return self._v * torch.exp((-fading * passed).clamp(max=MOST_GROWTH))

    def _fading(self, theta: Tensor, tau: float) -> tuple[Tensor, float]:
        """1 − (w(θ + θ′))² (d,) since the last accepted point, and the time of v̂ that passed."""
        assert self._theta is not None
        drift = theta + (theta - self._theta) / (tau - self._tau)
        return 1 - (self.w * drift) ** 2, self._clock(tau) - self._clock(self._tau)

    def at(self, theta: Tensor, tau: float) -> Tensor:
        """√v̂ + ε, (d,)."""
        return self._now(theta, tau).sqrt() + self.epsilon

    def force(self, theta: Tensor, inertia: Tensor) -> Tensor:
        """None, (d,)."""
        return torch.zeros_like(theta)

    def passed(self, theta: Tensor, tau: float) -> None:
        """Keep v̂ where an accepted step ended."""
        self._v = self._now(theta, tau)
        self._tau, self._theta = tau, theta.clone()


class Minibatches:
    """The force that minibatches of a plateau add to dθ/dτ, for squared error.

    A pass of gradient descent in batches of b follows gradient flow on C + (lr/4) mean_k ‖∇C_k‖², C_k the loss of a batch (Smith et al.
    2021). What exceeds a full batch's (lr/4)‖∇C‖² is (lr/4)(n − b)/((n − 1) b) times the variance of the samples' gradients.
    On the plateau the residual is −λμ with (K + λI)μ = Jθ, and only the change of Jᵢ at fixed μ pushes along Z.

    Parameters
    ----------
    model : network.
    X : (n, …) training inputs.
    outputs : m of each sample.
    lr : learning rate of the run.
    weight_decay : of the run, PyTorch's w.
    batch_size : b.

    Raises
    ------
    ValueError
        A batch size outside [1, n], or other numbers out of range.
    """

    def __init__(
        self, model: Model, X: Tensor, outputs: int, lr: float, weight_decay: float, batch_size: int
    ):
        n = len(X)
        b = _checks.integer("batch_size", batch_size, 1, n)
        w = _checks.real("weight_decay", weight_decay, 0, open_low=True)
        self.model, self.X, self.m = model, X, _checks.integer("outputs", outputs, 1)
        self.lam = n * outputs * w / 2
        spread = (n - b) / ((n - 1) * b) if n > 1 else 0.0
        # The gradient of one sample's mean loss is (2/m) Jᵢᵀrᵢ = −n w Jᵢᵀμᵢ
        self.strength = _checks.real("lr", lr, 0, open_low=True) / (4 * w) * spread * (n * w) ** 2

    def __call__(self, theta: Tensor) -> Tensor:
        """(d,)"""
        if not self.strength:
            return torch.zeros_like(theta)
        lin = linearize(self.model, theta, self.X)
        mu = lin.solve(lin.jvp(theta), 1.0, self.lam)
        whole = lin.vjp(mu) / len(self.X)

        def variance(t: Tensor) -> Tensor:
            def pulled(x: Tensor, u: Tensor) -> Tensor:  # Jᵢᵀμᵢ
                return torch.func.grad(lambda s: (self.model(s, x[None])[0] * u).sum())(t)

            return (torch.func.vmap(pulled)(self.X, mu) - whole).square().sum() / len(self.X)

        # ∇ of the variance at fixed μ; the mean is held too, which changes nothing: deviations from it sum to 0
        return -self.strength * torch.func.grad(variance)(theta)
