"""What of a pod may change, and through which endpoint.

Owns the rules of updates of a Pod: the main endpoint, status, ephemeralcontainers and resize. Given (new, old). Source:
ValidatePodUpdate, ValidatePodStatusUpdate, ValidatePodEphemeralContainersUpdate, ValidatePodResize.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steersman.api import names, pods
from steersman.api.errors import FieldError
from steersman.api.godiff import difference
from steersman.api.godump import dump
from steersman.api.kinds.podspec import validate
from steersman.api.kinds.podspec.scheduling import REQUIRED
from steersman.api.kinds.strategy import differs
from steersman.api.resource import Object
from steersman.api.validation import Struct, forbidden, immutable, invalid, required

Complaints = list[FieldError]

_MAX_INT32 = 2**31 - 1
_APP_ARMOR = "container.apparmor.security.beta.kubernetes.io/"
_MAY_CHANGE = (
    "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"
    "`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def pod(new: Object, old: Object) -> Complaints:
    """An update of the pod itself."""
    out = _annotations(new, old)
    fresh, before = new["spec"], old["spec"]
    for field in ("containers", "initContainers"):
        if len(fresh.get(field) or ()) != len(before.get(field) or ()):
            return [*out, forbidden(f"spec.{field}", "pod updates may not add or remove containers")]
        out += _images(f"spec.{field}", fresh.get(field) or ())
    deadline, former = fresh.get("activeDeadlineSeconds"), before.get("activeDeadlineSeconds")
    here = "spec.activeDeadlineSeconds"
    if deadline is None and former is not None:
        out.append(invalid(here, None, "must not update from a positive integer to nil value"))
    elif deadline is not None and not 0 <= deadline <= _MAX_INT32:
        return [*out, invalid(here, deadline, names.between(0, _MAX_INT32))]
    elif deadline is not None and former is not None and former < deadline:
        return [*out, invalid(here, deadline, "must be less than or equal to previous value")]
    out += _tolerations(fresh.get("tolerations") or (), before.get("tolerations") or ())
    out += _gates(fresh.get("schedulingGates") or (), before.get("schedulingGates") or ())
    if differs(fresh, before):
        out += _everything_else(fresh, before)
    return out


def _images(path: str, containers: Sequence[Mapping[str, Any]]) -> Complaints:
    out: Complaints = []
    for i, container in enumerate(containers):
        image = container.get("image") or ""
        if not image:
            out.append(required(f"{path}[{i}].image"))
        if image != image.strip():
            out.append(invalid(f"{path}[{i}].image", image, "must not have leading or trailing whitespace"))
    return out


def _everything_else(fresh: Object, before: Object) -> Complaints:
    """Put back what may change; what is left must be the same."""
    out: Complaints = []
    allowed = {**fresh}
    for field in ("containers", "initContainers"):
        if fresh.get(field):
            pairs = zip(fresh[field], before[field], strict=True)
            allowed[field] = [{**container, "image": old.get("image")} for container, old in pairs]
        elif fresh.get(field) is not None:
            allowed[field] = None
    for field in ("activeDeadlineSeconds", "schedulingGates", "tolerations"):
        _put_back(field, allowed, before)
    grace = before.get("terminationGracePeriodSeconds")
    if grace is not None and grace < 0 and fresh.get("terminationGracePeriodSeconds") == 1:
        allowed["terminationGracePeriodSeconds"] = grace
    if before.get("schedulingGates"):
        out += _while_gated(allowed, before)
    former, wanted = (dump(spec, "v1:PodSpec") for spec in (before, allowed))
    if differs(former, wanted):
        text = f"pod updates may not change fields other than {_MAY_CHANGE}\n{difference(former, wanted)}"
        out.append(forbidden("spec", text))
    return out


def _while_gated(allowed: Object, before: Object) -> Complaints:
    """A gated pod's node selector and required node affinity may become narrower (KEP-3838)."""
    out: Complaints = []
    selector, former = allowed.get("nodeSelector") or {}, before.get("nodeSelector") or {}
    if selector != former:
        if any(selector.get(key) != value for key, value in former.items()):
            text = "only additions to spec.nodeSelector are allowed (no mutations or deletions)"
            out.append(invalid("spec.nodeSelector", selector, text))
        _put_back("nodeSelector", allowed, before)
    new_node = (allowed.get("affinity") or {}).get("nodeAffinity")
    old_node = (before.get("affinity") or {}).get("nodeAffinity")
    if differs(new_node, old_node):
        out += _node_affinity(new_node or {}, old_node or {})
        affinity = {**(allowed.get("affinity") or {})}
        if old_node is None:
            affinity.pop("nodeAffinity", None)
        else:
            affinity["nodeAffinity"] = old_node
        if affinity or before.get("affinity") is not None:
            allowed["affinity"] = affinity
        else:
            allowed.pop("affinity", None)
    return out


def _node_affinity(new: Mapping[str, Any], old: Mapping[str, Any]) -> Complaints:
    terms = (new.get(REQUIRED) or {}).get("nodeSelectorTerms") or []
    former = (old.get(REQUIRED) or {}).get("nodeSelectorTerms") or []
    here = f"spec.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms"
    if former and len(former) != len(terms):
        return [invalid(here, terms, "no additions/deletions to non-empty NodeSelectorTerms list are allowed")]
    text = "only additions are allowed (no mutations or deletions)"
    return [
        invalid(f"{here}[{i}]", term, text)
        for i, (term, before) in enumerate(zip(terms, former, strict=False))
        if not _only_more(term, before)
    ]


def _only_more(term: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    keys = ("matchExpressions", "matchFields")
    if not any(before.get(key) for key in keys):
        return not any(term.get(key) for key in keys)
    return all((term.get(key) or [])[: len(before.get(key) or [])] == (before.get(key) or []) for key in keys)


def _put_back(field: str, allowed: Object, before: Object) -> None:
    if field in before:
        allowed[field] = before[field]
    else:
        allowed.pop(field, None)


def _tolerations(new: Sequence[Mapping[str, Any]], old: Sequence[Mapping[str, Any]]) -> Complaints:
    def key(toleration: Mapping[str, Any]) -> Any:
        return sorted((name, value) for name, value in toleration.items() if name != "tolerationSeconds" and value)

    now = [key(each) for each in new]
    if any(key(each) not in now for each in old):
        return [forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")]
    return []


def _gates(new: Sequence[Mapping[str, Any]], old: Sequence[Mapping[str, Any]]) -> Complaints:
    known = {gate.get("name") for gate in old}
    return [
        forbidden(
            f"spec.schedulingGates[{i}].name",
            f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'",
        )
        for i, gate in enumerate(new)
        if gate.get("name") not in known
    ]


def _annotations(new: Object, old: Object) -> Complaints:
    fresh = new["metadata"].get("annotations") or {}
    before = old["metadata"].get("annotations") or {}
    out: Complaints = []
    for key, value in before.items():
        if fresh.get(key) == value:
            continue
        if key.startswith(_APP_ARMOR):
            text = "may not remove or update AppArmor annotations"
            out.append(forbidden(f"metadata.annotations[{key}]", text))
        if key == validate.MIRROR:
            text = "may not remove or update mirror pod annotation"
            out.append(forbidden(f"metadata.annotations[{key}]", text))
    for key in fresh.keys() - before.keys():
        if key.startswith(_APP_ARMOR):
            out.append(forbidden(f"metadata.annotations[{key}]", "may not add AppArmor annotations"))
        if key == validate.MIRROR:
            out.append(forbidden(f"metadata.annotations[{key}]", "may not add mirror pod annotation"))
    return out


def status(new: Object, old: Object) -> Complaints:
    """An update of the status."""
    out = _annotations(new, old)
    fresh, before = new.get("status") or {}, old.get("status") or {}
    for i, condition in enumerate(fresh.get("conditions") or ()):
        kind = condition.get("type") or ""
        if (condition.get("observedGeneration") or 0) < 0:
            here = f"status.conditions[{i}].observedGeneration"
            out.append(invalid(here, condition["observedGeneration"], "must be a non-negative integer"))
        if kind not in ("PodScheduled", "Ready", "Initialized"):
            out += [invalid(f"status.conditions[{i}].Type", kind, text) for text in names.qualified(kind)]
    nominated = fresh.get("nominatedNodeName")
    if nominated and nominated != before.get("nominatedNodeName"):
        out += [invalid("status.nominatedNodeName", nominated, text) for text in names.dns_subdomain(nominated)]
        if old["spec"].get("nodeName"):
            text = "may not be set on pods that are already bound to a node"
            out.append(forbidden("status.nominatedNodeName", text))
    out += immutable("status.qosClass", fresh.get("qosClass"), before.get("qosClass"))
    out += _states(fresh, before, old["spec"])
    return out + _addresses(fresh, before)


def _states(fresh: Object, before: Object, spec: Object) -> Complaints:
    """A container that ended for good does not come back."""
    out: Complaints = []
    for field, group in (
        ("containerStatuses", "containers"),
        ("initContainerStatuses", "initContainers"),
        ("ephemeralContainerStatuses", ""),
    ):
        by_name = {each.get("name"): each for each in spec.get(group) or ()}
        now = {each.get("name"): each for each in fresh.get(field) or ()}
        for i, former in enumerate(before.get(field) or ()):
            ended = (former.get("state") or {}).get("terminated")
            current = now.get(former.get("name"))
            if ended is None or current is None or "terminated" in (current.get("state") or {}):
                continue
            container = by_name.get(former.get("name"), {})
            if not group or not _may_restart(container, spec, ended.get("exitCode") or 0, init=group != "containers"):
                text = "may not be transitioned to non-terminated state"
                out.append(forbidden(f"status.{field}[{i}].state", text))
    return out


def _may_restart(container: Mapping[str, Any], spec: Object, code: int, *, init: bool) -> bool:
    for rule in container.get("restartPolicyRules") or ():
        codes = rule.get("exitCodes") or {}
        if (code in (codes.get("values") or ())) is (codes.get("operator") == "In"):
            return True
    policy = container.get("restartPolicy") or spec.get("restartPolicy")
    if init and not container.get("restartPolicy"):
        return policy != "Never" and (policy == "Always" or code != 0)
    return policy == "Always" or (policy == "OnFailure" and code != 0)


def _addresses(fresh: Object, before: Object) -> Complaints:
    out: Complaints = []
    for field, suffix in (("podIPs", ""), ("hostIPs", "")):
        found = [each.get("ip") or "" for each in fresh.get(field) or ()]
        known = {each.get("ip") for each in before.get(field) or ()}
        if field == "hostIPs" and found and fresh.get("hostIP") != found[0]:
            out.append(invalid("status.hostIPs[0].ip", found[0], "must be equal to `hostIP`"))
        for i, address in enumerate(found):
            if address not in known:
                out += names.legacy_ip(f"status.{field}[{i}]{suffix}", address)
        if len(found) > 1 and (len(found) > 2 or (":" in found[0]) == (":" in found[1])):
            text = "may specify no more than one IP for each IP family"
            out.append(invalid(f"status.{field}", [Struct({"IP": each}) for each in found], text))
    return out


def ephemeral(new: Object, old: Object) -> Complaints:
    """An update of the ephemeral containers: more of them, nothing else."""
    if validate.MIRROR in (old["metadata"].get("annotations") or {}):
        return [forbidden("[]", "static pods do not support ephemeral containers")]
    out = validate.pod(new)
    now = {each.get("name"): each for each in new["spec"].get("ephemeralContainers") or ()}
    for former in old["spec"].get("ephemeralContainers") or ():
        name = former.get("name")
        if name not in now:
            text = f'existing ephemeral containers "{name}" may not be removed\n'
            out.append(forbidden("spec.ephemeralContainers", text))
        elif differs(now[name], former):
            shown = (dump(each, "v1:EphemeralContainer") for each in (former, now[name]))
            text = f'existing ephemeral containers "{name}" may not be changed\n{difference(*shown)}'
            out.append(forbidden("spec.ephemeralContainers", text))
    return out


def resize(new: Object, old: Object) -> Complaints:
    """An update of resources in place (KEP-1287): cpu and memory, in the same class of service."""
    if validate.MIRROR in (old["metadata"].get("annotations") or {}):
        return [forbidden("[]", "static pods cannot be resized")]
    if (old["spec"].get("os") or {}).get("name") == "windows":
        return [forbidden("[]", "windows pods cannot be resized")]
    out = validate.pod(new)
    if pods.qos_class(new) != pods.qos_class(old):
        found = (new.get("status") or {}).get("qosClass") or ""
        out.append(invalid("spec", found, "Pod QOS Class may not change as a result of resizing"))
    running = [
        each for each in (old.get("status") or {}).get("containerStatuses") or () if each["state"].get("running")
    ]
    if running and "resources" not in running[0]:
        out.append(forbidden("spec", "Pod running on node without support for resize"))
    order = _same_containers(new["spec"], old["spec"])
    if order:
        return out + order
    for field in ("initContainers", "containers"):
        for i, (container, before) in enumerate(
            zip(new["spec"].get(field) or (), old["spec"].get(field) or (), strict=True)
        ):
            out += _resized(f"spec.{field}[{i}]", container, before, init=field == "initContainers")
    return out


def _same_containers(new: Object, old: Object) -> Complaints:
    out: Complaints = []
    for field in ("containers", "initContainers"):
        fresh, before = new.get(field) or (), old.get(field) or ()
        if len(fresh) != len(before):
            out.append(forbidden(f"spec.{field}", f"{field} may not be added or removed on resize"))
            continue
        text = f"{field} may not be renamed or reordered on resize"
        out += [
            forbidden(f"spec.{field}[{i}].name", text)
            for i, (container, former) in enumerate(zip(fresh, before, strict=True))
            if container.get("name") != former.get("name")
        ]
    return out


def _resized(path: str, container: Object, before: Object, *, init: bool) -> Complaints:
    fresh, former = container.get("resources") or {}, before.get("resources") or {}
    if init and not pods.is_sidecar(before):
        text = "resources for non-sidecar init containers are immutable"
        return [forbidden("spec", text)] if differs(container, before) else []
    out: Complaints = []
    for which in ("requests", "limits"):
        if (former.get(which) or {}).keys() - (fresh.get(which) or {}).keys():
            out.append(forbidden(f"{path}.resources.{which}", f"resource {which} cannot be removed"))
        others = (
            {key: value for key, value in (each.get(which) or {}).items() if key not in ("cpu", "memory")}
            for each in (fresh, former)
        )
        first, second = others
        if first != second:
            out.append(forbidden("spec", "only cpu and memory resources are mutable"))
    bare = [{key: value for key, value in each.items() if key != "resources"} for each in (container, before)]
    if differs(*bare):
        out.append(forbidden("spec", "only cpu and memory resources are mutable"))
    return out
