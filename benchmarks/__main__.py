"""Run every benchmark of this folder and keep the record, or only show those that are named."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from benchmarks import _record

NAMES = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"any of {', '.join(NAMES)}; all where left out"
    )
    parser.add_argument(
        "--small",
        action="store_true",
        help="at the smallest sizes, to see that they run; nothing is recorded",
    )
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.names) - set(NAMES)):
        parser.error(f"no benchmark {', '.join(unknown)}: choose among {', '.join(NAMES)}")
    rows = []
    for name in given.names or NAMES:
        print(f"== {name}", flush=True)
        benchmark = importlib.import_module(f"benchmarks.{name}")
        rows += benchmark.main(**(benchmark.SMALL if given.small else {}))
    if not given.names and not given.small:
        _record.write(rows)
        print(f"recorded in {_record.PATH}")


if __name__ == "__main__":
    main()
