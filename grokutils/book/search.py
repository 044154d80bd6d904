"""Search: words cut as the reader's browser cuts them, titles first, and the text around what was found."""

from __future__ import annotations

import json
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.search.en import SearchEnglish

TEXTS = "texts.js"


class English(SearchEnglish):
    """Sphinx's English, with "grokking" cut to "grok".

    Sphinx's script undoubles every final consonant after -ing and -ed, as Porter wrote; its Python stemmer leaves kk.
    """

    def stem(self, word: str) -> str:
        """The stem of ``word``."""
        found = super().stem(word)
        return found[:-1] if found.endswith("kk") else found


def scripts(app, pagename, templatename, context, doctree) -> None:
    """Sphinx's event for each page: the page of results also gets the texts."""
    if pagename == "search":
        app.add_js_file(TEXTS, priority=300)  # the list is the builder's own, for this page
        app.add_js_file("search.js", priority=400)


def write_texts(app, exception) -> None:
    """Sphinx's event at the end: every page's text as one script, for the excerpts."""
    if exception is None and app.builder.name == "html":
        texts = {name: text(app.env.get_doctree(name)) for name in sorted(app.env.found_docs)}
        script = f"window.BOOK_TEXTS = {json.dumps(texts, ensure_ascii=False)};\n"
        (Path(app.outdir) / "_static" / TEXTS).write_text(script, encoding="utf-8")


def text(doctree) -> str:
    """What a document says in paragraphs and titles, without its equations and the keys of its citations."""

    def said(node) -> str:
        if isinstance(node, nodes.Text):
            return node.astext()
        if isinstance(node, nodes.math | addnodes.pending_xref):
            return "" if isinstance(node, nodes.math) or not node.get("refexplicit") else node.astext()
        return "".join(map(said, node.children))

    found = (said(n) for n in doctree.findall() if isinstance(n, nodes.paragraph | nodes.title))
    return " ".join(" ".join(found).split())
