"""The owner of a descriptor: the process, the loop. The rights of signal handlers, finalizers and forked children."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any

import pytest

from tests.asyncnet.loops import WAYS, Way, spy, turns
from tests.asyncnet.streams import (
    drain,
    drain_until,
    is_interrupted_at_line,
    narrow_wire,
    open_descriptors,
    wire,
)
from tests.asyncnet.test_fairness import POLLING, program
from tests.tls import certificates
from wireline import ClosedError, SocketFlag, SocketTimeout
from wireline._os.passed_fds import Receiver
from wireline._os.process import process
from wireline.asyncnet import AsyncSocket
from wireline.asyncnet._stream_io import StreamIO
from wireline.tls import Handshake, SslContext

polled = pytest.mark.parametrize("way", [way for way in WAYS if not way.portable], ids=lambda way: way.name)
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")

RUN = """
import asyncio, contextlib, gc, os, socket, sys
from wireline.asyncnet import AsyncSocket

def run(main):
    if sys.argv[1] == "uvloop":
        import uvloop
        return uvloop.run(main)
    return asyncio.run(main)

def new_loop():
    if sys.argv[1] == "uvloop":
        import uvloop
        return uvloop.new_event_loop()
    return asyncio.new_event_loop()

def in_child(act):
    pid = os.fork()
    if not pid:
        code = 1
        try:
            act()
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
"""

# -------------------------------------------------------------------------------------------------- forks


async def test_FA5_close_in_another_process_closes_the_descriptor(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    with wire() as (sock, _):
        fd = sock.fileno()
        await sock.send(b"x")
        with monkeypatch.context() as patch:
            patch.setattr(process, "epoch", object())
            sock.close()
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)


@forks
@pytest.mark.parametrize("loop", POLLING)
@pytest.mark.parametrize("act", ["sock.close()", "sock.close(linger=0)", "drop()"])
def test_a_child_that_closes_its_copy_is_not_noticed_by_the_parent(loop: str, act: str) -> None:
    """FA5(d): it took the descriptor out of the epoll that it shares, and the parent's reader was never woken."""
    out = program(
        RUN
        + """
async def main():
    ours, peer = socket.socketpair()
    other_ours, other_peer = socket.socketpair()
    socks = [AsyncSocket.from_socket(ours), AsyncSocket.from_socket(other_ours)]
    reading = [asyncio.create_task(sock.recv_line()) for sock in socks]
    for _ in range(3):
        await asyncio.sleep(0)
    def act():
        import warnings
        warnings.simplefilter("ignore")
        sock = socks[0]
        def drop():
            type(sock).__del__(sock)
        ACT
        os.write(1, b"child\\n")
    in_child(act)
    peer.send(b"one\\n")
    other_peer.send(b"two\\n")
    print(await asyncio.wait_for(asyncio.gather(*reading), 5))
    in_child(lambda: [sock.close() for sock in socks])
    peer.send(b"more\\n")
    print(await asyncio.wait_for(socks[0].recv_line(), 5))
    for sock in socks:
        sock.close()
    assert peer.recv(1) == b""
run(main())
""".replace("ACT", act),
        loop,
    )
    assert out == "child\n[b'one', b'two']\nb'more'\n"


@forks
@pytest.mark.parametrize("loop", POLLING)
@pytest.mark.parametrize("adopts", ["sock.adopt()", "pass"])
def test_a_child_goes_on_with_a_socket_in_a_loop_of_its_own(loop: str, adopts: str) -> None:
    """FA5(d), P3: the socket belonged to the parent's loop for good."""
    out = program(
        RUN
        + """
ours, peer = socket.socketpair()
sock = AsyncSocket.from_socket(ours)
loop = new_loop()

async def first():
    assert await sock.recv_line() == b"one"
    waiting = asyncio.create_task(sock.recv_line())  # the child finds a reader of the parent's
    await asyncio.sleep(0)
    return waiting

peer.send(b"one\\n")
waiting = loop.run_until_complete(first())

def child():
    async def main():
        ADOPTS
        peer.send(b"two\\n")
        print(await sock.recv_line(5))
        await sock.send(b"three")
        reading = asyncio.create_task(sock.recv_line())
        await asyncio.sleep(0)
        sock.close()
        try:
            await reading
        except OSError as error:
            print(type(error).__name__, flush=True)
    run(main())

in_child(child)
assert peer.recv(10) == b"three"
peer.send(b"four\\n")

async def last():
    print(await asyncio.wait_for(waiting, 5))

loop.run_until_complete(last())
sock.close()
loop.close()
""".replace("ADOPTS", adopts),
        loop,
    )
    assert out == "b'two'\nClosedError\nb'four'\n"


# ------------------------------------------------------------------------------------ closing at any bytecode

OURS = {
    "_dispatch",
    "_either",
    "__call__",
    "wake",
    "wake_with",
    "_finish_first",
    "_on_ready",
    "_expire",
    "arm",
    "release",
    "acquire",
    "wait",
    "watch",
    "_begin",
    "_unwatch",
    "unwatch",
    "_forget",
    "_watch",
    "recv_line",
    "send",
    "_send_remaining",
    "_acquire_write_lock",
    "_ask",
    "_wait_for",
}


class Interruption:
    """Call ``act`` before the n-th opcode of our functions, as a signal handler may be called there."""

    def __init__(self, number: int, act: Callable[[], object]) -> None:
        self._left = number
        self._act = act
        self.happened = False

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        code = frame.f_code
        if event == "call":
            if code.co_name in OURS and "/wireline/asyncnet/" in code.co_filename:
                frame.f_trace_opcodes = True
                return self._trace
            return None
        if event == "opcode" and not self.happened:
            self._left -= 1
            if self._left < 0:
                self.happened = True
                before = sys.gettrace()
                sys.settrace(None)
                self._act()
                sys.settrace(before)
        return self._trace

    @contextlib.contextmanager
    def armed(self) -> Iterator[None]:
        before = sys.gettrace()
        sys._getframe().f_trace_opcodes = True  # 3.12 looks for it when tracing begins, and not later
        sys.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(before)


Scene = Callable[[AsyncSocket, socket.socket], Coroutine[Any, Any, list[object]]]


async def outcome(call: Coroutine[Any, Any, object]) -> object:
    try:
        return await call
    except (ClosedError, SocketTimeout) as error:
        return type(error)


async def finished(tasks: list[asyncio.Task[object]]) -> list[object]:
    _, pending = await asyncio.wait(tasks, timeout=5)
    assert not pending, f"asleep forever: {pending}"
    return [task.result() for task in tasks]


def say(peer: socket.socket, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):  # our copy was closed before
        peer.send(data)


async def lines_arrive(sock: AsyncSocket, peer: socket.socket) -> list[object]:
    reading = asyncio.create_task(outcome(sock.recv_line()))
    await turns(1)
    say(peer, b"one\n")
    await turns(3)
    second = asyncio.create_task(outcome(sock.recv_line(50)))
    await turns(1)
    say(peer, b"two\nthree\n")
    return await finished([reading, second])


async def time_runs_out(sock: AsyncSocket, peer: socket.socket) -> list[object]:
    reading = asyncio.create_task(outcome(sock.recv_line(0.0005)))
    return await finished([reading])


async def writers_wait(sock: AsyncSocket, peer: socket.socket) -> list[object]:
    writing = [asyncio.create_task(outcome(sock.send(bytes(40_000), timeout=50))) for _ in range(2)]
    for _ in range(200):
        if all(task.done() for task in writing):
            break
        with contextlib.suppress(ConnectionError):
            drain(peer)
        await turns(1)
    return await finished(writing)


ALLOWED = {None, b"one", b"two", ClosedError, SocketTimeout}


@polled
@pytest.mark.parametrize("scene", [lines_arrive, time_runs_out, writers_wait])
def test_close_at_every_opcode_wakes_every_task_and_closes(way: Way, scene: Scene) -> None:
    """P4: ``close`` in a signal handler, while a callback was half done, left tasks asleep, or a stale number."""
    opcodes = 0
    stride = {lines_arrive: 1, time_runs_out: 1, writers_wait: 7}[scene]

    async def once(number: int) -> bool:
        before = open_descriptors()
        with narrow_wire() if scene is writers_wait else wire() as (sock, peer):
            heirs: list[socket.socket] = []

            def act() -> None:
                sock.close()
                heirs.extend(socket.socketpair())  # the number is another one's at once

            interruption = Interruption(number, act)
            with interruption.armed():
                results = await scene(sock, peer)
            assert set(map(_hashable, results)) <= ALLOWED, results
            if interruption.happened:
                assert sock.is_closed
                with pytest.raises(ClosedError):
                    await sock.recv_line()
                with pytest.raises(ClosedError):
                    await sock.send(b"x")
                heirs[1].send(b"for the heir")
                await turns(2)
                heirs[0].setblocking(False)
                assert heirs[0].recv(100) == b"for the heir"
            else:
                assert ClosedError not in results
            for heir in heirs:
                heir.close()
        await turns(3)
        assert not spy().watched, number
        assert not spy().timers(), number
        assert open_descriptors() <= before
        return interruption.happened

    async def main() -> None:
        nonlocal opcodes
        while await once(opcodes):
            opcodes += stride

    way.run(main, thorough=False)
    assert opcodes > 100


@polled
def test_P5_an_exception_at_every_line_before_a_read_sleeps_leaves_the_socket_readable(way: Way) -> None:
    """``KeyboardInterrupt`` on trio, after the core was taken: every later read was refused with ``BusyError``.

    After the registration with the poller every later read failed with ``FileExistsError``.
    """
    lines = 0

    async def is_interrupted() -> bool:
        with wire() as (sock, peer):
            functions = ("ReadWaiter.wait", "FdPoller.watch", "FdPoller._begin")
            interrupted = is_interrupted_at_line(sock.recv_line(50), lines, functions)
            say(peer, b"line\n")
            assert await sock.recv_line(5) == b"line"
            return interrupted

    async def main() -> None:
        nonlocal lines
        while await is_interrupted():
            lines += 1

    way.run(main, thorough=False)
    assert lines > 10


@polled
def test_P5_an_exception_at_every_line_before_a_send_waits_leaves_the_socket_writable(way: Way) -> None:
    """``KeyboardInterrupt`` on trio, after the lock was taken: every later send waited for it."""
    lines = 0

    async def is_interrupted() -> bool:
        with narrow_wire() as (sock, peer):
            functions = ("StreamIO.send_locked", "StreamIO._send_rest_of")
            interrupted = is_interrupted_at_line(sock.send(bytes(1_000_000)), lines, functions)
            drain(peer)
            await sock.send(b"more", timeout=5)
            return interrupted

    async def main() -> None:
        nonlocal lines
        while await is_interrupted():
            lines += 1

    way.run(main, thorough=False)
    assert lines > 5


async def test_P5_an_exception_where_the_lock_is_released_leaves_the_socket_writable(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(Exception):
        pass

    def interrupted(*_: object) -> None:
        monkeypatch.undo()
        raise Interrupted

    with narrow_wire() as (sock, peer):
        sending = asyncio.create_task(sock.send(bytes(200_000)))
        await turns(3)
        assert not sending.done()
        monkeypatch.setattr(StreamIO, "release_write_lock", interrupted)
        await drain_until(peer, sending.done)
        with pytest.raises(Interrupted):
            await sending
        await sock.send(b"more", timeout=5)


@polled
def test_P4_a_close_at_every_line_of_a_decryption_is_a_closed_error(way: Way) -> None:
    """``close`` in a signal handler, while a callback decrypted, made the read fail with an ``SSLEOFError``."""
    lines = left = 0
    socks: list[AsyncSocket] = []

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if event == "call":
            return trace if frame.f_code.co_qualname == "TlsCore.feed_some" else None
        left -= event == "line"
        if left < 0:
            sys.settrace(None)
            socks[0].close()
            return None
        return trace

    async def is_closed_early(server: SslContext, client: SslContext, flags: SocketFlag) -> bool:
        ours, theirs = map(AsyncSocket.from_socket, socket.socketpair())
        await asyncio.gather(
            server.wrap_connected_async(ours, Handshake.AS_SERVER),
            client.wrap_connected_async(theirs, Handshake.AS_CLIENT, "localhost"),
        )
        socks[:] = [ours]
        with contextlib.closing(ours), contextlib.closing(theirs):
            for end, other in ((ours, theirs), (theirs, ours)):  # after that, a record is the usual case
                await end.send(b"line\n")
                await other.recv_line(5)
            reading = asyncio.create_task(outcome(ours.recv_line(5, flags)))
            await turns(2)
            await theirs.send(b"line\n")
            before = sys.gettrace()
            sys.settrace(trace)
            await turns(2)
            sys.settrace(before)
            assert await reading in ((ClosedError, b"line") if ours.is_closed else (b"line",))
            return ours.is_closed

    async def main() -> None:
        nonlocal lines, left
        leaf = certificates.server()
        server = SslContext(cert_file=leaf.cert, key_file=leaf.key)
        client = SslContext(ca_file=certificates.ca_file())
        for flags in (SocketFlag(0), SocketFlag.SAFE_DISCONN):
            left = lines = 0
            while await is_closed_early(server, client, flags):
                left = lines = lines + 1

    way.run(main, thorough=False)
    assert lines > 10


def _hashable(result: object) -> Any:
    return result


@polled
@pytest.mark.stress
def test_close_in_a_real_signal_handler_at_a_high_rate(way: Way) -> None:
    """P4: the same by real signals, at moments of their own choice."""
    if not hasattr(signal, "setitimer"):
        pytest.skip("no interval timer")
    victims: list[AsyncSocket] = []
    closed = 0

    def handler(*_: object) -> None:
        nonlocal closed
        if victims:
            victims.pop().close()
            closed += 1

    async def main() -> None:
        until = time.monotonic() + 3
        while time.monotonic() < until:
            with wire() as (sock, peer), wire() as (bystander, its_peer):
                victims[:] = [sock]
                reading = asyncio.create_task(outcome(_reads_on(sock)))
                other = asyncio.create_task(outcome(bystander.recv_exactly(100)))
                while not reading.done():
                    with contextlib.suppress(BlockingIOError):
                        say(peer, b"line\n")
                    await turns(1)
                assert await reading is ClosedError
                its_peer.send(bytes(100))
                assert await asyncio.wait_for(other, 5) == bytes(100)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0007)
    try:
        way.run(main, thorough=False)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert closed > 100


async def _reads_on(sock: AsyncSocket) -> None:
    while True:
        await sock.recv_line()
        await sock.send(b"answer\n")


# --------------------------------------------------------------------------------------------- the collector


@pytest.mark.parametrize("loop", POLLING)
def test_sockets_in_cycles_are_collected_at_any_allocation(loop: str) -> None:
    """FA2, P2: finalizers that run inside the library's own calls neither hang nor leak."""
    out = program(
        RUN
        + """
import warnings
warnings.simplefilter("ignore", ResourceWarning)

class Ring:
    pass

async def main():
    before = len(os.listdir("/proc/self/fd"))
    kept, kept_peer = socket.socketpair()
    keeper = AsyncSocket.from_socket(kept)
    gc.set_threshold(1)
    peers = []
    for number in range(300):
        ours, peer = socket.socketpair()
        peer.setblocking(False)
        sock = AsyncSocket.from_socket(ours)
        ring = Ring()
        ring.sock, ring.self = sock, ring
        peer.send(b"line\\n")
        assert await sock.recv_line() == b"line"
        with contextlib.suppress(TimeoutError):
            await sock.recv_line(0.0001)
        await sock.send(b"x")
        peers.append(peer)
        del ours, sock, ring
        kept_peer.send(b"%d\\n" % number)
        assert await keeper.recv_line() == b"%d" % number
    gc.set_threshold(700)
    gc.collect()
    for _ in range(3):
        await asyncio.sleep(0)
    for peer in peers:
        assert peer.recv(2) == b"x"
        assert peer.recv(2) == b""
        peer.close()
    keeper.close()
    kept_peer.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    left = len(os.listdir("/proc/self/fd")) - before
    print("left", left)
run(main())
""",
        loop,
        seconds=50,
    )
    assert out == "left 0\n"


@polled
async def test_closing_thousands_in_one_turn_is_linear(way: Way) -> None:
    """R13, P1: counted in calls, for time says nothing on a shared machine."""

    async def calls_for(count: int) -> int:
        pairs = [socket.socketpair() for _ in range(count)]
        socks = [AsyncSocket.from_socket(ours) for ours, _ in pairs]
        reading = [asyncio.create_task(outcome(sock.recv_line())) for sock in socks]
        await turns(2)
        calls = 0

        def count_calls(*_: object) -> None:
            nonlocal calls
            calls += 1

        sys.setprofile(count_calls)
        for sock in socks:
            sock.close()
        await turns(2)
        sys.setprofile(None)
        assert [task.result() for task in reading] == [ClosedError] * count
        for _, peer in pairs:
            peer.close()
        return calls

    few, many = await calls_for(50), await calls_for(1000)
    assert many < 22 * few


# ------------------------------------------------------------------------------------------------ the poller


@polled
async def test_an_exception_of_one_callback_takes_no_event_from_the_others(way: Way) -> None:
    """R13: the sockets behind it in the same turn were not read, and one that always fails starved them."""
    with wire() as (first, first_peer), wire() as (second, second_peer), wire() as (third, third_peer):
        socks = [first, second, third]
        reading = [asyncio.create_task(sock.recv_line()) for sock in socks]
        await turns(2)
        state = second._fd.port
        fd = second.fileno()
        real = state._readers[fd]

        def fails() -> None:
            raise ValueError("a fault of the test")

        state._readers[fd] = fails
        for peer in (first_peer, second_peer, third_peer):
            peer.send(b"line\n")
        await turns(3)
        assert [task.done() for task in reading] == [True, False, True]
        loop = spy()
        assert loop.unhandled
        assert all(isinstance(context["exception"], ValueError) for context in loop.unhandled)
        loop.unhandled.clear()
        state._readers[fd] = real
        assert await reading[1] == b"line"


@polled
@pytest.mark.parametrize("error", [ValueError, KeyError])
async def test_an_exception_between_the_kernel_and_the_task_is_not_silent(
    way: Way, error: type[Exception]
) -> None:
    """FA7, FB15: the task that waits slept forever, and the bytes were gone."""

    class Interrupted:
        """A socket whose ``recv`` is interrupted when it has received."""

        def __init__(self, source: Receiver) -> None:
            self._source = source

        def recv(self, size: int, flags: int, /) -> bytes:
            self._source.recv(size, flags)
            raise error("from a signal handler")

    with wire() as (sock, peer), wire() as (other, other_peer):
        reading = asyncio.create_task(sock.recv_line())
        bystander = asyncio.create_task(other.recv_line())
        await turns(2)
        reader = sock._fd.read_waiter
        assert reader is not None
        real = reader._source
        reader._source = Interrupted(real)
        peer.send(b"lost\n")
        with pytest.raises(error, match="signal handler"):
            await asyncio.wait_for(reading, 5)
        reader._source = real
        peer.send(b"not the next line\n")
        for _ in range(2):
            with pytest.raises(OSError, match="may be lost"):
                await sock.recv_line()
        other_peer.send(b"unharmed\n")
        assert await bystander == b"unharmed"


@polled
@pytest.mark.parametrize("code", ["ENOSPC", "ENOMEM"])
async def test_a_poller_that_refuses_a_descriptor_fails_one_read_and_leaves_nothing(
    way: Way, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R13: an error of ``epoll_ctl`` belongs to the one call that it happened to."""
    import errno

    from wireline.asyncnet import _poller

    class Full:
        full = False

        def __init__(self, real: Callable[[], Any] = _poller.select.epoll) -> None:
            self._epoll = real()

        def register(self, fd: int, events: int) -> None:
            if Full.full:
                raise OSError(getattr(errno, code), "no room")
            self._epoll.register(fd, events)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._epoll, name)

    monkeypatch.setattr(_poller.select, "epoll", Full)
    with wire() as (first, first_peer), narrow_wire() as (second, second_peer):
        reading = asyncio.create_task(first.recv_line())
        await turns(2)
        Full.full = True
        for _ in range(2):
            with pytest.raises(OSError, match="no room"):
                await second.recv_line()
            with pytest.raises(OSError, match="no room"):
                await second.send(bytes(1_000_000))
        Full.full = False
        first_peer.send(b"unharmed\n")
        assert await reading == b"unharmed"
        second_peer.send(b"again\n")
        assert await second.recv_line() == b"again"


def test_a_registration_that_was_cut_in_two_is_dropped_by_the_next_event() -> None:
    """R13: else the poller would report it without end, at 100 % of a processor."""
    way = WAYS[0]

    async def main() -> None:
        with wire() as (sock, peer), wire() as (other, other_peer):
            peer.send(b"line\n")
            reading = asyncio.create_task(sock.recv_line())
            waiting = asyncio.create_task(other.recv_line())
            await reading
            state = sock._fd.port
            assert state._epoll is not None
            state._readers.pop(sock.fileno())
            peer.send(b"x\n")
            await turns(3)
            assert (sock.fileno(), 1) not in state._epoll.poll(0)
            other_peer.send(b"y\n")
            assert await waiting == b"y"

    way.run(main)
    gc.collect()
