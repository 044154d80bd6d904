"""Matrix formulas entry by entry, and as functions of torch tensors or NumPy arrays: one formula for all."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce

import numpy as np
import sympy as sp
import torch
from sympy.printing.numpy import NumPyPrinter

from .calculus import Apply


def explicit(formula, values: dict):
    """A matrix formula with explicit matrices in place of its MatrixSymbols, multiplied out.

    ``values`` maps each MatrixSymbol, whose sizes may be symbols, to a matrix of any entries.
    """
    sizes = {
        size: k for symbol, value in values.items() for size, k in zip(symbol.shape, value.shape, strict=True)
    }
    operations = {
        sp.MatAdd: lambda *terms: reduce(operator.add, terms),
        sp.MatMul: lambda *factors: reduce(operator.mul, factors),
        sp.HadamardProduct: lambda *factors: reduce(sp.matrix_multiply_elementwise, factors),
        sp.HadamardPower: lambda matrix, power: matrix.applyfunc(lambda entry: entry**power),
        sp.Transpose: lambda matrix: matrix.T,
        # by minors: no pivot to test for zero, which takes SymPy long
        sp.Inverse: lambda matrix, exponent: matrix.adjugate() / matrix.det(method="berkowitz"),
        sp.Trace: lambda matrix: matrix.trace(),
        Apply: lambda function, matrix: matrix.applyfunc(function),
        sp.Identity: lambda size: sp.eye(sizes.get(size, size)),
    }

    def expand(e):
        if e in values or e in sizes:
            return values.get(e, sizes.get(e))
        if not e.args or isinstance(e, sp.Lambda):
            return e
        return operations.get(type(e), e.func)(*map(expand, e.args))

    return expand(formula)


class _Printer(NumPyPrinter):
    """Python source that means the same for torch tensors and NumPy arrays, with any leading batch dimensions."""

    def __init__(self, sizes: dict):
        super().__init__({"fully_qualified_modules": False, "allow_unknown_functions": True, "inline": True})
        self.sizes = sizes

    def _joined(self, symbol, args):
        return "(" + f" {symbol} ".join(map(self._print, args)) + ")"

    def _print_Symbol(self, e):
        return self.sizes.get(e) or super()._print_Symbol(e)

    def _print_MatMul(self, e):
        c, factors = e.as_coeff_matrices()
        return self._joined("@", factors) if c == 1 else f"({self._print(c)})*{self._joined('@', factors)}"

    def _print_MatAdd(self, e):
        return self._joined("+", e.args)

    def _print_HadamardProduct(self, e):
        return self._joined("*", e.args)

    def _print_HadamardPower(self, e):
        return f"({self._print(e.base)})**{self._print(e.exp)}"

    def _print_Transpose(self, e):
        return f"{self._print(e.arg)}.swapaxes(-1, -2)"

    def _print_Inverse(self, e):
        return f"linalg.inv({self._print(e.arg)})"

    def _print_Trace(self, e):
        return f"{self._print(e.arg)}.diagonal(0, -2, -1).sum(-1)"

    def _print_Identity(self, e):
        return f"eye({self._print(e.shape[0])})"

    def _print_Max(self, e):
        return reduce(lambda left, right: f"maximum({left}, {right})", map(self._print, e.args))

    def _print_Min(self, e):
        return reduce(lambda left, right: f"minimum({left}, {right})", map(self._print, e.args))

    def _print_Apply(self, e):
        (z,) = e.function.variables
        return f"(lambda {self._print(z)}: {self._print(e.function.expr)})({self._print(e.arg)})"


def numeric(arguments: list, formula, backend: str = "torch", functions: dict | None = None) -> Callable:
    """A function of ``arguments`` that evaluates ``formula`` on torch tensors or NumPy arrays, float64.

    An argument is a Symbol, a MatrixSymbol, or a matrix of symbols, which stands for one array of its shape
    (of d entries for a column). Formulas of MatrixSymbols broadcast over leading batch dimensions; explicit
    matrices come out as (..., rows, cols). Under torch the result is differentiable. ``functions`` gives what
    :func:`unknown` left open: ``{"sigma": torch.tanh, "sigma_prime": …}``.

    Raises
    ------
    ValueError
        An unknown backend.
    """
    if backend not in NAMESPACES:
        raise ValueError(f"backend = {backend!r}: must be one of {', '.join(map(repr, NAMESPACES))}")
    sizes = {}
    for a in arguments:
        if isinstance(a, sp.MatrixSymbol):
            sizes |= {size: f"{a.name}.shape[{axis}]" for size, axis in zip(a.shape, (-2, -1), strict=True)}
    nested = [_nested(a) if isinstance(a, sp.MatrixBase) else a for a in arguments]
    modules = [{**NAMESPACES[backend], **(functions or {})}, "numpy"]
    return sp.lambdify(nested, formula, modules=modules, printer=_Printer(sizes), cse=True)


def _nested(matrix) -> list:
    return list(matrix) if matrix.cols == 1 else matrix.tolist()


def _assemble(rows, convert, broadcast, stack):
    """An explicit matrix of entries that may be arrays: (..., rows, cols)."""
    flat = broadcast(*(convert(entry) for row in rows for entry in row))
    return stack(list(flat), -1).reshape((*flat[0].shape, len(rows), len(rows[0])))


def _tensor(value):
    return torch.as_tensor(value, dtype=torch.float64)


def _lifted(function):
    """``function`` for plain numbers too, which a formula may hold, as in sqrt(2), and torch refuses."""
    return lambda *args: function(*map(_tensor, args))


def _select(conditions, values, default=float("nan")):
    result = _tensor(default)
    for condition, value in reversed(list(zip(conditions, values, strict=True))):
        result = torch.where(torch.as_tensor(condition), _tensor(value), result)
    return result


ELEMENTARY = (
    "exp log sqrt sin cos tan sinh cosh tanh arctan abs sign heaviside maximum minimum "
    "less less_equal greater greater_equal"
)
NAMESPACES = {
    "numpy": {"array": lambda rows: _assemble(rows, np.asarray, np.broadcast_arrays, np.stack)},
    "torch": {name: _lifted(getattr(torch, name)) for name in ELEMENTARY.split()}
    | {
        "array": lambda rows: _assemble(rows, _tensor, torch.broadcast_tensors, torch.stack),
        "linalg": torch.linalg,
        "eye": lambda n: torch.eye(n, dtype=torch.float64),
        "select": _select,
    },
}
