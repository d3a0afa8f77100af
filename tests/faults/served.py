"""A program: scenes in which signals and forks meet a server. A scene that fails may hang, so each runs in a process.

It is started with the name of the scene, and with the path of a certificate and of its key for TLS, and says ``ok``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import os
import random
import signal
import socket
import ssl
import struct
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from wireline import Address, asyncnet, net
from wireline.asyncnet import AsyncSocket
from wireline.net import Socket
from wireline.tls import SslContext, VerifyMode

LOOPBACK = "127.0.0.1"

LIMIT = 5.0
"""Seconds below which "at once" has happened, on a loaded machine too. A drain that is cut short has ten times as many.
"""

LONG = 50.0
"""Seconds of a drain that is to be cut short."""

BRIEF = 0.002
"""Seconds of a drain that is to be had."""

STRIDE = int(os.environ.get("SCENE_STRIDE", "1"))
"""Each how manieth bytecode is tried."""

ROUNDS = 40
"""How often signals arrive at a random moment. A guess: as many as fit into a second."""

_scenes: dict[str, Callable[[], None]] = {}

_files = sys.argv[2:] if __name__ == "__main__" else []
_server_tls = SslContext(cert_file=_files[0], key_file=_files[1]) if _files else None
_client_tls = SslContext(verify_mode=VerifyMode.NONE) if _files else None


def scene(function: Callable[[], None]) -> Callable[[], None]:
    _scenes[function.__name__] = function
    return function


def echo(client: Socket, _: Address) -> None:
    for line in client.lines():
        client.send(line + b"\n")


async def echo_task(client: AsyncSocket, _: Address) -> None:
    async for line in client.lines():
        await client.send(line + b"\n")


def serve(**options: Any) -> net.Server:
    return net.serve(echo, 0, LOOPBACK, tls=_server_tls, **options)


def serve_async(**options: Any) -> asyncnet.StartingServer:
    return asyncnet.serve(echo_task, 0, LOOPBACK, tls=_server_tls, **options)


def dial(server: net.Server) -> Socket:
    return net.dial(*server.local_addr, tls=_client_tls, timeout=LIMIT)


async def dial_async(server: asyncnet.Server) -> AsyncSocket:
    return await asyncnet.dial(*server.local_addr, tls=_client_tls, timeout=LIMIT)


def ask(sock: Socket, line: bytes = b"hello") -> None:
    sock.send(line + b"\n", timeout=LIMIT)
    answer = sock.recv_line(LIMIT)
    assert answer == line, answer


async def ask_async(sock: AsyncSocket, line: bytes = b"hello") -> None:
    await sock.send(line + b"\n", timeout=LIMIT)
    answer = await sock.recv_line(LIMIT)
    assert answer == line, answer


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    began = time.monotonic()
    yield
    seconds = time.monotonic() - began
    assert seconds < LIMIT, f"it took {seconds:.1f} s"


# ---------------------------------------------------------------------------------------- signals at random moments


@contextlib.contextmanager
def signalled_twice(handle: Callable[[], object]) -> Iterator[Callable[[], None]]:
    """Call ``handle`` in a signal handler, twice. Yields a function that sends the first signal, a moment later.

    If the second signal interrupts the first handler before that has made its request, it counts as the first, and a
    third one arrives.
    """
    count = 0

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        second = count > 1
        handle()
        if second:
            signal.setitimer(signal.ITIMER_REAL, 0)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        yield lambda: signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 2e-3), 2e-3)
        while count < 2:  # the server was done before the second arrived
            time.sleep(1e-3)
    finally:
        signal.signal(signal.SIGALRM, before)


def _twice(ask_for: Callable[[net.Server], object], wait: Callable[[net.Server], object]) -> None:
    for _ in range(ROUNDS):
        server = serve()
        with dial(server) as sock, at_once():
            ask(sock)
            with signalled_twice(lambda: ask_for(server)) as go:  # noqa: B023 -- over before the next
                go()
                wait(server)
                server.wait()
                assert server.stop() in [(0, 1), (1, 0)]


@scene
def stop_twice_while_it_waits() -> None:
    _twice(lambda server: server.stop(LONG), lambda server: server.wait())


@scene
def stop_twice_while_it_drains() -> None:
    _twice(lambda server: server.stop(LONG), lambda server: server.stop(LONG))


@scene
def request_twice_while_it_waits() -> None:
    _twice(lambda server: server.request_stop(LONG), lambda server: server.wait())


@scene
def request_twice_while_it_drains() -> None:
    _twice(lambda server: server.request_stop(LONG), lambda server: server.stop(LONG))


async def _twice_async(wait: Callable[[asyncnet.Server], Any]) -> None:
    for _ in range(ROUNDS):
        server = await serve_async()
        async with await dial_async(server) as sock:
            await ask_async(sock)
            with at_once(), signalled_twice(lambda: server.request_stop(LONG)) as go:  # noqa: B023 -- over before the next
                go()
                await wait(server)
                await server.wait()
                assert await server.stop() in [(0, 1), (1, 0)]


@scene
def async_request_twice_while_it_waits() -> None:
    asyncio.run(_twice_async(lambda server: server.wait()))


@scene
def async_request_twice_while_it_drains() -> None:
    asyncio.run(_twice_async(lambda server: server.stop(LONG)))


@scene
def uvloop_request_twice_while_it_waits() -> None:
    import uvloop

    uvloop.run(_twice_async(lambda server: server.wait()))


def _signal_another_thread(wait: Callable[[net.Server], object]) -> None:
    """The kernel may give a signal to any thread, and does not end the wait of the main one, which runs the handler."""
    server = serve()
    before = signal.signal(signal.SIGALRM, lambda number, frame: server.request_stop())
    with dial(server) as sock:
        ask(sock)
        thread = threading.Timer(0.1, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGALRM))
        thread.start()
        with at_once():
            wait(server)
        assert server.stop() == (0, 1)
        thread.join()
    signal.signal(signal.SIGALRM, before)


@scene
def another_thread_gets_the_signal_while_it_waits() -> None:
    _signal_another_thread(lambda server: server.wait(LONG))


@scene
def another_thread_gets_the_signal_while_it_drains() -> None:
    _signal_another_thread(lambda server: server.stop(LONG))


@scene
def once_is_graceful() -> None:
    server = serve()
    before = signal.signal(signal.SIGTERM, lambda number, frame: server.request_stop(LONG))
    with dial(server) as sock:
        ask(sock)
        os.kill(os.getpid(), signal.SIGTERM)
        ask(sock, b"it is served to its end")
        sock.shutdown_write()
        with at_once():
            server.wait()
        assert server.stop() == (1, 0)
    signal.signal(signal.SIGTERM, before)


@scene
def async_once_is_graceful() -> None:
    async def main() -> None:
        async with serve_async() as server, await dial_async(server) as sock:
            before = signal.signal(signal.SIGTERM, lambda number, frame: server.request_stop(LONG))
            await ask_async(sock)
            os.kill(os.getpid(), signal.SIGTERM)
            await ask_async(sock, b"it is served to its end")
            await sock.shutdown_write()
            with at_once():
                await server.wait()
            assert await server.stop() == (1, 0)
            signal.signal(signal.SIGTERM, before)

    asyncio.run(main())


# ------------------------------------------------------------------------------------------ at every bytecode


class AtBytecode:
    """Calls something before one bytecode of the server's own code in this thread, as a signal handler would be.

    Attributes:
        reached: there was such a bytecode.
    """

    def __init__(self, number: int, call: Callable[[], object]) -> None:
        self.reached = False
        self._left = number
        self._call = call

    def __enter__(self) -> AtBytecode:
        sys._getframe().f_trace_opcodes = True  # 3.12 looks for it when tracing begins, and not later
        sys.settrace(self._trace)
        return self

    def __exit__(self, *exception: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        name = str(frame.f_globals.get("__name__"))
        if not name.startswith("wireline.") or not name.endswith(("_serve", "_server_common", "_event_log")):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._opcode

    def _opcode(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "opcode" and not self.reached:
            if self._left == 0:
                self.reached = True
                self._call()
            self._left -= 1
        return self._opcode


def _at_every_bytecode(ask_for: Callable[[net.Server], object], wait: Callable[[net.Server], object]) -> None:
    count = 0
    for number in itertools.count(0, STRIDE):
        server = serve()
        with dial(server):
            with at_once(), AtBytecode(number, lambda: ask_for(server)) as at:  # noqa: B023 -- over before the next
                wait(server)
            reached = at.reached
            with at_once():
                server.stop()
        count += reached
        if not reached:
            break
    assert count > 10 / STRIDE, count


def wait_briefly(server: net.Server) -> None:
    with contextlib.suppress(TimeoutError):  # the last bytecode is behind us, and nothing stops it
        server.wait(BRIEF)


@scene
def request_at_every_bytecode_of_wait() -> None:
    _at_every_bytecode(lambda server: server.request_stop(BRIEF), wait_briefly)


@scene
def request_at_every_bytecode_of_stop() -> None:
    _at_every_bytecode(lambda server: server.request_stop(LONG), lambda server: server.stop(BRIEF))


@scene
def stop_at_every_bytecode_of_stop() -> None:
    _at_every_bytecode(lambda server: server.stop(BRIEF), lambda server: server.stop(BRIEF))


@scene
def request_at_every_bytecode_of_a_request() -> None:
    def both(server: net.Server) -> None:
        server.request_stop(LONG)
        server.request_stop(LONG)
        server.wait()

    _at_every_bytecode(lambda server: server.request_stop(LONG), both)


async def _at_every_bytecode_async(wait: Callable[[asyncnet.Server], Any]) -> None:
    count = 0
    for number in itertools.count(0, STRIDE):
        server = await serve_async()
        async with await dial_async(server):
            with at_once(), AtBytecode(number, lambda: server.request_stop(BRIEF)) as at:  # noqa: B023 -- over before the next
                await wait(server)
            with at_once():
                await server.stop()
        count += at.reached
        if not at.reached:
            break
    assert count > 10 / STRIDE, count


@scene
def async_request_at_every_bytecode_of_wait() -> None:
    async def wait(server: asyncnet.Server) -> None:
        with contextlib.suppress(TimeoutError):
            await server.wait(BRIEF)

    asyncio.run(_at_every_bytecode_async(wait))


@scene
def async_request_at_every_bytecode_of_stop() -> None:
    asyncio.run(_at_every_bytecode_async(lambda server: server.stop(BRIEF)))


# ------------------------------------------------------------------------------------------------------ forks


def _wait_for(child: int) -> None:
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, status


@contextlib.contextmanager
def exit_at_the_end() -> Iterator[None]:
    """End the process with the block: asyncio itself changes the parent's epoll in a child."""
    code = 1
    try:
        yield
        code = 0
    finally:
        if code:
            traceback.print_exc()
        os._exit(code)


def _leave(server: net.Server, sock: Socket, how: str) -> None:
    """In the child: close the copies of the parent's sockets."""
    with at_once():
        if how == "stop":
            assert server.stop(LONG) == (0, 0)
            assert server.stop() == (0, 0)
            server.wait()
            assert server.connections == 0
        elif how == "request_stop":
            server.request_stop(LONG)
        elif how == "wait":
            with contextlib.suppress(RuntimeError):
                server.wait()
                raise AssertionError("it has waited")
    if how == "sys.exit":
        sys.exit(0)
    if how == "exception":
        raise ZeroDivisionError
    if how == "collector":
        server.__dict__.clear()
        gc.collect()


def _forked(how: str) -> None:
    with serve() as server, dial(server) as sock:
        ask(sock)
        pid = os.fork()
        if pid == 0:
            try:
                _leave(server, sock, how)
            except ZeroDivisionError:
                server.__exit__(None, None, None)
            # `sys.exit` leaves the blocks in the ordinary way, and the interpreter too.
            os._exit(0)
        _wait_for(pid)
        _all_is_well(server, sock)
        with at_once():
            assert 1 <= sum(server.stop()) <= 2


def _all_is_well(server: net.Server, sock: Socket) -> None:
    """In the parent: the child has done nothing to its clients, nor to its listener or to the thread that accepts."""
    busy = time.process_time()
    time.sleep(0.1)  # the test is about the time itself: a wake-up that is never taken makes a thread spin
    assert time.process_time() - busy < 0.08
    ask(sock, b"still here")
    with dial(server) as other:
        ask(other)


async def _forked_async(how: str) -> None:
    async with serve_async() as server, await dial_async(server) as sock:
        await ask_async(sock)
        pid = os.fork()
        if pid == 0:
            with exit_at_the_end(), at_once():
                if how == "request_stop":
                    server.request_stop(LONG)
                elif how == "wait":
                    with contextlib.suppress(RuntimeError):
                        await server.wait()
                        raise AssertionError("it has waited")
                else:
                    assert await server.stop(LONG) == (0, 0)
                    await server.wait()
                    assert server.connections == 0
        _wait_for(pid)
        await ask_async(sock, b"still here")
        async with await dial_async(server) as other:
            await ask_async(other)
        with at_once():
            assert 1 <= sum(await server.stop()) <= 2


async def _left_by_exit_async() -> None:
    pids = []
    try:
        async with serve_async() as server:
            async with await dial_async(server) as sock:
                await ask_async(sock)
                pid = os.fork()
                if pid == 0:
                    sys.exit(0)
                pids.append(pid)
                _wait_for(pid)
                await ask_async(sock, b"still here")
                async with await dial_async(server) as other:
                    await ask_async(other)
    finally:
        if not pids:
            os._exit(0)  # the child, see `exit_at_the_end`


for _how in ("stop", "request_stop", "wait", "sys.exit", "exception", "collector"):
    _scenes[f"fork_{_how}"] = lambda how=_how: _forked(how)  # type: ignore[misc]
for _how in ("stop", "request_stop", "wait"):
    _scenes[f"async_fork_{_how}"] = lambda how=_how: asyncio.run(_forked_async(how))  # type: ignore[misc]
_scenes["async_fork_sys.exit"] = lambda: asyncio.run(_left_by_exit_async())


@scene
def fork_in_a_handler() -> None:
    """A child of a handler's thread goes on with the client; the parent's handler lets go of its copy."""

    def handler(client: Socket, _: Address) -> None:
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
            return
        client.adopt()
        server.stop()
        for line in client.lines():
            client.send(line + b"\n")
        client.close()
        os._exit(0)

    server = net.serve(handler, 0, LOOPBACK)
    for _ in range(3):
        with net.dial(*server.local_addr, timeout=LIMIT) as sock:
            ask(sock)
            sock.shutdown_write()
            assert sock.recv_some(timeout=LIMIT) == b""
    with at_once():
        server.stop()


@scene
def fork_keeps_the_socket_file() -> None:
    path = os.path.join(os.environ["SCENE_DIRECTORY"], "socket")
    with net.serve(echo, 0, f"unix:{path}") as server:
        if os.fork() == 0:
            server.stop()
            sys.exit(0)
        os.wait()
        assert os.path.exists(path)
    assert not os.path.exists(path)


# -------------------------------------------------------------------------------------------------- the log

CROWD = 2300
"""Clients that make a handshake and reset, each a traceback of 300 bytes and more before."""


class _Lines(logging.Handler):
    """Counts the writes, as a file would get them."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.lines = self.counted = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.bytes += len(self.format(record)) + 1
        self.lines += 1
        self.counted += getattr(record, "left_out", 1)


def _shake_hands_and_reset(port: int, times: int) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for _ in range(times):
        with socket.create_connection((LOOPBACK, port)) as raw, context.wrap_socket(raw) as sock:
            sock.sendall(b"x\n")
            assert sock.recv(1) == b"x"
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _crowd(port: int) -> None:
    threads = [threading.Thread(target=_shake_hands_and_reset, args=(port, CROWD // 4)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _check_log(lines: _Lines, seconds: float) -> None:
    assert lines.counted == CROWD, lines.counted
    assert lines.lines <= 11 * (seconds + 2), (lines.lines, seconds)
    assert lines.bytes <= 200 * lines.lines, lines.bytes


def _logged() -> _Lines:
    lines = _Lines()
    log = logging.getLogger("wireline")
    log.addHandler(lines)
    log.setLevel(logging.INFO)
    return lines


@scene
def crowd_of_resets() -> None:
    lines, began = _logged(), time.monotonic()
    with serve() as server:
        _crowd(server.local_addr.port)
        while server.connections:
            time.sleep(0.01)
    _check_log(lines, time.monotonic() - began)


@scene
def async_crowd_of_resets() -> None:
    async def main() -> None:
        lines, began = _logged(), time.monotonic()
        async with serve_async() as server:
            await asyncio.to_thread(_crowd, server.local_addr.port)
            while server.connections:  # noqa: ASYNC110 -- nothing tells when the last one has ended
                await asyncio.sleep(0.01)
        _check_log(lines, time.monotonic() - began)

    asyncio.run(main())


if __name__ == "__main__":
    # On purpose, this program forks where there are threads, and drops a child's copies.
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.simplefilter("ignore", ResourceWarning)
    _scenes[sys.argv[1]]()
    print("ok")
