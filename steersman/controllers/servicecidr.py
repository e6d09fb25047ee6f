"""ServiceCIDRs: ready when known, and kept from going while a service would lose its range.

Owns the protection finalizer and the Ready condition. It never gives out an address: that is the API server's work.
A range may go when others contain it, or when nobody has an address that only it contains.
Source: KEP-1880, kubernetes' pkg/controller/servicecidrs; texts are the original's.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from steersman.api.errors import ApiError
from steersman.api.resource import SERVICES, Object, Resource
from steersman.client.controller import DONE, Context, Controller, For, Key, Result, Watch
from steersman.lib.clock import parse_rfc3339, rfc3339

SERVICECIDRS = Resource("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR", namespaced=False)
IPADDRESSES = Resource("networking.k8s.io", "v1", "ipaddresses", "IPAddress", namespaced=False)

_MANAGER = "service-cidr-controller"
FINALIZER = "networking.k8s.io/service-cidr-finalizer"
_MANAGED_BY = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io")
_GRACE = 10.0  # seconds for the news of a deletion to reach whoever gives out addresses
_READY = ("True", "", "Kubernetes Service CIDR is ready")
_TERMINATING = (
    "False",
    "Terminating",
    "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR",
)

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address


def networks(cidr: Object) -> list[Network]:
    """A ServiceCIDR's ranges."""
    return [ip_network(each) for each in cidr["spec"].get("cidrs") or ()]


def contains(network: Network, part: Network) -> bool:
    """Whether all of `part` lies in `network`."""
    if isinstance(network, IPv4Network):
        return isinstance(part, IPv4Network) and part.subnet_of(network)
    return isinstance(part, IPv6Network) and part.subnet_of(network)


def removable(cidr: Object, everything: Iterable[Object], addresses: Iterable[Address]) -> bool:
    """Whether every address in use stays within some range when `cidr` is gone; `everything` may include it."""
    name, own = cidr["metadata"]["name"], networks(cidr)
    others = [network for each in everything if each["metadata"]["name"] != name for network in networks(each)]
    if all(any(contains(other, network) for other in others) for network in own):
        return True
    for address in addresses:
        if any(address in network for network in own) and not any(address in other for other in others):
            return False
    return True


async def _say(context: Context, cidr: Object, status: str, reason: str, message: str) -> None:
    """Set the Ready condition, where it does not say so already."""
    conditions = (cidr.get("status") or {}).get("conditions") or []
    found = next((each for each in conditions if each["type"] == "Ready"), None)
    if found and (found["status"], found.get("reason", ""), found.get("message", "")) == (status, reason, message):
        return
    stamp, name = rfc3339(context.clock.now()), cidr["metadata"]["name"]
    new = {"type": "Ready", "status": status, "reason": reason, "message": message, "lastTransitionTime": stamp}
    body = {
        "apiVersion": SERVICECIDRS.api_version,
        "kind": SERVICECIDRS.kind,
        "metadata": {"name": name},
        "status": {"conditions": [new]},
    }
    await context.client.patch(
        SERVICECIDRS, name, "", body, type="apply", subresource="status", field_manager=_MANAGER, force=True
    )


async def _mark(context: Context, cidr: Object, finalizers: Object) -> None:
    """Change the finalizers, unless the range is gone."""
    try:
        await context.client.patch(
            SERVICECIDRS, cidr["metadata"]["name"], "", {"metadata": finalizers}, type="strategic"
        )
    except ApiError as error:
        if error.code != 404:
            raise


async def reconcile(context: Context, key: Key) -> Result:
    """Protect one range, say that it is ready, or let it go."""
    cidr = context.informer(SERVICECIDRS).get(*key)
    if cidr is None:
        return DONE
    meta, now = cidr["metadata"], context.clock.now()
    finalizers = meta.get("finalizers") or []
    if meta.get("deletionTimestamp"):
        if FINALIZER not in finalizers:
            return DONE
        if not removable(cidr, context.informer(SERVICECIDRS).list(), _in_use(context)):
            await _say(context, cidr, *_TERMINATING)
            return DONE
        left = parse_rfc3339(meta["deletionTimestamp"]) + _GRACE - now
        if left > 0:
            return Result(left)
        await _mark(context, cidr, {"$deleteFromPrimitiveList/finalizers": [FINALIZER]})
        return DONE
    if FINALIZER not in finalizers:
        await _mark(context, cidr, {"finalizers": [FINALIZER]})
    try:
        await _say(context, cidr, *_READY)
    except ApiError:
        text = "The ServiceCIDR Status can not be set to Ready=True"
        context.recorder.event(cidr, "Warning", "KubernetesServiceCIDRError", text)
        raise
    return DONE


def _in_use(context: Context) -> list[Address]:
    """Addresses of services, whether an IPAddress stands for them or not."""
    label, owner = _MANAGED_BY
    held = context.informer(IPADDRESSES).list()
    given = {each["metadata"]["name"] for each in held if (each["metadata"].get("labels") or {}).get(label) == owner}
    for service in context.informer(SERVICES).list():
        given |= {each for each in service["spec"].get("clusterIPs") or () if each not in ("", "None")}
    return [ip_address(each) for each in given]


def _leaving(context: Context, _: Object) -> Iterable[Key]:
    """Only ranges on their way out care about addresses and about other ranges."""
    for each in context.informer(SERVICECIDRS).list():
        if each["metadata"].get("deletionTimestamp"):
            yield Key("", each["metadata"]["name"])


CONTROLLER = Controller(
    "service-cidr-controller",
    reconcile,
    (
        For(SERVICECIDRS),
        Watch(SERVICECIDRS, _leaving),
        Watch(IPADDRESSES, _leaving),
        Watch(SERVICES, _leaving),
    ),
)
