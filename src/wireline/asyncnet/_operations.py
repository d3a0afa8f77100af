"""The operations: to receive, to send, to become writable, to accept, to connect."""

from __future__ import annotations

import os
import socket
import weakref
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

from wireline._core.stream import StreamCore
from wireline._os import descriptor
from wireline._os.descriptor import (
    CONNECTING,
    Unclaimed,
    close_unclaimed,
    connect_result,
    is_readable,
    is_writable,
)
from wireline._os.inbox import ANY_DATAGRAM, Inbox
from wireline._os.passed_fds import Ancillary, send_first
from wireline._socket_base import BaseSocket, annotated
from wireline._stream_common import NOW
from wireline.asyncnet._port import Completion, Completions
from wireline.asyncnet._queue import NOT_YET, LoopOperation, NotYet, Operation, OperationQueue
from wireline.errors import SockAddr
from wireline.options import AF_UNIX, DONT_WAIT

__all__ = [
    "Accept",
    "Connect",
    "Read",
    "Readable",
    "ReceiveDatagrams",
    "Send",
    "SendDatagram",
    "SendFds",
    "WeakAnnotator",
    "Writable",
    "accept_now",
]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

"""Flags of a send that does not block: a duplicate of the descriptor may have been made blocking (W10)."""

# Bytes that an operation of the loop sends at once. It is never cancelled, so its bytes count as sent: a piece that is
# small beside any message for which it matters, and large beside the cost of an operation. A guess.
_PORTABLE_PIECE = 64 * 1024


class WeakAnnotator(weakref.ref[BaseSocket]):
    """The socket that an operation reads for, to be named in its errors.

    The reference is weak: the loop holds the operation, and must not keep a socket alive that the program has dropped.
    """

    __slots__ = ()

    def annotate(self, error: OSError, operation: str) -> OSError:
        """Add to an error which socket it happened to, as long as there is the socket."""
        sock = self()
        return error if sock is None else annotated(error, operation, sock)


class Read(LoopOperation[T]):
    """The result of a request of the core, on a loop without readiness (elsewhere: ``ReadWaiter``)."""

    __slots__ = ("_annotator", "_args", "_core", "_request", "_sock")

    def __init__(
        self,
        sock: socket.socket,
        core: StreamCore,
        annotator: WeakAnnotator,
        request: Callable[[StreamCore, *Ts], T | None],
        args: tuple[*Ts],
    ) -> None:
        self._sock = sock
        self._core = core
        self._annotator = annotator
        self._request: Callable[..., T | None] = request
        self._args = args

    def try_once(self) -> T | NotYet:
        return self.complete(self._sock.recv(self._core.recv_size, DONT_WAIT))

    def start(self, completions: Completions) -> Completion:
        return completions.recv(self._sock, self._core.recv_size)

    def complete(self, result: bytes) -> T | NotYet:
        self._core.feed(result)
        return self._result()

    def on_error(self, error: OSError) -> T | NotYet:
        self._core.fail(self._annotator.annotate(error, self._request.__name__))
        return self._result()

    def _result(self) -> T | NotYet:
        result = self._request(self._core, *self._args)
        return NOT_YET if result is None else result


class Send(LoopOperation[int]):
    """Send all of some bytes, or with ``once`` at least one of them.

    Attributes:
        sent: bytes that were sent so far.
    """

    __slots__ = ("_data", "_once", "_piece", "_sock", "_source", "sent")

    result_reusable = False
    committed_on_start = True

    def __init__(
        self, sock: socket.socket, data: bytes | memoryview, sent: int, *, once: bool = False
    ) -> None:
        self._sock = sock
        self._source = data
        self._data = memoryview(data)
        self._once = once
        self._piece = 0
        self.sent = sent

    def try_once(self) -> int | NotYet:
        return self._done(self._sock.send(self._data[self.sent :], NOW))

    def start(self, completions: Completions) -> Completion:
        # A copy: the operation goes on when the caller was cancelled, and the buffer is the caller's again then (W4).
        piece = bytes(self._data[self.sent : self.sent + _PORTABLE_PIECE])
        self._piece = len(piece)
        self.sent += self._piece
        return completions.send_all(self._sock, piece)

    def complete(self, result: None) -> int | NotYet:
        return self._done(0)

    def on_error(self, error: OSError) -> int | NotYet:
        self.sent -= self._piece
        raise error

    def release(self) -> None:
        """Release the caller's buffer (W4): the traceback of an exception may refer to this object."""
        self._data.release()
        if isinstance(self._source, memoryview):
            self._source.release()

    def _done(self, more: int) -> int | NotYet:
        self.sent += more
        return self.sent if self._once or self.sent == len(self._data) else NOT_YET


class Readable(Operation[bool]):
    """Wait until there is something to receive or to accept."""

    __slots__ = ("_queue", "_sock")

    def __init__(self, sock: socket.socket, queue: OperationQueue) -> None:
        self._sock = sock
        self._queue = queue

    def try_once(self) -> bool:
        if not (self._queue.has_orphan or is_readable(self._sock)):
            raise BlockingIOError
        return True


class Writable(Operation[bool]):
    """Wait until something can be sent."""

    __slots__ = ("_sock",)

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def try_once(self) -> bool:
        if not is_writable(self._sock):
            raise BlockingIOError
        return True


def accept_now(listener: socket.socket) -> tuple[socket.socket, SockAddr]:
    """Accept a client that has connected already.

    Raises:
        BlockingIOError: none has.
    """
    # accept4(2) has no flag for one call, and `poll` first does not help where processes share a listener: another one
    # may take the client in between. One cheap system call beside an expensive one.
    listener.setblocking(False)
    unclaimed: Unclaimed = []
    try:
        return descriptor.accept_now(listener, unclaimed)
    except BaseException:
        close_unclaimed(unclaimed)
        raise


class Accept(LoopOperation[tuple[socket.socket, SockAddr]]):
    """Accept the next client of a listener."""

    __slots__ = ("_is_ours", "_sock")

    def __init__(self, sock: socket.socket, *, is_ours: bool) -> None:
        """Prepare.

        Args:
            sock: the listener.
            is_ours: this program has bound it. Another process may accept from any other, and must not notice the end.
        """
        self._sock = sock
        self._is_ours = is_ours

    def try_once(self) -> tuple[socket.socket, SockAddr]:
        return accept_now(self._sock)

    def start(self, completions: Completions) -> Completion:
        return completions.accept(self._sock)

    def complete(self, result: tuple[socket.socket, SockAddr]) -> tuple[socket.socket, SockAddr]:
        return result

    def dispose(self, result: tuple[socket.socket, SockAddr]) -> None:
        result[0].close()

    def cancel(self, completion: Completion) -> None:
        # If an accept is cancelled in the moment in which it succeeds, the loop drops the connection without closing
        # it. So we let it finish: shutting the listener down ends it; a Unix listener does not notice that, so we
        # connect to it. Cancelling is for where neither works.
        if not self._is_ours:
            completion.cancel()
            return
        try:
            if self._sock.family == AF_UNIX:
                with socket.socket(AF_UNIX) as client:
                    client.setblocking(False)
                    client.connect(self._sock.getsockname())
            else:
                self._sock.shutdown(socket.SHUT_RDWR)
        except BlockingIOError:
            return  # its queue is full, so it has a client to accept
        except OSError:
            completion.cancel()


class ReceiveDatagrams(LoopOperation[T]):
    """Receive the next datagram, or all that are there, by a method of an ``Inbox``."""

    __slots__ = ("_inbox", "_sock", "_take")

    def __init__(self, sock: socket.socket, inbox: Inbox, take: Callable[[], T]) -> None:
        self._sock = sock
        self._inbox = inbox
        self._take = take

    def try_once(self) -> T:
        return self._take()

    def start(self, completions: Completions) -> Completion:
        return completions.recv_from(self._sock, ANY_DATAGRAM)

    def complete(self, result: tuple[bytes, SockAddr]) -> T:
        self._inbox.put(result, ANY_DATAGRAM)
        return self._take()


class SendDatagram(LoopOperation[int]):
    """Send one datagram; ``target`` is None on a connected socket."""

    __slots__ = ("_data", "_sock", "_target")

    result_reusable = False

    def __init__(self, sock: socket.socket, data: bytes | memoryview, target: SockAddr | None) -> None:
        self._sock = sock
        self._data = data
        self._target = target

    def try_once(self) -> int:
        if self._target is None:
            return self._sock.send(self._data, NOW)
        return self._sock.sendto(self._data, NOW, self._target)

    def start(self, completions: Completions) -> Completion:
        piece = bytes(self._data)
        if self._target is None:
            return completions.send_all(self._sock, piece)
        return completions.send_to(self._sock, piece, self._target)

    def complete(self, result: object) -> int:
        return len(self._data)


class SendFds(Operation[int]):
    """Send the first bytes of a message, or a datagram, with descriptors.

    Attributes:
        sent: bytes that were sent; once there are any, the descriptors were sent too.
    """

    __slots__ = ("_ancillary", "_data", "_sock", "sent")

    def __init__(self, sock: socket.socket, data: bytes | memoryview, ancillary: Ancillary) -> None:
        self._sock = sock
        self._data = data
        self._ancillary = ancillary
        self.sent = 0

    def try_once(self) -> int:
        sending = send_first(self._sock, self._data, self._ancillary, NOW)
        for self.sent in sending:
            break
        return self.sent


class Connect(LoopOperation[None]):
    """Connect; the first try begins it."""

    __slots__ = ("_begun", "_sock", "_target")

    result_reusable = False

    def __init__(self, sock: socket.socket, target: SockAddr) -> None:
        self._sock = sock
        self._target = target
        self._begun = False

    def try_once(self) -> NotYet | None:
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

    def start(self, completions: Completions) -> Completion:
        return completions.connect(self._sock, self._target)

    def complete(self, result: None) -> None:
        return None
