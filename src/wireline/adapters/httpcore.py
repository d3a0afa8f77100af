"""The network of httpcore, and so of httpx, by ``dial``: ``NetworkBackend`` and ``AsyncNetworkBackend``.

Needs the extra ``httpcore``. Errors are httpcore's own; the wireline error is their ``__cause__``.
"""

from __future__ import annotations

import contextlib
import inspect
import select
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias, cast

import httpcore

from wireline import net
from wireline._public import publish
from wireline._socket_base import BaseSocket
from wireline._socket_view import SocketView
from wireline.asyncnet import AsyncSocket, dial
from wireline.asyncnet._port import running_port
from wireline.net import Socket, as_socket
from wireline.options import BUFFER_SIZE, SocketFlag
from wireline.tls import Handshake, SslContext

__all__ = ["AsyncNetworkBackend", "NetworkBackend"]

SocketOption: TypeAlias = (
    tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]
)
"""The arguments of a ``setsockopt``."""

# httpcore wants every error.
_NO_FLAGS = SocketFlag(0)

_NOT_OURS = {
    "protocol": "HTTP needs a stream",
    "tls": "httpcore starts TLS with a context of its own (httpx: verify=)",
    "hostname": "httpcore checks the host of the URL (or the extension sni_hostname)",
}
"""The options of ``dial`` that a backend cannot take, each with the reason."""


class NetworkBackend(httpcore.NetworkBackend):
    """Connections for ``httpcore.ConnectionPool`` and ``httpx.HTTPTransport``."""

    def __init__(self, **dial_options: Any) -> None:
        """Keep the options of ``wireline.net.dial`` for every connection.

        Args:
            dial_options: any but ``protocol``, ``tls`` and ``hostname``. ``timeout`` holds where a request has no
                connect timeout of its own.

        Raises:
            TypeError: ``dial`` does not know the option.
            ValueError: the option is httpcore's business.
        """
        self._options = _check_options(net.dial, dial_options)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to a host."""
        options = _options_of_a_call(self._options, timeout, local_address)
        with _raising(httpcore.ConnectTimeout, httpcore.ConnectError):
            sock = net.dial(host, port, **options)
            _set_options(sock, socket_options)
        return _Stream(sock)

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[SocketOption] | None = None
    ) -> httpcore.NetworkStream:
        """Connect to a Unix socket."""
        with _raising(httpcore.ConnectTimeout, httpcore.ConnectError):
            sock = net.dial(_unix_address(path), **_options_of_unix(self._options, timeout))
            _set_options(sock, socket_options)
        return _Stream(sock)

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


class AsyncNetworkBackend(httpcore.AsyncNetworkBackend):
    """Connections for ``httpcore.AsyncConnectionPool`` and ``httpx.AsyncHTTPTransport``."""

    def __init__(self, **dial_options: Any) -> None:
        """Keep the options of ``wireline.asyncnet.dial`` for every connection.

        Args:
            dial_options: as for ``NetworkBackend``.

        Raises:
            TypeError, ValueError: as for ``NetworkBackend``.
        """
        self._options = _check_options(dial, dial_options)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to a host."""
        options = _options_of_a_call(self._options, timeout, local_address)
        with _raising(httpcore.ConnectTimeout, httpcore.ConnectError):
            sock = await dial(host, port, **options)
            _set_options(sock, socket_options)
        return _AsyncStream(sock)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[SocketOption] | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Connect to a Unix socket."""
        with _raising(httpcore.ConnectTimeout, httpcore.ConnectError):
            sock = await dial(_unix_address(path), **_options_of_unix(self._options, timeout))
            _set_options(sock, socket_options)
        return _AsyncStream(sock)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await running_port().sleep(seconds)


class _Stream(httpcore.NetworkStream):
    """One connection."""

    def __init__(self, sock: Socket) -> None:
        self._sock = sock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with _raising(httpcore.ReadTimeout, httpcore.ReadError):
            return self._sock.recv_some(max_bytes, timeout, _NO_FLAGS)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with _raising(httpcore.WriteTimeout, httpcore.WriteError):
            for part in _parts(buffer):
                self._sock.send(part, _NO_FLAGS, timeout)

    def close(self) -> None:
        self._sock.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        context = SslContext.from_ssl(ssl_context)
        try:
            with _raising(httpcore.ConnectTimeout, httpcore.ConnectError):
                context.wrap_connected_socket(self._sock, Handshake.AS_CLIENT, server_hostname or "", timeout)
        except BaseException:
            self.close()
            raise
        return self

    def get_extra_info(self, info: str) -> Any:
        return as_socket(self._sock) if info == "socket" else _extra_info(self._sock, info)


class _AsyncStream(httpcore.AsyncNetworkStream):
    """One connection."""

    def __init__(self, sock: AsyncSocket) -> None:
        self._sock = sock

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with _raising(httpcore.ReadTimeout, httpcore.ReadError):
            return await self._sock.recv_some(max_bytes, timeout, _NO_FLAGS)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with _raising(httpcore.WriteTimeout, httpcore.WriteError):
            for part in _parts(buffer):
                await self._sock.send(part, _NO_FLAGS, timeout)

    async def aclose(self) -> None:
        self._sock.close()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        context = SslContext.from_ssl(ssl_context)
        try:
            with _raising(httpcore.ConnectTimeout, httpcore.ConnectError):
                await context.wrap_connected_async(
                    self._sock, Handshake.AS_CLIENT, server_hostname or "", timeout
                )
        except BaseException:
            self._sock.close()
            raise
        return self

    def get_extra_info(self, info: str) -> Any:
        return SocketView(self._sock) if info == "socket" else _extra_info(self._sock, info)


def _check_options(function: Callable[..., object], options: dict[str, Any]) -> dict[str, Any]:
    """Return the options if ``dial`` takes them, and httpcore does not decide them."""
    for name in options.keys() & _NOT_OURS.keys():
        raise ValueError(f"{name} cannot be an option of a network backend: {_NOT_OURS[name]}")
    inspect.signature(function).bind("host", 0, **options)
    return options


def _options_of_a_call(
    options: dict[str, Any], timeout: float | None, local_address: str | None
) -> dict[str, Any]:
    """Return the options of one ``dial``: httpcore's arguments take precedence."""
    if timeout is not None:
        options = options | {"timeout": timeout}
    if local_address is not None:
        options = options | {"local_addr": (local_address, 0)}
    return options


def _options_of_unix(options: dict[str, Any], timeout: float | None) -> dict[str, Any]:
    """Return the options of one ``dial`` of a Unix socket: those that are not about a network."""
    kept = {name: value for name, value in options.items() if name in ("buffered", "options", "timeout")}
    return kept if timeout is None else kept | {"timeout": timeout}


def _unix_address(path: str) -> str:
    """Return the address of a Unix socket for ``dial``. A path that begins with ``@`` is no abstract name."""
    return f"unix:./{path}" if path.startswith("@") else f"unix:{path}"


def _set_options(sock: BaseSocket, options: Iterable[SocketOption] | None) -> None:
    """Set httpcore's options; on failure close the socket."""
    try:
        view = SocketView(sock)
        for option in options or ():
            view.setsockopt(*cast("tuple[int, int, Any]", option))
    except BaseException:
        sock.close()
        raise


def _parts(data: bytes) -> Iterator[memoryview]:
    """Cut a large body: a write timeout is for each piece, and does not grow with the size of the body."""
    view = memoryview(data)
    for start in range(0, len(view), BUFFER_SIZE):
        yield view[start : start + BUFFER_SIZE]


@contextlib.contextmanager
def _raising(timeout: type[Exception], failure: type[Exception]) -> Iterator[None]:
    """Raise httpcore's errors in place of ours."""
    try:
        yield
    except TimeoutError as error:
        raise timeout(str(error)) from error
    except OSError as error:
        raise failure(str(error)) from error


def _extra_info(sock: BaseSocket, info: str) -> Any:
    """Return what httpcore and httpx ask of a connection; None for what is not known."""
    if info == "ssl_object":
        return sock.ssl_handle if sock.is_ssl else None
    if info == "client_addr":
        return SocketView(sock).getsockname()
    if info == "server_addr":
        return SocketView(sock).getpeername()
    if info == "is_readable":
        return _is_readable(sock)
    return None


def _is_readable(sock: BaseSocket) -> bool:
    """Whether a read would not wait: an idle connection of a pool is then over."""
    if sock.is_closed or sock.has_data_buffered:
        return True
    if not hasattr(select, "poll"):
        return bool(select.select([sock.fileno()], [], [], 0)[0])
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))


publish(__name__, globals(), __all__)
