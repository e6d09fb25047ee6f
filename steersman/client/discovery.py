"""What the API server serves, asked in two requests.

Owns the reading of aggregated discovery. Called by controllers that work on every kind (namespace, garbage collector).
Source: KEP-3352.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from steersman.api.resource import Object, Resource
from steersman.client.client import Client, error_of

_ACCEPT = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


@dataclass(frozen=True, slots=True)
class Served:
    """One resource in the version that the server prefers, and the verbs it answers."""

    resource: Resource
    verbs: frozenset[str]


@dataclass(frozen=True, slots=True)
class Discovered:
    """Everything served; `failed` names the group versions that could not be asked, with why; `stale` are those."""

    resources: tuple[Served, ...]
    failed: tuple[str, ...] = ()
    stale: frozenset[tuple[str, str]] = frozenset()


async def discover(client: Client) -> Discovered:
    """Ask what is served. Raises ApiError, OSError."""
    found: list[Served] = []
    failed: list[str] = []
    stale: set[tuple[str, str]] = set()
    for path in ("/api", "/apis"):
        response, body = await client.raw("GET", path, accept=_ACCEPT)
        if response.status >= 400:
            raise error_of(response.status, body)
        for group in msgspec.json.decode(body).get("items") or ():
            _read_group(group, found, failed, stale)
    return Discovered(tuple(found), tuple(failed), frozenset(stale))


def _read_group(group: Object, found: list[Served], failed: list[str], stale: set[tuple[str, str]]) -> None:
    """Each resource once, in the first version that has it: versions come in order of preference."""
    name = (group.get("metadata") or {}).get("name", "")
    seen: set[str] = set()
    for version in group.get("versions") or ():
        if version.get("freshness") == "Stale":
            where = f"{name}/{version['version']}"
            failed.append(f"{where}: stale GroupVersion discovery: {where}")
            stale.add((name, version["version"]))
        for each in version.get("resources") or ():
            if each["resource"] in seen:
                continue
            seen.add(each["resource"])
            kind = (each.get("responseKind") or {}).get("kind", "")
            resource = Resource(name, version["version"], each["resource"], kind, each.get("scope") == "Namespaced")
            found.append(Served(resource, frozenset(each.get("verbs") or ())))
