"""The page that says how to cite the book, and where to get it: from CITATION.cff and the repository's address."""

from __future__ import annotations

import html
import os
import shutil
from pathlib import Path

import yaml

from . import address, inputs, tables

CFF = inputs.ROOT / "CITATION.cff"
DOWNLOADS = "BOOK_DOWNLOADS"  # the folder of the published site that `make publish` fills


def bibtex() -> str:
    """CITATION.cff as an entry of BibTeX."""
    known = yaml.safe_load(CFF.read_text(encoding="utf-8"))
    names = [
        f"{a['family-names']}, {a['given-names']}" if "family-names" in a else f"{{{a['name']}}}"
        for a in known["authors"]
    ]
    fields = {
        "title": f"{{{known['title']}}}",
        "author": " and ".join(names),
        "year": str(known.get("date-released", ""))[:4],
        "version": str(known.get("version", "")),
        "url": known.get("repository-code", ""),
    }
    lines = [f"  {key} = {{{value}}}," for key, value in fields.items() if value and "OWNER" not in value]
    return "\n".join(["@software{geometry_of_grokking,", *lines, "}"])


def copy(app) -> None:
    """Put both forms of the citation into the built site."""
    static = Path(app.outdir) / "_static"
    static.mkdir(parents=True, exist_ok=True)
    shutil.copy2(CFF, static)
    (static / "geometry-of-grokking.bib").write_text(bibtex() + "\n", encoding="utf-8")


def citation(app, docname: str, node) -> str:
    """The entry, and links to both files."""
    root = "../" * docname.count("/")
    return (
        f'<div class="highlight"><pre>{html.escape(bibtex())}</pre></div>'
        f'<p>As files: <a href="{root}_static/geometry-of-grokking.bib" download>BibTeX</a>, '
        f'<a href="{root}_static/{CFF.name}" download>{CFF.name}</a>.</p>'
    )


def downloads(app, docname: str, node) -> str:
    """Where the PDF and the zip file are, or how to make them."""
    folder = os.environ.get(DOWNLOADS)
    if not folder:
        return (
            "<p>This copy of the site comes without them. <code>make pdf</code> prints the whole book, "
            "<code>make zip</code> packs the built site; the published site offers both here.</p>"
        )
    root = "../" * docname.count("/")
    name = "the-geometry-of-grokking"
    return (
        f'<p><a href="{root}{folder}/{name}.pdf">The whole book as one PDF</a>. '
        f'<a href="{root}{folder}/{name}.zip">The built site as one zip file</a>: unpack it and open '
        "<code>index.html</code>; it needs no network.</p>"
    )


def source(app, docname: str, node) -> str:
    """Where the repository is."""
    where = address.of_build()
    if where is None:
        return "<p>The repository of this copy has no public address yet: the source is where this site was built.</p>"
    link = f"https://github.com/{where.repository}"
    return f'<p>Chapters, helper package and tests: <a href="{link}">{link.removeprefix("https://")}</a>.</p>'


def colab(app, docname: str, node) -> str:
    """Every chapter in Colab, or, without an address, as a file to upload there."""
    where = address.of_build()
    root = "../" * docname.count("/")
    items = []
    for page in tables.in_reading_order(app.env):
        if not app.env.doc2path(page).endswith(".ipynb"):
            continue
        title, stem = html.escape(app.env.titles[page].astext()), page.rpartition("/")[2]
        copy = f'<a href="{root}standalone/{stem}.ipynb" download>as one file</a>'
        links = [copy] if where is None else [f'<a href="{colab_address(where, page)}">in Colab</a>', copy]
        items.append(f"<li>{title}: {', '.join(links)}</li>")
    note = "" if where else "<p>Upload one of these files to Colab, or open it in JupyterLab:</p>"
    return f"{note}<ul>{''.join(items)}</ul>"


def colab_address(where: address.Address, page: str) -> str:
    """A chapter's stand-alone copy in Colab, from the branch that the publishing workflow writes."""
    stem = page.rpartition("/")[2]
    return (
        f"https://colab.research.google.com/github/{where.repository}/blob/{address.NOTEBOOKS}/{stem}.ipynb"
    )
