"""Extended resources that classes of devices stand for (KEP-5004): a pod asks for `example.com/gpu`, and gets a claim.

Owns the claim that is made for such a pod, and which container uses which of its requests. Called by the plugin
DynamicResources. Pure. Source: kube-scheduler's plugins/dynamicresources (extendeddynamicresources.go).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from steersman.api import pods
from steersman.api.quantity import parse
from steersman.api.resource import Object
from steersman.client.deviceclaims import EXTENDED
from steersman.scheduler.podinfo import PodInfo

IMPLICIT = "deviceclass.resource.kubernetes.io/"
"""What every class is an extended resource by, with its name behind."""
UNNAMED = "<extended-resources>"


def classes_by_resource(classes: Mapping[str, Object]) -> dict[str, str]:
    """The class that an extended resource means; of several, the one that was made last."""
    found = {f"{IMPLICIT}{name}": name for name in classes}
    by_name = sorted(classes, reverse=True)
    for name in sorted(by_name, key=lambda each: classes[each]["metadata"].get("creationTimestamp") or ""):
        if resource := (classes[name].get("spec") or {}).get("extendedResourceName"):
            found[resource] = name
    return found


def wanted(pod: PodInfo, classes: Mapping[str, str]) -> list[str]:
    """The resources that a pod asks for and classes stand for."""
    return [name for name, amount in pod.requests.items() if amount and name in classes] if classes else []


def new_claim(pod: PodInfo) -> Object:
    """The claim of a pod that has none yet, without its requests, which depend on the node."""
    owner = {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid, "controller": True}
    meta = {
        "namespace": pod.namespace,
        "name": UNNAMED,
        "uid": f"{UNNAMED} {pod.uid}",
        "generateName": f"{pod.name}-extended-resources-",
        "ownerReferences": [owner],
        "annotations": {EXTENDED: "true"},
    }
    return {"metadata": meta, "spec": {"devices": {"requests": []}}}


def requests(pod: Object, names: Collection[str], classes: Mapping[str, str]) -> tuple[list[Object], list[Object]]:
    """The requests of the claim, and by which of them each container has its resources.

    Init containers that end use the devices of those that come after them, and more only where that is not enough.
    """
    inits = list(pods.init_containers(pod))
    containers = [*inits, *pods.containers(pod)]
    short = [at for at, each in enumerate(inits) if not pods.is_sidecar(each)]
    found: list[Object] = []
    users: list[Object] = []
    for name in sorted(names):
        lasting: dict[int, Object] = {}
        mine: list[Object] = []
        for at in (each for each in range(len(containers)) if each not in short):
            request, uses = _request(at, containers[at], name, classes[name], ())
            mine += uses
            if request is not None:
                lasting[at] = request
        largest: Object | None = None
        brief: set[str] = set()
        theirs: list[Object] = []
        for at in short:
            later = [request for place, request in lasting.items() if place >= at]
            request, uses = _request(at, containers[at], name, classes[name], later)
            theirs += uses
            if request is not None:
                brief.add(request["name"])
                if largest is None or largest["exactly"]["count"] < request["exactly"]["count"]:
                    largest = request
        if largest is not None:
            theirs = [
                {**each, "requestName": largest["name"]} if each["requestName"] in brief else each for each in theirs
            ]
            found.append(largest)
        found += lasting.values()
        users += [*mine, *theirs]
    return sorted(found, key=lambda each: str(each["name"])), users


def _request(
    at: int, container: Object, resource: str, class_: str, reusable: Sequence[Object]
) -> tuple[Object | None, list[Object]]:
    asked = (container.get("resources") or {}).get("requests") or {}
    count = parse(asked[resource]).whole() if resource in asked else 0
    uses: list[Object] = []
    for each in reusable:
        if count <= 0:
            break
        count -= each["exactly"]["count"]
        uses.append(_use(container, resource, each["name"]))
    if count <= 0:
        return None, uses
    name = f"container-{at}-request-{sorted(asked).index(resource)}"
    exactly = {"deviceClassName": class_, "allocationMode": "ExactCount", "count": count}
    return {"name": name, "exactly": exactly}, [*uses, _use(container, resource, name)]


def _use(container: Object, resource: str, request: str) -> Object:
    return {"containerName": container["name"], "resourceName": resource, "requestName": request}
