"""EndpointSlices: the endpoints of each Service with a selector, at most 100 a slice, or
`max-endpoints-per-slice`.

Owns the slices labelled as managed by it; `topology` puts hints on them where a Service asks by annotation. Source:
kubernetes' pkg/controller/endpointslice and staging/src/k8s.io/endpointslice; KEP-1672 (terminating endpoints),
KEP-4444 (traffic distribution).
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
from steersman.client.controller import DONE, Context, Controller, For, Key, Result, Watch, key_of
from steersman.client.slicecounts import Changes, SliceCounts, identity
from steersman.client.slices import MANAGED_BY, SERVICE_NAME, Group, plan, write
from steersman.client.triggertimes import TriggerTimes, stamped
from steersman.client.workload import owner_reference
from steersman.controllers.endpointslice.topology import ZONE, Told, Topology, wants_hints

_US = "endpointslice-controller.k8s.io"
_RESERVED = frozenset({SERVICE_NAME, MANAGED_BY, HEADLESS})
_BY_SERVICE = "service"
_BATCH = "endpointslice-updates-batch-period"
_NEAR = ("PreferClose", "PreferSameZone", "PreferSameNode")
_METRICS = "endpoint_slice_controller"
_SIZES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # the original gives none: Prometheus' own


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
    near = _near(service)
    if near and ready and zone:
        out["hints"] = {"forZones": [{"name": zone}]}
    if near == "PreferSameNode" and ready and node:
        out.setdefault("hints", {})["forNodes"] = [{"name": node}]
    return out


def _near(service: Object) -> str:
    """Where traffic is to stay; an annotation that asks for hints comes first."""
    near = service["spec"].get("trafficDistribution")
    return near if near in _NEAR and not wants_hints(service) else ""


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
    counts = _counts(context)
    syncs = context.metrics.counter(f"{_METRICS}_syncs", "Looks at Services.", ("result",))
    if service is None or service["metadata"].get("deletionTimestamp"):
        context.expectations.forget([key])
        times.forget(key)
        counts.forget(key)
        _topology(context).forget(key)
        _file_by_distribution(context, key, "")
        syncs.labels("success").inc()
        return DONE
    if service["spec"].get("type") == "ExternalName" or not service["spec"].get("selector"):
        syncs.labels("success").inc()
        return DONE
    children = Children(context, service, SERVICES, ENDPOINTSLICES)
    if not children.settled():
        syncs.labels("stale").inc()
        return DONE
    behind = list(backends(context, service, terminating=True))
    changed = times.of(key, service, behind)
    placed, lost = _placed(context, service, behind)
    try:
        await _bring(context, children, placed, changed)
        if lost:
            raise ApiError(404, "NotFound", lost[0] if len(lost) == 1 else f"[{', '.join(lost)}]")
    except ApiError as error:
        syncs.labels("error").inc()
        text = f"Error updating Endpoint Slices for Service {key}: {error.message}"
        context.recorder.event(service, "Warning", "FailedToUpdateEndpointSlices", text)
        raise
    syncs.labels("success").inc()
    return DONE


async def _bring(context: Context, children: Children, behind: Sequence[Object], changed: str) -> None:
    service = children.owner
    key = key_of(service)
    nodes = context.informer(NODES)

    def zone_of(name: str) -> str:
        node = nodes.get("", name) if name else None
        return str(((node or {}).get("metadata", {}).get("labels") or {}).get(ZONE, ""))

    found = [each for each in children.informer.by_index(_BY_SERVICE, str(key)) if _is_ours(each)]
    existing = [each for each in found if _is_owned(each, service)]
    groups = groups_of(service, behind, zone_of)
    if wants_hints(service):
        _keep_hints(groups, existing)
    most = int(context.config.get("max-endpoints-per-slice", "100"))
    changes = plan(groups, existing, most, lambda group: empty_slice(service, group))
    known = {each["metadata"]["name"]: each for each in existing}
    told = _hint(context, service, changes, known)
    changes.delete += [each for each in found if each not in existing]
    changes.create = [stamped(each, changed) for each in changes.create]
    changes.update = [stamped(each, changed) for each in changes.update if each != known[each["metadata"]["name"]]]
    counts, near = _counts(context), _near(service)
    left = len(found) + len(changes.create) - len(changes.delete)
    counts.keep(key, [len(each.endpoints) for each in groups], left, most)
    _file_by_distribution(context, key, near)
    await write(context, children, changes, known, counts)
    for event in told:
        context.recorder.event(service, *event)
    name, labels = f"{_METRICS}_endpointslices_changed_per_sync", ("topology", "traffic_distribution")
    family = context.metrics.histogram(name, "Slices changed at a look.", labels, _SIZES)
    number = len(changes.create) + len(changes.update) + len(changes.delete)
    family.labels("Auto" if wants_hints(service) else "Disabled", near).observe(number)


def _placed(context: Context, service: Object, behind: Sequence[Object]) -> tuple[list[Object], list[str]]:
    """The pods whose nodes are there, and what is to be said of the others; who publishes all gets all."""
    if service["spec"].get("publishNotReadyAddresses"):
        return list(behind), []
    nodes, meta = context.informer(NODES), service["metadata"]
    placed: list[Object] = []
    lost: list[str] = []
    for pod in behind:
        node = pod["spec"].get("nodeName") or ""
        if node and nodes.get("", node) is not None:
            placed.append(pod)
        else:
            where = f"Service {meta['namespace']}/{meta['name']}"
            lost.append(f"skipping Pod {pod['metadata']['name']} for {where}: Node {node} Not Found")
    return placed, lost


def _keep_hints(groups: Sequence[Group], existing: Sequence[Object]) -> None:
    """Endpoints keep the hints that they have, until `topology` says otherwise."""
    hints = {
        identity(each): each["hints"] for old in existing for each in old.get("endpoints") or () if "hints" in each
    }
    for group in groups:
        for endpoint in group.endpoints:
            if (had := hints.get(identity(endpoint))) is not None and endpoint["conditions"]["ready"]:
                endpoint["hints"] = had


def _hint(context: Context, service: Object, changes: Changes, known: Mapping[str, Object]) -> list[Told]:
    """Zone hints, of each address family on its own, and what is to be told of them."""
    topology, key = _topology(context), key_of(service)
    touched = {each["metadata"]["name"] for each in (*changes.update, *changes.delete)}
    told: list[Told] = []
    for family in service["spec"].get("ipFamilies") or ["IPv4"]:
        if not wants_hints(service):
            told += topology.without(key, family)
            continue
        fresh = [each for each in (*changes.create, *changes.update) if each["addressType"] == family]
        left = (each for name, each in known.items() if name not in touched and each["addressType"] == family)
        kept = [{**each, "endpoints": each.get("endpoints") or []} for each in left]
        more, events = topology.hint(key, family, fresh, kept)
        changes.update += more
        told += events
    return told


def _counts(context: Context) -> SliceCounts:
    found = context.memory.get(SliceCounts)
    if found is None:
        found = context.memory[SliceCounts] = SliceCounts(context.metrics, _METRICS)
    assert isinstance(found, SliceCounts)
    return found


def _topology(context: Context) -> Topology:
    found = context.memory.get(Topology)
    if found is None:
        found = context.memory[Topology] = Topology()
        for node in context.informer(NODES).list():
            found.tell(node["metadata"]["name"], node)
    assert isinstance(found, Topology)
    return found


def _file_by_distribution(context: Context, key: Key, near: str) -> None:
    """Count the Services of each trafficDistribution."""
    filed: dict[Key, str] = context.memory.setdefault("distributions", {})
    old = filed.pop(key, "")
    if near:
        filed[key] = near
    if near != old:
        name = f"{_METRICS}_services_count_by_traffic_distribution"
        family = context.metrics.gauge(name, "Services by trafficDistribution.", ("traffic_distribution",))
        if old:
            family.labels(old).dec()
        if near:
            family.labels(near).inc()


def _labels(obj: Object) -> Mapping[str, str]:
    return obj["metadata"].get("labels") or {}


def _is_ours(slice_: Object) -> bool:
    return _labels(slice_).get(MANAGED_BY) == _US and not slice_["metadata"].get("deletionTimestamp")


def _is_owned(slice_: Object, service: Object) -> bool:
    """Whether the slice is this Service's, and not one's that had its name before."""
    return any(
        (each["uid"], each["kind"], each["apiVersion"]) == (service["metadata"]["uid"], "Service", "v1")
        for each in slice_["metadata"].get("ownerReferences") or ()
    )


def _of_node(context: Context, node: Object) -> Iterable[Key]:
    """The Services whose hints the zones' shares concern, once those have changed."""
    topology, name = _topology(context), node["metadata"]["name"]
    if topology.tell(name, context.informer(NODES).get("", name)):
        yield from topology.concerned()


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
        Watch(NODES, _of_node),
    ),
    indexes={ENDPOINTSLICES: {_BY_SERVICE: _file_by_service}, **INDEXES},
    component="endpoint-slice-controller",
    retry=(1.0, 1000.0),
)
