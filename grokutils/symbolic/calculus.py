"""Matrix calculus by differentials, rule by rule.

Write R in terms of a matrix E; :func:`differential` gives dR in terms of dE and says which rules it used;
:func:`read_off` brings dR to the form Tr(Gᵀ dE), in which G is the gradient.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from functools import cache, reduce
from typing import NamedTuple

import sympy as sp
from sympy.matrices.expressions.hadamard import hadamard_power
from sympy.matrices.expressions.matexpr import MatrixExpr


@cache
def unknown(name: str, order: int = 0) -> type[sp.Function]:
    """A differentiable function without a formula, such as σ. Its derivatives are name_prime, name_prime_prime, …"""

    def fdiff(self, argindex=1):
        return unknown(name, order + 1)(*self.args)

    def latex(self, printer):
        return rf"{sp.latex(sp.Symbol(name))}{chr(39) * order}\left({printer._print(self.args[0])}\right)"

    return type(name + "_prime" * order, (sp.Function,), {"nargs": 1, "fdiff": fdiff, "_latex": latex})


class Apply(MatrixExpr):
    """A function of one variable applied to every entry of a matrix: ``Apply(sp.tanh, X * E)``."""

    def __new__(cls, function: Callable, matrix: MatrixExpr):
        z = sp.Symbol("z", real=True)
        function = function if isinstance(function, sp.Lambda) else sp.Lambda(z, function(z))
        return super().__new__(cls, function, matrix)

    function = property(lambda self: self.args[0])
    arg = property(lambda self: self.args[1])
    shape = property(lambda self: self.args[1].shape)

    def slope(self) -> Apply:
        """The derivative of the function, applied to the same matrix."""
        (z,) = self.function.variables
        return Apply(sp.Lambda(z, self.function.expr.diff(z)), self.arg)

    def _latex(self, printer):
        return printer._print(self.function(sp.Symbol("{" + printer._print(self.arg) + "}")))


class Step(NamedTuple):
    """One use of a rule: the differential of ``formula`` is ``result``."""

    rule: str
    formula: sp.Basic
    result: sp.Basic


def _product(e, d):
    c, factors = e.as_coeff_matrices()
    if d(c) != 0:
        raise ValueError(f"formula holds {e}: a scalar that moves has no rule here")
    turns = [[*factors[:i], d(f), *factors[i + 1 :]] for i, f in enumerate(factors)]
    return c * reduce(operator.add, (reduce(operator.mul, turn) for turn in turns))


def _hadamard(e, d):
    turns = [[*e.args[:i], d(f), *e.args[i + 1 :]] for i, f in enumerate(e.args)]
    kept = [sp.hadamard_product(*turn) for turn in turns if not any(f.is_ZeroMatrix for f in turn)]
    return reduce(operator.add, kept, sp.ZeroMatrix(*e.shape))


def _hadamard_power(e, d):
    return e.exp * sp.hadamard_product(hadamard_power(e.base, e.exp - 1), d(e.base))


def _elementwise(e, d):
    return sp.hadamard_product(e.slope(), d(e.arg))


def _scaled(e, d):
    c, rest = e.as_independent(sp.Trace)
    if not isinstance(rest, sp.Trace | sp.Add):
        raise ValueError(f"formula holds {e}: a scalar that moves has no rule here")
    return c * d(rest)


RULES: dict[type, tuple[str, Callable]] = {
    sp.MatAdd: ("sum", lambda e, d: reduce(operator.add, map(d, e.args))),
    sp.Add: ("sum", lambda e, d: reduce(operator.add, map(d, e.args))),
    sp.MatMul: ("product", _product),
    sp.Mul: ("constant factor", _scaled),
    sp.HadamardProduct: ("Hadamard product", _hadamard),
    sp.HadamardPower: ("Hadamard power", _hadamard_power),
    sp.Transpose: ("transpose", lambda e, d: d(e.arg).T),
    sp.Inverse: ("inverse", lambda e, d: -e * d(e.arg) * e),
    sp.Trace: ("trace", lambda e, d: sp.trace(d(e.arg))),
    Apply: ("elementwise", _elementwise),
}


def differential(formula, moving: dict, steps: list[Step] | None = None):
    """The differential of a matrix formula (or of a sum of traces) when the symbols in ``moving`` move.

    ``moving`` maps each MatrixSymbol that moves to its own differential, a symbol dE or any formula; all other
    symbols are constant. Each rule of :data:`RULES` that is used is appended to ``steps``, innermost first.

    Raises
    ------
    ValueError
        A formula holding an operation without a rule.
    """

    @cache  # each subformula once, as in the text
    def d(e):
        if e in moving:
            return moving[e]
        if not e.has(*moving):
            return sp.ZeroMatrix(*e.shape) if getattr(e, "is_Matrix", False) else sp.S.Zero
        for kind, (name, rule) in RULES.items():
            if isinstance(e, kind):
                result = rule(e, d)
                if steps is not None:
                    steps.append(Step(name, e, result))
                return result
        allowed = ", ".join(kind.__name__ for kind in RULES)
        raise ValueError(f"formula = {formula}: holds {type(e).__name__}, must be made of {allowed}")

    return d(formula)


def read_off(dR, dE: sp.MatrixSymbol):
    """The gradient G (shape of dE) for which the scalar differential ``dR`` is Tr(Gᵀ dE).

    Traces are turned until dE stands last: Tr(C P N Q) = Tr((Q C P) N), Tr(C Nᵀ) = Tr(Cᵀ N),
    Tr(C (S ⊙ N)) = Tr((Cᵀ ⊙ S)ᵀ N).

    Raises
    ------
    ValueError
        A differential that is not a sum of traces linear in dE.
    """
    if isinstance(dR, sp.Add):
        return reduce(operator.add, (read_off(term, dE) for term in dR.args))
    c, rest = dR.as_independent(sp.Trace, as_Add=False)
    if isinstance(rest, sp.Trace):
        return c * _pull(sp.Identity(rest.arg.shape[0]), rest.arg, dE)
    if isinstance(rest, sp.Add):
        return c * read_off(rest, dE)
    raise ValueError(f"dR holds {dR}: must be a sum of traces")


def _pull(C, N, dE):
    """G with Tr(C N) = Tr(Gᵀ dE): the adjoint of each rule, from the outside in."""
    if dE == N:
        return C.T
    if isinstance(N, sp.MatAdd):
        return reduce(operator.add, (_pull(C, term, dE) for term in N.args if term.has(dE)))
    if isinstance(N, sp.Transpose):
        return _pull(C.T, N.arg, dE)
    if isinstance(N, sp.MatMul | sp.HadamardProduct):
        with_dE = [i for i, factor in enumerate(N.args) if factor.has(dE)]
        if len(with_dE) == 1:
            i = with_dE[0]
            if isinstance(N, sp.MatMul):
                return _pull(reduce(operator.mul, [*N.args[i + 1 :], C, *N.args[:i]]), N.args[i], dE)
            others = [factor for j, factor in enumerate(N.args) if j != i]
            return _pull(sp.hadamard_product(C.T, *others).T, N.args[i], dE)
    raise ValueError(f"dR holds {N}: must be linear in {dE}")


def latex(steps: Iterable[Step]) -> str:
    """The steps as aligned LaTeX, one rule a line; symbols named dE and the like are set as differentials."""

    def written(e):
        symbols = sorted(e.atoms(sp.MatrixSymbol), key=str)
        moving = {s: rf"{{\mathrm{{d}}{s.name[1:]}}}" for s in symbols if s.name[0] == "d" and s.name[1:]}
        return re.sub(r"(\{\\mathrm\{d\}\w+\}(\^\{T\})?)", r"\,\1\,", sp.latex(e, symbol_names=moving))

    lines = (
        rf"\mathrm{{d}}\left[{written(s.formula)}\right] &= {written(s.result)} && \text{{({s.rule})}}"
        for s in steps
    )
    return r"\begin{aligned}" + r" \\ ".join(lines) + r"\end{aligned}"
