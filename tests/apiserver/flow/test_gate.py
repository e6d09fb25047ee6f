"""Priority and fairness in front of a whole API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from steersman.api import flows
from steersman.api.errors import ApiError
from steersman.api.resource import CLUSTERROLEBINDINGS, Object, Resource
from steersman.apiserver.call import Call
from steersman.apiserver.flow.inflight import InFlight
from steersman.apiserver.flow.keeper import Keeper
from steersman.lib.http.messages import ClientResponse
from steersman.lib.tasks import Tasks
from tests.apiserver.guarded import Guarded

GROUP = "flowcontrol.apiserver.k8s.io"
SCHEMAS = Resource(GROUP, "v1", "flowschemas", "FlowSchema", False)
LEVELS = Resource(GROUP, "v1", "prioritylevelconfigurations", "PriorityLevelConfiguration", False)
PODS = "/api/v1/namespaces/default/pods"
_RULE = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": True}


class Gated(Guarded):
    """An API server with its gate; `seats` at a time, of which a level with one share gets one."""

    keeper: Keeper

    async def open(self, tasks: Tasks, seats: int = 200) -> None:
        self.keeper = Keeper(self.server, seats)
        await self.keeper.ensure()
        self.server.flow = self.keeper.gate
        self.running = tasks.spawn(self.keeper.run(), "keeper")

    async def asked(self, user: str, path: str = PODS, method: str = "GET", body: bytes = b"") -> ClientResponse:
        """The answer to a user."""
        response, _ = await self.client(user).raw(method, path, body)
        return response


@pytest.fixture
async def gated(tmp_path: Path) -> AsyncIterator[Gated]:
    async with Gated(tmp_path) as server, Tasks() as tasks:
        await server.open(tasks)
        yield server


def schema(name: str, level: str, precedence: int, user: str, **rule: object) -> Object:
    subjects = [{"kind": "User", "user": {"name": user}}]
    rules = [{"subjects": subjects, "resourceRules": [{**_RULE, **rule}]}]
    spec = {"matchingPrecedence": precedence, "priorityLevelConfiguration": {"name": level}, "rules": rules}
    return {"metadata": {"name": name}, "spec": {**spec, "distinguisherMethod": {"type": "ByUser"}}}


def level(name: str, shares: int = 1) -> Object:
    limited = {"nominalConcurrencyShares": shares, "lendablePercent": 0, "borrowingLimitPercent": 0}
    return {
        "metadata": {"name": name},
        "spec": {"type": "Limited", "limited": {**limited, "limitResponse": {"type": "Reject"}}},
    }


def uids(response: ClientResponse) -> tuple[str | None, str | None]:
    return (
        response.header("x-kubernetes-pf-flowschema-uid"),
        response.header("x-kubernetes-pf-prioritylevel-uid"),
    )


async def uids_of(gated: Gated, schema_name: str, level_name: str) -> tuple[str, str]:
    admin = gated.client("admin")
    found = await admin.get(SCHEMAS, schema_name), await admin.get(LEVELS, level_name)
    return found[0]["metadata"]["uid"], found[1]["metadata"]["uid"]


@pytest.mark.parametrize(
    ("user", "path", "names"),
    [
        ("admin", PODS, ("exempt", "exempt")),
        ("somebody", PODS, ("global-default", "global-default")),
        ("somebody", "/livez/ping", ("probes", "exempt")),
        ("system:node:a,system:nodes", "/api/v1/nodes/a", ("system-node-high", "node-high")),
        ("system:node:a,system:nodes", PODS, ("system-nodes", "system")),
        ("system:serviceaccount:kube-system:x,system:serviceaccounts", PODS, ("kube-system-service-accounts", "")),
        ("system:serviceaccount:default:x,system:serviceaccounts", PODS, ("service-accounts", "workload-low")),
        ("system:kube-scheduler", PODS, ("kube-scheduler", "workload-high")),
        (
            "system:kube-scheduler",
            "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/x",
            ("system-leader-election", "leader-election"),
        ),
    ],
)
async def test_everybody_has_a_place(gated: Gated, user: str, path: str, names: tuple[str, str]) -> None:
    response = await gated.asked(user, path)
    assert uids(response) == await uids_of(gated, names[0], names[1] or "workload-high")


async def test_a_schema_counts_from_the_next_request_on(gated: Gated) -> None:
    admin = gated.client("admin")
    before = uids(await gated.asked("noxu"))
    await admin.create(LEVELS, level("mine"))
    await admin.create(SCHEMAS, schema("mine", "mine", 1000, "noxu"))
    assert uids(await gated.asked("noxu")) == await uids_of(gated, "mine", "mine")
    assert uids(await gated.asked("foo")) == before
    await admin.delete(SCHEMAS, "mine")
    assert uids(await gated.asked("noxu")) == before


async def test_a_schema_may_be_for_some_namespaces(gated: Gated) -> None:
    await gated.client("admin").create(
        SCHEMAS, schema("mine", "system", 1000, "noxu", namespaces=["here"], clusterScope=False)
    )
    here, there = [uids(await gated.asked("noxu", f"/api/v1/namespaces/{name}/pods")) for name in ("here", "there")]
    assert here == await uids_of(gated, "mine", "system")
    assert there == await uids_of(gated, "global-default", "global-default")


async def test_of_two_schemas_the_lower_number_counts_then_the_name(gated: Gated) -> None:
    admin = gated.client("admin")
    for name, precedence in (("b", 500), ("a", 500), ("first", 400)):
        await admin.create(SCHEMAS, schema(name, "system", precedence, "noxu"))
    for name in ("first", "a", "b"):
        assert uids(await gated.asked("noxu")) == await uids_of(gated, name, "system")
        await admin.delete(SCHEMAS, name)


async def test_what_is_long_has_no_place(gated: Gated) -> None:
    response = await gated.asked("admin", f"{PODS}/a/log")
    assert uids(response) == (None, None)


async def test_a_schema_without_its_level_dangles(gated: Gated) -> None:
    admin = gated.client("admin")
    await admin.create(SCHEMAS, schema("mine", "nowhere", 1000, "noxu"))
    expected = 'This FlowSchema references the PriorityLevelConfiguration object named "nowhere" '
    await gated.keeper.conditions()
    assert said(await admin.get(SCHEMAS, "mine")) == ("True", "NotFound", f"{expected}but there is no such object")
    assert uids(await gated.asked("noxu")) == await uids_of(gated, "global-default", "global-default")
    await admin.create(LEVELS, level("nowhere"))
    await gated.keeper.conditions()
    assert said(await admin.get(SCHEMAS, "mine")) == ("False", "Found", f"{expected}and it exists")


def said(found: Object) -> tuple[str, str, str]:
    (one,) = found["status"]["conditions"]
    assert one["type"] == "Dangling"
    return one["status"], one["reason"], one["message"]


async def test_a_level_that_is_full_turns_away(gated: Gated) -> None:
    admin = gated.client("admin")
    await admin.create(LEVELS, level("mine"))
    await admin.create(SCHEMAS, schema("mine", "mine", 1000, "noxu"))
    await gated.asked("noxu")
    mine = gated.keeper.gate.levels["mine"]
    mine.sit(1)
    try:
        response, body = await gated.client("noxu").raw("GET", PODS)
        assert (response.status, body) == (429, b"Too many requests, please try again later.\n")
        assert response.header("retry-after") == "1"
        assert response.header("content-type") == "text/plain; charset=utf-8"
        assert uids(response) == await uids_of(gated, "mine", "mine")
        assert (await gated.asked("foo")).status == 403
        assert (await gated.asked("admin")).status == 200
    finally:
        mine.rise(1)
    assert (await gated.asked("noxu")).status == 403


@pytest.mark.parametrize(("queued", "statuses"), [(False, [201, 429, 429, 429]), (True, [201, 201, 201, 201])])
async def test_writes_that_come_at_once_share_the_seats(gated: Gated, queued: bool, statuses: list[int]) -> None:
    admin = gated.client("admin")
    mine = level("mine")
    if queued:
        queuing = {"queues": 1, "handSize": 1, "queueLengthLimit": 50}
        mine["spec"]["limited"]["limitResponse"] = {"type": "Queue", "queuing": queuing}
    await admin.create(LEVELS, mine)
    await admin.create(SCHEMAS, schema("mine", "mine", 1000, "noxu"))
    subject = {"kind": "User", "name": "noxu", "apiGroup": "rbac.authorization.k8s.io"}
    role = {"kind": "ClusterRole", "name": "cluster-admin", "apiGroup": "rbac.authorization.k8s.io"}
    await admin.create(CLUSTERROLEBINDINGS, {"metadata": {"name": "n"}, "roleRef": role, "subjects": [subject]})
    await gated.asked("noxu")
    begun, go, inside = asyncio.Event(), asyncio.Event(), []

    async def slow(call: Call, obj: Object) -> None:
        inside.append(gated.keeper.gate.levels["mine"].taken)
        begun.set()
        await go.wait()

    gated.server.services.extras.setdefault("before_create", {})["", "ConfigMap"] = [slow]
    bodies = [msgspec.json.encode({"metadata": {"name": f"a{n}"}}) for n in range(4)]
    path = "/api/v1/namespaces/default/configmaps"
    async with Tasks() as tasks:
        asked = [tasks.spawn(gated.asked("noxu", path, "POST", body), "create") for body in bodies]
        await begun.wait()
        go.set()
        assert sorted([(await one).status for one in asked]) == statuses
    assert set(inside) == {1}
    assert gated.keeper.gate.levels["mine"].taken == 0


async def test_what_nobody_made_their_own_is_kept(gated: Gated) -> None:
    admin = gated.client("admin")
    for name in ("exempt", "system-nodes", "probes"):
        await admin.delete(SCHEMAS, name)
    assert uids(await gated.asked("admin"))[0] == ""  # the mandatory are there even so
    await gated.keeper.ensure()
    assert {one["metadata"]["name"] for one in (await admin.list(SCHEMAS)).items} == set(flows.schemas())
    before = [one["metadata"]["resourceVersion"] for one in (await admin.list(LEVELS)).items]
    await gated.keeper.ensure()
    assert [one["metadata"]["resourceVersion"] for one in (await admin.list(LEVELS)).items] == before


@pytest.mark.parametrize("own", [False, True])
async def test_a_suggested_level_may_become_ones_own(gated: Gated, own: bool) -> None:
    admin = gated.client("admin")
    found = await admin.get(LEVELS, "system")
    found["spec"]["limited"]["nominalConcurrencyShares"] = 7
    found["metadata"]["annotations"][flows.AUTOUPDATE] = "false" if own else "true"
    await admin.update(LEVELS, found)
    await gated.keeper.ensure()
    kept = await admin.get(LEVELS, "system")
    assert kept["spec"]["limited"]["nominalConcurrencyShares"] == (7 if own else 30)


@pytest.mark.parametrize(
    ("resource", "name", "text"),
    [
        (SCHEMAS, "catch-all", "spec of 'catch-all' must equal the fixed value"),
        (LEVELS, "catch-all", "spec of 'catch-all' must equal the fixed value"),
    ],
)
async def test_the_mandatory_are_as_they_are(gated: Gated, resource: Resource, name: str, text: str) -> None:
    admin = gated.client("admin")
    found = await admin.get(resource, name)
    await admin.update(resource, found)
    if resource is SCHEMAS:
        found["spec"]["matchingPrecedence"] = 9999
    else:
        found["spec"]["limited"]["nominalConcurrencyShares"] = 6
    with pytest.raises(ApiError, match=text):
        await admin.update(resource, {**found, "metadata": {"name": name}})


async def test_without_fairness_two_numbers_count(gated: Gated) -> None:
    flow = gated.server.flow = InFlight(1, 1)
    path = "/api/v1/namespaces/default/configmaps"
    user = "u,system:masters-not"
    flow._count[:] = [1, 1]
    for method in ("GET", "POST"):
        response = await gated.asked(user, path, method, b"{}")
        assert (response.status, response.header("retry-after")) == (429, "1")
    assert (await gated.asked("admin", path)).status == 200
    flow._count[:] = [0, 0]
    assert (await gated.asked(user, path)).status == 403
