"""Figures: vectors with the page's colours, alt text where screen readers look, two layouts, the reader's settings kept."""

import base64
import io
import itertools
import json
import re
import subprocess
import sys
import types
import xml.etree.ElementTree as ET

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import plotly.graph_objects as go
import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from PIL import Image

from grokutils import _display, figures, toys
from grokutils.figures import live, page, phone, plotly_json, vector

ALT = "Test accuracy rises after training accuracy."
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def published(monkeypatch):
    """What the notebook would be given: a list of (bundle, metadata)."""
    sent = []
    monkeypatch.setattr(_display, "publish", lambda bundle, metadata=None: sent.append((bundle, metadata)))
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    return sent


def drawn(rows=1, cols=1, ratio=0.6, **options):
    figure, axes = figures.axes(rows, cols, ratio, **options)
    for ax in np.atleast_1d(axes).ravel():
        ax.plot(np.arange(50) ** 0.5, label="root")
        ax.set_xlabel("τ")
    return figure


def vectors(published) -> tuple[str, str]:
    """The wide and the narrow layout of the last figure."""
    about = published[-1][1]["image/png"]
    return about["wide"], about["narrow"]


@pytest.mark.parametrize(("rows", "cols", "ratio"), [(1, 1, 0.6), (2, 3, 1.0), (1, 2, 0.8)])
def test_a_figure_is_a_small_png_as_wide_as_the_column(published, rows, cols, ratio):
    figure = drawn(rows, cols, ratio)
    assert figure.get_size_inches() == pytest.approx([figures.WIDTH, figures.WIDTH / cols * ratio * rows])
    figures.show(figure, ALT)
    ((bundle, metadata),) = published
    data = base64.b64decode(bundle["image/png"])
    image = Image.open(io.BytesIO(data))
    assert image.format == "PNG"
    assert image.width == pytest.approx(figures.WIDTH * figures.DOTS, rel=0.05)
    assert len(data) < 60_000
    assert metadata["image/png"]["alt"] == ALT == bundle["text/plain"]
    assert metadata["image/png"]["width"] == pytest.approx(figures.WIDTH * 96, rel=0.05)
    assert sum(map(len, vectors(published))) < 60_000


def test_the_same_figure_is_the_same_bytes_and_another_has_other_ids(published):
    figures.show(drawn(1, 2), ALT)
    figures.show(drawn(1, 2), ALT)
    figures.show(drawn(1, 3), ALT)
    first, again, other = published
    assert first == again
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (*vectors([first]), *vectors([other]))]
    assert all(ids)
    assert len(set.union(*ids)) == sum(map(len, ids))


def test_every_reference_inside_a_figure_is_answered(published):
    figure, ax = figures.axes()
    ax.plot([1, 2], [3, 4], marker="o", label=r"$\theta_0$")
    ax.scatter([1, 2], [3, 3.5])
    ax.fill_between([1, 2], [3, 3], [4, 3.5], hatch="//", alpha=0.2)
    ax.legend()
    figures.show(figure, ALT)
    for svg in vectors(published):
        asked = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg))
        assert {a or b for a, b in asked} == set(re.findall(r' id="([^"]+)"', svg))


def test_colours_of_lines_are_the_pages_and_greys_are_shares_of_ink(published):
    figure, ax = figures.axes()
    ax.plot([0, 1], color=figures.COLORS[1])
    ax.plot([0, 2], color="0.6", label="a grey line")
    ax.plot([0, 3], color="#123456")
    ax.text(0, 1, "blue", color=figures.COLORS[0])
    figures.show(figure, ALT)
    wide, _ = vectors(published)
    assert 'stroke="var(--figure-1,#d55e00)"' in wide
    assert 'fill="var(--figure-text-0,#0072b2)"' in wide
    assert "color-mix(in srgb,var(--figure-ink,#000) 40%,var(--figure-ground,#fff))" in wide
    assert 'stroke="#123456"' in wide
    colours = (page.asset("figures.css"), wide)
    for name in set(re.findall(r"var\((--figure-[\w-]+),", colours[1])):
        assert colours[0].count(f"{name}:") >= 3, "light, dark and print"
    assert not re.search(r'(?:fill|stroke)="#(?:000|fff|0072b2)', wide)


def test_a_heat_map_and_what_is_written_on_it_stay_as_drawn(published):
    figure, (left, right) = figures.axes(1, 2)
    image = left.imshow([[0, 1], [2, 3]], cmap="cividis")
    left.text(0, 0, "dark ground", color="white")
    left.text(1, 1, "light ground", color="black")
    figure.colorbar(image, ax=left, label="share")
    right.pcolormesh(np.arange(9.0).reshape(3, 3))
    figures.show(figure, ALT)
    for svg in vectors(published):
        root = ET.fromstring(svg)
        assert len(list(root.iter(f"{SVG}image"))) == 3, "two maps and a colour bar"
        text = {node.text: node for node in root.iter(f"{SVG}text")}
        assert text["dark ground"].get("fill") == "#ffffff"
        above = next(g for g in root.iter(f"{SVG}g") if text["light ground"] in list(g))
        assert above.get("fill") == "#000"
        assert text["share"].get("fill") is None, "the bar's own label is the page's ink"
        data = next(root.iter(f"{SVG}image")).get("href").partition(",")[2]
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (2, 2), (
            "its own cells, sharp at any size"
        )


def sizes(svg: str) -> list[float]:
    """Sizes of type in CSS pixels, where the layout is as wide as it was drawn."""
    found = re.findall(r'font-size="([\d.]+)px"', svg)
    assert found
    return [float(size) * 96 / 72 for size in found]


def test_small_type_is_raised_to_what_can_be_read(published):
    figure, ax = figures.axes()
    ax.plot([1, 2], label="small")
    ax.legend(fontsize=5)
    ax.set_title("tiny", fontsize=4)
    figures.show(figure, ALT)
    for svg in vectors(published):
        assert min(sizes(svg)) >= 11.5


@pytest.mark.parametrize(
    ("shape", "columns"), [((1, 1), 1), ((1, 2), 1), ((2, 3), 1), ((1, 4), 2), ((1, 6), 3)]
)
def test_panels_stack_on_a_phone(shape, columns):
    figure = drawn(*shape, ratio=1.0)
    panels = list(figure.axes)
    phone.restack(figure)
    width, _ = figure.get_size_inches()
    assert width == figures.NARROW
    grid = panels[0].get_subplotspec().get_gridspec()
    assert (grid.nrows, grid.ncols) == (len(panels) // columns, columns)
    places = [ax.get_subplotspec() for ax in panels]
    assert [(p.rowspan.start, p.colspan.start) for p in places] == [
        divmod(i, columns) for i in range(len(panels))
    ]
    plt.close(figure)
    figures.look.end()


def test_a_stacked_panel_says_what_its_neighbour_said():
    figure, (left, right) = figures.axes(1, 2, sharey=True)
    left.set_ylabel("share right")
    phone.restack(figure)
    assert right.get_ylabel() == "share right"
    figure.draw_without_rendering()
    assert any(label.get_visible() and label.get_text() for label in right.get_yticklabels())
    plt.close(figure)
    figures.look.end()


def test_names_at_the_ends_of_lines_do_not_meet(published):
    figure, ax = figures.axes()
    for i in range(5):
        ax.plot([0, 1], [0, 1 + 0.001 * i], color=figures.COLORS[i], label=f"line {i}")
    ax.plot([0, 1], [1, 0], label="_unnamed")
    figures.label_lines(ax)
    figures.show(figure, ALT)
    for svg in vectors(published):
        root = ET.fromstring(svg)
        at = {n.text: float(n.get("y")) for n in root.iter(f"{SVG}text") if (n.text or "").startswith("line")}
        assert list(at) == [f"line {i}" for i in range(5)]
        heights = sorted(at.values(), reverse=True)
        assert [at[f"line {i}"] for i in range(5)] == heights, "in the order of the lines"
        assert min(-np.diff(heights)) >= 9


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=12), st.floats(0.1, 50))
def test_labels_are_pushed_apart_as_little_as_needed(wanted, gap):
    wanted.sort()
    moved = phone._apart(wanted, gap)
    assert all(b - a >= gap - 1e-6 for a, b in itertools.pairwise(moved))
    assert np.mean(moved) == pytest.approx(np.mean(wanted), abs=1e-6)
    if all(b - a >= gap for a, b in itertools.pairwise(wanted)):
        assert moved == pytest.approx(wanted, abs=1e-6)


LEAK = """
import matplotlib as mpl
before = dict(mpl.rcParams)
assert mpl.rcParams["text.usetex"] and mpl.rcParams["figure.facecolor"] == "black"
from grokutils import _display, figures
assert dict(mpl.rcParams) == before, "import changed the settings"
figure, ax = figures.axes()
ax.plot([1, 2], label="a_b")
ax.legend()
ax.set_title("100 % of a_b")
_display.publish = lambda bundle, metadata: print(metadata["image/png"]["wide"])
figures.show(figure, "A sentence about the figure.")
assert dict(mpl.rcParams) == before, "a shown figure left its settings behind"
"""


def test_a_readers_own_settings_neither_leak_in_nor_are_lost(tmp_path):
    """The plainest of traps: usetex where there is no LaTeX."""
    rc = "text.usetex: True\nfont.family: fantasy\nfigure.facecolor: black\naxes.facecolor: red\nlines.linewidth: 9\n"
    (tmp_path / "matplotlibrc").write_text(rc)
    script = (tmp_path / "try.py").write_text(LEAK)
    assert script
    done = subprocess.run(
        [sys.executable, "try.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "100 % of a_b" in done.stdout
    assert 'stroke-width="1.8"' in done.stdout
    assert "#ff0000" not in done.stdout


def test_a_refused_figure_gives_the_settings_back(published):
    before = dict(mpl.rcParams)
    with pytest.raises(ValueError, match="alt = ''"):
        figures.show(drawn(), "")
    assert dict(mpl.rcParams) == before
    assert not plt.get_fignums()


@pytest.mark.parametrize("alt", ["", "Figure 1", None, 5, ["A sentence in a list."]])
def test_a_figure_needs_alt_text(published, alt):
    with pytest.raises(ValueError, match=r"alt = .*must be a sentence"):
        figures.show(drawn(), alt)
    with pytest.raises(ValueError, match=r"alt = .*must be a sentence"):
        figures.drag_start(alt=alt)
    assert not published


def test_a_shown_figure_is_closed(published):
    before = plt.get_fignums()
    figures.show(drawn(), ALT)
    figures.drag_start(alt=ALT)
    assert plt.get_fignums() == before


def test_lines_differ_without_colour():
    assert len(set(figures.COLORS)) == len(figures.COLORS) == len(figures.LINES) == len(figures.MARKERS)
    assert (
        len(set(map(str, figures.LINES))) == len(figures.LINES) == len(live.DASHES) == len(set(live.DASHES))
    )


@given(st.lists(st.tuples(st.floats(-500, 500), st.floats(-500, 500)), min_size=2, max_size=30))
def test_a_rounded_path_stays_within_a_tenth_of_a_point(points):
    first, *rest = points
    d = f"M {first[0]:f} {first[1]:f} " + " ".join(f"L {x:f} {y:f}" for x, y in rest)
    x, y, walked = 0.0, 0.0, []
    for command, arguments in re.findall(r"([Mlz])([^Mlz]*)", vector._relative(d)):
        dx, dy = (float(n) for n in re.findall(r"-?[\d.]+(?:e-?\d+)?", arguments))
        x, y = (dx, dy) if command == "M" else (x + dx, y + dy)
        walked.append((x, y))
    kept = [first]
    for point in rest:
        if np.abs(np.round(np.array(point) * 10) - np.round(np.array(kept[-1]) * 10)).max() > 0:
            kept.append(point)
    assert len(walked) == len(kept)
    np.testing.assert_allclose(walked, kept, atol=0.0501)


# ---- figures that answer the hand


def test_panels_along_a_slider_become_json_with_a_twin(published):
    x = np.linspace(1, 100, 30)
    cells = np.array([[[0, 1], [1, np.nan]], [[1, 1], [0, 0]]])
    figures.play(
        "step",
        ["1", "100"],
        figures.lines(figures.curve("share", x, x / 3), cursor=[1, 100], xscale="log"),
        figures.lines(figures.curve("moving", x, [x, x**2], factor=[1, 2])),
        figures.table(cells, kinds={"wrong": "red", "right": "blue"}),
        figures.table(cells[0] / 2, limits=(0, 0.5), label="share"),
        alt=ALT,
    )
    ((bundle, metadata),) = published
    assert set(bundle) == {"image/png", "text/plain", figures.LIVE_MIME}
    spec = json.loads(json.dumps(bundle[figures.LIVE_MIME]))
    assert (spec["name"], spec["values"], spec["start"]) == ("step", ["1", "100"], 1)
    first, second, kinds, heat = spec["panels"]
    assert first["curves"][0]["y"][0] == 0.3333
    assert second["curves"][0]["factor"] == [1, 2]
    assert second["xlim"] == [1, 200], "limits hold for all frames"
    assert np.shape(second["curves"][0]["y"]) == (2, 30)
    assert list(base64.b64decode(kinds["cells"])) == [0, 1, 1, 255, 1, 1, 0, 0]
    assert kinds["shades"] == ["#ff0000", "#0000ff"]
    assert list(base64.b64decode(heat["cells"])) == [0, 254, 254, 255]
    assert len(heat["shades"]) == 33
    wide, _ = vectors(published)
    assert "step 1" in wide
    assert "step 100" in wide
    assert metadata["image/png"]["alt"] == ALT


def test_a_surface_with_a_path(published):
    u, v = np.meshgrid(np.linspace(-1, 1, 5), np.linspace(-1, 1, 4), indexing="ij")
    figures.play(
        "τ",
        range(6),
        figures.space(
            {"training": np.zeros((6, 3))},
            surfaces=[(u, v, abs(v))],
            points={"end": (0, 0, 0)},
            limits=((-1, 1), (-1, 1), (0, 1)),
        ),
        alt=ALT,
    )
    ((bundle, _),) = published
    (panel,) = bundle[figures.LIVE_MIME]["panels"]
    assert np.shape(panel["surfaces"][0]["z"]) == (5, 4)
    assert panel["frames"] == 6
    assert panel["turn"] == -50


def test_panels_that_do_not_fit_the_slider_are_refused(published):
    panel = figures.lines(figures.curve("a", [1, 2], [[1, 2], [3, 4], [5, 6]]), title="three")
    with pytest.raises(ValueError, match="panel 'three' has 3 frames: must be 1 or 2"):
        figures.play("step", [1, 2], panel, alt=ALT)
    with pytest.raises(ValueError, match="x, y = arrays of shapes"):
        figures.curve("a", [1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="values = array of shape"):
        figures.table([1, 2])
    with pytest.raises(ValueError, match=r"decay = 0\.3: must be one of"):
        figures.drag_start(alt=ALT, decay=0.3)
    case = {"x": [1, 2], "y": [0, 1], "measured": 2, "predicted": np.inf}
    with pytest.raises(ValueError, match=r"cases\['a'\]\['predicted'\] = inf: must be a positive step"):
        figures.guess({"a": case}, alt=ALT, level=0.5, ylabel="right")
    with pytest.raises(ValueError, match="must hold at least one run"):
        figures.guess({}, alt=ALT, level=0.5, ylabel="right")


def test_the_path_of_the_dragged_start_is_the_books_own_solution():
    path = live.linear_flow((-1, 2.5), 0.05, [0.3, 4.0])
    for t, point in zip((sp.Rational(3, 10), 4), path, strict=True):
        exact = toys.linear_flow(
            sp.Matrix([[1, 1]]), sp.Matrix([2]), sp.Matrix([-1, sp.Rational(5, 2)]), sp.Rational(1, 20), t
        )
        np.testing.assert_allclose(point, np.array(exact.evalf(), dtype=float).ravel(), rtol=1e-12)


def test_in_a_front_end_the_same_call_brings_its_script_along(published, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "chapter.ipynb")
    figures.drag_start(alt=ALT)
    ((bundle, _),) = published
    html = bundle["text/html"]
    assert html.count("</script>") == 2
    assert page.asset("figures.js") in html
    assert f'alt="{ALT}"' in html
    assert "http" not in re.sub(r"http://www.w3.org/\S+", "", html)


def test_a_string_cannot_end_the_script_element():
    html = page.box({"kind": "</script><b>"}, 'a "quoted" <b>', "")
    assert html.count("</script>") == 1
    assert 'aria-label="a &quot;quoted&quot; &lt;b&gt;"' in html


# ---- the notebook's side


def test_the_alt_text_reaches_the_notebook():
    shell = InteractiveShell.instance()
    sent = []
    shell.display_pub.publish = lambda data, metadata=None, **rest: sent.append((data, metadata))
    try:
        _display.publish({"image/png": "", "text/plain": ALT}, {"image/png": {"alt": ALT}})
    finally:
        InteractiveShell.clear_instance()
    assert sent == [({"image/png": "", "text/plain": ALT}, {"image/png": {"alt": ALT}})]


def test_outside_a_notebook_the_alt_text_is_printed(capsys):
    figures.show(drawn(), ALT)
    assert capsys.readouterr().out == ALT + "\n"


# ---- plotly


def unpacked(typed):
    """Plotly's typed array as an array; older versions of plotly get a list."""
    if isinstance(typed, list):
        return np.array(typed, dtype="f4")
    shape = [int(n) for n in typed["shape"].split(",")]
    return np.frombuffer(base64.b64decode(typed["bdata"]), dtype=typed["dtype"]).reshape(shape)


def test_plotly_comes_with_its_static_twin(published):
    x = np.linspace(0, 1, 200)
    figure = go.Figure(go.Scatter(x=x, y=np.sin(x) / 3), layout={"title": "a"})
    figure.add_heatmap(z=np.outer(x[:3], x[:4]).astype("f4"))
    figures.show_plotly(figure, ALT, drawn())
    ((bundle, metadata),) = published
    assert metadata["image/png"]["alt"] == ALT
    assert metadata["image/png"]["wide"].startswith("<svg")
    assert Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).format == "PNG"
    interactive = json.loads(json.dumps(bundle[figures.PLOTLY_MIME]))
    line, heat = interactive["data"]
    assert np.shape(heat["z"]) == (3, 4)
    np.testing.assert_allclose(heat["z"], np.outer(x[:3], x[:4]), rtol=5e-4)
    y = unpacked(line["y"])
    np.testing.assert_allclose(y, np.sin(x) / 3, rtol=5e-4)
    np.testing.assert_array_equal(y, [np.float32(f"{value:.4g}") for value in np.sin(x) / 3])
    assert interactive["layout"]["title"]["text"] == "a"
    go.Figure(interactive)  # plotly still reads it


def test_colab_draws_plotly_itself(published, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    seen, static = [], drawn()
    figures.show_plotly(types.SimpleNamespace(show=lambda renderer: seen.append(renderer)), ALT, static)
    assert seen == ["colab"]
    assert not published
    assert not plt.fignum_exists(static.number)


@given(st.floats(-1e300, 1e300, allow_subnormal=False))
def test_four_digits_are_kept(x):
    rounded = plotly_json._rounded(x)
    assert abs(rounded - x) <= 5.0001e-4 * abs(x)
    assert rounded == float(f"{x:.3e}")
    assert live._short(x) == pytest.approx(rounded)


@given(
    dtype=st.sampled_from(["f8", "f4", "i4", "u1", "i2"]),
    shape=st.sampled_from([(6,), (2, 3), (1, 6), (1, 2, 3)]),
)
def test_typed_arrays_are_decoded(dtype, shape):
    array = np.arange(6, dtype=dtype).reshape(shape)
    packed = {"dtype": dtype, "bdata": base64.b64encode(array.tobytes()).decode()}
    if len(shape) > 1:
        packed["shape"] = ", ".join(map(str, shape))
    assert plotly_json._rounded({"z": packed}) == {"z": array.tolist()}


def test_other_values_stay():
    value = {"a": [True, None, "text", 3], "b": (np.int64(2), np.float64(1.23456), np.nan, -np.inf)}
    assert plotly_json._rounded(value) == {"a": [True, None, "text", 3], "b": [2, 1.235, None, None]}
    assert plotly_json._rounded(np.array(["x", "y"])) == ["x", "y"]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.arange(30) - 15, "i1"),
        (np.arange(40) * 1000, "i4"),
        (np.linspace(0, 1, 60).reshape(6, 10), "f4"),
    ],
)
def test_long_lists_are_packed_and_come_back(values, dtype):
    packed = plotly_json._packed({"z": values.tolist()})["z"]
    assert packed["dtype"] == dtype
    np.testing.assert_allclose(unpacked(packed), values, rtol=1e-6)


def test_what_is_short_ragged_or_not_a_number_is_left_alone():
    for value in ([1, 2, 3], [[1] * 15, [2] * 20], ["a"] * 40, [None] * 40, [True] * 40):
        assert plotly_json._packed(value) == value
