"""ServiceAccount: every pod has one, and its credentials are mounted unless somebody says no.

Source: plugin/pkg/admission/serviceaccount.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from steersman.api import errors, pods
from steersman.api.kind import Kind
from steersman.api.resource import Object
from steersman.apiserver.cache import Item
from steersman.apiserver.call import Call

MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
_MIRROR = "kubernetes.io/config.mirror"
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
_MODE = 420
_DEFAULT = "default"
_ENFORCE = "kubernetes.io/enforce-mountable-secrets"
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_PATIENCE = 1.5  # seconds; the original asks ten times, every 100 to 200 ms


def _concerns(call: Call, obj: Object | None) -> bool:
    is_pod = (call.kind.group, call.kind.kind, call.info.subresource) == ("", "Pod", "")
    return call.operation == "CREATE" and obj is not None and is_pod


def mutate(call: Call, obj: Object | None, old: Object | None) -> Awaitable[None] | None:
    """Name the account, add its pull secrets and the volume with its token."""
    if obj is None or not _concerns(call, obj):
        return None
    return None if _MIRROR in (obj["metadata"].get("annotations") or {}) else _mutate(call, obj)


async def _mutate(call: Call, obj: Object) -> None:
    spec = obj["spec"]
    spec["serviceAccountName"] = spec.get("serviceAccountName") or _DEFAULT
    spec["serviceAccount"] = spec["serviceAccountName"]
    account = await _account(call, obj)
    if _mounts(spec, account):
        _mount_token(call, spec)
    if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
        spec["imagePullSecrets"] = [dict(secret) for secret in account["imagePullSecrets"]]


async def _account(call: Call, obj: Object) -> Object:
    name, namespace = obj["spec"]["serviceAccountName"], obj["metadata"]["namespace"]
    kind = call.services.registry.find("", "serviceaccounts")
    assert kind is not None
    item = call.storage.find(kind, namespace, name)
    if item is None and name == _DEFAULT:
        item = await _arriving(call, kind, namespace, name)
    if item is None and (namespaces := call.services.registry.find("", "namespaces")) is not None:
        call.storage.get(namespaces, "", namespace)  # where there is none, that is what is said
    if item is None:
        text = f'error looking up service account {namespace}/{name}: serviceaccount "{name}" not found'
        raise errors.forbidden("", "pods", obj["metadata"].get("name", ""), text)
    return item.obj()


async def _arriving(call: Call, kind: Kind, namespace: str, name: str) -> Item | None:
    """The account of a namespace that was made a moment ago; None when nobody makes it in time."""
    key = call.storage.key(kind, namespace, name)
    changed = asyncio.Event()
    stop = call.storage.cache(kind).watch(lambda _: changed.set())
    try:
        async with asyncio.timeout(_PATIENCE):
            while call.storage.cache(kind).get(key) is None:
                await changed.wait()
                changed.clear()
    except TimeoutError:
        return None
    finally:
        stop()
    return call.storage.cache(kind).get(key)


def _mounts(spec: Object, account: Object) -> bool:
    if (said := spec.get("automountServiceAccountToken")) is not None:
        return bool(said)
    return account.get("automountServiceAccountToken") is not False


def _mount_token(call: Call, spec: Object) -> None:
    volumes = spec.get("volumes") or []
    taken = {volume.get("name") for volume in volumes}
    known = next((name for v in volumes if (name := v.get("name") or "").startswith("kube-api-access-")), None)
    name = known or "kube-api-access-" + "".join(call.services.random.choices(_SUFFIX, k=5))
    needed = False
    for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
        mounts = container.get("volumeMounts") or []
        if any(mount.get("mountPath") == MOUNT_PATH for mount in mounts):
            continue
        needed = True
        container["volumeMounts"] = [*mounts, {"name": name, "readOnly": True, "mountPath": MOUNT_PATH}]
    if needed and name not in taken:
        spec["volumes"] = [*volumes, _volume(name)]


def _volume(name: str) -> Object:
    """Token, CA and namespace, as the original projects them."""
    fields = [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]
    return {
        "name": name,
        "projected": {
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": fields}},
            ],
            "defaultMode": _MODE,
        },
    }


def validate(call: Call, obj: Object | None, old: Object | None) -> None:
    """Mirror pods have no account and no secrets, and an account may limit the secrets of its pods. Raises ApiError."""
    if obj is None or not _concerns(call, obj):
        return
    why = _mirror(obj) if _MIRROR in (obj["metadata"].get("annotations") or {}) else _unmountable(call, obj)
    if why:
        raise errors.forbidden("", "pods", obj["metadata"].get("name", ""), why)


def _mirror(obj: Object) -> str:
    spec = obj["spec"]
    if spec.get("serviceAccountName"):
        return "a mirror pod may not reference service accounts"
    kinds: set[str] = set()
    pods.references(spec, lambda kind, _: kinds.add(kind))
    if "Secret" in kinds:
        return "a mirror pod may not reference secrets"
    sources = [each for v in spec.get("volumes") or () for each in (v.get("projected") or {}).get("sources") or ()]
    tokens = any("serviceAccountToken" in each for each in sources)
    return "a mirror pod may not use ServiceAccountToken volume projections" if tokens else ""


def _unmountable(call: Call, obj: Object) -> str:
    """Why an account that enforces its list of secrets refuses the pod; empty otherwise."""
    spec = obj["spec"]
    kind = call.services.registry.find("", "serviceaccounts")
    item = call.storage.find(kind, obj["metadata"]["namespace"], spec["serviceAccountName"]) if kind else None
    account = item.obj() if item is not None and _ENFORCE.encode() in item.tail else {}
    if ((account.get("metadata") or {}).get("annotations") or {}).get(_ENFORCE) not in _TRUE:
        return ""
    name = account["metadata"]["name"]
    mountable = {each.get("name") for each in account.get("secrets") or ()}
    pull = {each.get("name") for each in account.get("imagePullSecrets") or ()}
    for volume in spec.get("volumes") or ():
        secret = (volume.get("secret") or {}).get("secretName")
        if secret and secret not in mountable:
            return (
                f'volume with secret.secretName="{secret}" is not allowed because service account {name} does not '
                "reference that secret"
            )
    for _, container in pods.every_container(spec):
        for variable in container.get("env") or ():
            secret = ((variable.get("valueFrom") or {}).get("secretKeyRef") or {}).get("name")
            if secret and secret not in mountable:
                return (
                    f"container {container['name']} with envVar {variable['name']} referencing secret.secretName="
                    f'"{secret}" is not allowed because service account {name} does not reference that secret'
                )
    for each in spec.get("imagePullSecrets") or ():
        if each.get("name") not in pull:
            return (
                f'imagePullSecrets[].name="{each.get("name")}" is not allowed because service account {name} does '
                "not reference that imagePullSecret"
            )
    return ""
