"""How the book's own outputs become HTML: claims, figures as vectors in two layouts, figures that answer the hand."""

from __future__ import annotations

from typing import ClassVar

from docutils import nodes

from ..claims import MIME as CLAIM_MIME
from ..claims import as_html
from ..figures import LIVE_MIME, PLOTLY_MIME, page


class Renderer:
    """A myst-nb MIME renderer (entry point ``myst_nb.mime_renderers``)."""

    mime_priority_overrides: ClassVar = [
        ("html", CLAIM_MIME, 0),
        ("html", LIVE_MIME, 0),
        ("html", PLOTLY_MIME, 0),
        ("html", "image/png", 1),  # before a front end's own HTML
    ]

    @staticmethod
    def handle_mime(renderer, data, inline: bool):
        """Nodes for the MIME types that are the book's own; None leaves the output to myst-nb."""
        if data.mime_type == CLAIM_MIME:
            return _claim(renderer, data)
        about = data.output_metadata.get("image/png", {})
        if data.mime_type in (LIVE_MIME, PLOTLY_MIME):
            kind = "live" if data.mime_type == LIVE_MIME else "plotly"
            return _raw(page.box(data.content, about.get("alt", ""), _still(about), kind))
        if data.mime_type == "image/png" and not inline:
            return _raw(_still(about)) if "wide" in about else _image(renderer, data, about.get("alt"))
        return None


def _claim(renderer, data) -> list[nodes.Node]:
    env = renderer.renderer.sphinx_env
    claims_of(env).setdefault(env.docname, []).append(dict(data.content))
    return _raw(as_html(data.content))


def claims_of(env) -> dict[str, list[dict]]:
    """The claims that the build has seen so far, by document."""
    if not hasattr(env, "grokutils_claims"):
        env.grokutils_claims = {}
    return env.grokutils_claims


def _raw(html: str) -> list[nodes.Node]:
    return [nodes.raw("", html, format="html")]


def _still(about: dict) -> str:
    return page.still(about["alt"], about["wide"], about["narrow"]) if "wide" in about else ""


def _image(renderer, data, alt: str | None) -> list[nodes.Node]:
    drawn = renderer.render_image(data)
    for node in drawn:
        for image in node.findall(nodes.image):
            if alt:
                image["alt"] = alt
    return drawn
