"""A shim between the library and the operating system: it counts the calls, and makes one of them fail.

Theory of operation. ``socket.socket`` is replaced by a subclass whose methods report before they call on, and so are
the few functions beside it that the library uses: ``socketpair``, ``getaddrinfo``, ``poll``, ``select``, ``stat``,
``open``, ``flock``, starting a thread. Every system call that can fail passes here; ``test_syscalls.py`` checks that no
method of a socket was forgotten. The close of a descriptor is not counted, nor is a call without a system call.

Sockets that were made before, or through ``Syscalls.plain``, are left alone: those are the test's own peers.

The way to use it is to run a scenario once under ``recording`` to learn which calls it makes, and then under
``failing`` once for each of ``faults_of(calls)``. That reaches paths that run only on a machine in trouble.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import selectors
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NamedTuple

import pytest

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

COUNTED = frozenset(
    "_accept bind connect connect_ex getpeername getsockname getsockopt listen recv recv_into recvfrom recvfrom_into"
    " recvmsg recvmsg_into send sendall sendmsg sendmsg_afalg sendto setblocking setsockopt settimeout shutdown"
    " set_inheritable".split()
)
"""Methods of a socket that enter the kernel."""

UNCOUNTED = frozenset("close detach fileno getblocking gettimeout get_inheritable".split())
"""Methods that do not, or that must always work: a descriptor is always given back."""

OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

# How each call may fail, from its manual page. Python itself repeats interrupted calls (PEP 475), except the connect of
# a socket that does not block.
ERRORS: dict[str, Sequence[int]] = {
    "socket": OUT_OF_RESOURCES,
    "socketpair": OUT_OF_RESOURCES,
    "_accept": (*OUT_OF_RESOURCES, errno.ECONNABORTED, errno.EPROTO, errno.EPERM),
    "bind": (errno.EACCES, errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.ENOMEM),
    "listen": (errno.EADDRINUSE, errno.ENOBUFS),
    "connect": (errno.ENETUNREACH, errno.ENOBUFS),
    "connect_ex": (
        errno.EINTR,
        errno.ECONNREFUSED,
        errno.ENETUNREACH,
        errno.EADDRNOTAVAIL,
        errno.EPERM,
        errno.ETIMEDOUT,
        errno.ENOBUFS,
    ),
    "getsockname": (errno.ENOBUFS,),
    "getpeername": (errno.ENOBUFS, errno.ENOTCONN),
    "getsockopt": (errno.ENOBUFS, errno.ENOPROTOOPT),
    # Some systems report EINVAL when the peer has reset the connection already.
    "setsockopt": (errno.ENOBUFS, errno.EINVAL),
    "setblocking": (errno.ENOMEM,),
    "set_inheritable": (errno.ENOMEM,),
    "poll": (errno.ENOMEM,),
    "select": (errno.ENOMEM,),
    "stat": (errno.ENOENT, errno.EACCES, errno.ENOMEM),
    "fstat": (errno.EIO,),
    "lstat": (errno.ENOENT, errno.EACCES, errno.ENOMEM),
    "open": (errno.EACCES, errno.EMFILE, errno.ENFILE, errno.ENOENT),
    "flock": (errno.EWOULDBLOCK, errno.ENOLCK),
    "unlink": (errno.EACCES, errno.ENOENT),
    "getaddrinfo": (errno.EMFILE,),
    "recv": (errno.ECONNRESET, errno.ETIMEDOUT, errno.ENOMEM),
    "recvmsg": (errno.ECONNREFUSED, errno.ENOMEM),
    "send": (errno.EPIPE, errno.ECONNRESET, errno.ENOBUFS),
    "sendto": (errno.ENOBUFS, errno.EPERM),
    "shutdown": (errno.ENOTCONN,),
}


class Fault(NamedTuple):
    """One way in which one call fails."""

    position: int
    call: str
    error: BaseException

    def __str__(self) -> str:
        return f"call {self.position}, {self.call}: {self.error!r}"


class Forbidden(AssertionError):
    """A call was made that should not have been."""


def _is_of_coverage() -> bool:
    """Whether the call is of coverage, which looks for the file of each new piece of code when it first runs."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("coverage."):
            return True
        frame = frame.f_back
    return False


class Syscalls:
    """The shim. It does nothing but while it is ``recording``, ``failing`` or ``forbidding``.

    Attributes:
        calls: the calls since the last ``recording`` began.
        fired: whether the last ``failing`` had its call.
    """

    plain = socket.socket
    """A socket class that passes by the shim."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.fired = False
        self._recording = False
        self._thread: int | None = None
        self._fault: Fault | None = None
        self._forbidding = False
        kind = _spying_on(self)
        patch.setattr(socket, "socket", kind)
        for module, name in (
            (socket, "socketpair"),
            (socket, "getaddrinfo"),
            (select, "select"),
            (os, "stat"),
            (os, "fstat"),
            (os, "unlink"),
            (os, "lstat"),
            (os, "open"),
        ):
            patch.setattr(module, name, self._reporting(name, getattr(module, name)))
        if fcntl is not None:
            patch.setattr(fcntl, "flock", self._reporting("flock", fcntl.flock))
        patch.setattr(threading.Thread, "start", self._reporting("thread", threading.Thread.start))
        if hasattr(select, "poll"):
            poll = _polling_for(self)
            patch.setattr(select, "poll", poll)
            patch.setattr(selectors.PollSelector, "_selector_cls", poll)

    def _reporting(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def reporting(*args: Any, **kwargs: Any) -> Any:
            self.report(name)
            return function(*args, **kwargs)

        return reporting

    def report(self, name: str) -> None:
        """Note one call, and fail it if it is its turn."""
        if not self._recording or self._thread not in (None, threading.get_ident()) or _is_of_coverage():
            return
        self.calls.append(name)
        if self._forbidding:
            raise Forbidden(f"{name} was called")
        fault = self._fault
        if fault is not None and (len(self.calls), name) == (fault.position, fault.call):
            self.fired = True
            raise fault.error

    @contextlib.contextmanager
    def recording(self, *, everywhere: bool = False) -> Iterator[list[str]]:
        """Note the calls that this thread makes, or with ``everywhere`` any thread."""
        self.calls = []
        self._thread = None if everywhere else threading.get_ident()
        self._recording = True
        try:
            yield self.calls
        finally:
            self._recording = False

    @contextlib.contextmanager
    def forbidding(self) -> Iterator[None]:
        """Make every call fail, in any thread, and say so at the end even if the error was swallowed."""
        self._forbidding = True
        try:
            with self.recording(everywhere=True) as calls:
                yield
        finally:
            self._forbidding = False
        if calls:
            raise Forbidden(f"called: {calls}")

    @contextlib.contextmanager
    def failing(self, fault: Fault) -> Iterator[None]:
        """Make one call of this thread fail."""
        self._fault, self.fired = fault, False
        try:
            with self.recording():
                yield
        finally:
            self._fault = None


def faults_of(calls: Sequence[str]) -> Iterator[Fault]:
    """Every way in which one of ``calls`` may fail, or be interrupted by the user.

    How often a descriptor has to be polled is up to the kernel: a call that is not made the next time is no mistake.
    """
    for position, call in enumerate(calls, 1):
        yield Fault(position, call, KeyboardInterrupt(f"at call {position}, {call}"))
        if call == "thread":
            yield Fault(position, call, RuntimeError("can't start new thread"))
        for code in ERRORS.get(call, ()):
            yield Fault(position, call, OSError(code, os.strerror(code)))


class _AnySocket(type):
    """Makes ``isinstance`` take sockets that were made without the shim."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, Syscalls.plain)


def _spying_on(syscalls: Syscalls) -> type[socket.socket]:
    class SpiedSocket(socket.socket, metaclass=_AnySocket):
        def __init__(
            self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None
        ) -> None:
            if fileno is None:
                syscalls.report("socket")
            super().__init__(family, type, proto, fileno)

        def connect_ex(self, address: Any) -> int:
            try:
                syscalls.report("connect_ex")
            except OSError as error:
                if error.errno == errno.EINTR and self.family in (socket.AF_INET, socket.AF_INET6):
                    super().connect_ex(address)  # it goes on by itself, says connect(2)
                return error.errno or 0
            return super().connect_ex(address)

    for name in COUNTED - {"connect_ex"}:
        if hasattr(socket.socket, name):
            setattr(SpiedSocket, name, syscalls._reporting(name, getattr(socket.socket, name)))
    return SpiedSocket


def _polling_for(syscalls: Syscalls) -> type:
    make = select.poll

    class SpiedPoll:
        def __init__(self) -> None:
            poll = make()
            self.register, self.unregister, self.modify = poll.register, poll.unregister, poll.modify
            self.poll = syscalls._reporting("poll", poll.poll)

    return SpiedPoll
