"""The code behind the page: folded into marks, shown in place by one switch, in reach without a script, not on paper."""

from __future__ import annotations

import chapters
import pytest

PAGE = next(page for page in chapters.chapters() if chapters.tagged(page, "lead"))


@pytest.fixture
def page(browser):
    with browser.new_context(viewport={"width": 1400, "height": 900}) as context:
        yield context.new_page()


def test_the_switch_is_remembered_on_other_pages(page, addresses, settle, shown_code):
    first, second = chapters.chapters()[:2]
    page.goto(f"{addresses['http']}/{first}.html")
    page.get_by_role("button", name="code", exact=True).click()
    page.goto(f"{addresses['http']}/{second}.html")
    settle(page)
    assert shown_code(page) == chapters.sources(second)


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


def test_paper_has_no_marks_and_only_the_code_of_ideas(page, addresses, settle, shown_code):
    page.goto(f"{addresses['http']}/{PAGE}.html")
    settle(page)
    for on in (False, True):
        if on:
            page.emulate_media(media="screen")
            page.get_by_role("button", name="code", exact=True).click()
            assert shown_code(page) == chapters.sources(PAGE)
        page.emulate_media(media="print")
        assert shown_code(page) == chapters.sources(PAGE, "idea")
        assert not any(mark.is_visible() for mark in page.locator(".code-mark summary").all())
