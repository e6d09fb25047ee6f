"""Disruption budgets: how many pods may go voluntarily right now.

Owns a PodDisruptionBudget's status, which evictions are measured by, and takes back DisruptionTarget conditions that
came to nothing. Source: kubernetes' pkg/controller/disruption; texts are the original's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from steersman.api import labels, pods
from steersman.api.errors import ApiError
from steersman.api.resource import (
    DEPLOYMENTS,
    PODDISRUPTIONBUDGETS,
    PODS,
    REPLICASETS,
    REPLICATIONCONTROLLERS,
    STATEFULSETS,
    Object,
    Resource,
)
from steersman.client.controller import DONE, Context, Controller, For, Key, Result, Watch, key_of
from steersman.client.discovery import discover
from steersman.client.selecting import (
    BY_LABEL,
    BY_SELECTOR,
    file_by_label,
    file_by_selector,
    object_selector,
    selected,
    selectors,
)
from steersman.client.workload import controller_of, scaled
from steersman.lib.clock import parse_rfc3339, rfc3339

_CONDITION = "DisruptionAllowed"
_PATIENCE = 120.0  # seconds: an evicted pod that is still there was not deleted after all
_POD = "pod:"  # marks a key as a pod's, a prefix that no name can have
_KNOWN = {(each.group, each.kind): each for each in (REPLICASETS, REPLICATIONCONTROLLERS, STATEFULSETS, DEPLOYMENTS)}


def allowed(budget: Object, chosen: Sequence[Object], scale: int | None, now: float) -> Object:
    """The numbers of the status. `scale`: the sizes of the pods' controllers, where the budget is a share of them."""
    spec = budget["spec"]
    disrupted = {
        name: stamp
        for name, stamp in ((budget.get("status") or {}).get("disruptedPods") or {}).items()
        if parse_rfc3339(stamp) + _PATIENCE >= now
        and any(pod["metadata"]["name"] == name and not pod["metadata"].get("deletionTimestamp") for pod in chosen)
    }
    expected = len(chosen) if scale is None else scale
    if spec.get("maxUnavailable") is not None:
        wanted = max(expected - scaled(spec["maxUnavailable"], expected, up=True), 0)
    else:
        wanted = scaled(spec.get("minAvailable", 0), expected, up=True)
    healthy = sum(
        pods.is_ready(pod) and not pod["metadata"].get("deletionTimestamp") and pod["metadata"]["name"] not in disrupted
        for pod in chosen
    )
    out = {
        "disruptionsAllowed": max(healthy - wanted, 0) if expected > 0 else 0,
        "currentHealthy": healthy,
        "desiredHealthy": wanted,
        "expectedPods": expected,
        "observedGeneration": budget["metadata"].get("generation", 0),
    }
    return out | ({"disruptedPods": disrupted} if disrupted else {})


def needs_scale(budget: Object) -> bool:
    """Whether the budget is a share of the controllers' sizes and not of the pods there are."""
    spec = budget["spec"]
    return spec.get("maxUnavailable") is not None or isinstance(spec.get("minAvailable"), str)


def with_condition(budget: Object, numbers: Object, reason: str, message: str, now: float) -> Object:
    """The status with its condition, beside those of others."""
    good = "True" if reason == "SufficientPods" else "False"
    conditions = list((budget.get("status") or {}).get("conditions") or ())
    at = next((at for at, each in enumerate(conditions) if each["type"] == _CONDITION), len(conditions))
    old = conditions[at] if at < len(conditions) else None
    since = old["lastTransitionTime"] if old is not None and old["status"] == good else rfc3339(now)
    condition: Object = {
        "type": _CONDITION,
        "status": good,
        "reason": reason,
        "message": message,
        "lastTransitionTime": since,
    }
    if generation := numbers.get("observedGeneration"):
        condition["observedGeneration"] = generation
    return {**numbers, "conditions": [*conditions[:at], condition, *conditions[at + 1 :]]}


async def reconcile(context: Context, key: Key) -> Result:
    """Work out one budget, or look at one pod's stale condition."""
    if key.name.startswith(_POD):
        return await _take_back(context, Key(key.namespace, key.name.removeprefix(_POD)))
    budget = context.informer(PODDISRUPTIONBUDGETS).get(*key)
    if budget is None:
        return DONE
    now = context.clock.now()
    selector = labels.from_object(budget["spec"].get("selector"))
    chosen = selected(context.informer(PODS), key.namespace, selector)
    failed: ApiError | None = None
    if not chosen:
        context.recorder.event(budget, "Normal", "NoPods", "No matching pods found")
    try:
        scale = await _scale(context, chosen) if needs_scale(budget) else None
    except (LookupError, ApiError) as error:
        why = error.message if isinstance(error, ApiError) else str(error)
        text = f"Failed to calculate the number of expected pods: {why}"
        context.recorder.event(budget, "Warning", "CalculateExpectedPodCountFailed", text)
        failed = error if isinstance(error, ApiError) else None
        status = with_condition(
            budget, {**(budget.get("status") or {}), "disruptionsAllowed": 0}, "SyncFailed", why, now
        )
    else:
        numbers = allowed(budget, chosen, scale, now)
        enough = numbers["disruptionsAllowed"] > 0
        status = with_condition(budget, numbers, "SufficientPods" if enough else "InsufficientPods", "", now)
        _tell_oddities(context, budget, chosen, now)
    if status != budget.get("status"):
        await context.client.update(PODDISRUPTIONBUDGETS, {**budget, "status": status}, subresource="status")
    if failed is not None:
        raise failed
    left = [parse_rfc3339(stamp) + _PATIENCE - now for stamp in (status.get("disruptedPods") or {}).values()]
    return Result(min(left) + 0.1 if left else 0.0)


def _tell_oddities(context: Context, budget: Object, chosen: Sequence[Object], now: float) -> None:
    """Pods without a controller, of which a share cannot be counted; pods that were evicted and are still here."""
    tell = context.recorder.event
    if needs_scale(budget) and any(controller_of(pod) is None for pod in chosen):
        text = f"Pods selected by this PodDisruptionBudget (selector: {labels.in_go(budget['spec'].get('selector'))}) "
        text += "were found to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which "
        text += "may result in undefined behavior. To account for these pods please set "
        text += '".spec.minAvailable" field of the PDB to an integer value.'
        tell(budget, "Warning", "UnmanagedPods", text)
    evicted = (budget.get("status") or {}).get("disruptedPods") or {}
    for pod in chosen:
        since = evicted.get(pod["metadata"]["name"])
        if (
            since is not None
            and not pod["metadata"].get("deletionTimestamp")
            and parse_rfc3339(since) + _PATIENCE < now
        ):
            space = budget["metadata"]["namespace"]  # twice, as the original has it
            tell(pod, "Warning", "NotDeleted", f"Pod was expected by PDB {space}/{space} to be deleted but it wasn't")


async def _scale(context: Context, chosen: Sequence[Object]) -> int:
    """The sum of the sizes of the pods' controllers. Raises LookupError for a controller without a size."""
    sizes: dict[str, int] = {}
    for pod in chosen:
        reference = controller_of(pod)
        if reference is None or reference["uid"] in sizes:
            continue
        owner = await _owner(context, reference, pod["metadata"]["namespace"])
        above = controller_of(owner) if owner is not None and reference["kind"] == "ReplicaSet" else None
        if above is not None and above["kind"] == "Deployment":
            owner = await _owner(context, above, pod["metadata"]["namespace"]) or owner
        if owner is None:
            raise LookupError(f'found no controllers for pod "{pod["metadata"]["name"]}"')
        uid = owner["metadata"]["uid"]
        sizes[reference["uid"]] = 0
        sizes[uid] = int(owner["spec"].get("replicas", 1))
    return sum(sizes.values())


async def _owner(context: Context, reference: Object, namespace: str) -> Object | None:
    """A controller, or the Scale of one of an unknown kind; None when it is gone.

    Raises LookupError, in the original's words, for a kind that is not served or has no size.
    """
    group, _, version = reference["apiVersion"].rpartition("/")
    known = _KNOWN.get((group, reference["kind"]))
    if known is not None:
        found = context.informer(known).get(namespace, reference["name"])
        return found if found is not None and found["metadata"]["uid"] == reference["uid"] else None
    served = [each.resource for each in (await discover(context.client)).resources]
    named = [
        each for each in served if (each.group, each.kind) == (group, reference["kind"]) and "/" not in each.plural
    ]
    if not named:
        raise LookupError(f'no matches for kind "{reference["kind"]}" in version "{reference["apiVersion"]}"')
    resource = next((each for each in named if each.version == version), named[0])
    try:
        found = await context.client.get(resource, reference["name"], namespace, subresource="scale")
    except ApiError as error:
        if error.code != 404:
            raise
        if not await _has_scale(context, resource):
            whole = f"{resource.plural}.{group}" if group else resource.plural
            raise LookupError(f"{whole} does not implement the scale subresource") from None
        return None
    return found if found["metadata"].get("uid") == reference["uid"] else None


async def _has_scale(context: Context, resource: Resource) -> bool:
    place = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    listed = (await context.client.call("GET", place)).get("resources") or ()
    return any(each["name"] == f"{resource.plural}/scale" for each in listed)


def _stale_in(pod: Object, now: float) -> float | None:
    """Seconds until a pod's DisruptionTarget condition counts as stale; None when it has none to take back."""
    found = pods.condition(pod, "DisruptionTarget")
    if found is None or found["status"] != "True" or pod["metadata"].get("deletionTimestamp") or pods.is_terminal(pod):
        return None
    if found.get("reason") == "TerminationByKubelet":  # that may take as long as the pod wants
        return None
    return max(parse_rfc3339(found["lastTransitionTime"]) + _PATIENCE - now, 0.0)


async def _take_back(context: Context, key: Key) -> Result:
    pod = context.informer(PODS).get(*key)
    left = _stale_in(pod, context.clock.now()) if pod is not None else None
    if pod is None or left is None:
        return DONE
    if left > 0:
        return Result(left)
    stamp = rfc3339(context.clock.now())
    gone: Object = {"type": "DisruptionTarget", "status": "False", "lastTransitionTime": stamp}
    if generation := pod["metadata"].get("generation"):
        gone["observedGeneration"] = generation
    conditions = [gone if each["type"] == "DisruptionTarget" else each for each in pod["status"]["conditions"]]
    changed = {**pod, "status": {**pod["status"], "conditions": conditions}}
    await context.client.update(PODS, changed, subresource="status")
    return DONE


def _of_pod(context: Context, pod: Object) -> Iterable[Key]:
    meta = pod["metadata"]
    found = [key_of(each) for each in selectors(context.informer(PODDISRUPTIONBUDGETS), pod)]
    if len(found) > 1:
        text = f'Pod "{meta["namespace"]}"/"{meta["name"]}" matches multiple PodDisruptionBudgets.  '
        text += f'Chose "{min(found).name}" arbitrarily.'
        context.recorder.event(pod, "Warning", "MultiplePodDisruptionBudgets", text)
    yield from found
    if _stale_in(pod, 0.0) is not None:
        yield Key(meta["namespace"], _POD + meta["name"])


def _of_owner(context: Context, owner: Object) -> Iterable[Key]:
    """A controller that changes its size changes every share of it."""
    template = (owner["spec"].get("template") or {}).get("metadata") or {}
    child = {"metadata": {"namespace": owner["metadata"]["namespace"], "labels": template.get("labels")}}
    yield from map(key_of, filter(needs_scale, selectors(context.informer(PODDISRUPTIONBUDGETS), child)))


CONTROLLER = Controller(
    "disruption-controller",
    reconcile,
    (For(PODDISRUPTIONBUDGETS), Watch(PODS, _of_pod), *(Watch(each, _of_owner) for each in _KNOWN.values())),
    component="controllermanager",
    indexes={
        PODS: {BY_LABEL: file_by_label},
        PODDISRUPTIONBUDGETS: {BY_SELECTOR: file_by_selector(object_selector)},
    },
)
