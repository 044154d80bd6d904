"""What does not fit is refused in a sentence by every public function that computes, before any work."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from grokutils import delay, flow, linearize, losses, models, schedules, solves, tasks, training
from grokutils.errors import SingularJacobianError
from grokutils.flow.integrator import Integrator
from grokutils.linearization.sharpness import sharpness
from grokutils.training.batched import Batched
from grokutils.training.general import General

TASK = tasks.modular(5, seed=0)
NET = models.two_layer(5, 20, 5, "gelu")
THETA = NET.init(0)
RATES = {"lr": 0.1, "weight_decay": 1e-3}

# Each public function that computes, as a function of a model, a task, a start and what else it takes.
CALLS = {
    "train": lambda model, task, theta, **more: training.train(
        model, task, 2, theta0=theta, **{**RATES, **more}
    ),
    "follow": lambda model, task, theta, **more: flow.follow(
        model, theta, task, lam=0.1, tau_end=0.01, **more
    ),
    "predict_delay": lambda model, task, theta, **more: delay.predict_delay(
        model, task, theta0=theta, **{**RATES, **more}
    ),
    "cost": lambda model, task, theta, **more: delay.cost(model, task, theta0=theta, **{**RATES, **more}),
    "from_theory": lambda model, task, theta, **more: schedules.from_theory(
        model, task, theta0=theta, **more
    ),
    "minimize_norm": lambda model, task, theta, **more: solves.minimize_norm(
        model, task, theta0=theta, **more
    ),
    "linearize": lambda model, task, theta, **more: linearize(model, theta, task.X_train, **more),
}


def changed(**parts) -> tasks.Task:
    """The task with some tensors changed by functions."""
    return dataclasses.replace(TASK, **{name: change(getattr(TASK, name)) for name, change in parts.items()})


# What is handed over in place of the good model, task or start; words of the sentence; and who need not refuse it.
WITHOUT_TARGETS = {"linearize"}
WRONG = {
    "a torch module itself": ({"model": nn.Linear(5, 5)}, ["model is a Linear", "from_module"], ()),
    "a name of a model": ({"model": "two_layer"}, ["model is a str"], ()),
    "inputs of another width": ({"model": models.two_layer(7, 20, 5), "theta": None}, ["X has shape"], ()),
    "tokens where numbers are meant": (
        {"task": tasks.modular(5, representation="tokens")}, ["X has dtype torch.int64"], (),
    ),
    "NaN inputs": ({"task": changed(X_train=lambda X: X * torch.nan)}, ["X holds NaN"], ()),
    "a start that is a list": ({"theta": THETA.tolist()}, ["is a list: must be a torch.Tensor"], ()),
    "a start that is an array": ({"theta": THETA.numpy()}, ["is a ndarray: must be a torch.Tensor"], ()),
    "a start of integers": ({"theta": THETA.long()}, ["dtype torch.int64"], ()),
    "a start that holds NaN": ({"theta": THETA * torch.nan}, ["holds NaN"], ()),
    "a start of another length": ({"theta": THETA[1:]}, ["199"], ()),
    "a list for a task": ({"task": [TASK.X_train]}, ["task is a"], WITHOUT_TARGETS),
    "targets of another width": (
        {"task": changed(Y_train=lambda Y: Y[:, :4], Y_test=lambda Y: Y[:, :4])}, ["4"], WITHOUT_TARGETS,
    ),
    "NaN targets": ({"task": changed(Y_train=lambda Y: Y * torch.nan)}, ["Y holds NaN"], WITHOUT_TARGETS),
    "targets of integers": ({"task": changed(Y_train=lambda Y: Y.long())}, ["torch.int64"], WITHOUT_TARGETS),
    "NaN held-out inputs": (
        {"task": changed(X_test=lambda X: X * torch.nan)}, ["X holds NaN"], WITHOUT_TARGETS,
    ),
}  # fmt: skip


@pytest.fixture
def no_work(monkeypatch):
    for owner, name in (
        (Integrator, "points"),
        (Batched, "step"),
        (General, "step"),
        (solves._Solves, "solve"),
    ):
        monkeypatch.setattr(owner, name, lambda *_, **__: pytest.fail("work was done"))
    monkeypatch.setattr(schedules, "_memorize", lambda *_: pytest.fail("work was done"))
    monkeypatch.setattr(delay, "sharpness", lambda *_: pytest.fail("work was done"))


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_refused_by_all(what, name, no_work):
    change, words, apart_from = WRONG[what]
    if name in apart_from:
        pytest.skip("takes no such thing")
    given = {"model": NET, "task": TASK, "theta": THETA, **change}
    if given["theta"] is None:
        given["theta"] = given["model"].init(0)
    with pytest.raises(ValueError) as caught:
        CALLS[name](given["model"], given["task"], given["theta"])
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


@pytest.mark.parametrize("name", ["train", "follow", "predict_delay", "cost"])
def test_targets_that_do_not_fit_the_loss_are_refused(name, no_work):
    task = changed(Y_train=lambda Y: 2 * Y)
    with pytest.raises(ValueError, match="no probabilities"):
        CALLS[name](NET, task, THETA, loss="cross_entropy")


@pytest.mark.parametrize("value", ["0.1", True, float("nan"), None, [0.1, "x"], -0.1])
@pytest.mark.parametrize("name", ["train", "predict_delay", "cost"])
def test_a_learning_rate_that_is_none_is_refused(name, value, no_work):
    with pytest.raises(ValueError, match=r"^lr = "):
        CALLS[name](NET, TASK, THETA, lr=value)


@pytest.mark.parametrize("name", [name for name in CALLS if name != "linearize"])
def test_numbers_of_numpy_are_numbers(name):
    more = {
        "train": {"lr": np.float32(0.1), "seed": np.int64(1), "record_at": np.int32(2)},
        "follow": {"tolerance": np.float64(1e-3), "max_step": np.float32(0.05)},
        "predict_delay": {
            "lr": np.float64(0.1), "start": "init", "tau_end": np.float32(0.05), "loss_thresholds": np.array([0.5]),
            "accuracy_thresholds": np.float64(0.9), "patience": np.int64(200),
        },
        "cost": {"lr": np.float32(0.1)},
        "from_theory": {"products": np.int64(4), "tolerated_loss": np.float64(0.03)},
        "minimize_norm": {"h": np.float32(0.5), "solves": np.int64(2)},
    }  # fmt: skip
    CALLS[name](NET, TASK, THETA, **more[name])


@pytest.mark.parametrize("name", ["train", "minimize_norm", "follow"])
def test_what_is_to_be_called_must_be_a_function(name):
    with pytest.raises(ValueError, match=r"^callback = 3: must be a function, or None$"):
        CALLS[name](NET, TASK, THETA, callback=3)
    if name == "train":
        with pytest.raises(ValueError, match=r"^until = 0\.5: must be a function"):
            CALLS[name](NET, TASK, THETA, until=0.5)
        with pytest.raises(ValueError, match=r"^hooks = 3: must be a function"):
            CALLS[name](NET, TASK, THETA, hooks=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"force": 2.0}, r"^force = 2\.0: must be a function"),
        ({"inertia": 1.0}, "^inertia is a float without at, force, passed: see flow.Inertia$"),
        ({"events": flow.memorized(NET, TASK)}, "^events is a Event: must be a list"),
        ({"events": 3}, "^events is a int: must be a list"),
        ({"keep_theta": "no"}, "^keep_theta = 'no': must be True or False$"),
        ({"first_order": 1}, "^first_order = 1: must be True or False$"),
    ],
)
def test_options_of_a_flow_are_what_they_should_be(change, message):
    with pytest.raises(ValueError, match=message):
        CALLS["follow"](NET, TASK, THETA, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss_thresholds": "0.5"}, "threshold = '0.5': .* without quotes"),
        ({"loss_thresholds": None}, "threshold = None"),
        ({"start": (THETA, 1, 2), "theta0": None}, "^start is a tuple of 3"),
        ({"start": (THETA, 1.5), "theta0": None}, "start's step = 1.5"),
        ({"start": THETA}, "^theta0 and a checkpoint as start"),
        ({"theta0": THETA[1:]}, "theta0 has 199 entries: must have 200"),
        ({"tolerance": 0.2}, r"^tolerance = 0\.2"),
        ({"seed": 0.5, "theta0": None}, r"^seed = 0\.5"),
    ],
)
def test_a_prediction_is_asked_for_rightly(change, message, no_work):
    with pytest.raises(ValueError, match=message):
        delay.predict_delay(NET, TASK, **{**RATES, "theta0": THETA, **change})


def test_one_threshold_needs_no_list():
    how = {**RATES, "start": "init", "tau_end": 0.05}
    one = delay.predict_delay(NET, TASK, **how, loss_thresholds=0.4, accuracy_thresholds=0.9)
    assert list(one.clocks) == ["loss 0.4", "accuracy 0.9"]


def test_targets_of_which_zero_is_right_have_no_relative_loss():
    task = changed(Y_train=torch.zeros_like, Y_test=torch.zeros_like)
    for call in (
        lambda: flow.held_out_loss(NET, task),
        lambda: flow.memorized(NET, task),
        lambda: delay.predict_delay(NET, task, **RATES),
        lambda: schedules.from_theory(NET, task),
    ):
        with pytest.raises(ValueError, match="of which the output 0 is right"):
            call()


def test_a_point_without_derivative_is_said_to_be_singular():
    zero = torch.zeros(NET.d, dtype=torch.float64)
    assert sharpness(NET, zero, TASK) == 0
    with pytest.raises(SingularJacobianError, match="J = 0"):
        schedules.from_theory(NET, TASK, theta0=zero)
    made = delay.predict_delay(NET, TASK, **RATES, start=zero, tau_end=0.05)
    assert any("near singular" in note for note in made.warnings)


# Data and models


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: tasks.Task("mine", [[1.0]], *[torch.ones(1, 1)] * 3),
            "X_train is a list: .*from_tensors takes",
        ),
        (lambda: tasks.Task("mine", *[torch.ones(1, 1)] * 3, np.ones((1, 1))), "Y_test is a ndarray"),
        (lambda: changed(Y_train=lambda Y: Y.argmax(1)), r"Y_train has shape \(10,\): must be \(n, d_out\)"),
        (lambda: changed(X_test=lambda X: X[1:]), "lengths must agree: X_test has 4, Y_test has 5"),
        (lambda: tasks.modular(5, dtype=torch.float16), r"^dtype = torch.float16: must be torch.float64"),
        (lambda: tasks.modular(5, dtype="float32"), "^dtype = 'float32'"),
        (lambda: tasks.sparse_parity(4, 2, 5, 5, dtype=torch.int64), "^dtype = torch.int64"),
        (lambda: tasks.from_tensors([[1.0]], [1.0], [[1.0]], [1.0], dtype="float"), "^dtype = 'float'"),
        (lambda: models.mlp([3, 4, 2], bias="no"), "^bias = 'no': must be True or False$"),
        (lambda: models.transformer(7, 3, 5, layer_norm=1), "^layer_norm = 1: must be True or False$"),
    ],
)
def test_data_and_models_are_what_they_should_be(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("kind", ["dense", "matrix_free", "structured"])
def test_arguments_of_a_solution_are_checked(kind):
    lin = linearize(NET, THETA, TASK.X_train, kind)
    good = torch.ones_like(lin.outputs)
    for u, options, message in [
        (good.T, {}, r"^u has shape \(5, 10\): must be \(10, 5\), as the outputs$"),
        (good.flatten(), {}, r"^u has shape \(50,\)"),
        (good * torch.nan, {}, "^u holds NaN"),
        (good, {"lam": -1.0}, r"^lam = -1\.0"),
        (good, {"c": "1"}, "^c = '1'"),
        (good, {"tolerance": 0.0}, r"^tolerance = 0\.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            lin.solve(u, **options)
    if kind == "dense":
        with pytest.raises(ValueError, match=r"^u has shape \(50,\)"):
            lin.vjp(good.flatten())


def test_losses_refuse_single_columns_and_texts():
    with pytest.raises(ValueError, match="one column"):
        losses.cross_entropy.check(torch.ones(3, 1))
    for call in (losses.lam, losses.weight_decay):
        with pytest.raises(ValueError, match="without quotes"):
            call("mse", TASK.Y_train, "0.1")
