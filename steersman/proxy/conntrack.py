"""UDP flows that the kernel remembers towards endpoints that are gone.

Owns which of them are stale (pure) and the netlink socket that lists and deletes them. A UDP client that keeps its port
would otherwise go on reaching a dead pod, since rules are only asked for a flow's first packet. TCP needs none of it.
Called by `proxy` after a change. Source: linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from steersman.proxy.model import ANY, Frontend

Target = tuple[str, int]
Targets = Mapping[Target, frozenset[Target]]
"""Address (ANY for every one of the node) and port that clients ask, to where it may lead."""

_NETLINK_NETFILTER = 12
_GET, _DELETE = 0x0101, 0x0102
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_TUPLE_ORIG, _TUPLE_REPLY, _ID, _ZONE = 1, 2, 12, 18
_IP, _PROTO = 1, 2
_SRC, _DST = 1, 2
_NUMBER, _SPORT, _DPORT = 1, 2, 3
_NESTED = 0x8000
_UDP = 17


class Flow(NamedTuple):
    """A UDP flow: whom the client asked, who answers, and the attributes by which to delete it."""

    asked: Target
    answers: Target
    handle: bytes


def targets(frontends: Iterable[Frontend]) -> dict[Target, frozenset[Target]]:
    """Where the UDP ports of some frontends lead."""
    out: dict[Target, frozenset[Target]] = {}
    for each in frontends:
        if each.protocol == "udp":
            at = each.ip, each.port
            out[at] = out.get(at, frozenset()) | {(backend.ip, backend.port) for backend in each.backends}
    return out


def changed(old: Targets, new: Targets) -> dict[Target, frozenset[Target]]:
    """Where flows may have become stale, and what is right there now: what lost an endpoint or has its first."""
    return {
        at: new.get(at, frozenset())
        for at in old.keys() | new.keys()
        if not old.get(at) or not old[at] <= new.get(at, frozenset())
    }


def stale(flows: Iterable[Flow], now: Targets) -> Iterator[Flow]:
    """The flows that lead where they no longer may. A port of the node counts only if the flow was translated."""
    for flow in flows:
        allowed = now.get(flow.asked)
        if allowed is None and flow.asked != flow.answers:
            allowed = now.get((ANY, flow.asked[1]))
        if allowed is not None and flow.answers not in allowed:
            yield flow


class Conntrack:
    """The connection tracker of the network namespace of the thread that makes it. Blocking. Raises OSError."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        self._socket.settimeout(10)
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def flush(self, now: Targets) -> int:
        """Delete the stale flows; returns how many. Raises OSError."""
        if not now:
            return 0
        count = 0
        for flow in list(stale(self.flows(), now)):
            count += self._delete(flow)
        return count

    def flows(self) -> Iterator[Flow]:
        """Every UDP flow over IPv4. Raises OSError."""
        for body in self._ask(_GET, _DUMP, b""):
            flow = _flow(body)
            if flow is not None:
                yield flow

    def _delete(self, flow: Flow) -> bool:
        try:
            list(self._ask(_DELETE, _ACK, flow.handle))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

    def _ask(self, kind: int, flags: int, attributes: bytes) -> Iterator[bytes]:
        """The bodies of the answers."""
        self._sequence += 1
        body = struct.pack("!BBH", socket.AF_INET, 0, 0) + attributes
        self._socket.send(struct.pack("=IHHII", 16 + len(body), kind, flags | _REQUEST, self._sequence, 0) + body)
        while True:
            data = self._socket.recv(1 << 18)
            while len(data) >= 16:
                length, answer, _, sequence = struct.unpack_from("=IHHI", data)
                body, data = data[16:length], data[(length + 3) & ~3 :]
                if sequence != self._sequence:
                    continue
                if answer == _DONE:
                    return
                if answer == _ERROR:
                    failed = -struct.unpack_from("=i", body)[0]
                    if failed:
                        raise OSError(failed, f"conntrack: {os.strerror(failed)}")
                    return
                yield body[4:]


def _attributes(data: bytes) -> dict[int, bytes]:
    out: dict[int, bytes] = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            break
        out[kind & 0x3FFF] = data[4:length]
        data = data[(length + 3) & ~3 :]
    return out


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _flow(body: bytes) -> Flow | None:
    found = _attributes(body)
    original, reply = _attributes(found.get(_TUPLE_ORIG, b"")), _attributes(found.get(_TUPLE_REPLY, b""))
    ip, proto = _attributes(original.get(_IP, b"")), _attributes(original.get(_PROTO, b""))
    back_ip, back_proto = _attributes(reply.get(_IP, b"")), _attributes(reply.get(_PROTO, b""))
    if proto.get(_NUMBER) != bytes([_UDP]) or len(ip.get(_DST, b"")) != 4 or len(back_ip.get(_SRC, b"")) != 4:
        return None
    handle = _attribute(_TUPLE_ORIG | _NESTED, found[_TUPLE_ORIG])
    handle += b"".join(_attribute(kind, found[kind]) for kind in (_ID, _ZONE) if kind in found)
    asked = socket.inet_ntoa(ip[_DST]), int.from_bytes(proto.get(_DPORT, b""), "big")
    return Flow(asked, (socket.inet_ntoa(back_ip[_SRC]), int.from_bytes(back_proto.get(_SPORT, b""), "big")), handle)
