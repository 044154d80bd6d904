"""Fourier features against sums written out, and the measures on embeddings whose values are known."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grokutils import fourier

float64 = torch.float64
odd = st.integers(1, 10).map(lambda k: 2 * k + 1)
batches = st.sampled_from([(), (3,), (2, 2)])


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=float64)


def circles(p, seed):
    """Embeddings in which frequency k goes round a circle in a plane of two hidden units of its own.

    The two units are turned by 45° so that |Re F_k| = |Im F_k| entry by entry. Returns (E, radii).
    """
    K = (p - 1) // 2
    radii = 0.5 + torch.rand(K, generator=torch.Generator().manual_seed(seed), dtype=float64)
    E = torch.zeros(p, 2 * K, dtype=float64)
    token = torch.arange(p, dtype=float64)
    for k in range(1, K + 1):
        phase = 2 * math.pi * k * token / p + math.pi / 4
        E[:, 2 * k - 2] = radii[k - 1] * phase.cos()
        E[:, 2 * k - 1] = radii[k - 1] * phase.sin()
    return E, radii


@given(p=odd, width=st.integers(1, 6), batch=batches, seed=st.integers(0, 2**20))
def test_features_are_the_sum_written_out(p, width, batch, seed):
    E = draw(seed, *batch, p, width)
    F = fourier.features(E)
    assert F.shape == (*batch, (p - 1) // 2, width)
    for k in range(1, (p + 1) // 2):
        angles = [2 * math.pi * j * k / p for j in range(p)]
        real = sum(math.cos(a) * E[..., j, :] for j, a in enumerate(angles)) / p
        imag = sum(-math.sin(a) * E[..., j, :] for j, a in enumerate(angles)) / p
        torch.testing.assert_close(F[..., k - 1, :], torch.complex(real, imag), rtol=0, atol=1e-13)


@given(p=odd, seed=st.integers(0, 2**20))
def test_measures_of_circles(p, seed):
    E, radii = circles(p, seed)
    F = fourier.features(E)
    K = (p - 1) // 2
    ones = torch.ones(K, dtype=float64)
    torch.testing.assert_close(fourier.balance(F), ones)
    torch.testing.assert_close(fourier.orthogonality(F), 0 * ones, rtol=0, atol=1e-12)
    torch.testing.assert_close(fourier.similarity(F), torch.eye(K, dtype=float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(fourier.power(E), radii**2 / radii.square().sum())
    # A circle of radius r has F_k of length r/√2: half of the radius squared in each part
    torch.testing.assert_close(F.abs().square().sum(-1), radii**2 / 2)


@given(p=odd, seed=st.integers(0, 2**20))
def test_counting_from_another_token_turns_each_phase(p, seed):
    E = draw(seed, p, 7)
    k = torch.arange(1, (p + 1) // 2, dtype=float64)
    turned = fourier.features(E) * torch.exp(2j * math.pi * k / p)[:, None]
    torch.testing.assert_close(fourier.features(E.roll(-1, 0)), turned)


@given(a=st.floats(0.1, 10), b=st.floats(0.1, 10), p=odd)
def test_balance_and_orthogonality_of_ellipses(a, b, p):
    phase = 2 * math.pi * torch.arange(p, dtype=float64) / p
    ellipse = torch.stack([a * phase.cos(), b * phase.sin()], dim=1)
    assert fourier.balance(fourier.features(ellipse))[0].item() == pytest.approx(b / a)
    line = torch.stack([a * phase.cos() + b * phase.sin()], dim=1)
    assert abs(fourier.orthogonality(fourier.features(line))[0].item()) == pytest.approx(1)


@given(p=odd, width=st.integers(1, 6), batch=batches, seed=st.integers(0, 2**20))
def test_power_is_parsevals_share(p, width, batch, seed):
    E = draw(seed, *batch, p, width)
    share = fourier.power(E)
    torch.testing.assert_close(share.sum(-1), torch.ones(batch, dtype=float64))
    variance = (E - E.mean(-2, keepdim=True)).square().sum((-2, -1)) / p
    absolute = 2 * fourier.features(E).abs().square().sum(-1)  # k and p − k
    torch.testing.assert_close(absolute, share * variance[..., None])


def test_gaussian_entries_are_similar_by_two_over_pi():
    S = fourier.similarity(fourier.features(draw(0, 13, 200_000)))
    torch.testing.assert_close(S, torch.full_like(S, 2 / math.pi), rtol=0, atol=0.005)


@given(seed=st.integers(0, 2**20), K=st.integers(2, 6), batch=batches)
def test_within_and_across(seed, K, batch):
    S = draw(seed, *batch, K, K)
    within, across = fourier.within_and_across(S)
    apart = ~torch.eye(K, dtype=torch.bool)
    torch.testing.assert_close(within, S[..., ~apart].mean(-1))
    torch.testing.assert_close(across, S[..., apart].mean(-1))


@given(seed=st.integers(0, 2**20))
def test_measures_do_not_see_scale_or_the_mean(seed):
    E = draw(seed, 9, 5)
    for measure in (fourier.balance, fourier.orthogonality, fourier.similarity):
        torch.testing.assert_close(
            measure(fourier.features(E)), measure(fourier.features(3 * E + draw(seed, 5)))
        )


@pytest.mark.parametrize("shape", [(4, 5), (12, 5), (1, 5), (2, 5), (0, 5), (7,)])
def test_even_and_small_moduli_are_refused(shape):
    with pytest.raises(ValueError, match=r"E has shape .*p odd and at least 3"):
        fourier.features(torch.ones(shape, dtype=float64))


def test_bad_arguments():
    with pytest.raises(ValueError, match="E holds NaN"):
        fourier.features(torch.full((5, 2), torch.nan))
    with pytest.raises(ValueError, match=r"E has dtype torch\.int64"):
        fourier.power(torch.ones(5, 2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"S has shape \(1, 1\): at least two"):
        fourier.within_and_across(torch.ones(1, 1))


@pytest.mark.parametrize("power", [0, 1, 4])
def test_even_phases_are_alike_by_two_over_pi_whatever_the_amplitudes(power):
    generator = torch.Generator().manual_seed(power)
    amplitude, turns = torch.rand(2, 3, 200_000, generator=generator, dtype=torch.float64)
    S = fourier.similarity(torch.polar(amplitude**power, 2 * torch.pi * turns))
    torch.testing.assert_close(
        S.diagonal(), torch.full((3,), 2 / torch.pi, dtype=torch.float64), rtol=0, atol=0.01
    )


def test_frequencies_with_units_of_their_own_are_unlike():
    generator = torch.Generator().manual_seed(0)
    F = torch.polar(torch.ones(2, 4000), 2 * torch.pi * torch.rand(2, 4000, generator=generator))
    F[0, :2000], F[1, 2000:] = 0, 0
    S = fourier.similarity(F)
    assert S[0, 1] == S[1, 0] == 0
    assert (S.diagonal() - 2 / torch.pi).abs().max() < 0.05
