"""What a cell's figure leaves in its notebook: a PNG for everybody, vectors for the book, JSON for what moves."""

from __future__ import annotations

import base64
import io
import sys

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from .. import _display
from . import look, page
from .phone import restack, spread_labels
from .plotly_json import packed_json
from .vector import svg

DOTS = 110  # per inch of the PNG
PLOTLY_MIME = "application/vnd.plotly.v1+json"
LIVE_MIME = "application/vnd.grokutils.live+json"


def png(figure: Figure) -> tuple[bytes, int]:
    """A matplotlib figure as a small PNG, and the width in CSS pixels at which to show it. The figure is closed."""
    try:
        return _png(figure)
    finally:
        _close(figure)


def show(figure: Figure, alt: str, columns: int | None = None) -> None:
    """Show a matplotlib figure in the chapter.

    Parameters
    ----------
    figure : of `axes`.
    alt : a sentence or two that state its finding.
    columns : panels side by side on a phone; by default as many as leave a panel about as wide as it is.

    Raises
    ------
    ValueError
        No alt text.
    """
    _display.publish(*_bundle(figure, alt, columns))


def show_live(spec: dict, alt: str, still: Figure) -> None:
    """Show a figure that moves, drawn by the book's script from ``spec``, with ``still``, its twin in matplotlib."""
    bundle, metadata = _bundle(still, alt)
    bundle[LIVE_MIME] = spec
    if page.is_live():
        bundle["text/html"] = page.self_contained(spec, alt, bundle["image/png"])
    _display.publish(bundle, metadata)


def show_plotly(figure, alt: str, static: Figure) -> None:
    """Show a plotly ``figure`` with ``static``, its twin in matplotlib for GitHub, print and no-script readers.

    Colab draws plotly only by its own renderer.
    """
    if "google.colab" in sys.modules:
        _close(static)
        figure.show(renderer="colab")
        return
    bundle, metadata = _bundle(static, alt)
    bundle[PLOTLY_MIME] = packed_json(figure)
    _display.publish(bundle, metadata)


def _bundle(figure: Figure, alt: str, columns: int | None = None) -> tuple[dict, dict]:
    """The MIME bundle and its metadata. The vectors are metadata of the PNG: another form of the same picture."""
    try:
        if not isinstance(alt, str) or len(alt) < 10:
            raise ValueError(f"alt = {alt!r}: must be a sentence that states what the figure shows")
        with look.book_style():
            look.plain_powers(figure)
            spread_labels(figure)
            data, width = _png(figure)
            wide = svg(figure)
            restack(figure, columns)
            spread_labels(figure)
            narrow = svg(figure)
    finally:
        _close(figure)
    bundle = {"image/png": base64.b64encode(data).decode(), "text/plain": alt}
    return bundle, {"image/png": {"alt": alt, "width": width, "wide": wide, "narrow": narrow}}


def _png(figure: Figure) -> tuple[bytes, int]:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DOTS, bbox_inches="tight", facecolor="white")
    image = Image.open(drawn).convert("RGB").quantize(192, dither=Image.Dither.NONE)
    packed = io.BytesIO()
    image.save(packed, format="png", optimize=True)
    return packed.getvalue(), round(image.width * 96 / DOTS)


def _close(figure: Figure) -> None:
    plt.close(figure)
    look.end()
