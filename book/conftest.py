"""What nbval compares: all that a chapter says, but not the points that a figure draws, as it compares no pictures either."""

LIVE = "application/vnd.grokutils.live+json"


def pytest_collectstart(collector):
    """Numbers in texts are rounded so that two machines agree; points of a figure are not."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare = (*collector.skip_compare, LIVE)
