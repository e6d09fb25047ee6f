"""What every process of a cluster does the same way: an event loop, logging, a stop on SIGTERM, a client.

Owns `serve`, the frame around a component's `main`. Called by `components.py` in each child.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from random import Random

from steersman import __version__
from steersman.client.client import Client
from steersman.client.metrics import Metrics
from steersman.client.transport import Credentials, connect
from steersman.cluster.profile import Profile
from steersman.lib.clock import Clock, SystemClock
from steersman.lib.http.messages import Transport

_ROTATE = 10 * 1024 * 1024  # bytes of a log file before it is started anew at the next start


class StartFailure(Exception):
    """A component cannot start; the text is for the user."""


def serve(main: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run `main` on a uvloop until it returns; SIGTERM sets the event that it is handed."""
    import uvloop

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname).1s %(name)s: %(message)s", force=True)
    gc.set_threshold(
        20_000, 50, 50
    )  # few young objects survive; full collections are rare and bounded by caches of bytes

    async def framed() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await main(stop)

    uvloop.run(framed())


def transport(profile: Profile, identity: str, host: str = "127.0.0.1") -> Transport:
    """A transport to the API server at `host` as one of the cluster's identities. Raises OSError."""
    pki = profile.pki
    return connect(
        Credentials(
            f"https://{host}:{profile.api_port}",
            pki / "ca.crt",
            pki / f"{identity}.crt",
            pki / f"{identity}.key",
        ),
        fast=True,
    )


def anonymous(profile: Profile, metrics: Metrics) -> Transport:
    """A transport to the API server that shows no certificate; `metrics` count its requests. Raises OSError."""
    host = f"127.0.0.1:{profile.api_port}"
    made = connect(Credentials(f"https://{host}", profile.pki / "ca.crt"), fast=True)
    return metrics.counted(made, host)


@contextlib.asynccontextmanager
async def client(
    profile: Profile, identity: str, component: str, host: str = "127.0.0.1", *, metrics: Metrics | None = None
) -> AsyncIterator[tuple[Client, Clock]]:
    """A client as one of the cluster's identities, once the API server answers; `metrics` count its requests."""
    clock = SystemClock()
    made = transport(profile, identity, host)
    if metrics is not None:
        made = metrics.counted(made, f"{host}:{profile.api_port}")
    api = Client(made, clock=clock, user_agent=f"{component}/v{__version__}")
    try:
        await until_ready(api, clock)
        yield api, clock
    finally:
        await made.close()


async def until_ready(api: Client, clock: Clock) -> None:
    """Wait for /readyz; the listening socket exists before the server, so the first request mostly just waits."""
    while True:
        try:
            response, _ = await api.raw("GET", "/readyz")
            if response.status == 200:
                return
        except (OSError, TimeoutError):
            pass
        await clock.sleep(0.02)


def random() -> Random:
    """The source of uids, suffixes and jitter, seeded by the system; nothing that it gives is a secret."""
    return Random()


def shorten(path: Path) -> None:
    """Start a log anew when it has grown large."""
    with contextlib.suppress(OSError):
        if path.stat().st_size > _ROTATE:
            path.replace(path.with_suffix(".log.old"))
