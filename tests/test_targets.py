"""Targets, as users write them on a command line."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import in_turn
from wireline import Target, address, format_ip, parse_target
from wireline._targets import _SCHEMES

GOOD = [
    ("localhost:80", Target("tcp", "localhost", 80), "localhost:80"),
    ("TCP://localhost:80", Target("tcp", "localhost", 80), "localhost:80"),
    ("tls://example.com:443", Target("tls", "example.com", 443), "tls://example.com:443"),
    ("UDP://127.0.0.1:53", Target("udp", "127.0.0.1", 53), "udp://127.0.0.1:53"),
    ("[::1]:00080", Target("tcp", "::1", 80), "[::1]:80"),
    ("[2001:DB8:0::1]:443", Target("tcp", "2001:db8::1", 443), "[2001:db8::1]:443"),
    ("tls://[fe80::1%eth0]:443", Target("tls", "fe80::1%eth0", 443), "tls://[fe80::1%eth0]:443"),
    ("[::ffff:102:304]:80", Target("tcp", "::ffff:1.2.3.4", 80), "[::ffff:1.2.3.4]:80"),
    ("b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example:80", None, None),
    ("unix:80", Target("unix", path="80"), "unix:80"),
    ("unix:/run/x y", Target("unix", path="/run/x y"), "unix:/run/x y"),
    ("UNIX:relative", Target("unix", path="relative"), "unix:relative"),
    ("unix:@name", Target("unix", path="\0name"), "unix:@name"),
    ("unix:a@b", Target("unix", path="a@b"), "unix:a@b"),
    ("unix-dgram:/dev/log", Target("unix-dgram", path="/dev/log"), "unix-dgram:/dev/log"),
    ("Unix-Dgram:@name", Target("unix-dgram", path="\0name"), "unix-dgram:@name"),
    ("tcp:80", Target("tcp", "tcp", 80), "tcp:80"),
]
LISTENING = [
    (":8080", Target("tcp", "", 8080), ":8080"),
    ("8080", Target("tcp", "", 8080), ":8080"),
    ("0", Target("tcp", "", 0), ":0"),
    ("localhost:0", Target("tcp", "localhost", 0), "localhost:0"),
    ("[::]:0", Target("tcp", "::", 0), "[::]:0"),
    ("tls://:443", Target("tls", "", 443), "tls://:443"),
    ("udp://5353", Target("udp", "", 5353), "udp://:5353"),
]


@pytest.fixture(autouse=True)
def abstract_names_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "_HAS_ABSTRACT_NAMES", True)


@in_turn("text, target, canonical", GOOD)
def test_every_spelling_of_a_target(text: str, target: Target | None, canonical: str | None) -> None:
    expected = target or Target("tcp", text.removesuffix(":80"), 80)
    for listening in (False, True):
        parsed = parse_target(text, listening=listening)
        assert parsed == expected
        assert type(parsed) is Target
        assert str(parsed) == (canonical or text)


@in_turn("text, target, canonical", LISTENING)
def test_spellings_for_listening_only(text: str, target: Target, canonical: str) -> None:
    assert parse_target(text, listening=True) == target
    assert str(target) == canonical
    assert parse_target(canonical, listening=True) == target
    with pytest.raises(ValueError, match=r"is not a target: the (port|host) (is missing|must be)"):
        parse_target(text)


BAD = [
    ("", "the port is missing, write host:port"),
    (" ", "the port is missing"),
    ("localhost", "the port is missing, write localhost:port"),
    ("localhost:", "the port is missing, write localhost:port"),
    ("[::1]", r"the port is missing, write \[::1\]:port"),
    ("[::1]:", r"the port is missing, write \[::1\]:port"),
    ("tls://", "the port is missing, write tls://host:port"),
    ("tls://localhost", "the port is missing, write tls://localhost:port"),
    ("TLS://[::1]", r"the port is missing, write TLS://\[::1\]:port"),
    ("udp://localhost:", "the port is missing, write udp://localhost:port"),
    ("udp://::1:53", r"an IPv6 address needs brackets, udp://\[::1\]:443$"),
    ("localhost:http", "the port must be a number from [01] to 65535, not 'http'"),
    ("localhost:65536", "not '65536'"),
    ("localhost:-1", "not '-1'"),
    ("localhost:+1", r"not '\+1'"),
    ("localhost:8_0", "not '8_0'"),
    ("localhost: 80", "not ' 80'"),
    ("localhost:80 ", "not '80 '"),
    ("localhost:80\n", r"not '80\\n'"),
    ("localhost:\N{ARABIC-INDIC DIGIT FOUR}", "the port must be a number"),
    ("localhost:\N{SUPERSCRIPT TWO}", "the port must be a number"),
    ("localhost:000001", "the port must be a number"),
    ("tcp://localhost:80/", "not '80/'"),
    ("::1:80", "an IPv6 address needs brackets"),
    ("::1", "an IPv6 address needs brackets"),
    ("2001:db8::1", "an IPv6 address needs brackets"),
    ("tls:localhost:443", "a scheme slashes, tls://host:443"),
    ("tcp://tls://localhost:443", "more than one colon"),
    ("[localhost]:80", "'localhost' is not an IP address"),
    ("[127.0.0.1]:80", "brackets are for IPv6 addresses only"),
    ("[]:80", "is not an IP address"),
    ("[::1:80", "more than one colon"),
    ("[::1]x:80", "more than one colon"),
    ("a]:80", "a host must not contain ']'"),
    ("user@host:22", "a host must not contain '@'"),
    ("local host:22", "a host must not contain ' '"),
    (" localhost:22", "a host must not contain ' '"),
    ("a/b:22", "a host must not contain '/'"),
    ("a\0b:22", r"a host must not contain '\\x00'"),
    ("http://localhost:80", "unknown scheme 'http', use tcp://, tls://, udp://, unix: or unix-dgram:"),
    ("://localhost:80", "unknown scheme ''"),
    ("unix:", "path cannot be empty"),
    ("unix-dgram:@", "path cannot be empty"),
    ("unix:@", "path cannot be empty"),
    ("unix:a\0b", "must not contain a NUL"),
    ("unix:" + "x" * 200, "bytes, got 200"),
    ("unix:/run/\ud800", "surrogates not allowed"),
]


def test_a_bad_target_is_an_error_that_says_what_to_change() -> None:
    for (text, message), listening in itertools.product(BAD, (False, True)):
        with pytest.raises(ValueError, match=message) as caught:
            parse_target(text, listening=listening)
        assert str(caught.value).startswith(f"{text!r} is not a target: ")
        assert "\n" not in str(caught.value)


@in_turn(
    "text, message",
    [
        (":80", "the host is missing, write host:80"),
        ("tls://:443", "the host is missing, write tls://host:443"),
        ("80", "the port is missing, write 80:port"),
        ("localhost:0", "the port must be a number from 1 to 65535, not '0'"),
    ],
)
def test_connecting_needs_a_host_and_a_port(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_target(text)


def test_an_error_does_not_repeat_a_very_long_target() -> None:
    for text in ("x" * 10_000_000, "unix:" + "x" * 10_000_000, "[" + ":" * 10_000_000 + "]:80"):
        with pytest.raises(ValueError, match=f"at most 300 characters, got {len(text)}") as caught:
            parse_target(text)
        assert len(str(caught.value)) < 200


@in_turn("value", [None, 80, b"localhost:80", ("localhost", 80)])
def test_only_text_is_a_target(value: object) -> None:
    with pytest.raises(TypeError, match=type(value).__name__):
        parse_target(value)  # type: ignore[arg-type]


names = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True)
hosts = names | st.ip_addresses().map(format_ip)
inet_targets = st.builds(Target, st.sampled_from(_SCHEMES), hosts, st.integers(1, 65535), st.just(""))
paths = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=25)
unix_targets = paths.filter(lambda path: path[0] != "@").map(lambda path: Target("unix", path=path))
abstract_targets = paths.map(lambda name: Target("unix-dgram", path="\0" + name))


@given(inet_targets | unix_targets | abstract_targets, st.booleans())
def test_the_canonical_spelling_is_a_round_trip(target: Target, listening: bool) -> None:
    assert parse_target(str(target), listening=listening) == target


@given(st.sampled_from(_SCHEMES), st.just("") | hosts, st.integers(0, 65535))
def test_the_canonical_spelling_for_listening_is_a_round_trip(scheme: str, host: str, port: int) -> None:
    target = Target(scheme, host, port)
    assert parse_target(str(target), listening=True) == target


@given(st.text() | st.text("[]:/@.-0123456789abtlsunixdgrm%"), st.booleans())
def test_any_text_is_a_target_or_a_value_error(text: str, listening: bool) -> None:
    try:
        target = parse_target(text, listening=listening)
    except ValueError:
        return
    assert parse_target(str(target), listening=listening) == target
