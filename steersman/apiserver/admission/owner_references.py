"""OwnerReferencesPermissionEnforcement: who owns an object is a matter of rights.

Owns two rules: to change owners takes the right to delete the object, and to block an owner's deletion takes the right
to set the owner's finalizers. The authorizer is among the call's extras. Source: plugin/pkg/admission/gc.
"""

from __future__ import annotations

from steersman.api import errors
from steersman.api.errors import ApiError
from steersman.api.resource import Object
from steersman.apiserver.call import Call
from steersman.apiserver.request import RequestInfo


async def validate(call: Call, obj: Object | None, old: Object | None) -> None:
    """Refuse owners that the writer may not name. Raises ApiError."""
    authorize = call.services.extras.get("authorize")
    if obj is None or authorize is None or call.operation not in ("CREATE", "UPDATE"):
        return
    if (call.kind.group, call.kind.plural, call.info.subresource) == ("", "pods", "status"):
        return
    now, before = _owners(obj), _owners(old or {})
    if now == before:
        return
    info = call.info
    if call.operation == "UPDATE":
        asked = RequestInfo("", "delete", True, info.group, info.version, info.resource, info.subresource,
                            info.namespace, info.name)  # fmt: skip
        if (why := await authorize(call.user, asked)) is not None:
            raise _refused(call, obj, f"cannot set an ownerRef on a resource you can't delete: {why}, <nil>")
    blocking = [owner for owner in now if owner.get("blockOwnerDeletion") and not _blocked(before, owner)]
    anything = RequestInfo("", "update", True, "*", "*", "*", "finalizers", "", "*")
    if not blocking or await authorize(call.user, anything) is None:
        return
    for owner in blocking:
        group, _, version = owner["apiVersion"].rpartition("/")
        kinds = [kind for kind in call.services.registry if (kind.group, kind.kind) == (group, owner["kind"])]
        text = "cannot set blockOwnerDeletion"
        if not kinds:
            why = f"cannot find RESTMapping for APIVersion {owner['apiVersion']} Kind {owner['kind']}: "
            no_match = f'no matches for kind "{owner["kind"]}" in version "{owner["apiVersion"]}"'
            raise _refused(call, obj, f"{text} in this case because {why}{no_match}")
        for kind in kinds:
            where = info.namespace if kind.namespaced else ""
            asked = RequestInfo("", "update", True, group, version, kind.plural, "finalizers", where, owner["name"])
            if (why_not := await authorize(call.user, asked)) is not None:
                rule = "if an ownerReference refers to a resource you can't set finalizers on"
                raise _refused(call, obj, f"{text} {rule}: {why_not}, <nil>")


def _owners(obj: Object) -> list[Object]:
    return (obj.get("metadata") or {}).get("ownerReferences") or []


def _blocked(before: list[Object], owner: Object) -> bool:
    return any(each["uid"] == owner["uid"] and each.get("blockOwnerDeletion") for each in before)


def _refused(call: Call, obj: Object, text: str) -> ApiError:
    return errors.forbidden(call.kind.group, call.kind.plural, obj["metadata"].get("name", ""), text)
