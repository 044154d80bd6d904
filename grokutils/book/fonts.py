"""The typefaces of the page: cut to the letters that the book uses, and packed for browsers, from installed packages."""

from __future__ import annotations

import hashlib
import shutil
from importlib.metadata import distribution
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont
from fontTools.varLib import instancer

from . import inputs

FACES = {  # file in the built site: package, file in the package
    "serif": ("fontpkg-source-serif-4", "SourceSerif4[opsz,wght].ttf"),
    "serif-italic": ("fontpkg-source-serif-4", "SourceSerif4-Italic[opsz,wght].ttf"),
    "sans": ("fontpkg-source-sans-3", "SourceSans3[wght].ttf"),
}
# Latin, Greek, punctuation, raised and lowered signs, arrows, operators, marks of verdicts
LETTERS = "20-17F 370-3FF 2010-2026 2030-2034 2070-209F 20AC 2190-21D4 2200-22FE 2713 2717"
AXES = {"wght": (400, 700), "opsz": 14}  # weights that the page uses, drawn for text of that size


def write(folder: Path) -> None:
    """Put every face as WOFF2 and the licences into ``folder``; what was made before is kept in the build's cache."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    for name, (package, file) in FACES.items():
        source, inside = distribution(package), package.replace("-", "_")
        kept = inputs.ROOT / "_build" / "fonts" / f"{name}-{source.version}-{recipe}.woff2"
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            part = kept.with_suffix(".part")
            _cut(Path(source.locate_file(f"{inside}/files/{file}")), part)
            part.replace(kept)
        shutil.copy2(kept, folder / f"{name}.woff2")
        shutil.copy2(source.locate_file(f"{inside}/LICENSE"), folder / f"LICENSE-{package}.txt")


def _cut(source: Path, target: Path) -> None:
    options = subset.Options()
    options.flavor = "woff2"
    options.layout_features = ["ccmp", "kern", "liga", "locl", "mark", "mkmk", "tnum"]
    font = TTFont(source)
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=subset.parse_unicodes(LETTERS))
    cutter.subset(font)
    present = {axis.axisTag for axis in font["fvar"].axes}
    font = instancer.instantiateVariableFont(font, {k: v for k, v in AXES.items() if k in present})
    subset.save_font(font, str(target), options)
