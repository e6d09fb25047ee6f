"""ObjectMeta: what a create fills in, and the rules of names, labels, annotations, owners and finalizers.

Owns everything about `metadata` that is the same for all kinds. Called by the API server's verbs, before the kind's own
`validate` and `validate_update`. Pure: time and uid are arguments; generating names is the server's. Source:
apimachinery's api/validation/objectmeta.go and apiserver's registry/rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from steersman.api import names
from steersman.api.errors import FieldError
from steersman.api.labels import validate_labels
from steersman.api.resource import Object
from steersman.api.validation import (
    IMMUTABLE,
    forbidden,
    immutable,
    invalid,
    not_negative,
    not_supported,
    required,
    too_long,
)

NameRule = Callable[[str, bool], list[str]]

ANNOTATION_LIMIT = 256 * 1024
"""Bytes of all annotations together."""
MANAGER_LIMIT = 128
"""Bytes of a field manager's name."""

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"

_SYSTEM = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink")
_TWICE = (
    ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject "
    "such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: "
)
_COLLECTIONS = ("labels", "annotations", "finalizers", "ownerReferences")
_FIXED = ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp")


def strip(obj: Object) -> None:
    """Drop what a client sent of what the system sets on a new object."""
    for key in _SYSTEM:
        obj["metadata"].pop(key, None)


def fill(obj: Object, *, uid: str, now: str) -> None:
    """What the system sets on a new object; what anybody set there is dropped. `now` is RFC 3339 in seconds."""
    strip(obj)
    meta = obj["metadata"]
    managed = meta.pop("managedFields", None)
    meta["uid"] = uid
    meta["creationTimestamp"] = now
    if managed is not None:
        meta["managedFields"] = managed  # the last, as everywhere: an update that changes nothing is the same bytes


def bare(meta: Object) -> None:
    """Drop maps and lists with nothing in them, which Go does not write."""
    for key in _COLLECTIONS:
        if key in meta and not meta[key]:
            del meta[key]


def carry_over(new: Object, old: Object) -> None:
    """What an update may leave out, or cannot change and is not told: stamps, the uid, the generation."""
    fresh, former = new["metadata"], old["metadata"]
    fresh.pop("selfLink", None)
    for key in ("creationTimestamp", "generation"):
        if key in former:
            fresh[key] = former[key]
        else:
            fresh.pop(key, None)
    if not fresh.get("uid"):
        fresh["uid"] = former["uid"]
    if former.get("deletionTimestamp"):
        fresh["deletionTimestamp"] = former["deletionTimestamp"]
    if fresh.get("deletionGracePeriodSeconds") is None and "deletionGracePeriodSeconds" in former:
        fresh["deletionGracePeriodSeconds"] = former["deletionGracePeriodSeconds"]


def validate(obj: Object, *, namespaced: bool, rule: NameRule | None = None, core: bool = False) -> list[FieldError]:
    """Complaints about a new object's metadata; `rule` is the kind's rule for names (default: DNS subdomain).

    `core` says that finalizers without a domain must be known ones, as of the kinds of Kubernetes itself.
    """
    meta = obj.get("metadata") or {}
    rule = rule or names.subdomain_name
    name, prefix = meta.get("name"), meta.get("generateName")
    found = [invalid("metadata.generateName", prefix, text) for text in rule(prefix, True)] if prefix else []
    if not name:
        found.append(required("metadata.name", "name or generateName is required"))
    else:
        found += [invalid("metadata.name", name, text) for text in rule(name, False)]
    found += _validate_rest(meta, namespaced)
    return found + core_finalizers(meta) if core and meta.get("finalizers") else found


def core_finalizers(meta: Mapping[str, Any]) -> list[FieldError]:
    """Complaints about finalizers without a domain that are not known ones."""
    return [
        error
        for i, name in enumerate(meta.get("finalizers") or ())
        for error in unqualified_finalizer(f"metadata.finalizers[{i}]", name)
    ]


def unqualified_finalizer(path: str, name: str) -> list[FieldError]:
    """A complaint about a finalizer that has no domain and is none of Kubernetes' own."""
    if "/" in name or name in ("kubernetes", ORPHAN, FOREGROUND):
        return []
    return [invalid(path, name, "name is neither a standard finalizer name nor is it fully qualified")]


def dedup_owners(obj: Object) -> list[str]:
    """Leave each owner once, in place; a warning when one was there twice."""
    owners = (obj.get("metadata") or {}).get("ownerReferences") or []
    once: list[Object] = []
    twice: list[str] = []
    for owner in owners:
        if owner in once:
            twice.append(owner.get("uid") or "")
        else:
            once.append(owner)
    if not twice:
        return []
    obj["metadata"]["ownerReferences"] = once
    return [f"{_TWICE}{', '.join(twice)}"]


def validate_template(meta: Mapping[str, Any], path: str) -> list[FieldError]:
    """Complaints about the labels, annotations and finalizers of a template's metadata."""
    found = validate_labels(meta.get("labels"), f"{path}.labels")
    found += validate_annotations(meta.get("annotations"), f"{path}.annotations")
    return found + validate_finalizers(meta.get("finalizers") or [], f"{path}.finalizers")


def _validate_rest(meta: Mapping[str, Any], namespaced: bool) -> list[FieldError]:
    namespace = meta.get("namespace")
    found: list[FieldError] = []
    if namespaced and not namespace:
        found.append(required("metadata.namespace"))
    elif namespace and namespaced:
        found += [invalid("metadata.namespace", namespace, text) for text in names.dns_label(namespace)]
    elif namespace:
        found.append(forbidden("metadata.namespace", "not allowed on this type"))
    found += not_negative("metadata.generation", meta.get("generation"))
    found += _validate_common(meta)
    return found + validate_finalizers(meta.get("finalizers") or [], "metadata.finalizers")


def _validate_common(meta: Mapping[str, Any]) -> list[FieldError]:
    found: list[FieldError] = []
    if labels := meta.get("labels"):
        found += validate_labels(labels, "metadata.labels")
    if annotations := meta.get("annotations"):
        found += validate_annotations(annotations, "metadata.annotations")
    if owners := meta.get("ownerReferences"):
        found += validate_owners(owners, "metadata.ownerReferences")
    if managed := meta.get("managedFields"):
        found += validate_managed_fields(managed, "metadata.managedFields")
    return found


def validate_common(new: Object, old: Object, *, namespaced: bool) -> list[FieldError]:
    """What is asked of every changed object's metadata, whatever its kind."""
    return validate(new, namespaced=namespaced, rule=names.path_segment) + validate_update(new, old)


def validate_update(new: Object, old: Object, *, core: bool = False) -> list[FieldError]:
    """Complaints about a change of metadata; `core` as in `validate`."""
    fresh, former = new["metadata"], old["metadata"]
    found: list[FieldError] = []
    if former.get("deletionTimestamp"):
        extra = sorted(set(fresh.get("finalizers") or ()).difference(former.get("finalizers") or ()))
        if extra:
            shown = ", ".join(f'"{name}"' for name in extra)
            text = "no new finalizers can be added if the object is being deleted, found new finalizers "
            found.append(forbidden("metadata.finalizers", f"{text}[]string{{{shown}}}"))
    if not fresh.get("resourceVersion"):
        found.append(invalid("metadata.resourceVersion", "", "must be specified for an update"))
    if (fresh.get("generation") or 0) < (former.get("generation") or 0):
        found.append(invalid("metadata.generation", fresh.get("generation") or 0, "must not be decremented"))
    for key in _FIXED:
        found += immutable(f"metadata.{key}", fresh.get(key), former.get(key))
    grace = fresh.get("deletionGracePeriodSeconds")
    if grace != former.get("deletionGracePeriodSeconds"):
        found.append(invalid("metadata.deletionGracePeriodSeconds", grace, IMMUTABLE))
    found += _validate_common(fresh)
    return found + core_finalizers(fresh) if core and fresh.get("finalizers") else found


def validate_annotations(annotations: Mapping[str, str] | None, path: str) -> list[FieldError]:
    """Complaints about keys (in any case) and the size of all together."""
    found: list[FieldError] = []
    size = 0
    for key, value in (annotations or {}).items():
        found += [invalid(path, key, text) for text in names.qualified(key.lower())]
        size += len(key) + (len(value) if value.isascii() else len(value.encode()))
    if size > ANNOTATION_LIMIT:
        found.append(too_long(path, ANNOTATION_LIMIT))
    return found


def validate_owners(owners: list[dict[str, Any]], path: str) -> list[FieldError]:
    """Complaints about owner references; only one may be the controller."""
    found: list[FieldError] = []
    first = ""
    for owner in owners:
        version = owner.get("apiVersion", "")
        if not version.rpartition("/")[2]:
            found.append(invalid(f"{path}.apiVersion", version, "version must not be empty"))
        found += [
            invalid(f"{path}.{key}", owner.get(key) or "", "must not be empty")
            for key in ("kind", "name", "uid")
            if not owner.get(key)
        ]
        if version == "v1" and owner.get("kind") == "Event":
            found.append(invalid(path, owner, "/v1, Kind=Event is disallowed from being an owner"))
        if owner.get("controller"):
            current = f"{owner.get('kind')}/{owner.get('name')}"
            if first:
                text = (
                    'Only one reference can have Controller set to true. Found "true" in references for '
                    f"{first} and {current}"
                )
                found.append(invalid(path, owners, text))
            first = first or current
    return found


def validate_finalizers(finalizers: list[str], path: str) -> list[FieldError]:
    """Complaints about finalizers' names, and about two that exclude each other."""
    found = [invalid(path, name, text) for name in finalizers for text in names.qualified(name)]
    if ORPHAN in finalizers and FOREGROUND in finalizers:
        found.append(invalid(path, finalizers, f"finalizer {ORPHAN} and {FOREGROUND} cannot be both set"))
    return found


def validate_manager(manager: str, path: str) -> list[FieldError]:
    """Complaints about a field manager's name."""
    found = [too_long(path, MANAGER_LIMIT)] if len(manager.encode()) > MANAGER_LIMIT else []
    for i, char in enumerate("" if manager.isprintable() else manager):  # of spaces, only a blank is printable
        if not char.isprintable() or (char.isspace() and char != " "):
            found.append(invalid(path, manager, f"invalid character U+{ord(char):04X} (at position {i})"))
    return found


def validate_managed_fields(entries: list[dict[str, Any]], path: str) -> list[FieldError]:
    """Complaints about managedFields that a client sent."""
    found: list[FieldError] = []
    for i, entry in enumerate(entries):
        here = f"{path}[{i}]"
        if entry.get("operation") not in ("Apply", "Update"):
            found.append(invalid(f"{here}.operation", entry.get("operation") or "", "must be `Apply` or `Update`"))
        if entry.get("fieldsType") not in (None, "", "FieldsV1"):
            found.append(invalid(f"{here}.fieldsType", entry["fieldsType"], "must be `FieldsV1`"))
        found += validate_manager(entry.get("manager") or "", f"{here}.manager")
        if len(entry.get("subresource") or "") > 256:
            found.append(too_long(f"{here}.subresource", 256))
    return found


def validate_options(options: Mapping[str, Any], *, patch: str = "") -> list[FieldError]:
    """Complaints about create, update and patch options: fieldManager, dryRun, fieldValidation, force.

    `patch` is the patch's type (`json`, `merge`, `strategic`, `apply`), empty for create and update. `dryRun` is a
    list, as the query has it.
    """
    found: list[FieldError] = []
    manager = options.get("fieldManager") or ""
    if patch == "apply" and not manager:
        found.append(required("fieldManager", "is required for apply patch"))
    if patch and patch != "apply" and options.get("force") is not None:
        found.append(forbidden("force", "may not be specified for non-apply patch"))
    found += validate_manager(manager, "fieldManager")
    dry_run = options.get("dryRun") or []
    if any(value != "All" for value in dry_run):
        found.append(not_supported("dryRun", dry_run, ["All"]))
    validation = options.get("fieldValidation") or ""
    if validation not in ("", "Ignore", "Warn", "Strict"):
        found.append(not_supported("fieldValidation", validation, ["", "Ignore", "Strict", "Warn"]))
    return found


def validate_delete_options(options: Mapping[str, Any]) -> list[FieldError]:
    """Complaints about DeleteOptions."""
    found: list[FieldError] = []
    policy = options.get("propagationPolicy")
    if options.get("orphanDependents") is not None and policy is not None:
        text = "orphanDependents and deletionPropagation cannot be both set"
        found.append(invalid("propagationPolicy", policy, text))
    if policy is not None and policy not in ("Foreground", "Background", "Orphan"):
        found.append(not_supported("propagationPolicy", policy, ["Foreground", "Background", "Orphan", "nil"]))
    dry_run = options.get("dryRun") or []
    if any(value != "All" for value in dry_run):
        found.append(not_supported("dryRun", dry_run, ["All"]))
    return found
