"""Names in place of numbers: services as ports, and hosts that are not ASCII."""

from __future__ import annotations

import socket
import sys

import pytest

from tests.cases import in_turn
from wireline.cli import main
from wireline.cli.parser._parser import parse

SERVICES = {("https", "tcp"): 443, ("postgresql", "tcp"): 5432, ("x-1.y", "tcp"): 11, ("tftp", "udp"): 69}


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> None:
    """The services of this test: an image without /etc/services has none."""

    def find(name: str, protocol: str) -> int:
        try:
            return SERVICES[name, protocol]
        except KeyError:
            raise OSError("service/proto not found") from None

    monkeypatch.setattr(socket, "getservbyname", find)


PORTS = [
    (["connect", "example.com:https"], "example.com:443"),
    (["connect", "example.com", "https"], "example.com:443"),
    (["connect", "::1", "https"], "[::1]:443"),
    (["connect", "[::1]:x-1.y"], "[::1]:11"),
    (["connect", "example.com:HTTPS"], "example.com:443"),
    (["connect", "udp://h:tftp"], "udp://h:69"),
    (["connect", "UDP://h:tftp"], "udp://h:69"),
    (["connect", "unix:https"], "unix:https"),
    (["check", "tls://localhost:postgresql"], "tls://localhost:5432"),
    (["listen", ":https"], ":443"),
    (["listen", "udp://:tftp"], "udp://:69"),
    (["relay", "127.0.0.1:https", "h:postgresql"], "h:5432"),
]


def target_of(words: list[str]) -> str:
    """The target as it is understood; of ``relay`` the only one."""
    options = parse(words)
    return str(options.relay_targets[0] if "relay_targets" in options else options.target)


@pytest.mark.usefixtures("services")
def test_a_service_is_a_port() -> None:
    for words, target in PORTS:
        assert target_of(words) == target
    assert parse(PORTS[-1][0]).listen.port == 443


WRONG = [
    (
        ["connect", "h:tftp"],
        "'h:tftp' is not a target: this system knows no service 'tftp' for TCP; write the number",
    ),
    (
        ["connect", "udp://h:https"],
        "this system knows no service 'https' for UDP; write the number of the port",
    ),
    (["listen", ":nothing"], "this system knows no service 'nothing' for TCP"),
    (["check", "h:80-https"], "this system knows no service '80-https'"),
    (["connect", "fe80::abc"], "more than one colon; an IPv6 address needs brackets"),
    (["connect", "http://h:https"], "unknown scheme 'http'"),
    (["connect", "h:\u00e9"], "the port must be a number from 1 to 65535, not '\u00e9'"),
    (["connect", "tls://h"], "the port is missing"),
    (["connect", "https"], "the port is missing"),
]


@pytest.mark.usefixtures("services")
@in_turn("words, error", WRONG)
def test_a_service_that_is_not_known(
    words: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    err = capsys.readouterr().err
    assert error in err
    assert err.count("\n") == 1


IDNA = [
    # With IDNA 2003, which Python's own codec has, it would be the host strasse.example.
    (["connect", "stra\u00dfe.example:1"], "xn--strae-oqa.example:1"),
    (["connect", "B\u00dcCHER.example", "1"], "xn--bcher-kva.example:1"),
    (["check", "tls://b\u00fccher.example:1"], "tls://xn--bcher-kva.example:1"),
    (["listen", "b\u00fccher.example:1"], "xn--bcher-kva.example:1"),
    (["relay", ":1", "b\u00fccher.example:1"], "xn--bcher-kva.example:1"),
]


def test_A4_a_host_follows_idna_2008() -> None:
    for words, target in IDNA:
        assert target_of(words) == target
    for command in ("connect", "check"):
        assert parse([command, "--sni", "b\u00fccher.example", "tls://h:1"]).sni == "xn--bcher-kva.example"
    assert parse(["relay", "--sni", "stra\u00dfe.example", ":1", "tls://h:1"]).sni == "xn--strae-oqa.example"


@in_turn("words", [["connect", "\u2615.example:1"], ["check", "--sni", "\u2615.example", "tls://h:1"]])
def test_A4_a_host_that_idna_2008_does_not_allow(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert "'\u2615.example' is not a host name: " in capsys.readouterr().err


@in_turn(
    "words",
    [
        ["connect", "b\u00fccher.example:1"],
        ["check", "b\u00fccher.example:1"],
        ["listen", "b\u00fccher.example:1"],
    ],
)
def test_A4_without_the_package_idna_a_host_is_refused(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "idna", None)
    assert main(words) == 2
    words = (
        "'b\u00fccher.example' is not ASCII: install the package idna, or write the name as in DNS, with xn--"
    )
    assert words in capsys.readouterr().err


def test_A4_a_name_that_is_not_ascii_reaches_no_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def resolve(host: object, *words: object, **options: object) -> list[object]:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    for command in ("connect", "check"):
        assert main([command, "--timeout", "5", "stra\u00dfe.example:1"]) == 3
    assert set(asked) == {"xn--strae-oqa.example"}


# Names that TLS cannot use: `--sni`, and the host of a target without it.

NOT_NAMES = ["", " ", "a b", ".example", "a..b", "-a.example", "*.example", "localhost:443", "a" * 64, "[::1"]


@in_turn("name", NOT_NAMES)
def test_a_name_of_sni_that_is_none_is_wrong_usage(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["connect", "tls://h:1"], ["check", "tls://h:1"], ["relay", ":1", "tls://h:1"]):
        assert main([words[0], f"--sni={name}", *words[1:]]) == 2
        assert capsys.readouterr().err == (
            f"wireline: --sni: {name!r} is not a host name; write a name such as example.com, or an IP address, "
            f"without a port; see 'wireline {words[0]} --help'\n"
        )


@in_turn("host", [".example", "a..b", "-a.example", "*.example", "a" * 64])
def test_a_host_that_tls_cannot_name_is_wrong_usage(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command, *words in (
        ["connect", f"tls://{host}:1"],
        ["connect", "--starttls=smtp", "--no-verify", "--", f"{host}:1"],
        ["check", f"tls://{host}:1"],
        ["relay", ":1", "tls://h:1", f"tls://{host}:1"],
    ):
        assert main([command, *words]) == 2
        assert capsys.readouterr().err == (
            f"wireline: {host!r} is not a host name, and TLS needs one: correct TARGET, or give the name with --sni "
            f"NAME; see 'wireline {command} --help'\n"
        )
    # It is only looked up when --sni has the name, and without TLS.
    assert parse(["connect", "--sni", "h", f"tls://{host}:1"]).target.host == host
    assert parse(["connect", "--", f"{host}:1"]).target.host == host


@in_turn("name", ["localhost", "127.0.0.1", "::1", "[::1]", "fe80::1%lo", "a.example.", "a_b"])
def test_names_and_addresses_that_tls_can_use(name: str) -> None:
    assert parse(["connect", "--sni", name, "tls://h:1"]).sni == name
