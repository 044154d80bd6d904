"""What a reader does: search, read and filter the scorecard, follow a claim from it."""

from __future__ import annotations

import re

import chapters
import pytest

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
        if page.locator("#search-results li .excerpt").count() < min(3, len(found)):
            complaints.append(f"{term}: no excerpts")
    assert not complaints, "\n".join(complaints)


def test_search_ranks_titles_first(page, addresses):
    page.goto(f"{addresses['http']}/search.html?q=scorecard")
    page.wait_for_function("/found/.test(document.querySelector('.search-summary')?.textContent ?? '')")
    first = page.locator("#search-results li > a").first
    assert "scorecard" in first.inner_text().lower()
    assert "scorecard" in page.locator("#search-results li .excerpt").first.inner_text().lower()


def wanted_claims() -> list[dict]:
    """The claims of all chapters as committed, in reading order."""
    return [claim for name in chapters.chapters() for claim in chapters.claims(chapters.code(name))]


def test_scorecard_shows_the_claims_of_the_chapters_as_they_stand(page, addresses):
    page.goto(f"{addresses['http']}/{SCORECARD}.html")
    shown = """rows => rows.map(row => [row.querySelector('a').getAttribute('href').split('#claim-')[1],
        row.dataset.kind, ...['verdict', 'claim', 'reported', 'measured'].map(key => row.querySelector(`[data-label=${key}]`).textContent)])"""
    rows = page.eval_on_selector_all("table.scorecard tbody tr", shown)
    wanted = wanted_claims()
    assert [row[0] for row in rows] == [claim["name"] for claim in wanted]
    for (_, kind, verdict, said, reported, measured), claim in zip(rows, wanted, strict=True):
        assert kind == claim.get("kind", "study")
        assert claim["verdict"] in verdict
        if "$" in str(claim):
            continue  # typeset by now
        rule = f"Rule: {claim['rule']}" if claim.get("rule") else ""
        assert said == claim["statement"] + rule + claim.get("note", "")
        assert reported == claim.get("reported", "")
        assert measured == claim.get("measured", "")


def test_scorecard_counts_what_its_grid_shows(page, addresses):
    page.goto(f"{addresses['http']}/{SCORECARD}.html")
    dots = page.eval_on_selector_all(
        ".scorecard-grid a.dot",
        "dots => dots.map(d => [d.dataset.kind, d.getAttribute('aria-label').split(':')[0]])",
    )
    wanted = [(claim.get("kind", "study"), claim["verdict"]) for claim in wanted_claims()]
    assert sorted(map(tuple, dots)) == sorted(wanted)
    study, slips, own = page.locator(".scorecard-counts li").all_inner_texts()
    for text, kind in ((study, "study"), (own, "book")):
        assert f"Of {sum(k == kind for k, _ in wanted)} " in text
        for verdict in {v for k, v in wanted if k == kind}:
            assert f"{wanted.count((kind, verdict))} {verdict.split()[0].rstrip('s')}" in text
    assert f"Of {sum(k == 'slip' for k, _ in wanted)} " in slips
    assert f"{wanted.count(('slip', 'fails'))} are real" in slips


def test_scorecard_filters_by_control_and_by_address(page, addresses):
    page.goto(f"{addresses['http']}/{SCORECARD}.html")
    fails = sum(claim["verdict"] == "fails" for claim in wanted_claims())
    rows = page.locator("table.scorecard tbody tr:visible")
    page.get_by_label("verdict").select_option("fails")
    assert rows.count() == fails
    assert page.locator(".scorecard-filters output").inner_text().startswith(f"{fails} of ")
    assert page.locator(".scorecard-grid a.dot:not(.faded)").count() == fails
    page.goto(f"{addresses['file']}/{SCORECARD}.html?verdict=fails&kind=study")
    study = sum(c["verdict"] == "fails" and c.get("kind", "study") == "study" for c in wanted_claims())
    assert rows.count() == study


def test_rules_page_lists_every_change(page, addresses):
    page.goto(f"{addresses['http']}/book/rules.html")
    changes = [(claim, change) for claim in wanted_claims() for change in claim.get("changes", [])]
    assert page.locator("table.rules tbody tr").count() == len(changes)


def test_first_page_takes_its_results_from_claims_and_has_a_card_for_each_chapter(page, addresses):
    page.goto(f"{addresses['http']}/book/intro.html")
    measured = {claim["name"]: claim.get("measured", "") for claim in wanted_claims()}
    results = page.locator(".finding-number")
    assert results.count() == 3
    for result in results.all():
        claim = measured[result.get_attribute("href").split("#claim-")[1]]
        for number in re.findall(r"[\d.]+", result.inner_text()):
            assert number in claim
    numbered = [name for name in chapters.chapters() if re.match(r"\d\d_", name.rpartition("/")[2])]
    links = page.locator(".chapter-card a").evaluate_all("links => links.map(link => link.href)")
    assert [link.rpartition("/book/")[2] for link in links] == [
        f"{name.removeprefix('book/')}.html" for name in numbered
    ]
    assert page.locator("#landing-live").count() == 1


def test_scorecard_leads_to_the_claims(page, addresses):
    """That a chapter opened at a claim shows it: test_pages."""
    page.goto(f"{addresses['file']}/{SCORECARD}.html")
    links = page.eval_on_selector_all(
        "table.scorecard tbody tr", "rows => rows.map(row => row.querySelector('a').href)"
    )
    wanted = [
        f"{addresses['file']}/{name}.html#claim-{claim['name']}"
        for name in chapters.chapters()
        for claim in chapters.claims(chapters.code(name))
    ]
    assert links == wanted
    page.locator("table.scorecard tbody tr a").first.click()
    page.wait_for_url(wanted[0])
