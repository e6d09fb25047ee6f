"""One priority level at work: seats, and queues for those who find none.

Owns who sits, who waits in which queue, and who is next. A flow is dealt a hand of queues (shuffle sharding) and waits
in the shortest of them; the queue that had the least of the level's time goes first (start-time fair queuing). Called
by `gate.py`, on one loop. A request that finds room takes no part in any of this.
Source: KEP-1040 (Fair queuing for server requests), apiserver's pkg/util/flowcontrol/fairqueuing and shufflesharding.
"""

from __future__ import annotations

import asyncio
import hashlib
from bisect import insort
from collections import Counter, deque
from collections.abc import Callable

from steersman.api.resource import Object
from steersman.apiserver.flow.shares import Limits, Wish
from steersman.lib.metrics import Distribution

_GUESS = 0.003  # seconds that a request is taken to need, until it has ended
_SMOOTHING = 0.977  # of the demand, from one adjustment to the next


RUNS = (0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30)
WAITS = (*RUNS[:9], 10, 15, 30)
"""Bounds in seconds, for the metrics."""


class Turn:
    """A waiting request."""

    __slots__ = ("began", "called", "came", "flow", "queue", "schema", "seats")

    def __init__(self, queue: Queue, seats: int, schema: str, flow: str, came: float) -> None:
        self.queue = queue
        self.seats = seats
        self.schema = schema
        self.flow = flow
        self.came = came  # Unix seconds
        self.called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.began = 0.0


class Queue:
    """Requests of flows that were dealt this queue. `start`: when its next one virtually begins, in seat-seconds."""

    __slots__ = ("executing", "seated", "start", "turns")

    def __init__(self) -> None:
        self.turns: deque[Turn] = deque()
        self.executing = 0  # requests of its that have seats
        self.seated = 0  # the seats that those have
        self.start = 0.0


class Tally:
    """A schema's requests at a level, counted for the metrics."""

    __slots__ = ("begun", "executing", "gone", "heavy", "runs", "seats", "waiting", "waits", "wanted", "watches")

    def __init__(self) -> None:
        self.begun = self.executing = self.seats = self.waiting = self.wanted = 0
        self.watches = 0  # of those begun
        self.gone: dict[str, int] = {}  # turned away, by reason
        self.heavy = Counter[int]()  # requests that weigh more than one seat, by how many
        self.runs = Distribution(RUNS)  # seconds of those that had to be awaited
        self.waits = Distribution(WAITS), Distribution(WAITS)  # seconds in a queue: in vain, and until their turn


class Level:
    """A priority level. It is full when a request of so many seats has to wait or go."""

    def __init__(self, name: str, now: Callable[[], float]) -> None:
        """`now`: monotonic seconds."""
        self.name = name
        self._now = now
        self.uid = ""
        self.exempt = False
        self.limits = Limits(0, 0, 0)
        self.limit = 0  # seats, for now
        self.most_seats = 1  # that one request may take
        self.taken = 0
        self.waiting = 0
        self.cancelled = 0  # those who gave up waiting
        self.tallies: dict[str, Tally] = {}  # by schema
        self.hand_size = 0
        self._length = 0
        self._number = 0  # of queues; they are made when somebody first waits in them
        self._queues: dict[int, Queue] = {}
        self._busy: dict[Queue, None] = {}
        self._clock = 0.0  # virtual: the start of the last request that was called
        self._peak = 0
        self._smooth = 0.0
        self.target = 0.0  # seats wished for when they were last shared out

    def configure(self, level: Object, limits: Limits) -> None:
        """Take over an object's settings; who waits, waits on."""
        spec = level["spec"]
        self.uid = level["metadata"].get("uid", "")
        self.exempt = spec.get("type") == "Exempt"
        if limits != self.limits:
            self.limits, self.limit = limits, limits.nominal - (limits.nominal - limits.least) // 2
        queuing = ((spec.get("limited") or {}).get("limitResponse") or {}).get("queuing") or {}
        number, self._length = int(queuing.get("queues", 0)), int(queuing.get("queueLengthLimit", 0))
        self.hand_size = min(int(queuing.get("handSize", 0)), number)
        self.most_seats = max(1, min(-(-limits.nominal * 15 // 100), limits.nominal // max(self.hand_size, 1)))
        if number != self._number:
            self._resize(number)
        self._call()

    def _resize(self, number: int) -> None:
        old, self._queues, self._busy, self._number = self._queues, {}, {}, number
        for at, queue in old.items():
            for turn in queue.turns:
                if number:
                    turn.queue = self._queues.setdefault(at % number, Queue())
                    turn.queue.turns.append(turn)
                    self._busy[turn.queue] = None
                else:
                    self._seat(turn)

    def hand(self, schema: str, flow: str) -> tuple[int, ...]:
        """The queues that a flow is dealt: always the same, few in common with another's."""
        digest = hashlib.sha256(f"{schema}\0{flow}".encode()).digest()
        left, dealt = int.from_bytes(digest[:8], "little"), list[int]()
        for dealt_before in range(self.hand_size):
            left, card = divmod(left, self._number - dealt_before)
            for other in dealt:  # ascending: step over what is dealt already
                card += other <= card
            insort(dealt, card)
        return tuple(dealt)

    def room(self, seats: int) -> bool:
        """Whether a request may begin now. One that wants more than there is begins when nobody else sits."""
        return self.exempt or (not self.waiting and self._fits(seats))

    def _fits(self, seats: int) -> bool:
        return self.taken + seats <= self.limit or not self.taken

    def sit(self, seats: int) -> None:
        """Begin, after `room`."""
        self.taken += seats
        if self.taken > self._peak:
            self._peak = self.taken

    def rise(self, seats: int) -> None:
        """End what `sit` began."""
        self.taken -= seats
        if self.waiting:
            self._call()

    async def wait(
        self, hand: tuple[int, ...], seats: int, seconds: float, schema: str = "", flow: str = "", came: float = 0.0
    ) -> Turn | None:
        """Wait for seats and take them; None when there is no place to wait, or the time is up.

        Whose request it is (`schema`, `flow`) and when it came, in Unix seconds, is for people who look."""
        if not hand:
            return None
        queue = min((self._queues.setdefault(card, Queue()) for card in hand), key=_load)
        if len(queue.turns) >= self._length:
            return None
        turn = Turn(queue, seats, schema, flow, came)
        if not queue.turns and not queue.seated:
            queue.start = max(queue.start, self._clock)
        queue.turns.append(turn)
        self._busy[queue] = None
        self.waiting += 1
        self._peak = max(self._peak, self.taken + self.waiting)
        self._call()
        try:
            async with asyncio.timeout(seconds):
                await turn.called
        except TimeoutError:
            if turn.called.cancelled():
                self._forget(turn)
                return None
        except asyncio.CancelledError:
            self.cancelled += 1
            if turn.called.cancelled():
                self._forget(turn)
            else:
                self.leave(turn)
            raise
        return turn

    def leave(self, turn: Turn) -> None:
        """End what began with `wait`."""
        turn.queue.seated -= turn.seats
        turn.queue.executing -= 1
        turn.queue.start += turn.seats * (self._now() - turn.began - _GUESS)
        self.rise(turn.seats)

    def _forget(self, turn: Turn) -> None:
        """Nobody waits there any more; `_call` may have noticed first."""
        if turn in turn.queue.turns:
            turn.queue.turns.remove(turn)
            self.waiting -= 1
            if not turn.queue.turns:
                self._busy.pop(turn.queue, None)
        self._call()

    def _call(self) -> None:
        """Call whoever is next, while there is room."""
        while self._busy:
            queue = min(self._busy, key=_start)
            if not self._fits(queue.turns[0].seats):
                return
            turn = queue.turns.popleft()
            if not queue.turns:
                del self._busy[queue]
            self._clock = max(self._clock, queue.start)
            queue.start += turn.seats * _GUESS
            self._seat(turn)

    def _seat(self, turn: Turn) -> None:
        self.waiting -= 1
        if turn.called.cancelled():
            return
        turn.queue.seated += turn.seats
        turn.queue.executing += 1
        turn.began = self._now()
        self.sit(turn.seats)
        turn.called.set_result(None)

    def wish(self) -> Wish:
        """What the level needs, by the demand since it was last asked."""
        peak, self._peak = self._peak, self.taken
        self._smooth = max(peak, _SMOOTHING * self._smooth + (1 - _SMOOTHING) * peak)
        least = max(self.limits.least, min(self.limits.nominal, peak))
        self.target = max(least, self._smooth)
        return Wish(self.target, least, self.limits.most)

    @property
    def demand(self) -> tuple[int, float]:
        """Seats: the most that were wanted since the last adjustment, and smoothed over time."""
        return self._peak, self._smooth

    def figures(self) -> tuple[int, int, int, int]:
        """Seats: nominal, the fewest, the most, now."""
        return self.limits.nominal, self.limits.least, self.limits.most, self.limit

    @property
    def busy(self) -> int:
        """Queues in which somebody waits."""
        return len(self._busy)

    def queues(self) -> list[Queue | None]:
        """Every queue that the level has; None where nobody has waited yet."""
        return [self._queues.get(at) for at in range(self._number)]

    def grant(self, seats: int) -> None:
        """Have so many seats from now on."""
        self.limit = seats
        self._call()


def _load(queue: Queue) -> int:
    return sum(turn.seats for turn in queue.turns) + queue.seated


def _start(queue: Queue) -> float:
    return queue.start
