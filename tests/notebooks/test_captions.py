"""Captions agree with what is drawn: a hue that a caption names is there in the picture."""

from __future__ import annotations

import base64
import io
import re

import chapters
import numpy as np
import pytest
from PIL import Image

# What a caption may name: where the hue lies on the circle (degrees), for pixels with colour enough to have one.
HUES = {"blue": (185, 245), "orange": (15, 45), "yellow": (38, 70), "green": (100, 180), "pink": (290, 345), "purple": (250, 300), "red": (345, 15)}  # fmt: skip


def _named_but_not_drawn(caption: str, png: bytes) -> list[str]:
    """The hues that a caption names and that fewer than 40 pixels of the picture have."""
    hue, saturation, value = np.moveaxis(
        np.asarray(Image.open(io.BytesIO(png)).convert("RGB").convert("HSV"), float), 2, 0
    )
    drawn = hue[(saturation > 60) & (value > 60)] * (360 / 255)
    missing = []
    for name, (low, high) in HUES.items():
        there = (drawn >= low) & (drawn <= high) if low < high else (drawn >= low) | (drawn <= high)
        if re.search(rf"\b{name}\b", caption, re.IGNORECASE) and there.sum() < 40:
            missing.append(name)
    return missing


@pytest.mark.parametrize("page", chapters.chapters())
def test_captions_name_hues_that_are_drawn(page):
    wrong = {}
    for cell in chapters.code(page):
        figure = cell.metadata.get("mystnb", {}).get("figure")
        for output in cell.outputs if figure else []:
            png = base64.b64decode(output.data["image/png"])
            if missing := _named_but_not_drawn(figure["caption"], png):
                wrong[figure["name"]] = missing
    assert wrong == {}


def test_a_caption_that_names_another_hue_is_found():
    picture = io.BytesIO()
    Image.new("RGB", (40, 40), "#0072B2").save(picture, "png")
    assert _named_but_not_drawn("Blue: training. Orange: held-out.", picture.getvalue()) == ["orange"]
