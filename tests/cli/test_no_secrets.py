"""Keys and passwords appear in no output, log, traceback, process list or program of ``--show-code``.

Each command runs to its end, in its good case and in each way in which it fails with a secret in its hands, with
``--debug``. Everything that it prints is searched for all secrets, in every form in which one could be printed.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli.command import PATIENCE, accept, tcp_server
from tests.cli.conftest import Start
from tests.cli.terminal import on_terminal
from tests.tls import certificates
from tests.tls.certificates import PASSWORD
from tests.tools import require_tool
from wireline.cli import main

PSK = bytes.fromhex("5ec2e75ec2e7aabb") * 4
OTHER_PSK = bytes.fromhex("0bad5ec2e7cafe77") * 4
WRONG_PASSWORD = "hunter2-is-wrong"


def forms(secret: bytes) -> set[str]:
    """The ways in which bytes could be printed. Half of them are as bad as all."""
    half = secret[: max(8, len(secret) // 2)]
    spelled = {half.hex(), half.hex().upper(), half.hex(":"), half.hex(" "), repr(half)[2:-1]}
    spelled |= {base64.b64encode(secret).decode()[:12], half.decode("latin-1"), str(list(half))[1:-1]}
    return spelled


@functools.cache
def secrets() -> set[str]:
    own_key = Path(certificates.client().key).read_text().splitlines()[1]
    locked = Path(certificates.encrypted().key).read_text().splitlines()[1]
    found = {PASSWORD, WRONG_PASSWORD, own_key[:24], locked[:24]}
    return found.union(*map(forms, (PSK, OTHER_PSK, PASSWORD.encode(), WRONG_PASSWORD.encode())))


def assert_no_secret(*texts: str) -> None:
    for text in texts:
        found = [secret for secret in secrets() if secret.lower() in text.lower()]
        assert found == [], text


class Files(NamedTuple):
    """Files with secrets; each is private, but for ``public``."""

    psk: str
    other_psk: str
    two: str
    swapped: str
    no_hex: str
    twice: str
    long: str
    binary: str
    public: str
    password: str
    wrong: str
    key: str
    locked: str
    p12: str
    cert: str
    ca: str
    none: str


def packed(path: Path) -> str:
    """A PKCS#12 file of the key, whose password is ``PASSWORD``."""
    leaf = certificates.client()
    words = ["pkcs12", "-export", "-in", leaf.cert, "-inkey", leaf.key, "-passout", f"pass:{PASSWORD}"]
    subprocess.run([require_tool("openssl", "openssl"), *words, "-out", str(path)], check=True, timeout=30)
    return str(path)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    contents = {
        "psk": f"me:{PSK.hex()}\n",
        "other_psk": f"me:{OTHER_PSK.hex()}\n",
        "two": f"me:{PSK.hex()}\nyou:{OTHER_PSK.hex()}\n",
        "swapped": f"{PSK.hex()}:me\n",
        "no_hex": f"me:{PSK.hex()}zz\n",
        "twice": f"me:{PSK.hex()}\nme:{OTHER_PSK.hex()}\n",
        "long": f"me:{PSK.hex() * 100}\n",
        "binary": f"me:{PSK.hex()}\n",
        "public": f"me:{PSK.hex()}\n",
        "password": f"{PASSWORD}\n",
        "wrong": f"{WRONG_PASSWORD}\n",
    }
    paths = {}
    for name, text in contents.items():
        path = tmp_path / f"{name}.txt"
        path.touch(0o600)
        path.write_bytes(text.encode() + (b"\xff" if name == "binary" else b""))
        paths[name] = str(path)
    Path(paths["public"]).chmod(0o644)
    leaf, locked = certificates.client(), certificates.encrypted()
    return Files(
        **paths,
        key=leaf.key,
        locked=locked.key,
        p12=packed(tmp_path / "packed.p12"),
        cert=leaf.cert,
        ca=certificates.ca_file(),
        none=str(tmp_path / "none"),
    )


# Each line ends at once: nothing listens on port 1, and the files are refused before that.
FAIL_AT_ONCE = """
connect --psk-file {psk} tls://127.0.0.1:1
connect --psk-file {two} tls://127.0.0.1:1
connect --psk-file {swapped} tls://127.0.0.1:1
connect --psk-file {no_hex} tls://127.0.0.1:1
connect --psk-file {twice} tls://127.0.0.1:1
connect --psk-file {long} tls://127.0.0.1:1
connect --psk-file {binary} tls://127.0.0.1:1
connect --psk-file {public} tls://127.0.0.1:1
connect --psk-file {key} tls://127.0.0.1:1
connect --psk-file {password} tls://127.0.0.1:1
connect --psk-file {psk} 127.0.0.1:1
connect --psk-file {psk} --no-verify tls://127.0.0.1:1
connect -v --psk-file {psk} tls://127.0.0.1:1
connect --ca-file {psk} tls://127.0.0.1:1
connect --ca-file {key} tls://127.0.0.1:1
connect --ca-file {password} tls://127.0.0.1:1
connect --cert {key} tls://127.0.0.1:1
connect --cert {psk} --key {key} tls://127.0.0.1:1
connect --cert {cert} --key {psk} tls://127.0.0.1:1
connect --cert {cert} --key {locked} tls://127.0.0.1:1
connect --cert {cert} --key {locked} --key-password file:{wrong} tls://127.0.0.1:1
connect --cert {cert} --key {locked} --key-password file:{public} tls://127.0.0.1:1
connect --cert {cert} --key {locked} --key-password file:{none} tls://127.0.0.1:1
connect --cert {cert} --key {locked} --key-password env:WRONG_PASSWORD tls://127.0.0.1:1
connect --cert {cert} --key {locked} --key-password env:NOT_SET tls://127.0.0.1:1
connect --cert {cert} --key {locked} --key-password fd:0 tls://127.0.0.1:1
connect --cert {cert} --key {locked} --key-password prompt tls://127.0.0.1:1
connect --keylog {none}/x --psk-file {psk} tls://127.0.0.1:1
listen --psk-file {swapped} tls://127.0.0.1:0
listen --psk-file {no_hex} tls://127.0.0.1:0
listen --psk-file {twice} tls://127.0.0.1:0
listen --psk-file {public} tls://127.0.0.1:0
listen --psk-file {psk} tls://203.0.113.1:9
listen --psk-file {psk} 127.0.0.1:0
listen --cert {key} tls://127.0.0.1:0
listen --cert {cert} --key {locked} --key-password file:{wrong} tls://127.0.0.1:0
listen --cert {cert} --key {key} --client-ca {key} tls://127.0.0.1:0
relay --psk-file {swapped} 127.0.0.1:0 tls://127.0.0.1:1
relay --psk-file {public} 127.0.0.1:0 tls://127.0.0.1:1
relay --listen-psk-file {no_hex} tls://127.0.0.1:0 127.0.0.1:1
relay --listen-psk-file {psk} tls://203.0.113.1:9 127.0.0.1:1
relay --client-cert {key} 127.0.0.1:0 tls://127.0.0.1:1
relay --client-cert {cert} --client-key {locked} --client-key-password file:{wrong} 127.0.0.1:0 tls://127.0.0.1:1
relay --cert {cert} --key {locked} --key-password file:{wrong} tls://127.0.0.1:0 127.0.0.1:1
relay --cert {cert} --key {locked} --key-password {none} tls://127.0.0.1:0 127.0.0.1:1
connect --cert {p12} tls://127.0.0.1:1
connect --cert {p12} --key {key} tls://127.0.0.1:1
connect --cert {p12} --key-password file:{wrong} tls://127.0.0.1:1
connect --cert {p12} --key-password file:{password} tls://127.0.0.1:1
connect --cert {cert} --key {p12} --key-password file:{password} tls://127.0.0.1:1
connect --starttls smtp --psk-file {psk} 127.0.0.1:1
check --cert {p12} --key-password file:{wrong}
check --cert {p12} --key-password file:{wrong} tls://127.0.0.1:1
check --cert {key} tls://127.0.0.1:1
check --cert {cert} --key {locked}
check --cert {cert} --key {psk}
check --cert {key} --key {key}
check --ca-file {key} tls://127.0.0.1:1
check --ca-file {psk} tls://127.0.0.1:1
check --targets {psk}
check --targets {key}
check --targets {password}
check --targets {swapped}
check --json --cert {key} --key {psk}
check --nagios --cert {key} --key {psk}
check --prometheus --cert {key} --key {psk}
twin {key} {none}
twin {psk} {none}
""".strip().splitlines()

SHOW_CODE = """
connect --show-code --psk-file {psk} tls://127.0.0.1:1
connect --show-code --psk-file {swapped} tls://127.0.0.1:1
connect --show-code --cert {cert} --key {locked} --key-password file:{password} tls://127.0.0.1:1
connect --show-code --cert {cert} --key {locked} --key-password env:RIGHT_PASSWORD tls://127.0.0.1:1
connect --show-code --cert {cert} --key {locked} --key-password fd:0 tls://127.0.0.1:1
listen --show-code --psk-file {two} tls://127.0.0.1:0
listen --show-code --cert {cert} --key {locked} --key-password file:{password} tls://127.0.0.1:0
relay --show-code --psk-file {psk} 127.0.0.1:0 tls://127.0.0.1:1
relay --show-code --client-cert {p12} --client-key-password file:{password} 127.0.0.1:0 tls://127.0.0.1:1
relay --show-code --listen-psk-file {psk} tls://127.0.0.1:0 127.0.0.1:1
check --show-code --cert {cert} --key {key} tls://127.0.0.1:1
""".strip().splitlines()


def words_of(line: str, files: Files, *more: str) -> list[str]:
    command, *words = line.format(**files._asdict()).split()
    return [command, *more, *words]


def run(line: str, files: Files, *more: str) -> tuple[int, str]:
    """Run a line in a process without a terminal; return code and output. A password is what ``fd:0`` reads."""
    ran = subprocess.run(
        [sys.executable, "-m", "wireline", *words_of(line, files, *more)],
        input=f"{WRONG_PASSWORD}\n".encode() if "fd:0" in line else b"",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=PATIENCE,
        start_new_session=True,
        env={**os.environ, "WRONG_PASSWORD": WRONG_PASSWORD, "RIGHT_PASSWORD": PASSWORD},
    )
    return ran.returncode, ran.stdout.decode(errors="backslashreplace")


def test_a_secret_would_be_found() -> None:
    for text in (PSK.hex(), f"x {PSK.hex().upper()}", repr(PSK), PASSWORD, base64.b64encode(PSK).decode()):
        with pytest.raises(AssertionError):
            assert_no_secret("nothing", text)


def test_failures(files: Files, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WRONG_PASSWORD", WRONG_PASSWORD)
    for line in FAIL_AT_ONCE:
        # What is said without a traceback is the last line of what is said with one.
        if "prompt" in line or "fd:0" in line:
            code, out = run(line, files, "--debug")
        else:
            code = main(words_of(line, files, "--debug"))
            out = "".join(capfd.readouterr())
        assert code not in (0, 130), (line, out)
        assert re.search("wireline: |FAILED|CRITICAL|UNKNOWN", out), line
        assert "this is a bug" not in out
        assert_no_secret(out)


def test_programs(files: Files, capfd: pytest.CaptureFixture[str]) -> None:
    for line in SHOW_CODE:
        assert main(words_of(line, files)) == 0, line
        out = "".join(capfd.readouterr())
        assert "import" in out
        assert_no_secret(out)


def test_a_key_in_place_of_a_path_is_not_repeated(files: Files) -> None:
    for line in (
        f"connect --psk-file me:{PSK.hex()} tls://127.0.0.1:1",
        f"listen --psk-file me:{PSK.hex()} tls://127.0.0.1:0",
        f"connect --psk me:{PSK.hex()} tls://127.0.0.1:1",
        f"connect --psk=me:{PSK.hex()} tls://127.0.0.1:1",
        f"connect --cert x --key-password {WRONG_PASSWORD} tls://127.0.0.1:1",
        f"connect --cert x --key-password={WRONG_PASSWORD} tls://127.0.0.1:1",
        f"connect --cert x --password {WRONG_PASSWORD} tls://127.0.0.1:1",
        f"--psk me:{PSK.hex()} connect tls://127.0.0.1:1",
    ):
        for more in ((), ("--debug",)):
            code, out = run(line, files, *(more if not line.startswith("--") else ()))
            assert code in (1, 2)
            assert_no_secret(out)


# ------------------------------------------------------------------------------------------------- connections


@contextlib.contextmanager
def ended(server: object) -> Iterator[list[str]]:
    """End a server at the end of the block, and take what it printed."""
    output: list[str] = []
    yield output
    server.send_signal(signal.SIGTERM)  # type: ignore[attr-defined]
    result = server.end()  # type: ignore[attr-defined]
    output.append(result.err + result.out.decode(errors="backslashreplace"))


def process_list(pid: int) -> str:
    """What other users see of a process."""
    parts = [Path(f"/proc/{pid}/cmdline").read_bytes(), Path(f"/proc/{pid}/comm").read_bytes()]
    parts += [path.read_bytes() for path in Path(f"/proc/{pid}/task").glob("*/comm")]
    return b"\n".join(parts).decode(errors="backslashreplace")


CLIENTS = (
    "connect --at-eof half-close -v --psk-file {psk}",
    "connect --at-eof half-close -v --psk-file {other_psk}",
    "connect --at-eof half-close -v --no-verify",
    "connect --at-eof half-close -v --ca-file {ca}",
    "check --ca-file {ca}",
)


def test_connections_with_pre_shared_keys(start: Start, files: Files) -> None:
    words = ("--log-format", "text", "--psk-file", files.psk)
    server = start("listen", "--debug", "--echo", "--keep", *words, "tls://127.0.0.1:0")
    try:
        target = server.listening_on()
    except AssertionError:
        pytest.skip("no pre-shared keys in this Python")
    words = ("--stats", "--log-format", "json", "--psk-file", files.other_psk)
    relay = start("relay", "--debug", *words, "127.0.0.1:0", target)
    with ended(server) as said, ended(relay) as relayed:
        for line in CLIENTS:
            code, out = run(f"{line} {target}", files, "--debug")
            assert (code == 0) == (line == CLIENTS[0]), out
            assert_no_secret(out)
        # The relay resets it, perhaps before it is connected here.
        with contextlib.suppress(ConnectionResetError):
            with socket.create_connection(("127.0.0.1", relay.port()), PATIENCE) as client:
                assert client.recv(1) == b""
        if sys.platform == "linux":
            assert_no_secret(process_list(server.process.pid), process_list(relay.process.pid))
    assert "pre-shared key" in said[0]
    assert_no_secret(*said, *relayed)


def test_connections_with_a_locked_key(start: Start, files: Files) -> None:
    words = ("--cert", certificates.encrypted().cert, "--key", files.locked)
    server = start(
        *("listen", "--debug", "--echo", "--keep", *words, "--key-password", f"file:{files.password}"),
        *("--client-ca", files.ca, "tls://127.0.0.1:0"),
    )
    target = server.listening_on()
    clients = (
        *CLIENTS[2:],
        "connect --at-eof half-close -v --ca-file {ca} --cert {cert} --key {key}",
        "connect --at-eof half-close -v --ca-file {ca} --cert {cert} --key {key} --alpn h2",
        "connect --at-eof half-close -v --ca-file {ca} --cert {cert} --key {key} --sni other.test",
    )
    with ended(server) as said:
        for line in clients:
            code, out = run(f"{line} {target}", files, "--debug")
            assert code in (0, 5, 6), out
            assert_no_secret(out)
        if sys.platform == "linux":
            assert_no_secret(process_list(server.process.pid))
    assert "sent no certificate" in said[0]
    assert_no_secret(*said)


def test_a_server_that_answers_nothing_or_no_tls(files: Files) -> None:
    with tcp_server() as (server, target):
        for answer in (b"", b"HTTP/1.0 400 Bad Request\r\n\r\n", None):
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "wireline", "connect", "--debug", "--timeout", "1"),
                    *("--psk-file", files.psk, f"tls://{target}"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            with process:
                if answer is not None:
                    with accept(server) as peer:
                        peer.sendall(answer)
                out = process.communicate(timeout=PATIENCE)[0].decode(errors="backslashreplace")
            assert process.returncode in (1, 4, 5), out
            assert_no_secret(out)


def test_a_password_that_is_typed(files: Files) -> None:
    for typed, seen in (
        (PASSWORD, "listening on tls://"),
        (WRONG_PASSWORD, "the password does not open the key"),
    ):
        words = ("listen", "--debug", "--cert", certificates.encrypted().cert, "--key", files.locked)
        with on_terminal(*words, "--key-password", "prompt", "tls://127.0.0.1:0") as command:
            command.see("password of the key .*: ")
            command.type(f"{typed}\n")
            command.see(seen)
            assert_no_secret(command.raw)
