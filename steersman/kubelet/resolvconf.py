"""A pod's resolv.conf: name servers, search paths and options by dnsPolicy and dnsConfig.

Pure except for `host_config`, which reads the node's file. Called by `sandboxconfig`. Source: documentation of DNS for
Services and Pods; limits of the Pod API (3 servers, 32 search paths, 2048 characters).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from steersman.api.resource import Object
from steersman.kubelet import podspec

_MAX_SERVERS = 3
_MAX_SEARCHES = 32
_MAX_SEARCH_CHARACTERS = 2048
_MAX_FILE = 10 << 20


@dataclass(frozen=True, slots=True)
class Resolver:
    """The content of a resolv.conf."""

    servers: Sequence[str] = ()
    searches: Sequence[str] = ()
    options: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ClusterDns:
    """Where pods ask by default."""

    servers: Sequence[str] = ()
    domain: str = "cluster.local"


def host_config(path: str) -> Resolver:
    """The node's own resolver configuration; empty when there is no such file."""
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            text = file.read(_MAX_FILE)
    except OSError:
        return Resolver()
    return parse(text)


def parse(text: str) -> Resolver:
    """Read a resolv.conf; what is not understood is left out."""
    servers: list[str] = []
    searches: list[str] = []
    options: dict[str, str] = {}
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith(("#", ";")):
            continue
        if words[0] == "nameserver" and len(words) > 1:
            servers.append(words[1])
        elif words[0] == "search":
            searches = [word.rstrip(".") for word in words[1:] if word != "."]
        elif words[0] == "options":
            options.update({word.split(":")[0]: word for word in words[1:]})
    return Resolver(servers, searches, list(options.values()))


def pod_resolver(pod: Object, host: Resolver, cluster: ClusterDns) -> tuple[Resolver, Sequence[str]]:
    """The pod's resolver, and warnings (event DNSConfigForming) about what was left out."""
    policy = pod["spec"].get("dnsPolicy") or "ClusterFirst"
    if policy == "None":
        base = Resolver()
    elif cluster.servers and (
        policy == "ClusterFirstWithHostNet" or (policy == "ClusterFirst" and not podspec.host_network(pod))
    ):
        namespace = podspec.key(pod)[0]
        domains = [f"{namespace}.svc.{cluster.domain}", f"svc.{cluster.domain}", cluster.domain]
        base = Resolver(cluster.servers, _unique([*domains, *host.searches]), ["ndots:5"])
    else:
        base = host
    own = pod["spec"].get("dnsConfig") or {}
    options = {each.split(":")[0]: each for each in base.options}
    for each in own.get("options") or ():
        value = each.get("value")
        options[each["name"]] = f"{each['name']}:{value}" if value else each["name"]
    merged = Resolver(
        _unique([*base.servers, *(own.get("nameservers") or ())]),
        _unique([*base.searches, *(own.get("searches") or ())]),
        list(options.values()),
    )
    return _fit(merged)


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _fit(wanted: Resolver) -> tuple[Resolver, Sequence[str]]:
    warnings = []
    servers = wanted.servers[:_MAX_SERVERS]
    if len(servers) < len(wanted.servers):
        warnings.append(
            "Nameserver limits were exceeded, some nameservers have been omitted, "
            f"the applied nameserver line is: {' '.join(servers)}"
        )
    searches = [each for each in wanted.searches[:_MAX_SEARCHES] if len(each) <= 253]
    while len(" ".join(searches)) > _MAX_SEARCH_CHARACTERS:
        searches.pop()
    if len(searches) < len(wanted.searches):
        warnings.append(
            "Search Line limits were exceeded, some search paths have been omitted, "
            f"the applied search line is: {' '.join(searches)}"
        )
    return Resolver(servers, searches, wanted.options), warnings
