"""One API server's metrics and health checks, tied together.

Owns the registry, the paths /metrics, /metrics/slis and the health checks, and the gauges that are asked for only when
somebody reads them. Made by `cluster` for a server that has been built. Source: apiserver's pkg/server/routes and
pkg/storage/etcd3/metrics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steersman.apiserver.call import User
from steersman.apiserver.flow.gate import Gate
from steersman.apiserver.request import RequestInfo
from steersman.apiserver.telemetry.admission import TimedAdmission
from steersman.apiserver.telemetry.health import Check, Health
from steersman.apiserver.telemetry.plugins import METRICS, PluginMetrics
from steersman.apiserver.telemetry.requests import WATCH_EVENTS, Requests
from steersman.lib import procstat
from steersman.lib.http.messages import Request, Response
from steersman.lib.metrics import Registry

_MEDIA = [("content-type", "text/plain; version=0.0.4; charset=utf-8")]
_HOOKS = (
    "start-apiserver-admission-initializer",
    "generic-apiserver-start-informers",
    "priority-and-fairness-config-consumer",
    "priority-and-fairness-filter",
    "storage-object-count-tracker-hook",
    "start-apiextensions-informers",
    "start-apiextensions-controllers",
    "crd-informer-synced",
    "start-system-namespaces-controller",
    "peer-endpoint-reconciler-controller",
    "start-cluster-authentication-info-controller",
    "storage-readiness",
    "start-legacy-token-tracking-controller",
    "start-service-ip-repair-controllers",
    "rbac/bootstrap-roles",
    "scheduling/bootstrap-system-priority-classes",
    "priority-and-fairness-config-producer",
    "bootstrap-controller",
    "start-kubernetes-service-cidr-controller",
    "start-kube-aggregator-informers",
    "apiservice-status-local-available-controller",
    "apiservice-status-remote-available-controller",
    "apiservice-registration-controller",
    "apiservice-discovery-controller",
    "kube-apiserver-autoregistration",
    "apiservice-openapi-controller",
    "apiservice-openapiv3-controller",
)
"""Steps of the start, in the original's order: of those that this server has; here they are done together."""


class Telemetry:
    """What a server tells of itself. `attach` once, before it is asked anything."""

    def __init__(
        self,
        server: Any,
        version: Mapping[str, str],
        checks: Mapping[str, Check] | None = None,
        metrics: Sequence[Registry] = (),
    ) -> None:
        """`version`: what /version says; `checks`: further ones, of health and readiness but not of life.

        `metrics`: those of what the server stands on."""
        self._server = server
        self._further = dict(checks or {})
        self.registry = Registry()
        self._slis = Registry()
        self._health = Health(self._checks(), self._slis)
        procstat.register(self.registry)
        for each in metrics:
            self.registry.include(each)
        names = {"major": "major", "minor": "minor", "git_version": "gitVersion", "platform": "platform"}
        built = self.registry.gauge("kubernetes_build_info", "The version that is served.", tuple(names))
        built.labels(*(version[key] for key in names.values())).set(1)

    def attach(self) -> None:
        """Count its requests and answer its paths."""
        server = self._server
        server.requests = Requests(self.registry, self._known)
        server.services.extras[WATCH_EVENTS] = self.registry.counter(
            "apiserver_watch_events_total", "Events told to watchers.", ("group", "version", "resource")
        )
        services = server.services
        services.extras[METRICS] = PluginMetrics(self.registry, services.clock.monotonic)
        services.admission = TimedAdmission(services.admission, self.registry, services.clock.monotonic)
        server.paths[:0] = [self._health, self._metrics]
        self._objects()
        self._flow()

    def paths(self) -> list[str]:
        """Every path that is answered here."""
        single = [f"/{root}/{name}" for root, checks in self._checks().items() for name in checks]
        return ["/healthz", "/livez", "/metrics", "/metrics/slis", "/readyz", *single]

    def _known(self, info: RequestInfo) -> bool:
        if not info.is_resource:
            return True
        kind = self._server.registry.by_resource(info.group, info.version, info.resource)
        return kind is not None and (
            not info.subresource or kind.subresource(info.subresource, info.version) is not None
        )

    def _metrics(self, request: Request, user: User) -> Response | None:
        if request.path not in ("/metrics", "/metrics/slis"):
            return None
        registry = self.registry if request.path == "/metrics" else self._slis
        return Response(200, _MEDIA, registry.text().encode())

    # What is asked for when it is read -------------------------------------------------------------------------------

    def _objects(self) -> None:
        stored = self.registry.gauge("apiserver_storage_objects", "Objects of a resource.", ("resource",))
        counted = self.registry.gauge("apiserver_resource_objects", "Objects of a resource.", ("group", "resource"))

        sizes = self.registry.gauge(
            "apiserver_resource_size_estimate_bytes", "Bytes of a resource's objects.", ("group", "resource")
        )

        def collect() -> None:
            for kind in self._server.registry:
                number = self._server.storage.count(kind)
                if number is not None:
                    name = f"{kind.plural}.{kind.group}" if kind.group else kind.plural
                    stored.labels(name).set(number)
                    counted.labels(kind.group, kind.plural).set(number)
                    sizes.labels(kind.group, kind.plural).set(self._server.storage.size(kind))

        self.registry.collect(collect)

    def _flow(self) -> None:
        name, both = "apiserver_flowcontrol_", ("priority_level", "flow_schema")
        limits = {
            key: self.registry.gauge(f"{name}{key}_limit_seats", f"Seats: the {key} limit.", both[:1])
            for key in ("nominal", "lower", "upper", "current")
        }
        executing = self.registry.gauge(f"{name}current_executing_requests", "Requests that have seats.", both)
        waiting = self.registry.gauge(f"{name}current_inqueue_requests", "Requests that wait for seats.", both)
        seats = self.registry.gauge(f"{name}current_executing_seats", "Seats that are taken.", both)
        begun = self.registry.counter(f"{name}dispatched_requests_total", "Requests that had their turn.", both)
        gone = self.registry.counter(f"{name}rejected_requests_total", "Requests turned away.", (*both, "reason"))

        def collect() -> None:
            gate = self._server.flow
            for level in gate.levels.values() if isinstance(gate, Gate) else ():
                for key, value in zip(limits, level.figures(), strict=True):
                    limits[key].labels(level.name).set(value)
                for schema, tally in level.tallies.items():
                    executing.labels(level.name, schema).set(tally.executing)
                    seats.labels(level.name, schema).set(tally.seats)
                    waiting.labels(level.name, schema).set(tally.waiting)
                    begun.labels(level.name, schema).set(tally.begun)
                    for reason, number in tally.gone.items():
                        gone.labels(level.name, schema, reason).set(number)

        self.registry.collect(collect)

    # Health ----------------------------------------------------------------------------------------------------------

    def _checks(self) -> dict[str, dict[str, Check]]:
        hooks: dict[str, Check] = {}
        for name in _HOOKS:
            hooks[f"poststarthook/{name}"] = self._started
            if name == "kube-apiserver-autoregistration":
                hooks["autoregister-completion"] = self._started
        whole: dict[str, Check] = {"ping": _well, "log": _well, "etcd": self._store, **hooks}
        ready: dict[str, Check] = {"etcd-readiness": self._store, "informer-sync": self._started}
        first = {name: whole[name] for name in ("ping", "log", "etcd")}
        return {
            "healthz": {**whole, **self._further},
            "livez": whole,
            "readyz": {**first, **ready, **self._further, **hooks, "shutdown": self._staying},
        }

    async def _store(self) -> str:
        await self._server.storage.store.get("/health")
        return ""

    async def _started(self) -> str:
        return "" if self._server.started else "not finished"

    async def _staying(self) -> str:
        return "" if self._server.ready else "process is shutting down"


async def _well() -> str:
    return ""
