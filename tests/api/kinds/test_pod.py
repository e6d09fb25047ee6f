"""Pods: defaults, rules in the server's words, and what may change through which endpoint."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from steersman.api.resource import Object
from tests.api.kinds import stage

C = "spec/containers/0"
MIRROR = {"kubernetes.io/config.mirror": "x"}


def pod(*changes: tuple[str, Any]) -> Object:
    obj = stage.example("Pod")
    for path, value in changes:
        stage.put(obj, path, value)
    return obj


def test_a_bare_pod_is_filled_in() -> None:
    obj = pod()
    assert stage.create(obj) == []
    assert obj["spec"] == {
        "containers": [
            {
                "name": "c",
                "image": "busybox",
                "imagePullPolicy": "Always",
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }
        ],
        "dnsPolicy": "ClusterFirst",
        "enableServiceLinks": True,
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
    }
    assert obj["status"] == {"phase": "Pending", "qosClass": "BestEffort"}


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("busybox", "Always"),
        ("busybox:latest", "Always"),
        ("busybox:1.36", "IfNotPresent"),
        ("registry:5000/busybox", "Always"),
        ("registry:5000/busybox:1", "IfNotPresent"),
        ("busybox@sha256:" + "a" * 64, "IfNotPresent"),
    ],
)
def test_the_tag_decides_about_pulling(image: str, policy: str) -> None:
    obj = pod((f"{C}/image", image))
    assert stage.create(obj) == []
    assert obj["spec"]["containers"][0]["imagePullPolicy"] == policy


@pytest.mark.parametrize(
    ("path", "value", "filled"),
    [
        (
            f"{C}/livenessProbe",
            {"httpGet": {"port": 80}},
            {
                "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
                "timeoutSeconds": 1,
                "periodSeconds": 10,
                "successThreshold": 1,
                "failureThreshold": 3,
            },
        ),
        (f"{C}/ports", [{"containerPort": 80}], [{"containerPort": 80, "protocol": "TCP"}]),
        (
            f"{C}/env",
            [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name", "apiVersion": "v1"}}}],
        ),
        (
            f"{C}/resources",
            {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "0.5"}},
            {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}},
        ),
        ("spec/volumes", [{"name": "v"}], [{"name": "v", "emptyDir": {}}]),
        (
            "spec/volumes",
            [{"name": "v", "secret": {"secretName": "s"}}],
            [{"name": "v", "secret": {"secretName": "s", "defaultMode": 420}}],
        ),
        (
            "spec/volumes",
            [{"name": "v", "projected": {"sources": [{"configMap": {"name": "c"}}]}}],
            [{"name": "v", "projected": {"defaultMode": 420, "sources": [{"configMap": {"name": "c"}}]}}],
        ),
    ],
)
def test_parts_are_filled_in(path: str, value: Any, filled: Any) -> None:
    obj = pod((path, value))
    assert stage.create(obj) == []
    at: Any = obj
    for part in path.split("/"):
        at = at[int(part)] if isinstance(at, list) else at[part]
    assert at == filled


def test_host_ports_follow_container_ports_on_the_host_network() -> None:
    obj = pod(("spec/hostNetwork", True), (f"{C}/ports", [{"containerPort": 80}]))
    assert stage.create(obj) == []
    assert obj["spec"]["containers"][0]["ports"] == [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{C}/command", ["sh", "-c", "true"]),
        (f"{C}/env", [{"name": "a.b-c", "value": "x"}]),
        (f"{C}/ports", [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53}]),
        (f"{C}/lifecycle", {"preStop": {"sleep": {"seconds": 5}}}),
        ("spec/tolerations", [{"operator": "Exists"}]),
        ("spec/tolerations", [{"key": "a", "operator": "Equal", "value": "b", "effect": "NoExecute"}]),
        ("spec/schedulingGates", [{"name": "example.com/wait"}]),
        ("spec/dnsConfig", {"nameservers": ["10.0.0.1"], "options": [{"name": "ndots", "value": "2"}]}),
        ("spec/hostAliases", [{"ip": "10.0.0.1", "hostnames": ["a.b"]}]),
        ("spec/initContainers", [{"name": "i", "image": "b", "restartPolicy": "Always"}]),
        (
            "spec/securityContext",
            {"runAsUser": 0, "fsGroup": 5, "sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]},
        ),
        ("metadata/labels", {"app": ""}),
    ],
)
def test_what_is_fine(path: str, value: Any) -> None:
    assert stage.create(pod((path, value))) == []


LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)


@pytest.mark.parametrize(
    ("path", "value", "complaints"),
    [
        ("spec/containers", [], ["spec.containers: Required value"]),
        (f"{C}/image", None, ["spec.containers[0].image: Required value"]),
        (
            f"{C}/image",
            " a",
            ['spec.containers[0].image: Invalid value: " a": must not have leading or trailing whitespace'],
        ),
        (f"{C}/name", "A", [f'spec.containers[0].name: Invalid value: "A": {LABEL}']),
        (
            f"{C}/imagePullPolicy",
            "Sometimes",
            [
                'spec.containers[0].imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always", '
                '"IfNotPresent", "Never"'
            ],
        ),
        (
            "spec/restartPolicy",
            "Maybe",
            ['spec.restartPolicy: Unsupported value: "Maybe": supported values: "Always", "OnFailure", "Never"'],
        ),
        (
            "spec/dnsPolicy",
            "None",
            ["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
        ),
        (
            "spec/activeDeadlineSeconds",
            0,
            ["spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"],
        ),
        (
            f"{C}/ports",
            [{"containerPort": 0}],
            ["spec.containers[0].ports[0].containerPort: Required value"],
        ),
        (
            f"{C}/ports",
            [{"containerPort": 70000}],
            ["spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"],
        ),
        (
            f"{C}/ports",
            [{"name": "p", "containerPort": 1}, {"name": "p", "containerPort": 2}],
            ['spec.containers[0].ports[1].name: Duplicate value: "p"'],
        ),
        (
            f"{C}/env",
            [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            ['spec.containers[0].env[0].valueFrom: Invalid value: "": may not be specified when `value` is not empty'],
        ),
        (
            f"{C}/volumeMounts",
            [{"name": "v", "mountPath": "/x"}],
            ['spec.containers[0].volumeMounts[0].name: Not found: "v"'],
        ),
        (
            f"{C}/resources",
            {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}},
            ['spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1'],
        ),
        (
            f"{C}/livenessProbe",
            {},
            ["spec.containers[0].livenessProbe: Required value: must specify a handler type"],
        ),
        (
            f"{C}/livenessProbe",
            {"tcpSocket": {"port": 1}, "successThreshold": 2},
            ["spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"],
        ),
        (
            "spec/volumes",
            [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}],
            ["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"],
        ),
        (
            "spec/volumes",
            [{"name": "v", "hostPath": {"path": "/a/../b"}}],
            ["spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"],
        ),
        (
            "spec/tolerations",
            [{"key": "a", "operator": "Exists", "value": "b"}],
            ["spec.tolerations[0].operator: Invalid value: \"b\": value must be empty when `operator` is 'Exists'"],
        ),
        ("spec/hostname", "a.b", ['spec.hostname: Invalid value: "a.b": must not contain dots']),
        (
            "spec/hostAliases",
            [{"ip": "x", "hostnames": ["a"]}],
            [
                'spec.hostAliases[0].ip: Invalid value: "x": must be a valid IP address, '
                "(e.g. 10.9.8.7 or 2001:db8::ffff)"
            ],
        ),
        (
            f"{C}/securityContext",
            {"allowPrivilegeEscalation": False, "privileged": True},
            [
                'spec.containers[0].securityContext: Invalid value: {"Capabilities":null,"Privileged":true,'
                '"SELinuxOptions":null,"WindowsOptions":null,"RunAsUser":null,"RunAsGroup":null,"RunAsNonRoot":null,'
                '"ReadOnlyRootFilesystem":null,"AllowPrivilegeEscalation":false,"ProcMount":null,"SeccompProfile":null,'
                '"AppArmorProfile":null}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true'
            ],
        ),
        (
            "metadata/labels",
            {"a": "b c"},
            [
                'metadata.labels: Invalid value: "b c": a valid label must be an empty string or consist of '
                "alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. "
                "'MyValue',  or 'my_value',  or '12345', regex used for validation is "
                "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            ],
        ),
        ("metadata/name", None, ["metadata.name: Required value: name or generateName is required"]),
        (
            "spec/topologySpreadConstraints",
            [{"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
            ["spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero"],
        ),
        (
            "spec/schedulingGates",
            [{"name": "a"}, {"name": "a"}],
            ['spec.schedulingGates[1]: Duplicate value: "a"'],
        ),
    ],
)
def test_what_is_refused(path: str, value: Any, complaints: list[str]) -> None:
    assert stage.create(pod((path, value))) == complaints


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{C}/image", "busybox:2"),
        ("spec/activeDeadlineSeconds", 10),
        ("spec/tolerations", [{"key": "a", "operator": "Exists"}]),
        ("metadata/labels", {"a": "b"}),
        ("metadata/annotations", {"a": "b"}),
    ],
)
def test_what_may_change(path: str, value: Any) -> None:
    old = stage.stored(pod())
    new = stage.put(copy.deepcopy(old), path, value)
    assert stage.update(new, old) == []
    assert new["metadata"]["generation"] == (2 if path.startswith("spec") else 1)


ONLY = (
    "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing "
    "tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n"
)


@pytest.mark.parametrize(
    ("path", "value", "start"),
    [
        ("spec/nodeName", "n", ONLY),
        (f"{C}/command", ["x"], ONLY),
        ("spec/restartPolicy", "Never", ONLY),
        (
            "spec/containers",
            [{"name": "c", "image": "a"}, {"name": "d", "image": "a"}],
            "spec.containers: Forbidden: pod updates may not add or remove containers",
        ),
        (
            "spec/schedulingGates",
            [{"name": "x"}],
            "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'x'",
        ),
        (
            "metadata/annotations",
            MIRROR,
            "metadata.annotations[kubernetes.io/config.mirror]: Forbidden: may not add mirror pod annotation",
        ),
    ],
)
def test_what_may_not_change(path: str, value: Any, start: str) -> None:
    old = stage.stored(pod())
    found = stage.update(stage.put(copy.deepcopy(old), path, value), old)
    assert [each for each in found if each.startswith(start)], found


def test_a_toleration_may_come_but_not_go() -> None:
    old = stage.stored(pod(("spec/tolerations", [{"key": "a", "operator": "Exists"}])))
    found = stage.update(stage.put(copy.deepcopy(old), "spec/tolerations", []), old)
    text = "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"
    assert found[0] == text


def test_a_gated_pod_may_be_narrowed() -> None:
    old = stage.stored(pod(("spec/schedulingGates", [{"name": "x"}])))
    assert old["status"].get("phase") == "Pending"
    assert stage.update(stage.put(copy.deepcopy(old), "spec/nodeSelector", {"a": "b"}), old) == []


def test_an_ordinary_update_leaves_the_status_alone_and_a_status_update_the_spec() -> None:
    old = stage.stored(pod())
    new = copy.deepcopy(old)
    new["status"]["phase"] = "Running"
    new["spec"]["activeDeadlineSeconds"] = 5
    through_spec, through_status = copy.deepcopy(new), copy.deepcopy(new)
    assert stage.update(through_spec, old) == stage.update(through_status, old, "status") == []
    assert (through_spec["status"]["phase"], through_status["status"]["phase"]) == ("Pending", "Running")
    assert "activeDeadlineSeconds" not in through_status["spec"]
    assert through_status["metadata"]["generation"] == 1


def test_a_container_that_ended_for_good_stays_ended() -> None:
    old = stage.stored(pod(("spec/restartPolicy", "Never")))
    status = {"name": "c", "image": "b", "imageID": "", "ready": False, "restartCount": 0}
    old["status"]["containerStatuses"] = [{**status, "state": {"terminated": {"exitCode": 1}}}]
    new = copy.deepcopy(old)
    new["status"]["containerStatuses"][0]["state"] = {"running": {"startedAt": stage.NOW}}
    text = "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"
    assert stage.update(new, old, "status") == [text]


DEBUGGER = {"name": "d", "image": "busybox"}


def test_ephemeral_containers_come_by_their_own_endpoint() -> None:
    old = stage.stored(pod())
    new = copy.deepcopy(old)
    new["spec"]["ephemeralContainers"] = [dict(DEBUGGER)]
    new["spec"]["activeDeadlineSeconds"] = 7
    assert stage.update(new, old, "ephemeralcontainers") == []
    assert new["spec"]["ephemeralContainers"][0]["imagePullPolicy"] == "Always"
    assert "activeDeadlineSeconds" not in new["spec"]
    again = copy.deepcopy(new)
    again["spec"]["ephemeralContainers"] = []
    (found,) = stage.update(again, new, "ephemeralcontainers")
    assert found == ('spec.ephemeralContainers: Forbidden: existing ephemeral containers "d" may not be removed\n')


def test_ephemeral_containers_are_not_for_creation() -> None:
    found = stage.create(pod(("spec/ephemeralContainers", [dict(DEBUGGER)])))
    assert found == ["spec.ephemeralContainers: Forbidden: cannot be set on create"]


def test_resources_change_by_their_own_endpoint() -> None:
    old = stage.stored(pod((f"{C}/resources", {"requests": {"cpu": "1"}})))
    new = stage.put(copy.deepcopy(old), f"{C}/resources/requests/cpu", "2")
    assert stage.update(copy.deepcopy(new), old)[0].startswith(ONLY)
    assert stage.update(new, old, "resize") == []
    assert new["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "2"}
    assert new["metadata"]["generation"] == 2


def test_a_resize_keeps_the_class_of_service() -> None:
    old = stage.stored(pod((f"{C}/resources", {"requests": {"cpu": "1"}})))
    limits = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
    found = stage.update(stage.put(copy.deepcopy(old), f"{C}/resources", limits), old, "resize")
    assert found == ['spec: Invalid value: "Burstable": Pod QOS Class may not change as a result of resizing']


@pytest.mark.parametrize(
    ("path", "value", "texts"),
    [
        ("spec.os", {"name": "windows"}, []),
        ("spec.os", {"name": "linux"}, [
            "spec.securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod"
        ]),
        ("spec.hostNetwork", False, [
            "spec.hostNetwork: Invalid value: false: hostNetwork must be true "
            "if pod contains any hostProcess containers"
        ]),
        ("spec.securityContext.windowsOptions.runAsUserName", "a\\b\\c", [
            'spec.securityContext.windowsOptions.runAsUserName: Invalid value: "a\\\\b\\\\c": '
            "runAsUserName cannot contain more than one backslash"
        ]),
        ("spec.securityContext.windowsOptions.gmsaCredentialSpec", "", [
            'spec.securityContext.windowsOptions.gmsaCredentialSpec: Invalid value: "": '
            "gmsaCredentialSpec cannot be an empty string"
        ]),
        ("spec.securityContext.runAsUser", 1, [
            "spec.securityContext.runAsUser: Forbidden: cannot be set for a windows pod"
        ]),
        ("spec.containers.0.securityContext", {"windowsOptions": {"hostProcess": False}}, [
            "spec.containers[0].securityContext.windowsOptions.hostProcess: Invalid value: false: "
            "pod hostProcess value must be identical if both are specified, was true"
        ]),
    ],
)  # fmt: skip
def test_windows(path: str, value: Any, texts: list[str]) -> None:
    pod = stage.example("v1/Pod", hostNetwork=True, os={"name": "windows"})
    pod["spec"]["securityContext"] = {"windowsOptions": {"hostProcess": True, "runAsUserName": "a"}}
    assert stage.create(stage.put(pod, path, value)) == texts


def test_annotations_of_apparmor_become_fields() -> None:
    key = "container.apparmor.security.beta.kubernetes.io/c"
    pod = stage.put(stage.example("v1/Pod"), "metadata.annotations", {key: "localhost/x"})
    assert stage.create(pod) == []
    profile = {"type": "Localhost", "localhostProfile": "x"}
    assert pod["spec"]["containers"][0]["securityContext"]["appArmorProfile"] == profile
    other = stage.put(stage.example("v1/Pod"), "metadata.annotations", {key: "x", f"{key}d": "unconfined"})
    assert stage.create(other) == [
        f'metadata.annotations[{key}]: Invalid value: "x": invalid AppArmor profile name: "x"',
        f'metadata.annotations[{key}d]: Invalid value: "cd": container not found',
    ]
