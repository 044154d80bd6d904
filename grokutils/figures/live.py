"""Figures that answer the hand: described here, drawn by figures.js, each with a static twin drawn by matplotlib.

A panel (`lines`, `table`, `space`) can say what it shows at frame k in both ways: as JSON for the script and on an axes
of matplotlib. So a chapter describes its figure once.
"""

from __future__ import annotations

import base64
import textwrap
from dataclasses import dataclass, field

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap, to_hex
from matplotlib.patches import Patch

from . import look
from .phone import label_lines

DASHES = [None, "7 4", "9 3 2 3", "2 3", "9 2 2 2 2 2", "1 2", "14 4"]  # look.LINES, as SVG has them


@dataclass
class Curve:
    """One line of a panel: ``x`` and ``y`` (n,), or (frames, n) if they move; ``factor`` (frames,) moves x as a whole."""

    name: str
    x: np.ndarray
    y: np.ndarray
    color: int | str
    line: int
    factor: np.ndarray | None = None

    def at(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(x, y) at frame ``k``."""
        x, y = (v if v.ndim == 1 else v[k] for v in (self.x, self.y))
        return (x if self.factor is None else x * self.factor[k]), y

    @property
    def frames(self) -> int:
        """Number of frames; 1 if it does not move."""
        return max(
            self.x.shape[0] if self.x.ndim == 2 else 1,
            self.y.shape[0] if self.y.ndim == 2 else 1,
            1 if self.factor is None else len(self.factor),
        )


@dataclass
class Lines:
    """Curves over one pair of axes, with a cursor if ``cursor`` (frames,) says where it is."""

    curves: tuple[Curve, ...]
    cursor: np.ndarray | None = None
    title: str = ""
    xlabel: str = ""
    ylabel: str = ""
    xscale: str = "linear"
    yscale: str = "linear"
    xlim: tuple[float, float] | None = None
    ylim: tuple[float, float] | None = None
    projection = None

    def __post_init__(self):
        self.xlim = self.xlim or self._limits(0, self.xscale)
        self.ylim = self.ylim or self._limits(1, self.yscale)

    def _limits(self, i: int, scale: str) -> tuple[float, float]:
        values = np.concatenate([np.ravel(c.at(k)[i]) for c in self.curves for k in range(c.frames)])
        values = values[np.isfinite(values) & ((values > 0) | (scale != "log"))]
        low, high = float(values.min()), float(values.max())
        if i == 0:
            return low, high
        if scale == "log":
            return low / 1.3, high * 1.3
        return low - 0.05 * (high - low or 1), high + 0.05 * (high - low or 1)

    @property
    def frames(self) -> int:
        """Number of frames."""
        return max([c.frames for c in self.curves] + [0 if self.cursor is None else len(self.cursor)])

    @property
    def moves(self) -> bool:
        """Whether its curves change from frame to frame; a cursor alone is no news on paper."""
        return any(c.frames > 1 for c in self.curves)

    def spec(self) -> dict:
        """As figures.js reads it."""
        curves = [
            {
                "name": c.name,
                "x": _numbers(c.x),
                "y": _numbers(c.y),
                "color": c.color,
                "dash": DASHES[c.line],
                **({} if c.factor is None else {"factor": _numbers(c.factor)}),
            }
            for c in self.curves
        ]
        kept = ("title", "xlabel", "ylabel", "xscale", "yscale")
        return {
            "kind": "lines",
            "curves": curves,
            **{name: getattr(self, name) for name in kept},
            "xlim": _numbers(np.array(self.xlim)),
            "ylim": _numbers(np.array(self.ylim)),
            **({} if self.cursor is None else {"cursor": _numbers(self.cursor)}),
        }

    def draw(self, ax, k: int, key: bool = True) -> None:
        """Draw frame ``k`` on axes of matplotlib, with names or a colour bar if ``key``."""
        for c in self.curves:
            color = look.COLORS[c.color] if isinstance(c.color, int) else c.color
            ax.plot(*c.at(k), color=color, ls=look.LINES[c.line], label=c.name or "_")
        ax.set(xlabel=self.xlabel, ylabel=self.ylabel, xscale=self.xscale, yscale=self.yscale)
        ax.set(xlim=self.xlim, ylim=self.ylim)
        alone = ax.get_subplotspec().get_gridspec().ncols == 1  # names at the ends need room beside
        if key and alone and len({float(np.nanmax(c.at(k)[0])) for c in self.curves}) == 1:
            label_lines(ax)
        elif key and any(c.name for c in self.curves):
            ax.legend()


@dataclass
class Table:
    """A heat map, (rows, columns) or (frames, rows, columns): of kinds, or of values between ``limits``."""

    values: np.ndarray
    kinds: dict[str, str] | None
    limits: tuple[float, float]
    cmap: str
    label: str = ""
    title: str = ""
    xlabel: str = ""
    ylabel: str = ""
    square: bool = True
    projection = None
    cursor = None

    @property
    def frames(self) -> int:
        """Number of frames."""
        return 1 if self.values.ndim == 2 else len(self.values)

    @property
    def moves(self) -> bool:
        """Whether it changes from frame to frame."""
        return self.frames > 1

    def _shades(self) -> list[str]:
        if self.kinds:
            return [to_hex(color) for color in self.kinds.values()]
        return [to_hex(mpl.colormaps[self.cmap](x)) for x in np.linspace(0, 1, 33)]

    def spec(self) -> dict:
        """As figures.js reads it: a byte for each cell, 255 where there is no value."""
        missing = ~np.isfinite(self.values)
        if self.kinds:
            cells = np.where(missing, 255, self.values)
        else:
            low, high = self.limits
            share = np.clip((np.where(missing, low, self.values) - low) / (high - low), 0, 1)
            cells = np.where(missing, 255, np.rint(np.round(254 * share, 3)))
        return {
            "kind": "table",
            "cells": base64.b64encode(cells.astype(np.uint8).tobytes()).decode(),
            "shape": list(self.values.shape[-2:]),
            "shades": self._shades(),
            **({"names": list(self.kinds)} if self.kinds else {"limits": _numbers(np.array(self.limits))}),
            **{name: getattr(self, name) for name in ("label", "title", "xlabel", "ylabel", "square")},
        }

    def draw(self, ax, k: int, key: bool = True) -> None:
        """Draw frame ``k`` on axes of matplotlib, with names or a colour bar if ``key``."""
        values = self.values if self.values.ndim == 2 else self.values[k]
        limits = (-0.5, len(self.kinds) - 0.5) if self.kinds else self.limits
        cmap = ListedColormap(self._shades()) if self.kinds else self.cmap
        shape = "equal" if self.square else "auto"
        drawn = ax.imshow(values, cmap=cmap, vmin=limits[0], vmax=limits[1], aspect=shape)
        ax.grid(False)
        ax.set(xlabel=self.xlabel, ylabel=self.ylabel, xticks=[], yticks=[])
        if key and not self.kinds:
            ax.figure.colorbar(drawn, ax=ax, label=self.label)


@dataclass
class Space:
    """Paths, surfaces and points in three dimensions, which the reader turns."""

    paths: tuple[Curve3, ...]
    surfaces: tuple[tuple, ...]
    points: dict[str, tuple[float, float, float]]
    labels: tuple[str, str, str]
    limits: tuple
    view: tuple[float, float]
    flat: float
    title: str = ""
    frames: int = 1
    moves: bool = False
    cursor: None = None
    projection = "3d"

    def spec(self) -> dict:
        """As figures.js reads it."""
        return {
            "kind": "space",
            "title": self.title,
            "labels": list(self.labels),
            "limits": [_numbers(np.array(pair)) for pair in self.limits],
            "turn": self.view[0],
            "elevation": self.view[1],
            "flat": self.flat,
            "frames": self.frames if self.frames > 1 else 0,
            "paths": [{"name": p.name, "color": p.color, "points": _numbers(p.points)} for p in self.paths],
            "surfaces": [
                {"x": _numbers(x), "y": _numbers(y), "z": _numbers(z), "color": 4}
                for x, y, z in self.surfaces
            ],
            "points": [{"name": name, "at": _numbers(np.array(p))} for name, p in self.points.items()],
        }

    def draw(self, ax, k: int, key: bool = True) -> None:
        """Draw it on three-dimensional axes of matplotlib."""
        ax.computed_zorder = False
        for x, y, z in self.surfaces:
            ax.plot_surface(
                x, y, z, color=look.COLORS[4], alpha=0.35, shade=True, zorder=1, linewidth=0, rasterized=True
            )
        for i, p in enumerate(self.paths):
            color = look.COLORS[p.color] if isinstance(p.color, int) else p.color
            ax.plot(*p.points.T, color=color, ls=look.LINES[i % 7], zorder=3, label=p.name or "_")
        for name, place in self.points.items():
            ax.plot(*np.reshape(place, (3, 1)), "o", color="black", ms=5, zorder=5)
            ax.text(*place, f"  {name}", zorder=6)
        ax.set(**dict(zip(("xlabel", "ylabel", "zlabel"), self.labels, strict=True)))
        ax.set(**dict(zip(("xlim", "ylim", "zlim"), self.limits, strict=True)))
        ax.set_box_aspect((1, 1, self.flat))
        ax.view_init(elev=self.view[1], azim=self.view[0])
        if any(p.name for p in self.paths):
            ax.legend(loc="upper left")


@dataclass
class Curve3:
    """A path in space: ``points`` (n, 3)."""

    name: str
    points: np.ndarray
    color: int | str = field(default=0)


def curve(name: str, x, y, *, color: int | str = 0, line: int | None = None, factor=None) -> Curve:
    """A curve of `lines`.

    Parameters
    ----------
    name : written at its end, in its colour; "" for none.
    x : (n,), or (frames, n) for a curve that moves.
    y : as ``x``; one that is not finite interrupts the curve.
    color : its place in `COLORS`.
    line : its place in `LINES`; as ``color`` if not given.
    factor : (frames,) numbers that x is multiplied by: a clock that changes.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.shape[-1] != y.shape[-1] or max(x.ndim, y.ndim) > 2:
        raise ValueError(f"x, y = arrays of shapes {x.shape}, {y.shape}: must be (n,) or (frames, n)")
    line = line if line is not None else color if isinstance(color, int) else 0
    return Curve(name, x, y, color, line, None if factor is None else np.asarray(factor, dtype=float))


def lines(*curves: Curve, cursor=None, **labels) -> Lines:
    """A panel of curves.

    Parameters
    ----------
    curves : of `curve`.
    cursor : (frames,) where a vertical line stands at each frame.
    labels : ``title``, ``xlabel``, ``ylabel``, ``xscale``, ``yscale``, ``xlim``, ``ylim``; limits hold for all frames.
    """
    return Lines(curves, None if cursor is None else np.asarray(cursor, dtype=float), **labels)


def table(values, *, kinds=None, limits=(0.0, 1.0), cmap: str = look.SEQUENTIAL, **labels) -> Table:
    """A panel that is a heat map. Its colours are the same in light and in dark.

    Parameters
    ----------
    values : (rows, columns) or (frames, rows, columns); the first row is on top. NaN leaves a cell empty.
    kinds : name → colour, if the values are numbers of kinds, 0, 1, …
    limits : lowest and highest value of the colour bar.
    cmap : of matplotlib.
    labels : ``title``, ``xlabel``, ``ylabel``, ``label`` (of the colour bar), ``square`` (cells, True).
    """
    values = np.asarray(values, dtype=float)
    if values.ndim not in (2, 3):
        raise ValueError(
            f"values = array of shape {values.shape}: must be (rows, columns) or (frames, rows, columns)"
        )
    return Table(values, kinds, tuple(limits), cmap, **labels)


def space(
    paths: dict,
    *,
    surfaces=(),
    points=None,
    labels=("x", "y", "z"),
    limits,
    view=(-50, 25),
    flat=0.7,
    title="",
) -> Space:
    """A panel in three dimensions, turned by a slider.

    Parameters
    ----------
    paths : name → (n, 3); along a slider each is followed from its first to its last point.
    surfaces : triples (x, y, z) of (rows, columns), at most about 30 × 30.
    points : name → (x, y, z).
    labels : of the three axes.
    limits : of the three axes, pairs.
    view : azimuth and elevation at first, degrees.
    flat : height of the box against its sides.
    title : of the panel.
    """
    drawn = tuple(Curve3(name, np.asarray(p, dtype=float), i) for i, (name, p) in enumerate(paths.items()))
    meshes = tuple(tuple(np.asarray(v, dtype=float) for v in s) for s in surfaces)
    return Space(drawn, meshes, dict(points or {}), tuple(labels), tuple(limits), view, flat, title)


def play(
    name: str,
    values,
    *panels,
    alt: str,
    moments=None,
    start: int | None = None,
    seconds: float = 8,
    still=None,
) -> None:
    """Show panels along a slider with a play button; a static twin is drawn from the same panels.

    Parameters
    ----------
    name : of the slider ("step").
    values : what the slider says at each frame; one value only for panels that stand still.
    panels : of `lines`, `table`, `space`.
    alt : a sentence or two that state the finding.
    moments : frames that the twin shows of what moves; first, middle and last if not given.
    start : frame at first; the last if not given: a figure shows its point unasked.
    seconds : from the first frame to the last.
    still : a figure of `axes` to use as twin instead.

    Raises
    ------
    ValueError
        A panel whose number of frames is not that of ``values``, or no alt text.
    """
    from .publishing import show_live

    values = [str(v) for v in values]
    for panel in panels:
        if panel.frames not in (1, len(values)):
            raise ValueError(f"panel {panel.title!r} has {panel.frames} frames: must be 1 or {len(values)}")
        if isinstance(panel, Space):
            panel.frames = len(values)
    start = len(values) - 1 if start is None else range(len(values))[start]
    if moments is None:
        moments = sorted({0, len(values) // 2, len(values) - 1})
    moments = [range(len(values))[k] for k in moments]
    spec = {
        "kind": "play",
        "name": name,
        "values": values,
        "start": start,
        "seconds": seconds,
        "panels": [panel.spec() for panel in panels],
    }
    if len(panels) == 1:
        spec["panel_width"] = "100%"
    show_live(spec, alt, still or _twin(name, values, panels, moments))


def _twin(name: str, values: list[str], panels, moments: list[int]):
    """What stands still in one row, then a row of moments for each panel that moves."""
    resting = [(panel, moments[-1], panel.title, True) for panel in panels if not panel.moves]
    rows = [resting] if resting else []
    for panel in panels:
        if panel.moves:  # names once: of curves beside the first, of colours beside the last
            named = moments[-1] if isinstance(panel, Table) else moments[0]
            said = {
                k: "\n".join(filter(None, [textwrap.fill(panel.title, 21), f"{name} {values[k]}"]))
                for k in moments
            }
            rows.append([(panel, k, said[k], k == named) for k in moments])
    columns = int(np.lcm.reduce([len(row) for row in rows]))
    heights = [max(_height(panel, look.WIDTH / len(row)) for panel, *_ in row) for row in rows]
    look.begin()
    figure = plt.figure(figsize=(look.WIDTH, sum(heights)))
    grid = figure.add_gridspec(len(rows), columns, height_ratios=heights)
    for r, row in enumerate(rows):
        span = columns // len(row)
        for c, (panel, k, title, key) in enumerate(row):
            ax = figure.add_subplot(grid[r, c * span : (c + 1) * span], projection=panel.projection)
            panel.draw(ax, k, key)
            ax.set_title(title)
    kinds = {
        n: c for panel in panels if isinstance(panel, Table) and panel.kinds for n, c in panel.kinds.items()
    }
    if kinds:
        handles = [Patch(color=c, label=n) for n, c in kinds.items()]
        figure.legend(handles=handles, ncols=4, loc="outside lower center")
    return figure


def _height(panel, width: float) -> float:
    """Inches that a panel of a twin is high."""
    if isinstance(panel, Space):
        return min(0.9 * width, 4.5)
    if isinstance(panel, Table):
        rows, columns = panel.values.shape[-2:]
        return 0.8 + min(width * rows / columns if panel.square else 0.6 * width, 3.5)
    return 0.3 + min(0.6 * width, 2.8) + (0.5 if width < 3 else 0)


def drag_start(
    *, alt: str, start=(-1.0, 2.5), decay: float = 0.05, decays=(0.01, 0.05, 0.2), limits=(-2.0, 4.0)
) -> None:
    """Show gradient flow on (w₁ + w₂ − 2)² + λ(w₁² + w₂²) from a start that the reader drags.

    The path is the exact solution: across the line of zero loss at rate 2(2 + λ), along it at rate 2λ.

    Parameters
    ----------
    alt : a sentence or two that state the finding.
    start : (w₁, w₂) at first.
    decay : λ at first, one of ``decays``.
    decays : values of λ to choose from.
    limits : of both axes.
    """
    from .publishing import show_live

    if decay not in decays:
        raise ValueError(f"decay = {decay!r}: must be one of {tuple(decays)}")
    times = (0.01, 10 / min(decays))
    spec = {
        "kind": "drag",
        "title": "drag the start",
        "x": [1, 1],
        "y": 2,
        "start": list(start),
        "decay": decay,
        "decays": list(decays),
        "limits": list(limits),
        "times": list(times),
        "steps": 120,
    }
    show_live(spec, alt, _drag_twin(start, decay, limits, times))


def linear_flow(start, decay: float, t) -> np.ndarray:
    """Exact gradient flow on (w₁ + w₂ − 2)² + λ(w₁² + w₂²), (times, 2)."""
    t = np.asarray(t, dtype=float)[:, None]
    along, beside = np.array([1.0, 1.0]) / 2, np.array([-1.0, 1.0]) / 2
    start, end = np.asarray(start, dtype=float), 4 / (2 + decay)
    total, apart = start.sum(), start[1] - start[0]
    fast = end + (total - end) * np.exp(-2 * (2 + decay) * t)
    return fast * along + apart * np.exp(-2 * decay * t) * beside


def _drag_twin(start, decay: float, limits, times):
    figure, (plane, clock) = look.axes(1, 2, ratio=0.9)
    t = np.geomspace(*times, 300)
    line = np.array(limits)
    plane.plot(line, 2 - line, color=look.COLORS[2], ls="-", lw=2.5)
    for i, (one, name) in enumerate(((start, "start"), ((3.2, 1.6), ""), ((-1.2, -1.4), ""))):
        path = np.vstack([[one], linear_flow(one, decay, t)])
        plane.plot(*path.T, color=look.COLORS[0], ls=look.LINES[i])
        plane.plot(*one, look.MARKERS[i], color=look.COLORS[1], ms=8)
        plane.annotate(name, one, (8, 4), textcoords="offset points")
    plane.plot(*linear_flow(start, decay, [1e9])[0], "o", color="black", ms=6)
    plane.set(xlim=limits, ylim=limits, xlabel="w₁", ylabel="w₂", title="across to the line, then along it")
    plane.set_aspect("equal")
    path = linear_flow(start, decay, t)
    loss, size = (path.sum(1) - 2) ** 2, (path**2).sum(1)
    clock.loglog(t, np.maximum(loss / ((sum(start) - 2) ** 2 or 1.0), 1e-9), label="loss ÷ first")
    clock.loglog(t, size / size[-1], label="squared norm ÷ last")
    clock.set(xlabel="time t", title=f"two clocks, λ = {decay:g}", ylim=(1e-4, 1e2), xlim=times)
    clock.legend()
    return figure


def guess(
    cases: dict,
    *,
    alt: str,
    level: float,
    ylabel: str,
    xlabel: str = "step",
    title: str = "",
    ylim=(0.0, 1.05),
) -> None:
    """Guess, predict, run: the reader says when a curve crosses a level, then the theory does, then it is run.

    Parameters
    ----------
    cases : name → {"x": (n,) steps, "y": (n,) measured, "measured": step, "predicted": step}.
    alt : a sentence or two that state the finding.
    level : of y that is crossed.
    ylabel, xlabel, title : of the panel.
    ylim : limits of y.

    Raises
    ------
    ValueError
        No case, or a step that is not a positive number.
    """
    from .publishing import show_live

    if not cases:
        raise ValueError("cases = {}: must hold at least one run")
    for name, case in cases.items():
        for key in ("measured", "predicted"):
            if not 0 < case[key] < np.inf:
                raise ValueError(f"cases[{name!r}][{key!r}] = {case[key]!r}: must be a positive step")
    last = max(float(np.max(case["x"])) for case in cases.values())
    spec = {
        "kind": "guess",
        "title": title,
        "xlabel": xlabel,
        "ylabel": ylabel,
        "xlim": [1, float(f"{last:.4g}")],
        "ylim": list(ylim),
        "level": level,
        "cases": [
            {
                "name": name,
                "x": _numbers(np.asarray(case["x"], dtype=float)),
                "y": _numbers(np.asarray(case["y"], dtype=float)),
                "measured": float(f"{case['measured']:.4g}"),
                "predicted": float(f"{case['predicted']:.4g}"),
            }
            for name, case in cases.items()
        ],
    }
    figure, ax = look.axes(ratio=0.5)
    for i, (name, case) in enumerate(cases.items()):
        style = {"color": look.COLORS[i % 6], "ls": look.LINES[i % 7]}
        ax.plot(case["x"], case["y"], label=name, **style)
        ax.plot([case["predicted"]], [level], look.MARKERS[i % 7], color=style["color"], ms=8, mec="white")
    ax.axhline(level, color="0.4", lw=0.8, ls=":")
    ax.set(xscale="log", xlim=(1, last), ylim=ylim, xlabel=xlabel, ylabel=ylabel)
    ax.set_title(title or "measured curves; marks are predictions")
    ax.legend()
    show_live(spec, alt, figure)


def _numbers(values: np.ndarray):
    """Lists with four significant digits: enough to draw, and the same on every machine; None where not finite."""
    if np.ndim(values) > 1:
        return [_numbers(row) for row in values]
    return [_short(v) for v in np.asarray(values, dtype=float)]


def _short(v: float):
    if not np.isfinite(v):
        return None
    v = float(f"{v:.4g}")
    return int(v) if v.is_integer() and abs(v) < 1e9 else v
