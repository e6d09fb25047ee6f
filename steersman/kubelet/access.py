"""What the kubelet's HTTPS server may ask about the pods of this node.

Owns the `PodAccess` protocol. Implemented by `agent.Kubelet`; called by `server`, which never looks at workers itself.
Nothing here changes anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from steersman.api.resource import Object


class PodAccess(Protocol):
    """Pods of this node as the kubelet knows them. Every lookup raises ApiError (404, 400) with the original's text."""

    node_name: str

    def pods(self) -> Sequence[Object]:
        """Every pod bound here, with the status that the kubelet holds (newer than the API's)."""
        ...

    def container_id(self, namespace: str, pod: str, container: str, *, uid: str = "") -> str:
        """The engine's id of the running container, for exec and attach. `uid`, when given, must be the pod's."""
        ...

    def log_path(self, namespace: str, pod: str, container: str, *, previous: bool = False) -> str:
        """The absolute path of a container's log: of its current run, or of the one before."""
        ...

    def log_container_id(self, namespace: str, pod: str, container: str, *, previous: bool = False) -> str:
        """The engine's id of the container whose log `log_path` names."""
        ...

    def sandbox_id(self, namespace: str, pod: str, *, uid: str = "") -> str:
        """The engine's id of the pod's ready sandbox, for port-forward."""
        ...

    def configuration(self) -> Object:
        """The settings that /configz shows, under the names of KubeletConfiguration."""
        ...

    def probe_metrics(self) -> str:
        """How often probes were answered how, as text."""
        ...

    async def cadvisor_metrics(self) -> str:
        """Each container's use of the machine, as text."""
        ...

    async def stats_summary(self) -> Object:
        """The node's and its pods' usage, as /stats/summary answers (stats/v1alpha1 Summary)."""
        ...
