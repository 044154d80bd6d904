"""The built site in a real Chromium: over HTTP from a server on this machine, and as files."""

from __future__ import annotations

import functools
import http.server
import os
import threading
from contextlib import contextmanager
from pathlib import Path

import chapters
import pytest

SITE = chapters.ROOT / "_build" / "stored" / "_build" / "html"
# Chromium's own hints on how fast plotly reads pixels back, given where it draws without a graphics card.
HINTS = ("GL Driver Message", "Canvas2D: Multiple readback operations")


@pytest.fixture(scope="session")
def site() -> Path:
    """The folder of the built site."""
    if not (SITE / "index.html").exists():
        pytest.fail("the site is not built: run `make site`")
    return SITE


@pytest.fixture(scope="session")
def addresses(site, serve):
    """Where the site is, by scheme: served, and as files."""
    with serve(site) as where:
        yield where


@pytest.fixture(scope="session")
def serve():
    """A folder of pages, served: ``with serve(folder) as addresses``."""
    return _served


@contextmanager
def _served(site: Path):
    """Addresses of a folder of pages, by scheme."""
    handler = functools.partial(_Quiet, directory=os.fspath(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {"http": f"http://127.0.0.1:{server.server_port}", "file": site.as_uri()}
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def listen(addresses):
    """Attach to a page; returns the list that what it complains of, or asks of others, is written to."""

    def attach(page) -> list[str]:
        complaints = []

        def requested(request):
            if not request.url.startswith((*addresses.values(), "data:", "blob:")):
                complaints.append(f"asks {request.url}")

        def answered(response):
            if response.status >= 400:
                complaints.append(f"status {response.status}: {response.url}")

        def said(message):
            if message.type in ("error", "warning") and not any(hint in message.text for hint in HINTS):
                complaints.append(f"console: {message.text}")

        page.on("console", said)
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("request", requested)
        page.on("requestfailed", lambda r: complaints.append(f"failed: {r.url} {r.failure}"))
        page.on("response", answered)
        return complaints

    return attach


@pytest.fixture(scope="session")
def settle():
    """Wait until a page has typeset its equations and has its fonts."""

    def wait(page):
        page.wait_for_load_state("load")
        page.evaluate("window.MathJax?.startup?.promise?.then(() => true)")
        page.evaluate("document.fonts.ready.then(() => true)")

    return wait


@pytest.fixture(scope="session")
def shown_code():
    """The code that a page shows, cell by cell."""
    visible = """() => [...document.querySelectorAll('.bd-article .cell_input pre')].filter(e => e.checkVisibility())
      .map(e => e.textContent.trim())"""
    return lambda page: page.evaluate(visible)
