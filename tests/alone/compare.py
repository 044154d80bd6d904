"""Compare the recorded versions of Colab with those of a ``pip freeze`` on standard input; exit 1 if they differ."""

from __future__ import annotations

import re
import sys
from pathlib import Path

STANDS_IN = {"torch"}  # our own version serves in its place: see colab.txt


def versions(text: str) -> dict[str, str]:
    """Distributions and their versions, of lines ``name==version``."""
    found = re.findall(r"^([\w.-]+)==([^\s+;]+)", text, re.M)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def differences(recorded: str, shipped: str) -> list[str]:
    """What Colab now has otherwise, in words."""
    now = versions(shipped)
    return [
        f"{name}: recorded {version}, Colab has {now.get(name, 'none')}"
        for name, version in versions(recorded).items()
        if name not in STANDS_IN and now.get(name) != version
    ]


if __name__ == "__main__":
    here = Path(__file__).parent
    shipped = sys.stdin.read()
    if not versions(shipped):
        sys.exit("no versions on standard input")
    found = differences("".join(path.read_text() for path in sorted(here.glob("colab*.txt"))), shipped)
    print("\n".join(found) or "Colab is as recorded")
    sys.exit(bool(found))
