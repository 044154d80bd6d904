"""The page that says how to cite the book, and where to get it: from CITATION.cff and the repository's address."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import yaml

from . import address, inputs

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


def citation(app, docname: str, node) -> dict:
    """The entry, and links to both files."""
    return {"bibtex": bibtex()}


def downloads(app, docname: str, node) -> dict:
    """Where the PDF and the zip file are, or how to make them."""
    return {"folder": os.environ.get(DOWNLOADS)}


def source(app, docname: str, node) -> dict:
    """Where the repository is."""
    where = address.of_build()
    return {"repository": where and where.repository}


def colab(app, docname: str, node) -> dict:
    """Every chapter in Colab, or, without an address, as a file to upload there."""
    where = address.of_build()
    pages = [p for p in app.env.collect_relations() if app.env.doc2path(p).endswith(".ipynb")]
    chapters = [
        (app.env.titles[page].astext(), page.rpartition("/")[2], where and colab_address(where, page))
        for page in pages
    ]
    return {"chapters": chapters, "known": where is not None}


def colab_address(where: address.Address, page: str) -> str:
    """A chapter's stand-alone copy in Colab, from the branch that the publishing workflow writes."""
    place = f"{where.repository}/blob/{address.NOTEBOOKS}/{page.rpartition('/')[2]}.ipynb"
    return f"https://colab.research.google.com/github/{place}"
