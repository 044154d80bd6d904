"""One look for every figure of the book, and alt text on each.

Figures have a white ground and dark ink; the book's style sheet inverts their lightness in dark mode.
Lines differ in dash and marker as well as in colour, so that they can be told apart in grey.
"""

from __future__ import annotations

import base64
import io
import sys
from importlib.metadata import version

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.figure import Figure
from PIL import Image

from ._display import publish

# Okabe and Ito's colour-blind-safe set, ordered so that neighbours also differ in lightness.
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]
LINES = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2))]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
SEQUENTIAL = "viridis"
DIVERGING = "RdBu_r"

WIDTH = 7.0  # inches: the text column
DOTS = 140  # per inch, about twice what a screen shows of a figure that fills the column
PLOTLY_MIME = "application/vnd.plotly.v1+json"

plt.rcParams.update(
    {
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.prop_cycle": cycler(color=COLORS) + cycler(linestyle=LINES),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 10.5,
        "figure.constrained_layout.use": True,
        "font.size": 10,
        "grid.alpha": 0.25,
        "grid.linewidth": 0.6,
        "image.cmap": SEQUENTIAL,
        "legend.fontsize": 9,
        "legend.frameon": False,
        "lines.linewidth": 1.8,
        "lines.markersize": 4.5,
        "mathtext.fontset": "cm",
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
    }
)


def axes(rows: int = 1, cols: int = 1, ratio: float = 0.6, **options):
    """A figure as wide as the text column with ``rows`` × ``cols`` panels, each ``ratio`` times as high as wide.

    Returns (figure, axes) as ``matplotlib.pyplot.subplots`` does; ``options`` go there.
    """
    return plt.subplots(rows, cols, figsize=(WIDTH, WIDTH / cols * ratio * rows), **options)


def png(figure: Figure) -> tuple[bytes, int]:
    """A matplotlib figure as a small PNG, and the width in CSS pixels at which to show it."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DOTS, bbox_inches="tight", facecolor="white")
    plt.close(figure)
    image = Image.open(drawn).convert("RGB").quantize(192, dither=Image.Dither.NONE)
    packed = io.BytesIO()
    image.save(packed, format="png", optimize=True)
    return packed.getvalue(), round(image.width * 96 / DOTS)


def show(figure: Figure, alt: str) -> None:
    """Show a matplotlib ``figure`` in the chapter, with ``alt``: a sentence or two that state its finding."""
    publish(*_bundle(figure, alt))


def show_plotly(figure, alt: str, static: Figure) -> None:
    """Show a plotly ``figure`` with ``static``, its twin in matplotlib for GitHub, print and no-script readers.

    Numbers are kept to four significant digits: enough to draw, and the same on every machine. Long lists are packed
    as plotly's typed arrays (which plotly knows since version 6), so that a notebook does not spend a line on each number.
    """
    if "google.colab" in sys.modules:  # Colab draws plotly only by its own renderer
        plt.close(static)
        figure.show(renderer="colab")
        return
    bundle, metadata = _bundle(static, alt)
    plain = _rounded(figure.to_plotly_json())
    bundle[PLOTLY_MIME] = _packed(plain) if _reads_typed_arrays() else plain
    publish(bundle, metadata)


def _bundle(figure: Figure, alt: str) -> tuple[dict, dict]:
    if not isinstance(alt, str) or len(alt) < 10:
        raise ValueError(f"alt = {alt!r}: must be a sentence that states what the figure shows")
    data, width = png(figure)
    bundle = {"image/png": base64.b64encode(data).decode(), "text/plain": alt}
    return bundle, {"image/png": {"alt": alt, "width": width}}


def _rounded(value):
    """Plotly's JSON with plain lists for arrays and four significant digits for floats."""
    if isinstance(value, dict) and "bdata" in value:
        flat = np.frombuffer(base64.b64decode(value["bdata"]), dtype=value["dtype"])
        shape = [int(n) for n in str(value.get("shape", flat.size)).split(",")]
        return _rounded(flat.reshape(shape))
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return _rounded(value.tolist())
    if isinstance(value, list | tuple):
        return [_rounded(entry) for entry in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.4g}") if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def _reads_typed_arrays() -> bool:
    return int(version("plotly").split(".")[0]) >= 6


def _packed(value):
    """Plotly's JSON with long rectangular lists of numbers as typed arrays."""
    if isinstance(value, dict):
        return {key: _packed(entry) for key, entry in value.items()}
    if not isinstance(value, list):
        return value
    array = _as_numbers(value)
    if array is None:
        return [_packed(entry) for entry in value]
    kind = "f4" if array.dtype.kind == "f" else np.min_scalar_type(-max(1, int(np.abs(array).max()))).str[1:]
    data = base64.b64encode(array.astype(kind).tobytes()).decode()
    return {"dtype": kind, "bdata": data, "shape": ", ".join(map(str, array.shape))}


def _as_numbers(value: list) -> np.ndarray | None:
    try:
        array = np.array(value)
    except ValueError:  # ragged
        return None
    long = array.size >= 24 and array.ndim <= 2
    small = array.dtype.kind == "f" or (array.dtype.kind == "i" and np.abs(array).max(initial=0) < 2**31)
    return array if long and small else None
