"""What a reader does: search, follow a claim from the scorecard, move a slider, print, read without scripts."""

from __future__ import annotations

import chapters
import pytest

PLOTLY_PAGES = [
    page
    for page in chapters.chapters()
    if any(chapters.PLOTLY in o.get("data", {}) for o in chapters.outputs(chapters.code(page)))
]
SCORECARD = "book/scorecard"
FIGURES = "() => [...document.querySelectorAll('.plotly-figure')]"


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


@pytest.mark.parametrize("name", PLOTLY_PAGES)
def test_figures_are_drawn_and_their_sliders_move_them(name, page, addresses, listen, settle):
    complaints = listen(page)
    page.goto(f"{addresses['http']}/{name}.html")
    settle(page)
    wanted = sum(chapters.PLOTLY in o.get("data", {}) for o in chapters.outputs(chapters.code(name)))
    figures = page.locator(".plotly-figure")
    assert figures.count() == wanted
    for figure in figures.all():
        assert len(figure.get_attribute("aria-label")) >= 20
        figure.scroll_into_view_if_needed()
        for slider in figure.locator(".slider-container").all():
            state = "f => JSON.stringify([f._fullLayout.sliders.map(s => s.active), f.data.map(t => [t.x, t.y, t.z, t.marker])])"
            before = figure.evaluate(state)
            rail = slider.locator(".slider-rail-touch-rect").bounding_box()
            page.mouse.click(rail["x"] + 0.62 * rail["width"], rail["y"] + rail["height"] / 2)
            page.wait_for_function(
                f"([f, old]) => ({state})(f) !== old", arg=[figure.element_handle(), before]
            )
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("name", PLOTLY_PAGES)
def test_static_twins_stand_in_for_print_and_for_readers_without_scripts(
    name, browser, page, addresses, settle
):
    page.goto(f"{addresses['http']}/{name}.html")
    settle(page)
    twins = page.locator(".static-twin img")
    figures = page.locator(".plotly-figure")
    assert twins.count() == figures.count()
    assert not any(twin.is_visible() for twin in twins.all())
    page.emulate_media(media="print")
    assert all(twin.is_visible() for twin in twins.all())
    assert not any(figure.is_visible() for figure in figures.all())
    with browser.new_context(java_script_enabled=False) as context:
        plain = context.new_page()
        plain.goto(f"{addresses['http']}/{name}.html")
        assert all(twin.is_visible() for twin in plain.locator(".static-twin img").all())
