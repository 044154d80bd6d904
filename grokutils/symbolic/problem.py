"""A small network on its training samples, written out entry by entry in SymPy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import sympy as sp


def entries(name: str, rows: int, cols: int = 1) -> sp.Matrix:
    """A (rows, cols) matrix of real symbols name_ij, counted from 1 (name_i for a column)."""
    index = (lambda i, j: f"{i + 1}") if cols == 1 else (lambda i, j: f"{i + 1}{j + 1}")
    return sp.Matrix(rows, cols, lambda i, j: sp.Symbol(f"{name}_{index(i, j)}", real=True))


@dataclass(frozen=True)
class Problem:
    """A network on its training samples: outputs F (km, 1) in parameters θ (d, 1), to be equal to targets y (km, 1).

    Everything is in the study's convention, L = ‖F − y‖². ``theta`` holds symbols; F and y hold any expressions.
    """

    theta: sp.Matrix
    F: sp.Matrix
    y: sp.Matrix

    @cached_property
    def loss(self) -> sp.Expr:
        """L = ‖F − y‖²."""
        return sum((r**2 for r in self.F - self.y), sp.S.Zero)

    def regularized(self, lam) -> sp.Expr:
        """L_λ = L + λ‖θ‖² (eq. 1)."""
        return self.loss + lam * sum(t**2 for t in self.theta)

    @cached_property
    def J(self) -> sp.Matrix:
        """∇F, (km, d)."""
        return sp.Matrix(self.F).jacobian(self.theta)

    @cached_property
    def gradient(self) -> sp.Matrix:
        """∇L = 2Jᵀ(F − y), (d, 1)."""
        return 2 * self.J.T * (self.F - self.y)

    @cached_property
    def hessian(self) -> sp.Matrix:
        """∇²L = 2JᵀJ + 2 Σᵢ (Fᵢ − yᵢ)∇²Fᵢ, (d, d); the sum vanishes on Z."""
        return self.gradient.jacobian(self.theta)

    @cached_property
    def P(self) -> sp.Matrix:
        """I − Jᵀ(JJᵀ)⁻¹J, (d, d): the projection on the tangent space where J has full rank."""
        K = self.J * self.J.T
        return sp.eye(len(self.theta)) - self.J.T * K.adjugate() * self.J / K.det(method="berkowitz")

    def at(self, formula, point: Iterable):
        """``formula`` with θ = ``point``."""
        return formula.subs(dict(zip(self.theta, point, strict=True)), simultaneous=True)

    def tangent(self, point: Iterable) -> sp.Matrix:
        """A basis of the null space of J at ``point``, as columns: the tangent space of Z where J has full rank."""
        return _columns(self.at(self.J, point).nullspace(), len(self.theta))

    def normal(self, point: Iterable) -> sp.Matrix:
        """A basis of the row space of J at ``point``, as columns: the normal space of Z where J has full rank."""
        return _columns([row.T for row in self.at(self.J, point).rowspace()], len(self.theta))


def two_layer(
    E: sp.Matrix, W: sp.Matrix, X: sp.Matrix, Y: sp.Matrix, sigma: Callable | None = None
) -> Problem:
    """σ(XE)W against Y, with the symbols among the entries of E and W as θ, in that order, row by row.

    ``sigma`` maps an expression to an expression; without it the network is linear.
    """
    H = X * E if sigma is None else (X * E).applyfunc(sigma)
    theta = [entry for entry in [*E, *W] if entry.is_Symbol]
    return Problem(sp.Matrix(theta), sp.Matrix(list(H * W)), sp.Matrix(list(Y)))


def _columns(vectors: list, d: int) -> sp.Matrix:
    return sp.Matrix.hstack(*vectors) if vectors else sp.zeros(d, 0)


def taylor(formula, x: sp.Symbol, order: int):
    """(T, r) with formula = T + x^(order + 1) r, T the Taylor polynomial at x = 0; scalar or matrix, no limit taken.

    The remainder is O(x^(order + 1)) exactly where r stays bounded.
    """
    T = sum(
        (formula.diff(x, k).subs(x, 0) * x**k / sp.factorial(k) for k in range(1, order + 1)),
        formula.subs(x, 0),
    )
    return T, sp.simplify((formula - T) / x ** (order + 1))
