"""What stands in a page's head: its description, its social picture, and no script that it does not need."""

from __future__ import annotations

import html
import re
import unicodedata

from docutils import nodes

from . import address, cells, pictures

LONGEST = 300  # characters of a description
GREEK = re.compile(r"\\([a-z]+)")


def site_address() -> str:
    """Where the site is published, with a slash at its end; empty while the repository has no address."""
    where = address.of_build()
    if where is None:
        return ""
    owner, name = where.repository.split("/")
    return f"https://{owner.lower()}.github.io/{name}/"


def describe(app, pagename, templatename, context, doctree) -> None:
    """Sphinx's event for each page: its description and picture."""
    title = re.sub(r"<[^>]+>", "", context.get("title", ""))
    picture, site = pictures.SOCIAL.format(pictures.of_page(app, pagename)), site_address()
    entries = {
        "og:title": html.unescape(title),
        "og:type": "article",
        "og:site_name": app.config.html_title or app.config.project,
        "og:description": description(doctree) or f"{html.unescape(title)}: a page of {app.config.project}.",
        "og:image": site + picture if site else context["pathto"](picture, resource=True),
        **({"og:url": f"{site}{pagename}.html"} if site else {}),
    }
    context["book_head"] = entries
    context["metatags"] = ""  # MyST's own may hold a second description


def description(doctree) -> str:
    """What a chapter's answer says, or else the page's first paragraph, as plain text."""
    if doctree is None:
        return ""
    found = cells.opening(doctree).get("answer")
    # text of the page itself, not a note of the build or a caption
    own = (p for p in doctree.findall(nodes.paragraph) if "chapter-time" not in p["classes"])
    found = found or next((p for p in own if len(p.astext()) > 40), None)
    if found is None:
        return ""
    text = GREEK.sub(letter, " ".join(found.astext().split()).removeprefix("Answer. "))
    return text if len(text) <= LONGEST else text[: LONGEST - 2].rpartition(" ")[0] + " …"


def letter(match: re.Match) -> str:
    r"""The letter that ``\lambda`` and its like mean; other commands stay."""
    name = match[1].replace("lambda", "lamda")  # as Unicode calls it
    try:
        return unicodedata.lookup(f"GREEK SMALL LETTER {name.upper()}")
    except KeyError:
        return match[0]


def slim(app, pagename, templatename, context, doctree) -> None:
    """Drop the scripts that a page does not need: MathJax without an equation, and what would ask a network."""
    body = context.get("body", "")
    unwanted = ["thebe"] if 'class="math' in body else ["thebe", "mathjax"]
    if "sd-tab" not in body:
        unwanted.append("design-tabs")
    if not re.search(r'class="[^"]*\b(dropdown|toggle)\b', body):
        unwanted.append("toggle")
    context["script_files"] = [
        script
        for script in context["script_files"]
        if not any(word in f"{script.filename} {script.attributes}".lower() for word in unwanted)
    ]
