"""What the simulation plays of proofs of who somebody is: certificate requests, bootstrap tokens, accounts' tokens."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from functools import cache
from random import Random

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from steersman.api.errors import ApiError
from steersman.api.resource import CONFIGMAPS, PODS, SECRETS, SERVICEACCOUNTS, Object
from steersman.controllers.bootstrapsigner import signed
from steersman.controllers.certificates.requests import CLIENT, KUBELET_CLIENT, REQUESTS, condition
from steersman.controllers.tokencleaner import expires
from steersman.lib.clock import rfc3339
from steersman.testing.objects import config_map, pod
from steersman.testing.simulation import Simulation
from tests.controllers.test_certificates import authority, request

from .scenarios import NAMESPACE

_TOKEN = "kubernetes.io/service-account-token"
_NAME, _UID = "kubernetes.io/service-account.name", "kubernetes.io/service-account.uid"
_TRACKING = "kube-apiserver-legacy-service-account-token-tracking"
_INVALID, _USED = "kubernetes.io/legacy-token-invalid-since", "kubernetes.io/legacy-token-last-used"


@cache
def _authority() -> tuple[str, str]:
    return authority()


@cache
def _asked(signer: str) -> Object:
    return dict(request(signer=signer)["spec"])


@cache
def _account_key() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain).decode()


async def _unless_gone(work: object) -> None:
    """Do it; what it is about may be gone, or be changed by somebody else first."""
    try:
        await work  # type: ignore[misc]
    except ApiError as error:
        assert error.code in (404, 409), error


class Requests:
    """Requests for certificates: nodes' are approved, others when somebody does; one certificate each, then they go."""

    controllers: Sequence[str] = (
        "certificatesigningrequest-approving-controller",
        "certificatesigningrequest-signing-controller",
        "certificatesigningrequest-cleaner-controller",
    )

    def __init__(self, random: Random) -> None:
        ways = ("node", "node", "approved", "denied", "nobody")
        self.asked = {f"r-{number}": random.choice(ways) for number in range(random.randint(1, 5))}
        self.issued: dict[str, str] = {}
        certificate, key = _authority()
        self.settings: Mapping[str, str] = {"root-ca": certificate, "root-ca-key": key}

    def start(self, world: Simulation) -> None:
        world.always(REQUESTS, lambda: self._wrong(world))

    def _wrong(self, world: Simulation) -> str:
        for each in world.all(REQUESTS):
            name = each["metadata"]["name"]
            made = (each.get("status") or {}).get("certificate")
            if made and self.issued.setdefault(name, made) != made:
                return f"{name} was given two certificates"
            if made and condition(each, "Approved") is None:
                return f"{name} has a certificate that nobody approved"
        return ""

    async def play(self, world: Simulation) -> None:
        for name, way in self.asked.items():
            spec = _asked(KUBELET_CLIENT if way == "node" else CLIENT)
            await world.client.create(REQUESTS, {"metadata": {"name": name}, "spec": spec})
            await world.pause(world.random.random() * 10)
            if way in ("approved", "denied"):
                kind = {"type": way.title(), "status": "True", "lastUpdateTime": rfc3339(world.clock.now())}
                body = {"status": {"conditions": [{**kind, "reason": "Somebody"}]}}
                await world.client.patch(REQUESTS, name, "", body, subresource="approval")
        await world.pause(world.random.random() * 30)

    def complaint(self, world: Simulation) -> str:
        if (right := {name for name, way in self.asked.items() if way in ("node", "approved")}) != set(self.issued):
            return f"certificates for {sorted(self.issued)}, not {sorted(right)}"
        left = {each["metadata"]["name"] for each in world.all(REQUESTS)}
        wanted = {name for name, way in self.asked.items() if way == "nobody"}
        return "" if left == wanted else f"requests {left} are left, not {wanted}"


def _bootstrap(name: str, until: float | None) -> Object:
    data = {"token-id": name, "token-secret": f"secret-of-{name}", "usage-bootstrap-signing": "true"}
    if until is not None:
        data["expiration"] = rfc3339(until)
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    meta = {"name": f"bootstrap-token-{name}"}
    return {"metadata": meta, "type": "bootstrap.kubernetes.io/token", "data": encoded}


class BootstrapTokens:
    """Tokens that come, are withdrawn and run out: cluster-info is signed with those that are there, and no others."""

    controllers: Sequence[str] = ("token-cleaner-controller", "bootstrap-signer-controller")

    def __init__(self, random: Random) -> None:
        self.there: dict[str, float | None] = {}  # until when
        self.early: set[str] = set()

    def start(self, world: Simulation) -> None:
        world.seen.informer(CONFIGMAPS)
        world.always(SECRETS, lambda: self._lost(world))

    def _lost(self, world: Simulation) -> str:
        now, found = world.clock.now(), {each["metadata"]["name"] for each in world.all(SECRETS)}
        self.early |= {name for name in self.there if f"bootstrap-token-{name}" in found}
        for name in self.early & set(self.there):
            if f"bootstrap-token-{name}" not in found and now < (self.there[name] or now + 1):
                return f"token {name} went before its time"
        return ""

    async def play(self, world: Simulation) -> None:
        info = config_map("cluster-info", kubeconfig="a")
        await world.client.create(CONFIGMAPS, info, "kube-public")
        for number in range(world.random.randint(2, 9)):
            await world.pause(world.random.random() * 15)
            act = world.random.choice(("token", "token", "withdraw", "content", "spoil"))
            if act == "token":
                life = world.random.choice((None, 20.0, 60.0))
                name = f"tok{number:03}"
                self.there[name] = None if life is None else float(int(world.clock.now() + life))
                await world.client.create(SECRETS, _bootstrap(name, self.there[name]), "kube-system")
            elif act == "withdraw" and self.there:
                del self.there[gone := min(self.there)]
                self.early.discard(gone)
                await _unless_gone(world.client.delete(SECRETS, f"bootstrap-token-{gone}", "kube-system"))
            else:
                changed = {"kubeconfig": str(number)} if act == "content" else {"jws-kubeconfig-evil00": "x"}
                await world.client.patch(CONFIGMAPS, "cluster-info", "kube-public", {"data": changed})

    def complaint(self, world: Simulation) -> str:
        tokens, now = world.all(SECRETS), world.clock.now()
        if late := [each["metadata"]["name"] for each in tokens if (expires(each) or now + 1) <= now]:
            return f"{late} have run out, and are there"
        (info,) = world.all(CONFIGMAPS)
        wanted = signed(info["data"], tokens, now)
        return "" if info["data"] == wanted else f"{sorted(info['data'])}, not {sorted(wanted)}"


class AccountTokens:
    """Secrets for accounts' tokens: filled for those that are there, gone with those that go."""

    controllers: Sequence[str] = ("serviceaccount-token-controller",)

    def __init__(self, random: Random) -> None:
        self.acts = [random.choice(("account", "secret", "secret", "unaccount")) for _ in range(random.randint(3, 12))]
        self.settings: Mapping[str, str] = {"root-ca": "ca", "service-account-private-key": _account_key()}
        self.accounts: set[str] = set()

    def start(self, world: Simulation) -> None:
        world.seen.informer(SERVICEACCOUNTS)
        world.seen.informer(SECRETS)

    async def play(self, world: Simulation) -> None:
        for number, act in enumerate(self.acts):
            await world.pause(world.random.random() * world.random.choice((0.1, 8)))
            name = world.random.choice(("a", "b"))
            if act == "account" and name not in self.accounts:
                self.accounts.add(name)
                await world.client.create(SERVICEACCOUNTS, {"metadata": {"name": name}}, NAMESPACE)
            elif act == "unaccount" and name in self.accounts:
                self.accounts.discard(name)
                await world.client.delete(SERVICEACCOUNTS, name, NAMESPACE)
            elif act == "secret":
                meta = {"name": f"t-{number}", "annotations": {_NAME: name}}
                await world.client.create(SECRETS, {"metadata": meta, "type": _TOKEN}, NAMESPACE)

    def complaint(self, world: Simulation) -> str:
        uids = {each["metadata"]["name"]: each["metadata"]["uid"] for each in world.all(SERVICEACCOUNTS)}
        for each in world.all(SECRETS):
            said = each["metadata"]["annotations"]
            if said.get(_UID) != uids.get(said[_NAME], "none") or not (each.get("data") or {}).get("token"):
                return f"{each['metadata']['name']} is of {said}, accounts are {uids}"
        return ""


class OldTokens:
    """Tokens of long ago that nobody uses: they are marked, and go when they are marked for long; used ones stay."""

    controllers: Sequence[str] = ("legacy-serviceaccount-token-cleaner-controller",)
    settings: Mapping[str, str] = {"legacy-service-account-token-clean-up-period": "60"}

    def __init__(self, random: Random) -> None:
        ways = ("idle", "marked", "used", "mounted", "loose")
        self.tokens = {f"t-{number}": random.choice(ways) for number in range(random.randint(1, 6))}

    def start(self, world: Simulation) -> None:
        world.always(SECRETS, lambda: self._wrong(world))

    def _wrong(self, world: Simulation) -> str:
        there = {each["metadata"]["name"] for each in world.all(SECRETS)}
        if lost := [name for name, way in self.tokens.items() if way in self.kept and name not in there]:
            return f"{lost} are gone"
        return ""

    kept: Sequence[str] = ()  # ways of which all must be there

    async def play(self, world: Simulation) -> None:
        listed = [{"name": name} for name, way in self.tokens.items() if way != "loose"]
        account = {"metadata": {"name": "robot"}, "secrets": listed}
        await world.client.create(SERVICEACCOUNTS, account, NAMESPACE)
        for name, way in self.tokens.items():
            if way == "mounted":
                volume = {"name": "v", "secret": {"secretName": name}}
                await world.client.create(PODS, pod(f"p-{name}", volumes=[volume]), NAMESPACE)
            labels = {"marked": {_INVALID: "2000-01-01"}, "used": {_USED: "2099-01-01"}}.get(way, {})
            meta = {"name": name, "annotations": {_NAME: "robot"}, "labels": labels}
            body = {"metadata": meta, "type": _TOKEN, "data": {"token": "eA=="}}
            await world.client.create(SECRETS, body, NAMESPACE)
        await world.pause(90)
        self.kept = ("idle", "used", "mounted", "loose")
        await world.client.create(CONFIGMAPS, config_map(_TRACKING, since="2000-01-01"), "kube-system")
        await world.pause(world.random.random() * 60)

    def complaint(self, world: Simulation) -> str:
        found = {each["metadata"]["name"]: each["metadata"].get("labels") or {} for each in world.all(SECRETS)}
        if set(found) != {name for name, way in self.tokens.items() if way != "marked"}:
            return f"{sorted(found)} are left of {self.tokens}"
        marked = {name for name, labels in found.items() if _INVALID in labels}
        wanted = {name for name, way in self.tokens.items() if way == "idle"}
        return "" if marked == wanted else f"{marked} are marked, not {wanted}"


TRUST = (Requests, BootstrapTokens, AccountTokens, OldTokens)
