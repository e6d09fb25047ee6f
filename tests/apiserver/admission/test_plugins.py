"""Small admission plugins, each through the whole server."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from steersman.api.errors import ApiError
from steersman.api.resource import (
    NODES,
    PERSISTENTVOLUMECLAIMS,
    PODS,
    PRIORITYCLASSES,
    SERVICEACCOUNTS,
    Object,
    Resource,
)
from tests.apiserver.authz.test_escalation import grant, rule
from tests.apiserver.guarded import Guarded, status

STORAGECLASSES = Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False)
INGRESSCLASSES = Resource("networking.k8s.io", "v1", "ingressclasses", "IngressClass", namespaced=False)
INGRESSES = Resource("networking.k8s.io", "v1", "ingresses", "Ingress")
SIGNINGS = Resource(
    "certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest", namespaced=False
)
NODE = "system:node:n1,system:nodes"


def claim(name: str, size: str = "1Gi", **spec: Any) -> Object:
    asked = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    return {"metadata": {"name": name}, "spec": {**asked, **spec}}


async def storage_class(guarded: Guarded, name: str, default: str = "true", expand: bool = False) -> None:
    mark = {"storageclass.kubernetes.io/is-default-class": default}
    body = {"metadata": {"name": name, "annotations": mark}, "provisioner": "p", "allowVolumeExpansion": expand}
    await guarded.client("admin").create(STORAGECLASSES, body)


async def test_a_claim_gets_the_default_class_and_its_finalizer(guarded: Guarded) -> None:
    admin = guarded.client("admin")
    made = await admin.create(PERSISTENTVOLUMECLAIMS, claim("before"), "default")
    assert "storageClassName" not in made["spec"]
    await storage_class(guarded, "slow", "false")
    await storage_class(guarded, "fast")
    made = await admin.create(PERSISTENTVOLUMECLAIMS, claim("a"), "default")
    assert made["spec"]["storageClassName"] == "fast"
    assert made["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    for name, wanted in (("b", ""), ("c", "slow")):
        made = await admin.create(PERSISTENTVOLUMECLAIMS, claim(name, storageClassName=wanted), "default")
        assert made["spec"]["storageClassName"] == wanted


async def test_a_claim_grows_only_when_bound_and_when_its_class_allows_it(guarded: Guarded) -> None:
    admin = guarded.client("admin")
    await storage_class(guarded, "fixed")
    await storage_class(guarded, "elastic", "false", expand=True)
    for name, kind in (("f", "fixed"), ("e", "elastic")):
        await admin.create(PERSISTENTVOLUMECLAIMS, claim(name, storageClassName=kind), "default")
    grown = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}

    async def grow(name: str) -> str:
        try:
            await admin.patch(PERSISTENTVOLUMECLAIMS, name, "default", grown, type="merge")
        except ApiError as error:
            return error.message
        return ""

    assert "bound claims" in await grow("e")
    for name in ("f", "e"):
        bound = {"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}}
        await admin.patch(PERSISTENTVOLUMECLAIMS, name, "default", {"spec": {"volumeName": "v"}}, type="merge")
        await admin.patch(PERSISTENTVOLUMECLAIMS, name, "default", bound, type="merge", subresource="status")
    assert "must support resize" in await grow("f")
    assert await grow("e") == ""


async def test_an_ingress_gets_the_default_class(guarded: Guarded) -> None:
    admin = guarded.client("admin")
    mark = {"ingressclass.kubernetes.io/is-default-class": "true"}
    body: Object = {"metadata": {"name": "main", "annotations": mark}, "spec": {"controller": "example.com/c"}}
    await admin.create(INGRESSCLASSES, body)
    backend = {"service": {"name": "s", "port": {"number": 80}}}
    made = await admin.create(INGRESSES, {"metadata": {"name": "i"}, "spec": {"defaultBackend": backend}}, "default")
    assert made["spec"]["ingressClassName"] == "main"


async def test_one_priority_class_is_the_default(guarded: Guarded) -> None:
    admin = guarded.client("admin")
    first = await admin.create(PRIORITYCLASSES, {"metadata": {"name": "a"}, "value": 1, "globalDefault": True})
    await admin.update(PRIORITYCLASSES, {**first, "description": "still the one"})
    code, text = await status(
        admin, "POST", PRIORITYCLASSES.path(), {"metadata": {"name": "b"}, "value": 2, "globalDefault": True}
    )
    assert (code, "PriorityClass a is already marked as default. Only one default can exist" in text) == (403, True)


async def test_a_pod_waits_for_the_account_of_a_new_namespace(guarded: Guarded) -> None:
    admin = guarded.client("admin")
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    async with asyncio.TaskGroup() as group:
        made = group.create_task(admin.create(PODS, pod, "default"))
        group.create_task(admin.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, "default"))
    assert made.result()["spec"]["serviceAccountName"] == "default"


async def test_an_account_may_limit_the_secrets_of_its_pods(guarded: Guarded) -> None:
    admin = guarded.client("admin")
    meta = {"name": "strict", "annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}}
    await admin.create(SERVICEACCOUNTS, {"metadata": meta, "secrets": [{"name": "mine"}]}, "default")

    async def refused(secret: str) -> str:
        volumes = [{"name": "v", "secret": {"secretName": secret}}]
        spec = {"serviceAccountName": "strict", "containers": [{"name": "c", "image": "i"}], "volumes": volumes}
        code, text = await status(admin, "POST", PODS.path("default"), {"metadata": {"name": secret}, "spec": spec})
        return text if code != 201 else ""

    assert await refused("mine") == ""
    assert "is not allowed because service account strict does not reference that secret" in await refused("other")


async def test_a_node_writes_itself_and_nobody_else(guarded: Guarded) -> None:
    node, admin = guarded.client(NODE), guarded.client("admin")
    labels = {"kubernetes.io/hostname": "n1", "example.com/zone": "a", "node.kubernetes.io/size": "big"}
    await node.create(NODES, {"metadata": {"name": "n1", "labels": labels}})
    await admin.create(NODES, {"metadata": {"name": "n2"}})

    async def refused(name: str, patch: Object, subresource: str = "") -> str:
        try:
            await node.patch(NODES, name, "", patch, type="merge", subresource=subresource)
        except ApiError as error:
            return error.message
        return ""

    assert await refused("n1", {"status": {"phase": "Running"}}, "status") == ""
    assert 'node "n1" is not allowed to modify node "n2"' in await refused("n2", {"status": {}}, "status")
    assert "not allowed to modify taints" in await refused("n1", {"spec": {"taints": None}})
    for label in ("node-restriction.kubernetes.io/x", "kubernetes.io/anything", "x.k8s.io/y"):
        text = await refused("n1", {"metadata": {"labels": {label: "1"}}})
        assert f"is not allowed to modify labels: {label}" in text
    assert await refused("n1", {"metadata": {"labels": {"example.com/zone": "b"}}}) == ""


async def test_a_node_touches_only_its_pods(guarded: Guarded) -> None:
    node, admin = guarded.client(NODE), guarded.client("admin")
    made = await node.create(NODES, {"metadata": {"name": "n1"}})
    await admin.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, "default")
    for name in ("n1", "n2"):
        spec = {"nodeName": name, "containers": [{"name": "c", "image": "i"}]}
        await admin.create(PODS, {"metadata": {"name": f"on-{name}"}, "spec": spec}, "default")
    running = {"status": {"phase": "Running"}}
    await node.patch(PODS, "on-n1", "default", running, type="merge", subresource="status")
    with pytest.raises(ApiError, match=r"can only update pod status for pods with spec.nodeName set to itself"):
        await node.patch(PODS, "on-n2", "default", running, type="merge", subresource="status")
    with pytest.raises(ApiError, match=r"can only delete pods with spec.nodeName set to itself"):
        await node.delete(PODS, "on-n2", "default", grace_seconds=0)
    await node.delete(PODS, "on-n1", "default", grace_seconds=0)
    owner = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": made["metadata"]["uid"], "controller": True}
    mirror: Object = {
        "metadata": {
            "name": "m",
            "annotations": {"kubernetes.io/config.mirror": "x", "kubernetes.io/config.source": "file"},
            "ownerReferences": [owner],
        },
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
    }
    plain = {"metadata": {"name": "m"}, "spec": mirror["spec"]}
    with pytest.raises(ApiError, match="can only create mirror pods"):
        await node.create(PODS, plain, "default")
    secret = [{"name": "v", "secret": {"secretName": "s"}}]
    with pytest.raises(ApiError, match=r"a mirror pod may not reference secrets|can not create pods that reference"):
        await node.create(PODS, {**mirror, "spec": {**mirror["spec"], "volumes": secret}}, "default")
    assert (await node.create(PODS, mirror, "default"))["spec"]["nodeName"] == "n1"


def signing(common: str, *groups: str, signer: str = "kubernetes.io/kube-apiserver-client") -> Object:
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
    names += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names)).sign(key, hashes.SHA256())
    request = base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode()
    spec = {"request": request, "signerName": signer, "usages": ["client auth"]}
    return {"metadata": {"name": common.replace(":", "-")}, "spec": spec}


async def test_certificates_are_asked_for_and_approved_by_those_who_may(guarded: Guarded) -> None:
    admin = guarded.client("admin")
    with pytest.raises(ApiError, match="signer with system:masters group is not allowed"):
        await admin.create(SIGNINGS, signing("eve", "system:masters"))
    made = await admin.create(SIGNINGS, signing("jane", "dev"))
    await grant(guarded, rule("get update patch", "certificates.k8s.io", SIGNINGS.plural + "/approval"), user="boss")
    condition = {"type": "Approved", "status": "True", "reason": "Yes", "message": "fine"}
    approved = {**made, "status": {"conditions": [condition]}}
    boss = guarded.client("boss")
    with pytest.raises(ApiError, match=r'user not permitted to approve requests with signerName "kubernetes.io/kube-'):
        await boss.update(SIGNINGS, approved, subresource="approval")
    signers = rule("approve", "certificates.k8s.io", "signers", "kubernetes.io/*")
    await grant(guarded, signers, user="signer")
    await admin.update(SIGNINGS, approved, subresource="approval")
    own = signing("system:node:n2", "system:nodes", signer="kubernetes.io/kube-apiserver-client-kubelet")
    with pytest.raises(ApiError, match="can only create a node CSR with CN=system:node:n1"):
        await guarded.client(NODE).create(SIGNINGS, own)


async def test_a_pod_for_a_namespace_that_is_not_there(guarded: Guarded) -> None:
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    with pytest.raises(ApiError) as refused:
        await guarded.client("admin").call("POST", "/api/v1/namespaces/nope/pods", pod)
    assert (refused.value.code, refused.value.message) == (404, 'namespaces "nope" not found')


async def test_a_nodes_tokens_are_for_its_pods_and_their_audiences(guarded: Guarded) -> None:
    """Which nobody asked NodeRestriction about: subresources' own objects were not admitted."""
    admin, node = guarded.client("admin"), guarded.client(NODE)
    await admin.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, "default")
    source = {"serviceAccountToken": {"audience": "vault", "path": "t"}}
    volumes = [{"name": "v", "projected": {"sources": [source]}}, {"name": "c", "csi": {"driver": "csi.example.com"}}]
    driver = {"metadata": {"name": "csi.example.com"}, "spec": {"tokenRequests": [{"audience": "driver"}]}}
    await admin.create(Resource("storage.k8s.io", "v1", "csidrivers", "CSIDriver", namespaced=False), driver)
    uids = {}
    for name, where in (("mine", "n1"), ("other", "n2")):
        spec = {"nodeName": where, "volumes": volumes, "containers": [{"name": "c", "image": "i"}]}
        made = await admin.create(PODS, {"metadata": {"name": name}, "spec": spec}, "default")
        uids[name] = made["metadata"]["uid"]
    path = "/api/v1/namespaces/default/serviceaccounts/default/token"

    async def ask(pod: str, *audiences: str, **changes: str) -> tuple[int, str]:
        bound = {"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": uids.get(pod, ""), **changes}
        return await status(node, "POST", path, {"spec": {"audiences": list(audiences), "boundObjectRef": bound}})

    assert [(await ask("mine", audience))[0] for audience in ("vault", "driver")] == [201, 201]
    assert (await ask("mine"))[0] == 201  # its kube-api-access volume wants one for the API server
    for answer, why in (
        (
            await ask("mine", "else"),
            'audience "else" not found in pod spec volume, system:node:n1 is not authorized to',
        ),
        (await ask("mine", "vault", "driver"), "node may only request 0 or 1 audiences"),
        (await ask("mine", "vault", uid=""), "node requested token with a pod binding without a uid"),
        (await ask("mine", "vault", kind="Secret"), "node requested token not bound to a pod"),
        (await ask("other", "vault"), "node requested token bound to a pod scheduled on a different node"),
    ):
        assert (answer[0], why in answer[1]) == (403, True), answer
    right = {"verbs": ["request-serviceaccounts-token-audience"], "apiGroups": [""], "resources": ["else"]}
    await grant(guarded, right, user="system:node:n1")
    assert (await ask("mine", "else"))[0] == 201
