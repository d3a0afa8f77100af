"""The checks of PSK callbacks, as pure functions: every kind of identity, key, hint and result."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cases import in_turn
from tests.tls.bare import psk_server
from wireline.tls import _psk

KEY = b"k" * 16


@in_turn(
    "result, error",
    [
        (("", b"k"), ValueError),
        (("i" * 256, b"k"), ValueError),
        (("é" * 128, b"k"), ValueError),
        (("ali\0ce", b"k"), ValueError),
        (("\ud800", b"k"), UnicodeEncodeError),
        (("alice", b""), ValueError),
        (("alice", b"k" * 513), ValueError),
        ((b"alice", b"k"), TypeError),
        (("alice", "k"), TypeError),
        (("alice", 16), TypeError),
        (("alice", None), TypeError),
        (("alice",), TypeError),
        (None, TypeError),
        ("ab", TypeError),
    ],
)
def test_T9_an_invalid_result_of_a_client_callback_is_an_error(
    result: object, error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        _psk._CheckedClientCallback(lambda hint: result)(None)  # type: ignore[arg-type, return-value]
    assert type(caught.value) is error


@in_turn("result, error", [(None, TypeError), ("k", TypeError), (16, TypeError), (b"k" * 513, ValueError)])
def test_T9_an_invalid_result_of_a_server_callback_is_an_error(
    result: object, error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        _psk._CheckedServerCallback(lambda identity: result)(b"alice")  # type: ignore[arg-type, return-value]
    assert type(caught.value) is error


@in_turn("kind", [bytes, bytearray, memoryview])
def test_a_key_is_any_bytes_like_object(kind: type) -> None:
    key = _psk._CheckedServerCallback(lambda identity: kind(KEY))(b"alice")
    assert (type(key), key) == (bytes, KEY)
    identity, key = _psk._CheckedClientCallback(lambda hint: ("zoë", kind(KEY)))(None)
    assert (identity, type(key), key) == ("zoë".encode(), bytes, KEY)


@in_turn("size", [0, 1, 512])
def test_a_server_may_return_keys_of_0_to_512_bytes(size: int) -> None:
    assert _psk._CheckedServerCallback(lambda identity: b"k" * size)(b"alice") == b"k" * size


@in_turn("identity", ["x", "i" * 255, "é" * 127, "with space and \n"])
def test_a_client_may_return_identities_of_1_to_255_bytes(identity: str) -> None:
    assert _psk._CheckedClientCallback(lambda hint: (identity, KEY))(None) == (identity.encode(), KEY)


@in_turn("hint, seen", [(None, None), (b"", None), ("büro".encode(), "büro")])
def test_T9_the_clients_callback_gets_the_hint_as_text(hint: bytes | None, seen: str | None) -> None:
    hints: list[str | None] = []

    def callback(hint: str | None) -> tuple[str, bytes]:
        hints.append(hint)
        return "alice", KEY

    _psk._CheckedClientCallback(callback)(hint)
    assert hints == [seen]


@given(st.binary(max_size=300))
def test_any_identity_is_looked_up_or_refused(identity: bytes) -> None:
    asked: list[str] = []

    def callback(name: str) -> bytes:
        asked.append(name)
        return KEY

    key = _psk._CheckedServerCallback(callback)(identity)
    assert key == (KEY if asked else b"")
    assert [name.encode() for name in asked] in ([], [identity])
    assert all(name and "\0" not in name and len(identity) <= 255 for name in asked)


@in_turn("hint", ["h" * 256, "é" * 128, "hi\0nt"])
def test_T9_a_hint_that_does_not_fit_is_refused(hint: str) -> None:
    with pytest.raises(ValueError, match="a hint has 0 to 255 bytes"):
        _psk.encode_hint(hint)


@pytest.mark.usefixtures("psk")
def test_T9_a_server_context_refuses_a_hint_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="a hint has 0 to 255 bytes"):
        psk_server(hint="hi\0nt")


SHA256, SHA384 = "TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"


@in_turn(
    "version, cipher, reused, is_proved",
    [
        ("TLSv1.3", SHA256, True, True),
        ("TLSv1.3", SHA256, False, False),  # a certificate, and a suite that the key would fit
        ("TLSv1.3", SHA384, True, False),
        ("TLSv1.3", SHA384, False, False),
        ("TLSv1.2", "ECDHE-PSK-AES128-CBC-SHA256", False, True),
        ("TLSv1.2", "ECDHE-PSK-AES128-CBC-SHA256", True, False),
        ("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256", False, False),
    ],
)
def test_T9_the_suite_and_the_session_prove_an_identity_or_not(
    version: str, cipher: str, reused: bool, is_proved: bool
) -> None:
    callback = object()
    connection = SimpleNamespace(
        claimed="alice",
        answered_by=callback,
        context=SimpleNamespace(**{_psk._CALLBACK_ATTRIBUTE: callback}),
        session_reused=reused,
        cipher=lambda: (cipher, version, 128),
        version=lambda: version,
    )
    assert _psk._proved_identity_natively(cast("_psk._PskSSLObject", connection)) == (
        "alice" if is_proved else None
    )
    connection.answered_by = object()  # of a context that SNI has replaced
    assert _psk._proved_identity_natively(cast("_psk._PskSSLObject", connection)) is None
