"""A differential test: both flavours and a plain model of a byte stream agree on every result and every error.

Hypothesis draws a script of the peer's steps and our requests. The same script is played to the blocking flavour, to
the async flavour and to ``World``, which knows nothing but the bytes. A request that cannot be answered yet is made
without waiting, and then all three say so; every other is made without a timeout, too, and none hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.asyncnet.loops import WAYS, Way
from tests.asyncnet.streams import drain
from tests.core.model import (
    FRAMED_TEXTS,
    PLAIN_LINE,
    REQUESTS,
    SOME,
    Failure,
    NaiveStream,
    Refused,
    Request,
    framed_scripts,
    small_thresholds,
)
from wireline import (
    SAFE_DISCONN,
    ClosedError,
    EndOfStreamError,
    FrameError,
    LineTooLongError,
    ReadLineResult,
    SocketFlag,
    SocketTimeout,
)
from wireline.asyncnet import AsyncSocket
from wireline.net import Socket

# ------------------------------------------------------------------------------------------------ scripts


class Ask(NamedTuple):
    """We make a read."""

    request: Request


class Arrive(NamedTuple):
    """The peer sends."""

    data: bytes


class End(NamedTuple):
    """The peer half-closes."""


class Vanish(NamedTuple):
    """The peer closes."""


class Try(NamedTuple):
    """We ask for a line that is there."""

    max_length: int


class Send(NamedTuple):
    """We send, with one of the methods for it."""

    method: str
    data: bytes
    flags: SocketFlag = SAFE_DISCONN


class Shut(NamedTuple):
    """We half-close."""


class Close(NamedTuple):
    """We close."""


Step = Ask | Arrive | End | Vanish | Try | Send | Shut | Close

_OURS = st.one_of(
    st.builds(Try, st.sampled_from([1, 3, 1000])),
    st.builds(
        Send,
        st.sampled_from(["send", "send_some", "try_send"]),
        st.binary(max_size=20),
        st.sampled_from([SAFE_DISCONN, SocketFlag(0)]),
    ),
)
_COMMON = st.one_of(
    framed_scripts(REQUESTS | SOME).map(lambda requests: [Ask(request) for request in requests]),
    FRAMED_TEXTS.map(lambda text: [Arrive(text)]),
    _OURS.map(lambda step: [step]),
)


def _several(parts: st.SearchStrategy[list[Step]], most: int) -> st.SearchStrategy[list[Step]]:
    return st.lists(parts, max_size=most).map(lambda lists: [step for steps in lists for step in steps])


SCRIPTS = st.tuples(
    _several(_COMMON, 8),
    _several(_COMMON | st.sampled_from([End(), Vanish(), Shut()]).map(lambda step: [step]), 6),
    st.sampled_from([[], [Close()]]),
    _several(_COMMON, 2),
).map(lambda acts: [step for act in acts for step in act])


# ------------------------------------------------------------------------------------------------ players


class Player(Protocol):
    """A player: it does a step and returns the outcome."""

    async def play(self, step: Step) -> object: ...

    def heard(self) -> bytes:
        """The bytes that the peer has received so far."""


class World:
    """The plain model: the bytes of each direction, and which of them have ended."""

    def __init__(self, *, buffered: bool) -> None:
        self.incoming = NaiveStream(buffered=buffered)
        self._outgoing = b""
        self._gone = self._shut = self._closed = False

    def heard(self) -> bytes:
        return self._outgoing

    async def play(self, step: Step) -> object:
        match step:
            case Arrive(data):
                if not self.incoming.ended:
                    self.incoming.data += data
            case End():
                self.incoming.ended = True
            case Vanish():
                self.incoming.ended = self._gone = True
            case Close():
                self._closed = True
            case _ if self._closed:
                return False if getattr(step, "method", "") == "try_send" else Failure(ClosedError, None)
            case Ask(request):
                return self.incoming.answer(request)
            case Try(max_length):
                return self._try(max_length)
            case Shut():
                self._shut = True
            case Send():
                return self._send(step)
        return None

    def _try(self, max_length: int) -> tuple[ReadLineResult, bytes]:
        line = self.incoming.answer(Request("recv_line", max_length))
        if line:
            assert isinstance(line, bytes)
            return ReadLineResult.FULL_LINE, line
        if line is not None:
            return ReadLineResult.DISCONNECTED, self.incoming.data
        some = ReadLineResult.PARTIAL_LINE if self.incoming.data else ReadLineResult.NONE
        return some, self.incoming.data

    def _send(self, step: Send) -> object:
        if step.data and (self._shut or self._gone):
            if step.method == "try_send":
                return False
            quiet = step.method == "send" and SAFE_DISCONN in step.flags and not self._shut
            return None if quiet else Failure(BrokenPipeError, None)
        self._outgoing += step.data
        return {"send": None, "send_some": len(step.data), "try_send": True}[step.method]


class _Played:
    """The common part of the players of the real flavours: a peer that does its steps of the script."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._heard = b""
        peer.setblocking(False)

    def heard(self) -> bytes:
        if self._peer.fileno() >= 0:
            with contextlib.suppress(ConnectionResetError):
                self._heard += drain(self._peer)
        return self._heard

    def _by_peer(self, step: Step) -> bool:
        """Play a step of the peer; return False for a step of the socket."""
        match step:
            case Arrive(data):
                with contextlib.suppress(OSError):  # it has ended before, or we have closed
                    self._peer.send(data)
            case End():
                with contextlib.suppress(OSError):
                    self._peer.shutdown(socket.SHUT_WR)
            case Vanish():
                self.heard()  # a Unix socket that is closed with unread bytes resets the connection
                self._peer.close()
            case _:
                return False
        return True


def first_of_frames(sock: Socket, request: Request, timeout: float | None) -> object:
    return next(sock.frames(**request.framing._asdict(), timeout=timeout, flags=request.flags), b"")


async def first_of_async_frames(sock: AsyncSocket, request: Request, timeout: float | None) -> object:
    frames = sock.frames(**request.framing._asdict(), timeout=timeout, flags=request.flags)
    return await anext(frames, b"")


def fill(sock: Socket, request: Request, timeout: float | None) -> bytes:
    view = sock.fill(request.size, timeout)
    sock.consume(request.used)
    return bytes(view[: request.size])


async def fill_async(sock: AsyncSocket, request: Request, timeout: float | None) -> bytes:
    view = await sock.fill(request.size, timeout)
    sock.consume(request.used)
    return bytes(view[: request.size])


def call_for(step: Step, sock: Any, timeout: float | None) -> Callable[[], Any]:
    """The method of either flavour that a step of the socket stands for."""
    match step:
        case Ask(Request("plain_line", size)):
            return lambda: sock.recv_line(timeout, max_length=size)
        case Ask(Request("recv_line", size, flags, _, on_long)):
            return lambda: sock.recv_line(timeout, flags, size, on_long=on_long)
        case Ask(Request("recv_until", size, _, delimiter)):
            return lambda: sock.recv_until(delimiter, size, timeout)
        case Ask(Request("unread") as request):
            return lambda: sock.unread(request.data) or b""
        case Ask(Request("recv_struct") as request):
            return lambda: sock.recv_struct(request.framing.header, timeout)
        case Ask(Request("recv_frame") as request):
            return lambda: sock.recv_frame(**request.framing._asdict(), timeout=timeout)
        case Ask(Request("frames") as request):
            frames = first_of_frames if isinstance(sock, Socket) else first_of_async_frames
            return lambda: frames(sock, request, timeout)
        case Ask(Request("fill") as request):
            filled = fill if isinstance(sock, Socket) else fill_async
            return lambda: filled(sock, request, timeout)
        case Ask(Request("recv" | "recv_some" as kind, size, flags)):
            return lambda: getattr(sock, kind)(size, timeout, flags)
        case Ask(Request(kind, size)):
            return lambda: getattr(sock, kind)(size, timeout)
        case Try(max_length):
            return lambda: sock.try_recv_line(max_length)
        case Send("send", data, flags):
            return lambda: sock.send(data, flags, timeout)
        case Send("send_some", data):
            return lambda: sock.send_some(data, timeout)
        case Send("try_send", data):
            return lambda: sock.try_send(data)
        case Shut():
            return lambda: sock.shutdown_write(timeout)
        case _:
            return sock.close


@contextlib.contextmanager
def outcomes_of(step: Step) -> Iterator[list[object]]:
    """A block whose errors are outcomes, as ``Failure``; "not yet" is None."""
    outcome: list[object] = []
    try:
        yield outcome
        if isinstance(step, Ask) and step.request.kind == "skip":
            outcome[0] = b""  # it returns nothing, as no other read does
    except SocketTimeout as error:
        outcome.append(None if isinstance(step, Ask) else Failure(SocketTimeout, error.errno))
    except EndOfStreamError as error:
        outcome.append(Failure(EndOfStreamError, error.partial))
    except LineTooLongError as error:
        outcome.append(Failure(LineTooLongError, error.limit))
    except FrameError as error:
        outcome.append(Failure(type(error), error.size))
    except (ClosedError, BrokenPipeError, Refused) as error:
        outcome.append(Failure(type(error), None))


class Blocking(_Played):
    """The blocking flavour."""

    def __init__(self, ours: socket.socket, peer: socket.socket, **options: Any) -> None:
        super().__init__(peer)
        self.sock = Socket.from_socket(ours, **options)

    async def play(self, step: Step, timeout: float | None = 0) -> object:
        if self._by_peer(step):
            return None
        with outcomes_of(step) as outcome:
            outcome.append(call_for(step, self.sock, timeout)())
        return outcome[0]


class Async(_Played):
    """The async flavour."""

    def __init__(self, ours: socket.socket, peer: socket.socket, **options: Any) -> None:
        super().__init__(peer)
        self.sock = AsyncSocket.from_socket(ours, **options)

    async def play(self, step: Step, timeout: float | None = 0) -> object:
        if self._by_peer(step):
            return None
        with outcomes_of(step) as outcome:
            given = call_for(step, self.sock, timeout)()
            outcome.append(await given if asyncio.iscoroutine(given) else given)
        return outcome[0]


def depends_on_the_cut(step: Step, *, buffered: bool) -> bool:
    """Whether a read returns the result of one system call, or bytes left by the one before."""
    return isinstance(step, Ask) and (
        step.request.kind == "recv_some" or (step.request.kind == "recv" and not buffered)
    )


def check_some(request: Request, outcome: object, incoming: NaiveStream) -> object:
    """Check an answer that depends on the cut, let the model follow it, and return it."""
    if incoming.data and request.size:
        assert isinstance(outcome, bytes)
        assert outcome == incoming.data[: min(request.size, max(1, len(outcome)))]
        if SocketFlag.PEEK not in request.flags:
            incoming.data = incoming.data[len(outcome) :]
    else:
        assert outcome == (b"" if incoming.ended or not request.size else None)
    return outcome


async def agree(script: list[Step], *, buffered: bool, patient: bool) -> None:
    """Play a script to all three, and compare after every step."""
    world = World(buffered=buffered)
    with contextlib.ExitStack() as stack:
        players = []
        for kind in (Blocking, Async):
            ours, peer = socket.socketpair()
            stack.enter_context(peer)
            player = kind(ours, peer, buffered=buffered)
            stack.callback(player.sock.close)
            players.append(player)
        for step in script:
            incoming = NaiveStream(buffered=buffered)
            vars(incoming).update(vars(world.incoming))
            expected = await world.play(step)
            not_yet = isinstance(step, Ask) and expected is None
            timeout = None if patient and not not_yet else 0
            outcomes = [await player.play(step, timeout) for player in players]
            if depends_on_the_cut(step, buffered=buffered) and not isinstance(expected, Failure):
                assert isinstance(step, Ask)
                expected = check_some(step.request, outcomes[0], incoming)
                world.incoming.data = incoming.data
            elif isinstance(step, Ask) and step.request.kind == "skip" and isinstance(expected, bytes):
                expected = b""
            assert outcomes == [expected] * 2, step
            assert [player.heard() for player in players] == [world.heard()] * 2
        blocking, concurrent = (player.sock for player in players)
        assert blocking.has_data_buffered == concurrent.has_data_buffered
        assert blocking.is_closed == concurrent.is_closed


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # `way` is a constant
@given(script=SCRIPTS, patient=st.booleans())
def test_both_flavours_and_a_plain_stream_agree(way: Way, script: list[Step], patient: bool) -> None:
    with small_thresholds():
        way.run(lambda: agree(script, buffered=True, patient=patient), thorough=False)


UNBUFFERED = SCRIPTS.map(
    lambda script: [
        step for step in script if not (isinstance(step, Ask) and SocketFlag.PEEK in step.request.flags)
    ]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=UNBUFFERED, patient=st.booleans())
def test_both_flavours_and_a_plain_stream_agree_unbuffered(
    way: Way, script: list[Step], patient: bool
) -> None:
    way.run(lambda: agree(script, buffered=False, patient=patient), thorough=False)


def test_the_script_has_what_it_says() -> None:
    """So that the tests above are about something: a run of lines reaches the fast lane."""
    script: list[Step] = [Arrive(b"line\n" * 50), *[Ask(PLAIN_LINE)] * 50, End(), Ask(PLAIN_LINE)]
    with small_thresholds():
        WAYS[0].run(lambda: agree(script, buffered=True, patient=False))
