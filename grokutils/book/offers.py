"""What a chapter's page offers to take away: its notebook as text that any reader understands, Colab, print."""

from __future__ import annotations

import json
from pathlib import Path

from . import address, cite, head, plain, standalone

FOLDER = "standalone"  # of the built site


def write(app, doctree, docname: str) -> None:
    """Sphinx's event for each resolved document: write a chapter's notebook beside the pages."""
    if app.builder.name != "html" or not is_notebook(app, docname):
        return
    source = json.loads(Path(app.env.doc2path(docname)).read_text(encoding="utf-8"))
    site = head.site_address()
    base = f"{site}{docname}.html" if site else ""
    numbers = app.env.toc_fignumbers.get(docname, {})
    made = standalone.packed(plain.notebook(source, doctree, numbers, base))
    target = Path(app.outdir) / FOLDER / f"{docname.rpartition('/')[2]}.ipynb"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def is_notebook(app, docname: str) -> bool:
    """Whether a document is a notebook."""
    return docname in app.env.found_docs and app.env.doc2path(docname).endswith(".ipynb")


def buttons(app, pagename, templatename, context, doctree) -> None:
    """Sphinx's event for each page: the group of downloads, and Colab where the address is known."""
    link, whole = context["pathto"], "How to cite the book, and the whole of it as one file"
    offered = [
        _button("download-pdf", "file-pdf", "Print this page, or save it as PDF", "javascript", text="Print", javascript="window.print()"),
        _button("cite", "box-archive", whole, text="Cite, PDF, zip", url=link("book/cite")),
    ]  # fmt: skip
    if is_notebook(app, pagename):
        file = link(f"{FOLDER}/{pagename.rpartition('/')[2]}.ipynb", resource=True)
        alone = "One file that runs alone: open it in Colab, or in an empty folder"
        offered.insert(0, _button("standalone", "download", alone, text="Notebook", url=file))
        if where := address.of_build():
            colab = cite.colab_address(where, pagename)
            context["header_buttons"].append(_button("colab", "rocket", "Run in Colab", text="", url=colab))
    group = _button("download", "download", "Download, print, cite", "group", buttons=offered)
    context["header_buttons"].append({**group, "label": "download-buttons"})


def _button(name: str, icon: str, tooltip: str, kind: str = "link", **rest) -> dict:
    """A button as the theme wants it."""
    return {"type": kind, "icon": f"fas fa-{icon}", "tooltip": tooltip, "label": f"{name}-button", **rest}
