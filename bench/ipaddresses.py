"""What an IPAddress beside each Service costs: CPU of a Service's create with and without, in one run.

    python bench/ipaddresses.py

The floor is the same server making the same Services without the IPAddresses. In process, memory store, no sockets.
"""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Network
from time import process_time

from steersman.api.resource import SERVICES
from steersman.apiserver.ipalloc import Allocator
from steersman.testing.cluster import ApiCluster

COUNT, ROUNDS = 500, 12


async def _create(cluster: ApiCluster, prefix: str) -> float:
    """Microseconds of CPU for one create."""
    begun = process_time()
    for number in range(COUNT):
        spec = {"selector": {"a": "b"}, "ports": [{"port": 80}]}
        await cluster.client.create(SERVICES, {"metadata": {"name": f"{prefix}-{number}"}, "spec": spec}, "default")
    return (process_time() - begun) / COUNT * 1e6


async def main() -> None:
    """Alternate with and without; the least of each counts, as others use this machine too."""
    async with ApiCluster() as cluster:
        await Allocator(cluster.server, IPv4Network("10.96.0.0/16"), (30000, 32767)).attach()
        after, best = dict(cluster.server.storage.after), {True: float("inf"), False: float("inf")}
        for number in range(ROUNDS):
            beside = number % 2 == 0
            cluster.server.storage.after = dict(after) if beside else {}
            best[beside] = min(best[beside], await _create(cluster, f"s{number}"))
    print(f"create a Service: {best[True]:.0f} us with its IPAddress, {best[False]:.0f} us without:", end=" ")
    print(f"{best[True] / best[False]:.2f} times")


if __name__ == "__main__":
    asyncio.run(main())
