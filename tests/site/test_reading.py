"""What a reader does: search, follow a claim from the scorecard, move a slider, print, read without scripts."""

from __future__ import annotations

import chapters
import pytest

MOVING = {chapters.PLOTLY, chapters.LIVE}


def moving(name: str) -> int:
    """How many figures of a chapter answer the hand."""
    return sum(bool(MOVING & set(o.get("data", {}))) for o in chapters.outputs(chapters.code(name)))


MOVING_PAGES = [name for name in chapters.chapters() if moving(name)]
SCORECARD = "book/scorecard"


@pytest.fixture
def page(browser):
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        yield context.new_page()


# A word that a reader may look for, and a page that must be among what is found.
TERMS = {
    "grokking": "book/intro",
    "memorization": "book/intro",
    "weights": "book/intro",
    "verdict": "book/scorecard",
    "claim": "book/scorecard",
    "references": "book/references",
    "Fourier": "book/3_networks/09_simulated_grokking",
    "Euler": "book/3_networks/09_simulated_grokking",
    "embeddings": "book/3_networks/09_simulated_grokking",
    "circles": "book/3_networks/09_simulated_grokking",
}


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_search_finds_what_the_book_holds(scheme, page, addresses, listen):
    complaints = listen(page)
    for term, expected in TERMS.items():
        page.goto(f"{addresses[scheme]}/search.html?q={term}")
        page.wait_for_function(
            "/found|match/.test(document.querySelector('.search-summary')?.textContent ?? '')"
        )
        found = page.eval_on_selector_all("#search-results li a", "links => links.map(link => link.href)")
        if not any(f"/{expected}.html" in link for link in found):
            complaints.append(f"{term}: only {found}")
    assert not complaints, "\n".join(complaints)


def test_scorecard_shows_the_claims_of_the_chapters_as_they_stand(page, addresses):
    page.goto(f"{addresses['http']}/{SCORECARD}.html")
    rows = page.eval_on_selector_all(
        "table.scorecard tbody tr",
        """rows => rows.map(row => [row.querySelector('a').getAttribute('href').split('#claim-')[1],
             ...['verdict', 'claim', 'reported', 'measured'].map(key => row.querySelector(`[data-label=${key}]`).textContent)])""",
    )
    wanted = [claim for name in chapters.chapters() for claim in chapters.claims(chapters.code(name))]
    assert [row[0] for row in rows] == [claim["name"] for claim in wanted]
    for (_, verdict, statement, reported, measured), claim in zip(rows, wanted, strict=True):
        assert verdict.endswith(claim["verdict"])
        assert statement == claim["statement"] + claim["note"]
        assert reported == claim["reported"]
        assert measured == claim["measured"]


def test_scorecard_leads_to_the_claims(page, addresses, settle):
    missed = []
    for name in chapters.chapters():
        for claim in chapters.claims(chapters.code(name))[-1:]:  # the last is the farthest to scroll
            page.goto(f"{addresses['file']}/{SCORECARD}.html")
            page.locator(f"a[href$='#claim-{claim['name']}']").click()
            page.wait_for_url(f"**/{name}.html#claim-{claim['name']}")
            settle(page)
            target = page.locator(f"#claim-{claim['name']}")
            box = target.bounding_box()
            if claim["statement"] not in target.inner_text() or not -1 <= box["y"] < 900:
                missed.append((claim["name"], box))
    assert missed == []


@pytest.mark.parametrize("name", MOVING_PAGES)
def test_figures_are_drawn_when_near_and_their_sliders_move_them(name, page, addresses, listen, settle):
    complaints = listen(page)
    page.goto(f"{addresses['http']}/{name}.html")
    settle(page)
    boxes = page.locator(".figure-box")
    assert boxes.count() == moving(name)
    for box in boxes.all():
        assert len(box.get_attribute("aria-label")) >= 20
        box.scroll_into_view_if_needed()
        drawn = box.locator(".figure-stage")
        drawn.locator("svg").first.wait_for()
        for slider in drawn.get_by_role("slider").all():
            seen = "b => [...b.querySelectorAll('path, image, circle, line, canvas')].map(n => n.outerHTML).join() + b.innerText"
            before = drawn.evaluate(seen)
            slider.focus()
            page.keyboard.press("Home")
            page.keyboard.press("ArrowRight")
            page.wait_for_function(f"([b, old]) => ({seen})(b) !== old", arg=[drawn.element_handle(), before])
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("name", MOVING_PAGES)
def test_static_twins_stand_in_for_print_and_for_readers_without_scripts(name, browser, page, addresses):
    page.goto(f"{addresses['http']}/{name}.html")
    for box in page.locator(".figure-box").all():
        box.scroll_into_view_if_needed()
        box.locator(".figure-stage svg").first.wait_for()
        assert not box.locator(".figure-still").is_visible()
    page.emulate_media(media="print")
    assert all(twin.is_visible() for twin in page.locator(".figure-still .figure-wide svg").all())
    assert not any(stage.is_visible() for stage in page.locator(".figure-stage").all())
    with browser.new_context(java_script_enabled=False) as context:
        plain = context.new_page()
        plain.goto(f"{addresses['http']}/{name}.html")
        assert all(twin.is_visible() for twin in plain.locator(".figure-still .figure-wide svg").all())
