"""One page that shows what a sweep found: summary, a figure for each claim and measure, table, links."""

from __future__ import annotations

import base64
import html
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd

from ... import figures
from . import collect, page
from .store import Store

LINES = 12  # curves that one panel can hold
SEED = re.compile(r"(^|_)seed$")  # what is only repeated: figures show means over it
TEMPLATE = """<h1>{{ title }}</h1>
<p>{{ cases }} cases of <code>{{ chapter }}</code>{% if swept %}, over {{ swept|join(", ") }}{% endif %};
{{ failed|length }} failed.</p>
{% if failed %}<h2>Failed</h2><ul>{% for case, error in failed %}
<li><a href="failed/{{ case }}/page.html">{{ case }}</a>: {{ error }}</li>{% endfor %}</ul>{% endif %}
{% if claims %}<h2>Claims</h2><table><tr><th>claim</th>{% for v in verdicts %}<th>{{ v }}</th>{% endfor %}</tr>
{% for name, counts in claims %}<tr><td>{{ name }}</td>{% for n in counts %}<td>{{ n }}</td>{% endfor %}</tr>{% endfor %}</table>{% endif %}
{% if pictures %}<h2>Figures</h2>{% for alt, data in pictures %}
<figure><img alt="{{ alt }}" src="data:image/png;base64,{{ data }}"><figcaption>{{ alt }}</figcaption></figure>{% endfor %}{% endif %}
<h2>Cases</h2><table><tr><th>case</th>{% for h in heads %}<th>{{ h }}</th>{% endfor %}</tr>
{% for case, entries in rows %}<tr><td><a href="cases/{{ case }}/page.html">page</a>
<a href="cases/{{ case }}/notebook.ipynb">notebook</a></td>{% for e in entries %}<td>{{ e }}</td>{% endfor %}</tr>{% endfor %}</table>
"""


def write(store: Store) -> Path:
    """Write ``report.html`` into the folder; returns its path. It loads nothing: figures are inside."""
    import jinja2

    found, plans = collect.table(store), store.plans()
    parameters = [name for name in found.columns if name not in (*collect.COLUMNS, "case")]
    swept = [name for name in parameters if found[name].nunique() > 1]
    failed = found[found.kind == "failed"]
    claims = found[found.kind == "claim"]
    counts = claims.groupby(["name", "verdict"]).size().unstack(fill_value=0)
    wide = _wide(found, swept)
    heads = [name for name in wide.columns if name != "case"]
    template = jinja2.Environment(autoescape=True).from_string(TEMPLATE)
    with mpl.rc_context({"figure.max_open_warning": 0}):
        pictures = [*_all_figures(wide, found, swept), *_curves(store, swept)]
    body = template.render(
        title=plans[0]["title"],
        chapter=plans[0]["chapter"],
        cases=found.case.nunique(),
        swept=swept,
        failed=list(zip(failed.case, failed.measured, strict=True)),
        verdicts=list(counts.columns),
        claims=[(name, list(row)) for name, row in zip(counts.index, counts.values, strict=True)],
        pictures=[(alt, base64.b64encode(figures.png(figure)[0]).decode()) for figure, alt in pictures],
        heads=heads,
        rows=[(row["case"], [_shown(row[head]) for head in heads]) for row in wide.to_dict("records")],
    )
    title = html.escape(plans[0]["title"])
    text = page.FRAME.format(title=title, style=page.STYLE, scripts="", body=body)
    path = store.folder / "report.html"
    store.write(path, text)
    return path


def _wide(found: pd.DataFrame, swept: list[str]) -> pd.DataFrame:
    """One row a case: what is swept, each claim's verdict, each measure."""
    rows = []
    for case, lines in found[found.kind != "failed"].groupby("case", sort=False):
        row = {"case": case, **{name: lines[name].iloc[0] for name in swept}}
        for line in lines[lines.kind != "none"].itertuples():
            row[line.name] = line.verdict if line.kind == "claim" else line.value
        rows.append(row)
    return pd.DataFrame(rows, columns=None if rows else ["case", *swept])


def _shown(value) -> str:
    return (
        "" if value is None or value is pd.NA else f"{value:.4g}" if isinstance(value, float) else str(value)
    )


def _all_figures(wide: pd.DataFrame, found: pd.DataFrame, swept: list[str]):
    """(figure, alt text) for each measure, and for each claim whose verdicts differ."""
    varied = [name for name in swept if wide[name].nunique() > 1]
    axes = [name for name in varied if not SEED.search(name)] or varied
    if not axes or wide.empty:
        return
    for name in dict.fromkeys(found[found.kind == "measure"].name):
        yield _figure(wide.assign(y=wide[name].astype(float)), axes, str(name))
    for name in dict.fromkeys(found[found.kind == "claim"].name):
        if wide[name].nunique() > 1:
            yield _figure(
                wide.assign(y=(wide[name] == "holds").astype(float)), axes, f"share where {name} holds"
            )


def _figure(data: pd.DataFrame, axes: list[str], label: str):
    """A line, a heat map or parallel coordinates, for one, two or more swept parameters; means over the rest."""
    mean = data.groupby(axes, as_index=False).y.mean()
    if mean.y.isna().all():
        alt = f"{label}: no finite value"
        figure, panel = figures.axes(ratio=0.2)
        panel.set_title(alt)
        return figure, alt
    low, high = mean.loc[mean.y.idxmin()], mean.loc[mean.y.idxmax()]
    at = lambda row: ", ".join(f"{name} = {row[name]}" for name in axes)  # noqa: E731
    alt = f"{label}: from {low.y:.4g} at {at(low)} to {high.y:.4g} at {at(high)}"
    figure, panel = figures.axes()
    if len(axes) == 1:
        numeric = pd.api.types.is_numeric_dtype(mean[axes[0]])
        where = dict(zip(mean[axes[0]], mean[axes[0]] if numeric else range(len(mean)), strict=True))
        panel.plot([where[v] for v in data[axes[0]]], data.y, "o", color="0.6", label="each case")
        panel.plot(list(where.values()), mean.y, marker="s", label="mean")
        panel.set_xticks(list(where.values()), [str(v) for v in where])
        panel.set(xlabel=axes[0], ylabel=label)
        panel.legend()
    elif len(axes) == 2:
        grid = mean.pivot(index=axes[0], columns=axes[1], values="y")
        shown = panel.imshow(grid.to_numpy(float), origin="lower", aspect="auto")
        panel.set_xticks(range(grid.shape[1]), [str(v) for v in grid.columns])
        panel.set_yticks(range(grid.shape[0]), [str(v) for v in grid.index])
        panel.set(xlabel=axes[1], ylabel=axes[0])
        panel.grid(False)
        figure.colorbar(shown, label=label)
    else:
        _parallel(figure, panel, mean, axes, label)
    return figure, alt


def _parallel(figure, panel, mean: pd.DataFrame, axes: list[str], label: str) -> None:
    names = [*axes, "y"]
    heights = []
    for i, name in enumerate(names):
        values = mean[name]
        if not pd.api.types.is_numeric_dtype(values):
            values = values.astype("category").cat.codes
        spread = (values.max() - values.min()) or 1
        heights.append((values - values.min()) / spread)
        ends = [(0, mean[name].min()), (1, mean[name].max())]
        for height, value in ends:
            panel.annotate(_shown(value), (i, height), xytext=(4, 4), textcoords="offset points", fontsize=8)
        panel.axvline(i, color="0.5", lw=0.8, ls="-")
    shades = mpl.colormaps[figures.SEQUENTIAL](heights[-1].fillna(0))
    for line, shade in zip(np.array(heights).T, shades, strict=True):
        panel.plot(line, color=shade, ls="-", lw=1)
    panel.set_xticks(range(len(names)), [*axes, label])
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
                label = " ".join(
                    f"{s}={dataset[s].sel(case=case).item()}" for s in swept if s in dataset.coords
                )
                style = {"color": figures.COLORS[i % 7], "linestyle": figures.LINES[(i + i // 7) % 7]}
                panel.plot(x, one, label=label, **style)
            panel.set(xlabel="slow time τ" if time == "tau" else "step", ylabel=f"{variable} ({name})")
            if swept:
                panel.legend(fontsize=7)
            low, high = float(values.min()), float(values.max())
            yield (
                figure,
                f"{variable} in {name} over {time}, {min(len(dataset.case), LINES)} cases: from {low:.4g} to {high:.4g}",
            )
