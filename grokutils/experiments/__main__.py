"""The command line: ``python -m grokutils.experiments price [--path FILE]``."""

import argparse

import torch

from . import price
from .running import run

EXPERIMENTS = {"price": price}


def main(arguments: list[str] | None = None) -> None:
    """Run one experiment, or what is left of it."""
    parser = argparse.ArgumentParser(prog="grokutils.experiments", description=__doc__)
    parser.add_argument("name", choices=EXPERIMENTS)
    parser.add_argument("--path", help="the records' file; the one that the book reads where it is left out")
    given = parser.parse_args(arguments)
    experiment = EXPERIMENTS[given.name]
    torch.set_num_threads(1)
    run(experiment.CASES, experiment.measure, given.path or experiment.PATH)


if __name__ == "__main__":
    main()
