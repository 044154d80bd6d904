"""Commands for those who make the book: ``python -m grokutils.book --help`` lists them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import address, chapters, cover, execution, inputs, press

COMMANDS = {  # what each is for, and the paths that it takes
    "execute": ("execute the chapters that the build's cache lacks", ()),
    "refresh": ("execute again, in place, the chapters whose code changed", ()),
    "current": ("whether the built site is of the present files", ("site",)),
    "built": ("note that it is", ("site",)),
    "zip": ("pack the built site", ("site", "target")),
    "pdf": ("print the book that `singlehtml` built", ("site", "target")),
    "cover": ("simulate and draw the cover anew", ()),
    "stamp": ("write the repository's address wherever it stands", ()),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m grokutils.book", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    made = {name: commands.add_parser(name, help=text) for name, (text, _) in COMMANDS.items()}
    for name, (_, paths) in COMMANDS.items():
        for path in paths:
            made[name].add_argument(path, type=Path)
    stamp = made["stamp"]
    stamp.add_argument("address", nargs="?", help="OWNER/NAME or OWNER/NAME@BRANCH")
    stamp.add_argument("--check", action="store_true", help="only tell which disagree with pyproject.toml")
    given = parser.parse_args(arguments)
    match given.command:
        case "execute":
            return 1 if execution.fill_cache(chapters.notebooks()) else 0
        case "refresh":
            return 1 if execution.refresh(chapters.notebooks()) else 0
        case "current":
            return 0 if _current(given.site) else 1
        case "built":
            given.site.with_suffix(".inputs").write_text(inputs.site(), encoding="utf-8")
        case "zip":
            press.pack(given.site, given.target)
            print(given.target)
        case "pdf":
            press.print_pdf(press.whole(given.site), given.target)
            print(given.target)
        case "cover":
            cover.draw(address.ROOT / "book" / "_static" / "cover.png")
        case "stamp":
            return _stamp(stamp, given)
    return 0


def _current(site: Path) -> bool:
    """Whether ``site`` was built of the present files. If not, the note goes: the build to come may fail half-way."""
    noted = site.with_suffix(".inputs")
    there = noted.is_file() and (site / "index.html").is_file()
    if there and noted.read_text(encoding="utf-8") == inputs.site():
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
