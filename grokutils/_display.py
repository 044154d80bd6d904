"""Rich output where a notebook shows it, plain text elsewhere."""

from __future__ import annotations


def publish(bundle: dict, metadata: dict | None = None) -> None:
    """Show a MIME bundle in the running notebook, or print its text/plain part outside one."""
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        get_ipython = lambda: None  # noqa: E731
    if get_ipython() is None:
        print(bundle["text/plain"])
    else:
        display(bundle, raw=True, metadata=metadata or {})
