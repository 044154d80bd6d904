"""Training of two-layer networks: gradient descent as in the study, SGD, momentum, Adam and AdamW.

Many runs (seeds, splits and settings) train side by side along one leading dimension.
"""

from .data import shuffled
from .loop import DivergedError, train

__all__ = ["DivergedError", "shuffled", "train"]
