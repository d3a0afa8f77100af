"""FA20 and P3: a socket file is replaced only if it is stale, by one socket, and removed by an explicit close only."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from wireline import AF_UNIX, SOCK_DGRAM, SOCK_STREAM
from wireline._os import unix_file
from wireline.asyncnet import AsyncSocket
from wireline.net import Socket, serve

kinds = pytest.mark.parametrize("kind", [Socket, AsyncSocket])
types = pytest.mark.parametrize("sock_type", [SOCK_STREAM, SOCK_DGRAM])

PATIENCE = 20.0
"""Seconds after which a child process counts as hanging."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "socket"


def make_stale(path: Path, sock_type: int = SOCK_STREAM) -> Path:
    with socket.socket(AF_UNIX, sock_type) as dead:
        dead.bind(str(path))
    return path


def run(program: str, *args: object) -> str:
    """Run a program in a process of its own, and return its output."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program), *map(str, args)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(sock: Any, path: Path) -> OSError:
    with pytest.raises(OSError, match="in use") as caught:
        sock.bind_unix(path)
    assert caught.value.errno == errno.EADDRINUSE
    return caught.value


# Which file is stale.


@kinds
@types
def test_FA20_a_socket_that_does_not_listen_yet_is_not_stale(kind: Any, sock_type: int, path: Path) -> None:
    """FA20: a socket that was bound and not yet listening counted as stale, and its file was stolen."""
    first, second = kind(AF_UNIX, sock_type), kind(AF_UNIX, sock_type)
    try:
        first.bind_unix(path)
        made = path.lstat().st_ino
        refused(second, path)
        assert path.lstat().st_ino == made
    finally:
        first.close()
        second.close()
    assert not path.exists()


@kinds
@pytest.mark.parametrize(("bound", "binding"), [(SOCK_DGRAM, SOCK_STREAM), (SOCK_STREAM, SOCK_DGRAM)])
def test_FA20_a_socket_of_the_other_type_is_not_stale(
    kind: Any, bound: int, binding: int, path: Path
) -> None:
    """FA20: nothing that is not a stale socket's is touched: a socket of the other type is a living one."""
    with socket.socket(AF_UNIX, bound) as living:
        living.bind(str(path))
        sock = kind(AF_UNIX, binding)
        refused(sock, path)
        sock.close()
        assert path.is_socket()


@kinds
def test_FA20_asking_leaves_nothing_in_the_queue_of_a_listener(kind: Any, path: Path) -> None:
    """FA20: whether a listener lives was asked by connecting to it, and it accepted a client that was none."""
    with socket.socket(AF_UNIX) as living:
        living.bind(str(path))
        living.listen()
        living.setblocking(False)
        sock = kind(AF_UNIX)
        refused(sock, path)
        sock.close()
        with pytest.raises(BlockingIOError):
            living.accept()


@kinds
@types
def test_FA20_a_stale_file_is_replaced(kind: Any, sock_type: int, path: Path) -> None:
    """FA20: a file that is still stale is replaced, of either type, and by either."""
    for stale in (SOCK_STREAM, SOCK_DGRAM):
        make_stale(path, stale)
        sock = kind(AF_UNIX, sock_type)
        sock.bind_unix(path)
        assert sock.local_addr.host == str(path)
        sock.close()
        assert not path.exists()


@kinds
def test_FA20_a_link_to_a_stale_file_is_not_removed(kind: Any, path: Path, tmp_path: Path) -> None:
    """FA20: a symlink to a stale socket was removed."""
    path.symlink_to(make_stale(tmp_path / "elsewhere"))
    sock = kind(AF_UNIX)
    refused(sock, path)
    sock.close()
    assert path.is_symlink()
    assert (tmp_path / "elsewhere").is_socket()


@kinds
def test_FA20_a_file_that_has_been_exchanged_meanwhile_is_not_removed(
    kind: Any, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FA20: the file that is removed is the one that was found stale, by device and inode."""
    is_stale = unix_file._is_stale
    with socket.socket(AF_UNIX) as other:

        def exchanging(where: str | bytes) -> bool:
            verdict = is_stale(where)
            make_stale(
                path.with_name("spare")
            )  # takes the inode that is free, lest the new file gets the old one's
            path.unlink()
            other.bind(str(path))
            return verdict

        monkeypatch.setattr(unix_file, "_is_stale", exchanging)
        make_stale(path)
        sock = kind(AF_UNIX)
        refused(sock, path)
        sock.close()
        assert path.is_socket()


@kinds
def test_FA20_a_file_that_goes_away_meanwhile_is_no_obstacle(
    kind: Any, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FA20: the socket that was there was closed while we looked: the path is free."""
    lock = unix_file._lock
    monkeypatch.setattr(unix_file, "_lock", lambda *args: (lock(*args), path.unlink()))
    make_stale(path)
    sock = kind(AF_UNIX)
    sock.bind_unix(path)
    assert path.is_socket()
    sock.close()


# One of several.


@kinds
def test_FA20_of_two_in_the_same_moment_one_succeeds(
    kind: Any, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FA20: a second server bound between the look and the removal, had its living file removed, and both succeeded."""
    monkeypatch.setattr(unix_file, "_LOCK_TIMEOUT", 0.0, raising=False)
    make_stale(path)
    unlink = os.unlink
    outcomes = []
    with ExitStack() as stack:

        def bind() -> None:
            sock = kind(AF_UNIX)
            stack.callback(sock.close)
            try:
                sock.bind_unix(path)
            except OSError as error:
                outcomes.append(error.strerror)
            else:
                outcomes.append("bound")

        def racing(what: Any) -> None:
            monkeypatch.setattr(os, "unlink", unlink)
            bind()
            unlink(what)

        monkeypatch.setattr(os, "unlink", racing)
        bind()
    assert outcomes == ["Address already in use", "bound"]


RACER = """
    import sys
    from wireline import AF_UNIX
    from wireline.asyncnet import AsyncSocket
    from wireline.net import Socket
    kind = {"Socket": Socket, "AsyncSocket": AsyncSocket}[sys.argv[1]]
    for line in sys.stdin:
        sock = kind(AF_UNIX)
        try:
            sock.bind_unix(line.rstrip())
            sock.listen()
        except OSError as error:
            print(error.strerror, flush=True)
        else:
            print("bound", flush=True)
        sys.stdin.readline()
        sock.close()
        print("closed", flush=True)
"""


@kinds
def test_FA20_of_two_processes_one_succeeds_each_time(kind: Any, path: Path) -> None:
    """FA20: two servers racing for one stale path both succeeded in 15 of 300 tries."""
    command = [sys.executable, "-c", textwrap.dedent(RACER), kind.__name__]
    racers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        for _ in range(2)
    ]
    outcomes = []
    try:
        for _ in range(300):
            make_stale(path)
            say(racers, f"{path}\n")
            outcomes.append(sorted(hear(racers)))
            say(racers, "close\n")
            assert hear(racers) == ["closed"] * 2
            path.unlink(missing_ok=True)
    finally:
        for racer in racers:
            racer.communicate(timeout=PATIENCE)
    assert outcomes == [["Address already in use", "bound"]] * 300


def say(processes: list[subprocess.Popen[str]], line: str) -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(line)
        process.stdin.flush()


def hear(processes: list[subprocess.Popen[str]]) -> list[str]:
    lines = []
    for process in processes:
        assert process.stdout is not None
        lines.append(process.stdout.readline().rstrip())
    return lines


# The lock.

HOLDER = """
    import fcntl, os, sys, time
    fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock on the directory, as one that is replacing a file does."""
    command = [sys.executable, "-c", textwrap.dedent(HOLDER), str(path.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert hear([process]) == ["locked"]
            yield process
        finally:
            process.kill()


@kinds
def test_FA20_a_lock_of_a_process_that_was_killed_blocks_no_bind(
    kind: Any, path: Path, holder: subprocess.Popen[str]
) -> None:
    """FA20: the kernel takes the lock away with the process, and nothing is left behind in the directory."""
    make_stale(path)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    sock = kind(AF_UNIX)
    sock.bind_unix(path)
    assert os.listdir(path.parent) == [path.name]
    sock.close()
    assert os.listdir(path.parent) == []


@kinds
def test_FA20_a_lock_that_is_never_let_go_is_an_error_in_time(
    kind: Any, path: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """FA20: a program that locks the directory forever does not hang the server, and its error gives the reason."""
    monkeypatch.setattr(unix_file, "_LOCK_TIMEOUT", 0.1)
    make_stale(path)
    sock = kind(AF_UNIX)
    began = time.monotonic()
    error = refused(sock, path)
    assert time.monotonic() - began < PATIENCE / 4
    assert "a stale socket file can only be replaced if its directory can be locked" in error.__notes__[0]
    assert path.is_socket()
    path.unlink()
    sock.bind_unix(path)  # a path that is free needs no lock
    sock.close()


def test_FA20_a_directory_that_may_not_be_read_is_an_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FA20: without the lock nothing is replaced, and the error gives the reason."""

    def forbidden(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    make_stale(path)
    monkeypatch.setattr(os, "open", forbidden)
    with Socket(AF_UNIX) as sock:
        assert "Permission denied" in refused(sock, path).__notes__[0]


def test_FA20_the_lock_is_let_go_although_a_child_has_the_descriptor(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FA20: a child that is forked during a takeover does not keep the directory locked."""
    is_stale = unix_file._is_stale
    duplicates: list[int] = []

    def forking(where: str | bytes) -> bool:
        for name in os.listdir("/proc/self/fd"):
            try:
                target = os.readlink(f"/proc/self/fd/{name}")
            except FileNotFoundError:  # the one that listed the directory
                continue
            if target == str(path.parent):
                duplicates.append(os.dup(int(name)))  # as a fork does, but without another process
        return is_stale(where)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("there is no /proc to find the descriptor in")
    monkeypatch.setattr(unix_file, "_is_stale", forking)
    make_stale(path)
    with Socket(AF_UNIX) as sock:
        sock.bind_unix(path)
    assert duplicates
    other = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    for descriptor in (*duplicates, other):
        os.close(descriptor)


# The files that close removes.


@kinds
def test_FA20_close_removes_only_the_file_that_this_socket_made(kind: Any, path: Path) -> None:
    """FA20: by lstat: a link that has replaced our file was removed, for it led to our file."""
    sock = kind(AF_UNIX)
    sock.bind_unix(path)
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")
    sock.close()
    assert path.is_symlink()
    assert path.is_socket()


@kinds
def test_FA20_close_leaves_a_file_that_another_has_made_since(kind: Any, path: Path) -> None:
    """FA20: its inode number is another one as long as our socket is open, so the file of another stays."""
    sock = kind(AF_UNIX)
    sock.bind_unix(path)
    path.unlink()
    with socket.socket(AF_UNIX) as other:
        other.bind(str(path))
        sock.close()
        assert path.is_socket()


@kinds
def test_FA20_close_removes_the_file_after_a_change_of_directory(
    kind: Any, path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """FA20: a server that went to "/" after it had bound to a relative path left its file behind."""
    for relative in (path.name, os.fsencode(path.name)):
        monkeypatch.chdir(path.parent)
        sock = kind(AF_UNIX)
        sock.bind_unix(relative)
        monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
        sock.close()
        assert not path.exists()


@kinds
def test_FA20_a_socket_that_is_closed_while_it_binds_leaves_no_file(
    kind: Any, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FA20: another thread called close after the bind had made the file, and close did not know of the file."""
    sock = kind(AF_UNIX)
    lstat = os.lstat

    def closing(where: Any) -> os.stat_result:
        sock.close()
        return lstat(where)

    monkeypatch.setattr(os, "lstat", closing)
    sock.bind_unix(path)
    monkeypatch.undo()
    assert not path.exists()


def test_FA20_a_connect_that_failed_keeps_the_path(path: Path) -> None:
    """FA20: a connect that failed left the socket without its own path: the file was in its own way (C3)."""
    with Socket(AF_UNIX) as sock, socket.socket(AF_UNIX) as listener:
        sock.bind_unix(path)
        there = path.with_name("there")
        with pytest.raises(FileNotFoundError):
            sock.connect_unix(there)
        assert path.is_socket()
        listener.bind(str(there))
        listener.listen()
        sock.connect_unix(there)
        with listener.accept()[0] as accepted:
            assert accepted.getpeername() == str(path)
    assert not path.exists()


# P3: the process that removes it.


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@kinds
def test_P3_a_finalizer_leaves_the_file(kind: Any, path: Path) -> None:
    """P3, FA5: a socket that was merely dropped removed the file, which another process may still serve."""
    sock = kind(AF_UNIX)
    sock.bind_unix(path)
    sock.myself = sock
    del sock
    gc.collect()
    assert path.is_socket()


@pytest.mark.parametrize("kind", ["net.Socket", "asyncnet.AsyncSocket"])
def test_P3_a_starter_that_ends_leaves_the_file(kind: str, path: Path) -> None:
    """P3, FA5: a starter bound, went to the background and ended: the living listener's file was gone."""
    program = f"""
        import os, sys
        from wireline import AF_UNIX, asyncnet, net
        listener = {kind}(AF_UNIX)
        listener.bind_unix(sys.argv[1])
        listener.listen()
        starter_lives, end = os.pipe()
        if os.fork():
            sys.exit(0)
        os.close(end)
        os.read(starter_lives, 1)
        print(os.path.exists(sys.argv[1]), flush=True)
        if sys.argv[2] == "adopts":
            listener.adopt()
            listener.close()
    """
    assert run(program, path, "ends") == "True\n"
    assert path.is_socket()
    assert run(program, path, "adopts") == "True\n"
    assert not path.exists()


@pytest.mark.parametrize("kind", ["net.Socket", "asyncnet.AsyncSocket"])
@pytest.mark.parametrize("way", ["listener.close()", "del listener"])
def test_P3_a_child_leaves_the_file(kind: str, way: str, path: Path) -> None:
    """P3, FA5: a worker that was recycled closed its inherited sockets, and removed the path of its parent."""
    program = f"""
        import os, socket, sys
        from wireline import AF_UNIX, asyncnet, net
        listener = {kind}(AF_UNIX)
        listener.bind_unix(sys.argv[1])
        listener.listen()
        if not (pid := os.fork()):
            {way}
            os._exit(0)
        os.waitpid(pid, 0)
        print(os.path.exists(sys.argv[1]))
        socket.socket(AF_UNIX).connect(sys.argv[1])
        listener.close()
        print(os.path.exists(sys.argv[1]))
    """
    assert run(program, path) == "True\nFalse\n"


@pytest.mark.parametrize("flavour", ["net", "asyncnet"])
@pytest.mark.parametrize("way", ["it returns", "a signal handler closes"])
def test_P3_a_worker_that_has_accepted_leaves_the_file(flavour: str, way: str, path: Path) -> None:
    """P3, FA5: the first worker that closed its copy of the listener took the path away from the others."""
    program = f"""
        import asyncio, os, signal, sys
        from wireline import AF_UNIX, ClosedError, asyncnet, net

        def work(listener):
            with listener.accept(timeout=5) as client:
                client.send(b"x")
            if {way != "it returns"}:
                signal.signal(signal.SIGALRM, lambda *_: listener.close())
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                try:
                    listener.accept(timeout=5)
                except ClosedError:
                    return
                os._exit(1)
            listener.close()

        async def work_async(listener):
            async with await listener.accept(timeout=5) as client:
                await client.send(b"x")
            if {way != "it returns"}:
                signal.signal(signal.SIGALRM, lambda *_: listener.close())
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                try:
                    await listener.accept(timeout=5)
                except ClosedError:
                    return
                os._exit(1)
            listener.close()

        is_async = {flavour == "asyncnet"}
        listener = (asyncnet.AsyncSocket if is_async else net.Socket)(AF_UNIX)
        listener.bind_unix(sys.argv[1])
        listener.listen()
        for _ in range(2):
            if not (pid := os.fork()):
                asyncio.run(work_async(listener)) if is_async else work(listener)
                os._exit(0)
            with net.Socket(AF_UNIX) as sock:
                sock.connect_unix(sys.argv[1], 5)
                assert sock.recv_exactly(1, 5) == b"x"
            assert os.waitpid(pid, 0)[1] == 0
            print(os.path.exists(sys.argv[1]))
        listener.close()
        print(os.path.exists(sys.argv[1]))
    """
    assert run(program, path) == "True\nTrue\nFalse\n"


def test_P3_a_program_that_ends_without_a_close_leaves_the_file_and_the_next_replaces_it(path: Path) -> None:
    """P3: at the end of the interpreter nothing is removed; the next server finds the file stale."""
    program = """
        import sys
        from wireline.net import serve
        server = serve(print, 0, "unix:" + sys.argv[1])
    """
    run(program, path)
    assert path.is_socket()
    with serve(lambda *_: None, 0, f"unix:{path}"):
        assert path.is_socket()
    assert not path.exists()
