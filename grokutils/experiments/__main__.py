"""The command line: ``python -m grokutils.experiments NAME [--path FILE]``, or ``… NAME PART`` where predictions come before runs."""

import argparse

import torch

from . import causes, deep, design, digits, edge, interventions, noise, price, quiet, sooner, tables
from .running import run

WHOLE = {
    "price": (price, "price curves"),
    "tables": (tables, "prices of larger tables as a whole"),
    "causes": (causes, "delays whose cause is known"),
    "digits": (digits, "handwritten digits"),
    "sooner": (sooner, "settings from theory, rivals, penalties and solves"),
}
PARTS = {
    "design": (
        design,
        "predictions of the delay of networks drawn at random, the runs that test them, and the theory's own test",
    ),
    "deep": (deep, "the same for deeper networks and cross-entropy"),
    "noise": (noise, "the same for noise and adaptive optimizers"),
    "quiet": (quiet, "the same for AdamW without noise, with cross-entropy"),
    "edge": (edge, "the same for AdamW without noise, with squared error"),
    "interventions": (interventions, "the same for interventions, and runs in a ball"),
}


def main(arguments: list[str] | None = None) -> None:
    """Run one experiment, or what is left of it."""
    parser = argparse.ArgumentParser(prog="grokutils.experiments", description=__doc__)
    names = parser.add_subparsers(dest="name", required=True)
    for name, (_, words) in WHOLE.items():
        names.add_parser(name, help=words).add_argument(
            "--path", help="the records' file; the one that the book reads where it is left out"
        )
    for name, (experiment, words) in PARTS.items():
        parser_of = names.add_parser(name, help=words)
        parser_of.add_argument("what", choices=experiment.PATHS)
        if experiment is design:
            parser_of.add_argument(
                "--first", type=int, help="how many cases to go through; all where left out"
            )
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if given.name in PARTS:
        first = {"first": given.first} if "first" in given else {}
        PARTS[given.name][0].main(given.what, **first)
    else:
        experiment = WHOLE[given.name][0]
        run(experiment.CASES, experiment.measure, given.path or experiment.PATH)


if __name__ == "__main__":
    main()
