"""The connections of a relay and their bytes, for its statistics."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from time import monotonic
from typing import NamedTuple, Protocol

_RATE_WINDOW = 2.0
"""Seconds over which a rate is averaged. A guess: a shorter window fluctuates, a longer one lags."""

_SHOWN_AFTER_END = 3.0
"""Seconds for which a connection that has ended is shown. A guess: enough to read its line."""

_MOST_ENDED = 100
"""Connections that have ended and are kept. A guess: more than a screen has lines."""


class Link(Protocol):
    """What is counted of a connection: a ``Moved``, or a ``StreamRelay``."""

    @property
    def to_server(self) -> int: ...

    @property
    def to_client(self) -> int: ...


class Moved:
    """The bytes that ``relay`` has sent in each direction, for its ``progress``."""

    def __init__(self) -> None:
        self.to_server = 0
        self.to_client = 0

    def show(self, to_server: int, to_client: int) -> None:
        """Take the numbers."""
        self.to_server, self.to_client = to_server, to_client


class Flow(NamedTuple):
    """Bytes in each direction, or bytes per second."""

    to_target: float = 0
    to_client: float = 0


class Rate:
    """The rates at which the bytes of both directions grow."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, Flow]] = deque()

    def update(self, moved: Flow, now: float) -> Flow:
        """Add a sample, and return the growth per second over the last samples."""
        self._samples.append((now, moved))
        while len(self._samples) > 2 and self._samples[1][0] <= now - _RATE_WINDOW:
            self._samples.popleft()
        (first, before), (last, after) = self._samples[0], self._samples[-1]
        if last <= first:
            return Flow()
        return Flow(*((late - early) / (last - first) for early, late in zip(before, after, strict=True)))


class Connection:
    """A connection that is open, or has just ended.

    Attributes:
        client: the name of its client.
        target: its target.
        ended: when it ended; None: it is open.
        failed: whether an error ended it.
    """

    def __init__(self, client: str, target: str, link: Link) -> None:
        self.client = client
        self.target = target
        self.ended: float | None = None
        self.failed = False
        self._link = link
        self._started = monotonic()
        self._rate = Rate()

    @property
    def moved(self) -> Flow:
        """The bytes so far."""
        return Flow(self._link.to_server, self._link.to_client)

    def rate(self, now: float) -> Flow:
        """The bytes per second at the moment; to be asked again and again."""
        return self._rate.update(self.moved, now)

    def seconds(self, now: float) -> float:
        """Seconds since its start, or from its start to its end."""
        return (now if self.ended is None else self.ended) - self._started


class Traffic:
    """The connections, and the bytes of all so far.

    Attributes:
        count: number of connections so far.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: list[Connection] = []
        self._ended: deque[Connection] = deque(maxlen=_MOST_ENDED)
        self._finished = Flow()
        self._rate = Rate()
        self.count = 0

    @contextlib.contextmanager
    def counted(self, client: str, target: str, link: Link) -> Iterator[None]:
        """Count a connection as open while the block runs; an exception is its failure."""
        connection = Connection(client, target, link)
        with self._lock:
            self._open.append(connection)
            self.count += 1
        try:
            yield
        except BaseException:
            connection.failed = True
            raise
        finally:
            connection.ended = monotonic()
            with self._lock:
                self._open.remove(connection)
                self._ended.append(connection)
                self._finished = _sum([self._finished, connection.moved])

    def connections(self, now: float) -> tuple[list[Connection], list[Connection]]:
        """The open connections, and those that have ended in the last seconds, the newest first."""
        with self._lock:
            while self._ended and (self._ended[0].ended or now) < now - _SHOWN_AFTER_END:
                self._ended.popleft()
            return self._open[::-1], list(self._ended)[::-1]

    def total(self, now: float) -> tuple[int, Flow, Flow]:
        """How many connections are open; the bytes of all so far; the bytes per second at the moment."""
        with self._lock:
            connections = list(self._open)
            finished = self._finished
        moved = _sum([finished, *(connection.moved for connection in connections)])
        return len(connections), moved, self._rate.update(moved, now)


def _sum(flows: list[Flow]) -> Flow:
    return Flow(*map(sum, zip(*flows, strict=True)))
