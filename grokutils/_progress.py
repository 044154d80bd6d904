"""Progress bars for people who watch, and only for them."""

from __future__ import annotations

import os
import sys

from tqdm import tqdm


def watched() -> bool:
    """Whether somebody sees this process's standard error as it comes: a terminal, Jupyter or Colab.

    Notebooks that are executed headless (papermill, nbclient, nbval) are not watched, so that no bar ends up
    in their outputs.
    """
    return sys.stderr.isatty() or "JPY_SESSION_NAME" in os.environ or "google.colab" in sys.modules


def bar(total: int, label: str, show: bool = True) -> tqdm:
    """A tqdm bar on standard error, silent when ``show`` is false or nobody watches."""
    return tqdm(total=total, desc=label, disable=not (show and watched()), leave=False)
