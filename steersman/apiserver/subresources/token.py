"""serviceaccounts/token: a signed token for a service account, bound to an object if asked.

Source: KEP-1205; pkg/registry/core/serviceaccount/storage/token.go.
"""

from __future__ import annotations

from typing import Any

from steersman.api import errors
from steersman.api.resource import Object
from steersman.api.validation import invalid
from steersman.apiserver.authn.jwt import unverified
from steersman.apiserver.call import Call
from steersman.apiserver.subresources.own import admitted
from steersman.apiserver.verbs.write import body_of, options
from steersman.lib.clock import rfc3339
from steersman.lib.http.messages import Response

LONGEST = "longest tokens"
"""In a server's extras: the most seconds that a token may last; as long as is asked where it is not there."""
_LEAST, _DEFAULT, _MOST = 600, 3600, 1 << 32
_OTHER_NAMESPACE = "the namespace of the provided object does not match the namespace sent on the request"
_BOUND = {"Pod": ("", "pods"), "Secret": ("", "secrets"), "Node": ("", "nodes")}


async def token(server: Any, call: Call) -> Response:
    """POST serviceaccounts/NAME/token."""
    if call.info.verb != "create":
        raise errors.no_such_method()
    options(call)
    body = body_of(call, kind="TokenRequest", group="authentication.k8s.io", version="v1")
    given = (body.get("metadata") or {}).get("name") or call.info.name
    if given != call.info.name:
        found = invalid("metadata.name", given, "must match the service account name if specified")
        raise errors.invalid("authentication.k8s.io", "TokenRequest", call.info.name, [found])
    if (body.get("metadata") or {}).get("namespace") not in (None, "", call.info.namespace):
        raise errors.bad_request(_OTHER_NAMESPACE)
    account = call.storage.get(call.kind, call.info.namespace, call.info.name).obj()
    body.setdefault("metadata", {})
    await admitted(call, "CREATE", body)
    issuer = call.services.extras["tokens"]
    spec = body.setdefault("spec", {})
    seconds = spec.get("expirationSeconds") or _DEFAULT
    if not _LEAST <= seconds <= _MOST:
        text = (
            "may not specify a duration less than 10 minutes"
            if seconds < _LEAST
            else "may not specify a duration larger than 2^32 seconds"
        )
        found = errors.FieldError(
            "FieldValueInvalid", "spec.expirationSeconds", f"Invalid value: {seconds}: {text}", seconds
        )
        raise errors.invalid("authentication.k8s.io", "TokenRequest", "", [found])
    longest = call.services.extras.get(LONGEST, 0)
    if 0 < longest < seconds:
        call.warnings.append(f"requested expiration of {seconds} seconds shortened to {longest} seconds")
        seconds = longest
    audiences = spec.get("audiences") or [issuer.issuer]
    bound = _bound(call, spec.get("boundObjectRef"), account)
    now = call.services.clock.now()
    signed = issuer.sign(account, audiences, int(seconds), now, bound, _node_uid(call, bound))
    spec |= {"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": spec.get("boundObjectRef")}
    body["metadata"] = {
        "name": call.info.name,
        "namespace": call.info.namespace,
        "uid": account["metadata"]["uid"],
        "creationTimestamp": rfc3339(now),
    }
    call.annotate("authentication.kubernetes.io/issued-credential-id", f"JTI={unverified(signed)[1]['jti']}")
    body["status"] = {"token": signed, "expirationTimestamp": rfc3339(now + seconds)}
    return call.document(201, body)


def _node_uid(call: Call, bound: tuple[str, str, str, Object | None] | None) -> str:
    """The uid of the node that a bound pod runs on."""
    name = ((bound[3] or {}).get("spec") or {}).get("nodeName") if bound is not None else None
    kind = call.services.registry.find("", "nodes")
    item = call.storage.find(kind, "", name) if kind is not None and name else None
    return str(item.obj()["metadata"]["uid"]) if item is not None else ""


def _bound(call: Call, reference: Object | None, account: Object) -> tuple[str, str, str, Object | None] | None:
    """(kind, name, uid, object) of what the token lives and dies with. Raises ApiError."""
    if reference is None:
        return None
    kind, name = reference.get("kind", ""), reference.get("name", "")
    if kind not in _BOUND:
        group, _, version = (reference.get("apiVersion") or "").rpartition("/")
        raise errors.bad_request(f"cannot bind token to object of type {group}/{version}, Kind={kind}")
    resource = call.services.registry.find(*_BOUND[kind])
    assert resource is not None
    item = call.storage.get(resource, call.info.namespace if resource.namespaced else "", name)
    obj = item.obj()
    uid = reference.get("uid") or obj["metadata"]["uid"]
    if uid != obj["metadata"]["uid"]:
        text = (
            f"the UID in the bound object reference ({uid}) does not match the UID in record. "
            "The object might have been deleted and then recreated"
        )
        raise errors.conflict(resource.group, kind, name, text)
    owner = obj.get("spec", {}).get("serviceAccountName")
    if kind == "Pod" and owner != account["metadata"]["name"]:
        text = (
            f'cannot bind token for serviceaccount "{account["metadata"]["name"]}" '
            "to pod running with different serviceaccount name."
        )
        raise errors.bad_request(text)
    return kind, name, uid, obj
