# async: The blocking twin of this file is ../blocking/connection.py; `make twins` makes it.
"""One session with a PostgreSQL server, and a pool of them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import suppress
from types import TracebackType
from typing import NoReturn, Self

from examples.postgres import protocol
from examples.postgres.aio.opening import certificate_of, open_socket
from examples.postgres.protocol import Config, PostgresError, ProtocolError, Result
from examples.postgres.scram import Authentication
from wireline import MAX_FRAME_SIZE, ClosedError, Deadline, Frame, FrameError, SocketTimeout
from wireline.asyncnet import AsyncSocket, Pool
from wireline.timing import Timeout
from wireline.tls import TruncatedError

STARTUP_LIMIT = 32 * 1024
"""Bytes of a message before the server has proved anything. A guess: true ones have a few hundred."""
COPY_CHUNK = 64 * 1024
"""Bytes of rows that are sent together, so that small rows do not cost a system call each."""
LISTEN_EVERY = 0.02
"""Seconds that a COPY waits for the server to read before it looks whether the server waits for the client. A guess."""


class Connection:
    """One session, for one call at a time.

    An error of the server leaves the connection usable. So does a timeout, or a cancellation, while an answer is read:
    the next call first reads the rest of that answer, which ``cancel`` makes short. One that cuts a request closes the
    connection, because the server would take the next request for the rest. What the protocol does not allow closes it,
    and so does a message, a row for example, of more than 16 MiB. After an exception of a signal handler close it: no
    call gets the answer to another one, but the next may wait for an answer that does not come.

    Attributes:
        parameters: what the server reports of itself, such as ``server_version``.
        transaction: ``I`` without one, ``T`` in one, ``E`` in one that has failed.
        on_notice: called with each notice of the server.
    """

    def __init__(self, sock: AsyncSocket, config: Config) -> None:
        self.parameters: dict[str, str] = {}
        self.transaction = "I"
        self.on_notice: Callable[[PostgresError], object] | None = None
        self._sock = sock
        self._config = config
        self._process = os.getpid()
        self._key = b""
        self._unread: object = None  # stands for the answer that has not been read to its end

    @classmethod
    async def connect(cls, config: Config, timeout: Timeout = None) -> Self:
        """Connect, encrypt, authenticate; ``timeout`` is for all of it."""
        deadline = Deadline(timeout)
        connection = cls(await open_socket(config, deadline), config)
        try:
            await connection._start_up(deadline)
        except BaseException:
            connection._sock.close()
            raise
        return connection

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_closed(self) -> bool:
        """Whether this side has closed it."""
        return self._sock.is_closed

    def close(self) -> None:
        """End the session. It never waits."""
        if (
            not self._sock.is_closed and self._process == os.getpid()
        ):  # in a forked child it is the parent's session
            with suppress(OSError):
                self._sock.try_send(protocol.TERMINATE)
        self._sock.close()

    def is_reusable(self) -> bool:
        """Whether a pool may give it to another block."""
        if self.is_closed or self._unread or self.transaction != "I":
            return False
        return self._sock.try_recv() is None  # no farewell of the server, and not the end

    # Queries.

    async def query(self, sql: str, *parameters: object, timeout: Timeout = None) -> Result:
        """Execute one statement, with ``$1``, ``$2`` and so on for the parameters; None is NULL.

        Raises:
            PostgresError: the server refused it.
        """
        request = protocol.extended_query(sql, parameters)
        results = await self._results(request, Deadline(timeout))
        if len(results) != 1:
            self._refuse(f"one statement has {len(results)} results")
        return results[0]

    async def script(self, sql: str, timeout: Timeout = None) -> list[Result]:
        """Execute statements without parameters, separated by semicolons. The result of each is in the list.

        Raises:
            PostgresError: the server refused one, and what they had done is undone.
        """
        return await self._results(protocol.simple_query(sql), Deadline(timeout))

    async def _results(self, request: bytes, deadline: Deadline) -> list[Result]:
        results: list[Result] = []
        columns: tuple[str, ...] = ()
        rows: list[tuple[str | None, ...]] = []
        try:
            async for (kind, _), payload in await self._ask(request, deadline):
                if kind == b"D":
                    rows.append(protocol.read_row(payload))
                elif kind == b"T":
                    columns = protocol.read_columns(payload)
                elif kind in b"CI":  # complete; or the statement was empty
                    results.append(Result(payload[:-1].decode(), columns, rows))
                    columns, rows = (), []
                elif kind in b"GH":
                    raise ProtocolError("COPY is no query: use copy_in or copy_out")
                elif kind not in b"12n":
                    raise ProtocolError(f"{kind!r} is no part of a result")
        except (ProtocolError, UnicodeDecodeError):
            self._sock.close()
            raise
        return results

    async def copy_out(self, sql: str, timeout: Timeout = None) -> AsyncIterator[bytes]:
        """Yield the rows of a ``COPY ... TO STDOUT``, in text form each with its line end.

        Args:
            sql: the statement.
            timeout: for all rows; a loop that ends early leaves the rest to the next call, which skips it.
        """
        async for (kind, _), payload in await self._ask(protocol.simple_query(sql), Deadline(timeout)):
            if kind == b"d":
                yield payload
                # To split the rows that arrived with this one together costs less than a frame for each.
                rows, end = protocol.split_rows(bytes(await self._sock.fill(0)))
                self._sock.consume(end)
                for row in rows:  # async:
                    yield row
                # blocking: yield from rows
            elif kind not in b"HcC":
                self._refuse("this is no COPY ... TO STDOUT")

    async def copy_in(self, sql: str, rows: AsyncIterable[bytes], timeout: Timeout = None) -> str:
        """Send rows to a ``COPY ... FROM STDIN``, and return its tag.

        Args:
            sql: the statement.
            rows: or other pieces of the data. If it raises, nothing is copied, and the connection stays usable.
            timeout: for all of it; it closes the connection if it cuts a piece.
        """
        deadline = Deadline(timeout)
        tag = ""
        async for (kind, _), payload in await self._ask(protocol.simple_query(sql), deadline):
            if kind == b"G":
                await self._send_rows(rows, deadline)
            elif kind == b"C":
                tag = payload[:-1].decode()
            else:
                self._refuse("this is no COPY ... FROM STDIN")
        return tag

    async def _send_rows(self, rows: AsyncIterable[bytes], deadline: Deadline) -> None:
        try:
            async for chunk in _chunks(rows):
                if await self._send_and_listen(protocol.copy_data(chunk), deadline):
                    return
            await self._send(protocol.COPY_DONE, deadline)
        except BaseException:
            self._fail_copy()
            raise

    async def _send_and_listen(self, data: bytes, deadline: Deadline) -> bool:
        """Send a piece of a COPY, and return whether the server has refused it.

        A server whose notices are not read stops reading, and both sides would wait for ever.
        """
        rest = memoryview(data)
        refused = False
        try:
            while rest:
                wait = min(deadline.remaining(), LISTEN_EVERY)
                try:
                    sent = await self._sock.send_some(rest, wait)
                    rest, wait = rest[sent:], 0.0
                except SocketTimeout:
                    check_time(deadline)  # nothing of it was sent
                refused = refused or await self._is_refused(wait, deadline)
        except BaseException:
            self._sock.close()
            raise
        return refused

    async def _is_refused(self, wait: float, deadline: Deadline) -> bool:
        """Take in what the server says during a COPY, until it is silent for ``wait``; whether that is an error."""
        while True:
            check_time(deadline)
            try:
                (kind, _), payload = await self._sock.recv_frame(
                    protocol.HEADER, length_adjust=protocol.LENGTH_ADJUST, timeout=wait
                )
            except SocketTimeout:
                return False
            except (FrameError, EOFError):
                return True  # nothing was consumed, and `_answer` finds the same
            if kind == b"E":
                self._sock.unread(protocol.message(kind, payload))  # `_answer` reads it
                return True
            self._note(kind, payload)

    def _fail_copy(self) -> None:
        """End a COPY that is to do nothing. It must not wait: a cancelled task is here."""
        if not self.is_closed and not self._sock.try_send(protocol.copy_fail("the client gave up")):
            self._sock.close()

    # One request and its answer.

    async def _ask(self, request: bytes, deadline: Deadline) -> AsyncIterator[Frame]:
        """Send a request, once the answer to the one before has been read; return its answer."""
        if self._unread:
            self._unread = object()  # the iterator that has left it unread must not go on
            with suppress(PostgresError):
                async for (kind, _), _ in self._answer(deadline):
                    if kind == b"G":
                        self._fail_copy()
        self._unread = object()  # first: after an exception of a signal handler it may be sent already
        await self._send(request, deadline)
        return self._answer(deadline)

    async def _send(self, data: bytes, deadline: Deadline) -> None:
        try:
            await self._sock.send(data, timeout=deadline)
        except BaseException:
            self._sock.close()  # a part may be out: the server would take the next request for the rest
            raise

    async def _answer(self, deadline: Deadline, max_size: int = MAX_FRAME_SIZE) -> AsyncIterator[Frame]:
        """Yield messages until the server is ready again. Then an error is raised: the connection is usable."""
        answer = self._unread
        error: PostgresError | None = None
        frames = self._sock.frames(
            protocol.HEADER, length_adjust=protocol.LENGTH_ADJUST, max_size=max_size, timeout=deadline
        )
        try:
            async for frame in frames:
                (kind, _), payload = frame
                if kind == b"Z":
                    self.transaction = payload.decode(errors="replace")
                    self._unread = None
                    break
                if kind == b"E":
                    error = PostgresError(payload)
                    if error.severity in protocol.FATAL:
                        raise EOFError  # the server is about to close
                elif kind in b"NSA":
                    self._note(kind, payload)
                else:
                    yield frame
                    if self._unread is not answer:
                        raise RuntimeError("the rest of this answer is gone: there was another call")
                check_time(deadline)
            else:
                raise EOFError
        except (SocketTimeout, ClosedError):
            raise
        except FrameError as wrong:
            self._refuse(str(wrong))
        except (EOFError, OSError) as lost:
            self._sock.close()
            raise error or ConnectionError("the connection to the server is lost") from lost
        if error:
            raise error

    def _note(self, kind: bytes, payload: bytes) -> None:
        """Take in what the server may say at any time: a notice, a parameter, a notification (which is ignored)."""
        if kind == b"N" and self.on_notice:
            self.on_notice(PostgresError(payload))
        elif kind == b"S":
            name, *value = protocol.read_strings(payload)
            self.parameters[name] = "".join(value)

    def _refuse(self, reason: str) -> NoReturn:
        """Close: after this the messages could not be told apart."""
        self._sock.close()
        raise ProtocolError(reason)

    # The beginning, and cancelling.

    async def _start_up(self, deadline: Deadline) -> None:
        authentication = Authentication(self._config.password, certificate_of(self._sock))
        self._unread = object()
        await self._send(protocol.start_up(self._config), deadline)
        async for (kind, _), payload in self._answer(deadline, STARTUP_LIMIT):
            if kind == b"R":
                if answer := authentication.answer(payload):
                    await self._send(answer, deadline)
            elif kind == b"K" and len(payload) == 8:
                self._key = payload
            else:
                self._refuse(f"the server begins with {kind!r}")
        if not authentication.accepted:
            self._refuse("the server did not authenticate the client")

    async def cancel(self, timeout: Timeout = None) -> None:
        """Ask the server to cancel what it executes for this session, from another task too, over another connection.

        The call that waits gets a ``PostgresError`` with SQLSTATE 57014, unless it was faster.
        """
        deadline = Deadline(timeout)
        async with await open_socket(self._config, deadline, self._sock.peer_addr) as sock:
            await sock.send(protocol.CANCEL + self._key, timeout=deadline)
            with suppress(TruncatedError):
                await sock.recv_some(timeout=deadline)  # the end: the session has been signalled


def check_time(deadline: Deadline) -> None:
    """Raise if no time is left. A read raises only if it has to wait: never, if data arrive without a pause."""
    if deadline.expired():
        raise SocketTimeout("the answer", 0.0)


async def _chunks(rows: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Join rows to pieces of ``COPY_CHUNK`` bytes or a little more."""
    pieces: list[bytes] = []
    size = 0
    async for row in rows:
        pieces.append(row)
        size += len(row)
        if size >= COPY_CHUNK:
            yield b"".join(pieces)
            pieces.clear()
            size = 0
    yield b"".join(pieces)


def make_pool(config: Config, max_size: int = 10) -> Pool[Connection]:
    """Make a pool. A block gets a connection that has nothing unread and no transaction open."""
    return Pool(
        lambda deadline: Connection.connect(config, deadline),
        max_size=max_size,
        healthy=Connection.is_reusable,
    )
