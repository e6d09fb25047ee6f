"""/debug: how much is logged, and who waits for what in priority and fairness.

Owns the paths and the tables. Made by `cluster`. What the original serves for Go's profiler (/debug/pprof) is not here,
as in an original with `--profiling=false`: a Python process has nothing true to say there. Source: apiserver's
pkg/server/routes/flags.go, pkg/util/flowcontrol/apf_filter dumps (columns).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from steersman.apiserver.call import User
from steersman.apiserver.flow.gate import Gate
from steersman.apiserver.flow.level import Level
from steersman.lib.clock import rfc3339_micro
from steersman.lib.http.messages import Request, Response

_TABLES = "/debug/api_priority_and_fairness/dump_"
_FLAGS = "/debug/flags"
_LEVELS = (
    "PriorityLevelName", "ActiveQueues", "IsIdle", "IsQuiescing", "WaitingRequests", "ExecutingRequests",
    "DispatchedRequests", "RejectedRequests", "TimedoutRequests", "CancelledRequests",
)  # fmt: skip
_QUEUES = (
    "PriorityLevelName", "Index", "PendingRequests", "ExecutingRequests", "SeatsInUse", "NextDispatchR",
    "InitialSeatsSum", "MaxSeatsSum", "TotalWorkSum",
)  # fmt: skip
_REQUESTS = (
    "PriorityLevelName", "FlowSchemaName", "QueueIndex", "RequestIndexInQueue", "FlowDistingsher", "ArriveTime",
    "InitialSeats", "FinalSeats", "AdditionalLatency", "StartTime",
)  # fmt: skip
_CHATTY = 4  # the verbosity from which on everything is logged
_INDEX = (
    b"<html>\n<head>\n<title>/debug/flags/</title>\n</head>\n<body>\n/debug/flags/<br>\n<br>\nflags:<br>\n<table>\n"
    b"<tr>v<br>\n</table>\n<br>\nfull flags configurable<br>\n</body>\n</html>\n"
)


class Debugging:
    """The paths of one server, whose `flow` comes later than this."""

    def __init__(self, server: Any, log: logging.Logger) -> None:
        """`log`: whose verbosity can be set."""
        self._server = server
        self._log = log

    def __call__(self, request: Request, user: User) -> Response | None:
        """An answer, or None where the path is another."""
        if request.path == f"{_FLAGS}/v":
            return self._verbosity(request)
        if request.path == _FLAGS or request.path.startswith(f"{_FLAGS}/"):
            return Response(200, [("content-type", "text/html; charset=utf-8")], _INDEX)
        table = _DUMPS.get(request.path.removeprefix(_TABLES))
        gate = self._server.flow
        if table is None or not request.path.startswith(_TABLES) or not isinstance(gate, Gate):
            return None
        columns, rows = table
        found = [row for _, level in sorted(gate.levels.items()) for row in rows(level)]
        return Response(200, [("content-type", "text/plain; charset=utf-8")], _aligned([columns, *found]).encode())

    def _verbosity(self, request: Request) -> Response:
        headers = [("content-type", "text/plain"), ("x-content-type-options", "nosniff")]
        if request.method != "PUT":
            return Response(406, headers, b"unsupported http method\n")
        text = request.body.decode("utf-8", "replace")
        if not (text.isascii() and text.isdecimal()):
            return Response(400, headers, f'strconv.ParseUint: parsing "{text}": invalid syntax\n'.encode())
        self._log.setLevel(logging.DEBUG if int(text) >= _CHATTY else logging.INFO)
        return Response(200, headers, f"successfully set klog.logging.verbosity to {int(text)}\n".encode())


def _level(level: Level) -> Iterable[Sequence[str]]:
    tallies = level.tallies.values()
    executing, gone = sum(each.executing for each in tallies), sum(sum(each.gone.values()) for each in tallies)
    late = sum(each.gone.get("time-out", 0) for each in tallies)
    begun = sum(each.begun for each in tallies)
    idle = not executing and not level.waiting
    counts = (level.waiting, executing, begun, gone - late, late, level.cancelled)
    yield (level.name, str(level.busy), _word(idle), "false", *map(str, counts))


def _queues(level: Level) -> Iterable[Sequence[str]]:
    for index, queue in enumerate(level.queues()):
        turns = () if queue is None else queue.turns
        seats = 0 if queue is None else queue.seated
        start = 0.0 if queue is None else queue.start
        waiting = sum(turn.seats for turn in turns)
        executing = 0 if queue is None else queue.executing
        figures = (index, len(turns), executing, seats)
        yield (level.name, *map(str, figures), _seat_seconds(start), str(waiting), str(waiting), _seat_seconds(0.0))


def _requests(level: Level) -> Iterable[Sequence[str]]:
    for index, queue in enumerate(level.queues()):
        for at, turn in enumerate(() if queue is None else queue.turns):
            place = (level.name, turn.schema, str(index), str(at), turn.flow, rfc3339_micro(turn.came))
            yield (*place, str(turn.seats), "0", "0s", "0001-01-01T00:00:00Z")


_DUMPS: dict[str, tuple[tuple[str, ...], Callable[[Level], Iterable[Sequence[str]]]]] = {
    "priority_levels": (_LEVELS, _level),
    "queues": (_QUEUES, _queues),
    "requests": (_REQUESTS, _requests),
}


def _word(yes: bool) -> str:
    return "true" if yes else "false"


def _seat_seconds(value: float) -> str:
    return f"{value:.8f}ss"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell with its comma, and one blank; the last is as it is."""
    widths = [max(len(row[at]) for row in rows) + 2 for at in range(len(rows[0]) - 1)]
    return "".join(
        "".join(f"{cell},".ljust(width) for cell, width in zip(row, widths, strict=False)) + f"{row[-1]}\n"
        for row in rows
    )
