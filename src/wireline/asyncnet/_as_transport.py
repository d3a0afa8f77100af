"""The transport of ``as_transport``: an ``asyncio.Transport`` over an ``AsyncSocket``. Loaded by its first call.

One task reads while the protocol wants data, and one task writes while there is something to send; both use nothing but
the public methods of the socket. What a protocol sees is asyncio's contract: the order of the callbacks, the flow
control, what is logged and what is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

from wireline._socket_view import SocketView
from wireline._validation import Buffer
from wireline.asyncnet._socket import AsyncSocket
from wireline.options import BUFFER_SIZE, SocketFlag

__all__ = ["SocketTransport", "make_streams", "make_transport"]

# A reset is an error, which the protocol gets in `connection_lost`.
_NO_FLAGS = SocketFlag(0)

# The size of one send of buffered bytes. The size of the write buffer is right to within one of these.
_CHUNK = BUFFER_SIZE

# asyncio's default limits of the write buffer.
_HIGH_WATER = 64 * 1024


def make_transport(sock: AsyncSocket, view: SocketView, protocol: asyncio.BaseProtocol) -> asyncio.Transport:
    """Return a transport on the running loop."""
    return SocketTransport(asyncio.get_running_loop(), sock, view, protocol)


def make_streams(
    sock: AsyncSocket, view: SocketView, limit: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a reader and a writer on the running loop."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit, loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport = SocketTransport(loop, sock, view, protocol)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


class SocketTransport(asyncio.Transport):
    """A transport that owns an ``AsyncSocket``.

    Theory of operation. A task exists only while there is something for it to do: one that reads ends when reading is
    paused or the stream has ended, one that writes when nothing is left. So a transport that is paused and dropped is
    garbage. ``_closing`` stops reading and delivering, at once. ``_lost`` stops writing; it is set when nothing is left
    to write, or by ``_force_close``, and then ``connection_lost`` is the only call that the protocol still gets.
    """

    # What the loop's `start_tls` asks for: `SSLProtocol` needs no more than the methods below.
    _start_tls_compatible = True

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: AsyncSocket,
        view: SocketView,
        protocol: asyncio.BaseProtocol,
    ) -> None:
        super().__init__(_extra_info(sock, view))
        self._loop = loop
        self._sock = sock
        self._reading: asyncio.Task[None] | None = None
        self._writing: asyncio.Task[None] | None = None
        self._paused = False
        self._unread = b""  # received, and not delivered because reading was paused
        self._unsent = bytearray()
        self._flow = _WriteFlow(self._report)
        self._end_received = False
        self._eof = False
        self._closing = False
        self._lost = False  # `connection_lost` is scheduled
        self._cut = False  # bytes were dropped that the protocol has written
        self.set_protocol(protocol)
        loop.call_soon(protocol.connection_made, self)
        loop.call_soon(self._start_reading)

    def __repr__(self) -> str:
        state = "closed" if self._sock.is_closed else "closing" if self._closing else "open"
        return f"<wireline.asyncnet transport {state}, {len(self._unsent)} bytes unsent, over {self._sock!r}>"

    def __del__(self) -> None:
        sock = getattr(self, "_sock", None)
        if sock is not None and not sock.is_closed:
            warnings.warn(f"unclosed transport {self!r}", ResourceWarning, source=self, stacklevel=2)
            sock.close()

    # The protocol.

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Deliver to another protocol from now on."""
        self._protocol: asyncio.BaseProtocol | None = protocol
        self._flow.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        return self._protocol  # type: ignore[return-value] # None after `connection_lost`, as in asyncio

    # Reading.

    def is_reading(self) -> bool:
        """Whether data is delivered."""
        return not self._paused and not self._closing

    def pause_reading(self) -> None:
        """Deliver nothing until ``resume_reading``. At most one piece is received meanwhile."""
        if not self._closing:
            self._paused = True

    def resume_reading(self) -> None:
        """Deliver data again."""
        if self._paused and not self._closing:
            self._paused = False
            self._start_reading()

    def _start_reading(self) -> None:
        if self._reading is None and self.is_reading() and not self._end_received:
            self._reading = self._spawn(self._read(), "read")

    def _spawn(self, coroutine: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
        # Not `create_task`: with an eager task factory it would run before the attribute is set.
        return asyncio.Task(coroutine, loop=self._loop, name=f"wireline-transport-{what}")

    async def _read(self) -> None:
        """Receive and deliver until reading is paused, or the stream ends."""
        try:
            while self.is_reading():
                if not self._unread:
                    self._unread = await self._sock.recv_some(BUFFER_SIZE, None, _NO_FLAGS)
                    if not self._unread and self.is_reading():  # else the next read gives the end again
                        self._deliver_end()
                        return
                elif not self._deliver():
                    return
        except asyncio.CancelledError:
            if not self._closing:  # not by `_stop`, but with all tasks of the loop
                self._force_close(None)
            raise
        except Exception as error:  # noqa: BLE001 -- the protocol gets it
            self._fatal_error(error, "a read of a socket transport failed")
        finally:
            self._reading = None

    def _deliver(self) -> bool:
        """Give the protocol what was received; return whether it has raised nothing."""
        data, self._unread = self._unread, b""
        protocol = self._protocol
        try:
            if not isinstance(protocol, asyncio.BufferedProtocol):
                protocol.data_received(data)  # type: ignore[union-attr] # a duck passes, as in asyncio
                return True
            buffer = memoryview(protocol.get_buffer(len(data))).cast("B")
            if not buffer:
                raise RuntimeError("get_buffer() returned an empty buffer")
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            self._unread = data[size:]
            protocol.buffer_updated(size)
        except Exception as error:  # noqa: BLE001 -- any mistake of the protocol ends its connection only
            self._fatal_error(error, "a protocol failed to take received data")
            return False
        return True

    def _deliver_end(self) -> None:
        """Tell the protocol that the stream has ended; unless it wants to go on writing, close."""
        self._end_received = True
        try:
            keep_open = self._protocol.eof_received()  # type: ignore[union-attr]
        except Exception as error:  # noqa: BLE001 -- as above
            self._fatal_error(error, "protocol.eof_received() failed")
            return
        if not keep_open:
            self.close()

    # Writing.

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set when ``pause_writing`` and ``resume_writing`` are called, in bytes."""
        self._flow.set_limits(high, low)
        self._flow.update(len(self._unsent))

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the limits: low and high."""
        return self._flow.low, self._flow.high

    def get_write_buffer_size(self) -> int:
        """Return the number of bytes that wait to be sent."""
        return len(self._unsent)

    def write(self, data: Buffer) -> None:
        """Send ``data``; what the system does not take at once is kept and sent later."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data must be bytes, bytearray or memoryview, not {type(data).__name__}")
        if self._eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if not data or self._lost:
            return
        sent = 0
        if self._writing is None:
            if self._sock.try_send(data):
                return
            # The task sends the rest, finishes a TLS record, and meets the error if there was one.
            sent = self._sock.last_bytes_sent
        self._unsent += memoryview(data).cast("B")[sent:]
        self._start_writing()
        self._flow.update(len(self._unsent))

    def writelines(self, list_of_data: Any) -> None:
        """Send several buffers like one."""
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """Whether ``write_eof`` works: not over TLS, where most peers take it for the end of both directions."""
        return not self._sock.is_ssl

    def write_eof(self) -> None:
        """Send the end of the stream, after all that was written."""
        if not self.can_write_eof():
            raise NotImplementedError("write_eof: not over TLS, where most peers would stop sending too")
        if not self._closing and not self._eof:
            self._eof = True
            self._start_writing()

    def _start_writing(self) -> None:
        if self._writing is None:
            self._writing = self._spawn(self._write(), "write")

    async def _write(self) -> None:
        """Send until nothing is left."""
        try:
            while not self._lost:
                with memoryview(self._unsent) as view:
                    chunk = bytes(view[:_CHUNK])
                await self._sock.send(chunk, _NO_FLAGS)  # also with no byte: it completes a TLS record
                del self._unsent[: len(chunk)]
                self._flow.update(len(self._unsent))
                if not self._unsent:
                    break
            if self._eof and not self._lost:
                await self._sock.shutdown_write()
        except asyncio.CancelledError:
            if not self._lost:  # as in `_read`
                self._force_close(None)
            raise
        except Exception as error:  # noqa: BLE001 -- the protocol gets it
            self._fatal_error(error, "a write of a socket transport failed")
        finally:
            self._writing = None
        if self._closing and not self._unsent:
            self._lose(None)

    # The end.

    def is_closing(self) -> bool:
        """Whether the transport is closing or closed."""
        return self._closing

    def close(self) -> None:
        """Deliver nothing any more, send what was written, and close."""
        if self._closing:
            return
        self._closing = True
        self._stop(self._reading)
        if self._writing is None:
            self._lose(None)

    def abort(self) -> None:
        """Close at once. If written bytes are dropped, the peer gets a reset: it must not take the cut for the end."""
        self._force_close(None)

    def _fatal_error(self, error: BaseException, message: str) -> None:
        """Close because of an error. Those of the network are the protocol's business, any other one is logged."""
        if not isinstance(error, OSError):
            self._report(error, message)
        self._force_close(error)

    def _report(self, error: BaseException, message: str) -> None:
        context = {"message": message, "exception": error, "transport": self, "protocol": self._protocol}
        self._loop.call_exception_handler(context)

    def _force_close(self, error: BaseException | None) -> None:
        """Close at once. ``SSLProtocol`` calls it by this name."""
        if self._lost:
            return
        # Over TLS a record may be sent in part, when nothing else is left.
        self._cut = bool(self._unsent) or (self._writing is not None and self._sock.is_ssl)
        self._closing = True
        self._stop(self._reading)
        self._lose(error)
        self._stop(self._writing)
        self._unsent.clear()

    def _stop(self, task: asyncio.Task[None] | None) -> None:
        """Cancel a task, unless it is the one that runs: that looks by itself."""
        if task is not None and task is not asyncio.current_task(self._loop):
            task.cancel()

    def _lose(self, error: BaseException | None) -> None:
        """Schedule ``connection_lost``, once."""
        if not self._lost:
            self._lost = True
            self._loop.call_soon(self._connection_lost, error)

    def _connection_lost(self, error: BaseException | None) -> None:
        try:
            self._protocol.connection_lost(error)  # type: ignore[union-attr,arg-type]
        finally:
            self._sock.close(linger=0 if self._cut else None)
            self._protocol = self._flow.protocol = None
            self._unread = b""


class _WriteFlow:
    """Call ``pause_writing`` and ``resume_writing`` as the size of the write buffer changes."""

    def __init__(self, report: Callable[[BaseException, str], None]) -> None:
        self.protocol: asyncio.BaseProtocol | None = None
        self._report = report
        self._paused = False
        self.low, self.high = _HIGH_WATER // 4, _HIGH_WATER

    def set_limits(self, high: int | None, low: int | None) -> None:
        if high is None:
            high = _HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self.low, self.high = low, high

    def update(self, size: int) -> None:
        """Tell the protocol if the buffer has become too large, or small enough again."""
        pause = size > self.high if not self._paused else size > self.low
        if pause is self._paused or self.protocol is None:
            return
        self._paused = pause
        name = "pause_writing" if pause else "resume_writing"
        try:
            getattr(self.protocol, name)()
        except Exception as error:  # noqa: BLE001 -- it must not lose what is being written
            self._report(error, f"protocol.{name}() failed")


def _extra_info(sock: AsyncSocket, view: SocketView) -> dict[str, object]:
    """Return what ``get_extra_info`` knows, under asyncio's names."""
    extra: dict[str, object] = {"socket": view, "sockname": view.getsockname(), "peername": None}
    with contextlib.suppress(OSError):  # the peer may be gone already
        extra["peername"] = view.getpeername()
    if sock.is_ssl:
        tls = sock.ssl_handle
        extra |= {
            "sslcontext": tls.context,
            "ssl_object": tls,
            "peercert": tls.getpeercert(),
            "cipher": tls.cipher(),
            "compression": tls.compression(),
        }
    return extra
