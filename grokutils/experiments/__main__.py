"""The command line: ``python -m grokutils.experiments NAME [--path FILE]``, or ``… NAME PART`` where predictions come before runs."""

import argparse

import torch

from . import causes, deep, delay, design, digits, interventions, noise, price, sooner
from .running import run

WHOLE = {
    "price": (price, "price curves"),
    "causes": (causes, "delays whose cause is known"),
    "digits": (digits, "handwritten digits"),
    "sooner": (sooner, "settings from theory, rivals, penalties and solves"),
}
PARTS = {
    "delay": (delay, "predictions of the delay, then the runs that test them"),
    "design": (design, "the same on configurations drawn at random, and the theory's own test"),
    "deep": (deep, "the same for deeper networks and cross-entropy"),
    "noise": (noise, "the same for noise and adaptive optimizers"),
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
        names.add_parser(name, help=words).add_argument("what", choices=experiment.PATHS)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if given.name in PARTS:
        PARTS[given.name][0].main(given.what)
    else:
        experiment = WHOLE[given.name][0]
        run(experiment.CASES, experiment.measure, given.path or experiment.PATH)


if __name__ == "__main__":
    main()
