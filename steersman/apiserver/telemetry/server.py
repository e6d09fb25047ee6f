"""One API server's metrics and health checks, tied together.

Owns the registry, the paths /metrics, /metrics/slis and the health checks; the figures are its neighbours'. Made by
`cluster` for a server that has been built. Source: apiserver's pkg/server/routes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from steersman.apiserver.call import User
from steersman.apiserver.request import RequestInfo
from steersman.apiserver.telemetry.access import Access
from steersman.apiserver.telemetry.admission import TimedAdmission
from steersman.apiserver.telemetry.caching import Caching
from steersman.apiserver.telemetry.credentials import Credentials
from steersman.apiserver.telemetry.flowing import Flowing
from steersman.apiserver.telemetry.health import Check, Health
from steersman.apiserver.telemetry.plugins import METRICS, PluginMetrics
from steersman.apiserver.telemetry.requests import NEVER, Requests
from steersman.apiserver.telemetry.surroundings import Surroundings
from steersman.client.stability import mark
from steersman.lib import procstat
from steersman.lib.http.messages import Request, Response
from steersman.lib.metrics import Registry

_MEDIA = [("content-type", "text/plain; version=0.0.4; charset=utf-8; escaping=underscores")]
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
    "start-kube-apiserver-identity-lease-controller",
    "start-kube-apiserver-identity-lease-garbage-collector",
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
        self.registry = Registry(mark)
        self._slis = Registry(mark)
        self._slis.gauge("process_start_time_seconds", "When the process began, in Unix seconds.").labels().set(
            procstat.began()
        )
        self._health = Health(self._checks(), self._slis)
        procstat.register(self.registry)
        for each in metrics:
            self.registry.include(each)
        names = {_snake(key): key for key in version if not key.startswith(("emulation", "minCompat"))}
        built = self.registry.gauge("kubernetes_build_info", "The version that is served.", tuple(names))
        built.labels(*(version[key] for key in names.values())).set(1)
        if "emulationMajor" in version:
            told = [
                ".".join((version[f"{of}ajor"], version[f"{of}inor"]))
                for of in ("m", "emulationM", "minCompatibilityM")
            ]
            named = ("binary", "emulation", "min_compat", "component")
            self.registry.gauge("version_info", "The versions that go together.", named).labels(*told, "kube").set(1)

    def attach(self) -> None:
        """Count its requests and answer its paths."""
        server = self._server
        server.requests = Requests(self.registry, self._known)
        services = server.services
        services.extras[METRICS] = PluginMetrics(self.registry, services.clock.monotonic)
        services.admission = TimedAdmission(services.admission, self.registry, services.clock.monotonic)
        server.paths[:0] = [self._health, self._metrics]
        Caching(self.registry, server)
        Flowing(self.registry, server)
        Access(self.registry, server, server.requests)
        Surroundings(self.registry, server)
        Credentials(self.registry, server)
        self._registered()

    def _registered(self) -> None:
        """How many metrics there are of each stability, this one among them."""
        labels = "stability_level", "deprecated_version"
        family = self.registry.counter("registered_metrics_total", "Metrics that there are.", labels)
        levels = Counter(self.registry.mark(name).strip("[] ") for name in self.registry.names())
        for level, number in levels.items():
            if level:
                family.labels(level, "").set(number)

    def paths(self) -> list[str]:
        """Every path that is answered here."""
        single = [f"/{root}/{name}" for root, checks in self._checks().items() for name in checks]
        return ["/healthz", "/livez", "/metrics", "/metrics/slis", "/readyz", *single]

    def _known(self, info: RequestInfo) -> str | None:
        """When a resource is to go; NEVER of most, None of what there is not."""
        if not info.is_resource:
            return NEVER
        kind = self._server.registry.by_resource(info.group, info.version, info.resource)
        if kind is None or (info.subresource and kind.subresource(info.subresource, info.version) is None):
            return None
        found = kind.version(info.version)
        if found is None or not found.deprecation:
            return NEVER
        removed = re.search(r"unavailable in v(\d+\.\d+)\+", found.deprecation)
        return removed[1] if removed else ""

    def _metrics(self, request: Request, user: User) -> Response | None:
        if request.path not in ("/metrics", "/metrics/slis"):
            return None
        registry = self.registry if request.path == "/metrics" else self._slis
        began = ("process-start-time-unix", str(int(procstat.began())))
        return Response(200, [*_MEDIA, began], registry.text().encode())

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


def _snake(name: str) -> str:
    return re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", name)
