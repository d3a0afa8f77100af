"""``connect`` and ``relay`` name the certificate at fault by its place in the chain, as ``check`` does."""

from __future__ import annotations

import ssl
import sys

import pytest

from tests.cases import in_turn
from tests.cli.command import accept, connect, tcp_server
from tests.cli.conftest import Start
from tests.cli.test_check_chains import day
from tests.cli.test_check_tls import serving
from tests.tls import certificates
from wireline.cli import main

INTERMEDIATE = "the intermediate certificate CN=the intermediate (2 of 3 in the chain) of {target}"

FAULTS = {
    "leaf": (
        {"leaf": (-9, -2)},
        "the certificate of {target} [",
        "has expired on {-2}",
        "it must be renewed on",
    ),
    "intermediate": (
        {"intermediate": (-9, -2)},
        f"{INTERMEDIATE} has expired on {{-2}}; the server must send the",
    ),
    "root": (
        {"root": (-9, -2)},
        "the root certificate CN=the root (3 of 3 in the chain) of {target} has expired on {-2}; update the CAs",
    ),
    "intermediate of tomorrow": (
        {"intermediate": (2, 9)},
        f"{INTERMEDIATE} is not valid before {{2}}; compare",
    ),
    "intermediate that is no CA": (
        {"intermediate_is_ca": False},
        f"{INTERMEDIATE} is not that of a CA; the server must send another chain",
    ),
    "intermediate for clients": (
        {"for_clients": 1},
        f"{INTERMEDIATE} is not for this use; the server must send another chain",
    ),
    "leaf for clients": (
        {"for_clients": 2},
        "the certificate of {target} [",
        "is not for this use (it was checked",
    ),
}


@in_turn("case", FAULTS)
def test_FC2_connect_names_the_certificate_at_fault(case: str, capfd: pytest.CaptureFixture[str]) -> None:
    made, *words = FAULTS[case]
    leaf, ca_file = certificates.below(**made)  # type: ignore[arg-type]
    with serving(leaf) as target:
        assert main(["connect", "--ca-file", ca_file, target]) == 5
    err = capfd.readouterr().err
    for each in words:
        assert each.replace("{target}", target).replace("{-2}", day(-2)).replace("{2}", day(2)) in err, err
    assert err.count("\n") == 1


def test_FC2_a_root_that_is_not_trusted_is_not_blamed_on_the_leaf(capfd: pytest.CaptureFixture[str]) -> None:
    leaf, _ = certificates.below()
    with serving(leaf) as target:
        assert main(["connect", "--ca-file", certificates.other_ca_file(), target]) == 5
    assert (
        f"CN=the intermediate (2 of 2 in the chain) of {target} was signed by CN=the root, which was not sent and is "
        "not trusted here; --ca-file FILE"
    ) in capfd.readouterr().err


def test_FC2_a_weak_ca_is_not_blamed_on_the_leaf(capfd: pytest.CaptureFixture[str]) -> None:
    leaf, ca_file = certificates.weak()
    with serving(leaf) as target:
        assert main(["connect", "--ca-file", ca_file, target]) == 5
    words = (
        f"the root certificate CN=a weak CA (2 of 2 in the chain) of {target} has a key that is too short; "
    )
    assert words in capfd.readouterr().err


def test_FC2_without_cryptography_the_fault_is_that_of_a_certificate(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    leaf, ca_file = certificates.below(intermediate=(-9, -2))
    with serving(leaf) as target:
        monkeypatch.setitem(sys.modules, "wireline.cli.check._certificate_info", None)
        monkeypatch.setitem(sys.modules, "cryptography", None)
        assert main(["connect", "--ca-file", ca_file, target]) == 5
    words = "is refused (OpenSSL: certificate has expired)"
    assert capfd.readouterr().err == f"wireline: a certificate in the chain of {target} {words}\n"


def test_FC2_relay_names_the_certificate_at_fault_of_its_target(start: Start) -> None:
    leaf, ca_file = certificates.below(intermediate=(-9, -2))
    with serving(leaf) as target:
        relay = start("relay", "--ca-file", ca_file, "127.0.0.1:0", target)
        with connect(relay.port()) as client, pytest.raises(ConnectionResetError):
            client.recv(1)
        assert relay.process.stderr is not None
        err = relay.process.stderr.readline().decode()
    assert INTERMEDIATE.replace("{target}", target) in err


def test_FC2_a_server_names_the_certificate_at_fault_of_a_client(start: Start) -> None:
    leaf, ca_file = certificates.below(intermediate=(-9, -2))
    own = certificates.server()
    words = ["--cert", own.cert, "--key", own.key, "--client-ca", ca_file]
    server = start("listen", "--echo", *words, "tls://127.0.0.1:0")
    context = ssl.create_default_context(cafile=certificates.ca_file())
    context.load_cert_chain(*leaf)
    with (
        context.wrap_socket(connect(server.port()), server_hostname="localhost") as peer,
        pytest.raises(ssl.SSLError),
    ):
        peer.recv(1)
    result = server.end()
    assert result.code == 5
    assert (
        "the intermediate certificate CN=the intermediate (2 of 3 in the chain) of 127.0.0.1:" in result.err
    )
    assert result.err.rstrip().endswith("; the client must send the renewed one of that CA")


def test_FC2_handshakes_of_a_relay_at_the_same_time_are_told_apart(start: Start) -> None:
    """The handshake that ends first must not stop the watching of the other."""
    with tcp_server() as (server, target):
        relay = start(
            "relay",
            "--ca-file",
            certificates.ca_file(),
            "--sni",
            "localhost",
            "127.0.0.1:0",
            f"tls://{target}",
        )
        port = relay.port()
        with connect(port) as first, accept(server) as slow:
            with connect(port) as second, accept(server) as quick:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(*certificates.server())
                with context.wrap_socket(quick, server_side=True) as peer:
                    second.sendall(b"x")
                    assert peer.recv(1) == b"x"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificates.expired())
            with pytest.raises(ssl.SSLError):
                context.wrap_socket(slow, server_side=True)
            with pytest.raises(ConnectionResetError):
                first.recv(1)
        assert relay.process.stderr is not None
        lines = [relay.process.stderr.readline().decode() for _ in range(2)]
    assert "closed the connection without ending TLS" in lines[0]
    assert "issued by" in lines[1]
    assert "has expired on" in lines[1]
