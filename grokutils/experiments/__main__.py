"""The command line: ``python -m grokutils.experiments price [--path FILE]``, or ``… delay predict`` and then ``… delay train``; so ``deep`` and ``noise``."""

import argparse

import torch

from . import deep, delay, noise, price
from .running import run


def main(arguments: list[str] | None = None) -> None:
    """Run one experiment, or what is left of it."""
    parser = argparse.ArgumentParser(prog="grokutils.experiments", description=__doc__)
    names = parser.add_subparsers(dest="name", required=True)
    of_price = names.add_parser("price", help="price curves")
    of_price.add_argument(
        "--path", help="the records' file; the one that the book reads where it is left out"
    )
    told = {
        "delay": (delay, "predictions of the delay, then the runs that test them"),
        "deep": (deep, "the same for deeper networks and cross-entropy"),
        "noise": (noise, "the same for noise and adaptive optimizers"),
    }
    for name, (experiment, words) in told.items():
        names.add_parser(name, help=words).add_argument("what", choices=experiment.PATHS)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if given.name in told:
        told[given.name][0].main(given.what)
    else:
        run(price.CASES, price.measure, given.path or price.PATH)


if __name__ == "__main__":
    main()
