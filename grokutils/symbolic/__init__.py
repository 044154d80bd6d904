"""Formulas as SymPy objects: networks written out, matrix calculus rule by rule, and their numbers.

:class:`Problem` is a network on its training samples, entry by entry: loss, Jacobian, Hessian, tangent and normal
space. :func:`differential` and :func:`read_off` take the gradient of a matrix formula by the rules of differentials.
:func:`explicit` writes a matrix formula out, and :func:`numeric` evaluates either kind on torch tensors or NumPy arrays.
"""

from .calculus import RULES, Apply, Step, differential, latex, read_off, unknown
from .evaluate import explicit, numeric
from .problem import Problem, entries, taylor, two_layer

__all__ = [
    "RULES",
    "Apply",
    "Problem",
    "Step",
    "differential",
    "entries",
    "explicit",
    "latex",
    "numeric",
    "read_off",
    "taylor",
    "two_layer",
    "unknown",
]
