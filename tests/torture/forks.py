"""Forks at every state of a socket, a server and a linger: the parent must not notice a child's use of its copies.

A child closes or drops its inherited sockets in one of several ways, or uses them. Then the parent's connections carry
a line in both directions, its threads sleep, its Unix path is there, and the child has ended in time. The second half:
data of a child that ends in the ordinary way of its start method arrives.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import faulthandler
import gc
import itertools
import multiprocessing
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from tests.scenarios import tasks
from tests.torture import rawtls, victims, waits
from tests.torture.children import last_frames
from tests.torture.registry import Budget, Finding
from tests.torture.stage import Broken, Later, Leave, Scene, Steps, expect, peers, play, varied
from wireline import AF_INET, AF_UNIX, SOCK_DGRAM, asyncnet, net
from wireline.tls import Handshake

CHILD_MAY_TAKE = 8.0
"""Seconds that a child gets to end. It has some milliseconds of work; the rest is for a busy machine."""

IDLE = 0.2
"""Seconds in which the parent has nothing to do, and its processor time is looked at."""

BUSY = 0.04
"""Processor seconds in those that are too many. Threads that sleep take less than 0.001; one that spins on a machine
with four others that compute still gets this much."""

LEAVING = ("drops", "closes", "exits in `with`", "os._exit", "returns from main")

Things = dict[str, Any]


# ----------------------------------------------------------------------------------- the states of the blocking flavour


class State:
    """A state of sockets, in which a fork happens."""

    kinds: tuple[str, ...] = ("tcp",)
    actions: tuple[str, ...] = LEAVING

    def set_up(self, things: Things, kind: str) -> None:
        """Make the state; the library's objects are in ``things`` under ``"ours"``, a list."""
        raise NotImplementedError

    def check(self, things: Things, kind: str) -> None:
        """Check that the parent still works after the child has ended; else ``Broken``, or any other exception."""
        raise NotImplementedError

    def use(self, things: Things, kind: str) -> None:
        """In a child that goes on with it."""
        raise NotImplementedError

    def check_used(self, things: Things, kind: str) -> None:
        """Check that the parent still works after a child used it; by default only that it can be closed."""


class Fresh(State):
    def set_up(self, things: Things, kind: str) -> None:
        things["ours"] = [net.Socket()]

    def check(self, things: Things, kind: str) -> None:
        sock = things["ours"][0]
        sock.connect("127.0.0.1", victims.where()["tcp"], timeout=5)
        victims.exchange(sock)


def _bound(things: Things, kind: str) -> None:
    if kind == "unix":
        things["path"] = os.path.join(tempfile.mkdtemp(dir=victims.where()["directory"]), "s")
        listener = net.Socket(AF_UNIX)
        listener.bind_unix(things["path"])
    else:
        listener = net.Socket()
        if kind.startswith("tls"):
            victims.serving().wrap_socket(listener)
        listener.bind_addr(0, "127.0.0.1")
    things["ours"] = [listener]
    things["at"] = things.get("path") or listener.local_addr.port


def _accept_one(things: Things, kind: str, word: bytes) -> None:
    """A client is accepted by the listener and exchanges a line."""
    accepting = Later(lambda: things["ours"][0].accept(timeout=6))
    _serve_one(things, kind, word, accepting)


def _serve_one(things: Things, kind: str, word: bytes, accepting: Later) -> None:
    with victims.connect_raw(kind, things["at"]) as client:
        sock = accepting.get(8, "accept")
        with sock:
            client.sendall(word + b"\n")
            line = sock.recv_line(timeout=5)
            expect(line == word, f"the accepted connection is broken: sent {word!r}, it received {line!r}")


class Bound(State):
    kinds = ("tcp", "unix")

    def set_up(self, things: Things, kind: str) -> None:
        _bound(things, kind)

    def check(self, things: Things, kind: str) -> None:
        things["ours"][0].listen()
        _accept_one(things, kind, b"bound")


class Listening(State):
    kinds = ("tcp", "unix", "tls13")
    actions = (*LEAVING, "goes on")

    def set_up(self, things: Things, kind: str) -> None:
        _bound(things, kind)
        things["ours"][0].listen()

    def check(self, things: Things, kind: str) -> None:
        _accept_one(things, kind, b"listening")

    def use(self, things: Things, kind: str) -> None:
        _accept_one(things, kind, b"child")

    check_used = check


class Accepting(Listening):
    """A thread of the parent is in `accept`."""

    actions = LEAVING

    def set_up(self, things: Things, kind: str) -> None:
        super().set_up(things, kind)
        listener = things["ours"][0]
        things["later"] = Later(lambda: listener.accept(timeout=20))
        time.sleep(0.05)  # so that it waits; were it late, the promise would be the same

    def check(self, things: Things, kind: str) -> None:
        expect(not things["later"].done, "the thread in accept() was woken by what a child did")
        _serve_one(things, kind, b"accepting", things["later"])
        _accept_one(things, kind, b"again")


class Connecting(State):
    """A thread is in `connect`, and the listener's queue is full."""

    actions = ("drops", "closes", "exits in `with`", "returns from main")

    def set_up(self, things: Things, kind: str) -> None:
        things["listener"] = listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        things["fillers"] = []
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            things["fillers"].append(filler)
        sock = net.Socket()
        things["ours"] = [sock]
        port = listener.getsockname()[1]
        things["later"] = Later(lambda: sock.connect("127.0.0.1", port, timeout=20))
        time.sleep(0.1)

    def check(self, things: Things, kind: str) -> None:
        listener, sock = things["listener"], things["ours"][0]
        expect(not things["later"].done, "connect() ended though nothing was accepted")
        for filler in things["fillers"]:
            filler.close()
        accepted = []
        listener.settimeout(0.05)
        limit = time.monotonic() + 15
        while not things["later"].done and time.monotonic() < limit:
            with contextlib.suppress(TimeoutError):
                accepted.append(listener.accept()[0])
        things["later"].get(0.5, "connect")
        listener.settimeout(5)
        local = tuple(sock.local_addr)
        while not any(_peer_of(client) == local for client in accepted):
            accepted.append(listener.accept()[0])
        (peer,) = [client for client in accepted if _peer_of(client) == local]
        sock.send(b"there\n", timeout=5)
        expect(peer.recv(100) == b"there\n", "the new connection does not send")
        peer.sendall(b"back\n")
        expect(sock.recv_line(timeout=5) == b"back", "the new connection does not receive")
        for client in (*accepted, listener):
            client.close()


def _peer_of(client: socket.socket) -> Any:
    try:
        return client.getpeername()
    except OSError:
        return None


class Idle(State):
    kinds = victims.KINDS
    actions = (*LEAVING, "goes on")

    def set_up(self, things: Things, kind: str) -> None:
        things["ours"] = [victims.dial(kind)]
        victims.exchange(things["ours"][0])

    def check(self, things: Things, kind: str) -> None:
        victims.exchange(things["ours"][0])

    def use(self, things: Things, kind: str) -> None:
        victims.exchange(things["ours"][0], b"child")
        things["ours"][0].close()


class Reading(State):
    """A thread of the parent reads."""

    kinds = victims.KINDS

    def set_up(self, things: Things, kind: str) -> None:
        sock = victims.dial(kind)
        things["ours"] = [sock]
        things["gate"] = victims.new_gate()
        sock.send(f"gate {things['gate']} say found\n".encode())
        things["later"] = Later(lambda: sock.recv_line(timeout=25))
        time.sleep(0.05)

    def check(self, things: Things, kind: str) -> None:
        later = things["later"]
        expect(not later.done, "a thread that reads was woken by what a child did")
        victims.open_gate(things["gate"])
        line = later.get(6, "the thread that reads")
        expect(line == b"found", f"the thread that reads got {line!r}")
        victims.exchange(things["ours"][0])


class Waiting(Reading):
    """As before, but the thread has no time limit of its own: it waits in another place."""

    def set_up(self, things: Things, kind: str) -> None:
        sock = victims.dial(kind)
        things["ours"] = [sock]
        things["gate"] = victims.new_gate()
        sock.send(f"gate {things['gate']} say found\n".encode())
        things["later"] = Later(sock.recv_line)
        time.sleep(0.05)


class Writing(State):
    """A thread of the parent sends, and the peer does not read yet."""

    kinds = victims.KINDS
    size = 12_000_000

    def set_up(self, things: Things, kind: str) -> None:
        sock = victims.dial(kind)
        things["ours"] = [sock]
        things["gate"] = victims.new_gate()
        sock.send(f"gate {things['gate']} count {self.size}\n".encode())
        payload = bytes(self.size)
        things["later"] = Later(lambda: sock.send(payload, timeout=25))
        time.sleep(0.1)

    def check(self, things: Things, kind: str) -> None:
        expect(not things["later"].done, "send() ended though the peer does not read")
        victims.open_gate(things["gate"])
        things["later"].get(20, "the thread that sends")
        line = things["ours"][0].recv_line(timeout=10)
        expect(line.startswith(b"got %d " % self.size), f"the peer says: {line!r}")
        victims.exchange(things["ours"][0])


class Buffered(State):
    """Bytes were received that the program did not take yet."""

    kinds = victims.KINDS

    def set_up(self, things: Things, kind: str) -> None:
        sock = victims.dial(kind)
        things["ours"] = [sock]
        sock.send(b"multi 3\n")
        expect(sock.recv_line(timeout=5) == b"line 0", "the first line is not the first line")

    def check(self, things: Things, kind: str) -> None:
        sock = things["ours"][0]
        got = [sock.recv_line(timeout=5) for _ in range(2)]
        expect(got == [b"line 1", b"line 2"], f"what was buffered became {got!r}")
        victims.exchange(sock)


class HalfClosed(State):
    kinds = victims.KINDS

    def set_up(self, things: Things, kind: str) -> None:
        sock = victims.dial(kind)
        things["ours"] = [sock]
        things["gate"] = victims.new_gate()
        sock.send(f"finish {things['gate']}\n".encode())
        sock.shutdown_write()

    def check(self, things: Things, kind: str) -> None:
        victims.open_gate(things["gate"])
        line = things["ours"][0].recv_line(timeout=6)
        expect(line == b"bye", f"the half-closed connection got {line!r}")


class InHandshake(State):
    """A thread of the parent makes a handshake, and the server does not answer yet."""

    kinds = ("tls12", "tls13")

    def set_up(self, things: Things, kind: str) -> None:
        sock = victims.dial("tcp")
        things["ours"] = [sock]
        things["gate"] = victims.new_gate()
        sock.send(f"gate {things['gate']} tls {kind[3]}.{kind[4]}\n".encode())
        expect(sock.recv_line(timeout=5) == b"ready", "the peer is not ready for a handshake")
        context = victims.trusting()
        things["later"] = Later(
            lambda: context.wrap_connected_socket(sock, Handshake.AS_CLIENT, "localhost", timeout=25)
        )
        time.sleep(0.1)

    def check(self, things: Things, kind: str) -> None:
        expect(not things["later"].done, "the handshake ended without the server")
        victims.open_gate(things["gate"])
        things["later"].get(8, "the handshake")
        victims.exchange(things["ours"][0])


class Lingering(State):
    """The parent has closed, and its last bytes are on their way."""

    kinds = victims.KINDS
    size = 150_000  # fits into the kernel's buffers of a connection on loopback

    def set_up(self, things: Things, kind: str) -> None:
        things["ours"] = []
        sock = victims.dial(kind)
        things["key"] = things["gate"] = victims.new_gate()
        sock.send(f"sink {things['key']} {things['gate']}\n".encode())
        sock.send(bytes(self.size), timeout=5)
        sock.close(linger=20)

    def check(self, things: Things, kind: str) -> None:
        victims.open_gate(things["gate"])
        victims.expect_report(things["key"], self.size, "a socket that lingered while a child ended")


class Serving(State):
    """A server with a client."""

    kinds = ("tcp", "unix", "tls12", "tls13")
    actions = (*LEAVING, "stops")

    def set_up(self, things: Things, kind: str) -> None:
        tls = victims.serving() if kind.startswith("tls") else None
        address = "127.0.0.1"
        if kind == "unix":
            things["path"] = os.path.join(tempfile.mkdtemp(dir=victims.where()["directory"]), "s")
            address = "unix:" + things["path"]
        server = net.serve(victims.shout, 0, address, tls=tls)
        things["ours"] = [server]
        things["at"] = things.get("path") or server.local_addr.port
        things["client"] = victims.connect_raw(kind, things["at"])
        victims.exchange_raw(things["client"])

    def check(self, things: Things, kind: str) -> None:
        victims.exchange_raw(things["client"], b"the old client")
        with victims.connect_raw(kind, things["at"]) as another:
            victims.exchange_raw(another, b"a new client")
        things["client"].close()


class Stopping(Serving):
    """A thread of the parent is in `stop`, and waits for a client."""

    kinds = ("tcp", "tls13")

    def set_up(self, things: Things, kind: str) -> None:
        super().set_up(things, kind)
        server = things["ours"][0]
        things["later"] = Later(lambda: server.stop(drain=25))
        time.sleep(0.05)

    def check(self, things: Things, kind: str) -> None:
        victims.exchange_raw(things["client"], b"the last client")
        expect(not things["later"].done, "stop() did not wait for its client")
        things["client"].close()
        report = things["later"].get(8, "stop()")
        expect(tuple(report) == (1, 0), f"stop() says {report}, and one client had drained")


class ServerInHandshake(Serving):
    """A client has sent half of its ClientHello."""

    kinds = ("tls12", "tls13")

    def set_up(self, things: Things, kind: str) -> None:
        super().set_up(things, kind)
        sock = socket.create_connection(("127.0.0.1", things["at"]), 10)
        raw = rawtls.RawTls(sock, victims.client_context(f"{kind[3]}.{kind[4]}"))
        hello = raw.hello()
        sock.sendall(hello[:100])
        things["half"] = raw, hello[100:]
        time.sleep(0.05)

    def check(self, things: Things, kind: str) -> None:
        raw, rest = things["half"]
        raw.sock.sendall(rest)
        raw.handshake()
        raw.write(b"hello\n")
        got = raw.read()
        expect(got == b"HELLO\n", f"the handshake that was halfway leads to {got!r}")
        raw.sock.close()
        super().check(things, kind)


class Datagrams(State):
    """A thread waits for a datagram."""

    def set_up(self, things: Things, kind: str) -> None:
        sock = net.Socket(AF_INET, SOCK_DGRAM)
        sock.bind_addr(0, "127.0.0.1")
        things["ours"] = [sock]
        things["later"] = Later(lambda: sock.recv_from(100, timeout=25))
        time.sleep(0.05)

    def check(self, things: Things, kind: str) -> None:
        sock, later = things["ours"][0], things["later"]
        expect(not later.done, "the thread that waits for a datagram was woken by what a child did")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.settimeout(5)
            other.bind(("127.0.0.1", 0))
            other.sendto(b"there", tuple(sock.local_addr))
            data = later.get(6, "recv_from")[0]
            expect(data == b"there", f"the datagram became {data!r}")
            sock.send_to("127.0.0.1", other.getsockname()[1], b"back", timeout=5)
            expect(other.recv(100) == b"back", "no datagram back")


STATES: dict[str, State] = {
    "fresh": Fresh(),
    "bound": Bound(),
    "listening": Listening(),
    "a thread in accept": Accepting(),
    "connecting": Connecting(),
    "idle": Idle(),
    "a thread reads with a limit": Reading(),
    "a thread reads": Waiting(),
    "a thread sends": Writing(),
    "unread bytes": Buffered(),
    "half closed": HalfClosed(),
    "in a handshake": InHandshake(),
    "lingering": Lingering(),
    "a server with a client": Serving(),
    "a server that stops": Stopping(),
    "a server in a handshake": ServerInHandshake(),
    "a thread waits for a datagram": Datagrams(),
}


def blocking(steps: Steps, state: str, kind: str) -> None:
    """Each step is an action of a child."""
    warnings.simplefilter("ignore")
    here = STATES[state]
    for action in steps:
        things: Things = {}
        here.set_up(things, kind)
        steps.count(forks=1)
        with _child(lambda things=things, action=action: _act(here, things, kind, action)):
            pass
        _expect_sleep()
        if action == "goes on":
            here.check_used(things, kind)
        else:
            here.check(things, kind)
        _expect_path(things)
        _expect_sleep()
        closing = Later(lambda things=things: _close_all(things))
        closing.get(6, "close() in the parent, after a child ended")
        expect(not os.path.exists(things.get("path", "")), "close() left the file of a Unix socket")


def _close_all(things: Things) -> None:
    for thing in things["ours"]:
        thing.close() if hasattr(thing, "close") else thing.stop()


def _expect_path(things: Things) -> None:
    path = things.get("path")
    expect(path is None or os.path.exists(path), "a child removed the file of the parent's Unix socket")


def _expect_sleep() -> None:
    began = time.process_time()
    time.sleep(IDLE)
    used = time.process_time() - began
    expect(
        used < BUSY, f"a thread spins: {used:.2f} s of processor time in {IDLE} s in which nothing happens"
    )


def _act(state: State, things: Things, kind: str, action: str) -> None:
    """In the child."""
    ours = things["ours"]
    if action == "drops":
        things.clear()
        ours.clear()
        gc.collect()
        os._exit(0)
    if action == "closes":
        _close_all(things)
        os._exit(0)
    if action == "stops":
        for server in ours:
            server.stop()
        os._exit(0)
    if action == "exits in `with`":
        with contextlib.ExitStack() as stack:
            for thing in ours:
                stack.enter_context(thing)
            sys.exit(0)
    if action == "os._exit":
        os._exit(0)
    if action == "returns from main":
        _kept.extend(ours)  # as a global of the program would
        raise Leave
    for thing in ours:
        if hasattr(thing, "adopt"):
            thing.adopt()
    state.use(things, kind)
    os._exit(0)


_kept: list[object] = []


@contextlib.contextmanager
def _child(act: Callable[[], None], may_take: float = CHILD_MAY_TAKE) -> Iterator[None]:
    """Fork; the child calls ``act``, which ends it. At the end the child has ended in time, and in good order."""
    with tempfile.TemporaryFile() as stacks:
        pid = os.fork()
        if pid == 0:
            faulthandler.dump_traceback_later(may_take - 1, exit=True, file=stacks)
            try:
                act()
            except (SystemExit, Leave):
                raise
            except BaseException as error:  # noqa: BLE001 -- it is reported by the parent
                stacks.write(f"raised {type(error).__name__}: {error}".encode())
                stacks.flush()
                os._exit(3)
            os._exit(4)  # none of the actions returns
        try:
            yield
        finally:
            status = _reaped(pid, may_take)
        stacks.seek(0)
        text = stacks.read().decode(errors="replace")
    if status == 0:
        return
    if "Timeout (" in text:
        raise Broken(f"the child hangs: {last_frames(text)}\n{text}")
    raise Broken(f"the child ended with status {status}: {text}")


def _reaped(pid: int, seconds: float) -> int:
    """Wait for a child, and end it if that takes too long; its exit status, -9 if it was ended."""
    limit = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > limit:
            os.kill(pid, signal.SIGKILL)
            limit = float("inf")
        time.sleep(0.003)


# -------------------------------------------------------------------------------------- the states of the async flavour


class AsyncState:
    """As ``State``; the fork happens in a coroutine, and the child shares the loop's epoll with its parent."""

    kinds: tuple[str, ...] = ("tcp", "tls13")
    actions: tuple[str, ...] = ("drops", "closes", "exits in `with`", "os._exit")

    async def set_up(self, things: Things, kind: str) -> None:
        raise NotImplementedError

    async def check(self, things: Things, kind: str) -> None:
        raise NotImplementedError


async def _turns() -> None:
    """Let the other tasks get to where they wait."""
    await tasks.sleep(0.05)


async def _outcome(later: Later, seconds: float, text: str) -> Any:
    """Wait for a thread without the loop's wake-up pipe: a child whose loop is closed takes that out of the epoll."""
    limit = time.monotonic() + seconds
    while not later.done and time.monotonic() < limit:
        await tasks.sleep(0.005)
    return later.get(0.0, text)


class AsyncIdle(AsyncState):
    kinds = victims.KINDS

    async def set_up(self, things: Things, kind: str) -> None:
        things["ours"] = [await victims.dial_async(kind)]
        await victims.exchange_async(things["ours"][0])

    async def check(self, things: Things, kind: str) -> None:
        await victims.exchange_async(things["ours"][0])


class AsyncReading(AsyncState):
    kinds = victims.KINDS

    async def set_up(self, things: Things, kind: str) -> None:
        sock = await victims.dial_async(kind)
        things["ours"] = [sock]
        things["gate"] = victims.new_gate()
        await sock.send(f"gate {things['gate']} say found\n".encode())
        things["task"] = tasks.ensure_future(sock.recv_line(timeout=25))
        await _turns()

    async def check(self, things: Things, kind: str) -> None:
        expect(not things["task"].done(), "a task that reads was woken by what a child did")
        victims.open_gate(things["gate"])
        try:
            line = await waits.wait_for(things["task"], 6)
        except TimeoutError:
            raise Broken("a task that reads was never woken, after what a child did") from None
        expect(line == b"found", f"the task that reads got {line!r}")
        await victims.exchange_async(things["ours"][0])


class AsyncWriting(AsyncState):
    async def set_up(self, things: Things, kind: str) -> None:
        sock = await victims.dial_async(kind)
        things["ours"] = [sock]
        things["gate"] = victims.new_gate()
        await sock.send(f"gate {things['gate']} count {Writing.size}\n".encode())
        things["task"] = tasks.ensure_future(sock.send(bytes(Writing.size), timeout=25))
        await _turns()

    async def check(self, things: Things, kind: str) -> None:
        expect(not things["task"].done(), "send() ended though the peer does not read")
        victims.open_gate(things["gate"])
        await waits.wait_for(things["task"], 20)
        line = await things["ours"][0].recv_line(timeout=10)
        expect(line.startswith(b"got %d " % Writing.size), f"the peer says: {line!r}")


class AsyncAccepting(AsyncState):
    kinds = ("tcp", "unix", "tls13")

    async def set_up(self, things: Things, kind: str) -> None:
        if kind == "unix":
            things["path"] = os.path.join(tempfile.mkdtemp(dir=victims.where()["directory"]), "s")
            listener = asyncnet.AsyncSocket(AF_UNIX)
            listener.bind_unix(things["path"])
        else:
            listener = asyncnet.AsyncSocket()
            if kind.startswith("tls"):
                victims.serving().wrap_socket(listener)
            listener.bind_addr(0, "127.0.0.1")
        listener.listen()
        things["ours"] = [listener]
        things["at"] = things.get("path") or listener.local_addr.port
        things["task"] = tasks.ensure_future(listener.accept(timeout=25))
        await _turns()

    async def check(self, things: Things, kind: str) -> None:
        expect(not things["task"].done(), "the task in accept() was woken by what a child did")
        for accepting in (things["task"], None):
            client = Later(lambda: victims.connect_raw(kind, things["at"]))
            waiting = accepting or tasks.ensure_future(things["ours"][0].accept(timeout=6))
            try:
                sock = await waits.wait_for(waiting, 6)
            except TimeoutError:
                raise Broken("the listener accepts nothing, after what a child did") from None
            raw = await _outcome(client, 6, "a client's connect")
            raw.sendall(b"there\n")
            line = await sock.recv_line(timeout=5)
            expect(line == b"there", f"the accepted connection received {line!r}")
            sock.close()
            raw.close()


class AsyncServing(AsyncState):
    kinds = ("tcp", "unix", "tls13")

    async def set_up(self, things: Things, kind: str) -> None:
        tls = victims.serving() if kind.startswith("tls") else None
        address = "127.0.0.1"
        if kind == "unix":
            things["path"] = os.path.join(tempfile.mkdtemp(dir=victims.where()["directory"]), "s")
            address = "unix:" + things["path"]
        things["stack"] = contextlib.AsyncExitStack()
        server = await things["stack"].enter_async_context(
            asyncnet.serve(victims.shout_async, 0, address, tls=tls)
        )
        things["ours"] = [server]
        things["at"] = things.get("path") or server.local_addr.port
        things["client"] = await _outcome(
            Later(lambda: victims.connect_raw(kind, things["at"])), 8, "a client's connect"
        )
        await _outcome(Later(lambda: victims.exchange_raw(things["client"])), 8, "a client's line")

    async def check(self, things: Things, kind: str) -> None:
        await _outcome(
            Later(lambda: victims.exchange_raw(things["client"], b"the old client")),
            11,
            "the old client's line",
        )
        another = await _outcome(
            Later(lambda: victims.connect_raw(kind, things["at"])), 11, "a new client's connect"
        )
        await _outcome(Later(lambda: victims.exchange_raw(another)), 11, "a new client's line")
        another.close()
        things["client"].close()


ASYNC_STATES: dict[str, AsyncState] = {
    "idle": AsyncIdle(),
    "a task reads": AsyncReading(),
    "a task sends": AsyncWriting(),
    "a task in accept": AsyncAccepting(),
    "a server with a client": AsyncServing(),
}


def in_a_loop(steps: Steps, state: str, kind: str, loop: str) -> None:
    """Each step is an action of a child, and has a loop of its own."""
    warnings.simplefilter("ignore")
    for action in steps:
        victims.run_loop(loop, _in_a_loop(steps, ASYNC_STATES[state], kind, action))


async def _in_a_loop(steps: Steps, here: AsyncState, kind: str, action: str) -> None:
    things: Things = {}
    await here.set_up(things, kind)
    steps.count(forks=1)
    if action == "exits in `with`":
        with _child_of_loop() as in_child:
            if in_child:
                async with things["ours"][0]:
                    sys.exit(0)
    else:
        with _child(lambda: _act_in_loop(things, action)):
            pass
    await _expect_loop_sleeps()
    await here.check(things, kind)
    _expect_path(things)
    await _expect_loop_sleeps()
    for thing in things["ours"]:
        if hasattr(thing, "close"):
            thing.close()
        else:
            await waits.wait_for(thing.stop(), 6)
            await things["stack"].aclose()
    await _turns()


async def _expect_loop_sleeps() -> None:
    began = time.process_time()
    await tasks.sleep(IDLE)
    used = time.process_time() - began
    expect(
        used < BUSY, f"the loop spins: {used:.2f} s of processor time in {IDLE} s in which nothing happens"
    )


@contextlib.contextmanager
def _child_of_loop() -> Iterator[bool]:
    """As ``_child``, for a child that goes on in the coroutine in which it was forked, and leaves its loop."""
    with tempfile.TemporaryFile() as stacks:
        pid = os.fork()
        if pid == 0:
            faulthandler.dump_traceback_later(CHILD_MAY_TAKE - 1, exit=True, file=stacks.fileno())
            os.set_inheritable(stacks.fileno(), False)
            _kept.append(os.dup(stacks.fileno()))
            yield True
            return
        status = _reaped(pid, CHILD_MAY_TAKE)
        stacks.seek(0)
        text = stacks.read().decode(errors="replace")
    if "Timeout (" in text:
        raise Broken(f"the child hangs: {last_frames(text)}\n{text}")
    # A loop that is left by an exception in a child, with an epoll that is its parent's, may end in any way.
    expect(status != -signal.SIGKILL, "the child does not end")
    yield False


def _act_in_loop(things: Things, action: str) -> None:
    ours = things["ours"]
    if action == "closes":
        for thing in ours:
            if hasattr(thing, "close"):
                thing.close()
            elif hasattr(thing, "request_stop"):
                thing.request_stop()
    elif action == "drops":
        things.clear()
        ours.clear()
        gc.collect()
    os._exit(0)


def prefork(steps: Steps, kind: str, loop: str) -> None:
    """Children accept, each in its loop, from an async listener that was made before any loop ran."""
    warnings.simplefilter("ignore")
    for _ in steps:
        listener = asyncnet.AsyncSocket()
        if kind.startswith("tls"):
            victims.serving().wrap_socket(listener)
        listener.bind_addr(0, "127.0.0.1")
        listener.listen()
        port = listener.local_addr.port

        async def accept_one(listener: asyncnet.AsyncSocket = listener) -> None:
            sock = await listener.accept(timeout=8)
            async with sock:
                await sock.send((await sock.recv_line(timeout=5)).upper() + b"\n")

        for number in range(3):
            steps.count(forks=1)
            client = Later(lambda port=port: _ask(kind, port))
            if number < 2:
                with _child(lambda: (victims.run_loop(loop, accept_one()), os._exit(0))):
                    client.get(8, "a client of a child")
            else:
                victims.run_loop(loop, accept_one())
                client.get(8, "a client of the parent, after its children")
        listener.close()


def _ask(kind: str, port: int) -> None:
    with victims.connect_raw(kind, port) as client:
        victims.exchange_raw(client)


# --------------------------------------------------------------------------------- locks that another thread holds


LOCKED = ("closes", "uses its context", "looks at them", "returns from main")


def locks(steps: Steps, kind: str, forks: int) -> None:
    """Threads use sockets, contexts and servers while the main thread forks: a child must not wait for their locks."""
    warnings.simplefilter("ignore")
    context = victims.trusting()
    socks = [victims.dial(kind, context) for _ in range(3)]
    over = threading.Event()

    def chat(sock: net.Socket) -> None:
        while not over.is_set():
            victims.exchange(sock, b"chat", 20)

    def come_and_go() -> None:
        while not over.is_set():
            with victims.dial(kind, context) as sock:
                victims.exchange(sock, b"short", 20)

    def set_options(sock: net.Socket) -> None:
        while not over.is_set():
            sock.send(b"x\n", timeout=20)
            if sock.recv_line(timeout=20) != b"X":
                raise Broken("the connection is broken")
            _ = sock.local_addr, sock.is_closed, sock.has_data_buffered

    def in_child(step: str) -> None:
        if step == "closes":
            for sock in socks:
                sock.close()
        elif step == "uses its context":
            with victims.dial(kind, context, timeout=4) as sock:
                victims.exchange(sock, b"child", 4)
        elif step == "looks at them":
            for sock in socks:
                _ = sock.is_closed, sock.has_data_buffered, sock.fileno(), repr(sock)
                if kind.startswith("tls"):
                    _ = sock.tls_info
        elif step == "returns from main":
            raise Leave
        os._exit(0)

    for step in steps:
        over.clear()
        threads = [
            Later(lambda: chat(socks[0])),
            Later(lambda: chat(socks[1])),
            Later(lambda: set_options(socks[2])),
            Later(come_and_go),
            Later(come_and_go),
        ]
        for _ in range(forks):
            time.sleep(random.uniform(0.0, 0.004))
            steps.count(forks=1)
            with _child(lambda step=step: in_child(step)):
                pass
        over.set()
        for thread in threads:
            thread.get(25, "a thread of the parent that used sockets while it forked")


# ------------------------------------------------------------------------ data of a child that ends in the ordinary way

METHODS = ("fork", "forkserver", "spawn")

MUCH = 3_000_000


def send_and_leave(flavour: str, kind: str, key: str, loop: str = "asyncio") -> None:
    """In a child: connect, send, close; and then end in the ordinary way."""
    warnings.simplefilter("ignore")
    if flavour == "blocking":
        sock = victims.dial(kind)
        sock.send(f"sink {key} - slowly\n".encode())
        sock.send(bytes(MUCH), timeout=20)
        sock.close()
        return

    async def main() -> None:
        sock = await victims.dial_async(kind)
        await sock.send(f"sink {key} - slowly\n".encode())
        await sock.send(bytes(MUCH), timeout=20)
        sock.close()

    victims.run_loop(loop, main())


def data_of_children(steps: Steps, flavour: str, kind: str, loop: str = "asyncio") -> None:
    """Each step is a way to make a child."""
    warnings.simplefilter("ignore")
    for step in steps:
        key = victims.new_gate()
        steps.count(forks=1, connections=1)
        if step == "os.fork, returns from main":
            pid = os.fork()
            if pid == 0:
                send_and_leave(flavour, kind, key, loop)
                raise Leave
            expect(_reaped(pid, 20) == 0, "the child does not end well")
        elif step.startswith("Process "):
            process = multiprocessing.get_context(step.removeprefix("Process ")).Process(
                target=send_and_leave, args=(flavour, kind, key, loop)
            )
            process.start()
            process.join(20)
            expect(process.exitcode == 0, f"the child does not end well: exit code {process.exitcode}")
        else:
            context = multiprocessing.get_context(step.removeprefix("ProcessPoolExecutor "))
            with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
                pool.submit(send_and_leave, flavour, kind, key, loop).result(20)
        victims.expect_report(key, MUCH, "sent by a child, and closed")


WAYS = (
    "os.fork, returns from main",
    *(f"Process {method}" for method in METHODS),
    *(f"ProcessPoolExecutor {method}" for method in METHODS),
)


def _fault(state: str, kind: str) -> str:
    if "accept" in state or "server" in state:
        return "FA25"
    if kind == "unix" and state in ("bound", "listening"):
        return "FA5 (c)"
    return "FA5 (a)" if "thread" in state or not kind.startswith("tls") else "FA5 (b)"


def _scenes(budget: Budget, environment: dict[str, str]) -> list[Scene]:
    scenes = []
    for name, state in STATES.items():
        for kind in state.kinds:
            scenes.append(
                Scene(
                    f"blocking {kind}, {name}",
                    "forks:blocking",
                    state.actions,
                    {"state": name, "kind": kind},
                    fault=_fault(name, kind),
                )
            )
    for name, async_state in ASYNC_STATES.items():
        for kind, loop in itertools.product(async_state.kinds, victims.LOOPS):
            # A uvloop that is left in a child takes the parent's descriptors out of the epoll, those of streams too.
            actions = [word for word in async_state.actions if loop == "asyncio" or "with" not in word]
            scenes.append(
                Scene(
                    f"{loop} {kind}, {name}",
                    "forks:in_a_loop",
                    actions,
                    {"state": name, "kind": kind, "loop": loop},
                    fault="FA5 (d)",
                )
            )
    scenes += [
        Scene(
            f"{loop} {kind}, children accept",
            "forks:prefork",
            ["accept"],
            {"kind": kind, "loop": loop},
            fault="FA5",
        )
        for kind, loop in (("tcp", "asyncio"), ("tls13", "asyncio"), ("tls13", "trio"))
    ]
    forks = 200 if budget.full else 12
    scenes += [
        Scene(
            f"blocking {kind}, threads inside the library",
            "forks:locks",
            LOCKED,
            {"kind": kind, "forks": forks},
            fault="FA25",
            seconds=60,
        )
        for kind in ("tcp", "tls13")
    ]
    for flavour, kind, loop in (
        ("blocking", "tls13", "asyncio"),
        ("async", "tls13", "asyncio"),
        ("async", "tls13", "uvloop"),
        ("async", "tls13", "trio"),
        ("blocking", "tls12", "asyncio"),
        ("blocking", "tcp", "asyncio"),
    ):
        label = flavour if flavour == "blocking" else loop
        scenes.append(
            Scene(
                f"{label} {kind}, data of a child that ends",
                "forks:data_of_children",
                WAYS,
                {"flavour": flavour, "kind": kind, "loop": loop},
                fault="FA24",
            )
        )
    scenes = varied(budget.shuffled(scenes), "state")
    return [dataclasses.replace(scene, environment=environment) for scene in scenes]


def run(budget: Budget) -> Iterator[Finding]:
    """Fork at every state."""
    with peers() as environment:
        yield from play("forks", budget, _scenes(budget, environment), jobs=6)
