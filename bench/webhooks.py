"""What a validating webhook costs a create: CPU of the API server, with kept connections and with one for each call.

    python -m bench.webhooks

The peers, in the same run: the same webhook when it ends the connection after each answer, and no webhook. The webhook
is a process of its own over TLS; the API server is in this one, memory store, its own requests without sockets.
"""

from __future__ import annotations

import asyncio
import base64
import json
import multiprocessing
import tempfile
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from time import perf_counter, process_time

import uvloop

from steersman.api.resource import CONFIGMAPS, Object, Resource
from steersman.apiserver.admission.chain import Chain, chosen
from steersman.cluster import certs
from steersman.lib.clock import SystemClock
from steersman.lib.http.messages import Request, Response
from steersman.lib.http.server import Server, server_tls
from steersman.testing.cluster import ApiCluster

COUNT, ROUNDS, CLIENTS = 200, 6, 8
VALIDATING = Resource(
    "admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration",
    namespaced=False,
)  # fmt: skip
RULE = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"]}


def serve(folder: Path, pipe: Pipe) -> None:
    """The webhook's process: tells its port, ends when it is killed."""
    uvloop.run(_serve(folder, pipe))


async def _serve(folder: Path, pipe: Pipe) -> None:
    def allow(request: Request) -> Response:
        uid = json.loads(request.body)["request"]["uid"]
        review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
        headers = [("content-type", "application/json")]
        headers += [("connection", "close")] if request.path == "/close" else []
        return Response(200, headers, json.dumps(review | {"response": {"uid": uid, "allowed": True}}).encode())

    server = Server(allow, SystemClock(), tls=server_tls(folder / "apiserver.crt", folder / "apiserver.key"))
    pipe.send(await server.listen("127.0.0.1", 0))
    await asyncio.Event().wait()


async def _create(cluster: ApiCluster, prefix: str) -> tuple[float, float]:
    """Microseconds of CPU and of time for one create, CLIENTS at once."""

    async def some(client: int) -> None:
        for number in range(COUNT // CLIENTS):
            await cluster.client.create(CONFIGMAPS, {"metadata": {"name": f"{prefix}-{client}-{number}"}}, "default")

    began, clock = process_time(), perf_counter()
    await asyncio.gather(*map(some, range(CLIENTS)))
    return (process_time() - began) / COUNT * 1e6, (perf_counter() - clock) / COUNT * 1e6


async def _measure(cluster: ApiCluster, folder: Path, port: int) -> dict[str, tuple[float, float]]:
    chain = Chain(chosen((), ()))
    cluster.server.services.admission = chain
    chain.attach(cluster.server)
    bundle = base64.b64encode((folder / "ca.crt").read_bytes()).decode()
    best: dict[str, tuple[float, float]] = {}
    for number in range(ROUNDS):
        for way in ("none", "close", "keep"):
            if way != "none":
                await cluster.client.create(VALIDATING, _configuration(f"https://127.0.0.1:{port}/{way}", bundle))
            found = await _create(cluster, f"{way}-{number}")
            best[way] = min(best.get(way, found), found)
            if way != "none":
                await cluster.client.delete(VALIDATING, "w")
    return best


def _configuration(url: str, bundle: str) -> Object:
    hook = {"name": "a.b.c", "clientConfig": {"url": url, "caBundle": bundle}, "rules": [RULE], "sideEffects": "None"}
    return {"metadata": {"name": "w"}, "webhooks": [hook | {"admissionReviewVersions": ["v1"]}]}


async def main() -> None:
    """The best of several rounds of each, in turns."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        certs.ensure(folder, certs.identities([], ["127.0.0.1"], "cluster.local"), SystemClock().now())
        here, there = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(folder, there), daemon=True)
        process.start()
        try:
            async with ApiCluster() as cluster:
                best = await _measure(cluster, folder, here.recv())
        finally:
            process.kill()
    for way, what in (("none", "no webhook"), ("close", "a connection each"), ("keep", "kept connections")):
        print(f"create with {what}: {best[way][0]:.0f} us of CPU, {best[way][1]:.0f} us")
    calls = {way: best[way][0] - best["none"][0] for way in ("close", "keep")}
    print(
        f"CPU of a call: {calls['close']:.0f} us, kept {calls['keep']:.0f}: {calls['close'] / calls['keep']:.1f} times"
    )


if __name__ == "__main__":
    uvloop.run(main())
