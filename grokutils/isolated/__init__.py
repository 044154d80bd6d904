"""Isolated dynamics of a two-layer network: the first layer moves, the second is always optimal."""

from ..errors import DivergedError, SingularGramError
from .closed_form import cost, readout, velocity
from .simulation import simulate

__all__ = ["DivergedError", "SingularGramError", "cost", "readout", "simulate", "velocity"]
