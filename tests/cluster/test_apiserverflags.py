"""What flags of kube-apiserver do: those that count, over a whole plane; those that do not, refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import DEPLOYMENTS, NAMESPACES, PODS, SERVICEACCOUNTS, Object
from steersman.cluster import apiserverflags as flags
from steersman.cluster.plane import ControlPlane
from steersman.cluster.process import StartFailure
from steersman.cluster.profile import ProfileError, check_extra_config

ORIGIN = [("origin", "https://ui.example.com")]
PRIVILEGED = {"name": "c", "image": "i", "securityContext": {"privileged": True}}


def plane(folder: Path, **given: str) -> ControlPlane:
    named = {name.replace("_", "-"): value for name, value in given.items()}
    return ControlPlane(folder, listen=None, controllers=(), flags=named)


def pod(name: str, container: Object) -> Object:
    spec = {"containers": [container], "automountServiceAccountToken": False}
    return {"metadata": {"name": name, "namespace": "n"}, "spec": spec}


async def prepared(made: ControlPlane) -> None:
    await made.client.create(NAMESPACES, {"metadata": {"name": "n"}})
    for name in ("default", "a"):
        await made.client.create(SERVICEACCOUNTS, {"metadata": {"name": name, "namespace": "n"}})


def test_every_flag_has_one_place() -> None:
    places = [set(flags.EFFECTIVE), set(flags.NOTHING), set(flags.REFUSED)]
    assert sum(map(len, places)) == len(set().union(*places)) == 171


@pytest.mark.parametrize(
    ("name", "words"),
    [("tls-min-version", "TLS begins at 1.2"), ("profiling", "no profiler"), ("nonsense", "has no setting 'nonsense'")],
)
def test_what_does_not_count_is_refused_with_the_reason(name: str, words: str) -> None:
    with pytest.raises(ProfileError, match=words):
        check_extra_config(f"apiserver.{name}=1")
    assert check_extra_config("apiserver.authorization-config=/a") == "apiserver.authorization-config=/a"


async def test_privileged_containers_may_be_forbidden(tmp_path: Path) -> None:
    async with plane(tmp_path, allow_privileged="false") as made:
        await prepared(made)
        template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [PRIVILEGED]}}
        spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
        for kind, obj, where in (
            (PODS, pod("p", PRIVILEGED), "spec"),
            (DEPLOYMENTS, {"metadata": {"name": "d", "namespace": "n"}, "spec": spec}, "spec.template.spec"),
        ):
            with pytest.raises(ApiError) as refused:
                await made.client.create(kind, obj)
            cause = refused.value.details["causes"][0]
            path = f"{where}.containers[0].securityContext.privileged"
            assert (cause["field"], cause["message"]) == (path, "Forbidden: disallowed by cluster policy")
        await made.client.create(PODS, pod("q", {"name": "c", "image": "i"}))


async def test_how_long_pods_bear_a_node_that_is_away(tmp_path: Path) -> None:
    seconds = {"default_not_ready_toleration_seconds": "7", "default_unreachable_toleration_seconds": "9"}
    async with plane(tmp_path, **seconds) as made:
        await prepared(made)
        found = await made.client.create(PODS, pod("p", PRIVILEGED))
        assert [each["tolerationSeconds"] for each in found["spec"]["tolerations"]] == [7, 9]


async def test_tokens_may_be_shortened(tmp_path: Path) -> None:
    async with plane(tmp_path, service_account_max_token_expiration="2h") as made:
        await prepared(made)
        path = SERVICEACCOUNTS.path("n", "a") + "/token"
        found = await made.client.call("POST", path, {"spec": {"expirationSeconds": 9000, "audiences": []}})
        assert found["spec"]["expirationSeconds"] == 7200


async def test_scripts_of_other_origins(tmp_path: Path) -> None:
    async with plane(tmp_path, cors_allowed_origins=r"//x\.org(:|$),//ui\.example\.com(:|$)") as made:
        preflight, _ = await made.client.raw("OPTIONS", "/api/v1/pods", b"", ORIGIN)
        assert (preflight.status, preflight.header("access-control-allow-methods")) == (
            204, "POST, GET, OPTIONS, PUT, DELETE, PATCH",
        )  # fmt: skip
        for path in ("/api/v1/pods", "/nope"):
            answer, _ = await made.client.raw("GET", path, b"", ORIGIN)
            assert answer.header("access-control-allow-origin") == "https://ui.example.com"
        for origin in ("https://ui.example.com.evil", "x" * 5000, ""):
            other, _ = await made.client.raw("OPTIONS", "/api/v1/pods", b"", [("origin", origin)])
            assert (other.status, other.header("access-control-allow-origin")) == (405, None)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"cors_allowed_origins": "example.com$"}, "does not pin the start"),
        ({"cors_allowed_origins": "//example.com"}, "does not pin the end"),
        ({"cors_allowed_origins": "//["}, "invalid regular expression"),
        ({"service_account_max_token_expiration": "5m"}, "must be between 1 hour and 2\\^32 seconds"),
        ({"default_not_ready_toleration_seconds": "x"}, 'invalid argument "x" for "--default-not-ready'),
    ],
)
async def test_wrong_values_are_said(tmp_path: Path, given: dict[str, str], words: str) -> None:
    with pytest.raises(StartFailure, match=words):
        async with plane(tmp_path, **given):
            raise AssertionError("it has started")
