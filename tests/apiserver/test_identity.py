"""Tokens and RBAC: who is let in, who may do what, in the original's words."""

from __future__ import annotations

import msgspec
import pytest

from steersman.api.resource import CLUSTERROLEBINDINGS, CLUSTERROLES, NAMESPACES, SERVICEACCOUNTS
from steersman.apiserver.authn.serviceaccount import BadToken
from steersman.apiserver.call import User
from steersman.apiserver.request import RequestInfo
from tests.apiserver.guarded import ISSUER, Guarded, status


async def test_nobody_may_do_anything_until_they_are_bound(guarded: Guarded) -> None:
    code, text = await status(guarded.client("jane"), "GET", "/api/v1/namespaces/default/pods")
    assert code == 403
    assert text == (
        'pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "default"'
    )
    admin = guarded.client("admin")
    role = {"metadata": {"name": "pods"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]}
    await admin.create(CLUSTERROLES, role)
    binding = {
        "metadata": {"name": "jane"},
        "roleRef": {"kind": "ClusterRole", "name": "pods", "apiGroup": "rbac.authorization.k8s.io"},
        "subjects": [{"kind": "User", "name": "jane"}],
    }
    await admin.create(CLUSTERROLEBINDINGS, binding)
    assert (await status(guarded.client("jane"), "GET", "/api/v1/pods"))[0] == 200
    assert (await status(guarded.client("jane"), "DELETE", "/api/v1/namespaces/default/pods/x"))[0] == 403
    await admin.delete(CLUSTERROLEBINDINGS, "jane")
    assert (await status(guarded.client("jane"), "GET", "/api/v1/pods"))[0] == 403


async def test_reviews_answer_what_the_authorizer_would(guarded: Guarded) -> None:
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "default"}},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    for user, allowed in (("jane", False), ("admin", True)):
        _, answer = await guarded.client(user).raw("POST", path, msgspec.json.encode(body))
        assert msgspec.json.decode(answer)["status"]["allowed"] is allowed


async def test_a_node_sees_only_what_its_pods_name(guarded: Guarded) -> None:
    user = User("system:node:n", ("system:nodes", "system:authenticated"))
    ask = guarded.authorizer
    assert ask(user, RequestInfo("", "get", True, "", "v1", "nodes", name="n")) is None
    assert ask(user, RequestInfo("", "get", True, "", "v1", "nodes", name="other")) is not None
    assert ask(user, RequestInfo("", "get", True, "", "v1", "secrets", namespace="default", name="s")) is not None
    assert ask(user, RequestInfo("", "update", True, "coordination.k8s.io", "v1", "leases",
                                 namespace="kube-node-lease", name="n")) is None  # fmt: skip


async def test_a_token_lives_as_long_as_its_account(guarded: Guarded) -> None:
    admin = guarded.client("admin")
    await admin.create(SERVICEACCOUNTS, {"metadata": {"name": "robot"}}, "default")
    body = {"spec": {"expirationSeconds": 600}}
    made = await admin.create(SERVICEACCOUNTS, body, "default", name="robot", subresource="token")
    robot = guarded.client(token=made["status"]["token"])
    code, text = await status(robot, "GET", "/api/v1/namespaces/default/pods")
    assert (code, "system:serviceaccount:default:robot" in text) == (403, True)
    await admin.delete(SERVICEACCOUNTS, "robot", "default")
    assert (await status(robot, "GET", "/api/v1/namespaces/default/pods"))[0] == 401


@pytest.mark.parametrize("token", ["x", "a.b.c", "..", "e30.e30.e30", "eyJhbGciOiJub25lIn0.e30."])
async def test_bad_tokens_are_401(guarded: Guarded, token: str) -> None:
    with pytest.raises(BadToken):
        guarded.tokens.verify(token)
    assert (await status(guarded.client(token=token), "GET", "/api/v1/pods"))[0] == 401


async def test_a_tampered_token_is_not_ours(guarded: Guarded) -> None:
    account = {"metadata": {"namespace": "default", "name": "a", "uid": "u"}}
    token = guarded.tokens.sign(account, [ISSUER], 600, guarded.clock.now(), None)
    assert guarded.tokens.verify(token)["sub"] == "system:serviceaccount:default:a"
    head, body, signature = token.split(".")
    with pytest.raises(BadToken):
        guarded.tokens.verify(f"{head}.{body[:-2]}AA.{signature}")


async def test_namespaces_that_must_stay(guarded: Guarded) -> None:
    for name in ("default", "kube-system", "kube-public"):
        code, text = await status(guarded.client("admin"), "DELETE", NAMESPACES.path("", name))
        assert (code, "this namespace may not be deleted" in text) == (403, True)


async def test_admission_gives_a_pod_what_it_lacks(guarded: Guarded) -> None:
    admin = guarded.client("admin")
    await admin.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, "default")
    path = "/api/v1/namespaces/default/pods"
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    _, answer = await admin.raw("POST", path, msgspec.json.encode(pod))
    spec = msgspec.json.decode(answer)["spec"]
    assert spec["serviceAccountName"] == "default"
    assert spec["containers"][0]["volumeMounts"][0]["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
    assert [t["key"] for t in spec["tolerations"]] == ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]
    assert (spec["priority"], spec["preemptionPolicy"]) == (0, "PreemptLowerPriority")
    pod["metadata"]["name"], pod["spec"]["serviceAccountName"] = "q", "missing"
    code, text = await status(admin, "POST", path, pod)
    assert (code, 'serviceaccount "missing" not found' in text) == (403, True)
