"""A proxy that adds faults to the connections of a server, for the duration of a ``with`` block."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import tempfile
import threading
from collections.abc import Iterator

from wireline import Address, ClosedError, Target, parse_target
from wireline.net import Server, Socket, dial, serve
from wireline.testing._faults import Faults
from wireline.testing._stream_relay import StreamRelay

__all__ = ["fault_proxy"]

_log = logging.getLogger("wireline")

# The loopback address of a server that listens on every interface.
_EVERY_INTERFACE = {"": "localhost", "0.0.0.0": "127.0.0.1", "::": "::1"}


@contextlib.contextmanager
def fault_proxy(
    server: Address | tuple[str, int] | str, faults: Faults | str, *, timeout: float | None = 10.0
) -> Iterator[Address]:
    """Put a bad network in front of a server. Clients connect to the address that it yields.

    The proxy relays bytes in threads and does not decrypt TLS, so clients and servers may be of either flavour, in this
    process or elsewhere. Connections that are open at the end of the block are reset.

    Args:
        server: the address of the server: host and port, a ``local_addr``, or a target such as ``"host:port"`` or
            ``"unix:/path"``.
        faults: the faults, or their text: see ``Faults.parse``.
        timeout: seconds for connecting to the server. If that fails, the client gets a reset.

    Yields:
        The address to connect to: on loopback, or a Unix path if the server has one.

    Raises:
        TypeError, ValueError: an argument is wrong.
        OSError: the proxy cannot listen.
    """
    target = _target(server)
    faults = Faults.parse(faults) if isinstance(faults, str) else faults
    if not isinstance(faults, Faults):
        raise TypeError(f"faults is a Faults or a str, not {type(faults).__name__}")
    with contextlib.ExitStack() as stack:
        where = "127.0.0.1"
        if target.path:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="wireline-"))
            where = f"unix:{os.path.join(directory, 'fault_proxy')}"
        proxy = _FaultProxy(target, faults, timeout)
        listener = serve(proxy.handle, 0, where)
        stack.callback(proxy.end, listener)
        yield listener.local_addr


class _FaultProxy:
    """The connections through the proxy."""

    def __init__(self, target: Target, faults: Faults, timeout: float | None) -> None:
        self._target = target
        self._faults = faults
        self._timeout = timeout
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._relays: set[StreamRelay] = set()
        self._ended = False

    def handle(self, client: Socket, address: Address) -> None:
        """Relay one connection."""
        with self._lock:
            number = next(self._numbers)
        try:
            with self._connect() as server:
                relay = StreamRelay(client, server, self._faults, number=number)
                with self._registered(relay):
                    relay.run()
        except ClosedError:
            pass  # the block has ended
        except OSError as error:
            _log.debug("connection %d to %s failed: %s", number, self._target, error)
            client.close(linger=0)

    def end(self, server: Server) -> None:
        """Reset the open connections, and stop the server of the proxy."""
        with self._lock:
            self._ended = True
            left = list(self._relays)
        for relay in left:
            relay.abort()
        server.stop()

    def _connect(self) -> Socket:
        target = self._target
        if target.path:
            return dial(str(target), timeout=self._timeout)
        return dial(target.host, target.port, timeout=self._timeout)

    @contextlib.contextmanager
    def _registered(self, relay: StreamRelay) -> Iterator[None]:
        with self._lock:
            self._relays.add(relay)
            ended = self._ended
        if ended:
            relay.abort()
        try:
            yield
        finally:
            with self._lock:
                self._relays.discard(relay)


def _target(server: Address | tuple[str, int] | str) -> Target:
    if isinstance(server, str):
        target = parse_target(server)
        if target.scheme in ("udp", "unix-dgram"):
            raise ValueError("a fault proxy relays streams, not datagrams: write host:port or unix:/path")
        return target
    host, port = server
    if not port:  # the `local_addr` of a Unix socket
        return Target("unix", path=host)
    return Target("tcp", _EVERY_INTERFACE.get(host, host), port)
