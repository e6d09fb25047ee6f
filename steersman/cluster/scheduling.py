"""A scheduler as a process runs it, and its settings: what `--extra-config=scheduler.*` says.

Owns the reading of its configuration file and its wiring. Called by `steer up`, which refuses what cannot work, by the
process of controllers and scheduler, and by `steer scheduler` for one more.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from socket import gethostname
from typing import Any

from steersman.api.resource import NODES
from steersman.api.term import Term
from steersman.client.exposition import Exposition
from steersman.client.informer import Informer, Informers
from steersman.client.metrics import Metrics
from steersman.client.series import SeriesRecorder
from steersman.client.stability import mark
from steersman.cluster import process
from steersman.cluster.profile import Profile, ProfileError
from steersman.lib.http.server import Server
from steersman.lib.metrics import Registry
from steersman.lib.tasks import Tasks
from steersman.scheduler.configuration import Configuration, ConfigurationError, load, named
from steersman.scheduler.endpoint import Endpoint


def configuration(profile: Profile) -> Configuration:
    """The configuration that the profile asks for. Raises ProfileError in the original's words."""
    options = profile.options("scheduler")
    if path := options.get("config"):
        try:
            return read(Path(path))
        except ProfileError as error:
            raise ProfileError(f"invalid value for --extra-config: scheduler.config={error}") from None
    return named(options["scheduler-name"]) if options.get("scheduler-name") else Configuration()


def told(found: Configuration) -> dict[str, Any]:
    """What /configz says: of the original's internal form what there is here."""
    profiles = [
        {"SchedulerName": each.name, "Plugins": each.plugins, "PluginConfig": [
            {"Name": name, "Args": args} for name, args in each.args.items()
        ]}
        for each in found.profiles
    ]  # fmt: skip
    return {
        "kubescheduler.config.k8s.io": {
            "PodInitialBackoffSeconds": found.initial_backoff,
            "PodMaxBackoffSeconds": found.max_backoff,
            "Profiles": profiles,
            "Extenders": list(found.extenders),
        }
    }


def read(path: Path) -> Configuration:
    """A file's configuration. Raises ProfileError in the original's words."""
    try:
        return load(path.read_bytes())
    except (OSError, ConfigurationError) as error:
        raise ProfileError(f"{path}: {error}") from None


def check(found: Configuration) -> None:
    """Refuse a configuration that no scheduler could start with. Raises ProfileError in the original's words."""
    from steersman.scheduler.profiles import make_all  # NumPy takes long to import: only who asks for it pays

    try:
        make_all(found)
    except ConfigurationError as error:
        raise ProfileError(f"invalid scheduler configuration: {error}") from None


async def run(
    profile: Profile,
    found: Configuration,
    socket: Path,
    metrics: Metrics | None = None,
    term: Term | None = None,
    exposition: Exposition | None = None,
) -> None:
    """Schedule until cancelled, from the first node on; `socket` is for those who ask why, and for `metrics`.

    `term`: a leader's, which its writes end with. `exposition` tells of this term's metrics meanwhile.
    """
    async with (
        process.client(profile, "scheduler", "kube-scheduler", metrics=metrics) as (client, clock),
        Tasks() as tasks,
    ):
        if term is not None:
            client = client.leading(term)
        informers = Informers(client, clock=clock, tasks=tasks)
        await _first(informers.informer(NODES))  # a control plane alone has nowhere to put a pod
        module = await asyncio.get_running_loop().run_in_executor(None, _load)
        recorder = SeriesRecorder(client, clock, tasks, controller=module.DEFAULT_NAME, host=gethostname())
        registry = Registry(mark)  # of this term: whoever leads again begins anew
        if metrics is not None:
            registry.include(metrics.registry)
        if exposition is not None:
            exposition.registry = registry
        counted = module.SchedulerMetrics(registry)
        scheduler = module.Scheduler(client, informers, recorder, clock, process.random(), found, counted)
        async with Server(Endpoint(scheduler.explain, registry).handle, clock) as server:
            await server.listen_unix(socket)
            await scheduler.run()


async def _first(informer: Informer) -> None:
    """Wait for the first object."""
    there = asyncio.Event()
    informer.add_handler(lambda old, new: there.set())
    await there.wait()


def _load() -> Any:
    """NumPy takes a third of a second to import: in a thread, while the controllers start."""
    from steersman.scheduler import scheduler

    return scheduler
