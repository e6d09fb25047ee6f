"""Rules of the other kinds, one table: what is fine, and what is refused in which words; then what may change."""

from __future__ import annotations

import base64
import copy
from typing import Any

import pytest

from tests.api.kinds import stage

DEAR = "device.attributes.all(a, device.attributes.all(b, device.attributes.all(c, device.attributes.all(d, a == d))))"
DNS_SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("ConfigMap", "binaryData", {"b": "Yg=="}),
        ("Secret", "stringData", {"c": "d"}),
        ("Namespace", "spec", {"finalizers": ["kubernetes", "example.com/x"]}),
        ("Node", "spec", {"taints": [{"key": "a", "effect": "NoSchedule"}], "unschedulable": True}),
        ("PodDisruptionBudget", "spec", {"maxUnavailable": "50%"}),
        ("HorizontalPodAutoscaler", "spec.minReplicas", 2),
        ("NetworkPolicy", "spec/egress", [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}]),
        ("Ingress", "spec.tls", [{"hosts": ["*.a.example"], "secretName": "s"}]),
        ("Role", "rules", [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]),
        ("LimitRange", "spec.limits", [{"type": "Pod", "max": {"memory": "1Gi"}}]),
        ("ResourceQuota", "spec.hard", {"requests.cpu": "1", "count/widgets.example.com": "2"}),
        ("PersistentVolume", "spec.accessModes", ["ReadOnlyMany", "ReadWriteMany"]),
        ("StorageClass", "volumeBindingMode", "WaitForFirstConsumer"),
        ("Lease", "spec.leaseTransitions", 0),
    ],
)
def test_what_is_fine(name: str, path: str, value: Any) -> None:
    assert stage.create(stage.put(stage.example(name), path, value)) == []


@pytest.mark.parametrize(
    ("name", "path", "value", "complaints"),
    [
        (
            "ConfigMap",
            "data",
            {"a b": ""},
            [
                "data[a b]: Invalid value: \"a b\": a valid config key must consist of alphanumeric characters, '-', "
                "'_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is "
                "'[-._a-zA-Z0-9]+')"
            ],
        ),
        ("ConfigMap", "metadata.name", "A", [f'metadata.name: Invalid value: "A": {DNS_SUBDOMAIN}']),
        (
            "ConfigMap",
            "data",
            {"a": "x" * (1 << 20) + "x"},
            ["[]: Too long: may not be more than 1048576 bytes"],
        ),
        (
            "ResourceClaim",
            "spec.devices",
            {"requests": [{"name": "a"}]},
            ["spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required"],
        ),
        (
            "ResourceClaim",
            "spec.devices",
            {
                "requests": [
                    {"name": "a", "exactly": {"deviceClassName": "c", "allocationMode": "x"}},
                    {"name": "a", "exactly": {"deviceClassName": "", "count": -1}},
                ]
            },
            [
                'spec.devices.requests[0].exactly.allocationMode: Unsupported value: "x": supported values: "All", '
                '"ExactCount"',
                "spec.devices.requests[1].exactly.deviceClassName: Required value",
                "spec.devices.requests[1].exactly.count: Invalid value: -1: must be greater than zero",
                'spec.devices.requests[1]: Duplicate value: "a"',
            ],
        ),
        (
            "ResourceClaim",
            "spec.devices.constraints",
            [{"requests": ["other"], "matchAttribute": "example.com/a"}],
            [
                'spec.devices.constraints[0].requests[0]: Invalid value: "other": must be the name of a request in the '
                "claim or the name of a request and a subrequest separated by '/'"
            ],
        ),
        (
            "ResourceClaimTemplate",
            "spec.spec.devices.config",
            [{}],
            ["spec.spec.devices.config[0].opaque: Required value"],
        ),
        ("DeviceClass", "spec", {"selectors": [{}]}, ["spec.selectors[0].cel: Required value"]),
        ("DeviceClass", "spec", {"config": [{}]}, ["spec.config[0].opaque: Required value"]),
        (
            "DeviceTaintRule",
            "spec",
            {"deviceSelector": {"driver": "", "device": "a"}, "taint": {"key": "k", "effect": "Never"}},
            [
                "spec.deviceSelector.driver: Required value",
                'spec.taint.effect: Unsupported value: "Never": supported values: "NoExecute", "NoSchedule", "None"',
            ],
        ),
        (
            "DeviceClass",
            "spec",
            {
                "extendedResourceName": "gpu",
                "selectors": [
                    {"cel": {"expression": "device.attribute == 1"}},
                    {"cel": {"expression": "device.driver"}},
                    {"cel": {"expression": "true" + " " * 10240}},
                    {"cel": {"expression": DEAR}},
                    {"cel": {"expression": "device.attributes['a'].b.isGreaterThan(semver('1.0.0'))"}},
                ],
            },
            [
                'spec.selectors[0].cel.expression: Invalid value: "device.attribute == 1": compilation failed: ERROR: '
                "<input>:1:7: undefined field 'attribute'\n | device.attribute == 1\n | ......^",
                'spec.selectors[1].cel.expression: Invalid value: "device.driver": must evaluate to bool or the '
                "unknown type, not string",
                "spec.selectors[2].cel.expression: Too long: may not be more than 10240 bytes",
                "spec.selectors[3].cel.expression: Forbidden: too complex, exceeds cost limit",
                'spec.extendedResourceName: Invalid value: "gpu": must be a valid extended resource name',
            ],
        ),
        (
            "ResourceClaim",
            "spec.devices",
            {
                "requests": [
                    {
                        "name": "a",
                        "exactly": {
                            "deviceClassName": "c",
                            "tolerations": [{"key": "a", "operator": "Exists", "value": "b"}, {"effect": "Never"}],
                        },
                    }
                ],
                "constraints": [{"requests": ["a/b/c"], "matchAttribute": "model"}, {}],
                "config": [{"opaque": {"driver": "a", "parameters": "x"}}],
            },
            [
                'spec.devices.requests[0].exactly.tolerations[0].value: Invalid value: "b": must be empty for operator '
                "`Exists`",
                'spec.devices.requests[0].exactly.tolerations[1].effect: Unsupported value: "Never": supported values: '
                '"NoExecute", "NoSchedule", "None"',
                'spec.devices.constraints[0].requests[0]: Invalid value: "a/b/c": must be the name of a request in the '
                "claim or the name of a request and a subrequest separated by '/'",
                'spec.devices.constraints[0].matchAttribute: Invalid value: "model": a fully qualified name must be a '
                "domain and a name separated by a slash",
                'spec.devices.constraints[1]: Required value: exactly one of "matchAttribute" or "distinctAttribute" '
                "is required, but multiple fields are set",
                'spec.devices.config[0].opaque.parameters: Invalid value: "<value omitted>": must be a valid '
                "JSON object",
            ],
        ),
        (
            "ResourceSlice",
            "spec.devices",
            [
                {
                    "name": "a",
                    "attributes": {"a": {"version": "1"}, "b": {}, "example.com/": {"int": 1}},
                    "capacity": {"m": {"value": "1", "requestPolicy": {"default": "1"}}},
                    "taints": [{"key": "k"}],
                    "consumesCounters": [{"counterSet": "s"}],
                    "allNodes": True,
                    "bindingConditions": ["x"],
                },
                {
                    "name": "a",
                    "allowMultipleAllocations": True,
                    "capacity": {
                        "m": {
                            "value": "4",
                            "requestPolicy": {"default": "1", "validRange": {"min": "2", "max": "9", "step": "3"}},
                        },
                        "n": {"value": "4", "requestPolicy": {"default": "3", "validValues": ["5", "2"]}},
                    },
                },
            ],
            [
                'spec.devices[0].attributes[a].version: Invalid value: "1": must be a string compatible with '
                "semver.org spec 2.0.0",
                'spec.devices[0].attributes[b]: Invalid value: "": exactly one value must be specified',
                'spec.devices[0].attributes: Invalid value: "": the name must not be empty',
                "spec.devices[0].capacity[m].requestPolicy: Forbidden: allowMultipleAllocations must be true",
                "spec.devices[0].taints[0].effect: Required value",
                "spec.devices[0].consumesCounters[0].counters: Required value",
                "spec.devices[0]: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if "
                "`perDeviceNodeSelection` is set to true in the ResourceSlice spec",
                "spec.devices[0].bindingFailureConditions: Invalid value: null: bindingFailureConditions are required "
                "to use bindingConditions",
                'spec.devices[1].capacity[m].requestPolicy.validRange.min: Invalid value: "1": default is less than '
                "min: 2",
                'spec.devices[1].capacity[m].requestPolicy.validRange.max: Invalid value: "9": max is larger than '
                "capacity value: 4",
                'spec.devices[1].capacity[m].requestPolicy.validRange.step: Invalid value: "3": one step 5 is larger '
                "than capacity value: 4",
                'spec.devices[1].capacity[m].requestPolicy.validRange.step: Invalid value: "1": value is not a '
                "multiple of a given step (3) from (2)",
                'spec.devices[1].capacity[m].requestPolicy.validRange.step: Invalid value: "9": value is not a '
                "multiple of a given step (3) from (2)",
                'spec.devices[1].capacity[n].requestPolicy.validValues[1]: Invalid value: "2": values must be sorted '
                "in ascending order",
                'spec.devices[1].capacity[n].requestPolicy.validValues[0]: Invalid value: "5": option is larger than '
                "capacity value: 4",
                'spec.devices[1].capacity[n].requestPolicy.validValues: Invalid value: "3": default value is not valid '
                "according to the requestPolicy",
                'spec.devices[1]: Duplicate value: "a"',
            ],
        ),
        (
            "ResourceSlice",
            "spec.sharedCounters",
            [{"name": "a", "counters": {"B": {"value": "1"}}}],
            [
                'spec: Invalid value: "": only one of `sharedCounters` or `devices` is allowed',
                'spec.sharedCounters[0].counters: Invalid value: "B": a lowercase RFC 1123 label must consist of lower '
                "case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. "
                "'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            ],
        ),
        (
            "ResourceSlice",
            "spec",
            {},
            [
                "spec.driver: Required value",
                "spec.pool.name: Required value",
                "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero",
                "spec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` "
                "is required",
            ],
        ),
        (
            "ResourceSlice",
            "spec.allNodes",
            True,
            [
                'spec: Invalid value: "{`nodeName`, `allNodes`}": exactly one of `nodeName`, `nodeSelector`, '
                "`allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set"
            ],
        ),
        ("Secret", "type", "kubernetes.io/tls", ["data[tls.crt]: Required value", "data[tls.key]: Required value"]),
        (
            "Node",
            "spec",
            {"taints": [{"key": "a", "effect": "Never"}]},
            [
                'metadata.taints[0].effect: Unsupported value: "Never": supported values: "NoSchedule", '
                '"PreferNoSchedule", "NoExecute"'
            ],
        ),
        (
            "PodDisruptionBudget",
            "spec",
            {"minAvailable": "150%"},
            ['spec.minAvailable: Invalid value: "150%": must not be greater than 100%'],
        ),
        (
            "HorizontalPodAutoscaler",
            "spec.maxReplicas",
            0,
            [
                "spec.maxReplicas: Required value: must be set and greater than 0",
                "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
            ],
        ),
        (
            "NetworkPolicy",
            "spec/ingress/0/from",
            [{}],
            ["spec.ingress[0].from[0]: Required value: must specify a peer"],
        ),
        (
            "NetworkPolicy",
            "spec/ingress/0/from",
            [{"ipBlock": {"cidr": "10.0.0.0/16", "except": ["10.1.0.0/16"]}}],
            [
                'spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: "10.1.0.0/16": must be a strict subset of '
                "`cidr`"
            ],
        ),
        (
            "Ingress",
            "spec",
            {},
            ["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"],
        ),
        (
            "Ingress",
            "spec/rules/0/http/paths/0/path",
            "x",
            ['spec.rules[0].http.paths[0].path: Invalid value: "x": must be an absolute path'],
        ),
        (
            "Role",
            "rules",
            [{"apiGroups": [""], "resources": ["pods"]}],
            ["rules[0].verbs: Required value: verbs must contain at least one value"],
        ),
        (
            "RoleBinding",
            "roleRef.kind",
            "Pod",
            ['roleRef.kind: Unsupported value: "Pod": supported values: "Role", "ClusterRole"'],
        ),
        (
            "PriorityClass",
            "value",
            1_000_000_001,
            [
                "value: Forbidden: maximum allowed value of a user defined priority is 1000000000",
            ],
        ),
        ("StorageClass", "provisioner", "", ["provisioner: Required value"]),
        (
            "StorageClass",
            "reclaimPolicy",
            "Recycle",
            ['reclaimPolicy: Unsupported value: "Recycle": supported values: "Delete", "Retain"'],
        ),
        (
            "PersistentVolumeClaim",
            "spec.accessModes",
            [],
            ["spec.accessModes: Required value: at least 1 access mode is required"],
        ),
        ("PersistentVolume", "spec.hostPath", None, ["spec: Required value: must specify a volume type"]),
        (
            "EndpointSlice",
            "addressType",
            "Odd",
            ['addressType: Unsupported value: "Odd": supported values: "FQDN", "IPv4", "IPv6"'],
        ),
        (
            "Lease",
            "spec.leaseDurationSeconds",
            0,
            ["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"],
        ),
        (
            "CustomResourceDefinition",
            "metadata.name",
            "gadgets.example.com",
            ['metadata.name: Invalid value: "gadgets.example.com": must be spec.names.plural+"."+spec.group'],
        ),
        (
            "CustomResourceDefinition",
            "spec.scope",
            "Odd",
            ['spec.scope: Unsupported value: "Odd": supported values: "Cluster", "Namespaced"'],
        ),
        (
            "APIService",
            "spec.versionPriority",
            0,
            ["spec.versionPriority: Invalid value: 0: must be positive and less than 1000"],
        ),
        (
            "v1/Event",
            "involvedObject.namespace",
            "other",
            ['involvedObject.namespace: Invalid value: "other": does not match event.namespace'],
        ),
        ("RuntimeClass", "handler", "", ["handler: Required value"]),
    ],
)
def test_what_is_refused(name: str, path: str, value: Any, complaints: list[str]) -> None:
    found = stage.create(stage.put(stage.example(name), path, value))
    assert found == complaints


@pytest.mark.parametrize(
    ("name", "path", "value", "complaints"),
    [
        ("Secret", "type", "Other", ['type: Invalid value: "Other": field is immutable']),
        ("PriorityClass", "value", 11, ["value: Forbidden: may not be changed in an update."]),
        ("RuntimeClass", "handler", "b", ['handler: Invalid value: "b": field is immutable']),
        ("StorageClass", "provisioner", "b", ['provisioner: Invalid value: "b": field is immutable']),
        (
            "EndpointSlice",
            "addressType",
            "IPv6",
            [
                'endpoints[0].addresses: Invalid value: "10.1.2.3": must be an IPv6 address',
                'addressType: Invalid value: "IPv6": field is immutable',
            ],
        ),
        ("IngressClass", "spec.controller", "a.b/c", ['spec.controller: Invalid value: "a.b/c": field is immutable']),
        (
            "RoleBinding",
            "roleRef.name",
            "b",
            [
                'roleRef: Invalid value: {"APIGroup":"rbac.authorization.k8s.io","Kind":"Role","Name":"b"}: '
                "cannot change roleRef"
            ],
        ),
    ],
)
def test_what_is_for_good(name: str, path: str, value: Any, complaints: list[str]) -> None:
    old = stage.stored(stage.example(name))
    assert stage.update(stage.put(copy.deepcopy(old), path, value), old)[: len(complaints)] == complaints


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{}", ""),
        ("null", ""),
        ("[]", "json: cannot unmarshal array into Go value of type map[string]interface {}"),
        ("1", "json: cannot unmarshal number into Go value of type map[string]interface {}"),
        ('"x"', "json: cannot unmarshal string into Go value of type map[string]interface {}"),
        ("", "unexpected end of JSON input"),
        ("{nope}", "invalid character 'n' looking for beginning of object key string"),
        ('{"a":' * 20_000, "invalid character '{' exceeded max depth"),
    ],
)
def test_credentials_for_registries_are_json(text: str, why: str) -> None:
    secret = stage.example("Secret")
    secret["type"] = "kubernetes.io/dockerconfigjson"
    secret["data"] = {".dockerconfigjson": base64.b64encode(text.encode()).decode()}
    shown = f'data[.dockerconfigjson]: Invalid value: "<secret contents redacted>": {why}'
    assert stage.create(secret) == ([shown] if why else [])


@pytest.mark.parametrize("name", ["ConfigMap", "Secret"])
def test_immutable_data_stays(name: str) -> None:
    old = stage.stored(stage.put(stage.example(name), "immutable", True))
    changed = stage.put(copy.deepcopy(old), "data.a", "eA==")
    freed = stage.put(copy.deepcopy(old), "immutable", False)
    assert stage.update(changed, old) == ["data: Forbidden: field is immutable when `immutable` is set"]
    assert stage.update(freed, old) == ["immutable: Forbidden: field is immutable when `immutable` is set"]
    assert stage.update(stage.put(copy.deepcopy(old), "metadata.labels", {"a": "b"}), old) == []


def test_plain_text_of_a_secret_is_folded_in() -> None:
    obj = stage.put(stage.example("Secret"), "stringData", {"a": "x", "c": "d"})
    assert stage.create(obj) == []
    assert obj["data"] == {"a": "eA==", "c": "ZA=="}
    assert "stringData" not in obj
    assert obj["type"] == "Opaque"


def test_a_namespace_is_active_until_it_is_finished() -> None:
    old = stage.stored(stage.example("Namespace"))
    assert (old["spec"], old["status"]) == ({"finalizers": ["kubernetes"]}, {"phase": "Active"})
    assert old["metadata"]["labels"] == {"kubernetes.io/metadata.name": "a"}
    new = stage.put(copy.deepcopy(old), "spec.finalizers", [])
    ordinary, last = copy.deepcopy(new), copy.deepcopy(new)
    assert stage.update(ordinary, old) == []
    assert ordinary["spec"] == {"finalizers": ["kubernetes"]}
    assert stage.update(last, old, "finalize") == []
    assert not last["spec"].get("finalizers")


def test_a_definition_remembers_what_it_stored() -> None:
    old = stage.stored(stage.example("CustomResourceDefinition"))
    assert old["status"]["storedVersions"] == ["v1"]
    new = copy.deepcopy(old)
    (version,) = new["spec"]["versions"]
    new["spec"]["versions"] = [{**version, "storage": False}, {**version, "name": "v2"}]
    assert stage.update(new, old) == []
    assert new["status"]["storedVersions"] == ["v1", "v2"]


def test_a_claim_may_only_grow() -> None:
    old = stage.stored(stage.example("PersistentVolumeClaim"))
    old["spec"]["volumeName"] = "pv"
    old["status"] |= {"phase": "Bound", "capacity": {"storage": "1Gi"}}
    less = stage.put(copy.deepcopy(old), "spec.resources.requests.storage", "1Mi")
    more = stage.put(copy.deepcopy(old), "spec.resources.requests.storage", "2Gi")
    assert stage.update(more, old) == []
    text = "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"
    assert stage.update(less, old) == [text]
    other = stage.put(copy.deepcopy(old), "spec.volumeName", "other")
    assert [each for each in stage.update(other, old) if each.startswith("spec: Forbidden: spec is immutable")]


def test_the_new_event_is_the_old_one_under_other_names() -> None:
    kind = stage.registry().by_kind("events.k8s.io", "v1", "Event")
    assert kind is not None
    assert kind.convert is not None
    new = stage.example("events.k8s.io/v1/Event")
    core = kind.convert(copy.deepcopy(new), "v1")
    assert (core["apiVersion"], core["message"], core["involvedObject"]["name"]) == ("v1", "hello", "a")
    times = {"deprecatedFirstTimestamp": None, "deprecatedLastTimestamp": None}  # as Go writes them
    assert kind.convert(core, "events.k8s.io/v1") == {**new, **times}


def test_the_old_autoscaler_is_the_new_one_with_cpu_only() -> None:
    kind = stage.registry().by_kind("autoscaling", "v1", "HorizontalPodAutoscaler")
    assert kind is not None
    assert kind.convert is not None
    new = stage.stored(stage.example("HorizontalPodAutoscaler"))
    old = kind.convert(copy.deepcopy(new), "autoscaling/v1")
    assert old["spec"]["targetCPUUtilizationPercentage"] == 80
    assert kind.convert(old, "autoscaling/v2")["spec"] == new["spec"]


def test_what_a_claims_status_may_say() -> None:
    claim = stage.stored(stage.example("ResourceClaim"))
    device = {"driver": "gpu.example.com", "pool": "p", "device": "d"}
    given = {"request": "gpu", **device}
    good = {
        "allocation": {"devices": {"results": [given], "config": [{"source": "FromClass", "requests": ["gpu"]}]}},
        "reservedFor": [{"resource": "pods", "name": "a", "uid": "u"}, {"uid": "u"}],
        "devices": [{**device, "shareID": "1"}],
    }
    assert stage.update({**claim, "status": good}, claim, "status") == [
        "status.reservedFor[1].resource: Required value",
        "status.reservedFor[1].name: Required value",
        'status.reservedFor[1]: Duplicate value: "u"',
        'status.devices[0].shareID: Invalid value: "1": error validating uid: invalid UUID length: 1',
        'status.devices[0]: Invalid value: {"Driver":"gpu.example.com","Pool":"p","Device":"d","ShareID":"1"}: must '
        "be an allocated device in the claim",
        "status.allocation.devices.config[0].opaque: Required value",
    ]
    before = {**claim, "status": {"allocation": {"devices": {"results": [given]}}, "devices": [device]}}
    freed = {**claim, "status": {"devices": [device]}}
    assert stage.update(freed, before, "status") == [], "devices that are given back report no more"
    assert "devices" not in freed["status"]


def test_taints_of_devices_have_their_time_and_changes_are_counted() -> None:
    made = stage.stored(
        stage.example("ResourceSlice", devices=[{"name": "d", "taints": [{"key": "k", "effect": "None"}]}])
    )
    assert made["metadata"]["generation"] == 1
    (taint,) = made["spec"]["devices"][0]["taints"]
    assert taint["timeAdded"] == made["metadata"]["creationTimestamp"]
    changed = copy.deepcopy(made)
    del changed["spec"]["devices"][0]["taints"][0]["timeAdded"]
    changed["spec"]["devices"].append({"name": "e"})
    assert stage.update(changed, made) == []
    assert changed["spec"]["devices"][0]["taints"] == [taint]
    assert changed["metadata"]["generation"] == 2
    rule = stage.stored(stage.example("DeviceTaintRule"))
    assert (rule["metadata"]["generation"], rule["status"]) == (1, {})
    changed = copy.deepcopy(rule)
    changed["spec"]["taint"]["effect"] = "None"
    assert stage.update(changed, rule) == []
    assert "timeAdded" not in changed["spec"]["taint"], "another effect begins when it is first seen"
    assert changed["metadata"]["generation"] == 2


def test_classes_of_volume_attributes_capacities_and_limits() -> None:
    lacking = {**stage.example("VolumeAttributesClass"), "driverName": "", "parameters": {}}
    assert stage.create(lacking) == [
        "driverName: Required value",
        "parameters: Required value: must contain at least one key/value pair",
    ]
    old = stage.stored(stage.example("VolumeAttributesClass"))
    changed = {**copy.deepcopy(old), "driverName": "other.example.com", "parameters": {"iops": "6"}}
    assert stage.update(changed, old) == [
        "driverName: Forbidden: updates to driverName are forbidden.",
        "parameters: Forbidden: updates to parameters are forbidden.",
    ]
    nameless = {**stage.example("CSIStorageCapacity"), "storageClassName": ""}
    assert stage.create(nameless) == [f'storageClassName: Invalid value: "": {DNS_SUBDOMAIN}']
    odd = stage.example("LimitRange", limits=[{"type": "Foo"}, {"type": "example.com/widgets"}])
    assert stage.create(odd) == [
        'spec.limits[0].type: Invalid value: "Foo": must be a standard limit type or fully qualified'
    ]


def test_a_nodes_taints_are_complained_of_twice_where_it_changes() -> None:
    old = stage.stored(stage.example("Node"))
    fine = stage.put(copy.deepcopy(old), "spec.taints", [{"key": "a", "effect": "NoSchedule"}])
    assert stage.update(fine, old) == []
    bad = stage.put(copy.deepcopy(old), "spec.taints", [{"key": "a"}])
    assert stage.repeated(bad, old) == ["metadata.taints[0].effect: Required value"] * 2


def test_a_priority_class_keeps_its_first_generation() -> None:
    old = stage.stored(stage.example("PriorityClass"))
    new = stage.put(copy.deepcopy(old), "description", "other")
    assert stage.update(new, old) == []
    assert (old["metadata"]["generation"], new["metadata"]["generation"]) == (1, 1)
