"""Run every benchmark of this folder and keep the record, or only show those named: ``python -m benchmarks [NAME …]``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from benchmarks import _record

if __name__ == "__main__":
    names = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))
    chosen = sys.argv[1:] or names
    if unknown := sorted(set(chosen) - set(names)):
        sys.exit(f"no benchmark {', '.join(unknown)}: choose among {', '.join(names)}")
    rows = []
    for name in chosen:
        print(f"== {name}", flush=True)
        rows += importlib.import_module(f"benchmarks.{name}").main()
    if chosen == names:
        _record.write(rows)
        print(f"recorded in {_record.PATH}")
