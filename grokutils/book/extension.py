"""The book's Sphinx extension: what is executed when, assets without a network, claims and tables."""

from __future__ import annotations

import os
import shutil
from importlib.metadata import distribution
from pathlib import Path

import plotly
from sphinx.search import languages

from ..figures import page
from . import address, chapters, inputs, reference, rendering, search, standalone, tables

STANDALONE = "standalone"  # where the built site has its stand-alone notebooks


def setup(app) -> dict:
    """Connect the parts."""
    app.add_node(tables.placeholder)
    app.add_directive("scorecard", tables.Scorecard)
    app.add_directive("chapters", tables.Chapters)
    app.add_directive("execution", tables.Execution)
    app.add_directive("benchmarks", tables.Benchmarks)
    app.add_directive("modules", reference.Modules)
    app.connect("autodoc-process-docstring", reference.process_docstring)
    languages["en"] = search.English
    app.connect("config-inited", _configure, priority=900)
    app.connect("builder-inited", _copy_assets)
    app.connect("env-purge-doc", lambda app, env, name: rendering.claims_of(env).pop(name, None))
    app.connect("doctree-read", tables.state_duration)
    app.connect("env-updated", tables.outdated)
    app.connect("doctree-resolved", tables.fill)
    app.connect("html-page-context", _scripts, priority=900)
    app.connect("html-page-context", _offer_standalone, priority=900)
    return {"version": "1", "env_version": 1, "parallel_read_safe": False, "parallel_write_safe": True}


def cache(root: Path = inputs.ROOT) -> Path:
    """Where executed chapters are kept: a folder for each state of the science code and the environment.

    Its name is why no page is ever stale: jupyter-cache alone looks only at a notebook's code cells.
    """
    return root / "_build" / "executed" / inputs.science(root)


def _configure(app, config) -> None:
    config.nb_execution_cache_path = str(cache())
    if os.environ.get("BOOK_EXECUTE") == "off":  # show the outputs that the repository holds
        config.nb_execution_mode = "off"
    options = dict(config.html_theme_options)
    where = address.of_build()
    if where is None:  # no address yet: no buttons that lead nowhere
        options.update(launch_buttons={}, use_repository_button=False, use_source_button=False)
        options.pop("repository_url", None)
    else:
        options.update(
            repository_url=f"https://github.com/{where.repository}", repository_branch=where.branch
        )
    config.html_theme_options = options


def _copy_assets(app) -> None:
    """MathJax and plotly come from installed packages, so that neither the repository nor a CDN holds them."""
    if app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    mathjax = Path(distribution("django-static-mathjax").locate_file("mathjax/static/mathjax"))
    es5 = mathjax / "es5"
    target = static / "mathjax"
    if not (target / "tex-mml-chtml.js").exists():
        for part in ("output/chtml/fonts", "input/tex/extensions"):
            shutil.copytree(es5 / part, target / part, dirs_exist_ok=True)
        shutil.copy2(es5 / "tex-mml-chtml.js", target)
        licences = [p for p in (mathjax / "LICENSE", mathjax.parent / "LICENSE") if p.exists()]
        for licence in licences[:1]:
            shutil.copy2(licence, target)
    standalone.write(chapters.notebooks(), Path(app.outdir) / STANDALONE)
    script = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    if not (static / script.name).exists():
        shutil.copy2(script, static)
    for name in ("figures.css", "figures.js"):
        static.joinpath(name).write_text(page.asset(name), encoding="utf-8")


def _scripts(app, pagename, templatename, context, doctree) -> None:
    """No script that would ask a CDN; a bibliography that is a list."""
    if "body" in context:  # docutils' roles for a bibliography are no list to a screen reader
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')
    context["script_files"] = [
        s for s in context["script_files"] if "thebe" not in f"{s.filename} {s.attributes}".lower()
    ]


def _offer_standalone(app, pagename, templatename, context, doctree) -> None:
    """A button for the stand-alone notebook, beside Colab's, on every chapter's page."""
    if f"{pagename}.ipynb" in (path.relative_to(inputs.ROOT).as_posix() for path in chapters.notebooks()):
        link = f"{STANDALONE}/{pagename.rpartition('/')[2]}.ipynb"
        context["header_buttons"].append(
            {
                "type": "link",
                "url": context["pathto"](link, resource=True),
                "text": "",
                "tooltip": "Download as one file that runs alone: upload it to Colab, or open it in an empty folder",
                "icon": "fas fa-box-archive",
                "label": "standalone-button",
            }
        )
