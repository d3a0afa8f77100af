"""FC9: ``wireline check`` tests every address of a name, and says which fails."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cases import in_turn
from tests.cli.checked import the_report
from tests.cli.command import tcp_server
from tests.cli.test_check import answers
from tests.cli.test_check_tls import until_the_end
from tests.tls import certificates
from wireline.cli import main
from wireline.net import serve
from wireline.tls import SslContext

CHECK = ["check", "--sni", "localhost", "--ca-file", certificates.ca_file()]


@contextlib.contextmanager
def many(monkeypatch: pytest.MonkeyPatch, *leaves: certificates.Leaf | None) -> Iterator[str]:
    """A name with the addresses 127.0.0.1, 127.0.0.2, ...: a TLS server for each certificate, none for None."""
    with contextlib.ExitStack() as stack:
        port = 0
        for number, leaf in enumerate(leaves, 1):
            if leaf is not None:
                tls = SslContext(cert_file=leaf.cert, key_file=leaf.key)
                server = stack.enter_context(serve(until_the_end, port, f"127.0.0.{number}", tls=tls))
                port = server.local_addr.port
        places = [(f"127.0.0.{number}", port) for number in range(1, len(leaves) + 1)]
        monkeypatch.setattr(socket, "getaddrinfo", answers(*places))
        yield f"tls://many.test:{port}"


def test_of_two_addresses_one_has_an_expired_certificate(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with many(monkeypatch, certificates.server(), certificates.expired()) as target:
        assert main([*CHECK, "--json", target]) == 5
        out, err = capfd.readouterr()
        assert main([*CHECK, target]) == 5
    report = the_report(out)
    assert [each["tls"]["chain_trusted"] for each in report["addresses"]] == [True, False]
    bad = report["addresses"][1]["address"]
    assert [problem["addresses"] for problem in report["problems"]] == [[bad]]
    assert err.startswith(f"wireline: {bad}: the certificate of {target} [")
    lines = capfd.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("TLS")] == [
        f"TLS with {each['address']}" for each in report["addresses"]
    ]


def test_what_is_the_same_everywhere_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with many(monkeypatch, certificates.expired(), certificates.expired()) as target:
        assert main([*CHECK, target]) == 5
    out, err = capfd.readouterr()
    assert err.count("\n") == 1
    assert err.startswith(f"wireline: the certificate of {target} [")
    assert out.splitlines().count("TLS") == 1


def test_a_dead_address_among_living_ones_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with many(monkeypatch, None, certificates.server()) as target:
        assert main([*CHECK, target]) == 0
        out, err = capfd.readouterr()
        assert out.startswith("WARNING: 127.0.0.1:")
        assert err.startswith("wireline: warning: 127.0.0.1:")
        assert f"an address of {target}, refused the connection" in err
        assert main([*CHECK, "--all-addresses", target]) == 3
        assert capfd.readouterr().out.startswith("FAILED: 127.0.0.1:")
        assert main([*CHECK, "--first", target]) == 0
        assert capfd.readouterr().err == ""


def test_first_tests_the_fastest_only(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with many(monkeypatch, certificates.server(), certificates.server()) as target:
        assert main([*CHECK, "--first", "--json", target]) == 0
        found = the_report(capfd.readouterr().out)["addresses"]
        assert main([*CHECK, "--first", target]) == 0
    assert [each["connected"] for each in found] == [True, True]
    (used,) = [each for each in found if each["tls"]]
    assert used["seconds"] == min(each["seconds"] for each in found)
    assert "connected, TLS not tested" in capfd.readouterr().out


def test_an_address_whose_handshake_fails_is_named(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with many(monkeypatch, certificates.server()) as target:
        port = int(target.rpartition(":")[2])
        with socket.create_server(("127.0.0.2", port)):  # accepts, and sends nothing
            monkeypatch.setattr(socket, "getaddrinfo", answers(("127.0.0.1", port), ("127.0.0.2", port)))
            assert main([*CHECK, "--timeout", "1", target]) == 4
    err = capfd.readouterr().err
    assert err.startswith(f"wireline: 127.0.0.2:{port}: {target} timed out: no TLS handshake within 1 s")


# Several targets.


def test_several_targets_have_a_verdict_each_and_the_code_of_the_first_that_fails(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with tcp_server() as (_, one), tcp_server() as (two, dead):
        two.close()
        assert main(["check", one, dead, "no-such-host.invalid:80"]) == 3
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "FAILED: 2 of 3 targets"
    assert [line.partition(":")[0] for line in lines[1:]] == ["OK", "FAILED", "FAILED"]


def test_of_several_targets_those_with_tls_have_the_whole_report(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with many(monkeypatch, certificates.server()) as target, tcp_server() as (_, plain):
        assert main([*CHECK, plain, target]) == 2, "--sni is for TLS"
        capfd.readouterr()
        assert (
            main(["check", "--tls", *CHECK[1:], target, f"{target.replace('many.test', '127.0.0.1')}"]) == 0
        )
    first, *blocks = capfd.readouterr().out.split("\n\n")
    assert first == "OK: 2 targets"
    assert [block.count("certificates\n") for block in blocks] == [1, 1]


def test_a_range_of_ports_is_a_target_for_each(capfd: pytest.CaptureFixture[str]) -> None:
    with tcp_server() as (server, target):
        port = server.getsockname()[1]
        last = min(port + 2, 65535)
        main(["check", "--json", f"127.0.0.1:{port}-{last}", target])
        entries = capfd.readouterr().out
    assert entries.count('"target": ') == last - port + 1, "the same target is checked once"


@in_turn("text", ["127.0.0.1:9-8", "127.0.0.1:1-9999", "127.0.0.1:65530-65539"])
def test_a_range_that_is_wrong_is_exit_code_2(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check", text]) == 2
    assert "port" in capfd.readouterr().err


def test_a_file_of_targets(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "hosts.txt"
    with tcp_server() as (_, one), tcp_server() as (_, two):
        path.write_text(f"# ours\n{one}\n\n  {two}  # the second\n")
        assert main(["check", "--targets", str(path)]) == 0
    assert capfd.readouterr().out.startswith("OK: 2 targets\n")


def test_a_wrong_line_in_a_file_of_targets_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "hosts.txt"
    path.write_text("127.0.0.1:9\nudp://127.0.0.1:9\n")
    assert main(["check", "--targets", str(path)]) == 2
    assert f"--targets {path}, line 2: udp:// has no connections" in capfd.readouterr().err
    assert main(["check", "--targets", str(tmp_path / "none")]) == 2
    assert "No such file" in capfd.readouterr().err
    assert main(["check"]) == 2
    assert "there is no TARGET" in capfd.readouterr().err
