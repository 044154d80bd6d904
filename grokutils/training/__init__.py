"""Training of any model: gradient descent as in the study, and every optimizer of torch.optim.

Many runs (seeds, splits and settings) train side by side.
"""

from .data import shuffled
from .hooks import clamp_norm, filter_gradient, freeze
from .loop import train

__all__ = ["clamp_norm", "filter_gradient", "freeze", "shuffled", "train"]
