"""Chapter 13: a random design, predictions of it, and the runs that test them, in this order.

``python -m grokutils.experiments delay calibrate``, ``… predict``, ``… train`` and ``… theory`` make the records. Each is saved after
every case and goes on where it stopped. What was drawn stays: a run that cannot be predicted, or does not come to
anything, is a row that says why. Each training carries the hash of the prediction that it tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

import numpy as np

DATA = str(files("grokutils") / "data")
PATHS = {
    what: f"{DATA}/delay_{name}.nc"
    for what, name in {
        "calibrate": "calibration",
        "predict": "predictions",
        "train": "trainings",
        "theory": "theory",
    }.items()
}

# The design -----------------------------------------------------------------------------------------------------------

SEED = 13_2026  # of the draw that is predicted and then trained
OTHER_SEED = 13_2027  # of the draw that intervals and the cheap predictor are taken from
LOSSES, SHARES = (0.75, 0.5, 0.3), (0.5, 0.9, 0.99)  # thresholds of the two clocks
CLOCKS = (*(f"loss {x:g}" for x in LOSSES), *(f"accuracy {x:g}" for x in SHARES))
TAU_END = 6.0  # slow time at which predictions give up
PATIENCE = 60_000  # steps within which a run must memorize
LONGER = 1.3  # times the last predicted clock, for which a run is trained
MOST_STEPS = 500_000  # beyond which a run is too long for our computing, and is a row without a measurement
LONGEST = {"smooth": 60.0, "kinks": 40.0}  # seconds of processor time that one flow may take

# Smooth networks at p ≤ 17, ReLU at p ≤ 13, smooth ones at p ≥ 23, ReLU at p = 17, ReLU at the study's other size: how many
# are drawn of each, and how many for calibration.
STRATA = {
    "smooth": (64, 24),
    "relu": (42, 14),
    "large": (12, 0),
    "relu 17": (3, 0),
    "relu 37": (5, 0),
}
MODULI = {
    "smooth": (11, 11, 13, 17),
    "relu": (11, 11, 13),
    "large": (23, 23, 29),
    "relu 17": (17,),
    "relu 37": (37,),
}
ACTIVATIONS = ("gelu", "gelu", "quadratic", "quadratic", "softplus")  # of smooth networks, equally often
MOMENTA = (0.0, 0.0, 0.0, 0.5, 0.9)
# (least, greatest), all drawn evenly in the logarithm
LAM = {"small": (0.002, 0.2), "large": (0.01, 0.1)}  # the study's λ
SHARE = (0.1, 0.6)  # lr ÷ its stability limit 2(1 + β)/sharpness at the initial weights
SCALE = (0.7, 2.0)  # of the initial weights
WIDTH = {"small": (6, 12), "large": (8, 12)}  # hidden units ÷ p
FRACTION = {"smooth": (1.05, 1.3), "relu": (1.12, 1.3)}  # training pairs ÷ 2 p^(4/3) (chapter 11)
MOST = 0.92  # share of the pairs to train on

# The rules, written before anything below was run. A run "groks" where the loss clock 0.5 strikes at ten times the
# step of memorization or later; errors are predicted ÷ measured − 1, of steps unless a rule says "delay" (from memorization).
RULES = {
    "slopes": "From fixed starts on Z, λ over two decades, against the flow at λ (loss clock 0.5): the log-log slope of the limit flow's error is "
    "1 ± 0.05, of the first-order flow's 2 ± 0.3, for each activation (median over starts, errors below 1e-6 left out).",
    "corrected": "On the same starts, wherever the limit flow errs by at most 9 %, the first-order flow errs by at most 0.5 %.",
    "ruler": "Ruler ρ = |τ₁ − τ₀|/τ₁, what the first-order flow changes in the limit flow's time; no run is needed for it. Where ρ ≤ 0.1 the "
    "first-order flow errs by at most ρ²/2 + 1e-4, on all fixed starts; and over all of them the error's rank correlation with ρ is higher than that with "
    "λ/κ, κ the smallest eigenvalue of K at the start.",
    "ruler-runs": "Of the drawn smooth runs that grok, those with ρ ≤ 0.1: the first-order flow from memorization errs by at most 0.5 % of the delay in the "
    "median, and by at most 2 % in nine of ten.",
    "limit": "Smooth runs that grok: the limit flow from memorization errs by at most 5 % of the delay in the mean.",
    "smooth": "Flow at the run's λ from memorization, smooth runs that grok: at most 0.1 % in the median and 0.3 % in the worst case, no failure "
    "(a failure: one of prediction and run strikes before the run ends, the other does not).",
    "relu": "The same for ReLU runs that grok: at most 2 % in the mean and 5 % in the worst case, no failure.",
    "init": "Flow from the initial weights, smooth runs that grok: at most 0.3 % in the median.",
    "accuracy": "Flow at λ from memorization, accuracy clocks 0.5, 0.9 and 0.99 each: at most 0.5 % in the median for smooth runs that grok, at most 3 % for ReLU.",
    "crosscheck": "At the study's cell (ReLU, p = 11, width 128) the flow at λ and gradient descent at a learning rate ever smaller (extrapolated to 0) agree within 2 % on the "
    "slow time of the loss clock 0.5, for three seeds.",
    "coverage": "The stated intervals (set on the other draw) hold at least 90 % of the measured steps of runs that grok, over all six clocks, smooth and ReLU apart.",
    "rivals": "Smooth runs that grok: the limit flow, with nothing fitted, errs less (mean of |error| of the delay) than each of constant τ, norm bound, frozen "
    "direction, calibrated law (fitted per activation and p), equation 20 and the cheap predictor, on the runs for which both name a time; for ReLU likewise.",
    "cost": "Of smooth runs with lr·w/(1 − β) ≤ 1e-4, at least 90 % take longer to train up to the loss clock 0.5 than to predict from memorization on.",
    "enough": "80 runs that grok, of them 25 with ReLU and 10 at p ≥ 23; with fewer, the rules are not testable here. ReLU at p = 37: five.",
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


def cases(draw: int = SEED) -> list[Case]:
    """The design, in the order in which it is run: small networks mixed, then the larger ones."""
    which = 1 if draw == OTHER_SEED else 0
    rng = np.random.default_rng(draw)
    drawn = [_case(rng, draw, stratum) for stratum, counts in STRATA.items() for _ in range(counts[which])]
    small = [each for each in drawn if each["stratum"] in ("smooth", "relu")]
    order = [small[i] for i in rng.permutation(len(small))]
    order += [each for each in drawn if each["stratum"] not in ("smooth", "relu")]
    first = 5000 if which == 0 else 9000
    return [Case(number=i, seed=first + i, **each) for i, each in enumerate(order)]


def _case(rng: np.random.Generator, draw: int, stratum: str) -> dict:
    """One configuration, all but its number and seed; rounded to four digits, so that texts show what was run."""

    def between(limits: tuple[float, float]) -> float:
        return float(f"{np.exp(rng.uniform(*np.log(limits))):.4g}")

    p = int(rng.choice(MODULI[stratum]))
    kind = "relu" if stratum.startswith("relu") else "smooth"
    size = "large" if p >= 23 else "small"
    made = {
        "draw": draw,
        "stratum": stratum,
        "activation": "relu" if kind == "relu" else str(rng.choice(ACTIVATIONS)),
        "p": p,
        "width": 512 if p == 37 else round(p * between(WIDTH[size])),
    }
    pairs = p * (p + 1) / 2
    fraction = min(MOST, between(FRACTION[kind]) * 2 * p ** (4 / 3) / pairs)
    made["fraction"] = float(f"{fraction:.4g}")
    made |= {"scale": between(SCALE), "lam": between(LAM[size]), "share": between(SHARE)}
    return {**made, "momentum": float(rng.choice(MOMENTA))}
