"""The part of ``StreamIO`` that both flavours share: sending without waiting, and the errors of a send."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, cast

from wireline._core.stream import StreamCore
from wireline._os.descriptor import is_writable
from wireline._os.passed_fds import PassedFds, Receiver, can_pass_fds
from wireline._parts import Descriptor, Stream
from wireline._socket_base import BaseSocket, annotated, raise_if_closed
from wireline.errors import copy_for_reraise
from wireline.options import DONT_WAIT, NO_SIGNAL, SocketFlag, effective_flags, is_disconnection_error

if TYPE_CHECKING:
    from wireline._core.tls import TlsCore

__all__ = ["NOW", "notify_output", "receiver_of", "send_available", "send_some_now", "should_raise"]

NOW = DONT_WAIT | NO_SIGNAL
"""The flags of a send that does not wait."""


def notify_output(core: StreamCore, owner: BaseSocket) -> None:
    """Let a TLS core send the output that a read makes, as long as the socket is alive."""
    if core.is_tls:
        socket_of_core = weakref.ref(owner)  # the core must not keep the socket alive
        cast("TlsCore", core).on_output = lambda: _send_output(socket_of_core())


def _send_output(owner: BaseSocket | None) -> None:
    if owner is not None:
        owner._io.send_output(owner)


def receiver_of(fd: Descriptor, *, is_tls: bool) -> Receiver:
    """Return what receives the bytes of a connected stream; close the descriptors that an earlier one has kept.

    It is chosen once for a connection, so that the reads of others do not pay for descriptors that cannot arrive.
    """
    if fd.passed is not None:
        fd.passed.close()
    fd.passed = PassedFds(fd.sock) if not is_tls and can_pass_fds(fd.sock) else None
    return fd.sock if fd.passed is None else fd.passed


def send_available(io: Stream, core: StreamCore, payload: bytes | memoryview) -> int:
    """Send as much as the send buffer has space for; return how many bytes count as sent. It raises no OSError.

    These are the bytes that the system has taken, and over TLS also the rest of the last chunk (up to 64 KiB), if the
    system has taken only a part of it or had no space for it. This rest is ``core.unsent``; the next sending call, even
    with ``b""``, or ``close`` sends it. A chunk that the system refused with an error does not count.

    Args:
        io: of the stream, of which the caller holds the write lock.
        core: its core.
        payload: the bytes.
    """
    sent = 0
    try:
        if io.flush_now(core):
            # An operation of the event loop may be sending.
            while sent < len(payload) and not core.unsent and not io.write_in_flight:
                sent += io.sender.send(memoryview(payload)[sent:] if sent else payload, NOW)
    except OSError as error:
        _note_reset(core, error)
    if sent == len(payload):
        core.message_incomplete = False
    io.payload_sent += sent
    return sent


def send_some_now(io: Stream, owner: BaseSocket, payload: bytes | memoryview) -> int:
    """Make one attempt to send; return how many bytes count as sent. ``last_bytes_sent`` is set as soon as it is known.

    Args:
        io: of the stream, of which the caller holds the write lock.
        owner: the socket, which is connected.
        payload: the bytes.

    Raises:
        OSError: of the system, or ``ssl.SSLError``.
    """
    # No variable holds the core: the traceback of an error would keep it, and it would look like a reader's.
    assert io.core is not None
    owner.last_bytes_sent = sent = 0  # a thread that sent meanwhile may have set it
    try:
        # Over TLS the bytes count when they are encrypted: only if the system takes some of them.
        if not io.flush_now(io.core) or not payload or (io.core.seals and not is_writable(io.fd.sock)):
            return 0
        try:
            owner.last_bytes_sent = sent = io.sender.send(payload, NOW)
        except BlockingIOError:
            return 0
        io.payload_sent += sent
        io.flush_now(io.core)  # a whole record, as far as possible: the next send takes the rest along
    except OSError as error:
        should_raise(io, owner, error, SocketFlag.NONE, "try_send_some")
        raise
    io.core.message_incomplete = False
    return sent


def should_raise(io: Stream, owner: BaseSocket, error: OSError, flags: SocketFlag, operation: str) -> bool:
    """Whether the error of a send must be raised: not a disconnection with ``SAFE_DISCONN`` (W2)."""
    raise_if_closed(owner, operation)
    _note_reset(io.core, error)
    if is_disconnection_error(effective_flags(flags, io.default_flags), error) and not io.write_shut:
        return False
    annotated(error, operation, owner)
    return True


def _note_reset(core: StreamCore | None, error: OSError) -> None:
    """Keep the reset that a send has reported, so that the reads report it too (R12)."""
    if isinstance(error, ConnectionResetError) and core is not None:
        # A copy: the frames of the one that is raised would keep the socket alive.
        core.pending_reset = copy_for_reraise(error)
