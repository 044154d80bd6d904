"""A matplotlib figure as inline SVG in the page's own type and colours.

Colours of lines and text become CSS variables, so that the page chooses them for light and for dark. What is drawn over
a heat map, and the heat map, keep the colours that they were drawn in: their lightness means something.
"""

from __future__ import annotations

import hashlib
import io
import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
from matplotlib.backends.backend_mixed import MixedModeRenderer
from matplotlib.backends.backend_svg import RendererSVG
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_hex
from matplotlib.image import AxesImage
from matplotlib.text import Text

from .look import COLORS

SMALLEST = 8.8  # points: 11 px where a page shows the figure a little smaller than it was drawn
AS_DRAWN = "as-drawn"
RASTER = 144  # dots per inch of what is a picture inside the drawing
PRECISION = 10  # positions are kept to a tenth of a point

_SVG, _LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
_PAINT = ("fill", "stroke")
_INHERITED = (
    *_PAINT,
    "fill-opacity",
    "stroke-opacity",
    "stroke-width",
    "stroke-dasharray",
    "stroke-dashoffset",
    "stroke-linecap",
    "stroke-linejoin",
    "stroke-miterlimit",
    "font-size",
    "text-anchor",
)
_NAMED = {color.lower(): i for i, color in enumerate(COLORS[:-1])}


def svg(figure) -> str:
    """The figure as one ``<svg>`` element; the same bytes for the same figure.

    Text is text in the page's own type, at least 11 px high; formulas are outlines. Every id begins with a hash of the
    picture, so that two figures of a page do not meet.
    """
    _prepare(figure)
    root = ET.fromstring(_drawn(figure))
    for node in root.findall(f"{_SVG}metadata"):
        root.remove(node)
    for defs in root.findall(f"{_SVG}defs"):
        if defs.find(f"{_SVG}style") is not None:
            root.remove(defs)
    _clean(root, as_drawn=False)
    _flatten(root)
    _spare(root)
    _hoist(root)
    _rename(root)
    width, height = (float(n) for n in root.get("viewBox").split()[2:])
    root.attrib = {
        "viewBox": root.get("viewBox"),
        "width": f"{width * 96 / 72:.0f}",
        "height": f"{height * 96 / 72:.0f}",
        "fill": "var(--figure-ink,#000)",
        "stroke-linejoin": "round",
        "stroke-linecap": "butt",
        "aria-hidden": "true",
    }
    text = ET.tostring(root, encoding="unicode").replace("ns0:", "").replace(":ns0=", "=")
    text = re.sub(r">\s+<", "><", text)
    mark = "f" + hashlib.sha256(text.encode()).hexdigest()[:8]
    return text.replace("@@", mark)


class _Renderer(RendererSVG):
    """Text stays text; formulas, whose glyphs no font of a page has, become outlines."""

    def draw_text(self, gc, x, y, s, prop, angle, ismath=False, mtext=None):
        with mpl.rc_context({"svg.fonttype": "path" if ismath else "none"}):
            super().draw_text(gc, x, y, s, prop, angle, ismath, mtext)


def _drawn(figure) -> str:
    target, dpi = io.StringIO(), figure.dpi
    with mpl.rc_context({"svg.hashsalt": "figure", "svg.id": None}):
        figure.dpi = 72
        figure.draw_without_rendering()  # the layout settles: room for labels is known after a first drawing
        width, height = figure.get_size_inches()
        inner = _Renderer(width * 72, height * 72, target, image_dpi=RASTER, metadata={"Date": None})
        renderer = MixedModeRenderer(figure, width, height, RASTER, inner)
        figure.draw(renderer)
        renderer.finalize()
        figure.dpi = dpi
    return target.getvalue()


def _prepare(figure) -> None:
    """No text too small to read, no ground of its own, and heat maps as the pictures they are."""
    for text in figure.findobj(Text):
        text.set_fontsize(max(SMALLEST, text.get_fontsize()))
    figure.patch.set_visible(False)
    for ax in figure.axes:
        meshes = [c for c in ax.collections if isinstance(c, QuadMesh)]
        for mesh in meshes:
            mesh.set_rasterized(True)
        for image in ax.images:
            if isinstance(image, AxesImage) and max(image.get_size()) <= 400:
                image.set_interpolation("none")  # its own pixels, sharp at every zoom
        if ax.images or (meshes and not hasattr(ax, "_colorbar")):
            for artist in (ax.patch, *ax.texts, *ax.lines, *ax.patches, *ax.collections):
                artist.set_gid(AS_DRAWN)
        else:
            ax.patch.set_visible(False)


def _clean(node, as_drawn: bool) -> None:
    """Styles as attributes, colours as variables, positions rounded and relative."""
    as_drawn = as_drawn or node.get("id") == AS_DRAWN
    style = node.attrib.pop("style", "")
    for name, value in re.findall(r"([\w-]+):\s*([^;]+)", style):
        if name == "image-rendering":
            node.set("style", "image-rendering:pixelated")
        elif name not in ("font-family", "font"):
            node.set(name, value.strip())
    if node.get("id") == AS_DRAWN and node.tag == f"{_SVG}g":
        node.set("fill", "#000")
    if "transform" in node.attrib:
        _shorten_transform(node)
    text = node.tag == f"{_SVG}text"
    for name in _PAINT:
        value = node.get(name)
        if value and value.startswith("#") and not as_drawn:
            node.set(name, _variable(value, text))
    for name in ("stroke-width", "stroke-dasharray", "stroke-dashoffset", "x", "y", "width", "height"):
        if name in node.attrib:
            node.set(name, re.sub(r"-?\d+\.\d+", lambda m: f"{round(float(m[0]), 1):g}", node.get(name)))
    if "d" in node.attrib:
        node.set("d", _relative(node.get("d")))
    if _LINK in node.attrib:
        node.set("href", node.attrib.pop(_LINK))
    for child in node:
        _clean(child, as_drawn)


def _shorten_transform(node) -> None:
    if node.get("transform").startswith("rotate(-0 "):
        del node.attrib["transform"]
    else:
        node.set("transform", re.sub(r"-?\d+\.\d{3,}", lambda m: f"{float(m[0]):.4g}", node.get("transform")))


def _variable(color: str, text: bool) -> str:
    """The CSS variable of a colour of the palette; greys are shares of ink on ground; other colours stay."""
    color = to_hex(color)
    if color in _NAMED:
        return f"var(--figure-{'text-' if text else ''}{_NAMED[color]},{color})"
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    if not red == green == blue:
        return color
    if red in (0, 255):
        return "var(--figure-ink,#000)" if red == 0 else "var(--figure-ground,#fff)"
    share = round(100 * (255 - red) / 255)
    return f"color-mix(in srgb,var(--figure-ink,#000) {share}%,var(--figure-ground,#fff))"


def _relative(d: str) -> str:
    """A path with every position relative to the one before, in tenths of a point: a third of the length."""
    parts, here, start = [], (0, 0), (0, 0)
    for command, arguments in re.findall(r"([MLCQVHZzSs])([^MLCQVHZzSs]*)", d):
        if command in "Zz":
            parts.append("z")
            here = start
            continue
        if command not in "MLCQ":
            return d
        numbers = [round(float(x) * PRECISION) for x in arguments.split()]
        points = list(zip(numbers[::2], numbers[1::2], strict=True))
        if command == "M":
            parts.append("M" + _numbers(points[0]))
            here = start = points[0]
            continue
        steps = [n for x, y in points for n in (x - here[0], y - here[1])]
        if any(steps) or command != "L":
            parts.append(command.lower() + _numbers(steps))
        here = points[-1]
    return "".join(parts)


def _numbers(tenths) -> str:
    written = [f"{n / PRECISION:g}" for n in tenths]
    return "".join(s if i == 0 or s.startswith("-") else " " + s for i, s in enumerate(written))


def _hoist(node) -> None:
    """What all children have in common stands once, at their parent."""
    for child in node:
        _hoist(child)
    if node.tag != f"{_SVG}g" or len(node) < 2:
        return
    for name in _INHERITED:
        values = {child.get(name) for child in node}
        if len(values) == 1 and None not in values:
            node.set(name, values.pop())
            for child in node:
                del child.attrib[name]


def _spare(root) -> None:
    """A mark that says itself how it is drawn need not be told again wherever it is used."""
    marks = {node.get("id"): node for node in root.iter(f"{_SVG}path") if node.get("id")}
    for use in root.iter(f"{_SVG}use"):
        mark = marks.get(use.get("href", "")[1:], {})
        for name in _INHERITED:
            if name in use.attrib and mark.get(name):
                del use.attrib[name]


def _flatten(node) -> None:
    """Groups that say nothing give way to what they hold."""
    for child in list(node):
        _flatten(child)
        if child.tag not in (f"{_SVG}g", f"{_SVG}defs"):
            continue
        silent = child.tag == f"{_SVG}g" and set(child.keys()) <= {"id"}
        if len(child) == 0 or silent:
            i = list(node).index(child)
            node[i : i + 1] = list(child)


def _rename(root) -> None:
    """Ids that something refers to become short; the others go."""
    used = {}
    for node in root.iter():
        for name in [
            node.get("href", "#")[1:],
            *re.findall(r"url\(#([^)]+)\)", " ".join(node.attrib.values())),
        ]:
            if name and node.tag != f"{_SVG}image":
                used.setdefault(name, f"@@{len(used)}")
    for node in root.iter():
        name = node.attrib.pop("id", None)
        if name in used:
            node.set("id", used[name])
        if node.get("href", "")[1:] in used:
            node.set("href", "#" + used[node.get("href")[1:]])
        for key, value in node.attrib.items():
            if "url(#" in value:
                node.set(key, re.sub(r"url\(#([^)]+)\)", lambda m: f"url(#{used[m[1]]})", value))
