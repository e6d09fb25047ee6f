"""Route netlink messages, and the socket that sends a batch of them at once.

Owns the encoding (pure functions that return one message each) and `Netlink`, which is bound to the network namespace
of the thread that makes it. Source: rtnetlink(7), linux/rtnetlink.h. A batch costs one system call and its answers,
which is why a pod's whole network takes well under a millisecond.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Sequence

_NEWLINK, _DELLINK, _NEWADDR, _NEWROUTE = 16, 17, 20, 24
_ERROR = 2
_REQUEST, _ACK, _REPLACE, _EXCL, _CREATE = 0x1, 0x4, 0x100, 0x200, 0x400
_IFF_UP = 1
_IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO, _IFLA_NET_NS_FD, _IFLA_ADDRESS = 3, 4, 18, 28, 1
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC = 1, 4, 5, 7
_TABLE_MAIN, _PROTO_STATIC, _SCOPE_UNIVERSE, _SCOPE_LINK, _UNICAST = 254, 4, 0, 253, 1
_ONLINK = 4

Message = tuple[int, int, bytes]
"""Type, flags and body of a request."""


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _link(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, change)


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def veth(name: str, peer: str, peer_namespace: int, mtu: int) -> Message:
    """Create a veth pair: `name` here, `peer` in the network namespace open at `peer_namespace`."""
    end = _link() + _text(_IFLA_IFNAME, peer) + _number(_IFLA_MTU, mtu) + _number(_IFLA_NET_NS_FD, peer_namespace)
    info = _text(_INFO_KIND, "veth") + _attribute(_INFO_DATA, _attribute(_VETH_PEER, end))
    body = _link() + _text(_IFLA_IFNAME, name) + _number(_IFLA_MTU, mtu) + _attribute(_IFLA_LINKINFO, info)
    return _NEWLINK, _CREATE | _EXCL, body


def link_up(index: int) -> Message:
    """Bring an interface up."""
    return _NEWLINK, 0, _link(index, _IFF_UP, _IFF_UP)


def delete_link(name: str) -> Message:
    """Remove an interface (and its peer) by name."""
    return _DELLINK, 0, _link() + _text(_IFLA_IFNAME, name)


def address(index: int, ip: str, prefix: int, *, link_scope: bool = False) -> Message:
    """Give an interface an address."""
    scope = _SCOPE_LINK if link_scope else _SCOPE_UNIVERSE
    head = struct.pack("=BBBBi", _family(ip), prefix, 0, scope, index)
    return (
        _NEWADDR,
        _CREATE | _REPLACE,
        head + _attribute(_IFA_LOCAL, _packed(ip)) + _attribute(_IFA_ADDRESS, _packed(ip)),
    )


def route(index: int, destination: str, prefix: int, *, gateway: str = "", source: str = "") -> Message:
    """Route `destination`/`prefix` out of an interface, directly or through `gateway` taken to be on the link."""
    scope = _SCOPE_UNIVERSE if gateway else _SCOPE_LINK
    flags = _ONLINK if gateway else 0
    head = struct.pack(
        "=BBBBBBBBI", _family(destination), prefix, 0, 0, _TABLE_MAIN, _PROTO_STATIC, scope, _UNICAST, flags
    )
    body = head + _number(_RTA_OIF, index)
    if prefix:
        body += _attribute(_RTA_DST, _packed(destination))
    if gateway:
        body += _attribute(_RTA_GATEWAY, _packed(gateway))
    if source:
        body += _attribute(_RTA_PREFSRC, _packed(source))
    return _NEWROUTE, _CREATE | _REPLACE, body


class Netlink:
    """A route netlink socket in the calling thread's network namespace."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.bind((0, 0))
        self._sequence = 0

    def send(self, messages: Sequence[Message]) -> None:
        """Send a batch and wait for every answer. Raises OSError of the first that failed."""
        first = self._sequence + 1
        batch = b"".join(self._encode(*message) for message in messages)
        self._socket.send(batch)
        failed = 0
        pending = len(messages)
        while pending:
            data = self._socket.recv(65536)
            while len(data) >= 16:
                length, kind, _, sequence = struct.unpack_from("=IHHI", data)
                if kind == _ERROR and sequence >= first:
                    pending -= 1
                    failed = failed or -struct.unpack_from("=i", data, 16)[0]
                data = data[(length + 3) & ~3 :]
        if failed:
            raise OSError(failed, f"netlink: {os.strerror(failed)}")

    def _encode(self, kind: int, flags: int, body: bytes) -> bytes:
        self._sequence += 1
        return struct.pack("=IHHII", 16 + len(body), kind, flags | _REQUEST | _ACK, self._sequence, 0) + body

    def delete_link(self, name: str) -> bool:
        """Remove an interface; returns whether it was there."""
        try:
            self.send([delete_link(name)])
        except OSError as error:
            if error.errno == errno.ENODEV:
                return False
            raise
        return True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
