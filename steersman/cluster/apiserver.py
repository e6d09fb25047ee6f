"""The API server's process.

Owns its wiring: store, registry, identity, authorization, admission, the way to kubelets, listening sockets, and the
compaction of history. Called by `components.py`.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import socket
import ssl
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from random import Random

from steersman.api import errors, schema
from steersman.api.errors import ApiError
from steersman.api.registry import Registry
from steersman.api.resource import CLUSTERROLES, Object
from steersman.apiserver import debugging, masters, paths, presence, unprivileged
from steersman.apiserver.admission import tolerations
from steersman.apiserver.admission.chain import Chain, chosen
from steersman.apiserver.aggregation.aggregator import Aggregator, Resident
from steersman.apiserver.aggregation.backend import Proxy
from steersman.apiserver.app import ApiServer
from steersman.apiserver.authn import serviceaccount
from steersman.apiserver.authn.legacytoken import LegacyTokens
from steersman.apiserver.bootstrap import bootstrap, ensure, publish_authentication
from steersman.apiserver.cache import Unreadable
from steersman.apiserver.cors import Cors
from steersman.apiserver.crd import CustomResources
from steersman.apiserver.encode import in_medium
from steersman.apiserver.expiry import expire
from steersman.apiserver.ipalloc import Allocator
from steersman.apiserver.iprepair import Repair
from steersman.apiserver.metrics.resource import GROUP, VERSION, Metrics
from steersman.apiserver.negotiate import DEFAULT
from steersman.apiserver.reservations import Reservations
from steersman.apiserver.serviceref import ROUTES
from steersman.apiserver.subresources import token
from steersman.apiserver.telemetry.health import Check
from steersman.apiserver.telemetry.server import Telemetry
from steersman.apiserver.telemetry.storing import Measured
from steersman.client import zpages
from steersman.cluster import admissionconfig, auditing, flowing, process, reloading, sealing, storage
from steersman.cluster.identity import Identity
from steersman.cluster.process import StartFailure
from steersman.cluster.profile import Profile
from steersman.cluster.reloading import Follower
from steersman.controllers.hostpathprovisioner import PROVISIONER
from steersman.lib.clock import Clock, SystemClock
from steersman.lib.http.client import Address, HttpClient, client_tls
from steersman.lib.http.limits import Limits, Refusal
from steersman.lib.http.messages import Transport
from steersman.lib.http.server import Server, server_tls
from steersman.lib.metrics import Registry as MetricsRegistry
from steersman.lib.tasks import Tasks
from steersman.store.interface import Store, StoreError

_PORT = 6443  # what is said where no port is listened on
_PRESENT = (1, 26)  # the release from which on API servers keep a Lease
_HEAD = 1 << 20  # bytes of a request's target, and of its headers: Go's DefaultMaxHeaderBytes


class NodeDialer:
    """How this machine reaches kubelets and pods: directly, by the node's routes."""

    def __init__(self, profile: Profile) -> None:
        pki = profile.pki
        self._tls = client_tls(
            authority=pki / "ca.crt",
            certificate=pki / "apiserver-kubelet-client.crt",
            key=pki / "apiserver-kubelet-client.key",
        )
        self._anything = client_tls(verify=False)
        self._kubelets: dict[tuple[str, int], Transport] = {}

    def kubelet(self, node: Object) -> Transport:
        """A pooled transport to the node's kubelet."""
        status = node.get("status") or {}
        address = next(
            (item["address"] for item in status.get("addresses") or () if item["type"] == "InternalIP"), None
        )
        if address is None:
            raise ApiError(500, "InternalError", f"node {node['metadata']['name']} has no address")
        port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port") or 10250
        found = self._kubelets.get((address, port))
        if found is None:
            found = HttpClient(Address(address, port, self._tls), answer_timeout=None)
            self._kubelets[address, port] = found
        return found

    def address(self, scheme: str, host: str, port: int) -> Transport:
        """A transport for one proxied request."""
        return HttpClient(Address(host, port, self._anything if scheme == "https" else None))


def main(profile: Profile, ready: Callable[[], None], sockets: Sequence[socket.socket]) -> None:
    """The process's whole life."""
    process.serve(lambda stop: _run(profile, ready, sockets, stop))


async def _run(
    profile: Profile, ready: Callable[[], None], sockets: Sequence[socket.socket], stop: asyncio.Event
) -> None:
    clock = SystemClock()
    store = await storage.open_store(profile, clock)
    every = storage.seconds(profile.options("apiserver"), "etcd-compaction-interval", "5m0s")  # 0: never
    async with Tasks() as tasks:
        sealed = await sealing.Sealing.begin(profile.options("apiserver"), clock, tasks)
        options = Options()
        if sealed is not None:
            checks = {sealing.CHECK: sealed.check} if sealed.checked else {}
            options = Options(seal=sealed.seal, checks=checks, metrics=[sealed.metrics.registry])
        try:
            server = await make(profile, store, clock, tasks, options)
        except Unreadable as error:
            raise StartFailure(f"cannot read {error.shown}: {error.why}") from error
        proxies = profile.options("apiserver").get("requestheader-client-ca-file")
        clients = [profile.pki / "ca.crt", *([Path(proxies)] if proxies else [])]
        own = profile.pki / "apiserver.crt", profile.pki / "apiserver.key"
        try:
            tls = server_tls(*own, clients)
        except (OSError, ssl.SSLError) as error:
            raise StartFailure(f"cannot use the certificate in {profile.pki}: {error}") from error
        web = Server(server.handle, clock, tls=tls, limits=limits())
        Follower(clock, tasks).follow("certificates", [*own, *clients], lambda: web.renew(server_tls(*own, clients)))
        for listener in sockets:
            await web.listen_on(listener.dup())
        tasks.spawn(storage.compact(store, clock, every), "compaction")
        tasks.spawn(storage.end_when_lost(store, stop), "etcd's past")
        if schema.number(profile.release) >= _PRESENT:
            host, uid = socket.gethostname(), str(uuid.uuid4())
            there = presence.Presence(server, clock, host, profile.api_port or _PORT, uid)
            tasks.spawn(there.run(), "Lease of the API server")
        gc.freeze()  # what is there now stays: no collection need look at it again
        ready()
        await stop.wait()
        server.ready = False
        await server.leave()
        await web.close()
        await server.close()
    await store.close()


def limits() -> Limits:
    """As many bytes as the original takes, and its words where there are too many: some are Go's, some are Statuses."""
    found = Limits(target=_HEAD, headers=_HEAD, header_count=4096)
    refused = errors.too_large(f"Request entity too large: limit is {found.body}")
    late = errors.timeout("Timeout: request did not complete within the allotted timeout")
    media, words = "application/json", b"431 Request Header Fields Too Large"
    long_head = Refusal(431, "text/plain; charset=utf-8", words)
    refusals = {
        408: Refusal(504, media, in_medium(late.status(), DEFAULT)),
        413: Refusal(413, media, in_medium(refused.status(), DEFAULT)),
    }
    return replace(found, refusals={**refusals, 414: long_head, 431: long_head})


@dataclass(frozen=True)
class Options:
    """What a caller without a profile of its own wants otherwise; None and empty mean as in every cluster."""

    issuer: str = "https://kubernetes.default.svc.cluster.local"
    service_network: IPv4Network | None = None
    disabled_plugins: frozenset[str] = frozenset()
    random: Random | None = None  # makes uids and generated names
    seal: Callable[[Store], Store] = lambda store: store  # encrypts what is stored
    checks: Mapping[str, Check] = field(default_factory=dict)  # further ones of /readyz and /healthz
    metrics: Sequence[MetricsRegistry] = ()  # further ones


async def make(profile: Profile, store: Store, clock: Clock, tasks: Tasks, options: Options = Options()) -> ApiServer:
    """The API server of a profile, started and bootstrapped."""
    registry = Registry(profile.release)
    flags = profile.options("apiserver")
    identity = Identity(flags, clock, profile.pki / "ca.crt")
    issuer = flags.get("service-account-issuer", options.issuer)
    tokens = serviceaccount.Tokens((profile.pki / "sa.key").read_bytes(), issuer, identity.audiences(issuer))
    admission = _admission(flags, options)
    network = options.service_network or profile.service_network
    measured = Measured(store, clock.monotonic)
    store = options.seal(measured)
    if flags.get("allow-privileged") == "false":
        unprivileged.refuse(registry)
    server = ApiServer(
        store,
        registry,
        clock,
        admission=admission,
        authenticators=identity.by_connection(),
        authorizer=identity.authorizer,
        anonymous=identity.anonymous,
        random=options.random or process.random(),
        address=f"127.0.0.1:{profile.api_port}",
    )
    server.cors = _cors(flags)
    server.services.extras |= _configured(flags, admission, clock) | _bounds(flags)
    server.services.extras |= {"tokens": tokens, "dialer": NodeDialer(profile), ROUTES: not profile.nodes}
    server.paths += [
        paths.Version(registry.release),
        openapi := paths.OpenApiPaths(registry),
        paths.Issuer(tokens),
    ]
    configured = _configurations(flags)
    metrics = [measured.metrics, *options.metrics, *(each.registry for each in configured.values())]
    telemetry = Telemetry(server, paths.version_info(registry.release), options.checks, metrics)
    telemetry.attach()
    server.paths.append(debugging.Debugging(server, logging.getLogger("steersman")))
    more = telemetry.paths()
    if schema.number(profile.release) >= zpages.SINCE:
        server.paths.append(zpages.Pages(_described(profile, issuer, network), clock))
        more += ["/flagz", "/statusz"]
    server.paths.append(paths.Root(server.discovery, more))
    server.audit = auditing.auditor(flags, clock, options.random or process.random(), tasks)
    await server.start()
    identity.attach(server.storage, registry)
    admission.attach(server)
    legacy = LegacyTokens(server, clock, tasks)
    bearer = identity.by_token(tokens, server.storage, registry, legacy.used)
    server.authenticators.append(bearer)
    server.services.extras["bearer"] = bearer
    reservations = Reservations(store, clock, tasks) if store.shared else None
    allocator = Allocator(server, network, node_ports(flags), reservations=reservations)
    await allocator.attach()
    await CustomResources(server, tasks).start()
    await bootstrap(
        server,
        authentication=identity.for_extensions(profile.pki / "front-proxy-ca.crt"),
        service_ip=str(network[1]),
        port=profile.api_port or _PORT,
        dns=profile.dns_address,
        resolvers=[profile.node_address(number) for number in range(profile.nodes)],
        provisioner=PROVISIONER if profile.nodes else "",
    )
    await _endpoints(server, profile, store, clock, tasks)
    _follow(server, identity, profile, Follower(clock, tasks), configured)
    proxy = Proxy(profile.pki / "front-proxy-client.crt", profile.pki / "front-proxy-client.key")
    residents = await _metrics(server) if profile.nodes else {}
    aggregator = Aggregator(server, tasks, proxy, residents=residents)
    openapi.documents.others = aggregator.documents
    await aggregator.start()
    await flowing.attach(server, flags, tasks)
    life = storage.seconds(flags, "event-ttl", "1h0m0s")
    if (events := registry.find("", "events")) is not None:
        tasks.spawn(expire(server.storage, events, clock, life), "events' end")
    tasks.spawn(legacy.keep_since(), "legacy tokens")
    tasks.spawn(Repair(server, allocator, clock).run(), "repair of service addresses")
    server.started = True
    return server


def _described(profile: Profile, issuer: str, network: IPv4Network) -> zpages.Component:
    """What /statusz and /flagz tell: the flags that were given, and those that are in effect anyhow."""
    flags = {
        "authorization-mode": "Node,RBAC",
        "secure-port": str(profile.api_port or _PORT),
        "service-account-issuer": f"[{issuer}]",
        "service-cluster-ip-range": str(network),
        **profile.options("apiserver"),
    }
    served = ("/flagz", "/healthz", "/livez", "/metrics", "/readyz", "/statusz", "/version")
    return zpages.Component("apiserver", profile.release, flags, served)


def _configurations(flags: Mapping[str, str]) -> dict[str, reloading.Metrics]:
    """The metrics of each configuration that is a file of its own."""
    found = {name: flags.get(f"{name}-config") for name in ("authentication", "authorization")}
    return {name: reloading.Metrics(name, Path(path)) for name, path in found.items() if path}


def _follow(
    server: ApiServer,
    identity: Identity,
    profile: Profile,
    follower: Follower,
    configured: Mapping[str, reloading.Metrics],
) -> None:
    """Read anew what the original does: who signs clients, and who is believed and asked."""
    flags, client_ca = profile.options("apiserver"), profile.pki / "ca.crt"
    acts: dict[str, reloading.Act] = {
        "authentication": identity.reload_authentication,
        "authorization": identity.reload_authorization,
    }
    for name, metrics in configured.items():
        follower.follow(f"{name} configuration", [Path(flags[f"{name}-config"])], acts[name], metrics)

    async def authorities() -> None:
        identity.reload_authorities()
        await publish_authentication(server, identity.for_extensions(profile.pki / "front-proxy-ca.crt"))

    proxies = [identity.front_proxy_ca] if identity.front_proxy_ca is not None else []
    follower.follow("client authorities", [client_ca, *proxies], authorities)


async def _endpoints(server: ApiServer, profile: Profile, store: Store, clock: Clock, tasks: Tasks) -> None:
    """Say where this server is: alone once, among several for as long as it is there. Raises StartFailure."""
    address, port = advertised(profile), profile.api_port or _PORT
    kind, count = reconciler(profile.options("apiserver"))
    if kind == "none":
        return
    if not store.shared:
        await masters.publish(server, [address], port)
        return
    policy = masters.ByLease(store, clock, address) if kind == "lease" else masters.ByCount(address, count)
    made = masters.Masters(server, clock, port, policy)
    try:
        await made.keep()
    except StoreError as error:
        raise StartFailure(str(error)) from error
    tasks.spawn(made.run(), "kubernetes endpoints")
    server.leaving.append(made.leave)


def reconciler(flags: Mapping[str, str]) -> tuple[str, int]:
    """How the `kubernetes` endpoints are kept: lease, master-count or none, and of how many. Raises StartFailure."""
    kind, count = flags.get("endpoint-reconciler-type", "lease"), flags.get("apiserver-count", "1")
    if kind not in ("lease", "master-count", "none"):
        raise StartFailure(f"invalid value for endpoint-reconciler-type: {kind!r} is not lease, master-count or none")
    if not count.isdecimal() or not int(count):
        raise StartFailure(f"--apiserver-count should be a positive number, but value '{count}' provided")
    return kind, int(count)


def advertised(profile: Profile) -> str:
    """What the `kubernetes` endpoints say: `advertise-address`, else the first node's own. Raises StartFailure.

    Without nodes nothing listens there but on loopback, which endpoints may not hold.
    """
    text = profile.options("apiserver").get("advertise-address") or profile.node_address(0)
    try:
        return str(IPv4Address(text))
    except ValueError:
        raise StartFailure(f"invalid value for advertise-address: {text!r} is no IPv4 address") from None


def node_ports(flags: Mapping[str, str]) -> tuple[int, int]:
    """The first and the last node port: "30000-32767", or "30000+2767". Raises StartFailure."""
    text = flags.get("service-node-port-range", "30000-32767")
    found = re.fullmatch(r"(\d{1,5})([-+])(\d{1,5})", text)
    if found is not None:
        first, last = int(found[1]), int(found[3]) + (int(found[1]) if found[2] == "+" else 0)
        if 0 < first <= last < 65536:
            return first, last
    raise StartFailure(f"invalid value for service-node-port-range: {text!r} is no range such as 30000-32767")


async def _metrics(server: ApiServer) -> dict[tuple[str, str], Resident]:
    """metrics.k8s.io, where there are kubelets to ask, and the role that lets viewers read it."""
    into = {f"rbac.authorization.k8s.io/aggregate-to-{role}": "true" for role in ("view", "edit", "admin")}
    rule = {"apiGroups": [GROUP], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]}
    role = {"metadata": {"name": "system:aggregated-metrics-reader", "labels": into}, "rules": [rule]}
    await ensure(server, CLUSTERROLES, role)
    return {(GROUP, VERSION): Metrics(server.services, server.services.extras["dialer"].kubelet)}


def _admission(flags: Mapping[str, str], options: Options) -> Chain:
    enabled, disabled = (
        {name.strip() for name in flags.get(flag, "").split(",")} - {""}
        for flag in ("enable-admission-plugins", "disable-admission-plugins")
    )
    try:
        return Chain(chosen(enabled, disabled | options.disabled_plugins))
    except ValueError as error:
        raise StartFailure(str(error)) from error


def _cors(flags: Mapping[str, str]) -> Cors | None:
    patterns = flags.get("cors-allowed-origins", "")
    try:
        return Cors(patterns.split(",")) if patterns else None
    except ValueError as error:
        raise StartFailure(str(error)) from error


def _bounds(flags: Mapping[str, str]) -> dict[str, object]:
    """How long pods bear a node that is away, and how long tokens may last. Raises StartFailure."""
    seconds = []
    for taint in ("not-ready", "unreachable"):
        text = flags.get(name := f"default-{taint}-toleration-seconds", "300")
        if not text.lstrip("-").isdecimal():
            raise StartFailure(f'invalid argument "{text}" for "--{name}" flag: strconv.ParseInt: invalid syntax')
        seconds.append(int(text))
    longest = int(storage.seconds(flags, "service-account-max-token-expiration", "0s"))
    if longest and not 3600 <= longest <= 1 << 32:
        raise StartFailure("the service-account-max-token-expiration must be between 1 hour and 2^32 seconds")
    return {tolerations.SECONDS: tuple(seconds), token.LONGEST: longest}


def _configured(flags: Mapping[str, str], admission: Chain, clock: Clock) -> dict[str, object]:
    """What plugins read of --admission-control-config-file, by their names."""
    path = flags.get("admission-control-config-file")
    try:
        return admissionconfig.read(Path(path) if path else None, admission.names, clock)
    except (OSError, ValueError) as error:
        raise StartFailure(f"--admission-control-config-file: {error}") from error
