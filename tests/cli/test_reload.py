"""SIGHUP: ``listen`` and ``relay`` read certificates, keys, CAs and pre-shared keys again."""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from tests.cli.command import PATIENCE, Command, accept, connect, reset, tcp_server
from tests.cli.conftest import Start
from tests.cli.terminal import OnTerminal
from tests.cli.test_tls import needs_psk, psk_file
from tests.tls import certificates
from tests.tls.certificates import Leaf

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")

ANY = "127.0.0.1:0"
READ_AGAIN = "wireline: the certificates and keys were read again\n"
KEPT = "; the files that were read before stay in use\n"


class Files:
    """A certificate and a key that are replaced, as an ACME client does."""

    def __init__(self, directory: Path) -> None:
        self.cert = directory / "cert.pem"
        self.key = directory / "key.pem"
        self.install(certificates.server())

    @property
    def words(self) -> list[str]:
        return ["--cert", str(self.cert), "--key", str(self.key)]

    def install(self, leaf: Leaf) -> None:
        for source, destination in zip(leaf, (self.cert, self.key), strict=True):
            new = destination.with_suffix(".new")
            shutil.copyfile(source, new)
            os.replace(new, destination)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def reload(command: Command) -> str:
    """Send SIGHUP, and return the line that says what happened."""
    command.send_signal(signal.SIGHUP)
    assert command.process.stderr is not None
    return command.process.stderr.readline().decode()


def served_by(port: int, context: ssl.SSLContext | None = None) -> str:
    """Send a byte to an echo, and return the fingerprint of its certificate."""
    if context is None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with context.wrap_socket(connect(port), server_hostname="localhost") as peer:
        peer.sendall(b"x")
        if peer.recv(1) != b"x":  # `ssl` reports a reset as an end
            raise ConnectionResetError
        der = peer.getpeercert(binary_form=True)
        peer.unwrap().close()
    assert der is not None
    return ssl.DER_cert_to_PEM_cert(der)


def first_in(path: str) -> str:
    end = "-----END CERTIFICATE-----\n"
    return Path(path).read_text().partition(end)[0] + end


def test_a_new_certificate_is_for_new_clients(start: Start, files: Files) -> None:
    command = start("listen", "--echo", "--keep", *files.words, f"tls://{ANY}")
    port = command.port()
    context = ssl.create_default_context(cafile=certificates.ca_file())
    with context.wrap_socket(connect(port), server_hostname="localhost") as before:
        before.sendall(b"x")
        assert before.recv(1) == b"x"
        files.install(certificates.stranger())
        assert served_by(port) == first_in(certificates.server().cert)  # not before the signal
        assert reload(command) == READ_AGAIN
        assert served_by(port) == first_in(certificates.stranger().cert)
        before.sendall(b"y")
        assert before.recv(1) == b"y"
        before.unwrap().close()
    command.send_signal(signal.SIGTERM)
    assert command.end() == (0, b"", "")


def test_a_bad_file_is_named_and_changes_nothing(start: Start, files: Files) -> None:
    command = start("listen", "--echo", "--keep", *files.words, f"tls://{ANY}")
    port = command.port()
    files.cert.write_text("no certificate")
    told = reload(command)
    assert told.startswith(f"wireline: cannot use TLS: there is no certificate in '{files.cert}': ")
    assert told.endswith(KEPT)
    assert served_by(port) == first_in(certificates.server().cert)
    shutil.copyfile(certificates.stranger().cert, files.cert)  # not the certificate of the key
    told = reload(command)
    assert f"{files.cert}" in told
    assert told.endswith(KEPT)
    assert served_by(port) == first_in(certificates.server().cert)
    files.key.unlink()
    told = reload(command)
    assert told.startswith(f"wireline: cannot use TLS: {files.key}: No such file")
    assert served_by(port) == first_in(certificates.server().cert)
    files.install(certificates.stranger())
    assert reload(command) == READ_AGAIN
    assert served_by(port) == first_in(certificates.stranger().cert)


def test_the_one_client_gets_the_new_certificate(start: Start, files: Files) -> None:
    command = start("listen", "--echo", *files.words, f"tls://{ANY}")
    port = command.port()
    files.install(certificates.stranger())
    assert reload(command) == READ_AGAIN
    assert served_by(port) == first_in(certificates.stranger().cert)
    assert command.end() == (0, b"", "")


def test_the_cas_of_clients_are_read_again(start: Start, files: Files, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    shutil.copyfile(certificates.ca_file(), ca)
    command = start("listen", "--echo", "--keep", *files.words, "--client-ca", str(ca), f"tls://{ANY}")
    port = command.port()
    context = ssl.create_default_context(cafile=certificates.ca_file())
    context.load_cert_chain(*certificates.client())
    served_by(port, context)
    shutil.copyfile(certificates.other_ca_file(), ca)
    assert reload(command) == READ_AGAIN
    with pytest.raises((ssl.SSLError, ConnectionError)):
        served_by(port, context)
    assert command.process.stderr is not None
    line = command.process.stderr.readline().decode()
    assert "OU=Testing CA" in line  # the chain that was refused is still known
    assert "is not trusted here; --client-ca FILE with that certificate trusts it" in line
    shutil.copyfile(certificates.ca_file(), ca)
    assert reload(command) == READ_AGAIN
    served_by(port, context)


def test_a_password_is_read_again_with_its_key(start: Start, files: Files, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("outdated\n")
    password.chmod(0o600)
    command = start(
        "listen", "--echo", "--keep", *files.words, "--key-password", f"file:{password}", f"tls://{ANY}"
    )
    port = command.port()
    files.install(certificates.encrypted())
    told = reload(command)
    assert f"{files.key}" in told
    assert told.endswith(KEPT)
    password.write_text(f"{certificates.PASSWORD}\n")
    assert reload(command) == READ_AGAIN
    served_by(port)


@needs_psk
def test_pre_shared_keys_are_read_again(start: Start, tmp_path: Path) -> None:
    keys = psk_file(tmp_path, "alice:0b0b\n")
    command = start("listen", "--psk-file", keys, "--echo", "--keep", f"tls://{ANY}")
    target = command.listening_on()
    mine = psk_file(tmp_path, "bob:0c0c\n", "mine.txt")

    def ask() -> int:
        return start("connect", "--at-eof", "half-close", "--psk-file", mine, target).finish(b"hello").code

    psk_file(tmp_path, "alice:0b0b\nbob:0c0c\n")
    assert reload(command) == READ_AGAIN
    assert ask() == 0
    Path(keys).chmod(0o644)
    told = reload(command)
    assert f"other users can open {keys} (mode 0644)" in told
    assert told.endswith(KEPT)
    psk_file(tmp_path, "alice:0b0b\n")
    assert reload(command) == READ_AGAIN
    assert ask() == 5


@needs_psk
def test_a_certificate_that_is_wrong_keeps_the_keys(start: Start, files: Files, tmp_path: Path) -> None:
    keys = psk_file(tmp_path, "alice:0b0b\n")
    command = start("listen", "--psk-file", keys, *files.words, "--echo", "--keep", f"tls://{ANY}")
    target = command.listening_on()
    psk_file(tmp_path, "bob:0c0c\n")
    files.cert.write_text("no certificate")
    assert reload(command).endswith(KEPT)
    mine = psk_file(tmp_path, "alice:0b0b\n", "mine.txt")
    assert start("connect", "--at-eof", "half-close", "--psk-file", mine, target).finish(b"hello").code == 0


@needs_psk
def test_keys_of_a_descriptor_stay(start: Start, tmp_path: Path) -> None:
    keys = psk_file(tmp_path, "alice:0b0b\n")
    command = start("listen", "--psk-file", "fd:3", "--echo", "--keep", f"tls://{ANY}", redirect=f"3< {keys}")
    target = command.listening_on()
    Path(keys).unlink()
    assert reload(command) == READ_AGAIN
    mine = psk_file(tmp_path, "alice:0b0b\n", "mine.txt")
    assert start("connect", "--at-eof", "half-close", "--psk-file", mine, target).finish(b"hello").code == 0


def test_a_throw_away_certificate_stays(start: Start) -> None:
    command = start("listen", "--echo", "--keep", "--self-signed", f"tls://{ANY}")
    port = command.port()
    assert command.process.stderr is not None
    while not command.process.stderr.readline().startswith(b"a client needs this CA"):
        pass
    before = served_by(port)
    assert reload(command) == READ_AGAIN
    assert served_by(port) == before


def test_both_sides_of_a_relay(start: Start, files: Files, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    shutil.copyfile(certificates.other_ca_file(), ca)
    echo = start("listen", "--echo", "--keep", *files.words, f"tls://{ANY}")
    words = [*files.words, "--ca-file", str(ca), f"tls://{ANY}", f"tls://localhost:{echo.port()}"]
    relay = start("relay", *words)
    port = relay.port()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        served_by(port)
    assert relay.process.stderr is not None
    assert b"was signed by a CA that is not trusted here" in relay.process.stderr.readline()
    shutil.copyfile(certificates.ca_file(), ca)
    files.install(certificates.chained())
    assert reload(relay) == READ_AGAIN
    assert served_by(port) == first_in(certificates.chained().cert)
    ca.write_text("no CA")
    told = reload(relay)
    assert f"{ca}" in told
    assert told.endswith(KEPT)
    assert served_by(port) == first_in(certificates.chained().cert)


def test_a_certificate_for_the_target_is_read_again(start: Start, tmp_path: Path) -> None:
    mine = Files(tmp_path)
    mine.install(certificates.client())
    inside = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.ca_file())
    inside.verify_mode = ssl.CERT_REQUIRED
    inside.load_cert_chain(*certificates.server())
    words = ["--ca-file", certificates.ca_file(), "--client-cert", str(mine.cert)]
    with tcp_server() as (server, target):
        where = [ANY, f"tls://localhost:{target.rpartition(':')[2]}"]
        relay = start("relay", *words, "--client-key", str(mine.key), *where)
        port = relay.port()

        def sent_certificate() -> str:
            with connect(port) as client, inside.wrap_socket(accept(server), server_side=True) as peer:
                client.sendall(b"x")
                assert peer.recv(1) == b"x"
                der = peer.getpeercert(binary_form=True)
                reset(client)
            assert der is not None
            return ssl.DER_cert_to_PEM_cert(der)

        assert sent_certificate() == first_in(certificates.client().cert)
        assert relay.process.stderr is not None
        relay.process.stderr.readline()  # about the reset
        mine.install(certificates.server())
        assert reload(relay) == READ_AGAIN
        assert sent_certificate() == first_in(certificates.server().cert)


@pytest.mark.parametrize("rotations", [10, pytest.param(100, marks=pytest.mark.full)])
@pytest.mark.parametrize("name", ["listen", "relay"])
def test_no_handshake_fails_during_rotations(start: Start, files: Files, name: str, rotations: int) -> None:
    if name == "listen":
        command = start("listen", "--echo", "--keep", *files.words, f"tls://{ANY}")
    else:
        echo = start("listen", "--echo", "--keep", *certificate_words(), f"tls://{ANY}")
        target = f"tls://localhost:{echo.port()}"
        command = start("relay", *files.words, "--ca-file", certificates.ca_file(), f"tls://{ANY}", target)
    port = command.port()
    over = threading.Event()
    failures: list[Exception] = []
    handshakes = [0, 0, 0]

    def visit(number: int) -> None:
        context = ssl.create_default_context(cafile=certificates.ca_file())
        try:
            while not over.is_set():
                served_by(port, context)
                handshakes[number] += 1
        except Exception as error:  # noqa: BLE001 - it fails the test
            failures.append(error)

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(len(handshakes))]
    for thread in threads:
        thread.start()
    for number in range(rotations):
        files.install(certificates.chained() if number % 2 else certificates.server())
        assert reload(command) == READ_AGAIN
    over.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert failures == []
    assert min(handshakes) > 0
    command.send_signal(signal.SIGTERM)
    assert command.end() == (0, b"", "")


def certificate_words() -> list[str]:
    cert, key = certificates.server()
    return ["--cert", cert, "--key", key]


def test_many_signals_at_once_are_a_few_reloads(start: Start, files: Files) -> None:
    command = start("listen", "--echo", "--keep", *files.words, f"tls://{ANY}")
    port = command.port()
    for _ in range(500):
        command.send_signal(signal.SIGHUP)
    files.install(certificates.stranger())
    command.send_signal(signal.SIGHUP)
    while served_by(port) != first_in(certificates.stranger().cert):
        pass
    command.send_signal(signal.SIGTERM)
    code, _, err = command.end()
    assert code == 0
    lines = err.splitlines(keepends=True)
    assert lines.count(READ_AGAIN) >= 1
    # Between the two renames certificate and key do not belong together.
    assert all(line == READ_AGAIN or line.endswith(KEPT) for line in lines)
    assert len(lines) <= 501


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["listen", "unix:{}"], 129),
        (["listen", "--echo", "--keep", "unix:{}"], 0),
        (["listen", "--keep", "unix-dgram:{}"], 0),
        (["relay", "unix:{}", "127.0.0.1:1"], 0),
    ],
)
def test_without_tls_the_signal_ends_the_command_and_removes_its_files(
    start: Start, words: list[str], code: int, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    process = start(*[word.format(path) for word in words])
    process.listening_on()
    assert path.exists()
    process.send_signal(signal.SIGHUP)
    assert process.end() == (code, b"", "")
    assert not path.exists()


def test_the_end_of_the_terminal_ends_a_server(files: Files) -> None:
    """The same signal, without files that have changed: a server must not stay behind without its terminal."""
    command = OnTerminal("listen", "--echo", "--keep", *files.words, f"tls://{ANY}")
    command.see(r"listening on \S+\r\n")
    os.kill(command.process.pid, signal.SIGHUP)
    command.see("read again\r\n")
    command.terminal.close()
    assert command.process.wait(PATIENCE) == 0
    command.close()


def test_nohup_does_not_keep_a_server_from_reading_again(start: Start, files: Files) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        command = start("listen", "--echo", "--keep", *files.words, f"tls://{ANY}", stdin=subprocess.DEVNULL)
    finally:
        signal.signal(signal.SIGHUP, before)
    command.port()
    assert reload(command) == READ_AGAIN
