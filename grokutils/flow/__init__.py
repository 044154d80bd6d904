"""Training with small weight decay on its slow time scale τ = 2λt (what follows from the study's theorem 4.14).

:func:`follow` integrates it implicitly, for any model and loss, at the λ of a real run, in the limit λ → 0, or to first order in λ;
:class:`Landing` says when a run has come so close to Z that these expansions hold.
:func:`reference` does the same for small networks by other means, to nearly all digits, and :func:`landing` is the fast phase
without decay.
"""

from .edge import EdgeAdam, Oscillation, edge_of_adam, edge_oscillation
from .events import Event, held_out_accuracy, held_out_loss, memorized
from .first_order import Landing
from .follow import follow
from .noise import Adam, Inertia, LabelNoise, Minibatches, QuietAdam, squared_slopes
from .penalties import Decay, GroupNorms, NuclearNorms, Penalty, ProductNorm, WeightedDecay
from .reference import landing, reference

__all__ = [
    "Adam",
    "Decay",
    "EdgeAdam",
    "Event",
    "GroupNorms",
    "Inertia",
    "LabelNoise",
    "Landing",
    "Minibatches",
    "NuclearNorms",
    "Oscillation",
    "Penalty",
    "ProductNorm",
    "QuietAdam",
    "WeightedDecay",
    "edge_of_adam",
    "edge_oscillation",
    "follow",
    "held_out_accuracy",
    "held_out_loss",
    "landing",
    "memorized",
    "reference",
    "squared_slopes",
]
