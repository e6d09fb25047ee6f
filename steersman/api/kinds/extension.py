"""CustomResourceDefinition and APIService: what is checked before the API server serves something new.

Structural schemas are the API server's to check; here are names, scope and versions. Source:
apiextensions-apiserver's v1/defaults.go and validation, kube-aggregator's.
"""

from __future__ import annotations

import base64

from steersman.api import definitions, names
from steersman.api.errors import FieldError
from steersman.api.kind import Behavior, Column, Update, only_status
from steersman.api.kinds import definitionspec, strategy
from steersman.api.resource import Object
from steersman.api.table import AGE, CREATED, NAME, dig
from steersman.api.validation import immutable, invalid, not_supported, required

Complaints = list[FieldError]


def _default_names(found: Object) -> None:
    kind = found.get("kind") or ""
    if not found.get("singular"):
        found["singular"] = kind.lower()
    if not found.get("listKind") and kind:
        found["listKind"] = f"{kind}List"


def _default_definition(definition: Object) -> None:
    spec = definition.setdefault("spec", {})
    _default_names(spec.setdefault("names", {}))
    conversion = spec.setdefault("conversion", {"strategy": "None"})
    for version in spec.get("versions") or ():
        version.setdefault("served", False)
        version.setdefault("storage", False)
    if service := dig(conversion, "webhook", "clientConfig", "service"):
        service.setdefault("port", 443)
    status = definition.setdefault("status", {})
    status.setdefault("conditions", None)
    accepted = status.setdefault("acceptedNames", {})
    for key in ("plural", "kind"):
        accepted.setdefault(key, "")
    status["storedVersions"] = status.get("storedVersions") or _stored(spec)


def _stored(spec: Object) -> list[str]:
    return [each.get("name") or "" for each in spec.get("versions") or () if each.get("storage")][:1]


def _begin(definition: Object) -> None:
    """The first version that is stored is remembered."""
    definition["status"] = {
        "conditions": None,
        "acceptedNames": {"plural": "", "kind": ""},
        "storedVersions": _stored(definition["spec"]),
    }
    definition["metadata"]["generation"] = 1


def _remember_stored(new: Object, old: Object) -> None:
    strategy.copy_field("status", new, old)
    strategy.count(new, old, changed=strategy.differs(new["spec"], old["spec"]))
    stored = list(dig(new, "status", "storedVersions") or ())
    more = [name for name in _stored(new["spec"]) if name not in stored]
    if more:
        new["status"] = {**(new.get("status") or {}), "storedVersions": stored + more}


def _validate_definition(definition: Object) -> Complaints:
    spec = definition["spec"]
    wanted = f"{dig(spec, 'names', 'plural') or ''}.{spec.get('group') or ''}"
    name = definition["metadata"].get("name") or ""
    out: Complaints = []
    if name and name != wanted:
        out.append(invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group'))
    out += definitionspec.check(spec) + _status(definition)
    return out + definitions.check_approval(definition) + _keeps_unknown(spec)


def _status(definition: Object) -> Complaints:
    status = definition.get("status") or {}
    out = definitionspec.check_names("status.acceptedNames", status.get("acceptedNames") or {})
    versions = definition["spec"].get("versions") or ()
    return out + definitionspec.stored_versions(status.get("storedVersions"), versions)


def _status_update(new: Object, old: Object) -> Complaints:
    names_ = dig(new, "status", "acceptedNames") or {}
    return definitionspec.check_names("status.acceptedNames", names_)


def _keeps_unknown(spec: Object) -> Complaints:
    """What v1beta1 had for whole objects is each schema's to say."""
    if not spec.get("preserveUnknownFields"):
        return []
    text = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
    return [invalid("spec.preserveUnknownFields", True, text)]


def _definition_update(new: Object, old: Object) -> Complaints:
    """Schemas may leave wrong what was wrong, and names that objects are stored by stay."""
    fresh, before = new["spec"], old["spec"]
    out = definitionspec.check(fresh)
    if out and (known := {str(each) for each in definitionspec.check(before)}):
        around = {str(each) for each in definitionspec.check(fresh, schemas=False)}
        out = [each for each in out if str(each) in around or str(each) not in known]
    out += definitionspec.check_bundle(fresh, before)
    if definitions.condition(old, "Established") == "True":
        out += immutable("spec.scope", fresh.get("scope") or "", before.get("scope"))
        out += immutable("spec.names.kind", dig(fresh, "names", "kind") or "", dig(before, "names", "kind"))
    out += immutable("spec.group", fresh.get("group") or "", before.get("group"))
    out += immutable("spec.names.plural", dig(fresh, "names", "plural") or "", dig(before, "names", "plural"))
    out += _status(new) + definitions.check_approval(new, old)
    return out + (_keeps_unknown(fresh) if not before.get("preserveUnknownFields") else [])


CUSTOMRESOURCEDEFINITION = Behavior(
    "apiextensions.k8s.io",
    "CustomResourceDefinition",
    default=_default_definition,
    validate=_validate_definition,
    prepare_create=_begin,
    updates={"": Update(_remember_stored, _definition_update), "status": Update(only_status, _status_update)},
    warnings=definitionspec.warnings,
    columns=(NAME, CREATED),
)


LOCAL: Object = {
    "type": "Available",
    "status": "True",
    "reason": "Local",
    "message": "Local APIServices are always available",
}


def _default_service(service: Object) -> None:
    spec = service.setdefault("spec", {})
    spec.setdefault("groupPriorityMinimum", 0)
    spec.setdefault("versionPriority", 0)
    reference = spec.get("service")
    if reference is not None:
        reference.setdefault("port", 443)
    service.setdefault("status", {})


def _begin_service(service: Object) -> None:
    """What the API server serves itself is available from the start."""
    strategy.begin({})(service)
    if dig(service, "spec", "service") is None:
        since = service["metadata"].get("creationTimestamp")
        service["status"] = {"conditions": [{**LOCAL, "lastTransitionTime": since}]}


def _validate_service(service: Object) -> Complaints:
    spec = service["spec"]
    group, version = spec.get("group") or "", spec.get("version") or ""
    wanted = f"{version}.{group}"
    name = service["metadata"].get("name") or ""
    out: Complaints = []
    if name and name != wanted and not names.path_segment(name):
        text = f'must be `spec.version+"."+spec.group`: "{wanted}"'
        out.append(invalid("metadata.name", name, text))
    if group:
        out += [invalid("spec.group", group, text) for text in names.dns_subdomain(group)]
    elif version != "v1":
        text = "only v1 may have an empty group and it better be legacy kube"
        out.append(required("spec.group", text))
    out += [invalid("spec.version", version, text) for text in names.dns1035_label(version)]
    if not 1 <= spec.get("groupPriorityMinimum", 0) <= 20_000:
        text = "must be positive and less than 20000"
        out.append(invalid("spec.groupPriorityMinimum", spec.get("groupPriorityMinimum", 0), text))
    if not 1 <= spec.get("versionPriority", 0) <= 1000:
        text = "must be positive and less than 1000"
        out.append(invalid("spec.versionPriority", spec.get("versionPriority", 0), text))
    reference = spec.get("service")
    if reference is None:
        if spec.get("caBundle"):
            out.append(
                invalid(
                    "spec.caBundle",
                    f"{len(base64.b64decode(spec['caBundle']))} bytes",
                    "local APIServices may not have a caBundle",
                )
            )
        if spec.get("insecureSkipTLSVerify"):
            text = "local APIServices may not have insecureSkipTLSVerify"
            out.append(invalid("spec.insecureSkipTLSVerify", True, text))
        return out
    out += [required(f"spec.service.{key}") for key in ("namespace", "name") if not reference.get(key)]
    port = reference.get("port") or 0
    if problems := names.port(port):
        out.append(invalid("spec.service.port", port, f"port is not valid: {', '.join(problems)}"))
    if spec.get("insecureSkipTLSVerify") and spec.get("caBundle"):
        text = "may not be true if caBundle is present"
        out.append(invalid("spec.insecureSkipTLSVerify", True, text))
    return out


def _validate_conditions(service: Object, old: Object) -> Complaints:
    return [
        not_supported(f"status.conditions[{at}].status", each.get("status") or "", ("True", "False", "Unknown"))
        for at, each in enumerate((service.get("status") or {}).get("conditions") or ())
        if each.get("status") not in ("True", "False", "Unknown")
    ]


def _where(service: Object, now: float) -> str:
    reference = dig(service, "spec", "service")
    return f"{reference.get('namespace')}/{reference.get('name')}" if reference else "Local"


def _available(service: Object, now: float) -> str:
    found = dig(service, "status", "conditions") or ()
    condition = next((each for each in found if each.get("type") == "Available"), None)
    if condition is None:
        return "Unknown"
    status = condition.get("status") or "Unknown"
    return f"{status} ({condition['reason']})" if status != "True" and condition.get("reason") else status


APISERVICE = Behavior(
    "apiregistration.k8s.io",
    "APIService",
    order="mnv",
    default=_default_service,
    validate=_validate_service,
    prepare_create=_begin_service,
    updates={"status": Update(strategy.keep("spec"), _validate_conditions)},
    name_rule=names.path_segment,
    columns=(NAME, Column("Service", _where), Column("Available", _available), AGE),
)
