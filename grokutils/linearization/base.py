"""What every kind of linearization offers."""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import lapack
from torch import Tensor

from .. import _checks
from ..losses import Curvature


class Linearization:
    """F and J = ∇F at a point θ.

    Attributes
    ----------
    theta : Tensor, (d,)
    outputs : Tensor, (n, m)
        F(θ).
    """

    theta: Tensor
    outputs: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of J, (nm, d)."""
        return self.outputs.numel(), len(self.theta)

    def check_outputs(self, name: str, u: Tensor) -> None:
        """Refuse a ``u`` that is not shaped as the outputs, by ``ValueError``: flattened, any other would pass."""
        if u.shape != self.outputs.shape:
            raise ValueError(
                f"{name} has shape {tuple(u.shape)}: must be {tuple(self.outputs.shape)}, as the outputs"
            )

    def jvp(self, v: Tensor) -> Tensor:
        """Jv, (n, m), for ``v`` (d,)."""
        raise NotImplementedError

    def vjp(self, u: Tensor) -> Tensor:
        """Jᵀu, (d,), for ``u`` (n, m)."""
        raise NotImplementedError

    def free(self, v: Tensor) -> Tensor:
        """D⁻¹v, (d,): ``v`` less what kinks hold fast. D = I but for two-layer networks with pinned pre-activations."""
        return v

    def product(self, u: Tensor) -> Tensor:
        """Ku, (n, m), for ``u`` (n, m), with K = JD⁻¹Jᵀ."""
        return self.jvp(self.free(self.vjp(u)))

    def rough_product(self, u: Tensor) -> Tensor:
        """Ku, (n, m), where it need not be exact: in single precision, if there is such."""
        return self.product(u)

    def jacobian(self) -> Tensor:
        """J itself, (nm, d)."""
        units = torch.eye(self.outputs.numel(), dtype=self.theta.dtype)
        return torch.stack([self.vjp(unit.view_as(self.outputs)) for unit in units])

    def gram(self) -> Tensor:
        """K = JD⁻¹Jᵀ, (nm, nm)."""
        units = torch.eye(self.outputs.numel(), dtype=self.theta.dtype)
        return torch.stack([self.product(unit.view_as(self.outputs)).flatten() for unit in units])

    def sample_gram(self) -> Tensor:
        """G (n, n) with G ⊗ I near K, to precondition with: the mean of K's blocks over outputs, or an estimate."""
        n, m = self.outputs.shape
        return self.gram().view(n, m, n, m).diagonal(dim1=1, dim2=3).mean(-1)

    def singular_values(self) -> Tensor:
        """Singular values of J, largest first, (min(nm, d),); from K, so that those below 1e-8 of the largest are rounding."""
        values = torch.linalg.eigvalsh(self.gram()).flip(0).clamp(min=0).sqrt()
        return values[: min(self.shape)]

    def solve(
        self,
        u: Tensor,
        c: float = 1.0,
        lam: float = 0.0,
        curvature: Curvature | None = None,
        tolerance: float = 1e-10,
        factored: bool | None = None,
    ) -> Tensor:
        """μ (n, m) with (cK + λH⁻¹)μ = ``u`` (n, m).

        Where H is singular, as that of cross-entropy, this is the limit of H + εI as ε → 0.

        Parameters
        ----------
        u : (n, m).
        c : number, at least 0.
        lam : λ, at least 0.
        curvature : H, of the loss; None is the identity.
        tolerance : of the residual relative to the right-hand side, where the solution is searched.
        factored : form and factor the matrix (True), search by conjugate gradients (False), or decide by its size.

        Raises
        ------
        ValueError
            A ``u`` of another shape or with entries that are not finite, or numbers out of range.
        NoMultipliersError
            The matrix is singular in floating point, or the search does not end.
        """
        from .solving import solve

        _checks.tensor("u", u)
        self.check_outputs("u", u)
        c, lam = _checks.real("c", c, 0), _checks.real("lam", lam, 0)
        tolerance = _checks.real("tolerance", tolerance, 0, 1, open_low=True, open_high=True)
        return solve(self, u, c, lam, curvature or Curvature(), tolerance, factored)


def syrk(A: Tensor) -> Tensor:
    """AAᵀ for (..., k, l), outside automatic differentiation.

    On the CPU NumPy sees that both factors are one matrix and calls BLAS syrk: half the work of a general product.
    """
    if A.device.type != "cpu":
        return A @ A.mT
    array = A.detach().numpy()
    return torch.from_numpy(array @ array.swapaxes(-1, -2))


# A pivot L_jj² of a singular matrix comes out as rounding error, positive as often as not. It stays below some
# 6 K_jj machine epsilons (measured up to 400 samples); this factor keeps a distance from that.
ROUNDING = 30


def factor(K: Tensor) -> np.ndarray | None:
    """Lower Cholesky factor of a symmetric ``K`` (k, k) in the memory of K, in Fortran's order; None if K is singular.

    LAPACK itself: PyTorch makes two copies, a third of the time at k = 500. The other triangle is not meant to be read.
    """
    scale = K.diagonal().numpy().copy()
    L, failed = lapack.dpotrf(K.numpy().T, lower=1, clean=0, overwrite_a=1)
    pivots = L.diagonal() ** 2
    if failed or not (pivots > ROUNDING * np.finfo(np.float64).eps * scale).all():
        return None
    return L
