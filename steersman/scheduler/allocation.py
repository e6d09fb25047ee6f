"""What a claim's status says of the devices that it was given.

Owns the AllocationResult: devices, the configuration for their drivers, and from which nodes they can be used. Called
by the plugin DynamicResources once a node is chosen. Pure. Source: dynamic-resource-allocation's structured allocator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from steersman.api.resource import Object
from steersman.scheduler.allocator import Given, Request


def result(
    claim: Object, given: Sequence[Given], chosen: Sequence[Request], node: str, ids: Callable[[], str]
) -> Object:
    """The allocation on a node; `chosen`: one for each of the claim's requests; `ids` makes identifiers of shares."""
    found: Object = {"devices": {"results": [_device(each, ids) for each in given]}}
    if config := _config(claim, chosen):
        found["devices"]["config"] = config
    if (selector := _reach(given, node)) is not None:
        found["nodeSelector"] = selector
    return found


def _device(given: Given, ids: Callable[[], str]) -> Object:
    request, device = given.request, given.device
    driver, pool, name = device.id
    made: Object = {"request": request.name, "driver": driver, "pool": pool, "device": name}
    if request.admin:
        made["adminAccess"] = True
    if tolerations := request.asked.get("tolerations"):
        made["tolerations"] = tolerations
    for key in ("bindingConditions", "bindingFailureConditions"):
        if device.given.get(key):
            made[key] = device.given[key]
    if given.amounts is not None:
        made["shareID"] = ids()
        if given.amounts:
            made["consumedCapacity"] = {name: str(amount) for name, amount in given.amounts.items()}
    return made


def _config(claim: Object, chosen: Sequence[Request]) -> list[Object]:
    """What class and claim say to the drivers, in that order; a class's once, for all the requests that name it."""
    by_class: dict[str, list[Object]] = {}
    for request in chosen:
        name = request.class_["metadata"]["name"]
        if name in by_class:
            for each in by_class[name]:
                each["requests"].append(request.name)
            continue
        given = (request.class_.get("spec") or {}).get("config") or ()
        by_class[name] = [{"source": "FromClass", "requests": [request.name], **each} for each in given]
    found = [each for several in by_class.values() for each in several]
    for each in (claim["spec"].get("devices") or {}).get("config") or ():
        wanted = each.get("requests") or ()
        times = sum(request.base in wanted or request.name in wanted for request in chosen) if wanted else 1
        found += [{"source": "FromClaim", **each}] * times
    return found


def _reach(given: Sequence[Given], node: str) -> Object | None:
    """From which nodes all of the devices can be used; None: from everywhere."""
    term: dict[str, list[Any]] = {}
    for each in given:
        place = each.slice.place(each.device)
        if place.node or each.device.given.get("bindsToNode"):
            own = {"key": "metadata.name", "operator": "In", "values": [node]}
            return {"nodeSelectorTerms": [{"matchFields": [own]}]}
        for selector in (place.selector or {}).get("nodeSelectorTerms") or ():
            for part in ("matchFields", "matchExpressions"):
                known = term.setdefault(part, [])
                known += [one for one in selector.get(part) or () if one not in known]
    found = {part: wanted for part, wanted in term.items() if wanted}
    return {"nodeSelectorTerms": [found]} if found else None
