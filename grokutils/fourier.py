"""Fourier features of learned embeddings, and the three measures of figure 6.

F_k = (1/p) Σ_j e^{−2πi jk/p} E_j for k = 1, …, (p − 1)/2: one complex vector over the hidden units for each
frequency. A token embedding that runs once round a circle k times as the token counts up has Re F_k and Im F_k
of equal length, at right angles.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import _checks


def features(E: Tensor) -> Tensor:
    """F_k of embeddings ``E`` (..., p, width) with p odd: complex, (..., (p − 1)/2, width).

    Raises
    ------
    ValueError
        An even p: its frequency p/2 has no imaginary part, so the measures below have no meaning there.
    """
    _checks.tensor("E", E)
    if E.ndim < 2 or E.shape[-2] < 3 or E.shape[-2] % 2 == 0:
        raise ValueError(f"E has shape {tuple(E.shape)}: must be (..., p, width) with p odd and at least 3")
    p = E.shape[-2]
    return torch.fft.fft(E, dim=-2)[..., 1 : (p + 1) // 2, :] / p


def balance(F: Tensor) -> Tensor:
    """‖Im F_k‖ / ‖Re F_k‖ of each frequency, (..., K): 1 for a circle."""
    return F.imag.norm(dim=-1) / F.real.norm(dim=-1)


def orthogonality(F: Tensor) -> Tensor:
    """Cosine of Re F_k with Im F_k, (..., K): 0 for a circle."""
    return torch.nn.functional.cosine_similarity(F.real, F.imag, dim=-1)


def similarity(F: Tensor) -> Tensor:
    """Cosine of |Re F_k| with |Im F_l|, (..., K, K): which hidden units each frequency uses.

    Absolute values are taken entry by entry. Entries with evenly spread phases give 2/π on the diagonal whatever their
    amplitudes; independent Gaussian entries give it off the diagonal too. 0 there means that every frequency has
    hidden units of its own.
    """
    real = torch.nn.functional.normalize(F.real.abs(), dim=-1)
    imag = torch.nn.functional.normalize(F.imag.abs(), dim=-1)
    return real @ imag.mT


def within_and_across(S: Tensor) -> tuple[Tensor, Tensor]:
    """Means of a similarity matrix ``S`` (..., K, K) on and off its diagonal, each (...)."""
    K = S.shape[-1]
    if K < 2:
        raise ValueError(f"S has shape {tuple(S.shape)}: at least two frequencies are needed to compare")
    on = S.diagonal(dim1=-2, dim2=-1)
    return on.mean(-1), (S.sum((-2, -1)) - on.sum(-1)) / (K * (K - 1))


def power(E: Tensor) -> Tensor:
    """Share of each frequency in the embeddings' variance over tokens, (..., K), summing to 1."""
    energy = features(E).abs().square().sum(-1)
    return energy / energy.sum(-1, keepdim=True)
