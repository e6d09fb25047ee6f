"""No more requests a second than agreed: a token bucket in front of a transport.

Owns the bucket. Made by the controller loop where `kube-api-qps` is set. Source: client-go's flowcontrol.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from steersman.lib.clock import Clock
from steersman.lib.http.messages import ClientResponse, Duplex, Headers, Transport


class Bucket:
    """At most `burst` at once, and `rate` a second in the long run; who comes first goes first."""

    def __init__(self, clock: Clock, rate: float, burst: int) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = burst
        self._full = clock.monotonic()  # when the bucket is full again

    async def take(self) -> None:
        """Wait for one's turn."""
        now = self._clock.monotonic()
        self._full = max(self._full, now) + 1 / self._rate
        wait = self._full - now - self._burst / self._rate
        if wait > 0:
            await self._clock.sleep(wait)


class Paced:
    """A transport whose requests wait for their turn. Implements `Transport`."""

    def __init__(self, inner: Transport, bucket: Bucket) -> None:
        self._inner = inner
        self._bucket = bucket

    async def request(
        self, method: str, target: str, headers: Headers = (), body: bytes | AsyncIterator[bytes] = b""
    ) -> ClientResponse:
        """Send one request."""
        await self._bucket.take()
        return await self._inner.request(method, target, headers, body)

    async def upgrade(self, method: str, target: str, headers: Headers = ()) -> tuple[ClientResponse, Duplex | None]:
        """Ask for a protocol switch."""
        await self._bucket.take()
        return await self._inner.upgrade(method, target, headers)

    async def close(self) -> None:
        """Close every connection."""
        await self._inner.close()


def bucket_of(config: Mapping[str, str], clock: Clock) -> Bucket | None:
    """What `kube-api-qps` and `kube-api-burst` say; None where nothing is agreed, or a negative rate.

    Unlike kube-controller-manager's, which has 20 and 30, one without these settings takes its time from nobody.
    Zero is 5 a second and 10 at once, as for client-go.
    """
    if "kube-api-qps" not in config and "kube-api-burst" not in config:
        return None
    rate, burst = float(config.get("kube-api-qps", "20")), int(config.get("kube-api-burst", "30"))
    return None if rate < 0 else Bucket(clock, rate or 5.0, burst or 10)
