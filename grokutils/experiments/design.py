"""Chapter 13: a random design, predictions of it, and the runs that test them, in this order.

``python -m grokutils.experiments design calibrate``, ``… predict``, ``… train`` and ``… theory`` make the records. Each is saved after
every case and goes on where it stopped. What was drawn stays: a run that cannot be predicted, or does not come to
anything, is a row that says why. Each training carries the hash of the prediction that it tests.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from dataclasses import asdict, dataclass
from importlib.resources import files

import numpy as np
import pandas as pd
import torch
import xarray as xr
from scipy.integrate import RK23
from scipy.stats import spearmanr
from torch import Tensor

from .. import delay, flow, isolated, losses, records, tasks, training, zero_loss
from ..errors import DivergedError, NoMultipliersError, StoppedError
from ..linearization import linearize
from ..linearization.sharpness import sharpness
from ..models import two_layer
from .running import run

DATA = str(files("grokutils") / "data")
PATHS = {
    what: f"{DATA}/design_{name}.nc"
    for what, name in {
        "calibrate": "calibration",
        "predict": "predictions",
        "train": "trainings",
        "theory": "theory",
        "check": "check",
    }.items()
}

# The design -----------------------------------------------------------------------------------------------------------

SEED = 13_2026  # of the draw that is predicted and then trained
SECOND_SEED = 13_2028  # of a second draw over ranges in which runs are shorter
OTHER_SEED = 13_2027  # of the draw that intervals and the cheap predictor are taken from
LOSSES, SHARES = (0.9, 0.7, 0.5), (0.5, 0.9, 0.99)  # thresholds of the two clocks
CLOCKS = (*(f"loss {x:g}" for x in LOSSES), *(f"accuracy {x:g}" for x in SHARES))
TAU_END = 6.0  # slow time at which predictions give up
PATIENCE = 60_000  # steps within which a run must memorize
LONGER = 1.3  # times the last predicted clock, for which a run is trained, if not all predicted clocks strike before
# steps × n × width × p beyond which a run is too long for our computing, and is a row without a measurement (some 20 s, 60 s)
MOST_WORK = {"small": 2e10, "large": 6e10}
TOO_LONG, LATE = "too long to train here", "memorizes late or not at all"
# Seconds of processor time that one flow may take. The machine has less time to give than we had hoped: the limit
# flow of ReLU gets little, and its first-order flow is not followed (written before any run). After the first fourteen predictions of the
# wide draw, and before any of the second: three times as long as first written, since other work on the machine slows its processor.
LONGEST = {"smooth": 120.0, "kinks": 60.0, "limit with kinks": 12.0, "equation 20": 6.0}

# How many are drawn of each stratum: smooth networks at p ≤ 17, ReLU at p ≤ 13, smooth ones at p ≥ 23, ReLU at p = 17 and at
# the study's other size. Ranges are (least, greatest), drawn evenly in the logarithm.
WIDE = {
    "strata": {"smooth": 64, "relu": 42, "large": 12, "relu 17": 3, "relu 37": 5},
    "moduli": {
        "smooth": (11, 11, 13, 17),
        "relu": (11, 11, 13),
        "large": (23, 23, 29),
        "relu 17": (17,),
        "relu 37": (37,),
    },
    "activations": (
        "gelu",
        "gelu",
        "quadratic",
        "quadratic",
        "softplus",
    ),  # of smooth networks, equally often
    "lam": {"small": (0.002, 0.2), "large": (0.01, 0.1)},  # the study's λ
    # lr ÷ its stability limit 2(1 + β)/sharpness, the greatest on the flow from the initial weights. First written: at the initial
    # weights. A run of the other draw showed that this is no limit at all where weights begin small; nothing of the design had been run.
    "share": (0.1, 0.6),
    "scale": (0.7, 2.0),  # of the initial weights
    "width": {"small": (6, 12), "large": (8, 12)},  # hidden units ÷ p
    "fraction": {"smooth": (1.05, 1.3), "relu": (1.12, 1.3)},  # training pairs ÷ 2 p^(4/3) (chapter 11)
    "first": (0, 5000),  # number and seed
}
# Of the first fourteen runs of the wide draw five were too long to train and three did not generalize: it asks for more computing than we
# have. So a second draw with its own seed, over ranges in which runs are shorter, goes first from there on; the wide one goes on after it.
SHORT = {
    **WIDE,
    "strata": {"smooth": 60, "relu": 40, "large": 12},
    "moduli": {"smooth": (11, 11, 11, 13), "relu": (11, 11, 11, 13), "large": (23,)},
    "activations": ("gelu", "quadratic") * 4 + ("softplus",),
    "lam": {"small": (0.004, 0.1), "large": (0.02, 0.1)},
    "share": (0.3, 0.6),
    "fraction": {"smooth": (1.15, 1.3), "relu": (1.2, 1.3)},
    "first": (200, 5200),
}
# From this number of the second draw on, its networks at p = 11 go first, the others after them, each in the order drawn: they are the cheapest,
# and the time for computing was running out. Only predictions had been made of this draw by then, no training.
CHEAPER = 204
OTHER = {**WIDE, "strata": {"smooth": 24, "relu": 14}, "first": (0, 9000)}
DRAWS = {SEED: WIDE, SECOND_SEED: SHORT, OTHER_SEED: OTHER}
MOMENTA = (0.0, 0.0, 0.0, 0.5, 0.9)
MOST = 0.92  # share of the pairs to train on

# The rules, written before anything below was run. A run "groks" where the loss clock 0.5 strikes at ten times the
# step of memorization or later; errors are predicted ÷ measured − 1, of steps unless a rule says "delay" (from memorization).
RULES = {
    # The λs, the ruler and its bound were first written otherwise (λ from 0.002 to 0.2; error at most ρ²/2). They are as they are since one
    # start that is not in the record had been looked at (gelu, seed 1): there ρ² is too small by a factor of ten, ρχ is not.
    "slopes": "From fixed starts on Z, against the flow at λ (loss clock 0.5), λ over the two decades from 1e-4 to 1e-2: the log-log slope of the limit flow's error is "
    "1 ± 0.05, of the first-order flow's 2 ± 0.3, for each activation (median over starts, errors below 1e-6 left out).",
    "corrected": "On the same starts and λ up to 0.1, wherever the limit flow errs by at most 9 %, the first-order flow errs by at most 0.5 %.",
    "ruler": "Two numbers that need no run: ρ = |τ₁ − τ₀|/τ₁, what the first-order flow changes in the limit flow's time, and χ, the greatest ratio of the "
    "second to the first term of the expansion along the first-order flow, λ‖JᵀK⁻²μ₀‖/‖JᵀK⁻¹μ₀‖. Where χ ≤ 1 the first-order flow errs by at most 2ρχ + 1e-5, on all fixed "
    "starts; and over all of them the error's rank correlation with ρχ is higher than that with λ/κ, κ the smallest eigenvalue of K at the start.",
    # The first-order flow begins where training has settled beside Z (flow.first_order.Landing): up to there the flow at λ is followed.
    # Decided after one run of the other draw, on which it began at memorization and erred by −2.7 %.
    "ruler-runs": "Of the drawn smooth runs that grok, those with 2ρχ ≤ 1 %: the first-order flow errs by at most 0.5 % of the delay in the "
    "median, and by at most 2 % in nine of ten.",
    "limit": "Smooth runs that grok: the limit flow from memorization errs by at most 5 % of the delay in the mean.",
    "smooth": "Flow at the run's λ from memorization, smooth runs that grok: at most 0.1 % in the median and 0.3 % in the worst case, no failure "
    "(a failure: one of prediction and run strikes before the run ends, the other does not).",
    "relu": "The same for ReLU runs that grok: at most 2 % in the mean and 5 % in the worst case, no failure.",
    "init": "Flow from the initial weights, smooth runs that grok: at most 0.3 % in the median.",
    "accuracy": "Flow at λ from memorization, accuracy clocks 0.5, 0.9 and 0.99 each: at most 0.5 % in the median for smooth runs that grok, at most 3 % for ReLU.",
    "crosscheck": "At the study's cell (ReLU, p = 11, width 128) the flow at λ and gradient descent at a learning rate ever smaller (extrapolated to 0) agree within 2 % on the "
    "slow time of the loss clock 0.5, for three seeds.",
    # First written: intervals set on the other draw alone, a constant share of the step. Those of smooth networks from the initial weights held 97 of 132 steps
    # of the first 84 runs: they knew nothing of momentum. So they were set anew on those runs as well, and only the runs after them can test that.
    "coverage": "The stated intervals (set on the other draw and on the first 84 runs of the design) hold at least 90 % of the measured steps of the later runs that grok, over all "
    "six clocks, smooth and ReLU apart, from memorization and from the initial weights.",
    "rivals": "Smooth runs that grok: the limit flow, with nothing fitted, errs less (mean of |error| of the delay) than each of constant τ, norm bound, frozen "
    "direction, calibrated law (fitted per activation and p), equation 20 and the cheap predictor, on the runs for which both name a time; for ReLU likewise.",
    # First written: "than to predict from memorization on", so that the run up to memorization counted in the training alone.
    "cost": "Of smooth runs with lr·w/(1 − β) ≤ 1e-4, at least 90 % take longer to train up to the loss clock 0.5 than to train up to memorization and to predict from there.",
    # Before any training: the computing will not do for the target, so what a rule needs at least is said apart from it.
    "enough": "The target: 80 runs that grok, of them 25 with ReLU and 10 at p ≥ 23, and five with ReLU at p = 37. A rule about smooth runs, or about "
    "ReLU, is not testable here with fewer than ten of them that grok.",
}


@dataclass(frozen=True)
class Case:
    """One drawn configuration; ``lr`` follows from ``share`` when the initial weights are there."""

    draw: int
    number: int
    stratum: str
    activation: str
    p: int
    width: int
    fraction: float
    scale: float
    lam: float
    share: float
    momentum: float
    seed: int

    @property
    def pairs(self) -> int:
        """Training pairs, as :func:`grokutils.tasks.modular` counts them."""
        return round(self.fraction * (self.p * (self.p + 1) // 2))

    @property
    def w(self) -> float:
        """PyTorch's weight decay."""
        return 2 * self.lam / (self.pairs * self.p)


def cases(draw: int | None = None) -> list[Case]:
    """One draw: small networks mixed, then others; or the design in the order in which it is run, the second draw first."""
    if draw is None:
        second = cases(SECOND_SEED)
        second.sort(key=lambda case: case.number >= CHEAPER and case.p > 11)
        return second + cases(SEED)
    ranges, rng = DRAWS[draw], np.random.default_rng(draw)
    drawn = [_case(rng, draw, stratum) for stratum, count in ranges["strata"].items() for _ in range(count)]
    small = [each for each in drawn if each["stratum"] in ("smooth", "relu")]
    order = [small[i] for i in rng.permutation(len(small))]
    order += [each for each in drawn if each["stratum"] not in ("smooth", "relu")]
    number, seed = ranges["first"]
    return [Case(number=number + i, seed=seed + i, **each) for i, each in enumerate(order)]


def known() -> set[int]:
    """Numbers of the first 84 cases, whose runs were there when :data:`grokutils.delay.SPREAD` was set."""
    return {case.number for case in cases(SEED)[:14] + cases()[:70]}


def _case(rng: np.random.Generator, draw: int, stratum: str) -> dict:
    """One configuration, all but its number and seed; rounded to four digits, so that texts show what was run."""

    def between(limits: tuple[float, float]) -> float:
        return float(f"{np.exp(rng.uniform(*np.log(limits))):.4g}")

    ranges = DRAWS[draw]
    p = int(rng.choice(ranges["moduli"][stratum]))
    kind = "relu" if stratum.startswith("relu") else "smooth"
    size = "large" if p >= 23 else "small"
    made = {
        "draw": draw,
        "stratum": stratum,
        "activation": "relu" if kind == "relu" else str(rng.choice(ranges["activations"])),
        "p": p,
        "width": 512 if p == 37 else round(p * between(ranges["width"][size])),
    }
    pairs = p * (p + 1) / 2
    fraction = min(MOST, between(ranges["fraction"][kind]) * 2 * p ** (4 / 3) / pairs)
    made["fraction"] = float(f"{fraction:.4g}")
    made |= {
        "scale": between(ranges["scale"]),
        "lam": between(ranges["lam"][size]),
        "share": between(ranges["share"]),
    }
    return {**made, "momentum": float(rng.choice(MOMENTA))}


# What is measured -----------------------------------------------------------------------------------------------------

FLOWS = (
    "limit",
    "first",
    "lam",
    "init",
)  # limit flow, first-order flow, flow at λ: from memorization, from the start
TOLERANCE = {"smooth": 2e-5, "kinks": 3e-4}
DEGREE = {"relu": 2, "quadratic": 3}  # of homogeneity in θ
RECORDS = 1500  # of a training run from memorization on


def predicted(case: Case, flows: tuple[str, ...] = FLOWS) -> list[dict]:
    """One prediction, from the initial weights and the run up to memorization; all that other laws need is noted too.

    A row: ``lr``, ``pace`` (slow time of a step), ``sharp`` (lr ÷ stability limit: at most on the path), ``memorized`` (step, NaN),
    ``reason`` (why there is no prediction); for each flow and clock its step; ``low`` and ``high`` of the
    interval (flows at λ); processor ``seconds`` of each flow and of memorizing and how it ended; V = ‖θ‖² at memorization, ``tangent`` = ‖P_Tθ‖²/V,
    ``ratio`` (q of :data:`RULES`), ``landed`` (step at which the first-order flow takes over from the flow at λ),
    ``stiffness`` = ‖μ₀‖²/μ₀ᵀK⁻¹μ₀, ``held_out`` loss relative to that of the output 0; the step of eq. 20; ``hash`` of all this.
    """
    network, task = setting(case)
    kind = "smooth" if network.activation.smooth else "kinks"
    theta0 = network.init(case.seed, case.scale)
    path = _flow(case, network, task, "init", theta0, kind)
    lr = case.share * 2 * (1 + case.momentum) / max(path.sharp, sharpness(network, theta0, task))
    pace = lr * case.w / (1 - case.momentum)
    row: dict = {
        "lr": lr,
        "pace": pace,
        "sharp": np.nan,
        "memorized": np.nan,
        "memorizing": np.nan,
        "reason": "",
    }
    row |= dict.fromkeys(("V", "tangent", "stiffness", "held_out", "landed", "ratio", "equation 20"), np.nan)
    for name in flows:
        row |= {f"{name} {clock}": np.nan for clock in CLOCKS}
        row |= {f"{name} seconds": 0.0, f"{name} ended": "not begun"}
        if name in ("lam", "init"):
            row |= {f"{name} {end} {clock}": np.nan for end in ("low", "high") for clock in CLOCKS}
    row |= _columns("init", path, 0, case, lr)
    # what its own flow says takes longer than we can wait is not begun: it is a row with this reason
    if not path.memorized / pace <= PATIENCE:
        return [row | {"reason": LATE} | {"hash": digest(case, row | {"reason": LATE})}]
    last = max((tau for tau in path.taus if np.isfinite(tau)), default=TAU_END)
    if too_long(case, LONGER * last / pace):
        return [row | {"reason": TOO_LONG} | {"hash": digest(case, row | {"reason": TOO_LONG})}]
    began = time.process_time()
    try:
        found = delay.memorize(
            network, task, lr=lr, weight_decay=case.w, momentum=case.momentum, seed=case.seed,
            init_scale=case.scale, patience=PATIENCE,
        )  # fmt: skip
    except DivergedError:
        found, row["reason"] = None, "diverges"
    row["memorizing"] = time.process_time() - began
    if found is None:
        row["reason"] = row["reason"] or "does not memorize"
        return [row | {"hash": digest(case, row)}]
    at, theta = found
    row |= {"memorized": float(at), **_features(case, network, task, theta)}
    for name in flows:
        if name == "first" and kind == "kinks":
            continue  # no rule asks for it, and computing is short
        if name != "init":
            path = _flow(case, network, task, name, theta, kind)
            row |= _columns(name, path, at, case, lr)
        if name == "lam":
            row["sharp"] = path.sharp * lr / (2 * (1 + case.momentum))
    if "limit" in flows:
        row["equation 20"] = at + isolated_time(network, theta, task) / pace
    return [row | {"hash": digest(case, row)}]


def too_long(case: Case, steps: float) -> bool:
    """Whether so many steps are more than we can compute."""
    limit = MOST_WORK["large" if case.p >= 23 else "small"]
    return steps * case.pairs * case.width * case.p > limit


def setting(case: Case):
    """The network and the task of a case."""
    network = two_layer(case.p, case.width, case.p, case.activation)
    return network, tasks.modular(case.p, train_fraction=case.fraction, seed=case.seed)


def _features(case: Case, network, task, theta: Tensor) -> dict:
    lin, V = linearize(network, theta, task.X_train), float(theta @ theta)
    row = {"V": V}
    row["held_out"] = float(
        (network(theta, task.X_test) - task.Y_test).square().mean() / task.Y_test.square().mean()
    )
    with contextlib.suppress(NoMultipliersError):
        pull = lin.jvp(theta)
        mu = lin.solve(pull)
        nu = lin.solve(mu)
        row["tangent"] = 1 - float((pull * mu).sum()) / V
        row["stiffness"] = float((mu * mu).sum() / (mu * nu).sum())
    return row


@dataclass(frozen=True)
class _Path:
    """What is kept of a flow: slow time of each clock from its start, what the integration may add to it, …"""

    taus: tuple[float, ...]
    slips: tuple[float, ...]
    sharp: float
    seconds: float
    ended: str
    landed: float  # slow time from which on the first-order flow is followed
    ratio: float = np.nan  # χ of RULES, up to the loss clock 0.5
    memorized: float = np.nan  # slow time


def _flow(case: Case, network, task, name: str, theta: Tensor, kind: str) -> _Path:
    falls = [flow.held_out_loss(network, task, x) for x in LOSSES]
    events = falls + [flow.held_out_accuracy(network, task, x) for x in SHARES]
    last = flow.Event("all", lambda theta: max(event.value(theta) for event in events))
    learned = flow.memorized(network, task)
    limit = name in ("limit", "first")
    seconds = LONGEST["limit with kinks"] if limit and kind == "kinks" else LONGEST[kind]
    began = time.process_time()
    how = {"tolerance": TOLERANCE[kind], "events": [*events, learned], "until": last}
    taus, before, ended = np.full(len(CLOCKS), np.nan), 0.0, ""
    slips, sharp = taus.copy(), 0.0

    def left() -> float:
        return max(seconds - (time.process_time() - began), 1e-3)

    try:
        if name == "first":  # the junction: training itself, until it has settled beside Z
            landing = flow.Landing(network, task, case.lam)
            path = flow.follow(
                network, theta, task, lam=case.lam, tau_end=TAU_END, seconds=left(),
                callback=lambda row, at: landing(at), **how,
            )  # fmt: skip
            taus, ended = _struck(path, 0.0, taus), path.attrs["ended"]
            theta, before = torch.from_numpy(path.theta_end.values), float(path.tau[-1])
        if ended in ("", "callback"):
            path = flow.follow(
                network, theta, task, lam=0.0 if name == "limit" else case.lam, first_order=name == "first",
                tau_end=TAU_END, seconds=left(), **how,
            )  # fmt: skip
            ended = path.attrs["ended"]
    except StoppedError as stopped:
        path, ended = stopped.records, "singular"
    except NoMultipliersError:
        return _Path(tuple(taus), tuple(taus), 0.0, time.process_time() - began, "singular", before)
    if path.sizes["step"]:
        slips = np.abs(np.interp(path.event_tau.values[: len(CLOCKS)], path.tau, path.slip))
        taus, sharp = _struck(path, before, taus), float(path.sharpness.max())
    memorized = float(path.event_tau[len(CLOCKS)]) if path.sizes["step"] else np.nan
    ratio = np.nan
    if "ratio" in path and path.sizes["step"]:
        till = path.tau.values + before <= np.nan_to_num(taus[CLOCKS.index("loss 0.5")], nan=np.inf)
        ratio = float(path.ratio.values[till].max(initial=0.0))
    return _Path(
        tuple(taus), tuple(slips), sharp, time.process_time() - began, ended, before, ratio, memorized
    )


def _struck(path: xr.Dataset, before: float, taus: np.ndarray) -> np.ndarray:
    """Slow time of each clock: what has struck, or what strikes on a path that begins at ``before``."""
    return np.where(np.isfinite(taus), taus, before + path.event_tau.values[: len(CLOCKS)])


def _columns(name: str, path: _Path, at: int, case: Case, lr: float) -> dict:
    """Step of each clock of a flow that began at step ``at``, and its interval for flows at λ."""
    pace = lr * case.w / (1 - case.momentum)
    row: dict = {f"{name} seconds": path.seconds, f"{name} ended": path.ended}
    if name == "first":
        row |= {"landed": at + path.landed / pace, "ratio": path.ratio}
    spread = delay.half_width(
        case.activation != "relu", name == "init", lr * path.sharp / (1 + case.momentum), case.momentum
    )
    for clock, tau, slip in zip(CLOCKS, path.taus, path.slips, strict=True):
        step = at + tau / pace
        row[f"{name} {clock}"] = step
        if name in ("lam", "init"):
            half = slip / pace + spread * step + 1
            low = 0.0 if tau == 0 else max(step - half, at)
            row |= {f"{name} low {clock}": low, f"{name} high {clock}": step + half}
    return row


def isolated_time(network, theta: Tensor, task) -> float:
    """Slow time of eq. 20 from the embeddings of θ to the loss clock 0.5; NaN if that is far, or not defined (width ≤ n)."""
    if network.matrices(theta)["E"].shape[1] <= len(task.X_train):
        return np.nan
    E, level = network.matrices(theta)["E"], 0.5 * float(task.Y_test.square().mean())

    def slope(_, flat):
        at = torch.from_numpy(flat).view_as(E)
        return isolated.velocity(at, task.X_train, task.Y_train, network.activation).numpy().ravel()

    solver, last, began = (
        RK23(slope, 0.0, E.numpy().ravel(), TAU_END, rtol=1e-3, atol=1e-4),
        None,
        time.process_time(),
    )
    while time.process_time() - began < LONGEST["equation 20"]:
        at = torch.from_numpy(solver.y).view_as(E)
        W = isolated.readout(at, task.X_train, task.Y_train, network.activation)
        loss = float((network.activation.value(task.X_test @ at) @ W - task.Y_test).square().mean())
        if loss <= level:
            if last is None:
                return solver.t
            return last[0] + (solver.t - last[0]) * (last[1] - level) / (last[1] - loss)
        last = solver.t, loss
        if solver.status != "running" or solver.step():
            break
    return np.nan


def trained(case: Case, told: dict) -> list[dict]:
    """The run that tests the prediction ``told``; its clocks are read from memorization on.

    A row: ``prediction`` (the hash), ``reason`` (why there is no run), measured step of each clock, ``steps`` trained, processor ``seconds`` from
    the first step on, ``V_grok`` = ‖θ‖² at the loss clock 0.5, ``plateau`` and ``end`` (median training and last held-out loss relative to the
    output 0).
    """
    row: dict = {"prediction": told["hash"], "reason": told["reason"], "steps": 0.0, "seconds": np.nan}
    row |= dict.fromkeys(CLOCKS, np.nan) | dict.fromkeys(("V_grok", "plateau", "end"), np.nan)
    if row["reason"]:
        return [row]
    clocks = [told[f"lam {clock}"] for clock in CLOCKS]
    last = max((step for step in clocks if np.isfinite(step)), default=TAU_END / told["pace"])
    steps, first = int(LONGER * max(last, told["memorized"] + 100)), int(told["memorized"])
    if too_long(case, steps):
        return [row | {"reason": TOO_LONG}]
    network, task = setting(case)
    zero = float(task.Y_test.square().mean())
    at = np.unique(np.linspace(first, steps, RECORDS).round().astype(int))
    began, struck = time.process_time(), set()
    waited = {clock for clock in CLOCKS if np.isfinite(told[f"lam {clock}"])} or {"what is not foretold"}

    def done(record) -> bool:
        if record.step >= first:
            relative, share = record.test_loss[0] / zero, record.test_accuracy[0]
            struck.update(f"loss {x:g}" for x in LOSSES if relative <= x)
            struck.update(f"accuracy {x:g}" for x in SHARES if share >= x)
        return record.step >= first and waited <= struck

    try:
        ran = training.train(
            network, task, steps, seed=case.seed, init_scale=case.scale, lr=told["lr"], weight_decay=case.w,
            momentum=case.momentum, record_at=at, until=done,
        ).isel(run=0)  # fmt: skip
    except DivergedError:
        return [row | {"reason": "diverges"}]
    row |= {"steps": float(ran.step[-1]), "seconds": time.process_time() - began}
    ran = ran.isel(step=ran.step.values >= first)
    row |= clocks_of(ran)
    if np.isfinite(row["loss 0.5"]):
        row["V_grok"] = float(np.interp(row["loss 0.5"], ran.step, ran.norm2))
    row["plateau"] = float(ran.train_loss.median() / ran.train_baseline)
    row["end"] = float(ran.test_loss[-1] / ran.test_baseline)
    return [row]


def clocks_of(run: xr.Dataset) -> dict[str, float]:
    """Step at which each clock strikes in a record of one run."""
    relative = run.test_loss / run.test_baseline
    found = {f"loss {x:g}": records.first_crossing(-relative, -x, "step") for x in LOSSES}
    found |= {f"accuracy {x:g}": records.first_crossing(run.test_accuracy, x - 1e-9, "step") for x in SHARES}
    return {name: float(step) for name, step in found.items()}


def calibrated(case: Case) -> list[dict]:
    """A prediction by the flows at λ and its run in one row, of the other draw."""
    told = predicted(case, ("lam", "init"))[0]
    ran = trained(case, told)[0]
    del ran["prediction"]
    return [{**told, **ran}]


# The theory by itself, and the independent integrator -----------------------------------------------------------------

LAMS = (1e-4, 3.2e-4, 1e-3, 3.2e-3, 1e-2, 3.2e-2, 1e-1)
FINEST = (
    2e-5  # tolerance ÷ λ of these flows: their errors stay below the first-order flow's, which falls as λ²
)


@dataclass(frozen=True)
class Start:
    """A point of Z to start from: where a flow has memorized (p = 11), taken to Z; or a run of the study's cell."""

    activation: str
    seed: int
    width: int = 64
    fraction: float = 0.85


STARTS = [
    Start(activation, 7000 + seed) for seed in range(2) for activation in ("gelu", "quadratic", "softplus")
]
CELL = [Start("relu", 7100 + seed, 128, 59 / 66) for seed in range(3)]
CELL_END = 12.0  # slow time to which the flow is followed in the study's cell
CELL_SHORT = 6.0  # where it does not strike, training is made for LONGER times this
CELL_RATES = (1.0, 0.5)  # learning rates of the study's cell, extrapolated to 0


def compared(start: Start, lams: tuple[float, ...] = LAMS) -> list[dict]:
    """Slow time of the loss clock 0.5 from a start on Z, by the three flows, at each λ.

    A row: ``lam``, times ``true`` (flow at λ), ``limit`` and ``first``, ``ratio`` (q of :data:`RULES`), and of the start ``kappa`` and ``stiffness`` (‖μ₀‖²/μ₀ᵀK⁻¹μ₀).
    """
    network = two_layer(11, start.width, 11, start.activation)
    task = tasks.modular(11, train_fraction=start.fraction, seed=start.seed)
    fast = flow.follow(
        network,
        network.init(start.seed),
        task,
        lam=min(lams),
        tau_end=1.0,
        until=flow.memorized(network, task),
    )
    theta = zero_loss.project(network, torch.from_numpy(fast.theta_end.values), task.X_train, task.Y_train)
    lin = linearize(network, theta, task.X_train)
    mu = lin.solve(lin.jvp(theta))
    about = {
        "kappa": float(lin.singular_values()[-1]) ** 2,
        "stiffness": float((mu * mu).sum() / (mu * lin.solve(mu)).sum()),
    }

    def follow(lam: float, tolerance: float, first: bool = False) -> xr.Dataset:
        return flow.follow(
            network, theta, task, lam=lam, first_order=first, tau_end=TAU_END, tolerance=tolerance, until=0.5
        )

    limit = float(follow(0.0, FINEST * min(lams)).event_tau[0])
    rows = []
    for lam in lams:
        first = follow(lam, FINEST * lam, True)
        times = {"true": float(follow(lam, FINEST * lam).event_tau[0]), "limit": limit}
        rows.append(
            {
                "lam": lam,
                **times,
                "first": float(first.event_tau[0]),
                "ratio": float(first.ratio.max()),
                **about,
            }
        )
    return rows


def checked(start: Start, rates: tuple[float, ...] = CELL_RATES, w: float = 3e-4) -> list[dict]:
    """Slow time of the loss clock 0.5 in the study's cell: by gradient descent at each learning rate, and by the flow from the initial weights.

    A row: ``lr`` (0 for the flow), ``tolerance`` of the flow, ``tau``.
    """
    network = two_layer(11, start.width, 11, start.activation)
    task = tasks.modular(11, train_fraction=start.fraction, seed=start.seed)
    lam, theta = losses.lam("squared_error", task.Y_train, w), network.init(start.seed)
    rows = []
    for tolerance in (TOLERANCE["kinks"],):
        path = flow.follow(network, theta, task, lam=lam, tau_end=CELL_END, tolerance=tolerance, until=0.5)
        rows.append({"lr": 0.0, "tolerance": tolerance, "tau": float(path.event_tau[0])})
    end = max((row["tau"] for row in rows if np.isfinite(row["tau"])), default=CELL_SHORT)
    for lr in rates:
        steps = int(LONGER * end / (lr * w))
        ran = training.train(
            network, task, steps, seed=start.seed, lr=lr, weight_decay=w,
            record_at=np.unique(np.linspace(0, steps, 2 * RECORDS).round().astype(int)),
        ).isel(run=0)  # fmt: skip
        rows.append({"lr": lr, "tolerance": 0.0, "tau": clocks_of(ran)["loss 0.5"] * lr * w})
    return rows


def digest(case: Case, row: dict) -> str:
    """A hash of a case and of everything that a row of predictions says of it."""
    said = {**asdict(case), **row}
    plain = {
        name: value if isinstance(value, str) else float(value)
        for name, value in said.items()
        if name != "hash"
    }
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def rows_of(table: xr.Dataset) -> list[dict]:
    """The rows of a file of records, as dicts."""
    return table.to_dataframe().reset_index(drop=True).to_dict("records")


def main(
    what: str, listed: list[Case] | None = None, paths: dict | None = None, first: int | None = None
) -> xr.Dataset:
    """Make one of the files, or what is left of it.

    Parameters
    ----------
    what : of :data:`PATHS`.
    listed : cases in place of the design's.
    paths : files in place of the package's.
    first : how many cases to go through; all where left out.
    """
    paths = paths or PATHS
    torch.optim.SGD([torch.zeros(1)], lr=1.0)  # PyTorch imports much at the first one; not a part of any time
    listed = (cases(OTHER_SEED if what == "calibrate" else None) if listed is None else listed)[:first]
    if what == "calibrate":
        return run(listed, calibrated, paths[what])
    if what in ("theory", "check"):
        return run(
            (STARTS if what == "theory" else CELL)[:first],
            compared if what == "theory" else checked,
            paths[what],
        )
    if what == "predict":
        return run(listed, predicted, paths[what])
    told = {row["number"]: row for row in rows_of(records.load(paths["predict"]))}
    return run(
        [case for case in listed if case.number in told],
        lambda case: trained(case, told[case.number]),
        paths[what],
    )


# What the rules compare -----------------------------------------------------------------------------------------------

ENOUGH = 10  # runs that grok of a kind, below which a rule about them is not testable
FEW = 3  # runs of a cell, below which no law is fitted to it
WORDS = {"smooth": "smooth", "relu": "ReLU"}  # kinds, as texts name them


def scores(told: xr.Dataset, ran: xr.Dataset) -> pd.DataFrame:
    """The predictions beside their runs, one row a training, nothing left out.

    Columns: those of :class:`Case` and of both files; ``kind`` ("smooth", "relu"); ``known`` (when intervals were set); ``outcome`` in words; ``later`` (step of the loss clock
    0.5 ÷ of memorization), ``waits`` (more than 1) and ``groks``; for each flow ``of_FLOW`` and ``delay_FLOW``, the errors of the step and of the
    delay by the loss clock 0.5; ``rest``, the share of the delay that the first-order flow itself tells, and ``rest_first``, its error of that (NaN where it does not
    begin before the clock); for each clock that strikes after memorization ``error CLOCK`` (flow at λ from memorization) and ``lam covered CLOCK``, ``init covered CLOCK`` (whether the interval holds it); ``failed`` (one of
    prediction and run strikes before the run ends, the other does not); ``rho`` and ``bound`` = 2ρχ.

    Raises
    ------
    ValueError
        A training whose prediction is another than the stored one.
    """
    both = told.to_dataframe().merge(
        ran.to_dataframe(), on=list(Case.__dataclass_fields__), suffixes=(" told", ""), how="inner"
    )
    if (both.prediction != both.hash).any():
        raise ValueError("a training tests another prediction than the one that is stored")
    measured, memorized, steps = both["loss 0.5"], both.memorized, both.steps
    both["kind"] = np.where(both.activation == "relu", "relu", "smooth")
    both["known"] = both.number.isin(known())
    both["later"] = measured / memorized
    both["waits"] = measured > memorized
    both["groks"] = both.waits & (both.later >= records.GROKS)
    both["outcome"] = np.select(
        [both.reason != "", measured.isna(), ~both.waits, ~both.groks],
        [both.reason, "does not generalize in the run", "generalizes as it memorizes", "generalizes soon"],
        "groks",
    )
    for name in FLOWS:
        both[f"of_{name}"] = both[f"{name} loss 0.5"] / measured - 1
        both[f"delay_{name}"] = (both[f"{name} loss 0.5"] - memorized) / (measured - memorized).where(
            both.waits
        ) - 1
    began = both.landed < both["first loss 0.5"]  # else it is the flow at λ all the way
    for name in ("of_first", "delay_first"):
        both[name] = both[name].where(began)
    both["rest_first"] = (both["first loss 0.5"] - both.landed) / (measured - both.landed).where(
        both.waits & began
    ) - 1
    both["rest"] = ((both["first loss 0.5"] - both.landed) / (both["first loss 0.5"] - memorized)).where(
        began
    )
    for clock in CLOCKS:
        both[f"error {clock}"] = (both[f"lam {clock}"] / both[clock] - 1).where(both[clock] > memorized)
        for name in ("lam", "init"):
            inside = (both[f"{name} low {clock}"] <= both[clock]) & (
                both[clock] <= both[f"{name} high {clock}"]
            )
            both[f"{name} covered {clock}"] = inside.where(
                (both[clock] > memorized) & both[f"{name} {clock}"].notna()
            )
    # first written: a prediction beyond the last step trained did not strike. But a run ends when all its clocks have struck, so that
    # each prediction that was a little late counted as a failure.
    foretold = both["lam loss 0.5"].where((both["lam loss 0.5"] <= steps) | measured.notna())
    both["failed"] = (steps > 0) & (foretold.isna() ^ measured.isna())
    limit, first = both["limit loss 0.5"], both["first loss 0.5"]
    both["rho"] = (first - limit).abs() / (first - memorized)
    both["bound"] = (2 * both.rho * both.ratio).where(began)
    return both


def rivals(runs: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """Relative errors of the delay by other laws, one row for each of ``runs`` (of :func:`scores`), NaN where a law names none.

    ``constant`` and ``calibrated``, (log V_mem − log V*)/2c, are fitted in each cell (activation and p) by least squares of the
    relative error, on the runs that grok, where it has :data:`FEW`; ``pooled`` is the calibrated law fitted to all runs of a kind; ``norm``, from the measured
    norm at the end; ``frozen`` direction, where κ < 1/2; ``equation 20``; ``scaled``, equation 20 times one number, fitted to all runs of a kind in the same way
    (the other draw has no equation 20); ``cheap``, of :func:`cheap`, from the runs ``others``.
    """
    waited = ((runs["loss 0.5"] - runs.memorized) * runs.pace).where(runs.groks).to_numpy()
    log_V, ones = np.log(runs.V.to_numpy()), np.ones(len(runs))

    def fitted(by: list[str] | str, *parts) -> np.ndarray:
        found = np.full(len(runs), np.nan)
        for cell in runs.reset_index(drop=True)[np.isfinite(waited)].groupby(by).groups.values():
            at = np.asarray(cell)
            at = at[np.all([np.isfinite(part[at]) for part in parts], axis=0)]
            if len(at) >= FEW:
                A = np.stack([part[at] for part in parts], 1)
                found[at] = A @ np.linalg.lstsq(A / waited[at, None], np.ones(len(at)), rcond=None)[0]
        return found

    degree = runs.activation.map(DEGREE).to_numpy(float)
    kappa = (1 - runs.tangent).where(runs.tangent > 0.5).to_numpy()
    cell = ["activation", "p"]
    isolated_delay = ((runs["equation 20"] - runs.memorized) * runs.pace).to_numpy()
    delays = {
        "constant": fitted(cell, ones),
        "calibrated": fitted(cell, log_V, ones),
        "pooled": fitted("kind", log_V, ones),
        "norm": 0.5 * (log_V - np.log(runs.V_grok.to_numpy())),
        "frozen": np.log((1 - kappa) / kappa) / (2 * degree),
        "equation 20": isolated_delay,
        "scaled": fitted("kind", isolated_delay),
        "cheap": cheap(others)(runs),
    }
    return pd.DataFrame({name: law / waited - 1 for name, law in delays.items()}, index=runs.index)


READ = ("tangent", "stiffness", "V", "held_out")  # at memorization, without training on


class cheap:  # noqa: N801
    """A delay read at memorization: for each kind of network log τ = a + b log(feature), chosen and fitted on other runs.

    The feature of :data:`READ` (or none) with the least error on runs left out one at a time is taken.
    """

    def __init__(self, others: pd.DataFrame):
        self.chosen: dict[str, tuple[str, np.ndarray]] = {}
        for kind, runs in others[others.groks].groupby("kind"):
            target = np.log(((runs["loss 0.5"] - runs.memorized) * runs.pace).to_numpy())
            errors = {name: self._left_out(self._design(runs, name), target) for name in ("", *READ)}
            best = min(errors, key=errors.__getitem__)
            A = self._design(runs, best)
            self.chosen[str(kind)] = best, np.linalg.lstsq(A, target, rcond=None)[0]

    def __call__(self, runs: pd.DataFrame) -> np.ndarray:
        """Delay in slow time of each run."""
        found = np.full(len(runs), np.nan)
        for kind, (name, weights) in self.chosen.items():
            at = (runs.kind == kind).to_numpy()
            found[at] = np.exp(self._design(runs[at], name) @ weights)
        return found

    @staticmethod
    def _design(runs: pd.DataFrame, name: str) -> np.ndarray:
        ones = np.ones(len(runs))
        return np.stack([ones, np.log(runs[name].to_numpy())] if name else [ones], 1)

    @staticmethod
    def _left_out(A: np.ndarray, target: np.ndarray) -> float:
        errors = []
        for i in range(len(target)):
            rest = np.arange(len(target)) != i
            weights = np.linalg.lstsq(A[rest], target[rest], rcond=None)[0]
            errors.append(abs(np.exp(A[i] @ weights - target[i]) - 1))
        return float(np.mean(errors)) if errors else np.inf


def spreads(known: pd.DataFrame, share: float = 0.95) -> dict[tuple[str, str], float]:
    """What :data:`grokutils.delay.SPREAD` is set from: a quantile of |error| of the step over all clocks of runs that wait.

    For smooth networks it is divided by the length of a step, lr·sharpness/(1 − β), with the greatest sharpness from the start on.

    Parameters
    ----------
    known : runs of the other draw (:func:`others`), or of the design (:func:`scores`).
    share : the quantile.
    """
    found = {}
    for kind, runs in known[known.waits].groupby("kind"):
        length = 2 * runs.share * (1 + runs.momentum) / (1 - runs.momentum) if kind == "smooth" else 1.0
        for name, start in (("lam", "memorization"), ("init", "init")):
            errors = [
                ((runs[f"{name} {clock}"] / runs[clock] - 1).abs() / length)[runs[clock] > runs.memorized]
                for clock in CLOCKS
            ]
            found["kinks" if kind == "relu" else "smooth", start] = float(
                pd.concat(errors).dropna().quantile(share)
            )
    return found


def others(calibration: xr.Dataset) -> pd.DataFrame:
    """The runs of the other draw with what :func:`cheap` and :func:`spreads` read."""
    runs = calibration.to_dataframe()
    runs["kind"] = np.where(runs.activation == "relu", "relu", "smooth")
    runs["waits"] = runs["loss 0.5"] > runs.memorized
    runs["groks"] = runs["loss 0.5"] >= records.GROKS * runs.memorized
    return runs


def slopes(theory: pd.DataFrame, flow_name: str, most: float = 0.0101, least: float = 1e-6) -> pd.Series:
    """Log-log slope of a flow's error in λ, for each start (activation, seed)."""
    errors = (theory[flow_name] / theory.true - 1).abs()
    kept = theory[(theory.lam <= most) & (errors >= least)]

    def slope(rows: pd.DataFrame) -> float:
        return float(np.polyfit(np.log(rows.lam), np.log(errors[rows.index]), 1)[0])

    return kept.groupby(["activation", "seed"])[["lam"]].apply(slope)


# The verdicts ---------------------------------------------------------------------------------------------------------


def verdicts(
    runs: pd.DataFrame, laws: pd.DataFrame, theory: pd.DataFrame, check: pd.DataFrame
) -> dict[str, dict]:
    """What came of each of :data:`RULES`: its name → ``measured`` (words) and ``holds`` (truth value, or "untestable").

    Parameters
    ----------
    runs : of :func:`scores`.
    laws : of :func:`rivals`, for these runs.
    theory, check : the records of the fixed starts and of the study's cell.
    """
    groks = {kind: runs[runs.groks & (runs.kind == kind)] for kind in ("smooth", "relu")}
    return {
        **_theory(theory),
        **_limit(groks["smooth"]),
        **_flows(runs, groks),
        "accuracy": _accuracy(groks),
        "crosscheck": _crosscheck(check),
        "coverage": _coverage({kind: some[~some.known] for kind, some in groks.items()}),
        "rivals": _rivals(groks, laws),
        "cost": _cost(runs),
        "enough": _enough(runs[runs.groks]),
    }


def said(share: float, signed: bool = False) -> str:
    """A share in per cent with two digits that count; "–" where there is none."""
    if not np.isfinite(share):
        return "–"
    digits = 0 if abs(share) > 0.095 else 1 if abs(share) > 0.0095 else 2 if abs(share) > 0.00095 else 3
    return f"{share:{'+' if signed else ''}.{digits}%}".replace("-", "−")


def _judged(count: int, measured: str, holds) -> dict:
    """A verdict about ``count`` runs, if they are enough."""
    return {"measured": measured, "holds": bool(holds) if count >= ENOUGH else "untestable"}


def _theory(theory: pd.DataFrame) -> dict[str, dict]:
    limit, first = ((theory[name] / theory.true - 1).abs() for name in ("limit", "first"))
    law = {name: slopes(theory, name).groupby("activation").median() for name in ("limit", "first")}
    near = limit <= 0.09
    worst = first[near].idxmax()
    strength = (theory["first"] - theory["limit"]).abs() / theory["first"] * theory.ratio
    kept = (first <= 2 * strength + 1e-5)[theory.ratio <= 1]
    ranks = [
        float(spearmanr(ruler, first).statistic)
        for ruler in (strength, theory.lam / theory.kappa, theory.lam)
    ]
    above = (first / (2 * strength))[(theory.ratio <= 1) & (first > 2 * strength)]
    missed = theory[near & (first > 0.005)]
    starts = theory.groupby(["activation", "seed"]).ngroups
    return {
        "slopes": {
            "measured": "; ".join(
                f"{words}: " + ", ".join(f"{name} {value:.2f}" for name, value in law[flow_name].items())
                for flow_name, words in (("limit", "limit flow"), ("first", "first-order flow"))
            )
            + f", over {starts} starts",
            "holds": bool((law["limit"] - 1).abs().max() <= 0.05 and (law["first"] - 2).abs().max() <= 0.3),
        },
        "corrected": {
            "measured": f"{(first[near] <= 0.005).sum()} of {near.sum()} within; worst {said(first[worst])}, where the limit flow errs by {said(limit[worst])}"
            + (
                "; beyond: "
                + ", ".join(
                    f"{row.activation} from seed {row.seed} at λ = {row.lam:g} ({said(first[at])}, χ = {row.ratio:.2g})"
                    for at, row in missed.iterrows()
                )
            )
            * bool(len(missed)),
            "holds": bool((first[near] <= 0.005).all()),
        },
        "ruler": {
            "measured": f"at most 2ρχ + 1e-5 in {kept.sum()} of {len(kept)} cases with χ ≤ 1"
            + (
                f" ({len(above)} of them, all {' and '.join(sorted(set(theory.activation[above.index])))}, by its 1e-5 alone: they lie above 2ρχ by up to {said(above.max() - 1)})"
            )
            * bool(len(above))
            + f"; rank correlation {ranks[0]:.2f} with ρχ, {ranks[1]:.2f} with λ/κ, {ranks[2]:.2f} with λ by itself",
            "holds": bool(kept.all() and ranks[0] > ranks[1]),
        },
    }


def _limit(smooth: pd.DataFrame) -> dict[str, dict]:
    limit = smooth.delay_limit.abs()
    within = smooth[smooth.bound <= 0.01].dropna(subset="delay_first")
    inside, own = within.delay_first.abs(), within.rest_first.abs()
    return {
        "limit": _judged(
            int(limit.notna().sum()),
            f"mean {said(limit.mean())}, median {said(limit.median())}, worst {said(limit.max())}, over {limit.notna().sum()} of {len(smooth)} runs"
            + (" (it names no time for the others)" if limit.isna().any() else ""),
            limit.mean() <= 0.05,
        ),
        "ruler-runs": _judged(
            len(inside),
            f"{len(inside)} runs with 2ρχ ≤ 1 %: median {said(inside.median())}, nine of ten within {said(inside.quantile(0.9))}, {(inside <= 0.01).sum()} within 1 %; {(inside > within.bound).sum()} beyond their own 2ρχ"
            + f". Of the delay it tells {said(within.rest.median())} itself (median) and the flow at λ the rest; of its own part it errs by {said(own.median())} in the median, {said(own.quantile(0.9))} in nine of ten",
            inside.median() <= 0.005 and (inside <= 0.02).mean() >= 0.9,
        ),
    }


def _flows(runs: pd.DataFrame, groks: dict[str, pd.DataFrame]) -> dict[str, dict]:
    smooth, relu = (groks[kind].of_lam.abs() for kind in ("smooth", "relu"))
    # one that only the prediction, or only the run, brings to the clock ten times as late as memorization
    last = runs[["loss 0.5", "lam loss 0.5"]].max(axis=1)
    failed = runs[runs.failed & (last >= records.GROKS * runs.memorized)].groupby("kind").size()
    failures = {kind: int(failed.get(kind, 0)) for kind in groks}
    init = groks["smooth"].of_init.abs()
    return {
        "smooth": _judged(
            len(smooth),
            f"median {said(smooth.median())}, worst {said(smooth.max())} over {len(smooth)} runs; failures: {failures['smooth']}",
            smooth.median() <= 0.001 and smooth.max() <= 0.003 and not failures["smooth"],
        ),
        "relu": _judged(
            len(relu),
            f"mean {said(relu.mean())}, median {said(relu.median())}, worst {said(relu.max())} over {len(relu)} runs; failures: {failures['relu']}",
            relu.mean() <= 0.02 and relu.max() <= 0.05 and not failures["relu"],
        ),
        "init": _judged(
            len(init),
            f"median {said(init.median())}, worst {said(init.max())} over {init.notna().sum()} runs",
            init.median() <= 0.003,
        ),
    }


def _accuracy(groks: dict[str, pd.DataFrame]) -> dict:
    parts, fits, tested = [], [], []
    for kind, most in (("smooth", 0.005), ("relu", 0.03)):
        errors = [groks[kind][f"error accuracy {x:g}"].abs() for x in SHARES]
        tested.append(len(groks[kind]))
        fits += [each.median() <= most for each in errors]
        parts.append(
            f"{WORDS[kind]}: "
            + ", ".join(f"{said(each.median())} at {x:g}" for x, each in zip(SHARES, errors, strict=True))
        )
    return _judged(min(tested), "; ".join(parts), all(fits))


def _crosscheck(check: pd.DataFrame) -> dict:
    apart, names = [], []
    for seed, rows in check.groupby("seed"):
        runs = rows[rows.lr > 0].sort_values("lr")
        flow_time = float(rows[rows.lr == 0].tau.iloc[0])
        small, large = runs.iloc[0], runs.iloc[-1]
        at_zero = small.tau + (small.tau - large.tau) * small.lr / (large.lr - small.lr)
        if np.isfinite(flow_time) or np.isfinite(at_zero):  # else neither strikes
            apart.append(flow_time / at_zero - 1)
            names.append(
                f"seed {seed} {said(apart[-1], signed=True)} (its two runs differ by {said(abs(large.tau / small.tau - 1))})"
            )
    neither = check.seed.nunique() - len(apart)
    if neither:
        names.append(
            f"{neither} where neither strikes (flow to slow time {CELL_END:g}, training to {LONGER * CELL_SHORT:.1f})"
        )
    near = [abs(each) <= 0.02 for each in apart]
    holds = False if not all(near) else True if len(apart) == len(CELL) else "untestable"
    return {"measured": ", ".join(names), "holds": holds}


def _coverage(groks: dict[str, pd.DataFrame]) -> dict:
    shares, parts = [], []
    for kind, runs in groks.items():
        for name, start in (("lam", "from memorization"), ("init", "from the initial weights")):
            told = runs[[f"{name} covered {clock}" for clock in CLOCKS]].astype(float)
            held = told.stack().dropna()
            shares.append(held.mean())
            every = told.min(axis=1).dropna()  # the clocks of one run are not independent
            parts.append(
                f"{WORDS[kind]}, {start}: {int(held.sum())} of {len(held)} (all clocks in {int(every.sum())} of {len(every)} runs; "
                f"by clock {told.mean().min():.0%} to {told.mean().max():.0%})"
            )
    return _judged(min(map(len, groks.values())), "; ".join(parts), min(shares) >= 0.9)


def _rivals(groks: dict[str, pd.DataFrame], laws: pd.DataFrame) -> dict:
    parts, fits = [], []
    for kind, runs in groks.items():
        limit, lost = runs.delay_limit.abs(), []
        for name in laws:
            errors = laws.loc[runs.index, name].abs()
            both = limit.notna() & errors.notna()
            if both.any() and not limit[both].mean() < errors[both].mean():
                lost.append(
                    f"{name} ({said(errors[both].mean())} against {said(limit[both].mean())} over {both.sum()} runs)"
                )
        fits.append(not lost)
        parts.append(
            f"{WORDS[kind]}: "
            + ("less than " + ", ".join(laws) if not lost else "not less than " + ", ".join(lost))
        )
        has = runs[runs.delay_limit.notna()]
        parts[-1] += f", over {len(has)} of {len(runs)} runs" + (
            f", all at p = {has.p.iloc[0]}" * (has.p.nunique() == 1)
        )
    named = min(int(runs.delay_limit.notna().sum()) for runs in groks.values())
    return _judged(named, "; ".join(parts), all(fits))


def prices(runs: pd.DataFrame) -> pd.DataFrame:
    """Seconds up to memorization, and with these up to the loss clock 0.5: by ``training``, and by ``predicting`` from memorization."""
    each = runs.seconds / runs.steps.where(runs.steps > 0)
    memorizing = each * runs.memorized
    return pd.DataFrame(
        {
            "memorizing": memorizing,
            "training": each * runs["loss 0.5"],
            "predicting": memorizing + runs["lam seconds"],
        }
    )


def _cost(runs: pd.DataFrame) -> dict:
    slow = runs[(runs.kind == "smooth") & (runs.pace <= 1e-4) & runs["loss 0.5"].notna()]
    spent = prices(slow)
    longer = spent.training > spent.predicting
    alone = spent.training > slow["lam seconds"]
    return _judged(
        len(slow),
        f"{longer.sum()} of {len(slow)} runs ({alone.sum()} if the run up to memorization is counted in the training alone)",
        longer.mean() >= 0.9,
    )


def _enough(groks: pd.DataFrame) -> dict:
    relu = groks[groks.kind == "relu"]
    found = len(groks), len(relu), int((groks.p >= 23).sum()), int((relu.p == 37).sum())
    return {
        "measured": f"{found[0]} runs that grok, {found[1]} of them with ReLU, {found[2]} at p ≥ 23, {found[3]} with ReLU at p = 37",
        "holds": all(have >= asked for have, asked in zip(found, (80, 25, 10, 5), strict=True)),
    }
