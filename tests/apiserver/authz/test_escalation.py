"""Nobody grants what they do not have."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.api.resource import CLUSTERROLEBINDINGS, CLUSTERROLES, ROLEBINDINGS, ROLES, Object
from steersman.apiserver.authz.escalation import uncovered
from tests.apiserver.guarded import Guarded, status

GROUP = "rbac.authorization.k8s.io"


def rule(verbs: str, groups: str = "", resources: str = "pods", names: str = "") -> Object:
    made: Object = {"verbs": verbs.split(), "apiGroups": groups.split() or [""], "resources": resources.split()}
    return made | ({"resourceNames": names.split()} if names else {})


def urls(verbs: str, paths: str) -> Object:
    return {"verbs": verbs.split(), "nonResourceURLs": paths.split()}


@pytest.mark.parametrize(
    ("owned", "wanted", "missing"),
    [
        ([rule("*", "*", "*")], [rule("get list", "apps", "deployments/scale", "x")], 0),
        ([rule("get")], [rule("get list")], 1),
        ([rule("get"), rule("list")], [rule("get list")], 0),
        ([rule("get", names="a b")], [rule("get", names="a")], 0),
        ([rule("get", names="a")], [rule("get")], 1),
        ([rule("get", names="a")], [rule("get", names="a b")], 1),
        ([rule("get", "*", "*/scale")], [rule("get", "apps", "deployments/scale")], 0),
        ([rule("get", "*", "*/scale")], [rule("get", "apps", "deployments")], 1),
        ([rule("get", "apps")], [rule("get")], 1),
        ([urls("get", "/healthz/*")], [urls("get", "/healthz/ping /metrics")], 1),
        ([urls("*", "*")], [urls("get post", "/x")], 0),
        ([rule("*", "*", "*")], [urls("get", "/x")], 1),
        ([urls("*", "*")], [rule("get")], 1),
    ],
)
def test_what_is_covered(owned: list[Object], wanted: list[Object], missing: int) -> None:
    assert len(uncovered(owned, wanted)) == missing


async def grant(guarded: Guarded, *rules: Object, user: str = "jane") -> None:
    admin = guarded.client("admin")
    await admin.create(CLUSTERROLES, {"metadata": {"name": f"of-{user}"}, "rules": list(rules)})
    await admin.create(CLUSTERROLEBINDINGS, binding(f"of-{user}", user))


def binding(role: str, user: str = "bob", kind: str = "ClusterRole") -> Object:
    return {
        "metadata": {"name": f"{role}-{user}"},
        "roleRef": {"apiGroup": GROUP, "kind": kind, "name": role},
        "subjects": [{"kind": "User", "apiGroup": GROUP, "name": user}],
    }


RBAC = rule("*", GROUP, "roles rolebindings clusterroles clusterrolebindings")
WITHOUT_EXTRAS = rule("create update patch", GROUP, "roles rolebindings clusterroles clusterrolebindings")


async def test_a_role_must_not_be_more_than_its_author(guarded: Guarded) -> None:
    await grant(guarded, WITHOUT_EXTRAS, rule("get list"))
    path = ROLES.path("default")
    wanted: dict[str, Any] = {"metadata": {"name": "r"}, "rules": [rule("get list"), rule("delete get", "", "secrets")]}
    code, text = await status(guarded.client("jane"), "POST", path, wanted)
    assert code == 403
    assert text == (
        'roles.rbac.authorization.k8s.io "r" is forbidden: user "jane" (groups=["system:authenticated"]) is attempting '
        'to grant RBAC permissions not currently held:\n{APIGroups:[""], Resources:["secrets"], Verbs:["delete" "get"]}'
    )
    wanted["rules"].pop()
    assert (await status(guarded.client("jane"), "POST", path, wanted))[0] == 201
    wanted["rules"] = [rule("*")]
    assert (await status(guarded.client("jane"), "PUT", ROLES.path("default", "r"), wanted))[0] == 403
    patch = {"metadata": {"finalizers": ["example.com/keep"]}}
    made = await guarded.client("jane").patch(ROLES, "r", "default", patch, type="merge")
    assert made["metadata"]["finalizers"] == ["example.com/keep"]


async def test_who_may_escalate_may(guarded: Guarded) -> None:
    await grant(guarded, RBAC)
    made = await guarded.client("jane").create(
        CLUSTERROLES, {"metadata": {"name": "all"}, "rules": [rule("*", "*", "*")]}
    )
    assert made["rules"]


async def test_a_binding_must_not_give_more_than_its_author_has(guarded: Guarded) -> None:
    await grant(guarded, WITHOUT_EXTRAS, rule("get list"))
    await guarded.client("admin").create(ROLES, {"metadata": {"name": "mine"}, "rules": [rule("get")]}, "default")
    jane = guarded.client("jane")
    code, text = await status(jane, "POST", CLUSTERROLEBINDINGS.path(), binding("cluster-admin"))
    assert (code, "not currently held" in text, '{APIGroups:["*"], Resources:["*"], Verbs:["*"]}' in text) == (
        403,
        True,
        True,
    )
    assert (await status(jane, "POST", ROLEBINDINGS.path("default"), binding("cluster-admin")))[0] == 403
    assert (await status(jane, "POST", ROLEBINDINGS.path("default"), binding("mine", kind="Role")))[0] == 201
    code, text = await status(jane, "POST", ROLEBINDINGS.path("default"), binding("missing"))
    assert (code, text) == (404, 'clusterroles.rbac.authorization.k8s.io "missing" not found')


async def test_who_may_bind_a_role_may(guarded: Guarded) -> None:
    await grant(guarded, WITHOUT_EXTRAS, rule("bind", GROUP, "clusterroles", "admin"))
    jane = guarded.client("jane")
    assert (await status(jane, "POST", ROLEBINDINGS.path("default"), binding("admin")))[0] == 201
    assert (await status(jane, "POST", ROLEBINDINGS.path("default"), binding("cluster-admin")))[0] == 403
