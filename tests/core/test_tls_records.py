"""FA26: a record that is being read when a signal handler raises is read whole by the next call."""

from __future__ import annotations

import ssl

import pytest

from tests.cases import in_turn
from tests.core.interrupts import Interruption
from tests.core.test_tls import both_versions, connected, said
from wireline._core.tls_records import RecordReader
from wireline.tls import SslError

SIZES = (1, 2, 50, 16 * 1024)


class InTheMidst:
    """``SSLObject.read`` that raises once as ``ssl`` does when a signal handler raises: after OpenSSL has decrypted."""

    def __init__(self, obj: ssl.SSLObject, number: int) -> None:
        self._obj = obj
        self._number = number

    def __call__(self, size: int, buffer: bytearray | memoryview) -> int:
        count = self._obj.read(size, buffer)
        self._number -= 1
        if self._number == 0:
            raise Interruption
        assert isinstance(count, int)
        return count


def reader_of(
    version: ssl.TLSVersion, sizes: tuple[int, ...], number: int
) -> tuple[RecordReader, list[bytes]]:
    """A reader whose call with that number is interrupted, and the messages that it is to give."""
    core, peer = connected(version)
    messages = [bytes([65 + index]) * size for index, size in enumerate(sizes)]
    core.engine.incoming.write(b"".join(said(peer, message) for message in messages))
    obj = core.engine.obj
    return RecordReader(InTheMidst(obj, number), obj.pending, core.engine.incoming), messages


@both_versions
@in_turn("size", SIZES[1:])
@in_turn("number", [1, 2])
def test_FA26_plaintext_that_OpenSSL_had_decrypted_is_not_lost(
    version: ssl.TLSVersion, size: int, number: int
) -> None:
    """FA26: of 1,000 interruptions 255 broke decryption for good."""
    reader, messages = reader_of(version, (size, 7), number)
    with pytest.raises(Interruption):
        reader.open()
    assert [reader.open(), reader.open()] == messages
    with pytest.raises(ssl.SSLWantReadError):
        reader.open()


@both_versions
@in_turn("equals_the_mark", [False, True])
def test_a_record_of_one_byte_is_read_or_an_error_and_never_lost_silently(
    version: ssl.TLSVersion, equals_the_mark: bool
) -> None:
    core, peer = connected(version)
    core.feed(said(peer, b"first"))  # with the tickets of TLS 1.3
    obj, incoming = core.engine.obj, core.engine.incoming
    reader = RecordReader(InTheMidst(obj, 1), obj.pending, incoming)
    reader._mark = ord("1") if equals_the_mark else ord("2")
    incoming.write(said(peer, b"1"))
    with pytest.raises(Interruption):
        reader.open()
    if equals_the_mark:
        with pytest.raises(SslError, match="the decrypted data is lost"):
            reader.open()
    else:
        assert reader.open() == b"1"


@both_versions
@in_turn("size", SIZES[1:])
def test_FA26_an_exception_between_the_steps_loses_nothing(version: ssl.TLSVersion, size: int) -> None:
    """FA26: the same between the calls of OpenSSL."""
    core, peer = connected(version)
    message = b"x" * size
    obj, incoming = core.engine.obj, core.engine.incoming
    incoming.write(said(peer, message))
    interruptions = 2

    def pending() -> int:
        nonlocal interruptions
        number = obj.pending()
        if interruptions:
            interruptions -= 1
            raise Interruption
        return number

    reader = RecordReader(InTheMidst(obj, 0), pending, incoming)
    for _ in range(2):
        with pytest.raises(Interruption):
            reader.open()
    assert reader.open() == message


@both_versions
def test_part_of_a_record_is_no_loss(version: ssl.TLSVersion) -> None:
    """A record that is not there whole looks like one without data after an interruption, unless it is tiny."""
    core, peer = connected(version)
    wire = said(peer, b"x" * 500)
    obj, incoming = core.engine.obj, core.engine.incoming
    incoming.write(wire[:200])
    reader = RecordReader(Interrupted(obj), obj.pending, incoming)
    with pytest.raises(Interruption):
        reader.open()
    incoming.write(wire[200:])
    assert reader.open() == b"x" * 500


class Interrupted(InTheMidst):
    """The same in place of the error that says that more is needed."""

    def __init__(self, obj: ssl.SSLObject) -> None:
        super().__init__(obj, 0)
        self._raised = False

    def __call__(self, size: int, buffer: bytearray | memoryview) -> int:
        try:
            return super().__call__(size, buffer)
        except ssl.SSLWantReadError:
            if self._raised:
                raise
            self._raised = True
            raise Interruption from None
