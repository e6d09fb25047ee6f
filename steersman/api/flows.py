"""The FlowSchemas and PriorityLevelConfigurations that every cluster has.

Owns the two mandatory pairs and the suggested ones as data, without the defaults. Kept by `apiserver/flow/keeper.py`,
used by its gate as long as they are missing, and by validation: the mandatory are as they are.
Source: KEP-1040; apiserver's pkg/apis/flowcontrol/bootstrap.
"""

from __future__ import annotations

from typing import Any

from steersman.api.resource import Object

AUTOUPDATE = "apf.kubernetes.io/autoupdate-spec"
EXEMPT, CATCH_ALL = "exempt", "catch-all"
_EVERYBODY = ("system:unauthenticated", "system:authenticated")
_QUEUED = {  # name: shares, lendable percent, queues, hand size
    "system": (30, 33, 64, 6),
    "node-high": (40, 25, 64, 6),
    "leader-election": (10, 0, 16, 4),
    "workload-high": (40, 50, 128, 6),
    "workload-low": (100, 90, 128, 6),
    "global-default": (20, 50, 128, 6),
}
_LENGTH = 50  # requests in a queue


def levels() -> dict[str, Object]:
    """Every priority level by its name; the mandatory two come last."""
    found = {name: _level(name, *numbers) for name, numbers in _QUEUED.items()}
    limited = {"nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"}}
    found[CATCH_ALL] = _object(CATCH_ALL, {"type": "Limited", "limited": limited})
    exempt = {"nominalConcurrencyShares": 0, "lendablePercent": 0}
    found[EXEMPT] = _object(EXEMPT, {"type": "Exempt", "exempt": exempt})
    return found


def schemas() -> dict[str, Object]:
    """Every flow schema by its name; the mandatory two come last."""
    nodes = [_group("system:nodes")]
    manager, scheduler = _user("system:kube-controller-manager"), _user("system:kube-scheduler")
    workers = [_account("kube-system")]
    everybody = [_group(name) for name in _EVERYBODY]
    accounts = [_group("system:serviceaccounts")]
    leases = _rule(["leases"], groups=["coordination.k8s.io"], cluster=False)
    election = {**leases, "verbs": ["get", "create", "update"]}
    probes = [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]
    high = [_rule(["nodes", "nodes/status"], groups=[""]), leases]
    user, namespace = "ByUser", "ByNamespace"
    rows: list[tuple[str, str, int, str, Object]] = [
        ("system-nodes", "system", 500, user, _everything(nodes)),
        ("system-node-high", "node-high", 400, user, {"subjects": nodes, "resourceRules": high}),
        ("probes", EXEMPT, 2, "", {"subjects": everybody, "nonResourceRules": probes}),
        (
            "system-leader-election",
            "leader-election",
            100,
            user,
            {"subjects": [manager, scheduler, *workers], "resourceRules": [election]},
        ),
        ("kube-controller-manager", "workload-high", 800, namespace, _everything([manager])),
        ("kube-scheduler", "workload-high", 800, namespace, _everything([scheduler])),
        ("kube-system-service-accounts", "workload-high", 900, namespace, _everything(workers)),
        ("service-accounts", "workload-low", 9000, user, _everything(accounts)),
        ("global-default", "global-default", 9900, user, _everything(everybody)),
        (EXEMPT, EXEMPT, 1, "", _everything([_group("system:masters")])),
        (CATCH_ALL, CATCH_ALL, 10_000, user, _everything(everybody)),
    ]
    return {row[0]: _schema(*row) for row in rows}


def _schema(name: str, level: str, precedence: int, method: str, rule: Object) -> Object:
    spec: Object = {"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": [rule]}
    if method:
        spec["distinguisherMethod"] = {"type": method}
    return _object(name, spec)


def _level(name: str, shares: int, lendable: int, queues: int, hand: int) -> Object:
    queuing = {"queues": queues, "handSize": hand, "queueLengthLimit": _LENGTH}
    response = {"type": "Queue", "queuing": queuing}
    limited = {"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response}
    return _object(name, {"type": "Limited", "limited": limited})


def _object(name: str, spec: Object) -> Object:
    return {"metadata": {"name": name, "annotations": {AUTOUPDATE: "true"}}, "spec": spec}


def _rule(resources: list[str], *, groups: list[str], cluster: bool = True) -> Object:
    found: dict[str, Any] = {"verbs": ["*"], "apiGroups": groups, "resources": resources, "namespaces": ["*"]}
    return {**found, "clusterScope": True} if cluster else found


def _everything(subjects: list[Object]) -> Object:
    paths = [{"verbs": ["*"], "nonResourceURLs": ["*"]}]
    return {"subjects": subjects, "resourceRules": [_rule(["*"], groups=["*"])], "nonResourceRules": paths}


def _group(name: str) -> Object:
    return {"kind": "Group", "group": {"name": name}}


def _user(name: str) -> Object:
    return {"kind": "User", "user": {"name": name}}


def _account(namespace: str) -> Object:
    return {"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": "*"}}
