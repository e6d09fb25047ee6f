"""KubeSchedulerConfiguration: what is refused, in kube-scheduler 1.36's words, and what profiles come of the rest."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.api.resource import PODS, SERVICEACCOUNTS
from steersman.client.informer import Informers
from steersman.client.series import SeriesRecorder
from steersman.lib.tasks import Tasks
from steersman.scheduler.columns import Columns
from steersman.scheduler.configuration import Configuration, ConfigurationError, load
from steersman.scheduler.plugins import KNOWN
from steersman.scheduler.podinfo import read
from steersman.scheduler.profiles import DEFAULT, make_all
from steersman.scheduler.scheduler import Scheduler, decide
from steersman.testing.cluster import ApiCluster
from tests.scheduler.test_scheduler import a_node, a_pod, add_node, until, virtual

HEAD = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"
MAKING = "initializing profiles: creating profile for scheduler name default-scheduler: "
ARGS = "profiles[0].pluginConfig[0].args"


def args(plugin: str, text: str) -> str:
    return f"profiles:\n- pluginConfig:\n  - name: {plugin}\n    args: {text}\n"


def plugins(text: str) -> str:
    return f"profiles:\n- plugins: {text}\n"


SHAPE = "{scoringStrategy: {type: RequestedToCapacityRatio, requestedToCapacityRatio: {shape: [%s]}}}"
STRATEGY = "scoringStrategy.requestedToCapacityRatio"
REFUSED = {
    "foo: 1\nprofiles:\n- schedulerName: a\n  bar: 2\n": 'strict decoding error: unknown field "foo", '
    'unknown field "profiles[0].bar"',
    "parallelism: abc\n": "json: cannot unmarshal string into Go struct field KubeSchedulerConfiguration.parallelism "
    "of type int32",
    "parallelism: 99999999999\n": "json: cannot unmarshal number 99999999999 into Go struct field "
    "KubeSchedulerConfiguration.parallelism of type int32",
    "profiles:\n- schedulerName: 3\n": "json: cannot unmarshal number into Go struct field "
    "KubeSchedulerProfile.profiles.schedulerName of type string",
    "profiles: 3\n": "json: cannot unmarshal number into Go struct field KubeSchedulerConfiguration.profiles of type "
    "[]v1.KubeSchedulerProfile",
    "parallelism: 0\npercentageOfNodesToScore: 101\npodInitialBackoffSeconds: 0\npodMaxBackoffSeconds: -1\n": "["
    "parallelism: Invalid value: 0: should be an integer value greater than zero, "
    "percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100], "
    "podInitialBackoffSeconds: Invalid value: 0: must be greater than 0, "
    "podMaxBackoffSeconds: Invalid value: -1: must be greater than or equal to PodInitialBackoffSeconds]",
    "profiles:\n- {}\n- {}\n": "[profiles[0].schedulerName: Required value, profiles[1].schedulerName: "
    "Required value, profiles[1].schedulerName: Duplicate value: {}]",
    "profiles:\n- schedulerName: a\n- schedulerName: b\n  plugins: {queueSort: {disabled: [{name: PrioritySort}]}}\n": (
        'profiles[1].plugins.queueSort: Invalid value: {"Enabled":null,"Disabled":[{"Name":"PrioritySort",'
        '"Weight":0}]}: must be the same for all profiles'
    ),
    args(
        "NodeAffinity", "{apiVersion: kubescheduler.config.k8s.io/v1, kind: InterPodAffinityArgs}"
    ): "decoding .profiles[0].pluginConfig[0]: args for plugin NodeAffinity were not of type "
    "NodeAffinityArgs.kubescheduler.config.k8s.io, got InterPodAffinityArgs.kubescheduler.config.k8s.io",
    args("NodeAffinity", "{foo: 1}"): "strict decoding error: decoding .profiles[0].pluginConfig[0]: "
    'strict decoding error: decoding args for plugin NodeAffinity: strict decoding error: unknown field "foo"',
    args("InterPodAffinity", "{hardPodAffinityWeight: 101}"): f"{ARGS}.hardPodAffinityWeight: Invalid value: 101: "
    "not in valid range [0, 100]",
    args("PodTopologySpread", "{defaultingType: Foo}"): f'{ARGS}.defaultingType: Unsupported value: "Foo": '
    'supported values: "System", "List"',
    args(
        "DefaultPreemption", "{minCandidateNodesPercentage: 0, minCandidateNodesAbsolute: 0}"
    ): f"[{ARGS}.minCandidateNodesPercentage: Invalid value: 0: cannot be zero at the same time as "
    f"minCandidateNodesAbsolute, {ARGS}.minCandidateNodesAbsolute: Invalid value: 0: cannot be zero at the same time "
    "as minCandidateNodesPercentage]",
    args("NodeResourcesBalancedAllocation", "{resources: [{name: cpu, weight: 2}, {name: cpu}]}"): (
        f'[{ARGS}.resources[0].weight: Invalid value: 2: must be 1, {ARGS}.resources[1].name: Duplicate value: "cpu"]'
    ),
    args("NodeResourcesFit", "{scoringStrategy: {type: Foo}}"): f'{MAKING}initializing plugin "NodeResourcesFit": '
    'scoringStrategy.type: Unsupported value: "Foo": supported values: "LeastAllocated", "MostAllocated", '
    '"RequestedToCapacityRatio"',
    args("NodeResourcesFit", SHAPE % "{utilization: 50, score: 11}, {utilization: 20, score: -1}"): (
        f'{MAKING}initializing plugin "NodeResourcesFit": [{STRATEGY}.shape[1].utilization: Invalid value: 20: values '
        f"must be sorted in increasing order, {STRATEGY}.shape[0].score: Invalid value: 11: not in valid range "
        f"[0, 10], {STRATEGY}.shape[1].score: Invalid value: -1: not in valid range [0, 10]]"
    ),
    args("VolumeBinding", "{bindTimeoutSeconds: -1}"): f"{ARGS}.bindTimeoutSeconds: Invalid value: -1: invalid "
    "BindTimeoutSeconds, should not be a negative value",
    plugins("{score: {enabled: [{name: Foo}]}}"): f'{MAKING}ScorePlugin "Foo" does not exist',
    plugins("{multiPoint: {enabled: [{name: Foo}]}}"): f'{MAKING}PreFilterPlugin "Foo" does not exist',
    plugins(
        "{score: {enabled: [{name: NodeName}]}}"
    ): f'{MAKING}plugin "NodeName" does not extend ScorePlugin plugin',
    plugins("{score: {disabled: [{name: '*'}], enabled: [{name: NodeAffinity}, {name: NodeAffinity}]}}"): (
        f'{MAKING}plugin "NodeAffinity" already registered as "ScorePlugin"'
    ),
    plugins("{filter: {enabled: [{name: EBSLimits}]}}"): 'profiles[0].plugins.filter.enabled[0]: Invalid value: '
    '"EBSLimits": was invalid in version "v1" (KubeSchedulerConfiguration is version "kubescheduler.config.k8s.io/v1")',
    plugins("{score: {enabled: [{name: NodeAffinity, weight: -5}]}}"): f"{MAKING}score plugins: total score of Score "
    "plugins could overflow",
    plugins("{bind: {disabled: [{name: '*'}]}}"): f"{MAKING}at least one bind plugin is needed for profile with "
    'scheduler name "default-scheduler"',
    plugins("{multiPoint: {disabled: [{name: '*'}]}}"): f"{MAKING}only one queue sort plugin required for profile "
    'with scheduler name "default-scheduler", but got 0',
    "extenders:\n- {urlPrefix: u, prioritizeVerb: p, managedResources: [{name: cpu}]}\n": "[extenders[0].weight: "
    "Invalid value: 0: must have a positive weight applied to it, extenders[0].managedResources[0].name: Invalid "
    'value: "cpu": is an invalid extended resource name]',
    "extenders:\n- {urlPrefix: u, bindVerb: b}\n- {urlPrefix: u, bindVerb: b}\n": "extenders: Invalid value: "
    '"found 2 extenders implementing bind": only one extender can implement bind',
    "extenders:\n- {urlPrefix: u, httpTimeout: foo}\n": 'time: invalid duration "foo"',
    "leaderElection: {leaderElect: true, leaseDuration: 5s}\n": 'leaderElection.leaseDuration: Invalid value: "10s": '
    "must be greater than `RenewDeadline`",
}  # fmt: skip


@pytest.mark.parametrize("body", REFUSED)
def test_what_is_refused(body: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        make_all(load((HEAD + body).encode()))
    assert str(refused.value) == REFUSED[body]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Object 'Kind' is missing in ''"),
        ("[1, 2]", "couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type"),
        (
            HEAD.replace("/v1", "/v1beta3"),
            'no kind "KubeSchedulerConfiguration" is registered for version "kubescheduler.config.k8s.io/v1beta3"',
        ),
        (HEAD.replace("KubeScheduler", "Foo"), 'no kind "FooConfiguration" is registered for version'),
        ("a: [\n", "yaml: line"),
    ],
)
def test_what_is_no_configuration(text: str, why: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(text.encode())
    assert str(refused.value).startswith(why)


nested = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["profiles", "plugins", "score", "enabled", "name", "pluginConfig", "args", "extenders"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(nested)
def test_no_file_is_worse_than_refused(body: object) -> None:
    whole = {"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration"}
    for given_ in ({**whole, "profiles": body}, {**whole, "extenders": body}, body):
        try:
            make_all(load(json.dumps(given_).encode()))
        except ConfigurationError as error:
            assert str(error)


def test_the_default_profile() -> None:
    assert make_all(load(HEAD.encode())).keys() == {"default-scheduler"}
    weights = {plugin.name: plugin.weight for plugin in DEFAULT.scores}
    assert weights == {
        "TaintToleration": 3,
        "NodeAffinity": 2,
        "NodeResourcesFit": 1,
        "PodTopologySpread": 2,
        "DynamicResources": 2,
        "InterPodAffinity": 2,
        "NodeResourcesBalancedAllocation": 1,
        "ImageLocality": 1,
    }


def test_plugins_are_disabled_weighed_and_put_first() -> None:
    body = """
podInitialBackoffSeconds: 2
podMaxBackoffSeconds: 20
profiles:
- schedulerName: one
  plugins:
    filter: {disabled: [{name: NodePorts}]}
    score: {enabled: [{name: ImageLocality, weight: 7}], disabled: [{name: NodeAffinity}]}
- schedulerName: two
  plugins:
    multiPoint: {disabled: [{name: InterPodAffinity}], enabled: [{name: TaintToleration, weight: 5}]}
    postFilter: {disabled: [{name: '*'}]}
    preEnqueue: {disabled: [{name: SchedulingGates}]}
"""
    configuration = load((HEAD + body).encode())
    assert (configuration.initial_backoff, configuration.max_backoff) == (2.0, 20.0)
    one, two = make_all(configuration).values()
    assert "NodePorts" not in [plugin.name for plugin in one.filters]
    assert next((plugin.name, plugin.weight) for plugin in one.scores) == ("ImageLocality", 7)
    assert "NodeAffinity" not in [plugin.name for plugin in one.scores]
    assert "NodeAffinity" in [plugin.name for plugin in one.filters]
    assert (one.gates, one.candidates is None) == (True, False)
    assert "InterPodAffinity" not in [plugin.name for plugin in (*two.filters, *two.scores)]
    assert {plugin.name: plugin.weight for plugin in two.scores}["TaintToleration"] == 5
    assert (two.gates, two.candidates) == (False, None)


PROFILES = """
profiles:
- schedulerName: emptiest
- schedulerName: fullest
  pluginConfig:
  - name: NodeResourcesFit
    args: {scoringStrategy: {type: MostAllocated, resources: [{name: cpu, weight: 1}]}}
- schedulerName: ssd
  pluginConfig:
  - name: NodeAffinity
    args:
      addedAffinity:
        requiredDuringSchedulingIgnoredDuringExecution:
          nodeSelectorTerms: [{matchExpressions: [{key: disk, operator: In, values: [ssd]}]}]
"""


def test_each_pod_is_placed_by_the_profile_that_it_names() -> None:
    async def body() -> None:
        configuration = load((HEAD + PROFILES).encode())
        async with ApiCluster() as cluster, Tasks() as tasks:
            client, clock = cluster.client, cluster.clock
            recorder = SeriesRecorder(client, clock, tasks, controller="default-scheduler", host="h")
            informers = Informers(client, clock=clock, tasks=tasks)
            scheduler = Scheduler(client, informers, recorder, clock, Random(1), configuration)
            tasks.spawn(scheduler.run(), "scheduler")
            await client.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, "default")
            for name in ("busy", "idle"):
                await add_node(cluster, a_node(name, "4"))
            await client.create(PODS, a_pod("first", "1", nodeName="busy"), "default")
            async with asyncio.timeout(60):
                while not scheduler.columns.resource(scheduler.columns.requested, "cpu").any():
                    await clock.sleep(0.1)
            for name in ("emptiest", "fullest", "ssd", "nobody"):
                await client.create(PODS, a_pod(name, "500m", schedulerName=name), "default")
            pod = await until(cluster, "emptiest", lambda pod: bool(pod["spec"].get("nodeName")))
            assert pod["spec"]["nodeName"] == "idle"
            pod = await until(cluster, "fullest", lambda pod: bool(pod["spec"].get("nodeName")))
            assert pod["spec"]["nodeName"] == "busy"
            pod = await until(cluster, "ssd", lambda pod: bool((pod.get("status") or {}).get("conditions")))
            message = pod["status"]["conditions"][0]["message"]
            assert "2 node(s) didn't match scheduler-enforced node affinity" in message
            assert not (await client.get(PODS, "nobody", "default"))["spec"].get("nodeName")

    virtual(body)


def test_what_extenders_manage_alone_is_not_looked_at() -> None:
    extender = "{urlPrefix: u, managedResources: [{name: example.com/foo, ignoredByScheduler: true}]}"
    profile = make_all(load((HEAD + f"extenders: [{extender}]\n").encode()))["default-scheduler"]
    columns = Columns()
    columns.set_node(a_node("n"))
    wants = a_pod("p")
    wants["metadata"] |= {"uid": "p", "namespace": "d"}
    wants["spec"]["containers"][0]["resources"]["requests"]["example.com/foo"] = "1"
    assert decide(columns, read(wants), profile, Random(1)).node == "n"
    assert decide(columns, read(wants), DEFAULT, Random(1)).node == ""


def test_a_scheduler_without_a_file_has_one_profile() -> None:
    assert [each.name for each in Configuration().profiles] == ["default-scheduler"]


def test_older_names_of_rules_are_explained_by_names_of_today() -> None:
    text = (Path(__file__).parents[2] / "docs/compatibility.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| Older names of the scheduler's rules"))
    pairs = [each.split(": ") for each in row.split(" | ")[1].split("; ")]
    names = {old: today for today, olds in pairs for old in olds.split(", ")}
    assert names["PodFitsResources"] == names["LeastRequestedPriority"] == "NodeResourcesFit"
    assert names["SelectorSpreadPriority"] == "PodTopologySpread"
    assert set(names.values()) <= KNOWN.keys()
    assert not names.keys() & KNOWN.keys()
