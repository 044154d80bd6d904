"""Isolated dynamics of a two-layer network: the first layer moves, the second is always optimal."""

from .closed_form import cost, readout, velocity
from .simulation import simulate

__all__ = ["cost", "readout", "simulate", "velocity"]
