"""Approving: a kubelet's request for its client certificate, when RBAC lets its sender ask for one.

Owns the automatic Approved condition; it never denies. Source: kubernetes' pkg/controller/certificates/approver.
"""

from __future__ import annotations

from steersman.api.errors import ApiError
from steersman.api.resource import Object, Resource
from steersman.client.controller import DONE, Context, Controller, For, Key, Result
from steersman.controllers.certificates.requests import KUBELET_CLIENT, REQUESTS, common_name, condition, parse, refusal
from steersman.lib.clock import rfc3339

REVIEWS = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False)

_MESSAGES = {
    "selfnodeclient": "Auto approving self kubelet client certificate after SubjectAccessReview.",
    "nodeclient": "Auto approving kubelet client certificate after SubjectAccessReview.",
}


def claims(request: Object) -> list[str]:
    """Which permissions would approve it, the narrowest first. Raises ValueError when it cannot be read."""
    spec = request["spec"]
    if spec["signerName"] != KUBELET_CLIENT:
        return []
    parsed = parse(request)
    if refusal(parsed, spec.get("usages") or [], KUBELET_CLIENT):
        return []
    return ["selfnodeclient", "nodeclient"] if common_name(parsed) == spec.get("username") else ["nodeclient"]


async def reconcile(context: Context, key: Key) -> Result:
    """Approve one request if it is a node's and its sender may ask."""
    request = context.informer(REQUESTS).get(*key)
    if request is None or (request.get("status") or {}).get("certificate"):
        return DONE
    if condition(request, "Approved") or condition(request, "Denied"):
        return DONE
    try:
        tried = claims(request)
    except ValueError:
        return DONE
    for subresource in tried:
        if await _allowed(context, request["spec"], subresource):
            await _approve(context, request, _MESSAGES[subresource])
            return DONE
    if tried:
        text = f"[{' '.join(tried)}]"
        text = f'recognized csr "{key.name}" as {text} but subject access review was not approved'
        raise ApiError(403, "Forbidden", text)
    return DONE


async def _allowed(context: Context, spec: Object, subresource: str) -> bool:
    attributes = {
        "group": REQUESTS.group,
        "resource": REQUESTS.plural,
        "verb": "create",
        "subresource": subresource,
        "version": "*",
    }
    who = {"user": spec.get("username", ""), "groups": spec.get("groups") or [], "uid": spec.get("uid", "")}
    body: Object = {"spec": {**who, "extra": spec.get("extra") or {}, "resourceAttributes": attributes}}
    review = await context.client.create(REVIEWS, {"apiVersion": REVIEWS.api_version, "kind": REVIEWS.kind, **body})
    return bool(review["status"]["allowed"])


async def _approve(context: Context, request: Object, message: str) -> None:
    stamp = rfc3339(context.clock.now())
    approved = {
        "type": "Approved",
        "status": "True",
        "reason": "AutoApproved",
        "message": message,
        "lastUpdateTime": stamp,
        "lastTransitionTime": stamp,
    }
    status = request.get("status") or {}
    conditions = [*(status.get("conditions") or ()), approved]
    body = {
        "apiVersion": REQUESTS.api_version,
        "kind": REQUESTS.kind,
        **request,
        "status": {**status, "conditions": conditions},
    }
    await context.client.update(REQUESTS, body, subresource="approval")


CONTROLLER = Controller(
    "certificatesigningrequest-approving-controller", reconcile, (For(REQUESTS),), retry=(0.2, 1000.0)
)
