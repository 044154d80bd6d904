"""Networks against torch.nn, and θ ↔ matrices."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grokutils import networks

sizes = st.integers(1, 6)
few = settings(deadline=None, max_examples=20)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@few
@given(sizes, sizes, sizes, st.integers(0, 1000))
def test_default_initialization_is_that_of_linear_layers(dtype, d_in, width, d_out, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        first = torch.nn.Linear(d_in, width, bias=False, dtype=dtype)
        second = torch.nn.Linear(width, d_out, bias=False, dtype=dtype)
    E, W = (
        networks.two_layer(d_in, width, d_out)
        .matrices(networks.two_layer(d_in, width, d_out).init(seed, dtype=dtype))
        .values()
    )
    assert torch.equal(E, first.weight.T)
    assert torch.equal(W, second.weight.T)


def test_initialization_draws_nothing_from_the_global_generator():
    before = torch.get_rng_state()
    networks.two_layer(3, 4, 2).init(5)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("scheme", "variance"), [("pytorch", 1 / 3), ("normal", 1.0)])
def test_variance_of_each_layer(scheme, variance):
    net = networks.two_layer(100, 400, 100)
    matrices = net.matrices(net.init(0, scale=2.0, scheme=scheme))
    for name, fan_in in {"E": 100, "W": 400}.items():
        # 40,000 draws: the sample variance is within 5 standard errors (relative √(2/40000)) of the true one
        assert matrices[name].var().item() == pytest.approx(4 * variance / fan_in, rel=5 * (2 / 4e4) ** 0.5)


@few
@given(sizes, sizes, sizes, st.integers(0, 3))
def test_flat_inverts_matrices_over_leading_dimensions(d_in, width, d_out, batch):
    net = networks.two_layer(d_in, width, d_out)
    theta = torch.randn(batch, net.d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrices = net.matrices(theta)
    assert {name: tuple(M.shape[1:]) for name, M in matrices.items()} == net.shapes
    assert torch.equal(net.flat(**matrices), theta)


@few
@given(sizes, sizes, sizes, st.integers(0, 100))
def test_jacobian_in_the_readout_is_the_hidden_layer(d_in, width, d_out, seed):
    net = networks.two_layer(d_in, width, d_out)
    X = torch.randn(4, d_in, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    theta = net.init(seed)
    J = torch.func.jacrev(net)(theta, X)  # (4, d_out, d)
    H = torch.relu(X @ net.matrices(theta)["E"])
    expected = torch.einsum("nh,oc->nohc", H, torch.eye(d_out, dtype=torch.float64)).flatten(2)
    torch.testing.assert_close(J[..., d_in * width :], expected)


@pytest.mark.parametrize("activation", ["relu", "softplus", "quadratic", "gelu", torch.sin])
def test_vmap_over_parameters_equals_one_at_a_time(activation):
    net = networks.two_layer(3, 5, 2, activation)
    thetas = torch.stack([net.init(seed) for seed in range(3)])
    X = torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    single = torch.stack([net(theta, X) for theta in thetas])
    torch.testing.assert_close(torch.func.vmap(net, (0, None))(thetas, X), single)
    torch.testing.assert_close(net(thetas, X), single)


def test_relu_network_is_homogeneous_of_degree_two():
    net = networks.two_layer(3, 5, 2)
    theta = net.init(0)
    X = torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(net(3 * theta, X), 9 * net(theta, X))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: networks.two_layer(0, 4, 2), "d_in = 0"),
        (lambda: networks.two_layer(3, 4, 2, "sine"), "activation = 'sine'"),
        (lambda: networks.two_layer(3, 4, 2).init(-1), "seed = -1"),
        (lambda: networks.two_layer(3, 4, 2).init(0, scale=0.0), "scale = 0.0"),
        (lambda: networks.two_layer(3, 4, 2).init(0, scheme="xavier"), "scheme = 'xavier'"),
        (lambda: networks.two_layer(3, 4, 2).matrices(torch.zeros(7)), "d = 20"),
        (lambda: networks.two_layer(3, 4, 2).flat(E=torch.zeros(3, 4)), "must be E, W"),
        (
            lambda: networks.two_layer(3, 4, 2).flat(E=torch.zeros(3, 4), W=torch.zeros(2, 4)),
            r"W has shape \(2, 4\)",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
