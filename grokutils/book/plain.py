"""Chapters as notebooks that any reader understands: the text of Sphinx's resolved document as plain Markdown.

Theorems, equation and figure numbers, citations and references are those of the page; code cells stay as they are.
"""

from __future__ import annotations

import copy
import re
import uuid
from collections.abc import Callable
from urllib.parse import urljoin

from docutils import nodes

from . import cells

SPECIAL = re.compile(r"([\\`*_\[\]<>$])")
SILENT = (nodes.comment, nodes.target, nodes.substitution_definition, nodes.Invisible, nodes.system_message)


class Writer:
    """Markdown of resolved nodes.

    Parameters
    ----------
    numbers : Sphinx's numbers in this document: {"figure": {id: (3,)}, "theorem": …, "displaymath": …}.
    base : the address of the document's published page, against which its links are resolved; empty if there is
        none, and then links inside the book become plain text.
    """

    def __init__(self, numbers: dict, base: str = "") -> None:
        self.numbers, self.base = numbers, base

    def blocks(self, node: nodes.Node, level: int = 0) -> list[str]:
        """The children of ``node`` as blocks of Markdown, one after the other."""
        return [text for child in node.children for text in self.block(child, level)]

    def block(self, node: nodes.Node, level: int = 0) -> list[str]:
        """One node as blocks of Markdown; ``level`` is the number of sections around it."""
        if isinstance(node, nodes.Element) and node.get("realtype"):
            return self._named(node, level)
        write: Callable | None = getattr(self, f"_{type(node).__name__}", None)
        if write is not None:
            return write(node, level)
        if isinstance(node, SILENT):
            return []
        if isinstance(node, nodes.Admonition | nodes.block_quote) or "admonition" in node.get("classes", ()):
            return self._quote(self.blocks(node, level))
        if isinstance(node, nodes.Inline | nodes.Text | nodes.image):
            return [self.inline(node)]
        return self.blocks(node, level)

    # Blocks

    def _section(self, node, level):
        return self.blocks(node, level + 1)

    def _title(self, node, level):
        if isinstance(node.parent, nodes.section):
            return [f"{'#' * max(1, level)} {self._line(node)}"]
        return [f"**{self._line(node)}**"]

    def _rubric(self, node, level):
        return [f"**{self._line(node)}**"]

    def _paragraph(self, node, level):
        return [text] if (text := self._line(node)) else []

    def _math_block(self, node, level):
        text = node.astext().strip()
        if number := self._number("displaymath", node) or node.get("number"):
            # a tag inside an environment that aligns must stand in its last line, so the whole is wrapped
            if "\\\\" in text and "\\begin" not in text:
                text = f"\\begin{{aligned}}{text}\\end{{aligned}}"
            return [f"$$\n{text} \\tag{{{number}}}\n$$"]
        return [text if node.get("nowrap") else f"$$\n{text}\n$$"]

    def _literal_block(self, node, level):
        return [f"```{node.get('language', '')}\n{node.astext()}\n```"]

    def _raw(self, node, level):
        text = node.astext()
        return [text] if "html" in node.get("format", "").split() and "<script" not in text else []

    def _bullet_list(self, node, level):
        return [self._items(node, level, lambda at: "- ")]

    def _enumerated_list(self, node, level):
        return [self._items(node, level, lambda at: f"{at + node.get('start', 1)}. ")]

    def _items(self, node, level, mark) -> str:
        made = []
        for at, item in enumerate(node.children):
            lead = mark(at)
            text = "\n\n".join(self.blocks(item, level)).replace("\n", "\n" + " " * len(lead))
            made.append(lead + text)
        return "\n".join(made)

    def _definition_list(self, node, level):
        made = []
        for item in node.findall(nodes.definition_list_item):
            terms = ", ".join(self._line(term) for term in item.findall(nodes.term))
            (definition,) = item.findall(nodes.definition)
            made.append(f"**{terms}**: " + "\n\n".join(self.blocks(definition, level)))
        return made

    def _quote(self, blocks: list[str]) -> list[str]:
        lines = "\n\n".join(blocks).split("\n")
        return ["\n".join(f"> {line}".rstrip() for line in lines)]

    def _table(self, node, level):
        rows = [
            ["<br>".join(self.blocks(entry)).replace("\n", " ").replace("|", "\\|") for entry in row.children]
            for row in node.findall(nodes.row)
        ]
        rows.insert(1, ["---"] * len(rows[0]))
        return ["\n".join(f"| {' | '.join(row)} |" for row in rows)]

    def _figure(self, node, level):
        images = [self.inline(image) for image in node.findall(nodes.image)]
        return images + [text for c in node.findall(nodes.caption) for text in self._caption(c, level)]

    def _caption(self, node, level):
        number = self._number("figure", node.parent)
        return [f"**Fig. {number}.** {self._line(node)}" if number else f"*{self._line(node)}*"]

    def _dropdown_main(self, node, level):
        title, *rest = node.children
        body = "\n\n".join(text for child in rest for text in self.block(child, level))
        return [f"<details><summary>{title.astext()}</summary>\n\n{body}\n\n</details>"]

    # sphinx-proof: theorems and the like

    def _named(self, node, level):
        title, *rest = node.children
        head = f"{node['realtype'].title()} {self._number(node['countertype'], node)}".strip()
        said = self._line(title).strip()
        body = [text for child in rest for text in self.block(child, level)]
        return self._quote([f"**{head}** {said}".rstrip(), *body])

    # Text in a line

    def _line(self, node) -> str:
        text = "".join(self.inline(child) for child in node.children)
        return " ".join(text.split(" ")).strip()

    def inline(self, node) -> str:
        """One node inside a paragraph."""
        if isinstance(node, nodes.Text):
            return SPECIAL.sub(r"\\\1", node.astext())
        if isinstance(node, nodes.math):
            return f"${node.astext().strip()}$"
        if isinstance(node, nodes.literal):
            return f"`{node.astext()}`"
        if isinstance(node, nodes.strong | nodes.emphasis):
            inside = "".join(map(self.inline, node.children)).strip()
            mark = "**" if isinstance(node, nodes.strong) else "*"
            return f"{mark}{inside}{mark}" if inside else ""
        if isinstance(node, nodes.raw):
            return node.astext() if "html" in node.get("format", "").split() else ""
        if isinstance(node, nodes.image):
            link = self._address(node.get("uri", ""))
            return f"![{node.get('alt', '')}]({link})" if link else f"*{node.get('alt', '')}*"
        inside = "".join(map(self.inline, node.children))
        if isinstance(node, nodes.reference) and (link := self._address(node.get("refuri", ""))):
            return f"[{inside}]({link})"
        if isinstance(node, nodes.superscript | nodes.subscript):
            tag = "sup" if isinstance(node, nodes.superscript) else "sub"
            return f"<{tag}>{inside}</{tag}>"
        return "" if isinstance(node, SILENT) else inside

    def _address(self, link: str) -> str:
        """An address that leads somewhere from anywhere, or nothing."""
        if re.match(r"[a-z]+:", link):
            return link
        return urljoin(self.base, link) if self.base and link else ""

    def _number(self, kind: str, node) -> str:
        known = self.numbers.get(kind, {})
        for name in node.get("ids", ()):
            if name in known:
                return ".".join(map(str, known[name]))
        return ""


def notebook(source: dict, doctree: nodes.document, numbers: dict, base: str = "") -> dict:
    """A copy of the notebook ``source`` with the text of its resolved page between its code cells.

    Raises
    ------
    RuntimeError
        The page lacks one of the notebook's code cells, or has them in another order.
    """
    made = copy.deepcopy(source)
    code = {at: cell for at, cell in enumerate(made["cells"]) if cell["cell_type"] == "code"}
    writer, found, text, seen = Writer(numbers, base), [], [], []

    def flush() -> None:
        if text:
            body = "\n\n".join(text)
            name = uuid.uuid5(uuid.NAMESPACE_OID, f"{len(found)} {body}").hex[:8]
            cell = {"cell_type": "markdown", "id": name, "metadata": {}, "source": body.splitlines(True)}
            found.append(cell)
            text.clear()

    def walk(node, level: int) -> None:
        for child in node.children:
            kind = child.get("nb_element") if isinstance(child, nodes.Element) else None
            if kind == "cell_code":
                flush()
                seen.append(child["cell_index"])
                found.append(fold(code[child["cell_index"]]))
                text.extend(captions(child, writer))
            elif kind == "lead":
                continue  # the cell itself stands where the notebook has it
            elif isinstance(child, nodes.section) or kind is not None or type(child) is nodes.container:
                walk(child, level + isinstance(child, nodes.section))
            else:
                text.extend(writer.block(child, level))

    walk(doctree, 0)
    flush()
    expected = [at for at, cell in code.items() if "".join(cell["source"]).strip()]
    if seen != expected:
        raise RuntimeError(f"the page has cells {seen}, the notebook {expected}")
    made["cells"] = found
    return made


def captions(cell, writer: Writer) -> list[str]:
    """The numbered captions of a cell's figures, which for the lead stand elsewhere."""
    outputs = [cell]
    if "lead" in cells.tags(cell):
        outputs += [n for n in cell.document.findall(nodes.container) if n.get("nb_element") == "lead"]
    found = [caption for output in outputs for caption in output.findall(nodes.caption)]
    return [line for caption in found for line in writer.block(caption)]


def fold(cell: dict) -> dict:
    """A code cell, folded in JupyterLab and in Colab unless its code is the idea."""
    if "idea" not in cell["metadata"].get("tags", []):
        cell["metadata"]["jupyter"] = {"source_hidden": True}
        cell["metadata"]["cellView"] = "form"
    return cell
