"""Claims: verdicts, what is refused, and what reaches the page."""

import html
import json

import numpy as np
import pytest
import sympy as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from grokutils import claims


def shown(capsys, **changed):
    """The text of one claim, as printed outside a notebook."""
    claims.claim(**{"name": "a-claim", "reported": "1", "measured": "2", "holds": True, **changed})
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("holds", "verdict"),
    [
        (True, "✓ holds:"),
        (False, "✗ fails:"),
        ("corrected", "≈ holds with a correction:"),
        ("untestable", "? not testable here:"),
        (np.bool_(True), "✓ holds:"),
        (np.float64(1) > 2, "✗ fails:"),
        (torch.tensor(True), "✓ holds:"),
        (torch.tensor([1.0, 2.0]).max() < 1, "✗ fails:"),
    ],
)
def test_verdicts(capsys, holds, verdict):
    assert shown(capsys, holds=holds).startswith(verdict)


@pytest.mark.parametrize(
    "holds",
    [
        "maybe",
        "True",
        "holds",
        "",
        1,
        0,
        1.0,
        None,
        [],
        [True],
        np.array([True, False]),
        np.float64(1),
        np.int64(1),
        torch.tensor([True]),
        torch.tensor(1),
        torch.tensor(0.5),
    ],
)
def test_verdicts_that_are_none(holds):
    with pytest.raises(ValueError, match=r'holds = .*must be True, False, "corrected" or "untestable"'):
        claims.claim("a-claim", reported="1", measured="2", holds=holds)


@pytest.mark.parametrize(
    "name", ["", "Upper-case", "two words", "under_score", "-a", "a--b", "a\n", None, 3.5]
)
def test_malformed_names(name):
    with pytest.raises(ValueError, match=r"name = .*lower-case words joined by hyphens"):
        claims.claim(name, reported="1", measured="2", holds=True)


def test_text_has_every_part(capsys):
    text = shown(
        capsys, name="fig6-rise", statement="It rises.", reported="1,000", measured="1,100", note="Late."
    )
    assert text == "✓ holds: It rises.\n  reported: 1,000\n  measured: 1,100\n  note: Late.\n"
    assert shown(capsys, name="fig6-rise") == "✓ holds: fig6 rise\n  reported: 1\n  measured: 2\n"
    assert "measured: 0.5" in shown(capsys, measured=0.5)


@given(
    text=st.text(st.sampled_from("<>&\"'abc "), min_size=1),
    part=st.sampled_from(["statement", "rule", "reported", "measured", "note"]),
)
def test_html_is_escaped(text, part):
    record = {
        "name": "a",
        "statement": "s",
        "rule": "u",
        "reported": "r",
        "measured": "m",
        "verdict": "fails",
        "note": "n",
    }
    plain = claims.as_html(record)
    escaped = claims.as_html({**record, part: text})
    assert html.escape(text) in escaped
    assert escaped.count("<") == plain.count("<")  # no tag came in
    assert escaped.count('"') == plain.count('"')  # no attribute either


def test_html_has_a_place_to_link_to_and_a_class_for_each_verdict():
    kinds = set()
    for verdict in claims.VERDICTS.values():
        record = {
            "name": "a-b",
            "statement": "s",
            "reported": "r",
            "measured": "m",
            "verdict": verdict,
            "note": "",
        }
        block = claims.as_html(record)
        assert 'id="claim-a-b"' in block
        assert "<dt>note</dt>" not in block
        assert f"{claims.MARKS[verdict]} {verdict}" in block
        kinds.add(block.split('class="claim claim-')[1].split('"')[0])
    assert len(kinds) == len(claims.VERDICTS)


def test_a_notebook_gets_the_record():
    shell = InteractiveShell.instance()
    try:
        with capture_output() as captured:
            shell.run_cell(
                "from grokutils import claims\nclaims.claim('a-b', reported='<r>', measured='m', holds=2 < 1)"
            )
        (output,) = captured.outputs
        record = output.data[claims.MIME]
        assert json.loads(json.dumps(record)) == {
            "name": "a-b",
            "kind": "study",
            "statement": "a b",
            "rule": "",
            "reported": "<r>",
            "measured": "m",
            "verdict": "fails",
            "note": "",
            "changes": [],
        }
        assert output.data["text/html"] == claims.as_html(record)
        assert output.data["text/plain"] == claims.as_text(record)
    finally:
        InteractiveShell.clear_instance()


def test_the_rule_its_changes_and_the_kind_are_kept(capsys):
    changes = [("at least 0.9", "the bound fell to 0.8", "fails became holds")]
    text = shown(capsys, kind="book", rule="at least 0.8", changes=changes)
    assert "  rule: at least 0.8\n" in text


@pytest.mark.parametrize("kind", ["proved", "", "Study", None])
def test_kinds_that_are_none(kind):
    with pytest.raises(ValueError, match=r"kind = .*must be one of 'study', 'slip', 'book'"):
        claims.claim("a", measured="2", holds=True, kind=kind)


@pytest.mark.parametrize("changes", [["text"], [("a", "b")], [("a", "b", "")], [("a", "b", 3)]])
def test_changes_that_are_not_three_texts(changes):
    with pytest.raises(ValueError, match=r"changes = .*first form, change, effect"):
        claims.claim("a", measured="2", holds=True, changes=changes)


@pytest.mark.parametrize("check", [True, np.bool_(True), torch.tensor(True), sp.true, sp.Eq(2, 2)])
def test_what_is_proved_is_shown(capsys, check):
    claims.proved("the-sum", "$1 + 1 = 2$", True, check)
    assert capsys.readouterr().out == "✓ proved: $1 + 1 = 2$\n"
    record = {"name": "the-sum", "kind": "proved", "statement": "1 < 2", "verdict": "proved"}
    assert 'id="claim-the-sum"' in claims.as_html(record)
    assert "1 &lt; 2" in claims.as_html(record)


@pytest.mark.parametrize("check", [False, np.bool_(False), torch.tensor(False), sp.false, sp.Eq(2, 3)])
def test_a_check_that_fails_stops_the_chapter(capsys, check):
    with pytest.raises(AssertionError, match="the-sum: check 2 of 3 failed: it is two"):
        claims.proved("the-sum", "it is two", True, check, True)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("checks", [(), (1,), ("True",), (None,), (sp.Symbol("x") > 0,), ([True],)])
def test_checks_that_are_no_truth_values(checks):
    with pytest.raises(ValueError, match=r"checks.*truth value"):
        claims.proved("the-sum", "it is two", *checks)
