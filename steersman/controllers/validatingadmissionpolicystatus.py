"""ValidatingAdmissionPolicies: a status that says which expressions do not fit the kinds that they are about.

Owns status.typeChecking and status.observedGeneration. Types are those that the API server documents, so that custom
kinds count as well. What fits is `api.typechecking`'s. Source: kubernetes'
pkg/controller/validatingadmissionpolicystatus.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from steersman.api.errors import ApiError
from steersman.api.resource import Object, Resource
from steersman.client.client import Client
from steersman.client.controller import DONE, Context, Controller, For, Key, Result

POLICIES = Resource(
    "admissionregistration.k8s.io", "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", namespaced=False
)
if TYPE_CHECKING:
    from steersman.api.cel.types import Type

_MANAGER = "validatingadmissionpolicy-status"


class _Kinds:
    """What the API server says of kinds, asked once for each group and version."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._answers: dict[str, Object] = {}

    async def _get(self, path: str) -> Object:
        if path not in self._answers:
            try:
                self._answers[path] = await self._client.call("GET", path)
            except ApiError as error:
                if error.code != 404:
                    raise
                self._answers[path] = {}
        return self._answers[path]

    async def kind(self, group: str, version: str, resource: str) -> str:
        """The kind of a resource; empty where there is none."""
        found = await self._get(f"/{_place(group, version)}")
        listed = found.get("resources") or ()
        return next((str(each["kind"]) for each in listed if each["name"] == resource), "")

    async def type(self, group: str, version: str, kind: str) -> Type | None:
        """The type of a kind's objects; None where it is not known."""
        from steersman.api import typechecking  # here: a cluster without policies need not load CEL

        document = await self._get(f"/openapi/v3/{_place(group, version)}")
        definitions = (document.get("components") or {}).get("schemas") or {}
        wanted = {"group": group, "version": version, "kind": kind}
        for each in definitions.values():
            if wanted in (each.get("x-kubernetes-group-version-kind") or ()):
                return typechecking.type_of(each, definitions, kind)
        return None


def _place(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


async def reconcile(context: Context, key: Key) -> Result:
    """Check one policy, where it changed."""
    policy = context.informer(POLICIES).get(*key)
    if policy is None or policy["metadata"].get("deletionTimestamp"):
        return DONE
    generation = policy["metadata"].get("generation") or 1
    if generation <= ((policy.get("status") or {}).get("observedGeneration") or 0):
        return DONE
    warnings = await _check(context.client, policy)
    checking: Object = {"expressionWarnings": warnings} if warnings else {}
    body = {
        "apiVersion": POLICIES.api_version,
        "kind": POLICIES.kind,
        "metadata": {"name": key.name},
        "status": {"observedGeneration": generation, "typeChecking": checking},
    }
    await context.client.patch(
        POLICIES, key.name, "", body, type="apply", subresource="status", field_manager=_MANAGER, force=True
    )
    return DONE


async def _check(client: Client, policy: Object) -> list[Object]:
    from steersman.api import typechecking

    known = _Kinds(client)
    kinds: dict[tuple[str, str, str], Type | None] = {}
    for group, version, resource in typechecking.resources(policy):
        kind = await known.kind(group, version, resource)
        if kind and len(kinds) < typechecking.MOST and (found := await known.type(group, version, kind)) is not None:
            kinds[group, version, kind] = found
    params = None
    if stated := policy["spec"].get("paramKind"):
        group, _, version = stated["apiVersion"].rpartition("/")
        params = await known.type(group, version, stated["kind"])
    return typechecking.warnings(policy, list(kinds.items()), params)


CONTROLLER = Controller("validatingadmissionpolicy-status-controller", reconcile, (For(POLICIES),), workers=1)
