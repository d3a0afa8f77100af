"""A signal handler raises, or closes, inside every waiting call of the blocking flavour.

Before every instruction that a call executes in the library (``opcodes.py``), and with real signals at 5 kHz
(``signals.py``). After each the next calls of this thread and of another one are made, the socket is closed, and the
bytes are compared with a model: a stream whose every byte tells where it belongs.

Lost bytes are a finding where a real signal can be handled, but for the window that no Python function can close: the
answer is taken and every function of the library is about to return it. The report counts that window.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import gc
import os
import socket
import ssl
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotDone
from typing import Any

from tests.torture import scenes
from tests.torture.children import RAISED, Child, ChildFailed, last_frames
from tests.torture.opcodes import Interrupted, Interrupter, Place
from tests.torture.peer import KINDS, VERSIONS
from tests.torture.registry import Budget, Finding
from wireline import (
    AF_INET,
    IPPROTO_UDP,
    SOCK_DGRAM,
    BusyError,
    SocketFlag,
    SocketTimeout,
    WirelineError,
)
from wireline.net import Socket
from wireline.net import dial as net_dial
from wireline.net import serve as net_serve
from wireline.testing import TestCA
from wireline.tls import Handshake, SslContext

LOUD = SocketFlag(0)
SOON = 0.5
"""Seconds for a call that has nothing to wait for: only a stuck call takes longer."""

LIMIT = 5.0
"""Seconds after which a case hangs."""

SETTLING = {"plain": 0.4, "tls12": 3.0, "tls13": 3.0}
"""Seconds that a descriptor gets to be closed. Over TLS a thread does it when the peer is done, after 2 s at last."""

_ENOUGH = 3
"""Findings of one scene after which the rest of it is left out: each may cost seconds."""

TEXT = b"".join(b"line %04d of the text\n" % i for i in range(40))
BULK = b"".join(b"%09d," % i for i in range(70_000))
MARKS = [b"<first mark>", b"<second mark>"]


class Bad(Exception):
    """A broken promise.

    Attributes:
        kind: ``stuck``, ``left``, ``lost``, ``wrong``, ``broke`` or ``swallowed``.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


# Threads that are stuck in the library stay in it.
_pool = ThreadPoolExecutor(64)


class World:
    """The common state of the cases of a child."""

    def __init__(self, kind: str, directory: str) -> None:
        self.kind = kind
        self.tls: SslContext | None = None
        self.raw: ssl.SSLContext | None = None
        if kind != "plain":
            self.tls = scenes.context(directory)
            self.raw = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.raw.load_cert_chain(f"{directory}/server.pem", f"{directory}/server.key")
            self.raw.minimum_version = self.raw.maximum_version = VERSIONS[kind]

    def welcome(self, sock: socket.socket) -> socket.socket:
        """The peer's side of a connection that we make."""
        sock.settimeout(2 * SOON)
        if self.raw is None:
            return sock
        try:
            return self.raw.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False)
        except BaseException:
            sock.close()
            raise

    def connected(self) -> tuple[Socket, socket.socket]:
        """Our socket, and a peer of the standard library."""
        ours, theirs = socket.socketpair()
        sock = Socket.from_socket(ours)
        welcomed = _pool.submit(self.welcome, theirs)
        if self.tls is not None:
            self.tls.wrap_connected_socket(sock, Handshake.AS_CLIENT, "127.0.0.1", 5.0)
        return sock, welcomed.result(5.0)


class Scene:
    """One call, the steps before it and the checks after it. One object for each case.

    Attributes:
        closes: whether a handler may close ``sock`` meanwhile.
        modes: variants.
    """

    modes: tuple[str, ...] = ("",)
    kinds: tuple[str, ...] = KINDS
    closes = True

    def __init__(self, world: World, mode: str, number: int) -> None:
        self.world = world
        self.mode = mode
        self.other_first = bool(number % 2)
        self.sock: Socket
        self.inode = 0
        self.fd = -1
        self.prepare()
        self.note_descriptor()

    def note_descriptor(self) -> None:
        """Remember which descriptor is to be closed in the end."""
        self.fd = self.sock.fileno()
        self.inode = os.fstat(self.fd).st_ino

    def prepare(self) -> None:
        raise NotImplementedError

    def act(self) -> None:
        """Make the call; it is the only part that is interrupted."""
        raise NotImplementedError

    def check(self) -> None:
        """Go on with the socket."""
        raise NotImplementedError

    def disturb(self) -> None:
        """Do the work of a handler that does not raise."""
        self.sock.close()

    def finish(self) -> None:
        """Close everything, and see that the descriptor is given back."""
        in_time(self.sock.close, "close")
        self.dismiss()
        self.gone()

    def gone(self) -> None:
        """See that our descriptor is closed."""
        limit = time.monotonic() + SETTLING[self.world.kind]
        while self._is_open():
            if time.monotonic() > limit:
                raise Bad("left", "the descriptor is open after close()")
            time.sleep(0.001)

    def _is_open(self) -> bool:
        try:
            return os.fstat(self.fd).st_ino == self.inode
        except OSError:
            return False

    def dismiss(self) -> None:
        """Let go of the peer."""


def in_time(call: Callable[[], object], name: str) -> None:
    """Make a call by another thread; it may not hang and may fail only with an error that says why."""
    made: Future[object] = _pool.submit(call)
    try:
        made.result(LIMIT / 2)
    except NotDone:
        raise Bad("stuck", f"{name} by another thread hangs") from None


def judged(error: Exception, name: str) -> Bad | None:
    """The promise that an error breaks, after an interruption; None if it says that the connection is no more."""
    if isinstance(error, Bad):
        return error
    if isinstance(error, SocketTimeout | BusyError):
        return Bad("stuck", f"{name} is stuck: {error!r}")
    if isinstance(error, ssl.SSLError) and getattr(error, "reason", None):
        return Bad("broke", f"{name}: OpenSSL is out of step: {error!r}")
    if isinstance(error, OSError | WirelineError):
        return None
    return Bad("wrong", f"{name}: {''.join(traceback.format_exception(error))}")


def going_on(call: Callable[[], object], name: str) -> bool:
    """Make a call that has to work, or to say clearly that the connection is no more; False then."""
    try:
        call()
    except Exception as error:
        if bad := judged(error, name):
            raise bad from error
        return False
    return True


def common_length(one: bytes, other: bytes) -> int:
    """How many bytes at the beginning are the same."""
    return next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


class Stream(Scene):
    """A connected stream."""

    def prepare(self) -> None:
        self.sock, self.peer = self.world.connected()
        self.got = b""
        self.sending: Future[None] | None = None

    def dismiss(self) -> None:
        if self.sending is not None:
            # Whatever this side does to the connection ends the other one.
            self.sending.exception(2 * SOON + 1)
        self.peer.close()


class Read(Stream):
    """A call that reads: text that is there, that arrives in pieces, or that does not arrive."""

    modes = ("there", "pieces", "none")
    sent = TEXT
    put_back = 0  # bytes in the text that were not received
    timeout: float | None

    def prepare(self) -> None:
        super().prepare()
        self.timeout = {"there": None, "pieces": 2.0, "none": 0.003}[self.mode]
        self.text = b"" if self.mode == "none" else TEXT
        self.before()
        if self.mode == "there":
            self.peer.sendall(TEXT)
        elif self.mode == "pieces":
            self.sending = _pool.submit(self._drip)

    def _drip(self) -> None:
        for start in range(0, len(TEXT), 300):
            self.peer.sendall(TEXT[start : start + 300])
            time.sleep(0.0005)

    def before(self) -> None:
        """The steps before, without interruption."""

    def check(self) -> None:
        if self.sending is not None:
            self.sending.result(LIMIT / 2)
        # Writing goes on, by both threads.
        for i in (0, 1):
            mark = MARKS[i]
            if i == self.other_first:
                going_on(lambda mark=mark: self.sock.send(mark, LOUD, SOON), "the next send of this thread")
            else:
                in_time(
                    lambda mark=mark: going_on(
                        lambda: self.sock.send(mark, LOUD, SOON), "the next send of another thread"
                    ),
                    "the next send",
                )
        end = b"the end\n"
        self.peer.sendall(end)
        whole = self.text + end
        limit = time.monotonic() + LIMIT / 2
        while len(self.got) < len(whole) and self.got[-len(end) :] != end:
            if not going_on(self._more, "the next read"):
                return
            if time.monotonic() > limit:
                raise Bad("stuck", "reads bring nothing")
        self.compare(whole)

    def _more(self) -> None:
        try:
            data = self.sock.recv_some(timeout=SOON, flags=LOUD)
        except SocketTimeout:
            missing = len(self.text) + 8 - len(self.got)
            raise Bad("lost", f"{missing} bytes are missing: {self._seen()}") from None
        if not data:
            raise Bad("wrong", "a false end of the stream")
        self.got += data

    def _seen(self) -> str:
        common = common_length(self.got, self.text + b"the end\n")
        return f"right up to byte {common}, then {self.got[common:][:40]!r}"

    def compare(self, whole: bytes) -> None:
        if self.got == whole:
            counted, received = self.sock.stats.bytes_received, len(whole) - self.put_back
            if counted != received:
                raise Bad("wrong", f"{counted} bytes are counted of {received} that were received")
            return
        common = common_length(self.got, whole)
        rest = self.got[common:]
        if whole.endswith(rest):
            missing = len(whole) - len(self.got)
            raise Bad("lost", f"{missing} bytes after the first {common} are missing")
        raise Bad("wrong", f"not what was sent: {self._seen()}")


class Recv(Read):
    def act(self) -> None:
        self.got += self.sock.recv(30, self.timeout, LOUD)


class RecvSome(Read):
    def act(self) -> None:
        self.got += self.sock.recv_some(timeout=self.timeout)


class RecvSmall(Read):
    def act(self) -> None:
        self.got += self.sock.recv_some(7, self.timeout)


class RecvLine(Read):
    def act(self) -> None:
        self.got += self.sock.recv_line(self.timeout) + b"\n"


class RecvLineAhead(Read):
    """A line that was split off before."""

    modes = ("there",)

    def before(self) -> None:
        self.peer.sendall(TEXT)
        self.got += self.sock.recv_line(SOON) + b"\n"
        self.text = TEXT + TEXT

    def act(self) -> None:
        self.got += self.sock.recv_line(self.timeout) + b"\n"


class Lines(Read):
    def act(self) -> None:
        for line in self.sock.lines(timeout=self.timeout):
            self.got += line + b"\n"
            if self.got.count(b"\n") == 3:
                break


class RecvExactly(Read):
    def act(self) -> None:
        self.got += self.sock.recv_exactly(500, self.timeout)


class RecvUntil(Read):
    def act(self) -> None:
        self.got += self.sock.recv_until(b"0017", timeout=self.timeout)


class Skip(Read):
    def act(self) -> None:
        self.sock.skip(500, self.timeout)
        self.got += TEXT[:500]


class RecvInto(Read):
    def act(self) -> None:
        room = bytearray(30)
        size = self.sock.recv_into(room, None, self.timeout)
        self.got += room[:size]


class RecvLineInto(Read):
    def act(self) -> None:
        room = bytearray()
        self.sock.recv_line_into(room, self.timeout)
        self.got += room + b"\n"


class TryRecvLine(Read):
    modes = ("there", "pieces")

    def act(self) -> None:
        result, line = self.sock.try_recv_line()
        if result.name == "FULL_LINE":
            self.got += line + b"\n"


class Peek(Read):
    def act(self) -> None:
        self.sock.recv(30, self.timeout, LOUD | SocketFlag.PEEK)


ADJUST = len(b"line 0000 of the text\n") - 1 - ord("l")
"""A line of the text is a frame: its first byte plus this is the size of the rest."""


def frame_header(view: memoryview) -> tuple[int, int]:
    """The same as a function."""
    return 1, view[0] + ADJUST


class RecvStruct(Read):
    def act(self) -> None:
        first, rest = self.sock.recv_struct("3s27s", self.timeout)
        self.got += first + rest


class RecvFrame(Read):
    def act(self) -> None:
        (first,), rest = self.sock.recv_frame("B", length_adjust=ADJUST, timeout=self.timeout)
        self.got += bytes([first]) + rest


class RecvFrameByFunction(Read):
    def act(self) -> None:
        first, rest = self.sock.recv_frame(frame_header, timeout=self.timeout)
        self.got += first + rest


class Frames(Read):
    def act(self) -> None:
        start = len(self.got)
        for (first,), rest in self.sock.frames("B", length_adjust=ADJUST, timeout=self.timeout):
            self.got += bytes([first]) + rest
            if len(self.got) - start > 60:
                break


class FramesAhead(Frames):
    """Frames that are about to be split off, or were before."""

    modes = ("there",)
    read = 23 * 22
    """Bytes of them that are read before."""

    def before(self) -> None:
        self.peer.sendall(TEXT)
        self.text = TEXT + TEXT
        for first, rest in self.sock.frames(frame_header, timeout=SOON):
            self.got += first + rest
            if len(self.got) >= self.read:
                break

    def act(self) -> None:
        # Of another format, and of the same one twice.
        super().act()
        for first, rest in self.sock.frames(frame_header, timeout=self.timeout):
            self.got += first + rest
            if len(self.got) > 800:
                break


class Fill(Read):
    def act(self) -> None:
        view = self.sock.fill(30, self.timeout)
        self.sock.consume(22)
        self.got += view[:22]


class RecvSomeInto(Read):
    def act(self) -> None:
        room = bytearray(30)
        size = self.sock.recv_some_into(room, self.timeout)
        self.got += room[:size]


class TryRecv(Read):
    modes = ("there", "pieces")

    def act(self) -> None:
        self.got += self.sock.try_recv(30) or b""


class Unread(Read):
    """Bytes are put back in front of some that are buffered."""

    modes = ("there",)

    def before(self) -> None:
        self.peer.sendall(b"buffered ")
        self.sock.fill(9, SOON)
        self.text = b"buffered " + TEXT

    def act(self) -> None:
        self.sock.unread(b"put back ")
        self.text = b"put back " + self.text
        self.put_back = 9


class Write(Stream):
    """A call that sends: into free buffers, to a peer that reads slowly, or to one that does not read."""

    modes = ("room", "slow", "none")
    answers = True

    def prepare(self) -> None:
        super().prepare()
        self.payload = TEXT if self.mode == "room" else BULK
        self.timeout = {"room": None, "slow": 2.0, "none": 0.004}[self.mode]
        self.taken: list[bytes] = []
        self.trouble: Exception | None = None
        self.may_read = threading.Event()
        self.sending = _pool.submit(self._take)

    def dismiss(self) -> None:
        self.may_read.set()
        super().dismiss()

    def _take(self) -> None:
        if self.mode == "none":
            self.may_read.wait(LIMIT)
        try:
            while data := self.peer.recv(65536):
                self.taken.append(data)
                # One thread reads and answers: two may not use an `ssl.SSLSocket` at a time.
                if self.answers and b"".join(self.taken[-len(MARKS[1]) :]).endswith(MARKS[1]):
                    self.peer.sendall(b"the end\n")
        except (OSError, ValueError) as error:
            self.trouble = error

    def check(self) -> None:
        self.may_read.set()
        sent = self.sock.last_bytes_sent
        marks = b""
        for i in (0, 1):
            mark = MARKS[i]
            if i == self.other_first:
                if going_on(
                    lambda mark=mark: self.sock.send(mark, LOUD, 2 * SOON), "the next send of this thread"
                ):
                    marks += mark
            else:
                done: list[bool] = []
                in_time(
                    lambda mark=mark, done=done: done.append(
                        going_on(
                            lambda: self.sock.send(mark, LOUD, 2 * SOON), "the next send of another thread"
                        )
                    ),
                    "the next send",
                )
                if done[0]:
                    marks += mark
        if marks == b"".join(MARKS):
            self._read_back()
        self.sock.close()
        assert self.sending is not None
        self.sending.result(LIMIT / 2)
        seen = b"".join(self.taken)
        if self.trouble is not None and marks:
            raise Bad("broke", f"the peer cannot read on: {self.trouble!r} after {len(seen)} bytes")
        if not seen.endswith(marks):
            raise Bad("wrong", f"the peer has not got what was sent afterwards: {seen[-60:]!r}")
        body = seen.removesuffix(marks)
        if body != self.payload[: len(body)]:
            common = common_length(body, self.payload)
            raise Bad("wrong", f"the peer has got something else after byte {common}: {body[common:][:40]!r}")
        if len(body) != sent and marks:
            raise Bad("miscounted", f"last_bytes_sent is {sent}, and {len(body)} went out")

    def _read_back(self) -> None:
        """Reading goes on: the peer answers to the second mark, or says that it cannot decrypt its input."""
        try:
            line = self.sock.recv_line(SOON, LOUD)
        except SocketTimeout:
            raise Bad("stuck", "the next read is stuck, or the peer has not got what was sent") from None
        except (OSError, WirelineError) as error:
            if bad := judged(error, "the next read"):
                raise bad from error
        else:
            self._expect(line)

    def _expect(self, line: bytes) -> None:
        if line != b"the end":
            raise Bad("wrong", f"read {line!r} instead of the peer's line")


class Send(Write):
    def act(self) -> None:
        self.sock.send(self.payload, LOUD, self.timeout)


class SendTimed(Write):
    modes = ("room",)

    def act(self) -> None:
        self.sock.send(self.payload, LOUD, 1.0)


class SendMany(Write):
    def act(self) -> None:
        half = len(self.payload) // 2
        self.sock.send_many([self.payload[:half], self.payload[half:]], LOUD, self.timeout)


class SendSome(Write):
    modes = ("room", "none")

    def act(self) -> None:
        self.sock.send_some(self.payload, self.timeout)


class TrySend(Write):
    modes = ("room", "none")

    def act(self) -> None:
        self.sock.try_send(self.payload)


class SendQueued(Write):
    """A send that waits while another thread sends."""

    modes = ("none",)
    answers = False

    def prepare(self) -> None:
        super().prepare()
        self.first = _pool.submit(self._send_first)
        limit = time.monotonic() + 2.0
        before = -1
        # It is in the middle when the buffer of the kernel is full: when nothing has moved for a while.
        while time.monotonic() < limit and (before <= 0 or before != _queued(self.peer)):
            before = _queued(self.peer)
            time.sleep(0.002)
        self.timeout = 0.01

    def _send_first(self) -> None:
        self.sock.send(BULK, LOUD, 3.0)

    def act(self) -> None:
        self.sock.send(b"[queued]", LOUD, self.timeout)

    def check(self) -> None:
        self.may_read.set()
        going_on(lambda: self.first.result(LIMIT / 2), "the send that was first")
        for call in self._sends():
            call()
        self.sock.close()
        assert self.sending is not None
        self.sending.result(LIMIT / 2)
        seen = b"".join(self.taken)
        if self.trouble is not None:
            raise Bad("broke", f"the peer cannot read on: {self.trouble!r} after {len(seen)} bytes")
        marks = seen.removeprefix(BULK).removeprefix(b"[queued]")
        if not seen.startswith(BULK) or marks not in (MARKS[0] + MARKS[1], MARKS[1] + MARKS[0]):
            raise Bad("wrong", f"the peer has got {len(seen)} bytes, at the end {seen[-60:]!r}")

    def _sends(self) -> tuple[Callable[[], object], ...]:
        def mine() -> None:
            if not going_on(lambda: self.sock.send(MARKS[0], LOUD, 2 * SOON), "the next send of this thread"):
                raise Bad("stuck", "the next send of this thread fails")

        def others() -> None:
            in_time(
                lambda: going_on(
                    lambda: self.sock.send(MARKS[1], LOUD, 2 * SOON), "the next send of another thread"
                ),
                "the next send",
            )

        return (others, mine) if self.other_first else (mine, others)


def _queued(sock: socket.socket) -> int:
    import fcntl
    import struct
    import termios

    return struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.FIONREAD, b"\0" * 4))[0]


class ShutdownWrite(Stream):
    def act(self) -> None:
        self.sock.shutdown_write(1.0)

    def check(self) -> None:
        going_on(lambda: self.sock.shutdown_write(1.0), "the next shutdown_write")
        with contextlib.suppress(OSError):
            self.peer.sendall(b"the end\n")
            going_on(lambda: self.sock.recv_line(SOON, LOUD), "the next read")


class Close(Stream):
    """A close that is interrupted; the next one closes."""

    def act(self) -> None:
        self.sock.close()

    def check(self) -> None:
        self.peer.close()


class Connecting(Scene):
    """A call that connects to a listener of the standard library."""

    closes = False

    def note_descriptor(self) -> None:
        pass

    def prepare(self) -> None:
        self.before = _sockets()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=8)
        self.listener.settimeout(LIMIT)
        self.port: int = self.listener.getsockname()[1]
        self.serving = _pool.submit(self._serve)

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            if self._stopped:
                sock.close()
                return
            _pool.submit(self._answer, sock)

    _stopped = False

    def _answer(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            peer = self.world.welcome(sock)
            try:
                while data := peer.recv(100):
                    peer.sendall(data)
            finally:
                peer.close()

    def _ping(self, sock: Socket) -> None:
        sock.send(b"ping\n", LOUD, SOON)
        if sock.recv_line(SOON) != b"ping":
            raise Bad("wrong", "something else than was sent")

    def finish(self) -> None:
        self._stopped = True
        socket.create_connection(("127.0.0.1", self.port)).close()
        self.serving.result(LIMIT)
        self.listener.close()
        _until_closed(self.world.kind, self.before)


class Dial(Connecting):
    def act(self) -> None:
        net_dial("127.0.0.1", self.port, tls=self.world.tls, timeout=2.0).close()

    def check(self) -> None:
        with net_dial("127.0.0.1", self.port, tls=self.world.tls, timeout=2.0) as sock:
            self._ping(sock)


class Connect(Connecting):
    closes = True

    def prepare(self) -> None:
        super().prepare()
        self.sock = Socket()
        if self.world.tls is not None:
            self.world.tls.wrap_socket(self.sock)

    def act(self) -> None:
        self.sock.connect("127.0.0.1", self.port, 2.0)

    def check(self) -> None:
        def again() -> None:
            try:
                self.sock.connect("127.0.0.1", self.port, 2.0)
            except OSError as error:
                if isinstance(error, SocketTimeout | WirelineError):
                    raise
            self._ping(self.sock)

        going_on(again, "connecting again")

    def finish(self) -> None:
        in_time(self.sock.close, "close")
        super().finish()


class Accept(Scene):
    modes = ("there", "none")

    def prepare(self) -> None:
        self.sock = Socket()
        self.sock.bind_addr(0, "127.0.0.1")
        self.sock.listen()
        if self.world.tls is not None:
            self.world.tls.wrap_socket(self.sock)
        self.port = self.sock.local_addr.port
        self.before = _sockets()
        self.visits = [_pool.submit(self._visit, b"one\n")] if self.mode == "there" else []
        self.accepted: list[bytes] = []

    def _visit(self, line: bytes) -> bytes:
        try:
            sock = socket.create_connection(("127.0.0.1", self.port), 2.0)
        except OSError:
            return b""  # a handler has closed the listener
        with contextlib.suppress(OSError, ValueError):
            if self.world.tls is not None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
                sock = context.wrap_socket(sock)
            sock.sendall(line)
            answer = sock.recv(100)
            sock.close()
            return answer
        sock.close()
        return b""

    def act(self) -> None:
        with self.sock.accept(LOUD, timeout=1.0 if self.mode == "there" else 0.003) as client:
            self._answer(client)

    def _answer(self, client: Socket) -> None:
        # The fate of a client whose accept was interrupted is checked from its side.
        line = client.recv_line(2.0)
        client.send(line + b"\n")
        self.accepted.append(line)

    def check(self) -> None:
        self.visits.append(_pool.submit(self._visit, b"two\n"))
        limit = time.monotonic() + LIMIT / 2
        while b"two" not in self.accepted:
            if time.monotonic() > limit:
                raise Bad("stuck", "accept does not hand out the next client")
            if not going_on(self._accept_one, "the next accept"):
                continue

    def _accept_one(self) -> None:
        with self.sock.accept(LOUD, timeout=2.0) as client:
            self._answer(client)

    def dismiss(self) -> None:
        for visit in self.visits:
            visit.result(LIMIT)

    def gone(self) -> None:
        super().gone()
        _until_closed(self.world.kind, self.before)


def _until_closed(kind: str, before: set[str], when: str = "") -> None:
    """Wait until no more descriptors are open than ``before``."""
    limit = time.monotonic() + SETTLING[kind]
    while len(now := _sockets()) > len(before):
        if time.monotonic() > limit:
            raise Bad("left", f"descriptors left{when}: {now - before}")
        gc.collect()
        time.sleep(0.001)


def _sockets() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            link = os.readlink(f"/proc/self/fd/{name}")
            if link.startswith("socket:"):
                found.add(link)
    return found


class Datagrams(Scene):
    kinds = ("plain",)

    def prepare(self) -> None:
        self.sock = Socket(AF_INET, SOCK_DGRAM, IPPROTO_UDP)
        self.sock.bind_addr(0, "127.0.0.1")
        self.here = self.sock.local_addr
        self.peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.peer.bind(("127.0.0.1", 0))
        self.peer.settimeout(SOON)
        self.sent: list[bytes] = []
        self.got: list[bytes] = []

    def dismiss(self) -> None:
        self.peer.close()

    def say(self, data: bytes) -> None:
        """The peer sends a datagram."""
        self.peer.sendto(data, ("127.0.0.1", self.here.port))
        self.sent.append(data)

    def check(self) -> None:
        self.say(b"last")
        while self.got[-1:] != [b"last"]:
            if not going_on(
                lambda: self.got.append(self.sock.recv_from(100, timeout=SOON).data), "recv_from"
            ):
                raise Bad("stuck", "recv_from fails")
        if self.got != self.sent:
            raise Bad("lost", f"received {self.got} of {self.sent}")
        for i, mark in enumerate(MARKS):
            call = functools.partial(
                self.sock.send_to, "127.0.0.1", self.peer.getsockname()[1], mark, timeout=SOON
            )
            if i == self.other_first:
                going_on(call, "the next send_to")
            else:
                in_time(lambda call=call: going_on(call, "the next send_to of another thread"), "send_to")


class RecvFrom(Datagrams):
    modes = ("there", "none")

    def act(self) -> None:
        if self.mode == "there":
            self.say(b"one")
        self.got.append(self.sock.recv_from(100, timeout=2.0 if self.mode == "there" else 0.003).data)


class SendTo(Datagrams):
    def act(self) -> None:
        self.sock.send_to("127.0.0.1", self.peer.getsockname()[1], b"hello", timeout=1.0)


class RecvManyFrom(Datagrams):
    modes = ("there", "none")

    def act(self) -> None:
        if self.mode == "there":
            for data in (b"one", b"two", b"three"):
                self.say(data)
        several = self.sock.recv_many_from(timeout=2.0 if self.mode == "there" else 0.003)
        self.got += [datagram.data for datagram in several]


class SendManyTo(Datagrams):
    def act(self) -> None:
        where = "127.0.0.1", self.peer.getsockname()[1]
        self.sock.send_many_to([(b"hello", *where), (b"again", *where)], timeout=1.0)


class Stop(Scene):
    """``Server.stop`` while a client is served; the handler's second request is another ``stop``."""

    modes = ("", "drain")

    def prepare(self) -> None:
        self.before = _sockets()
        self.server = net_serve(self._serve, 0, "127.0.0.1", tls=self.world.tls)
        self.client = socket.create_connection(self.server.local_addr[:2], 2.0)
        if self.world.tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            self.client = context.wrap_socket(self.client)
        self.client.sendall(b"hello\n")
        self.client.recv(10)

    def note_descriptor(self) -> None:
        pass

    def _serve(self, client: Socket, _: object) -> None:
        while line := client.recv_line():
            client.send(line + b"\n")

    def act(self) -> None:
        self.server.stop(drain=0.02 if self.mode else 0.0)

    def disturb(self) -> None:
        self.server.stop()

    def check(self) -> None:
        in_time(self.server.stop, "stop")
        self.server.stop()

    def finish(self) -> None:
        in_time(self.server.stop, "stop")
        self.server.stop()
        with contextlib.suppress(OSError):
            self.client.settimeout(SOON)
            while self.client.recv(100):  # a close with unread data resets the connection
                pass
        self.client.close()
        _until_closed(self.world.kind, self.before, " after stop")


SCENES: dict[str, type[Scene]] = {
    scene.__name__: scene
    for scene in (
        Recv,
        RecvSome,
        RecvSmall,
        RecvLine,
        RecvLineAhead,
        Lines,
        RecvExactly,
        RecvUntil,
        Skip,
        RecvInto,
        RecvLineInto,
        TryRecvLine,
        Peek,
        RecvStruct,
        RecvFrame,
        RecvFrameByFunction,
        Frames,
        FramesAhead,
        Fill,
        RecvSomeInto,
        TryRecv,
        Unread,
        Send,
        SendTimed,
        SendMany,
        SendSome,
        TrySend,
        SendQueued,
        ShutdownWrite,
        Close,
        Dial,
        Connect,
        Accept,
        RecvFrom,
        SendTo,
        RecvManyFrom,
        SendManyTo,
        Stop,
    )
}


# In the parent.


class Tally:
    """The results of the interruptions of one kind: findings, and windows that are counted."""

    def __init__(self) -> None:
        self.interruptions = 0
        self.broken = 0
        self.windows: Counter[str] = Counter()
        self.unreachable: Counter[str] = Counter()
        self.miscounted: Counter[str] = Counter()

    def judge(self, kind: str, where: str, reachable: bool, returning: bool) -> bool:
        """Count one broken promise; True if it is a finding."""
        if kind == "miscounted":
            self.miscounted[where] += 1
        elif not reachable:
            self.unreachable[f"{kind} at {where}"] += 1
        elif kind == "lost" and returning:
            self.windows[where] += 1
        else:
            return True
        return False

    def notes(self, title: str) -> Iterator[str]:
        """Its text in the report."""
        if self.broken:
            yield f"{title}: {self.broken:,} connections said that they are broken, after {self.interruptions:,}"
        for what, counter in (
            ("the answer was lost in the window before the return", self.windows),
            ("`last_bytes_sent` was not what went out", self.miscounted),
            ("a promise was broken at an instruction where no signal is handled", self.unreachable),
        ):
            if counter:
                places = "; ".join(f"{where} ({count})" for where, count in counter.most_common(5))
                yield f"{title}: of {self.interruptions:,} {what} {counter.total():,} times: {places}"


def run(budget: Budget) -> Iterator[Finding]:
    """Interruptions at instructions, then by real signals, for each kind of stream and both kinds of handlers."""
    from tests.torture import loop_signals, signals

    with tempfile.TemporaryDirectory(prefix="wireline-torture-") as directory:
        TestCA().write(directory)
        kinds = KINDS if budget.size != "sample" else ("plain",)
        rounds = [(kind, action) for kind in kinds for action in ("raise", "disturb")]
        # A third of the time for real signals: they find frequent faults, the others rare ones.
        reserve = budget.seconds / 3
        for position, (kind, action) in enumerate(rounds):
            seconds = max(0.5, (budget.remaining() - reserve) / (len(rounds) - position))
            yield from _instructions(budget, kind, action, directory, seconds)
        yield from loop_signals.run(budget, kinds, directory, budget.remaining() / 3)
        yield from signals.run(budget, kinds, directory)


def _instructions(
    budget: Budget, kind: str, action: str, directory: str, seconds: float
) -> Iterator[Finding]:
    limit = time.monotonic() + seconds
    todo: list[tuple[str, str, str, int]] = [
        (name, mode, action, 0)
        for name, scene in SCENES.items()
        for mode in scene.modes
        if kind in scene.kinds
        and (action == "raise" or scene.closes)
        and budget.wants(f"{kind} {name} {mode}")
    ]
    if not budget.full:
        budget.random.shuffle(todo)
        todo = todo[: max(2, int(seconds / 0.25))]
    budget.counts.add(scenes=len(todo))
    tally = Tally()
    hangs: Counter[str] = Counter()
    while todo and (remaining := limit - time.monotonic()) > 0:
        arguments = {
            "kind": kind,
            "directory": directory,
            "todo": todo,
            "seed": budget.seed,
            "seconds": remaining,
        }
        at, done, where = 0, 0, ""
        with Child("tests.torture.interruptions:work", arguments) as child:
            try:
                for record in child.records(3 * LIMIT):
                    if "scene" in record:
                        at, done, where = record["scene"], record["done"], ""
                        continue
                    if "where" in record:
                        where = record["where"]
                        continue
                    place, reachable, returning = record["place"]
                    tally.interruptions += 1
                    for what, text in record["bad"]:
                        if tally.judge(what, place, reachable, returning):
                            yield _finding(kind, todo[at], place, f"{what}: {text}", what)
                todo = []
            except ChildFailed as failed:
                name, mode, _, _ = todo[at]
                if failed.status == RAISED or not where:
                    text = f"fails without an interruption\n{failed.text}"
                    yield Finding("interruptions", f"blocking, {kind}, {name} {mode}", "nothing", text)
                    todo = todo[at + 1 :]
                    continue
                what = "hang" if "Timeout (" in failed.text or failed.kind == "hang" else "death"
                tally.interruptions += 1
                place, _, rest = where.partition("|")
                text = f"{what}: {last_frames(_main_stack(failed.text))}\n{failed.text}"
                if tally.judge(what, place, rest == "True", False):
                    yield _finding(kind, todo[at], place, text, what)
                hangs[name] += 1
                todo = todo[at:]
                todo[0] = (name, mode, action, done)
                if hangs[name] >= _ENOUGH:
                    todo = [item for item in todo if item[0] != name]
    budget.counts.add(interruptions=tally.interruptions)
    for note in tally.notes(
        f"{kind}, {'a handler that raises' if action == 'raise' else 'a handler that closes'}"
    ):
        budget.note(note)


def _main_stack(text: str) -> str:
    """The stack of the main thread, which is the last that faulthandler writes."""
    return text[text.rfind("Thread 0x") :] if "Thread 0x" in text else text


def _finding(kind: str, item: tuple[str, str, str, int], place: str, text: str, what: str) -> Finding:
    name, mode, action, _ = item
    done = "a signal handler raises" if action == "raise" else "a signal handler closes"
    return Finding(
        "interruptions",
        f"blocking, {kind}, {name}{' ' + mode if mode else ''}",
        f"{done} in {place}",
        text,
        fault(name, action, what),
    )


def fault(name: str, action: str, what: str) -> str:
    """The fault that a finding of this kind is taken for."""
    if action == "disturb":
        return "FA6" if name == "Stop" else "FA8"
    if what == "broke" or name == "SendQueued":
        return "FA26"
    return "FA7"


# In the child.


def _raise() -> None:
    raise Interrupted("from a signal handler")


def _case(
    scene: Scene, at: int, action: str, announce: Callable[[Place], None] = lambda _: None
) -> tuple[Interrupter, list[Bad]]:
    """One interruption, and its result."""
    swallowed = False
    error: BaseException | None = None
    handler = _raise if action == "raise" else scene.disturb
    with Interrupter(at, handler, announce) as interrupter:
        try:
            scene.act()
            swallowed = action == "raise"
        except Interrupted:
            pass
        except (OSError, WirelineError) as caught:
            error = caught
        except Exception as caught:  # noqa: BLE001 -- a finding
            error = caught
    place = interrupter.place
    found: list[Bad] = []
    if place is not None:
        if swallowed and not place.finalizing:
            found.append(Bad("swallowed", "the exception of the handler was swallowed"))
        if error is not None and (
            isinstance(error, BusyError) or not isinstance(error, OSError | WirelineError)
        ):
            found.append(Bad("wrong", f"raised {error!r}"))
        if isinstance(error, SocketTimeout) and action != "raise" and scene.mode not in ("none", "drain"):
            found.append(Bad("stuck", f"close() has not woken the call: {error!r}"))
    if action == "raise" or place is None:
        try:
            scene.check()
        except Bad as bad:
            if place is not None or bad.kind not in ("miscounted",):
                found.append(bad)
        except Exception as caught:  # noqa: BLE001 -- a finding
            found.append(Bad("stuck", f"going on fails: {''.join(traceback.format_exception(caught))}"))
    try:
        scene.finish()
    except Bad as bad:
        found.append(bad)
    except Exception as caught:  # noqa: BLE001 -- a finding
        found.append(Bad("left", f"closing fails: {''.join(traceback.format_exception(caught))}"))
    return interrupter, found


def work(
    say: Callable[[dict[str, Any]], None],
    kind: str,
    directory: str,
    todo: list[list[Any]],
    seed: int,
    seconds: float,
) -> None:
    """Interrupt the calls of the scenes ``[name, mode, action, how many cases are done]``, for so long altogether."""
    import random
    import warnings

    # A socket that an exception has cut off from its owner is closed by reference counting, with a warning.
    warnings.simplefilter("ignore", ResourceWarning)
    # An exception in a handler of a server is logged; here it is an exception of the case.
    world = World(kind, directory)
    limit = time.monotonic() + seconds
    threading.excepthook = lambda args: None

    def announce(place: Place) -> None:
        # Before the handler does anything: after it this process may say nothing any more.
        say({"where": f"{place.where}|{place.reachable}"})

    for position, (name, mode, action, done) in enumerate(todo):
        share = max(0.05, (limit - time.monotonic()) / (len(todo) - position))
        until = time.monotonic() + share
        cls = SCENES[name]
        say({"scene": position, "done": done})
        for _ in range(2):  # objects of the process are made in the first one
            faulthandler.dump_traceback_later(LIMIT, exit=True)
            survey, found = _case(cls(world, mode, 0), 0, "raise")
            if found:
                raise AssertionError(f"{name} {mode} fails without an interruption: {found}")
        chance = random.Random(seed)
        rest = sorted(set(range(1, survey.count + 1)) - set(survey.reachable))
        # Where real signals strike first; the others show how wide a window is.
        order = chance.sample(survey.reachable, len(survey.reachable)) + chance.sample(rest, len(rest))
        costly = 0
        for i, at in enumerate(order[done:], done):
            if time.monotonic() > until or costly >= _ENOUGH:
                break
            say({"scene": position, "done": i + 1})
            faulthandler.dump_traceback_later(LIMIT, exit=True)
            interrupter, found = _case(cls(world, mode, at), at, action, announce)
            if (place := interrupter.place) is not None:
                costly += any(problem.kind in ("stuck", "left") for problem in found)
                bad = [(problem.kind, str(problem)) for problem in found]
                say({"place": [place.where, place.reachable, place.returning], "bad": bad})
    faulthandler.cancel_dump_traceback_later()
    os._exit(0)
