"""Bearer tokens: service accounts', bound to objects and to time, and those that nodes join with."""

from __future__ import annotations

import base64

import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import NODES, PODS, SECRETS, SERVICEACCOUNTS, Object
from steersman.apiserver.authn.bearer import Bearer, own_sources
from steersman.apiserver.authn.serviceaccount import bearer
from steersman.apiserver.call import User
from steersman.lib.clock import rfc3339
from steersman.lib.http.messages import Request
from tests.apiserver.guarded import ISSUER, Guarded

BOOTSTRAP = "abcdef.0123456789abcdef"


class Later:
    """A clock that is ahead of another."""

    def __init__(self, guarded: Guarded, seconds: float) -> None:
        self._clock, self._seconds = guarded.clock, seconds

    def now(self) -> float:
        return self._clock.now() + self._seconds

    def monotonic(self) -> float:
        return self._clock.monotonic() + self._seconds

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)


def who(guarded: Guarded, token: str, ahead: float = 0) -> User:
    server = guarded.server
    ask = Bearer(own_sources(guarded.tokens, server.storage, server.registry, Later(guarded, ahead)), [ISSUER])
    user = ask(Request("GET", "/", headers=[("authorization", f"Bearer {token}")]))
    assert isinstance(user, User)
    return user


def refused(guarded: Guarded, token: str, ahead: float = 0) -> bool:
    try:
        who(guarded, token, ahead)
    except ApiError as error:
        return error.code == 401
    return False


async def token_of(guarded: Guarded, bound: Object | None = None, seconds: int = 600, audiences: str = "") -> str:
    spec: Object = {"expirationSeconds": seconds, "audiences": audiences.split() or None, "boundObjectRef": bound}
    body = {"spec": {key: value for key, value in spec.items() if value is not None}}
    client = guarded.client("admin")
    made = await client.create(SERVICEACCOUNTS, body, "default", name="robot", subresource="token")
    return str(made["status"]["token"])


async def with_robot(guarded: Guarded) -> None:
    await guarded.client("admin").create(SERVICEACCOUNTS, {"metadata": {"name": "robot"}}, "default")


async def test_a_pods_token_tells_pod_and_node_and_dies_with_the_pod(guarded: Guarded) -> None:
    await with_robot(guarded)
    admin = guarded.client("admin")
    node = await admin.create(NODES, {"metadata": {"name": "n1"}})
    containers = [{"name": "c", "image": "i"}]
    spec = {"nodeName": "n1", "serviceAccountName": "robot", "containers": containers}
    pod = await admin.create(PODS, {"metadata": {"name": "p"}, "spec": spec}, "default")
    token = await token_of(guarded, {"kind": "Pod", "apiVersion": "v1", "name": "p"}, 3607)
    user = who(guarded, token)
    assert user.name == "system:serviceaccount:default:robot"
    assert user.groups == ("system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated")
    about = {key.rpartition("/")[2]: value[0] for key, value in user.extra.items()}
    assert about.pop("credential-id").startswith("JTI=")
    uids = {"pod-uid": pod["metadata"]["uid"], "node-uid": node["metadata"]["uid"]}
    assert about == {"pod-name": "p", "node-name": "n1", **uids}
    assert not refused(guarded, token, ahead=300 * 24 * 3600), "pods' tokens are extended to a year"
    await admin.delete(PODS, "p", "default", grace_seconds=0)
    assert refused(guarded, token)


@pytest.mark.parametrize(("resource", "namespace"), [(SECRETS, "default"), (NODES, "")])
async def test_a_token_dies_with_what_it_is_bound_to(guarded: Guarded, resource: object, namespace: str) -> None:
    await with_robot(guarded)
    admin = guarded.client("admin")
    kind = SECRETS if resource is SECRETS else NODES
    await admin.create(kind, {"metadata": {"name": "it"}}, namespace)
    token = await token_of(guarded, {"kind": kind.kind, "apiVersion": "v1", "name": "it"})
    assert not refused(guarded, token)
    await admin.delete(kind, "it", namespace)
    await admin.create(kind, {"metadata": {"name": "it"}}, namespace)
    assert refused(guarded, token), "another object with the same name is not it"


async def test_a_token_is_good_for_its_time_and_audience(guarded: Guarded) -> None:
    await with_robot(guarded)
    token = await token_of(guarded)
    assert not refused(guarded, token, ahead=650), "clocks may differ by a minute"
    assert refused(guarded, token, ahead=661)
    assert refused(guarded, token, ahead=-120)
    assert refused(guarded, await token_of(guarded, audiences="somebody-else"))
    assert not refused(guarded, await token_of(guarded, audiences=f"somebody-else {ISSUER}"))


def test_where_the_token_stands() -> None:
    def seen(*headers: tuple[str, str]) -> str:
        return bearer(Request("GET", "/", headers=list(headers)))

    assert seen(("authorization", "bEaReR  x")) == ""
    assert seen(("authorization", " Bearer x y")) == "x"
    assert seen(("authorization", "Basic eA==")) == ""
    encoded = base64.urlsafe_b64encode(b"a.b").decode().rstrip("=")
    protocols = f"v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.{encoded}"
    assert seen(("upgrade", "WebSocket"), ("sec-websocket-protocol", protocols)) == "a.b"
    assert seen(("sec-websocket-protocol", protocols)) == ""


@pytest.mark.parametrize("protocols", ["{0}eA", "v4.channel.k8s.io, {0}eA, {0}eA", "v4.channel.k8s.io, {0}____"])
def test_bad_tokens_in_subprotocols_are_401(guarded: Guarded, protocols: str) -> None:
    text = protocols.format("base64url.bearer.authorization.k8s.io.")
    request = Request("GET", "/", headers=[("upgrade", "websocket"), ("sec-websocket-protocol", text)])
    server = guarded.server
    ask = Bearer(own_sources(guarded.tokens, server.storage, server.registry, guarded.clock), [ISSUER])
    with pytest.raises(ApiError) as caught:
        ask(request)
    assert caught.value.code == 401


def bootstrap_secret(**changes: str) -> Object:
    data = {
        "token-id": "abcdef",
        "token-secret": "0123456789abcdef",
        "usage-bootstrap-authentication": "true",
        "auth-extra-groups": "system:bootstrappers:nodes",
        **changes,
    }
    return {
        "metadata": {"name": "bootstrap-token-abcdef"},
        "type": "bootstrap.kubernetes.io/token",
        "stringData": {key.replace("_", "-"): value for key, value in data.items()},
    }


async def test_a_bootstrap_token_names_a_bootstrapper(guarded: Guarded) -> None:
    assert refused(guarded, BOOTSTRAP)
    await guarded.client("admin").create(SECRETS, bootstrap_secret(), "kube-system")
    user = who(guarded, BOOTSTRAP)
    assert user.name == "system:bootstrap:abcdef"
    assert user.groups == ("system:bootstrappers", "system:bootstrappers:nodes", "system:authenticated")
    assert refused(guarded, "abcdef.0123456789abcdee")


@pytest.mark.parametrize(
    "changes",
    [
        {"token-secret": "another"},
        {"token-id": "zzzzzz"},
        {"usage-bootstrap-authentication": "false"},
        {"auth-extra-groups": "system:masters"},
        {"expiration": rfc3339(1_000_000_000)},
        {"expiration": "tomorrow"},
    ],
)
async def test_a_bootstrap_token_that_is_no_good(guarded: Guarded, changes: dict[str, str]) -> None:
    await guarded.client("admin").create(SECRETS, bootstrap_secret(**changes), "kube-system")
    assert refused(guarded, BOOTSTRAP)
