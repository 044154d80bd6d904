"""Isolated dynamics of a two-layer network: the first layer moves, the second is always optimal."""

from .closed_form import SingularGramError, cost, readout, velocity

__all__ = ["SingularGramError", "cost", "readout", "velocity"]
