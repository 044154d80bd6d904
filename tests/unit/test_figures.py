"""Figures: alt text where screen readers look, sizes, and plotly's numbers."""

import base64
import io
import json
import types

import matplotlib.pyplot as plt
import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from PIL import Image

from grokutils import _display, figures

ALT = "Test accuracy rises after training accuracy."


@pytest.fixture
def published(monkeypatch):
    """What the notebook would be given: a list of (bundle, metadata)."""
    sent = []
    monkeypatch.setattr(figures, "publish", lambda bundle, metadata=None: sent.append((bundle, metadata)))
    return sent


def drawn(rows=1, cols=1, ratio=0.6):
    figure, axes = figures.axes(rows, cols, ratio)
    for ax in np.atleast_1d(axes).ravel():
        ax.plot(np.arange(50) ** 0.5)
        ax.set_xlabel("τ")
    return figure


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
    assert len(data) < 100_000
    assert metadata["image/png"]["alt"] == ALT == bundle["text/plain"]
    assert metadata["image/png"]["width"] == pytest.approx(figures.WIDTH * 96, rel=0.05)


def test_a_shown_figure_is_closed(published):
    before = plt.get_fignums()
    figures.show(drawn(), ALT)
    assert plt.get_fignums() == before


@pytest.mark.parametrize("alt", ["", "Figure 1", None, 5, ["A sentence in a list."]])
def test_a_figure_needs_alt_text(published, alt):
    figure = drawn()
    with pytest.raises(ValueError, match=r"alt = .*must be a sentence"):
        figures.show(figure, alt)
    assert not published
    plt.close(figure)


def test_lines_differ_without_colour():
    cycle = plt.rcParams["axes.prop_cycle"].by_key()
    assert len(set(map(str, cycle["linestyle"]))) == len(cycle["linestyle"]) == len(set(cycle["color"]))
    assert len(set(figures.COLORS)) == len(figures.COLORS) == len(figures.LINES) == len(figures.MARKERS)


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
    monkeypatch.setitem(__import__("sys").modules, "google.colab", types.ModuleType("google.colab"))
    seen, static = [], drawn()
    figures.show_plotly(types.SimpleNamespace(show=lambda renderer: seen.append(renderer)), ALT, static)
    assert seen == ["colab"]
    assert not published
    assert not plt.fignum_exists(static.number)


@given(st.floats(-1e300, 1e300, allow_subnormal=False))
def test_four_digits_are_kept(x):
    rounded = figures._rounded(x)
    assert abs(rounded - x) <= 5.0001e-4 * abs(x)
    assert rounded == float(f"{x:.3e}")


@given(
    dtype=st.sampled_from(["f8", "f4", "i4", "u1", "i2"]),
    shape=st.sampled_from([(6,), (2, 3), (1, 6), (1, 2, 3)]),
)
def test_typed_arrays_are_decoded(dtype, shape):
    array = np.arange(6, dtype=dtype).reshape(shape)
    packed = {"dtype": dtype, "bdata": base64.b64encode(array.tobytes()).decode()}
    if len(shape) > 1:
        packed["shape"] = ", ".join(map(str, shape))
    assert figures._rounded({"z": packed}) == {"z": array.tolist()}


def test_other_values_stay():
    value = {"a": [True, None, "text", 3], "b": (np.int64(2), np.float64(1.23456), np.nan, -np.inf)}
    assert figures._rounded(value) == {"a": [True, None, "text", 3], "b": [2, 1.235, None, None]}
    assert figures._rounded(np.array(["x", "y"])) == ["x", "y"]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.arange(30) - 15, "i1"),
        (np.arange(40) * 1000, "i4"),
        (np.linspace(0, 1, 60).reshape(6, 10), "f4"),
    ],
)
def test_long_lists_are_packed_and_come_back(values, dtype):
    packed = figures._packed({"z": values.tolist()})["z"]
    assert packed["dtype"] == dtype
    np.testing.assert_allclose(unpacked(packed), values, rtol=1e-6)


def test_what_is_short_ragged_or_not_a_number_is_left_alone():
    for value in ([1, 2, 3], [[1] * 15, [2] * 20], ["a"] * 40, [None] * 40, [True] * 40):
        assert figures._packed(value) == value
