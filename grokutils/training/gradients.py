"""Losses and their gradients for R two-layer networks at once, written out by hand.

E is (R, d_in, width). The readout is kept as V = Wᵀ (R, d_out, width): with few outputs, products whose long
side is contiguous run several times faster. torch.func gives the same gradients (a test compares them).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..activations import NAMED, Activation
from .data import Rows


class Loss:
    """Mean squared error (over samples and outputs) or cross-entropy (over samples), on given rows."""

    def __init__(self, sigma: Activation, squared: bool, rows: Rows):
        self.sigma, self.squared, self.rows = sigma, squared, rows
        d_out = rows.Y.shape[2]
        # (R, n): weight of each row in the loss
        self.shares = rows.counts / (rows.total[:, None] * (d_out if squared else 1))
        slope = 2 * self.shares if squared else self.shares
        even = bool((slope == slope[0, 0]).all())  # a number multiplies faster than a tensor
        self.slope = slope[0, 0].item() if even else slope[:, None, :]
        self.targets = rows.Y.mT.contiguous()  # (R, d_out, n)

    def gradient(
        self, E: Tensor, V: Tensor, into_E: Tensor, into_V: Tensor, targets: Tensor | None = None
    ) -> None:
        """Write the gradients of each run's loss (for other ``targets`` (R, d_out, n), if given) into ``into_E`` (R, d_in, width), ``into_V`` like V."""
        Z = self._hidden_inputs(E)  # (R, n, width)
        relu = self.sigma == NAMED["relu"]  # a callable of the user's may have that name, too
        H, S = (Z.relu_(), None) if relu else self.sigma.with_slope(Z)
        D = torch.bmm(V, H.mT)  # outputs, (R, d_out, n)
        if not self.squared:
            D = torch.softmax(D, dim=1)
        D.sub_(self.targets if targets is None else targets).mul_(self.slope)  # ∂loss/∂outputs
        torch.bmm(D, H, out=into_V)
        pull = torch.bmm(D.mT, V)  # ∂loss/∂H, (R, n, width)
        pull.mul_(H.sign_() if S is None else S)  # for ReLU, σ′(Z) = sign σ(Z)
        if self.rows.left is None:
            torch.bmm(self.rows.X.mT, pull, out=into_E)
            return
        flat, pull = into_E.view(-1, E.shape[-1]).zero_(), pull.flatten(0, 1)
        flat.index_add_(0, self.rows.left, pull).index_add_(0, self.rows.right, pull)

    def measure(self, E: Tensor, V: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, share of samples whose largest output is the right one, and whether all outputs are 0; each (R,)."""
        outputs = torch.bmm(V, self.sigma.value(self._hidden_inputs(E)).mT)  # (R, d_out, n)
        if self.squared:
            each = (outputs - self.targets).square().sum(1)  # (R, n)
        else:
            each = -(self.targets * torch.log_softmax(outputs, dim=1)).sum(1)
        right = outputs.argmax(1) == self.targets.argmax(1)
        accuracy = (self.rows.counts * right).sum(1) / self.rows.total
        return (self.shares * each).sum(1), accuracy, (outputs == 0).flatten(1).all(1)

    def _hidden_inputs(self, E: Tensor) -> Tensor:
        if self.rows.left is None:
            return torch.bmm(self.rows.X, E)
        stacked = E.reshape(-1, E.shape[-1])  # (R·d_in, width)
        Z = stacked.index_select(0, self.rows.left).add_(stacked.index_select(0, self.rows.right))
        return Z.unflatten(0, (len(E), -1))
