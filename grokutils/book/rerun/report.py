"""One page that shows what a sweep found: provenance, claims, figures, and a table of cases to sort and filter."""

from __future__ import annotations

import base64
import os
import re
import statistics
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd

from ... import figures
from .. import templating
from . import collect, progress
from .store import Store

LINES = 12  # curves that one panel can hold
TICKS = 10  # labels that one axis can hold
SEED = re.compile(r"(^|_)seed$")  # what is only repeated: figures show means over it


def write(store: Store, asked: dict[str, str] | None = None, out: Path | None = None) -> Path:
    """Write ``report.html`` into ``out``; returns its path. It loads nothing: figures are inside."""
    out, found, plan = out or store.folder, collect.table(store, asked), store.plans()[-1]
    parameters = [name for name in found.columns if name not in (*collect.COLUMNS, "case")]
    swept = [name for name in parameters if found[name].nunique() > 1]
    failed = found[found.kind == "failed"]
    claims = found[found.kind == "claim"]
    counts = claims.groupby(["name", "verdict"]).size().unstack(fill_value=0)
    wide = _wide(found, swept)
    about = {case: store.facts(case) for case in wide.case}
    heads = [name for name in wide.columns if name != "case"]
    with mpl.rc_context({"figure.max_open_warning": 0}):
        pictures = [*_all_figures(wide, found, swept), *_curves(store, swept)]
    labels = {row.case: " ".join(f"{n}={getattr(row, n)}" for n in swept) for row in found.itertuples()}
    rows = [(row["case"], *_row(row, heads, about[row["case"]])) for row in wide.to_dict("records")]
    text = templating.filled(
        "report.html",
        title=plan["title"],
        base=f"{os.path.relpath(store.folder, out)}/" if out != store.folder else "",
        counted=f"{found.case.nunique()} cases of {plan['chapter']}",
        missing=len(store.cases()) - found.case.nunique(),
        facts=_facts(found, parameters, swept, plan, [fact for fact in about.values() if fact]),
        failed=[(c, labels[c] or c, e) for c, e in zip(failed.case, failed.measured, strict=True)],
        claims=counts,
        pictures=[(alt, base64.b64encode(figures.png(figure)[0]).decode()) for figure, alt in pictures],
        heads=[*heads, "seconds", "machine", "date"],
        rows=rows,
    )
    store.write(out / "report.html", text)
    return out / "report.html"


def _facts(found: pd.DataFrame, parameters: list, swept: list, plan: dict, about: list[dict]) -> list[tuple]:
    """What was run, with what, where and when: (name, text)."""
    once = found.drop_duplicates("case")
    ranges = {name: sorted(set(once[name]), key=lambda v: (isinstance(v, str), v)) for name in swept}
    several = lambda key: ", ".join(sorted({str(f[key]) for f in about if f.get(key)}))  # noqa: E731
    dates, seconds = sorted(f["date"] for f in about if "date" in f), [f["seconds"] for f in about]
    facts = {
        **{f"swept: {n}": ", ".join(map(str, v if len(v) <= 8 else [*v[:3], "…", v[-1]])) for n, v in ranges.items()},
        "fixed": ", ".join(f"{n} = {once[n].iloc[0]}" for n in parameters if n not in swept),
        "code": f"{plan['code']} (grokutils {plan.get('version', '')})",
        "commit": several("commit"),
        "run": " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "",
        "machines": several("host"),
        "python": several("python"),
        "time": f"{progress.duration(sum(seconds))} in all, {progress.duration(statistics.median(seconds))} a case"
        if seconds else "",
    }  # fmt: skip
    return [(name, text) for name, text in facts.items() if text]


def _wide(found: pd.DataFrame, swept: list[str]) -> pd.DataFrame:
    """One row a case: what is swept, each measure, each claim's verdict."""
    rows = []
    for case, lines in found[found.kind != "failed"].groupby("case", sort=False):
        row = {"case": case, **{name: lines[name].iloc[0] for name in swept}}
        known = lines[lines.kind != "none"].sort_values("kind", ascending=False, kind="stable")
        for line in known.itertuples():
            row[_head(line, swept)] = line.verdict if line.kind == "claim" else line.value
        rows.append(row)
    return pd.DataFrame(rows, columns=None if rows else ["case", *swept])


def _head(line, swept: list[str]) -> str:
    return f"{line.name} ({line.kind})" if line.name in ("case", *swept) else line.name


def _row(row: dict, heads: list[str], about: dict) -> tuple[str, list[tuple]]:
    """A case's text to filter by, and (value to sort by, text to show) of each cell."""
    values = [row[head] for head in heads] + [about.get(key, "") for key in ("seconds", "host", "date")]
    words = " ".join(f"{head}={_shown(row[head]).replace(' ', '-')}" for head in heads)
    text = f" {words} {about.get('host', '')} ".lower()
    return text, [(_shown(value, 12), _shown(value)) for value in values]


def _shown(value, digits: int = 4) -> str:
    if value is None or value is pd.NA:
        return ""
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def _all_figures(wide: pd.DataFrame, found: pd.DataFrame, swept: list[str]):
    """(figure, alt text) for each measure, and for each claim whose verdicts differ."""
    varied = [name for name in swept if wide[name].nunique() > 1]
    axes = [name for name in varied if not SEED.search(name)] or varied
    if not axes or wide.empty:
        return
    lines = found[found.kind.isin(["measure", "claim"])].drop_duplicates(["kind", "name"])
    for line in lines.sort_values("kind", ascending=False, kind="stable").itertuples():
        column = wide[_head(line, swept)]
        if line.kind == "measure":
            yield _figure(wide[axes].assign(y=column.astype(float)), axes, str(line.name))
        elif column.nunique() > 1:  # what could not be tested neither holds nor fails
            share = column.map({"holds": 1.0, "holds with a correction": 1.0, "fails": 0.0})
            yield _figure(wide[axes].assign(y=share), axes, f"share where {line.name} holds")


def _figure(data: pd.DataFrame, axes: list[str], label: str):
    """A line, a heat map or parallel coordinates, for one, two or more swept parameters; means over the rest."""
    mean = data.groupby(axes, as_index=False).y.mean()
    finite = mean[np.isfinite(mean.y)]
    endless = int(np.isinf(mean.y).sum())
    words = [f"{endless} of {len(mean)} infinite"] if endless else []
    if len(finite):
        low, high = finite.loc[finite.y.idxmin()], finite.loc[finite.y.idxmax()]
        at = lambda row: ", ".join(f"{name} = {_tick(row[name])}" for name in axes)  # noqa: E731
        words.insert(0, f"from {low.y:.4g} at {at(low)} to {high.y:.4g} at {at(high)}")
    alt = f"{label}: {'; '.join(words) or 'no finite value'}"
    figure, panel = figures.axes(ratio=0.62 if len(finite) else 0.2)
    if not len(finite):
        panel.set(title=alt, xticks=[], yticks=[])
    elif len(axes) == 1:
        _line(panel, data, mean, axes[0], label)
    elif len(axes) == 2:
        _map(figure, panel, mean, axes, label)
    else:
        _parallel(panel, mean, axes, label)
    return figure, alt


def _places(values: pd.Series) -> tuple[pd.Series, list, list[str]]:
    """Where values stand on an axis, and its ticks: numbers at their size, anything else (inf, too) in order."""
    numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    known = sorted(set(values), key=lambda v: (isinstance(v, str), v))
    if numeric and np.isfinite(values.astype(float)).all():
        spots = dict(zip(known, known, strict=True))
    else:
        spots = {value: i for i, value in enumerate(known)}
    chosen = known[:: -(-len(known) // TICKS)]
    return values.map(spots).astype(float), [spots[v] for v in chosen], [_tick(v) for v in chosen]


def _tick(value) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 14 else f"{text[:13]}…"


def _line(panel, data: pd.DataFrame, mean: pd.DataFrame, name: str, label: str) -> None:
    where, ticks, words = _places(mean[name])
    spot = dict(zip(mean[name], where, strict=True))
    y = data.y.where(np.isfinite(data.y))
    panel.plot(data[name].map(spot), y, "o", color="0.6", ls="none", label="each case")
    panel.plot(where, mean.y.where(np.isfinite(mean.y)), marker="s", label="mean")
    for place in where[np.isinf(mean.y)]:
        panel.annotate("∞", (place, 1), xycoords=("data", "axes fraction"), ha="center", va="top")
    if 0 < 50 * where.min() < where.max() and isinstance(mean[name].iloc[0], float):
        panel.set_xscale("log")
    panel.set_xticks(ticks, words)
    panel.minorticks_off()
    panel.set(xlabel=name, ylabel=label)
    panel.legend()


def _map(figure, panel, mean: pd.DataFrame, axes: list[str], label: str) -> None:
    grid = mean.pivot(index=axes[0], columns=axes[1], values="y")
    shown = panel.imshow(grid.where(np.isfinite(grid)).to_numpy(float), origin="lower", aspect="auto")
    for row, column in np.argwhere(np.isinf(grid.to_numpy(float))):
        panel.annotate("∞", (column, row), ha="center", va="center")
    for axis, values in (("x", grid.columns), ("y", grid.index)):
        step = -(-len(values) // TICKS)
        getattr(panel, f"set_{axis}ticks")(range(0, len(values), step), [_tick(v) for v in values[::step]])
    panel.set(xlabel=axes[1], ylabel=axes[0])
    panel.grid(False)
    figure.colorbar(shown, label=label)


def _parallel(panel, mean: pd.DataFrame, axes: list[str], label: str) -> None:
    heights = []
    for i, name in enumerate([*axes, "y"]):
        values = mean[name].where(np.isfinite(mean[name])) if name == "y" else mean[name]
        values = values.dropna()
        where, ticks, words = _places(values)
        low, spread = where.min(), (where.max() - where.min()) or 1
        heights.append(((where - low) / spread).reindex(mean.index))
        if len(ticks) > 4:  # only the ends
            ends = where.idxmin(), where.idxmax()
            ticks, words = [where[end] for end in ends], [_tick(values[end]) for end in ends]
        for tick, word in zip(ticks, words, strict=True):
            place = (i, (tick - low) / spread)
            panel.annotate(word, place, xytext=(4, 4), textcoords="offset points", fontsize=8)
        panel.axvline(i, color="0.5", lw=0.8, ls="-")
    shades = mpl.colormaps[figures.SEQUENTIAL](heights[-1].fillna(0))
    for line, shade in zip(np.array(heights).T, shades, strict=True):
        panel.plot(line, color=shade, ls="-", lw=1)
    panel.set_xticks(range(len(axes) + 1), [*axes, label])
    panel.set_yticks([])
    panel.grid(False)


def _curves(store: Store, swept: list[str]):
    """(figure, alt text) for the records' variables over slow time: means over runs, one curve a case."""
    for name, dataset in collect.records(store).items():
        for variable, values in dataset.data_vars.items():
            time = next((t for t in ("tau", "step") if t in dataset.variables), None)
            plottable = {"case", "step"} <= set(values.dims) <= {"case", "step", "run"}
            if time is None or not plottable or values.dtype.kind not in "fiu":
                continue
            figure, panel = figures.axes()
            for i, case in enumerate(dataset.case.values[:LINES]):
                one = dataset[variable].sel(case=case)
                x = dataset[time].sel(case=case) if "case" in dataset[time].dims else dataset[time]
                one, x = (v.mean("run") if "run" in v.dims else v for v in (one, x))
                known = [s for s in swept if s in dataset.coords]
                label = " ".join(f"{s}={dataset[s].sel(case=case).item()}" for s in known)
                style = {"color": figures.COLORS[i % 7], "linestyle": figures.LINES[(i + i // 7) % 7]}
                panel.plot(x, one, label=label, **style)
            panel.set(xlabel="slow time τ" if time == "tau" else "step", ylabel=f"{variable} ({name})")
            if swept:
                panel.legend(fontsize=7)
            low, high = float(values.min()), float(values.max())
            of = f"{min(len(dataset.case), LINES)} of {len(dataset.case)} cases"
            yield figure, f"{variable} in {name} over {time}, {of}: from {low:.4g} to {high:.4g}"
