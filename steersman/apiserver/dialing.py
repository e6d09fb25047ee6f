"""Connections to extension API servers and webhooks, whose failures read as the original's.

Owns the words: they end up in conditions, answers and audit events. Called by aggregation and by webhooks. Source: Go's
net package.
"""

from __future__ import annotations

import asyncio
import os
import socket


async def dial(host: str, port: int) -> socket.socket:
    """A connection; failures in Go's words, which end up in conditions and answers. Raises OSError."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise OSError(f"dial tcp: lookup {host}: no such host") from error
    problem = OSError(f"dial tcp: lookup {host}: no such host")
    for family, _, protocol, _, address in found:
        made = socket.socket(family, socket.SOCK_STREAM, protocol)
        made.setblocking(False)
        try:
            await loop.sock_connect(made, address)
        except OSError as error:
            made.close()
            text = os.strerror(error.errno).lower() if error.errno else str(error)
            problem = ConnectionError(f"dial tcp {address[0]}:{port}: connect: {text}")
        except BaseException:
            made.close()
            raise
        else:
            return made
    raise problem
