"""Sentences and tables that a cell writes into its chapter, so that every number in the text comes from a cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ._display import publish


def say(markdown: str) -> None:
    """Show ``markdown`` (mathematics between dollar signs) as part of the chapter's text."""
    publish({"text/markdown": markdown, "text/plain": markdown})


def table(columns: Mapping[str, Sequence[object]]) -> None:
    """Show a table: heading → its cells, from top to bottom, as text or Markdown.

    Raises
    ------
    ValueError
        No column, or columns of different lengths.
    """
    lengths = {len(cells) for cells in columns.values()}
    if len(lengths) != 1:
        raise ValueError(
            f"columns have lengths {sorted(lengths)}: must be at least one column, all equally long"
        )
    rows = [list(columns), ["---"] * len(columns), *zip(*columns.values(), strict=True)]
    say("\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows))
