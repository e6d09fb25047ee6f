"""A program beside the API server: answers what a test says, over real TLS, and keeps what it was asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import yaml

from steersman.api.resource import Object
from steersman.cluster import certs
from steersman.lib.clock import SystemClock
from steersman.lib.http.messages import Answer, Peer, Request, Response
from steersman.lib.http.server import Server, server_tls


class Remote:
    """Use it as `async with`. `answer` makes a request's answer, at once or not; a Response is sent as it is."""

    def __init__(self, folder: Path, answer: Callable[[Request], Any]) -> None:
        self.folder = folder / "remote"
        self.asked: list[Object] = []
        self.peers: list[Peer] = []  # one for each request; the same for requests of one connection
        self._answer = answer
        certs.ensure(self.folder, certs.identities([], ["127.0.0.1"], "cluster.local"), SystemClock().now())
        tls = server_tls(self.folder / "apiserver.crt", self.folder / "apiserver.key")
        self._server = Server(self._handle, SystemClock(), tls=tls)
        self.url = ""

    async def _handle(self, request: Request) -> Answer:
        self.peers.append(request.peer)
        if request.body:
            self.asked.append(msgspec.json.decode(request.body))
        answer = self._answer(request)
        if isinstance(answer, Awaitable):
            answer = await answer
        if isinstance(answer, Response):
            return answer
        return Response(200, [("content-type", "application/json")], msgspec.json.encode(answer))

    async def __aenter__(self) -> Remote:
        self.url = f"https://127.0.0.1:{await self._server.listen('127.0.0.1', 0)}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    @property
    def connections(self) -> int:
        """How many were made by those who asked."""
        return len({id(peer) for peer in self.peers})

    @property
    def authority(self) -> Path:
        """Who signed the server's certificate."""
        return self.folder / "ca.crt"

    def kubeconfig(self, path: str = "/", **cluster: Any) -> str:
        """A file that names this program. Returns its path."""
        where = {"server": self.url + path, "certificate-authority": "ca.crt", **cluster}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": where}],
            "users": [{"name": "u", "user": {"token": "secret"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        file = self.folder / "config"
        file.write_text(yaml.safe_dump(config))
        return str(file)
