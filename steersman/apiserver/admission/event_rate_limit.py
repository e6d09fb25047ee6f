"""EventRateLimit: only so many events a second, in all, of a namespace, of a user, or about one thing.

Owns the settings' form and the buckets, which live as long as the server. Source: plugin/pkg/admission/eventratelimit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from steersman.api import validation
from steersman.api.errors import ApiError, FieldError
from steersman.api.resource import Object
from steersman.apiserver.call import Call

NAME = "EventRateLimit"
_CACHED = 4096  # buckets of one limit, where the settings do not say
_SOURCE = ("component", "host")
_ABOUT = ("kind", "namespace", "name", "uid", "apiVersion")


def _source_and_object(call: Call, event: Object) -> str:
    source, about = event.get("source") or {}, event.get("involvedObject") or {}
    return "".join([str(source.get(key) or "") for key in _SOURCE] + [str(about.get(key) or "") for key in _ABOUT])


_KEYS: dict[str, Callable[[Call, Object], str]] = {
    "Server": lambda call, event: "",
    "Namespace": lambda call, event: call.info.namespace,
    "User": lambda call, event: call.user.name,
    "SourceAndObject": _source_and_object,
}


@dataclass
class Limit:
    """One limit: a bucket of `burst` events for each key, filled with `qps` a second."""

    type: str
    qps: int
    burst: int
    most: int = _CACHED
    buckets: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)  # tokens, at which second

    def accepts(self, key: str, now: float) -> bool:
        """Take one token, where there is one."""
        tokens, since = self.buckets.get(key, (float(self.burst), now))
        tokens = min(float(self.burst), tokens + max(now - since, 0.0) * self.qps)
        self.buckets[key] = (tokens - 1 if tokens >= 1 else tokens), now
        self.buckets.move_to_end(key)
        if len(self.buckets) > self.most:
            self.buckets.popitem(last=False)
        return tokens >= 1


def configuration(given: Any) -> Sequence[Limit]:
    """Read eventratelimit.admission.k8s.io/v1alpha1. Raises ValueError."""
    listed = (given or {}).get("limits")
    problems = [] if listed else [validation.invalid("limits", listed, "must not be empty")]
    for at, limit in enumerate(listed or ()):
        problems += _wrong(f"limits[{at}]", limit)
    if problems:
        texts = [str(problem) for problem in problems]
        raise ValueError(texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]")
    return [Limit(each["type"], each["qps"], each["burst"], each.get("cacheSize") or _CACHED) for each in listed or ()]


def _wrong(path: str, limit: Object) -> list[FieldError]:
    type, burst, qps = limit.get("type", ""), limit.get("burst", 0), limit.get("qps", 0)
    found = []
    if type not in _KEYS:
        found.append(validation.not_supported(f"{path}.type", type, sorted(_KEYS)))
    for name, value in (("burst", burst), ("qps", qps)):
        if value <= 0:
            found.append(validation.invalid(f"{path}.{name}", value, "must be positive"))
    if type != "Server" and limit.get("cacheSize", 0) < 0:
        found.append(validation.invalid(f"{path}.cacheSize", limit["cacheSize"], "must not be negative"))
    return found


def validate(call: Call, obj: Object | None, old: Object | None) -> None:
    """Refuse one event too many. Every limit counts it, also when another refuses. Raises ApiError 429."""
    if obj is None or (call.kind.group, call.kind.kind) != ("", "Event") or call.dry_run:
        return
    if call.operation not in ("CREATE", "UPDATE"):
        return
    limits: Sequence[Limit] = call.services.extras.get(NAME) or ()
    now = call.services.clock.monotonic()
    over = [
        f"limit reached on type {limit.type} for key {key}"
        for limit in limits
        if not limit.accepts(key := _KEYS[limit.type](call, obj), now)
    ]
    if over:
        said = over[0] if len(set(over)) == 1 else f"[{', '.join(dict.fromkeys(over))}]"
        raise ApiError(429, "TooManyRequests", f"Too many requests: {said}")
