"""A chapter's picture: its lead figure, or else its first, for its card and for those who share its link."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from . import cells, chapters, inputs

CARD = "_static/cards/{}.png"  # the figure alone
SOCIAL = "_static/social/{}.png"  # the figure with the page's name, as others show it beside a link
COVER = inputs.ROOT / "book" / "_static" / "cover.png"
SIZE = (1200, 630)  # pixels, what the large sites ask for
WIDEST = 640  # pixels of a card's picture
TALLEST = 0.55  # of its width
INK, GROUND = "#1f2328", "#ffffff"


def of_page(app, pagename: str) -> str:
    """The name of a page's picture: its own for a chapter with a figure, else the book's."""
    stem = pagename.rpartition("/")[2]
    return stem if (Path(app.outdir) / CARD.format(stem)).exists() else "book"


def write(app) -> None:
    """Write the pictures of all chapters, and of the book, into the built site."""
    for kind in (CARD, SOCIAL):
        (Path(app.outdir) / kind).parent.mkdir(parents=True, exist_ok=True)
    cover = Image.open(COVER)
    for path in [None, *chapters.notebooks()]:
        picture = cover if path is None else figure(json.loads(path.read_text(encoding="utf-8")))
        if picture is None:
            continue
        stem = "book" if path is None else path.stem
        title = app.config.project if path is None else name(path)
        card(picture).save(Path(app.outdir) / CARD.format(stem), optimize=True)
        social(picture, title).save(Path(app.outdir) / SOCIAL.format(stem), optimize=True)


def name(path: Path) -> str:
    """A chapter's number and title."""
    first = json.loads(path.read_text(encoding="utf-8"))["cells"][0]
    title = "".join(first["source"]).splitlines()[0].removeprefix("# ")
    return f"{cells.number(path.stem)} {title}".strip()


def figure(notebook: dict) -> Image.Image | None:
    """The picture that the cell tagged ``lead`` shows, or the first that any cell shows."""
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    code.sort(key=lambda cell: "lead" not in cell["metadata"].get("tags", []))
    for output in (output for cell in code for output in cell["outputs"]):
        if "image/png" in output.get("data", {}):
            data = output["data"]["image/png"]
            return Image.open(io.BytesIO(base64.b64decode("".join(data)))).convert("RGB")
    return None


def card(picture: Image.Image) -> Image.Image:
    """The picture at a card's size, in few colours; of a tall one its upper part, as large as the others' panels."""
    upper = min(picture.height, round(TALLEST * picture.width))
    small = picture.convert("RGB").crop((0, 0, picture.width, upper))
    small.thumbnail((WIDEST, WIDEST))
    return small.quantize(64)


def social(picture: Image.Image, title: str) -> Image.Image:
    """The picture under the page's name and the book's."""
    made = Image.new("RGB", SIZE, GROUND)
    draw = ImageDraw.Draw(made)
    size = 54
    while draw.textlength(title, font := ImageFont.load_default(size)) > SIZE[0] - 100:
        size -= 2
    draw.text((50, 40), title, INK, font)
    draw.text((50, SIZE[1] - 50), "The Geometry of Grokking", "#59636e", ImageFont.load_default(26))
    room = (SIZE[0] - 100, SIZE[1] - 200)
    shown = ImageOps.contain(picture.convert("RGB"), room, Image.Resampling.LANCZOS)
    made.paste(shown, ((SIZE[0] - shown.width) // 2, 125 + (room[1] - shown.height) // 2))
    return made.quantize(128)
