"""The command line: ``python -m grokutils.experiments price [--path FILE]`` or ``… delay predict`` and then ``… delay train``.

Of the delay's design ``--first N`` goes through the first N cases only."""

import argparse

import torch

from . import delay, price
from .running import run


def main(arguments: list[str] | None = None) -> None:
    """Run one experiment, or what is left of it."""
    parser = argparse.ArgumentParser(prog="grokutils.experiments", description=__doc__)
    names = parser.add_subparsers(dest="name", required=True)
    of_price = names.add_parser("price", help="price curves")
    of_price.add_argument(
        "--path", help="the records' file; the one that the book reads where it is left out"
    )
    of_delay = names.add_parser("delay", help="predictions of the delay, then the runs that test them")
    of_delay.add_argument("what", choices=delay.PATHS)
    of_delay.add_argument("--first", type=int, help="how many cases to go through; all where it is left out")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if given.name == "delay":
        delay.main(given.what, first=given.first)
    else:
        run(price.CASES, price.measure, given.path or price.PATH)


if __name__ == "__main__":
    main()
