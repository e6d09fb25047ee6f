"""EndpointSlices: the endpoints of each Service with a selector, at most 100 a slice, or
`max-endpoints-per-slice`.

Owns the slices labelled as managed by it. Source: kubernetes' pkg/controller/endpointslice and
staging/src/k8s.io/endpointslice; KEP-1672 (terminating endpoints), KEP-4444 (traffic distribution).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from steersman.api import pods
from steersman.api.errors import ApiError
from steersman.api.resource import ENDPOINTSLICES, NODES, PODS, SERVICES, Object
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
from steersman.client.children import Children
from steersman.client.controller import DONE, Context, Controller, For, Key, Result, Watch
from steersman.client.slices import MANAGED_BY, SERVICE_NAME, Group, plan, write
from steersman.client.triggertimes import TriggerTimes, stamped
from steersman.client.workload import owner_reference

_US = "endpointslice-controller.k8s.io"
_ZONE = "topology.kubernetes.io/zone"
_RESERVED = frozenset({SERVICE_NAME, MANAGED_BY, HEADLESS})
_BY_SERVICE = "service"
_BATCH = "endpointslice-updates-batch-period"


def groups_of(service: Object, behind: Sequence[Object], zone_of: Callable[[str], str]) -> list[Group]:
    """The Service's endpoints by address type and ports; a group without endpoints where there are none."""
    out: list[Group] = []
    for address_type in service["spec"].get("ipFamilies") or ["IPv4"]:
        found: dict[bytes, Group] = {}
        for pod in behind:
            own = [each for each in addresses(pod) if is_ipv6(each) == (address_type == "IPv6")]
            if not own:
                continue
            group = Group(address_type, _ports(service, pod))
            endpoint = _endpoint(service, pod, own, zone_of)
            found.setdefault(group.key, group).endpoints.append(endpoint)
        out.extend(found.values() if found else [Group(address_type, [])])
    return out


def _endpoint(service: Object, pod: Object, own: list[str], zone_of: Callable[[str], str]) -> Object:
    serving = pods.is_ready(pod)
    terminating = bool(pod["metadata"].get("deletionTimestamp"))
    ready = bool(service["spec"].get("publishNotReadyAddresses")) or (serving and not terminating)
    out: Object = {
        "addresses": own,
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": target_of(pod),
    }
    if name := hostname(pod, service):
        out["hostname"] = name
    node = pod["spec"].get("nodeName") or ""
    if node:
        out["nodeName"] = node
    zone = zone_of(node)
    if zone:
        out["zone"] = zone
    near = service["spec"].get("trafficDistribution")
    if near in ("PreferClose", "PreferSameZone", "PreferSameNode") and ready and zone:
        out["hints"] = {"forZones": [{"name": zone}]}
    if near == "PreferSameNode" and ready and node:
        out.setdefault("hints", {})["forNodes"] = [{"name": node}]
    return out


def _ports(service: Object, pod: Object) -> list[Object]:
    out: list[Object] = []
    for port in service["spec"].get("ports") or ():
        number = find_port(pod, port)
        if number is not None:
            found = {"name": port.get("name") or "", "protocol": port.get("protocol") or "TCP", "port": number}
            out.append(found | ({"appProtocol": port["appProtocol"]} if port.get("appProtocol") else {}))
    return out


def empty_slice(service: Object, group: Group) -> Object:
    """A slice without endpoints, as every slice of the Service looks."""
    meta = service["metadata"]
    labels = {key: value for key, value in (meta.get("labels") or {}).items() if key not in _RESERVED}
    labels |= {SERVICE_NAME: meta["name"], MANAGED_BY: _US}
    if is_headless(service):
        labels[HEADLESS] = ""
    return {
        "apiVersion": ENDPOINTSLICES.api_version,
        "kind": ENDPOINTSLICES.kind,
        "metadata": {
            "generateName": f"{meta['name']}-",
            "namespace": meta["namespace"],
            "labels": labels,
            "ownerReferences": [owner_reference(service, SERVICES)],
        },
        "addressType": group.address_type,
        "ports": group.ports,
        "endpoints": [],
    }


async def reconcile(context: Context, key: Key) -> Result:
    """Bring one Service's slices in line with its pods."""
    service = context.informer(SERVICES).get(*key)
    times: TriggerTimes = context.memory.setdefault(TriggerTimes, TriggerTimes())
    if service is None or service["metadata"].get("deletionTimestamp"):
        context.expectations.forget([key])
        times.forget(key)
        return DONE
    if service["spec"].get("type") == "ExternalName" or not service["spec"].get("selector"):
        return DONE
    children = Children(context, service, SERVICES, ENDPOINTSLICES)
    if not children.settled():
        return DONE
    nodes = context.informer(NODES)

    def zone_of(name: str) -> str:
        node = nodes.get("", name) if name else None
        return str(((node or {}).get("metadata", {}).get("labels") or {}).get(_ZONE, ""))

    behind = list(backends(context, service, terminating=True))
    changed = times.of(key, service, behind)
    groups = groups_of(service, behind, zone_of)
    existing = [each for each in children.informer.by_index(_BY_SERVICE, str(key)) if _is_ours(each)]
    most = int(context.config.get("max-endpoints-per-slice", "100"))
    changes = plan(groups, existing, most, lambda group: empty_slice(service, group))
    known = {each["metadata"]["name"]: each for each in existing}
    changes.create = [stamped(each, changed) for each in changes.create]
    changes.update = [stamped(each, changed) for each in changes.update if each != known[each["metadata"]["name"]]]
    try:
        await write(context, children, changes, known, "endpoint_slice_controller")
    except ApiError as error:
        text = f"Error updating Endpoint Slices for Service {key}: {error.message}"
        context.recorder.event(service, "Warning", "FailedToUpdateEndpointSlices", text)
        raise
    return DONE


def _labels(obj: Object) -> Mapping[str, str]:
    return obj["metadata"].get("labels") or {}


def _is_ours(slice_: Object) -> bool:
    return _labels(slice_).get(MANAGED_BY) == _US and not slice_["metadata"].get("deletionTimestamp")


def _of_slice(_: Context, slice_: Object) -> Iterable[Key]:
    if _is_ours(slice_) and (name := _labels(slice_).get(SERVICE_NAME)):
        yield Key(slice_["metadata"]["namespace"], name)


def _file_by_service(slice_: Object) -> Iterable[str]:
    if name := _labels(slice_).get(SERVICE_NAME):
        yield f"{slice_['metadata']['namespace']}/{name}"


CONTROLLER = Controller(
    "endpointslice-controller",
    reconcile,
    (
        For(SERVICES),
        Watch(PODS, services_of, delay=_BATCH),
        Watch(ENDPOINTSLICES, _of_slice),
        Watch(NODES, lambda *_: ()),
    ),
    indexes={ENDPOINTSLICES: {_BY_SERVICE: _file_by_service}, **INDEXES},
    component="endpoint-slice-controller",
    retry=(1.0, 1000.0),
)
