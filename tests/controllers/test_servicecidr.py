"""Service ranges become ready, and stay as long as a service needs them."""

from __future__ import annotations

import base64
import hmac
from ipaddress import ip_address

import pytest

from steersman.api.resource import CONFIGMAPS, SECRETS, SERVICES, Object
from steersman.controllers.servicecidr import FINALIZER, SERVICECIDRS, removable
from steersman.lib.clock import rfc3339

from .conftest import World
from .objects import service


def cidr(name: str, *cidrs: str) -> Object:
    return {"metadata": {"name": name}, "spec": {"cidrs": list(cidrs)}}


SMALL, BIG, OTHER = cidr("small", "10.0.0.0/28"), cidr("big", "10.0.0.0/24"), cidr("other", "10.1.0.0/24", "fd00::/112")


@pytest.mark.parametrize(
    ("leaving", "others", "addresses", "free"),
    [
        (SMALL, [BIG], ["10.0.0.1"], True),
        (BIG, [SMALL], ["10.0.0.1"], True),
        (BIG, [SMALL], ["10.0.0.99"], False),
        (OTHER, [BIG], [], True),
        (OTHER, [BIG], ["fd00::1"], False),
        (OTHER, [BIG], ["10.0.0.1"], True),
    ],
)
def test_a_range_goes_when_nobody_is_left_outside(
    leaving: Object, others: list[Object], addresses: list[str], free: bool
) -> None:
    assert removable(leaving, [leaving, *others], map(ip_address, addresses)) is free


async def test_a_range_is_ready_and_waits_for_its_services(world: World) -> None:
    world.start("service-cidr-controller")
    await world.client.create(SERVICECIDRS, cidr("extra", "10.99.0.0/24"))
    await world.settle()
    found = await world.get(SERVICECIDRS, "extra")
    assert FINALIZER in found["metadata"]["finalizers"]
    (ready,) = found["status"]["conditions"]
    assert (ready["type"], ready["status"], ready["message"]) == ("Ready", "True", "Kubernetes Service CIDR is ready")

    await world.client.create(SERVICES, service(clusterIP="10.99.0.7", clusterIPs=["10.99.0.7"]), "default")
    await world.client.delete(SERVICECIDRS, "extra")
    await world.settle(60)
    (waiting,) = (await world.get(SERVICECIDRS, "extra"))["status"]["conditions"]
    assert (waiting["status"], waiting["reason"]) == ("False", "Terminating")
    await world.client.delete(SERVICES, "web", "default")
    await world.settle(60)
    assert "extra" not in await world.names(SERVICECIDRS)


async def test_an_unused_range_goes_after_its_grace(world: World) -> None:
    world.start("service-cidr-controller")
    await world.client.create(SERVICECIDRS, cidr("extra", "10.99.0.0/24"))
    await world.settle()
    await world.client.delete(SERVICECIDRS, "extra")
    await world.settle(5)
    assert "extra" in await world.names(SERVICECIDRS)
    await world.settle(10)
    assert "extra" not in await world.names(SERVICECIDRS)


async def test_bootstrap_tokens_end(world: World) -> None:
    world.start("token-cleaner-controller")

    def token(name: str, until: str) -> Object:
        data = {"expiration": base64.b64encode(until.encode()).decode()} if until else {}
        kind = "bootstrap.kubernetes.io/token"
        return {"metadata": {"name": f"bootstrap-token-{name}"}, "type": kind, "data": data}

    soon = rfc3339(world.clock.now() + 600)
    for name, until in (("ending", soon), ("broken", "tomorrow"), ("lasting", "")):
        await world.client.create(SECRETS, token(name, until), "kube-system")
    await world.settle(60)
    assert await world.names(SECRETS, "kube-system") == ["bootstrap-token-ending", "bootstrap-token-lasting"]
    await world.settle(600)
    assert await world.names(SECRETS, "kube-system") == ["bootstrap-token-lasting"]


async def test_cluster_info_is_signed_with_every_token_that_may(world: World) -> None:
    world.start("bootstrap-signer-controller")

    def token(name: str, **data: str) -> Object:
        fields = {"token-id": name, "token-secret": "0123456789abcdef", "usage-bootstrap-signing": "true", **data}
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in fields.items()}
        meta = {"name": f"bootstrap-token-{name}"}
        return {"metadata": meta, "type": "bootstrap.kubernetes.io/token", "data": encoded}

    info = {"metadata": {"name": "cluster-info"}, "data": {"kubeconfig": "a: b\n", "jws-kubeconfig-gone00": "x"}}
    await world.client.create(CONFIGMAPS, info, "kube-public")
    for made in (
        token("abcdef"),
        token("barred", **{"usage-bootstrap-signing": "false"}),
        token("ended0", expiration="2020-01-01T00:00:00Z"),
        token("broken", expiration="tomorrow"),
        token("other0", **{"token-id": "misfit"}),
    ):
        await world.client.create(SECRETS, made, "kube-system")
    await world.settle()
    data = (await world.client.get(CONFIGMAPS, "cluster-info", "kube-public"))["data"]
    assert sorted(data) == ["jws-kubeconfig-abcdef", "kubeconfig"]
    head, middle, mark = data["jws-kubeconfig-abcdef"].split(".")
    assert base64.urlsafe_b64decode(head + "==") == b'{"alg":"HS256","kid":"abcdef"}' and middle == ""
    payload = base64.urlsafe_b64encode(b"a: b\n").rstrip(b"=")
    expected = hmac.digest(b"0123456789abcdef", head.encode() + b"." + payload, "sha256")
    assert base64.urlsafe_b64decode(mark + "=") == expected
    await world.client.delete(SECRETS, "bootstrap-token-abcdef", "kube-system")
    await world.settle()
    assert list((await world.client.get(CONFIGMAPS, "cluster-info", "kube-public"))["data"]) == ["kubeconfig"]
