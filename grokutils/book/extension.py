"""The book's Sphinx extension: what is executed when, assets without a network, claims and tables."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import plotly
from pybtex.plugin import register_plugin
from sphinx.search import languages

from ..figures import page
from . import (
    address,
    cells,
    cite,
    citing,
    fonts,
    head,
    inputs,
    landing,
    mathjax,
    offers,
    pictures,
    reference,
    rendering,
    scorecard,
    search,
    styles,
    tables,
)

MADE = {  # what stands where a directive of that name does, once every document is read
    "scorecard": scorecard.scorecard,
    "rules": scorecard.rules,
    "cards": landing.cards,
    "landing-live": lambda app, docname, node: {},
    "execution": tables.execution,
    "citation": cite.citation,
    "downloads": cite.downloads,
    "source": cite.source,
    "colab": cite.colab,
}
MATHJAX = (  # what a page with an equation asks for, and the extensions that TeX may ask for
    "startup.js",
    "core.js",
    "input/tex.js",
    "input/tex/extensions",
    "output/chtml.js",
    "output/chtml/fonts",
    "a11y/assistive-mml.js",
)


def setup(app) -> dict:
    """Connect the parts."""
    app.add_node(tables.placeholder)
    app.add_node(cells.mark, html=(cells.visit_mark, cells.depart_mark))
    for name in MADE:
        app.add_directive(name, tables.Made)
    app.add_directive("finding", landing.Finding)
    app.add_directive("benchmarks", tables.Benchmarks)
    app.add_directive("modules", reference.Modules)
    app.connect("autodoc-process-docstring", reference.process_docstring)
    register_plugin("pybtex.style.formatting", "book", citing.AuthorYear)
    languages["en"] = search.English
    # claims bring equations to pages that have none of their own; head.slim takes out
    app.set_html_assets_policy("always")
    app.connect("config-inited", _configure, priority=900)
    app.connect("builder-inited", _copy_assets)
    app.connect("env-purge-doc", lambda app, env, name: rendering.claims_of(env).pop(name, None))
    app.connect("doctree-read", cells.prepare, priority=400)  # before Sphinx collects the titles
    app.connect("doctree-read", tables.state_duration)
    app.connect("env-updated", tables.outdated)
    app.connect("doctree-resolved", tables.filler({**MADE, "finding": landing.finding}))
    app.connect("doctree-resolved", offers.write, priority=900)
    app.connect("html-page-context", _list_of_references, priority=900)
    app.connect("html-page-context", offers.buttons, priority=900)
    app.connect("html-page-context", search.scripts, priority=900)
    app.connect("build-finished", search.write_texts)
    app.connect("build-finished", styles.thin)
    app.connect("html-page-context", head.describe, priority=901)
    app.connect("html-page-context", head.slim, priority=901)
    return {"version": "1", "env_version": 1, "parallel_read_safe": False, "parallel_write_safe": True}


def _configure(app, config) -> None:
    config.nb_execution_cache_path = str(inputs.cache())
    if os.environ.get("BOOK_EXECUTE") == "off":  # show the outputs that the repository holds
        config.nb_execution_mode = "off"
    options = config.html_theme_options
    where = address.of_build()
    if where is None:  # no address yet: no buttons that lead nowhere
        options.update(use_repository_button=False, use_source_button=False)
        options.pop("repository_url", None)
    else:
        address_of = f"https://github.com/{where.repository}"
        options.update(repository_url=address_of, repository_branch=where.branch)
        config.html_baseurl = head.site_address()


def _copy_assets(app) -> None:
    """MathJax and plotly come from installed packages, so that neither the repository nor a CDN holds them."""
    if app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    mathjax.copy(static / "mathjax", MATHJAX)
    fonts.write(static / "fonts")
    pictures.write(app)
    cite.copy(app)
    script = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    if not (static / script.name).exists():
        shutil.copy2(script, static)
    for name in ("figures.css", "figures.js"):
        static.joinpath(name).write_text(page.asset(name), encoding="utf-8")


def _list_of_references(app, pagename, templatename, context, doctree) -> None:
    if "body" in context:  # docutils' roles for a bibliography are no list to a screen reader
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')
