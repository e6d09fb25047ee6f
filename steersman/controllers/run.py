"""Running controllers: the chosen ones side by side on one loop, sharing informers.

Owns nothing but their tasks. Called by `cluster` and by tests; it ends when it is cancelled.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable, Mapping

from steersman.client.controller import Context, Controller, run
from steersman.controllers import USUAL, load, select
from steersman.lib.tasks import Tasks

_WORKERS = {
    "cronjob-controller": "concurrent-cron-job-syncs",
    "daemonset-controller": "concurrent-daemonset-syncs",
    "deployment-controller": "concurrent-deployment-syncs",
    "device-taint-eviction-controller": "concurrent-device-taint-eviction-syncs",
    "endpoints-controller": "concurrent-endpoint-syncs",
    "endpointslice-controller": "concurrent-service-endpoint-syncs",
    "endpointslice-mirroring-controller": "mirroring-concurrent-service-endpoint-syncs",
    "ephemeral-volume-controller": "concurrent-ephemeralvolume-syncs",
    "garbage-collector-controller": "concurrent-gc-syncs",
    "horizontal-pod-autoscaler-controller": "concurrent-horizontal-pod-autoscaler-syncs",
    "job-controller": "concurrent-job-syncs",
    "namespace-controller": "concurrent-namespace-syncs",
    "replicaset-controller": "concurrent-replicaset-syncs",
    "replicationcontroller-controller": "concurrent-rc-syncs",
    "resourceclaim-controller": "concurrent-resourceclaim-syncs",
    "resourcequota-controller": "concurrent-resource-quota-syncs",
    "service-lb-controller": "concurrent-service-syncs",
    "serviceaccount-token-controller": "concurrent-serviceaccount-token-syncs",
    "statefulset-controller": "concurrent-statefulset-syncs",
    "ttl-after-finished-controller": "concurrent-ttl-after-finished-syncs",
    "validatingadmissionpolicy-status-controller": "concurrent-validating-admission-policy-status-syncs",
}
"""The setting that says how many objects a controller works on at once."""
_QUEUES = {
    "bootstrap-signer-controller": "bootstrap_signer_queue",
    "certificatesigningrequest-approving-controller": "certificate",
    "certificatesigningrequest-cleaner-controller": "certificate_cleaner",
    "certificatesigningrequest-signing-controller": "certificate_signer",
    "cloud-node-controller": "Nodes",
    "clusterrole-aggregation-controller": "ClusterRoleAggregator",
    "device-taint-eviction-controller": "device-taint-eviction-controller",
    "endpoints-controller": "endpoint",
    "endpointslice-controller": "endpoint_slice",
    "endpointslice-mirroring-controller": "endpoint_slice_mirroring",
    "ephemeral-volume-controller": "ephemeral_volume",
    "garbage-collector-controller": "garbage_collector_attempt_to_delete",
    "horizontal-pod-autoscaler-controller": "horizontalpodautoscaler",
    "node-lifecycle-controller": "node_lifecycle_controller",
    "node-route-controller": "Routes",
    "persistentvolume-attach-detach-controller": "pvcs",
    "persistentvolume-binder-controller": "claims",
    "persistentvolume-expander-controller": "volume_expand",
    "persistentvolume-protection-controller": "pvprotection",
    "persistentvolumeclaim-protection-controller": "pvcprotection",
    "pod-garbage-collector-controller": "orphaned_pods_nodes",
    "replicationcontroller-controller": "replicationmanager",
    "resourceclaim-controller": "resource_claim",
    "resourcequota-controller": "resourcequota_primary",
    "root-ca-certificate-publisher-controller": "root_ca_cert_publisher",
    "selinux-warning-controller": "selinux_warning",
    "service-cidr-controller": "ipaddresses",
    "service-lb-controller": "service",
    "serviceaccount-token-controller": "serviceaccount_tokens_secret",
    "storage-version-migrator-controller": "storage-version-migrator-controller",
    "taint-eviction-controller": "noexec_taint_pod",
    "token-cleaner-controller": "token_cleaner",
    "ttl-after-finished-controller": "ttl_jobs_to_delete",
    "ttl-controller": "ttlcontroller",
    "volumeattributesclass-protection-controller": "vacprotection",
}
"""What metrics call a controller's queue, as in the original, where that is not the short form of its name.

Here each controller has one queue; where the original has several, it is the first of them.
"""
_AGENTS = {
    "bootstrap-signer-controller": "bootstrap-signer",
    "certificatesigningrequest-approving-controller": "certificate-controller",
    "certificatesigningrequest-cleaner-controller": "certificate-controller",
    "certificatesigningrequest-signing-controller": "certificate-controller",
    "cloud-node-controller": "node-controller",
    "cloud-node-lifecycle-controller": "node-controller",
    "daemonset-controller": "daemon-set-controller",
    "endpoints-controller": "endpoint-controller",
    "endpointslice-mirroring-controller": "endpointslicemirroring-controller",
    "garbage-collector-controller": "generic-garbage-collector",
    "horizontal-pod-autoscaler-controller": "horizontal-pod-autoscaler",
    "legacy-serviceaccount-token-cleaner-controller": "legacy-service-account-token-cleaner",
    "hostpath-provisioner-controller": "persistent-volume-binder",
    "node-ipam-controller": "node-controller",
    "node-lifecycle-controller": "node-controller",
    "node-route-controller": "route-controller",
    "persistentvolume-attach-detach-controller": "attachdetach-controller",
    "persistentvolume-binder-controller": "persistent-volume-binder",
    "persistentvolume-expander-controller": "expand-controller",
    "persistentvolume-protection-controller": "pv-protection-controller",
    "persistentvolumeclaim-protection-controller": "pvc-protection-controller",
    "pod-garbage-collector-controller": "pod-garbage-collector",
    "replicationcontroller-controller": "replication-controller",
    "resourceclaim-controller": "resource-claim-controller",
    "root-ca-certificate-publisher-controller": "root-ca-cert-publisher",
    "service-cidr-controller": "service-cidrs-controller",
    "service-lb-controller": "service-controller",
    "serviceaccount-controller": "service-account-controller",
    "serviceaccount-token-controller": "tokens-controller",
    "taint-eviction-controller": "node-controller",
    "token-cleaner-controller": "token-cleaner",
}
"""What the user agent of a controller's requests ends with, as in the original, where that is not its name."""
_RUNNING = {
    "cloud-node-controller": "cloud-node",
    "cloud-node-lifecycle-controller": "cloud-node-lifecycle",
    "node-ipam-controller": "nodeipam",
    "node-route-controller": "route",
    "service-lb-controller": "service",
}
"""What the metric of running controllers calls those of which the original tells; the others have their names."""
_JITTER = 1.0  # the wait between the starts of two controllers is longer by up to this share of it


def chosen(names: Iterable[str], config: Mapping[str, str]) -> list[Controller]:
    """Those that `names` selects (see `controllers.select`) and the settings want.

    Raises ValueError for a name that no controller has and for settings that cannot be.
    """
    return [_staffed(found, config) for name in select(names) if (found := load(name)).asked_for(config)]


def _staffed(controller: Controller, config: Mapping[str, str]) -> Controller:
    number = int(config.get(_WORKERS.get(controller.name, ""), controller.workers))
    queue = _QUEUES.get(controller.name, controller.name.removesuffix("-controller"))
    agent = _AGENTS.get(controller.name, controller.name)
    return dataclasses.replace(controller, workers=number, queue=queue, agent=agent)


async def run_controllers(context: Context, names: Iterable[str] = USUAL) -> None:
    """Run the controllers that are `chosen` until cancelled. Raises ValueError."""
    wanted = chosen(names, context.config)
    interval = float(context.config.get("controller-start-interval", "0"))
    text = "Controllers that run."
    running = context.metrics.gauge("running_managed_controllers", text, ("name", "manager"))
    async with Tasks() as tasks:
        for controller in wanted:
            tasks.spawn(run(controller, context), controller.name)
            running.labels(_RUNNING.get(controller.name, controller.name), "kube-controller-manager").set(1)
            if interval > 0:
                await context.clock.sleep(interval * (1 + context.random.random() * _JITTER))
        await asyncio.get_running_loop().create_future()
