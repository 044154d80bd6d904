"""Pictures of the built pages, three widths and two modes, to be looked at: ``python tests/site/shots.py [PAGE …]``."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "stored" / "_build" / "html"
TARGET = ROOT / "_build" / "screenshots"
WIDTHS = (1400, 768, 390)  # px
TALLEST = 8000  # px; Chromium repeats what is beyond 16384


def main(wanted: list[str]) -> None:
    """Take the pictures of all pages, or of those whose names hold one of the ``wanted`` words."""
    pages = sorted(path for path in SITE.glob("book/**/*.html"))
    if wanted:
        pages = [path for path in pages if any(word in path.as_posix() for word in wanted)]
    TARGET.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=options)
        for width in WIDTHS:
            page = browser.new_page(viewport={"width": width, "height": 1000})
            for path in pages:
                page.goto(path.as_uri())
                page.evaluate("window.MathJax?.startup?.promise?.then(() => true)")
                page.evaluate("document.fonts.ready.then(() => true)")
                for mode in ("light", "dark"):
                    page.emulate_media(color_scheme=mode)
                    area = {"x": 0, "y": 0, "width": width, "height": TALLEST}
                    target = TARGET / f"{path.stem}-{width}-{mode}.jpeg"
                    page.screenshot(path=target, full_page=True, clip=area, type="jpeg", quality=70)
            page.close()
        browser.close()
    print(f"{len(pages) * len(WIDTHS) * 2} pictures in {TARGET}")


if __name__ == "__main__":
    main(sys.argv[1:])
