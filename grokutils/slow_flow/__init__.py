"""What is left of the former slow flow: see :mod:`grokutils.flow`."""
