"""The largest curvature of a loss, which bounds the learning rate of gradient descent."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from .. import losses
from ..losses import Loss
from . import linearize


def sharpness(model, theta: Tensor, task, loss: str | Loss = "squared_error") -> float:
    """The largest eigenvalue of the Hessian of PyTorch's mean ``loss`` on the training half of ``task``.

    Of its Gauss–Newton part, 2JᵀHJ/count, which is all of it on Z: 2/count times the largest eigenvalue of SᵀKS.

    Raises
    ------
    ValueError
        Arguments that do not fit.
    """
    loss, Y = losses.loss(loss), task.Y_train
    loss.check(Y)
    lin = linearize(model, theta, task.X_train)
    H = loss.curvature(lin.outputs, Y)

    def times(w: np.ndarray) -> np.ndarray:
        u = H.root(torch.from_numpy(w).view_as(lin.outputs))
        return H.root_transposed(lin.jvp(lin.vjp(u))).flatten().numpy()

    size = lin.outputs.numel()
    if size == 1:
        largest = float(times(np.ones(1))[0])
    else:
        start = np.random.default_rng(0).standard_normal(size)
        if not times(start).any():  # ARPACK refuses to begin
            return 0.0
        operator = LinearOperator((size, size), times, dtype=np.float64)
        largest = float(eigsh(operator, 1, v0=start, tol=1e-6, return_eigenvectors=False)[0])
    return 2 * largest / loss.count(Y)
