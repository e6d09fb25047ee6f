"""NodeRestriction: a kubelet writes its own node, its own pods and its own leases, and does not label itself at will.

Source: plugin/pkg/admission/noderestriction.
"""

from __future__ import annotations

import base64
import binascii

from steersman.api import errors, pods
from steersman.api.errors import ApiError
from steersman.api.resource import Object
from steersman.apiserver.call import Call
from steersman.apiserver.request import RequestInfo

_NODE = "system:node:"
_MIRROR = "kubernetes.io/config.mirror"
_LEASES = "kube-node-lease"
_OWN_LABELS = frozenset(
    {
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
    }
)
_ROLE = "node-role.kubernetes.io/control-plane"  # refused by the original; here the control plane's node says it itself
_OWN_DOMAINS = ("kubelet.kubernetes.io", "node.kubernetes.io")
_SIGNERS = ("kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet")
_CLAIM_STATUS = ("capacity", "conditions", "allocatedResourceStatuses", "allocatedResources")


def validate(call: Call, obj: Object | None, old: Object | None) -> None:
    """Refuse what a node must not write. Raises ApiError."""
    user = call.user
    if not user.name.startswith(_NODE) or "system:nodes" not in user.groups:
        return
    node = user.name.removeprefix(_NODE)
    if not node:
        raise _refused(call, obj, f'could not determine node from user "{user.name}"')
    judge = _JUDGES.get((call.kind.group, call.kind.plural))
    if judge is not None and (why := judge(call, node, obj, old)):
        raise _refused(call, obj or old, why)


def _refused(call: Call, obj: Object | None, why: str) -> ApiError:
    name = call.info.name or ((obj or {}).get("metadata") or {}).get("name", "")
    return errors.forbidden(call.kind.group, call.kind.plural, name, why)


def _pod(call: Call, node: str, obj: Object | None, old: Object | None) -> str:
    sub, operation = call.info.subresource, call.operation
    if sub == "status":
        return _pod_status(node, obj, old) if operation == "UPDATE" else f'unexpected operation "{operation}"'
    if sub == "eviction":
        item = call.storage.find(call.kind, call.info.namespace, call.info.name)
        mine = item is None or item.field("spec.nodeName") == node
        return "" if mine else f"node {node} can only evict pods with spec.nodeName set to itself"
    if sub:
        return f"unexpected pod subresource \"{sub}\", only 'status' and 'eviction' are allowed"
    if operation == "DELETE":
        mine = ((old or {}).get("spec") or {}).get("nodeName") == node
        return "" if mine else f'node "{node}" can only delete pods with spec.nodeName set to itself'
    if operation == "CREATE" and obj is not None:
        return _new_pod(call, node, obj)
    return f'unexpected operation "{operation}", node "{node}" can only create and delete mirror pods'


def _pod_status(node: str, obj: Object | None, old: Object | None) -> str:
    if obj is None or old is None:
        return ""
    if old["spec"].get("nodeName") != node:
        return f'node "{node}" can only update pod status for pods with spec.nodeName set to itself'
    if (old["metadata"].get("labels") or {}) != (obj["metadata"].get("labels") or {}):
        return f'node "{node}" cannot update labels through pod status'
    before, after = old.get("status") or {}, obj.get("status") or {}
    if (before.get("resourceClaimStatuses") or []) != (after.get("resourceClaimStatuses") or []):
        return f'node "{node}" cannot update resource claim statues'
    if before.get("extendedResourceClaimStatus") != after.get("extendedResourceClaimStatus"):
        return f'node "{node}" cannot update extended resource claim status'
    return ""


def _new_pod(call: Call, node: str, obj: Object) -> str:
    meta, spec = obj["metadata"], obj["spec"]
    if _MIRROR not in (meta.get("annotations") or {}):
        return f'pod does not have "{_MIRROR}" annotation, node "{node}" can only create mirror pods'
    if spec.get("nodeName") != node:
        return f'node "{node}" can only create pods with spec.nodeName set to itself'
    owners = meta.get("ownerReferences") or []
    if len(owners) > 1:
        return f'node "{node}" can only create pods with a single owner reference set to itself'
    if not owners or (owners[0]["apiVersion"], owners[0]["kind"], owners[0]["name"]) != ("v1", "Node", node):
        return f'node "{node}" can only create pods with an owner reference set to itself'
    if not owners[0].get("controller"):
        return f'node "{node}" can only create pods with a controller owner reference set to itself'
    if owners[0].get("blockOwnerDeletion"):
        return f'node "{node}" must not set blockOwnerDeletion on an owner reference'
    nodes = call.services.registry.find("", "nodes")
    assert nodes is not None
    uid = call.storage.get(nodes, "", node).obj()["metadata"]["uid"]
    if owners[0]["uid"] != uid:
        return f"node {node} UID mismatch: expected {owners[0]['uid']} got {uid}"
    found = _referenced(spec)
    return f'node "{node}" can not create pods that reference {found}' if found else ""


def _referenced(spec: Object) -> str:
    """The first sort of API object that a pod refers to; empty without any."""
    if spec.get("serviceAccountName"):
        return "serviceaccounts"
    kinds: set[str] = set()
    pods.references(spec, lambda kind, _: kinds.add(kind))
    for volume in spec.get("volumes") or ():
        if volume.get("persistentVolumeClaim") or volume.get("ephemeral"):
            kinds.add("PersistentVolumeClaim")
        if any("serviceAccountToken" in each for each in (volume.get("projected") or {}).get("sources") or ()):
            kinds.add("ServiceAccount")
        if (volume.get("csi") or {}).get("nodePublishSecretRef"):
            kinds.add("Secret")
    if spec.get("resourceClaims"):
        kinds.add("ResourceClaim")
    return f"{min(kinds).lower()}s" if kinds else ""


def _node(call: Call, node: str, obj: Object | None, old: Object | None) -> str:
    name = call.info.name or ((obj or {}).get("metadata") or {}).get("name", "")
    if name != node:
        return f'node "{node}" is not allowed to modify node "{name}"'
    if obj is None:
        return ""
    spec, before = obj.get("spec") or {}, (old or {}).get("spec") or {}
    labels = _forbidden(obj["metadata"].get("labels") or {}, ((old or {}).get("metadata") or {}).get("labels") or {})
    if call.operation == "CREATE":
        if spec.get("configSource") is not None:
            return f'node "{node}" is not allowed to create pods with a non-nil configSource'
        return f'node "{node}" is not allowed to set the following labels: {", ".join(labels)}' if labels else ""
    if old is None:
        return ""
    if spec.get("configSource") is not None and spec["configSource"] != before.get("configSource"):
        return f'node "{node}" is not allowed to update configSource to a new non-nil configSource'
    if (spec.get("taints") or []) != (before.get("taints") or []):
        return f'node "{node}" is not allowed to modify taints'
    if (obj["metadata"].get("ownerReferences") or []) != (old["metadata"].get("ownerReferences") or []):
        return f'node "{node}" is not allowed to modify ownerReferences'
    return f"is not allowed to modify labels: {', '.join(labels)}" if labels else ""


def _forbidden(new: Object, old: Object) -> list[str]:
    """Labels that differ and are not a node's to set."""
    changed = [key for key in {**old, **new} if new.get(key) != old.get(key)]
    return sorted(key for key in changed if not _settable(key))


def _settable(label: str) -> bool:
    domain, slash, _ = label.partition("/")
    if not slash:
        return True

    def within(*owners: str) -> bool:
        return any(domain == owner or domain.endswith(f".{owner}") for owner in owners)

    if within("node-restriction.kubernetes.io"):
        return False
    return not within("kubernetes.io", "k8s.io") or label in _OWN_LABELS or label == _ROLE or within(*_OWN_DOMAINS)


def _claim(call: Call, node: str, obj: Object | None, old: Object | None) -> str:
    if call.info.subresource != "status":
        return "may only update PVC status"
    if obj is None or old is None:
        return f'unexpected operation "{call.operation}"'

    def fixed(claim: Object) -> Object:
        meta = {
            key: value for key, value in claim["metadata"].items() if key not in ("resourceVersion", "managedFields")
        }
        status = {key: value for key, value in (claim.get("status") or {}).items() if key not in _CLAIM_STATUS}
        return {**claim, "metadata": meta, "status": status}

    if fixed(obj) != fixed(old):
        return f'node "{node}" is not allowed to update fields other than status.quantity and status.conditions'
    return ""


def _token(call: Call, node: str, obj: Object | None, old: Object | None) -> str:
    if call.operation != "CREATE" or call.info.subresource != "token" or obj is None:
        return ""
    ref = (obj.get("spec") or {}).get("boundObjectRef") or {}
    if ref.get("apiVersion") != "v1" or ref.get("kind") != "Pod" or not ref.get("name"):
        return "node requested token not bound to a pod"
    if not ref.get("uid"):
        return "node requested token with a pod binding without a uid"
    kind = call.services.registry.find("", "pods")
    assert kind is not None
    pod = call.storage.get(kind, call.info.namespace, ref["name"])
    if pod.obj()["metadata"]["uid"] != ref["uid"]:
        return (
            f"the UID in the bound object reference ({ref['uid']}) does not match the UID in record. "
            "The object might have been deleted and then recreated"
        )
    if pod.field("spec.nodeName") != node:
        return "node requested token bound to a pod scheduled on a different node"
    audiences = (obj.get("spec") or {}).get("audiences") or [""]
    if len(audiences) > 1:
        return "node may only request 0 or 1 audiences"
    if audiences[0] in _audiences(call, pod.obj()) or _may_ask_for(call, audiences[0]):
        return ""
    said = f"audience {errors.quoted(audiences[0])} not found in pod spec volume"
    return f"{said}, {call.user.name} is not authorized to request tokens for this audience"


def _may_ask_for(call: Call, audience: str) -> bool:
    """Whether the node has a right to this audience whatever its pods say."""
    decide, info = call.services.extras.get("decide"), call.info
    asked = RequestInfo(
        "", "request-serviceaccounts-token-audience", True, "", "v1", audience, "", info.namespace, info.name
    )
    return decide is not None and decide(call.user, asked) is None


def _audiences(call: Call, pod: Object) -> set[str]:
    """For whom a pod's volumes want tokens: its projected ones, and the drivers of the others."""
    found: set[str] = set()
    for volume in pod["spec"].get("volumes") or ():
        for source in (volume.get("projected") or {}).get("sources") or ():
            if (token := source.get("serviceAccountToken")) is not None:
                found.add(token.get("audience") or "")
        driver = _driver(call, pod, volume)
        item = _found(call, "storage.k8s.io", "csidrivers", "", driver) if driver else None
        for request in ((item or {}).get("spec") or {}).get("tokenRequests") or ():
            found.add(request.get("audience") or "")
    return found


def _driver(call: Call, pod: Object, volume: Object) -> str:
    """The CSI driver of a volume: its own, or that of the PersistentVolume that its claim is bound to."""
    if csi := volume.get("csi"):
        return str(csi.get("driver") or "")
    claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
    if volume.get("ephemeral"):
        claim = f"{pod['metadata']['name']}-{volume['name']}"
    bound = _found(call, "", "persistentvolumeclaims", call.info.namespace, claim) if claim else None
    name = ((bound or {}).get("spec") or {}).get("volumeName")
    held = _found(call, "", "persistentvolumes", "", name) if name else None
    return str((((held or {}).get("spec") or {}).get("csi") or {}).get("driver") or "")


def _found(call: Call, group: str, plural: str, namespace: str, name: str) -> Object | None:
    kind = call.services.registry.find(group, plural)
    item = call.storage.find(kind, namespace, name) if kind is not None else None
    return item.obj() if item is not None else None


def _lease(call: Call, node: str, obj: Object | None, old: Object | None) -> str:
    if call.info.namespace != _LEASES:
        return f'can only access leases in the "{_LEASES}" system namespace'
    mine = _name(call, obj) == node
    return "" if mine else "can only access node lease with the same name as the requesting node"


def _csinode(call: Call, node: str, obj: Object | None, old: Object | None) -> str:
    mine = _name(call, obj) == node
    return "" if mine else "can only access CSINode with the same name as the requesting node"


def _name(call: Call, obj: Object | None) -> str:
    return str(((obj or {}).get("metadata") or {}).get("name") or call.info.name)


def _slice(call: Call, node: str, obj: Object | None, old: Object | None) -> str:
    found = obj if call.operation == "CREATE" else old if call.operation == "DELETE" else None
    if found is None or (found.get("spec") or {}).get("nodeName") == node:
        return ""
    verb = "create" if call.operation == "CREATE" else "delete"
    return f"can only {verb} ResourceSlice with the same NodeName as the requesting node"


def _signing(call: Call, node: str, obj: Object | None, old: Object | None) -> str:
    spec = (obj or {}).get("spec") or {}
    if call.operation != "CREATE" or spec.get("signerName") not in _SIGNERS:
        return ""
    from cryptography import x509  # slow to import, and nodes ask rarely
    from cryptography.x509.oid import NameOID

    try:
        subject = x509.load_pem_x509_csr(base64.b64decode(spec.get("request") or "")).subject
    except (ValueError, binascii.Error) as error:
        return f"unable to parse csr: {error}"
    names = [str(attribute.value) for attribute in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return "" if names[-1:] == [_NODE + node] else f"can only create a node CSR with CN={_NODE}{node}"


_JUDGES = {
    ("", "pods"): _pod,
    ("", "nodes"): _node,
    ("", "persistentvolumeclaims"): _claim,
    ("", "serviceaccounts"): _token,
    ("coordination.k8s.io", "leases"): _lease,
    ("storage.k8s.io", "csinodes"): _csinode,
    ("resource.k8s.io", "resourceslices"): _slice,
    ("certificates.k8s.io", "certificatesigningrequests"): _signing,
}
