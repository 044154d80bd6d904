"""Every page, as a reader may meet it: served or from a file, wide or 390 px, light or dark."""

from __future__ import annotations

import os
from pathlib import Path

import axe_playwright_python
import chapters
import pytest

SIZES = {"wide": (1280, 900), "narrow": (390, 844)}
PAGES = [*chapters.pages(), "index", "search", "genindex"]
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
# Pictures of every page take a minute: only where somebody will look at them.
PICTURES = bool(os.environ.get("CI") or os.environ.get("BOOK_SCREENSHOTS"))
SCREENSHOTS = chapters.ROOT / "_build" / "screenshots"

# What a page that is ready must not have; each finding in words.
FINDINGS = r"""() => {
  const found = [], root = document.documentElement;
  const title = () => [...document.querySelectorAll('h1')].find(heading => heading.getClientRects().length);
  const name = e => e.outerHTML.slice(0, 120);
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
    const node = texts.currentNode;
    if (node.parentElement.closest('pre, code, script, style, noscript, textarea, mjx-container')) continue;
    if (/\$\$|\\\(|\\\[|\{(prf:ref|eq|cite|numref|ref|doc)\}`/.test(node.data)) found.push(`raw markup: ${node.data.trim().slice(0, 120)}`);
  }
  for (const image of document.images) {
    if (!image.alt.trim()) found.push(`no alt text: ${image.src.slice(-60)}`);
    if (image.complete && !image.naturalWidth && image.getClientRects().length) found.push(`empty image: ${image.src.slice(-60)}`);
  }
  for (const scrolls of document.querySelectorAll('.bd-article mjx-container[display], .bd-article pre')) {
    if (scrolls.scrollWidth > scrolls.clientWidth + 1 && scrolls.tabIndex < 0) found.push(`scrolls, but not by keyboard: ${name(scrolls)}`);
  }
  const box = title()?.getBoundingClientRect();
  if (!box || box.top > innerHeight) found.push('no title on the first screen');
  return found;
}"""

# Serious findings of axe-core. It takes its time for each element: equations are tested above, and code is all alike.
ACCESS = """async () => {
  [...document.querySelectorAll('.bd-article pre')].slice(4).forEach(code => code.dataset.alike = '');
  const settings = { preload: false, resultTypes: ['violations'], runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'] };
  const { violations } = await axe.run({ exclude: [['mjx-container'], ['.plotly-figure .js-plotly-plot > *'], ['[data-alike]']] }, settings);
  return violations.filter(v => ['serious', 'critical'].includes(v.impact))
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
def windows(browser):
    """A browser context for each size of window."""
    opened = {
        size: browser.new_context(viewport={"width": width, "height": height}, has_touch=size == "narrow")
        for size, (width, height) in SIZES.items()
    }
    yield opened
    for context in opened.values():
        context.close()


@pytest.mark.parametrize("scheme", ["http", "file"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PAGES)
def test_page_is_sound(name, size, scheme, windows, addresses, listen, settle):
    page = windows[size].new_page()
    complaints = listen(page)
    page.emulate_media(color_scheme="light")
    page.goto(f"{addresses[scheme]}/{name}.html")
    if name == "index":  # sends on to the first page
        page.wait_for_url("**/intro.html")
    settle(page)
    for scheme_of_color in ("light", "dark"):
        page.emulate_media(color_scheme=scheme_of_color)
        page.wait_for_function(
            "theme => document.documentElement.dataset.theme === theme", arg=scheme_of_color
        )
        complaints += [f"{scheme_of_color}: {finding}" for finding in page.evaluate(FINDINGS)]
        ground, ink = page.evaluate(LIGHTNESS)
        if (ground > 0.5) != (scheme_of_color == "light") or abs(ground - ink) < 0.4:
            complaints.append(f"{scheme_of_color}: ground {ground:.2f}, ink {ink:.2f}")
        if scheme == "file" and (size == "narrow") == (scheme_of_color == "dark"):
            page.evaluate(AXE)
            complaints += [f"{scheme_of_color}: {finding}" for finding in page.evaluate(ACCESS)]
        if (
            PICTURES
            and scheme == "http"
            and (size, scheme_of_color) != ("narrow", "dark")
            and name in chapters.pages()
        ):
            target = SCREENSHOTS / f"{name.replace('/', '-')}-{size}-{scheme_of_color}.jpeg"
            area = {
                "x": 0,
                "y": 0,
                "width": SIZES[size][0],
                "height": 8000,
            }  # Chromium repeats what is beyond 16384
            page.screenshot(path=target, full_page=True, clip=area, type="jpeg", quality=70)
    page.close()
    assert not complaints, "\n".join(complaints)
