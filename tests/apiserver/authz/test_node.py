"""What a kubelet may read: what its pods refer to, as long as they are its."""

from __future__ import annotations

import pytest

from steersman.api.resource import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, PODS, SERVICEACCOUNTS, Object
from steersman.apiserver.call import User
from steersman.apiserver.request import RequestInfo
from tests.apiserver.guarded import Guarded

NODE = User("system:node:n1", ("system:nodes", "system:authenticated"))
OTHER = User("system:node:n2", ("system:nodes", "system:authenticated"))


def asked(verb: str, plural: str, name: str = "", *, group: str = "", namespace: str = "default") -> RequestInfo:
    resource, _, sub = plural.partition("/")
    return RequestInfo("", verb, True, group, "v1", resource, sub, namespace, name)


async def with_pod(guarded: Guarded, spec: Object, node: str = "n1") -> None:
    admin = guarded.client("admin")
    await admin.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, "default")
    body = {"nodeName": node, "containers": [{"name": "c", "image": "i"}], **spec}
    await admin.create(PODS, {"metadata": {"name": "p"}, "spec": body}, "default")


async def test_what_pods_refer_to_comes_and_goes_with_them(guarded: Guarded) -> None:
    ask = guarded.authorizer
    secret, config = asked("get", "secrets", "s"), asked("watch", "configmaps", "c")
    assert ask(NODE, secret) == "no relationship found between node 'n1' and this object"
    volumes = [{"name": "a", "secret": {"secretName": "s"}}, {"name": "b", "configMap": {"name": "c"}}]
    await with_pod(guarded, {"volumes": volumes, "imagePullSecrets": [{"name": "pull"}]})
    for info in (secret, config, asked("get", "secrets", "pull"), asked("get", "configmaps", "kube-root-ca.crt")):
        assert ask(NODE, info) is None
        assert ask(OTHER, info) is not None
    assert ask(NODE, asked("get", "secrets", "s", namespace="kube-system")) is not None
    assert ask(NODE, asked("list", "secrets")) == "No Object name found"
    assert ask(NODE, asked("update", "secrets", "s")) == "can only read resources of this type"
    assert ask(NODE, asked("create", "serviceaccounts/token", "default")) is None
    assert ask(NODE, asked("create", "serviceaccounts/token", "robot")) is not None
    assert ask(NODE, asked("get", "pods", "p")) is None
    assert ask(OTHER, asked("get", "pods", "p")) is not None
    await guarded.client("admin").delete(PODS, "p", "default", grace_seconds=0)
    assert ask(NODE, secret) is not None
    assert ask(NODE, asked("get", "pods", "p")) is not None


async def test_a_claim_leads_to_its_volume_and_that_to_its_drivers_secret(guarded: Guarded) -> None:
    admin, ask = guarded.client("admin"), guarded.authorizer
    claim_spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeName": "pv"}
    await admin.create(PERSISTENTVOLUMECLAIMS, {"metadata": {"name": "data"}, "spec": claim_spec}, "default")
    csi = {"driver": "d", "volumeHandle": "h", "nodeStageSecretRef": {"namespace": "vault", "name": "key"}}
    volume = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "csi": csi}
    await admin.create(PERSISTENTVOLUMES, {"metadata": {"name": "pv"}, "spec": volume})
    infos = [
        asked("get", "persistentvolumeclaims", "data"),
        asked("patch", "persistentvolumeclaims/status", "data"),
        asked("get", "persistentvolumes", "pv", namespace=""),
        asked("get", "secrets", "key", namespace="vault"),
    ]
    assert all(ask(NODE, info) is not None for info in infos)
    await with_pod(guarded, {"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]})
    assert [ask(NODE, info) for info in infos] == [None] * 4
    assert all(ask(OTHER, info) is not None for info in infos)
    assert ask(NODE, asked("list", "persistentvolumes", namespace="")) is not None


@pytest.mark.parametrize(
    ("info", "allowed"),
    [
        (asked("get", "nodes", "n1", namespace=""), True),
        (asked("list", "nodes", namespace=""), False),
        (asked("get", "nodes", "n2", namespace=""), False),
        (asked("patch", "nodes/status", "n1", namespace=""), True),
        (asked("delete", "nodes", "n1", namespace=""), False),
        (asked("list", "services"), True),
        (asked("create", "services"), False),
        (asked("create", "events"), True),
        (asked("create", "pods/eviction", "p"), True),
        (asked("create", "pods/exec", "p"), False),
        (asked("update", "leases", "n1", group="coordination.k8s.io", namespace="kube-node-lease"), True),
        (asked("update", "leases", "n2", group="coordination.k8s.io", namespace="kube-node-lease"), False),
        (asked("update", "leases", "n1", group="coordination.k8s.io"), False),
        (asked("get", "csinodes", "n1", group="storage.k8s.io", namespace=""), True),
        (asked("get", "csinodes", "n2", group="storage.k8s.io", namespace=""), False),
        (asked("list", "runtimeclasses", group="node.k8s.io", namespace=""), True),
        (asked("create", "tokenreviews", group="authentication.k8s.io", namespace=""), True),
        (asked("get", "clusterroles", "x", group="rbac.authorization.k8s.io", namespace=""), False),
        (RequestInfo("/metrics", "get"), False),
    ],
)
async def test_the_rest_of_a_nodes_rights(guarded: Guarded, info: RequestInfo, allowed: bool) -> None:
    assert (guarded.authorizer(NODE, info) is None) is allowed
