"""One node's service proxy, ready to run: kernel settings, the table, and the host ports of the pods here.

Owns the wiring of `node`, `apply`, `proxy` and `conntrack`. Started by the node's process in the node's network
namespace; `remove` is called when a cluster is deleted. It knows no container engine: host ports come from a callable.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from steersman.lib.tasks import Tasks
from steersman.proxy import node, policy
from steersman.proxy.apply import NftablesError, best_applier
from steersman.proxy.conntrack import Conntrack
from steersman.proxy.model import HostPort, Where
from steersman.proxy.nftables import Settings, removal
from steersman.proxy.proxy import Proxy

if TYPE_CHECKING:
    from steersman.client.informer import Informers
    from steersman.lib.clock import Clock

log = logging.getLogger(__name__)

_LOOK = 0.25  # seconds between two looks at the host ports: a few microseconds of work each
_RESYNC = 3600.0  # seconds after which the whole table is set again, against whatever changed it


class PortMapping(Protocol):
    """A port of the node that leads to a port of a pod; `host_ip` empty: every address."""

    @property
    def container_port(self) -> int: ...
    @property
    def host_port(self) -> int: ...
    @property
    def protocol(self) -> str: ...
    @property
    def host_ip(self) -> str: ...


class ProxyAgent:
    """Makes Services work on one node. The rules stay when it stops, so that traffic goes on."""

    def __init__(
        self,
        informers: Informers,
        clock: Clock,
        *,
        table: str,
        node_name: str,
        node_addresses: Sequence[str],
        pod_network: str,
        service_network: str,
        host_ports: Callable[[], Sequence[tuple[str, str, PortMapping]]],
        zone: str = "",
    ) -> None:
        """`table`: its nftables table. `host_ports`: (sandbox id, pod address, mapping) of every pod here.

        Raises ValueError for a table name that nft would not take.
        """
        self._informers = informers
        self._clock = clock
        self._settings = Settings(table, pod_network, pod_network, service_network)
        self._where = Where(node_name, zone)
        self._source = node_addresses[0] if node_addresses else ""
        self._host_ports = host_ports
        self._proxy: Proxy | None = None

    async def run(self) -> None:
        """Until cancelled. Raises node.NodeSettingFailed when the kernel does not let us route to Services."""
        node.prepare(self._settings.service_cidr, self._source)
        applier = best_applier()
        tracker = _tracker()
        proxy = self._proxy = Proxy(self._informers, self._clock, applier, self._settings, self._where, tracker)
        proxy.set_host_ports(self._mapped())
        try:
            async with Tasks() as tasks:
                tasks.spawn(self._follow_host_ports(proxy), "host ports")
                await proxy.run()
        finally:
            applier.close()
            if tracker is not None:
                tracker.close()

    async def settled(self) -> None:
        """Wait until the kernel has everything that the informers have told so far. Only after `run` has begun."""
        if self._proxy is not None:
            await self._proxy.settled()

    def _mapped(self) -> list[HostPort]:
        return sorted(
            HostPort(mapping.host_ip, mapping.protocol, mapping.host_port, ip, mapping.container_port)
            for _, ip, mapping in self._host_ports()
            if ip and mapping.host_port
        )

    async def _follow_host_ports(self, proxy: Proxy) -> None:
        """Pods come and go without telling us; the whole table is set again now and then."""
        set_at = self._clock.monotonic()
        while True:
            await self._clock.sleep(_LOOK)
            proxy.set_host_ports(self._mapped())
            if self._clock.monotonic() - set_at >= _RESYNC:
                set_at = self._clock.monotonic()
                proxy.resync()


def _tracker() -> Conntrack | None:
    try:
        return Conntrack()
    except OSError as error:
        log.warning("UDP clients may go on asking endpoints that are gone: no connection tracking: %s", error)
        return None


def remove(table: str, service_network: str = "", policies: str = "") -> None:
    """Take a table and, if they are given, the route to Services and the table of policies out of this network
    namespace; idempotent.

    Raises NftablesError, node.NodeSettingFailed, ValueError for what is no table's name.
    """
    text = removal(table)
    try:
        applier = best_applier()
        applier.run(text)
        if policies:
            applier.run(policy.removal(policies))
        applier.close()
    finally:
        if service_network:
            node.undo(service_network)


__all__ = ["NftablesError", "PortMapping", "ProxyAgent", "remove"]
