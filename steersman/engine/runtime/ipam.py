"""Addresses for sandboxes, one file per address in use.

Owns the directory `addresses`: a file named by the address holds the sandbox's id and is made with O_EXCL, so that an
address is never given twice, whatever crashes when. Addresses are handed out round robin, so that one just released is
the last to come back.
"""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Collection
from pathlib import Path

from steersman.engine.interface import RuntimeFailure


class AddressPool:
    """The addresses of one CIDR but the first two and the last: network, conventional gateway, broadcast."""

    def __init__(self, directory: Path, cidr: str) -> None:
        """`cidr` such as 10.244.0.0/24. Raises ValueError when it is not a network."""
        self._directory = directory
        self._network = ipaddress.ip_network(cidr)
        self._next = 2
        self._lock = threading.Lock()

    def allocate(self, owner: str) -> str:
        """Take a free address for the sandbox `owner`. Raises RuntimeFailure when there is none."""
        size = self._network.num_addresses
        with self._lock:
            for step in range(max(size - 3, 0)):
                offset = 2 + (self._next - 2 + step) % (size - 3)
                address = str(self._network[offset])
                try:
                    with open(self._directory / address, "x", encoding="ascii") as file:
                        file.write(owner)
                except FileExistsError:
                    continue
                self._next = offset + 1
                return address
        raise RuntimeFailure(f"no free address in {self._network}: {size} addresses, all in use")

    def release(self, address: str) -> None:
        """Give an address back; idempotent."""
        (self._directory / str(ipaddress.ip_address(address))).unlink(missing_ok=True)

    def sweep(self, owners: Collection[str]) -> list[str]:
        """Release every address whose sandbox is not among `owners`; returns them. For start-up, before `allocate`."""
        released = []
        for path in self._directory.iterdir():
            if path.read_text(encoding="ascii", errors="replace") not in owners:
                path.unlink(missing_ok=True)
                released.append(path.name)
        return released
