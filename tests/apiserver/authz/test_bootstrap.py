"""The roles that a cluster starts with: what they allow, and that a restart repairs them without undoing anybody."""

from __future__ import annotations

import pytest

from steersman.api import labels
from steersman.api.resource import CLUSTERROLEBINDINGS, CLUSTERROLES, PRIORITYCLASSES, SERVICES
from steersman.apiserver.authz import policy
from steersman.apiserver.bootstrap import bootstrap
from steersman.apiserver.call import User
from steersman.apiserver.request import RequestInfo
from steersman.controllers.clusterroleaggregation import rules_of
from tests.apiserver.authz.test_escalation import binding, rule
from tests.apiserver.guarded import Guarded


def test_tables_are_read() -> None:
    table = "one\n  READ | core apps | pods\n       services | a\n  # a remark\n  get | /x /y\ntwo\n  EVENTS\nthree\n"
    assert policy.read(table) == {
        "one": [
            {
                "verbs": ["get", "list", "watch"],
                "apiGroups": ["", "apps"],
                "resources": ["pods", "services"],
                "resourceNames": ["a"],
            },
            {"verbs": ["get"], "nonResourceURLs": ["/x", "/y"]},
        ],
        "two": [
            {"verbs": ["create", "patch", "update"], "apiGroups": ["", "events.k8s.io"], "resources": ["events"]},
        ],
        "three": [],
    }


def test_aggregated_roles_are_what_the_controller_makes_of_them() -> None:
    every = policy.cluster_roles()
    aggregated = [role for role in every if "aggregationRule" in role]
    assert sorted(role["metadata"]["name"] for role in aggregated) == ["admin", "edit", "view"]
    for role in aggregated:
        selectors = map(labels.from_object, role["aggregationRule"]["clusterRoleSelectors"])
        chosen = [
            [each for each in every if selector.matches(each["metadata"].get("labels") or {})] for selector in selectors
        ]
        assert role["rules"] == rules_of(role, chosen)


@pytest.mark.parametrize(
    ("role", "info", "allowed"),
    [
        ("view", RequestInfo("", "list", True, "", "v1", "pods", "", "default"), True),
        ("view", RequestInfo("", "get", True, "", "v1", "secrets", "", "default", "s"), False),
        ("view", RequestInfo("", "delete", True, "", "v1", "pods", "", "default", "p"), False),
        ("edit", RequestInfo("", "delete", True, "apps", "v1", "deployments", "", "default", "d"), True),
        ("edit", RequestInfo("", "create", True, "", "v1", "pods", "exec", "default", "p"), True),
        ("edit", RequestInfo("", "create", True, policy.GROUP, "v1", "roles", "", "default"), False),
        ("admin", RequestInfo("", "create", True, policy.GROUP, "v1", "roles", "", "default"), True),
        ("admin", RequestInfo("", "update", True, "", "v1", "resourcequotas", "", "default", "q"), False),
        ("cluster-admin", RequestInfo("/anything", "post"), True),
    ],
)
async def test_what_the_four_roles_allow(guarded: Guarded, role: str, info: RequestInfo, allowed: bool) -> None:
    user = User("bob", ("system:authenticated",))
    assert guarded.authorizer(user, info) is not None
    await guarded.client("admin").create(CLUSTERROLEBINDINGS, binding(role))
    assert (guarded.authorizer(user, info) is None) is allowed


async def test_controllers_have_their_own_accounts_rights(guarded: Guarded) -> None:
    user = User("system:serviceaccount:kube-system:deployment-controller", ("system:serviceaccounts",))
    assert guarded.authorizer(user, RequestInfo("", "create", True, "apps", "v1", "replicasets", "", "x")) is None
    assert guarded.authorizer(user, RequestInfo("", "get", True, "", "v1", "secrets", "", "x", "s")) is not None


async def again(guarded: Guarded) -> None:
    await bootstrap(guarded.server, service_ip="10.96.0.1", port=6443, dns="10.96.0.10", resolvers=[])


async def test_a_restart_repairs_and_keeps_what_was_added(guarded: Guarded) -> None:
    admin = guarded.client("admin")
    role = await admin.get(CLUSTERROLES, "system:basic-user")
    added = rule("get", "", "nodes")
    await admin.update(CLUSTERROLES, {**role, "rules": [role["rules"][0], added]})
    bound = await admin.get(CLUSTERROLEBINDINGS, "system:discovery")
    bound["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"] = "false"
    await admin.update(CLUSTERROLEBINDINGS, {**bound, "subjects": []})
    await admin.delete(CLUSTERROLEBINDINGS, "system:monitoring")
    await again(guarded)
    rules = (await admin.get(CLUSTERROLES, "system:basic-user"))["rules"]
    assert rules == [role["rules"][0], added, role["rules"][1]]
    assert not (await admin.get(CLUSTERROLEBINDINGS, "system:discovery")).get("subjects")
    assert await admin.get(CLUSTERROLEBINDINGS, "system:monitoring")


async def test_a_restart_writes_nothing_that_is_as_it_should_be(guarded: Guarded) -> None:
    before = guarded.server.storage.revision
    await again(guarded)
    assert guarded.server.storage.revision == before
    admin = guarded.client("admin")
    assert (await admin.get(SERVICES, "kubernetes", "default"))["spec"]["clusterIP"] == "10.96.0.1"
    assert (await admin.get(PRIORITYCLASSES, "system-node-critical"))["value"] == 2_000_001_000


def test_the_roles_of_components_are_the_originals_and_what_ours_need_besides_is_apart() -> None:
    rules = {role["metadata"]["name"]: role["rules"] for role in policy.cluster_roles()}
    everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
    assert everything not in rules["system:kube-controller-manager"]
    assert everything in rules["steersman:controllers"]
    assert [rule["resources"] for rule in rules["system:kube-dns"]] == [["endpoints", "services"]]
    assert "networkpolicies" not in str(rules["system:node-proxier"])
    bound = {each["metadata"]["name"]: each["subjects"][0]["name"] for each in policy.cluster_role_bindings()
             if each["metadata"]["name"].startswith("steersman:")}  # fmt: skip
    assert bound == {
        "steersman:controllers": "system:kube-controller-manager",
        "steersman:dns": "kube-dns",
        "steersman:proxy": "system:kube-proxy",
    }
