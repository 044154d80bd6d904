"""Grokking as norm minimization on the zero-loss manifold: the package behind the book.

Import the modules: ``from grokutils import tasks, isolated, fourier, records, figures, claims``.
"""

from ._version import __version__

__all__ = ["__version__"]
