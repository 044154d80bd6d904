"""Sentences and tables that cells write."""

import pytest

from grokutils import text


def test_a_table_is_markdown_with_one_row_a_line(capsys):
    text.table({"$w$": ["1e-4", "1e-3"], "runs": [5, 8]})
    assert capsys.readouterr().out.splitlines() == [
        "| $w$ | runs |",
        "| --- | --- |",
        "| 1e-4 | 5 |",
        "| 1e-3 | 8 |",
    ]


def test_a_bar_in_a_cell_does_not_end_it(capsys):
    text.table({"a": ["|x|"]})
    assert r"\|x\|" in capsys.readouterr().out


@pytest.mark.parametrize("columns", [{}, {"a": [1], "b": []}])
def test_columns_must_be_equally_long(columns):
    with pytest.raises(ValueError, match="equally long"):
        text.table(columns)
