"""The reference page holds every public name of the package, with its source and the chapters that use it."""

from __future__ import annotations

import pytest

from grokutils.book import reference

PAGE = "book/api"


@pytest.fixture(scope="module")
def html(site) -> str:
    return (site / f"{PAGE}.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", reference.modules())
def test_every_public_name_is_described(name, html):
    described = reference.names(name)
    assert described
    missing = [key for key in described if f'id="grokutils.{name}.{key}"' not in html]
    missing += [key for key in described if f'href="#grokutils.{name}.{key}"' not in html]  # in the summary
    assert missing == []


def test_functions_lead_to_the_chapters_that_use_them(html):
    users = reference.users()
    assert "book/3_networks/09_simulated_grokking" in users["grokutils.isolated.simulate"]
    _, entry = html.split('id="grokutils.isolated.simulate"', 1)
    assert 'href="3_networks/09_simulated_grokking.html"' in entry.split("Used in:", 1)[1][:2000]
    assert "_modules/grokutils/isolated/simulation.html#" in entry.split("</dt>", 1)[0]


def test_names_are_read_from_code_as_python_does():
    code = "from grokutils import isolated as iso, tasks\nfrom grokutils.symbolic import latex\n"
    code += "iso.velocity(E)\ntasks = tasks.modular(5)\nprint(latex(x), other.cost)"
    assert {
        "grokutils.isolated.velocity",
        "grokutils.tasks.modular",
        "grokutils.symbolic.latex",
    } <= reference._names(code)
    assert not any("cost" in name for name in reference._names(code))


def test_docstrings_keep_norms_and_indices_as_they_are():
    lines = ["The share |F_k| of E_ and *x*, see :func:`tasks.modular` and ``a_``."]
    reference.process_docstring(None, "module", "grokutils.tasks", None, None, lines)
    assert [line for line in lines if line] == [
        r"The share \|F_k\| of E\_ and \*x\*, see :func:`tasks.modular <grokutils.tasks.modular>` and ``a_``."
    ]


def test_one_entry_on_a_line_is_a_name_and_what_it_means():
    lines = [
        "Do.",
        "",
        "Parameters",
        "----------",
        "x : the value,",
        "    in full.",
        "",
        "Raises",
        "------",
        "ValueError",
        "    Bad.",
    ]
    reference.process_docstring(None, "method", "grokutils.a.b", None, None, lines)
    assert ":param x: the value," in lines
    assert ":raises ValueError: Bad." in lines
