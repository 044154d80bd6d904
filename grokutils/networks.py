"""The former name of :mod:`.models`."""

from .models import TwoLayer as Network
from .models import two_layer

__all__ = ["Network", "two_layer"]
