"""The part of a pool that never waits: which caller is next, which item is used again, and what is counted.

Theory of operation. A pool makes ``max_size`` entries at most, and keeps them. Each is in one place: among the idle
ones (with an item), among the vacant ones, or with the ``Claim`` of one call of ``acquire``. An entry is made and
moved by one operation of C, so an exception of a signal handler finds it in one place or the other. There is no lock,
so that a signal handler, a finalizer and other threads may use the pool at any moment.

A caller that finds no entry, or others that wait, joins the queue *before* it looks for an entry, and an entry is put
back *before* the queue is looked at: one of the two sees the other. Only the first in the queue may take an entry, also
against callers that are not in it. The core refers to a claim weakly. A claim that an exception has left behind is
dropped with the frames of its call; then the callback of the reference takes back what it had, and wakes the next. It
is no ``__del__``, which would run after every ``acquire``, and Python swallows what a signal handler raises there.
"""

from __future__ import annotations

import logging
import time
import warnings
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice, repeat, starmap
from operator import length_hint
from typing import Generic, NamedTuple, Protocol, TypeVar

from wireline._os.process import process
from wireline._socket_base import BaseSocket
from wireline._validation import require_int
from wireline.errors import ClosedError
from wireline.timing import check_seconds

__all__ = ["BasePool", "Claim", "Closable", "PoolCore", "PoolLimits", "PoolStats", "is_closed"]

log = logging.getLogger("wireline")


class Closable(Protocol):
    """What a pool can hold."""

    def close(self) -> object:
        """Release everything. It does not wait."""
        ...


T = TypeVar("T", bound=Closable)


@dataclass(frozen=True, kw_only=True)
class PoolStats:
    """What a pool holds now, and what it has done since it was made.

    Attributes:
        size: connections that exist or are being made: ``idle`` and ``in_use``.
        idle: those that wait to be used again.
        in_use: those that a block has, or is about to get.
        waiting: calls of ``acquire`` that wait for a connection to be returned.
        created: connections that were made.
        reused: calls of ``acquire`` that got a connection which was made before.
        discarded: connections that were closed, by the pool or by a block.
        timeouts: calls of ``acquire`` that ended because no connection was returned in time.
    """

    size: int
    idle: int
    in_use: int
    waiting: int
    created: int
    reused: int
    discarded: int
    timeouts: int


class PoolLimits(NamedTuple):
    """The arguments of a pool that are numbers. Seconds, and None for no limit."""

    max_size: int
    max_idle: int
    idle_timeout: float | None
    max_lifetime: float | None

    @classmethod
    def from_arguments(
        cls, max_size: int, max_idle: int | None, idle_timeout: float | None, max_lifetime: float | None
    ) -> PoolLimits:
        """Check them.

        Raises:
            TypeError, ValueError: one of them is wrong.
        """
        require_int("max_size", max_size)
        if max_size < 1:
            raise ValueError(f"max_size must be at least 1, got {max_size}")
        if max_idle is None:
            max_idle = max_size
        require_int("max_idle", max_idle)
        idle_timeout = check_seconds("idle_timeout", idle_timeout)
        return cls(max_size, max_idle, idle_timeout, check_seconds("max_lifetime", max_lifetime))


class PoolEntry(Generic[T]):
    """The permission to have one connection, and that connection.

    Attributes:
        item: the connection, or None.
        made_at, idle_since: moments on the pool's clock.
    """

    # No `__init__`: it is made by C alone.
    item: T | None = None
    made_at = idle_since = 0.0


def _no_wake() -> None:
    """Do nothing: the claim does not wait."""


class Claim(Generic[T]):
    """One call of ``acquire``: its place in the queue, and then its entry.

    Attributes:
        entries: the entry; for a moment, two.
        wake: called when an entry may be free, or the pool is closed. From any thread.
        reference: what the core has of it, until the claim has ended.
    """

    __slots__ = ("__weakref__", "core", "entries", "reference", "wake")

    def __init__(self, core: PoolCore[T]) -> None:
        self.core = core
        self.entries: list[PoolEntry[T]] = []
        self.wake: Callable[[], object] = _no_wake
        self.reference: weakref.ref[Claim[T]] | None = core.watch(self)


class PoolCore(Generic[T]):
    """The entries and the queue of one pool in one process.

    Attributes:
        clock: returns the seconds by which the age of a connection is measured.
        closed: every item is closed when it is returned, and no more are given out.
        timeouts: as in ``PoolStats``.
    """

    def __init__(self, limits: PoolLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self.clock = clock
        self._epoch = process.epoch
        self._idle: deque[PoolEntry[T]] = deque()  # the last one returned is at the right end, and used first
        self._vacant: deque[PoolEntry[T]] = deque()
        self._unmade = repeat((), limits.max_size)  # the arguments of entries that were not needed yet
        self._make_entry: Callable[[], PoolEntry[T]] = starmap(PoolEntry, self._unmade).__next__
        self._queue: OrderedDict[weakref.ref[Claim[T]] | None, None] = OrderedDict()
        # The entries of every claim that has not ended.
        self._watched: dict[weakref.ref[Claim[T]] | None, list[PoolEntry[T]]] = {}
        self.closed = False
        # `+=` on an attribute is not interrupted by another thread of CPython; if it were, a count would be lost.
        self._created = self._reused = self._discarded = self.timeouts = 0

    def watch(self, claim: Claim[T]) -> weakref.ref[Claim[T]]:
        """Return a reference to a new claim, which is taken back if it is dropped before its end."""
        reference = weakref.ref(claim, self._on_dropped)
        self._watched[reference] = claim.entries
        return reference

    # Which claim is next.

    def try_take(self, claim: Claim[T]) -> bool:
        """Give a claim an entry that is free, unless others wait.

        Raises:
            ClosedError: the pool is closed.
        """
        if self.closed:
            raise ClosedError("acquire: the pool is closed")
        return not self._queue and self._take_entry(claim)

    def join(self, claim: Claim[T]) -> None:
        """Put a claim, whose ``wake`` is set, at the end of the queue; ``leave`` or ``abandon`` is due."""
        self._queue[claim.reference] = None

    def take(self, claim: Claim[T]) -> bool:
        """Give a claim in the queue an entry, if it is the first and one is free.

        Raises:
            ClosedError: the pool is closed.
        """
        if self.closed:
            raise ClosedError("acquire: the pool was closed while the call waited")
        return self._first() is claim and self._take_entry(claim)

    def leave(self, claim: Claim[T]) -> None:
        """Take a claim that has its entry out of the queue; the next may find another entry."""
        self._queue.pop(claim.reference, None)
        self._wake_next()

    def _take_entry(self, claim: Claim[T]) -> bool:
        for source in (self._idle.pop, self._vacant.pop, self._make_entry):
            _move(source, claim.entries)
            if claim.entries:
                return True
        return False

    def _first(self) -> Claim[T] | None:
        while True:
            try:
                reference = next(iter(self._queue))
            except StopIteration:
                return None
            except RuntimeError:  # another thread has changed the queue meanwhile
                continue
            claim = None if reference is None else reference()
            if claim is not None:
                return claim
            self._queue.pop(reference, None)  # its callback was interrupted

    def _wake_next(self) -> None:
        if self._queue and (self._idle or self._vacant or length_hint(self._unmade)):
            claim = self._first()
            if claim is not None:
                claim.wake()

    # Which item is used again.

    def candidate(self, claim: Claim[T]) -> T | None:
        """Return the item that a claim got with its entry; None if a connection has to be made.

        Items that are too old are closed. The caller checks whether the item still works: ``accept`` or ``reject``.
        """
        while (item := claim.entries[-1].item) is not None and self._is_too_old(claim.entries[-1]):
            self.reject(claim)
        return item

    def accept(self, claim: Claim[T]) -> None:
        """Count an item that is used again."""
        self._reused += 1

    def reject(self, claim: Claim[T]) -> None:
        """Close the item of a claim; the claim gets the next idle one, or keeps the vacant entry."""
        self._close_item(claim.entries[-1])
        _move(self._idle.pop, claim.entries)
        if len(claim.entries) > 1:
            _move(partial(claim.entries.pop, 0), self._vacant)
            self._wake_next()  # it may have looked when both were here

    def fill(self, claim: Claim[T], item: T) -> None:
        """Keep a connection that was made for a claim.

        Raises:
            TypeError: it cannot be closed.
        """
        if not callable(getattr(item, "close", None)):
            raise TypeError(f"connect must return an object with a close method, got {item!r}")
        entry = claim.entries[-1]
        entry.made_at = self.clock()
        entry.item = item
        self._created += 1

    def release(self, claim: Claim[T], *, reusable: bool) -> None:
        """Take back the entry of a claim, with the item if it can be used again; else close the item."""
        entry = claim.entries[-1]
        now = self.clock()
        if reusable and not self.closed and entry.item is not None and not is_closed(entry.item):
            entry.idle_since = now
            if not self._is_too_old(entry) and self._epoch is process.epoch:
                _move(claim.entries.pop, self._idle)
                if self.closed:  # by another thread, which may not have seen the item
                    self.close()
        self.abandon(claim)

    def abandon(self, claim: Claim[T]) -> None:
        """End a claim: close its items, free its entries, and wake the next."""
        reference = claim.reference
        self._take_back(reference, claim.entries)
        # Without the reference its callback is not called.
        self._watched.pop(reference, None)
        claim.reference = None

    def _on_dropped(self, reference: weakref.ref[Claim[T]]) -> None:
        """End a claim that an exception has left behind. In any thread, at any allocation."""
        self._take_back(reference, self._watched.pop(reference, []))

    def _take_back(self, reference: weakref.ref[Claim[T]] | None, entries: list[PoolEntry[T]]) -> None:
        self._queue.pop(reference, None)
        self._vacate(entries)
        self._wake_next()
        # What is idle is for the calls that wait; only what none of them needs is too much.
        while not self._queue and self._has_surplus():
            _move(self._idle.popleft, entries)
            self._vacate(entries)

    def _vacate(self, entries: list[PoolEntry[T]]) -> None:
        while entries:
            self._close_item(entries[-1])
            _move(entries.pop, self._vacant)

    def close(self) -> None:
        """Close the idle items, and wake the claims that wait."""
        self.closed = True
        for reference in list(self._queue):
            if reference is not None and (waiting := reference()) is not None:
                waiting.wake()
        claim = Claim(self)
        while self._idle:
            _move(self._idle.pop, claim.entries)
            self._vacate(claim.entries)
        self.abandon(claim)

    def stats(self) -> PoolStats:
        """Count. While other threads use the pool, the numbers are of slightly different moments."""
        size = self._limits.max_size - length_hint(self._unmade) - len(self._vacant)
        idle = len(self._idle)
        return PoolStats(
            size=size,
            idle=idle,
            in_use=max(0, size - idle),
            waiting=len(self._queue),
            created=self._created,
            reused=self._reused,
            discarded=self._discarded,
            timeouts=self.timeouts,
        )

    def _has_surplus(self) -> bool:
        """Whether the idle items are too many, or the oldest is too old."""
        try:
            return len(self._idle) > self._limits.max_idle or self._is_too_old(self._idle[0])
        except IndexError:
            return False

    def _is_too_old(self, entry: PoolEntry[T]) -> bool:
        _, _, idle_timeout, max_lifetime = self._limits
        now = self.clock()
        return (idle_timeout is not None and now - entry.idle_since >= idle_timeout) or (
            max_lifetime is not None and now - entry.made_at >= max_lifetime
        )

    def _close_item(self, entry: PoolEntry[T]) -> None:
        item = entry.item
        if item is None:
            return
        try:
            if self._epoch is not process.epoch:
                drop_inherited(item)
            elif not is_closed(item):
                item.close()
        except OSError as error:  # any other exception may be a signal handler's
            log.error("a connection of a pool could not be closed", exc_info=error)
        finally:
            entry.item = None
            self._discarded += 1

    # After a fork.

    def disown(self) -> None:
        """In a forked child: let go of the items of the parent's core."""
        while self._idle:
            item, self._idle[-1].item = self._idle[-1].item, None
            self._idle.pop()
            if item is not None:
                drop_inherited(item)


def _move(source: Callable[[], PoolEntry[T]], target: list[PoolEntry[T]] | deque[PoolEntry[T]]) -> None:
    """Move the entry that ``source``, a function of C, gives out, if there is one: one operation of C."""
    try:
        target.extend(islice(iter(source, None), 1))
    except IndexError:
        pass  # there is none


def is_closed(item: object) -> bool:
    """Whether an item says that it is closed."""
    return getattr(item, "is_closed", False) is True


def drop_inherited(item: object) -> None:
    """In a forked child: let go of the parent's connection. The ``close`` of an item of another kind might use it."""
    if isinstance(item, BaseSocket):
        item.close()


class BasePool(Generic[T]):
    """The methods of a pool that never wait."""

    def __init__(self, limits: PoolLimits) -> None:
        self._limits = limits
        # One core for each process: a fork makes a new one.
        self._cores: dict[object, PoolCore[T]] = {process.epoch: PoolCore(limits)}

    @property
    def stats(self) -> PoolStats:
        """What the pool holds now and has done so far, as a ``PoolStats``."""
        return self._core().stats()

    @property
    def is_closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._core().closed

    def close(self) -> None:
        """Close the idle connections, and those in use when they are returned. A second ``close`` has no effect.

        Every ``acquire`` that waits, and every later one, raises ``ClosedError``. It never waits. It may be called in
        any thread and by a signal handler.
        """
        self._core().close()

    def _core(self) -> PoolCore[T]:
        """The core of the running process."""
        core = self._cores.get(process.epoch)
        if core is None:
            inherited = list(self._cores.items())
            fresh: PoolCore[T] = PoolCore(self._limits)
            fresh.closed = any(old.closed for _, old in inherited)
            core = self._cores.setdefault(process.epoch, fresh)
            for epoch, old in inherited:
                if self._cores.pop(epoch, None) is not None:
                    old.disown()
        return core

    def __repr__(self) -> str:
        stats = self.stats
        state = "closed, " if self.is_closed else ""
        name = f"{type(self).__module__}.{type(self).__name__}"
        return f"<{name} {state}{stats.in_use} in use, {stats.idle} idle, {self._limits.max_size} at most>"

    def __del__(self) -> None:
        if getattr(self, "_cores", None) is None:  # the arguments were wrong
            return
        core = self._core()
        if not core.closed and core.stats().idle:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
        core.close()
