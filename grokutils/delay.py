"""When will a network that is trained by gradient descent generalize? Its slow flow says, with nothing fitted.

Grokking is read off continuous clocks: the held-out loss falls to a share of that of the output 0, or a share of the held-out
samples is right. Gradient descent with learning rate lr, weight decay w and momentum β is gradient flow on L_λ in
slow time τ = lr·w·steps/(1 − β). One integration of that flow, from where a run has memorized or from its initial
weights, gives τ of each clock.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from . import _checks, flow, losses, records, training
from .errors import DivergedError, StoppedError
from .flow.follow import CAREFUL, KINKED, check_model, check_task, in_float64
from .flow.multipliers import Multipliers
from .linearization import linearize
from .linearization.base import factor
from .linearization.sharpness import sharpness
from .losses import Loss
from .models import Model, TwoLayer
from .tasks import Task

LOOK = 20  # steps between looks whether a run has memorized
EDGE = 2.0  # lr times the sharpness, beyond which gradient descent leaves its flow
LEVEL = 0.05  # relative change of a time that goes with one of 2 % of the loss, beyond which the time is uncertain
LARGE_LOSS = 0.02  # training loss relative to that of the output 0, above which a run is not near Z
SINGULAR = 1e-4  # σ_min of J, below which the limit λ → 0 is hardly defined
CHECKED_OUTPUTS = 1500  # nm up to which σ_min is looked at
# Half the width of the interval of a predicted step, relative, besides what the integration adds. For smooth networks it grows with the length of
# a step on the flow's fastest scale, lr·sharpness/(1 − momentum), which this multiplies; with kinks that is not what errs most. Set as
# grokutils.experiments.design.spreads says: at least the 95 % quantile of the error over runs and clocks that test nothing.
SPREAD = {
    ("smooth", "memorization"): 0.002,
    ("smooth", "init"): 0.025,
    ("kinks", "memorization"): 0.08,
    ("kinks", "init"): 0.35,
}
POWERS = 60  # products that estimate the first sharpness of a flow
FEW, MORE = 10, 60  # steps of two runs whose difference times a step


@dataclass(frozen=True)
class Work:
    """What a flow over one unit of slow time does, typically.

    Attributes
    ----------
    steps : int
        Tried, refused ones included.
    solves : float
        Linear equations, each with a linearization of its own, in one step.
    products : float
        With K, in one solve.
    factors : float
        Cholesky factors, in all.
    """

    steps: int
    solves: float
    products: float
    factors: float


# Medians over twelve networks (p from 7 to 17, two and three layers), from memorization on; steps were 27 to 45 (smooth, squared error), 60 to
# 82 (cross-entropy), 48 to 85 (held kinks). Kinks with another loss: steps of the one, solves of the other. Kinks that are not held: steps of at
# most flow.follow.CAREFUL. Products of smooth ones since steps guess their multipliers: 3.2 to 4.1, nine networks of two layers.
WORK = {
    ("squared_error", "smooth"): Work(30, 1, 3, 2),
    ("squared_error", "held kinks"): Work(66, 5, 3, 3),
    ("other", "smooth"): Work(72, 1, 4, 4),
    ("other", "held kinks"): Work(72, 5, 4, 4),
}


@dataclass(frozen=True)
class Clock:
    """When one clock strikes; NaN where it does not by the end of the flow."""

    step: float
    low: float  # of the interval meant to hold 9 of 10 runs
    high: float
    tau: float  # slow time from the run's own start


@dataclass(frozen=True)
class Cost:
    """What predicting and training cost on this machine, estimated from a few steps of each."""

    predicting: float  # seconds of processor time, the run up to memorization not counted
    training: float  # seconds of processor time for one unit of slow time, the order of what a delay takes
    break_even: float  # lr·w/(1 − β) below which predicting is cheaper

    def __str__(self) -> str:
        return (
            f"Predicting takes about {self.predicting:.2g} s, training about {self.training:.2g} s for one unit of slow time; "
            f"predicting is cheaper where lr·w/(1 − momentum) is below {self.break_even:.1g}."
        )


@dataclass(frozen=True)
class Prediction:
    """What :func:`predict_delay` found.

    Attributes
    ----------
    clocks : dict of str to Clock
        By the names "loss 0.5", "accuracy 0.99", … Empty where no flow could be followed.
    start : int
        Step from which the flow was followed.
    memorized : float
        Step at which the run has memorized, NaN if it does not.
    pace : float
        Slow time of one step, lr·w/(1 − β).
    flow : Dataset or None
        The path, with ``tau`` counted from the run's own start.
    sharpness : (float, float)
        Learning rate times sharpness over 1 + β, where it began and at most on the way; gradient descent follows its flow
        below 2.
    warnings : tuple of str
        Assumptions that do not hold.
    seconds : float
        Processor time that predicting took, the run up to ``start`` included.
    theta : (d,) or None
        Where the flow began.
    """

    clocks: dict[str, Clock]
    start: int
    memorized: float
    pace: float
    flow: xr.Dataset | None
    sharpness: tuple[float, float]
    warnings: tuple[str, ...]
    seconds: float
    theta: Tensor | None = None

    @property
    def step(self) -> float:
        """Of the first clock; NaN where it does not strike."""
        return next(iter(self.clocks.values())).step if self.clocks else math.nan

    @property
    def error(self) -> float:
        """Half the interval of the first clock's step."""
        if not self.clocks:
            return math.nan
        first = next(iter(self.clocks.values()))
        return 0.5 * (first.high - first.low)

    @property
    def tau(self) -> float:
        """Slow time of the first clock."""
        return next(iter(self.clocks.values())).tau if self.clocks else math.nan

    def __str__(self) -> str:
        if self.flow is None:
            return f"No prediction: {'; '.join(self.warnings)}."
        end = float(self.flow.tau[-1])
        said = [_in_words(name, clock, end, self.pace) for name, clock in self.clocks.items()]
        if math.isfinite(self.memorized):
            said.append(f"It has memorized the training samples by step {self.memorized:,.0f}")
        return ". ".join([*said, *(f"Caution: {note}" for note in self.warnings)]) + "."


def _in_words(name: str, clock: Clock, end: float, pace: float) -> str:
    kind, threshold = name.split()
    struck = math.isfinite(clock.step)
    level, share = f"{threshold} of that of the output 0", f"{float(threshold):.0%}"
    what = {
        ("loss", True): f"The held-out loss falls to {level}",
        ("loss", False): f"the held-out loss stays above {level}",
        ("accuracy", True): f"{share} of the held-out samples are right",
        ("accuracy", False): f"fewer than {share} of the held-out samples are right",
    }[kind, struck]
    if struck:
        return f"{what} at step {clock.step:,.0f} (nine of ten runs: {clock.low:,.0f} to {clock.high:,.0f})"
    return f"Until step {end / pace:,.0f} (slow time {end:.3g}) {what}"


def predict_delay(
    model: Model,
    task: Task,
    *,
    lr: float,
    weight_decay: float,
    loss: str | Loss = "squared_error",
    momentum: float = 0.0,
    start: str | Tensor | tuple[Tensor, int] = "memorization",
    seed: int = 0,
    init_scale: float = 1.0,
    theta0: Tensor | None = None,
    loss_thresholds: float | Sequence[float] = (records.GENERALIZED["loss"],),
    accuracy_thresholds: float | Sequence[float] = (records.GENERALIZED["accuracy"],),
    tau_end: float = 10.0,
    tolerance: float = 3e-4,
    patience: int = 20_000,
) -> Prediction:
    """Predict the steps at which full-batch gradient descent generalizes.

    By one gradient flow on L_λ (the study's eq. 3) in slow time τ = lr·w·steps/(1 − momentum), with nothing fitted.

    Parameters
    ----------
    model : network of any kind.
    task : to train and to be tested on; the accuracy clock needs classes.
    lr : of the run, as in PyTorch: a step follows the gradient of the mean loss plus ``weight_decay``·θ.
    weight_decay : of the run, PyTorch's w.
    loss : "squared_error" ("mse"), "cross_entropy", or a :class:`grokutils.losses.Loss`.
    momentum : of the run, in [0, 1).
    start : "memorization" trains for as long as it takes to memorize and follows the flow from there; "init" follows it from
        the initial weights, without any training; a checkpoint is θ (d,), or θ and its step. One that has not memorized gets the wide
        intervals of "init".
    seed : of the initial weights.
    init_scale : of the initial weights.
    theta0 : (d,), the initial weights themselves, in place of a draw of ``model.init(seed, init_scale)``.
    loss_thresholds : of the held-out loss, relative to that of the output 0; one clock each.
    accuracy_thresholds : of the share of right held-out samples; one clock each.
    tau_end : slow time at which to give up.
    tolerance : of the flow.
    patience : steps within which a run must memorize.

    Returns
    -------
    Prediction, which prints as sentences: steps and intervals of each clock, the path, and what makes it doubtful.

    Raises
    ------
    ValueError
        Arguments that do not fit. A run that diverges, or a flow that cannot go on, is a warning of the prediction.
    """
    began = time.process_time()
    rate = _checks.real("lr", lr, 0, open_low=True)
    w = _checks.real("weight_decay", weight_decay, 0, open_low=True)
    momentum = _checks.real("momentum", momentum, 0, 1, open_high=True)
    tau_end = _checks.real("tau_end", tau_end, 0, open_low=True)
    patience = _checks.integer("patience", patience, LOOK)
    tolerance = _checks.real("tolerance", tolerance, 1e-12, 0.1, open_low=True)
    check_model(model)
    task, loss = in_float64(task), losses.loss(loss)
    clocks = _clocks(model, task, loss, loss_thresholds, accuracy_thresholds)
    pace, lam, scaled = rate * w / (1 - momentum), losses.lam(loss, task.Y_train, w), rate / (1 + momentum)
    notes: list[str] = []
    theta, at = _start(model, start, seed, init_scale, theta0)
    check_task(model, task, loss, theta)
    first = scaled * sharpness(model, theta, task, loss)
    if first >= EDGE:
        notes.append(f"lr is {first / EDGE:.2g} times its stability limit at the start")

    def result(found: dict[str, Clock], memorized=math.nan, path=None, highest=math.nan) -> Prediction:
        seconds = time.process_time() - began
        sharp = (first, highest)
        return Prediction(found, at, memorized, pace, path, sharp, tuple(notes), seconds, theta)

    if isinstance(start, str) and start == "memorization":
        try:
            found = memorize(
                model, task, lr=rate, weight_decay=w, momentum=momentum, loss=loss, patience=patience,
                seed=seed, init_scale=init_scale, theta0=theta,
            )  # fmt: skip
        except DivergedError:
            notes.append(f"the run diverges with lr = {rate:g}: a smaller lr is needed")
            return result({})
        if found is None:
            at = patience
            notes.append(f"the run does not memorize within {patience:,} steps")
            return result({})
        at, theta = found
    events = [*clocks, _doubtful(model, task, loss, loss_thresholds), flow.memorized(model, task, loss)]
    if not model.smooth and model.kinks is None:
        notes.append(KINKED.format(model.name))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of kinks: the note above
            path = flow.follow(
                model, theta, task, lam=lam, loss=loss, tau_end=max(tau_end - pace * at, pace),
                tolerance=tolerance, events=events, until=_all(clocks),
            )  # fmt: skip
    except StoppedError as stopped:
        path = stopped.records
        notes.append(f"the flow stopped early: {stopped}")
        if not path.sizes["step"]:
            return result({})
    path = path.assign_coords(tau=path.tau + pace * at)
    times = dict(zip(path.event.values.tolist(), (path.event_tau + pace * at).values.tolist(), strict=True))
    highest = scaled * float(path.sharpness.max())
    fresh = not times["memorized"] <= float(path.tau[0])  # as initial weights are, and an early checkpoint
    spread = half_width(model.smooth, fresh, highest, momentum)
    struck = {event.name: _clock(times[event.name], path, pace, at, spread) for event in clocks}
    notes += _doubts(model, task, loss, theta, path, times, struck, events[len(clocks)].name, highest)
    memorized = at if start == "memorization" else times["memorized"] / pace
    return result(struck, memorized, path, highest)


def half_width(smooth: bool, from_start: bool, sharpness: float, momentum: float) -> float:
    """Half the width of a step's interval, relative, besides what the integration adds.

    Parameters
    ----------
    smooth : whether the activation is.
    from_start : whether the flow begins at the initial weights, or at others that have not memorized.
    sharpness : learning rate times sharpness over 1 + momentum, at most on the way.
    momentum : of gradient descent, β.
    """
    length = sharpness * (1 + momentum) / (1 - momentum)
    kind, start = "smooth" if smooth else "kinks", "init" if from_start else "memorization"
    return SPREAD[kind, start] * (length if smooth else 1.0)


def _clocks(model, task: Task, loss: Loss, falls, shares) -> list[flow.Event]:
    falls, shares = _several(falls), _several(shares)
    made = [flow.held_out_loss(model, task, threshold, loss) for threshold in falls]
    if task.classification:
        made += [flow.held_out_accuracy(model, task, threshold) for threshold in shares]
    if not made:
        raise ValueError(
            "loss_thresholds is empty: at least one clock is needed (accuracy_thresholds need targets that are classes)"
        )
    return made


def _several(value) -> list:
    """Thresholds as a list, of a single one also."""
    if isinstance(value, Tensor | np.ndarray):
        value = value.tolist()
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]


def _start(model: Model, start, seed: int, init_scale: float, theta0) -> tuple[Tensor, int]:
    """Where the flow or the run begins, and at which step."""
    if isinstance(start, str):
        _checks.one_of("start", start, ("memorization", "init"))
        return (model.init(seed, init_scale) if theta0 is None else _flat("theta0", theta0, model)), 0
    if theta0 is not None:
        raise ValueError("theta0 and a checkpoint as start: one of the two says where to begin")
    if isinstance(start, tuple) and len(start) != 2:
        raise ValueError(f"start is a tuple of {len(start)}: must be θ (d,), or θ and its step")
    theta, at = start if isinstance(start, tuple) else (start, 0)
    return _flat("start", theta, model), _checks.integer("start's step", at, 0)


def _flat(name: str, theta, model: Model) -> Tensor:
    theta = _checks.tensor(name, theta, ndim=1).detach().double()
    if len(theta) != model.d:
        raise ValueError(f"{name} has {len(theta)} entries: must have {model.d}, as {model.name}")
    return theta


def _doubtful(model, task: Task, loss: Loss, thresholds) -> flow.Event:
    """The first loss clock's threshold, 2 % higher: how long the loss takes for the last of its way."""
    level = 1.02 * (_several(thresholds) or [records.GENERALIZED["loss"]])[0]
    event = flow.held_out_loss(model, task, level, loss)
    return flow.Event("almost", event.value)


def _all(clocks: list[flow.Event]) -> flow.Event:
    return flow.Event("all clocks", lambda theta: max(clock.value(theta) for clock in clocks))


def _clock(tau: float, path: xr.Dataset, pace: float, at: int, spread: float) -> Clock:
    step = tau / pace
    integration = abs(float(np.interp(tau, path.tau, path.slip))) / pace
    half = integration + spread * step + 1
    early = tau <= float(path.tau[0])  # so already where the flow begins: some time before
    return Clock(step, 0.0 if early else max(step - half, at), step + half, tau)


def _doubts(model, task, loss, theta, path, times, struck, almost: str, highest: float) -> list[str]:
    """Assumptions that did not hold."""
    notes = []
    if highest >= EDGE:
        notes.append(
            f"lr reaches {highest / EDGE:.2g} times its stability limit on the way (edge of stability): gradient descent "
            "leaves its flow there"
        )
    early = [name for name, clock in struck.items() if clock.tau <= float(path.tau[0])]
    if early:
        notes.append(f"nothing to predict for {', '.join(early)}: that is so from the start of the flow")
    if not isinstance(model, TwoLayer):
        notes.append(
            f"the intervals were set on the book's own two-layer networks: for {model.name} they are a guess"
        )
    name, first = next(iter(struck.items()))
    if name.startswith("loss") and first.tau - times[almost] > LEVEL * first.tau:
        notes.append("the held-out loss is almost level at the threshold: the time is ill-determined")
    zero = float(loss.value(torch.zeros_like(task.Y_train), task.Y_train)) / loss.count(task.Y_train)
    if float(path.train_loss[-1]) > LARGE_LOSS * zero:
        notes.append("weight decay is large: the training loss does not stay small")
    if task.Y_train.numel() <= CHECKED_OUTPUTS:
        lin, few = linearize(model, theta, task.X_train, _kind(model)), model.d < task.Y_train.numel()
        K = lin.gram()
        K.diagonal().sub_(SINGULAR**2)
        if few or factor(K) is None:  # ten times sooner known than σ_min itself
            smallest = float(lin.singular_values()[-1])
            if few or smallest < SINGULAR:
                notes.append(f"J is near singular where the flow begins: σ_min = {smallest:.1e}")
    return notes


def memorize(
    model: Model,
    task: Task,
    *,
    lr: float,
    weight_decay: float,
    loss: str | Loss = "squared_error",
    patience: int = 20_000,
    **options,
) -> tuple[int, Tensor] | None:
    """The first looked-at step at which a run of :func:`training.train` has memorized, and its θ (d,); None if never.

    As :func:`flow.memorized` defines it.

    Raises
    ------
    DivergedError
        The learning rate is too large.
    """
    memorized = flow.memorized(model, task, loss)
    run = training.train(
        model, task, patience, lr=lr, weight_decay=weight_decay, loss=loss,
        record_at=range(0, patience, LOOK), until=lambda record: memorized.value(record.theta[0]) <= 0, **options,
    ).isel(run=0)  # fmt: skip
    if run.attrs["ended"] != "until":
        return None
    return int(run.step[-1]), torch.from_numpy(run.theta_end.values)


def _kind(model: Model) -> str:
    return "structured" if isinstance(model, TwoLayer) else "matrix_free"


def cost(
    model: Model,
    task: Task,
    *,
    lr: float,
    weight_decay: float,
    loss: str | Loss = "squared_error",
    momentum: float = 0.0,
    seed: int = 0,
    theta0: Tensor | None = None,
) -> Cost:
    """What predicting, and training for one unit of slow time, will cost here; neither is done.

    Takes about as long as a few steps of each. A prediction's parts (a linearization, a product with K, a factor of K, an
    evaluation of the network) are timed at the initial weights, and multiplied by how many of them a flow over one unit of
    slow time takes, :data:`WORK`.

    Parameters
    ----------
    model : network of any kind.
    task : to train and to be tested on.
    lr : of the run, as in PyTorch.
    weight_decay : of the run, PyTorch's w.
    loss : as for :func:`predict_delay`.
    momentum : of the run, in [0, 1).
    seed : of the initial weights.
    theta0 : (d,), the initial weights themselves, in place of a draw of ``model.init(seed)``.

    Raises
    ------
    ValueError
        Arguments that do not fit.
    """
    rate = _checks.real("lr", lr, 0, open_low=True)
    w = _checks.real("weight_decay", weight_decay, 0, open_low=True)
    momentum = _checks.real("momentum", momentum, 0, 1, open_high=True)
    check_model(model)
    task, loss = in_float64(task), losses.loss(loss)
    theta = model.init(seed) if theta0 is None else _flat("theta0", theta0, model)
    check_task(model, task, loss, theta)

    def train(steps: int) -> float:
        began = time.process_time()
        training.train(
            model,
            task,
            steps,
            lr=1e-6 * rate,
            weight_decay=w,
            loss=loss,
            momentum=momentum,
            theta0=theta,
            record_at=2,
        )
        return time.process_time() - began

    train(FEW)
    each = max(train(MORE) - train(FEW), 1e-9) / (MORE - FEW)
    predicting = _predicting(model, task, loss, theta)
    return Cost(predicting, each * (1 - momentum) / (rate * w), each / predicting)


def work(model: Model, loss: Loss) -> Work:
    """What predicting with ``model`` is expected to do."""
    kinks = "smooth" if model.smooth or model.kinks is None else "held kinks"
    expected = WORK["squared_error" if isinstance(loss, losses.SquaredError) else "other", kinks]
    if model.smooth or model.kinks is not None:
        return expected
    return replace(expected, steps=expected.steps + round(1 / CAREFUL))


def _predicting(model: Model, task: Task, loss: Loss, theta: Tensor) -> float:
    """Seconds of a prediction whose flow takes one unit of slow time."""
    X, Y, expected = task.X_train, task.Y_train, work(model, loss)
    lin, solver = linearize(model, theta, X, _kind(model)), Multipliers()
    largest = sharpness(model, theta, task) * Y.numel() / 2  # of K
    zero, accuracy = torch.zeros_like(Y), 1e-6 * float(theta.norm())

    def solve() -> None:
        solver.solve(lin, Y, 1.0, max(largest, 1e-300), zero, accuracy)

    def look(part: Tensor) -> float:
        return _seconds(lambda: model(theta, part))

    make = _seconds(lambda: linearize(model, theta, X, _kind(model)))
    plain = _seconds(lambda: lin.product(Y))
    factoring, before = _seconds(solve, 1, warm=False), solver.products
    product = _seconds(solve, 3, warm=False) * 3 / max(solver.products - before, 1)  # with its preconditioner
    clocks = 1 + task.classification
    step = expected.solves * (make + expected.products * product) + 2 * plain
    step += 2 * look(X) + (2 * clocks + 2) * look(
        task.X_test
    )  # the loss, memorization; the clocks, the record
    begin = _seconds(lambda: sharpness(model, theta, task, loss), 1, warm=False) + POWERS * plain
    factors = expected.factors + (Y.numel() <= CHECKED_OUTPUTS)
    return begin + expected.steps * step + factors * factoring


def _seconds(call, repeats: int = 5, warm: bool = True) -> float:
    if warm:
        call()
    began = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - began) / repeats


def crossing(path: xr.Dataset, task: Task, threshold: float = 0.5, start: int = 0) -> float:
    """Slow time at which ``test_loss`` (step) first falls to ``threshold`` of that of the output 0; NaN if never.

    Of squared error, between records.
    """
    level = threshold * float(task.Y_test.square().mean())
    return float(records.first_crossing(-path.test_loss.isel(step=slice(start, None)), -level))
