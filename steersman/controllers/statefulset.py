"""StatefulSets: pods with names that last, in order, each with its own claims.

Owns the pods, the claims and the revisions of a StatefulSet, and its status. Source: kubernetes'
pkg/controller/statefulset, KEP-1847 (claims' retention), KEP-3335 (start ordinal); texts are the original's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from steersman.api import labels, pods
from steersman.api.errors import ApiError
from steersman.api.resource import CONTROLLERREVISIONS, PERSISTENTVOLUMECLAIMS, PODS, STATEFULSETS, Object
from steersman.client.children import INDEX, Children, namespace_terminates
from steersman.client.controller import DONE, Context, Controller, For, Key, Owns, Result, Watch, key_of
from steersman.client.history import HASH_LABEL, History, record, restored, trim
from steersman.client.workload import controller_of, counts, is_available, owner_reference, scaled, soonest_available

_POD_NAME, _POD_INDEX = "statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index"
_ORDINAL = re.compile(r"(.*)-(\d+)")


@dataclass(slots=True)
class Plan:
    """Ordinals to create (with whether at the update revision), pods to delete, in this order."""

    create: list[tuple[int, bool]] = field(default_factory=list)
    delete: list[Object] = field(default_factory=list)
    recreated: list[Object] = field(default_factory=list)


def ordinal_of(pod: Object, owner: Object) -> int | None:
    """The pod's number; None when its name is not one of the set's."""
    match = _ORDINAL.fullmatch(pod["metadata"]["name"])
    return int(match[2]) if match and match[1] == owner["metadata"]["name"] else None


def revision_of(pod: Object) -> str:
    """The name of the revision that the pod was made from."""
    return str((pod["metadata"].get("labels") or {}).get(HASH_LABEL, ""))


def _is_running(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") == "Running" and pods.is_ready(pod)


def plan(owner: Object, found: Sequence[Object], update: str, now: float) -> Plan:
    """The next steps: fill gaps from below, then take surplus from above, then update from above."""
    spec, steps = owner["spec"], Plan()
    start = (spec.get("ordinals") or {}).get("start") or 0
    wanted = range(start, start + spec.get("replicas", 1))
    seconds = spec.get("minReadySeconds") or 0
    strategy = spec.get("updateStrategy") or {}
    rolling = strategy.get("rollingUpdate") or {}
    ordered = spec.get("podManagementPolicy") != "Parallel"
    numbered = {number: pod for pod in found if (number := ordinal_of(pod, owner)) is not None}
    condemned = [numbered[number] for number in sorted(numbered, reverse=True) if number not in wanted]

    def unavailable(pod: Object | None) -> bool:
        healthy = pod is not None and _is_running(pod) and not pod["metadata"].get("deletionTimestamp")
        return not healthy or pod is None or not is_available(pod, seconds, now)

    for number in wanted:
        pod = numbered.get(number)
        if pod is None:
            below = number < start + (rolling.get("partition") or 0)
            steps.create.append((number, strategy.get("type") == "OnDelete" or not below))
        elif pods.is_terminal(pod) and not pod["metadata"].get("deletionTimestamp"):
            steps.delete.append(pod)
            steps.recreated.append(pod)
        if ordered and unavailable(pod):
            return steps
    gaps = bool(steps.create or steps.delete)
    sick = next((pod for pod in [numbered.get(each) for each in wanted] + condemned[::-1] if unavailable(pod)), None)
    for pod in condemned:
        if pod["metadata"].get("deletionTimestamp"):
            if ordered:
                return steps
            continue
        if ordered and unavailable(pod) and pod is not sick:
            return steps
        steps.delete.append(pod)
        if ordered:
            return steps
    if gaps or strategy.get("type") == "OnDelete":
        return steps
    due = [numbered[number] for number in reversed(wanted) if number >= start + (rolling.get("partition") or 0)]
    most = max(1, scaled(rolling.get("maxUnavailable", 1), len(wanted), up=False))
    if most > 1:
        room = most - sum(unavailable(numbered.get(number)) for number in wanted)
        steps.delete += [pod for pod in due if _is_old(pod, update)][: max(0, room)]
        return steps
    for pod in due:
        if _is_old(pod, update):
            steps.delete.append(pod)
            break
        if unavailable(pod):
            break
    return steps


def _is_old(pod: Object, update: str) -> bool:
    return revision_of(pod) != update and not pod["metadata"].get("deletionTimestamp")


def new_pod(owner: Object, number: int, revision: str) -> Object:
    """The pod of that number, from the owner's template."""
    template = owner["spec"]["template"]
    meta = template.get("metadata") or {}
    name = f"{owner['metadata']['name']}-{number}"
    marks = {_POD_NAME: name, _POD_INDEX: str(number), HASH_LABEL: revision}
    body: Object = {
        "name": name,
        "namespace": owner["metadata"]["namespace"],
        "labels": {**(meta.get("labels") or {}), **marks},
        "ownerReferences": [owner_reference(owner, STATEFULSETS)],
    }
    body |= {key: meta[key] for key in ("annotations", "finalizers") if meta.get(key)}
    claims = {each["metadata"]["name"]: claim_name(owner, each, number) for each in _claim_templates(owner)}
    kept = [each for each in template["spec"].get("volumes") or () if each["name"] not in claims]
    volumes = [{"name": key, "persistentVolumeClaim": {"claimName": value}} for key, value in claims.items()]
    spec = {**template["spec"], "hostname": name, "subdomain": owner["spec"].get("serviceName") or ""}
    if volumes or kept:
        spec["volumes"] = volumes + kept
    return {"apiVersion": "v1", "kind": "Pod", "metadata": body, "spec": spec}


def _claim_templates(owner: Object) -> list[Object]:
    return owner["spec"].get("volumeClaimTemplates") or []


def claim_name(owner: Object, template: Object, number: int) -> str:
    """The name of one pod's claim."""
    return f"{template['metadata']['name']}-{owner['metadata']['name']}-{number}"


def new_claim(owner: Object, template: Object, number: int) -> Object:
    """The claim itself."""
    meta = template["metadata"]
    chosen = {**(meta.get("labels") or {}), **((owner["spec"]["selector"] or {}).get("matchLabels") or {})}
    body: Object = {"name": claim_name(owner, template, number), "labels": chosen}
    if meta.get("annotations"):
        body["annotations"] = meta["annotations"]
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": body, "spec": template["spec"]}
    if _policy(owner)[0] == "Delete":
        body["ownerReferences"] = [_claim_owner(owner, STATEFULSETS.api_version, STATEFULSETS.kind)]
    return claim


def _policy(owner: Object) -> tuple[str, str]:
    policy = owner["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
    return policy.get("whenDeleted", "Retain"), policy.get("whenScaled", "Retain")


def _claim_owner(owner: Object, api_version: str, kind: str) -> Object:
    meta = owner["metadata"]
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def claim_owners(owner: Object, pod: Object, claim: Object, *, condemned: bool) -> list[Object] | None:
    """The claim's owner references as the retention policy wants them; None when they are so, or not ours to touch.

    A claim of a set or a pod that was here before under the same name is left alone.
    """
    have = claim["metadata"].get("ownerReferences") or []
    ours = {("apps", "StatefulSet"): owner["metadata"], ("", "Pod"): pod["metadata"]}
    known = [(ours.get((each["apiVersion"].rpartition("/")[0], each["kind"]), {}), each) for each in have]
    mine = [(meta["uid"], each) for meta, each in known if meta.get("name") == each["name"]]
    if any(each["uid"] != uid for uid, each in mine):
        return None
    others = [each for meta, each in known if meta.get("name") != each["name"]]
    if _is_anothers(owner, pod, claim):
        return others if mine else None
    deleted, scaled_down = _policy(owner)
    wanted: list[Object] = []
    if condemned and scaled_down == "Delete":
        wanted = [_claim_owner(pod, "v1", "Pod")]
    elif deleted == "Delete":
        wanted = [_claim_owner(owner, STATEFULSETS.api_version, STATEFULSETS.kind)]
    if [(uid, each.get("controller", False)) for uid, each in mine] == [(each["uid"], True) for each in wanted]:
        return None
    return others + wanted


def _is_anothers(owner: Object, pod: Object, claim: Object) -> bool:
    """Whether somebody else controls a claim for which there is a policy."""
    known = (owner["metadata"]["uid"], pod["metadata"]["uid"])
    found = claim["metadata"].get("ownerReferences") or ()
    return "Delete" in _policy(owner) and any(each.get("controller") and each["uid"] not in known for each in found)


def status_of(owner: Object, found: Sequence[Object], history: History, now: float) -> Object:
    """The new status; when an update is complete its revision becomes the current one."""
    old, spec = owner.get("status") or {}, owner["spec"]
    update = history.current["metadata"]["name"]
    current = (history.named(old.get("currentRevision", "")) or history.current)["metadata"]["name"]
    seconds = spec.get("minReadySeconds") or 0
    alive = [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]
    numbers: dict[str, int | None] = {
        "replicas": len(found),
        "readyReplicas": sum(map(_is_running, found)),
        "currentReplicas": sum(revision_of(pod) == current for pod in alive),
        "updatedReplicas": sum(revision_of(pod) == update for pod in alive),
        "availableReplicas": sum(_is_running(pod) and is_available(pod, seconds, now) for pod in found),
        "observedGeneration": owner["metadata"].get("generation"),
        "collisionCount": history.collisions,
    }
    rolling = (spec.get("updateStrategy") or {}).get("type", "RollingUpdate") == "RollingUpdate"
    if rolling and numbers["updatedReplicas"] == numbers["replicas"] == numbers["readyReplicas"] == spec.get(
        "replicas", 1
    ):
        numbers["currentReplicas"], current = numbers["updatedReplicas"], update
    status = counts(numbers, always=("replicas", "availableReplicas", "collisionCount"))
    status |= {"currentRevision": current, "updateRevision": update}
    return status | ({"conditions": old["conditions"]} if old.get("conditions") else {})


async def reconcile(context: Context, key: Key) -> Result:
    """Take one StatefulSet's next steps and write its status."""
    owner = context.informer(STATEFULSETS).get(*key)
    if owner is None:
        context.expectations.forget([key])
        return DONE
    children = Children(context, owner, STATEFULSETS, PODS)
    if not children.settled():
        return DONE
    selector = labels.from_object(owner["spec"]["selector"])
    history = await record(context, owner, STATEFULSETS, selector)
    found = await children.claim(selector, lambda pod: ordinal_of(pod, owner) is not None)
    now = context.clock.now()
    failure: ApiError | None = None
    if not owner["metadata"].get("deletionTimestamp"):
        try:
            await _act(children, plan(owner, found, history.current["metadata"]["name"], now), history)
            await _identify(context, owner, found)
            await _keep_claims(context, owner, found)
        except ApiError as error:
            failure = error
    status = status_of(owner, found, history, now)
    if status != owner.get("status"):
        await context.client.update(STATEFULSETS, {**owner, "status": status}, subresource="status")
    if failure is not None:
        raise failure
    live = [revision_of(pod) for pod in found] + [status["currentRevision"], status["updateRevision"]]
    await trim(context, history, owner["spec"].get("revisionHistoryLimit", 10), live)
    return Result(soonest_available(found, owner["spec"].get("minReadySeconds") or 0, now))


async def _act(children: Children, steps: Plan, history: History) -> None:
    context, owner = children.context, children.owner
    current = (owner.get("status") or {}).get("currentRevision", "")
    for number, update in steps.create:
        revision = history.current if update else (history.named(current) or history.current)
        if not await _create_claims(context, owner, number):
            return
        await _create(children, new_pod(restored(owner, revision), number, revision["metadata"]["name"]))
    for pod in steps.delete:
        if pod in steps.recreated:
            text = f"StatefulSet {key_of(owner)} is recreating failed Pod {pod['metadata']['name']}"
            context.recorder.event(owner, "Warning", "RecreatingFailedPod", text)
        await _delete(children, pod)


async def _identify(context: Context, owner: Object, found: Iterable[Object]) -> None:
    """Pods get their name's label again when somebody took it off: Services for one pod select it. Raises ApiError."""
    for pod in found:
        meta, number = pod["metadata"], ordinal_of(pod, owner)
        if (meta.get("labels") or {}).get(_POD_NAME) == meta["name"] or meta.get("deletionTimestamp"):
            continue
        what = f"Update Pod {meta['name']} in StatefulSet {owner['metadata']['name']}"
        marks = {_POD_NAME: meta["name"], _POD_INDEX: str(number)}
        body = {"metadata": {"uid": meta["uid"], "labels": marks}}
        try:
            written = await context.client.patch(PODS, meta["name"], meta["namespace"], body)
        except ApiError as error:
            if error.code == 404:
                continue
            context.recorder.event(owner, "Warning", "FailedUpdate", f"{what} failed error: {error.message}")
            raise
        context.expectations.created(key_of(owner), written)
        context.recorder.event(owner, "Normal", "SuccessfulUpdate", f"{what} successful")


async def _create(children: Children, pod: Object) -> None:
    context, owner = children.context, children.owner
    what = f"Create Pod {pod['metadata']['name']} in StatefulSet {owner['metadata']['name']}"
    try:
        made = await context.client.create(PODS, pod, owner["metadata"]["namespace"])
    except ApiError as error:
        if namespace_terminates(error):
            return
        context.recorder.event(owner, "Warning", "FailedCreate", f"{what} failed error: {error.message}")
        raise
    context.expectations.created(key_of(owner), made)
    context.recorder.event(owner, "Normal", "SuccessfulCreate", f"{what} successful")


async def _delete(children: Children, pod: Object) -> None:
    context, owner, meta = children.context, children.owner, pod["metadata"]
    what = f"Delete Pod {meta['name']} in StatefulSet {owner['metadata']['name']}"
    context.expectations.deleted(key_of(owner), pod)
    try:
        await context.client.delete(PODS, meta["name"], meta["namespace"], uid=meta["uid"])
    except (OSError, TimeoutError):
        context.expectations.kept(key_of(owner), pod)  # perhaps; to delete the same pod again is harmless
        raise
    except ApiError as error:
        if error.code in (404, 409):
            return
        context.expectations.kept(key_of(owner), pod)
        context.recorder.event(owner, "Warning", "FailedDelete", f"{what} failed error: {error.message}")
        raise
    context.recorder.event(owner, "Normal", "SuccessfulDelete", f"{what} successful")


async def _create_claims(context: Context, owner: Object, number: int) -> bool:
    """The claims of one pod; False when one is being deleted, so that the pod must wait."""
    namespace = owner["metadata"]["namespace"]
    for template in _claim_templates(owner):
        claim = new_claim(owner, template, number)
        name = claim["metadata"]["name"]
        there = context.informer(PERSISTENTVOLUMECLAIMS).get(namespace, name)
        if there is not None:
            if there["metadata"].get("deletionTimestamp"):
                return False
            continue
        what = (
            f"Create Claim {name} Pod {owner['metadata']['name']}-{number} in StatefulSet {owner['metadata']['name']}"
        )
        try:
            await context.client.create(PERSISTENTVOLUMECLAIMS, claim, namespace)
        except ApiError as error:
            if error.reason == "AlreadyExists":
                continue
            context.recorder.event(owner, "Warning", "FailedCreate", f"{what} failed error: {error.message}")
            raise
        context.recorder.event(owner, "Normal", "SuccessfulCreate", f"{what} success")
    return True


async def _keep_claims(context: Context, owner: Object, found: Iterable[Object]) -> None:
    """Claims belong to the set, to a pod that goes, or to nobody, as the retention policy says."""
    start = (owner["spec"].get("ordinals") or {}).get("start") or 0
    end = start + owner["spec"].get("replicas", 1)
    namespace = owner["metadata"]["namespace"]
    for pod in found if _claim_templates(owner) else ():
        number = ordinal_of(pod, owner)
        assert number is not None
        for template in _claim_templates(owner):
            claim = context.informer(PERSISTENTVOLUMECLAIMS).get(namespace, claim_name(owner, template, number))
            if claim is None:
                continue
            if _is_anothers(owner, pod, claim):
                text = f"PersistentVolumeClaim {claim['metadata']['name']} has a conflicting OwnerReference that acts "
                text += "as a manging controller, the retention policy is ignored for this claim"
                context.recorder.event(owner, "Warning", "ConflictingController", text)
            owners = claim_owners(owner, pod, claim, condemned=not start <= number < end)
            if owners is not None:
                changed = {**claim, "metadata": {**claim["metadata"], "ownerReferences": owners}}
                await context.client.update(PERSISTENTVOLUMECLAIMS, changed)


def _adopters(context: Context, pod: Object) -> Iterable[Key]:
    meta = pod["metadata"]
    match = _ORDINAL.fullmatch(meta["name"])
    if controller_of(pod) is None and match is not None:
        owner = context.informer(STATEFULSETS).get(meta["namespace"], match[1])
        if owner is not None and labels.from_object(owner["spec"]["selector"]).matches(meta.get("labels")):
            yield key_of(owner)


CONTROLLER = Controller(
    "statefulset-controller",
    reconcile,
    (
        For(STATEFULSETS),
        Owns(PODS, STATEFULSETS),
        Watch(PODS, _adopters),
        Watch(PERSISTENTVOLUMECLAIMS, lambda *_: ()),
        Owns(CONTROLLERREVISIONS, STATEFULSETS),
    ),
    indexes={PODS: INDEX, CONTROLLERREVISIONS: INDEX},
)
