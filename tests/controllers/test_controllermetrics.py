"""What controllers count, under the original's names."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from steersman.api.resource import (
    CRONJOBS,
    DEPLOYMENTS,
    ENDPOINTS,
    JOBS,
    NODES,
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    PODS,
    REPLICASETS,
    SERVICES,
)
from steersman.client.controller import Context
from steersman.client.deviceclaims import CLAIMS
from steersman.client.metrics import Metrics
from steersman.controllers.hpa import HPAS
from steersman.controllers.run import run_controllers

from .conftest import World
from .objects import deployment, pod, replicaset, service, template
from .test_pvbinder import new_claim, volume


class Counted:
    """Controllers whose metrics can be read."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.metrics = Metrics(world.clock.monotonic)

    def start(self, *names: str, **config: str) -> None:
        world = self.world
        context = Context(
            world.client, world.informers, world.clock, world.recorder, Random(1), config, None, self.metrics
        )
        world.tasks.spawn(run_controllers(context, names), "controllers")

    def __getitem__(self, sample: str) -> float | None:
        """One sample's value; None when it is not printed."""
        for line in self.metrics.registry.text().splitlines():
            if line.rpartition(" ")[0] == sample:
                return float(line.rpartition(" ")[2])
        return None


@pytest.fixture
def counted(world: World) -> Counted:
    return Counted(world)


async def test_jobs(world: World, counted: Counted) -> None:
    counted.start("job-controller", "ttl-after-finished-controller")
    spec = {"ttlSecondsAfterFinished": 60, "template": template(restartPolicy="Never")}
    await world.client.create(JOBS, {"metadata": {"name": "j"}, "spec": spec}, "default")
    await world.settle()
    [made] = await world.list(PODS)
    await world.make_ready(made)
    await world.set_status(PODS, made, phase="Succeeded")
    await world.settle()
    mode = 'completion_mode="NonIndexed"'
    assert counted[f'job_controller_jobs_finished_total{{{mode},reason="CompletionsReached",result="succeeded"}}'] == 1
    assert counted[f'job_controller_job_pods_finished_total{{{mode},result="succeeded"}}'] == 1
    assert counted[f'job_controller_job_syncs_total{{action="pods_created",{mode},result="success"}}'] == 1
    await world.settle(70)
    assert counted["ttl_after_finished_controller_job_deletion_duration_seconds_count"] == 1
    assert counted['running_managed_controllers{manager="kube-controller-manager",name="job-controller"}'] == 1
    assert (counted['workqueue_adds_total{name="job"}'] or 0) > 0
    assert (counted['workqueue_adds_total{name="ttl_jobs_to_delete"}'] or 0) > 0


async def test_schedules(world: World, counted: Counted) -> None:
    counted.start("cronjob-controller")
    body: Any = {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": template(restartPolicy="Never")}}}
    await world.client.create(CRONJOBS, {"metadata": {"name": "cron"}, "spec": body}, "default")
    await world.settle(310)
    assert counted["cronjob_controller_job_creation_skew_duration_seconds_count"] == 1
    assert counted['cronjob_controller_job_creation_skew_duration_seconds_bucket{le="1"}'] == 1


async def test_slices(world: World, counted: Counted) -> None:
    counted.start("endpointslice-controller")
    await world.client.create(NODES, {"metadata": {"name": "node-1"}})
    await world.client.create(SERVICES, service(trafficDistribution="PreferSameZone"), "default")
    await world.settle()
    await world.make_ready(await world.client.create(PODS, pod("web-0"), "default"))
    await world.settle()
    assert counted['endpoint_slice_controller_changes{operation="create"}'] == 1
    assert counted['endpoint_slice_controller_changes{operation="update"}'] == 1
    of = "endpoint_slice_controller"
    assert counted[f"{of}_endpoints_added_per_sync_sum"] == 1
    assert (counted[f'{of}_syncs{{result="success"}}'] or 0) >= 2
    near = 'traffic_distribution="PreferSameZone"'
    assert counted[f'{of}_endpointslices_changed_per_sync_sum{{topology="Disabled",{near}}}'] == 2
    assert counted[f"{of}_services_count_by_traffic_distribution{{{near}}}"] == 1
    kept = [f"{of}_{name}" for name in ("endpoints_desired", "num_endpoint_slices", "desired_endpoint_slices")]
    assert [counted[name] for name in kept] == [1, 1, 1]
    await world.client.delete(SERVICES, "web", "default")
    await world.settle()
    assert [counted[name] for name in kept] == [0, 0, 0]
    assert counted[f"{of}_services_count_by_traffic_distribution{{{near}}}"] == 0


async def test_mirrors(world: World, counted: Counted) -> None:
    counted.start("endpointslice-mirroring-controller", **{"mirroring-max-endpoints-per-subset": "2"})
    await world.client.create(SERVICES, service(selector={}), "default")
    addresses = [{"ip": f"192.0.2.{number}"} for number in range(3)]
    body = {"metadata": {"name": "web"}, "subsets": [{"addresses": addresses, "ports": [{"port": 80}]}]}
    made = await world.client.create(ENDPOINTS, body, "default")
    await world.settle()
    of = "endpoint_slice_mirroring_controller"
    assert (counted[f"{of}_addresses_skipped_per_sync_sum"] or 0) >= 1
    assert counted[f"{of}_endpoints_desired"] == 2
    first = {**addresses[0], "hostname": "a"}
    await world.client.update(ENDPOINTS, {**made, "subsets": [{"addresses": [first], "ports": [{"port": 80}]}]})
    await world.settle()
    assert counted[f"{of}_endpoints_desired"] == 1
    assert (counted[f"{of}_endpoints_sync_duration_count"] or 0) >= 2


async def test_what_has_no_labels_is_printed_before_anything_happens(world: World, counted: Counted) -> None:
    counted.start("*")
    await world.settle()
    for name in (
        "cronjob_controller_job_creation_skew_duration_seconds_count",
        "device_taint_eviction_controller_pod_deletions_total",
        "ephemeral_volume_controller_create_failures_total",
        "garbagecollector_controller_resources_sync_error_total",
        "horizontal_pod_autoscaler_controller_num_horizontal_pod_autoscalers",
        "node_collector_update_node_health_duration_seconds_count",
        "replicaset_controller_sorting_deletion_age_ratio_count",
        "retroactive_storageclass_total",
        "taint_eviction_controller_pod_deletion_duration_seconds_count",
        "ttl_after_finished_controller_job_deletion_duration_seconds_count",
    ):
        assert counted[name] == 0, name


async def test_the_ages_of_replicas_that_go(world: World, counted: Counted) -> None:
    counted.start("replicaset-controller")
    made = await world.client.create(REPLICASETS, replicaset(replicas=1), "default")
    await world.settle()
    await world.make_ready((await world.list(PODS))[0])
    await world.settle(100)
    await world.client.patch(REPLICASETS, made["metadata"]["name"], "default", {"spec": {"replicas": 2}})
    await world.settle()
    for each in await world.list(PODS):
        await world.make_ready(each)
    await world.client.patch(REPLICASETS, made["metadata"]["name"], "default", {"spec": {"replicas": 1}})
    await world.settle()
    assert counted["replicaset_controller_sorting_deletion_age_ratio_count"] == 1
    assert counted["replicaset_controller_sorting_deletion_age_ratio_sum"] == 1


async def test_indexes_and_rules_of_jobs(world: World, counted: Counted) -> None:
    counted.start("job-controller")
    rule = {"action": "Count", "onExitCodes": {"operator": "In", "values": [3]}}
    spec = {
        "completionMode": "Indexed",
        "completions": 1,
        "backoffLimitPerIndex": 0,
        "podFailurePolicy": {"rules": [rule]},
        "template": template(restartPolicy="Never"),
    }
    await world.client.create(JOBS, {"metadata": {"name": "j"}, "spec": spec}, "default")
    await world.settle()
    [made] = await world.list(PODS)
    await world.make_ready(made)
    state = {"terminated": {"exitCode": 3, "reason": "Error"}}
    ended = {"name": "c", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": state}
    await world.set_status(PODS, made, phase="Failed", containerStatuses=[ended])
    await world.settle(30)
    assert counted['job_controller_job_pods_creation_total{reason="new",status="succeeded"}'] == 1
    assert counted['job_controller_job_finished_indexes_total{backoffLimit="perIndex",status="failed"}'] == 1
    assert counted['job_controller_pod_failures_handled_by_failure_policy_total{action="Count"}'] == 1


async def test_device_claims(world: World, counted: Counted) -> None:
    counted.start("resourceclaim-controller")
    request = {"name": "r", "exactly": {"deviceClassName": "x"}}
    await world.client.create(
        CLAIMS, {"metadata": {"name": "c"}, "spec": {"devices": {"requests": [request]}}}, "default"
    )
    await world.settle()
    labels = 'admin_access="false",allocated="false",source=""'
    assert counted[f"resourceclaim_controller_resource_claims{{{labels}}}"] == 1


async def test_volumes(world: World, counted: Counted) -> None:
    counted.start("persistentvolume-binder-controller")
    await world.client.create(PERSISTENTVOLUMES, volume())
    await world.client.create(PERSISTENTVOLUMES, volume("other", storageClassName="x"))
    await world.client.create(PERSISTENTVOLUMECLAIMS, new_claim(storageClassName=""), "default")
    await world.settle()
    assert counted['pv_collector_bound_pv_count{storage_class=""}'] == 1
    assert counted['pv_collector_unbound_pv_count{storage_class="x"}'] == 1
    kind = 'plugin_name="kubernetes.io/host-path",volume_mode="Filesystem"'
    assert counted[f"pv_collector_total_pv_count{{{kind}}}"] == 2
    labels = 'namespace="default",storage_class="",volume_attributes_class=""'
    assert counted[f"pv_collector_bound_pvc_count{{{labels}}}"] == 1


async def test_zones(world: World, counted: Counted) -> None:
    counted.start("node-lifecycle-controller")
    for name, status in (("a", "True"), ("b", "False")):
        node = await world.client.create(NODES, {"metadata": {"name": name}})
        await world.set_status(NODES, node, conditions=[{"type": "Ready", "status": status}])
    await world.settle()
    assert counted['node_collector_zone_size{zone=""}'] == 2
    assert counted['node_collector_zone_health{zone=""}'] == 50
    assert counted['node_collector_unhealthy_nodes_in_zone{zone=""}'] == 1


async def test_autoscaling(world: World, counted: Counted) -> None:
    await world.client.create(DEPLOYMENTS, deployment(), "default")
    counted.start("horizontal-pod-autoscaler-controller")
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    spec = {"scaleTargetRef": target, "minReplicas": 3, "maxReplicas": 5}
    await world.client.create(HPAS, {"metadata": {"name": "web"}, "spec": spec}, "default")
    await world.settle(1)
    of = "horizontal_pod_autoscaler_controller"
    assert counted[f'{of}_reconciliations_total{{action="scale_up",error="none"}}'] == 1
    assert counted[f'{of}_desired_replicas{{hpa_name="web",namespace="default"}}'] == 3
    assert counted[f"{of}_num_horizontal_pod_autoscalers"] == 1
    await world.settle(30)
    labels = 'action="none",error="internal",metric_type="Resource"'
    assert (counted[f"{of}_metric_computation_total{{{labels}}}"] or 0) >= 1
    assert (counted[f"{of}_metric_computation_duration_seconds_count{{{labels}}}"] or 0) >= 1


async def test_authorities_and_forced_ends(world: World, counted: Counted) -> None:
    counted.start("root-ca-certificate-publisher-controller", "pod-garbage-collector-controller", **{"root-ca": "PEM"})
    await world.make_ready(await world.client.create(PODS, pod("lost"), "default"), "nowhere")
    await world.settle(60)
    assert (counted['root_ca_cert_publisher_sync_total{code="200"}'] or 0) >= 4
    assert counted['pod_gc_collector_force_delete_pods_total{namespace="default",reason="orphaned"}'] == 1


async def test_ranges_of_nodes(world: World, counted: Counted) -> None:
    flags = {"allocate-node-cidrs": "true", "cluster-cidr": "10.240.0.0/16", "node-cidr-mask-size": "18"}
    counted.start("node-ipam-controller", **flags)
    for name in ("a", "b"):
        await world.client.create(NODES, {"metadata": {"name": name}})
    await world.settle()
    await world.client.delete(NODES, "b")
    await world.settle()
    where = '{clusterCIDR="10.240.0.0/16"}'
    assert counted[f"node_ipam_controller_cirdset_max_cidrs{where}"] == 4
    assert counted[f"node_ipam_controller_cidrset_usage_cidrs{where}"] == 0.25
    assert counted[f"node_ipam_controller_cidrset_cidrs_allocations_total{where}"] == 2
    assert counted[f"node_ipam_controller_cidrset_cidrs_releases_total{where}"] == 1


async def test_balancers_that_hear_of_nodes(world: World, counted: Counted) -> None:
    counted.start("service-lb-controller")
    for number in (1, 2):
        node = await world.client.create(NODES, {"metadata": {"name": f"n{number}"}})
        address = {"type": "InternalIP", "address": f"192.0.2.{number}"}
        await world.set_status(NODES, node, addresses=[address], conditions=[{"type": "Ready", "status": "True"}])
        if number == 1:
            await world.client.create(SERVICES, service(type="LoadBalancer"), "default")
        await world.settle()
    assert counted["service_controller_loadbalancer_sync_total"] == 1
    assert counted["service_controller_nodesync_error_total"] is None


async def test_attached_volumes(world: World, counted: Counted) -> None:
    counted.start("persistentvolume-attach-detach-controller")
    managed = {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}
    await world.client.create(NODES, {"metadata": {"name": "node-1", "annotations": managed}})
    csi = {"driver": "disks.example", "volumeHandle": "h"}
    reference = {"kind": "PersistentVolumeClaim", "namespace": "default", "name": "data"}
    claim = await world.client.create(PERSISTENTVOLUMECLAIMS, new_claim(volumeName="disk"), "default")
    made = volume("disk", claimRef=reference | {"uid": claim["metadata"]["uid"]}, csi=csi)
    del made["spec"]["hostPath"]
    await world.client.create(PERSISTENTVOLUMES, made)
    await world.set_status(PERSISTENTVOLUMECLAIMS, claim, phase="Bound")
    disk = {"name": "v", "persistentVolumeClaim": {"claimName": "data"}}
    await world.make_ready(await world.client.create(PODS, pod("a", volumes=[disk]), "default"))
    await world.settle()
    plugin = "kubernetes.io/csi:disks.example"
    total = 'attachdetach_controller_total_volumes{plugin_name="%s",state="%s_state_of_world"}'
    assert [counted[total % (plugin, state)] for state in ("desired", "actual")] == [1, 1]
    assert counted[f'storage_count_attachable_volumes_in_use{{node="node-1",volume_plugin="{plugin}"}}'] == 1
