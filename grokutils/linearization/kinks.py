"""Sliding along the kinks of ReLU: which pre-activations an implicit step holds at 0, found as an active set.

Where a pre-activation z = x_i·e_h is pushed towards 0 from both sides, the flow slides along z = 0 with an effective
slope s between those of the two sides (Filippov's solution). A step of length h therefore has three kinds of z: off
(z ≤ 0), on (z ≥ 0) and pinned. The last are held by springs of stiffness 1/SPRING, so that a hidden unit's weights obey

    (1 + γh) D_h e_h = b_h + γh Xᵀ[S_h ⊙ (μWᵀ)_h],    D_h = I + Xᵀdiag(pinned_h)X/SPRING,

which puts D⁻¹ on both sides of J: K = JD⁻¹Jᵀ, with S = 0 where pinned. A spring's force is q = s(μWᵀ): s needs no
equation of its own. The sides belong to the step when no z has the wrong sign and every s lies between the two slopes;
until then those that do not fit are moved, and the step is solved again. Springs on inputs that depend on each other share
their force in one of many ways, so that this can go round in circles; after some rounds nothing is let go any more,
and what is held that should not be the next step sets free.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SPRING = 1e-9  # its force moves a pinned z by SPRING·q: far below every error, far above rounding


@dataclass(frozen=True)
class Sides:
    """``on`` and ``pinned``, booleans (n, width), never both."""

    on: Tensor
    pinned: Tensor

    @classmethod
    def at(cls, Z: Tensor, pinned: Tensor | None = None) -> Sides:
        """As the signs of the pre-activations ``Z`` (n, width) say, but for those that are pinned."""
        pinned = torch.zeros_like(Z, dtype=torch.bool) if pinned is None else pinned
        return cls((Z > 0) & ~pinned, pinned)

    def fitting(
        self, Z: Tensor, pull: Tensor, stiffness: float, slopes: tuple[float, float], hold: bool = False
    ) -> Sides | None:
        """The sides to try next, None if these fit a step that ended at ``Z`` (n, width).

        ``pull`` = μWᵀ; a spring's force is −``stiffness``·z/SPRING; ``slopes`` are those of off and on. With ``hold``
        nothing is let go: what has the wrong sign is pinned.
        """
        wrong = ~self.pinned & (self.on != (Z > 0))
        if hold:
            return Sides(self.on & ~wrong, self.pinned | wrong) if wrong.any() else None
        low, high = (pull * slope for slope in slopes)
        attracts = pull < 0  # towards 0 from both sides, if anything is
        q = Z * (-stiffness / SPRING)
        down = self.pinned & (q > low)
        up = self.pinned & ~down & ((q < high) | ~attracts)
        caught = wrong & attracts
        if not (down | up | wrong).any():
            return None
        return Sides(((self.on ^ wrong) & ~caught) | up, (self.pinned & ~down & ~up) | caught)
