"""How a notebook becomes a page that one reads: number and opening first, code folded into small marks.

A code cell tagged ``idea`` shows its code. Every other cell's code is folded into a mark beside its output; a cell
without output goes into the mark of the next output. The output of the cell tagged ``lead`` moves up to the opening.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from markupsafe import Markup

from .templating import typeset

ICON = (
    '<svg viewBox="0 0 20 14" width="20" height="14" aria-hidden="true" fill="none" stroke="currentColor" '
    'stroke-width="1.8"><path d="M6 2 1 7l5 5M14 2l5 5-5 5M12 1 8 13"/></svg>'
)


class mark(nodes.General, nodes.Element):  # noqa: N801
    """The code of one or more cells, folded, beside what they put out."""


def visit_mark(translator, node) -> None:
    """Plain HTML that opens without a script."""
    count = len(node.children)
    what = "Code" if count == 1 else f"Code of {count} cells"
    translator.body.append(
        f'<details class="code-mark"><summary aria-label="{what}" title="{what}">{ICON}</summary>'
    )


def depart_mark(translator, node) -> None:
    """End what :func:`visit_mark` began."""
    translator.body.append("</details>")


def number(docname: str) -> str:
    """A chapter's number, from its file's name; empty for pages without one."""
    found = re.match(r"(\d\d)_", docname.rpartition("/")[2])
    return found[1] if found else ""


def cells(doctree) -> Iterator[nodes.container]:
    """The code cells of a document, in the notebook's order."""
    return doctree.findall(lambda n: isinstance(n, nodes.container) and n.get("nb_element") == "cell_code")


def tags(cell) -> list[str]:
    """A cell's tags."""
    return cell.get("cell_metadata", {}).get("tags", [])


def part(cell, kind: str) -> nodes.Node | None:
    """A cell's ``source`` or ``output``, or None."""
    return next((n for n in cell.children if n.get("nb_element") == f"cell_code_{kind}"), None)


def opening(doctree) -> dict[str, nodes.paragraph]:
    """The paragraphs of a first cell that begin with a bold **Question.** or **Answer.**, by those words."""
    found = {}
    for paragraph in doctree.findall(nodes.paragraph):
        # markdown-it puts an empty text before what is bold
        while paragraph.children and not paragraph[0].astext():
            del paragraph[0]
        if paragraph.children and isinstance(paragraph[0], nodes.strong):
            word = paragraph[0].astext().rstrip(".: ").lower()
            if word in ("question", "answer") and word not in found:
                found[word] = paragraph
    return found


def prepare(app, doctree) -> None:
    """Sphinx's event for each document read: number its title, typeset its claims, fold its code, lift its first figure."""
    for raw in doctree.findall(nodes.raw):  # what stands between dollar signs in a claim
        if 'id="claim-' in raw.astext():
            raw.children = [nodes.Text(str(typeset(Markup(raw.astext()))))]
    docname = app.env.docname
    title = doctree.next_node(nodes.title)
    if title is not None and number(docname):
        title.insert(0, nodes.inline("", f"{number(docname)} ", classes=["chapter-number"]))
    if Path(app.env.doc2path(docname)).suffix != ".ipynb":
        return
    for word, paragraph in opening(doctree).items():
        paragraph["classes"].append(f"chapter-{word}")
    fold(doctree)
    lift(doctree)


def fold(doctree) -> None:
    """Fold the code of all cells but those of ideas into marks."""
    waiting: list[nodes.Node] = []
    last = None
    for cell in list(cells(doctree)):
        cell.attributes.pop("hide_mode", None)
        source, output = part(cell, "source"), part(cell, "output")
        if "idea" in tags(cell):
            cell["classes"].append("idea")
        elif source is not None:
            name = f"code-{cell['cell_index']}"
            source["ids"] = [name]
            # the page's code switch shows it there
            place = f'<div class="code-place" data-code="{name}"></div>'
            cell.replace(source, nodes.raw("", place, format="html"))
            waiting.append(source)
            cell["classes"].append("folded" if output is not None else "silent")
        if output is not None and waiting:
            cell.append(mark("", *waiting))
            waiting = []
        last = cell
    if waiting:  # nothing comes after them
        last.append(mark("", *waiting))
        last["classes"] = [name for name in last["classes"] if name != "silent"]


def lift(doctree) -> None:
    """Move the output of the cell tagged ``lead``, with its mark, to right under the opening."""
    first, lead = next(cells(doctree), None), next((c for c in cells(doctree) if "lead" in tags(c)), None)
    if lead is None or part(lead, "output") is None:
        return
    moved = nodes.container(nb_element="lead", classes=["cell", "lead"])
    for node in [part(lead, "output"), *(n for n in lead.children if isinstance(n, mark))]:
        lead.remove(node)
        moved += node
    if "folded" in lead["classes"]:
        lead["classes"].append("silent")
    said = opening(doctree).get("answer")
    if said is not None:
        said.replace_self([said, moved])
    else:
        first.parent.insert(first.parent.index(first), moved)
