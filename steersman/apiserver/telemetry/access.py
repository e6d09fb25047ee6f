"""Metrics of who is let in: attempts to authenticate and to be authorized, and how long they took.

Owns the names. Nothing is counted on the way of a request that has not to wait: such a one counts as having taken no
time, and how many there were follows from how many were answered. Source: apiserver's pkg/endpoints/filters/metrics.go
(names, labels, bounds).
"""

from __future__ import annotations

from typing import Any

from steersman.apiserver.flow.gate import Gate
from steersman.apiserver.telemetry.requests import ACCESS, Requests
from steersman.lib.metrics import Registry

_GOOD = ("success", "allowed")
_OWN = frozenset({"admin", "client", "kube_proxy", "kubelet", "system:serviceaccount:kube-system:default"})


class Access:
    """The families; `collect` fills them."""

    def __init__(self, registry: Registry, server: Any, requests: Requests) -> None:
        self._server, self._requests = server, requests
        self._users = registry.counter(
            "authenticated_user_requests", "Requests of somebody known, by names that are few.", ("username",)
        )
        self._tried = registry.counter("authentication_attempts", "Attempts to be known.", ("result",))
        self._allowed = registry.counter("authorization_attempts_total", "Attempts to be let in.", ("result",))
        self._seconds = [
            registry.histogram(f"{name}_duration_seconds", text, ("result",), ACCESS)
            for name, text in (("authentication", "Seconds until who asks was known."),
                               ("authorization", "Seconds until it was known whether they may."))
        ]  # fmt: skip
        registry.collect(self.collect)

    def collect(self) -> None:
        """Work it out."""
        requests, gate = self._requests, self._server.flow
        known = requests.answered - requests.unauthenticated.total()
        levels = gate.levels.values() if isinstance(gate, Gate) else ()
        tallies = [tally for level in levels for tally in level.tallies.values()]
        turned_away = sum(sum(tally.gone.values()) for tally in tallies)
        denied = requests.denied
        for result, number in {"success": known, **requests.unauthenticated}.items():
            self._tried.labels(result).set(number)
            self._load(0, result, number)
        for result, number in {"allowed": known - turned_away - denied.total(), **denied}.items():
            if number > 0:
                self._allowed.labels(result).set(number)
                self._load(1, result, number)
        shown: dict[str, int] = {}
        for name, number in requests.users.items():
            short = name if name in _OWN else "email_id" if "@" in name else "other"
            shown[short] = shown.get(short, 0) + number
        for name, number in shown.items():
            self._users.labels(name).set(number)

    def _load(self, which: int, result: str, number: int) -> None:
        waited = self._requests.waits[which] if result in _GOOD else None
        counts = list(waited.counts) if waited is not None else [0] * (len(ACCESS) + 1)
        counts[0] += max(0, number - sum(counts))
        self._seconds[which].labels(result).load(counts, 0.0 if waited is None else waited.total)
