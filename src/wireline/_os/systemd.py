"""Sockets that systemd, or a program like it, opened for this process: the protocol of sd_listen_fds(3)."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from typing import Protocol, TypeVar

__all__ = ["adopt_inherited_sockets", "take_inherited_sockets"]


class _Closable(Protocol):
    def close(self) -> None: ...


T = TypeVar("T", bound=_Closable)

_FIRST_FD = 3

_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def take_inherited_sockets() -> list[tuple[str, socket.socket]]:
    """Take the descriptors of ``LISTEN_FDS``, with their names, and remove the variables.

    All descriptors become close-on-exec. There are none if the variables are missing, or are meant for another process
    (``LISTEN_PID``), which then keeps them.

    Raises:
        ValueError: a variable is malformed, or a descriptor is no open socket. Nothing was taken.
    """
    if not os.environ.get("LISTEN_FDS") or os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = _count(os.environ["LISTEN_FDS"])
    names = _names(os.environ.get("LISTEN_FDNAMES"), count)
    fds = range(_FIRST_FD, _FIRST_FD + count)
    for fd in fds:
        _require_socket(fd)
    for variable in _VARIABLES:
        os.environ.pop(variable, None)
    sockets = [socket.socket(fileno=fd) for fd in fds]
    for sock in sockets:
        sock.set_inheritable(False)
    return list(zip(names, sockets, strict=True))


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > 1 << 16:
        raise ValueError(f"LISTEN_FDS is a number of descriptors, not {text!r}")
    return int(text)


def _names(text: str | None, count: int) -> list[str]:
    if not text:
        return ["unknown"] * count
    names = text.split(":")
    if len(names) != count:
        raise ValueError(f"LISTEN_FDNAMES has {len(names)} names, and LISTEN_FDS is {count}")
    return names


def _require_socket(fd: int) -> None:
    try:
        is_socket = stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError as error:
        raise ValueError(f"LISTEN_FDS: descriptor {fd} is not open") from error
    if not is_socket:
        raise ValueError(f"LISTEN_FDS: descriptor {fd} is no socket")


def adopt_inherited_sockets(adopt: Callable[[socket.socket], T]) -> list[tuple[str, T]]:
    """Take the descriptors, and make an object of each; if one cannot be made, close all of them."""
    taken = take_inherited_sockets()
    adopted: list[tuple[str, T]] = []
    try:
        for name, sock in taken:
            adopted.append((name, adopt(sock)))
    except BaseException:
        for _, made in adopted:
            made.close()
        for _, sock in taken:
            sock.close()
        raise
    return adopted
