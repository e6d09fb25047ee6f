"""Endpoints: the addresses and ports behind each Service that has a selector, in one object.

Owns the Endpoints object of the Service's name. Source: kubernetes' pkg/controller/endpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from steersman.api import pods
from steersman.api.errors import ApiError
from steersman.api.resource import ENDPOINTS, PODS, SERVICES, Object
from steersman.client.backends import (
    HEADLESS,
    INDEXES,
    addresses,
    backends,
    find_port,
    hostname,
    is_headless,
    is_ipv6,
    services_of,
    target_of,
)
from steersman.client.children import namespace_terminates
from steersman.client.controller import DONE, Context, Controller, For, Key, Result, Watch
from steersman.client.triggertimes import TriggerTimes, stamped

_MANAGED_BY, _US = "endpoints.kubernetes.io/managed-by", "endpoint-controller"
_OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
_MOST = 1000


def subsets_of(service: Object, behind: Iterable[Object]) -> tuple[list[Object], bool]:
    """The subsets, addresses with the same ports together; and whether addresses had to be left out."""
    spec = service["spec"]
    ports_by_address: dict[tuple[str, bool], tuple[Object, set[tuple[tuple[str, object], ...]]]] = {}
    wants_ipv6 = next(iter(spec.get("ipFamilies") or ["IPv4"])) == "IPv6"
    for pod in behind:
        ip = next((each for each in addresses(pod) if is_ipv6(each) == wants_ipv6), None)
        ports = _ports(service, pod)
        if ip is None or (not ports and (spec.get("ports") or not is_headless(service))):
            continue
        ready = bool(spec.get("publishNotReadyAddresses")) or pods.is_ready(pod)
        address: Object = {"ip": ip, "targetRef": target_of(pod)}
        if pod["spec"].get("nodeName"):
            address["nodeName"] = pod["spec"]["nodeName"]
        if name := hostname(pod, service):
            address["hostname"] = name
        ports_by_address[(ip + pod["metadata"]["uid"], ready)] = (
            address,
            {tuple(sorted(port.items())) for port in ports},
        )
    left, truncated = _at_most(ports_by_address, _MOST)
    groups: dict[tuple[object, ...], Object] = {}
    for (_, ready), (address, found) in left.items():
        key = tuple(sorted(found, key=str))
        subset = groups.setdefault(key, {})
        subset.setdefault("addresses" if ready else "notReadyAddresses", []).append(address)
        if key:
            subset["ports"] = [dict(port) for port in key]
    for subset in groups.values():
        for which in ("addresses", "notReadyAddresses"):
            if which in subset:
                subset[which].sort(key=_place)
    return [groups[key] for key in sorted(groups, key=str)], truncated


def _place(address: Object) -> tuple[str, str]:
    return address["ip"], address["targetRef"]["uid"]


def _at_most(found: Mapping[tuple[str, bool], tuple[Object, set]], most: int) -> tuple[dict, bool]:  # type: ignore[type-arg]
    """At most so many addresses, ready ones first."""
    if len(found) <= most:
        return dict(found), False
    kept = sorted(found, key=lambda key: (not key[1], key[0]))[:most]
    return {key: found[key] for key in kept}, True


def _ports(service: Object, pod: Object) -> list[Object]:
    out: list[Object] = []
    for port in service["spec"].get("ports") or ():
        number = find_port(pod, port)
        if number is None:
            continue
        found: Object = {"port": number, "protocol": port.get("protocol") or "TCP"}
        found |= {key: port[key] for key in ("name", "appProtocol") if port.get(key)}
        out.append(found)
    return out


def plan(service: Object, behind: Sequence[Object], current: Object | None) -> Object | None:
    """The Endpoints to write; None when what is there is right."""
    subsets, truncated = subsets_of(service, behind)
    labels = dict(service["metadata"].get("labels") or {})
    labels.pop(HEADLESS, None)
    if is_headless(service):
        labels[HEADLESS] = ""
    labels[_MANAGED_BY] = _US
    meta = dict(current["metadata"]) if current is not None else {"name": service["metadata"]["name"]}
    annotations = dict(meta.get("annotations") or {})
    annotations.pop(_OVER_CAPACITY, None)
    if truncated:
        annotations[_OVER_CAPACITY] = "truncated"
    meta["labels"] = labels
    if annotations or "annotations" in meta:
        meta["annotations"] = annotations
    wanted: Object = {**(current or {"apiVersion": "v1", "kind": "Endpoints"}), "metadata": meta, "subsets": subsets}
    if current is not None and {"subsets": [], **current} == wanted:
        return None
    return wanted


async def reconcile(context: Context, key: Key) -> Result:
    """Write one Service's Endpoints, or delete them with it."""
    service = context.informer(SERVICES).get(*key)
    current = context.informer(ENDPOINTS).get(*key)
    seen: set[Key] = context.memory.setdefault("seen", set())
    times: TriggerTimes = context.memory.setdefault(TriggerTimes, TriggerTimes())
    if service is None:
        times.forget(key)
        ours = current is not None and (current["metadata"].get("labels") or {}).get(_MANAGED_BY) == _US
        if current is not None and (ours or key in seen):
            await _delete(context, key)
        seen.discard(key)
        return DONE
    seen.add(key)
    if service["spec"].get("type") == "ExternalName" or not service["spec"].get("selector"):
        return DONE
    terminating = bool(service["spec"].get("publishNotReadyAddresses"))
    behind = list(backends(context, service, terminating=terminating))
    changed = times.of(key, service, behind)
    wanted = plan(service, behind, current)
    if wanted is not None:
        await _write(context, service, stamped(wanted, changed), new=current is None)
    return DONE


async def _write(context: Context, service: Object, wanted: Object, *, new: bool) -> None:
    namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
    try:
        if new:
            await context.client.create(ENDPOINTS, wanted, namespace)
        else:
            await context.client.update(ENDPOINTS, wanted)
    except ApiError as error:
        if namespace_terminates(error) or (new and error.code == 409):
            return
        if error.code != 409:
            how = "FailedToCreateEndpoint" if new else "FailedToUpdateEndpoint"
            text = f"Failed to {'create endpoint for service' if new else 'update endpoint'} {namespace}/{name}: "
            reference = {"apiVersion": "v1", "kind": "Endpoints", "namespace": namespace, "name": name}
            context.recorder.event(reference, "Warning", how, text + error.message)
        raise


async def _delete(context: Context, key: Key) -> None:
    try:
        await context.client.delete(ENDPOINTS, key.name, key.namespace)
    except ApiError as error:
        if error.code != 404:
            raise


CONTROLLER = Controller(
    "endpoints-controller",
    reconcile,
    (For(SERVICES), Watch(PODS, services_of, delay="endpoint-updates-batch-period"), For(ENDPOINTS)),
    component="endpoint-controller",
    indexes=INDEXES,
)
