"""P1, P2, P6, T4: work in the background, seen from outside: programs that close, end, fork, collect garbage.

Each scene is a program of its own with a time limit, so that a hang is only a failure; its peers are
another process.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.faults import tls_sink
from tests.tls import certificates

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="the peer waits for its standard input in a loop"
)

LIMIT = 25.0
"""Seconds for a program that is expected to end in two."""

LONG = 100.0
"""Seconds for one that makes thousands of connections."""

FLAVOURS = ["blocking", "async"]

SENDER = """
    import asyncio, atexit, os, socket, sys, threading, traceback, warnings

    def load():
        import wireline._os.linger
        wireline._os.linger.DEFAULT_LINGER = 10.0  # the machine may be busy with other tests
        wireline._os.linger._linger_thread._inline_budget = 20.0
        import wireline.asyncnet, wireline.net

    def hold_up(seconds):
        # The thread that lingers gets its turn late, as on a busy machine: hundreds are handed over meanwhile.
        import selectors, time

        class Slow(selectors.DefaultSelector):
            pause = seconds

            def unregister(self, sock):
                if isinstance(sock, socket.socket):  # one that lingers
                    pause, Slow.pause = Slow.pause, 0
                    time.sleep(pause)
                return super().unregister(sock)

        selectors.DefaultSelector = Slow

    def send(count=1, size=3_000_000, port=PORT, blocking=BLOCKING):
        # Each connection sends, and is closed at once. The rest is left to the background.
        load()
        if blocking:
            from wireline.net import dial
        else:
            from wireline.asyncnet import dial
        from wireline.tls import SslContext

        tls = SslContext(ca_file=CA)
        if blocking:
            for _ in range(count):
                sock = dial("localhost", port, tls=tls, timeout=10)
                sock.send(bytes(size), timeout=10)
                sock.close()
        else:
            async def main():
                for _ in range(count):
                    sock = await dial("localhost", port, tls=tls, timeout=10)
                    await sock.send(bytes(size), timeout=10)
                    sock.close()
            asyncio.run(main())
"""


class Report(NamedTuple):
    """The peer's words about one connection."""

    received: int
    ended: str


class Sink:
    """The peer."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.port = int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def reports(self, count: int) -> list[Report]:
        """Of the next connections that end."""
        return [Report(*json.loads(self._line())) for _ in range(count)]


@contextlib.contextmanager
def sinking(*options: str) -> Iterator[Sink]:
    leaf = certificates.server()
    program = [sys.executable, str(pathlib.Path(tls_sink.__file__)), leaf.cert, leaf.key, *options]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Sink(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(LIMIT)


@pytest.fixture
def sink() -> Iterator[Sink]:
    with sinking() as sink:
        yield sink


@pytest.fixture
def slow_sink() -> Iterator[Sink]:
    with sinking("--slow") as sink:
        yield sink


def run(
    directory: pathlib.Path, script: str, sink: Sink, flavour: str = "blocking", *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, in a file of its own: ``spawn`` imports it again."""
    settings = f"PORT, BLOCKING, CA = {sink.port}, {flavour == 'blocking'}, {certificates.ca_file()!r}\n"
    path = directory / "program.py"
    path.write_text(settings + textwrap.dedent(SENDER) + textwrap.dedent(script))
    return subprocess.run(
        [sys.executable, str(path), *arguments],
        capture_output=True,
        text=True,
        timeout=LONG if arguments and int(arguments[0]) > 1000 else LIMIT,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


# Exit.

ATEXIT = {
    "before it is imported": """
        atexit.register(send)  # called after the library's own
        load()
    """,
    "after it is imported": """
        load()
        atexit.register(send)
    """,
    "in the last thread": """
        def last():
            threading.main_thread().join(5)
            send()
        threading.Thread(target=last).start()
    """,
    "with multiprocessing": """
        load()
        import multiprocessing.util
        atexit.register(send)
    """,
}


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("script", ATEXIT.values(), ids=ATEXIT)
def test_T4_bytes_sent_at_the_end_of_the_interpreter_arrive(
    tmp_path: pathlib.Path, slow_sink: Sink, script: str, flavour: str
) -> None:
    """FA9: in atexit on 3.12 a dial by name raised RuntimeError, and 98,304 of 2,000,000 bytes arrived."""
    result = run(tmp_path, script, slow_sink, flavour)
    assert (result.returncode, result.stderr) == (0, "")
    assert slow_sink.reports(1) == [(3_000_000, "cleanly")]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_T4_bytes_sent_at_the_end_of_the_interpreter_arrive_at_many(
    tmp_path: pathlib.Path, slow_sink: Sink, flavour: str
) -> None:
    """FA9: connections that are closed at the exit wait together, not one after the other."""
    script = """
        import time
        load()

        def report():
            print(time.monotonic() - begun)

        atexit.register(report)
        atexit.register(send, 20, 20_000)
        begun = time.monotonic()
    """
    result = run(tmp_path, script, slow_sink, flavour)
    assert (result.returncode, result.stderr) == (0, "")
    assert slow_sink.reports(20) == [(20_000, "cleanly")] * 20
    assert float(result.stdout) < 8.0


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_P6_a_program_that_ends_by_an_exception_ends(
    tmp_path: pathlib.Path, slow_sink: Sink, flavour: str
) -> None:
    """FA30: an uncaught exception, whose traceback held an open TLS socket, hung at exit on 3.11."""
    script = """
        load()
        from wireline import asyncnet, net
        from wireline.tls import SslContext

        warnings.simplefilter("ignore")
        tls = SslContext(ca_file=CA)
        if BLOCKING:
            def fail():
                sock = net.dial("localhost", PORT, tls=tls)
                sock.send(bytes(500_000))
                raise LookupError
            fail()
        else:
            async def fail():
                sock = await asyncnet.dial("localhost", PORT, tls=tls)
                await sock.send(bytes(500_000))
                raise LookupError
            asyncio.run(fail())
    """
    result = run(tmp_path, script, slow_sink, flavour)
    assert result.returncode == 1
    assert result.stderr.rstrip().endswith("LookupError")
    assert slow_sink.reports(1) == [(500_000, "cleanly")]


# Processes.

PROCESSES = {
    **{
        method: f"""
            import multiprocessing
            if __name__ == "__main__":
                child = multiprocessing.get_context({method!r}).Process(target=send)
                child.start()
                child.join()
                sys.exit(child.exitcode)
        """
        for method in ("fork", "forkserver", "spawn")
    },
    **{
        f"an executor that {method}s": f"""
            import concurrent.futures, multiprocessing
            if __name__ == "__main__":
                context = multiprocessing.get_context({method!r})
                with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
                    pool.submit(send).result()
        """
        for method in ("fork", "spawn")
    },
    "os.fork": """
        child = os.fork()
        if not child:
            send()
        else:
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """,
    "os.fork of a process that lingers": """
        send(size=10)
        child = os.fork()
        if not child:
            send()
        else:
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """,
    "fork of a process that lingers": """
        import multiprocessing
        send(size=10)
        child = multiprocessing.get_context("fork").Process(target=send)
        child.start()
        child.join()
        sys.exit(child.exitcode)
    """,
    "a thread of a child": """
        import multiprocessing

        def last():
            threading.main_thread().join(5)
            send()

        def main():
            threading.Thread(target=last).start()

        if __name__ == "__main__":
            child = multiprocessing.get_context("fork").Process(target=main)
            child.start()
            child.join()
            sys.exit(child.exitcode)
    """,
}


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("script", PROCESSES.values(), ids=PROCESSES)
def test_T4_bytes_sent_by_a_child_arrive(
    tmp_path: pathlib.Path, slow_sink: Sink, script: str, flavour: str
) -> None:
    """FA24: a worker of multiprocessing that sent 3 MB over TLS, closed and returned lost data 10 times of 10."""
    script = "import multiprocessing.util\n" + textwrap.dedent(script)
    result = run(tmp_path, script, slow_sink, flavour)
    # That a process with threads forks is a warning of 3.12 and later, and the point here.
    complaints = [
        line for line in result.stderr.splitlines() if "Warning" not in line and "fork()" not in line
    ]
    assert (result.returncode, complaints) == (0, [])
    lingered = [(10, "cleanly")] if "size=10" in script else []
    assert sorted(slow_sink.reports(1 + len(lingered))) == [*lingered, (3_000_000, "cleanly")]


# Many at once.

MANY = """
    import resource, time
    from wireline import asyncnet, net
    from wireline.tls import SslContext

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    COUNT = int(sys.argv[1])
    tls = SslContext(ca_file=CA)

    hold_up(0.3)

    def report(begun, before):
        took = time.thread_time() - begun  # of a processor: others may keep that busy
        limit = time.monotonic() + 10
        while (left := len(os.listdir("/proc/self/fd"))) > before and time.monotonic() < limit:
            time.sleep(0.01)
        lingerers = [thread.name for thread in threading.enumerate() if "linger" in thread.name]
        print(took, left - before, lingerers)

    if BLOCKING:
        before = len(os.listdir("/proc/self/fd"))
        socks = [net.dial("127.0.0.1", PORT, tls=tls, hostname="localhost") for _ in range(COUNT)]
        socks.pop().close()
        time.sleep(0.1)
        begun = time.thread_time()
        for sock in socks:
            sock.close()
        report(begun, before)
    else:
        async def main():
            before = len(os.listdir("/proc/self/fd"))
            gate = asyncio.Semaphore(50)
            async def one():
                async with gate:
                    return await asyncnet.dial("127.0.0.1", PORT, tls=tls, hostname="localhost")
            socks = await asyncio.gather(*[one() for _ in range(COUNT)])
            socks.pop().close()
            time.sleep(0.1)
            begun = time.thread_time()
            for sock in socks:
                sock.close()
            await asyncio.sleep(0)  # the loop's poller is closed one turn later
            report(begun, before)
        asyncio.run(main())
"""


@pytest.mark.skipif(not pathlib.Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize(
    "count", [400, pytest.param(2500, marks=[pytest.mark.long, pytest.mark.stress, pytest.mark.timeout(120)])]
)
def test_P1_closing_many_at_once_holds_up_no_caller(
    tmp_path: pathlib.Path, sink: Sink, count: int, flavour: str
) -> None:
    """FA1: closing some 500 to 2,000 TLS sockets in one turn of a loop hung the process forever."""
    result = run(tmp_path, MANY, sink, flavour, str(count))
    assert (result.returncode, result.stderr) == (0, "")
    seconds, left, *lingerers = result.stdout.split(" ", 2)
    assert float(seconds) < 1.0
    assert (int(left), lingerers) == (0, ["[]\n"])
    assert sink.reports(count) == [(0, "cleanly")] * count


VISITORS = """
    import asyncio, ssl, sys
    async def main(port, ca, count):
        context = ssl.create_default_context(cafile=ca)
        gate = asyncio.Semaphore(100)
        async def one():
            async with gate:
                reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
                writer.write(b"a line\\n")
                await writer.drain()
                writer.close()
        await asyncio.gather(*[one() for _ in range(count)])
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
"""

VISITED = """
    import subprocess, time
    from wireline.net import dial, serve
    from wireline.tls import SslContext
    import logging
    logging.disable()
    seen = []
    COUNT = int(sys.argv[1])
    if COUNT > 1000:
        hold_up(3.0)

    def handler(client, address):
        try:
            for line in client.lines(timeout=10):
                seen.append(line)
        finally:
            client.close()

    before = len(os.listdir("/proc/self/fd"))
    with serve(handler, 0, "localhost", tls=SslContext(cert_file=sys.argv[3], key_file=sys.argv[4])) as server:
        visitors = [sys.executable, "-c", sys.argv[2], str(server.local_addr.port), CA, str(COUNT)]
        subprocess.run(visitors, check=True, timeout=100)
        limit = time.monotonic() + 10
        while server.connections and time.monotonic() < limit:
            time.sleep(0.01)
        with dial("localhost", server.local_addr.port, tls=SslContext(ca_file=CA), timeout=5) as sock:
            sock.send(b"the last line\\n")
            while b"the last line" not in seen and time.monotonic() < limit:
                time.sleep(0.01)
    while "wireline-linger" in {thread.name for thread in threading.enumerate()}:
        time.sleep(0.01)
    print(len(os.listdir("/proc/self/fd")) - before, threading.active_count(), seen.count(b"the last line"))
"""


@pytest.mark.skipif(not pathlib.Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
@pytest.mark.parametrize(
    "count", [100, pytest.param(1400, marks=[pytest.mark.stress, pytest.mark.timeout(120)])]
)
def test_P1_clients_that_come_and_go_do_not_hang_a_blocking_server(
    tmp_path: pathlib.Path, sink: Sink, count: int
) -> None:
    """FA1: 1,400 clients that sent a line and left within 3 s hung a blocking TLS server forever."""
    leaf = certificates.server()
    result = run(
        tmp_path, VISITED, sink, "blocking", str(count), textwrap.dedent(VISITORS), leaf.cert, leaf.key
    )
    assert (result.returncode, result.stderr) == (0, "")
    left, threads, last = map(int, result.stdout.split())
    assert (left, last) == (0, 1)
    assert threads <= 2, "the main one, and perhaps one that waits for the next name"


# Trouble of one connection.

TROUBLE = """
    import errno, selectors, time

    class Full(selectors.DefaultSelector):
        refused = 0
        def register(self, sock, events, data=None):
            if data is not None and isinstance(sock, socket.socket) and not Full.refused:
                Full.refused = 1
                raise OSError(errno.ENOSPC, "max_user_watches is reached")
            return super().register(sock, events, data)

    selectors.DefaultSelector = Full
    send(1, 1000)
    limit = time.monotonic() + 10
    while not Full.refused and time.monotonic() < limit:
        time.sleep(0.001)
    assert Full.refused
    time.sleep(0.1)
    send(10, 1000)
"""


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_P1_trouble_of_one_connection_is_not_that_of_others(
    tmp_path: pathlib.Path, sink: Sink, flavour: str
) -> None:
    """FA3: after one ENOSPC of epoll_ctl the thread was dead, and every later close raised BrokenPipeError."""
    result = run(tmp_path, TROUBLE, sink, flavour)
    assert (result.returncode, result.stderr) == (0, "")
    assert sink.reports(11) == [(1000, "cleanly")] * 11


# Garbage.

GARBAGE = """
    import gc, time
    from wireline import asyncnet, net
    from wireline.tls import SslContext

    warnings.simplefilter("ignore")
    COUNT = int(sys.argv[1])
    tls = SslContext(ca_file=CA) if sys.argv[2] == "tls" else None
    name = None if tls is None else "localhost"
    before = len(os.listdir("/proc/self/fd"))
    plain = socket.create_server(("127.0.0.1", 0))
    port = PORT if tls else plain.getsockname()[1]

    def drop(sock):
        box = [sock]
        box.append(box)

    if BLOCKING:
        gc.set_threshold(1)
        for number in range(COUNT):
            sock = net.dial("127.0.0.1", port, tls=tls, hostname=name, timeout=5)
            if tls is None:
                plain.accept()[0].close()
            drop(sock) if number % 2 else sock.close(linger=1)
            del sock
    else:
        async def main():
            gc.set_threshold(1)
            for number in range(COUNT):
                sock = await asyncnet.dial("127.0.0.1", port, tls=tls, hostname=name, timeout=5)
                if tls is None:
                    plain.accept()[0].close()
                drop(sock) if number % 2 else sock.close(linger=1)
                del sock
        asyncio.run(main())
    gc.set_threshold(700)
    gc.collect()
    plain.close()
    limit = time.monotonic() + 10
    while (left := len(os.listdir("/proc/self/fd"))) > before and time.monotonic() < limit:
        time.sleep(0.01)
    print(left - before, threading.active_count())
"""


SWEEP = """
    import gc, time
    from wireline import asyncnet, net
    from wireline.tls import SslContext

    warnings.simplefilter("ignore")
    tls = SslContext(ca_file=CA)
    before = len(os.listdir("/proc/self/fd"))

    def close_while_collecting(forgotten, sock, allocations):
        box = [forgotten]
        box.append(box)
        while "wireline-linger" in {thread.name for thread in threading.enumerate()}:
            time.sleep(0.001)  # so that this close has to start one
        gc.collect()
        gc.set_threshold(allocations)
        del box, forgotten
        gc.enable()
        sock.close()
        gc.disable()

    gc.disable()
    if BLOCKING:
        def new():
            return net.dial("127.0.0.1", PORT, tls=tls, hostname="localhost", timeout=5)
        for allocations in range(1, 60):
            close_while_collecting(new(), new(), allocations)
    else:
        async def main():
            def new():
                return asyncnet.dial("127.0.0.1", PORT, tls=tls, hostname="localhost", timeout=5)
            for allocations in range(1, 60):
                close_while_collecting(await new(), await new(), allocations)
        asyncio.run(main())
    gc.collect()
    limit = time.monotonic() + 10
    while (left := len(os.listdir("/proc/self/fd"))) > before and time.monotonic() < limit:
        time.sleep(0.01)
    print(left - before)
"""


@pytest.mark.skipif(not pathlib.Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_P2_a_collection_at_any_allocation_of_a_close_does_not_hang_it(
    tmp_path: pathlib.Path, sink: Sink, flavour: str
) -> None:
    """FA2: a forgotten TLS socket, collected while the linger thread was started, hung every later close."""
    result = run(tmp_path, SWEEP, sink, flavour)
    assert (result.returncode, result.stderr, result.stdout) == (0, "", "0\n")


@pytest.mark.skipif(not pathlib.Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_P2_sockets_that_are_dropped_in_cycles_neither_hang_nor_leak(
    tmp_path: pathlib.Path, sink: Sink, kind: str, flavour: str
) -> None:
    """FA2: a forgotten TLS socket, collected while the linger thread was started, hung every later close."""
    result = run(tmp_path, GARBAGE, sink, flavour, "20", kind)
    assert (result.returncode, result.stderr) == (0, "")
    left, threads = map(int, result.stdout.split())
    assert left == 0
    assert threads <= 2, "the main one, and perhaps one that waits for the next name"


# Names.

NAMES = """
    import collections, time
    from wireline import asyncnet, net

    answer = threading.Event()

    def getaddrinfo(*question):
        answer.wait(20)
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    socket.getaddrinfo = getaddrinfo
    COUNT = 300
    peak = 0

    def look():
        global peak
        resolving = [thread for thread in threading.enumerate() if thread.name.startswith("wireline-resolve")]
        peak = max(peak, len(resolving))

    if BLOCKING:
        outcomes = []
        def one(number):
            try:
                net.dial(f"host{number}.test", 80, timeout=15)
            except OSError as error:
                outcomes.append(type(error).__name__)
        threads = [threading.Thread(target=one, args=(number,)) for number in range(COUNT)]
        for thread in threads:
            thread.start()
            look()
        answer.set()
        for thread in threads:
            thread.join()
    else:
        async def main():
            tasks = [
                asyncio.create_task(asyncnet.dial(f"host{number}.test", 80, timeout=15)) for number in range(COUNT)
            ]
            await asyncio.sleep(0.1)
            look()
            answer.set()
            return [type(error).__name__ for error in await asyncio.gather(*tasks, return_exceptions=True)]
        outcomes = asyncio.run(main())
    print(peak, *collections.Counter(outcomes).items())
"""


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_P7_many_names_are_looked_up_by_few_threads(tmp_path: pathlib.Path, sink: Sink, flavour: str) -> None:
    """FA10: each name had a thread of its own: 3,000 dials, 3,001 threads."""
    result = run(tmp_path, NAMES, sink, flavour)
    assert (result.returncode, result.stderr) == (0, "")
    peak, outcomes = result.stdout.rstrip().split(" ", 1)
    assert int(peak) <= 32
    assert outcomes == "('gaierror', 300)"


RETRIES = """
    import gc
    from wireline import asyncnet, net

    answer = threading.Event()
    socket.getaddrinfo = lambda *question: answer.wait(20) and []

    def growth_of(retry):
        retry()
        gc.collect()
        before = len(gc.get_objects())
        for _ in range(300):
            retry()
        gc.collect()
        return len(gc.get_objects()) - before

    if BLOCKING:
        def retry():
            try:
                net.dial("dead.test", 80, timeout=0)
            except TimeoutError:
                pass
        grown = growth_of(retry)
    else:
        async def main():
            try:
                await asyncnet.dial("dead.test", 80, timeout=0)
            except TimeoutError:
                pass
        with asyncio.Runner() as runner:
            grown = growth_of(lambda: runner.run(main()))
    answer.set()
    print(grown)
"""


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_C2_tries_that_time_out_leave_nothing_behind(
    tmp_path: pathlib.Path, sink: Sink, flavour: str
) -> None:
    """FA28: each try that timed out left a callback on the shared name lookup, 8.9 MB in 20,000."""
    result = run(tmp_path, RETRIES, sink, flavour)
    assert (result.returncode, result.stderr) == (0, "")
    assert int(result.stdout) < 100
