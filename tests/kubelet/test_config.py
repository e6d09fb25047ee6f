from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from steersman.engine.interface import ImageConfig
from steersman.kubelet import (
    admission,
    downward,
    env,
    hosts,
    podspec,
    pulling,
    resolvconf,
    resources,
    sandboxconfig,
    security,
)
from steersman.kubelet.env import ConfigError

from .pods import container, pod

FACTS = downward.Facts(["192.0.2.1"], ["10.1.1.1", "fd00::1"], {"cpu": "4", "memory": "8Gi"})


def secret(**data: str) -> dict[str, Any]:
    return {"data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("$(A)-$(B)", "1-2"),
        ("$$(A)", "$(A)"),
        ("$(NONE)", "$(NONE)"),
        ("$A $", "$A $"),
        ("$(A", "$(A"),
        ("$$$(A)", "$1"),
        ("", ""),
    ],
)
def test_expansion(text: str, wanted: str) -> None:
    assert env.expand(text, {"A": "1", "B": "2"}) == wanted


def test_environment_in_order_and_by_source() -> None:
    wanted = container(
        envFrom=[{"configMapRef": {"name": "c"}, "prefix": "P_"}, {"secretRef": {"name": "gone", "optional": True}}],
        env=[
            {"name": "PLAIN", "value": "x$(P_k)$(WEB_SERVICE_PORT)"},
            {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "p"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "LATER", "value": "$(IP)"},
            {"name": "SKIPPED", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "no", "optional": True}}},
        ],
    )
    fetched = {("configmaps", "c"): {"data": {"k": "v"}}, ("secrets", "s"): secret(p="word"), ("secrets", "gone"): None}
    assert env.references(wanted) == set(fetched)
    owner = pod("web", wanted)
    owner["metadata"]["labels"] = {"app": "nginx"}
    found = env.environment(owner, wanted, fetched, {"WEB_SERVICE_PORT": "80"}, FACTS)
    assert found == [
        ("P_k", "v"),
        ("PLAIN", "xv80"),
        ("SECRET", "word"),
        ("IP", "10.1.1.1"),
        ("LABEL", "nginx"),
        ("LIMIT", "4"),
        ("LATER", "10.1.1.1"),
        ("WEB_SERVICE_PORT", "80"),
    ]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ({"secretKeyRef": {"name": "gone", "key": "k"}}, 'secret "gone" not found'),
        ({"configMapKeyRef": {"name": "c", "key": "no"}}, "couldn't find key no in ConfigMap default/c"),
        ({"fieldRef": {"fieldPath": "spec.everything"}}, "unsupported fieldPath: spec.everything"),
        ({"resourceFieldRef": {"resource": "limits.cpu", "containerName": "x"}}, "container x not found"),
    ],
)
def test_what_can_not_be_resolved(source: dict[str, Any], text: str) -> None:
    wanted = container(env=[{"name": "A", "valueFrom": source}])
    with pytest.raises(ConfigError, match=text):
        env.environment(pod("web", wanted), wanted, {("configmaps", "c"): {"data": {}}}, {}, FACTS)


def test_variables_of_services() -> None:
    def service(name: str, namespace: str, ip: str, *ports: dict[str, Any]) -> dict[str, Any]:
        return {"metadata": {"name": name, "namespace": namespace}, "spec": {"clusterIP": ip, "ports": list(ports)}}

    everything = [
        service("kubernetes", "default", "10.96.0.1", {"name": "https", "port": 443}),
        service("my-db", "prod", "10.96.0.9", {"port": 5432, "protocol": "TCP"}),
        service("headless", "prod", "None", {"port": 1}),
        service("other", "elsewhere", "10.96.0.8", {"port": 1}),
    ]
    found = env.service_variables(everything, "prod", links=True)
    assert found["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"
    assert found["KUBERNETES_SERVICE_PORT_HTTPS"] == "443"
    assert found["MY_DB_PORT"] == "tcp://10.96.0.9:5432"
    assert found["MY_DB_PORT_5432_TCP_ADDR"] == "10.96.0.9"
    assert not any(name.startswith(("HEADLESS", "OTHER")) for name in found)
    assert all(name.startswith("KUBERNETES") for name in env.service_variables(everything, "prod", links=False))


def test_downward_maps_are_sorted_and_quoted() -> None:
    owner = pod()
    owner["metadata"]["annotations"] = {"b": 'say "hi"', "a": "1\n2"}
    assert downward.field_value(owner, "metadata.annotations", FACTS) == 'a="1\\n2"\nb="say \\"hi\\""'
    assert downward.field_value(owner, "status.podIPs", FACTS) == "10.1.1.1,fd00::1"


@pytest.mark.parametrize(
    ("ref", "wanted"),
    [
        ({"resource": "requests.cpu", "divisor": "1m"}, "250"),
        ({"resource": "requests.cpu"}, "1"),
        ({"resource": "limits.memory", "divisor": "1Mi"}, "64"),
        ({"resource": "limits.cpu"}, "4"),
        ({"resource": "requests.memory"}, "67108864"),
    ],
)
def test_resource_fields(ref: dict[str, Any], wanted: str) -> None:
    limited = container(resources={"requests": {"cpu": "250m"}, "limits": {"memory": "64Mi"}})
    assert downward.resource_value(pod("web", limited), limited, ref, FACTS) == wanted


@pytest.mark.parametrize(
    ("resources_", "wanted", "parent"),
    [
        ({}, "BestEffort", "besteffort/podu"),
        ({"requests": {"cpu": "1"}}, "Burstable", "burstable/podu"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed", "podu"),
        (
            {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
            "Burstable",
            "burstable/podu",
        ),
    ],
)
def test_quality_of_service(resources_: dict[str, Any], wanted: str, parent: str) -> None:
    owner = pod("web", container(resources=resources_), uid="u")
    assert resources.qos_class(owner) == wanted
    assert resources.cgroup_parent(owner) == parent


def test_kernel_numbers() -> None:
    limited = container(
        resources={"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"cpu": "500m", "memory": "2Gi"}}
    )
    found = resources.of_container(pod("web", limited), limited, 8 << 30)
    assert (found.cpu_shares, found.cpu_quota, found.cpu_period) == (256, 50_000, 100_000)
    assert found.memory_limit == 2 << 30
    assert found.oom_score_adj == 875
    bare = container()
    assert resources.of_container(pod("web", bare), bare, 8 << 30).oom_score_adj == 1000
    assert resources.of_container(pod("web", bare), bare, 8 << 30).cpu_shares == 2


def test_pod_totals_count_init_containers_once() -> None:
    def asks(name: str, cpu: str, **more: Any) -> dict[str, Any]:
        return container(name, resources={"requests": {"cpu": cpu}}, **more)

    owner = pod("web", asks("a", "1"), initContainers=[asks("s", "500m", restartPolicy="Always"), asks("i", "2")])
    assert resources.pod_total(owner, "cpu", "requests") == 2500
    assert resources.pod_total(owner, "cpu", "limits") is None


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        (
            {},
            resolvconf.Resolver(
                ["10.96.0.10"], ["default.svc.cluster.local", "svc.cluster.local", "cluster.local", "lan"], ["ndots:5"]
            ),
        ),
        ({"dnsPolicy": "Default"}, resolvconf.Resolver(["1.1.1.1"], ["lan"], ["edns0"])),
        ({"hostNetwork": True}, resolvconf.Resolver(["1.1.1.1"], ["lan"], ["edns0"])),
        (
            {
                "dnsPolicy": "None",
                "dnsConfig": {"nameservers": ["9.9.9.9"], "options": [{"name": "ndots", "value": "2"}]},
            },
            resolvconf.Resolver(["9.9.9.9"], [], ["ndots:2"]),
        ),
    ],
)
def test_resolvers(spec: dict[str, Any], wanted: resolvconf.Resolver) -> None:
    host = resolvconf.parse("# c\nnameserver 1.1.1.1\nsearch old\nsearch lan. .\noptions edns0\nnonsense\n")
    found, warnings = resolvconf.pod_resolver(pod(**spec), host, resolvconf.ClusterDns(["10.96.0.10"]))
    assert (list(found.servers), list(found.searches), list(found.options)) == (
        wanted.servers,
        wanted.searches,
        wanted.options,
    )
    assert not warnings


def test_resolver_limits_are_told() -> None:
    own = {
        "nameservers": [f"9.9.9.{number}" for number in range(5)],
        "searches": [f"{'x' * 60}{number}" for number in range(40)],
    }
    found, warnings = resolvconf.pod_resolver(
        pod(dnsPolicy="None", dnsConfig=own), resolvconf.Resolver(), resolvconf.ClusterDns()
    )
    assert len(found.servers) == 3 and len(" ".join(found.searches)) <= 2048
    assert [each.split(" ")[0] for each in warnings] == ["Nameserver", "Search"]


def test_hosts_files() -> None:
    owner = pod(hostname="db-0", subdomain="db", hostAliases=[{"ip": "10.0.0.9", "hostnames": ["a", "b"]}])
    text = hosts.content(owner, ["10.1.1.1"], "cluster.local", "")
    assert text.startswith("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n")
    assert "10.1.1.1\tdb-0.db.default.svc.cluster.local\tdb-0\n" in text
    assert text.endswith("\n# Entries added by HostAliases.\n10.0.0.9\ta\tb\n")
    assert (
        hosts.content(pod(hostNetwork=True), [], "x", "1.2.3.4 n\n")
        == "# Kubernetes-managed hosts file (host network).\n1.2.3.4 n\n"
    )


def test_long_names_become_host_names() -> None:
    assert podspec.hostname_and_domain(pod("a" * 62 + "-" + "b" * 20), "x") == ("a" * 62, "")


def test_sandboxes() -> None:
    owner = pod(
        "web",
        container(ports=[{"containerPort": 80, "hostPort": 8080}]),
        uid="u",
        hostPID=True,
        securityContext={"sysctls": [{"name": "net/ipv4/x", "value": "1"}]},
    )
    found = sandboxconfig.sandbox_config(
        owner, 2, resolvconf.Resolver(["1.1.1.1"]), "cluster.local", Path("/var/log/pods")
    )
    assert found.log_directory == "/var/log/pods/default_web_u"
    assert (found.hostname, found.attempt, found.host_pid, found.sysctls) == ("web", 2, True, {"net.ipv4.x": "1"})
    assert [(each.container_port, each.host_port) for each in found.ports] == [(80, 8080)]


@pytest.mark.parametrize(
    ("pod_context", "own", "user", "text"),
    [
        ({"runAsNonRoot": True}, {"runAsUser": 0}, "", "container's runAsUser breaks non-root policy"),
        ({"runAsNonRoot": True}, {}, "", "container has runAsNonRoot and image will run as root"),
        ({"runAsNonRoot": True}, {}, "www", "container has runAsNonRoot and image has non-numeric user (www)"),
        ({"runAsNonRoot": True}, {}, "33:33", ""),
        ({"runAsNonRoot": True, "runAsUser": 5}, {}, "", ""),
        ({"runAsNonRoot": True}, {"runAsNonRoot": False}, "", ""),
        ({"seccompProfile": {"type": "Localhost", "localhostProfile": "../../etc/x"}}, {}, "", "must be relative"),
    ],
)
def test_running_as_root_is_refused_where_asked(pod_context: Any, own: Any, user: str, text: str) -> None:
    owner = pod("web", container(securityContext=own), securityContext=pod_context)
    made = None
    try:
        made = security.security(owner, owner["spec"]["containers"][0], ImageConfig(user=user), Path("/x"))
    except ConfigError as error:
        assert text and text in str(error)
    assert (made is None) == bool(text)


def test_security_contexts() -> None:
    own = {
        "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsUser": 7,
    }
    owner = pod(
        "web",
        container(securityContext=own),
        securityContext={"fsGroup": 9, "supplementalGroups": [10], "runAsUser": 1, "runAsGroup": 3},
    )
    found = security.security(owner, owner["spec"]["containers"][0], ImageConfig(), Path("/x"))
    assert (found.run_as_user, found.run_as_group, list(found.supplemental_groups)) == (7, 3, [9, 10])
    assert (found.add_capabilities, found.drop_capabilities) == (["NET_ADMIN"], ["ALL"])
    assert found.no_new_privs and found.readonly_rootfs and not found.privileged
    assert found.seccomp == "RuntimeDefault"


def pull_secret(auths: Any) -> dict[str, Any]:
    return {"data": {".dockerconfigjson": base64.b64encode(json.dumps({"auths": auths}).encode()).decode()}}


@pytest.mark.parametrize(
    ("server", "image", "found"),
    [
        ("registry.example.com", "registry.example.com/a/b:1", True),
        ("https://registry.example.com/v1/", "registry.example.com/a", True),
        ("*.example.com", "registry.example.com/a", True),
        ("registry.example.com/other", "registry.example.com/a", False),
        ("https://index.docker.io/v1/", "nginx", True),
        ("example.com", "registry.example.com/a", False),
        ("localhost:5000", "localhost:5000/a:1", True),
    ],
)
def test_pull_secrets(server: str, image: str, found: bool) -> None:
    auth = base64.b64encode(b"me:pass:word").decode()
    logins = pulling.credentials_for(image, [pull_secret({server: {"auth": auth}})])
    assert [(each.username, each.password) for each in logins] == ([("me", "pass:word")] if found else [])


@pytest.mark.parametrize(
    "broken", ["", "@@@", base64.b64encode(b"[1]").decode(), base64.b64encode(b'{"auths": {"x": 3}}').decode()]
)
def test_broken_pull_secrets_are_left_out(broken: str) -> None:
    assert pulling.credentials_for("x/y", [{"data": {".dockerconfigjson": broken}}]) == []


NODE: dict[str, Any] = {"metadata": {"name": "node-1", "labels": {"disk": "hdd"}}}
ELSEWHERE = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-2"]}]}
PINNED = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [ELSEWHERE]}}}


@pytest.mark.parametrize(
    ("others", "spec", "reason"),
    [
        ([], {"nodeSelector": {"disk": "ssd"}}, "NodeAffinity"),
        ([], {"affinity": PINNED}, "NodeAffinity"),
        ([pod("x", container(resources={"requests": {"cpu": "3"}}))], {}, "OutOfcpu"),
        ([pod(f"x{number}") for number in range(5)], {}, "OutOfpods"),
        ([pod("x", container(ports=[{"containerPort": 1, "hostPort": 80}]))], {}, "NodePorts"),
    ],
)
def test_pods_that_do_not_fit(others: list[Any], spec: dict[str, Any], reason: str) -> None:
    asked = container(resources={"requests": {"cpu": "2"}}, ports=[{"containerPort": 2, "hostPort": 80}])
    found = admission.admit(pod("web", asked, **spec), others, {"cpu": "4", "pods": "5"}, NODE)
    assert found is not None and found.reason == reason
    assert admission.admit(pod("web", asked), [], {"cpu": "4", "pods": "5"}, NODE) is None
