"""Frontends to nftables text: the table's skeleton, the elements of its maps, and changes as one transaction.

Owns the layout. It does not grow with the Services: `svc` says which chain an address, protocol and port leads to;
there is one such chain for each number of endpoints, it draws one, and `eps0`, `eps1` ... give the pod. A change to one
Service is a few elements. Only session affinity needs chains of its own. Pure; `apply` runs the text. Source: nft(8).

(One `eps` map with the drawn number in its key would be simpler, but nft 1.0 cannot add rules that use such a map once
it is in the kernel: it takes the `th` of its `typeof` for a conflict of protocols.)

`node_*` maps are for ports of the node (no address in the key); `out_*` maps for what comes from outside only (external
traffic policy Local), looked at before the others.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from steersman.proxy.elements import Change
from steersman.proxy.model import ANY, Frontend, Masquerade

_MARK = "0x4000"
_CHOICE = re.compile(r"goto ((?:out_)?(?:node_)?)([cxlh])(\d+)")
_PICK = re.compile(r"((?:out_)?(?:node_)?)to(\d+)")
_VIP = "ip daddr . meta l4proto . th dport"
_PORT = "meta l4proto . th dport"
_VIP_KEY = "ipv4_addr . inet_proto . inet_service"
_PORT_KEY = "inet_proto . inet_service"
_PROTOCOLS = "meta l4proto { tcp, udp, sctp }"
_BATCH = 2000  # elements in one command: nft parses long lists slowly
_VERDICTS = ("svc", "out_svc", "node_svc", "out_node_svc", "refused", "node_refused")
_SETS = ("hairpin", "addresses")


def check_table(name: str) -> str:
    """The name, if nft takes it as one word. Raises ValueError."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,60}", name):
        raise ValueError(f"invalid table name {name!r}")
    return name


@dataclass(frozen=True, slots=True)
class Settings:
    """One profile's table. `pod_cidr`: all pods of the cluster; `node_cidr`: the pods here."""

    table: str
    pod_cidr: str
    node_cidr: str
    service_cidr: str

    def __post_init__(self) -> None:
        check_table(self.table)


@dataclass(frozen=True, slots=True)
class Chains:
    """Chains and affinity sets made for single frontends: name to rules, name to timeout in seconds."""

    rules: Mapping[str, tuple[str, ...]]
    sets: Mapping[str, int]


def elements(frontends: Iterable[Frontend]) -> tuple[dict[str, dict[str, str]], Chains]:
    """The elements for some frontends, and the chains made for them alone (affinity, source ranges)."""
    out: dict[str, dict[str, str]] = {}
    rules: dict[str, tuple[str, ...]] = {}
    sets: dict[str, int] = {}
    for each in frontends:
        prefix = "node_" if each.ip == ANY else ""
        key = f"{each.protocol} . {each.port}"
        if each.ip != ANY:
            key = f"{each.ip} . {key}"
            if each.masquerade is Masquerade.CLUSTER and not each.outside:
                out.setdefault("addresses", {})[each.ip] = ""
        if not each.backends:
            name, verdict = f"{prefix}refused", "goto refuse"
            if each.outside:
                name, verdict = f"out_{prefix}svc", "drop"
            out.setdefault(name, {})[key] = verdict
            continue
        which = f"out_{prefix}" if each.outside else prefix
        target = f"{which}{each.masquerade}{len(each.backends)}"
        if each.affinity:
            target = _sticky(each, key, which, rules, sets)
        else:
            for index, backend in enumerate(each.backends):
                out.setdefault(f"{which}eps{index}", {})[key] = f"{backend.ip} . {backend.port}"
        if each.sources:
            target = _guarded(each, key, target, rules)
        out.setdefault(f"{which}svc", {})[key] = f"goto {target}"
        for backend in each.backends:
            if backend.local:
                out.setdefault("hairpin", {})[f"{backend.ip} . {backend.ip}"] = ""
    return out, Chains(rules, sets)


def _name(*parts: object) -> str:
    return hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()[:16]


def _guarded(frontend: Frontend, key: str, target: str, rules: dict[str, tuple[str, ...]]) -> str:
    name = f"src_{_name(key, frontend.outside, target, *frontend.sources)}"
    rules[name] = (f"ip saddr != {{ {', '.join(frontend.sources)} }} drop", f"goto {target}")
    return name


def _sticky(frontend: Frontend, key: str, which: str, rules: dict[str, tuple[str, ...]], sets: dict[str, int]) -> str:
    """Chains that remember who went where, each client for `affinity` seconds after its last connection."""
    lines: list[str] = []
    choices: list[str] = []
    for index, backend in enumerate(frontend.backends):
        memory = f"aff_{_name(key, which, *backend[:2], frontend.affinity)}"
        sets[memory] = frontend.affinity
        to = f"to_{memory[4:]}_{frontend.masquerade}"
        rules[to] = (
            f"update @{memory} {{ ip saddr }}",
            *_masquerade(frontend.masquerade),
            f"meta l4proto {frontend.protocol} dnat to {backend.ip}:{backend.port}",
        )
        lines.append(f"ip saddr @{memory} goto {to}")
        choices.append(f"{index} : goto {to}")
    lines.append(f"numgen random mod {len(choices)} vmap {{ {', '.join(choices)} }}")
    name = f"one_{_name(*lines)}"
    rules[name] = tuple(lines)
    return name


def _masquerade(kind: Masquerade) -> tuple[str, ...]:
    mark = f"meta mark set meta mark or {_MARK}"
    return {
        Masquerade.CLUSTER: (f"ip saddr != $pods {mark}",),
        Masquerade.ALWAYS: (mark,),
        Masquerade.NEVER: (),
        Masquerade.LOOPBACK: (f"ip saddr 127.0.0.0/8 {mark}",),
    }[kind]


def shared_chains(content: Mapping[str, Mapping[str, str]], chains: Chains) -> set[str]:
    """Names of the chains that draw and pick an endpoint, as far as these elements and chains lead to them."""
    verdicts = {verdict for name in _VERDICTS for verdict in content.get(name, {}).values()}
    verdicts |= {rule for rules in chains.rules.values() for rule in rules}
    out: set[str] = set()
    for found in filter(None, map(_CHOICE.fullmatch, verdicts)):
        which, _, count = found.groups()
        out.add(found[0][5:])
        out |= {f"{which}to{index}" for index in range(int(count))}
    return out


def _draw(name: str) -> tuple[str, ...]:
    """The rules of a chain that draws one of so many endpoints."""
    found = _CHOICE.fullmatch(f"goto {name}")
    if found is None:
        raise ValueError(name)
    which, kind, count = found.groups()
    choices = ", ".join(f"{index} : goto {which}to{index}" for index in range(int(count)))
    return (*_masquerade(Masquerade(kind)), f"numgen random mod {count} vmap {{ {choices} }}")


def _chain(settings: Settings, name: str, rules: Iterable[str]) -> list[str]:
    body = "; ".join(rules).replace("$pods", settings.pod_cidr)
    return [f"table ip {settings.table} {{ chain {name} {{ {body}; }}; }}"]


def _declare(settings: Settings, chains: Chains, shared: Iterable[str]) -> list[str]:
    """Chains and sets, in an order in which nothing is named before it is there."""
    out: list[str] = []
    for name, timeout in chains.sets.items():
        flags = f"flags dynamic,timeout; timeout {timeout}s; size 65535"
        out.append(f"add set ip {settings.table} {name} {{ type ipv4_addr; {flags}; }}")
    picks = [found for found in map(_PICK.fullmatch, shared) if found]
    for found in picks:
        which, index = found.groups()
        address, kind = ("", _PORT_KEY) if "node_" in which else ("ip daddr . ", _VIP_KEY)
        out.append(f"add map ip {settings.table} {which}eps{index} {{ type {kind} : ipv4_addr . inet_service; }}")
        key = f"{address}meta l4proto . th dport"
        out += _chain(settings, found[0], [f"{_PROTOCOLS} dnat ip to {key} map @{which}eps{index}"])
    for name in sorted(set(shared) - {found[0] for found in picks}):
        out += _chain(settings, name, _draw(name))
    for prefix in ("to_", "one_", "src_"):
        for name, rules in chains.rules.items():
            if name.startswith(prefix):
                out += _chain(settings, name, rules)
    return out


def _maps() -> list[str]:
    kinds = {name: _PORT_KEY if "node_" in name else _VIP_KEY for name in _VERDICTS}
    lines = [f"map {name} {{ type {kind} : verdict; }}" for name, kind in kinds.items()]
    lines.append("set hairpin { type ipv4_addr . ipv4_addr; }")
    lines.append("set addresses { type ipv4_addr; }")
    return lines


def _skeleton(settings: Settings) -> list[str]:
    s = settings
    new = f"ct state new {_PROTOCOLS}"
    hooks = {
        "prerouting": (
            "type nat hook prerouting priority dstnat",
            f"{_PROTOCOLS} ip saddr != {s.pod_cidr} {_VIP} vmap @out_svc",
            f"{_PROTOCOLS} {_VIP} vmap @svc",
            f"{_PROTOCOLS} fib daddr type local ip saddr != {s.pod_cidr} {_PORT} vmap @out_node_svc",
            f"{_PROTOCOLS} fib daddr type local {_PORT} vmap @node_svc",
        ),
        "output": (
            "type nat hook output priority -100",
            f"{_PROTOCOLS} {_VIP} vmap @svc",
            f"{_PROTOCOLS} fib daddr type local {_PORT} vmap @node_svc",
        ),
        "postrouting": (
            "type nat hook postrouting priority srcnat",
            f"meta mark and {_MARK} == {_MARK} meta mark set meta mark xor {_MARK} masquerade fully-random",
            "ct status dnat ip saddr . ip daddr @hairpin masquerade",
            f"ip saddr {s.node_cidr} ip daddr != {s.pod_cidr} masquerade",
        ),
        "forwarded": (
            "type filter hook forward priority -110",
            f"{new} {_VIP} vmap @refused",
            "ct state new ip daddr @addresses goto refuse",
            f"ip daddr {s.service_cidr} drop",
        ),
        "received": (
            "type filter hook input priority -110",
            'ct direction original iifname != "lo" ip saddr != 127.0.0.0/8 ip daddr 127.0.0.0/8 drop',
            f"{new} {_VIP} vmap @refused",
            f"{new} fib daddr type local {_PORT} vmap @node_refused",
        ),
        "sent": (
            "type filter hook output priority -110",
            f"{new} {_VIP} vmap @refused",
            f"{new} fib daddr type local {_PORT} vmap @node_refused",
        ),
        "sent_after": (
            "type filter hook output priority 0",
            "ct state new ip daddr @addresses goto refuse",
            f"ip daddr {s.service_cidr} drop",
        ),
    }
    return [f"chain {name} {{ {'; '.join(rules)}; }}" for name, rules in hooks.items()]


def whole(settings: Settings, effective: Mapping[str, Mapping[str, str]], chains: Chains) -> str:
    """Replace the table by one with exactly these elements, in one transaction."""
    table = f"table ip {settings.table}"
    refuse = "chain refuse { meta l4proto tcp reject with tcp reset; reject; }"
    first = [f"{table} {{ }}", f"delete {table}", f"{table} {{ {'; '.join(_maps())}; {refuse}; }}"]
    body = _declare(settings, chains, shared_chains(effective, chains))
    for name, content in effective.items():
        body += _add(settings, name, content)
    return "\n".join([*first, *body, f"{table} {{ {'; '.join(_skeleton(settings))}; }}", ""])


def update(settings: Settings, change: Change, chains: Chains, gone: Chains, known: set[str]) -> tuple[str, set[str]]:
    """A change as one transaction, and the shared chains that it adds to those `known`.

    `chains`: needed and not there yet; `gone`: no longer needed.
    """
    fresh = shared_chains(change.added, chains) - known
    lines = _declare(settings, chains, fresh)
    for name, keys in change.removed.items():
        lines += _batches(f"delete element ip {settings.table} {name}", sorted(keys))
    for name, content in change.added.items():
        lines += _add(settings, name, content)
    lines += [f"flush chain ip {settings.table} {name}" for name in gone.rules]
    lines += [f"delete chain ip {settings.table} {name}" for name in gone.rules]
    lines += [f"delete set ip {settings.table} {name}" for name in gone.sets]
    return "\n".join([*lines, ""]), fresh


def removal(table: str) -> str:
    """Remove a table; no error when it is not there. Raises ValueError for what is no table's name."""
    check_table(table)
    return f"table ip {table} {{ }}\ndelete table ip {table}\n"


def _add(settings: Settings, name: str, content: Mapping[str, str]) -> list[str]:
    if name in _SETS:
        items = list(content)
    else:
        items = [f"{key} : {value}" for key, value in content.items()]
    return _batches(f"add element ip {settings.table} {name}", items)


def _batches(command: str, items: list[str]) -> list[str]:
    return [f"{command} {{ {', '.join(items[at : at + _BATCH])} }}" for at in range(0, len(items), _BATCH)]
