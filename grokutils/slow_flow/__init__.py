"""Training with small weight decay on its slow time scale τ = 2λt: any small network, or two layers by structure."""

from .dense import StoppedError, gradient_flow, landing, simulate

__all__ = ["StoppedError", "gradient_flow", "landing", "simulate"]
