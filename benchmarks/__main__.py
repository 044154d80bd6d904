"""Run every benchmark of this folder and keep the record; of those that are named only show it, or renew their part of it."""

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
    parser.add_argument(
        "--renew",
        action="store_true",
        help="put what the named ones find in the place of their old part of the record, made on this machine with these versions",
    )
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.names) - set(NAMES)):
        parser.error(f"no benchmark {', '.join(unknown)}: choose among {', '.join(NAMES)}")
    kept = _record.others(given.names) if given.renew and given.names else []
    rows = []
    for name in given.names or NAMES:
        print(f"== {name}", flush=True)
        benchmark = importlib.import_module(f"benchmarks.{name}")
        found = benchmark.main(**(benchmark.SMALL if given.small else {}))
        rows += [{**row, "of": name} for row in found]
    if (given.renew or not given.names) and not given.small:
        _record.write(sorted(kept + rows, key=lambda row: row["of"]))
        print(f"recorded in {_record.PATH}")


if __name__ == "__main__":
    main()
