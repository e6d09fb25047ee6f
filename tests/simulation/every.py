"""Every scenario that the simulation plays."""

from __future__ import annotations

from .clouds import CLOUDS
from .derived import DERIVED
from .devices import DEVICES
from .housekeeping import HOUSEKEEPING
from .network import NETWORK
from .scenarios import ALL
from .storage import STORAGE
from .trust import TRUST
from .wider import WIDER
from .zones import ZONED

EVERY = (*ALL, *WIDER, *NETWORK, *HOUSEKEEPING, *DERIVED, *TRUST, *STORAGE, *CLOUDS, *DEVICES, *ZONED)
