"""One simulated node with its API, for the kubelet's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from steersman.kubelet.agent import Kubelet
from steersman.kubelet.resolvconf import ClusterDns
from steersman.kubelet.settings import NodeConfig
from steersman.lib.clock import LoopClock
from steersman.testing.fakeruntime import FakeImages, FakeRuntime, Script

from .apistub import Api


class World:
    """One simulated node, its API, and a kubelet that can die and come back."""

    def __init__(self, directory: Path) -> None:
        self.clock = LoopClock()
        self.api = Api(self.clock)
        self.scripts: dict[str, Script | Callable[..., Script]] = {}
        self.runtime = FakeRuntime(self.clock, scripts=self._script)
        self.images = FakeImages(self.clock, present=["nginx:1.7.9", "busybox"])
        self.settings = NodeConfig(
            name="node-1",
            addresses=["192.0.2.10"],
            root=directory / "kubelet",
            logs=directory / "logs",
            memory=directory / "memory",
            dns=ClusterDns(["10.96.0.10"]),
            resolv_conf=str(directory / "none"),
            capacity={"cpu": "4", "memory": "8Gi", "pods": "110"},
        )

    def _script(self, config: Any) -> Script:
        found = self.scripts.get(config.name, Script())
        return found if isinstance(found, Script) else found(config)

    @asynccontextmanager
    async def kubelet(self) -> AsyncIterator[Kubelet]:
        self.api.forget_informers()
        kubelet = Kubelet(
            settings=self.settings,
            client=self.api,  # type: ignore[arg-type]
            informers=self.api,  # type: ignore[arg-type]
            runtime=self.runtime,
            images=self.images,
            clock=self.clock,
            recorder=self.api,
        )
        async with kubelet.running():
            yield kubelet

    def phase(self, name: str) -> str:
        pod = self.api.pod(name)
        return "" if pod is None else (pod.get("status") or {}).get("phase", "")

    async def until_phase(self, name: str, phase: str) -> dict[str, Any]:
        await self.api.until(lambda: self.phase(name) == phase)
        pod = self.api.pod(name)
        assert pod is not None
        return pod
