"""The code behind the page: folded into marks, shown in place by one switch, in reach without a script, not on paper."""

from __future__ import annotations

import re

import chapters
import pytest

VISIBLE = """() => [...document.querySelectorAll('.bd-article .cell_input pre')].filter(e => e.checkVisibility())
  .map(e => e.textContent.trim())"""
PAGE = next(page for page in chapters.chapters() if chapters.tagged(page, "lead"))


def sources(page: str, tag: str = "") -> list[str]:
    """A chapter's code, of all cells or of those with a tag, as the page shows it."""
    cells = chapters.tagged(page, tag) if tag else chapters.code(page)
    return [cell.source.strip() for cell in cells if cell.source.strip()]


@pytest.fixture
def page(browser):
    with browser.new_context(viewport={"width": 1400, "height": 900}) as context:
        yield context.new_page()


@pytest.mark.parametrize("name", chapters.chapters())
def test_only_ideas_show_their_code_until_the_switch_is_on(name, page, addresses, settle):
    page.goto(f"{addresses['http']}/{name}.html")
    settle(page)
    assert page.evaluate(VISIBLE) == sources(name, "idea")
    marks = page.locator(".code-mark")
    assert 0 < marks.count() <= len(sources(name))
    assert page.locator(".code-mark + .code-mark").count() == 0, "a row of marks"
    switch = page.get_by_role("button", name="code", exact=True)
    switch.focus()
    page.keyboard.press("Enter")
    assert switch.get_attribute("aria-pressed") == "true"
    assert page.evaluate(VISIBLE) == sources(name), "all code, each once, in the notebook's order"
    switch.click()
    assert page.evaluate(VISIBLE) == sources(name, "idea")


def test_the_switch_is_remembered_on_other_pages(page, addresses, settle):
    first, second = chapters.chapters()[:2]
    page.goto(f"{addresses['http']}/{first}.html")
    page.get_by_role("button", name="code", exact=True).click()
    page.goto(f"{addresses['http']}/{second}.html")
    settle(page)
    assert page.evaluate(VISIBLE) == sources(second)


def test_a_mark_opens_the_code_behind_its_output_by_keyboard(page, addresses, settle):
    page.goto(f"{addresses['http']}/{PAGE}.html")
    settle(page)
    mark = page.locator(".lead .code-mark")
    assert "Code" in mark.locator("summary").get_attribute("aria-label")
    mark.locator("summary").focus()
    page.keyboard.press("Enter")
    (lead,) = chapters.tagged(PAGE, "lead")
    assert mark.locator("pre").last.text_content().strip() == lead.source.strip()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_lead_stands_before_everything_that_its_cell_needs(page, addresses):
    page.goto(f"{addresses['http']}/{PAGE}.html")
    order = page.evaluate(
        "[...document.querySelectorAll('.bd-article :is(h1, .lead, h2)')].map(e => e.classList.contains('lead') ? 'lead' : e.tagName)"
    )
    assert order[:2] == ["H1", "lead"]


def test_without_a_script_the_marks_are_plain_details(browser, addresses):
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{addresses['http']}/{PAGE}.html")
        mark = page.locator(".code-mark").first
        assert not mark.locator("pre").first.is_visible()
        mark.locator("summary").click()
        assert mark.locator("pre").first.is_visible()


@pytest.mark.parametrize("on", [False, True])
def test_paper_has_no_marks_and_only_the_code_of_ideas(on, page, addresses, settle):
    page.goto(f"{addresses['http']}/{PAGE}.html")
    settle(page)
    if on:
        page.get_by_role("button", name="code", exact=True).click()
    page.emulate_media(media="print")
    assert page.evaluate(VISIBLE) == sources(PAGE, "idea")
    assert not any(mark.is_visible() for mark in page.locator(".code-mark summary").all())


def test_a_first_screen_holds_question_answer_and_figure(page, addresses, settle):
    late = []
    for name in chapters.chapters():
        if not re.match(r"\d\d_", name.rpartition("/")[2]):
            continue
        page.goto(f"{addresses['http']}/{name}.html")
        settle(page)
        top = page.evaluate(
            "Math.min(...[...document.querySelectorAll('.bd-article .cell_output :is(img, svg)')].filter(e => e.checkVisibility()).map(e => e.getBoundingClientRect().top))"
        )
        if top > 900:
            late.append((name, round(top)))
    assert late == []
