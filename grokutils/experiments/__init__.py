"""Longer measurements behind the book, one file an experiment: ``python -m grokutils.experiments NAME``.

An experiment is a list of cases, what to measure of one, and the rules that the chapter judges it by. It is saved after
every case, whole or not at all; started again, it goes on where it stopped.
"""

from .running import run

__all__ = ["run"]
