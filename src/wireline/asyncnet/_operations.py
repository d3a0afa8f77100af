"""What a task may wait for on a socket: bytes, room, a client, a datagram, a connection."""

from __future__ import annotations

import os
import socket
import weakref
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar, TypeVarTuple

from wireline._core.stream import StreamCore
from wireline._os import descriptor as _descriptor
from wireline._os.descriptor import CONNECTING, Unclaimed, close_unclaimed, connect_result, has_room
from wireline.asyncnet._asyncio import Loop, Operation
from wireline.asyncnet._channel import NOT_YET, Job, NotYet
from wireline.errors import SockAddr
from wireline.options import AF_UNIX, DONT_WAIT, NO_SIGNAL

__all__ = [
    "NOW",
    "Accept",
    "Connect",
    "Owner",
    "Read",
    "ReceiveDatagram",
    "Room",
    "Send",
    "SendDatagram",
    "accept_now",
]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

NOW = DONT_WAIT | NO_SIGNAL
"""Flags of a send that does not block: a duplicate of the descriptor may have been made blocking (W10)."""

# Bytes that an operation of the loop sends at once. It is never cancelled, so what it has counts as sent: a piece that
# is small beside any message for which it matters, and large beside the cost of an operation. A guess.
_PORTABLE_PIECE = 64 * 1024

# Bytes of the largest UDP datagram, rounded up.
_ANY_DATAGRAM = 64 * 1024


class _Annotating(Protocol):
    def _annotated(self, error: OSError, operation: str) -> OSError: ...


class Owner(weakref.ref[_Annotating]):
    """The stream that a job reads for. The loop knows it, and must not keep alive what everybody else forgot."""

    __slots__ = ()

    def note(self, error: OSError, operation: str) -> OSError:
        """Add to an error what it happened to, as long as there is somebody to read that."""
        stream = self()
        return error if stream is None else stream._annotated(error, operation)


class Read(Job[bytes]):
    """The answer to a request of the core, on a loop without ``add_reader`` (elsewhere: ``StreamReader``)."""

    __slots__ = ("_args", "_core", "_owner", "_request", "_sock")

    def __init__(
        self,
        sock: socket.socket,
        core: StreamCore,
        owner: Owner,
        request: Callable[[StreamCore, *Ts], bytes | None],
        args: tuple[*Ts],
    ) -> None:
        self._sock = sock
        self._core = core
        self._owner = owner
        self._request: Callable[..., bytes | None] = request
        self._args = args

    def operate(self, loop: Loop) -> Awaitable[bytes]:
        return loop.sock_recv(self._sock, self._core.recv_size)

    def conclude(self, result: bytes) -> bytes | NotYet:
        self._core.feed(result)
        return self._answer()

    def failed(self, error: OSError) -> bytes | NotYet:
        self._core.fail(self._owner.note(error, self._request.__name__))
        return self._answer()

    def _answer(self) -> bytes | NotYet:
        answer = self._request(self._core, *self._args)
        return NOT_YET if answer is None else answer


class Send(Job[int]):
    """All of some bytes on their way, or with ``once`` some of them.

    Attributes:
        sent: bytes that went out so far.
    """

    __slots__ = ("_data", "_once", "_piece", "_sock", "_source", "sent")

    transferable = False
    counts_when_begun = True

    def __init__(
        self, sock: socket.socket, data: bytes | memoryview, sent: int, *, once: bool = False
    ) -> None:
        self._sock = sock
        self._source = data
        self._data = memoryview(data)
        self._once = once
        self._piece = 0
        self.sent = sent

    def attempt(self) -> int | NotYet:
        return self._done(self._sock.send(self._data[self.sent :], NOW))

    def operate(self, loop: Loop) -> Awaitable[None]:
        # A copy: the operation goes on when the caller has left, and then the buffer is the caller's again (W4).
        piece = bytes(self._data[self.sent : self.sent + _PORTABLE_PIECE])
        self._piece = len(piece)
        self.sent += self._piece
        return loop.sock_sendall(self._sock, piece)

    def conclude(self, result: None) -> int | NotYet:
        return self._done(0)

    def failed(self, error: OSError) -> int | NotYet:
        self.sent -= self._piece
        raise error

    def release(self) -> None:
        """Let go of the caller's buffer (W4), which an exception on its way would hold on to."""
        self._data.release()
        if isinstance(self._source, memoryview):
            self._source.release()

    def _done(self, more: int) -> int | NotYet:
        self.sent += more
        return self.sent if self._once or self.sent == len(self._data) else NOT_YET


class Room(Job[bool]):
    """Room for something to send."""

    __slots__ = ("_sock",)

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def attempt(self) -> bool:
        if not has_room(self._sock):
            raise BlockingIOError
        return True


def accept_now(listener: socket.socket) -> tuple[socket.socket, SockAddr]:
    """Accept a client that is there already.

    Raises:
        BlockingIOError: there is none.
    """
    # There is no flag for one call, and to ask with `poll` first is no help where processes share a listener: another
    # one may take the client in between. One cheap system call beside an expensive one.
    listener.setblocking(False)
    unclaimed: Unclaimed = []
    try:
        return _descriptor.accept_now(listener, unclaimed)
    except BaseException:
        close_unclaimed(unclaimed)
        raise


class Accept(Job[tuple[socket.socket, SockAddr]]):
    """The next client of a listener."""

    __slots__ = ("_sock",)

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def attempt(self) -> tuple[socket.socket, SockAddr]:
        return accept_now(self._sock)

    def operate(self, loop: Loop) -> Awaitable[tuple[socket.socket, SockAddr]]:
        return loop.sock_accept(self._sock)

    def conclude(self, result: tuple[socket.socket, SockAddr]) -> tuple[socket.socket, SockAddr]:
        return result

    def discard(self, result: tuple[socket.socket, SockAddr]) -> None:
        result[0].close()

    def abandon(self, operation: Operation) -> None:
        # An accept that is cancelled in the moment in which it succeeds drops the connection, and nobody closes it.
        # So it is brought to an end instead: by shutting the listener down, or, as a Unix one does not notice that,
        # by knocking at it. Cancelling is for where neither works.
        try:
            if self._sock.family == AF_UNIX:
                with socket.socket(AF_UNIX) as knock:
                    knock.setblocking(False)
                    knock.connect(self._sock.getsockname())
            else:
                self._sock.shutdown(socket.SHUT_RDWR)
        except BlockingIOError:
            return  # its queue is full, so it has somebody to accept
        except OSError:
            operation.cancel()


class ReceiveDatagram(Job[T]):
    """The next datagram, by ``_datagram.receive`` or its like."""

    __slots__ = ("_finish", "_receive", "_sock")

    def __init__(
        self,
        sock: socket.socket,
        receive: Callable[[socket.socket], T],
        finish: Callable[[bytes, SockAddr], T],
    ) -> None:
        self._sock = sock
        self._receive = receive
        self._finish = finish

    def attempt(self) -> T:
        return self._receive(self._sock)

    def operate(self, loop: Loop) -> Awaitable[tuple[bytes, SockAddr]]:
        return loop.sock_recvfrom(self._sock, _ANY_DATAGRAM)

    def conclude(self, result: tuple[bytes, SockAddr]) -> T:
        return self._finish(*result)


class SendDatagram(Job[int]):
    """One datagram on its way; ``target`` is None on a connected socket."""

    __slots__ = ("_data", "_sock", "_target")

    transferable = False

    def __init__(self, sock: socket.socket, data: bytes | memoryview, target: SockAddr | None) -> None:
        self._sock = sock
        self._data = data
        self._target = target

    def attempt(self) -> int:
        if self._target is None:
            return self._sock.send(self._data, NOW)
        return self._sock.sendto(self._data, NOW, self._target)

    def operate(self, loop: Loop) -> Awaitable[object]:
        piece = bytes(self._data)
        if self._target is None:
            return loop.sock_sendall(self._sock, piece)
        return loop.sock_sendto(self._sock, piece, self._target)

    def conclude(self, result: object) -> int:
        return len(self._data)


class Connect(Job[None]):
    """A connection attempt, begun by the first try."""

    __slots__ = ("_begun", "_sock", "_target")

    transferable = False

    def __init__(self, sock: socket.socket, target: SockAddr) -> None:
        self._sock = sock
        self._target = target
        self._begun = False

    def attempt(self) -> NotYet | None:
        if self._begun:
            error = connect_result(self._sock)
            if error is not None:
                raise error
            return None
        self._sock.setblocking(False)  # as in `accept_now`
        code = self._sock.connect_ex(self._target)
        if code in CONNECTING:
            self._begun = self._sock.family != AF_UNIX
            raise BlockingIOError(code, os.strerror(code))
        if code:
            raise OSError(code, os.strerror(code))
        return None

    def operate(self, loop: Loop) -> Awaitable[None]:
        return loop.sock_connect(self._sock, self._target)

    def conclude(self, result: None) -> None:
        return None
