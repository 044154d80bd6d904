"""Samples of several runs side by side, as the gradient wants them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import tasks


@dataclass(frozen=True)
class Rows:
    """Samples of R runs, padded to a common number n of rows.

    Inputs that are sums of two one-hots are kept as the two row numbers ``left`` and ``right``, each (R·n,),
    into the R first layers stacked to (R·d_in, width); other inputs as ``X`` (R, n, d_in).
    """

    Y: Tensor  # (R, n, d_out)
    counts: Tensor  # (R, n): how often the sample occurs; 0 for padding
    X: Tensor | None = None
    left: Tensor | None = None
    right: Tensor | None = None
    d_in: int = 0  # set where left and right are

    @property
    def total(self) -> Tensor:
        """Number of samples of each run, (R,)."""
        return self.counts.sum(1)

    def runs(self, part: slice) -> Rows:
        """The samples of some of the runs."""
        if self.left is None:
            return Rows(self.Y[part], self.counts[part], X=self.X[part])
        n, d_in = self.Y.shape[1], self.d_in
        rows = slice(part.start * n, part.stop * n)
        left, right = (index[rows] - part.start * d_in for index in (self.left, self.right))
        return Rows(self.Y[part], self.counts[part], left=left, right=right, d_in=d_in)

    def take(self, index: Tensor) -> Rows:
        """The samples ``index`` (R, m) of each run: a minibatch."""
        R, n = self.counts.shape
        flat = (index + n * torch.arange(R)[:, None]).flatten()
        Y, counts = (whole.flatten(0, 1)[flat].unflatten(0, (R, -1)) for whole in (self.Y, self.counts))
        if self.left is None:
            return Rows(Y, counts, X=self.X.flatten(0, 1)[flat].unflatten(0, (R, -1)))
        return Rows(Y, counts, left=self.left[flat], right=self.right[flat], d_in=self.d_in)


def rows(samples: Sequence[tuple[Tensor, Tensor]], merge: bool) -> Rows:
    """Stack the samples (X, Y) of each run; ``merge`` counts equal samples instead of repeating them.

    Merging changes neither loss nor gradient: over ordered pairs, (a, b) and (b, a) are one row with count 2.
    """
    counted = [_merged(X, Y) if merge else (X, Y, X.new_ones(len(X))) for X, Y in samples]
    n = max(len(counts) for _, _, counts in counted)

    def padded(parts):
        return torch.stack(
            [torch.cat([part, part.new_zeros(n - len(part), *part.shape[1:])]) for part in parts]
        )

    Y, counts = padded([Y for _, Y, _ in counted]), padded([counts for *_, counts in counted])
    found = [tasks.ends(X) for X, *_ in counted]
    if None in found:
        return Rows(Y, counts, X=padded([X for X, *_ in counted]))
    d_in = counted[0][0].shape[1]
    pairs = padded([torch.stack(pair, dim=1) for pair in found])  # (R, n, 2)
    pairs = (pairs + d_in * torch.arange(len(counted))[:, None, None]).flatten(0, 1)
    left, right = (index.contiguous() for index in pairs.unbind(1))
    return Rows(Y, counts, left=left, right=right, d_in=d_in)


def shuffled(seed: int, epoch: int, n: int) -> Tensor:
    """The order in which a run of this seed sees its n samples in an epoch: no state, so runs can resume."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(1_000_003 * seed + epoch))


NOISE = 2**40  # first seed of label noise, beyond those of the order of minibatches


def label_noise(seed: int, step: int, Y: Tensor, size: float) -> Tensor:
    """What a run of this seed adds to its labels ``Y`` in a step: normal, of standard deviation ``size``, without state."""
    generator = torch.Generator().manual_seed(NOISE + 1_000_003 * seed + step)
    return size * torch.randn(Y.shape, generator=generator, dtype=Y.dtype)


def _merged(X: Tensor, Y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    both, counts = torch.cat([X, Y], dim=1).unique(dim=0, return_counts=True)
    if len(both) == len(X):
        return X, Y, X.new_ones(len(X))  # keep the given order
    X, Y = both.split([X.shape[1], Y.shape[1]], dim=1)
    return X, Y, counts.to(X.dtype)
