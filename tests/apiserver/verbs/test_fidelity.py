"""What kube-apiserver 1.36 answered to the same requests, word for word."""

from __future__ import annotations

import json
from typing import Any

import pytest

from steersman.testing.cluster import ApiCluster

MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
JSON, APPLY = "application/json-patch+json", "application/apply-patch+yaml"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
PODS = "/api/v1/namespaces/default/pods"
TEMPLATE = {
    "metadata": {"labels": {"a": "b"}},
    "spec": {"containers": [{"name": "c", "image": "i"}], "tolerations": [{"key": "k", "operator": "Exists"}]},
}
DEPLOYMENT = {
    "metadata": {"name": "d1"},
    "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE},
}
POD = {"metadata": {"name": "p", "labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}


async def ask(
    cluster: ApiCluster, method: str, path: str, body: Any = None, media: str = "application/json"
) -> tuple[int, dict[str, Any], list[str]]:
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    response = await cluster.transport.request(method, path, [("content-type", media)], data)
    warnings = [value for key, value in response.headers if key == "warning"]
    return response.status, json.loads(await response.read()), warnings


@pytest.mark.parametrize(
    ("media", "body", "code", "message"),
    [
        (STRATEGIC, {"spec": {"replicas": "x"}}, 422,
         ' "" is invalid: patch: Invalid value: "map[spec:map[replicas:x]]": unrecognized type: int32'),
        (STRATEGIC, {"spec": {"template": {"spec": {"containers": "str"}}}}, 422,
         ' "" is invalid: patch: Invalid value: "map[spec:map[template:map[spec:map[containers:str]]]]": '
         "cannot restore slice from string"),
        (STRATEGIC, {"spec": {"template": {"spec": {"containers": [{"image": "nokey"}]}}}}, 500,
         "map: map[image:nokey] does not contain declared merge key: name"),
        (STRATEGIC, b"{", 400, "unexpected end of JSON input"),
        (MERGE, b"{", 400, "error decoding patch: unexpected end of JSON input"),
        (MERGE, [1], 400,
         "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"),
        (JSON, {"op": "add"}, 400,
         "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"),
        (JSON, [{"op": "test", "path": "/spec/replicas", "value": 5}], 422,
         "the server rejected our request due to an error in our request"),
        (MERGE, {"metadata": {"uid": "abc"}}, 422,
         'Deployment.apps "d1" is invalid: metadata.uid: Invalid value: "abc": field is immutable'),
        (APPLY, {"apiVersion": "v1", "kind": "Pod"}, 400, "invalid object type: /v1, Kind=Pod"),
        (APPLY, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d1"}, "spec": {"bogus": 5}}, 500,
         "failed to create typed patch object (/d1; apps/v1, Kind=Deployment): .spec.bogus: field not declared in "
         "schema"),
        (APPLY, b"x", 400,
         "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal string into Go "
         "value of type map[string]interface {}"),
        ("text/plain", {"a": 1}, 415, "415: Unsupported Media Type"),
    ],
)  # fmt: skip
async def test_refused_patches(cluster: ApiCluster, media: str, body: Any, code: int, message: str) -> None:
    await ask(cluster, "POST", DEPLOYMENTS, DEPLOYMENT)
    path = f"{DEPLOYMENTS}/d1?fieldManager=m" if media == APPLY else f"{DEPLOYMENTS}/d1"
    status, answer, _ = await ask(cluster, "PATCH", path, body, media)
    assert (status, answer["message"]) == (code, message)


async def test_directives_in_lists_that_do_not_merge(cluster: ApiCluster) -> None:
    await ask(cluster, "POST", DEPLOYMENTS, DEPLOYMENT)
    wanted = [{"$patch": "replace"}, {"key": "n", "operator": "Exists"}]
    patch = {"spec": {"template": {"spec": {"tolerations": wanted}}}}
    _, made, _ = await ask(cluster, "PATCH", f"{DEPLOYMENTS}/d1", patch, STRATEGIC)
    assert made["spec"]["template"]["spec"]["tolerations"] == wanted[1:]


async def test_a_pod_deleted_at_once_is_shown_as_being_deleted(cluster: ApiCluster) -> None:
    await ask(cluster, "POST", PODS, POD)
    _, gone, _ = await ask(cluster, "DELETE", f"{PODS}/p?gracePeriodSeconds=0")
    assert gone["metadata"]["deletionGracePeriodSeconds"] == 0
    assert gone["metadata"]["deletionTimestamp"]
    assert gone["metadata"]["generation"] == 2


@pytest.mark.parametrize(
    ("status", "one", "several"),
    [
        ({"podIP": "1.2.3.4"}, "1.2.3.4", [{"ip": "1.2.3.4"}]),
        ({"podIPs": [{"ip": "1.2.3.5"}, {"ip": "::1"}]}, "1.2.3.5", [{"ip": "1.2.3.5"}, {"ip": "::1"}]),
        ({"podIP": "1.2.3.4", "podIPs": [{"ip": "1.2.3.5"}]}, "1.2.3.4", [{"ip": "1.2.3.4"}]),
    ],
)
async def test_pod_addresses_agree(cluster: ApiCluster, status: Any, one: str, several: Any) -> None:
    await ask(cluster, "POST", PODS, POD)
    _, made, _ = await ask(cluster, "PATCH", f"{PODS}/p/status", {"status": status}, MERGE)
    assert (made["status"]["podIP"], made["status"]["podIPs"]) == (one, several)


async def test_times_that_are_not_known_are_null(cluster: ApiCluster) -> None:
    await ask(cluster, "POST", PODS, POD)
    patch = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    _, made, _ = await ask(cluster, "PATCH", f"{PODS}/p/status", patch, STRATEGIC)
    (condition,) = made["status"]["conditions"]
    assert condition == {"type": "Ready", "status": "True", "lastProbeTime": None, "lastTransitionTime": None}


async def test_maps_with_nothing_in_them_go(cluster: ApiCluster) -> None:
    path = "/api/v1/namespaces/default/configmaps"
    await ask(cluster, "POST", path, {"metadata": {"name": "c", "labels": {"a": "b"}}, "data": {"a": "b"}})
    patch = {"metadata": {"labels": {"a": None}}, "data": {"a": None}}
    _, made, _ = await ask(cluster, "PATCH", f"{path}/c", patch, MERGE)
    assert "data" not in made
    assert "labels" not in made["metadata"]


async def test_refusals_carry_warnings(cluster: ApiCluster) -> None:
    path = "/api/v1/namespaces/default/configmaps"
    status, _, warnings = await ask(cluster, "POST", path, {"metadata": {"name": "BAD_name"}, "spec": {}})
    assert status == 422
    assert warnings == ['299 - "unknown field \\"spec\\""']


async def test_endpoints_are_deprecated(cluster: ApiCluster) -> None:
    path = "/api/v1/namespaces/default/endpoints"
    _, _, warnings = await ask(cluster, "POST", path, {"metadata": {"name": "e"}})
    assert warnings == ['299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"']


async def test_a_name_is_taken_while_its_object_ends(cluster: ApiCluster) -> None:
    path = "/api/v1/namespaces/default/configmaps"
    body = {"metadata": {"name": "c", "finalizers": ["example.com/x"]}}
    await ask(cluster, "POST", path, body)
    await ask(cluster, "DELETE", f"{path}/c")
    _, answer, _ = await ask(cluster, "POST", path, body)
    assert answer["message"] == 'object is being deleted: configmaps "c" already exists'


@pytest.mark.parametrize(
    ("plural", "body", "message"),
    [
        ("ipaddresses", {"metadata": {"name": "x1"}},
         'IPAddress.networking.k8s.io "x1" is invalid: [metadata.name: Invalid value: "x1": must be a valid IP address,'
         " (e.g. 10.9.8.7 or 2001:db8::ffff), spec.parentRef: Required value]"),
        ("servicecidrs", {"metadata": {"name": "x1"}},
         'ServiceCIDR.networking.k8s.io "x1" is invalid: spec.cidrs: Required value: at least one CIDR required'),
    ],
)  # fmt: skip
async def test_addresses_and_ranges(cluster: ApiCluster, plural: str, body: Any, message: str) -> None:
    _, answer, _ = await ask(cluster, "POST", f"/apis/networking.k8s.io/v1/{plural}", body)
    assert answer["message"] == message


async def test_a_range_may_get_a_second_family_only(cluster: ApiCluster) -> None:
    path = "/apis/networking.k8s.io/v1/servicecidrs"
    status, _, _ = await ask(cluster, "POST", path, {"metadata": {"name": "r"}, "spec": {"cidrs": ["10.0.0.0/16"]}})
    assert status == 201
    other = {"spec": {"cidrs": ["10.1.0.0/16"]}}
    _, answer, _ = await ask(cluster, "PATCH", f"{path}/r", other, MERGE)
    assert answer["message"].endswith('spec.cidrs[0]: Invalid value: "10.1.0.0/16": field is immutable')
    two = {"spec": {"cidrs": ["10.0.0.0/16", "10.1.0.0/16"]}}
    status, _, _ = await ask(cluster, "PATCH", f"{path}/r", two, MERGE)
    assert status == 422
    both = {"spec": {"cidrs": ["10.0.0.0/16", "2001:db8::/64"]}}
    status, _, _ = await ask(cluster, "PATCH", f"{path}/r", both, MERGE)
    assert status == 200


EVENTS = "/apis/events.k8s.io/v1/namespaces/default/events"
EVENT = {
    "metadata": {"name": "e"}, "eventTime": "2026-01-01T00:00:00.123456Z", "reportingController": "example.com/c",
    "reportingInstance": "i", "action": "Do", "reason": "Test", "regarding": {"namespace": "default"}, "type": "Normal",
}  # fmt: skip


async def test_an_event_of_the_newer_group(cluster: ApiCluster) -> None:
    _, made, _ = await ask(cluster, "POST", EVENTS, EVENT)
    assert (made["deprecatedFirstTimestamp"], made["deprecatedLastTimestamp"]) == (None, None)
    (entry,) = made["metadata"]["managedFields"]
    assert {"f:regarding", "f:reportingController"} < set(entry["fieldsV1"])
    series = {"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:05.000000Z"}}
    _, patched, _ = await ask(cluster, "PATCH", f"{EVENTS}/e", series, STRATEGIC)
    assert patched["series"] == series["series"]
    _, listed, _ = await ask(cluster, "GET", f"{EVENTS}?fieldSelector=reportingController%3Dexample.com/c")
    assert "kind" not in listed["items"][0]
    assert "apiVersion" not in listed["items"][0]


@pytest.mark.parametrize(
    ("query", "code", "message"),
    [
        ("limit=-1", 200, None),
        ("timeoutSeconds=a", 400, 'strconv.ParseInt: parsing "a": invalid syntax'),
        ("resourceVersion=a", 400,
         'invalid resource version: resourceVersion: Invalid value: "a": strconv.ParseUint: parsing "a": invalid '
         "syntax"),
        ("watch=1&resourceVersion=a", 500,
         'resourceVersion: Invalid value: "a": strconv.ParseUint: parsing "a": invalid syntax'),
        ("watch=1&resourceVersionMatch=Exact&resourceVersion=1", 422,
         'ListOptions.meta.k8s.io "" is invalid: [resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden '
         "for watch unless sendInitialEvents is provided, resourceVersionMatch: Unsupported value: "
         '"Exact": supported values: "NotOlderThan"]'),
    ],
)  # fmt: skip
async def test_list_options(cluster: ApiCluster, query: str, code: int, message: str | None) -> None:
    status, answer, _ = await ask(cluster, "GET", f"/api/v1/namespaces/default/configmaps?{query}")
    assert (status, answer.get("message")) == (code, message)


async def test_a_patch_of_too_many_operations(cluster: ApiCluster) -> None:
    path = "/api/v1/namespaces/default/configmaps"
    await ask(cluster, "POST", path, {"metadata": {"name": "c"}})
    patch = [{"op": "test", "path": "/kind", "value": "ConfigMap"}] * 10_001
    status, answer, _ = await ask(cluster, "PATCH", f"{path}/c", patch, JSON)
    text = "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001"
    assert (status, answer["message"]) == (413, text)


async def test_a_claim_on_devices(cluster: ApiCluster) -> None:
    path = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims"
    wanted = {"devices": {"requests": [{"name": "a", "exactly": {"deviceClassName": "c"}}]}}
    _, made, _ = await ask(cluster, "POST", path, {"metadata": {"name": "c"}, "spec": wanted})
    exactly = {"deviceClassName": "c", "allocationMode": "ExactCount", "count": 1}
    assert (made["spec"]["devices"]["requests"][0]["exactly"], made["status"]) == (exactly, {})
    _, answer, _ = await ask(cluster, "PATCH", f"{path}/c", {"spec": {"devices": {"requests": []}}}, MERGE)
    assert answer["message"].endswith(": field is immutable")
    device = {"driver": "d.x", "pool": "p", "device": "dev"}
    _, answer, _ = await ask(cluster, "PATCH", f"{path}/c/status", {"status": {"devices": [device]}}, MERGE)
    assert answer["message"] == (
        'ResourceClaim.resource.k8s.io "c" is invalid: status.devices[0]: Invalid value: {"Driver":"d.x","Pool":"p",'
        '"Device":"dev","ShareID":""}: must be an allocated device in the claim'
    )
    given = {"devices": {"results": [{"request": "a", **device}]}}
    patch = {"status": {"allocation": given, "devices": [device]}}
    status, made, _ = await ask(cluster, "PATCH", f"{path}/c/status", patch, MERGE)
    assert (status, made["status"]["allocation"]) == (200, given)


async def test_a_patch_that_says_something_twice(cluster: ApiCluster) -> None:
    await ask(cluster, "POST", DEPLOYMENTS, DEPLOYMENT)
    body = b'{"spec":{"replicas":2,"replicas":3}}'
    status, answer, _ = await ask(cluster, "PATCH", f"{DEPLOYMENTS}/d1?fieldValidation=Strict", body, MERGE)
    assert (status, answer["message"].rpartition(": ")[2]) == (422, 'duplicate field "spec.replicas"')
    status, _, warnings = await ask(cluster, "PATCH", f"{DEPLOYMENTS}/d1", body, MERGE)
    assert (status, warnings) == (200, ['299 - "duplicate field \\"spec.replicas\\""'])
    _, _, warnings = await ask(cluster, "PATCH", f"{DEPLOYMENTS}/d1?fieldValidation=Ignore", body, MERGE)
    assert warnings == []


async def test_who_scaled(cluster: ApiCluster) -> None:
    await ask(cluster, "POST", DEPLOYMENTS, DEPLOYMENT)
    await ask(cluster, "PATCH", f"{DEPLOYMENTS}/d1/scale", {"spec": {"replicas": 6}}, MERGE)
    _, obj, _ = await ask(cluster, "GET", f"{DEPLOYMENTS}/d1")
    (entry,) = [each for each in obj["metadata"]["managedFields"] if each.get("subresource")]
    assert (entry["subresource"], entry["fieldsV1"]) == ("scale", {"f:spec": {"f:replicas": {}}})


async def test_admission_owns_nothing(cluster: ApiCluster) -> None:
    class Adds:
        async def mutate(self, call: Any, obj: Any, old: Any) -> None:
            obj["metadata"].setdefault("annotations", {})["by"] = "admission"

        async def validate(self, call: Any, obj: Any, old: Any) -> None:
            assert obj["metadata"]["annotations"]["by"] == "admission"

    cluster.server.services.admission = Adds()
    _, made, _ = await ask(cluster, "POST", PODS, POD)
    (entry,) = made["metadata"]["managedFields"]
    assert "f:annotations" not in entry["fieldsV1"].get("f:metadata", {})


async def test_what_was_there_before_the_first_apply(cluster: ApiCluster) -> None:
    await ask(cluster, "POST", PODS, POD)
    await ask(cluster, "PATCH", f"{PODS}/p", {"metadata": {"managedFields": [{}]}}, MERGE)
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"mine": "1"}}}
    _, made, _ = await ask(cluster, "PATCH", f"{PODS}/p?fieldManager=m", body, APPLY)
    entries = {each["manager"]: each["fieldsV1"] for each in made["metadata"]["managedFields"]}
    assert set(entries) == {"m", "before-first-apply"}
    assert "f:status" not in entries["before-first-apply"]


async def test_an_applied_document_that_says_something_twice(cluster: ApiCluster) -> None:
    body = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  a: b\n  a: c\n"
    path = "/api/v1/namespaces/default/configmaps/c?fieldManager=m"
    status, answer, _ = await ask(cluster, "PATCH", f"{path}&fieldValidation=Strict", body, APPLY)
    assert status == 400
    assert answer["message"].startswith(
        "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal err"
    )
    assert 'key "a" already set in map' in answer["message"]
    status, made, _ = await ask(cluster, "PATCH", path, body, APPLY)
    assert (status, made["data"]) == (201, {"a": "c"})


async def test_what_could_be_taken_for_html_is_escaped(cluster: ApiCluster) -> None:
    odd, plain = "a<b>&c\u2028\u2029", "\u2026\u00e9"
    body = {"metadata": {"name": "odd"}, "data": {"k": odd, "l": plain}}
    assert (await ask(cluster, "POST", "/api/v1/namespaces/default/configmaps", body))[1]["data"]["k"] == odd
    for path in ("/odd", "", "?watch=true&sendInitialEvents=true&allowWatchBookmarks=true"
                 "&resourceVersionMatch=NotOlderThan&timeoutSeconds=1"):  # fmt: skip
        response = await cluster.transport.request("GET", f"/api/v1/namespaces/default/configmaps{path}", [], b"")
        text = await response.read()
        assert rb'"k":"a\u003cb\u003e\u0026c\u2028\u2029"' in text and plain.encode() in text


async def test_an_update_is_warned_of_what_it_adds(cluster: ApiCluster) -> None:
    path = "/apis/storage.k8s.io/v1/csidrivers"
    status, made, warnings = await ask(cluster, "POST", path, {"metadata": {"name": "d"}, "spec": {}})
    assert (status, warnings) == (201, [])
    made["spec"]["tokenRequests"] = [{"audience": "a"}]
    status, made, warnings = await ask(cluster, "PUT", f"{path}/d", made)
    assert status == 200
    assert "spec.serviceAccountTokenInSecrets is unset" in warnings[0]
    made["spec"]["requiresRepublish"] = True
    status, made, warnings = await ask(cluster, "PUT", f"{path}/d", made)
    assert (status, warnings) == (200, [])
    unnamed = {**made, "metadata": {}}
    status, answer, _ = await ask(cluster, "PUT", f"{path}/d", unnamed)
    assert (status, answer["message"]) == (
        400,
        "the name of the object (d based on URL) was undeterminable: name must be provided",
    )


async def test_updates_of_something_else(cluster: ApiCluster) -> None:
    base = "/api/v1/namespaces/default/configmaps"
    _, made, _ = await ask(cluster, "POST", base, {"metadata": {"name": "same"}, "data": {"a": "b"}})
    uid, path = made["metadata"]["uid"], f"{base}/same"
    other = {**made, "metadata": {**made["metadata"], "uid": "1"}}
    status, answer, _ = await ask(cluster, "PUT", path, other)
    assert (status, answer["message"]) == (
        409,
        'Operation cannot be fulfilled on configmaps "same": StorageError: invalid object, Code: 4, '
        "Key: /registry/configmaps/default/same, ResourceVersion: 0, AdditionalErrorMsg: "
        f"Precondition failed: UID in precondition: 1, UID in object meta: {uid}",
    )
    odd = {**made, "metadata": {**made["metadata"], "resourceVersion": "abc"}}
    status, answer, _ = await ask(cluster, "PUT", path, odd)
    assert (status, answer["message"]) == (500, 'strconv.ParseUint: parsing "abc": invalid syntax')
    lease = {"metadata": {"name": "new", "uid": "1"}, "spec": {}}
    where = "/apis/coordination.k8s.io/v1/namespaces/default/leases/new"
    status, answer, _ = await ask(cluster, "PUT", where, lease)
    assert (status, answer["message"].partition("Key: ")[2]) == (
        409,
        "/leases/default/new, ResourceVersion: 0, AdditionalErrorMsg: "
        "Precondition failed: UID in precondition: 1, UID in object meta: ",
    )


async def test_patches_that_take_the_name_or_say_too_much(cluster: ApiCluster) -> None:
    base = "/api/v1/namespaces/default/configmaps"
    await ask(cluster, "POST", base, {"metadata": {"name": "patched"}, "data": {"a": "b"}})
    path = f"{base}/patched"
    status, answer, _ = await ask(cluster, "PATCH", path, {"metadata": None}, MERGE)
    text = "the name of the object (patched based on URL) was undeterminable: name must be provided"
    assert (status, answer["message"]) == (400, text)
    more = {"foo": 1, "metadata": {"baz": 1}, "spec": {"zap": 1}}
    _, answer, _ = await ask(cluster, "PATCH", f"{path}?fieldValidation=Strict", more, STRATEGIC)
    assert answer["message"] == (
        ' "" is invalid: patch: Invalid value: "map[foo:1 metadata:map[baz:1] spec:map[zap:1]]": '
        'strict decoding error: unknown field "foo", unknown field "metadata.baz", unknown field "spec"'
    )
