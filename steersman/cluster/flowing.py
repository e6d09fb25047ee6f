"""What the API server's flags say of how many requests it answers at a time.

Owns their reading. Called by `apiserver.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

from steersman.apiserver.app import ApiServer
from steersman.apiserver.flow.inflight import InFlight
from steersman.apiserver.flow.keeper import Keeper
from steersman.cluster.process import StartFailure
from steersman.lib.tasks import Tasks

_READS, _WRITES = 400, 200


async def attach(server: ApiServer, flags: Mapping[str, str], tasks: Tasks) -> None:
    """Give the started server its gate, and the objects that configure it. Raises StartFailure."""
    reads, writes = (
        _number(flags, "max-requests-inflight", _READS),
        _number(flags, "max-mutating-requests-inflight", _WRITES),
    )
    if flags.get("enable-priority-and-fairness", "true").lower() in ("false", "0", "f"):
        server.flow = InFlight(reads, writes)
        return
    if not reads + writes:
        raise StartFailure("--max-requests-inflight and --max-mutating-requests-inflight must not both be 0")
    keeper = Keeper(server, reads + writes)
    await keeper.ensure()
    server.flow = keeper.gate
    tasks.spawn(keeper.run(), "flow schemas")
    tasks.spawn(keeper.gate.run(), "borrowing of seats")


def _number(flags: Mapping[str, str], name: str, otherwise: int) -> int:
    text = flags.get(name, str(otherwise))
    if not text.isdecimal():
        raise StartFailure(f'invalid argument "{text}" for "--{name}" flag: strconv.ParseInt: invalid syntax')
    return int(text)
