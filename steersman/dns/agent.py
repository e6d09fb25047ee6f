"""One node's name server, ready to run: informers behind, sockets in front.

Owns the wiring: the catalog of what the informers know, and the sockets on the node's addresses. Started by the node's
process. It reads the API through informers and writes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from steersman.api.resource import ENDPOINTSLICES, SERVICES, Object
from steersman.dns.forward import Dial, Forwarder, nameservers
from steersman.dns.records import Records
from steersman.dns.server import DnsServer, Resolver, address_port

if TYPE_CHECKING:
    from steersman.client.informer import Informer, Informers
    from steersman.lib.clock import Clock

log = logging.getLogger(__name__)

_SERVICE_LABEL = "kubernetes.io/service-name"
_BY_SERVICE, _BY_ADDRESS = "dns service", "dns address"
_RETRY = 1.0  # seconds until an address that could not be had is tried again
_LONG = 86_400.0


class InformedCatalog:
    """What the informers of a process know, as `Records` asks for it."""

    def __init__(self, services: Informer, slices: Informer) -> None:
        self._services = services
        self._slices = slices
        services.add_index(_BY_ADDRESS, _cluster_ips)
        slices.add_index(_BY_SERVICE, _services_of)
        slices.add_index(_BY_ADDRESS, _endpoint_addresses)

    def service(self, namespace: str, name: str) -> Object | None:
        """One Service."""
        return self._services.get(namespace, name)

    def has_namespace(self, namespace: str) -> bool:
        """Whether a namespace has a Service."""
        return bool(self._services.list(namespace))

    def slices(self, namespace: str, service: str) -> Sequence[Object]:
        """The EndpointSlices of a Service."""
        return self._slices.by_index(_BY_SERVICE, f"{namespace}/{service}")

    def services_at(self, ip: str) -> Sequence[Object]:
        """Services with this cluster IP."""
        return self._services.by_index(_BY_ADDRESS, ip)

    def slices_at(self, ip: str) -> Sequence[Object]:
        """EndpointSlices that have an endpoint with this address."""
        return self._slices.by_index(_BY_ADDRESS, ip)


class DnsAgent:
    """Serves a cluster's names on one node. `run` until cancelled."""

    def __init__(
        self,
        informers: Informers,
        clock: Clock,
        *,
        domain: str,
        addresses: Sequence[str],
        service_network: str,
        pod_network: str,
        port: int = 53,
        upstreams: Sequence[str] | None = None,
        dial: tuple[Dial, Dial] | None = None,
    ) -> None:
        """`addresses`: where to listen. `upstreams`: `address[:port]`, by default those of /etc/resolv.conf.

        `dial`: how UDP and TCP sockets to them are made, if not in this network namespace.

        Raises ValueError for a domain or network that is none.
        """
        self._clock = clock
        self._addresses = list(addresses)
        self._port = port
        self._services = informers.informer(SERVICES)
        self._slices = informers.informer(ENDPOINTSLICES)
        catalog = InformedCatalog(self._services, self._slices)
        records = Records(catalog, domain=domain, networks=[service_network, pod_network])
        known = [address_port(each) for each in (nameservers() if upstreams is None else upstreams)]
        ourselves = {(address, port) for address in addresses}
        forwarder = Forwarder([each for each in known if each not in ourselves], dial=dial)
        self._server = DnsServer(Resolver(records, forwarder, self.ready))
        self.ports: dict[str, int] = {}  # by address, once it is served

    def ready(self) -> bool:
        """Whether all objects have been read once."""
        return self._services.has_synced and self._slices.has_synced

    async def run(self) -> None:
        """Answer until cancelled."""
        try:
            for address in self._addresses:
                await self._listen(address)
            while True:
                await self._clock.sleep(_LONG)
        finally:
            await self._server.close()

    async def _listen(self, address: str) -> None:
        """Open an address; one that is not there yet, or taken, is tried until it can be had."""
        told = False
        while True:
            try:
                self.ports[address] = await self._server.listen(address, self._port)
            except OSError as error:
                if not told:
                    log.warning("cannot serve DNS on %s port %d, trying on: %s", address, self._port, error)
                told = True
                await self._clock.sleep(_RETRY)
            else:
                return


def _services_of(found: Object) -> list[str]:
    name = (found["metadata"].get("labels") or {}).get(_SERVICE_LABEL)
    return [f"{found['metadata'].get('namespace', '')}/{name}"] if name else []


def _cluster_ips(service: Object) -> list[str]:
    spec = service.get("spec") or {}
    return list(spec.get("clusterIPs") or [spec.get("clusterIP") or ""])


def _endpoint_addresses(found: Object) -> Iterator[str]:
    for endpoint in found.get("endpoints") or ():
        yield from endpoint.get("addresses") or ()
