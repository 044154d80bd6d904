"""The predicted step against training; what a prediction says; and each warning where its assumption fails."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from grokutils import delay, flow, losses, models, records, tasks, training
from grokutils.errors import StoppedError
from grokutils.linearization import linearize

TASK = tasks.modular(11, train_fraction=0.8, seed=0)
MODEL = models.two_layer(11, 96, 11, "gelu")
RUN = {"lr": 4.0, "weight_decay": 2e-4}
ZERO = float(TASK.Y_test.square().mean())


def measured(made: delay.Prediction, model, task, loss="squared_error", every=2, **how) -> dict[str, float]:
    """Steps at which a run of training passes the clocks of a prediction, each looked at ``every`` steps."""
    times = {}

    def look(record):
        F = model(record.theta[0], task.X_test)
        share = float((F.argmax(1) == task.Y_test.argmax(1)).double().mean())
        for name in made.clocks:
            kind, threshold = name.split()
            now = float(record.test_loss[0]) / ZERO if kind == "loss" else share
            if name not in times and (now <= float(threshold) if kind == "loss" else now >= float(threshold)):
                times[name] = record.step
        return len(times) == len(made.clocks)

    many = int(1.2 * max(clock.step for clock in made.clocks.values())) + 10
    run = training.train(model, task, many, loss=loss, record_at=range(0, many, every), until=look, **how)
    assert run.attrs["ended"] == "until", times
    return times


@pytest.fixture(scope="module")
def made():
    return delay.predict_delay(MODEL, TASK, **RUN, loss_thresholds=(0.5, 0.4), accuracy_thresholds=(0.5, 0.9))


@pytest.fixture(scope="module")
def run(made):
    return measured(made, MODEL, TASK, **RUN)


# Predictions


def test_both_clocks_are_predicted_at_several_thresholds(made, run):
    assert list(made.clocks) == ["loss 0.5", "loss 0.4", "accuracy 0.5", "accuracy 0.9"]
    for name, clock in made.clocks.items():
        assert clock.low <= run[name] <= clock.high
        assert clock.step == pytest.approx(run[name], rel=0.005, abs=3)
        assert clock.tau == pytest.approx(clock.step * 4.0 * 2e-4)
    assert made.step == made.clocks["loss 0.5"].step
    assert made.tau == made.clocks["loss 0.5"].tau
    assert made.start == made.memorized < 0.5 * made.step
    assert made.flow.tau.values[0] == pytest.approx(made.pace * made.start)


def test_interval_holds_the_spread_of_its_kind_and_what_integration_adds(made):
    clock = made.clocks["loss 0.5"]
    slip = abs(float(np.interp(clock.tau, made.flow.tau, made.flow.slip))) / made.pace
    half = slip + delay.SPREAD["smooth", "memorization"] * made.sharpness[1] * clock.step + 1
    assert slip > 0
    assert clock.high - clock.step == pytest.approx(half)
    assert made.error == pytest.approx(0.5 * (clock.high - max(clock.step - half, made.start)))


def test_no_training_is_needed(made, run, monkeypatch):
    begun = made.start

    def refuse(*arguments, **options):
        raise AssertionError("trained")

    monkeypatch.setattr(training, "train", refuse)
    made = delay.predict_delay(MODEL, TASK, **RUN, start="init", accuracy_thresholds=(0.9,))
    for name, clock in made.clocks.items():
        assert clock.step == pytest.approx(run[name], rel=0.02)
        assert clock.low <= run[name] <= clock.high
    assert made.start == 0
    assert 0.5 * begun < made.memorized < 2 * begun


def test_a_checkpoint_continues_its_run(made):
    again = delay.predict_delay(MODEL, TASK, **RUN, start=(made.theta, made.start), accuracy_thresholds=())
    assert again.step == pytest.approx(made.step, rel=2e-3)
    fresh = delay.predict_delay(MODEL, TASK, **RUN, start=made.theta, accuracy_thresholds=())
    assert fresh.step == pytest.approx(again.step - made.start, abs=1)


def test_momentum_makes_time_run_faster(made):
    fast = delay.predict_delay(MODEL, TASK, lr=0.4, weight_decay=2e-4, momentum=0.9, accuracy_thresholds=())
    assert fast.pace == pytest.approx(made.pace)
    steps = measured(fast, MODEL, TASK, lr=0.4, weight_decay=2e-4, momentum=0.9)
    for name, clock in fast.clocks.items():
        assert clock.step == pytest.approx(steps[name], rel=0.01, abs=3)
    assert fast.sharpness[0] == pytest.approx(0.4 * delay.sharpness(MODEL, MODEL.init(0), TASK) / 1.9)


def test_regression_with_one_output_in_float32():
    g = torch.Generator().manual_seed(0)
    X, X_test = torch.randn(6, 3, generator=g), torch.randn(20, 3, generator=g)
    task = tasks.from_tensors(X, X.sum(1), X_test, X_test.sum(1))
    model = models.two_layer(3, 20, 1, "tanh")
    made = delay.predict_delay(
        model, task, lr=0.1, weight_decay=1e-2, init_scale=2.0, loss_thresholds=(0.3, 0.2)
    )
    assert list(made.clocks) == ["loss 0.3", "loss 0.2"]
    assert math.isfinite(made.memorized)
    assert "right" not in str(made)
    with pytest.raises(ValueError, match="loss_thresholds is empty"):
        delay.predict_delay(model, task, lr=0.1, weight_decay=1e-2, loss_thresholds=())


def test_cross_entropy_of_a_deeper_network():
    task, model = tasks.modular(5, train_fraction=0.8, seed=1), models.mlp([5, 20, 20, 5], "gelu")
    how = {"lr": 0.5, "weight_decay": 2e-3, "loss": "cross_entropy"}
    made = delay.predict_delay(model, task, **how, loss_thresholds=(0.9,), tau_end=1.0)
    assert math.isfinite(made.memorized)
    run = training.train(
        model, task, 900, lr=0.5, weight_decay=2e-3, loss="cross_entropy", record_at=[0, 900]
    )
    later = float(np.interp(900 * made.pace, made.flow.tau, made.flow.train_loss))
    assert later == pytest.approx(float(run.train_loss[0, -1]), rel=0.02)


# What it says


def test_prediction_is_said_in_a_sentence(made):
    said = str(made)
    assert f"falls to 0.5 of that of the output 0 at step {made.step:,.0f} (nine of ten runs:" in said
    assert "90% of the held-out samples are right at step" in said
    assert f"memorized the training samples by step {made.start:,.0f}" in said


def test_never_is_said_with_its_horizon():
    made = delay.predict_delay(
        MODEL, TASK, **RUN, start="init", loss_thresholds=(1e-9,), accuracy_thresholds=(), tau_end=0.05
    )
    assert math.isnan(made.step)
    assert "Until step 62 (slow time 0.05) the held-out loss stays above 1e-09 of that" in str(made)


def test_a_checkpoint_ends_when_its_run_would():
    """Slow time of a checkpoint's flow is counted from the start of the run."""
    made = briefly(start=(NARROW.init(0), 300), loss_thresholds=(1e-9,), accuracy_thresholds=(), tau_end=0.2)
    assert float(made.flow.tau[0]) == pytest.approx(300 * made.pace)
    assert float(made.flow.tau[-1]) == pytest.approx(0.2)
    late = briefly(
        start=(NARROW.init(0), 10**6), loss_thresholds=(1e-9,), accuracy_thresholds=(), tau_end=0.2
    )
    assert float(late.flow.tau[-1] - late.flow.tau[0]) == pytest.approx(late.pace)


@pytest.mark.parametrize(("activation", "kind"), [("relu", "kinks"), ("gelu", "smooth")])
def test_intervals_are_wide_from_the_start_and_with_kinks(activation, kind):
    made = briefly(models.two_layer(5, 20, 5, activation), loss_thresholds=(0.99,), accuracy_thresholds=())
    clock = made.clocks["loss 0.99"]
    slip = abs(float(np.interp(clock.tau, made.flow.tau, made.flow.slip))) / made.pace
    length = made.sharpness[1] if kind == "smooth" else 1.0
    assert clock.high - clock.step == pytest.approx(
        slip + delay.SPREAD[kind, "init"] * length * clock.step + 1
    )


def test_an_early_checkpoint_has_the_wide_intervals_of_a_start():
    """Before memorization gradient descent is farthest from its flow, whoever hands the weights over."""
    clocks = {"loss_thresholds": (0.99,), "accuracy_thresholds": ()}
    blind = briefly(start="init", **clocks)
    assert briefly(start=NARROW.init(0), **clocks).clocks == blind.clocks


def test_intervals_of_smooth_networks_grow_with_momentum():
    assert delay.half_width(True, True, 0.5, 0.9) == pytest.approx(
        19 * delay.half_width(True, True, 0.5, 0.0)
    )
    assert delay.half_width(False, True, 0.5, 0.9) == delay.half_width(False, True, 0.9, 0.0)


def test_crossing_is_read_between_records():
    level = float(TASK.Y_test.square().mean())
    path = xr.Dataset(
        {"test_loss": ("step", level * np.array([2.0, 1.0, 0.0, 3.0]))}, {"tau": ("step", np.arange(4.0))}
    )
    assert delay.crossing(path, TASK) == pytest.approx(1.5)
    assert delay.crossing(path, TASK, 0.25) == pytest.approx(1.75)
    assert math.isnan(delay.crossing(path, TASK, start=3))
    falls_at_once = path.assign(test_loss=path.test_loss * [0.1, 1, 1, 1])
    assert delay.crossing(falls_at_once, TASK) == 0
    assert delay.crossing(falls_at_once, TASK, start=1) == pytest.approx(1.5)


def test_a_prediction_says_all_in_whole_sentences():
    path = xr.Dataset(coords={"tau": ("step", np.array([0.0, 0.5]))})
    clocks = {"loss 0.5": delay.Clock(1234.0, 1200.0, 1300.0, 0.1)}
    said = delay.Prediction(clocks, 0, 100.0, 1e-3, path, (0.1, 0.2), ("one", "two"), 1.0)
    assert str(said) == (
        "The held-out loss falls to 0.5 of that of the output 0 at step 1,234 (nine of ten runs: 1,200 to 1,300). "
        "It has memorized the training samples by step 100. Caution: one. Caution: two."
    )
    none = delay.Prediction({}, 0, math.nan, 1e-3, None, (0.1, 0.2), ("one", "two"), 1.0)
    assert str(none) == "No prediction: one; two."


def test_kinks_that_are_not_held_ask_for_as_many_steps_as_they_are_given():
    smooth, bent = (
        delay.work(models.mlp([5, 8, 8, 5], name), losses.squared_error) for name in ("gelu", "relu")
    )
    assert bent.steps == smooth.steps + 100
    assert delay.work(models.two_layer(5, 8, 5, "relu"), losses.squared_error).solves > 1


def test_cost_counts_momentum_as_time_does():
    price = delay.cost(NARROW, SMALL, lr=0.1, weight_decay=1e-3, momentum=0.9)
    assert price.training * 0.1 * 1e-3 / (1 - 0.9) == pytest.approx(price.break_even * price.predicting)


def test_cost_is_told_beforehand():
    slow, fast = (delay.cost(MODEL, TASK, lr=4.0, weight_decay=w) for w in (1e-5, 1e-2))
    assert slow.training > 100 * fast.training > 0
    assert slow.predicting > 0
    assert f"is below {slow.break_even:.1g}." in str(slow)
    each = slow.training * 4.0 * 1e-5
    assert slow.break_even == pytest.approx(each / slow.predicting)


class Ticking:
    """Work on a clock that moves by a known time for each piece of it: what a cost is made of."""

    MAKE, PLAIN, PRODUCT, FACTOR = 1000.0, 7.0, 20.0, 1e5
    LOOK, LOOK_OUT, SHARPNESS, STEP = 2.0, 5.0, 50.0, 3.0
    LARGEST = 6.0

    def __init__(self, monkeypatch, task):
        self.now, self.products, self.solves, self.asked, self.task = 0.0, 0, 0, [], task
        self.smooth, self.kinks, self.name, self.d = True, None, "a model", 4
        monkeypatch.setattr(delay, "time", SimpleNamespace(process_time=lambda: self.now))
        monkeypatch.setattr(delay, "linearize", self.linearize)
        monkeypatch.setattr(delay, "Multipliers", lambda: self)
        monkeypatch.setattr(delay, "sharpness", self.sharpness)
        monkeypatch.setattr(delay, "check_model", lambda model: None)
        monkeypatch.setattr(delay, "check_task", lambda model, task, loss, theta: self.asked.append(theta))
        monkeypatch.setattr(delay.training, "train", self.train)

    def init(self, seed: int):
        return torch.full((4,), float(seed), dtype=torch.float64)

    def __call__(self, theta, X):
        self.now += self.LOOK if X is self.task.X_train else self.LOOK_OUT

    def linearize(self, model, theta, X, kind):
        assert model is self
        assert X is self.task.X_train
        assert kind == "matrix_free"
        self.now += self.MAKE
        return self

    def product(self, u):
        assert u is self.task.Y_train
        self.now += self.PLAIN

    def solve(self, lin, u, c, lam, guess, accuracy):
        assert lin is self
        assert u is self.task.Y_train
        assert not guess.any()
        self.asked.append((c, lam, accuracy))
        self.now += 3 * self.PRODUCT if self.solves else self.FACTOR
        self.solves, self.products = self.solves + 1, self.products + 3

    def sharpness(self, model, theta, task, loss=losses.squared_error):
        self.asked.append(loss)
        self.now += self.SHARPNESS
        return self.LARGEST

    def train(self, model, task, steps, **how):
        self.asked.append(how)
        self.now += 11 + self.STEP * steps


@pytest.mark.parametrize("classes", [True, False])
@pytest.mark.parametrize("looked_at", [True, False])
@pytest.mark.parametrize("loss", [losses.squared_error, losses.cross_entropy])
def test_cost_is_its_parts_times_how_many_there_are(classes, looked_at, loss, monkeypatch):
    g = torch.Generator().manual_seed(0)
    X, Y, X_test, Y_test = (torch.randn(k, 2, generator=g, dtype=torch.float64) for k in (5, 5, 3, 3))
    if classes:
        Y, Y_test = (torch.eye(2, dtype=torch.float64)[torch.arange(k) % 2] for k in (5, 3))
    task = tasks.from_tensors(X, Y, X_test, Y_test)
    assert task.classification == classes
    monkeypatch.setattr(delay, "in_float64", lambda given: given)
    monkeypatch.setattr(delay, "CHECKED_OUTPUTS", 10 if looked_at else 9)
    work = Ticking(monkeypatch, task)
    price = delay.cost(work, task, lr=0.5, weight_decay=1e-2, loss=loss, momentum=0.25, seed=3)

    many = delay.WORK["squared_error" if loss is losses.squared_error else "other", "smooth"]
    clocks = 2 if classes else 1
    step = many.solves * (work.MAKE + many.products * work.PRODUCT) + 2 * work.PLAIN
    step += 2 * work.LOOK + (2 * clocks + 2) * work.LOOK_OUT
    begin = work.SHARPNESS + delay.POWERS * work.PLAIN
    expected = begin + many.steps * step + (many.factors + looked_at) * work.FACTOR
    assert price.predicting == pytest.approx(expected, rel=1e-12)
    assert price.training == pytest.approx(work.STEP * (1 - 0.25) / (0.5 * 1e-2), rel=1e-12)
    assert price.break_even == pytest.approx(work.STEP / expected, rel=1e-12)

    solved = [asked for asked in work.asked if isinstance(asked, tuple)]
    assert solved == [(1.0, work.LARGEST * 10 / 2, 1e-6 * 6.0)] * 4  # ‖θ‖ = ‖(3, 3, 3, 3)‖ = 6
    assert work.asked[-1] is loss  # the first sharpness of a flow is that of its own loss
    trained = [asked for asked in work.asked if isinstance(asked, dict)]
    assert len(trained) == 3
    for how in trained:
        assert torch.equal(how.pop("theta0"), work.init(3))
        assert how == {"lr": 5e-7, "weight_decay": 1e-2, "loss": loss, "momentum": 0.25, "record_at": 2}


def test_cost_is_that_of_the_weights_that_are_given(monkeypatch):
    task = tasks.from_tensors(*(torch.ones(2, 1, dtype=torch.float64) for _ in range(4)))
    monkeypatch.setattr(delay, "in_float64", lambda given: given)
    work, theta = Ticking(monkeypatch, task), torch.arange(4.0)
    delay.cost(work, task, lr=1.0, weight_decay=1.0, theta0=theta)
    assert torch.equal(work.asked[0], theta.double())
    assert work.asked[0].dtype == torch.float64
    delay.cost(work, task, lr=1.0, weight_decay=1.0)
    assert not [asked for asked in work.asked if isinstance(asked, Tensor)][1].any()  # seed 0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"lr": 0.0}, "lr = 0.0: must be"),
        ({"lr": -1.0}, "lr = -1.0: must be"),
        ({"weight_decay": 0.0}, "weight_decay = 0.0: must be"),
        ({"weight_decay": -1.0}, "weight_decay = -1.0: must be"),
        ({"momentum": 1.0}, "momentum = 1.0: must be"),
        ({"momentum": -0.1}, "momentum = -0.1: must be"),
        ({"theta0": torch.ones(3)}, "theta0 has 3 entries: must have"),
        ({"theta0": torch.ones(3, 3)}, "theta0 has shape"),
        ({"loss": "hinge"}, "loss = 'hinge'"),
    ],
)
def test_cost_of_bad_arguments_is_refused_by_name(change, named):
    with pytest.raises(ValueError, match=f"^{named}"):
        delay.cost(NARROW, SMALL, **{"lr": 0.1, "weight_decay": 1e-3, **change})


# Its parts


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("from_start", [True, False])
def test_half_width_is_the_spread_of_its_kind_times_the_length_of_a_smooth_step(smooth, from_start):
    spread = delay.SPREAD["smooth" if smooth else "kinks", "init" if from_start else "memorization"]
    length = 0.3 * 1.9 / 0.1 if smooth else 1
    assert delay.half_width(smooth, from_start, 0.3, 0.9) == pytest.approx(spread * length, rel=1e-12)
    assert len(set(delay.SPREAD.values())) == 4  # or one could stand for another


def test_memorized_point_is_on_the_runs_own_path():
    step, theta = delay.memorize(MODEL, TASK, **RUN, seed=3)
    again = training.train(MODEL, TASK, step, seed=3, **RUN, record_at=2)
    np.testing.assert_allclose(again.theta_end.values[0], theta)
    assert float(again.train_loss[0, -1]) <= 0.05 * float(TASK.Y_train.square().mean())
    assert float(again.train_accuracy[0, -1]) == 1
    assert step % delay.LOOK == 0
    before = training.train(MODEL, TASK, step - delay.LOOK, seed=3, **RUN, record_at=2)
    missing = flow.memorized(MODEL, TASK).value(torch.from_numpy(before.theta_end.values[0]))
    assert missing > 0


def test_a_run_from_given_weights_is_followed_from_where_it_memorizes():
    theta0 = MODEL.init(7)
    step, theta = delay.memorize(MODEL, TASK, **RUN, theta0=theta0)
    made = delay.predict_delay(MODEL, TASK, **RUN, theta0=theta0, tau_end=0.01)
    assert made.start == step
    assert torch.equal(made.theta, theta)
    _, other = delay.memorize(MODEL, TASK, **RUN)  # from seed 0
    assert (other - theta).norm() > 1e-3 * theta.norm()


# Warnings, one by one


def warned(made, text: str) -> bool:
    assert len(made.warnings) == len(set(made.warnings))
    return any(text in note for note in made.warnings) and text in str(made)


def test_nothing_is_warned_of_where_all_is_well(made):
    assert made.warnings == ()
    assert made.sharpness[1] < 2


def test_intervals_of_other_networks_than_those_they_were_set_on_are_a_guess():
    deep = models.mlp([5, 8, 8, 5], "gelu")
    assert warned(briefly(deep, tau_end=0.05), f"own two-layer networks: for {deep.name} they are a guess")
    assert not warned(briefly(tau_end=0.05), "they are a guess")


def test_run_that_cannot_memorize_is_said_so():
    made = delay.predict_delay(MODEL, TASK, lr=1.0, weight_decay=0.05, patience=200)
    assert warned(made, "does not memorize within 200 steps")
    assert made.clocks == {}
    assert made.flow is None
    assert math.isnan(made.step)
    assert math.isnan(made.error)
    assert str(made).startswith("No prediction")


def test_run_that_diverges_is_said_so():
    made = delay.predict_delay(MODEL, TASK, lr=1e4, weight_decay=1e-3, patience=200)
    assert warned(made, "diverges with lr = 10000")
    assert warned(made, "stability limit at the start")
    assert math.isnan(made.step)


SMALL, NARROW = tasks.modular(5, seed=0), models.two_layer(5, 20, 5, "gelu")


def briefly(model=NARROW, task=SMALL, **how) -> delay.Prediction:
    """A prediction from the initial weights over a short time."""
    how = {"lr": 0.1, "weight_decay": 1e-3, "start": "init", "tau_end": 0.2, "tolerance": 1e-3, **how}
    return delay.predict_delay(model, task, **how)


def test_learning_rate_beyond_stability_is_named():
    limit = 2 / delay.sharpness(NARROW, NARROW.init(0), SMALL)
    assert warned(briefly(lr=3.0 * limit), "lr is 3 times its stability limit at the start")
    assert warned(briefly(lr=1.05 * limit), "stability limit at the start")
    assert not warned(briefly(lr=0.95 * limit), "stability limit at the start")


def test_edge_of_stability_on_the_way_is_named():
    path = briefly().flow
    highest = float(path.sharpness.max())
    assert highest > 1.2 * float(path.sharpness[0])
    assert warned(
        briefly(lr=3.0 / highest), "lr reaches 1.5 times its stability limit on the way (edge of stability)"
    )
    assert not warned(briefly(lr=1.9 / highest), "edge of stability")


def test_nothing_to_predict_is_said():
    early = briefly(loss_thresholds=(5.0,))
    assert warned(early, "nothing to predict for loss 5")
    assert early.clocks["loss 5"].low == 0
    assert not warned(briefly(), "nothing to predict")


def test_level_loss_is_named():
    """The toy's held-out loss comes to rest at what decay costs: a threshold just above is reached late."""
    toy, linear = tasks.sum_toy(2), models.two_layer(2, 3, 1, "identity")
    how = {"lr": 0.01, "weight_decay": 0.1, "tau_end": 12.0, "start": "init"}
    path = delay.predict_delay(linear, toy, **how, loss_thresholds=(1e-9,)).flow
    rest = float(path.test_loss[-1]) / float(toy.Y_test.square().mean())
    assert warned(delay.predict_delay(linear, toy, **how, loss_thresholds=(1.001 * rest,)), "almost level")
    assert not warned(delay.predict_delay(linear, toy, **how, loss_thresholds=(0.5,)), "almost level")


DOUBTED = xr.Dataset(
    {"slip": ("step", np.array([0.0, 0.02])), "train_loss": ("step", np.array([1.0, 0.0]))},
    {"tau": ("step", np.array([0.1, 0.5]))},
)


def test_a_clock_is_as_wide_as_the_integration_and_the_spread_make_it():
    clock = delay._clock(0.3, DOUBTED, 1e-3, at=200, spread=0.1)
    assert clock == delay.Clock(300.0, 300 - 10 - 30 - 1, 300 + 10 + 30 + 1, 0.3)
    assert delay._clock(0.3, DOUBTED, 1e-3, at=280, spread=0.1).low == 280
    assert delay._clock(0.1, DOUBTED, 1e-3, at=90, spread=0.1).low == 0.0  # at once: some time before
    assert delay._clock(0.11, DOUBTED, 1e-3, at=90, spread=0.1).low > 90


def doubts(model=NARROW, task=SMALL, tau=0.3, almost=0.299, loss="loss 0.5", highest=0.1, train_loss=0.0):
    theta = NARROW.init(0) if model is NARROW else model.init(0)
    path = DOUBTED.assign(train_loss=("step", np.array([1.0, train_loss])))
    struck = {name: delay.Clock(tau / 1e-3, 0.0, 0.0, tau) for name in (loss, "accuracy 0.9")}
    how = (path, {"almost": almost}, struck, "almost", highest)
    return delay._doubts(model, task, losses.squared_error, theta, *how)


def test_each_doubt_is_one_sentence_from_its_own_limit_on():
    assert doubts() == []
    assert doubts(highest=2.0) == [
        "lr reaches 1 times its stability limit on the way (edge of stability): gradient descent leaves its flow there"
    ]
    assert doubts(highest=1.999) == []
    early = "nothing to predict for loss 0.5, accuracy 0.9: that is so from the start of the flow"
    assert doubts(tau=0.1, almost=0.1) == [early]
    assert doubts(tau=0.1001, almost=0.1) == []
    level = "the held-out loss is almost level at the threshold: the time is ill-determined"
    assert doubts(tau=0.3, almost=0.2849) == [level]
    assert doubts(tau=0.3, almost=0.2851) == []
    assert doubts(tau=0.3, almost=0.2, loss="accuracy 0.5") == []
    large = 0.02 * float(SMALL.Y_train.square().mean())
    assert doubts(train_loss=1.01 * large) == ["weight decay is large: the training loss does not stay small"]
    assert doubts(train_loss=0.99 * large) == []
    deep = models.mlp([5, 8, 8, 5], "gelu")
    assert doubts(deep) == [
        f"the intervals were set on the book's own two-layer networks: for {deep.name} they are a guess"
    ]


def test_near_singular_is_what_is_below_the_level(monkeypatch):
    smallest = float(linearize(NARROW, NARROW.init(0), SMALL.X_train).singular_values()[-1])
    said = [f"J is near singular where the flow begins: σ_min = {smallest:.1e}"]
    for level, expected in ((1.001, said), (0.999, []), (0.6, []), (2.0, said)):
        monkeypatch.setattr(delay, "SINGULAR", level * smallest)
        assert doubts() == expected
    monkeypatch.setattr(delay, "SINGULAR", 2 * smallest)
    monkeypatch.setattr(delay, "CHECKED_OUTPUTS", SMALL.Y_train.numel())
    assert doubts() == said
    monkeypatch.setattr(delay, "CHECKED_OUTPUTS", SMALL.Y_train.numel() - 1)
    assert doubts() == []


def test_level_is_told_by_the_first_threshold_and_the_own_loss():
    theta, entropy = MODEL.init(0), losses.cross_entropy
    for thresholds, loss in (((0.3, 0.9), losses.squared_error), ((0.3,), entropy)):
        event = delay._doubtful(MODEL, TASK, loss, thresholds)
        assert event.value(theta) == flow.held_out_loss(MODEL, TASK, 1.02 * 0.3, loss).value(theta)
    usual = delay._doubtful(MODEL, TASK, entropy, ()).value(theta)
    share = records.GENERALIZED["loss"]
    assert usual == flow.held_out_loss(MODEL, TASK, 1.02 * share, entropy).value(theta)


def test_large_decay_is_named():
    assert warned(briefly(weight_decay=0.1, tau_end=2.0), "weight decay is large")
    assert not warned(briefly(weight_decay=1e-3, tau_end=2.0), "weight decay is large")


def test_near_singular_jacobian_is_named():
    theta = NARROW.init(0)
    parts = NARROW.matrices(theta)
    dead = NARROW.flat(E=parts["E"] * (torch.arange(20) < 3), W=parts["W"])
    assert warned(briefly(start=dead), "near singular")
    assert not warned(briefly(start=theta), "near singular")
    assert warned(briefly(models.two_layer(5, 2, 5, "gelu")), "near singular")  # 20 parameters for 50 outputs


def test_kinks_that_are_not_held_are_named():
    assert warned(briefly(models.mlp([5, 8, 8, 5], "relu"), tau_end=0.05), "has kinks")
    assert not warned(briefly(models.mlp([5, 8, 8, 5], "gelu"), tau_end=0.05), "has kinks")
    assert not warned(briefly(models.two_layer(5, 20, 5, "relu"), tau_end=0.05), "has kinks")


def test_flow_that_stops_early_is_said_so(monkeypatch):
    follow = flow.follow

    def stop(*arguments, **options):
        raise StoppedError("K is singular", follow(*arguments, **options))

    monkeypatch.setattr(flow, "follow", stop)
    assert warned(briefly(), "the flow stopped early: K is singular")

    def stop_at_once(*arguments, **options):
        raise StoppedError("K is singular", follow(*arguments, **options).isel(step=slice(0)))

    monkeypatch.setattr(flow, "follow", stop_at_once)
    said = briefly()
    assert warned(said, "the flow stopped early: K is singular")
    assert said.clocks == {}
    assert said.flow is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"lr": 0.0}, "lr = 0.0"),
        ({"weight_decay": 0.0}, "weight_decay = 0.0"),
        ({"momentum": 1.0}, "momentum = 1.0"),
        ({"loss_thresholds": (-1.0,)}, "threshold = -1.0"),
        ({"accuracy_thresholds": (1.5,)}, "threshold = 1.5"),
        ({"tau_end": 0.0}, "tau_end = 0.0"),
        ({"patience": 1}, "patience = 1"),
        ({"start": "somewhere"}, "start = 'somewhere'"),
        ({"start": torch.ones(3)}, "start has 3 entries"),
        ({"start": torch.ones(3, 3)}, "start has shape"),
        ({"theta0": torch.ones(3)}, "theta0 has 3 entries"),
        ({"start": (MODEL.init(0), -1)}, "start's step = -1"),
        ({"loss": "hinge"}, "loss = 'hinge'"),
        ({"tolerance": 1.0}, "tolerance = 1.0"),
    ],
)
def test_bad_arguments_are_named(change, named):
    with pytest.raises(ValueError, match=named):
        delay.predict_delay(MODEL, TASK, **{**RUN, "start": "init", **change})


@pytest.mark.parametrize(
    ("activation", "loss"), [("gelu", "squared_error"), ("relu", "squared_error"), ("gelu", "cross_entropy")]
)
def test_a_flow_works_as_much_as_its_cost_says(activation, loss, monkeypatch):
    model, task = models.two_layer(7, 48, 7, activation), tasks.modular(7, train_fraction=0.8, seed=5)
    how = {"lam": 0.02, "loss": loss, "tolerance": 3e-4}
    fast = flow.follow(
        model, model.init(5), task, tau_end=3.0, until=flow.memorized(model, task, loss), **how
    )
    made, linearize = [], flow.integrator.linearize
    monkeypatch.setattr(flow.integrator, "linearize", lambda *a: made.append(1) or linearize(*a))
    path = flow.follow(model, torch.from_numpy(fast.theta_end.values), task, tau_end=1.0, **how)
    said = delay.work(model, losses.loss(loss))
    counted = {
        "steps": path.sizes["step"] - 1 + path.attrs["refused"],
        "solves": len(made) / (path.sizes["step"] - 1 + path.attrs["refused"]),
        "products": path.attrs["products"] / len(made),
        "factors": path.attrs["factorizations"],
    }
    off = {name: count / getattr(said, name) for name, count in counted.items()}
    assert all(1 / 2.5 < each < 2.5 for each in off.values()), off
