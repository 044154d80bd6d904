"""Isolated dynamics of a two-layer network: the first layer moves, the second is always optimal."""

from .closed_form import SingularGramError, cost, readout, velocity
from .simulation import DivergedError, simulate

__all__ = ["DivergedError", "SingularGramError", "cost", "readout", "simulate", "velocity"]
