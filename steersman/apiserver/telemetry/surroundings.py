"""Metrics of what an API server has around it: addresses and ports of Services, API services, audit, Pod Security.

Owns the names; each figure is its owner's, read when somebody asks. Source: kubernetes' pkg/registry/core/service
(ipallocator and portallocator metrics), kube-aggregator's pkg/controllers/status/metrics, apiserver's pkg/audit,
pod-security-admission's metrics (names, labels).
"""

from __future__ import annotations

from typing import Any

from steersman.api.resource import APISERVICES
from steersman.apiserver.admission.podsecurity.plugin import EVALUATIONS, EXEMPTIONS
from steersman.apiserver.audit.trail import Auditor
from steersman.apiserver.ipalloc import ALLOCATOR, Allocator
from steersman.apiserver.subresources.streams import LOGS
from steersman.apiserver.webhookpost import CLIENTS
from steersman.lib.metrics import Registry


class Surroundings:
    """The families; `collect` fills them."""

    def __init__(self, registry: Registry, server: Any) -> None:
        self._server = server
        gauge, counter = registry.gauge, registry.counter
        name = "kube_apiserver_clusterip_allocator_"
        self._used = gauge(f"{name}allocated_ips", "Addresses that Services have.", ("cidr",))
        self._free = gauge(f"{name}available_ips", "Addresses that are left.", ("cidr",))
        self._given = counter(f"{name}allocation_total", "Addresses given out.", ("cidr", "scope"))
        self._refused = counter(
            f"{name}allocation_errors_total", "Addresses that were not given out.", ("cidr", "scope")
        )
        name = "kube_apiserver_nodeport_allocator_"
        self._ports = gauge(f"{name}allocated_ports", "Node ports that Services have.")
        self._free_ports = gauge(f"{name}available_ports", "Node ports that are left.")
        self._available = gauge("aggregator_unavailable_apiservice", "1 of an APIService that is not there.", ("name",))
        self._audited = counter("apiserver_audit_event_total", "Audit events handed to the sinks.")
        self._levels = counter("apiserver_audit_level_total", "Audited requests by level.", ("level",))
        self._judged = counter(
            "pod_security_evaluations_total",
            "Pods and templates of pods that were looked at.",
            ("decision", "mode", "policy_level", "policy_version", "request_operation", "resource", "subresource"),
        )
        self._exempt = counter(
            "pod_security_exemptions_total",
            "Pods and templates of pods that are exempt.",
            ("request_operation", "resource", "subresource"),
        )
        self._asked = counter("rest_client_requests_total", "Requests to webhooks.", ("code", "method", "host"))
        self._logs = [
            counter(f"kube_apiserver_pod_logs_{name}insecure_backend_total", "Logs asked of kubelets.", ("usage",))
            for name in ("", "pods_logs_")
        ]
        registry.collect(self.collect)

    def collect(self) -> None:
        """Ask everybody."""
        allocator = self._server.services.extras.get(ALLOCATOR)
        if isinstance(allocator, Allocator):
            self._allocated(allocator)
        self._services()
        if isinstance(auditor := self._server.audit, Auditor):
            self._audited.labels().set(auditor.tally.events)
            for level, number in auditor.tally.levels.items():
                self._levels.labels(level).set(number)
        for labels, number in self._server.services.extras.get(EVALUATIONS, {}).items():
            self._judged.labels(*labels).set(number)
        for labels, number in self._server.services.extras.get(EXEMPTIONS, {}).items():
            self._exempt.labels(*labels).set(number)

        for usage, number in self._server.services.extras.get(LOGS, {}).items():
            for family in self._logs:
                family.labels(usage).set(number)
        if (clients := self._server.services.extras.get(CLIENTS)) is not None:
            for (code, host), number in clients.asked.items():
                self._asked.labels(code, "POST", host).set(number)

    def _allocated(self, allocator: Allocator) -> None:
        for network, used in allocator.used():
            cidr = str(network)
            self._used.labels(cidr).set(used)
            self._free.labels(cidr).set(network.num_addresses - 2 * (network.version == 4) - used)
        for family, counts in ((self._given, allocator.given), (self._refused, allocator.refused)):
            for (cidr, scope), number in counts.items():
                family.labels(cidr, scope).set(number)
        first, last = allocator.ports
        ports = allocator.used_ports
        self._ports.labels().set(ports)
        self._free_ports.labels().set(last - first + 1 - ports)

    def _services(self) -> None:
        kind = self._server.registry.find(APISERVICES.group, APISERVICES.plural)
        if kind is None or (cache := self._server.storage.found(kind)) is None:
            return
        for _, item in cache.items(self._server.storage.prefix(kind)):
            conditions = (item.obj().get("status") or {}).get("conditions") or ()
            there = any(one.get("type") == "Available" and one.get("status") == "True" for one in conditions)
            self._available.labels(item.name).set(0 if there else 1)
