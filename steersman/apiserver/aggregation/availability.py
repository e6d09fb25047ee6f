"""Whether an extension API server can be asked: the condition Available of its APIService.

Owns the checks and their reasons and messages, which are the original's. Called by the aggregator, which writes the
condition. Source: kube-aggregator's pkg/controllers/status/remote.
"""

from __future__ import annotations

from dataclasses import dataclass

from steersman.api.resource import Object
from steersman.apiserver import serviceref
from steersman.apiserver.aggregation.backend import Backend
from steersman.apiserver.aggregation.remote import WHO
from steersman.apiserver.call import Services

_TRIES = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """The condition's status ("True" or "False"), reason and message."""

    status: str
    reason: str
    message: str


PASSED = Finding("True", "Passed", "all checks passed")


async def look(services: Services, backend: Backend, group: str, version: str) -> Finding:
    """Check everything, and ask the server at last."""
    return before_asking(services, backend) or await _asked(backend, group, version)


def before_asking(services: Services, backend: Backend) -> Finding | None:
    """What the Service and its slices say; None when nothing speaks against asking."""
    namespace, name, port = backend.namespace, backend.name, backend.port
    kind = services.registry.find("", "services")
    item = services.storage.find(kind, namespace, name) if kind is not None else None
    where = f'service/{name} in "{namespace}"'
    if item is None:
        return Finding("False", "ServiceNotFound", f"{where} is not present")
    spec = item.obj()["spec"]
    if (spec.get("type") or "ClusterIP") != "ClusterIP":
        return None
    found = next((each for each in spec.get("ports") or () if each["port"] == port), None)
    if found is None:
        return Finding("False", "ServicePortError", f"{where} is not listening on port {port}")
    slices = list(serviceref.slices_of(services, namespace, name))
    if not slices:
        return Finding("False", "EndpointsNotFound", f"cannot find endpointslices for {where}")
    wanted = found.get("name") or ""
    if not any(serviceref.ready_addresses(each) and serviceref.port_numbers(each, wanted) for each in slices):
        text = f'endpointslices for {where} have no addresses with port name "{wanted}"'
        return Finding("False", "MissingEndpoints", text)
    return None


async def _asked(backend: Backend, group: str, version: str) -> Finding:
    """One good answer of five is enough, as in the original, which asks five times at once."""
    path = f"/apis/{group}/{version}" if group else f"/api/{version}"
    problem = ""
    for _ in range(_TRIES):
        try:
            problem = await _problem(backend, path)
        except serviceref.Unroutable as error:
            problem = str(error)
        if not problem:
            return PASSED
        if problem.startswith("timed out"):  # five seconds have gone; four more tries would tell nothing new
            break
    return Finding("False", "FailedDiscoveryCheck", problem)


async def _problem(backend: Backend, path: str) -> str:
    url = backend.url(path)
    try:
        status = (await backend.fetch(path, WHO, "*/*")).status
    except TimeoutError:
        return f"timed out waiting for {url}"
    except (OSError, ValueError) as error:
        return f'failing or missing response from {url}: Get "{url}": {error}'
    if not 200 <= status < 300:
        return f"failing or missing response from {url}: bad status from {url}: {status}"
    return ""


def with_condition(service: Object, found: Finding, now: str) -> Object:
    """The APIService with the condition set; its time changes only with its status."""
    status = dict(service.get("status") or {})
    conditions = [dict(each) for each in status.get("conditions") or ()]
    known = next((each for each in conditions if each.get("type") == "Available"), None)
    if known is None:
        known = {"type": "Available"}
        conditions.append(known)
    if known.get("status") != found.status:
        known |= {"status": found.status, "lastTransitionTime": now}
    known |= {"reason": found.reason, "message": found.message}
    return {**service, "status": {**status, "conditions": conditions}}


def is_available(service: Object) -> bool:
    """Whether the condition is there and True."""
    conditions = (service.get("status") or {}).get("conditions") or ()
    return any(each.get("type") == "Available" and each.get("status") == "True" for each in conditions)
