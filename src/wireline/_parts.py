"""The parts of every socket, which each flavour makes: a ``Descriptor``, a ``Stream``, and ``Datagrams`` for some.

The protocols name the methods that code of both flavours calls. In a call of a ``Stream``, ``owner`` is the socket.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Protocol

from wireline._core.buffer import ReceiveBuffer
from wireline._core.stream import Sender, StreamCore
from wireline._os.descriptor import State
from wireline._os.inbox import Inbox
from wireline._os.passed_fds import PassedFds
from wireline.options import SocketFlag

__all__ = ["Datagrams", "Descriptor", "Stream"]


class Descriptor(Protocol):
    """The descriptor of a socket, and the calls that use it: a ``FdGuard`` or a ``FdOnLoop``.

    Attributes:
        sock: the descriptor's owner object; ``replace`` sets another one.
        state: what the descriptor is: connected, listening, or neither.
        opened_at: when it was connected (``time.monotonic()``); None if it is not.
        epoch: the process that owns it; any other process may only close its copy of the descriptor.
        disposed: a ``close`` is complete; one that an exception interrupted must be repeated.
        passed: the descriptors that a Unix socket has received; None where none can arrive, or none have.
    """

    sock: socket.socket
    state: State
    opened_at: float | None
    epoch: object
    passed: PassedFds | None

    @property
    def disposed(self) -> bool: ...

    @property
    def is_foreign(self) -> bool:
        """Whether another process owns it: this process is its child, and has not used the socket."""
        ...

    def is_in_use(self) -> bool:
        """Whether a call in this process, which does not own the socket, is using it."""
        ...

    def replace(self, sock: socket.socket) -> None:
        """Go on with another descriptor, and close the old one."""

    def abandon(self) -> None:
        """Close the descriptor only, in a process that does not own the socket.

        No ``shutdown``, no byte, no ``epoll_ctl``: each would act on the connection of the owner.
        """

    def begin_close(self, dispose: Callable[[], None]) -> None:
        """Wake the waiting calls, and close the descriptor by ``dispose`` when no call uses it any more."""


class Datagrams(Protocol):
    """The datagrams of a socket: the ``DatagramIO`` of its flavour.

    Attributes:
        inbox: receives, and keeps what the system has given and no caller has.
        sent: bytes of payload, since the beginning.
    """

    @property
    def inbox(self) -> Inbox: ...
    @property
    def sent(self) -> int: ...


class Stream(Protocol):
    """The connected stream of a socket: the ``StreamIO`` of its flavour.

    Attributes:
        fd: the descriptor.
        core: the core; None while the socket is not connected.
        default_flags: of the calls that are given none.
        buffer: the core's buffer; an empty one before there is a core, and after ``close``.
        payload_sent: bytes that sending calls have sent, since the beginning.
        relayed: a relay holds the stream: its unread bytes wait for the other side.
        sender: sends plaintext.
        write_shut: ``shutdown_write`` was called.
        kernel_waits: the descriptor blocks, so that one system call may wait in the kernel.
        shared: one thread may read while another writes.
        write_in_flight: an operation of the loop, started for a send that was given up, is still running.
    """

    core: StreamCore | None
    default_flags: SocketFlag
    buffer: ReceiveBuffer
    payload_sent: int
    relayed: bool
    sender: Sender
    write_shut: bool

    @property
    def fd(self) -> Descriptor: ...
    @property
    def kernel_waits(self) -> bool: ...
    @property
    def shared(self) -> bool: ...
    @property
    def write_in_flight(self) -> bool: ...

    def open(self, owner: Any, core: StreamCore) -> None:
        """Read and send a connected stream by ``core``; until ``publish`` only the connecting call uses it."""

    def use_core(self, owner: Any, core: StreamCore) -> None:
        """Read and send by this core from now on, with the stream held."""

    def hold(self, owner: Any, operation: str) -> object:
        """Reserve reading and sending for the caller, until ``publish``.

        Returns:
            The reservation, which ends when the last reference to it is deleted.
        """
        ...

    def publish(self, owner: Any) -> None:
        """Allow every call to read and send."""

    def unconnected(self) -> None:
        """Drop the core: the connection failed."""

    def receive_now(self, owner: Any, operation: str) -> bool:
        """Receive once without waiting, after a request of the core has set how much; False if nothing has arrived.

        For the call that reserved the stream. The end and errors of the connection are kept in the core.
        """
        ...

    def flush_now(self, core: StreamCore) -> bool:
        """Send pending ciphertext as far as the send buffer has space; return whether all was sent.

        For the call that holds the write lock.
        """
        ...

    def is_reading(self) -> bool:
        """Whether a call reads."""
        ...

    def is_writing(self) -> bool:
        """Whether a call writes."""
        ...

    def show_progress(self) -> None:
        """Count the bytes of an incomplete block while a read waits for the rest."""

    def send_output(self, owner: Any) -> None:
        """Send the output that a read has produced, unless another call is sending, which then sends it."""

    def inherit(self) -> None:
        """Make this process the owner, and drop the state of the parent process."""

    def close(self) -> None:
        """Drop what was split ahead, and let no call read or send any more."""

    def dispose(self, linger: float | None) -> None:
        """Close the descriptor, when no call uses it any more."""

    def detach(self) -> None:
        """Refuse if a call uses the socket; after this none can begin. The descriptor stays open."""
