"""Audit events that are too large lose what was sent and answered.

Owns what is taken away, and that what is too large even so is dropped. Stands before a sink. Source: apiserver's
plugin/pkg/audit/truncate.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from steersman.api.resource import Object

log = logging.getLogger(__name__)

TRUNCATED = "audit.k8s.io/truncated"
_BODIES = ("requestObject", "responseObject")


class Truncate:
    """Implements `trail.Sink` before another one. `most`: bytes of an event."""

    def __init__(self, sink: Callable[[Object], None], most: int) -> None:
        self._sink = sink
        self._most = most

    def __call__(self, event: Object) -> None:
        """Hand an event on, shortened where that is needed and helps."""
        if len(msgspec.json.encode(event)) > self._most:
            if event.get("level") in ("Request", "RequestResponse"):
                event = {key: value for key, value in event.items() if key not in _BODIES}
                event["annotations"] = {**(event.get("annotations") or {}), TRUNCATED: "true"}
            if len(msgspec.json.encode(event)) > self._most:
                log.error("audit: event %s is too large even after truncating", event.get("auditID"))
                return
        self._sink(event)
