"""Training with small weight decay on its slow time scale τ = 2λt.

For any small network, by its Jacobian: :func:`simulate`, :func:`gradient_flow`, :func:`landing`. For two-layer networks up
to the study's size, by their structure: :func:`follow`, the flow at the λ of a real run or in the limit λ → 0.
"""

from .dense import StoppedError, gradient_flow, landing, simulate
from .following import follow

__all__ = ["StoppedError", "follow", "gradient_flow", "landing", "simulate"]
