"""Checks and conversions of the arguments of public functions. Nothing here touches a descriptor."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Literal, get_args

from wireline.address import IpAddress, check_host, check_port, unix_path
from wireline.options import IPPROTO_TCP, IPPROTO_UDP, SOCK_DGRAM, SOCK_STREAM, SockOpt

UnixPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]
Buffer = bytes | bytearray | memoryview
"""Data to send: ``bytes``, or anything else that supports the buffer protocol."""

Leftover = Literal["refuse", "tls"]
"""What is done with bytes that were received in clear before a handshake, and not read."""
SocketOption = tuple[int, int, int | Buffer]
"""Level, option and value, as ``setsockopt`` takes them."""

# The largest C int.
_MAX_INT = 2**31 - 1


def require_int(name: str, value: object) -> None:
    """Refuse anything but a non-negative int that fits a C int. A ``bool`` is always a mistake.

    Raises:
        TypeError: it is not an int.
        ValueError: it is out of range.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is an int, not {type(value).__name__}")
    if not 0 <= value <= _MAX_INT:
        raise ValueError(f"{name} is 0 to {_MAX_INT}, got {value}")


def dial_type(protocol: int) -> int:
    """Return the socket type of a protocol of ``dial``.

    Raises:
        TypeError, ValueError: it is another protocol.
    """
    require_int("protocol", protocol)
    sock_type = {IPPROTO_TCP: SOCK_STREAM, IPPROTO_UDP: SOCK_DGRAM}.get(protocol)
    if sock_type is None:
        raise ValueError(f"dial knows IPPROTO_TCP and IPPROTO_UDP, got {protocol!r}")
    return sock_type


def unix_target(address: object) -> str | bytes | None:
    """Return the path of ``unix:/path`` or ``unix:@name``, with a leading NUL for a name; None for another address.

    Raises:
        ValueError: the path is empty or too long.
    """
    if not isinstance(address, str) or not address.startswith("unix:"):
        return None
    path = address.removeprefix("unix:")
    return unix_path("\0" + path[1:] if path.startswith("@") else path)


def check_options(options: Iterable[SocketOption]) -> tuple[SocketOption, ...]:
    """Return socket options as a tuple of ``(level, option, value)``.

    Raises:
        TypeError: it is not an iterable of such tuples.
        ValueError: a number is out of range.
    """
    try:
        given: list[tuple[Any, ...]] = [tuple(option) for option in options]
    except TypeError:
        raise TypeError(f"options are tuples of level, option and value, got {options!r}") from None
    checked: list[SocketOption] = []
    for each in given:
        if len(each) != 3:
            raise TypeError(f"an option is a tuple of level, option and value, got {each!r}")
        level, option, value = each
        require_int("the level of an option", level)
        require_int("an option", option)
        checked.append((level, option, option_value(value)))
    return tuple(checked)


def check_peer_arguments(address: str | IpAddress, port: int) -> tuple[str, int]:
    """Check the host and port of a peer.

    Raises:
        TypeError, ValueError: the host or the port is wrong. So is ``""``, which is "every interface" for a listener.
    """
    host = check_host(address)
    if not host:
        raise ValueError("the host is empty")
    return host, check_port(port)


def require_context(tls: object, name: str = "tls") -> None:
    """Refuse anything but a ``wireline.tls.SslContext``. The class is not imported here, because it needs ``ssl``.

    Raises:
        TypeError: it is something else.
    """
    if not hasattr(tls, "_client_core"):
        raise TypeError(f"{name} is a wireline.tls.SslContext, not {type(tls).__name__}")


def check_leftover(leftover: Leftover) -> None:
    """Refuse anything but the values of ``Leftover``.

    Raises:
        ValueError: it is something else.
    """
    if leftover not in get_args(Leftover):
        raise ValueError(f"leftover is one of {', '.join(get_args(Leftover))}, got {leftover!r}")


def option_number(opt: SockOpt, level: int | None) -> tuple[int, int]:
    """Return the operating system's number of a boolean option, and its level."""
    if not isinstance(opt, SockOpt):
        raise TypeError(f"opt is a SockOpt, not {type(opt).__name__}")
    if level is not None:
        require_int("level", level)
    return opt.to_int(), opt.level if level is None else level


def option_value(value: int | Buffer) -> int | bytes:
    """Return the value of a socket option.

    Raises:
        TypeError: it is neither an int nor a buffer.
        ValueError: it is an int that does not fit a C int.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if not -_MAX_INT - 1 <= value <= _MAX_INT:
            raise ValueError(f"the value of an option is {-_MAX_INT - 1} to {_MAX_INT}, got {value}")
        return value
    try:
        return bytes(memoryview(value))  # type: ignore[arg-type] # what is no buffer is refused below
    except TypeError:
        raise TypeError(f"the value of an option is an int or bytes, not {type(value).__name__}") from None


def as_bytes_like(data: Buffer) -> bytes | memoryview:
    """Return ``data`` as an object whose ``len`` is its size in bytes, without a copy if it is contiguous.

    Raises:
        TypeError: it does not support the buffer protocol, as ``str`` does not.
    """
    if type(data) is bytes:
        return data
    try:
        view = memoryview(data)
    except TypeError:
        raise TypeError(f"data to send is bytes or another buffer, not {type(data).__name__}") from None
    return view.cast("B") if view.c_contiguous else memoryview(view.tobytes())


def as_message(data: Buffer) -> bytes | memoryview:
    """Do the same for data that descriptors are sent with.

    Raises:
        TypeError: it does not support the buffer protocol.
        ValueError: it is empty.
    """
    payload = as_bytes_like(data)
    if not payload:
        raise ValueError("descriptors are sent with at least one byte of data")
    return payload


def join_buffers(parts: Iterable[Buffer]) -> bytes:
    """Return the concatenation of several buffers.

    Raises:
        TypeError: it is not an iterable of buffers. ``bytes`` is an iterable of ints.
    """
    if isinstance(parts, str | bytes | bytearray | memoryview):
        raise TypeError(f"send_many takes an iterable of buffers, not one {type(parts).__name__}: see send")
    try:
        pieces = list(parts)
    except TypeError:
        raise TypeError(f"send_many takes an iterable of buffers, not {type(parts).__name__}") from None
    try:
        return b"".join(pieces)
    except (BufferError, TypeError):
        # One of them is not a buffer, or not contiguous: `as_bytes_like` copies it, or says what is wrong.
        return b"".join([as_bytes_like(piece) for piece in pieces])


def as_writable_view(buffer: bytearray | memoryview, size: int | None) -> memoryview:
    """Return a writable view of the first ``size`` bytes of a buffer; of the whole buffer for None.

    Raises:
        TypeError: it is not a writable buffer.
        ValueError: it has fewer bytes, or is not contiguous.
    """
    try:
        view = memoryview(buffer)
    except TypeError:
        raise TypeError(f"a writable buffer is needed, not {type(buffer).__name__}") from None
    if view.readonly:
        raise TypeError(f"a writable buffer is needed, this {type(buffer).__name__} is read-only")
    if not view.c_contiguous:
        raise ValueError("the buffer is not contiguous")
    view = view.cast("B")
    if size is None:
        return view
    require_int("size", size)
    if size > len(view):
        raise ValueError(f"size is 0 to the {len(view)} bytes of the buffer, got {size}")
    return view[:size]


def require_resizable(buffer: bytearray) -> None:
    """Refuse a buffer that cannot be resized, before anything is received for it.

    Raises:
        TypeError: it is not a bytearray.
        BufferError: a ``memoryview`` of it exists.
    """
    if not isinstance(buffer, bytearray):
        raise TypeError(f"the buffer is a bytearray, not {type(buffer).__name__}")
    buffer.append(0)
    buffer.pop()
