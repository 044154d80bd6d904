"""Commands for those who make the book: ``python -m grokutils.book --help`` lists them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import address, chapters, cover, execution, inputs, press


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m grokutils.book", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("execute", help="execute the chapters that the build's cache lacks")
    commands.add_parser("refresh", help="execute again, in place, the chapters whose code changed")
    for kind, text in (
        ("current", "whether the built site is of the present files"),
        ("built", "note that it is"),
    ):
        commands.add_parser(kind, help=text).add_argument("site", type=Path)
    for kind, text in (("zip", "pack the built site"), ("pdf", "print the book that `singlehtml` built")):
        made = commands.add_parser(kind, help=text)
        made.add_argument("site", type=Path)
        made.add_argument("target", type=Path)
    commands.add_parser("cover", help="simulate and draw the cover anew")
    stamp = commands.add_parser("stamp", help="write the repository's address wherever it stands")
    stamp.add_argument("address", nargs="?", help="OWNER/NAME or OWNER/NAME@BRANCH")
    stamp.add_argument(
        "--check", action="store_true", help="only tell where it disagrees with pyproject.toml"
    )
    given = parser.parse_args(arguments)
    if given.command == "stamp":
        return _stamp(stamp, given)
    if given.command == "current":
        return 0 if _current(given.site) else 1
    if given.command == "built":
        _noted(given.site).write_text(inputs.site(), encoding="utf-8")
        return 0
    if given.command in ("zip", "pdf"):
        given.target.parent.mkdir(parents=True, exist_ok=True)
        if given.command == "zip":
            press.pack(given.site, given.target)
        else:
            press.print_pdf(press.whole(given.site), given.target)
        print(given.target)
        return 0
    if given.command == "cover":
        cover.draw(address.ROOT / "book" / "_static" / "cover.png")
        return 0
    work = {"execute": execution.fill_cache, "refresh": execution.refresh}[given.command]
    return 1 if work(chapters.notebooks()) else 0


def _noted(site: Path) -> Path:
    """The file that says of which files ``site`` was built."""
    return site.with_suffix(".inputs")


def _current(site: Path) -> bool:
    """Whether ``site`` was built of the present files. If not, the note goes: the build to come may fail half-way."""
    noted = _noted(site)
    if (
        noted.is_file()
        and (site / "index.html").is_file()
        and noted.read_text(encoding="utf-8") == inputs.site()
    ):
        return True
    noted.unlink(missing_ok=True)
    return False


def _stamp(parser: argparse.ArgumentParser, given) -> int:
    if given.check == (given.address is not None):
        parser.error("give an address, or --check")
    if given.check:
        wrong = address.disagreements(chapters.notebooks())
        print("\n".join(wrong) or f"every copy says {address.stored().repository}")
        return 1 if wrong else 0
    try:
        where = address.Address.parsed(given.address)
    except ValueError as error:
        parser.error(str(error))
    for path in address.stamp(where, chapters.notebooks()):
        print(f"stamped {path.relative_to(address.ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
