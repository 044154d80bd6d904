"""Claims: verdicts, what is refused, and what reaches the page."""

import html
import json

import numpy as np
import pytest
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
    part=st.sampled_from(["statement", "reported", "measured", "note"]),
)
def test_html_is_escaped(text, part):
    record = {
        "name": "a",
        "statement": "s",
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
            "statement": "a b",
            "reported": "<r>",
            "measured": "m",
            "verdict": "fails",
            "note": "",
        }
        assert output.data["text/html"] == claims.as_html(record)
        assert output.data["text/plain"] == claims.as_text(record)
    finally:
        InteractiveShell.clear_instance()
