"""Models against torch.nn, θ ↔ matrices, and modules of others: taken as they are, or refused by name."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from grokutils import models

sizes = st.integers(1, 6)


@pytest.fixture(autouse=True)
def _modules_draw_from_a_copy():
    """torch.nn's layers draw their weights from the global generator."""
    with torch.random.fork_rng():
        yield


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
        models.two_layer(d_in, width, d_out)
        .matrices(models.two_layer(d_in, width, d_out).init(seed, dtype=dtype))
        .values()
    )
    assert torch.equal(E, first.weight.T)
    assert torch.equal(W, second.weight.T)


def test_initialization_draws_nothing_from_the_global_generator():
    before = torch.get_rng_state()
    models.two_layer(3, 4, 2).init(5)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("scheme", "variance"), [("pytorch", 1 / 3), ("normal", 1.0)])
def test_variance_of_each_layer(scheme, variance):
    net = models.two_layer(100, 400, 100)
    matrices = net.matrices(net.init(0, scale=2.0, scheme=scheme))
    for name, fan_in in {"E": 100, "W": 400}.items():
        # 40,000 draws: the sample variance is within 5 standard errors (relative √(2/40000)) of the true one
        assert matrices[name].var().item() == pytest.approx(4 * variance / fan_in, rel=5 * (2 / 4e4) ** 0.5)


@few
@given(sizes, sizes, sizes, st.integers(0, 3))
def test_flat_inverts_matrices_over_leading_dimensions(d_in, width, d_out, batch):
    net = models.two_layer(d_in, width, d_out)
    theta = torch.randn(batch, net.d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrices = net.matrices(theta)
    assert {name: tuple(M.shape[1:]) for name, M in matrices.items()} == net.shapes
    assert torch.equal(net.flat(**matrices), theta)


@few
@given(sizes, sizes, sizes, st.integers(0, 100))
def test_jacobian_in_the_readout_is_the_hidden_layer(d_in, width, d_out, seed):
    net = models.two_layer(d_in, width, d_out)
    X = torch.randn(4, d_in, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    theta = net.init(seed)
    J = torch.func.jacrev(net)(theta, X)  # (4, d_out, d)
    H = torch.relu(X @ net.matrices(theta)["E"])
    expected = torch.einsum("nh,oc->nohc", H, torch.eye(d_out, dtype=torch.float64)).flatten(2)
    torch.testing.assert_close(J[..., d_in * width :], expected)


@pytest.mark.parametrize("activation", ["relu", "softplus", "quadratic", "gelu", torch.sin])
def test_vmap_over_parameters_equals_one_at_a_time(activation):
    net = models.two_layer(3, 5, 2, activation)
    thetas = torch.stack([net.init(seed) for seed in range(3)])
    X = torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    single = torch.stack([net(theta, X) for theta in thetas])
    torch.testing.assert_close(torch.func.vmap(net, (0, None))(thetas, X), single)
    torch.testing.assert_close(net(thetas, X), single)


def test_relu_network_is_homogeneous_of_degree_two():
    net = models.two_layer(3, 5, 2)
    theta = net.init(0)
    X = torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(net(3 * theta, X), 9 * net(theta, X))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: models.two_layer(0, 4, 2), "d_in = 0"),
        (lambda: models.two_layer(3, 4, 2, "sine"), "activation = 'sine'"),
        (lambda: models.two_layer(3, 4, 2).init(-1), "seed = -1"),
        (lambda: models.two_layer(3, 4, 2).init(0, scale=0.0), "scale = 0.0"),
        (lambda: models.two_layer(3, 4, 2).init(0, scheme="xavier"), "scheme = 'xavier'"),
        (lambda: models.two_layer(3, 4, 2).matrices(torch.zeros(7)), "d = 20"),
        (lambda: models.two_layer(3, 4, 2).flat(E=torch.zeros(3, 4)), "must be E, W"),
        (
            lambda: models.two_layer(3, 4, 2).flat(E=torch.zeros(3, 4), W=torch.zeros(2, 4)),
            r"W has shape \(2, 4\)",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- the other written-out models


def test_an_mlp_of_one_hidden_layer_is_the_two_layer_network():
    two, deep, X = models.two_layer(3, 5, 2, "tanh"), models.mlp([3, 5, 2], "tanh"), gaussian(4, 3)
    theta = two.init(1)
    assert torch.equal(theta, deep.init(1))
    torch.testing.assert_close(deep(theta, X), two(theta, X))


@pytest.mark.parametrize("bias", [False, True])
def test_an_mlp_is_that_of_torch_nn(bias):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        layers = [nn.Linear(a, b, bias=bias, dtype=torch.float64) for a, b in ((3, 6), (6, 5), (5, 2))]
    model, X = models.mlp([3, 6, 5, 2], "softplus", bias=bias), gaussian(4, 3)
    module = nn.Sequential(layers[0], nn.Softplus(), layers[1], nn.Softplus(), layers[2])
    theta = model.init(3)
    torch.testing.assert_close(model(theta, X), module(X).detach())
    thetas = torch.stack([theta, 2 * theta])
    torch.testing.assert_close(model(thetas, X), torch.stack([model(t, X) for t in thetas]))


@pytest.mark.parametrize("layer_norm", [False, True])
def test_a_transformer_is_that_of_torch_nn(layer_norm):
    """Against nn.MultiheadAttention with the same matrices."""
    model = models.transformer(7, 3, 5, width=8, heads=2, mlp_width=6, layer_norm=layer_norm)
    theta, X = model.init(0), torch.randint(7, (4, 3), generator=torch.Generator().manual_seed(0))
    P = model.matrices(theta)
    attention = nn.MultiheadAttention(8, 2, bias=False, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        attention.in_proj_weight.copy_(torch.cat([P[f"{name}1"].T for name in ("query", "key", "value")]))
        attention.out_proj.weight.copy_(P["attended1"].T)
        normed = (lambda S: nn.functional.layer_norm(S, (8,))) if layer_norm else (lambda S: S)
        S = P["tokens"][X] + P["positions"]
        S = S + attention(normed(S), normed(S), normed(S))[0]
        S = S + nn.functional.gelu(normed(S) @ P["up1"]) @ P["down1"]
    torch.testing.assert_close(model(theta, X), S[:, -1] @ P["readout"])


# ---- modules of others


class Tied(nn.Module):
    """Token inputs, one matrix as embedding and as readout, a buffer, a frozen layer."""

    def __init__(self):
        super().__init__()
        self.embedding, self.mix, self.out = nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 5, bias=False)
        self.out.weight = self.embedding.weight
        self.register_buffer("shift", torch.full((4,), 0.5))
        self.mix.bias.requires_grad_(False)

    def forward(self, tokens):
        return self.out(torch.tanh(self.mix(self.embedding(tokens).sum(1)) + self.shift))


def small(*parts):
    return nn.Sequential(nn.Linear(3, 4), *parts, nn.Linear(4, 2))


def test_a_module_is_taken_as_it_is_and_left_alone():
    module = Tied()
    before = {name: each.clone() for name, each in module.state_dict().items()}
    model, X = models.from_module(module), torch.tensor([[0, 1], [2, 3], [4, 4]])
    assert model.d == 5 * 4 + 4 * 4  # the tied matrix once, no frozen bias, no buffer
    assert model.theta.dtype == torch.float64
    model.check(X)
    torch.testing.assert_close(model(model.init(), X).float(), module(X).detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model.init(scale=2.0), 2 * model.theta)
    model(model.init(1), X)
    assert all(torch.equal(before[name], each) for name, each in module.state_dict().items())
    assert next(module.parameters()).dtype == torch.float32


def test_a_module_is_redrawn_by_its_own_rules():
    model = models.from_module(small(nn.GELU()).double())
    with torch.random.fork_rng():
        torch.manual_seed(7)
        again = nn.Sequential(nn.Linear(3, 4).double(), nn.Linear(4, 2).double())
        torch.manual_seed(7)
        for part in again:
            part.reset_parameters()
    expected = torch.cat([each.detach().flatten() for each in again.parameters()])
    before = torch.get_rng_state()
    assert torch.equal(model.init(7), expected)
    assert torch.equal(before, torch.get_rng_state())


def test_weights_that_nothing_redraws_are_named():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2))

        def forward(self, X):
            return X * self.scale

    with pytest.raises(ValueError, match=r"reset_parameters that draws scale; give theta0"):
        models.from_module(Own()).init(0)


@pytest.mark.parametrize(
    ("part", "smooth"),
    [
        (nn.ReLU(), False),
        (nn.GELU(), True),
        (nn.Tanh(), True),
        (nn.LayerNorm(4), True),
        (nn.Hardtanh(), False),
    ],
)
def test_modules_that_bend_are_noticed(part, smooth):
    model = models.from_module(small(part))
    model.check(gaussian(5, 3))
    assert model.smooth is smooth


@pytest.mark.parametrize(
    "bend",
    [
        torch.relu,
        nn.functional.relu,
        lambda Z: Z.clamp(min=0),
        lambda Z: torch.where(Z > 0, Z, 0.1 * Z),
        torch.abs,
    ],
)
def test_functions_that_bend_are_noticed_inside_a_module(bend):
    class Bent(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, X):
            return self.second(bend(self.first(X)))

    model = models.from_module(Bent())
    model.check(gaussian(5, 3))
    assert not model.smooth


class Returns(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.layer, self.function = nn.Linear(3, 2), function

    def forward(self, X):
        return self.function(self.layer(X))


def of(module, X=None):
    return lambda: models.from_module(module).check(gaussian(5, 3) if X is None else X)


def with_(module, change):
    change(module)
    return module


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: models.from_module(torch.relu), "module is a builtin_function"),
        (lambda: models.from_module(nn.ReLU()), "no trainable parameters"),
        (lambda: models.from_module(small(nn.Dropout(0.1))), r"1 \(Dropout\).*module.eval\(\) first"),
        (lambda: models.from_module(small(nn.BatchNorm1d(4))), r"1 \(BatchNorm1d\).*module.eval\(\) first"),
        (
            lambda: models.from_module(nn.Sequential(nn.LazyLinear(2))),
            "weight of Sequential has no shape yet",
        ),
        (
            lambda: models.from_module(
                with_(
                    small(),
                    lambda s: s.register_parameter(
                        "k", nn.Parameter(torch.ones(2, dtype=torch.int8), requires_grad=False)
                    ),
                )
            ),
            "k of Sequential has dtype torch.int8",
        ),
        (
            lambda: models.from_module(with_(small(), lambda s: s[0].weight.data.fill_(torch.nan))),
            "0.weight of Sequential holds NaN",
        ),
        (of(Returns(lambda F: (F, F))), r"returned a tuple: must return a tensor \(n, m\)"),
        (of(Returns(lambda F: F[:, 0])), r"returned shape \(5,\).*for one output, \(n, 1\)"),
        (of(Returns(lambda F: F[:, None])), r"returned shape \(5, 1, 2\)"),
        (of(Returns(lambda F: F / 0)), "NaN or infinite outputs"),
        (of(Returns(lambda F: nn.functional.dropout(F))), "other outputs when asked twice"),
        (of(small(), gaussian(5, 7)), r"X of shape \(5, 7\).*does not fit Sequential"),
        (of(small(), [[1.0, 2.0, 3.0]]), "X is a list"),
        (of(small(), gaussian(5, 3) * torch.nan), "X holds NaN"),
        (of(small(), gaussian(0, 3)), "at least one sample"),
        (of(small(), torch.tensor(1.0)), "at least one sample"),
        (lambda: models.mlp(5), "widths = 5"),
        (lambda: models.mlp([3]), r"widths = \[3\]"),
        (lambda: models.mlp([3, 0, 2]), r"widths\[1\] = 0"),
        (lambda: models.mlp([3, 4, 2], "sine"), "activation = 'sine'"),
        (lambda: models.transformer(7, 3, 5, width=10), "heads = 4: must divide width = 10"),
        (lambda: models.transformer(7, 0, 5), "length = 0"),
        (lambda: models.transformer(7, 3, 5).check(gaussian(4, 3)), "reads integer tokens"),
        (lambda: models.transformer(7, 3, 5).check(torch.full((4, 3), 7)), "tokens 7 to 7: must be 0 to 6"),
        (
            lambda: models.transformer(7, 3, 5).check(torch.zeros(4, 2, dtype=torch.int64)),
            r"must be \(n, 3\)",
        ),
        (lambda: models.two_layer(3, 4, 2).check(gaussian(5, 4)), r"must be \(n, 3\)"),
        (lambda: models.mlp([3, 4, 2]).check(gaussian(0, 3)), "with n ≥ 1"),
        (lambda: models.two_layer(3, 4, 2).check([[1.0, 2.0, 3.0]]), "X is a list"),
    ],
)
def test_what_is_no_function_of_parameters_and_samples_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_evaluation_mode_lets_dropout_and_batch_norm_pass():
    of(small(nn.BatchNorm1d(4), nn.Dropout(0.5)).eval())()


def test_numpy_integers_are_sizes():
    assert models.two_layer(*np.array([3, 4, 2])).d == 20


def test_a_layer_under_two_names_is_one_layer_however_often_it_is_called():
    """PyTorch's own tying of weights left such a module with the last call's weights."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.again = self.first
            self.readout = nn.Linear(4, 2)

        def forward(self, x):
            return self.readout(torch.tanh(self.again(torch.tanh(self.first(x)))))

    model = models.from_module(Twice())
    X = torch.randn(5, 4, dtype=torch.float64)
    for seed in range(3):
        P = model.matrices(model.init(seed))
        layer = lambda H, P=P: torch.tanh(H @ P["first.weight"].T + P["first.bias"])  # noqa: E731
        expected = layer(layer(X)) @ P["readout.weight"].T + P["readout.bias"]
        assert torch.allclose(model(model.init(seed), X), expected, rtol=0, atol=1e-14)
    assert torch.equal(model.init(), model.theta)
