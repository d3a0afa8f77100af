"""Every exit code of every command."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.command import accept, connect, reset, tcp_server
from tests.cli.conftest import Start
from tests.cli.scripted import Lines, scripted
from tests.cli.test_check_tls import serving
from tests.cli.test_help import commands
from tests.tls import certificates

CA = ["--ca-file", certificates.ca_file()]
OWN = ["--cert", certificates.server().cert, "--key", certificates.server().key]
ANY = "127.0.0.1:0"
NO_HOST = "no-such-host.invalid"

Case = Callable[[Start], int]


EXAMPLES = Path(__file__).parents[2] / "examples"


def words(*words: str) -> Case:
    """A command line with empty input."""
    return lambda start: start(*words).finish(b"").code


def full_disk(*words: str) -> Case:
    return lambda start: start(*words, redirect="> /dev/full").finish(b"").code


def refused(*command: str, scheme: str = "") -> Case:
    def run(start: Start) -> int:
        with socket.socket() as unlistened:
            unlistened.bind(("127.0.0.1", 0))  # and it does not listen
            return start(*command, f"{scheme}127.0.0.1:{unlistened.getsockname()[1]}").finish(b"").code

    return run


def served(*command: str, talk: Callable[[socket.socket], None], scheme: str = "") -> Case:
    """A command that connects to a server with this behaviour."""

    def run(start: Start) -> int:
        with tcp_server() as (server, target):
            running = start(*command, f"{scheme}{target}")
            with accept(server) as peer:
                if talk is cut:  # otherwise it may still be connecting
                    running.type(b"x")
                    assert peer.recv(1) == b"x"
                talk(peer)
                return running.finish(b"").code

    return run


def visited(*command: str, talk: Callable[[socket.socket], None]) -> Case:
    """A command that listens, and a client with this behaviour."""

    def run(start: Start) -> int:
        running = start("listen", *command)
        with connect(running.port()) as client:
            talk(client)
            return running.finish(b"").code

    return run


def taken(*command: str, after: tuple[str, ...] = ()) -> Case:
    def run(start: Start) -> int:
        with tcp_server() as (_, address):
            return start(*command, address, *after).finish(b"").code

    return run


def full_output_of_a_client(start: Start) -> int:
    with tcp_server() as (server, target):
        running = start("connect", target, redirect="> /dev/full")
        with accept(server) as peer:
            peer.sendall(b"x")
            return running.finish(b"").code


def untrusted(*command: str) -> Case:
    def run(start: Start) -> int:
        with serving(certificates.stranger()) as target:
            return start(*command, *CA, target).finish(b"").code

    return run


def interrupted(*words: str, cutting: bool = False) -> Case:
    """Ctrl-C, and again while a connection is open."""

    def run(start: Start) -> int:
        with tcp_server() as (server, target), contextlib.ExitStack() as stack:
            running = start(*words, ANY, *([target] if words[0] == "relay" else []))
            port = running.port()
            if cutting:
                stack.enter_context(connect(port))
                stack.enter_context(accept(server))
                running.send_signal(signal.SIGINT)
                assert running.process.stderr is not None
                assert b"Ctrl-C again" in running.process.stderr.readline()
            running.send_signal(signal.SIGINT)
            return running.end().code

    return run


def hung_up_before_tls(start: Start) -> int:
    def hang_up(sock: socket.socket) -> None:
        sock.sendall(b"220 x\r\n")
        Lines(sock).read()
        raise ConnectionError

    with scripted(hang_up) as port:
        return start("check", "--starttls", "smtp", *CA, f"localhost:{port}").finish().code


def nothing(sock: socket.socket) -> None:
    """Neither send nor close."""


def end(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_WR)


def cut(sock: socket.socket) -> None:
    """Reset the connection after some data."""
    sock.sendall(b"half of i")
    reset(sock)


def no_tls(sock: socket.socket) -> None:
    sock.sendall(b"GET / HTTP/1.0\r\n\r\n")


QUICK = ("--timeout", "0.2")

CASES: dict[tuple[str, int], Case] = {
    ("connect", 0): served("connect", talk=end),
    ("connect", 1): full_output_of_a_client,
    ("connect", 2): words("connect", "nowhere"),
    ("connect", 3): refused("connect"),
    ("connect", 4): served("connect", "--at-eof", "half-close", *QUICK, talk=nothing),
    ("connect", 5): untrusted("connect"),
    ("connect", 6): served("connect", talk=cut),
    ("listen", 0): visited(ANY, talk=end),
    ("listen", 1): taken("listen"),
    ("listen", 2): words("listen", "nowhere:at all"),
    ("listen", 3): words("listen", f"{NO_HOST}:0"),
    ("listen", 4): words("listen", *QUICK, ANY),
    ("listen", 5): visited(*OWN, "tls://127.0.0.1:0", talk=no_tls),
    ("listen", 6): visited(ANY, talk=cut),
    ("listen", 130): interrupted("listen"),
    ("relay", 0): interrupted("relay"),
    ("relay", 1): taken("relay", after=("127.0.0.1:9",)),
    ("relay", 2): words("relay", ANY),
    ("relay", 3): words("relay", f"{NO_HOST}:0", "127.0.0.1:9"),
    ("relay", 130): interrupted("relay", cutting=True),
    ("check", 0): taken("check"),
    ("check", 1): taken("check", "--cert", "/none.pem", "--tls"),
    ("check", 2): words("check", "nowhere"),
    ("check", 3): refused("check"),
    ("check", 4): served("check", *QUICK, talk=nothing, scheme="tls://"),
    ("check", 5): untrusted("check"),
    ("check", 6): hung_up_before_tls,
    ("twin", 0): words("twin", "--check", f"{EXAMPLES}/async_echo.py", f"{EXAMPLES}/echo_threads.py"),
    ("twin", 1): words("twin", "--check", f"{EXAMPLES}/async_echo.py", f"{EXAMPLES}/none.py"),
    ("twin", 2): words("twin", "/nowhere/at/all", "/nowhere/else"),
    ("completion", 0): words("completion", "bash"),
    ("completion", 1): full_disk("completion", "bash"),
    ("completion", 2): words("completion", "cmd.exe"),
}


def test_every_command_is_here() -> None:
    assert list(dict.fromkeys(command for command, _ in CASES)) == commands()


@pytest.mark.parametrize(("command", "code"), CASES)
def test_the_exit_code_is_that_of_the_documentation(start: Start, command: str, code: int) -> None:
    assert CASES[command, code](start) == code


def test_every_exit_code_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs/reference/command.md").read_text(encoding="utf-8")
    table = text.partition("## Exit codes")[2]
    for code in {code for _, code in CASES}:
        assert f"\n| {code} |" in table or f"\n| {code}, " in table
