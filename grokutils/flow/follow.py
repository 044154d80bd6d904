"""Follow a flow, record it, and note when events come."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from .. import _checks, _progress, losses, records
from ..errors import NoMultipliersError, StoppedError
from ..linearization import KINDS, outputs
from ..losses import Loss, SquaredError
from ..models import Model, TwoLayer
from ..tasks import Task
from .events import Event, held_out_loss
from .integrator import Integrator, Point
from .noise import Inertia
from .penalties import Decay, Penalty

CAREFUL = 0.01  # greatest step in τ where kinks are not held
KINKED = (
    "{} has kinks that its flow does not hold (it does for two_layer with relu or leaky_relu): steps are kept below "
    f"{CAREFUL:g} in slow time; expect times to be off by one to a few per cent"
)


def follow(
    model: Model,
    theta0: Tensor,
    task: Task,
    *,
    lam: float,
    first_order: bool = False,
    loss: str | Loss = "squared_error",
    tau_end: float,
    tolerance: float = 1e-4,
    max_step: float = 0.05,
    events: Sequence[Event] = (),
    until: float | str | Event | None = None,
    penalty: Penalty | None = None,
    force: Callable[[Tensor], Tensor] | None = None,
    inertia: Inertia | None = None,
    kind: str = "auto",
    seconds: float | None = None,
    keep_theta: bool = False,
    callback: Callable[[dict, Tensor], bool | None] | None = None,
) -> xr.Dataset:
    """Follow gradient flow on L_λ in slow time, dθ/dτ = −∇L_λ/2λ, on the training half of ``task``; or its limit λ → 0.

    Gradient flow is the study's eq. 3, in τ = 2λt; the limit is what follows from its theorem 4.14. For λ > 0 any start will do, and the cost does not depend on λ. At λ = 0 this is dθ/dτ = −P_Tθ on Z, and ``theta0``
    is first taken to Z by Gauss–Newton steps.

    Parameters
    ----------
    model : network of any kind.
    theta0 : (d,), where to begin.
    task : to train and to be tested on.
    lam : the study's λ, of L + λ‖θ‖²; :func:`grokutils.losses.lam` converts PyTorch's weight_decay.
    first_order : follow in place of gradient flow at ``lam`` its expansion to first order in λ (chapter 13, theorem "First-order flow"): the limit
        flow on Z, to which ``theta0`` is taken, with what λ adds to its motion and to where the weights are. Squared error only.
    loss : "squared_error", "cross_entropy", or a :class:`grokutils.losses.Loss`. λ = 0 needs squared error.
    tau_end : slow time at which to end.
    tolerance : of the estimated error of one step, relative to ‖θ‖; twenty times finer while it is the loss, not decay,
        that moves θ. With kinks, which are met and left at ends of steps only, the whole error falls more slowly with it.
    max_step : greatest step in τ.
    events : moments to be found inside steps, such as :func:`memorized`, :func:`held_out_loss`, :func:`held_out_accuracy`.
    until : an event, or the name of one of ``events``, that ends the flow; a number stands for the held-out loss, relative to
        that of the output 0.
    penalty : h in place of ½‖θ‖², so that the flow is that of L + 2λh.
    force : (θ) → (d,), added to dθ/dτ.
    inertia : I(θ) before dθ/dτ, of an optimizer such as AdamW: I∘dθ/dτ = Jᵀμ − ∇h + force, see :class:`flow.Inertia`.
    kind : of linearization, as for :func:`~grokutils.linearization.linearize`; "auto" is structured or matrix-free.
    seconds : of processor time after which no further step begins.
    keep_theta : also keep θ at every step.
    callback : called with each step's record, a dict, and θ; the flow ends where it returns True.

    Returns
    -------
    Dataset with dim step, one entry for each step, and coordinate ``tau``: ``train_loss`` and ``test_loss`` (PyTorch's
        means), ``train_accuracy`` and ``test_accuracy`` (where there are classes), ``norm2`` = ‖θ‖², ``objective`` = L + 2λh
        (λ = 0: ‖F − Y‖), ``residual`` = ‖F − Y‖, ``drift`` = ‖½∂L/∂F + λμ‖, the constraint's error, ``sharpness`` (largest
        eigenvalue of the Hessian of PyTorch's mean loss, Gauss–Newton's part, by power iteration), ``slip`` (estimated error
        of τ so far, in units of τ), ``pinned`` (pre-activations held at a kink), ``ratio`` (of a first-order flow: of successive terms of its expansion), ``theta`` (step, parameter) if kept,
        ``theta_end`` (parameter), ``train_baseline`` and ``test_baseline`` (losses of the output 0) and ``event_tau`` (event),
        NaN for what did not come. In attrs ``products`` and
        ``factorizations`` count work with K; ``ended`` is "tau_end", "until", "seconds" or "callback".

    Raises
    ------
    ValueError
        Arguments that do not fit, or fewer parameters than constraints at λ = 0.
    StoppedError
        K is singular in floating point (theorem 4.10), or no step is short enough. What was reached is in its ``records``.
    KeyboardInterrupt
        Ctrl-C. What was reached is in its ``records``.
    """
    loss, task, theta0 = losses.loss(loss), in_float64(task), check_start(model, theta0)
    check_task(model, task, loss, theta0)
    lam, first_order = _checks.real("lam", lam, 0), _checks.flag("first_order", first_order)
    keep_theta = _checks.flag("keep_theta", keep_theta)
    _checks.function("force", force)
    _checks.function("callback", callback)
    if first_order and (lam == 0 or penalty is not None or force is not None):
        raise ValueError(
            f"first_order with lam = {lam:g}: it needs lam > 0, and neither penalty nor force can be given"
        )
    if lam == 0 or first_order:
        check_limit(model, task, loss, penalty)
    tau_end = _checks.real("tau_end", tau_end, 0, open_low=True)
    tolerance = _checks.real("tolerance", tolerance, 1e-12, 0.1, open_low=True)
    max_step = _checks.real("max_step", max_step, 0, open_low=True)
    seconds = np.inf if seconds is None else _checks.real("seconds", seconds, 0, open_low=True)
    _checks.one_of("kind", kind, KINDS)
    penalty = _check_penalty(model, penalty)
    lacking = [name for name in ("at", "force", "passed") if not callable(getattr(inertia, name, None))]
    if inertia is not None and lacking:
        raise ValueError(
            f"inertia is a {type(inertia).__name__} without {', '.join(lacking)}: see flow.Inertia"
        )
    if inertia is not None and model.kinks is not None:
        raise ValueError(f"inertia: kinks of {model.name} can be held without one only")
    events, last = _check_events(model, task, loss, events, until)
    if not model.smooth and model.kinks is None:
        warnings.warn(KINKED.format(model.name), stacklevel=2)
        max_step = min(max_step, CAREFUL)
    if kind == "auto":
        kind = "structured" if isinstance(model, TwoLayer) else "matrix_free"
    path = Integrator(
        model, task.X_train, task.Y_train, loss, 0.0 if first_order else lam, penalty, force, kind, tolerance,
        max_step, inertia, lam if first_order else 0.0,
    )  # fmt: skip
    record = _Record(model, task, loss, path, events, keep_theta)
    try:
        with _progress.bar(1000, "slow flow") as bar:
            began = time.process_time()
            for point in path.points(theta0, tau_end):
                row = record.add(point)
                bar.update(int(1000 * point.tau / tau_end) - bar.n)
                if last is not None and np.isfinite(record.times[last.name]):
                    record.ended = "until"
                elif callback is not None and callback(row, point.seen):
                    record.ended = "callback"
                elif time.process_time() - began > seconds:
                    record.ended = "seconds"
                else:
                    continue
                break
    except KeyboardInterrupt as stopped:
        stopped.records = record.dataset()  # type: ignore[attr-defined]
        raise
    except NoMultipliersError as error:
        reached = record.dataset()
        tau = float(reached.tau[-1]) if reached.sizes["step"] else 0.0
        raise StoppedError(
            f"stopped after tau = {tau:.6g}: {error}. The record so far is in .records", reached
        ) from error
    return record.dataset()


class _Record:
    """Rows of a flow, and when its events came."""

    def __init__(
        self, model, task: Task, loss: Loss, path: Integrator, events: list[Event], keep_theta: bool
    ):
        self.model, self.task, self.loss, self.path = model, task, loss, path
        self.events, self.keep_theta, self.classes = events, keep_theta, task.classification
        self.times = {event.name: np.nan for event in events}
        self.rows: list[dict[str, float]] = []
        self.thetas: list[np.ndarray] = []
        self.ended = "tau_end"

    def add(self, point: Point) -> dict:
        for event in self.events:
            if np.isnan(self.times[event.name]) and (value := event.value(point.seen)) <= 0:
                self.times[event.name] = self.path.time_of(event, value)
        F = point.outputs if point.seen is point.theta else outputs(self.model, point.seen, self.task.X_train)
        G = outputs(self.model, point.seen, self.task.X_test)
        count = self.loss.count(self.task.Y_train)
        row = {
            "tau": point.tau,
            "train_loss": self._mean(F, self.task.Y_train),
            "test_loss": self._mean(G, self.task.Y_test),
            "norm2": float(point.seen @ point.seen),
            "objective": point.objective,
            "residual": float((F - self.task.Y_train).norm()),
            "drift": point.drift,
            "sharpness": 2 * point.sharpness / count,
            "slip": point.slip,
            "pinned": 0 if point.pinned is None else int(point.pinned.sum()),
        }
        if self.path.first:
            row["ratio"] = point.ratio
        if self.classes:
            row |= {
                "train_accuracy": _accuracy(F, self.task.Y_train),
                "test_accuracy": _accuracy(G, self.task.Y_test),
            }
        self.rows.append(row)
        if self.keep_theta:
            self.thetas.append(point.seen.numpy().copy())
        return row

    def _mean(self, F: Tensor, Y: Tensor) -> float:
        return float(self.loss.value(F, Y)) / self.loss.count(Y)

    def dataset(self) -> xr.Dataset:
        names = list(self.rows[0]) if self.rows else []
        columns: dict[str, tuple] = {
            name: ("step", np.array([row[name] for row in self.rows])) for name in names
        }
        tau = columns.pop("tau", ("step", np.zeros(0)))
        if self.rows:
            columns["theta_end"] = ("parameter", self.path.past[-1].seen.numpy().copy())
        if self.thetas:
            columns["theta"] = (("step", "parameter"), np.array(self.thetas))
        coordinates = {"step": np.arange(len(self.rows)), "tau": tau}
        for part in ("train", "test"):
            Y = getattr(self.task, f"Y_{part}")
            columns[f"{part}_baseline"] = ((), self._mean(torch.zeros_like(Y), Y))
        if self.times:
            columns["event_tau"] = ("event", np.array(list(self.times.values())))
            coordinates["event"] = list(self.times)
        path = self.path
        attributes = {
            "flow": "first order" if path.first else "slow",
            "model": self.model.name,
            "loss": self.loss.name,
            "lam": path.lam or path.first,
            "tolerance": path.tolerance,
            "products": path.solver.products,
            "factorizations": path.solver.factorizations,
            "refused": path.refused,
            "ended": self.ended,
        }
        return xr.Dataset(columns, coords=coordinates, attrs={**attributes, **records.provenance()})


def _accuracy(F: Tensor, Y: Tensor) -> float:
    return float((F.argmax(1) == Y.argmax(1)).double().mean())


def in_float64(task: Task) -> Task:
    """The same task in float64, in which flows are followed; integer inputs stay."""
    if not isinstance(task, Task):
        raise ValueError(f"task is a {type(task).__name__}: must be a tasks.Task")
    names = ("X_train", "Y_train", "X_test", "Y_test")
    changed = {
        name: each.double()
        for name in names
        if (each := getattr(task, name)).is_floating_point() and each.dtype != torch.float64
    }
    return replace(task, **changed) if changed else task


def check_model(model) -> None:
    """Refuse what is no model of this package, by ``ValueError``."""
    if not isinstance(model, Model):
        hint = "; give from_module(model)" if isinstance(model, torch.nn.Module) else ""
        raise ValueError(
            f"model is a {type(model).__name__}: must be a grokutils model (two_layer, mlp, transformer, from_module){hint}"
        )


def check_start(model, theta0: Tensor) -> Tensor:
    check_model(model)
    theta0 = _checks.tensor("theta0", theta0, ndim=1)
    if len(theta0) != model.d:
        raise ValueError(f"theta0 has {len(theta0)} entries: must have {model.d}, as {model.name}")
    return theta0.detach().double()


def check_task(model: Model, task: Task, loss: Loss, theta0: Tensor) -> None:
    for part in ("train", "test"):
        X, Y = getattr(task, f"X_{part}"), getattr(task, f"Y_{part}")
        try:
            model.check(X)
            F = model(theta0, X)
        except (ValueError, RuntimeError, IndexError) as error:
            raise ValueError(f"task '{task.name}' does not fit {model.name}: {error}") from error
        if F.shape != Y.shape:
            raise ValueError(
                f"task '{task.name}' has Y_{part} of shape {tuple(Y.shape)}: {model.name} gives {tuple(F.shape)}"
            )
        if not torch.isfinite(F).all():
            raise ValueError(f"theta0: the outputs of {model.name} there are NaN or infinite")
        loss.check(Y)


def check_limit(model: Model, task: Task, loss: Loss, penalty) -> None:
    if not isinstance(loss, SquaredError):
        raise ValueError(
            f"lam = 0 with loss = '{loss.name}': its zero lies at infinity; give lam > 0, or squared error"
        )
    if model.d < task.Y_train.numel():
        raise ValueError(
            f"{model.name} has {model.d} parameters for {task.Y_train.numel()} outputs: must have d ≥ nm "
            "(assumption 4.1), or give lam > 0 without first_order"
        )


def _check_penalty(model: Model, penalty: Penalty | None) -> Penalty:
    if penalty is None:
        return Decay()
    missing = [name for name in ("value", "gradient", "metric") if not callable(getattr(penalty, name, None))]
    if missing:
        raise ValueError(
            f"penalty is a {type(penalty).__name__} without {', '.join(missing)}: see flow.Penalty"
        )
    if isinstance(penalty.metric(torch.ones(model.d).double()), Tensor) and model.kinks is not None:
        raise ValueError(
            f"penalty: kinks of {model.name} can be held under the same decay for all parameters only"
        )
    return penalty


def _check_events(model, task: Task, loss: Loss, events, until) -> tuple[list[Event], Event | None]:
    if isinstance(events, Event) or not isinstance(events, Iterable):
        raise ValueError(f"events is a {type(events).__name__}: must be a list of flow.Event objects")
    events = list(events)
    for event in events:
        if not isinstance(event, Event):
            raise ValueError(f"events holds a {type(event).__name__}: must be flow.Event objects")
    if until is None:
        return events, None
    if isinstance(until, str):
        _checks.one_of("until", until, tuple(event.name for event in events))
        return events, next(event for event in events if event.name == until)
    if not isinstance(until, Event):
        until = held_out_loss(model, task, _checks.real("until", until, 0, open_low=True), loss)
    return [*(event for event in events if event.name != until.name), until], until
