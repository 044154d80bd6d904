"""Training against plain torch.optim loops, against itself batched and resumed, and against the flow's laws."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
import xarray as xr

from grokutils import errors, losses, models, records, tasks, training
from grokutils.activations import activation
from grokutils.training.batched import Batched
from grokutils.training.data import rows
from grokutils.training.general import General
from grokutils.training.gradients import Loss

TASK = tasks.modular(5, train_fraction=0.7, seed=1)
NET = models.two_layer(5, 8, 5)
OPTIMIZERS = {
    "gd": lambda groups, w: torch.optim.SGD(groups, lr=0.1, weight_decay=w),
    "momentum": lambda groups, w: torch.optim.SGD(groups, lr=0.1, weight_decay=w, momentum=0.9),
    "adam": lambda groups, w: torch.optim.Adam(groups, lr=0.1, weight_decay=w),
    "adamw": lambda groups, w: torch.optim.AdamW(groups, lr=0.1, weight_decay=w),
}


def ordered_pairs(p=5):
    """Addition over ordered pairs: (a, b) and (b, a) are equal samples."""
    pairs = torch.cartesian_prod(torch.arange(p), torch.arange(p))
    pairs = pairs[torch.randperm(p * p, generator=torch.Generator().manual_seed(0))]
    eye = torch.eye(p, dtype=torch.float64)
    X, Y = eye[pairs[:, 0]] + eye[pairs[:, 1]], eye[pairs.sum(1) % p]
    return dataclasses.replace(TASK, X_train=X[:18], Y_train=Y[:18], X_test=X[18:], Y_test=Y[18:])


def dense(task=TASK):
    """The same targets from inputs that are no sums of one-hots."""
    mix = torch.randn(5, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return dataclasses.replace(task, X_train=task.X_train @ mix, X_test=task.X_test @ mix)


def general(state, step):
    """A hook that does nothing: the runs go through the general loop."""
    step()


def plain_loop(net, task, steps, make, *, loss="mse", batch_size=None, speed=1.0, w=1e-2, seed=0):
    """θ (steps + 1, d) of the most ordinary PyTorch training loop."""
    E, W = (M.clone().requires_grad_() for M in net.matrices(net.init(seed)).values())
    optimizer = make([{"params": [E]}, {"params": [W], "lr": 0.1 * speed}], w)
    n, path = len(task.X_train), []
    for step in range(steps + 1):
        path.append(net.flat(E=E.detach(), W=W.detach()))
        index = torch.arange(n)
        if batch_size is not None:
            epoch, batch = divmod(step, -(-n // batch_size))
            index = training.shuffled(seed, epoch, n)[batch * batch_size : (batch + 1) * batch_size]
        outputs = net.activation.value(task.X_train[index] @ E) @ W
        criterion = {"mse": torch.nn.MSELoss, "cross_entropy": torch.nn.CrossEntropyLoss}[loss]
        optimizer.zero_grad()
        criterion()(outputs, task.Y_train[index]).backward()
        optimizer.step()
    return torch.stack(path)


@pytest.mark.parametrize("name", list(OPTIMIZERS))
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize("hooks", [(), general], ids=["kernel", "general"])
def test_equals_a_plain_torch_loop_step_for_step(name, loss, batch_size, hooks):
    momentum = {"optimizer": "gd", "momentum": 0.9}
    ds = training.train(
        NET, TASK, 25, lr=0.1, readout_speed=0.5, weight_decay=1e-2, loss=loss, batch_size=batch_size, hooks=hooks,
        record_at=range(26), keep_theta=True, **(momentum if name == "momentum" else {"optimizer": name}),
    )  # fmt: skip
    expected = plain_loop(NET, TASK, 25, OPTIMIZERS[name], loss=loss, batch_size=batch_size, speed=0.5)
    np.testing.assert_allclose(ds.theta[0].values, expected, rtol=0, atol=1e-10)
    np.testing.assert_array_equal(ds.theta_end[0], ds.theta[0, -1])


KERNEL_SETTINGS = [
    {},
    {"momentum": 0.9, "batch_size": 4},
    {"optimizer": "sgd", "loss": "cross_entropy"},
    {"optimizer": partial(torch.optim.AdamW, betas=(0.8, 0.9), eps=1e-4)},
    {"optimizer": "adam", "loss": "cross_entropy", "readout_speed": [1.0, 3.0]},
    {"lr": lambda step: 0.1 / (1 + step), "weight_decay": lambda tau: 1e-2 * (tau < 0.01)},
    {"optimizer": "adamw", "lr": lambda tau: 0.1 * np.exp(-tau), "weight_decay": [0.1, 0.2], "batch_size": 3},
]


@pytest.mark.parametrize("settings", KERNEL_SETTINGS)
@pytest.mark.parametrize("act", ["relu", "gelu"])
def test_the_kernel_and_the_general_loop_agree(settings, act, monkeypatch):
    used = []
    for engine in (Batched, General):
        step = engine.step
        monkeypatch.setattr(
            engine, "step", lambda self, *a, step=step: (used.append(type(self)), step(self, *a))[1]
        )
    net = models.two_layer(5, 8, 5, act)
    both = {"seed": [0, 1], "lr": 0.1, "weight_decay": 1e-2, "record_at": 12, "keep_theta": True, **settings}
    fast, slow = (training.train(net, ordered_pairs(), 40, hooks=hooks, **both) for hooks in ((), general))
    assert used == [Batched] * 40 + [General] * 40
    assert set(fast.variables) == set(slow.variables)
    for name in (*fast.data_vars, "tau"):
        np.testing.assert_allclose(fast[name], slow[name], rtol=1e-10, atol=1e-10)


def test_options_that_the_kernel_does_not_know_go_to_torch():
    make = partial(torch.optim.SGD, momentum=0.9, nesterov=True)
    ds = training.train(
        NET, TASK, 10, lr=0.1, weight_decay=1e-2, optimizer=make, record_at=range(11), keep_theta=True
    )
    expected = plain_loop(
        NET, TASK, 10, lambda groups, w: make([{**g, "lr": 0.1} for g in groups], lr=0.1, weight_decay=w)
    )
    np.testing.assert_allclose(ds.theta[0].values, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ds.tau[0], 0.1 * 1e-2 * ds.step / (1 - 0.9))


# --- models of any kind -----------------------------------------------------------------------------------------


class Tied(torch.nn.Module):
    """One matrix in two places, and a buffer."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(5, 5)
        self.outer = torch.nn.Linear(5, 5)
        self.outer.weight = self.inner.weight
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, X):
        return self.outer(torch.tanh(self.inner(X))) * self.scale


TOKENS = tasks.modular(5, representation="tokens")
MODELS = {
    "mlp": (models.mlp([5, 6, 6, 5], "tanh", bias=True), TASK),
    "transformer": (models.transformer(5, 2, 5, width=8, heads=2), TOKENS),
    "module": (models.from_module(Tied()), TASK),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("optimizer", "kind"), [("gd", "SGD"), ("rmsprop", "RMSprop"), ("nadam", "NAdam")])
def test_any_model_is_trained_as_torch_would(name, optimizer, kind):
    model, task = MODELS[name]
    start = model.init(3)
    ds = training.train(
        model, task, 12, theta0=start, lr=0.01, weight_decay=0.1, loss="cross_entropy", optimizer=optimizer,
        record_at=range(13), keep_theta=True,
    )  # fmt: skip
    records.check(ds)
    theta = start.clone().requires_grad_()  # these optimizers are elementwise: one flat parameter will do
    plain = getattr(torch.optim, kind)([theta], lr=0.01, weight_decay=0.1)
    for step in range(13):
        np.testing.assert_allclose(ds.theta[0, step], theta.detach(), rtol=0, atol=1e-12)
        loss = torch.nn.functional.cross_entropy(model(theta, task.X_train), task.Y_train)
        assert ds.train_loss[0, step] == pytest.approx(loss.item())
        plain.zero_grad()
        loss.backward()
        plain.step()


def test_matrices_reach_an_optimizer_that_needs_them():
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this PyTorch has no Muon")
    ds = training.train(NET, TASK, 100, lr=0.02, optimizer="muon", record_at=2)
    assert ds.train_loss[0, -1] < 0.3 * ds.train_loss[0, 0]


def test_single_precision_stays_single():
    task = tasks.modular(5, dtype=torch.float32)
    for model in (NET, models.mlp([5, 6, 5])):
        ds = training.train(model, task, 5, keep_theta=True)
        assert ds.theta.dtype == ds.theta_end.dtype == np.float32
        assert ds.attrs["dtype"] == "float32"


# --- schedules, noise, hooks -----------------------------------------------------------------------------------


def test_slow_time_adds_up_the_schedules():
    ds = training.train(
        NET, TASK, 30, lr=lambda step: 0.1 / (1 + step), weight_decay=lambda tau: 0.01 if tau < 2e-3 else 0.0,
        momentum=0.5, record_at=range(31),
    )  # fmt: skip
    tau = [0.0]
    for step in range(30):
        tau.append(tau[-1] + 2 * 0.1 / (1 + step) * (0.01 if tau[-1] < 2e-3 else 0.0))
    np.testing.assert_allclose(ds.tau[0], tau)
    assert tau[-1] == tau[-20] >= 2e-3
    assert ds.attrs["lr"] == "function of step"


def test_label_noise_is_fresh_in_each_step_and_as_large_as_said():
    flat = tasks.from_tensors(np.ones((400, 1)), np.zeros(400), [[1.0]], [0.0])
    model = models.mlp([1, 1])
    steps = 200
    ds = training.train(
        model, flat, steps, theta0=torch.zeros(1, dtype=torch.float64), lr=0.5, weight_decay=0.0, label_noise=0.3,
        record_at=range(steps + 1), keep_theta=True,
    )  # fmt: skip
    means = ds.theta[0, 1:, 0].values  # lr = 1/2: each step lands on the mean of that step's noisy targets
    assert len(set(means)) == steps
    assert means.std() == pytest.approx(0.3 / 20, rel=0.2)
    again = training.train(
        model, flat, 1, theta0=torch.zeros(1, dtype=torch.float64), lr=0.5, weight_decay=0.0, label_noise=0.3
    )
    assert again.theta_end[0, 0] == means[0]


@pytest.mark.parametrize("optimizer", ["gd", "adamw"])
def test_noisy_labels_side_by_side_are_those_of_automatic_differentiation(optimizer):
    shared = {
        "task": ordered_pairs(),
        "seed": [4, 5],
        "lr": 0.05,
        "label_noise": [0.3, 0.0],
        "optimizer": optimizer,
    }
    kernel = training.train(NET, steps=30, record_at=[30], **shared)
    one_by_one = training.train(NET, steps=30, record_at=[30], hooks=general, **shared)
    np.testing.assert_allclose(kernel.theta_end, one_by_one.theta_end, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(kernel.train_loss, one_by_one.train_loss, rtol=1e-9)  # of the true labels


def test_hooks_stand_around_each_step_the_first_outermost():
    seen = []

    def outer(state, step):
        seen.append(("outer", state.step, state.run))
        state.weight_decay = 0.0
        step()
        state.theta.clamp_(min=-0.1)

    def inner(state, step):
        seen.append(("inner", state.step, state.run))
        expected = 0.2 * (state.theta - state.gradient)
        state.gradient.copy_(state.theta - expected / 0.2)
        before = state.theta.clone()
        step()
        torch.testing.assert_close(state.theta, before - 0.1 * state.gradient)

    ds = training.train(NET, TASK, 3, seed=[0, 1], lr=0.1, weight_decay=0.5, hooks=[outer, inner])
    assert seen[:4] == [("outer", 0, 0), ("inner", 0, 0), ("outer", 0, 1), ("inner", 0, 1)]
    assert ds.theta_end.min() == pytest.approx(-0.1)
    assert (ds.tau == 0).all()  # decay was switched off, so slow time stood still


def test_hooks_that_come_with_the_package():
    mask = torch.zeros(8, 5, dtype=torch.bool)
    mask[0] = True
    start = NET.init(0)
    shared = {"lr": 0.5, "keep_theta": True, "record_at": range(31)}
    frozen = training.train(NET, TASK, 30, hooks=training.freeze(E=True, W=mask), **shared)
    E, W = NET.matrices(torch.from_numpy(frozen.theta_end.values[0])).values()
    first = NET.matrices(start)
    assert torch.equal(E, first["E"])
    assert torch.equal(W[0], first["W"][0])
    assert not torch.isclose(W[1:], first["W"][1:]).any()
    held = training.train(NET, TASK, 30, hooks=training.clamp_norm(), **shared)
    np.testing.assert_allclose(held.norm2, float(start.norm()) ** 2)
    assert training.train(NET, TASK, 1, hooks=training.clamp_norm(2.0)).norm2[0, -1] == pytest.approx(4)
    boosted = training.train(
        NET, TASK, 30, weight_decay=0.0, hooks=training.filter_gradient(0.0, 2.0), **shared
    )
    plain = training.train(NET, TASK, 30, weight_decay=0.0, **{**shared, "lr": 1.5})
    np.testing.assert_allclose(boosted.theta, plain.theta, atol=1e-12)
    with pytest.raises(ValueError, match="freeze = 'V': must be one of 'E', 'W'"):
        training.train(NET, TASK, 1, hooks=training.freeze(V=True))


@pytest.mark.parametrize("hooks", [(), general])
def test_until_and_callback_see_each_record(hooks):
    seen = []
    ds = training.train(
        NET, TASK, 5000, seed=[0, 1], record_at=range(0, 5000, 20), callback=seen.append, hooks=hooks,
        until=lambda record: record.train_accuracy == 1,
    )  # fmt: skip
    assert ds.attrs["ended"] == "until"
    assert (ds.train_accuracy[:, -1] == 1).all()
    assert (ds.train_accuracy[:, -2] < 1).any()
    assert [record.step for record in seen] == ds.step.values.tolist()
    np.testing.assert_array_equal(seen[-1].theta, ds.theta_end)
    np.testing.assert_array_equal(seen[3].test_loss, ds.test_loss[:, 3])
    np.testing.assert_array_equal(seen[3].tau, ds.tau[:, 3])


def relu(Z):
    """A user's own function may have the name of one of ours."""
    return torch.sin(Z)


@pytest.mark.filterwarnings(
    "ignore:`torch.jit.script` is deprecated"
)  # forward mode's first use, inside torch
@pytest.mark.parametrize("act", ["relu", "leaky_relu", "softplus", "quadratic", "tanh", torch.sin, relu])
@pytest.mark.parametrize("task", [TASK, ordered_pairs(), dense()], ids=["two-hot", "repeated", "dense"])
def test_any_activation_and_input_equals_the_plain_loop(act, task):
    net = models.two_layer(5, 8, 5, act)
    ds = training.train(net, task, 15, lr=0.1, weight_decay=1e-2, record_at=range(16), keep_theta=True)
    np.testing.assert_allclose(
        ds.theta[0].values, plain_loop(net, task, 15, OPTIMIZERS["gd"]), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("task", [TASK, ordered_pairs(), dense()], ids=["two-hot", "repeated", "dense"])
def test_gradient_is_that_of_torch_func(loss, task):
    net = models.two_layer(5, 8, 5, "gelu")
    theta = net.init(2)

    def objective(theta):
        outputs = net(theta, task.X_train)
        if loss == "mse":
            return (outputs - task.Y_train).square().mean()
        return -(task.Y_train * torch.log_softmax(outputs, 1)).sum(1).mean()

    matrices = net.matrices(theta[None])
    V = matrices["W"].mT.contiguous()
    gradient_E, gradient_V = torch.empty_like(matrices["E"]), torch.empty_like(V)
    measured = Loss(activation("gelu"), loss == "mse", rows([(task.X_train, task.Y_train)], merge=True))
    measured.gradient(matrices["E"], V, gradient_E, gradient_V)
    own = net.flat(E=gradient_E[0], W=gradient_V[0].T)
    torch.testing.assert_close(own, torch.func.grad(objective)(theta), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(measured.measure(matrices["E"], V)[0][0], objective(theta))


def test_records_are_what_the_network_at_theta_gives():
    task = ordered_pairs()
    ds = training.train(NET, task, 30, seed=[0, 3], lr=[0.1, 0.4], record_at=[7], keep_theta=True)
    assert ds.step.values.tolist() == [0, 7, 30]
    np.testing.assert_allclose(ds.tau, 1e-4 * np.outer([0.1, 0.4], [0, 7, 30]))
    theta = torch.from_numpy(ds.theta.values)  # (2, 3, d)
    np.testing.assert_allclose(ds.norm2, theta.square().sum(-1))
    records.check(ds)
    np.testing.assert_allclose(ds.train_baseline, task.Y_train.square().mean())
    np.testing.assert_allclose(ds.test_baseline, task.Y_test.square().mean())
    for part, X, Y in (("train", task.X_train, task.Y_train), ("test", task.X_test, task.Y_test)):
        outputs = NET(theta, X)  # (2, 3, n, 5)
        np.testing.assert_allclose(ds[f"{part}_loss"], (outputs - Y).square().mean((-2, -1)))
        right = (outputs.argmax(-1) == Y.argmax(-1)).double().mean(-1)
        np.testing.assert_allclose(ds[f"{part}_accuracy"], right)


@pytest.mark.parametrize("optimizer", ["gd", "adamw"])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_runs_side_by_side_equal_runs_alone(optimizer, loss):
    """To 1e-12, not bitwise: batched matrix products may add in another order."""
    settings = {
        "task": [tasks.modular(5, train_fraction=f, seed=s) for f, s in ((0.4, 0), (0.7, 1), (0.8, 2))],
        "seed": [5, 6, 7],
        "lr": [0.05, 0.1, 0.2],
        "weight_decay": [0.0, 1e-3, 1e-2],
        "init_scale": [0.5, 1.0, 2.0],
        "readout_speed": [1.0, 4.0, 0.25],
    }
    shared = {"optimizer": optimizer, "loss": loss, "record_at": 10, "keep_theta": True}
    together = training.train(NET, steps=60, **settings, **shared)
    for r in range(3):
        alone = training.train(NET, steps=60, **{k: v[r] for k, v in settings.items()}, **shared)
        for name in together.data_vars:
            np.testing.assert_allclose(together[name][r], alone[name][0], rtol=1e-12, atol=1e-12)


def test_runs_too_large_for_one_part_are_trained_alike(monkeypatch):
    shared = {"seed": range(5), "lr": 0.1, "keep_theta": True}
    whole = training.train(NET, TASK, 20, **shared)
    monkeypatch.setattr("grokutils.training.batched.CACHED_ENTRIES", 2 * 8 * TASK.n_train)  # two runs a part
    parts = training.train(NET, TASK, 20, **shared)
    np.testing.assert_allclose(whole.theta, parts.theta, rtol=1e-12, atol=1e-12)


RESUMED = [
    {},
    {"momentum": 0.9, "batch_size": 4},
    {"optimizer": "adam", "loss": "cross_entropy"},
    {
        "optimizer": "adamw",
        "batch_size": 3,
        "lr": lambda step: 0.05 / (1 + step),
        "weight_decay": lambda tau: 1 + tau,
    },
    {"hooks": training.filter_gradient(0.9, 1.0), "optimizer": "rmsprop", "lr": 1e-3},
    {"hooks": general, "label_noise": 0.1, "batch_size": 4, "momentum": 0.9},
    {"model": models.mlp([5, 6, 5], bias=True), "optimizer": "nadam"},
]


@pytest.mark.parametrize("settings", RESUMED)
def test_killed_runs_resume_bit_for_bit_and_finished_ones_go_on(settings, tmp_path, monkeypatch):
    path = tmp_path / "run.nc"
    settings = {
        "model": NET, "task": TASK, "seed": [0, 1], "lr": 0.05, "record_at": [9, 20, 31], "keep_theta": True,
        **settings,
    }  # fmt: skip
    whole = training.train(steps=40, **settings)
    save, saved = records.save, []

    def killed(*args):
        save(*args)
        saved.append(args)
        if len(saved) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(records, "save", killed)
    with pytest.raises(KeyboardInterrupt) as stopped:
        training.train(steps=40, checkpoint=path, **settings)
    assert stopped.value.records.attrs["ended"] == "interrupted"
    assert stopped.value.records.step.values.tolist() == [0, 9, 20]
    assert records.load(path).step.values.tolist() == [0, 9, 20]
    monkeypatch.setattr(records, "save", save)
    resumed = training.train(steps=40, checkpoint=path, **settings)
    xr.testing.assert_identical(resumed, whole)
    assert training.train(steps=40, checkpoint=path, **settings).identical(whole)  # a finished one
    longer = {**settings, "record_at": [9, 20, 31, 40, 53]}
    xr.testing.assert_identical(
        training.train(steps=60, checkpoint=path, **longer), training.train(steps=60, **longer)
    )
    with pytest.raises(
        ValueError, match=r"steps = 40: checkpoint '.*' has gone to step 60; give at least that"
    ):
        training.train(steps=40, checkpoint=path, **settings)


def test_a_run_that_was_stopped_goes_on_without_its_rule(tmp_path):
    path, shared = tmp_path / "run.nc", {"record_at": range(0, 1000, 100), "checkpoint": tmp_path / "run.nc"}
    rule = lambda record: record.train_loss < 0.05  # noqa: E731
    stopped = training.train(NET, TASK, 1000, until=rule, **shared)
    assert stopped.attrs["ended"] == "until"
    assert training.train(NET, TASK, 1000, until=rule, **shared).identical(stopped)
    on = training.train(NET, TASK, 1000, **shared)
    assert on.identical(training.train(NET, TASK, 1000, **{**shared, "checkpoint": None}))
    assert records.load(path).step[-1] == 1000


def test_equal_settings_are_equal_whatever_holds_them(tmp_path):
    path = tmp_path / "run.nc"
    first = training.train(NET, TASK, 5, lr=[0.1, 0.2], seed=[0, 1], weight_decay=1e-3, checkpoint=path)
    again = training.train(
        NET, TASK, np.int64(5), lr=np.array([0.1, 0.2]), seed=torch.arange(2), weight_decay=np.float64(1e-3),
        checkpoint=str(path),
    )  # fmt: skip
    assert again.identical(first)


def other_loss():
    class Doubled(losses.SquaredError):
        def gradient(self, F, Y):
            return 2 * (F - Y)

    return Doubled()


@pytest.mark.parametrize(
    "other",
    [
        {"lr": 0.5},
        {"lr": lambda step: 1.0},
        {"seed": 1},
        {"task": tasks.modular(5, train_fraction=0.7, seed=2)},
        {"keep_theta": True},
        {"model": models.two_layer(5, 8, 5, torch.sin)},
        {"optimizer": partial(torch.optim.SGD, dampening=0.1, momentum=0.5)},
        {"hooks": general},
        {"label_noise": 0.1},
        {"loss": other_loss()},
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(other, tmp_path):
    path = tmp_path / "run.nc"
    training.train(NET, TASK, 5, checkpoint=path)
    with pytest.raises(ValueError, match="written by other settings"):
        training.train(**{"model": NET, "task": TASK, "steps": 5, "checkpoint": path, **other})


def test_a_file_of_something_else_is_no_checkpoint(tmp_path):
    path = tmp_path / "run.nc"
    path.write_bytes(b"half a file")
    with pytest.raises(ValueError, match="is not a file of records"):
        training.train(NET, TASK, 5, checkpoint=path)
    assert path.read_bytes() == b"half a file"


def test_layer_imbalance_decays_as_gradient_flow_says():
    """‖E_h‖² − ‖W_h‖² = e^{−2τ} times its start, for each ReLU hidden unit h; Euler's error is O(lr)."""
    errors, n = [], TASK.Y_train.numel()  # the summed loss's step, in terms of the mean's
    for lr in (0.02, 0.01):
        ds = training.train(
            NET, TASK, round(10 / lr), lr=lr * n, weight_decay=0.05 / n, record_at=2, keep_theta=True
        )
        E, W = NET.matrices(torch.from_numpy(ds.theta[0].values)).values()
        imbalance = E.square().sum(1) - W.square().sum(2)  # (2, width)
        errors.append((imbalance[1] - np.exp(-2 * ds.tau.values[0, -1]) * imbalance[0]).abs().max().item())
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.2)


def test_without_data_force_only_the_decay_is_left():
    silent = tasks.from_tensors(*[np.zeros((1, 5))] * 4)
    ds = training.train(NET, silent, 50, lr=0.5, weight_decay=[0.0, 0.02])
    np.testing.assert_allclose(
        ds.norm2, ds.norm2[:, :1].values * np.array([[1.0], [1 - 0.01]]) ** (2 * ds.step.values)
    )


def test_single_outputs_have_no_accuracy():
    toy = tasks.sum_toy()
    ds = training.train(models.two_layer(2, 3, 1, "identity"), toy, 10, lr=0.05)
    assert "test_accuracy" not in ds
    assert ds.train_loss[0, -1] < ds.train_loss[0, 0]


@pytest.mark.parametrize(
    ("act", "lr", "what"),
    [("quadratic", 1e3, "left the finite numbers"), ("relu", 500.0, "fell silent on all samples")],
)
@pytest.mark.parametrize("hooks", [(), general], ids=["kernel", "general"])
def test_a_diverging_run_stops_and_keeps_the_records(act, lr, what, hooks):
    net = models.two_layer(5, 8, 5, act)
    with pytest.raises(
        errors.DivergedError, match=rf"^run 1 \(seed = 0, .*lr = {lr:g},.*\) {what}"
    ) as stopped:
        training.train(net, TASK, 500, lr=[0.01, lr], record_at=[1, 3], hooks=hooks)
    kept = stopped.value.records
    assert kept.attrs["ended"] == "diverged"
    assert kept.step.values[:2].tolist() == [0, 1]
    assert np.isfinite(kept.train_loss).all()
    assert f"up to step {kept.step[-1].item()} " in str(stopped.value)


@pytest.mark.parametrize("hooks", [(), general], ids=["kernel", "general"])
def test_divergence_is_told_at_the_step_that_made_it(hooks):
    net, theta = models.two_layer(5, 8, 5, "quadratic"), None
    E, W = (M.clone().requires_grad_() for M in net.matrices(net.init(0)).values())
    step = 0
    while theta is None or torch.isfinite(theta).all():  # the plain loop
        step += 1
        loss = ((TASK.X_train @ E).square() @ W - TASK.Y_train).square().mean()
        gradients = torch.autograd.grad(loss, (E, W))
        E, W = (
            (M - 30 * (g + 1e-4 * M)).detach().requires_grad_()
            for M, g in zip((E, W), gradients, strict=True)
        )
        theta = torch.cat([E.flatten(), W.flatten()])
    assert 3 < step < 50
    with pytest.raises(
        errors.DivergedError, match=rf"left the finite numbers at step {step}: .* up to step 0 are"
    ):
        training.train(net, TASK, 2000, lr=30.0, record_at=[0, 1000], hooks=hooks)


def test_a_start_without_a_finite_loss_says_that_there_is_no_record():
    start = torch.full((NET.d,), 1e200, dtype=torch.float64)
    with pytest.raises(errors.DivergedError, match=r"at step 0: .* No record was made") as stopped:
        training.train(NET, TASK, 10, theta0=start)
    assert stopped.value.records.sizes["step"] == 0


def lacking(params, lr):
    return torch.optim.SGD(params, lr=lr)


def stubborn(params, lr, weight_decay):
    return torch.optim.SGD(params, lr=1.0, weight_decay=weight_decay)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model": torch.nn.Linear(5, 5)},
            r"model is a Linear: must be a models.Model: give from_module\(model\)",
        ),
        ({"task": "add"}, "task is a str"),
        (
            {"task": dataclasses.replace(TASK, X_test=TASK.X_test[:0], Y_test=TASK.Y_test[:0])},
            "has no test samples",
        ),
        (
            {"task": tasks.modular(7)},
            r"task 'add mod 7', train samples: X has shape \(20, 7\): must be \(n, 5\)",
        ),
        ({"task": TOKENS}, "train samples: X has dtype torch.int64"),
        (
            {"task": dataclasses.replace(TASK, Y_train=TASK.Y_train[:, :4])},
            "has 4 targets a sample: .* gives 5",
        ),
        ({"task": [TASK, tasks.modular(5, dtype=torch.float32)]}, "dtypes of tasks must agree"),
        ({"steps": 0}, "steps = 0"),
        ({"steps": "100"}, "steps = '100': must be an integer .*; without quotes, steps = 100"),
        ({"seed": [0, -1]}, "seed = -1"),
        ({"init_scale": 0.0}, "init_scale = 0.0"),
        ({"lr": 0.0}, "lr = 0.0"),
        ({"lr": "1e-3"}, "lr = '1e-3': must be a finite number in .*; without quotes, lr = 1e-3"),
        ({"lr": ["0.1", 0.2]}, "lr = '0.1': .* without quotes, lr = 0.1"),
        ({"lr": "fast"}, r"lr = 'fast': must be a finite number in \(0, inf\)$"),
        ({"lr": [0.1, float("nan")]}, "lr = nan"),
        ({"lr": lambda t: 0.1}, "lr is a function: its one argument must be named step or tau"),
        ({"lr": lambda step, tau: 0.1}, "lr is a function: its one argument must be named step or tau"),
        ({"momentum": lambda step: 0.1}, "momentum = .*must be a finite number"),
        ({"label_noise": lambda step: 0.1}, "only lr and weight_decay may change"),
        ({"label_noise": -1.0}, "label_noise = -1.0"),
        ({"readout_speed": -1.0}, "readout_speed = -1.0"),
        ({"weight_decay": -1e-4}, "weight_decay = -0.0001"),
        ({"seed": [0, 1], "lr": [0.1, 0.2, 0.3]}, "seed has 2, lr has 3"),
        ({"loss": "hinge"}, "loss = 'hinge'"),
        ({"optimizer": "SGD"}, "optimizer = 'SGD': must be one of 'gd', .*'adamw'"),
        ({"optimizer": "lbfgs"}, "optimizer = 'lbfgs': must be one of"),
        ({"optimizer": 3}, "optimizer = 3: must be a name, or a function"),
        ({"optimizer": lacking}, "optimizer = .*cannot be made with params, lr and weight_decay"),
        ({"optimizer": stubborn}, "optimizer = .*must use the params, lr and weight_decay"),
        (
            {"optimizer": lambda params, lr, weight_decay: None},
            "makes a NoneType, not a torch.optim.Optimizer",
        ),
        ({"momentum": 1.0}, "momentum = 1.0"),
        ({"optimizer": "adam", "momentum": 0.5}, "momentum = 0.5: must be 0"),
        ({"batch_size": 12}, "batch_size = 12: must be an integer from 1 to 10"),
        ({"batch_size": 2, "task": [TASK, tasks.modular(5, train_fraction=0.5)]}, "equally many"),
        (
            {"loss": "cross_entropy", "task": dense(dataclasses.replace(TASK, Y_test=2 * TASK.Y_test))},
            "test samples: Y has rows that are no probabilities",
        ),
        ({"hooks": [3]}, "hooks: 3 is not a function"),
        ({"record_at": 1}, "record_at = 1"),
        ({"record_at": "10"}, "record_at = '10': .* without quotes, record_at = 10"),
        ({"record_at": [3, 11]}, "steps from 0 to 10"),
        ({"record_at": [0.5]}, "steps from 0 to 10"),
        ({"theta0": torch.zeros(2, 3, dtype=torch.float64)}, r"theta0 has shape \(2, 3\)"),
        ({"theta0": torch.zeros(NET.d)}, "theta0 has shape .*dtype torch.float32: must be"),
        ({"theta0": [0.0] * NET.d}, "theta0 is a list: must be a torch.Tensor"),
        ({"checkpoint": "nowhere/at/all.nc"}, "does not exist"),
    ],
)
def test_bad_settings_are_named_before_any_work(change, message, monkeypatch):
    for engine in (Batched, General):
        monkeypatch.setattr(engine, "step", lambda *_: pytest.fail("work was done"))
    with pytest.raises(ValueError, match=message):
        training.train(**{"model": NET, "task": TASK, "steps": 10, **change})


def test_a_schedule_that_goes_wrong_says_where():
    with pytest.raises(ValueError, match=r"lr at step 3 = -1.0: must be a finite number in \[0, inf\)"):
        training.train(NET, TASK, 10, lr=lambda step: 2.0 - step)
