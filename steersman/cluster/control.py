"""The process of controllers and scheduler.

Owns their wiring: two clients with their own identities, shared informers, one clock, and a Lease for each. Called by
`components.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from steersman.api import schema
from steersman.api.term import Term
from steersman.client import accounts
from steersman.client.client import Client
from steersman.client.cloud import provider
from steersman.client.controller import Context
from steersman.client.election import Election, LeadershipLost, Terms
from steersman.client.events import EventRecorder
from steersman.client.exposition import Exposition
from steersman.client.informer import Informers
from steersman.client.metrics import Metrics
from steersman.client.stability import mark
from steersman.client.zpages import SINCE, Component, Pages
from steersman.cluster import controllerfiles, controllerflags, ports, process, scheduling
from steersman.cluster.process import StartFailure
from steersman.cluster.profile import Profile
from steersman.controllers import USUAL
from steersman.controllers.run import chosen, run_controllers
from steersman.lib import procstat
from steersman.lib.clock import Clock, SystemClock
from steersman.lib.http.server import Server
from steersman.lib.tasks import Tasks

log = logging.getLogger(__name__)

_AUTHORITY = {"root-ca": "ca.crt", "root-ca-key": "ca.key", "service-account-private-key": "sa.key"}
_TERMS = {"lease": "lease-duration", "renew": "renew-deadline", "retry": "retry-period"}


def main(profile: Profile, ready: Callable[[], None]) -> None:
    """The process's whole life."""
    try:
        names, config = _settings(profile)
        chosen(names, config)
        provider(config)
    except ValueError as error:
        raise StartFailure(str(error)) from error
    process.serve(lambda stop: _run(profile, ready, stop))


def _settings(profile: Profile) -> tuple[list[str], dict[str, str]]:
    """Which controllers, and what they need to know. Raises ValueError for what they cannot use."""
    given = controllerflags.values(profile.options("controller-manager"))
    config = {"cluster-cidr": str(profile.pod_network), "service-cluster-ip-range": str(profile.service_network)}
    config |= {name: (profile.pki / file).read_text() for name, file in _AUTHORITY.items()}
    config |= given | controllerfiles.read(given)
    config["volumes"] = str(profile.volumes) if profile.nodes else ""
    config["reserved-ports"] = f"{profile.api_port} 10250 10256"
    return config.get("controllers", ",".join(USUAL)).split(","), config


async def _run(profile: Profile, ready: Callable[[], None], stop: asyncio.Event) -> None:
    async with Tasks() as tasks:
        tasks.spawn(_controllers(profile), "controllers")
        tasks.spawn(_scheduler(profile), "scheduler")
        ready()
        await stop.wait()


async def _controllers(profile: Profile) -> None:
    metrics = _metrics()
    names, config = _settings(profile)
    told = {"kubecontrollermanager.config.k8s.io": {"Generic": {"Controllers": names}}}
    exposition = Exposition(metrics.registry, told, _pages(profile, "controller-manager"))
    async with (
        process.client(profile, "controller-manager", "kube-controller-manager", metrics=metrics) as (client, clock),
        Tasks() as tasks,
        Server(exposition.handle, clock) as server,
        ports.served(profile, "controller-manager", exposition.handle, client, clock),
        _accounts(profile, config, client, clock, metrics) as who,
    ):
        await server.listen_unix(profile.run / "controller-manager.sock")
        recorder = EventRecorder(client, clock, tasks, component="controllermanager")

        async def work(term: Term | None) -> None:
            async with Tasks() as inner:
                writer = client if term is None else client.leading(term)
                informers = Informers(writer, clock=clock, tasks=inner)
                cloud = provider(config)
                random = process.random()
                context = Context(writer, informers, clock, recorder, random, config, cloud, metrics, who)
                await run_controllers(context, names)

        await _lead(profile, "controller-manager", client, clock, recorder, work, metrics)


@contextlib.asynccontextmanager
async def _accounts(
    profile: Profile, config: Mapping[str, str], client: Client, clock: Clock, metrics: Metrics
) -> AsyncIterator[accounts.Accounts | None]:
    """Who the controllers are, where each is to be somebody of its own."""
    if config.get(accounts.SETTING) != "true":
        yield None
        return
    bare = process.anonymous(profile, metrics)
    try:
        yield accounts.Accounts(client, bare, clock)
    finally:
        await bare.close()


async def _scheduler(profile: Profile) -> None:
    metrics = _metrics()
    found = scheduling.configuration(profile)
    exposition = Exposition(metrics.registry, scheduling.told(found), _pages(profile, "scheduler"))

    async def work(term: Term | None) -> None:
        socket = profile.run / "scheduler.sock"
        try:
            await scheduling.run(profile, found, socket, metrics, term, exposition)
        finally:
            exposition.registry = metrics.registry

    async with (
        process.client(profile, "scheduler", "kube-scheduler", metrics=metrics) as (client, clock),
        Tasks() as tasks,
        ports.served(profile, "scheduler", exposition.handle, client, clock),
    ):
        recorder = EventRecorder(client, clock, tasks, component="kube-scheduler")
        await _lead(profile, "scheduler", client, clock, recorder, work, metrics)


def _pages(profile: Profile, component: str) -> Pages | None:
    """/statusz and /flagz, in the releases that have them; the flags are those that the profile was given."""
    if schema.number(profile.release) < SINCE:
        return None
    paths = ("/configz", "/flagz", "/healthz", "/livez", "/metrics", "/readyz", "/statusz")
    return Pages(Component(f"kube-{component}", profile.release, profile.options(component), paths), SystemClock())


def _metrics() -> Metrics:
    made = Metrics(SystemClock().monotonic)
    made.registry.mark = mark
    procstat.register(made.registry)
    return made


async def _lead(
    profile: Profile,
    component: str,
    client: Client,
    clock: Clock,
    recorder: EventRecorder,
    work: Callable[[Term | None], Awaitable[None]],
    metrics: Metrics,
) -> None:
    """Work while the component's Lease is ours: other machines may run the same on the same state.

    `work` gets our term, which its writes are to name: none of them is done when it is over, even if we do not know.

    The identity outlives the process, of which the supervisor runs one at a time: who died goes on at once.
    """
    options = profile.options(component)
    if options.get("leader-elect", "true") in controllerflags.FALSE:
        await work(None)
        return
    name = f"kube-{component}"
    metrics.follow(name)
    flags = {part: f"leader-elect-{flag}" for part, flag in _TERMS.items()}
    terms = Terms(**{part: controllerflags.seconds(options[flag]) for part, flag in flags.items() if flag in options})
    while True:
        election = Election(
            client,
            clock=clock,
            random=process.random(),
            namespace=options.get("leader-elect-resource-namespace", "kube-system"),
            name=options.get("leader-elect-resource-name", name),
            terms=terms,
            identity=f"{socket.gethostname()}_{uuid.uuid5(uuid.NAMESPACE_URL, str(profile.run))}",
            recorder=recorder.named(name),
        )
        try:
            await election.lead(lambda election=election: metrics.leading(name, lambda: work(election.term)))
        except LeadershipLost as lost:
            log.error("%s: %s: begin anew", name, lost)
        else:
            return
