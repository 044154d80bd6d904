"""Activations: derivatives against automatic differentiation, formulas against plain Python, callables."""

import math
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grokutils import activations

NAMES = sorted(activations.NAMED)
FORMULAS = {
    "relu": lambda z: max(z, 0.0),
    "leaky_relu": lambda z: z if z > 0 else 0.1 * z,
    "identity": lambda z: z,
    "quadratic": lambda z: z * z,
    "softplus": lambda z: math.log1p(math.exp(-abs(z))) + max(z, 0.0),
    "tanh": math.tanh,
    "gelu": lambda z: 0.5 * z * math.erfc(-z / math.sqrt(2)),
}
points = st.lists(st.floats(-30, 30), min_size=1, max_size=8)


def by_autograd(function, Z):
    Z = Z.clone().requires_grad_()
    return torch.autograd.grad(function(Z).sum(), Z)[0]


def test_every_activation_has_a_formula():
    assert sorted(FORMULAS) == NAMES


@pytest.mark.parametrize("name", NAMES)
@given(zs=points)
def test_values_are_the_formulas(name, zs):
    Z = torch.tensor(zs, dtype=torch.float64)
    expected = torch.tensor([FORMULAS[name](z) for z in zs], dtype=torch.float64)
    sigma = activations.activation(name)
    for value in (sigma.value(Z), sigma.with_slope(Z)[0]):
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
@given(zs=points)
def test_slopes_are_the_derivatives(name, zs):
    sigma = activations.activation(name)
    Z = torch.tensor([*zs, 0.0], dtype=torch.float64)  # 0: PyTorch's convention at a kink
    for slope in (sigma.slope(Z), sigma.with_slope(Z)[1]):
        torch.testing.assert_close(slope, by_autograd(sigma.value, Z), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_smooth_means_two_continuous_derivatives(name):
    sigma = activations.activation(name)
    h = 1e-5
    jump = sigma.slope(torch.tensor([-h, h], dtype=torch.float64)).diff().abs().item()
    assert sigma.smooth == (jump < 1e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_dtype_are_kept(name, dtype):
    sigma = activations.activation(name)
    Z = torch.linspace(-2, 2, 24, dtype=dtype).reshape(2, 3, 4)
    for result in (sigma.value(Z), sigma.slope(Z)):
        assert result.shape == Z.shape
        assert result.dtype == dtype


def test_values_leave_their_argument_alone():
    Z = torch.linspace(-2, 2, 5)
    for name in NAMES:
        before = Z.clone()
        activations.activation(name).value(Z)
        activations.activation(name).slope(Z)
        assert torch.equal(Z, before)


@given(zs=points)
def test_a_callable_gets_its_derivative(zs):
    sigma = activations.activation(torch.sin)
    Z = torch.tensor(zs, dtype=torch.float64)
    torch.testing.assert_close(sigma.slope(Z), Z.cos(), rtol=1e-12, atol=1e-14)
    assert sigma.name == "sin"
    with torch.no_grad():
        torch.testing.assert_close(sigma.slope(Z), Z.cos(), rtol=1e-12, atol=1e-14)


def test_a_callables_derivative_holds_in_threads():
    sigma = activations.activation(torch.sin)
    Z = torch.linspace(-3, 3, 1000, dtype=torch.float64)
    failures = []

    def work():
        try:
            for _ in range(100):
                assert torch.allclose(sigma.slope(Z), Z.cos())
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize(
    ("function", "kink"),
    [
        (torch.relu, (0.0, 1.0)),
        (torch.nn.functional.relu, (0.0, 1.0)),
        (torch.nn.ReLU(), (0.0, 1.0)),
        (lambda Z: Z.clamp(min=0), (0.0, 1.0)),
        (torch.nn.LeakyReLU(0.2), (0.2, 1.0)),
        (torch.abs, (-1.0, 1.0)),
        (lambda Z: torch.where(Z > 0, 2 * Z, 0.5 * Z), (0.5, 2.0)),
    ],
)
def test_a_users_two_lines_are_found(function, kink):
    sigma = activations.activation(function)
    assert sigma.kink == kink
    assert not sigma.smooth
    Z = torch.tensor([-2.0, -1e-9, 1e-9, 3.0], dtype=torch.float64)
    torch.testing.assert_close(sigma.slope(Z), by_autograd(function, Z))


@pytest.mark.parametrize(
    ("function", "smooth"),
    [
        (torch.nn.functional.hardtanh, False),
        (torch.nn.functional.hardswish, False),
        (torch.nn.functional.selu, False),
        (lambda Z: (Z - 0.3).abs() + Z**2, False),
        (lambda Z: torch.relu(Z - 7.9), False),
        (torch.sin, True),
        (torch.nn.functional.silu, True),
        (torch.nn.functional.elu, True),  # its slope does not jump
        (lambda Z: 3e-4 * torch.nn.functional.softplus(Z / 3e-4), True),  # steep, but smooth
        (lambda Z: 0 * Z, True),
    ],
)
def test_bends_elsewhere_are_found_numerically(function, smooth):
    sigma = activations.activation(function)
    assert sigma.smooth is smooth
    assert sigma.kink is None


def test_an_activation_passes_through():
    sigma = activations.activation("gelu")
    assert activations.activation(sigma) is sigma


@pytest.mark.parametrize("spec", ["ReLU", "", None, 3, ["relu"]])
def test_unknown_names_are_refused(spec):
    with pytest.raises(ValueError, match=r"activation = .*must be one of 'relu'"):
        activations.activation(spec)


@pytest.mark.parametrize(
    "function",
    [
        lambda Z: Z.softmax(-1),
        lambda Z: Z.softmax(0),
        lambda Z: Z.cumsum(-1),
        lambda Z: Z - Z.mean(),
        lambda Z: Z.flip(-1),
        torch.sum,
        len,
        lambda Z: None,
        lambda Z: Z.float(),
        lambda: 0,
        math.sin,
    ],
)
def test_callables_that_are_not_elementwise_are_refused(function):
    with pytest.raises(ValueError, match=r"activation = .*elementwise"):
        activations.activation(function)
