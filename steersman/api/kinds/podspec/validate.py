"""Rules of a pod spec as a whole.

Owns `pod`, `pod_spec` and `template`: which part is checked by what, and the rules between parts. Source:
ValidatePodSpec and ValidatePodCreate in pkg/apis/core/validation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from steersman.api import meta, names, quantity
from steersman.api.errors import FieldError
from steersman.api.kinds.podspec import alike, apparmor, containers, resources, scheduling, security, volumes, windows
from steersman.api.labels import validate_labels
from steersman.api.pods import container_totals
from steersman.api.resource import Object
from steersman.api.validation import Struct, forbidden, invalid, not_found, not_supported, required, struct, too_long

Complaints = list[FieldError]
Check = Callable[[str], list[str]]

MIRROR = "kubernetes.io/config.mirror"
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"

_MAX_INT32 = 2**31 - 1
_RESTARTS = ("Always", "OnFailure", "Never")
_DNS = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_PREEMPTIONS = ("PreemptLowerPriority", "Never")
_NUMBER = re.compile(r"(0|-?[1-9][0-9]*)")
_SEARCH = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_search = re.compile(rf"{_SEARCH}(\.{_SEARCH})*").fullmatch
_SEARCH_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', "
    "and must start and end with an alphanumeric character"
)


def pod(obj: Object) -> Complaints:
    """A Pod. What is refused only on create is refused when there is no resourceVersion yet."""
    metadata, spec = obj["metadata"], obj["spec"]
    out = known_annotations("metadata.annotations", metadata.get("annotations") or {}, spec)
    out += pod_spec("spec", spec, metadata)
    if not spec.get("serviceAccountName"):
        out += _tokens_without_account(spec)
    for field in ("containers", "initContainers"):
        for i, container in enumerate(spec.get(field) or ()):
            out += containers.image_text(f"spec.{field}[{i}]", container)
    if not metadata.get("resourceVersion"):
        if spec.get("ephemeralContainers"):
            out.append(forbidden("spec.ephemeralContainers", "cannot be set on create"))
        if spec.get("nodeName") and spec.get("schedulingGates"):
            text = "cannot be set until all schedulingGates have been cleared"
            out.append(forbidden("spec.nodeName", text))
        out += apparmor.agreed("spec", metadata, spec)
    return out


def template(path: str, found: Mapping[str, Any], name: str = "") -> Complaints:
    """A PodTemplateSpec."""
    metadata, spec = found.get("metadata") or {}, found.get("spec") or {}
    out = validate_labels(metadata.get("labels"), f"{path}.labels")
    out += meta.validate_annotations(metadata.get("annotations"), f"{path}.annotations")
    out += known_annotations(f"{path}.annotations", metadata.get("annotations") or {}, spec)
    out += pod_spec(f"{path}.spec", spec, None)
    if spec.get("ephemeralContainers"):
        text = "ephemeral containers not allowed in pod template"
        out.append(forbidden(f"{path}.spec.ephemeralContainers", text))
    return out


def pod_spec(path: str, spec: Mapping[str, Any], metadata: Mapping[str, Any] | None) -> Complaints:
    """A PodSpec; `metadata` is the pod's, None in a template.

    Pods of one template differ by little more than the name of their token volume: one that was found to be without
    fault is not looked at again.
    """
    text = alike.text(spec)
    if text is not None and _faultless(text, in_pod=metadata is not None):
        return []
    return _pod_spec(path, spec, metadata)


@lru_cache(maxsize=1024)
def _faultless(text: bytes, *, in_pod: bool) -> bool:
    return not _pod_spec("spec", msgspec.json.decode(text), {} if in_pod else None)


def _pod_spec(path: str, spec: Mapping[str, Any], metadata: Mapping[str, Any] | None) -> Complaints:
    out: Complaints = []
    if spec.get("terminationGracePeriodSeconds") is None:
        out.append(required(f"{path}.terminationGracePeriodSeconds"))
    good, found = volumes.volumes(f"{path}.volumes", spec, (metadata or {}).get("name") or "")
    out += found
    out += _resource_claims(f"{path}.resourceClaims", spec.get("resourceClaims") or (), metadata)
    main, init = spec.get("containers") or (), spec.get("initContainers") or ()
    around = containers.around(spec, good)
    out += containers.containers(f"{path}.containers", main, around)
    if init:
        out += containers.init_containers(f"{path}.initContainers", init, main, around)
    if extra := spec.get("ephemeralContainers"):
        others = [*main, *init]
        out += containers.ephemeral_containers(f"{path}.ephemeralContainers", extra, others, around)
    if spec.get("resources") is not None:
        out += _pod_resources(f"{path}.resources", spec, around)
    out += _host_network(path, spec, in_pod=metadata is not None)
    out += _choice(f"{path}.restartPolicy", spec.get("restartPolicy"), _RESTARTS)
    out += _choice(f"{path}.dnsPolicy", spec.get("dnsPolicy"), _DNS)
    if "nodeSelector" in spec:
        out += validate_labels(spec["nodeSelector"], f"{path}.nodeSelector")
    out += security.of_pod(f"{path}.securityContext", spec)
    out += scheduling.affinity(f"{path}.affinity", spec.get("affinity"))
    out += _dns_config(f"{path}.dnsConfig", spec)
    for i, gate in enumerate(spec.get("readinessGates") or ()):
        kind = gate.get("conditionType") or ""
        here = f"{path}.readinessGates[{i}].conditionType"
        out += [invalid(here, kind, text) for text in names.qualified(kind)]
    out += scheduling.gates(f"{path}.schedulingGates", spec.get("schedulingGates") or ())
    out += scheduling.spread(f"{path}.topologySpreadConstraints", spec.get("topologySpreadConstraints") or ())
    out += windows.host_process(path, spec)
    out += security.host_users(path, spec)
    return out + _rest(path, spec)


def _names(path: str, spec: Mapping[str, Any], checks: Mapping[str, Check]) -> Complaints:
    """Fields that hold one name each."""
    out: Complaints = []
    for field, check in checks.items():
        if value := spec.get(field):
            out += [invalid(f"{path}.{field}", value, text) for text in check(value)]
    return out


def _host_name(path: str, spec: Mapping[str, Any]) -> Complaints:
    override = spec.get("hostnameOverride")
    out: Complaints = []
    if override is not None:
        here = f"{path}.hostnameOverride"
        if spec.get("setHostnameAsFQDN"):
            out.append(forbidden(here, "may not be specified when setHostnameAsFQDN is true"))
        if spec.get("hostNetwork"):
            out.append(forbidden(here, "may not be specified when hostNetwork is true"))
        if len(override) > 64:
            out.append(too_long(here, 64))
        out += [invalid(here, override, text) for text in names.dns_subdomain(override)]
    return out


def _rest(path: str, spec: Mapping[str, Any]) -> Complaints:
    out = _host_name(path, spec)
    out += _names(path, spec, {"serviceAccountName": names.dns_subdomain, "nodeName": names.dns_subdomain})
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= _MAX_INT32:
        out.append(invalid(f"{path}.activeDeadlineSeconds", deadline, names.between(1, _MAX_INT32)))
    out += _names(path, spec, {"hostname": names.dns_label, "subdomain": names.dns_label})
    if found := spec.get("tolerations"):
        out += scheduling.tolerations(f"{path}.tolerations", found)
    for i, alias in enumerate(spec.get("hostAliases") or ()):
        here = f"{path}.hostAliases[{i}]"
        out += names.legacy_ip(f"{here}.ip", alias.get("ip") or "")
        for j, host in enumerate(alias.get("hostnames") or ()):
            out += [invalid(f"{here}.hostnames[{j}]", host, text) for text in names.dns_subdomain(host)]
    out += _names(path, spec, {"priorityClassName": names.dns_subdomain})
    runtime = spec.get("runtimeClassName")
    if runtime is not None:
        out += [invalid(f"{path}.runtimeClassName", runtime, text) for text in names.dns_subdomain(runtime)]
    policy = spec.get("preemptionPolicy")
    if policy is not None:
        out += _choice(f"{path}.preemptionPolicy", policy, _PREEMPTIONS)
    if overhead := spec.get("overhead"):
        out += resources.requirements(f"{path}.overhead", {"limits": overhead})
    return out + windows.of_os(path, spec) + _file_keys(path, spec)


def _choice(path: str, value: str | None, choices: tuple[str, ...]) -> Complaints:
    if not value:
        return [required(path)]
    return [] if value in choices else [not_supported(path, value, choices)]


def known_annotations(path: str, found: Mapping[str, str], spec: Mapping[str, Any]) -> Complaints:
    """Annotations that mean something to a pod."""
    out: Complaints = []
    if MIRROR in found and not spec.get("nodeName"):
        text = "must set spec.nodeName if mirror pod annotation is set"
        out.append(invalid(f"{path}[{MIRROR}]", found[MIRROR], text))
    cost = found.get(DELETION_COST)
    if cost is not None and (not _NUMBER.fullmatch(cost) or not -(2**31) <= int(cost) <= _MAX_INT32):
        out.append(invalid(f"{path}[{DELETION_COST}]", cost, "must be a 32bit integer"))
    return out + apparmor.annotations(path, found, spec)


def _tokens_without_account(spec: Mapping[str, Any]) -> Complaints:
    text = "must not be specified when serviceAccountName is not set"
    return [
        forbidden(f"spec.volumes[{i}].projected.sources[{j}].serviceAccountToken", text)
        for i, volume in enumerate(spec.get("volumes") or ())
        for j, source in enumerate((volume.get("projected") or {}).get("sources") or ())
        if "serviceAccountToken" in source
    ]


def _resource_claims(path: str, claims: Any, metadata: Mapping[str, Any] | None) -> Complaints:
    out: Complaints = []
    seen: set[str] = set()
    if claims and MIRROR in ((metadata or {}).get("annotations") or {}):
        return [forbidden("[]", "static pods do not support resource claims")]
    for i, claim in enumerate(claims):
        here, name = f"{path}[{i}]", claim.get("name") or ""
        if not name:
            out.append(required(f"{here}.name"))
        elif name in seen:
            out += [FieldError("FieldValueDuplicate", f"{here}.name", f'Duplicate value: "{name}"', name)]
        else:
            out += [invalid(f"{here}.name", name, text) for text in names.dns_label(name)]
        seen.add(name)
        chosen = [key for key in ("resourceClaimName", "resourceClaimTemplateName") if key in claim]
        if len(chosen) > 1:
            text = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            out.append(invalid(here, _shown_claim(claim), text))
        if not chosen:
            text = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
            out.append(invalid(here, _shown_claim(claim), text))
        for key in chosen:
            out += [invalid(f"{here}.{key}", claim[key], text) for text in names.dns_subdomain(claim[key])]
    return out


def _pod_resources(path: str, spec: Mapping[str, Any], around: containers.Around) -> Complaints:
    """Pod-level resources (KEP-2837)."""
    own = spec["resources"]
    if around.os == "windows":
        return [forbidden(path, "may not be set for a windows pod")]
    out: Complaints = []
    if own.get("claims") is not None:
        out.append(forbidden(f"{path}.claims", "claims may not be set for Resources at pod-level"))
    out += resources.requirements(path, own, around.claims, resources.pod_resource_name)
    asked, capped = own.get("requests") or {}, own.get("limits") or {}
    for name, total in container_totals({"spec": spec}, "requests").items():
        if name in asked and quantity.compare(total, asked[name]) > 0:
            text = f"must be greater than or equal to aggregate container requests of {total}"
            out.append(invalid(f"{path}.requests[{name}]", asked[name], text))
    for i, container in enumerate(spec.get("containers") or ()):
        for name, limit in ((container.get("resources") or {}).get("limits") or {}).items():
            if name in capped and quantity.compare(limit, capped[name]) > 0:
                text = f"must be less than or equal to pod limits of {capped[name]}"
                out.append(invalid(f"{path}.containers[{i}][{name}].limits", limit, text))
    return out


def _host_network(path: str, spec: Mapping[str, Any], *, in_pod: bool) -> Complaints:
    if not spec.get("hostNetwork"):
        return []
    text = "must match `containerPort` when `hostNetwork` is true"
    return [
        invalid(f"{path}.containers[{i}].ports[{j}].hostPort", port.get("hostPort") or 0, text)
        for i, container in enumerate(spec.get("containers") or ())
        for j, port in enumerate(container.get("ports") or ())
        if (in_pod or port.get("hostPort")) and port.get("hostPort") != port.get("containerPort")
    ]


def _dns_config(path: str, spec: Mapping[str, Any]) -> Complaints:
    config = spec.get("dnsConfig")
    if spec.get("dnsPolicy") == "None":
        if config is None:
            return [required(path, "must provide `dnsConfig` when `dnsPolicy` is None")]
        if not config.get("nameservers"):
            text = "must provide at least one DNS nameserver when `dnsPolicy` is None"
            return [required(f"{path}.nameservers", text)]
    if not config:
        return []
    out: Complaints = []
    servers, searches = config.get("nameservers") or [], config.get("searches") or []
    if len(servers) > 3:
        out.append(invalid(f"{path}.nameservers", servers, "must not have more than 3 nameservers"))
    for i, server in enumerate(servers):
        out += names.legacy_ip(f"{path}.nameservers[{i}]", server)
    if len(searches) > 32:
        out.append(invalid(f"{path}.searches", searches, "must not have more than 32 search paths"))
    if len(" ".join(searches)) > 2048:
        text = "must not have more than 2048 characters (including spaces) in the search list"
        out.append(invalid(f"{path}.searches", searches, text))
    for i, search in enumerate(searches):
        bare = search.removesuffix(".")
        if search != "." and (len(bare) > 253 or not _search(bare)):
            text = names.regex_error(_SEARCH_TEXT, rf"{_SEARCH}(\.{_SEARCH})*", "example.com")
            out.append(invalid(f"{path}.searches[{i}]", bare, text))
    for i, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            out.append(required(f"{path}.options[{i}]", "must not be empty"))
    return out


def _file_keys(path: str, spec: Mapping[str, Any]) -> Complaints:
    """Environment variables from files refer to an emptyDir (KEP-3721)."""
    out: Complaints = []
    known = {volume.get("name"): volume for volume in spec.get("volumes") or ()}
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for i, container in enumerate(spec.get(field) or ()):
            for j, variable in enumerate(container.get("env") or ()):
                ref = (variable.get("valueFrom") or {}).get("fileKeyRef")
                if ref is None:
                    continue
                here = f"{path}.{field}[{i}].env[{j}].valueFrom.fileKeyRef.volumeName"
                name = ref.get("volumeName") or ""
                if name not in known:
                    out.append(not_found(here, name))
                elif "emptyDir" not in known[name]:
                    out.append(invalid(here, name, "referenced volume must be of type emptyDir"))
    return out


def _shown_claim(claim: Mapping[str, Any]) -> Struct | None:
    return struct(claim, Name="", ResourceClaimName=None, ResourceClaimTemplateName=None)
