"""Ctrl-C and SIGTERM, without an exception out of nowhere.

Python raises ``KeyboardInterrupt`` between any two instructions of the main thread, while a lock is being taken for
example; and not at all, until something else happens, if the signal comes right before a system call that waits.
Neither will do for a program that has a socket file to remove, and that a service manager ends with one signal.

So here a signal is only a byte in a socket. A thread reads it, and closes what the command is waiting on. The command
then ends on the ordinary road: who waits on a socket that another thread closes gets a ``ClosedError``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from types import FrameType

_PATIENCE = 1.0
"""Seconds that the command gets to end once it was told to: output may go to somebody who does not read. A guess."""


class Signals:
    """What to do when the command is told to end.

    Attributes:
        received: the number of the signal that came, or None.
        expected: whether a signal is how the command ends well.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.expected = False
        self._stops: list[Callable[[], object]] = []
        self._hurries: list[Callable[[], object]] = []
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def ended_by(
        self, stop: Callable[[], object], *, hurry: Callable[[], object] | None = None
    ) -> Iterator[None]:
        """Have ``stop`` called if a signal comes while the block runs, or has come before.

        Args:
            stop: makes the block end; called from another thread. Of several the innermost is called first.
            hurry: makes the block end at once. With it ``stop`` may take its time; a second signal calls this one,
                and is then no good end.
        """
        if hurry is not None:
            self._hurries.append(hurry)
        with self._lock:
            self._stops.append(stop)
            late = self.received is not None
        if late:
            stop()
        try:
            yield
        finally:
            self._stops.remove(stop)
            if hurry is not None and hurry in self._hurries:
                self._hurries.remove(hurry)

    def noted(self) -> contextlib.AbstractContextManager[None]:
        """Do not end the process if a signal comes while the block runs: something is made that must not stay.

        What is waited for inside, or next, asks whether one has come.
        """
        return self.ended_by(lambda: None)

    @property
    def patience(self) -> float | None:
        """Seconds that the command gets to end, now that it was told to; None: until a signal tells it again."""
        return None if self._hurries else _PATIENCE

    @property
    def exit_code(self) -> int:
        """The exit code after a signal; 128 + n is what a shell says of a program that signal n ended."""
        return 0 if self.expected else 128 + (self.received or 0)

    def end(self, number: int) -> None:
        """Make the command end."""
        if self.received is not None:
            self._hurry(number)
            return
        with self._lock:
            self.received = number
            stops = self._stops[::-1]
        if not stops:
            # It is starting or looking up a name: nothing is there yet that anybody would miss.
            os._exit(self.exit_code)
        for stop in stops:
            stop()

    def _hurry(self, number: int) -> None:
        """Make a command that was told to end do it now."""
        hurries, self._hurries = self._hurries, []
        if not hurries:
            os._exit(self.exit_code)
        self.received, self.expected = number, False
        for hurry in hurries:
            hurry()


@contextlib.contextmanager
def signals_caught() -> Iterator[Signals]:
    """Catch SIGINT and SIGTERM while the block runs. Outside of the main thread Python does not allow that."""
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # A program that is started with a signal ignored leaves it so.
    handlers = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    watcher = threading.Thread(
        target=_watch, args=(reader, signals, handlers), name="wireline-signals", daemon=True
    )
    with reader, writer:
        wakeup_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for number in handlers:
            signal.signal(number, _leave_it_to_the_watcher)
        watcher.start()
        try:
            yield signals
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(wakeup_fd)
            writer.close()
            watcher.join()


def _watch(reader: socket.socket, signals: Signals, numbers: Collection[int]) -> None:
    """Wait for signals until the other end is closed. The end of patience ends the process."""
    try:
        while byte := reader.recv(1):
            if byte[0] in numbers:
                signals.end(byte[0])
                reader.settimeout(signals.patience)
    except TimeoutError:
        os._exit(signals.exit_code)


def _leave_it_to_the_watcher(number: int, frame: FrameType | None) -> None:
    """Do nothing: that there is a handler is what makes Python write the byte."""
