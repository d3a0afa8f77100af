"""Host names to addresses, without ever blocking the caller for longer than it wants to wait.

``getaddrinfo`` cannot be interrupted and has limits of its own (30 s and more). So every lookup runs in a daemon
thread and is a ``concurrent.futures.Future``: a thread waits for it with a deadline, a task through
``asyncio.wrap_future``, and whoever runs out of patience just leaves. Callers that ask the same question while it is
under way share one lookup, so a program that retries against a dead name server keeps one thread a name, not one a try.
"""

from __future__ import annotations

import copy
import os
import socket
import threading
from concurrent.futures import Future
from typing import cast

from wireline._sansio.race import AddrInfo
from wireline.address import is_ip_address

__all__ = ["ask", "look_up", "outcome"]

_Question = tuple[str, int, int, int, int]

_lock = threading.Lock()
_under_way: dict[_Question, Future[list[AddrInfo]]] = {}


def look_up(host: str, port: int, family: int, sock_type: int, protocol: int) -> Future[list[AddrInfo]]:
    """Find the addresses of ``host``. The future fails with ``socket.gaierror``, which names the host.

    An address literal (with or without a zone id) is answered at once and starts no thread.
    """
    question = (host, port, family, sock_type, protocol)
    if is_ip_address(host.partition("%")[0]):
        future: Future[list[AddrInfo]] = Future()
        _answer(future, question, socket.AI_NUMERICHOST)
        return future
    with _lock:
        shared = _under_way.get(question)
        if shared is not None and not shared.done():
            return shared
        future = _under_way[question] = Future()
        future.set_running_or_notify_cancel()  # shared: nobody may cancel it for the others
        worker = threading.Thread(
            target=_work, args=(future, question), name=f"wireline-resolve-{host}", daemon=True
        )
        try:
            worker.start()
        except BaseException:
            del _under_way[question]
            raise
    return future


def _work(future: Future[list[AddrInfo]], question: _Question) -> None:
    _answer(future, question, 0)
    with _lock:
        if _under_way.get(question) is future:  # else somebody has asked again since
            del _under_way[question]


def _answer(future: Future[list[AddrInfo]], question: _Question, flags: int) -> None:
    try:
        found = ask(*question, flags)
    except BaseException as error:  # noqa: BLE001 -- whatever it is, the callers are to get it
        future.set_exception(error)
    else:
        future.set_result(found)


def ask(host: str, port: int, family: int, sock_type: int, protocol: int, flags: int) -> list[AddrInfo]:
    """Call ``getaddrinfo`` here and now; ``""`` is no host at all.

    Raises:
        socket.gaierror: the host is named in its text (C6).
    """
    if family == socket.AF_INET6 and host:
        # A sender whose IPv4 address came out of an IPv6 socket can be answered through it (W8).
        flags |= getattr(socket, "AI_V4MAPPED", 0)
    try:
        found = socket.getaddrinfo(host or None, port, family, sock_type, protocol, flags)
    except socket.gaierror as error:
        raise socket.gaierror(error.errno, f"{error.strerror} (host name {host!r})") from None
    except UnicodeError as error:  # a label that is empty or too long for IDNA
        raise socket.gaierror(socket.EAI_NONAME, f"{error} (host name {host!r})") from None
    # typeshed's other shape of a socket address is that of Pythons built without IPv6.
    return cast("list[AddrInfo]", found)


def outcome(lookup: Future[list[AddrInfo]]) -> list[AddrInfo]:
    """Return what a lookup that is done found, or raise why it failed: a copy for each of its callers."""
    error = lookup.exception()
    if error is not None:
        raise copy.copy(error)
    return lookup.result()


def _forget() -> None:
    """In a forked child none of the parent's threads exists: ask anew."""
    global _lock
    _lock = threading.Lock()
    _under_way.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
