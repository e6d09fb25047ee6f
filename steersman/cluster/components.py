"""Which processes a cluster has.

Owns the list of children that the supervisor runs, and the imports they share before the fork. Called by `launch.py`.
"""

from __future__ import annotations

import importlib
import socket
from collections.abc import Callable, Sequence

from steersman.cluster.link import Link
from steersman.cluster.process import StartFailure, shorten
from steersman.cluster.profile import Profile
from steersman.cluster.supervisor import Run

_SHARED = ("asyncio", "ssl", "uvloop", "httptools", "aiofastnet", "msgspec", "steersman.client.informer")


def children(profile: Profile, sockets: Sequence[socket.socket], link: Link) -> list[tuple[str, Run]]:
    """The cluster's processes in order of start."""
    for name in _SHARED:
        importlib.import_module(name)

    def child(name: str, module: str, *arguments: object) -> tuple[str, Run]:
        def run() -> None:
            shorten(profile.logs / f"{name}.log")
            main: Callable[..., None] = importlib.import_module(module).main
            try:
                main(profile, lambda: link.say("ready", name), *arguments)
            except StartFailure as failure:
                link.say("failed", name, str(failure))
                print(f"{name}: {failure}", flush=True)
                raise SystemExit(1) from failure
            except Exception as error:
                link.say("failed", name, f"{type(error).__name__}: {error}; see {profile.logs / name}.log")
                raise

        return name, run

    made = [child("apiserver", "steersman.cluster.apiserver", list(sockets))]
    made += [child(f"node-{number}", "steersman.cluster.node", number) for number in range(profile.nodes)]
    made.append(child("control", "steersman.cluster.control"))
    return made
