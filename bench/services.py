"""How long a Service takes to work: the node's proxy in a network namespace of its own, against `nft -f -`.

python -m bench.services   (as root; it leaves the machine's own network alone)
"""

from __future__ import annotations

import asyncio
import ctypes
import statistics
import time
from typing import Any

from steersman.api.resource import ENDPOINTSLICES, SERVICES
from steersman.client.informer import Informers
from steersman.lib.clock import SystemClock
from steersman.lib.tasks import Tasks
from steersman.proxy import nftables
from steersman.proxy.apply import LibraryApplier, NftablesError, ProgramApplier
from steersman.proxy.elements import Elements
from steersman.proxy.model import Where, frontends
from steersman.proxy.nftables import Chains, Settings
from steersman.proxy.proxy import Proxy
from steersman.testing.cluster import ApiCluster

SETTINGS = Settings("steer-bench", "10.244.0.0/16", "10.244.0.0/24", "10.96.0.0/16")
HERE = Where("here")


def objects(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A Service and its slice of three endpoints."""
    ip, name = f"10.96.{number // 250}.{number % 250 + 1}", f"s{number}"
    spec = {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80, "protocol": "TCP"}]}
    made = {
        "metadata": {"name": f"{name}-a", "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"port": 8080, "protocol": "TCP", "name": ""}],
        "endpoints": [{"addresses": [f"10.244.{number % 200}.{n}"], "nodeName": "here"} for n in (5, 6, 7)],
    }
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}, made


def one_update(count: int) -> None:
    """One Service more beside `count` others, by the library and by the program."""
    elements = Elements()
    made = [objects(number) for number in range(count + 42)]
    owned = {str(n): nftables.elements(frontends(s, [e], HERE))[0] for n, (s, e) in enumerate(made)}
    elements.replace({str(n): owned[str(n)] for n in range(count)})
    library, program = LibraryApplier(), ProgramApplier()
    empty = Chains({}, {})
    started = time.perf_counter()
    library.run(nftables.whole(SETTINGS, elements.effective, empty))
    load = time.perf_counter() - started
    known = nftables.shared_chains(elements.effective, empty)
    took: dict[Any, list[float]] = {library: [], program: []}
    for number in range(count, count + 42):
        applier = library if number % 2 else program
        started = time.perf_counter()
        change = elements.replace({str(number): owned[str(number)]})
        applier.run(nftables.update(SETTINGS, change, empty, empty, known)[0])
        took[applier].append(time.perf_counter() - started)
    ours, theirs = (statistics.median(took[each][1:]) * 1000 for each in (library, program))
    print(
        f"{count:6} services: load {load * 1000:7.1f} ms; one more {ours:6.2f} ms, "
        f"by nft -f - {theirs:6.2f} ms (ratio {ours / theirs:.2f})"
    )
    library.run(nftables.removal(SETTINGS.table))
    library.close()


def _has(applier: LibraryApplier, ip: str) -> bool:
    try:
        applier.run(f"get element ip {SETTINGS.table} svc {{ {ip} . tcp . 80 }}")
    except NftablesError:
        return False
    return True


async def from_the_api() -> None:
    """From the request that creates a slice to its rules in the kernel."""
    clock = SystemClock()
    applier = LibraryApplier()
    took: list[float] = []
    async with ApiCluster(clock=clock) as cluster, Tasks() as tasks:
        proxy = Proxy(Informers(cluster.client, clock=clock, tasks=tasks), clock, applier, SETTINGS, HERE)
        tasks.spawn(proxy.run(), "proxy")
        await proxy.settled()
        for number in range(100):
            service, made = objects(number)
            await cluster.client.create(SERVICES, service, "default")
            await proxy.settled()
            started = time.perf_counter()
            await cluster.client.create(ENDPOINTSLICES, made, "default")
            while not _has(applier, service["spec"]["clusterIP"]):
                await clock.sleep(0.001)
            took.append(time.perf_counter() - started)
    applier.run(nftables.removal(SETTINGS.table))
    applier.close()
    took.sort()
    print(f"slice created to effective: median {took[50] * 1000:.1f} ms, 99th {took[98] * 1000:.1f} ms (limit 50)")


def main() -> None:
    """Print a line per size, and the time from the API to the kernel."""
    if ctypes.CDLL(None, use_errno=True).unshare(0x40000000):
        raise SystemExit("this needs root")
    for count in (1, 1000, 10_000):
        one_update(count)
    asyncio.run(from_the_api())


if __name__ == "__main__":
    main()
