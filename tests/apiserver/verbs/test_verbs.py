"""The verbs on the real API server in process: what is stored, what is refused, in the original's words."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import CONFIGMAPS, DEPLOYMENTS, LEASES, NAMESPACES, PODS, SERVICES, Object
from steersman.testing.cluster import ApiCluster


def config(name: str = "a", **more: Any) -> Object:
    return {"metadata": {"name": name, **more}, "data": {"k": "v"}}


async def refused(call: Any) -> ApiError:
    with pytest.raises(ApiError) as error:
        await call
    return error.value


async def test_create_fills_in_what_the_system_owns(cluster: ApiCluster) -> None:
    made = await cluster.client.create(CONFIGMAPS, config(uid="mine"), "default")
    meta = made["metadata"]
    assert meta["uid"] != "mine"
    assert (made["kind"], made["apiVersion"], meta["namespace"]) == ("ConfigMap", "v1", "default")
    assert meta["managedFields"][0]["manager"] == "steersman-testing"
    assert await cluster.client.get(CONFIGMAPS, "a", "default") == made


async def test_generated_names_are_new_each_time(cluster: ApiCluster) -> None:
    body = {"metadata": {"generateName": "x-"}}
    names = {(await cluster.client.create(CONFIGMAPS, body, "default"))["metadata"]["name"] for _ in range(20)}
    assert len(names) == 20
    assert all(name.startswith("x-") and len(name) == 7 for name in names)


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "text"),
    [
        ("POST", "/api/v1/namespaces/default/configmaps", b"{", 400, "couldn't get version/kind; json parse error"),
        (
            "POST",
            "/api/v1/namespaces/default/configmaps",
            b'{"kind":"Pod","apiVersion":"v1"}',
            400,
            "cannot be handled as",
        ),
        ("POST", "/api/v1/namespaces/default/configmaps", b'{"metadata":{"name":"A_"}}', 422, "RFC 1123 subdomain"),
        ("POST", "/api/v1/namespaces/default/configmaps", b"{}", 422, "metadata.name: Required value"),
        (
            "POST",
            "/api/v1/namespaces/default/configmaps",
            b'{"metadata":{"name":"a","namespace":"b"}}',
            400,
            "does not match",
        ),
        (
            "PUT",
            "/api/v1/namespaces/default/configmaps/a",
            b'{"metadata":{"name":"b"}}',
            400,
            "does not match the name on the URL",
        ),
        ("GET", "/api/v1/namespaces/default/configmaps/a", b"", 404, 'configmaps \\"a\\" not found'),
        ("GET", "/apis/apps/v1/nothings", b"", 404, "the server could not find the requested resource"),
        ("GET", "/nowhere", b"", 404, "404 page not found"),
        ("PATCH", "/api/v1/namespaces/default/configmaps/a", b"{}", 415, "415: Unsupported Media Type"),
        ("POST", "/api/v1/namespaces/default/configmaps/a", b"{}", 405, "does not allow this method"),
        ("GET", "/api/v1/pods?labelSelector=a%20b", b"", 400, "unable to parse requirement"),
        ("GET", "/api/v1/pods?fieldSelector=spec.nothing%3Da", b"", 400, "field label not supported"),
        ("GET", "/api/v1/pods?continue=nonsense", b"", 400, "continue key is not valid"),
        ("GET", "/api/v1/pods?resourceVersion=abc", b"", 400, "invalid syntax"),
        ("GET", "/api/v1/pods?resourceVersion=99999999", b"", 504, "Too large resource version"),
    ],
)
async def test_refusals(cluster: ApiCluster, method: str, path: str, body: bytes, code: int, text: str) -> None:
    response, answer = await cluster.client.raw(method, path, body)
    assert response.status == code
    assert text in answer.decode()


async def test_an_update_needs_the_current_version(cluster: ApiCluster) -> None:
    made = await cluster.client.create(CONFIGMAPS, config(), "default")
    await cluster.client.update(CONFIGMAPS, {**made, "data": {"k": "w"}})
    error = await refused(cluster.client.update(CONFIGMAPS, {**made, "data": {"k": "x"}}))
    assert (error.code, error.reason) == (409, "Conflict")
    assert "the object has been modified; please apply your changes to the latest version" in error.message


async def test_an_update_that_changes_nothing_writes_nothing(cluster: ApiCluster) -> None:
    made = await cluster.client.create(CONFIGMAPS, config(), "default")
    again = await cluster.client.update(CONFIGMAPS, made)
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_four_patches(cluster: ApiCluster) -> None:
    await cluster.client.create(CONFIGMAPS, config(), "default")
    merged = await cluster.client.patch(CONFIGMAPS, "a", "default", {"data": {"m": "1", "k": None}})
    assert merged["data"] == {"m": "1"}
    steps = [{"op": "test", "path": "/data/m", "value": "1"}, {"op": "add", "path": "/data/j", "value": "2"}]
    assert (await cluster.client.patch(CONFIGMAPS, "a", "default", steps, type="json"))["data"]["j"] == "2"
    strategic = await cluster.client.patch(CONFIGMAPS, "a", "default", {"data": {"s": "3"}}, type="strategic")
    assert strategic["data"] == {"m": "1", "j": "2", "s": "3"}
    wanted = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"m": "other"}}
    error = await refused(
        cluster.client.patch(CONFIGMAPS, "a", "default", wanted, type="apply", field_manager="applier")
    )
    assert error.code == 409
    assert "conflict" in error.message
    applied = await cluster.client.patch(
        CONFIGMAPS, "a", "default", wanted, type="apply", field_manager="applier", force=True
    )
    assert applied["data"]["m"] == "other"


async def test_dry_run_stores_nothing(cluster: ApiCluster) -> None:
    response, _ = await cluster.client.raw(
        "POST", "/api/v1/namespaces/default/configmaps?dryRun=All", b'{"metadata":{"name":"a"}}'
    )
    assert response.status == 201
    assert (await refused(cluster.client.get(CONFIGMAPS, "a", "default"))).code == 404


async def test_preconditions_of_a_delete(cluster: ApiCluster) -> None:
    made = await cluster.client.create(CONFIGMAPS, config(), "default")
    error = await refused(cluster.client.delete(CONFIGMAPS, "a", "default", uid="other"))
    assert (error.code, "the UID in the precondition (other) does not match" in error.message) == (409, True)
    gone = await cluster.client.delete(CONFIGMAPS, "a", "default", uid=made["metadata"]["uid"])
    assert (gone["kind"], gone["status"]) == ("Status", "Success")


async def test_finalizers_keep_an_object_until_they_are_gone(cluster: ApiCluster) -> None:
    await cluster.client.create(CONFIGMAPS, config(finalizers=["a.b/c"]), "default")
    await cluster.client.delete(CONFIGMAPS, "a", "default")
    kept = await cluster.client.get(CONFIGMAPS, "a", "default")
    assert kept["metadata"]["deletionTimestamp"]
    error = await refused(
        cluster.client.patch(CONFIGMAPS, "a", "default", {"metadata": {"finalizers": ["a.b/c", "d.e/f"]}})
    )
    assert "no new finalizers can be added if the object is being deleted" in error.message
    await cluster.client.patch(CONFIGMAPS, "a", "default", {"metadata": {"finalizers": None}})
    assert (await refused(cluster.client.get(CONFIGMAPS, "a", "default"))).code == 404


async def test_a_bound_pod_goes_gracefully(cluster: ApiCluster) -> None:
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}], "nodeName": "n"}}
    await cluster.client.create(PODS, pod, "default")
    going = await cluster.client.delete(PODS, "p", "default")
    assert going["metadata"]["deletionGracePeriodSeconds"] == 30
    sooner = await cluster.client.delete(PODS, "p", "default", grace_seconds=1)
    assert sooner["metadata"]["deletionGracePeriodSeconds"] == 1
    await cluster.client.delete(PODS, "p", "default", grace_seconds=0)
    assert (await refused(cluster.client.get(PODS, "p", "default"))).code == 404


async def test_chunks_are_one_snapshot(cluster: ApiCluster) -> None:
    for number in range(7):
        await cluster.client.create(CONFIGMAPS, config(f"c{number}"), "default")
    first = await cluster.client.list(CONFIGMAPS, "default", limit=3)
    await cluster.client.delete(CONFIGMAPS, "c5", "default")
    await cluster.client.create(CONFIGMAPS, config("c9"), "default")
    names, token = [item["metadata"]["name"] for item in first.items], first.continue_
    while token:
        page = await cluster.client.list(CONFIGMAPS, "default", limit=3, continue_=token)
        names += [item["metadata"]["name"] for item in page.items]
        token = page.continue_
    assert names == [f"c{number}" for number in range(7)]


async def test_a_token_of_forgotten_history_expires(cluster: ApiCluster) -> None:
    for number in range(4):
        await cluster.client.create(CONFIGMAPS, config(f"c{number}"), "default")
    first = await cluster.client.list(CONFIGMAPS, "default", limit=2)
    await cluster.client.create(CONFIGMAPS, config("late"), "default")
    await cluster.store.compact(cluster.store.revision)
    error = await refused(cluster.client.list(CONFIGMAPS, "default", limit=2, continue_=first.continue_))
    assert (error.code, error.reason) == (410, "Expired")


async def test_scale_is_a_view(cluster: ApiCluster) -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    await cluster.client.create(DEPLOYMENTS, {"metadata": {"name": "d"}, "spec": spec}, "default")
    scale = await cluster.client.get(DEPLOYMENTS, "d", "default", subresource="scale")
    assert (scale["kind"], scale["spec"], scale["status"]["selector"]) == ("Scale", {"replicas": 2}, "a=b")
    await cluster.client.patch(DEPLOYMENTS, "d", "default", {"spec": {"replicas": 5}}, subresource="scale")
    assert (await cluster.client.get(DEPLOYMENTS, "d", "default"))["spec"]["replicas"] == 5


async def test_a_pod_is_bound_once(cluster: ApiCluster) -> None:
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    await cluster.client.create(PODS, pod, "default")
    binding = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}}
    await cluster.client.create(PODS, binding, "default", name="p", subresource="binding")
    bound = await cluster.client.get(PODS, "p", "default")
    assert bound["spec"]["nodeName"] == "n"
    error = await refused(cluster.client.create(PODS, binding, "default", name="p", subresource="binding"))
    assert 'pod p is already assigned to node "n"' in error.message


@pytest.mark.parametrize("kind", ["Binding", "Eviction"])
@pytest.mark.parametrize("metadata", [{}, {"name": "q"}])
async def test_a_body_names_the_pod_of_its_url(cluster: ApiCluster, kind: str, metadata: Object) -> None:
    body = (
        {"metadata": metadata, "target": {"kind": "Node", "name": "n"}} if kind == "Binding" else {"metadata": metadata}
    )
    error = await refused(cluster.client.create(PODS, body, "default", name="p", subresource=kind.lower()))
    assert (error.code, error.message) == (400, f"name in URL does not match name in {kind} object")


async def test_tables_for_people(cluster: ApiCluster) -> None:
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    response, body = await cluster.client.raw("GET", NAMESPACES.path(), accept=accept)
    assert response.status == 200
    assert b'"kind":"Table"' in body
    assert b'"cells":["default","Active"' in body


async def test_a_namespace_that_is_missing_is_not_made(cluster: ApiCluster) -> None:
    error = await refused(cluster.client.get(SERVICES, "a", "nowhere"))
    assert error.code == 404


async def test_what_has_a_version_cannot_be_created(cluster: ApiCluster) -> None:
    error = await refused(cluster.client.create(CONFIGMAPS, config(resourceVersion="7"), "default"))
    assert (error.code, error.message) == (500, "resourceVersion should not be set on objects to be created")
    wrong = config(resourceVersion="7") | {"data": {"not/a/key": ""}}
    error = await refused(cluster.client.create(CONFIGMAPS, wrong, "default"))
    assert error.code == 422, "what is wrong with the object comes first"


async def test_chunks_of_what_is_selected(cluster: ApiCluster) -> None:
    for number in range(9):
        await cluster.client.create(CONFIGMAPS, config(f"c{number}", labels={"odd": str(number % 2)}), "default")
    names, token = [], ""
    while True:
        page = await cluster.client.list(CONFIGMAPS, "default", labels="odd=1", limit=2, continue_=token)
        assert len(page.items) <= 2
        names += [item["metadata"]["name"] for item in page.items]
        if not (token := page.continue_):
            break
    assert names == ["c1", "c3", "c5", "c7"]


async def test_how_many_are_left(cluster: ApiCluster) -> None:
    for number in range(6):
        await cluster.client.create(CONFIGMAPS, config(f"c{number}"), "default")
    token, left = "", []
    for _ in range(3):
        _, body = await cluster.client.raw("GET", f"{CONFIGMAPS.path('default')}?limit=2&continue={token}")
        meta = msgspec.json.decode(body)["metadata"]
        left.append(meta.get("remainingItemCount"))
        token = meta.get("continue", "")
    assert left == [4, 2, None]
    assert token == ""


async def test_which_updates_need_a_version(cluster: ApiCluster) -> None:
    made = await cluster.client.create(CONFIGMAPS, config(), "default")
    del made["metadata"]["resourceVersion"]
    assert (await cluster.client.update(CONFIGMAPS, {**made, "data": {"k": "z"}}))["data"] == {"k": "z"}
    lease = await cluster.client.create(LEASES, {"metadata": {"name": "l"}, "spec": {"holderIdentity": "a"}}, "default")
    del lease["metadata"]["resourceVersion"]
    error = await refused(cluster.client.update(LEASES, lease))
    assert error.code == 422
    assert error.message == (
        'leases.coordination.k8s.io "l" is invalid: '
        "metadata.resourceVersion: Invalid value: 0: must be specified for an update"
    )


async def test_a_json_patch_may_lead_into_a_status_that_is_empty(cluster: ApiCluster) -> None:
    await cluster.client.create(NAMESPACES, {"metadata": {"name": "n"}})
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    await cluster.client.create(DEPLOYMENTS, {"metadata": {"name": "d"}, "spec": spec}, "n")
    steps = [{"op": "add", "path": "/status/replicas", "value": 3}]
    patched = await cluster.client.patch(DEPLOYMENTS, "d", "n", steps, type="json", subresource="status")
    assert patched["status"] == {"replicas": 3}
    label = [{"op": "add", "path": "/metadata/labels", "value": {"x": "y"}}]
    await cluster.client.create(CONFIGMAPS, config(), "n")
    assert (await cluster.client.patch(CONFIGMAPS, "a", "n", label, type="json"))["metadata"]["labels"] == {"x": "y"}
