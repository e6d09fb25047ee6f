"""ServiceAccount: every pod has one, and its credentials are mounted unless somebody says no.

Source: plugin/pkg/admission/serviceaccount.
"""

from __future__ import annotations

from steersman.api import errors
from steersman.api.resource import Object
from steersman.apiserver.call import Call

MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
_MIRROR = "kubernetes.io/config.mirror"
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
_MODE = 420


def _concerns(call: Call, obj: Object | None) -> bool:
    return call.operation == "CREATE" and obj is not None and (call.kind.group, call.kind.kind) == ("", "Pod")


def mutate(call: Call, obj: Object | None, old: Object | None) -> None:
    """Name the account, add its pull secrets and the volume with its token."""
    if obj is None or not _concerns(call, obj):
        return
    if _MIRROR in (obj["metadata"].get("annotations") or {}):
        return
    spec = obj["spec"]
    spec.setdefault("serviceAccountName", "default")
    if not spec["serviceAccountName"]:
        spec["serviceAccountName"] = "default"
    spec["serviceAccount"] = spec["serviceAccountName"]
    account = _account(call, obj)
    if _mounts(spec, account):
        _mount_token(call, spec)
    if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
        spec["imagePullSecrets"] = [dict(secret) for secret in account["imagePullSecrets"]]


def _account(call: Call, obj: Object) -> Object:
    name, namespace = obj["spec"]["serviceAccountName"], obj["metadata"]["namespace"]
    kind = call.services.registry.find("", "serviceaccounts")
    assert kind is not None
    item = call.storage.find(kind, namespace, name)
    if item is None:
        text = f'error looking up service account {namespace}/{name}: serviceaccount "{name}" not found'
        raise errors.forbidden("", "pods", obj["metadata"].get("name", ""), text)
    return item.obj()


def _mounts(spec: Object, account: Object) -> bool:
    if (said := spec.get("automountServiceAccountToken")) is not None:
        return bool(said)
    return account.get("automountServiceAccountToken") is not False


def _mount_token(call: Call, spec: Object) -> None:
    volumes = spec.get("volumes") or []
    taken = {volume["name"] for volume in volumes}
    known = next((v["name"] for v in volumes if v["name"].startswith("kube-api-access-")), None)
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
    """A pod keeps its account; mirror pods have none. Raises ApiError."""
    if obj is None or not _concerns(call, obj) or _MIRROR not in (obj["metadata"].get("annotations") or {}):
        return
    if obj["spec"].get("serviceAccountName"):
        name = obj["metadata"].get("name", "")
        raise errors.forbidden("", "pods", name, "a mirror pod may not reference service accounts")
