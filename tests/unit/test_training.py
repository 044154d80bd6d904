"""Training against plain torch.optim loops, against itself batched and resumed, and against the flow's laws."""

import dataclasses

import numpy as np
import pytest
import torch

from grokutils import networks, records, tasks, training
from grokutils.activations import activation
from grokutils.training.data import rows
from grokutils.training.gradients import Loss

TASK = tasks.modular(5, train_fraction=0.7, seed=1)
NET = networks.two_layer(5, 8, 5)
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


def plain_loop(
    net, task, steps, make, *, loss="mse", reduction="mean", batch_size=None, speed=1.0, w=1e-2, seed=0
):
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
        criterion(reduction=reduction)(outputs, task.Y_train[index]).backward()
        optimizer.step()
    return torch.stack(path)


@pytest.mark.parametrize("name", list(OPTIMIZERS))
@pytest.mark.parametrize(("loss", "reduction"), [("mse", "mean"), ("mse", "sum"), ("cross_entropy", "mean")])
@pytest.mark.parametrize("batch_size", [None, 4])
def test_equals_a_plain_torch_loop_step_for_step(name, loss, reduction, batch_size):
    ds = training.train(
        NET, TASK, 25, lr=0.1, readout_speed=0.5, weight_decay=1e-2, loss=loss, reduction=reduction,
        optimizer="gd" if name == "momentum" else name, momentum=0.9 if name == "momentum" else 0.0,
        batch_size=batch_size, record_at=range(26), keep_theta=True,
    )  # fmt: skip
    expected = plain_loop(
        NET, TASK, 25, OPTIMIZERS[name], loss=loss, reduction=reduction, batch_size=batch_size, speed=0.5
    )
    np.testing.assert_allclose(ds.theta[0].values, expected, rtol=0, atol=1e-10)


def relu(Z):
    """A user's own function may have the name of one of ours."""
    return torch.sin(Z)


@pytest.mark.filterwarnings(
    "ignore:`torch.jit.script` is deprecated"
)  # forward mode's first use, inside torch
@pytest.mark.parametrize("act", ["relu", "leaky_relu", "softplus", "quadratic", "tanh", torch.sin, relu])
@pytest.mark.parametrize("task", [TASK, ordered_pairs(), dense()], ids=["two-hot", "repeated", "dense"])
def test_any_activation_and_input_equals_the_plain_loop(act, task):
    net = networks.two_layer(5, 8, 5, act)
    ds = training.train(net, task, 15, lr=0.1, weight_decay=1e-2, record_at=range(16), keep_theta=True)
    np.testing.assert_allclose(
        ds.theta[0].values, plain_loop(net, task, 15, OPTIMIZERS["gd"]), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("task", [TASK, ordered_pairs(), dense()], ids=["two-hot", "repeated", "dense"])
def test_gradient_is_that_of_torch_func(loss, task):
    net = networks.two_layer(5, 8, 5, "gelu")
    theta = net.init(2)

    def objective(theta):
        outputs = net(theta, task.X_train)
        if loss == "mse":
            return (outputs - task.Y_train).square().sum()
        return -(task.Y_train * torch.log_softmax(outputs, 1)).sum()

    matrices = net.matrices(theta[None])
    V = matrices["W"].mT.contiguous()
    gradient_E, gradient_V = torch.empty_like(matrices["E"]), torch.empty_like(V)
    measured = Loss(activation("gelu"), loss, "sum", rows([(task.X_train, task.Y_train)], merge=True))
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
    np.testing.assert_allclose(ds.norm, theta.norm(dim=-1))
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
    monkeypatch.setattr("grokutils.training.loop.CACHED", 2 * 8 * TASK.n_train)  # two runs a part
    parts = training.train(NET, TASK, 20, **shared)
    np.testing.assert_allclose(whole.theta, parts.theta, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"momentum": 0.9, "batch_size": 4},
        {"optimizer": "adam", "loss": "cross_entropy"},
        {"optimizer": "adamw", "batch_size": 3},
    ],
)
def test_killed_runs_resume_bit_for_bit(settings, tmp_path, monkeypatch):
    path = tmp_path / "run.nc"
    settings = {"seed": [0, 1], "lr": 0.05, "record_at": [9, 20, 31], "keep_theta": True, **settings}
    whole = training.train(NET, TASK, 40, **settings)
    save, saved = records.save, []

    def killed(*args):
        save(*args)
        saved.append(args)
        if len(saved) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(records, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        training.train(NET, TASK, 40, checkpoint=path, **settings)
    assert records.load(path).step.values.tolist() == [0, 9, 20]
    monkeypatch.setattr(records, "save", save)
    resumed = training.train(NET, TASK, 40, checkpoint=path, **settings)
    assert resumed.identical(whole)
    assert training.train(NET, TASK, 40, checkpoint=path, **settings).identical(whole)  # a finished one


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    path = tmp_path / "run.nc"
    training.train(NET, TASK, 5, checkpoint=path)
    for other in (
        {"lr": 0.5},
        {"seed": 1},
        {"task": tasks.modular(5, train_fraction=0.7, seed=2)},
        {"keep_theta": True},
    ):
        with pytest.raises(ValueError, match="written by other settings"):
            training.train(NET, **{"task": TASK, "steps": 5, "checkpoint": path, **other})


def test_layer_imbalance_decays_as_gradient_flow_says():
    """‖E_h‖² − ‖W_h‖² = e^{−2τ} times its start, for each ReLU hidden unit h; Euler's error is O(lr)."""
    errors = []
    for lr in (0.02, 0.01):
        ds = training.train(
            NET, TASK, round(10 / lr), lr=lr, weight_decay=0.05, reduction="sum", record_at=2, keep_theta=True
        )
        E, W = NET.matrices(torch.from_numpy(ds.theta[0].values)).values()
        imbalance = E.square().sum(1) - W.square().sum(2)  # (2, width)
        errors.append((imbalance[1] - np.exp(-2 * ds.tau.values[0, -1]) * imbalance[0]).abs().max().item())
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.2)


def test_without_data_force_only_the_decay_is_left():
    silent = tasks.regression(np.zeros((1, 5)), np.zeros((1, 5)), np.zeros((1, 5)), np.zeros((1, 5)))
    ds = training.train(NET, silent, 50, lr=0.5, weight_decay=[0.0, 0.02])
    np.testing.assert_allclose(
        ds.norm, ds.norm[:, :1].values * np.array([[1.0], [1 - 0.01]]) ** ds.step.values
    )


def test_single_outputs_have_no_accuracy():
    toy = tasks.sum_toy()
    ds = training.train(networks.two_layer(2, 3, 1, "identity"), toy, 10, lr=0.05, reduction="sum")
    assert "test_accuracy" not in ds
    assert ds.train_loss[0, -1] < ds.train_loss[0, 0]


@pytest.mark.parametrize(
    ("act", "lr", "what"),
    [("quadratic", 10.0, "left the finite numbers"), ("relu", 10.0, "fell silent on all samples")],
)
def test_a_diverging_run_stops_and_keeps_the_records(act, lr, what):
    net = networks.two_layer(5, 8, 5, act)
    with pytest.raises(training.DivergedError, match=rf"^run 1 \(seed = 0, .*lr = 10,.*\) {what}") as stopped:
        training.train(net, TASK, 5000, lr=[0.01, lr], reduction="sum", record_at=[1, 3])
    kept = stopped.value.records
    assert kept.step.values[:2].tolist() == [0, 1]
    assert np.isfinite(kept.train_loss).all()
    assert f"up to step {kept.step[-1].item()} " in str(stopped.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": torch.nn.Linear(5, 5)}, "network is a Linear"),
        ({"task": "add"}, "task is a str"),
        ({"task": dataclasses.replace(TASK, X_test=TASK.X_test[:0])}, "has no test samples"),
        ({"task": tasks.modular(7)}, "maps 7 inputs to 7 outputs: must be 5 to 5"),
        ({"task": [TASK, tasks.modular(5, dtype=torch.float32)]}, "dtypes of tasks must agree"),
        ({"steps": 0}, "steps = 0"),
        ({"seed": [0, -1]}, "seed = -1"),
        ({"init_scale": 0.0}, "scale = 0.0"),
        ({"lr": 0.0}, "lr = 0.0"),
        ({"lr": [0.1, float("nan")]}, "lr = nan"),
        ({"readout_speed": -1.0}, "readout_speed = -1.0"),
        ({"weight_decay": -1e-4}, "weight_decay = -0.0001"),
        ({"seed": [0, 1], "lr": [0.1, 0.2, 0.3]}, "seed has 2, lr has 3"),
        ({"loss": "hinge"}, "loss = 'hinge'"),
        ({"reduction": "none"}, "reduction = 'none'"),
        ({"optimizer": "sgd"}, "optimizer = 'sgd': must be one of 'gd', 'adam', 'adamw'"),
        ({"momentum": 1.0}, "momentum = 1.0"),
        ({"optimizer": "adam", "momentum": 0.5}, "momentum = 0.5: must be 0"),
        ({"batch_size": 12}, "batch_size = 12: must be an integer from 1 to 10"),
        ({"batch_size": 2, "task": [TASK, tasks.modular(5, train_fraction=0.5)]}, "equally many"),
        (
            {"loss": "cross_entropy", "task": dense(dataclasses.replace(TASK, Y_test=2 * TASK.Y_test))},
            "probabilities",
        ),
        ({"record_at": 1}, "record_at = 1"),
        ({"record_at": [3, 11]}, "steps from 0 to 10"),
        ({"record_at": [0.5]}, "steps from 0 to 10"),
        ({"start": torch.zeros(2, 3, dtype=torch.float64)}, r"start has shape \(2, 3\)"),
        ({"checkpoint": "nowhere/at/all.nc"}, "does not exist"),
    ],
)
def test_bad_settings_are_named_before_any_work(change, message, monkeypatch):
    monkeypatch.setattr("grokutils.training.loop._Runs.advance", lambda *_: pytest.fail("work was done"))
    with pytest.raises(ValueError, match=message):
        training.train(**{"network": NET, "task": TASK, "steps": 10, **change})
