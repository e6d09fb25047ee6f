"""Leader election: of several candidates one leads, as long as it keeps renewing a Lease.

Owns the Lease of one election. Called by `cluster` for components of which only one may act. Others' clocks are not
trusted: a record counts as held until it has stood unchanged for its duration by our own clock.
Source: client-go's leaderelection (KEP-589 for Leases).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

from steersman.api.errors import ApiError
from steersman.api.resource import LEASES, Object
from steersman.api.term import Term
from steersman.client.client import Client
from steersman.client.events import EventRecorder
from steersman.lib.clock import Clock, rfc3339_micro

log = logging.getLogger(__name__)

_JITTER = 1.2


class LeadershipLost(Exception):
    """The Lease could not be renewed in time: whoever led must stop at once."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Times in seconds; defaults as kube-controller-manager's."""

    lease: float = 15.0
    renew: float = 10.0
    retry: float = 2.0


class Election:
    """One candidate. Raises ValueError for terms under which two could lead."""

    def __init__(
        self,
        client: Client,
        *,
        clock: Clock,
        random: Random,
        namespace: str,
        name: str,
        identity: str,
        terms: Terms | None = None,
        recorder: EventRecorder | None = None,
    ) -> None:
        self.terms = terms or Terms()
        if self.terms.lease <= self.terms.renew:
            raise ValueError("leaseDuration must be greater than renewDeadline")
        if self.terms.renew <= _JITTER * self.terms.retry:
            raise ValueError("renewDeadline must be greater than retryPeriod*JitterFactor")
        self.identity = identity
        self._client, self._clock, self._random, self._recorder = client, clock, random, recorder
        self._namespace, self._name = namespace, name
        self._observed: Object | None = None
        self._observed_at = 0.0
        self._since = ""  # when our term began, as the Lease has it; empty while we do not lead

    @property
    def leader(self) -> str:
        """Who led when we last looked; empty when nobody."""
        return ((self._observed or {}).get("spec") or {}).get("holderIdentity") or ""

    @property
    def term(self) -> Term:
        """Our term, by which the API server knows our writes from those of whoever leads later."""
        return Term(self._namespace, self._name, self._since, self.identity)

    async def lead(self, work: Callable[[], Awaitable[None]]) -> None:
        """Wait to become the leader, then run `work`; returns when it does, having given the Lease back.

        Raises LeadershipLost after cancelling `work` when the Lease is lost.
        """
        while not await self._try():
            await self._clock.sleep(self.terms.retry * (1 + _JITTER * self._random.random()))
        self._tell("became leader")
        working = asyncio.ensure_future(work())
        renewing = asyncio.ensure_future(self._renew())
        try:
            await asyncio.wait({working, renewing}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
                return
            renewing.result()
        finally:
            for each in (working, renewing):
                each.cancel()
            await asyncio.gather(working, renewing, return_exceptions=True)
            self._tell("stopped leading")
            await self._release()

    async def _renew(self) -> None:
        """Renew until it fails for too long; then raise LeadershipLost."""
        renewed = self._clock.monotonic()
        while True:
            await self._clock.sleep(self.terms.retry)
            try:
                async with asyncio.timeout(max(renewed + self.terms.renew - self._clock.monotonic(), 0)):
                    held = await self._try()
            except TimeoutError:
                held = False
            if held:
                renewed = self._clock.monotonic()
            elif not self._ours() or self._clock.monotonic() - renewed >= self.terms.renew:
                raise LeadershipLost(f"failed to renew lease {self._namespace}/{self._name}")

    async def _try(self) -> bool:
        """Take or renew the Lease; False when somebody holds it or it cannot be reached."""
        try:
            return await self._take()
        except (ApiError, OSError) as error:
            log.info("cannot take lease %s/%s: %s", self._namespace, self._name, error)
            return False

    async def _take(self) -> bool:
        now = rfc3339_micro(self._clock.now())
        if self._observed is not None and self._ours() and await self._renewed(self._observed, now):
            return True
        spec = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": int(self.terms.lease),
            "acquireTime": self._since or now,
            "renewTime": now,
            "leaseTransitions": 0,
        }
        try:
            found = await self._client.get(LEASES, self._name, self._namespace)
        except ApiError as error:
            if error.code != 404:
                raise
            lease = {"metadata": {"name": self._name, "namespace": self._namespace}, "spec": spec}
            self._see(await self._client.create(LEASES, lease, self._namespace), ours=True)
            return True
        if self._observed is None or found["spec"] != self._observed["spec"]:
            self._see(found)
        old = found["spec"]
        if self._since and not self._ours():
            return False  # somebody has led since, perhaps under our name: this term will not come back
        held = self._clock.monotonic() - self._observed_at < float(old.get("leaseDurationSeconds") or 0)
        if old.get("holderIdentity") and held and self.leader != self.identity:
            return False
        spec["leaseTransitions"] = (old.get("leaseTransitions") or 0) + (self.leader != self.identity)
        self._see(await self._client.update(LEASES, {**found, "spec": spec}), ours=True)
        return True

    async def _renewed(self, ours: Object, now: str) -> bool:
        """Renew the Lease as it was when we wrote it last; False when somebody else has written since."""
        try:
            renewed = {**ours, "spec": {**ours["spec"], "renewTime": now}}
            self._see(await self._client.update(LEASES, renewed), ours=True)
        except ApiError as error:
            if error.code not in (404, 409):
                raise
            return False
        return True

    async def _release(self) -> None:
        """Give the Lease back, so that the next need not wait for it to run out."""
        if self._observed is None or not self._ours():
            return
        now = rfc3339_micro(self._clock.now())
        transitions = self._observed["spec"].get("leaseTransitions") or 0
        spec = {
            "holderIdentity": "",
            "leaseDurationSeconds": 1,
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": transitions,
        }
        with contextlib.suppress(ApiError, OSError, TimeoutError):
            async with asyncio.timeout(self.terms.renew):
                self._see(await self._client.update(LEASES, {**self._observed, "spec": spec}))

    def _ours(self) -> bool:
        """Whether the Lease, when we last looked, told of our term."""
        return bool(self._since) and self.term.lasts(self._observed)

    def _see(self, lease: Object, *, ours: bool = False) -> None:
        self._observed, self._observed_at = lease, self._clock.monotonic()
        if ours:
            self._since = lease["spec"]["acquireTime"]

    def _tell(self, what: str) -> None:
        if self._recorder is not None and self._observed is not None:
            lease = {**self._observed, "apiVersion": LEASES.api_version, "kind": LEASES.kind}
            self._recorder.event(lease, "Normal", "LeaderElection", f"{self.identity} {what}")
