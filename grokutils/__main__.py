"""The command line: ``python -m grokutils list | describe | run | sweep | status | collect | report``."""

import importlib.util
import sys


def main() -> None:
    """Run one command, if the packages that it needs are here."""
    needed = ("distributed", "nbconvert", "papermill", "pyarrow", "rich", "typer", "yaml")
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        sys.exit(f'The command line needs {", ".join(missing)}: pip install "grokutils[rerun]"')
    from .book.rerun.cli import app

    app(prog_name="grokutils")


if __name__ == "__main__":
    main()
