"""SIGINT, SIGTERM and SIGHUP, without an exception at an arbitrary place.

Python raises ``KeyboardInterrupt`` between any two instructions of the main thread, for example while a lock is being
acquired. And if the signal arrives just before a blocking system call, Python does not react before the call returns.
The command can use neither: it has socket files to remove, and a service manager ends it with a single signal.

So a signal only writes a byte to a socket. A thread reads it, and closes the socket that the command waits on. The call
that waits raises ``ClosedError``, and the command ends as it does after any other error.

SIGHUP does the same, because the end of a terminal sends it, but for servers that have files to read again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from types import FrameType

_HANGUP: int | None = getattr(signal, "SIGHUP", None)  # Windows has none
_ENDING = [number for number in (signal.SIGINT, signal.SIGTERM, _HANGUP) if number is not None]

_EXIT_TIMEOUT = 1.0
"""Seconds in which the command must end after a signal; it may be blocked in a write to a full pipe. A guess."""


class Signals:
    """What happens when the command gets SIGINT, SIGTERM or SIGHUP.

    Attributes:
        received: the number of the last signal, or None.
        expected: whether a signal is the normal end of the command, with exit code 0.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.expected = False
        self._stops: list[Callable[[], object]] = []
        self._forces: list[Callable[[], object]] = []
        self._lock = threading.Lock()
        self._hangups: _Hangups | None = None

    @contextlib.contextmanager
    def hangup_calls(self, reload: Callable[[], object]) -> Iterator[None]:
        """Call ``reload`` at each SIGHUP while the block runs, in a thread of its own: a file may be on a slow disk.

        The hang-up of the terminal sends the same signal, and ends the command as SIGTERM does.
        """
        if _HANGUP is None or threading.current_thread() is not threading.main_thread():
            yield
            return
        self._hangups = hangups = _Hangups(reload)
        before = signal.signal(_HANGUP, _do_nothing)
        try:
            yield
        finally:
            self._hangups = None
            signal.signal(_HANGUP, before)
            hangups.end()

    def hang_up(self, number: int) -> None:
        """Read the files again, or end the command, as `hangup_calls` says."""
        hangups = self._hangups
        if hangups is None or not hangups.request():
            self.receive(number)

    @contextlib.contextmanager
    def ended_by(
        self, stop: Callable[[], object], *, force: Callable[[], object] | None = None
    ) -> Iterator[None]:
        """Call ``stop`` if a signal arrives while the block runs, or has arrived before.

        Args:
            stop: makes the block end; called in another thread. With nested blocks, the innermost is called first.
            force: makes the block end at once. With it, ``stop`` has no time limit; a second signal calls ``force``,
                and the exit code is then that of the signal.
        """
        if force is not None:
            self._forces.append(force)
        with self._lock:
            self._stops.append(stop)
            late = self.received is not None
        if late:
            stop()
        try:
            yield
        finally:
            self._stops.remove(stop)
            if force is not None and force in self._forces:
                self._forces.remove(force)

    def deferring_exit(self) -> contextlib.AbstractContextManager[None]:
        """Keep a signal from ending the process while the block makes something that must be removed again.

        The code in the block, or after it, looks at ``received``.
        """
        return self.ended_by(lambda: None)

    @property
    def exit_timeout(self) -> float | None:
        """Seconds in which the command must end after a signal; None: no limit until the next signal."""
        return None if self._forces else _EXIT_TIMEOUT

    @property
    def exit_code(self) -> int:
        """The exit code after a signal: 0 if it was expected, else 128 + n, as a shell reports signal n."""
        return 0 if self.expected else 128 + (self.received or 0)

    def receive(self, number: int) -> None:
        """Make the command end."""
        if self.received is not None:
            self._force(number)
            return
        with self._lock:
            self.received = number
            stops = self._stops[::-1]
        if not stops:
            # The command is starting, or resolving a name: there is nothing to remove.
            os._exit(self.exit_code)
        for stop in stops:
            stop()

    def _force(self, number: int) -> None:
        """End a command that is already ending, at once."""
        self.received, self.expected = number, False
        forces, self._forces = self._forces, []
        if not forces:
            os._exit(self.exit_code)
        for force in forces:
            # In a thread, because the command must end in time even if this does not.
            thread = threading.Thread(target=force, name="wireline-force", daemon=True)
            thread.start()
            thread.join(_EXIT_TIMEOUT)


class _Hangups:
    """Calls a function in a thread, once for any number of requests that arrive while it runs."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self._requested = threading.Event()
        self._over = False
        self._terminals = [fd for fd in (0, 1, 2) if os.isatty(fd)]
        threading.Thread(target=self._run, name="wireline-reload", daemon=True).start()

    def request(self) -> bool:
        """Request a call; False if the signal says that the terminal is gone."""
        if self._terminals and not any(map(os.isatty, self._terminals)):
            return False
        self._requested.set()
        return True

    def end(self) -> None:
        self._over = True
        self._requested.set()

    def _run(self) -> None:
        while self._requested.wait() and not self._over:
            self._requested.clear()
            self._call()


@contextlib.contextmanager
def signals_caught() -> Iterator[Signals]:
    """Catch the signals that end the command while the block runs. Python allows that in the main thread only."""
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    handlers = {number: signal.getsignal(number) for number in _ENDING}
    # A signal that was ignored when the program started stays ignored.
    handlers = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    watcher = threading.Thread(
        target=_watch, args=(reader, signals, handlers), name="wireline-signals", daemon=True
    )
    with reader, writer:
        wakeup_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for number in handlers:
            signal.signal(number, _do_nothing)
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
    """Wait for signals until the other end is closed. If the command takes too long to end, end the process."""
    try:
        while byte := reader.recv(1):
            if byte[0] == _HANGUP:
                signals.hang_up(byte[0])
            elif byte[0] in numbers:
                signals.receive(byte[0])
            if signals.received is not None:
                reader.settimeout(signals.exit_timeout)
    except TimeoutError:
        os._exit(signals.exit_code)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """Handle a signal: Python writes the byte to the wake-up descriptor only if a handler is set."""
