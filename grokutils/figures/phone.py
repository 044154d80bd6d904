"""The same figure for a phone: its panels one below the other, at the size of type that they have on a desk."""

from __future__ import annotations

from matplotlib.gridspec import GridSpec
from matplotlib.text import Annotation

from .look import NARROW


def restack(figure, columns: int | None = None) -> None:
    """Arrange a figure's panels for a column ``NARROW`` inches wide.

    Up to three panels in a row come one below the other, four side by side two by two, six three by three: so a panel is
    about as wide as it was. A figure whose panels stand in no grid, or in a grid inside a grid, is only made narrower.

    Parameters
    ----------
    figure : of matplotlib.
    columns : panels side by side; chosen as above if not given.
    """
    places = {ax: ax.get_subplotspec() for ax in figure.axes if ax.get_subplotspec() is not None}
    width, height = figure.get_size_inches()
    grids = {id(spec.get_gridspec()) for spec in places.values()}
    if len(grids) != 1 or any(spec.get_topmost_subplotspec() is not spec for spec in places.values()):
        figure.set_size_inches(NARROW, max(height * NARROW / width, 0.75 * NARROW))
        return
    cells = sorted({_cell(spec) for spec in places.values()})
    grid = next(iter(places.values())).get_gridspec()
    columns = columns or max(1, grid.ncols // 2)
    rows = -(-len(cells) // columns)
    heights = grid.get_height_ratios() or [1] * grid.nrows
    inch = height / sum(heights)
    scale = NARROW / columns / (width / grid.ncols)
    tall = [sum(heights[top : bottom + 1]) * inch for top, bottom, _, _ in _boxes(cells)]
    tall = [max(h * min(1.0, scale), min(h, 0.72 * NARROW / columns)) for h in tall]
    row_heights = [max(tall[r * columns : (r + 1) * columns]) for r in range(rows)]
    _say_what_a_neighbour_said(places)
    stacked = GridSpec(rows, columns, figure=figure, height_ratios=row_heights)
    for ax, spec in places.items():
        ax.set_subplotspec(stacked[cells.index(_cell(spec))])
    _narrow_legends(figure)
    figure.set_size_inches(NARROW, sum(row_heights) + 0.25 * len(figure.legends))


def _cell(spec) -> tuple[int, int, int, int]:
    return spec.rowspan.start, spec.colspan.start, spec.rowspan.stop - 1, spec.colspan.stop - 1


def _boxes(cells):
    return [(top, bottom, left, right) for top, left, bottom, right in cells]


def _say_what_a_neighbour_said(places) -> None:
    """A panel that left its axes' labels to the panel at its side, or below it, gets them itself."""
    for ax, spec in places.items():
        for other, its in places.items():
            if ax is other:
                continue
            same_row = its.rowspan == spec.rowspan and its.colspan.start == 0 and spec.colspan.start > 0
            same_column = its.colspan == spec.colspan and its.is_last_row() and not spec.is_last_row()
            if same_row and ax.get_shared_y_axes().joined(ax, other):
                ax.tick_params(labelleft=True)
                ax.set_ylabel(ax.get_ylabel() or other.get_ylabel())
            if same_column and spec.get_gridspec().ncols > 1 and ax.get_shared_x_axes().joined(ax, other):
                ax.tick_params(labelbottom=True)
                ax.set_xlabel(ax.get_xlabel() or other.get_xlabel())


def _narrow_legends(figure) -> None:
    for legend in list(figure.legends):
        labels = [text.get_text() for text in legend.get_texts()]
        columns = 1 if max(map(len, labels), default=0) > 22 else 2
        figure.legend(
            legend.legend_handles,
            labels,
            ncols=columns,
            loc="outside lower center",
            fontsize=9,
            frameon=False,
        )
        legend.remove()


class EndLabel(Annotation):
    """The name of a line at its end."""


def label_lines(ax, **options) -> None:
    """Write the name of every labelled line at its right end, in its colour, instead of a legend.

    Names that would meet are pushed apart when the figure is shown. ``options`` go to the text (``fontsize``, …).
    """
    low, high = ax.get_xlim()
    for line in ax.lines:
        name = line.get_label()
        if name.startswith("_"):
            continue
        x, y = line.get_data(orig=False)
        inside = [i for i in range(len(x)) if low <= x[i] <= high and y[i] == y[i]]
        if not inside:
            continue
        last = max(inside, key=lambda i: x[i])
        label = EndLabel(
            name, (x[last], y[last]), (5, 0), textcoords="offset points", va="center",
            color=line.get_color(), fontsize=9, annotation_clip=False, **options,
        )  # fmt: skip
        ax.add_artist(label)
        label.set_clip_path(None)
        label.set_clip_on(False)


def spread_labels(figure) -> None:
    """Push apart the names at the ends of lines that would be written over each other."""
    for ax in figure.axes:
        labels = [text for text in ax.texts if isinstance(text, EndLabel)]
        for label in labels:
            label.set_position((5, 0))
        if len(labels) < 2:
            continue
        figure.draw_without_rendering()
        at = {label: ax.transData.transform(label.xy)[1] * 72 / figure.dpi for label in labels}
        labels.sort(key=at.get)
        wanted = [at[label] for label in labels]
        for label, y in zip(labels, _apart(wanted, 1.15 * labels[0].get_fontsize()), strict=True):
            label.set_position((5, y - at[label]))


def _apart(wanted: list[float], gap: float) -> list[float]:
    """Sorted heights moved as little as needed to be ``gap`` apart: blocks that meet move as one."""
    blocks = []  # [mean of (wanted − offset), count]
    for i, y in enumerate(wanted):
        blocks.append([y - i * gap, 1])
        while len(blocks) > 1 and blocks[-1][0] < blocks[-2][0]:
            (a, n), (b, m) = blocks.pop(-2), blocks.pop()
            blocks.append([(a * n + b * m) / (n + m), n + m])
    moved = [mean for mean, count in blocks for _ in range(count)]
    return [mean + i * gap for i, mean in enumerate(moved)]
