"""``--show-code``: the printed program does the same as the command."""

from __future__ import annotations

import ast
import os
import re
import shlex
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cases import few_in_sample, in_turn
from tests.cli.command import (
    PATIENCE,
    accept,
    connect,
    connect_unix,
    read_all,
    receive,
    tcp_server,
    udp_socket,
)
from tests.cli.scripted import DIALOGUES, scripted
from tests.cli.test_check_tls import serving
from tests.cli.test_tls import needs_psk
from tests.tls import certificates
from wireline import Address
from wireline.cli import main
from wireline.net import Socket, dial, serve
from wireline.tls import SslContext, VerifyMode

Run = Callable[..., "subprocess.Popen[bytes]"]

CA = ["--ca-file", certificates.ca_file()]
OWN = ["--cert", certificates.server().cert, "--key", certificates.server().key]
KEY = "0123456789abcdef" * 2


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Run]:
    """Print the program of a command line, and start it."""
    processes: list[subprocess.Popen[bytes]] = []

    def runner(*words: str) -> subprocess.Popen[bytes]:
        assert main([words[0], "--show-code", *words[1:]]) == 0
        source, err = capfd.readouterr()
        assert err == ""
        only_public_names(source)
        program = tmp_path / f"program{len(processes)}.py"
        program.write_text(source, encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, "-W", "error", str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        processes.append(process)
        return process

    yield runner
    for process in processes:
        process.kill()
        process.communicate()


def only_public_names(source: str) -> None:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.module in ("wireline", "wireline.net", "wireline.testing", "wireline.tls")
        if isinstance(node, ast.Attribute):
            assert not node.attr.startswith("_")


def finish(process: subprocess.Popen[bytes], data: bytes | None = b"") -> bytes:
    """Send the input, wait for exit code 0, return the output."""
    out, err = process.communicate(data, timeout=PATIENCE)
    assert (process.returncode, err.decode()) == (0, "")
    return out


def port_of(process: subprocess.Popen[bytes]) -> int:
    assert process.stderr is not None
    line = process.stderr.readline().decode()
    match = re.fullmatch(r"listening on \S*:(\d+)\n", line)
    assert match, line + process.stderr.read().decode()
    return int(match[1])


def shout(client: Socket, address: Address) -> None:
    """Read to the end, and send the data back in capitals."""
    data = b""
    while chunk := client.recv_some():
        data += chunk
    client.send(data.upper())


# connect


@pytest.mark.parametrize("words", [(), ("--timeout", "5"), ("--crlf",)])
def test_connect(run: Run, words: tuple[str, ...]) -> None:
    with serve(shout, 0, "127.0.0.1") as server:
        process = run("connect", "--at-eof", "half-close", *words, f"127.0.0.1:{server.local_addr.port}")
        assert finish(process, b"one\ntwo\r\n") == (
            b"ONE\r\nTWO\r\n" if "--crlf" in words else b"ONE\nTWO\r\n"
        )


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ((), b"HELLO"),
        (("--at-eof", "wait", "--quit-after", "0.5"), b""),
        (("--quit-after", "1", "--timeout", "5"), b""),
        (("--at-eof", "close"), b""),
    ],
)
def test_connect_at_the_end_of_input(run: Run, words: tuple[str, ...], answer: bytes) -> None:
    with serve(shout, 0, "127.0.0.1") as server:
        process = run("connect", *words, f"127.0.0.1:{server.local_addr.port}")
        assert finish(process, b"hello") == answer


@pytest.mark.parametrize("scheme", ["", "udp://"])
def test_connect_without_a_reply(run: Run, scheme: str) -> None:
    with serve(lambda client, address: None, 0, "127.0.0.1") as server, udp_socket() as (_, target):
        words = ["--quit-after", "0.3"] if scheme else []
        where = target if scheme else f"127.0.0.1:{server.local_addr.port}"
        process = run("connect", "--expect-reply", *words, where)
        assert process.communicate(b"", timeout=PATIENCE) == (b"", b"the peer sent nothing\n")
    assert process.returncode == 1


def test_connect_ends_with_the_peer(run: Run) -> None:
    """With the input still open, the interpreter must exit."""
    with tcp_server() as (server, target):
        process = run("connect", target)
        with accept(server) as peer:
            peer.sendall(b"goodbye")
        process.wait(PATIENCE)
        assert finish(process, None) == b"goodbye"


def test_connect_with_tls(run: Run) -> None:
    leaf = certificates.server()
    context = SslContext(cert_file=leaf.cert, key_file=leaf.key, alpn=["x"])
    with serve(shout, 0, "127.0.0.1", tls=context) as server:
        target = f"tls://127.0.0.1:{server.local_addr.port}"
        process = run(
            "connect",
            "--at-eof",
            "half-close",
            *CA,
            "--sni",
            "localhost",
            "--alpn",
            "x",
            *own_client(),
            target,
        )
        assert finish(process, b"hello") == b"HELLO"
        process = run("connect", "--at-eof", "half-close", "--no-verify", target)
        assert finish(process, b"hello") == b"HELLO"


def own_client() -> list[str]:
    cert, key = certificates.client()
    return ["--cert", cert, "--key", key]


def test_connect_does_not_trust_more_than_the_command(run: Run) -> None:
    with serving(certificates.stranger()) as target:
        process = run("connect", "--at-eof", "half-close", *CA, target)
        _, err = process.communicate(b"", timeout=PATIENCE)
    assert process.returncode == 1
    assert b"SSLCertVerificationError" in err


@needs_psk
def test_connect_with_a_key(run: Run, tmp_path: Path) -> None:
    context = SslContext(verify_mode=VerifyMode.NONE)
    context.server_get_psk = lambda identity: bytes.fromhex(KEY) if identity == "me:too" else b""
    file = tmp_path / "keys"
    file.write_text(f"# mine\n\nme:too:{KEY}\n")
    words = ["--psk-file", str(file)]
    with serve(shout, 0, "127.0.0.1", tls=context) as server:
        process = run(
            "connect", "--at-eof", "half-close", *words, f"tls://127.0.0.1:{server.local_addr.port}"
        )
        assert finish(process, b"hello") == b"HELLO"


@pytest.mark.parametrize("tls", [False, True])
def test_connect_to_a_unix_socket(run: Run, tmp_path: Path, tls: bool) -> None:
    leaf = certificates.server()
    path = f"unix:{tmp_path}/sock"
    context = SslContext(cert_file=leaf.cert, key_file=leaf.key) if tls else None
    with serve(shout, 0, path, tls=context):
        words = ["--tls", "--sni", "localhost", *CA] if tls else []
        assert finish(run("connect", "--at-eof", "half-close", *words, path), b"hello") == b"HELLO"


def test_connect_by_datagrams(run: Run) -> None:
    with udp_socket() as (peer, target):
        process = run("connect", target)
        assert process.stdin is not None
        process.stdin.write(b"ping")
        data, sender = peer.recvfrom(100)
        peer.sendto(b"pong", sender)
        assert (data, finish(process)) == (b"ping", b"pong")


# listen


def test_listen(run: Run) -> None:
    process = run("listen", "--timeout", "5", "127.0.0.1:0")
    with connect(port_of(process)) as peer:
        peer.sendall(b"question")
        peer.shutdown(socket.SHUT_WR)
        assert process.stdout is not None
        assert process.stdout.read(8) == b"question"
        # The peer has ended, and input is still sent.
        with pytest.raises(TimeoutError):
            peer.settimeout(0.1)
            peer.recv(1)
        peer.settimeout(PATIENCE)
        assert finish(process, b"answer") == b""
        assert read_all(peer) == b"answer"


@pytest.mark.parametrize(
    "words", [("--echo",), ("--echo", "--keep"), ("--discard",), ("--discard", "--keep")]
)
def test_listen_with_a_service(run: Run, words: tuple[str, ...]) -> None:
    process = run("listen", *words, "127.0.0.1:0")
    port = port_of(process)
    for _ in range(2 if "--keep" in words else 1):
        with connect(port) as peer:
            peer.sendall(b"hello")
            peer.shutdown(socket.SHUT_WR)
            assert read_all(peer) == (b"hello" if "--echo" in words else b"")
    if "--keep" not in words:
        finish(process)


def test_listen_for_a_chat(run: Run) -> None:
    port = port_of(run("listen", "--chat", "[::1]:0"))
    with connect(port, "::1") as ann, connect(port, "::1") as bob:
        # Both are members once each has received a line of the other.
        for sender, other in ((ann, bob), (bob, ann)):
            other.settimeout(0.05)
            heard = b""
            while not heard:
                sender.sendall(b"hi\n")
                try:
                    heard = other.recv(3)
                except TimeoutError:
                    continue
            assert heard == b"hi\n"


def test_listen_keeps_on(run: Run) -> None:
    process = run("listen", "--keep", "127.0.0.1:0")
    port = port_of(process)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.stdin = None
    for word in (b"one", b"two"):
        with connect(port) as peer:
            peer.sendall(word)
            peer.shutdown(socket.SHUT_WR)
            assert read_all(peer) == b""
            assert process.stdout.read(3) == word


def test_listen_at_a_unix_socket(run: Run, tmp_path: Path) -> None:
    path = f"{tmp_path}/sock"
    for words in ((), ("--keep",)):
        process = run("listen", "--echo", *words, f"unix:{path}")
        assert process.stderr is not None
        assert process.stderr.readline().decode() == f"listening on unix:{path}\n"
        with connect_unix(path) as peer:
            peer.sendall(b"hello")
            assert receive(peer, 5) == b"hello"
    process.send_signal(signal.SIGINT)


def test_listen_refuses_other_clients(run: Run) -> None:
    for words in (["--echo", "--keep"], ["--keep"], ["--echo"], []):
        refuses_other_clients(run, words)


def refuses_other_clients(run: Run, words: list[str]) -> None:
    process = run("listen", *words, "--allow", "127.0.0.8/29", "--allow", "2001:db8::/32", "127.0.0.1:0")
    port = port_of(process)
    with pytest.raises(ConnectionResetError), connect(port) as peer:
        peer.recv(1)
    with socket.create_connection(("127.0.0.1", port), PATIENCE, ("127.0.0.9", 0)) as peer:
        peer.sendall(b"x")
        if "--echo" in words:
            assert peer.recv(1) == b"x"
        else:
            assert process.stdout is not None
            assert process.stdout.read(1) == b"x"


def test_listen_drops_datagrams_of_other_senders(run: Run) -> None:
    for words in (["--echo"], ["--keep"], []):
        drops_datagrams_of_other_senders(run, words)


def drops_datagrams_of_other_senders(run: Run, words: list[str]) -> None:
    process = run("listen", *words, "--allow", "127.0.0.9", "udp://127.0.0.1:0")
    port = port_of(process)
    with udp_socket() as (stranger, _), udp_socket("127.0.0.9") as (friend, _):
        stranger.sendto(b"no", ("127.0.0.1", port))
        friend.sendto(b"yes", ("127.0.0.1", port))
        if words == ["--echo"]:
            assert friend.recv(10) == b"yes"
        else:
            assert os.read(process.stdout.fileno() if process.stdout else -1, 100) == b"yes"


def test_listen_has_the_limits_of_the_command_line(run: Run) -> None:
    words = ["--echo", "--keep", "--max", "1", "--on-full", "refuse", "--idle", "30", "--drain", "0"]
    process = run("listen", *words, "127.0.0.1:0")
    port = port_of(process)
    with connect(port) as peer:
        peer.sendall(b"x")
        assert peer.recv(1) == b"x"
        with pytest.raises(ConnectionResetError), connect(port) as second:
            second.recv(1)
        process.send_signal(signal.SIGTERM)
        assert peer.recv(1) == b""
    finish(process)


def test_limits_are_arguments(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["listen", "--show-code", "--keep", "--idle", "2.5", "--drain", "4", "127.0.0.1:9"]) == 0
    out = capfd.readouterr().out
    assert 'serve(handle, 9, "127.0.0.1", max_connections=1, idle_timeout=2.5)' in out
    assert "server.request_stop(4)" in out


@pytest.mark.parametrize(
    "words", [["listen", "--echo"], ["listen", "--echo", "--keep"], ["relay"]], ids=" ".join
)
def test_an_inherited_socket(words: list[str], capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with tcp_server() as (listener, _), serve(shout, 0, "127.0.0.1") as target:
        fd = str(os.dup(listener.fileno()))
        more = [f"127.0.0.1:{target.local_addr.port}"] if words == ["relay"] else []
        assert main([words[0], "--show-code", *words[1:], "--fd", fd, *more]) == 0
        program = tmp_path / "program.py"
        program.write_text(capfd.readouterr().out)
        process = subprocess.Popen(
            [sys.executable, "-W", "error", str(program)], stderr=subprocess.PIPE, pass_fds=[int(fd)]
        )
        try:
            os.close(int(fd))
            assert process.stderr is not None
            assert process.stderr.readline() == f"listening on descriptor {fd}\n".encode()
            with connect(listener.getsockname()[1]) as peer:
                peer.sendall(b"hello")
                peer.shutdown(socket.SHUT_WR)
                assert read_all(peer) == (b"HELLO" if words == ["relay"] else b"hello")
        finally:
            process.kill()
            process.communicate()


def test_the_sockets_of_systemd(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["listen", "--show-code", "--chat", "--fd", "systemd"]) == 0
    assert "serve(handle, sock=[sock for _, sock in listeners_from_environment()])" in capfd.readouterr().out


@pytest.mark.parametrize("keep", [False, True])
def test_listen_with_mutual_tls(run: Run, keep: bool) -> None:
    words = [*OWN, "--client-ca", certificates.ca_file(), "--echo", *(["--keep"] if keep else [])]
    process = run("listen", *words, "tls://127.0.0.1:0")
    context = ssl.create_default_context(cafile=certificates.ca_file())
    context.load_cert_chain(*certificates.client())
    with context.wrap_socket(connect(port_of(process)), server_hostname="localhost") as peer:
        peer.sendall(b"hello")
        assert receive(peer, 5) == b"hello"
        peer.unwrap().close()
    if not keep:
        finish(process)


@needs_psk
def test_listen_with_keys(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# ours\nme:{KEY}\nyou:00ff\n")
    process = run("listen", "--psk-file", str(file), "--echo", "tls://127.0.0.1:0")
    context = SslContext(verify_mode=VerifyMode.NONE)
    context.client_get_psk = lambda hint: ("me", bytes.fromhex(KEY))
    with dial("127.0.0.1", port_of(process), tls=context, timeout=PATIENCE) as sock:
        sock.send(b"hello")
        assert sock.recv(5, timeout=PATIENCE) == b"hello"
    finish(process)


@pytest.mark.parametrize("service", ["--echo", "--discard", "--keep"])
def test_listen_for_datagrams(run: Run, service: str) -> None:
    process = run("listen", service, "udp://127.0.0.1:0")
    port = port_of(process)
    with udp_socket() as (peer, _):
        peer.sendto(b"hello", ("127.0.0.1", port))
        if service == "--echo":
            assert peer.recv(100) == b"hello"
        if service == "--keep":
            assert os.read(process.stdout.fileno() if process.stdout else -1, 100) == b"hello"


def test_listen_for_datagrams_of_one_peer(run: Run) -> None:
    process = run("listen", "udp://127.0.0.1:0")
    port = port_of(process)
    assert process.stdin is not None
    process.stdin.write(b"answer")
    with udp_socket() as (peer, _):
        peer.sendto(b"question", ("127.0.0.1", port))
        assert peer.recv(100) == b"answer"
        process.stdin.close()
        process.stdin = None
        assert finish(process, None) == b"question"


# relay


def answer_in_capitals(client: socket.socket, server: socket.socket) -> None:
    """Data and a half-close pass in each direction."""
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    with accept(server) as peer:
        peer.sendall(read_all(peer).upper())
    assert read_all(client) == b"QUESTION"


def test_relay(run: Run) -> None:
    with tcp_server() as (server, target):
        port = port_of(run("relay", "--timeout", "5", "--max", "1", "127.0.0.1:0", target))
        for _ in range(2):
            with connect(port) as client:
                answer_in_capitals(client, server)


def test_relay_to_a_target_that_refuses(run: Run) -> None:
    with tcp_server() as (server, target):
        server.close()
        port = port_of(run("relay", "127.0.0.1:0", target))
        # The reset may arrive during `connect`.
        with pytest.raises(ConnectionResetError), connect(port) as client:
            client.recv(1)


def test_relay_with_tls_on_both_sides(run: Run) -> None:
    leaf = certificates.server()
    inside = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.ca_file())
    inside.verify_mode = ssl.CERT_REQUIRED
    inside.load_cert_chain(*leaf)
    outside = ssl.create_default_context(cafile=certificates.ca_file())
    outside.load_cert_chain(*certificates.client())
    mine = certificates.client()
    words = [*OWN, "--client-ca", certificates.ca_file(), *CA, "--client-cert", mine.cert]
    with tcp_server() as (server, target):
        where = ["tls://127.0.0.1:0", f"tls://localhost:{target.rpartition(':')[2]}"]
        port = port_of(run("relay", "--timeout", "10", *words, "--client-key", mine.key, *where))
        with outside.wrap_socket(connect(port), server_hostname="localhost") as client:
            with inside.wrap_socket(accept(server), server_side=True) as peer:
                client.sendall(b"question")
                assert receive(peer, 8) == b"question"
                peer.sendall(b"answer")
                assert receive(client, 6) == b"answer"


@needs_psk
def test_relay_with_a_key_on_each_side(run: Run, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.write_text(f"me:{KEY}\nyou:00ff\n")
    theirs.write_text("device:ff00\n")
    inside = SslContext(verify_mode=VerifyMode.NONE)
    inside.server_get_psk = lambda identity: bytes.fromhex("ff00") if identity == "device" else b""
    outside = SslContext(verify_mode=VerifyMode.NONE)
    outside.client_get_psk = lambda hint: ("me", bytes.fromhex(KEY))
    with serve(shout, 0, "127.0.0.1", tls=inside) as server:
        words = ["--listen-psk-file", str(ours), "--psk-file", str(theirs), "tls://127.0.0.1:0"]
        port = port_of(run("relay", *words, f"tls://127.0.0.1:{server.local_addr.port}"))
        with dial("127.0.0.1", port, tls=outside, timeout=PATIENCE) as sock:
            sock.send(b"hello")
            sock.shutdown_write()
            assert sock.recv_exactly(5, timeout=PATIENCE) == b"HELLO"


def test_relay_between_unix_sockets(run: Run, tmp_path: Path) -> None:
    leaf = certificates.server()
    inside = f"unix:{tmp_path}/inside"
    with serve(shout, 0, inside, tls=SslContext(cert_file=leaf.cert, key_file=leaf.key)):
        process = run("relay", "--tls", "--sni", "localhost", *CA, f"unix:{tmp_path}/outside", inside)
        assert process.stderr is not None
        assert process.stderr.readline().decode() == f"listening on unix:{tmp_path}/outside\n"
        with connect_unix(f"{tmp_path}/outside") as client:
            client.sendall(b"hello")
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"HELLO"


@pytest.mark.parametrize(
    ("fault", "code", "arrives"),
    [
        ("chunk=1,delay=1ms,rate=64k", "Faults(delay=0.001, rate=65536, chunk=1)", b"question"),
        ("truncate-after=4", "Faults(truncate_after=4)", b"ques"),
    ],
)
def test_relay_with_faults(run: Run, fault: str, code: str, arrives: bytes, tmp_path: Path) -> None:
    with tcp_server() as (server, target):
        port = port_of(run("relay", "--fault", fault, "127.0.0.1:0", target))
        assert f"faults = {code}\n" in (tmp_path / "program0.py").read_text()
        with connect(port) as client, accept(server) as peer:
            client.sendall(b"question")
            client.shutdown(socket.SHUT_WR)
            assert read_all(peer) == arrives


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("hex",), "#1 > 000000  71 75 65 73 74 69 6f 6e 0a                       question."),
        (("text", "--fault", "chunk=4"), r" #1 > ques"),
    ],
)
def test_relay_with_a_dump(run: Run, words: tuple[str, ...], shown: str) -> None:
    with tcp_server() as (server, target):
        process = run("relay", "--dump", *words, "127.0.0.1:0", target)
        with connect(port_of(process)) as client, accept(server) as peer:
            client.sendall(b"question\n")
            client.shutdown(socket.SHUT_WR)
            assert read_all(peer) == b"question\n"
            assert process.stderr is not None
            lines = [process.stderr.readline().decode() for _ in range(3)]
    assert any(line.endswith(f"{shown}\n") for line in lines), lines


def test_relay_with_several_targets(run: Run) -> None:
    """The first one refuses, and the program uses the second and third in turn."""
    with tcp_server() as (closed, dead), tcp_server() as (one, first), tcp_server() as (two, second):
        closed.close()
        port = port_of(run("relay", "127.0.0.1:0", dead, first, second))
        for server in (one, two, one, two):
            with connect(port) as client:
                answer_in_capitals(client, server)


def test_relay_has_the_limits_of_the_command_line(capfd: pytest.CaptureFixture[str]) -> None:
    words = ["--max", "3", "--timeout", "5", "--listen-psk-file", "keys", "tls://127.0.0.1:9000"]
    assert main(["relay", "--show-code", *words, "h:2"]) == 0
    out = capfd.readouterr().out
    assert 'dial("h", 2, timeout=5)' in out
    assert '"127.0.0.1", tls=listen_context, max_connections=3, handshake_timeout=5) as server:' in out


def test_relay_with_a_fault_of_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """0 bytes is a fault, and not the lack of one."""
    assert main(["relay", "--show-code", "--fault", "reset-after=0,drop-tls-close", "h:1", "h:2"]) == 0
    assert "\nfaults = Faults(reset_after=0, drop_tls_close=True)\n" in capfd.readouterr().out


# check


def test_check(run: Run) -> None:
    with tcp_server() as (_, target):
        assert finish(run("check", target)).decode().startswith("connected to Address(")


@pytest.mark.parametrize(("days", "code"), [("4", 0), ("21", 1)])
def test_check_with_tls(run: Run, days: str, code: int) -> None:
    with serving(certificates.ending()) as target:
        process = run("check", *CA, "--days", days, target)
        out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert out.startswith(b"TlsInfo(version='TLSv1.3'")
    assert b"CN=localhost issued by " in out


@pytest.mark.parametrize("protocol", few_in_sample(DIALOGUES, "smtp", "mysql"))
def test_check_with_starttls(run: Run, protocol: str) -> None:
    with scripted(DIALOGUES[protocol]) as port:
        out = finish(run("check", *CA, "--starttls", protocol, f"localhost:{port}"))
    assert out.startswith(b"TlsInfo(version='TLSv1.3'")


@pytest.mark.parametrize("protocol", [*DIALOGUES])
def test_connect_with_starttls(run: Run, protocol: str) -> None:
    with scripted(DIALOGUES[protocol], reply=b"hello") as port:
        words = ["--at-eof", "half-close", "--starttls", protocol, f"localhost:{port}"]
        assert finish(run("connect", *CA, *words), b"x") == b"hello"


# Arguments.


@in_turn("words", [["listen"], ["relay", "127.0.0.1:9"]])
def test_self_signed_is_refused_with_show_code(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    command, *target = words
    assert main([command, "--show-code", "--self-signed", "tls://127.0.0.1:0", *target]) == 2
    assert "use --cert FILE" in capsys.readouterr().err


def test_special_characters_of_arguments_stay_text(run: Run, tmp_path: Path) -> None:
    """A path may contain quotes, backslashes and braces."""
    path = f'unix:{tmp_path}/it\'s "{{x}}" \\n'
    with serve(shout, 0, path):
        assert finish(run("connect", "--at-eof", "half-close", path), b"hello") == b"HELLO", shlex.quote(path)
    process = run("listen", "--echo", path)
    assert process.stderr is not None
    assert process.stderr.readline().decode() == f"listening on {path}\n"
