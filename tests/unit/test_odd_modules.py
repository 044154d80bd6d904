"""Modules as their owners wrote them: read as PyTorch reads them, or refused in a sentence, never turned into wrong numbers."""

import pytest
import torch
from torch import nn

from grokutils import delay, linearize, models, tasks, training

TASK = tasks.modular(5, train_fraction=0.6, seed=0)
TOKENS = tasks.modular(5, train_fraction=0.6, seed=0, ordered=True, representation="tokens")


class Own(nn.Module):
    """A layer, a function of one's own, a readout."""

    def __init__(self, inner, d_in=5, width=6):
        super().__init__()
        self.first, self.last, self.inner = nn.Linear(d_in, width), nn.Linear(width, 5, bias=False), inner

    def forward(self, X):
        return self.last(self.inner(self.first(X)))


class OldStyle(torch.autograd.Function):
    """x³, of before torch.func: no setup_context, no vmap, no jvp; its backward pass can be differentiated."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * gradient


class Once(OldStyle):
    """The same with a backward pass that autograd does not see through."""

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * gradient


class Hidden(OldStyle):
    """The same with a backward pass that leaves autograd without saying so."""

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * gradient.detach()


class Straight(OldStyle):
    """A sign whose backward pass says that its slope is 1."""

    @staticmethod
    def forward(ctx, x):
        return torch.sign(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class Shared(nn.Module):
    """Tokens, embedding tied to the readout, a layer used twice, a position held as a buffer, a frozen scale."""

    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.read = nn.Embedding(5, 6), nn.Linear(6, 6), nn.Linear(6, 5, bias=False)
        self.read.weight = self.embed.weight
        self.register_buffer("place", torch.linspace(-1, 1, 12).view(2, 6))
        self.scale = nn.Parameter(torch.tensor(0.7), requires_grad=False)

    def forward(self, X):
        H = (self.embed(X) + self.place).sum(1)
        return self.read(torch.tanh(self.mix(torch.tanh(self.mix(H)) * self.scale)))


def turned():
    """Parameters whose entries do not lie one behind the other."""
    module = Own(nn.Tanh())
    module.first.weight = nn.Parameter(torch.randn(5, 6).T)
    module.last.weight = nn.Parameter(torch.randn(5, 12)[:, ::2])
    assert not module.first.weight.is_contiguous()
    return module


def frozen():
    module = Own(nn.Tanh())
    module.first.requires_grad_(False)
    return module


def normed():
    module = Own(nn.Tanh())
    nn.utils.parametrizations.weight_norm(module.first)
    return module


MODULES = {
    "tied weights, tokens, a buffer, a frozen number": Shared,
    "non-contiguous parameters": turned,
    "a frozen layer": frozen,
    "dropout and batch norm in evaluation mode": lambda: Own(
        nn.Sequential(nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.5))
    ).eval(),
    "group norm": lambda: Own(nn.Sequential(nn.GroupNorm(2, 6), nn.Tanh())),
    "a parametrization": normed,
    "single precision": lambda: Own(nn.GELU()).float(),
    "half precision": lambda: Own(nn.GELU()).to(torch.bfloat16),
    "an autograd.Function of the old style": lambda: Own(OldStyle.apply),
    "PyTorch's own transformer layer": lambda: nn.Sequential(
        nn.Embedding(5, 4), nn.TransformerEncoderLayer(4, 2, 8, 0.0, "gelu", batch_first=True), nn.Flatten(), nn.Linear(8, 5)
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _own_numbers(_global_state_stays):
    """PyTorch's modules draw from the global generator when they are made; it is put back before the check that it stays."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        yield


def made(name: str):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return MODULES[name]()


@pytest.mark.filterwarnings(
    "ignore:There is a performance drop"
)  # PyTorch's, of a parametrization's second derivative
@pytest.mark.parametrize("name", MODULES)
def test_its_jacobian_is_that_of_its_outputs_by_every_kind(name):
    module = made(name)
    task = TOKENS if any(isinstance(part, nn.Embedding) for part in module.modules()) else TASK
    model = models.from_module(module)
    theta, X = model.theta, task.X_train[:4]
    assert model.d == sum(each.numel() for each in module.parameters() if each.requires_grad)
    dense, free = (linearize(model, theta, X, kind) for kind in ("dense", "matrix_free"))
    torch.testing.assert_close(dense.gram(), free.gram(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(dense.outputs, free.outputs)
    generator = torch.Generator().manual_seed(2)
    v, u = (torch.randn(n, generator=generator, dtype=torch.float64) for n in (model.d, dense.outputs.shape))
    h = 1e-5
    difference = (model(theta + h * v, X) - model(theta - h * v, X)) / (2 * h)
    torch.testing.assert_close(free.jvp(v), difference, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(dense.jvp(v), free.jvp(v), rtol=1e-9, atol=1e-10)
    assert float((u * free.jvp(v)).sum()) == pytest.approx(float(free.vjp(u) @ v), rel=1e-9)


@pytest.mark.parametrize(
    "name", ["tied weights, tokens, a buffer, a frozen number", "non-contiguous parameters"]
)
def test_it_is_trained_as_pytorch_trains_it(name):
    module = made(name).double()
    task, model = TOKENS if name.startswith("tied") else TASK, models.from_module(module)
    trained = training.train(model, task, 5, theta0=model.theta, lr=0.1, weight_decay=0.01, record_at=2)
    optimizer = torch.optim.SGD(
        [each for each in module.parameters() if each.requires_grad], lr=0.1, weight_decay=0.01
    )
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.mse_loss(module(task.X_train), task.Y_train).backward()
        optimizer.step()
    expected = models.from_module(module).theta
    torch.testing.assert_close(
        torch.from_numpy(trained.theta_end.values[0]), expected, rtol=1e-10, atol=1e-12
    )


def test_its_own_weights_can_be_where_a_prediction_begins():
    class Scaled(nn.Module):
        """Holds a parameter that no reset_parameters draws."""

        def __init__(self):
            super().__init__()
            self.layer, self.read = nn.Linear(5, 6, bias=False), nn.Linear(6, 5, bias=False)
            self.scale = nn.Parameter(torch.ones(6))

        def forward(self, X):
            return self.read(torch.tanh(self.layer(X) * self.scale))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.from_module(Scaled())
    how = {"lr": 0.5, "weight_decay": 1e-3, "tau_end": 0.1, "patience": 40}
    with pytest.raises(ValueError, match="theta0"):
        delay.predict_delay(model, TASK, **how)
    said = delay.predict_delay(model, TASK, **how, theta0=model.theta)
    assert "does not memorize within 40 steps" in str(said)
    assert torch.equal(said.theta, model.theta)


def with_(module, change):
    change(module)
    return module


def tie_by_view(module):
    """A habit that ties weights behind PyTorch's back: two parameters on one memory."""
    module.last.weight.data = module.first.weight.data.T


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            lambda: with_(Own(nn.Tanh()), tie_by_view),
            "first.weight, last.weight of Own: several entries share memory",
        ),
        (
            lambda: with_(
                Own(nn.Tanh()), lambda m: setattr(m.first, "bias", nn.Parameter(torch.zeros(1).expand(6)))
            ),
            "first.bias of Own: several entries share memory",
        ),
        (lambda: nn.Linear(5, 5, device="meta"), "weight of Linear has no values yet"),
        (
            lambda: with_(nn.Linear(5, 5), lambda m: setattr(m, "log", (i for i in ()))),
            "Linear cannot be copied",
        ),
        (
            lambda: with_(
                nn.Linear(5, 5),
                lambda m: m.register_parameter("k", nn.Parameter(torch.ones(2, dtype=torch.complex64))),
            ),
            "k of Linear has dtype torch.complex64",
        ),
    ],
)
def test_weights_that_are_no_entries_of_a_vector_are_refused(module, message):
    with pytest.raises(ValueError, match=message):
        models.from_module(module())


class Constant(nn.Module):
    """Adds a tensor that is no buffer and stays in single precision."""

    def __init__(self):
        super().__init__()
        self.layer, self.constant = nn.Linear(5, 5), torch.ones(5, 5)

    def forward(self, X):
        return self.layer(X) @ self.constant


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Own(lambda H: H.float().double()[:, :6].float()), "dtype|returned torch.float32"),
        (with_(Own(nn.Tanh()), lambda m: m.last.register_forward_hook(lambda *a: a[2].float())), "returned torch.float32"),
        (with_(Own(nn.Tanh()), lambda m: m.last.register_forward_hook(lambda *a: a[2][:, :0])), "at least one output"),
        (Constant(), "must be buffers, to become float64"),
        (Own(lambda H: nn.functional.batch_norm(H, None, None, training=True)), "outputs without the others"),
        (Own(lambda H: H + torch.randn_like(H)), "when asked twice"),
    ],
)  # fmt: skip
def test_outputs_that_are_no_function_of_weights_and_samples_are_refused(module, message):
    with pytest.raises(ValueError, match=message):
        models.from_module(module).check(TASK.X_train)


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        (Once.apply, "cannot be differentiated itself|not the derivative"),
        (Hidden.apply, "cannot be differentiated itself|not the derivative"),
        (lambda H: H + Hidden.apply(H), "not the derivative of its outputs"),
        (Straight.apply, "not the derivative of its outputs"),
        (
            lambda H: torch.tanh(H) + (torch.sign(H) - torch.tanh(H)).detach(),
            "not the derivative of its outputs",
        ),
        (lambda H: torch.tanh(H) * H.detach(), "not the derivative of its outputs"),
    ],
)
def test_a_backward_pass_that_is_no_derivative_is_refused_but_trained_with(inner, message):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.from_module(Own(inner))
    for kind in ("dense", "matrix_free"):
        with pytest.raises(ValueError, match=message):
            linearize(model, model.theta, TASK.X_train, kind)
    training.train(model, TASK, 2, theta0=model.theta, lr=0.01, record_at=2)


def test_tokens_beyond_those_that_were_tried_are_tried_before_any_work(monkeypatch):
    model = models.from_module(nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, 5)))
    bad = TOKENS.X_test.clone()
    bad[0, 0] = 5
    task = tasks.Task("beyond", TOKENS.X_train, TOKENS.Y_train, bad, TOKENS.Y_test)
    monkeypatch.setattr(training.loop, "General", lambda *_: pytest.fail("work was done"))
    with pytest.raises(ValueError, match=r"does not fit Sequential.*index out of range"):
        training.train(model, task, 5, theta0=model.theta)


def test_training_needs_no_gradients_to_be_on():
    model = models.from_module(Own(nn.Tanh()))
    how = {"theta0": model.theta, "lr": 0.1, "record_at": 2}
    with torch.no_grad():
        off = training.train(model, TASK, 3, **how)
        linearize(model, model.theta, TASK.X_train, "matrix_free").gram()
    assert (off.theta_end == training.train(model, TASK, 3, **how).theta_end).all()
