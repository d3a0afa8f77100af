"""Hostile peers: the actions of a remote end against a program, outside of the protocol.

After each the victim has answered in time, an honest client is served, and nothing is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import hashlib
import hmac
import itertools
import os
import queue
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.scenarios import tasks
from tests.torture import certificates, victims, waits
from tests.torture.children import ROOT
from tests.torture.crowd import Crowd, many_descriptors
from tests.torture.peers import reset
from tests.torture.rawtls import RawTls
from tests.torture.registry import Budget, Finding
from tests.torture.stage import (
    Broken,
    Later,
    Scene,
    Steps,
    expect,
    library_threads,
    peers,
    play,
    settle,
    varied,
)
from wireline import SocketTimeout, asyncnet, net
from wireline.tls import SslContext, SslError

FLAVOURS = ("blocking", *victims.LOOPS)

LATE = 6.0
"""Seconds after which a call that had nothing to wait for is late: a guess for a machine that does much else. The
faults of this part last forever, or as long as a peer likes."""

PAUSE = 3.0
"""Seconds for which a loop does nothing else, that are too many."""


class Caller:
    """Calls methods of either flavour from a coroutine: those of the blocking one in a thread."""

    def __init__(self, flavour: str) -> None:
        self.is_blocking = flavour == "blocking"
        self.loop = flavour if flavour in victims.LOOPS else "asyncio"
        self._pool = ThreadPoolExecutor(32)

    async def __call__(self, method: Callable[..., Any], *values: Any, **named: Any) -> Any:
        """Call it, and wait for its result."""
        if self.is_blocking:
            call = functools.partial(method, *values, **named)
            return await asyncio.get_running_loop().run_in_executor(self._pool, call)
        return await method(*values, **named)

    async def dial(self, port: int, **named: Any) -> Any:
        """Connect to a port of this machine."""
        return await self(net.dial if self.is_blocking else asyncnet.dial, "127.0.0.1", port, **named)

    @contextlib.asynccontextmanager
    async def serve(
        self, tls: bool, handler: tuple[Any, Any] | None = None, **named: Any
    ) -> AsyncIterator[Any]:
        """A server; ``handler`` is one for each flavour, by default they send lines back in capitals."""
        blocking, awaited = handler or (victims.shout, victims.shout_async)
        context = victims.serving() if tls else None
        async with contextlib.AsyncExitStack() as stack:
            if self.is_blocking:
                server: Any = net.serve(blocking, 0, "", tls=context, **named)
            else:
                server = await stack.enter_async_context(asyncnet.serve(awaited, 0, "", tls=context, **named))
            yield server
            try:
                await waits.wait_for(self(server.stop), 8)
            except TimeoutError:
                raise Broken("stop() does not return within 8 s") from None

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run the scene; its helper threads are gone at the end."""
        warnings.simplefilter("ignore")
        victims.run_loop(self.loop, main)
        self._pool.shutdown()


async def _honest(kind: str, port: int, when: str) -> None:
    """An honest client connects and exchanges a line, soon."""

    def ask() -> None:
        with victims.connect_raw(kind, port) as client:
            victims.exchange_raw(client, b"honest")

    began = time.monotonic()
    try:
        await waits.wait_for(waits.to_thread(ask), 12)
    except (OSError, TimeoutError) as error:
        raise Broken(f"an honest client is not served {when}: {type(error).__name__}: {error}") from None
    took = time.monotonic() - began
    expect(took < LATE, f"an honest client waits {took:.1f} s {when}")


async def _until(condition: Callable[[], object], seconds: float, text: str) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        expect(time.monotonic() < limit, f"{text} (within {seconds:g} s)")
        await tasks.sleep(0.01)


class Heart:
    """A task that beats; the longest pause between two beats says how long the loop did nothing else."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._task = tasks.ensure_future(self._beat())

    async def _beat(self) -> None:
        last = time.monotonic()
        while True:
            await tasks.sleep(0.01)
            now = time.monotonic()
            self.longest, last = max(self.longest, now - last), now

    def stop(self) -> float:
        """End it; the longest pause."""
        self._task.cancel()
        return self.longest


# --------------------------------------------------------------------------------- close_notify, and then a reset

MOMENTS = (
    "a send is blocked",
    "a send is blocked, a reader waits",
    *(
        f"{before} sends before, {between} between, {after} after{extra}"
        for before, between, after in ((0, 0, 2), (0, 1, 1), (1, 0, 2), (1, 1, 0), (2, 0, 1), (0, 2, 2))
        for extra in ("", ", data first", ", a reader waits", ", a reader waits, data first")
    ),
)


def goodbye_then_reset(steps: Steps, flavour: str, version: str) -> None:
    """Each step is a moment: how many sends there are before close_notify arrives, before the reset, and after it."""
    call = Caller(flavour)

    async def main() -> None:
        for step in steps:
            await _goodbye_then_reset(call, step, version)
            steps.count(connections=1)

    call.run(main())


async def _goodbye_then_reset(call: Caller, moment: str, version: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.server_files())
    exact = ssl.TLSVersion.TLSv1_2 if version == "1.2" else ssl.TLSVersion.TLSv1_3
    context.minimum_version = context.maximum_version = exact
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = Later(lambda: _handshake(listener, context))
        sock = await call.dial(listener.getsockname()[1], tls=victims.trusting(), timeout=8)
        peer: RawTls = accepting.get(8, "the peer's handshake")
    words = moment.replace(",", "").split()
    counts = [int(word) for word in words if word.isdigit()] or [0, 0, 0]
    blocked = "blocked" in words
    last = b"last words" if "data" in words else b""
    reading = tasks.ensure_future(_end_of(call, sock)) if "reader" in words else None
    sending = tasks.ensure_future(call(sock.send, bytes(12_000_000), timeout=10)) if blocked else None
    await tasks.sleep(0.03 if blocked or reading else 0.0)  # so that they wait; too late is another moment
    try:
        for number, count in enumerate(counts):
            if number == 1:
                peer.sock.sendall((peer.seal(last) if last else b"") + peer.goodbye())
            elif number == 2:
                reset(peer.sock)
            if number and not (count and number == 1):
                await tasks.sleep(0.01)  # for the bytes to arrive
            for _ in range(count):
                await _send_to_gone(call, sock)
        if sending is not None:
            await _ended_send(sending)
        got, end = await waits.wait_for(reading or tasks.ensure_future(_end_of(call, sock)), 6)
    except TimeoutError:
        raise Broken("a read is never woken") from None
    finally:
        closing = time.monotonic()
        sock.close()
        took = time.monotonic() - closing
        peer.sock.close()
    expect(took < LATE, f"close took {took:.1f} s")
    # A reader that waits has seen all bytes before the end. Else a reset may have thrown it away.
    expect(
        got == last or (not reading and b"".startswith(got)),
        f"received {got!r}, and the peer had sent {last!r}",
    )
    expect(
        end is None or isinstance(end, (SslError, ConnectionError)),
        f"the end is a {type(end).__name__}: {end}",
    )


def _handshake(listener: socket.socket, context: ssl.SSLContext) -> RawTls:
    client, _ = listener.accept()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer = RawTls(client, context, server_side=True)
    peer.handshake()
    return peer


async def _end_of(call: Caller, sock: Any) -> tuple[bytes, BaseException | None]:
    """Read to the end: the data, and the error, if it is one."""
    got = b""
    while True:
        try:
            data = await call(sock.recv_some, timeout=4)
        except Exception as error:  # noqa: BLE001 -- which one it is is looked at later
            return got, error
        if not data:
            return got, None
        got += data


async def _send_to_gone(call: Caller, sock: Any) -> None:
    try:
        await call(sock.send, b"more", timeout=4)
    except SocketTimeout:
        raise Broken("a short send waits for a peer that is gone") from None
    except OSError:
        pass  # the connection has ended, and that is one way to say so


async def _ended_send(sending: tasks.Task[Any]) -> None:
    try:
        await waits.wait_for(sending, 6)
    except SocketTimeout:
        raise Broken("a blocked send goes on waiting for a peer that has reset") from None
    except TimeoutError:
        raise Broken("a blocked send is never woken") from None
    except OSError:
        pass  # it says that the peer is gone


# ------------------------------------------------------------------------------------------------ floods of records


def _rss() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def key_updates(steps: Steps, flavour: str, count: int) -> None:
    """A client asks for key updates and never reads, while the handler's send is blocked: memory is bounded."""
    call = Caller(flavour)

    async def main() -> None:
        for _ in steps:
            steps.count(connections=2)
            await _key_updates(call, count)

    call.run(main())


def _flooding(port: int, count: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.torture.flood", str(port), str(count)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


async def _key_updates(call: Caller, count: int) -> None:
    payload = bytes(16_000_000)

    def flooded(client: Any, address: object) -> None:
        if client.recv_line(timeout=10) == b"flood":
            sending = Later(lambda: client.send(payload, timeout=60))
            _drain(client)
            sending.get(70, "the blocked send")
        else:
            client.send(b"HONEST\n")

    async def flooded_async(client: Any, address: object) -> None:
        if await client.recv_line(timeout=10) == b"flood":
            sending = tasks.ensure_future(client.send(payload, timeout=60))
            try:
                while await client.recv_some(timeout=60):
                    continue
            finally:
                sending.cancel()
        else:
            await client.send(b"HONEST\n")

    async with call.serve(True, (flooded, flooded_async)) as server:
        with _flooding(server.local_addr.port, count) as flood:
            try:
                said: queue.SimpleQueue[str] = queue.SimpleQueue()
                threading.Thread(target=_say_all, args=(flood, said), daemon=True).start()
                await _until(lambda: not said.empty(), 10, "the flood does not begin")
                words, before, last = "", 0, time.monotonic()
                # It is over when all was sent, or when nothing is sent any more because the victim stopped reading.
                while not words.startswith(("sent", "refused")) and time.monotonic() < last + 2.0:
                    while not said.empty():
                        words, last = said.get(), time.monotonic()
                        # The first thousand make the objects that exist only once.
                        before = before or (_rss() if words.startswith("1000") else 0)
                    await tasks.sleep(0.02)
                grown = _rss() - (before or _rss())
                await _honest("tls13", server.local_addr.port, "during a flood of key updates")
            finally:
                flood.kill()
        # Buffers for reading grow to some 0.5 MB in a connection that receives much.
        expect(
            grown < 1_200_000,
            f"memory grew by {grown / 1e6:.1f} MB: a peer that never reads asks for key updates ({words.strip()})",
        )


def _drain(client: Any) -> None:
    with contextlib.suppress(OSError):  # the flood is killed at the end
        while client.recv_some(timeout=60):
            continue


def _say_all(process: subprocess.Popen[bytes], said: queue.SimpleQueue[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        said.put(line.decode())


class ByHand:
    """Records of TLS 1.3 that a server's OpenSSL would never write, made from the secrets that it logged."""

    def __init__(self, log: str, cipher: str) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

        with open(log) as file:
            secrets = {line.split()[0]: bytes.fromhex(line.split()[2]) for line in file if line[0] != "#"}
        secret = secrets["SERVER_TRAFFIC_SECRET_0"]
        self._hash = "sha384" if cipher.endswith("384") else "sha256"
        size = 16 if "128" in cipher else 32
        kind = ChaCha20Poly1305 if "CHACHA" in cipher else AESGCM
        self._aead = kind(self._expand(secret, b"key", size))
        self._iv = int.from_bytes(self._expand(secret, b"iv", 12), "big")
        self._number = 0

    def _expand(self, secret: bytes, label: bytes, size: int) -> bytes:
        # RFC 8446, 7.1: HKDF-Expand-Label with an empty context; one block is enough for these sizes.
        full = b"tls13 " + label
        info = size.to_bytes(2, "big") + bytes([len(full)]) + full + b"\0"
        return hmac.new(secret, info + b"\x01", getattr(hashlib, self._hash)).digest()[:size]

    def record(self, data: bytes) -> bytes:
        """One record of application data."""
        inner = data + b"\x17"
        header = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2, "big")
        nonce = (self._iv ^ self._number).to_bytes(12, "big")
        self._number += 1
        return header + self._aead.encrypt(nonce, inner, header)


def empty_records(steps: Steps, flavour: str) -> None:
    """Records without data, without end: a deadline holds, and a loop goes on."""
    call = Caller(flavour)

    async def main() -> None:
        for step in steps:
            steps.count(connections=1)
            await _empty_records(call, int(step.split()[0]))

    call.run(main())


async def _empty_records(call: Caller, in_a_row: int) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.server_files())
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # so that the first record by hand is the first one of all
    with tempfile.TemporaryDirectory() as directory, socket.create_server(("127.0.0.1", 0)) as listener:
        context.keylog_filename = os.path.join(directory, "keys")
        accepting = Later(lambda: _handshake(listener, context))
        sock = await call.dial(listener.getsockname()[1], tls=victims.trusting(), timeout=8)
        peer: RawTls = accepting.get(8, "the peer's handshake")
        cipher = peer.tls.cipher()
        assert cipher is not None
        records = ByHand(context.keylog_filename, cipher[0])
        over = threading.Event()

        def flood() -> None:
            with contextlib.suppress(OSError):  # the victim has closed, or refuses this
                while not over.is_set():
                    pieces = [records.record(b"") for _ in range(in_a_row)]
                    peer.sock.sendall(b"".join([*pieces, records.record(b"a")]))

        flooding = Later(flood)
        heart = Heart()
        began = time.monotonic()
        try:
            got = await waits.wait_for(call(sock.recv_line, timeout=0.6, max_length=10_000_000), 6)
            raise Broken(f"a line without an end became {got[:20]!r}")
        except SocketTimeout:
            expect(in_a_row <= 32, "OpenSSL takes more than 32 empty records in a row")
        except SslError:
            expect(in_a_row > 32, "a few empty records are refused")
        except TimeoutError:
            raise Broken("a read with a limit of 0.6 s has not ended after 6 s of empty records") from None
        finally:
            over.set()
            sock.close()
            peer.sock.close()
        took, pause = time.monotonic() - began, heart.stop()
        expect(took < LATE, f"a read with a limit of 0.6 s took {took:.1f} s")
        expect(pause < PAUSE, f"the loop was held up for {pause:.1f} s by empty records")
        flooding.get(5, "the flood")


# ----------------------------------------------------------------------------------------------- certificates, hellos


def many_names(steps: Steps, flavour: str, names: int) -> None:
    """A server's certificate has thousands of names: the server's data arrives."""
    call = Caller(flavour)

    async def main() -> None:
        with tempfile.TemporaryDirectory() as directory:
            files = certificates.make(directory, "many", names)
            for version in steps:
                steps.count(connections=1)
                await _many_names(call, files, version)

    call.run(main())


async def _many_names(call: Caller, files: tuple[str, str], version: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    exact = ssl.TLSVersion.TLSv1_2 if version == "TLS 1.2" else ssl.TLSVersion.TLSv1_3
    context.minimum_version = context.maximum_version = exact

    def serve() -> None:
        with context.wrap_socket(listener.accept()[0], server_side=True) as client:
            client.sendall(b"welcome\n")
            client.sendall(client.recv(100).upper())
            client.recv(100)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = Later(serve)
        sock = await call.dial(listener.getsockname()[1], tls=SslContext(ca_file=files[0]), timeout=8)
        try:
            for said, heard in ((b"", b"welcome"), (b"hello\n", b"HELLO")):
                if said:
                    await call(sock.send, said, timeout=5)
                line = await waits.wait_for(call(sock.recv_line, timeout=4), 6)
                expect(line == heard, f"the server sent {heard!r}, the client got {line!r}")
            expect(sock.get_peer_certificates(), "the certificates are lost")
        except TimeoutError:
            raise Broken("a read is never woken") from None
        finally:
            sock.close()
        with contextlib.suppress(OSError):  # the client's close_notify does not matter here
            serving.get(5, "the server")


def cut_hello(steps: Steps, flavour: str, stride: int) -> None:
    """A ClientHello is cut after each byte; then the client ends, resets, or sends the rest after a while."""
    call = Caller(flavour)

    async def main() -> None:
        async with call.serve(True, handshake_timeout=6.0) as server:
            await _honest("tls13", server.local_addr.port, "at the beginning")
            before = len(os.listdir("/proc/self/fd")), len(library_threads())
            for step in steps:
                number = await waits.to_thread(_cut_hello, step, server.local_addr.port, stride)
                steps.count(connections=number + 1)
                await _honest("tls13", server.local_addr.port, "after ClientHellos that were cut")
                await _until(
                    lambda: server.connections == 0,
                    8,
                    "connections are left after ClientHellos that were cut",
                )
                await waits.to_thread(settle, *before)

    call.run(main())


def _cut_hello(how: str, port: int, stride: int) -> int:
    context = victims.client_context()
    size = len(RawTls(socket.socket(), context).hello())
    for cut in (cuts := range(0, size, stride)):
        with socket.create_connection(("127.0.0.1", port), 5) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = RawTls(sock, context)
            hello = peer.hello()
            sock.sendall(hello[:cut])
            if how == "ends":
                sock.shutdown(socket.SHUT_WR)
                _read_to_end(sock)
            elif how == "resets":
                reset(sock)
            else:
                time.sleep(0.002)  # so that it arrives in two pieces
                sock.sendall(hello[cut:])
                peer.handshake()
                peer.write(b"hello\n")
                got = peer.read()
                expect(
                    got == b"HELLO\n", f"a ClientHello in two pieces, cut after {cut} bytes, leads to {got!r}"
                )
    return len(cuts)


def _read_to_end(sock: socket.socket) -> None:
    with contextlib.suppress(ConnectionError):  # an end, too
        while sock.recv(65536):
            continue


# ---------------------------------------------------------------------------------------------------------- crowds


def hurrying(steps: Steps, flavour: str, kind: str, number: int) -> None:
    """Clients connect, send a line, and leave at once: the server serves, and nothing is left."""
    many_descriptors()
    call = Caller(flavour)

    async def main() -> None:
        async with call.serve(kind.startswith("tls")) as server:
            port = server.local_addr.port
            await _honest(kind, port, "at the beginning")
            before = len(os.listdir("/proc/self/fd")), len(library_threads())
            for step in steps:
                with Crowd(kind, port) as crowd:
                    said = await waits.to_thread(crowd.ask, f"{step} {number}")
                    steps.count(connections=said["good"])
                    await _honest(kind, port, f"after {number} clients that came and left")
                    await _until(lambda: server.connections == 0, 12, "connections are left")
                await waits.to_thread(settle, *before, 10.0)

    call.run(main())


def chattering(steps: Steps, flavour: str, kind: str, number: int) -> None:
    """Clients go on sending while the server closes them all: no close waits for a socket that lingers."""
    many_descriptors()

    def ignoring(client: Any, address: object) -> None:
        client.send(client.recv_line(timeout=30).upper() + b"\n")
        over.wait(60)

    async def ignoring_async(client: Any, address: object) -> None:
        await client.send((await client.recv_line(timeout=30)).upper() + b"\n")
        await tasks.sleep(60)

    call = Caller(flavour)
    over = threading.Event()

    async def main() -> None:
        for _ in steps:
            steps.count(connections=number)
            over.clear()
            before = len(os.listdir("/proc/self/fd")), len(library_threads())
            async with call.serve(kind.startswith("tls"), (ignoring, ignoring_async)) as server:
                with Crowd(kind, server.local_addr.port) as crowd:
                    await waits.to_thread(crowd.expect, f"chatter {number}", number)
                    await tasks.sleep(0.3)
                    heart = Heart()
                    began = time.monotonic()
                    over.set()
                    try:
                        await waits.wait_for(call(server.stop), 15)
                    except TimeoutError:
                        raise Broken("stop() hangs, with clients that go on sending") from None
                    took, pause = time.monotonic() - began, heart.stop()
                    expect(took < LATE, f"stop() took {took:.1f} s, with clients that go on sending")
                    expect(
                        pause < PAUSE, f"the loop was held up for {pause:.1f} s by clients that go on sending"
                    )
                    await waits.to_thread(settle, before[0] + 6, before[1], 12.0)

    call.run(main())


def silent(steps: Steps, flavour: str, number: int) -> None:
    """Clients of a TLS server say nothing: the time limit of the handshake ends them, and no other client waits."""
    many_descriptors()
    call = Caller(flavour)

    async def main() -> None:
        async with call.serve(True, handshake_timeout=2.0) as server:
            port = server.local_addr.port
            await _honest("tls13", port, "at the beginning")
            before = len(os.listdir("/proc/self/fd")), len(library_threads())
            for _ in steps:
                steps.count(connections=number)
                with Crowd("tls13", port) as crowd:
                    await waits.to_thread(crowd.expect, f"silent {number}", number)
                    await _honest("tls13", port, f"beside {number} clients that say nothing")
                    await waits.to_thread(crowd.expect, "ends", number)
                await _until(lambda: server.connections == 0, 8, "connections are left")
                await waits.to_thread(settle, *before)

    call.run(main())


def slow_readers(steps: Steps, flavour: str, kind: str, number: int) -> None:
    """Clients never read a handler's data: memory does not grow, other clients are served, `stop` stops."""
    size = 8_000_000
    payload = bytes(size)

    def generous(client: Any, address: object) -> None:
        for line in client.lines(timeout=60):
            client.send(payload if line == b"send" else line.upper() + b"\n")

    async def generous_async(client: Any, address: object) -> None:
        async for line in client.lines(timeout=60):
            await client.send(payload if line == b"send" else line.upper() + b"\n")

    call = Caller(flavour)

    async def main() -> None:
        for _ in steps:
            clients = []
            async with call.serve(kind.startswith("tls"), (generous, generous_async)) as server:
                port = server.local_addr.port
                await _honest(kind, port, "at the beginning")
                before = _rss()
                for _ in range(number):
                    client = await waits.to_thread(victims.connect_raw, kind, port)
                    await waits.to_thread(client.sendall, b"send\n")
                    clients.append(client)
                steps.count(connections=number)
                await tasks.sleep(0.3)  # the sends fill the kernel's buffers
                await _honest(kind, port, f"beside {number} clients that never read")
                grown = (_rss() - before) / number
                # A thread with its stack, and OpenSSL's buffers, are some 200 KB; the data to send is 8 MB.
                expect(grown < 1_000_000, f"each client that never reads costs {grown / 1e6:.1f} MB")
            for client in clients:
                client.close()

    call.run(main())


def gone(steps: Steps, flavour: str, kind: str) -> None:
    """A handler sends in a loop, and its clients leave: everything else goes on, `stop` included."""

    def ticker(client: Any, address: object) -> None:
        if client.recv_line(timeout=5) == b"tick":
            while True:
                client.send(b"tick\n")
        client.send(b"HONEST\n")

    async def ticker_async(client: Any, address: object) -> None:
        if await client.recv_line(timeout=5) == b"tick":
            while True:
                await client.send(b"tick\n")
        await client.send(b"HONEST\n")

    call = Caller(flavour)

    async def main() -> None:
        for how in steps:
            async with call.serve(kind.startswith("tls"), (ticker, ticker_async)) as server:
                port = server.local_addr.port
                heart = Heart()
                for _ in range(2):
                    steps.count(connections=1)
                    await waits.to_thread(_leave, kind, port, how)
                await tasks.sleep(0.5)
                await _honest(kind, port, "beside a handler that sends to a client that is gone")
                pause = heart.stop()
                expect(pause < PAUSE, f"the loop was held up for {pause:.1f} s")

    call.run(main())


def _leave(kind: str, port: int, how: str) -> None:
    client = victims.connect_raw(kind, port)
    client.sendall(b"tick\n")
    client.recv(5)
    if how == "resets":
        reset(client)
    elif how == "closes":
        client.close()
    else:
        with contextlib.suppress(OSError):  # it does not wait for the server's close_notify
            client.settimeout(0)
            client.unwrap() if isinstance(client, ssl.SSLSocket) else client.shutdown(socket.SHUT_WR)
        client.close()


# ------------------------------------------------------------------------------------------------- two signals to stop

DRAIN = 4.0


def stopped_twice(steps: Steps, flavour: str, kind: str) -> None:
    """SIGTERM while `stop` waits for a client that stays: the first one drains, the second one ends that at once."""
    warnings.simplefilter("ignore")
    for step in steps:
        steps.count(connections=1)
        tls = victims.serving() if kind.startswith("tls") else None
        if flavour == "blocking":
            took = _stopped_twice(step, kind, tls)
        else:
            took = victims.run_loop(flavour, _stopped_twice_async(step, kind, tls))
        once = step.startswith("one")
        expect(took < DRAIN + 3, f"the server stopped {took:.1f} s after the first signal")
        if once:
            expect(
                took > DRAIN - 1, f"one signal: a drain of {DRAIN} s took {took:.1f} s, and the client stayed"
            )
        else:
            expect(took < DRAIN - 1, f"a second signal does not end the drain: {took:.1f} s")


def _signals(step: str) -> None:
    pid = os.getpid()
    for delay in (0.2,) if step.startswith("one") else (0.2, 0.6, 0.7):
        threading.Timer(delay, os.kill, (pid, signal.SIGTERM)).start()


def _stopped_twice(step: str, kind: str, tls: SslContext | None) -> float:
    server = net.serve(victims.shout, 0, "127.0.0.1", tls=tls)
    first: list[float] = []

    def terminate(*_: object) -> None:
        first.append(time.monotonic())
        if "request_stop" in step and hasattr(server, "request_stop"):
            server.request_stop(drain=DRAIN)
        else:
            server.stop(drain=DRAIN)

    with victims.connect_raw(kind, server.local_addr.port) as client:
        victims.exchange_raw(client)
        before = signal.signal(signal.SIGTERM, terminate)
        _signals(step)
        try:
            if "in stop" in step:
                time.sleep(0.1)
                server.stop(drain=DRAIN)
            else:
                server.wait(timeout=10)
        except SocketTimeout:
            raise Broken("wait() has not returned 10 s after SIGTERM") from None
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # those that are on their way
        took = time.monotonic() - first[0]
        time.sleep(0.8 if took < 1 else 0.0)
        signal.signal(signal.SIGTERM, before)
    return took


async def _stopped_twice_async(step: str, kind: str, tls: SslContext | None) -> float:
    first: list[float] = []
    stopping: list[tasks.Task[Any]] = []

    def terminate() -> None:
        first.append(time.monotonic())
        if "request_stop" in step and hasattr(server, "request_stop"):
            server.request_stop(drain=DRAIN)
        else:
            stopping.append(tasks.ensure_future(server.stop(drain=DRAIN)))

    async with asyncnet.serve(victims.shout_async, 0, "127.0.0.1", tls=tls) as server:
        client = await waits.to_thread(victims.connect_raw, kind, server.local_addr.port)
        await waits.to_thread(victims.exchange_raw, client)
        with waits.signal_handled(signal.SIGTERM, terminate):
            _signals(step)
            try:
                if "in stop" in step:
                    await tasks.sleep(0.1)
                    await waits.wait_for(server.stop(drain=DRAIN), 10)
                else:
                    await waits.wait_for(server.wait(), 10)
            except TimeoutError:
                raise Broken("wait() has not returned 10 s after SIGTERM") from None
            took = time.monotonic() - first[0]
            await tasks.sleep(0.8 if took < 1 else 0.0)  # for the signals that are on their way
            await tasks.gather(*stopping)
    client.close()
    return took


def command_stopped_twice(steps: Steps) -> None:
    """The commands that serve end at a second SIGTERM, with any clients."""
    for step in steps:
        steps.count(connections=1)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        behind = str(victims.where()["tcp"])
        words = {
            "listen": ["listen", "--echo", "--keep", f"127.0.0.1:{port}"],
            "relay": ["relay", f"127.0.0.1:{port}", f"127.0.0.1:{behind}"],
        }[step]
        with subprocess.Popen(
            [sys.executable, "-m", "wireline", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                client = _connect_soon(port)
                with client:
                    client.sendall(b"hello\n")
                    expect(client.recv(100).lower() == b"hello\n", f"{step} does not work at all")
                    process.send_signal(signal.SIGTERM)
                    time.sleep(0.4)
                    process.send_signal(signal.SIGTERM)
                    try:
                        process.wait(5)
                    except subprocess.TimeoutExpired:
                        raise Broken(f"`wireline {step}` has not ended 5 s after a second SIGTERM") from None
            finally:
                process.kill()


def _connect_soon(port: int) -> socket.socket:
    limit = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 5)
        except ConnectionRefusedError:
            expect(time.monotonic() < limit, "the command does not listen")
            time.sleep(0.02)


# ------------------------------------------------------------------------------------------------------------- all


def _scenes(budget: Budget, environment: dict[str, str]) -> list[Scene]:
    full, sample = budget.full, budget.size == "sample"
    scenes = []
    for flavour, version in itertools.product(FLAVOURS, ("1.2", "1.3")):
        moments = MOMENTS if full else [*MOMENTS[:2], *budget.shuffled(MOMENTS[2:])[:8]]
        arguments = {"flavour": flavour, "version": version}
        name = f"{flavour} tls{version.replace('.', '')}, close_notify, then a reset"
        scenes.append(Scene(name, "hostile:goodbye_then_reset", moments, arguments, fault="FA4"))
    for flavour in FLAVOURS:
        number = 1_000_000 if full else 30_000 if sample else 100_000
        scenes += [
            Scene(
                f"{flavour}, key updates without end",
                "hostile:key_updates",
                ["flood"],
                {"flavour": flavour, "count": number},
                seconds=600 if full else 40,
                fault="FB16",
            ),
            Scene(
                f"{flavour}, empty records",
                "hostile:empty_records",
                ["31 in a row", "1 in a row", "200 in a row"],
                {"flavour": flavour},
            ),
            Scene(
                f"{flavour}, a certificate of 5,000 names",
                "hostile:many_names",
                ["TLS 1.2", "TLS 1.3"],
                {"flavour": flavour, "names": 5000},
                fault="FB15",
            ),
            Scene(
                f"{flavour}, a ClientHello that is cut",
                "hostile:cut_hello",
                ["ends", "resets", "sends the rest later"],
                {"flavour": flavour, "stride": 1 if full else 60 if sample else 9},
            ),
            Scene(
                f"{flavour}, clients that say nothing",
                "hostile:silent",
                ["all at once"],
                {"flavour": flavour, "number": 2000 if full else 50 if sample else 300},
            ),
        ]
        for kind in ("tcp", "tls13"):
            many = 100 if sample else 1400 if kind == "tls13" or full else 300
            scenes += [
                Scene(
                    f"{flavour} {kind}, clients that send a line and leave",
                    "hostile:hurrying",
                    ["burst", "hurry"] * (3 if full else 1),
                    {"flavour": flavour, "kind": kind, "number": many},
                    fault="FA1",
                    seconds=60,
                ),
                Scene(
                    f"{flavour} {kind}, clients that go on sending",
                    "hostile:chattering",
                    ["the server stops"],
                    {"flavour": flavour, "kind": kind, "number": 1500 if full else 50 if sample else 500},
                    fault="FA1",
                ),
                Scene(
                    f"{flavour} {kind}, clients that never read",
                    "hostile:slow_readers",
                    ["all at once"],
                    {"flavour": flavour, "kind": kind, "number": 100 if full else 12},
                ),
                Scene(
                    f"{flavour} {kind}, a handler that sends to a client that is gone",
                    "hostile:gone",
                    ["closes", "resets", "says goodbye"],
                    {"flavour": flavour, "kind": kind},
                    fault="FA23",
                    seconds=15,
                ),
                Scene(
                    f"{flavour} {kind}, SIGTERM",
                    "hostile:stopped_twice",
                    [
                        "two, stop",
                        "two, request_stop",
                        *(["one, stop", "one, request_stop", "two, in stop"] if full else []),
                    ],
                    {"flavour": flavour, "kind": kind},
                    fault="FA6",
                    seconds=14,
                ),
            ]
    scenes.append(
        Scene("the command, SIGTERM twice", "hostile:command_stopped_twice", ["listen", "relay"], fault="FA6")
    )
    scenes = varied(budget.shuffled(scenes), "kind")
    return [dataclasses.replace(scene, environment=environment) for scene in scenes]


def run(budget: Budget) -> Iterator[Finding]:
    """Be hostile in every way."""
    with peers() as environment:
        yield from play("hostile", budget, _scenes(budget, environment), jobs=4)
