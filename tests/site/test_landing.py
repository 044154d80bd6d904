"""The first page's live figure: it groks, plays, stops, keeps still where motion is not wanted, and leaves scrolling alone."""

from __future__ import annotations

import chapters
import pytest

STATIC = (chapters.ROOT / "book" / "_static").as_uri()
SCRIPTS = ("laboratory.js", "laboratory_flows.js", "laboratory_drawing.js", "landing.js")
PAGE = (
    '<!doctype html><html lang="en" data-theme="light"><title>landing</title>'
    f'<link rel="stylesheet" href="{STATIC}/laboratory.css">'
    + "".join(f'<script defer src="{STATIC}/{name}"></script>' for name in SCRIPTS)
    + '<div style="height: {above}px"></div>'
    f'<div id="landing-live"><img src="{STATIC}/cover.png" alt="still picture" style="max-width: 100%"></div>'
    '<div style="height: 3000px"></div>'
)
BUTTON = "#landing-live button"
SLIDER = "#landing-live input"


@pytest.fixture
def visit(browser, tmp_path):
    """Open a page with the figure ``above`` px below the top; checks that the console stays silent."""
    opened = []

    def go(above: int = 0, **options):
        file = tmp_path / "landing.html"
        file.write_text(PAGE.replace("{above}", str(above)), encoding="utf-8")
        context = browser.new_context(viewport={"width": 1000, "height": 900}, **options)
        page = context.new_page()
        complaints = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        opened.append((context, complaints))
        page.goto(file.as_uri())
        return page

    yield go
    for context, complaints in opened:
        context.close()
        assert not complaints, "\n".join(complaints)


def said(page, at: str) -> str:
    """What a screen reader hears of the slider at a slow time."""
    page.locator(SLIDER).fill(at)
    return page.locator(SLIDER).get_attribute("aria-valuetext")


def test_figure_groks_and_is_always_the_same(visit):
    heard = []
    for _ in range(2):
        page = visit()
        page.wait_for_selector(SLIDER, timeout=60_000)
        heard.append([said(page, at) for at in ("0", "0.5", "1.2", "3")])
    first, *_, last = heard[0]
    assert "100 %" in last
    assert int(first.split(":")[1].split("%")[0]) < 20
    assert heard[0] == heard[1]
    names = page.locator("#landing-live canvas").evaluate_all("all => all.map(c => c.ariaLabel)")
    assert len(names) == 3
    assert all(names)
    assert "held-out sums right" in names[0]


def test_it_plays_to_the_end_by_itself_and_again_by_keyboard(visit):
    page = visit()
    page.wait_for_selector(SLIDER, timeout=60_000)
    page.wait_for_function("s => +document.querySelector(s).value > 0.1", arg=SLIDER)
    assert page.locator(BUTTON).text_content() == "Pause"
    page.locator(BUTTON).focus()
    page.keyboard.press("Enter")
    assert page.locator(BUTTON).text_content() == "Play"
    paused = page.locator(SLIDER).input_value()
    page.wait_for_timeout(300)
    assert page.locator(SLIDER).input_value() == paused
    page.locator(SLIDER).fill("2.9")
    page.keyboard.press("Tab")
    page.locator(BUTTON).press("Enter")
    page.wait_for_function("s => document.querySelector(s).textContent === 'Replay'", arg=BUTTON)
    page.locator(BUTTON).press("Enter")
    page.wait_for_function("s => +document.querySelector(s).value < 1", arg=SLIDER)


def test_nothing_is_computed_or_played_off_screen(visit):
    page = visit(above=4000)
    page.wait_for_timeout(1500)
    assert page.locator("#landing-live img").count() == 1
    page.locator("#landing-live").scroll_into_view_if_needed()
    page.wait_for_selector(SLIDER, timeout=60_000)
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(300)
    before = page.locator(SLIDER).input_value()
    page.wait_for_timeout(500)
    assert page.locator(SLIDER).input_value() == before


def test_still_picture_stays_where_motion_is_not_wanted(visit):
    page = visit(reduced_motion="reduce")
    page.wait_for_timeout(1500)
    assert page.locator("#landing-live img").is_visible()
    page.locator(BUTTON).press("Enter")
    page.wait_for_selector(SLIDER, timeout=60_000)
    assert page.evaluate("document.activeElement.tagName") == "BUTTON"


def test_wheel_over_the_figure_moves_the_page_and_it_fits_a_phone_and_follows_the_mode(visit):
    page = visit()
    page.wait_for_selector(SLIDER, timeout=60_000)
    page.mouse.move(200, 200)
    page.mouse.wheel(0, 300)
    page.wait_for_function("scrollY > 100")
    page.evaluate("scrollTo(0, 0)")
    page.locator(SLIDER).fill("1")
    shade = "document.querySelector('#landing-live canvas').toDataURL()"
    light = page.evaluate(shade)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_timeout(200)
    assert page.evaluate(shade) != light
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("document.querySelector('#landing-live canvas').width") < 200
