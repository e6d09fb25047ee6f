"""The scheduler's and the controllers' HTTPS ports, where the original has them: 10259 and 10257 of the loopback.

Owns which port, its certificate and what happens when it is taken: a machine has several clusters and one such port, so
the first has it by default, and the others tell on their sockets alone; `secure-port` chooses another, 0 none. Called
by `control` once the API server answers.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator

from steersman.client.client import Client
from steersman.client.delegated import Delegated, Inner
from steersman.cluster.profile import Profile
from steersman.lib.clock import Clock
from steersman.lib.http.server import Server, server_tls

log = logging.getLogger(__name__)

_USUAL = {"scheduler": 10259, "controller-manager": 10257}
_ADDRESS = "127.0.0.1"  # as kubeadm, kind and minikube have it


@contextlib.asynccontextmanager
async def served(profile: Profile, component: str, inner: Inner, client: Client, clock: Clock) -> AsyncIterator[None]:
    """Answer on the component's port meanwhile, whoever may ask."""
    port = int(profile.options(component).get("secure-port") or _USUAL[component])
    if not port:
        yield
        return
    pki = profile.pki
    tls = server_tls(pki / f"{component}.crt", pki / f"{component}.key", [pki / "ca.crt"])
    async with Server(Delegated(inner, client, clock).handle, clock, tls=tls) as server:
        try:
            await server.listen(_ADDRESS, port)
        except OSError as error:
            log.warning("kube-%s has no port: cannot listen on %s:%d: %s", component, _ADDRESS, port, error.strerror)
        yield
