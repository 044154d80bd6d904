"""Every figure of the book: one look, vectors in the page's type and colours, alt text, a layout for phones.

`axes` opens a figure and `show` shows it: on a page of the book as vectors whose colours follow light and dark, with a
second layout for phones; elsewhere (GitHub, JupyterLab, Colab) as a PNG on white. `play`, `drag_start` and `guess` show
figures that answer the hand, each with a static twin. Lines differ in dash and marker as well as in colour, so that
they can be told apart in grey.
"""

from __future__ import annotations

from .live import curve, drag_start, guess, lines, play, space, table
from .look import COLORS, DIVERGING, LINES, MARKERS, NARROW, SEQUENTIAL, WIDTH, axes, plt
from .phone import label_lines
from .publishing import DOTS, LIVE_MIME, PLOTLY_MIME, png, show, show_plotly

__all__ = [
    "COLORS",
    "DIVERGING",
    "DOTS",
    "LINES",
    "LIVE_MIME",
    "MARKERS",
    "NARROW",
    "PLOTLY_MIME",
    "SEQUENTIAL",
    "WIDTH",
    "axes",
    "curve",
    "drag_start",
    "guess",
    "label_lines",
    "lines",
    "play",
    "plt",
    "png",
    "show",
    "show_plotly",
    "space",
    "table",
]
