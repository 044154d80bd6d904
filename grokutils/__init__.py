"""Grokking as norm minimization on the zero-loss manifold: the package behind the book.

Its tools at the top, ``from grokutils import two_layer, modular, train, follow, predict_delay``, and the modules that they
come from: ``from grokutils import tasks, isolated, fourier, records, figures, claims``.
"""

from importlib import import_module

from ._version import __version__

PUBLIC = {
    "models": ("from_module", "mlp", "transformer", "two_layer"),
    "tasks": ("from_tensors", "modular"),
    "losses": ("cross_entropy", "squared_error"),
    "linearization": ("linearize",),
    "flow": ("follow",),
    "training": ("train",),
    "delay": ("predict_delay",),
    "schedules": ("from_theory",),
    "solves": ("minimize_norm",),
}
_HOME = {name: module for module, names in PUBLIC.items() for name in names}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str):
    """Import a public name's module only when it is asked for: PyTorch alone takes a second."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
