"""Host names: one spelling, and nothing that is none."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wireline.tls._names import normalise


@pytest.mark.parametrize(
    ("given", "spelling"),
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


@pytest.mark.parametrize(
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


@pytest.mark.parametrize("given", [None, 1, b"localhost", ["localhost"]])
def test_objects_that_are_not_text_are_refused(given: object) -> None:
    with pytest.raises(TypeError):
        normalise(given)  # type: ignore[arg-type]


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
