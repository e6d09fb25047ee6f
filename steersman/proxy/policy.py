"""NetworkPolicies to nftables text: which packets to and from the pods of one node may pass.

Owns the layout of the policy table. Pods with the same rules share a chain, peers that are selected alike share a set;
the whole table is one transaction. Pure: called by `policyagent`. A pod is isolated in a direction as soon as one
policy selects it for that; then only what some policy allows may pass, and answers to it. Traffic from a node to its
own pods is never looked at: probes must work. Source: NetworkPolicy API (networking.k8s.io/v1).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from steersman.api import labels
from steersman.api.resource import Object
from steersman.proxy.nftables import check_table

_NAMESPACE_NAME = "kubernetes.io/metadata.name"


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod as policies see it. `ports`: numbers by name and protocol. `here`: it runs on this node."""

    namespace: str
    labels: Mapping[str, str]
    ips: tuple[str, ...]
    ports: Mapping[tuple[str, str], int] = field(default_factory=dict)
    here: bool = False


def pod_of(obj: Object, node_name: str) -> Pod | None:
    """None for a pod without an address of its own, or one that has ended."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    ips = tuple(each["ip"] for each in status.get("podIPs") or () if each.get("ip"))
    if not ips or spec.get("hostNetwork") or status.get("phase") in ("Succeeded", "Failed"):
        return None
    ports = {
        (port["name"], port.get("protocol") or "TCP"): int(port["containerPort"])
        for container in spec.get("containers") or ()
        for port in container.get("ports") or ()
        if port.get("name")
    }
    meta = obj["metadata"]
    return Pod(meta.get("namespace", ""), meta.get("labels") or {}, ips, ports, spec.get("nodeName") == node_name)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Everything that policies speak of. `namespaces`: labels by name."""

    policies: Sequence[Object]
    pods: Sequence[Pod]
    namespaces: Mapping[str, Mapping[str, str]]


def table(name: str, cluster: Cluster) -> str:
    """The whole table as one transaction. Raises ValueError for a table name that nft would not take."""
    check_table(name)
    draft = _Draft(cluster)
    for pod in cluster.pods:
        if pod.here:
            draft.add(pod)
    body = draft.text()
    start = f"table inet {name} {{ }}\ndelete table inet {name}\n"
    return start + (f"table inet {name} {{\n{body}\n}}\n" if body else "")


def removal(name: str) -> str:
    """Remove the table; no error when it is not there. Raises ValueError."""
    check_table(name)
    return f"table inet {name} {{ }}\ndelete table inet {name}\n"


def directions(policy: Object) -> Sequence[str]:
    """policyTypes, or what they are when they are not given: Ingress, and Egress where there are rules for it."""
    spec = policy["spec"]
    return spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])


class _Draft:
    """A table in the making."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._chains: dict[str, tuple[str, ...]] = {}
        self._sets: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._maps: dict[tuple[str, str], dict[str, str]] = {}  # (direction, family): address to chain
        self._selectors = [
            (each, labels.from_object(each["spec"].get("podSelector") or {})) for each in cluster.policies
        ]

    def add(self, pod: Pod) -> None:
        """The chains of one pod of this node."""
        mine = [
            policy
            for policy, selector in self._selectors
            if policy["metadata"].get("namespace", "") == pod.namespace and selector.matches(pod.labels)
        ]
        for direction, key in (("Ingress", "ingress"), ("Egress", "egress")):
            chosen = [policy for policy in mine if direction in directions(policy)]
            if not chosen:
                continue
            rules = [line for policy in chosen for line in self._rules(policy, pod, key)]
            chain = (*dict.fromkeys(rules), "drop")
            name = f"{key}_{_digest(chain)}"
            self._chains[name] = chain
            for ip in pod.ips:
                self._maps.setdefault((key, _family(ip)), {})[ip] = f"jump {name}"

    def _rules(self, policy: Object, pod: Pod, key: str) -> Iterable[str]:
        namespace = policy["metadata"].get("namespace", "")
        for rule in policy["spec"].get(key) or ():
            peers = rule.get("from" if key == "ingress" else "to")
            ports = rule.get("ports")
            for who, chosen in self._peers(peers, namespace, key):
                for what in self._ports(ports, pod, chosen, key):
                    yield " ".join(filter(None, (who, what, "return")))

    def _peers(
        self, peers: Sequence[Object] | None, namespace: str, key: str
    ) -> Iterable[tuple[str, list[Pod] | None]]:
        """Matches on the other side, with the pods that it is when it is pods."""
        side = "saddr" if key == "ingress" else "daddr"
        if not peers:
            yield "", None
            return
        for peer in peers:
            block = peer.get("ipBlock")
            if block:
                yield _block(block, side), None
                continue
            chosen = self._selected(peer, namespace)
            by_family: dict[str, list[str]] = {}
            for ip in (ip for pod in chosen for ip in pod.ips):
                by_family.setdefault(_family(ip), []).append(ip)
            for family, ips in by_family.items():
                yield f"{family} {side} @{self._set(family, ips)}", chosen

    def _selected(self, peer: Object, namespace: str) -> list[Pod]:
        pods = labels.from_object(peer.get("podSelector") or {})
        if peer.get("namespaceSelector") is None:
            where = {namespace}
        else:
            spaces = labels.from_object(peer["namespaceSelector"])
            where = {
                name
                for name, known in self._cluster.namespaces.items()
                if spaces.matches({_NAMESPACE_NAME: name, **known})
            }
        return [pod for pod in self._cluster.pods if pod.namespace in where and pods.matches(pod.labels)]

    def _ports(self, ports: Sequence[Object] | None, pod: Pod, peers: list[Pod] | None, key: str) -> Iterable[str]:
        if not ports:
            yield ""
            return
        for each in ports:
            protocol = each.get("protocol") or "TCP"
            number = each.get("port")
            match = f"meta l4proto {protocol.lower()}"
            if number is None:
                yield match
            elif isinstance(number, int):
                last = each.get("endPort")
                yield f"{match} th dport {number}" + (f"-{last}" if last and last > number else "")
            elif key == "ingress":
                if (number, protocol) in pod.ports:
                    yield f"{match} th dport {pod.ports[number, protocol]}"
            else:  # the name means another number for each peer
                known = peers if peers is not None else self._cluster.pods
                for peer in known:
                    for ip in peer.ips if (number, protocol) in peer.ports else ():
                        yield f"{_family(ip)} daddr {ip} {match} th dport {peer.ports[number, protocol]}"

    def _set(self, family: str, ips: Iterable[str]) -> str:
        content = tuple(sorted(set(ips)))
        name = f"peers_{_digest((family, *content))}"
        self._sets[name] = (f"{'ipv4' if family == 'ip' else 'ipv6'}_addr", content)
        return name

    def text(self) -> str:
        """The table's body; empty when nothing is isolated."""
        if not self._maps:
            return ""
        lines = [
            f"set {name} {{ type {kind}; elements = {{ {', '.join(content)} }}; }}"
            for name, (kind, content) in self._sets.items()
        ]
        lines += [f"chain {name} {{ {'; '.join(rules)}; }}" for name, rules in self._chains.items()]
        hooks: dict[str, list[str]] = {"ingress": [], "egress": []}
        for (key, family), content in self._maps.items():
            kind = "ipv4_addr" if family == "ip" else "ipv6_addr"
            elements = ", ".join(f"{ip} : {verdict}" for ip, verdict in sorted(content.items()))
            lines.append(f"map {key}_{family} {{ type {kind} : verdict; elements = {{ {elements} }}; }}")
            hooks[key].append(f"{family} {'daddr' if key == 'ingress' else 'saddr'} vmap @{key}_{family}")
        known = "ct state established,related accept"
        forward = "; ".join([known, *hooks["egress"], *hooks["ingress"]])
        lines.append(f"chain forwarded {{ type filter hook forward priority 0; {forward}; }}")
        if hooks["egress"]:
            received = "; ".join([known, *hooks["egress"]])
            lines.append(f"chain received {{ type filter hook input priority 0; {received}; }}")
        return "\n".join(lines)


def _block(block: Object, side: str) -> str:
    network = ip_network(block["cidr"], strict=False)
    family = "ip" if network.version == 4 else "ip6"
    out = f"{family} {side} {network}"
    unless = [str(ip_network(each, strict=False)) for each in block.get("except") or ()]
    return f"{out} {family} {side} != {{ {', '.join(unless)} }}" if unless else out


def _family(ip: str) -> str:
    return "ip" if ip_address(ip).version == 4 else "ip6"


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
