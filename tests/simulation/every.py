"""Every scenario that the simulation plays."""

from __future__ import annotations

from .derived import DERIVED
from .housekeeping import HOUSEKEEPING
from .network import NETWORK
from .scenarios import ALL
from .wider import WIDER

EVERY = (*ALL, *WIDER, *NETWORK, *HOUSEKEEPING, *DERIVED)
