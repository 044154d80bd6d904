"""A figure that moves, as HTML: in the book with its script beside it, in a notebook's front end with all inside."""

from __future__ import annotations

import html
import json
import os
import sys
from importlib.resources import files


def is_live() -> bool:
    """Whether a reader sits before this kernel: Colab, or a front end of Jupyter's server (nbclient sets no session)."""
    return "google.colab" in sys.modules or "JPY_SESSION_NAME" in os.environ


def asset(name: str) -> str:
    """The text of figures.css or figures.js."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def box(spec: dict, alt: str, still: str, kind: str = "live") -> str:
    """The element that figures.js draws in; until it does, and on paper, ``still`` (HTML) stands in."""
    # A closing tag inside a string would end the script element.
    data = json.dumps(spec, separators=(",", ":"), ensure_ascii=False, sort_keys=True).replace("</", "<\\/")
    return (
        f'<div class="figure-box {kind}-figure" role="group" aria-label="{html.escape(alt)}">'
        f'<div class="figure-still">{still}</div><div class="figure-stage"></div>'
        f'<script type="application/json">{data}</script></div>'
    )


def still(alt: str, wide: str, narrow: str) -> str:
    """Both layouts of a static figure; the style sheet shows one."""
    return (
        f'<div class="figure-vector" role="img" aria-label="{html.escape(alt)}">'
        f'<div class="figure-wide">{wide}</div><div class="figure-narrow">{narrow}</div></div>'
    )


def self_contained(spec: dict, alt: str, png: str) -> str:
    """The same with style and script inside, for a notebook's output."""
    picture = f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{png}">'
    script = asset("figures.js").replace("</", "<\\/")
    return f"<style>{asset('figures.css')}</style>{box(spec, alt, picture)}<script>{script}</script>"
