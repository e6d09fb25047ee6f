"""PodSecurity: every control with a pod that passes and one that fails, the three modes, labels and exemptions."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from steersman.api.resource import NAMESPACES, PODS, SERVICEACCOUNTS, Object
from steersman.apiserver.admission.podsecurity import checks
from steersman.apiserver.admission.podsecurity.plugin import Configuration, Policy, Standard, configuration, policy_of
from steersman.client.client import Client
from tests.apiserver.guarded import Guarded

NEWEST = checks.NEWEST
SAFE: Object = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def pod(context: Object | None = None, pod_context: Object | None = None, container: Object | None = None,
        **spec: Any) -> Object:  # fmt: skip
    made = {"name": "c", "image": "i", "securityContext": SAFE | (context or {}), **(container or {})}
    return {"containers": [made], "securityContext": pod_context or {}, **spec}


def said(spec: Object, level: str = "restricted", minor: int = NEWEST, meta: Object | None = None) -> str:
    found = checks.evaluate(level, minor, meta or {}, spec)
    return ", ".join(f"{reason} ({detail})" for reason, detail in found)


def test_a_safe_pod_passes_everything() -> None:
    for minor in (0, 8, 19, 22, 25, 29, 35, NEWEST):
        assert said(pod(), "restricted", minor) == ""
    assert said(pod(volumes=[{"name": "v", "emptyDir": {}}], pod_context={"sysctls": []})) == ""


def test_a_plain_pod_passes_the_baseline_and_fails_the_restricted_level() -> None:
    spec = {"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]}
    assert said(spec, "baseline") == said(spec, "privileged") == ""
    assert said(spec) == (
        'allowPrivilegeEscalation != false (containers "a", "b" must set '
        "securityContext.allowPrivilegeEscalation=false), "
        'unrestricted capabilities (containers "a", "b" must set securityContext.capabilities.drop=["ALL"]), '
        'runAsNonRoot != true (pod or containers "a", "b" must set securityContext.runAsNonRoot=true), '
        'seccompProfile (pod or containers "a", "b" must set securityContext.seccompProfile.type to '
        '"RuntimeDefault" or "Localhost")'
    )


BASELINE = [
    (pod(hostNetwork=True, hostPID=True), "host namespaces (hostNetwork=true, hostPID=true)"),
    (pod({"privileged": True}), 'privileged (container "c" must not set securityContext.privileged=true)'),
    (pod({"capabilities": {"add": ["NET_RAW", "CHOWN"]}}), 'non-default capabilities (container "c" must not include '
     '"NET_RAW" in securityContext.capabilities.add)'),
    (pod(volumes=[{"name": "h", "hostPath": {"path": "/"}}]), 'hostPath volumes (volume "h")'),
    (pod(container={"ports": [{"hostPort": 80}, {"hostPort": 443}]}),
     'hostPort (container "c" uses hostPorts 443, 80)'),
    (pod(container={"livenessProbe": {"httpGet": {"host": "h"}}}),
     'probe or lifecycle host (container "c" uses probe or lifecycle host "h")'),
    (pod({"procMount": "Unmasked"}), 'procMount (container "c" must not set securityContext.procMount to "Unmasked")'),
    (pod({"seLinuxOptions": {"type": "spc_t", "user": "u"}}), 'seLinuxOptions (container "c" set forbidden '
     'securityContext.seLinuxOptions: type "spc_t"; user may not be set)'),
    (pod({"seccompProfile": {"type": "Unconfined"}}), 'seccompProfile (container "c" must not set '
     'securityContext.seccompProfile.type to "Unconfined")'),
    (pod(pod_context={"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}), "forbidden sysctls (kernel.msgmax)"),
    (pod(pod_context={"windowsOptions": {"hostProcess": True}}),
     "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)"),
    (pod({"appArmorProfile": {"type": "Unconfined"}}),
     'forbidden AppArmor profile (container "c" must not set AppArmor profile type to "Unconfined")'),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "text"), BASELINE, ids=[text.split(" (")[0] for _, text in BASELINE])
def test_what_the_baseline_forbids(spec: Object, text: str) -> None:
    assert said(spec, "baseline") == text
    assert said(spec, "privileged") == ""


RESTRICTED = [
    (pod({"allowPrivilegeEscalation": True}), "allowPrivilegeEscalation != false"),
    (pod({"capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}}), 'must not include "CHOWN"'),
    (pod(volumes=[{"name": "n", "nfs": {}}]), 'volume "n" uses restricted volume type "nfs"'),
    (pod({"runAsNonRoot": False}), 'container "c" must not set securityContext.runAsNonRoot=false'),
    (pod({"runAsUser": 0}, {"runAsUser": 0}), 'pod and container "c" must not set runAsUser=0'),
    (pod({"seccompProfile": None}), "must set securityContext.seccompProfile.type"),
]


@pytest.mark.parametrize(("spec", "text"), RESTRICTED, ids=[text for _, text in RESTRICTED])
def test_what_only_the_restricted_level_forbids(spec: Object, text: str) -> None:
    assert text in said(spec)
    assert said(spec, "baseline") == ""


def test_standards_change_with_their_version() -> None:
    probe = pod(container={"readinessProbe": {"tcpSocket": {"host": "h"}}})
    assert (said(probe, "baseline", 33), bool(said(probe, "baseline", 34))) == ("", True)
    sysctl = pod(pod_context={"sysctls": [{"name": "net.ipv4.tcp_rmem", "value": "1"}]})
    assert (bool(said(sysctl, "baseline", 31)), said(sysctl, "baseline", 32)) == (True, "")
    root = pod({"runAsUser": 0}, hostUsers=False)
    assert (bool(said(root, "restricted", 34)), said(root, "restricted", 35)) == (True, "")
    windows = {"containers": [{"name": "c", "securityContext": {"runAsNonRoot": True}}], "os": {"name": "windows"}}
    assert (bool(said(windows, "restricted", 24)), said(windows, "restricted", 25)) == (True, "")
    marked = {"annotations": {"seccomp.security.alpha.kubernetes.io/pod": "unconfined"}}
    assert "forbidden annotation seccomp" in said(pod(), "baseline", 18, marked)
    assert said(pod(), "baseline", 19, marked) == ""


def test_labels_make_a_policy() -> None:
    prefix = "pod-security.kubernetes.io/"
    policy, problems = policy_of({f"{prefix}enforce": "baseline", f"{prefix}enforce-version": "v1.20"}, Policy())
    baseline = Standard("baseline", "v1.20")
    assert (policy, problems) == (Policy(baseline, Standard(), baseline), [])
    policy, problems = policy_of(
        {f"{prefix}enforce": "x", f"{prefix}warn": "y", f"{prefix}audit-version": "1"}, Policy()
    )
    assert policy == Policy(Standard("restricted"), Standard(), Standard())
    assert [problem.field for problem in problems] == [
        f"metadata.labels[{prefix}{key}]" for key in ("enforce", "audit-version", "warn")
    ]


async def _namespace(guarded: Guarded, **modes: str) -> Client:
    admin = guarded.client("admin")
    labels = {f"pod-security.kubernetes.io/{mode.replace('_', '-')}": value for mode, value in modes.items()}
    await admin.create(NAMESPACES, {"metadata": {"name": "strict", "labels": labels}})
    await admin.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, "strict")
    return admin


async def _post(client: Client, path: str, body: Object, method: str = "POST") -> tuple[int, str, list[str]]:
    response, answer = await client.raw(method, path, msgspec.json.encode(body))
    warnings = [value for key, value in response.headers if key == "warning"]
    return response.status, str(msgspec.json.decode(answer).get("message", "")), warnings


UNSAFE = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}], "hostNetwork": True}}


async def test_enforcing(guarded: Guarded) -> None:
    admin = await _namespace(guarded, enforce="baseline")
    code, text, _ = await _post(admin, PODS.path("strict"), UNSAFE)
    assert code == 403
    assert text == 'pods "p" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true)'
    fine = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    assert (await _post(admin, PODS.path("strict"), fine))[0] == 201
    template = {"metadata": {"labels": {"a": "b"}}, "spec": UNSAFE["spec"]}
    body = {"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}}
    code, _, warnings = await _post(admin, "/apis/apps/v1/namespaces/strict/deployments", body)
    assert (code, len(warnings)) == (201, 1), "what makes pods is only warned of"
    assert 'would violate PodSecurity \\"baseline:latest\\": host namespaces' in warnings[0]


async def test_warning_and_a_policy_that_comes_later(guarded: Guarded) -> None:
    admin = await _namespace(guarded, warn="baseline", warn_version="v1.30")
    code, _, warnings = await _post(admin, PODS.path("strict"), UNSAFE)
    assert (code, len(warnings)) == (201, 1)
    assert 'would violate PodSecurity \\"baseline:v1.30\\": host namespaces (hostNetwork=true)' in warnings[0]
    namespace = await admin.get(NAMESPACES, "strict", "")
    namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = "baseline"
    code, _, warnings = await _post(admin, NAMESPACES.path("", "strict"), namespace, "PUT")
    assert code == 200
    assert 'existing pods in namespace \\"strict\\" violate the new PodSecurity enforce level' in warnings[0]
    assert warnings[1].endswith('p: host namespaces"')
    assert (await _post(admin, NAMESPACES.path("", "strict"), namespace | {"spec": {}}, "PUT"))[2] == []


async def test_labels_that_are_not_valid(guarded: Guarded) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "severe"}
    body = {"metadata": {"name": "n", "labels": labels}}
    code, text, _ = await _post(guarded.client("admin"), NAMESPACES.path(), body)
    assert code == 422
    assert text == (
        'Namespace "n" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "severe": '
        "must be one of privileged, baseline, restricted"
    )


async def test_exemptions(guarded: Guarded) -> None:
    admin = await _namespace(guarded, enforce="baseline")
    extras = guarded.server.services.extras
    for exempt in (Configuration(users=["kubernetes-admin"]), Configuration(namespaces=["strict"])):
        extras["PodSecurity"] = exempt
        assert (await _post(admin, PODS.path("strict") + "?dryRun=All", UNSAFE))[0] == 201
    extras["PodSecurity"] = Configuration(runtime_classes=["gvisor"], users=["other"])
    assert (await _post(admin, PODS.path("strict"), UNSAFE))[0] == 403


def test_a_configuration() -> None:
    given = {
        "kind": "PodSecurityConfiguration",
        "defaults": {"enforce": "baseline", "enforce-version": "v1.30", "audit": "restricted"},
        "exemptions": {"namespaces": ["kube-system"]},
    }
    found = configuration(given)
    assert (str(found.defaults.enforce), str(found.defaults.audit)) == ("baseline:v1.30", "restricted:latest")
    assert found.namespaces == ["kube-system"]
    for bad in ({}, [], given | {"defaults": {"enforce": "x"}}, given | {"exemptions": {"usernames": "root"}}):
        with pytest.raises(ValueError):
            configuration(bad)
