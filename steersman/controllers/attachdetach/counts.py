"""What metrics say of volumes that are attached: how many are, how many shall be, and how many pods use on each node.

Owns those families; counted anew whenever somebody asks. Called by the controller. Source: kubernetes'
pkg/controller/volume/attachdetach/metrics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from steersman.api.resource import Object
from steersman.client.metrics import Metrics


def _plugin(driver: str) -> str:
    return f"kubernetes.io/csi:{driver}"


def collect(
    metrics: Metrics, volumes: Iterable[Object], attachments: Iterable[Object], users: Callable[[Object], list[Object]]
) -> None:
    """Count. `volumes`: the PersistentVolumes of drivers; `users`: the pods on nodes that need one."""
    states: Counter[tuple[str, str]] = Counter()
    used: Counter[tuple[str, str]] = Counter()
    for volume in volumes:
        plugin = _plugin(volume["spec"]["csi"]["driver"])
        nodes = [str(pod["spec"]["nodeName"]) for pod in users(volume)]
        used.update((node, plugin) for node in nodes)
        states[plugin, "desired_state_of_world"] += len(set(nodes))
    for each in attachments:
        states[_plugin(each["spec"]["attacher"]), "actual_state_of_world"] += 1
    for name, text, labels, found in (
        ("attachdetach_controller_total_volumes", "Volumes by state.", ("plugin_name", "state"), states),
        ("storage_count_attachable_volumes_in_use", "Volumes in use.", ("node", "volume_plugin"), used),
    ):
        family = metrics.gauge(name, text, labels)
        family.clear()
        for values, number in found.items():
            if number:
                family.labels(*values).set(number)
