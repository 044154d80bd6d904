"""Every page, as a reader may meet it: served or from a file, on a desk, a tablet or a phone, light or dark, with a weight."""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import axe_playwright_python
import chapters
import pytest
from playwright.sync_api import Page

WIDTHS = (1400, 768, 390)  # px
HEIGHT = 900
OTHERS = [page for page in chapters.pages() if page not in chapters.chapters()]
# Chapters first in both lists of a page's tests: pytest has the tests of one place run together.
PAGES = [*chapters.chapters(), *OTHERS, "index", "search", "genindex"]
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
HEAVIEST = 1_500_000  # bytes on the way, before a figure library is asked for
LIBRARY = re.compile("plotly")
MOVING = {chapters.PLOTLY, chapters.LIVE}

# What a page that is ready must not have; each finding in words.
FINDINGS = r"""() => {
  const found = [], root = document.documentElement;
  const name = e => e.outerHTML.slice(0, 120);
  const seen = e => e.getClientRects().length > 0;
  if (root.scrollWidth > root.clientWidth) {
    const wide = [...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > root.clientWidth + 1);
    found.push(`scrolls sideways by ${root.scrollWidth - root.clientWidth} px: ${wide.slice(0, 3).map(name).join(' ')}`);
  }
  for (const math of document.querySelectorAll('.math')) {
    if (!math.querySelector('mjx-container')) found.push(`not typeset: ${name(math)}`);
  }
  for (const error of document.querySelectorAll('mjx-merror')) found.push(`equation in error: ${error.textContent}`);
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode, parent = node.parentElement;
    if (!node.data.trim() || parent.closest('script, style, noscript, textarea, mjx-container')) continue;
    if (seen(parent) && !parent.closest('svg, canvas') && parseFloat(getComputedStyle(parent).fontSize) < 11)
      found.push(`${getComputedStyle(parent).fontSize}: ${node.data.trim().slice(0, 60)}`);
    if (parent.closest('pre, code')) continue;
    if (/\$\$|\\\(|\\\[|\{(prf:ref|eq|cite|numref|ref|doc)\}`|:::/.test(node.data)) found.push(`raw markup: ${node.data.trim().slice(0, 120)}`);
  }
  for (const image of document.images) {
    const link = image.closest('a');
    if (!image.alt.trim() && !(link && link.textContent.trim())) found.push(`no alt text: ${image.src.slice(-60)}`);
    if (image.complete && !image.naturalWidth && seen(image)) found.push(`empty image: ${image.src.slice(-60)}`);
  }
  for (const scrolls of document.querySelectorAll('.bd-article mjx-container[display], .bd-article pre')) {
    if (seen(scrolls) && scrolls.scrollWidth > scrolls.clientWidth + 1 && scrolls.tabIndex < 0) found.push(`scrolls, but not by keyboard: ${name(scrolls)}`);
    if (seen(scrolls) && scrolls.scrollWidth > scrolls.clientWidth + 1 && !scrolls.classList.contains('goes-on')) found.push(`cut without a cue: ${name(scrolls)}`);
  }
  const title = [...document.querySelectorAll('h1')].find(seen)?.getBoundingClientRect();
  if (!title || title.top > innerHeight) found.push('no title on the first screen');
  if (document.querySelectorAll('.bd-article summary, .bd-article details').length && /Show code cell/.test(document.body.textContent)) found.push('code bars');
  return found;
}"""

# Serious findings of axe-core. It takes its time for each element, most of it for contrast: equations are tested above, and of texts
# whose tags, classes and styles up to the page are the same, which have the same colors, four are asked for theirs.
ACCESS = """async mode => {
  const seen = {}, kind = e => e ? `${kind(e.parentElement)} ${e.tagName}.${e.getAttribute('class')} ${e.getAttribute('style')}` : '';
  for (const e of document.body.querySelectorAll('*'))
    if ([...e.childNodes].some(n => n.nodeType === Node.TEXT_NODE && n.data.trim())) {
      const name = kind(e);
      seen[name] = (seen[name] ?? 0) + 1;
      if (seen[name] <= 4) e.dataset.asked = '';
    }
  const exclude = [['mjx-container'], ['.plotly-figure .js-plotly-plot > *']];
  const settings = { preload: false, resultTypes: ['violations'] }, colors = ['color-contrast', 'link-in-text-block'];
  const found = (await axe.run({ include: [['[data-asked]']], exclude }, { ...settings, runOnly: colors })).violations;
  if (mode === 'light') { // all else is the same in the dark
    const runOnly = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'];
    const rules = Object.fromEntries(colors.map(rule => [rule, { enabled: false }]));
    found.push(...(await axe.run({ exclude }, { ...settings, runOnly, rules })).violations);
  }
  return found.filter(v => ['serious', 'critical'].includes(v.impact))
    .flatMap(v => v.nodes.map(n => `${v.id}: ${n.html.slice(0, 120)} ${n.failureSummary}`.slice(0, 400)));
}"""

# Relative luminance of the ground that text stands on, and of the text.
LIGHTNESS = """() => {
  const light = text => {
    const [r, g, b] = text.match(/[\\d.]+/g).map(Number);
    return (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255;
  };
  return [light(getComputedStyle(document.body).backgroundColor), light(getComputedStyle(document.querySelector('.bd-article, main')).color)];
}"""


@pytest.fixture(scope="module")
def window(browser):
    """One window for all pages, of a reader who can also touch."""
    context = browser.new_context(viewport={"width": WIDTHS[0], "height": HEIGHT}, has_touch=True)
    yield context
    context.close()


@cache
def sent(path: Path) -> int:
    """Bytes of a file as a web server sends it: texts packed."""
    data = path.read_bytes()
    return len(gzip.compress(data)) if path.suffix in (".html", ".css", ".js", ".svg") else len(data)


def look(page, mode: str) -> list[str]:
    """Findings of one page in one mode, at its present width."""
    page.emulate_media(color_scheme=mode)
    page.wait_for_function("mode => document.documentElement.dataset.theme === mode", arg=mode)
    found = page.evaluate(FINDINGS)
    ground, ink = page.evaluate(LIGHTNESS)
    if (ground > 0.5) != (mode == "light") or abs(ground - ink) < 0.4:
        found.append(f"ground {ground:.2f}, ink {ink:.2f}")
    return [f"{page.viewport_size['width']} px, {mode}: {finding}" for finding in found]


@dataclass
class Served:
    """A page from the server, ready, with what it complained of and what it asked for."""

    name: str
    page: Page
    complaints: list[str]
    asked: set[str]


@pytest.fixture(scope="module")
def served(request, window, addresses, listen, settle):
    """A page in a wide window, opened once for all that is asked of it there; a chapter by a link to its last claim."""
    name, page, asked = request.param, window.new_page(), set()
    complaints = listen(page)
    page.on("response", lambda response: asked.add(urlsplit(response.url).path.lstrip("/")))
    linked = chapters.claims(chapters.code(name))[-1:] if name in chapters.chapters() else []
    page.goto(f"{addresses['http']}/{name}.html" + "".join(f"#claim-{claim['name']}" for claim in linked))
    if name == "index":  # sends on to the first page
        page.wait_for_url("**/intro.html")
    settle(page)
    for claim in linked:
        complaints += missed(page, claim)
        page.evaluate("scrollTo({ top: 0, behavior: 'instant' })")
    yield Served(name, page, complaints, asked)
    page.evaluate("localStorage.clear()")  # what one page's tests switched on, if they failed
    page.close()


def missed(page, claim: dict) -> list[str]:
    """Whether a page that was opened at a claim shows something else, now that all equations have their heights."""
    target = page.locator(f"#claim-{claim['name']}")
    box = target.bounding_box()
    words = max(claim["statement"].split("$")[::2], key=len)  # not of an equation, which is typeset
    seen = words.strip() in target.inner_text() and -1 <= box["y"] < HEIGHT
    return [] if seen else [f"claim {claim['name']} is missed: {box}"]


FIGURE_TOP = """Math.min(...[...document.querySelectorAll('.bd-article .cell_output :is(img, svg)')].filter(e => e.checkVisibility())
  .map(e => e.getBoundingClientRect().top))"""


@pytest.mark.parametrize("served", chapters.chapters(), indirect=True)
def test_first_screen_holds_the_figure_and_only_ideas_show_their_code_until_the_switch_is_on(
    served, shown_code
):
    name, page = served.name, served.page
    if re.match(r"\d\d_", name.rpartition("/")[2]):
        assert page.evaluate(FIGURE_TOP) <= HEIGHT, "question, answer and figure are seen at once"
    assert shown_code(page) == chapters.sources(name, "idea")
    marks = page.locator(".code-mark")
    assert 0 < marks.count() <= len(chapters.sources(name))
    assert page.locator(".code-mark + .code-mark").count() == 0, "a row of marks"
    switch = page.get_by_role("button", name="code", exact=True)
    switch.focus()
    page.keyboard.press("Enter")
    assert switch.get_attribute("aria-pressed") == "true"
    assert shown_code(page) == chapters.sources(name), "all code, each once, in the notebook's order"
    switch.click()
    assert shown_code(page) == chapters.sources(name, "idea")


@pytest.mark.parametrize("served", PAGES, indirect=True)
def test_page_is_sound_and_light_when_served(served, site):
    page, complaints = served.page, served.complaints
    sizes = {
        path: sent(site / path)
        for path in served.asked
        if (site / path).is_file() and not LIBRARY.search(path)
    }
    weight = sum(sizes.values())
    assert weight > 150_000, "nothing was weighed"
    if weight > HEAVIEST:
        complaints.append(f"{weight / 1e6:.2f} MB: {sorted(sizes.items(), key=lambda item: -item[1])[:5]}")
    complaints += look(page, "light")
    for width in WIDTHS[1:]:
        page.set_viewport_size({"width": width, "height": HEIGHT})
        page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        complaints += look(page, "dark" if width == 768 else "light")
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("served", chapters.chapters(), indirect=True)
def test_figures_are_drawn_when_near_moved_by_sliders_and_replaced_by_twins_without_scripts_and_on_paper(
    served, browser, addresses
):
    name, page = served.name, served.page
    boxes = page.locator(".figure-box")
    outputs = chapters.outputs(chapters.code(name))
    moving = sum(bool(MOVING & set(output.get("data", {}))) for output in outputs)
    assert boxes.count() == moving
    if not moving:
        return
    page.set_viewport_size({"width": 1280, "height": HEIGHT})
    for box in boxes.all():
        assert len(box.get_attribute("aria-label")) >= 20
        box.scroll_into_view_if_needed()
        drawn = box.locator(".figure-stage")
        drawn.locator("svg").first.wait_for()
        assert not box.locator(".figure-still").is_visible()
        for slider in drawn.get_by_role("slider").all():
            seen = "b => [...b.querySelectorAll('path, image, circle, line, canvas')].map(n => n.outerHTML).join() + b.innerText"
            before = drawn.evaluate(seen)
            slider.focus()
            page.keyboard.press("Home")
            page.keyboard.press("ArrowRight")
            page.wait_for_function(f"([b, old]) => ({seen})(b) !== old", arg=[drawn.element_handle(), before])
    page.emulate_media(media="print")
    assert all(twin.is_visible() for twin in page.locator(".figure-still .figure-wide svg").all())
    assert not any(stage.is_visible() for stage in page.locator(".figure-stage").all())
    assert not served.complaints, "\n".join(served.complaints)
    with browser.new_context(java_script_enabled=False) as context:
        plain = context.new_page()
        plain.goto(f"{addresses['http']}/{name}.html")
        assert all(twin.is_visible() for twin in plain.locator(".figure-still .figure-wide svg").all())


@pytest.mark.parametrize("name", PAGES)
def test_page_is_sound_and_accessible_as_a_file(name, window, addresses, listen, settle):
    page = window.new_page()
    complaints = listen(page)
    page.set_viewport_size({"width": 390, "height": HEIGHT})
    page.goto(f"{addresses['file']}/{name}.html")
    if name == "index":  # sends on to the first page
        page.wait_for_url("**/intro.html")
    settle(page)
    page.evaluate(AXE)
    for mode in ("dark", "light"):
        complaints += look(page, mode)
        complaints += [f"{mode}: {finding}" for finding in page.evaluate(ACCESS, mode)]
    page.close()
    assert not complaints, "\n".join(complaints)


# First paint and first equation, as multiples of what the same theme takes for a page with nothing on it. That is .19 s on a
# machine of two cores that does little else, where an equation may take 1.5 s; the slowest page measured there takes .95 s.
SLOWEST_PAINT = 3.0
SLOWEST_EQUATION = 1.5 / 0.19
TRIES = 3  # of a page that is not quick at once, the least counts
LAST = 10  # of a page that seems slow: other work may have slowed it
WATCH = """
  window.firstEquation = null;
  new MutationObserver(() => { if (firstEquation === null && document.querySelector('mjx-container')) firstEquation = performance.now(); })
    .observe(document, { childList: true, subtree: true });
"""
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"
EMPTY = "book/empty"


def times(browser, address: str, html: str = "") -> tuple[float, float | None]:
    """First paint and first equation of a page in a cold window, in ms; ``html`` stands in for the page."""
    with browser.new_context(viewport={"width": 1400, "height": HEIGHT}) as context:
        page = context.new_page()
        page.add_init_script(WATCH)
        if html:
            page.route(f"**/{EMPTY}.html", lambda route: route.fulfill(body=html, content_type="text/html"))
        page.goto(address)
        page.wait_for_function(f"({PAINT}) !== null")
        if page.evaluate("!!document.querySelector('.math')"):
            page.wait_for_function("firstEquation !== null")
        return page.evaluate(PAINT), page.evaluate("firstEquation")


def beyond(bare: list[float], paints: list[float], equations: list[float]) -> bool:
    """Whether a page's least times are too large beside the empty page's."""
    return min(paints) > SLOWEST_PAINT * min(bare) or min(equations) > SLOWEST_EQUATION * min(bare)


def test_pages_are_painted_almost_as_soon_as_an_empty_one(browser, addresses, site, capsys):
    whole = (site / "book/glossary.html").read_text(encoding="utf-8")
    before, rest = whole.split('<article class="bd-article">', 1)
    empty = before + '<article class="bd-article"><h1>Empty</h1>' + rest[rest.index("</article>") :]
    least = min(times(browser, f"{addresses['http']}/{EMPTY}.html", empty)[0] for _ in range(TRIES))
    slow, said = [], []
    for name in chapters.pages():
        address = f"{addresses['http']}/{name}.html"
        first, equation = times(browser, address)
        bare, paints, equations = [least], [first], [equation or 0.0]
        # beside the quickest empty page so far; if that is too slow, it may be that the machine is, just now
        if beyond(bare, paints, equations):
            bare, paints, equations = [], [], []
            while len(bare) < TRIES or (beyond(bare, paints, equations) and len(bare) < LAST):
                # one after the other, so that a busy machine is as slow for both
                bare.append(times(browser, f"{addresses['http']}/{EMPTY}.html", empty)[0])
                first, equation = times(browser, address)
                paints.append(first)
                equations.append(equation or 0.0)
        least = min(least, *bare)
        paint, equation = min(paints) / min(bare), min(equations) / min(bare)
        said.append(f"{paint:.1f} {equation:.1f} {name}")
        if beyond(bare, paints, equations):
            slow.append(said[-1])
    with capsys.disabled():
        print(
            f"\nempty page: {least:.0f} ms; first paint and first equation in multiples of an empty page beside it:",
            *said,
            sep="\n",
        )
    assert not slow, slow


@pytest.mark.parametrize("name", chapters.pages())
def test_page_says_what_it_is(name, site):
    from html.parser import HTMLParser

    from PIL import Image

    class Head(HTMLParser):
        def __init__(self):
            super().__init__()
            self.metas, self.titles = [], 0

        def handle_starttag(self, tag, attributes):
            given = dict(attributes)
            self.titles += tag == "title"
            if tag == "meta" and (key := given.get("name") or given.get("property")):
                self.metas.append((key, given.get("content")))

    head = Head()
    text = (site / f"{name}.html").read_text(encoding="utf-8")
    head.feed(text.split("</head>")[0])
    said = {key: [value for k, value in head.metas if k == key] for key, _ in head.metas}
    assert head.titles == 1
    (description,) = said["description"]
    assert 40 <= len(description) <= 300
    assert said["og:description"] == [description]
    assert len(said["og:title"]) == len(said["viewport"][:1]) == 1
    (picture,) = said["og:image"]
    with Image.open((site / name).parent / picture) as image:
        assert image.size == (1200, 630)
    assert "fontawesome.js" not in text
    assert ("mathjax/startup.js" in text) == ('class="math' in text)


def test_cards_and_descriptions_say_what_the_chapters_ask_and_answer(site):
    letters = lambda text: re.sub("[^a-z]", "", re.sub(r"<[^>]*>|&[^;]*;", "", text).lower())  # noqa: E731
    intro = (site / "book/intro.html").read_text(encoding="utf-8")
    shown = {
        word: re.findall(f'class="card-{word}">(.*?)</p>', intro, re.DOTALL)
        for word in ("question", "answer")
    }
    numbered = [name for name in chapters.chapters() if name.rpartition("/")[2][:2].isdigit()]
    for number, name in enumerate(numbered):
        page = (site / f"{name}.html").read_text(encoding="utf-8")
        (description,) = re.findall('name="description" content="([^"]*)"', page)
        opening = chapters.notebook(name).cells[0].source
        for word, texts in shown.items():
            begins = letters(re.search(rf"\*\*{word.title()}\.\*\* ([\w ]*)", opening)[1])
            assert letters(texts[number]).startswith(begins)
            assert f'class="chapter-{word}"' in page
        assert letters(description).startswith(begins)
        assert "\\" not in description + shown["answer"][number]
        assert re.search(
            r'class="chapter-answer">(?:(?!</p>).)*</p>\s*<div class="cell lead', page, re.DOTALL
        )


def test_a_chapter_has_one_name_everywhere(site):
    for name in chapters.chapters():
        stem = name.rpartition("/")[2]
        if not stem[:2].isdigit():
            continue
        title = chapters.notebook(name).cells[0].source.splitlines()[0].removeprefix("# ")
        plain = f"{stem[:2]} {title}"
        html = (site / f"{name}.html").read_text(encoding="utf-8")
        shown = html.replace('<span class="chapter-number">', "").replace(
            f"{stem[:2]} </span>", f"{stem[:2]} "
        )
        shown = shown.replace("&#39;", "’").replace("'", "’")
        plain = plain.replace("'", "’")
        assert f"<title>{plain} &#8212;" in shown
        assert f"<h1>{plain}<" in shown
        intro = (
            (site / "book/intro.html")
            .read_text(encoding="utf-8")
            .replace('<span class="chapter-number">', "")
        )
        intro = intro.replace("&#x27;", "’").replace("'", "’")
        assert f'<span class="card-title">{plain}</span>' in intro
