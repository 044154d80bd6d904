"""The command line: ``python -m grokutils.experiments price [--path FILE]``, ``… delay predict`` and then ``… delay train``, and the like."""

import argparse

import torch

from . import causes, delay, digits, interventions, price
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
    of_norm = names.add_parser(
        "interventions", help="interventions: predictions, the runs that test them, and runs in a ball"
    )
    of_norm.add_argument("what", choices=interventions.MAKERS)
    names.add_parser("causes", help="delays whose cause is known")
    names.add_parser("digits", help="handwritten digits")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if given.name == "delay":
        delay.main(given.what)
    elif given.name == "interventions":
        run(interventions.CASES, interventions.MAKERS[given.what], interventions.PATHS[given.what])
    elif given.name == "causes":
        run(causes.CASES, causes.measure, causes.PATH)
    elif given.name == "digits":
        run(digits.CASES, digits.measure, digits.PATH)
    else:
        run(price.CASES, price.measure, given.path or price.PATH)


if __name__ == "__main__":
    main()
