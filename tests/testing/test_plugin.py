"""The pytest plugin as its users have it: in a pytest of their own."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.slow

TESTS = '''
import subprocess, sys
import pytest
from steersman.api.errors import ApiError
from steersman.testing.client import condition

from steersman.testing.objects import config_map as config, deployment

def test_objects_come_and_go(cluster, namespace):
    api = cluster.client
    api.create(config("a", k="v"), namespace)
    assert api.get("cm", "a", namespace)["data"] == {"k": "v"}
    assert [item["metadata"]["name"] for item in api.list("configmaps", namespace)] >= ["a"]
    api.patch("ConfigMap", "a", {"data": {"k": "w"}}, namespace)
    assert api.get("configmap", "a", namespace)["data"] == {"k": "w"}
    api.delete("configmaps", "a", namespace)
    api.wait_gone("configmaps", "a", namespace)

def test_controllers_are_real(cluster, namespace):
    api = cluster.client
    api.create(deployment("d", replicas=2), namespace)
    api.wait("deploy", "d", lambda d: d.get("status", {}).get("replicas") == 2, namespace)
    assert len(api.list("pods", namespace, labels="app=d")) == 2
    api.delete("deployments.apps", "d", namespace, propagation="Foreground")
    api.wait_gone("deployments", "d", namespace)
    assert api.list("pods", namespace) == []

CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: knots.sea.example.com}
spec:
  group: sea.example.com
  scope: Namespaced
  names: {plural: knots, singular: knot, kind: Knot, shortNames: [kn]}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {
      type: object, properties: {spec: {type: object, properties: {turns: {type: integer}}}}}}}
---
apiVersion: sea.example.com/v1
kind: Knot
metadata: {name: bowline}
spec: {turns: 3}
"""

def test_custom_resources(cluster, namespace):
    cluster.client.apply(CRD, namespace)
    assert cluster.client.get("kn", "bowline", namespace)["spec"] == {"turns": 3}

def test_errors_are_clear(cluster, namespace):
    api = cluster.client
    with pytest.raises(ApiError) as refused:
        api.create(config("Not A Name"), namespace)
    assert refused.value.code == 422
    with pytest.raises(LookupError, match="doesn't have a resource type"):
        api.get("sails", "x")
    with pytest.raises(LookupError, match='no matches for kind "Sail"'):
        api.create({"apiVersion": "v9", "kind": "Sail", "metadata": {"name": "x"}})
    api.create(config("b"), namespace)
    with pytest.raises(TimeoutError, match="last seen"):
        api.wait("cm", "b", condition("Never"), namespace, timeout=0.05)
    with pytest.raises(TimeoutError, match="it does not exist"):
        api.wait("cm", "c", condition("Never"), namespace, timeout=0.05)

def test_everybody_else_has_a_kubeconfig(cluster, namespace):
    code = f"""
import kubernetes
kubernetes.config.load_kube_config({str(cluster.kubeconfig)!r})
print(kubernetes.client.CoreV1Api().read_namespace({namespace!r}).status.phase)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "Active", done.stderr

def test_another_release_beside_it(make_cluster):
    older = make_cluster(release="1.30")
    assert older.client.get("Namespace", "default")["status"]["phase"] == "Active"
'''


def test_a_users_tests_pass(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TESTS)
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=6)


def test_a_cluster_for_each_test(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nsteersman_scope = function\n")
    pytester.makepyfile(
        """
import pytest

@pytest.mark.parametrize("turn", range(20))
def test_it_is_empty(cluster, turn):
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "only"}}
    cluster.client.create(config, "default")

def test_twenty_side_by_side(make_cluster):
    many = [make_cluster() for _ in range(20)]
    assert len({one.url for one in many}) == 20
    for one in many:
        assert one.client.get("ns", "default")["kind"] == "Namespace"
"""
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=21)


def test_a_wrong_scope_is_said(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nsteersman_scope = forever\n")
    pytester.makepyfile("def test_x(cluster): pass")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(["*steersman_scope: 'forever' is none of function, class*"])
    assert result.ret != 0
