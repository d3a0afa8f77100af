"""The work of ``load.c`` in Python, for machines without a C compiler: slower, and just as strict.

python -m benchmarks._load_many ROLE CONNECTIONS OUTSTANDING SIZE MESSAGES WARM_UP PORT [tls]
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import selectors
import socket
import ssl
import sys
import time
from collections.abc import Callable

from benchmarks._load import client_context
from benchmarks._trial import WrongBytesError, cpu_seconds
from benchmarks.servers.control import GREETING

_CHUNK = 256 * 1024
_OPENING = 64
"""Connections that are opened at once."""
_PATTERN = 128 * 1024
"""Bytes of messages that differ, or five of them if they are large."""
_PATIENCE = 10.0
"""Seconds in which data must arrive."""


class Connection:
    """One connection, and how much of its bytes it may send, has sent and got back."""

    def __init__(self, number: int, port: int) -> None:
        """Open it."""
        self.number = number
        self.granted = self.sent = self.received = 0
        self.waits_to_send = False
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)

    def send(self, data: memoryview) -> int:
        """Send some of it; nothing if there is no room."""
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0

    @property
    def must_receive(self) -> bool:
        """Whether data must arrive before any can be sent."""
        return False

    @property
    def was_resumed(self) -> bool:
        """Whether it resumed an earlier session."""
        return False

    def end(self) -> None:
        """Say that no more will be sent."""
        self.sock.shutdown(socket.SHUT_WR)

    def receive(self) -> bytes | None:
        """The received bytes, empty at the end; None if none have arrived yet."""
        try:
            return self.sock.recv(_CHUNK)
        except BlockingIOError:
            return None

    def compare(self, came: bytes, expected: bytes | memoryview) -> None:
        """Count received bytes.

        Raises:
            WrongBytesError: they differ from the expected ones.
        """
        if came != expected:
            pairs = zip(came, expected, strict=True)
            same = next(place for place, (one, other) in enumerate(pairs) if one != other)
            raise WrongBytesError(f"connection {self.number} is wrong from byte {self.received + same} on")
        self.received += len(came)


class SecureConnection(Connection):
    """One connection with TLS 1.3."""

    context = client_context()
    session: ssl.SSLSession | None = None
    """The last that a server gave."""

    def __init__(self, number: int, port: int, *, resuming: bool) -> None:
        """Open it, and begin the handshake.

        Args:
            number: as above.
            port: as above.
            resuming: whether to go on with the last session.
        """
        super().__init__(number, port)
        session = SecureConnection.session if resuming else None
        self.secured = self.context.wrap_socket(
            self.sock, do_handshake_on_connect=False, suppress_ragged_eofs=False, session=session
        )
        self.sock = self.secured
        self.established = False
        self._shake_hands()

    def _shake_hands(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            self.secured.do_handshake()
            self.established = True

    def receive(self) -> bytes | None:
        if not self.established:
            self._shake_hands()
        if not self.established:
            return None
        try:
            data = self.secured.recv(_CHUNK)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLZeroReturnError:
            return b""
        if self.secured.session is not None and self.secured.session.has_ticket:
            SecureConnection.session = self.secured.session
        return data

    def send(self, data: memoryview) -> int:
        if not self.established:
            return 0
        try:
            return self.secured.send(data)
        except ssl.SSLWantWriteError:
            return 0

    @property
    def must_receive(self) -> bool:
        return not self.established

    @property
    def was_resumed(self) -> bool:
        return bool(self.secured.session_reused)

    def end(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):  # the peer's close_notify arrives later
            self.secured.unwrap()


class Load:
    """All connections, and the remaining work of a step."""

    def __init__(self, at_a_time: int, outstanding: int, size: int, port: int, *, tls: bool = False) -> None:
        """Prepare, without a connection.

        Args:
            at_a_time: how many connections there are, or are being opened.
            outstanding: messages in flight on each.
            size: bytes of a message.
            port: where the server listens.
            tls: whether to speak TLS.
        """
        count = max(5, _PATTERN // size | 1)  # odd: the period fits no buffer
        source = random.Random(7)
        texts = (f"{number} {source.randbytes(size).hex()}"[: size - 1] + "\n" for number in range(count))
        self._pattern = memoryview("".join(texts).encode() * 2)
        self._period = count * size
        self._at_a_time, self._outstanding, self._size, self._port = at_a_time, outstanding, size, port
        self._selector = selectors.DefaultSelector()
        self._opened: list[Connection] = []
        self._left = self._done = self._checked = 0
        self._tls = tls
        self._resuming = self._warm = False

    def step(self, role: str, quota: int) -> None:
        """Do a role until it is done ``quota`` times, and say so."""
        serve: Callable[[Connection], None] = getattr(self, f"_serve_{role}")
        began, busy = time.perf_counter(), sum(cpu_seconds())
        self._left, self._done = quota, 0
        if quota:
            getattr(self, f"_begin_{role}")()
        while self._done < quota:
            ready = self._selector.select(_PATIENCE)
            if not ready:
                raise WrongBytesError(f"{self._done} of {quota} came, and then nothing for {_PATIENCE:g} s")
            for key, _ in ready:
                serve(key.data)
        seconds, busy = time.perf_counter() - began, sum(cpu_seconds()) - busy
        self._checked += self._done if role != "end" else 0
        self._warm = True
        print(json.dumps({"seconds": seconds, "busy": busy, "checked": self._checked}), flush=True)

    def end(self) -> None:
        """The last step: end all connections."""
        self.step("end", len(self._opened))

    def _open(self, number: int) -> Connection:
        connection = (
            SecureConnection(number, self._port, resuming=self._resuming)
            if self._tls
            else Connection(number, self._port)
        )
        self._selector.register(connection.sock, selectors.EVENT_READ, connection)
        return connection

    def _close(self, connection: Connection) -> None:
        self._selector.unregister(connection.sock)
        connection.sock.close()
        self._done += 1

    def _expected(self, connection: Connection, place: int, length: int) -> memoryview:
        """Up to ``length`` of the bytes that a connection carries, from a place in them on."""
        start = (connection.number * 31 * self._size + place) % self._period
        return self._pattern[start : start + min(length, self._period)]

    def _grant(self, connection: Connection, in_flight: int) -> None:
        """Let a connection send as many messages as it may have in flight."""
        size = self._size
        while self._left and connection.granted - connection.received // size * size < in_flight * size:
            connection.granted += size
            self._left -= 1
        while (missing := connection.granted - connection.sent) > 0:
            sent = connection.send(self._expected(connection, connection.sent, missing))
            if not sent:
                break
            connection.sent += sent
        waits_to_send = connection.sent < connection.granted and not connection.must_receive
        if connection.waits_to_send != waits_to_send:
            connection.waits_to_send = waits_to_send
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.waits_to_send else 0)
            self._selector.modify(connection.sock, events, connection)

    def _take(self, connection: Connection) -> None:
        came = connection.receive()
        if came is None:
            return
        who, sent, received = f"connection {connection.number}", connection.sent, connection.received
        if not came:
            raise WrongBytesError(f"{who} was closed after {received} bytes, {sent} were sent")
        if len(came) > sent - received:
            raise WrongBytesError(f"{who} brought more bytes than were sent")
        while came:
            expected = self._expected(connection, connection.received, len(came))
            connection.compare(came[: len(expected)], expected)
            came = came[len(expected) :]
        self._done += connection.received // self._size - received // self._size

    # The roles: how they begin, and how they handle received data.

    def _begin_echo(self) -> None:
        for _ in range(min(self._at_a_time, _OPENING) - len(self._opened)):
            self._open_idle()
        if len(self._opened) == self._at_a_time:
            for connection in self._opened:
                self._grant(connection, self._outstanding)

    def _serve_echo(self, connection: Connection) -> None:
        """While there are connections to open, each has one message, and then the next is opened.

        A server with more of them to accept than its backlog holds would let them wait for a second.
        """
        is_first = connection.received < self._size
        self._take(connection)
        opening = len(self._opened) < self._at_a_time
        if opening and is_first and connection.received >= self._size:
            self._open_idle()
        self._grant(connection, 0 if opening else self._outstanding)

    def _begin_idle(self) -> None:
        for _ in range(min(self._at_a_time, self._left)):
            self._open_idle()

    def _open_idle(self) -> None:
        self._opened.append(self._open(len(self._opened)))
        self._grant(self._opened[-1], 1)

    def _serve_idle(self, connection: Connection) -> None:
        self._take(connection)
        self._grant(connection, 0)
        if connection.received == self._size and self._left:
            self._open_idle()

    def _begin_connect(self) -> None:
        for number in range(min(self._at_a_time, self._left)):
            self._left -= 1
            self._open(number)

    def _serve_connect(self, connection: Connection) -> None:
        came = connection.receive()
        if came is None:
            return
        who, received = f"connection {connection.number}", connection.received
        if received + len(came) > len(GREETING):
            raise WrongBytesError(f"{who} brought more than the greeting")
        connection.compare(came, GREETING[received : received + len(came)])
        if came:
            return
        if received < len(GREETING):
            raise WrongBytesError(f"{who} was closed after {received} bytes of the greeting")
        if self._resuming and self._warm and not connection.was_resumed:
            raise WrongBytesError(f"{who} resumed no session")
        self._close(connection)
        if self._left:
            self._left -= 1
            self._open(connection.number)

    def _begin_resume(self) -> None:
        """As ``connect``, and every connection that is measured resumes a session."""
        self._resuming = True
        self._begin_connect()

    def _serve_resume(self, connection: Connection) -> None:
        self._serve_connect(connection)

    def _begin_end(self) -> None:
        for connection in self._opened:
            connection.end()

    def _serve_end(self, connection: Connection) -> None:
        """After our end the server must end too, without further data."""
        came = connection.receive()
        if came:
            raise WrongBytesError(f"connection {connection.number} brought more bytes than were sent")
        if came is not None:
            self._close(connection)


def main(arguments: list[str]) -> int:
    """Take the three steps."""
    role, numbers = arguments[0], [int(word) for word in arguments[1:7]]
    at_a_time, outstanding, size, messages, warm_up, port = numbers
    load = Load(at_a_time, outstanding, size, port, tls=arguments[7:] == ["tls"])
    try:
        for quota in (warm_up, messages):
            load.step(role, quota)
            if not os.read(0, 64):
                return 1
        load.end()
    except (WrongBytesError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
