"""What of a pod may change, and through which endpoint.

Owns the rules of updates of a Pod: the main endpoint, status, ephemeralcontainers and resize. Given (new, old). Source:
ValidatePodUpdate, ValidatePodStatusUpdate, ValidatePodEphemeralContainersUpdate, ValidatePodResize.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steersman.api import meta, names
from steersman.api.errors import FieldError
from steersman.api.godiff import difference
from steersman.api.godump import dump
from steersman.api.kinds.podspec import validate
from steersman.api.kinds.podspec.scheduling import REQUIRED, tolerations
from steersman.api.kinds.strategy import differs
from steersman.api.resource import Object
from steersman.api.validation import alike, forbidden, invalid, required

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
    out = kept_annotations(new, old)
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
    if fresh != before:
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
    if not alike(former, wanted):
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
            out.append(invalid("spec.nodeSelector", selector or None, text))
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
    terms, former = (dump(each.get(REQUIRED), "v1:NodeSelector")["NodeSelectorTerms"] or [] for each in (new, old))
    here = f"spec.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms"
    if former and len(former) != len(terms):
        return [invalid(here, terms or None, "no additions/deletions to non-empty NodeSelectorTerms list are allowed")]
    text = "only additions are allowed (no mutations or deletions)"
    return [
        invalid(f"{here}[{i}]", term, text)
        for i, (term, before) in enumerate(zip(terms, former, strict=False))
        if not _only_more(term, before)
    ]


def _only_more(term: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    keys = ("MatchExpressions", "MatchFields")
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
    return tolerations("spec.tolerations", new)


def _gates(new: Sequence[Mapping[str, Any]], old: Sequence[Mapping[str, Any]]) -> Complaints:
    known = {gate.get("name") or "" for gate in old}
    places = {gate.get("name") or "": i for i, gate in enumerate(new)}
    text = "only deletion is allowed, but found new scheduling gate"
    return [
        forbidden(f"spec.schedulingGates[{i}].name", f"{text} '{name}'")
        for name, i in places.items()
        if name not in known
    ]


def kept_annotations(new: Object, old: Object) -> Complaints:
    """Annotations that stay as they are."""
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
    return out + validate.known_annotations("metadata.annotations", fresh, new["spec"])


def ephemeral(new: Object, old: Object) -> Complaints:
    """An update of the ephemeral containers: more of them, nothing else."""
    if validate.MIRROR in (old["metadata"].get("annotations") or {}):
        return [forbidden("[]", "static pods do not support ephemeral containers")]
    out = meta.validate_update(new, old, core=True)
    out += meta.validate(new, namespaced=True, core=True) + validate.pod(new) + kept_annotations(new, old)
    now = {each.get("name"): each for each in new["spec"].get("ephemeralContainers") or ()}
    for former in old["spec"].get("ephemeralContainers") or ():
        name = former.get("name")
        if name not in now:
            text = f'existing ephemeral containers "{name}" may not be removed\n'
            out.append(forbidden("spec.ephemeralContainers", text))
            continue
        shown = [dump(each, "v1:EphemeralContainer") for each in (former, now[name])]
        if not alike(*shown):
            text = f'existing ephemeral containers "{name}" may not be changed\n{difference(*shown)}'
            out.append(forbidden("spec.ephemeralContainers", text))
    return out
