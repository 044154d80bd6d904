"""What nbval compares: all that a chapter says, but not the points that a figure draws, as it compares no pictures either."""

from functools import cache

from grokutils.book.chapters import record

LIVE = "application/vnd.grokutils.live+json"


def pytest_collectstart(collector):
    """Numbers in texts are rounded so that two machines agree; points of a figure are not."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare = (*collector.skip_compare, LIVE)


@cache
def seconds(path):
    """How long a chapter took when it was last executed."""
    return record(path).get("seconds", 0) if path.suffix == ".ipynb" else 0


def pytest_collection_modifyitems(items):
    """Long chapters first, so that none is left to run alone at the end."""
    items.sort(key=lambda item: -seconds(item.path))
