"""Plugins that run only when asked for, and the flags that ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import CONFIGMAPS, PODS, SERVICEACCOUNTS, SERVICES, Object
from steersman.apiserver.admission.chain import ALL, chosen
from steersman.cluster import admissionconfig
from steersman.lib.clock import SystemClock
from tests.apiserver.authz.test_escalation import grant, rule
from tests.apiserver.guarded import Guarded, status


def pod(name: str, **spec: object) -> Object:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i:1"}], **spec}}


def enabled(folder: Path, *names: str) -> Guarded:
    return Guarded(folder, {"enable-admission-plugins": ",".join(names)})


async def with_account(guarded: Guarded) -> None:
    await guarded.client("admin").create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, "default")


async def test_every_image_is_pulled(tmp_path: Path) -> None:
    for names, policy in (((), "IfNotPresent"), (("AlwaysPullImages",), "Always")):
        async with enabled(tmp_path, *names) as guarded:
            await with_account(guarded)
            made = await guarded.client("admin").create(PODS, pod("p"), "default")
            assert made["spec"]["containers"][0]["imagePullPolicy"] == policy


async def test_anti_affinity_is_about_hosts(tmp_path: Path) -> None:
    def apart(name: str, key: str) -> Object:
        term = {"topologyKey": key, "labelSelector": {}}
        wanted = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
        return pod(name, affinity={"podAntiAffinity": wanted})

    async with enabled(tmp_path, "LimitPodHardAntiAffinityTopology") as guarded:
        await with_account(guarded)
        admin = guarded.client("admin")
        await admin.create(PODS, apart("a", "kubernetes.io/hostname"), "default")
        with pytest.raises(ApiError, match=r"has TopologyKey zone but only key kubernetes.io/hostname is allowed"):
            await admin.create(PODS, apart("b", "zone"), "default")


async def test_devices_are_tolerated(tmp_path: Path) -> None:
    async with enabled(tmp_path, "ExtendedResourceToleration") as guarded:
        await with_account(guarded)
        amounts = {"cpu": "1", "example.com/gpu": "1"}
        containers = [{"name": "c", "image": "i", "resources": {"requests": amounts, "limits": amounts}}]
        made = await guarded.client("admin").create(PODS, pod("p", containers=containers), "default")
        wanted = {"key": "example.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
        assert [each for each in made["spec"]["tolerations"] if each["effect"] == "NoSchedule"] == [wanted]


async def test_external_addresses_are_denied(tmp_path: Path) -> None:
    async with enabled(tmp_path, "DenyServiceExternalIPs") as guarded:
        admin, ports = guarded.client("admin"), [{"port": 80}]
        await admin.create(SERVICES, {"metadata": {"name": "a"}, "spec": {"ports": ports}}, "default")
        body = {"metadata": {"name": "b"}, "spec": {"ports": ports, "externalIPs": ["192.0.2.1"]}}
        with pytest.raises(ApiError, match="Use of external IPs is denied by admission control"):
            await admin.create(SERVICES, body, "default")


async def test_owners_take_rights(tmp_path: Path) -> None:
    async with enabled(tmp_path, "OwnerReferencesPermissionEnforcement") as guarded:
        owner = await guarded.client("admin").create(CONFIGMAPS, {"metadata": {"name": "owner"}}, "default")
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
        blocking = {**reference, "blockOwnerDeletion": True}
        await grant(guarded, rule("create get update", "", "configmaps"), user="jane")
        more = rule("update", "", "configmaps/finalizers", "owner")
        await grant(guarded, rule("create get update delete", "", "configmaps"), more, user="joe")
        jane, joe = guarded.client("jane"), guarded.client("joe")
        with pytest.raises(ApiError, match="if an ownerReference refers to a resource you can't set finalizers on"):
            await jane.create(CONFIGMAPS, {"metadata": {"name": "a", "ownerReferences": [blocking]}}, "default")
        unknown = {**blocking, "kind": "Thing"}
        with pytest.raises(ApiError, match="cannot find RESTMapping for APIVersion v1 Kind Thing"):
            await joe.create(CONFIGMAPS, {"metadata": {"name": "a", "ownerReferences": [unknown]}}, "default")
        made = await jane.create(CONFIGMAPS, {"metadata": {"name": "a", "ownerReferences": [reference]}}, "default")
        made["metadata"]["ownerReferences"] = [blocking]
        with pytest.raises(ApiError, match="cannot set an ownerRef on a resource you can't delete"):
            await jane.update(CONFIGMAPS, made)
        await joe.update(CONFIGMAPS, made)


def test_which_plugins_run() -> None:
    def names(on: str = "", off: str = "") -> list[str]:
        return [plugin.name for plugin in chosen(on.split(), off.split())]

    assert "PodSecurity" in names() and "AlwaysPullImages" not in names()
    assert names("AlwaysPullImages").index("AlwaysPullImages") < names("AlwaysPullImages").index("PodSecurity")
    assert "PodSecurity" not in names(off="PodSecurity")
    assert names(" ".join(plugin.name for plugin in ALL)) == [plugin.name for plugin in ALL]
    for on, off, why in (("Magic", "", "enable-admission-plugins plugin \"Magic\" is unknown"),
                         ("", "Magic", "disable-admission-plugins plugin \"Magic\" is unknown"),
                         ("PodSecurity", "PodSecurity", "overlapped")):  # fmt: skip
        with pytest.raises(ValueError, match=why):
            names(on, off)


async def test_a_plugin_that_is_off_refuses_nothing(guarded: Guarded) -> None:
    body = {"metadata": {"name": "b"}, "spec": {"ports": [{"port": 80}], "externalIPs": ["192.0.2.1"]}}
    assert (await status(guarded.client("admin"), "POST", SERVICES.path("default"), body))[0] == 201


V1 = "apiVersion: apiserver.config.k8s.io/v1, kind: AdmissionConfiguration"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "not an object"),
        ("kind: Pod", "not an AdmissionConfiguration"),
        ("{kind: AdmissionConfiguration, apiVersion: v7}", 'registered for version "v7"'),
        (f"{{{V1}, plugins: [1]}}", "1 is no plugin's entry"),
        (f"{{{V1}, plugins: [{{name: PodSecurity, configuration: {{kind: X}}}}]}}", '"PodSecurity": not a'),
        ("{", "while parsing"),
    ],
)
def test_settings_that_cannot_be_read(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "admission.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=why):
        admissionconfig.read(file, ["PodSecurity"], SystemClock())


def test_settings_of_a_plugin(tmp_path: Path) -> None:
    file = tmp_path / "admission.yaml"
    file.write_text(f"{{{V1}, plugins: [{{name: PodSecurity, path: ps.yaml}}, {{name: Other, path: nowhere}}]}}")
    with pytest.raises(ValueError, match=r'init admission plugin "PodSecurity": .*ps\.yaml'):
        admissionconfig.read(file, ["PodSecurity"], SystemClock())
    (tmp_path / "ps.yaml").write_text("{kind: PodSecurityConfiguration, defaults: {enforce: baseline}}")
    found: Any = admissionconfig.read(file, ["PodSecurity"], SystemClock())["PodSecurity"]
    assert str(found.defaults.enforce) == "baseline:latest"
