"""The shim itself: it sees every call, and lets one of them fail when it should."""

from __future__ import annotations

import errno
import socket
import threading

import pytest

from tests.faults.syscalls import COUNTED, UNCOUNTED, Fault, Forbidden, Syscalls, faults_of


@pytest.fixture
def syscalls(monkeypatch: pytest.MonkeyPatch) -> Syscalls:
    return Syscalls(monkeypatch)


def test_no_method_of_a_socket_was_forgotten() -> None:
    # The methods that Python adds are made of those that the C class has. Those that begin with one underscore count.
    made_in_c = socket.socket.__mro__[1]
    methods = {
        name for name in vars(made_in_c) if callable(getattr(made_in_c, name)) and not name.startswith("__")
    }
    assert methods - {"ioctl", "share"} <= COUNTED | UNCOUNTED


def test_it_counts_every_call_of_this_thread_while_it_records(syscalls: Syscalls) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with syscalls.recording() as calls, socket.socket() as client:
            client.connect(listener.getsockname())
            accepted, _ = listener.accept()
            accepted.close()
            thread = threading.Thread(target=client.getsockname)
            thread.start()
            thread.join()
    assert calls == ["socket", "getsockname", "connect", "_accept", "thread"]


def test_it_counts_those_of_other_threads_too_if_asked(syscalls: Syscalls) -> None:
    with socket.socket() as sock, syscalls.recording(everywhere=True) as calls:
        thread = threading.Thread(target=sock.getsockname)
        thread.start()
        thread.join()
    assert calls == ["thread", "getsockname"]


def test_it_fails_the_chosen_call(syscalls: Syscalls) -> None:
    with socket.socket() as sock:
        with syscalls.failing(Fault(2, "getsockname", OSError(errno.ENOBUFS, "no"))):
            sock.getsockname()
            with pytest.raises(OSError, match="no"):
                sock.getsockname()
            sock.getsockname()
        assert syscalls.fired
        with syscalls.failing(Fault(1, "connect_ex", OSError(errno.EINTR, "no"))):
            assert sock.connect_ex(("127.0.0.1", 1)) == errno.EINTR


def test_it_forbids_every_call_and_says_so_even_if_the_error_was_swallowed(syscalls: Syscalls) -> None:
    with syscalls.forbidding():
        pass
    with socket.socket() as sock, pytest.raises(Forbidden, match="getsockname"):
        with syscalls.forbidding():
            with pytest.raises(Forbidden, match="getsockname"):
                sock.getsockname()


def test_peers_of_the_test_pass_by(syscalls: Syscalls) -> None:
    with syscalls.recording() as calls, Syscalls.plain() as sock:
        sock.getsockname()
        assert isinstance(sock, socket.socket)
    assert calls == []


def test_it_names_every_way_in_which_a_call_may_fail() -> None:
    faults = list(faults_of(["socket", "listen", "thread"]))
    assert {(fault.position, fault.call) for fault in faults} == {(1, "socket"), (2, "listen"), (3, "thread")}
    assert [type(fault.error) for fault in faults].count(KeyboardInterrupt) == 3
    assert [type(fault.error) for fault in faults].count(RuntimeError) == 1
    codes = {fault.error.errno for fault in faults if isinstance(fault.error, OSError)}
    assert codes >= {errno.EMFILE, errno.EADDRINUSE}
