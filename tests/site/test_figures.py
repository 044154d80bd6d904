"""Figures on a page that Sphinx makes of a notebook: under the wheel, a finger, the keyboard; light, dark, phone, paper."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import chapters
import nbformat
import numpy as np
import plotly
import plotly.graph_objects as go
import pytest
from sphinx.application import Sphinx

from grokutils import _display, figures, toys
from grokutils.figures import page as parts

ALT = "A finding that the figure shows, said in a sentence."
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3"}, "language_info": {"name": "python"}}
CONF = """
extensions = ["myst_nb"]
nb_execution_mode = "off"
html_theme = "sphinx_book_theme"
html_css_files = ["figures.css"]
html_js_files = [["figures.js", {"defer": "defer"}]]
html_static_path = ["static"]
html_context = {"default_mode": "auto"}
numfig = True
suppress_warnings = ["mystnb.unknown_mime_type"]
"""


def _static():
    x = np.geomspace(1, 1e4, 60)
    figure, (left, right) = figures.axes(1, 2, sharey=True)
    for i in range(3):
        for ax in (left, right):
            ax.plot(x, x ** (0.5 + 0.1 * i), color=figures.COLORS[i], label=f"power {i}")
    left.set(xscale="log", yscale="log", ylabel="y", title="left")
    right.set(xscale="log", yscale="log", title=r"right, $\theta$")
    figures.label_lines(right)
    figures.show(figure, ALT)


def _map():
    figure, ax = figures.axes(ratio=0.8)
    image = ax.imshow([[0.0, 0.5], [0.7, 1.0]], cmap="cividis")
    ax.text(0, 0, "0.0", color="white")
    figure.colorbar(image, ax=ax, label="share")
    figures.show(figure, ALT)


def _play():
    steps = np.array([1, 10, 100, 1000])
    cells = np.arange(4 * 9).reshape(4, 3, 3) % 3
    figures.play(
        "step",
        steps,
        figures.lines(figures.curve("right", steps, [0, 0.2, 0.9, 1]), cursor=steps, xscale="log"),
        figures.table(cells, kinds={"wrong": "#D55E00", "right": "#56B4E9", "trained": "#E8E8E8"}, title="a + b"),
        alt=ALT,
    )  # fmt: skip


def _space():
    u, v = np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 9), indexing="ij")
    path = np.stack([np.linspace(1, 0, 12), np.zeros(12), np.zeros(12)], 1)
    roof = figures.space({"path": path}, surfaces=[(u, v, abs(v))], limits=((-1, 1), (-1, 1), (0, 1)))
    figures.play("time", range(12), roof, alt=ALT)


def _guess():
    x = np.geomspace(1, 1000, 50)
    case = {"x": x, "y": x / 1000, "measured": 500, "predicted": 490}
    figures.guess({"lr 0.1": case, "lr 0.2": case}, alt=ALT, level=0.5, ylabel="right")


def _twin(y):
    figure, ax = figures.axes(ratio=0.5)
    ax.plot([0, y])
    return figure


def _plotly_2d():
    line = go.Scatter(x=[0, 1, 2], y=[0, 1, 0], line_color=figures.COLORS[0])
    steps = [{"label": f"n = {i}", "method": "restyle", "args": ["y", [[0, i, 0]]]} for i in range(1, 4)]
    layout = {
        "height": 400,
        "template": "plotly_white",
        "sliders": [{"steps": steps, "currentvalue": {"prefix": "size: "}}],
    }
    figures.show_plotly(go.Figure(line, layout), ALT, _twin(1))


def _plotly_3d():
    line = go.Scatter3d(x=[0, 1, 2], y=[0, 1, 0], z=[0, 1, 2], mode="lines")
    figures.show_plotly(go.Figure(line, {"height": 400, "template": "plotly_white"}), ALT, _twin(2))


FIGURES = {
    "static": _static,
    "map": _map,
    "play": _play,
    "space": _space,
    "drag": lambda: figures.drag_start(alt=ALT),
    "guess": _guess,
    "plotly-2d": _plotly_2d,
    "plotly-3d": _plotly_3d,
}
MOVING = list(FIGURES)[2:]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """One page with a figure of each kind, as Sphinx makes it of an executed notebook."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    cells = [nbformat.v4.new_markdown_cell("# Figures")]
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("JPY_SESSION_NAME", raising=False)
        sent = []
        patch.setattr(_display, "publish", lambda bundle, metadata=None: sent.append((bundle, metadata)))
        for name, draw in FIGURES.items():
            draw()
            bundle, metadata = sent.pop()
            output = nbformat.v4.new_output("display_data", bundle, metadata=metadata)
            figure = {"figure": {"caption": f"The {name} figure.", "name": name}}
            cells.append(
                nbformat.v4.new_code_cell(
                    name, outputs=[output], execution_count=1, metadata={"mystnb": figure}
                )
            )
    cells.append(nbformat.v4.new_markdown_cell("See {numref}`play`.\n\n" + "Words and words.\n\n" * 150))
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=KERNEL), source / "index.ipynb")
    (source / "conf.py").write_text(CONF)
    static = source / "static"
    static.mkdir()
    for name in ("figures.css", "figures.js"):
        (static / name).write_text(parts.asset(name))
    shutil.copy(Path(plotly.__file__).parent / "package_data" / "plotly.min.js", static)
    Sphinx(source, source, built, built / ".doctrees", "html", status=None, warningiserror=True).build()
    shutil.copy(chapters.ROOT / "book/_static/favicon.ico", built)  # browsers ask for it
    return built


@pytest.fixture(scope="module")
def addresses(site, serve):
    """Where this page is: the session's fixture may already stand for the book's site."""
    with serve(site) as where:
        yield where


@pytest.fixture
def page(browser, addresses, listen):
    """The page on a desk; it must stay silent."""
    with browser.new_context(viewport={"width": 1100, "height": 900}) as context:
        opened = context.new_page()
        complaints = listen(opened)
        opened.goto(f"{addresses['file']}/index.html")
        yield opened
        assert complaints == []


def reach(page, name: str):
    """The figure of a name, scrolled to and drawn."""
    box = page.locator(f"figure#{name} .figure-box, figure#{name} .figure-vector").first
    box.scroll_into_view_if_needed()
    if name in MOVING:
        page.wait_for_selector(f"figure#{name} .figure-drawn")
    if name.startswith("plotly"):
        page.wait_for_selector(f"figure#{name} .main-svg")
    page.evaluate(
        "name => document.getElementById(name).scrollIntoView({ block: 'center', behavior: 'instant' })", name
    )
    page.wait_for_timeout(200)
    return page.locator(f"figure#{name}")


def stage(figure) -> str:
    """What a figure has drawn, as text."""
    return figure.locator(".figure-stage").evaluate(
        "s => [...s.querySelectorAll('path, image, circle, line')].map(n => n.outerHTML).join() + s.innerText"
    )


def test_figures_keep_captions_numbers_and_alt_text(page):
    captions = page.locator("figcaption .caption-number").all_inner_texts()
    assert [c.strip() for c in captions] == [f"Fig. {i + 1}" for i in range(len(FIGURES))]
    assert page.locator("a[href='#play']").last.inner_text() == "Fig. 3"
    labels = page.locator("[role=img][aria-label], [role=group][aria-label]").evaluate_all(
        "nodes => nodes.map(n => n.ariaLabel)"
    )
    assert labels.count(ALT) == len(FIGURES) + len(MOVING), "the twins too"
    ids = page.evaluate("[...document.querySelectorAll('figure svg [id]')].map(n => n.id)")
    assert len(ids) == len(set(ids))


def test_the_wheel_over_a_figure_moves_the_page(page):
    for name in FIGURES:
        reach(page, name)  # drawing plotly's takes seconds on a busy machine, in which nothing moves
    for name in FIGURES:
        box = reach(page, name).bounding_box()
        for share in (0.35, 0.6):
            before = page.evaluate("scrollY")
            page.mouse.move(box["x"] + box["width"] / 2, max(60, min(850, box["y"] + share * box["height"])))
            page.mouse.wheel(0, 60)
            page.wait_for_function("before => scrollY === before + 60", arg=before, timeout=3000)
            page.mouse.wheel(0, -60)
            page.wait_for_function("before => scrollY === before", arg=before, timeout=3000)


def test_a_swipe_over_a_figure_moves_the_page_of_a_phone(browser, addresses):
    phone = {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True}
    with browser.new_context(**phone) as context:
        page = context.new_page()
        page.goto(f"{addresses['http']}/index.html")
        session = context.new_cdp_session(page)
        for name in FIGURES:
            box = reach(page, name).bounding_box()
            before, y = page.evaluate("scrollY"), max(200, min(700, box["y"] + box["height"] / 2))
            swipe = {"x": 0.6 * 390, "y": y, "yDistance": -120, "speed": 1500}
            session.send("Input.synthesizeScrollGesture", swipe)
            page.wait_for_timeout(100)
            assert page.evaluate("scrollY") - before > 60, name
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_no_library_is_asked_for_before_its_figure_is_near(page):
    scripts = "[...document.scripts].map(s => s.src).filter(s => s.includes('plotly'))"
    page.set_viewport_size({"width": 1100, "height": 300})
    page.reload()
    page.wait_for_timeout(300)
    assert page.evaluate(scripts) == []
    reach(page, "plotly-3d")
    assert len(page.evaluate(scripts)) == 1


def test_what_is_far_is_freed_and_comes_back_as_it_was(page):
    figure = reach(page, "plotly-3d")
    assert figure.locator("canvas").count() > 0
    page.evaluate(
        "document.querySelector('#plotly-3d').insertAdjacentHTML('afterend', '<div style=height:9000px>')"
    )
    page.evaluate("scrollTo({ top: 1e6, behavior: 'instant' })")
    page.wait_for_function("!document.querySelector('#plotly-3d .figure-drawn')")
    assert figure.locator("canvas").count() == 0
    reach(page, "plotly-3d")


def test_controls_are_native_named_and_move_the_figure_by_keyboard(page):
    for name in MOVING:
        figure = reach(page, name)
        controls = figure.locator(".figure-stage").locator("button, input, select")
        assert controls.count() >= 1
        assert page.locator(".modebar, .updatemenu-container, .slider-container").count() == 0
        names = controls.evaluate_all(
            "nodes => nodes.map(n => n.ariaLabel || n.labels?.[0]?.querySelector('span').textContent || n.textContent)"
        )
        assert all(names)
        assert len(set(names)) == len(names)
        slider = figure.get_by_role("slider").first
        before, said = stage(figure), slider.get_attribute("aria-valuetext")
        slider.focus()
        assert slider.evaluate("node => node === document.activeElement")
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(300)
        assert stage(figure) != before
        assert slider.get_attribute("aria-valuetext") != said


def test_play_runs_to_the_end_and_stop_holds(page):
    figure = reach(page, "play")
    button, slider = figure.get_by_role("button"), figure.get_by_role("slider")
    assert slider.input_value() == "3", "the last frame is shown unasked"
    button.focus()
    page.keyboard.press("Enter")
    assert "stop" in button.inner_text()
    page.wait_for_function("document.querySelector('#play input').value === '1'")
    page.keyboard.press("Enter")
    page.wait_for_timeout(3000)
    assert slider.input_value() == "1"
    page.keyboard.press("Enter")
    page.wait_for_function(
        "document.querySelector('#play button').textContent.includes('play')", timeout=15_000
    )
    assert slider.input_value() == "3"


@pytest.mark.parametrize("scheme", ["http", "file"])
@pytest.mark.parametrize("name", ["play", "space", "drag"])
def test_a_link_shows_what_was_seen(page, browser, addresses, scheme, name):
    page.goto(f"{addresses[scheme]}/index.html")
    figure = reach(page, name)
    figure.get_by_role("slider").first.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("name => location.hash.startsWith(`#${name}=`)", arg=name)
    seen, address = stage(figure), page.url
    other = browser.new_page(viewport={"width": 1100, "height": 900})
    other.goto(address)
    other.wait_for_selector(f"figure#{name} .figure-drawn")
    if name.startswith("plotly"):
        other.wait_for_selector(f"figure#{name} .main-svg")
    other.wait_for_timeout(500)
    assert 0 <= other.locator(f"figure#{name}").bounding_box()["y"] < 900
    clips = lambda text: re.sub(r"figure-clip-\d+|clip\w+|id=\"\w+\"", "", text)  # noqa: E731
    assert clips(stage(other.locator(f"figure#{name}"))) == clips(seen)
    other.close()


def test_an_address_that_says_nonsense_does_no_harm(page):
    reach(page, "play")
    before = stage(page.locator("#play"))
    for values in ("99", "-1", "1e9", "...", ","):
        for name in ("play", "drag", "guess", "space", "%E0%A4%A"):
            page.evaluate("hash => { location.hash = hash }", f"{name}={values}")
            page.wait_for_timeout(60)
    assert stage(page.locator("#play")) == before


def test_the_start_can_be_dragged_and_its_path_is_the_books(page):
    figure = reach(page, "drag")
    handle = figure.locator(".handle circle").last.bounding_box()
    x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y + 30, steps=4)
    page.mouse.up()
    first, second = (figure.get_by_role("slider", name=f"start w{i}").input_value() for i in "₁₂")
    assert float(first) > -1
    assert float(second) < 2.5
    import sympy as sp

    exact = toys.linear_flow(sp.Matrix([[1, 1]]), sp.Matrix([2]), sp.Matrix([-1, sp.Rational(5, 2)]), sp.Rational(1, 20), sp.Rational(1, 2))  # fmt: skip
    drawn = page.evaluate("grokFigures.linearFlow({ x: [1, 1], y: 2 }, 0.05, [-1, 2.5], 0.5)")
    np.testing.assert_allclose(drawn, np.array(exact.evalf(), dtype=float).ravel(), rtol=1e-12)


def test_guess_predict_run(page):
    figure = reach(page, "guess")
    said = figure.locator(".figure-said")
    assert "Move your guess" in said.inner_text()
    figure.get_by_role("slider").fill("100")
    figure.get_by_role("button", name="predict").click()
    assert "the theory says step 490" in said.inner_text()
    figure.get_by_role("button", name="run").click()
    page.wait_for_function("document.querySelector('#guess .figure-said').textContent.includes('happened')")
    assert "step 500" in said.inner_text()
    assert "a factor of 16" in said.inner_text()
    assert "the theory by 2.0 %" in said.inner_text()


LUMINANCE = """([selector, property]) => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d");
  canvas.fillStyle = getComputedStyle(document.querySelector(selector))[property];
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}"""


def test_dark_mode_has_its_own_colours_and_heat_maps_keep_theirs(page):
    reach(page, "play")
    heat = "figure#map image"
    seen = {}
    for mode in ("light", "dark"):
        page.evaluate("mode => { document.documentElement.dataset.theme = mode }", mode)
        ground = page.evaluate(LUMINANCE, ["body", "backgroundColor"])
        kinds = {
            "curve": (page.evaluate(LUMINANCE, ["#static .figure-wide path[stroke*='figure-0']", "stroke"]), 3),
            "text": (page.evaluate(LUMINANCE, ["#static .figure-wide text", "fill"]), 7),
            "name": (page.evaluate(LUMINANCE, ["#static .figure-wide text[fill*='figure-text-1']", "fill"]), 4.5),
            "live curve": (page.evaluate(LUMINANCE, ["#play .curve", "stroke"]), 3),
            "live text": (page.evaluate(LUMINANCE, ["#play .figure-stage text", "fill"]), 7),
        }  # fmt: skip
        for name, (light, wanted) in kinds.items():
            contrast = (max(light, ground) + 0.05) / (min(light, ground) + 0.05)
            assert contrast >= wanted, (mode, name, contrast)
        seen[mode] = kinds
        assert page.locator(heat).first.evaluate("n => getComputedStyle(n).filter") == "none"
        assert page.evaluate(LUMINANCE, ["#map .figure-wide text[fill='#ffffff']", "fill"]) == pytest.approx(
            1
        )
    assert seen["light"] != seen["dark"]


@pytest.mark.parametrize("width", [1100, 768, 390])
def test_text_can_be_read_and_the_page_does_not_scroll_sideways(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    for name in FIGURES:
        figure = reach(page, name)
        small = figure.evaluate(
            """f => [...f.querySelectorAll("text, span, output, p, button, option")].filter(t => t.getClientRects().length && t.textContent.trim())
               .map(t => { const drawn = t.closest("svg"), wide = drawn?.viewBox.baseVal?.width;
                           return [parseFloat(getComputedStyle(t).fontSize) * (wide ? drawn.getBoundingClientRect().width / wide : 1), t.textContent]; })
               .filter(([size]) => size < 10.99)"""
        )
        assert small == [], name
        shown = figure.locator(".figure-narrow, .figure-wide").evaluate_all(
            "nodes => nodes.filter(n => n.getClientRects().length).map(n => n.className)"
        )
        if name in ("static", "map"):
            assert shown == ["figure-narrow" if width == 390 else "figure-wide"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_paper_and_readers_without_scripts_get_the_twins(page, browser, addresses):
    for name in MOVING:
        reach(page, name)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.emulate_media(media="print")
    for name in FIGURES:
        assert page.locator(f"#{name} .figure-wide svg").is_visible()
        assert not page.locator(f"#{name} .figure-narrow").is_visible()
        if name in MOVING:
            assert not page.locator(f"#{name} .figure-stage").is_visible()
    assert page.evaluate(LUMINANCE, ["#static .figure-wide text", "fill"]) == 0
    with browser.new_context(java_script_enabled=False) as context:
        plain = context.new_page()
        plain.goto(f"{addresses['http']}/index.html")
        for name in MOVING:
            assert plain.locator(f"#{name} .figure-wide svg").is_visible()
            assert not plain.locator(f"#{name} .figure-stage").is_visible()


def test_nothing_a_checker_of_accessibility_would_name(page):
    from axe_playwright_python.sync_playwright import Axe

    for name in FIGURES:
        reach(page, name)
    for mode in ("light", "dark"):
        page.evaluate("mode => { document.documentElement.dataset.theme = mode }", mode)
        page.wait_for_timeout(300)
        found = Axe().run(page, context="article", options={"preload": False}).response["violations"]
        found = [
            (rule["id"], node["html"][:120])
            for rule in found
            for node in rule["nodes"]
            if "figure" in node["html"] or "svg" in node["html"]
        ]
        assert found == [], mode
