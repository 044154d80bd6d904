"""Style sheets that others bring, without the rules that no page of the book can match."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import tinycss2

SHEETS = ("pydata-sphinx-theme.css", "sphinx-design.min.css")  # three quarters of all styles, mostly unused
LIBRARIES = ("mathjax", "plotly")  # scripts that set no class of these sheets
WORD = re.compile(r"[\w-]+")
ICONS = re.compile(r"(?:\.fa[\w-]*(?:::?before)?,?)+\{[^{}]*\}")  # letters of a font that no page asks for
GROUPS = ("media", "supports")  # rules that hold rules


def thin(app, exception) -> None:
    """Sphinx's event at the end: drop from the sheets what no page and no script names."""
    if exception is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    sheets = [path for name in SHEETS for path in out.glob(f"_static/**/{name}")]
    if sheets:
        words = named(out)
        for sheet in sheets:
            css = ICONS.sub("", sheet.read_text(encoding="utf-8"))
            sheet.write_text(without_unused(css, words), encoding="utf-8")


def named(out: Path) -> set[str]:
    """Every word of a built site's pages and scripts: a class or an id that is none of them is on no element."""
    words: set[str] = set()
    for path in [*out.rglob("*.html"), *out.glob("_static/**/*.js")]:
        if not any(name in path.as_posix() for name in LIBRARIES):
            words.update(WORD.findall(path.read_text(encoding="utf-8")))
    return words


def without_unused(css: str, words: set[str]) -> str:
    """A style sheet less the selectors that ask for a class or an id that is not among ``words``."""
    return tinycss2.serialize(list(_kept(tinycss2.parse_stylesheet(css, skip_comments=True), words)))


def _kept(rules: list, words: set[str]) -> Iterator:
    for rule in rules:
        if rule.type == "at-rule" and rule.lower_at_keyword in GROUPS:
            inner = tinycss2.parse_rule_list(rule.content, skip_comments=True)
            rule.content = list(_kept(inner, words))
            if any(part.type != "whitespace" for part in rule.content):
                yield rule
        elif rule.type == "qualified-rule":
            selectors = [s for s in _selectors(rule.prelude) if _may_match(s, words)]
            if selectors:
                comma = tinycss2.ast.LiteralToken(rule.source_line, rule.source_column, ",")
                rule.prelude = [token for s in selectors for token in (*s, comma)][:-1]
                yield rule
        else:
            yield rule


def _selectors(prelude: list) -> list[list]:
    """The selectors that commas part."""
    found: list[list] = [[]]
    for token in prelude:
        if token.type == "literal" and token.value == ",":
            found.append([])
        else:
            found[-1].append(token)
    return found


def _may_match(selector: list, words: set[str]) -> bool:
    """Whether all classes and ids that a selector asks for exist; what stands in :not(…) and the like does not count."""
    for before, token in zip([None, *selector], selector, strict=False):
        if token.type == "hash" and token.value not in words:
            return False
        if token.type == "ident" and before == "." and token.value not in words:
            return False
    return True
