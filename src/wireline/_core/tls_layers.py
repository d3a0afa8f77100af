"""TLS inside TLS: an engine whose ciphertext is the plaintext of another engine, the outer one.

The inner engine has two memory BIOs, as every engine. Between them and the network is the outer engine: what
``TlsCore`` feeds is written to the outer engine, whose plaintext is the input of the inner one; what the inner engine
puts out is encrypted by the outer one before ``TlsCore`` sends it. So ``TlsCore`` and the sockets do the same with any
number of layers, and an outer engine may be an inner one itself.

The two ends are different. The inner ``close_notify`` ends the stream. The end of the outer stream before it is the
end of the wire, and so a truncation.

As in the engine, each step is stored before a signal handler can run, and the next call goes on from there.
"""

from __future__ import annotations

import itertools
import ssl
from collections.abc import Iterator

from wireline._core.tls_engine import TlsEngine

__all__ = ["InnerTlsEngine"]


class _Incoming:
    """Where ciphertext of both layers is put: into the outer engine.

    Attributes:
        write: takes bytes of the network.
    """

    __slots__ = ("_bio", "_opened", "_outer", "_written", "write")

    def __init__(self, bio: ssl.MemoryBIO, outer: TlsEngine) -> None:
        self._bio = bio
        self._outer = outer
        self._opened = b""  # by the outer engine, and not in `_bio` yet
        self._written = 0
        self.write = outer.incoming.write  # of the outermost BIO

    @property
    def pending(self) -> int:
        """How many bytes the inner engine has to decrypt. What the outer one has to decrypt is decrypted first."""
        self.decrypt()
        return self._bio.pending

    def decrypt(self) -> None:
        """Let the outer engine decrypt what there is."""
        outer, bio, opened = self._outer, self._bio, self._opened
        outer.decrypt_all(b"")
        if outer.decrypted and not opened:
            opened = b"".join(outer.decrypted)
            # Both: no signal handler can run in between.
            self._opened = opened
            outer.decrypted = []
        if opened:
            for self._written in map(bio.write, (opened,)):  # likewise up to the next statement
                break
            self._opened = b""


class _Outgoing:
    """Where ciphertext of both layers is taken from: out of the outer engine."""

    __slots__ = ("_bio", "_outer", "_outputs", "_sealed")

    def __init__(self, bio: ssl.MemoryBIO, outer: TlsEngine) -> None:
        self._bio = bio
        self._outer = outer
        self._outputs: Iterator[bytes] = map(bio.read, itertools.repeat(-1))
        self._sealed = b""  # by the inner engine, and not by the outer one

    @property
    def pending(self) -> int:
        """How many bytes there are to send; those of the inner engine count as they are."""
        return self._bio.pending + len(self._sealed) + self._outer.outgoing.pending

    def read(self, _size: int = -1) -> bytes:
        """Take all of it, encrypted by both engines.

        Raises:
            ssl.SSLError: the outer engine fails.
        """
        self.encrypt()
        for output in self._outer.outputs:  # without end; after a `next` a signal handler could run
            return output
        return b""

    def encrypt(self) -> None:
        """Let the outer engine encrypt what the inner one has put out; what a failed one gets is dropped."""
        outer, outputs = self._outer, self._outputs
        if not self._sealed:
            for self._sealed in outputs:
                break
        sealed = self._sealed
        # Before the write: a signal handler can only raise an exception after it, in `ssl` itself.
        self._sealed = b""
        if sealed and outer.may_write:
            try:
                outer.write(sealed)
            except ssl.SSLError as error:
                raise outer.set_fatal_error(error) from error.__cause__


class InnerTlsEngine(TlsEngine):
    """An engine inside another one, the outer engine, which only this object calls from here on."""

    __slots__ = ("_input", "_outer", "_output")

    def __init__(self, fresh: TlsEngine, outer: TlsEngine) -> None:
        """Prepare.

        Args:
            fresh: an engine that was not used yet; this one takes its place.
            outer: one whose handshake is done.
        """
        incoming, outgoing = fresh.incoming, fresh.outgoing
        assert isinstance(incoming, ssl.MemoryBIO)
        assert isinstance(outgoing, ssl.MemoryBIO)
        self._input, self._output = _Incoming(incoming, outer), _Outgoing(outgoing, outer)
        super().__init__(fresh.obj, self._input, self._output, fresh.policy)
        self._outer = outer
        self.records = fresh.records  # it looks at the BIO of the inner engine
        self.accepted, self.wire_received = fresh.accepted, fresh.wire_received
        # The outer engine has put this out before: it is sent first, and is not encrypted again.
        self.ready, self.holding = [*outer.ready], outer.holding
        self._head, self._missing = (
            outer._head,
            outer._missing,
        )  # what is received are records of the outermost engine
        outer.collect_no_tickets()

    def handshake(self, *, at_end: bool = False) -> bool:
        self._outer.careful = self.careful
        self._input.decrypt()
        self._note_end_of_wire()
        return super().handshake(at_end=at_end or self._outer.ended)

    def decrypt_all(self, data: bytes) -> None:
        self._outer.careful = self.careful
        super().decrypt_all(data)
        self._note_end_of_wire()

    def _note_end_of_wire(self) -> None:
        outer = self._outer
        if outer.error is not None and not self.over:
            self.set_fatal_error(outer.error)
        self.over = self.over or outer.over

    def conclude(self, *, at_end: bool = False) -> None:
        if self.error is None and not self.ended:
            self._outer.conclude(at_end=at_end)
            at_end = self._outer.ended
        super().conclude(at_end=at_end)

    def _look_for_a_session(self, *, whole: bool) -> None:
        super()._look_for_a_session(whole=whole)
        self.fast_path_ok = False  # for it the ciphertext would have to be in the BIO of OpenSSL

    def finish(self, *, whole: bool) -> None:
        super().finish(whole=whole)
        self._output.encrypt()
        self._outer.finish(whole=True)  # without the inner `close_notify` it is a truncation to the peer
