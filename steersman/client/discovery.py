"""What the API server serves, asked in two requests; of releases without aggregated discovery, one by one.

Owns the reading of discovery. Called by controllers that work on every kind (namespace, garbage collector).
Source: KEP-3352.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from steersman.api.resource import Object, Resource
from steersman.client.client import Client, error_of

_LIST = "APIGroupDiscoveryList"
_ACCEPT = ",".join(
    [*(f"application/json;g=apidiscovery.k8s.io;v={version};as={_LIST}" for version in ("v2", "v2beta1")), "*/*"]
)


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
    for group in await groups(client):
        _read_group(group, found, failed, stale)
    return Discovered(tuple(found), tuple(failed), frozenset(stale))


async def groups(client: Client) -> list[Object]:
    """Every APIGroupDiscovery. Raises ApiError, OSError."""
    found: list[Object] = []
    for path in ("/api", "/apis"):
        document = await _read(client, path)
        found += document["items"] if document.get("kind") == _LIST else await _each(client, path, document)
    return found


async def _read(client: Client, path: str) -> Object:
    response, body = await client.raw("GET", path, accept=_ACCEPT)
    if response.status >= 400:
        raise error_of(response.status, body)
    document: Object = msgspec.json.decode(body)
    return document


async def _each(client: Client, path: str, document: Object) -> list[Object]:
    """The groups that a plain document names, as the aggregated one has them."""
    found = []
    named = document.get("groups") or [{"name": "", "versions": [{"version": each} for each in document["versions"]]}]
    for group in named:
        versions = []
        for version in (each["version"] for each in group["versions"]):
            base = f"{path}/{group['name']}/{version}" if group["name"] else f"{path}/{version}"
            rows = (await _read(client, base)).get("resources") or ()
            resources = [
                {
                    "resource": row["name"],
                    "responseKind": {"kind": row["kind"]},
                    "scope": "Namespaced" if row["namespaced"] else "Cluster",
                    "singularResource": row["singularName"],
                    "shortNames": row.get("shortNames") or [],
                    "verbs": row["verbs"],
                }
                for row in rows
                if "/" not in row["name"]
            ]
            versions.append({"version": version, "resources": resources})
        found.append({"metadata": {"name": group["name"]}, "versions": versions})
    return found


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
