"""How long admission takes: the chain that another one is asked through, with a clock beside it.

Made by `server.py`. Source: apiserver's pkg/admission/metrics (names, labels).
"""

from __future__ import annotations

from collections.abc import Callable

from steersman.api.resource import Object
from steersman.apiserver.call import Admission, Call
from steersman.lib.metrics import Registry

_BOUNDS = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5)


class TimedAdmission:
    """Implements `call.Admission`."""

    def __init__(self, inner: Admission, registry: Registry, now: Callable[[], float]) -> None:
        self._inner = inner
        self._now = now
        self._steps = registry.histogram(
            "apiserver_admission_step_admission_duration_seconds",
            "Seconds of a write's admission, changing or judging.",
            ("type", "operation", "rejected"),
            _BOUNDS,
        )

    async def mutate(self, call: Call, obj: Object | None, old: Object | None) -> None:
        """As the other one does."""
        began = self._now()
        try:
            await self._inner.mutate(call, obj, old)
        except BaseException:
            self._steps.labels("admit", call.operation, "true").observe(self._now() - began)
            raise
        self._steps.labels("admit", call.operation, "false").observe(self._now() - began)

    async def validate(self, call: Call, obj: Object | None, old: Object | None) -> None:
        """As the other one does."""
        began = self._now()
        try:
            await self._inner.validate(call, obj, old)
        except BaseException:
            self._steps.labels("validate", call.operation, "true").observe(self._now() - began)
            raise
        self._steps.labels("validate", call.operation, "false").observe(self._now() - began)
