"""What a cloud is to the cluster: machines, routes and load balancers.

Owns the interface that providers implement and the choice of one by `cloud-provider`: none is the built-in local one,
`external` means that somebody else's cloud controller manager does the work, and any other name is an entry point of
group `steersman.cloud.providers`, a function of the settings. Called by `cluster` and by the controllers of a cloud.
What goes wrong at a provider is an OSError, and is tried again. Source: kubernetes' cloud-provider, cloud.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from steersman.api.resource import Object

GROUP = "steersman.cloud.providers"
UNINITIALIZED = "node.cloudprovider.kubernetes.io/uninitialized"
SHUTDOWN = "node.cloudprovider.kubernetes.io/shutdown"


@dataclass(frozen=True, slots=True)
class Instance:
    """A machine as its provider knows it. `addresses` are those of a node's status."""

    provider_id: str = ""
    type: str = ""
    addresses: Sequence[Object] = ()
    zone: str = ""
    region: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


class Instances(Protocol):
    """The machines. A node is found by its spec.providerID, and without one by its name. All raise OSError."""

    async def exists(self, node: Object) -> bool:
        """Whether there is a machine for the node, be it off; a node without one is deleted."""
        ...

    async def shutdown(self, node: Object) -> bool:
        """Whether the node's machine is off."""
        ...

    async def metadata(self, node: Object) -> Instance | None:
        """What is known of the node's machine; None leaves the node as it is."""
        ...


@dataclass(frozen=True, slots=True)
class Route:
    """The way to a node's pods. `follows` says that the provider keeps `addresses`, and must hear when they change."""

    name: str
    node: str
    destination: str
    addresses: Sequence[Object] = ()
    follows: bool = False
    blackhole: bool = False


class Routes(Protocol):
    """The routes. All raise OSError."""

    async def list(self, cluster: str) -> Sequence[Route]:
        """All routes of the cluster."""
        ...

    async def create(self, cluster: str, hint: str, route: Route) -> None:
        """Make a route; its name may come from `hint`, a node's uid."""
        ...

    async def delete(self, cluster: str, route: Route) -> None:
        """Take away a route that was listed."""
        ...


class NoRoom(Exception):
    """The provider has no balancer to give; the text is for the event."""


class Balancers(Protocol):
    """Load balancers; both calls may come again for the same Service."""

    async def ensure(self, service: Object, nodes: Sequence[Object], others: Sequence[Object]) -> list[Object]:
        """The `ingress` of the Service's balancer; `others` are the Services that have one. Raises NoRoom, OSError."""
        ...

    async def delete(self, service: Object) -> None:
        """The Service needs none any more. Raises OSError."""
        ...


@dataclass(frozen=True, slots=True)
class Cloud:
    """A provider; the controllers of what it lacks have nothing to do."""

    instances: Instances | None = None
    routes: Routes | None = None
    balancers: Balancers | None = None


def named(config: Mapping[str, str]) -> bool:
    """Whether the settings name a provider of another package."""
    return config.get("cloud-provider", "") not in ("", "external")


def provider(config: Mapping[str, str]) -> Cloud:
    """The provider that the settings name, and one that lacks everything when they name none. Raises ValueError."""
    if not named(config):
        return Cloud()
    from importlib.metadata import entry_points  # here: it costs a start milliseconds

    name = config["cloud-provider"]
    for each in entry_points(group=GROUP, name=name):
        made = each.load()(config)
        if not isinstance(made, Cloud):
            raise ValueError(f"cloud provider {name!r} of {each.value} makes no steersman.client.cloud.Cloud")
        return made
    raise ValueError(f'unknown cloud provider "{name}"')
