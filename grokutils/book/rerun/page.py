"""An executed notebook as a page in the book's look: nbconvert's structure, the book's words and colours."""

from __future__ import annotations

import copy
import html
import re
import shutil
import uuid
import warnings
from functools import cache
from importlib.metadata import PackageNotFoundError
from pathlib import Path

from markupsafe import Markup

from .. import mathjax, templating

MATHJAX = ("output/chtml/fonts", "input/tex/extensions", "tex-mml-chtml.js")


@cache
def _exporter():
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    shown = ["text/html", "image/svg+xml", "image/png", "text/markdown", "text/latex", "text/plain"]
    wishes = {
        "HTMLExporter": {"template_name": "lab", "template_file": "base.html.j2"},
        "NbConvertBase": {"display_data_priority": shown},
    }
    return HTMLExporter(config=Config(wishes))


def of(notebook) -> str:
    """The page of an executed ``notebook``, beside which :func:`assets` must lie for its equations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nbconvert's, on alt text that the book keeps elsewhere
        body, _ = _exporter().from_notebook_node(_readable(notebook))
    found = re.search(r"<h1[^>]*>(.*?)<", body)
    title = Markup(found[1]) if found else "A chapter, re-run"
    return templating.filled("rerun.html", title=title, body=Markup(body))


def assets(folder: Path) -> None:
    """Copy MathJax into ``folder`` from the installed package, once; without that package equations stay TeX."""
    target = folder / "assets" / "mathjax"
    if target.exists():
        return
    part = folder / ".part" / f"mathjax-{uuid.uuid4().hex}"
    try:
        mathjax.copy(part, MATHJAX)
    except PackageNotFoundError:
        return
    target.parent.mkdir(exist_ok=True)
    try:
        part.rename(target)
    except OSError:
        shutil.rmtree(part)
        if not target.exists():  # another command may have been faster
            raise


def _readable(notebook):
    """A copy without the set-up cell, its text in plain Markdown, its pictures as HTML with their alt text and width."""
    kept = copy.deepcopy(notebook)
    kept.cells = [cell for cell in kept.cells if "setup" not in cell.metadata.get("tags", [])]
    outputs = [o for cell in kept.cells for o in cell.get("outputs", [])]
    texts = [(cell, "source") for cell in kept.cells if cell.cell_type == "markdown"]
    texts += [(o.data, "text/markdown") for o in outputs if "text/markdown" in o.get("data", {})]
    labels = {label for holder, key in texts for _, label in EQUATION.findall(holder[key])}
    for holder, key in texts:
        holder[key] = _plainer(holder[key], labels)
    for output in outputs:
        about = output.get("metadata", {}).get("image/png", {})
        if "image/png" in output.get("data", {}) and about.get("alt"):
            alt, width = html.escape(about["alt"]), about.get("width", "")
            source = f"data:image/png;base64,{output.data['image/png']}"
            output.data = {"text/html": f'<img src="{source}" alt="{alt}" width="{width}">'}
    return kept


DIRECTIVE = re.compile(r"^:{3,}\{([\w:-]+)\} *(.*?)\n((?::[\w-]+:.*\n)*)(.*?)^:{3,} *$", re.M | re.S)
EQUATION = re.compile(r"\$\$(.+?)\$\$ *\(([\w-]+)\)", re.S)


def _plainer(text: str, labels: set[str]) -> str:
    """Markdown that any reader understands for the book's MyST: boxes, numbered equations, references.

    ``labels`` are the equations of this page; what lies on other pages of the book is named, not linked.
    """
    text = DIRECTIVE.sub(lambda found: _box(found, labels), text)
    text = EQUATION.sub(
        lambda m: f"\\begin{{equation}}{m[1].strip()}\\label{{{m[2]}}}\\end{{equation}}", text
    )
    text = re.sub(
        r"\{eq\}`([\w-]+)`", lambda m: f"$\\eqref{{{m[1]}}}$" if m[1] in labels else f"({_words(m[1])})", text
    )
    text = re.sub(r"\{(?:numref|prf:ref|ref)\}`(?:[^`<]*<)?([\w-]+)>?`", lambda m: _words(m[1]), text)
    text = re.sub(r"\{cite\w*(?::\w+)?\}`([^`]+)`", lambda m: ", ".join(map(_author, m[1].split(","))), text)
    text = re.sub(r"\{[\w:-]+\}`([^`<]+?)(?: *<[^`]*>)?`", r"\1", text)
    return re.sub(r"(?<!!)\[([^\]]+)\]\((?!\w+:)[^)\s#]+(?:#[^)\s]*)?\)", r"\1", text)


def _words(label: str) -> str:
    return label.replace("-", " ")


def _author(key: str) -> str:
    """ "Power 2022" for the key power2022grokking of a reference."""
    found = re.match(r"\s*([a-z]+)(\d{4})", key)
    return f"{found[1].capitalize()} {found[2]}" if found else key.strip()


def _box(found: re.Match, labels: set[str]) -> str:
    kind, title, _, body = found.groups()
    body = _plainer(body, labels)
    if kind == "dropdown":
        return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"
    kinds = [] if kind == "admonition" else [kind.rpartition(":")[2].capitalize()]
    head = " ".join(filter(None, [*kinds, title]))
    return f'<div class="admonition"><p class="admonition-title">{head}</p>\n\n{body}\n\n</div>'
