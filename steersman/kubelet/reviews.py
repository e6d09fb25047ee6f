"""Asking the API server who may use the kubelet's HTTPS server, and whose a bearer token is.

Owns what is asked of one node's subresources. Called by `server` through its seams `allow` and `identify`; the API
server's own certificate needs no question. Source: the kubelet's webhook authentication and authorization, with its
default cache times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from steersman.client import callers
from steersman.kubelet.authorize import Attributes, api_server_only

if TYPE_CHECKING:
    from steersman.client.client import Client
    from steersman.lib.clock import Clock


class Reviews:
    """Answers for one node. When the API server cannot be asked, the answer is no."""

    def __init__(self, client: Client, clock: Clock, node_name: str) -> None:
        self._asked = callers.Reviews(client, clock, yes=300.0, no=30.0, identity=120.0)
        self._node = node_name
        self.identify = self._asked.identify

    async def allow(self, wants: Attributes) -> bool:
        """Whether one of the subresources may be used (`authorize.Allow`)."""
        if api_server_only(wants):
            return True
        for subresource in wants.subresources:
            attributes = {
                "verb": wants.verb,
                "version": "v1",
                "resource": "nodes",
                "subresource": subresource,
                "name": self._node,
            }
            if await self._asked.may(wants.caller, {"resourceAttributes": attributes}):
                return True
        return False
