"""Keeps one node's policy table true to the cluster's NetworkPolicies, namespaces and pods.

Owns the loop: any change marks the picture as old, and one transaction replaces the table when it came out different.
Pods and namespaces are followed only once there is a policy. Started by the node's process, in its network namespace.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from steersman.api.resource import NAMESPACES, PODS, Object, Resource
from steersman.lib.backoff import Backoff
from steersman.proxy import policy
from steersman.proxy.apply import Applier, NftablesError, best_applier
from steersman.proxy.policy import Cluster, Pod

if TYPE_CHECKING:
    from steersman.client.informer import Informers
    from steersman.lib.clock import Clock

log = logging.getLogger(__name__)

NETWORKPOLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
_GATHER = 0.01  # seconds after a change in which others may join its transaction


class PolicyAgent:
    """Enforces policies for the pods of one node. The table stays when it stops."""

    def __init__(
        self,
        informers: Informers,
        clock: Clock,
        *,
        table: str,
        node_name: str,
        resolvers: Sequence[str] = (),
        applier: Applier | None = None,
    ) -> None:
        """`resolvers`: the nodes' DNS, which policies know as the pods `k8s-app: kube-dns` of kube-system.

        Raises ValueError for a table name that nft would not take.
        """
        policy.check_table(table)
        self._informers = informers
        self._clock = clock
        self._table = table
        self._node = node_name
        self._dns = Pod(
            "kube-system", {"k8s-app": "kube-dns"}, tuple(resolvers), {("dns", "UDP"): 53, ("dns-tcp", "TCP"): 53}
        )
        self._applier = applier
        self._policies = informers.informer(NETWORKPOLICIES)
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._following = False
        self._early: dict[str, Pod] = {}  # by uid: about to start, their addresses not in the API yet
        self._applied = ""

    async def settled(self) -> None:
        """Wait until the kernel has everything that the informers have told so far."""
        await self._settled.wait()

    async def admit(self, pod: Object, ips: Sequence[str]) -> None:
        """A pod of this node has these addresses and is about to start: wait until the kernel judges its traffic."""
        await self.settled()
        found = policy.pod_of({**pod, "status": {"podIPs": [{"ip": each} for each in ips]}}, self._node)
        if found is None or not self._policies.list():
            return
        self._early[pod["metadata"]["uid"]] = found
        self._changed(None, pod)
        await self.settled()

    async def run(self) -> None:
        """Until cancelled."""
        applier = self._applier or best_applier()
        try:
            self._policies.add_handler(self._changed)
            await self._policies.synced()
            backoff: Backoff[str] = Backoff(0.1, 30.0)
            self._wake.set()
            while True:
                await self._wake.wait()
                await self._clock.sleep(_GATHER)
                self._wake.clear()
                try:
                    await self._bring_about(applier)
                    backoff.forget("")
                except NftablesError as error:
                    log.error("cannot set network policies, trying again: %s", error)
                    await self._clock.sleep(backoff.next(""))
                    self._wake.set()
                if not self._wake.is_set():
                    self._settled.set()
        finally:
            if self._applier is None:
                applier.close()

    def _changed(self, old: Object | None, new: Object | None) -> None:
        self._settled.clear()
        self._wake.set()

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if old is not None and new is None and self._early.pop(old["metadata"]["uid"], None):
            self._changed(old, new)
        if (old and policy.pod_of(old, self._node)) != (new and policy.pod_of(new, self._node)):
            self._changed(old, new)

    async def _bring_about(self, applier: Applier) -> None:
        policies = self._policies.list()
        if policies and not self._following:
            self._following = True
            pods, namespaces = self._informers.informer(PODS), self._informers.informer(NAMESPACES)
            pods.add_handler(self._pod_changed)
            namespaces.add_handler(self._changed)
            await asyncio.gather(pods.synced(), namespaces.synced())
        text = policy.table(self._table, self._picture(policies))
        if text != self._applied:
            await applier.apply(text)
            self._applied = text

    def _picture(self, policies: Sequence[Object]) -> Cluster:
        if not policies:
            return Cluster((), (), {})
        listed = self._informers.informer(PODS).list()
        pods = [found for each in listed if (found := policy.pod_of(each, self._node))]
        for each in listed:
            if (each.get("status") or {}).get("podIPs"):
                self._early.pop(each["metadata"]["uid"], None)
        pods += self._early.values()
        spaces = self._informers.informer(NAMESPACES).list()
        known = {each["metadata"]["name"]: each["metadata"].get("labels") or {} for each in spaces}
        return Cluster(policies, [*pods, self._dns] if self._dns.ips else pods, known)
