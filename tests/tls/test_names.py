"""Host names: one spelling, and nothing that is none."""

from __future__ import annotations

import ipaddress
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import in_turn
from wireline.address import check_host, parse_hostname
from wireline.tls._names import normalise


@in_turn(
    "given, spelling",
    [
        ("", ""),
        ("localhost", "localhost"),
        ("LocalHost", "localhost"),
        ("localhost.", "localhost"),
        ("a_b.example", "a_b.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example.", "xn--bcher-kva.example"),
        ("bücher。example", "xn--bcher-kva.example"),
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("[::1]", "::1"),
        ("::1%lo", "::1"),
        ("[fe80::1%eth0]", "fe80::1"),
        ("FE80::ABCD", "fe80::abcd"),
        ("127.1", "127.1"),
        ("a" * 63, "a" * 63),
        (ipaddress.ip_address("::1"), "::1"),
        (ipaddress.ip_address("fe80::1%eth0"), "fe80::1"),
        (ipaddress.ip_address("127.0.0.1"), "127.0.0.1"),
    ],
)
def test_T1_a_name_has_one_spelling(given: str, spelling: str) -> None:
    assert normalise(given) == spelling
    assert normalise(spelling) == spelling
    if given:
        assert parse_hostname(given) == spelling


@in_turn(
    "given",
    [
        ".",
        ".example",
        "a..b",
        "localhost..",
        "local\0host",
        "localhost\n",
        "local host",
        "localhost:443",
        "https://localhost",
        "*.example",
        "-a.example",
        "a-.example",
        "[localhost]",
        "[::1",
        "a" * 64,
        ".".join(["a" * 60] * 5),
        "ü" * 64,
        "a\u3002\u3002b",
    ],
)
def test_text_that_is_not_a_host_name_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="is not a host name"):
        normalise(given)
    with pytest.raises(ValueError, match="is not a host name"):
        parse_hostname(given)


def test_no_name_is_one_for_tls_and_not_for_a_user() -> None:
    assert normalise("") == ""
    with pytest.raises(ValueError, match=r"^'' is not a host name$"):
        parse_hostname("")


@in_turn("given", [None, 1, b"localhost", ["localhost"]])
def test_objects_that_are_not_text_are_refused(given: object) -> None:
    with pytest.raises(TypeError):
        normalise(given)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        parse_hostname(given)  # type: ignore[arg-type]


@given(st.text())
def test_any_text_is_normalised_or_refused(text: str) -> None:
    try:
        name = normalise(text)
    except ValueError:
        return
    assert name.isascii()
    assert name == name.lower()
    assert not name.endswith(".")
    assert normalise(name) == name


# Names that are not ASCII (FB10, A4).


def test_A4_FB10_a_name_follows_idna_2008() -> None:
    """In IDNA 2003, which Python's codec follows, the first one is ``strasse.test``: the name of another host."""
    assert normalise("straße.test") == "xn--strae-oqa.test"
    assert normalise("BÜCHER.test") == "xn--bcher-kva.test"
    assert check_host("straße.test") == "xn--strae-oqa.test"
    assert check_host("fe80::1%é") == "fe80::1%é"  # the name of an interface
    for name in ("☃.test", "a..ü", "ü" * 64):
        with pytest.raises(ValueError, match="is not a host name"):
            check_host(name)


def test_A4_FB10_without_the_package_such_a_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "idna", None)
    for take in (normalise, check_host):
        with pytest.raises(
            ValueError, match=r"'straße.test' is not ASCII: install the package idna, or write"
        ):
            take("straße.test")
    assert check_host("localhost") == "localhost"
