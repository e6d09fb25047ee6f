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
_JITTER = 1.0  # the wait between the starts of two controllers is longer by up to this share of it


def chosen(names: Iterable[str], config: Mapping[str, str]) -> list[Controller]:
    """Those that `names` selects (see `controllers.select`) and the settings want.

    Raises ValueError for a name that no controller has and for settings that cannot be.
    """
    return [_staffed(found, config) for name in select(names) if (found := load(name)).asked_for(config)]


def _staffed(controller: Controller, config: Mapping[str, str]) -> Controller:
    number = config.get(_WORKERS.get(controller.name, ""))
    return controller if number is None else dataclasses.replace(controller, workers=int(number))


async def run_controllers(context: Context, names: Iterable[str] = USUAL) -> None:
    """Run the controllers that are `chosen` until cancelled. Raises ValueError."""
    wanted = chosen(names, context.config)
    interval = float(context.config.get("controller-start-interval", "0"))
    async with Tasks() as tasks:
        for controller in wanted:
            tasks.spawn(run(controller, context), controller.name)
            if interval > 0:
                await context.clock.sleep(interval * (1 + context.random.random() * _JITTER))
        await asyncio.get_running_loop().create_future()
