"""Whom a request concerns: rules, selectors, and the versions in which a rule may know the resource.

Owns what a rule, a selector and `matchPolicy` mean, for webhooks and policies alike. Called by both. Source:
apiserver's pkg/admission/plugin/webhook/predicates and pkg/admission/plugin/policy/matching.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from steersman.api import errors, labels
from steersman.api.errors import ApiError
from steersman.api.resource import Object
from steersman.api.schema.decode import DecodeError
from steersman.apiserver.call import Call

GROUP = "admissionregistration.k8s.io"


def version_for(call: Call, rules: Iterable[Object], policy: str, obj: Object | None = None) -> str:
    """The version in which a rule names what is asked for: the request's own, or with `Equivalent` any other.

    Empty when no rule does.
    """
    rules = list(rules)
    versions = [call.version]
    if policy != "Exact":
        versions += [each.name for each in call.kind.versions if each.served and each.name != call.version]
    return next((each for each in versions if any(_names(call, rule, each, obj) for rule in rules)), "")


def _names(call: Call, rule: Object, version: str, obj: Object | None) -> bool:
    given = rule.get("resourceNames")
    if given and name_of(call, obj) not in given:
        return False

    def has(key: str, value: str) -> bool:
        return "*" in rule.get(key, ()) or value in rule.get(key, ())

    scope, apart = rule.get("scope", "*"), is_namespace(call) or not call.info.namespace
    if scope != "*" and (scope == "Cluster") != apart:
        return False
    if not (has("operations", call.operation) and has("apiGroups", call.kind.group) and has("apiVersions", version)):
        return False
    plural, sub = call.kind.plural, call.info.subresource
    wanted = f"{plural}/{sub}" if sub else plural
    return any(
        each in ("*/*", wanted)
        or (each == "*" and not sub)
        or (each == f"{plural}/*")
        or (bool(sub) and each == f"*/{sub}")
        for each in rule.get("resources", ())
    )


def name_of(call: Call, obj: Object | None) -> str:
    """The name of what is asked for, as far as it is known."""
    return call.info.name or ((obj or {}).get("metadata") or {}).get("name") or ""


def is_namespace(call: Call) -> bool:
    """Whether the request is about a namespace itself."""
    return (call.kind.group, call.kind.plural) == ("", "namespaces")


def selected(call: Call, given: Object, obj: Object | None, old: Object | None) -> bool:
    """Whether the selectors of a webhook, or of a policy, take the request in."""
    selector = given.get("namespaceSelector")
    if selector and (call.info.namespace or is_namespace(call)):
        found = (obj or old) if is_namespace(call) else namespace(call)
        if not labels.from_object(selector).matches(((found or {}).get("metadata") or {}).get("labels")):
            return False
    wanted = given.get("objectSelector")
    if not wanted:
        return True
    chosen = labels.from_object(wanted)
    return any(chosen.matches((each.get("metadata") or {}).get("labels")) for each in (obj, old) if each is not None)


def namespace(call: Call) -> Object | None:
    """The namespace that the request is in."""
    kind = call.services.registry.find("", "namespaces")
    item = call.storage.find(kind, "", call.info.namespace) if kind is not None else None
    return item.obj() if item is not None else None


def in_version(call: Call, obj: Object | None, version: str) -> Object | None:
    """An object in a version that it may not be stored in; a copy where anything differs. Raises Unconverted."""
    wanted = call.kind.api_version(version)
    if obj is None or obj.get("kind") != call.kind.kind or obj.get("apiVersion") == wanted:
        return obj
    if call.kind.convert is None:
        return {**obj, "apiVersion": wanted}
    copied: Object = msgspec.json.decode(msgspec.json.encode(obj))
    converted = call.kind.convert(copied, wanted)
    converted["apiVersion"] = wanted
    return converted


def typed(call: Call, obj: Object, version: str, *, strict: bool) -> Object:
    """What somebody made of an object, through the decoder of its type. Raises ApiError 500, also when it is none of
    that type any more."""
    if not isinstance(obj, dict):
        raise errors.internal("the patched object is no object")
    kind = (obj.get("apiVersion"), obj.get("kind"))
    if not call.apart and kind != (call.kind.api_version(version), call.kind.kind):
        made = f"{str(kind[0]).rpartition('/')[2]}.{kind[1]}"
        wanted = f"{call.kind.group.partition('.')[0] or 'core'}.{call.kind.kind}"
        raise ApiError(500, "", f"converting ({made}) to ({wanted}): unknown conversion")
    served = call.kind.version(version)
    if call.apart or served is None or not isinstance(served.schema, str):
        return obj
    problems: list[str] = []
    try:
        found = call.services.decoders.decode(served.schema, msgspec.json.encode(obj), problems)
    except DecodeError as error:
        raise errors.internal(str(error)) from None
    if problems and strict:
        raise errors.internal(f"strict decoding error: {', '.join(problems)}")
    return {**found, "apiVersion": obj.get("apiVersion"), "kind": obj.get("kind")}


def replace(call: Call, obj: Object, changed: Object) -> None:
    """Put what somebody made of an object, in any version, in its place, defaulted."""
    stored = in_version(call, changed, obj["apiVersion"].rpartition("/")[2])
    obj.clear()
    obj.update(stored or {})
    if not call.apart:
        call.kind.default(obj)
