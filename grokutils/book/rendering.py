"""How the book's own outputs become HTML: claims, plotly figures with their static twins, alt text."""

from __future__ import annotations

import json
from typing import ClassVar

from docutils import nodes

from ..claims import MIME as CLAIM_MIME
from ..claims import as_html
from ..figures import PLOTLY_MIME


class Renderer:
    """A myst-nb MIME renderer (entry point ``myst_nb.mime_renderers``)."""

    mime_priority_overrides: ClassVar = [("html", CLAIM_MIME, 0), ("html", PLOTLY_MIME, 0)]

    @staticmethod
    def handle_mime(renderer, data, inline: bool):
        """Nodes for the MIME types that are the book's own; None leaves the output to myst-nb."""
        if data.mime_type == CLAIM_MIME:
            return _claim(renderer, data)
        if data.mime_type == PLOTLY_MIME:
            return _plotly(data)
        if data.mime_type == "image/png" and not inline:
            return _image(renderer, data)
        return None


def _claim(renderer, data) -> list[nodes.Node]:
    env = renderer.renderer.sphinx_env
    claims_of(env).setdefault(env.docname, []).append(dict(data.content))
    return [nodes.raw("", as_html(data.content), format="html")]


def claims_of(env) -> dict[str, list[dict]]:
    """The claims that the build has seen so far, by document."""
    if not hasattr(env, "grokutils_claims"):
        env.grokutils_claims = {}
    return env.grokutils_claims


def _plotly(data) -> list[nodes.Node]:
    alt = data.output_metadata.get("image/png", {}).get("alt", "")
    # A closing tag inside a string would end the script element.
    figure = json.dumps(data.content, separators=(",", ":"), ensure_ascii=False).replace("</", "<\\/")
    height = data.content.get("layout", {}).get("height", 450)
    label = nodes.make_id(alt[:40]) or "figure"
    box = (
        f'<div class="plotly-figure" role="group" aria-label="{_escaped(alt)}" data-name="{label}" '
        f'style="min-height:{int(height)}px"></div>'
        f'<script type="application/json" class="plotly-data">{figure}</script>'
    )
    return [nodes.raw("", box, format="html", classes=["plotly"])]


def _image(renderer, data) -> list[nodes.Node]:
    drawn = renderer.render_image(data)
    alt = data.output_metadata.get("image/png", {}).get("alt")
    for node in drawn:
        for image in node.findall(nodes.image):
            if alt:
                image["alt"] = alt
    return drawn


def join_twins(app, doctree) -> None:
    """Put a plotly figure's static twin beside it, so that print and readers without scripts have it."""
    for bundle in doctree.findall(
        lambda n: isinstance(n, nodes.container) and n.get("nb_element") == "mime_bundle"
    ):
        parts = {part["mime_type"]: part for part in bundle.children if "mime_type" in part}
        if PLOTLY_MIME in parts and "image/png" in parts:
            twin = nodes.container(classes=["static-twin"])
            twin += [image.deepcopy() for image in parts["image/png"].children]
            parts[PLOTLY_MIME] += twin


def has_plotly(doctree) -> bool:
    """Whether a page needs plotly's script."""
    return any("plotly" in raw.get("classes", ()) for raw in doctree.findall(nodes.raw))


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
