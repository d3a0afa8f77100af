"""C5, S5: no path leaks a descriptor, whatever goes wrong, and running out of them is survived.

Three ways to make things go wrong: the ordinary ones, each once; every system call of a scenario, in every way in
which it may fail (``tests/faults/syscalls.py``); and a process that has only so many descriptors left.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import itertools
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import NamedTuple

import pytest

from tests.faults import few_descriptors
from tests.faults.descriptors import none_left, only, open_descriptors
from tests.faults.syscalls import Fault, Syscalls, faults_of
from wireline import (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    IPPROTO_UDP,
    SOCK_DGRAM,
    SOCK_STREAM,
    ClosedError,
    DialError,
    SocketTimeout,
    get_primary_ip_addr,
)
from wireline.net import Server, Socket, dial, serve

LOOPBACK = "127.0.0.1"
PATIENCE = 5.0
"""Seconds for an event that is expected."""
MOMENT = 0.005
"""Seconds for a call that is expected to time out."""

Result = Socket | Server | None
Act = Callable[[], Result]


@pytest.fixture
def syscalls(monkeypatch: pytest.MonkeyPatch) -> Syscalls:
    return Syscalls(monkeypatch)


# Peers of the standard library, which the shim leaves alone.


@contextmanager
def listener(family: int = AF_INET, host: str = LOOPBACK, backlog: int = 100) -> Iterator[int]:
    """A listener that never accepts."""
    with Syscalls.plain(family) as sock:
        sock.bind((host, 0))
        sock.listen(backlog)
        yield sock.getsockname()[1]


@contextmanager
def refusing(family: int = AF_INET, host: str = LOOPBACK, sock_type: int = SOCK_STREAM) -> Iterator[int]:
    """A port that is bound, so that no other program gets it, and on which no socket listens."""
    with Syscalls.plain(family, sock_type) as sock:
        sock.bind((host, 0))
        yield sock.getsockname()[1]


@contextmanager
def silent() -> Iterator[int]:
    """A port that does not answer: its queue is full, so Linux drops further SYNs."""
    with ExitStack() as clients, listener(backlog=0) as port:
        while True:
            client = clients.enter_context(Syscalls.plain())
            client.settimeout(MOMENT)
            try:
                client.connect((LOOPBACK, port))
            except TimeoutError:
                yield port
                return


@contextmanager
def full_unix_listener(path: pathlib.Path) -> Iterator[str]:
    """The path of a Unix listener whose queue is full."""
    with ExitStack() as clients, Syscalls.plain(AF_UNIX) as sock:
        sock.bind(str(path))
        clients.callback(os.unlink, path)
        sock.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                client = clients.enter_context(Syscalls.plain(AF_UNIX))
                client.setblocking(False)
                client.connect(str(path))
        yield str(path)


def stale_file(path: pathlib.Path) -> pathlib.Path:
    """A stale socket file."""
    with Syscalls.plain(AF_UNIX) as sock:
        sock.bind(str(path))
    return path


numbers = itertools.count()


def new_name() -> str:
    """A name that no other lookup uses: concurrent lookups of one name share a result."""
    return f"name-{next(numbers)}"


def resolving_to(patch: pytest.MonkeyPatch, *addresses: tuple[int, str, int]) -> None:
    """Make every name resolve to these: family, host and port."""

    def getaddrinfo(
        host: str | None, port: int, family: int = 0, kind: int = 0, protocol: int = 0, flags: int = 0
    ) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(family, kind, protocol, "", (host, port)) for family, host, port in addresses]

    patch.setattr(socket, "getaddrinfo", getaddrinfo)


# The actions. Each yields a call that can be repeated on the same objects after it has failed.


@contextmanager
def dialing(_: pathlib.Path) -> Iterator[Act]:
    with listener() as port:
        yield lambda: dial(LOOPBACK, port, timeout=PATIENCE)


@contextmanager
def dialing_a_name(_: pathlib.Path) -> Iterator[Act]:
    with pytest.MonkeyPatch.context() as patch, refusing() as dead, refusing(AF_INET6, "::1") as dead_6:
        with listener() as alive:
            resolving_to(
                patch, (AF_INET, LOOPBACK, dead), (AF_INET6, "::1", dead_6), (AF_INET, LOOPBACK, alive)
            )
            yield lambda: dial(new_name(), 1, timeout=PATIENCE)


@contextmanager
def dialing_datagrams(_: pathlib.Path) -> Iterator[Act]:
    with refusing(sock_type=SOCK_DGRAM) as port:
        yield lambda: dial(LOOPBACK, port, IPPROTO_UDP, timeout=PATIENCE)


@contextmanager
def making(_: pathlib.Path) -> Iterator[Act]:
    yield lambda: Socket(inheritable=True)


@contextmanager
def making_a_unix_socket(_: pathlib.Path) -> Iterator[Act]:
    yield lambda: Socket(AF_UNIX, SOCK_DGRAM)


@contextmanager
def connecting(_: pathlib.Path) -> Iterator[Act]:
    with listener() as port, Socket() as sock:
        yield lambda: sock.connect(LOOPBACK, port, timeout=PATIENCE)


@contextmanager
def connecting_to_a_name(_: pathlib.Path) -> Iterator[Act]:
    with pytest.MonkeyPatch.context() as patch, refusing() as dead, listener() as alive, Socket() as sock:
        resolving_to(patch, (AF_INET, LOOPBACK, dead), (AF_INET, LOOPBACK, alive))
        yield lambda: sock.connect(new_name(), 1, timeout=PATIENCE)


@contextmanager
def connecting_in_vain(_: pathlib.Path) -> Iterator[Act]:
    with refusing() as port, Socket() as sock:

        def act() -> None:
            with pytest.raises(ConnectionRefusedError):
                sock.connect(LOOPBACK, port, timeout=PATIENCE)

        yield act


@contextmanager
def connecting_without_an_answer(_: pathlib.Path) -> Iterator[Act]:
    with silent() as port, Socket() as sock:

        def act() -> None:
            with pytest.raises(SocketTimeout):
                sock.connect(LOOPBACK, port, timeout=MOMENT)

        yield act


@contextmanager
def connecting_datagrams(_: pathlib.Path) -> Iterator[Act]:
    with refusing(sock_type=SOCK_DGRAM) as port, Socket(sock_type=SOCK_DGRAM) as sock:
        yield lambda: sock.connect(LOOPBACK, port)


@contextmanager
def connecting_to_a_unix_socket(directory: pathlib.Path) -> Iterator[Act]:
    path = directory / "socket"
    with Syscalls.plain(AF_UNIX) as sock, Socket(AF_UNIX) as ours:
        sock.bind(str(path))
        sock.listen()
        yield lambda: ours.connect_unix(path, timeout=PATIENCE)
    path.unlink()


@contextmanager
def binding_a_unix_socket(directory: pathlib.Path) -> Iterator[Act]:
    path = directory / "socket"

    def act() -> None:
        with Socket(AF_UNIX) as sock:
            sock.bind_unix(path)
            sock.listen()

    yield act
    path.unlink(missing_ok=True)


@contextmanager
def replacing_a_stale_file(directory: pathlib.Path) -> Iterator[Act]:
    path = directory / "socket"

    def act() -> None:
        if not path.exists():
            stale_file(path)
        with Socket(AF_UNIX) as sock:
            sock.bind_unix(path)

    stale_file(path)
    yield act
    path.unlink(missing_ok=True)


@contextmanager
def accepting(_: pathlib.Path) -> Iterator[Act]:
    with Socket() as sock, ExitStack() as clients:
        sock.bind_addr(0, LOOPBACK)
        sock.listen()
        where = sock.local_addr
        # Enough for each call that fails after it has accepted one.
        for _client in range(3):
            clients.enter_context(Syscalls.plain()).connect(where)
        yield lambda: sock.accept(inheritable=True, timeout=PATIENCE)


@contextmanager
def accepting_in_vain(_: pathlib.Path) -> Iterator[Act]:
    with Socket() as sock:
        sock.bind_addr(0, LOOPBACK)
        sock.listen()

        def act() -> None:
            with pytest.raises(SocketTimeout):
                sock.accept(timeout=MOMENT)

        yield act


@contextmanager
def receiving_datagrams_in_vain(_: pathlib.Path) -> Iterator[Act]:
    with Socket(sock_type=SOCK_DGRAM) as sock:
        sock.bind_addr(0, LOOPBACK)

        def act() -> None:
            with pytest.raises(SocketTimeout):
                sock.recv_from(100, timeout=MOMENT)

        yield act


@contextmanager
def adopting(_: pathlib.Path) -> Iterator[Act]:
    pairs = [pair(), pair()]
    with ExitStack() as ends:
        for one, other in pairs:
            ends.enter_context(one)
            ends.enter_context(other)
        yield lambda: Socket.from_socket(pairs.pop()[0])


def pair() -> tuple[socket.socket, socket.socket]:
    """A connected pair, past the shim."""
    with Syscalls.plain() as sock:
        sock.bind((LOOPBACK, 0))
        sock.listen()
        client = Syscalls.plain()
        client.connect(sock.getsockname())
        fd, _ = sock._accept()  # type: ignore[attr-defined]
        return Syscalls.plain(AF_INET, SOCK_STREAM, fileno=fd), client


@contextmanager
def serving(_: pathlib.Path) -> Iterator[Act]:
    yield lambda: serve(lambda client, address: None, 0, LOOPBACK)


@contextmanager
def serving_everywhere(_: pathlib.Path) -> Iterator[Act]:
    yield lambda: serve(lambda client, address: None, 0, reuse_port=True)


@contextmanager
def serving_a_unix_socket(directory: pathlib.Path) -> Iterator[Act]:
    yield lambda: serve(lambda client, address: None, 0, f"unix:{directory}/socket")
    (directory / "socket").unlink(missing_ok=True)


@contextmanager
def asking_for_the_route(_: pathlib.Path) -> Iterator[Act]:
    def act() -> None:
        get_primary_ip_addr(LOOPBACK)

    yield act


class Scenario(NamedTuple):
    """Something to do, and which calls may fail without failing it: there is another address, or family, to try."""

    prepare: Callable[[pathlib.Path], AbstractContextManager[Act]]
    survives: frozenset[str] = frozenset()
    instead: frozenset[int] = frozenset()
    """Errors that may be reported in place of the fault, which would mean nothing to the caller."""


MAKING = frozenset({"socket", "setblocking", "setsockopt"})

SCENARIOS = {
    # If getpeername fails the peer has gone, so it is not a connection to itself.
    "dial": Scenario(dialing, frozenset({"getpeername"})),
    "dial a name": Scenario(
        dialing_a_name, MAKING | {"connect_ex", "getsockopt", "getsockname", "getpeername"}
    ),
    "dial datagrams": Scenario(dialing_datagrams),
    "make": Scenario(making),
    "make a Unix socket": Scenario(making_a_unix_socket),
    "connect": Scenario(connecting, frozenset({"getpeername"})),
    "connect to a name": Scenario(
        connecting_to_a_name, frozenset({"connect_ex", "poll", "getsockopt", "getsockname", "getpeername"})
    ),
    # `connect` prepares the next attempt after a failure: an error of that must not hide the failure.
    "connect in vain": Scenario(connecting_in_vain, MAKING | {"set_inheritable", "connect_ex"}),
    "connect without an answer": Scenario(connecting_without_an_answer, MAKING | {"set_inheritable"}),
    "connect datagrams": Scenario(connecting_datagrams),
    "connect_unix": Scenario(connecting_to_a_unix_socket),
    "bind_unix": Scenario(binding_a_unix_socket, frozenset({"bind", "lstat", "unlink"})),
    "bind_unix over a stale file": Scenario(
        replacing_a_stale_file,
        frozenset({"bind", "lstat", "unlink", "flock", "connect_ex"}),
        frozenset({errno.EADDRINUSE}),
    ),
    "accept": Scenario(accepting),
    "accept in vain": Scenario(accepting_in_vain),
    "recv_from in vain": Scenario(receiving_datagrams_in_vain),
    "from_socket": Scenario(adopting, frozenset({"getsockopt", "getpeername"})),
    "serve": Scenario(serving),
    "serve everywhere": Scenario(serving_everywhere, MAKING | {"getaddrinfo", "bind", "listen"}),
    "serve a Unix socket": Scenario(serving_a_unix_socket, frozenset({"bind", "lstat"})),
    "get_primary_ip_addr": Scenario(asking_for_the_route),
}


def dispose(result: Result) -> None:
    if isinstance(result, Server):
        result.stop()
    elif result is not None:
        result.close()


@contextmanager
def nothing_unclosed() -> Iterator[None]:
    """Fail if the library leaves the closing of a descriptor to the garbage collector."""
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        yield
        gc.collect()
    assert not complaints, [str(complaint.message) for complaint in complaints]


@pytest.mark.parametrize("name", SCENARIOS)
def test_C5_no_call_that_fails_leaves_a_descriptor(
    name: str, syscalls: Syscalls, tmp_path: pathlib.Path
) -> None:
    scenario = SCENARIOS[name]
    with scenario.prepare(tmp_path) as act:
        with syscalls.recording() as calls:
            result = act()
        dispose(result)
    faults = list(faults_of(calls))
    assert faults
    for fault in faults:
        with noted(fault), none_left(), nothing_unclosed(), scenario.prepare(tmp_path) as act:
            if failed(syscalls, fault, act, scenario):
                dispose(act())  # the object is usable again


@contextmanager
def noted(fault: Fault) -> Iterator[None]:
    """Name the fault in the exception of a problem."""
    try:
        yield
    except Exception as problem:
        problem.add_note(str(fault))
        raise


ABORTED = (errno.ECONNABORTED, errno.EPROTO, errno.EPERM)


def failed(syscalls: Syscalls, fault: Fault, act: Act, scenario: Scenario) -> bool:
    """Run the action with one fault; whether it failed, and if so, with the right error."""
    code = fault.error.errno if isinstance(fault.error, OSError) else None
    # A client that has gone before it is accepted (S4), or an EINTR, must not fail the call.
    harmless = code == errno.EINTR or (fault.call == "_accept" and code in ABORTED)
    try:
        with syscalls.failing(fault):
            result = act()
    except BaseException as error:  # noqa: BLE001 -- KeyboardInterrupt is one of the faults
        problem = is_wrong(error, fault.error, scenario.instead) or (
            harmless and "it should not have been noticed"
        )
        fault.error.with_traceback(None)  # the traceback refers to the objects of the frames
        if problem:
            pytest.fail(problem)
        return True
    dispose(result)
    assert harmless or not syscalls.fired or (code is not None and fault.call in scenario.survives)
    return False


def is_wrong(error: BaseException, fault: BaseException, instead: frozenset[int]) -> str:
    """Why ``error`` is the wrong result of ``fault``; empty if it is right."""
    if not isinstance(fault, OSError):
        return "" if type(error) is type(fault) else f"{error!r} was raised"
    codes = [cause.errno for _, cause, _ in error.attempts] if isinstance(error, DialError) else []
    if isinstance(error, OSError):
        codes.append(error.errno)
    return "" if fault.errno in codes or not instead.isdisjoint(codes) else f"{error!r} was raised"


# Out of descriptors for real.


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit to lower on Windows")
@pytest.mark.parametrize("name", SCENARIOS)
def test_C5_with_one_descriptor_more_each_time_until_it_works(name: str, tmp_path: pathlib.Path) -> None:
    scenario = SCENARIOS[name]
    for count in range(10):
        with none_left(), nothing_unclosed(), scenario.prepare(tmp_path) as act:
            try:
                with only(count):
                    result = act()
            except OSError as error:
                problem = is_wrong(error, OSError(errno.EMFILE, "too many"), scenario.instead)
                if problem:
                    raise
                dispose(act())
            else:
                dispose(result)
                break
    else:
        pytest.fail("it never worked")


# The ordinary ways to fail.


class Failure(NamedTuple):
    """A call that fails, its error, and the ``errno`` if it has one."""

    act: Act
    error: type[BaseException]
    code: int | None = None


Prepare = Callable[[pathlib.Path], AbstractContextManager[Failure]]
FAILURES: dict[str, Prepare] = {}


def failure(
    prepare: Callable[[pathlib.Path], Iterator[Failure]],
) -> Callable[[pathlib.Path], Iterator[Failure]]:
    FAILURES[prepare.__name__.replace("_", " ")] = contextmanager(prepare)
    return prepare


@failure
def dial_refused(_: pathlib.Path) -> Iterator[Failure]:
    with refusing() as port:
        yield Failure(lambda: dial(LOOPBACK, port), DialError, errno.ECONNREFUSED)


@failure
def dial_refused_by_every_address(_: pathlib.Path) -> Iterator[Failure]:
    with pytest.MonkeyPatch.context() as patch, refusing() as port, refusing(AF_INET6, "::1") as port_6:
        resolving_to(
            patch, (AF_INET6, "::1", port_6), (AF_INET, LOOPBACK, port), (AF_INET, "127.0.0.2", port)
        )
        yield Failure(lambda: dial(new_name(), 1), DialError, errno.ECONNREFUSED)


@failure
def dial_unreachable(_: pathlib.Path) -> Iterator[Failure]:
    # No connection to a broadcast address: the kernel knows that without asking the network.
    yield Failure(lambda: dial("255.255.255.255", 9), DialError)


@failure
def dial_without_an_answer(_: pathlib.Path) -> Iterator[Failure]:
    with silent() as port:
        yield Failure(lambda: dial(LOOPBACK, port, timeout=MOMENT), SocketTimeout)


@failure
def dial_without_an_answer_from_any_address(_: pathlib.Path) -> Iterator[Failure]:
    with pytest.MonkeyPatch.context() as patch, silent() as port, refusing() as dead:
        # The second starts at once, for the first is refused; the third would start 250 ms later.
        resolving_to(patch, (AF_INET, LOOPBACK, dead), (AF_INET, LOOPBACK, port), (AF_INET, LOOPBACK, port))
        yield Failure(lambda: dial(new_name(), 1, timeout=MOMENT), SocketTimeout)


@failure
def dial_a_name_that_does_not_resolve(_: pathlib.Path) -> Iterator[Failure]:
    with pytest.MonkeyPatch.context() as patch:
        resolving_to(patch)
        yield Failure(lambda: dial(new_name(), 1), socket.gaierror)


@failure
def dial_a_name_that_resolves_to_nothing_in_time(_: pathlib.Path) -> Iterator[Failure]:
    over = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", lambda *_: over.wait(PATIENCE) and [])
        yield Failure(lambda: dial(new_name(), 1, timeout=MOMENT), SocketTimeout)
        over.set()


@failure
def connect_refused(_: pathlib.Path) -> Iterator[Failure]:
    with refusing() as port, Socket() as sock:
        yield Failure(lambda: sock.connect(LOOPBACK, port), ConnectionRefusedError)


@failure
def connect_unreachable(_: pathlib.Path) -> Iterator[Failure]:
    with Socket() as sock:
        yield Failure(lambda: sock.connect("255.255.255.255", 9), OSError)


@failure
def connect_without_an_answer(_: pathlib.Path) -> Iterator[Failure]:
    with silent() as port, Socket() as sock:
        yield Failure(lambda: sock.connect(LOOPBACK, port, timeout=MOMENT), SocketTimeout)


@failure
def connect_to_a_name_that_does_not_resolve(_: pathlib.Path) -> Iterator[Failure]:
    with pytest.MonkeyPatch.context() as patch, Socket() as sock:
        resolving_to(patch)
        yield Failure(lambda: sock.connect(new_name(), 1), socket.gaierror)


@failure
def connect_to_the_wrong_family(_: pathlib.Path) -> Iterator[Failure]:
    with Socket() as sock:
        yield Failure(lambda: sock.connect("::1", 1), socket.gaierror)


@failure
def connect_closed_by_another_thread(_: pathlib.Path) -> Iterator[Failure]:
    def act() -> None:
        with silent() as port, Socket() as sock:
            closer = threading.Timer(MOMENT, sock.close)
            closer.start()
            try:
                sock.connect(LOOPBACK, port, timeout=PATIENCE)
            finally:
                closer.join()

    yield Failure(act, ClosedError)


@failure
def connect_unix_to_nothing(directory: pathlib.Path) -> Iterator[Failure]:
    with Socket(AF_UNIX) as sock:
        yield Failure(lambda: sock.connect_unix(directory / "nothing"), FileNotFoundError)


@failure
def connect_unix_refused(directory: pathlib.Path) -> Iterator[Failure]:
    path = stale_file(directory / "stale")
    with Socket(AF_UNIX) as sock:
        yield Failure(lambda: sock.connect_unix(path), ConnectionRefusedError)


@failure
def connect_unix_without_an_answer(directory: pathlib.Path) -> Iterator[Failure]:
    with full_unix_listener(directory / "full") as path, Socket(AF_UNIX) as sock:
        yield Failure(lambda: sock.connect_unix(path, timeout=MOMENT), SocketTimeout)


@failure
def bind_unix_in_use(directory: pathlib.Path) -> Iterator[Failure]:
    with Syscalls.plain(AF_UNIX) as other, Socket(AF_UNIX) as sock:
        other.bind(str(directory / "used"))
        other.listen()
        yield Failure(lambda: sock.bind_unix(directory / "used"), OSError, errno.EADDRINUSE)


@failure
def bind_unix_over_a_file(directory: pathlib.Path) -> Iterator[Failure]:
    (directory / "file").touch()
    with Socket(AF_UNIX) as sock:
        yield Failure(lambda: sock.bind_unix(directory / "file"), OSError, errno.EADDRINUSE)


@failure
def bind_unix_in_no_directory(directory: pathlib.Path) -> Iterator[Failure]:
    with Socket(AF_UNIX) as sock:
        yield Failure(lambda: sock.bind_unix(directory / "no" / "where"), FileNotFoundError)


@failure
def bind_addr_in_use(_: pathlib.Path) -> Iterator[Failure]:
    with listener() as port, Socket() as sock:
        yield Failure(lambda: sock.bind_addr(port, LOOPBACK), OSError, errno.EADDRINUSE)


@failure
def bind_addr_that_is_not_ours(_: pathlib.Path) -> Iterator[Failure]:
    with Socket() as sock:
        yield Failure(lambda: sock.bind_addr(0, "192.0.2.1"), OSError, errno.EADDRNOTAVAIL)


@failure
def accept_in_vain(_: pathlib.Path) -> Iterator[Failure]:
    with Socket() as sock:
        sock.bind_addr(0, LOOPBACK)
        sock.listen()
        yield Failure(lambda: sock.accept(timeout=MOMENT), SocketTimeout)


@failure
def accept_closed_by_another_thread(_: pathlib.Path) -> Iterator[Failure]:
    def act() -> None:
        with Socket() as sock:
            sock.bind_addr(0, LOOPBACK)
            sock.listen()
            closer = threading.Timer(MOMENT, sock.close)
            closer.start()
            try:
                sock.accept(timeout=PATIENCE)
            finally:
                closer.join()

    yield Failure(act, ClosedError)


@failure
def from_fd_of_a_file(directory: pathlib.Path) -> Iterator[Failure]:
    fd = os.open(directory, os.O_RDONLY)

    def act() -> None:
        Socket.from_fd(fd)

    yield Failure(act, OSError, errno.ENOTSOCK)
    os.close(fd)


@failure
def from_fd_of_a_file_that_is_called_a_socket(directory: pathlib.Path) -> Iterator[Failure]:
    fd = os.open(directory, os.O_RDONLY)

    def act() -> None:
        Socket.from_fd(fd, AF_INET, SOCK_STREAM, 0)

    yield Failure(act, OSError, errno.ENOTSOCK)
    os.close(fd)


@failure
def from_fd_that_is_closed(_: pathlib.Path) -> Iterator[Failure]:
    fd = os.open(os.devnull, os.O_RDONLY)
    os.close(fd)
    yield Failure(lambda: Socket.from_fd(fd), OSError, errno.EBADF)


@failure
def from_socket_that_is_closed(_: pathlib.Path) -> Iterator[Failure]:
    sock = socket.socket()
    sock.close()
    yield Failure(lambda: Socket.from_socket(sock), OSError, errno.EBADF)


@failure
def serve_on_a_taken_address(_: pathlib.Path) -> Iterator[Failure]:
    with listener() as port:
        yield Failure(lambda: serve(print, port, LOOPBACK), OSError, errno.EADDRINUSE)


@failure
def serve_on_a_taken_port_of_every_interface(_: pathlib.Path) -> Iterator[Failure]:
    with listener(host="0.0.0.0") as port:
        yield Failure(lambda: serve(print, port), OSError, errno.EADDRINUSE)


@failure
def serve_where_it_is_not_ours(_: pathlib.Path) -> Iterator[Failure]:
    yield Failure(lambda: serve(print, 0, "192.0.2.1"), OSError, errno.EADDRNOTAVAIL)


@failure
def serve_a_name_that_does_not_resolve(_: pathlib.Path) -> Iterator[Failure]:
    with pytest.MonkeyPatch.context() as patch:
        resolving_to(patch)
        yield Failure(lambda: serve(print, 0, new_name()), socket.gaierror)


@failure
def serve_a_unix_socket_in_use(directory: pathlib.Path) -> Iterator[Failure]:
    with Syscalls.plain(AF_UNIX) as other:
        other.bind(str(directory / "used"))
        other.listen()
        yield Failure(lambda: serve(print, 0, f"unix:{directory}/used"), OSError, errno.EADDRINUSE)


@failure
def serve_without_a_thread(_: pathlib.Path) -> Iterator[Failure]:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        yield Failure(lambda: serve(print, 0, LOOPBACK), RuntimeError)


@pytest.mark.parametrize("name", FAILURES)
def test_C5_a_call_that_fails_leaves_no_descriptor(name: str, tmp_path: pathlib.Path) -> None:
    with none_left(), nothing_unclosed(), FAILURES[name](tmp_path) as (act, error, code):
        for attempt in range(3):
            # The first call that waits makes a waker, which the next ones use.
            with as_many_as_before() if attempt else nullcontext(), pytest.raises(error) as caught:
                act()
            assert code is None or (isinstance(caught.value, OSError) and caught.value.errno == code)


@contextmanager
def as_many_as_before() -> Iterator[None]:
    """Fail if more or fewer descriptors are open at the end; a connect that fails may exchange its own."""
    before = len(open_descriptors())
    yield
    gc.collect()
    assert len(open_descriptors()) == before


# Connections of a server.


def fails(client: Socket, _: object) -> None:
    raise ValueError(client.recv_line(PATIENCE))


def closes(client: Socket, _: object) -> None:
    client.recv_line(PATIENCE)
    client.close(linger=0)


def stops(client: Socket, _: object) -> None:
    client.recv_line(PATIENCE)
    raise SystemExit


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("handler", [fails, closes, stops])
def test_C5_a_handler_that_fails_leaves_no_descriptor(handler: Callable[[Socket, object], None]) -> None:
    with none_left(), serve(handler, 0, LOOPBACK) as server:
        for _ in range(5):
            with socket.create_connection(server.local_addr, PATIENCE) as client:
                client.sendall(b"go\n")
                with contextlib.suppress(ConnectionResetError):
                    assert client.recv(1) == b""


def test_C5_a_connection_for_which_there_is_no_thread_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def start_no_client(thread: threading.Thread) -> None:
        if thread.name.startswith("wireline-client"):
            raise RuntimeError("can't start new thread")
        start(thread)

    with none_left(), serve(lambda client, address: None, 0, LOOPBACK) as server:
        monkeypatch.setattr(threading.Thread, "start", start_no_client)
        for _ in range(3):
            with socket.create_connection(server.local_addr, PATIENCE) as client:
                assert client.recv(1) == b""
        monkeypatch.undo()
        with socket.create_connection(server.local_addr, PATIENCE) as client:
            assert client.recv(1) == b""


def test_C5_connections_that_were_not_accepted_are_closed_with_the_listener() -> None:
    with none_left(), ExitStack() as clients:
        with Socket() as sock:
            sock.bind_addr(0, LOOPBACK)
            sock.listen()
            for _ in range(5):
                clients.enter_context(socket.create_connection(sock.local_addr, PATIENCE))


@pytest.mark.parametrize("linger", [None, 0, 0.05])
def test_C5_closing_when_every_call_fails_leaves_no_descriptor(
    linger: float | None, syscalls: Syscalls
) -> None:
    @contextmanager
    def connected() -> Iterator[Socket]:
        one, other = pair()
        with other:
            yield Socket.from_socket(one)
        for thread in threading.enumerate():
            if thread.name == "wireline-linger":
                thread.join(PATIENCE)

    with connected() as sock, syscalls.recording() as calls:
        sock.close(linger=linger)
    for fault in faults_of(calls):
        if not isinstance(fault.error, KeyboardInterrupt):
            with noted(fault), none_left(), nothing_unclosed(), connected() as sock:
                with syscalls.failing(fault):
                    sock.close(linger=linger)
                assert sock.is_closed


# S5


class Report(NamedTuple):
    """A line printed by ``tests/faults/few_descriptors.py``."""

    cpu: float
    logged: list[float]
    connections: int


@contextmanager
def server_with_few_descriptors(limit: int) -> Iterator[int]:
    """Run it in a separate process; yield its port."""
    program = pathlib.Path(few_descriptors.__file__)
    with subprocess.Popen(
        [sys.executable, str(program), str(limit)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.stdin.close()
        assert process.wait(PATIENCE) == 0


def ask(client: socket.socket, line: bytes) -> bytes:
    client.sendall(line + b"\n")
    answer = b""
    while not answer.endswith(b"\n"):
        piece = client.recv(4096)
        assert piece, f"closed instead of an answer: {answer!r}"
        answer += piece
    return answer[:-1]


def report_of(client: socket.socket) -> Report:
    return Report(*json.loads(ask(client, b"report")))


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit to lower on Windows")
def test_S5_a_server_that_ran_out_of_descriptors_serves_its_clients_and_recovers() -> None:
    period = 0.5  # seconds of observation while it cannot accept
    with ExitStack() as held, server_with_few_descriptors(30) as port:
        clients = [
            held.enter_context(socket.create_connection((LOOPBACK, port), PATIENCE)) for _ in range(40)
        ]
        while not (before := report_of(clients[0])).logged:
            pass
        served, waiting = clients[: before.connections], clients[before.connections :]
        assert 10 < len(served) < 30
        for client in served:
            assert ask(client, b"before") == b"before"

        waiting[0].sendall(b"hello\n")
        waiting[0].settimeout(period)
        with pytest.raises(TimeoutError):
            waiting[0].recv(1)

        after = report_of(clients[0])
        assert after.connections == before.connections
        assert after.cpu - before.cpu < period / 4
        assert len(after.logged) <= 2
        for client in served:
            assert ask(client, b"after") == b"after"

        for client in served[1:]:
            client.close()
        waiting[0].settimeout(PATIENCE)
        assert waiting[0].recv(6) == b"hello\n"
        for client in waiting[1:]:
            assert ask(client, b"at last") == b"at last"
        moments = report_of(clients[0]).logged
        assert all(later - earlier >= 0.99 for earlier, later in itertools.pairwise(moments))
