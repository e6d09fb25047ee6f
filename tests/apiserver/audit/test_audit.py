"""Audit events: what a policy chooses, what an event says, and where it goes."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from steersman.api import protobuf
from steersman.api.resource import CONFIGMAPS, NAMESPACES, PODS, SERVICEACCOUNTS, Object
from steersman.apiserver.audit import policy
from steersman.apiserver.audit.policy import Policy
from steersman.apiserver.audit.sinks import LogFile, WebhookSink
from steersman.apiserver.audit.trail import Auditor
from steersman.apiserver.audit.truncate import TRUNCATED, Truncate
from steersman.apiserver.call import User
from steersman.apiserver.request import RequestInfo
from steersman.apiserver.webhookclient import from_kubeconfig
from steersman.cluster.auditing import auditor
from steersman.cluster.process import StartFailure
from steersman.lib.clock import SystemClock
from steersman.lib.http.messages import Request, Response
from steersman.lib.tasks import Tasks
from tests.apiserver.authz.test_escalation import grant, rule
from tests.apiserver.guarded import Guarded, status
from tests.apiserver.remote import Remote

EVERYTHING = Policy([{"level": "RequestResponse"}], ["RequestReceived"])


def audited(guarded: Guarded, chosen: Policy | None = EVERYTHING) -> list[Object]:
    """The events of everything from here on."""
    events: list[Object] = []
    guarded.server.audit = Auditor(chosen, [events.append], guarded.clock, Random(1))
    return events


async def test_an_event_says_who_did_what(guarded: Guarded) -> None:
    await grant(guarded, rule("create", "", "configmaps"), user="jane")
    events = audited(guarded)
    body = {"metadata": {"name": "a"}, "data": {"k": "v"}}
    await guarded.client("jane,dev").create(CONFIGMAPS, body, "default")
    (event,) = events
    assert {key: event[key] for key in ("kind", "apiVersion", "level", "stage", "verb", "userAgent")} == {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "RequestResponse",
        "stage": "ResponseComplete",
        "verb": "create",
        "userAgent": "tests",
    }
    assert event["requestURI"].startswith("/api/v1/namespaces/default/configmaps")
    assert event["user"] == {"username": "jane", "groups": ["dev", "system:authenticated"]}
    reference = {"resource": "configmaps", "namespace": "default", "name": "a", "apiVersion": "v1"}
    assert (event["objectRef"], event["sourceIPs"]) == (reference, ["127.0.0.1"])
    assert event["responseStatus"] == {"metadata": {}, "code": 201}
    assert event["requestObject"]["data"] == event["responseObject"]["data"] == {"k": "v"}
    assert event["annotations"] == {
        "authorization.k8s.io/decision": "allow",
        "authorization.k8s.io/reason": 'RBAC: allowed by ClusterRoleBinding "of-jane-jane" of ClusterRole "of-jane" to '
        'User "jane"',
    }
    assert event["requestReceivedTimestamp"] <= event["stageTimestamp"]


async def test_refusals_and_people_who_act_as_others(guarded: Guarded) -> None:
    events = audited(guarded)
    assert (await status(guarded.client("jane"), "GET", "/api/v1/secrets"))[0] == 403
    told = events[-1]
    assert (told["responseStatus"]["code"], told["responseStatus"]["reason"]) == (403, "Forbidden")
    assert told["annotations"]["authorization.k8s.io/decision"] == "forbid"
    await guarded.client("admin").transport.request("GET", "/api/v1/pods", [("impersonate-user", "joe")])
    assert events[-1]["user"]["username"] == "kubernetes-admin"
    assert events[-1]["impersonatedUser"] == {"username": "joe", "groups": ["system:authenticated"]}
    assert (await status(guarded.client(token="bad"), "GET", "/api/v1/pods"))[0] == 401
    assert (events[-1]["stage"], events[-1]["user"]) == ("ResponseStarted", {})
    assert (events[-1]["responseStatus"]["message"], events[-1]["responseStatus"]["reason"]) == ("Unauthorized",) * 2


async def test_a_watch_has_a_beginning_and_an_end(guarded: Guarded) -> None:
    events = audited(guarded, Policy([{"level": "Metadata"}]))
    response = await guarded.client("admin").transport.request("GET", "/api/v1/pods?watch=1&timeoutSeconds=1")
    assert [event["stage"] for event in events] == ["RequestReceived", "ResponseStarted"]
    await response.close()
    await guarded.server.close()
    assert len({event["auditID"] for event in events}) == 1


async def test_every_answer_has_an_audit_id(guarded: Guarded) -> None:
    for chosen in (None, EVERYTHING):
        events = audited(guarded, chosen)
        transport = guarded.client("admin").transport
        first = (await transport.request("GET", "/api/v1/pods")).header("audit-id")
        assert first and len(first) == 36
        given = await transport.request("GET", "/api/v1/pods", [("audit-id", "mine")])
        assert given.header("audit-id") == "mine"
        assert [event["auditID"] for event in events] == ([first, "mine"] if chosen else [])
        long = await transport.request("GET", "/api/v1/pods", [("audit-id", "x" * 5000)])
        assert long.header("audit-id") == "x" * 64


async def test_protobuf_bodies_are_shown_as_objects(guarded: Guarded) -> None:
    events = audited(guarded)
    obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "p"}, "data": {"k": "v"}}
    media = "application/vnd.kubernetes.protobuf"
    headers = [("content-type", media), ("accept", media)]
    path = CONFIGMAPS.path("default")
    await guarded.client("admin").transport.request("POST", path, headers, protobuf.encode(obj))
    assert events[-1]["requestObject"]["data"] == events[-1]["responseObject"]["data"] == {"k": "v"}
    await guarded.client("admin").transport.request("POST", path, headers, b"k8s\x00\xff\xff")
    assert (events[-1]["responseStatus"]["code"], "requestObject" in events[-1]) == (400, False)


async def test_managed_fields_can_be_left_out(guarded: Guarded) -> None:
    for omit in (False, True):
        events = audited(guarded, Policy([{"level": "RequestResponse"}], omit_managed=omit))
        await guarded.client("admin").list(NAMESPACES, "")
        items = events[-1]["responseObject"]["items"]
        assert items and all(("managedFields" in item["metadata"]) is not omit for item in items)


async def test_pod_security_leaves_its_mark(guarded: Guarded) -> None:
    admin = guarded.client("admin")
    labels = {"pod-security.kubernetes.io/audit": "restricted"}
    await admin.create(NAMESPACES, {"metadata": {"name": "n", "labels": labels}})
    await admin.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, "n")
    events = audited(guarded)
    await admin.create(PODS, {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}, "n")
    found = events[-1]["annotations"]
    assert found["pod-security.kubernetes.io/enforce-policy"] == "privileged:latest"
    text = 'would violate PodSecurity "restricted:latest": allowPrivilegeEscalation != false'
    assert found["pod-security.kubernetes.io/audit-violations"].startswith(text)


_JANE = User("jane", ("dev",))
_LOG = RequestInfo("", "get", True, "", "v1", "pods", "log", "default", "p")
_PATH = RequestInfo("/healthz/etcd", "get")


@pytest.mark.parametrize(
    ("wanted", "info", "means"),
    [
        ({}, _LOG, True),
        ({"users": ["jane"]}, _LOG, True),
        ({"users": ["joe"]}, _LOG, False),
        ({"userGroups": ["dev"]}, _LOG, True),
        ({"userGroups": ["ops"]}, _LOG, False),
        ({"verbs": ["list"]}, _LOG, False),
        ({"namespaces": ["default"]}, _LOG, True),
        ({"namespaces": [""]}, _LOG, False),
        ({"resources": [{"group": ""}]}, _LOG, True),
        ({"resources": [{"group": "apps"}]}, _LOG, False),
        ({"resources": [{"resources": ["pods"]}]}, _LOG, False),
        ({"resources": [{"resources": ["pods/log"]}]}, _LOG, True),
        ({"resources": [{"resources": ["pods/*"]}]}, _LOG, True),
        ({"resources": [{"resources": ["*/log"]}]}, _LOG, True),
        ({"resources": [{"group": "*", "resources": ["*"], "resourceNames": ["q"]}]}, _LOG, False),
        ({"resources": [{"group": ""}]}, _PATH, False),
        ({"nonResourceURLs": ["/healthz*"]}, _PATH, True),
        ({"nonResourceURLs": ["/healthz"]}, _PATH, False),
        ({"nonResourceURLs": ["*"]}, _LOG, False),
    ],
)
def test_rules(wanted: Object, info: RequestInfo, means: bool) -> None:
    chosen = Policy([{"level": "Request", **wanted}, {"level": "None"}]).choose(_JANE, info)
    assert chosen.level == ("Request" if means else "None")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"kind": "Pod"}, "not a Policy"),
        ({"rules": []}, "0 rules"),
        ({"rules": [{}]}, r"rules\[0\].level: Required value"),
        ({"rules": [{"level": "All"}]}, 'Unsupported value: "All"'),
        ({"rules": [{"level": "None", "user": ["x"]}]}, "unknown field"),
        ({"rules": [{"level": "None", "users": "x"}]}, "not a list"),
        ({"rules": [{"level": "None", "omitStages": ["Never"]}]}, "allowed stages are"),
        ({"rules": [{"level": "None", "nonResourceURLs": ["x"]}]}, "must begin with a '/'"),
        ({"rules": [{"level": "None", "nonResourceURLs": ["/*/x"]}]}, "must be the final character"),
        ({"rules": [{"level": "None", "nonResourceURLs": ["/"], "namespaces": ["a"]}]}, "cannot apply to both"),
        ({"rules": [{"level": "None", "resources": [{"resourceNames": ["a"]}]}]}, "requires at least one resource"),
    ],
)
def test_policies_that_cannot_be_read(tmp_path: Path, changes: Object, why: str) -> None:
    file = tmp_path / "policy.yaml"
    fine = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]}
    file.write_text(json.dumps(fine))
    assert policy.read(file).choose(None, _PATH).level == "Metadata"
    file.write_text(json.dumps(fine | changes))
    with pytest.raises(ValueError, match=why):
        policy.read(file)


def test_a_log_file_is_rotated(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "audit.log"
    log = LogFile(str(path), SystemClock(), size=100, backups=2)
    for number in range(12):
        log({"number": number, "filler": "x" * 60})
    log.close()
    files = sorted(path.parent.iterdir())
    assert path in files and 2 <= len(files) <= 3
    lines = [msgspec.json.decode(line) for file in files for line in file.read_bytes().splitlines()]
    assert lines and all(path.stat().st_size <= 100 for path in files)
    again = LogFile(str(path), SystemClock(), size=100)
    again({"number": 99})
    again.close()
    assert b"99" in path.read_bytes()


async def test_a_webhook_gets_lists_of_events(tmp_path: Path) -> None:
    answers: list[Any] = [Response(400, []), {}]
    async with Remote(tmp_path, lambda request: answers[0]) as remote, Tasks() as tasks:
        sink = WebhookSink(from_kubeconfig(Path(remote.kubeconfig()), SystemClock()), SystemClock(), batch=2)
        for number in range(3):
            sink({"number": number})
        await sink.flush()
        assert [len(body["items"]) for body in remote.asked] == [2, 1]
        assert remote.asked[0]["kind"] == "EventList"
        remote.asked.clear()
        answers.pop(0)
        assert tasks is not None
        sink({"number": 3})
        await sink.flush()
        assert remote.asked[0]["items"] == [{"number": 3}]


async def test_a_batch_has_a_size(tmp_path: Path) -> None:
    async with Remote(tmp_path, lambda request: {}) as remote:
        sink = WebhookSink(from_kubeconfig(Path(remote.kubeconfig()), SystemClock()), SystemClock(), most=50)
        for number in range(3):
            sink({"number": number, "text": "x" * (60 if number == 1 else 1)})
        await sink.flush()
        assert [len(body["items"]) for body in remote.asked] == [1, 1, 1]
        sink({"number": 4})
        sink({"number": 5})
        await sink.flush()
        assert len(remote.asked[-1]["items"]) == 2


@pytest.mark.parametrize(
    ("level", "body", "user", "kept"),
    [("Request", 90, 1, "shortened"), ("RequestResponse", 10, 1, "whole"), ("RequestResponse", 90, 200, "dropped"),
     ("Metadata", 0, 200, "dropped")],
)  # fmt: skip
def test_large_events_lose_their_bodies(level: str, body: int, user: int, kept: str) -> None:
    events: list[Object] = []
    event = {"level": level, "user": "u" * user, "annotations": {"a": "b"}}
    event |= {"requestObject": "x" * body, "responseObject": "y" * body} if body else {}
    Truncate(events.append, 200)(event)
    if kept == "dropped":
        assert events == []
        return
    (shown,) = events
    assert (shown["annotations"].get(TRUNCATED), "requestObject" in shown) == (
        ("true", False) if kept == "shortened" else (None, True)
    )
    assert event["annotations"] == {"a": "b"}, "what others are given stays as it is"


async def test_flags(tmp_path: Path) -> None:
    (tmp_path / "policy").write_text('{"apiVersion":"audit.k8s.io/v1","kind":"Policy","rules":[{"level":"Metadata"}]}')
    flags = {"audit-policy-file": str(tmp_path / "policy"), "audit-log-path": str(tmp_path / "audit.log")}
    async with Tasks() as tasks:
        made = auditor(flags, SystemClock(), Random(), tasks)
        answer = made(Request("GET", "/x"), lambda request: Response(401, []))
        assert isinstance(answer, Response)
        assert b'"code":401' in (tmp_path / "audit.log").read_bytes()
        short = {"audit-log-truncate-enabled": "true", "audit-log-truncate-max-event-size": "50"}
        cut = auditor({**flags, **short}, SystemClock(), Random(), tasks)
        before = (tmp_path / "audit.log").stat().st_size
        cut(Request("GET", "/x"), lambda request: Response(401, []))
        assert (tmp_path / "audit.log").stat().st_size == before, "too large even after truncating"
        for wrong, why in (
            ({"audit-policy-file": "/none"}, "--audit-policy-file: "),
            ({"audit-log-path": str(tmp_path)}, "--audit-log-path: "),
            ({"audit-log-path": "-", "audit-log-maxsize": "big"}, 'invalid argument "big"'),
            ({"audit-webhook-config-file": "/none"}, "--audit-webhook-config-file: "),
            ({"audit-log-path": "-", "audit-log-truncate-max-event-size": "0"}, "invalid audit truncate log max event"),
            (
                {"audit-log-path": "-", "audit-log-truncate-max-batch-size": "5"},
                r"invalid audit truncate log max batch size 5, must be greater than max event size \(102400\)",
            ),
        ):
            with pytest.raises(StartFailure, match=why):
                auditor(wrong, SystemClock(), Random(), tasks)


async def test_a_body_is_shown_as_it_was_understood(guarded: Guarded) -> None:
    """With defaults; not where it was never looked at, or is of another kind."""
    events, admin, path = audited(guarded), guarded.client("admin"), "/api/v1/namespaces/default/configmaps"
    await admin.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, "default")
    await admin.create(
        PODS, {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}, "default"
    )
    shown = events[-1]["requestObject"]["spec"]
    assert (shown["restartPolicy"], "volumes" in shown) == ("Always", False)
    for client, body, code in ((guarded.client("jane"), {}, 403), (admin, {"kind": "Pod", "apiVersion": "v1"}, 400)):
        body["metadata"] = {"name": "x"}
        assert (await status(client, "POST", path, body))[0] == code
        assert ("requestObject" in events[-1], "name" in events[-1]["objectRef"]) == (False, False)
    assert (await status(admin, "DELETE", f"{path}/x", {"propagationPolicy": "Orphan"}))[0] == 404
    asked = {"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/__internal", "propagationPolicy": "Orphan"}
    assert events[-1]["requestObject"] == asked


async def test_who_may_do_everything_needs_no_reason(guarded: Guarded) -> None:
    events = audited(guarded)
    assert (await status(guarded.client("admin"), "GET", "/api/v1/pods"))[0] == 200
    assert events[-1]["annotations"]["authorization.k8s.io/reason"] == ""


async def test_long_requests_that_fail_have_a_beginning_too(guarded: Guarded) -> None:
    events = audited(guarded)
    assert (await status(guarded.client("admin"), "GET", "/api/v1/namespaces/default/pods/p/log"))[0] == 404
    assert [event["stage"] for event in events] == ["ResponseStarted", "ResponseComplete"]


@pytest.mark.parametrize(
    ("forwarded", "real", "shown"),
    [
        ("1.2.3.4, 5.6.7.8", "9.9.9.9", ["1.2.3.4", "5.6.7.8", "9.9.9.9", "127.0.0.1"]),
        ("1.2.3.4, nonsense", "1.2.3.4", ["1.2.3.4", "127.0.0.1"]),
        ("127.0.0.1", "", ["127.0.0.1"]),
        ("127.0.0.1, ::1", "x", ["127.0.0.1", "::1", "127.0.0.1"]),
    ],
)
async def test_sources(guarded: Guarded, forwarded: str, real: str, shown: list[str]) -> None:
    events = audited(guarded)
    headers = [("x-forwarded-for", forwarded), ("x-real-ip", real)]
    await guarded.client("admin").transport.request("GET", "/api/v1/pods", headers)
    assert events[-1]["sourceIPs"] == shown
