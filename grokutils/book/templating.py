"""HTML from the templates beside this file: what is put in is escaped, unless it is marked as HTML."""

from __future__ import annotations

import re

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

MATHEMATICS = re.compile(r"(?<![\\$])\$([^$\n]+)\$")


def typeset(text: str) -> Markup:
    """HTML with its $…$ as Sphinx writes inline mathematics."""
    equation = r'<span class="math notranslate nohighlight">\\(\1\\)</span>'
    return Markup(MATHEMATICS.sub(equation, str(escape(text))))


LOADER = PackageLoader("grokutils.book")
ENVIRONMENT = Environment(loader=LOADER, autoescape=True, trim_blocks=True, lstrip_blocks=True)
ENVIRONMENT.filters["typeset"] = typeset


def filled(template: str, **values) -> str:
    """The HTML of one template."""
    return ENVIRONMENT.get_template(template).render(values)
