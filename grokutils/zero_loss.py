"""The zero-loss set Z = {θ : F(θ) = y} of any network: Jacobian, tangent space, nearest point.

A network is a model, or any callable ``f(theta, X) -> (n, m)`` with flat parameters ``theta`` (d,) and inputs ``X``
(n, …), written in torch operations. F(θ) ∈ R^{nm} stacks its outputs, row by row, and J = ∇F(θ) is (nm, d). All is in
float64 and, but for :func:`gauss_newton`, dense: meant for nm and d up to a few thousand. Symbols are the study's (Notation).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from . import _checks
from .errors import KinkError, NoMultipliersError, ProjectionError, SingularJacobianError
from .linearization import check, linearize
from .models import check_outputs

Network = Callable[[Tensor, Tensor], Tensor]
RANK_TOLERANCE = 1e-10  # singular values below this share of the largest count as zero


def outputs(f: Network, theta: Tensor, X: Tensor) -> Tensor:
    """F(θ) = (f(θ, x₁), …, f(θ, x_n)) as one vector, (nm,).

    Raises
    ------
    ValueError
        ``theta`` that is not a float64 vector, or a network that does not return (n, m).
    """
    check(f, theta, X)
    result = f(theta, X)
    check_outputs(result, X, getattr(f, "name", "f"))
    return result.reshape(-1)


def jacobian(f: Network, theta: Tensor, X: Tensor) -> Tensor:
    """J = ∇F(θ), (nm, d), by reverse-mode automatic differentiation.

    At a kink of f (ReLU at 0) this is torch's convention, one element of the generalized Jacobian.
    Raises as :func:`~grokutils.linearization.linearize` does.
    """
    return linearize(f, theta, X, "dense").jacobian()


def singular_values(J: Tensor) -> Tensor:
    """Singular values of ``J`` (nm, d), largest first, (min(nm, d),)."""
    return torch.linalg.svdvals(_checks.tensor("J", J, ndim=2))


def normal_basis(J: Tensor, rank_tolerance: float = RANK_TOLERANCE) -> Tensor:
    """Orthonormal columns (d, rank J) that span the row space of ``J``: the normal space of Z at a regular point.

    Rank counts the singular values above ``rank_tolerance`` times the largest.

    Raises
    ------
    ValueError
        A ``J`` that is not a finite matrix, or a tolerance outside [0, 1).
    """
    N, S, _ = _factor(J)
    return N[:, : _rank(S, rank_tolerance)]


def project_tangent(J: Tensor, v: Tensor, rank_tolerance: float = RANK_TOLERANCE) -> Tensor:
    """P_T v = v − J⁺Jv, the part of ``v`` (d,) or (d, k) in the null space of ``J`` (nm, d).

    Right for any J, also rank-deficient ones or with nm > d; rank is decided as in :func:`normal_basis`.
    No pseudo-inverse is formed: the error stays at rounding level relative to v, however ill-conditioned J is.

    Raises
    ------
    ValueError
        Shapes that do not fit, or a tolerance outside [0, 1).
    """
    N = normal_basis(J, rank_tolerance)
    if _checks.tensor("v", v).ndim not in (1, 2) or len(v) != J.shape[1]:
        raise ValueError(f"v has shape {tuple(v.shape)}: must be ({J.shape[1]},) or ({J.shape[1]}, k)")
    return v - N @ (N.mT @ v)


def norm_descent(f: Network, theta: Tensor, X: Tensor, rank_tolerance: float = RANK_TOLERANCE) -> Tensor:
    """−P_T(θ)θ, (d,): the steepest descent of ½‖θ‖² inside the level set of F through θ, dθ/dτ of the slow flow.

    Raises
    ------
    ValueError
        Fewer parameters than constraints (assumption 4.1, d ≥ nm), or arguments that do not fit.
    SingularJacobianError
        J without full rank (see :func:`normal_basis`): Z need not have a tangent space there.
    KinkError
        F not differentiable at θ (assumption 4.2).
    """
    J = jacobian(f, theta, X)
    N, _, _ = _regular_factor(J, rank_tolerance)
    _check_differentiable(f, theta, X, J)
    return N @ (N.mT @ theta) - theta


def project(
    f: Network, theta: Tensor, X: Tensor, Y: Tensor, tolerance: float = 1e-10, max_iterations: int = 100
) -> Tensor:
    """proj_Z(θ), (d,): the point z of Z nearest to ``theta``, where Z = {z : F(z) = ``Y``}.

    Sequential quadratic programming for min ½‖z − θ‖² subject to F(z) = Y: a Gauss–Newton step onto the linearized
    Z and a Newton step along it, shortened where ½‖z − θ‖² + μ‖F(z) − Y‖ would not fall. On return ‖F(z) − Y‖ ≤
    tolerance·max(1, ‖Y‖) and ‖P_T(z)(θ − z)‖ ≤ tolerance·max(1, ‖θ‖): the displacement is at right angles to Z.
    Second derivatives along Z confirm a minimum of the distance; it is a local one, the nearest point when θ is
    closer to Z than Z's bends.

    Raises
    ------
    ValueError
        d < nm, or arguments that do not fit.
    SingularJacobianError
        J without full rank on the way.
    ProjectionError
        No convergence, or convergence to a point whose distance to θ is critical but not minimal.
    """
    y = _targets(f, theta, X, Y)
    tolerance = _checks.real("tolerance", tolerance, 0, 1, open_low=True, open_high=True)
    max_iterations = _checks.integer("max_iterations", max_iterations, 1)
    allowed_residual = tolerance * y.norm().clamp(min=1)
    allowed_tangential = tolerance * theta.norm().clamp(min=1)
    z, penalty, radius = theta, theta.new_zeros(()), math.inf
    for _ in range(max_iterations):
        J = jacobian(f, z, X)
        N, S, V = _regular_factor(J)
        r, gap = outputs(f, z, X) - y, theta - z
        normal, tangential = -N @ (V.mT @ r / S), gap - N @ (N.mT @ gap)
        nu = V @ ((N.mT @ (gap - normal)) / S)  # multipliers: θ − z = Jᵀν at the solution
        shape_operator = _shape_operator(f, z, X, N, nu)
        if r.norm() <= allowed_residual and tangential.norm() <= allowed_tangential:
            _check_nearest(shape_operator, N, nu)
            return z
        tangent = _newton_step(shape_operator, tangential)
        tangent = tangent * min(1.0, radius / float(tangent.norm().clamp(min=1e-300)))
        penalty = torch.maximum(penalty, 2 * nu.norm())
        rate = float(tangential @ tangent + normal @ normal)  # at which merit falls, at least

        def merit(t, penalty=penalty):
            return float(0.5 * (t - theta).square().sum() + penalty * (f(t, X).reshape(-1) - y).norm())

        def path(share, z=z, r=r, step=normal + tangent, N=N, S=S, V=V):
            t = z + share * step  # and back by what F's second order added
            return t - N @ (V.mT @ (f(t, X).reshape(-1) - y - (1 - share) * r) / S)

        share, z = _search(merit, path, merit(z), rate)
        radius = 2 * share * float((normal + tangent).norm()) if share < 1 else 2 * radius
    raise ProjectionError(
        f"no nearest point within max_iterations = {max_iterations}: residual {float(r.norm()):.1e}, displacement "
        f"along Z {float(tangential.norm()):.1e}, both asked to be near tolerance = {tolerance:g}. theta may be too far "
        "from Z for one nearest point, or Z may not be smooth (ReLU) there"
    )


def gauss_newton(
    f: Network, theta: Tensor, X: Tensor, Y: Tensor, tolerance: float = 1e-10, max_iterations: int = 50
) -> Tensor:
    """A point of Z near ``theta``, (d,), by Gauss–Newton steps −J⁺(F − y) until ‖F − y‖ ≤ ``tolerance``.

    Its distance from proj_Z(θ) is second order in the distance of θ from Z (compare :func:`project`, which finds the
    nearest point itself where Z is smooth). For networks of any size: J is never formed where that can be helped.

    Raises
    ------
    ValueError
        d < nm, or arguments that do not fit.
    SingularJacobianError
        J without full rank on the way.
    ProjectionError
        No convergence within ``max_iterations``.
    """
    _targets(f, theta, X, Y)
    _check_dimensions(len(theta), Y.numel())
    for _ in range(max_iterations):
        lin = linearize(f, theta, X)
        r = lin.outputs - Y
        if r.norm() <= tolerance:
            return theta
        try:
            theta = theta - lin.vjp(lin.solve(r))
        except NoMultipliersError as error:
            raise SingularJacobianError(f"theta is a singular point: {error}") from error
    raise ProjectionError(
        f"no point of Z within max_iterations = {max_iterations}: residual {float(r.norm()):.1e}"
    )


def _search(merit, path, before: float, rate: float) -> tuple[float, Tensor]:
    """The first share of 1, 1/2, 1/4, … whose point on ``path`` has less ``merit``, with that point."""
    share, slack = 1.0, 1e-13 * max(1.0, before)  # rounding in merit itself
    while share > 1e-9:
        point = path(share)
        if merit(point) <= before - 1e-4 * share * rate + slack:  # False for NaN
            return share, point
        share /= 2
    raise ProjectionError(
        f"no step brings theta nearer to Z: stuck at merit {before:.3g}; Z may not be smooth (ReLU) or may be empty"
    )


def _shape_operator(f, z, X, N, nu) -> Callable[[Tensor], Tensor]:
    """w ↦ P(Σ νᵢ∇²Fᵢ(z))Pw: how Z bends towards θ, in units of 1/distance (I + it is ∇² of ½‖z − θ‖² on Z)."""

    def pull(t: Tensor) -> Tensor:
        return torch.func.grad(lambda s: f(s, X).reshape(-1) @ nu)(t)

    def shape_operator(w: Tensor) -> Tensor:
        w = w - N @ (N.mT @ w)
        w = torch.func.grad(lambda t: pull(t) @ w)(z)
        return w - N @ (N.mT @ w)

    return shape_operator


def _newton_step(shape_operator, tangential: Tensor, max_iterations: int = 50) -> Tensor:
    """(I + shape operator)⁻¹ of ``tangential`` by conjugate gradients.

    Ended early at negative curvature, so that it is a direction of descent always.
    """
    step, residual = torch.zeros_like(tangential), tangential
    direction, square = tangential, tangential @ tangential
    target = square * min(1e-2, float(square))
    for _ in range(max_iterations):
        if square <= target:
            break
        image = direction + shape_operator(direction)
        curvature = direction @ image
        if curvature <= 1e-8 * (direction @ direction):
            return step if step.any() else tangential
        step = step + square / curvature * direction
        residual = residual - square / curvature * image
        square, previous = residual @ residual, square
        direction = residual + square / previous * direction
    return step


def _check_nearest(shape_operator, N: Tensor, nu: Tensor) -> None:
    """Refuse a point where the distance has no minimum along Z: I + the shape operator must be positive there."""
    d = len(N)
    if N.shape[1] == d or not nu.any():
        return

    def operator(w: np.ndarray) -> np.ndarray:
        t = torch.from_numpy(np.array(w, dtype=np.float64).reshape(d))
        return (t + shape_operator(t)).numpy()  # with I, also because ARPACK stumbles over the 0 of a flat Z

    start = torch.randn(d, generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
    smallest = eigsh(LinearOperator((d, d), operator, dtype=np.float64), 1, which="SA", v0=start, tol=1e-3)[
        0
    ][0]
    if smallest <= 0:
        raise ProjectionError(
            "found a point of Z whose distance to theta is critical but not smallest: theta lies beyond the focal "
            f"distance of Z (second derivative of the distance along Z {smallest:.3g}). Start closer to Z"
        )


def _factor(J: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """J = V diag(S) Nᵀ with orthonormal columns: QR of the tall side first, then the SVD of the small factor."""
    Q, R = torch.linalg.qr(_checks.tensor("J", J, ndim=2).mT)  # (d, k), (k, nm)
    U, S, Vh = torch.linalg.svd(R, full_matrices=False)
    return Q @ U, S, Vh.mT


def _rank(S: Tensor, rank_tolerance: float) -> int:
    rank_tolerance = _checks.real("rank_tolerance", rank_tolerance, 0, 1, open_high=True)
    return int((rank_tolerance * S[:1] < S).sum())


def _regular_factor(J: Tensor, rank_tolerance: float = RANK_TOLERANCE) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`_factor` of a J that has full row rank, as everything that depends on regularity needs it."""
    _check_dimensions(J.shape[1], J.shape[0])
    N, S, V = _factor(J)
    rank = _rank(S, rank_tolerance)
    if rank < len(J):
        raise SingularJacobianError(
            f"theta is a singular point: J has rank {rank} of {len(J)}, smallest singular value {float(S[-1]):.3g} "
            f"(largest {float(S[0]):.3g}, rank_tolerance = {rank_tolerance:g})"
        )
    return N, S, V


def _check_differentiable(f, theta, X, J) -> None:
    """Refuse a θ within rounding of a kink: there the two one-sided derivatives along a random line differ."""
    g = torch.randn(len(theta), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    h = 1e-9 * theta.norm().clamp(min=1) * g / g.norm()
    both = f(theta + h, X) + f(theta - h, X) - 2 * f(theta, X)  # O(h²) where F is smooth, O(h) at a kink
    if both.norm() > 1e-3 * (J @ h).norm():
        raise KinkError(
            "F is not differentiable at theta: a pre-activation is 0 within rounding, where the activation has a "
            "kink, so J is not defined. Use project_tangent(J, v) with a Jacobian of your choice"
        )


def _check_dimensions(d: int, rows: int) -> None:
    if d < rows:
        raise ValueError(
            f"theta has {d} entries for {rows} outputs: must have d ≥ nm (assumption 4.1), or Z has no tangent "
            "directions to speak of"
        )


def _targets(f, theta, X, Y) -> Tensor:
    shape = len(X), len(outputs(f, theta, X)) // len(X)
    if _checks.tensor("Y", Y).shape != shape:
        raise ValueError(f"Y has shape {tuple(Y.shape)}: must be {shape}, as f's outputs")
    return Y.reshape(-1)
