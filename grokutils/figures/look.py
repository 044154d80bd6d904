"""How every figure looks: palette, type and lines, whatever the reader's own matplotlib is set to."""

from __future__ import annotations

from contextlib import contextmanager

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.ticker import FuncFormatter, LogFormatterSciNotation, NullLocator

# Okabe and Ito's colour-blind-safe set, ordered so that neighbours also differ in lightness.
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]
LINES = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2))]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
SEQUENTIAL = "viridis"
DIVERGING = "RdBu_r"

WIDTH = 7.0  # inches: the text column
NARROW = 3.6  # inches: a phone's

_LOOK = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": 10,
    "axes.prop_cycle": cycler(color=COLORS) + cycler(linestyle=LINES),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "grid.color": "#b0b0b0",
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "image.cmap": SEQUENTIAL,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "mathtext.fontset": "cm",
    "path.simplify_threshold": 0.2,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
}
_KEPT = ("backend", "interactive")  # where figures go is the reader's business

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

_before = None  # the reader's settings, while a figure of the book is in the making


@contextmanager
def book_style():
    """The book's look and nothing of the reader's own settings, inside the block only."""
    with mpl.rc_context():
        _apply()
        yield


def begin() -> None:
    """Take the book's look until `end`: a figure is drawn by many calls of matplotlib between the two."""
    global _before
    if _before is None:
        _before = _settings()
    _apply()


def end() -> None:
    """Give the reader's settings back."""
    global _before
    if _before is not None:
        dict.update(mpl.rcParams, _before)
        _RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


_before = None


def _settings() -> dict:
    return {key: dict.__getitem__(mpl.rcParams, key) for key in mpl.rcParams if key not in _KEPT}


def _apply() -> None:
    mpl.rcdefaults()
    mpl.rcParams.update(_LOOK)


def plain_powers(figure) -> None:
    """Powers of ten along logarithmic axes as text (10⁴), in the page's type, without the marks between them."""
    for ax in figure.axes:
        for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
            if not isinstance(axis.get_major_formatter(), LogFormatterSciNotation):
                continue
            axis.set_major_formatter(FuncFormatter(_power))
            if abs(np.log10(limits[1] / limits[0])) > 2:
                axis.set_minor_locator(NullLocator())


def _power(value: float, _) -> str:
    exponent = round(np.log10(value))
    if not np.isclose(value, 10.0**exponent):
        return f"{value:g}"
    return f"{value:g}" if -2 <= exponent <= 2 else "10" + str(exponent).translate(_RAISED)


def axes(rows: int = 1, cols: int = 1, ratio: float = 0.6, **options):
    """A figure as wide as the text column with ``rows`` × ``cols`` panels, each ``ratio`` times as high as wide.

    The book's look holds from here until the figure is shown; then the reader's own settings are back.

    Returns (figure, axes) as ``matplotlib.pyplot.subplots`` does; ``options`` go there.
    """
    begin()
    return plt.subplots(rows, cols, figsize=(WIDTH, WIDTH / cols * ratio * rows), **options)
