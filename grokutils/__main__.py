"""The command line: ``python -m grokutils list | describe | run | sweep | status | collect | report``."""

import importlib.util
import sys


def main() -> None:
    """Run one command, if the packages that it needs are here."""
    needed = ("distributed", "nbconvert", "papermill", "pyarrow", "typer", "yaml")
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        sys.exit(f'The command line needs {", ".join(missing)}: pip install "grokutils[rerun]"')
    for stream in (sys.stdout, sys.stderr):  # a console that has no λ shows "?", not a traceback
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        from .book.rerun.cli import app

        app(prog_name="grokutils")
    except KeyboardInterrupt:  # in the first moments, while Python still reads its files
        sys.exit(130)


if __name__ == "__main__":
    main()
