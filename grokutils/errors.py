"""What can go wrong in a computation whose arguments were right. Wrong arguments raise ``ValueError``."""

from __future__ import annotations

from typing import Any


class GrokutilsError(ArithmeticError):
    """Base of the errors below."""


class SingularJacobianError(GrokutilsError):
    """J has lost full rank: θ is a singular point, and what was asked for is not defined there."""


class SingularGramError(GrokutilsError):
    """HHᵀ + λI is not positive definite in floating point: the readout is not determined."""


class NoMultipliersError(GrokutilsError):
    """(cK + λH⁻¹)μ = u has no solution in floating point: K is singular, or nearly so."""


class KinkError(GrokutilsError):
    """F has no derivative at θ: a pre-activation sits where the activation bends."""


class ProjectionError(GrokutilsError):
    """The iteration found no point of Z, or none that is nearest."""


class _RecordedError(GrokutilsError):
    def __init__(self, message: str, records: Any):
        super().__init__(message)
        self.records = records


class StoppedError(_RecordedError):
    """A flow that could not go on. What it had reached is in ``records``, an ``xarray.Dataset``."""


class DivergedError(_RecordedError):
    """A step was too large for a run. ``records``, an ``xarray.Dataset``, holds all up to the last good record."""
