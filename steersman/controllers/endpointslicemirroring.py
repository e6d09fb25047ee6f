"""EndpointSlices for Endpoints that people write for Services without a selector.

Owns the slices labelled as managed by it. Source: kubernetes' pkg/controller/endpointslicemirroring.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from steersman.api.resource import ENDPOINTS, ENDPOINTSLICES, SERVICES, Object
from steersman.client.backends import is_ipv6
from steersman.client.children import Children
from steersman.client.controller import DONE, Context, Controller, For, Key, Result, Watch
from steersman.client.metrics import exponential
from steersman.client.slicecounts import Changes, SliceCounts, updated
from steersman.client.slices import MANAGED_BY, SERVICE_NAME, Group, plan, write
from steersman.client.workload import owner_reference

_encode = msgspec.json.Encoder(order="deterministic").encode
_US = "endpointslicemirroring-controller.k8s.io"
_SKIP = "endpointslice.kubernetes.io/skip-mirror"
_LEADER = "control-plane.alpha.kubernetes.io/leader"
_NOT_COPIED = frozenset(
    {"kubectl.kubernetes.io/last-applied-configuration", "endpoints.kubernetes.io/last-change-trigger-time"}
)
_MOST = "mirroring-max-endpoints-per-subset"
_BY_SERVICE = "mirrored"
_METRICS = "endpoint_slice_mirroring_controller"
_BATCH = "mirroring-endpointslice-updates-batch-period"


def repacked(subsets: Iterable[Object]) -> list[Object]:
    """The same subsets, ports that have the same addresses together.

    An address is what it was where it came first, and not ready on a port where it is so once.
    """
    known: dict[tuple[str, str], Object] = {}
    by_port: dict[bytes, tuple[Object | None, dict[tuple[str, str], bool]]] = {}
    for subset in subsets:
        for port in subset.get("ports") or (None,):
            _, found = by_port.setdefault(_encode(port), (port, {}))
            for field, ready in (("addresses", True), ("notReadyAddresses", False)):
                for address in subset.get(field) or ():
                    key = address["ip"], str((address.get("targetRef") or {}).get("uid") or "")
                    known.setdefault(key, address)
                    found[key] = found.get(key, True) and ready
    together: dict[frozenset[tuple[tuple[str, str], bool]], Object] = {}
    for port, found in by_port.values():
        if not found:
            continue
        shared = {
            "addresses": [known[key] for key, ready in found.items() if ready],
            "notReadyAddresses": [known[key] for key, ready in found.items() if not ready],
        }
        made = together.setdefault(frozenset(found.items()), {**shared, "ports": []})
        made["ports"] += [port] if port is not None else []
    return list(together.values())


def groups_of(endpoints: Object, most: int = 1000) -> list[Group]:
    """The addresses of every subset, by family and ports; at most so many of each."""
    found: dict[bytes, Group] = {}
    for subset in repacked(endpoints.get("subsets") or ()):
        ports = [
            {"name": port.get("name") or "", "protocol": port.get("protocol") or "TCP", "port": port["port"]}
            | ({"appProtocol": port["appProtocol"]} if port.get("appProtocol") else {})
            for port in subset.get("ports") or ()
        ]
        taken = 0
        for field, ready in (("addresses", True), ("notReadyAddresses", False)):
            for address in (subset.get(field) or ())[: max(most - taken, 0)]:
                taken += 1
                group = Group("IPv6" if is_ipv6(address["ip"]) else "IPv4", ports)
                found.setdefault(group.key, group).endpoints.append(_endpoint(address, ready))
    return list(found.values())


def left_out(endpoints: Object, most: int = 1000) -> int:
    """How many addresses are not mirrored, because their subset has too many."""
    subsets = repacked(endpoints.get("subsets") or ())
    sizes = (sum(len(each.get(field) or ()) for field in ("addresses", "notReadyAddresses")) for each in subsets)
    return sum(max(size - most, 0) for size in sizes)


def _endpoint(address: Object, ready: bool) -> Object:
    out: Object = {"addresses": [address["ip"]], "conditions": {"ready": ready}}
    for field in ("hostname", "nodeName"):
        if address.get(field):
            out[field] = address[field]
    if target := address.get("targetRef"):
        out["targetRef"] = target
    return out


def empty_slice(endpoints: Object, group: Group) -> Object:
    """A slice without endpoints, as every mirror of these Endpoints looks."""
    meta = endpoints["metadata"]
    annotations = {key: value for key, value in (meta.get("annotations") or {}).items() if key not in _NOT_COPIED}
    made: Object = {
        "generateName": f"{meta['name']}-",
        "namespace": meta["namespace"],
        "labels": {**(meta.get("labels") or {}), SERVICE_NAME: meta["name"], MANAGED_BY: _US},
        "ownerReferences": [owner_reference(endpoints, ENDPOINTS)],
    }
    if annotations:
        made["annotations"] = annotations
    return {
        "apiVersion": ENDPOINTSLICES.api_version,
        "kind": ENDPOINTSLICES.kind,
        "metadata": made,
        "addressType": group.address_type,
        "ports": group.ports,
        "endpoints": [],
    }


def should_mirror(endpoints: Object | None, service: Object | None) -> bool:
    """Whether these Endpoints are somebody's own, and not written by a controller or used for an election."""
    if endpoints is None or service is None or service["spec"].get("selector"):
        return False
    if (endpoints["metadata"].get("labels") or {}).get(_SKIP) == "true":
        return False
    return _LEADER not in (endpoints["metadata"].get("annotations") or {})


async def reconcile(context: Context, key: Key) -> Result:
    """Mirror one Endpoints object, or take its mirrors away."""
    began = context.clock.monotonic()
    try:
        await _mirror(context, key)
    finally:
        name, bounds = f"{_METRICS}_endpoints_sync_duration", exponential(0.001, 2, 15)
        family = context.metrics.histogram(name, "Seconds of a look.", (), bounds)
        family.labels().observe(context.clock.monotonic() - began)
    return DONE


async def _mirror(context: Context, key: Key) -> None:
    endpoints = context.informer(ENDPOINTS).get(*key)
    service = context.informer(SERVICES).get(*key)
    slices = context.informer(ENDPOINTSLICES)
    existing = slices.by_index(_BY_SERVICE, str(key))
    if not context.expectations.fulfilled(key, slices):
        return
    known = {each["metadata"]["name"]: each for each in existing}
    counts: SliceCounts = context.memory.setdefault(SliceCounts, SliceCounts(context.metrics, _METRICS))
    if endpoints is not None and should_mirror(endpoints, service):
        most = int(context.config.get(_MOST, "1000"))
        groups = groups_of(endpoints, most)
        skipped = left_out(endpoints, most)
        counts.per_sync("addresses_skipped", skipped)
        if skipped:
            text = f"A max of {most} addresses can be mirrored to EndpointSlices per Endpoints subset. "
            text += f"{skipped} addresses were skipped"
            context.recorder.event(endpoints, "Warning", "TooManyAddressesToMirror", text)
        changes = plan(groups, existing, most, lambda group: empty_slice(endpoints, group))
        _take_over(endpoints, existing, changes)
        counts.per_sync("endpoints_updated", updated(changes, known))
        left = len(existing) + len(changes.create) - len(changes.delete)
        counts.keep(key, [len(each.endpoints) for each in groups], left, most)
    else:
        changes = Changes(delete=existing)
        counts.forget(key)
    owner = endpoints or {"metadata": {"namespace": key.namespace, "name": key.name}}
    await write(context, Children(context, owner, ENDPOINTS, ENDPOINTSLICES), changes, known, counts)


def _take_over(endpoints: Object, existing: Iterable[Object], changes: Changes) -> None:
    """Endpoints that were made anew own what their namesakes owned."""
    owner = [owner_reference(endpoints, ENDPOINTS)]
    for changed in changes.update:
        changed["metadata"] = {**changed["metadata"], "ownerReferences": owner}
    touched = {each["metadata"]["name"] for each in (*changes.update, *changes.delete)}
    for old in existing:
        meta = old["metadata"]
        uids = {each.get("uid") for each in meta.get("ownerReferences") or ()}
        if meta["name"] not in touched and uids != {owner[0]["uid"]}:
            changes.update.append({**old, "metadata": {**meta, "ownerReferences": owner}})


def _keys(slice_: Object) -> Iterable[Key]:
    labels = slice_["metadata"].get("labels") or {}
    if labels.get(MANAGED_BY) == _US and labels.get(SERVICE_NAME) and not slice_["metadata"].get("deletionTimestamp"):
        yield Key(slice_["metadata"]["namespace"], labels[SERVICE_NAME])


CONTROLLER = Controller(
    "endpointslice-mirroring-controller",
    reconcile,
    (For(ENDPOINTS), For(SERVICES), Watch(ENDPOINTSLICES, lambda _, slice_: _keys(slice_), delay=_BATCH)),
    indexes={ENDPOINTSLICES: {_BY_SERVICE: lambda slice_: [str(key) for key in _keys(slice_)]}},
    retry=(1.0, 100.0),
)
