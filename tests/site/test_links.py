"""Every link inside the site leads somewhere, and nothing that a page loads is elsewhere."""

from __future__ import annotations

from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import chapters
import pytest

LOADS = {
    ("script", "src"),
    ("img", "src"),
    ("link", "href"),
    ("iframe", "src"),
    ("source", "src"),
    ("video", "src"),
}
DESCRIBES = {
    "canonical",
    "index",
    "search",
    "next",
    "prev",
    "author",
    "copyright",
}  # <link>s that load nothing


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.anchors, self.links, self.loads = {"", "top"}, [], []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given[key] for key in ("id", "name") if given.get(key)}
        for key in ("href", "src"):
            if not given.get(key):
                continue
            describes = tag == "link" and set((given.get("rel") or "").split()) & DESCRIBES
            (self.loads if (tag, key) in LOADS and not describes else self.links).append(given[key])


@cache
def parsed(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


@pytest.mark.parametrize("name", [*chapters.pages(), "index", "search", "genindex"])
def test_links_and_anchors_lead_somewhere(name, site):
    path = site / f"{name}.html"
    page = parsed(path)
    dead = [link for link in page.loads if _outside(link) and not link.startswith("data:")]
    dead += [link for link in page.links + page.loads if not _outside(link) and not _leads(link, path, site)]
    assert dead == []


def _outside(link: str) -> bool:
    return bool(urlsplit(link).scheme or urlsplit(link).netloc)


def _leads(link: str, path: Path, site: Path) -> bool:
    place, anchor = urldefrag(link)
    place = unquote(urlsplit(place).path)
    target = (path.parent / place).resolve() if place else path
    if not target.is_file() or not target.is_relative_to(site.resolve()):
        return False
    return target.suffix != ".html" or unquote(anchor) in parsed(target).anchors
