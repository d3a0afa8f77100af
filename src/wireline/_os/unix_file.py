"""The file of a Unix socket: bound to, taken over if it is stale, removed again (S8).

Theory of operation. The file of a server that was killed stays, and the next server has to replace it: which is
"look, remove, bind", and between any two of these another server may do the same. A file is stale if it is a socket's
and no socket is bound to it. That is asked with a datagram socket: the kernel refuses a connection to a file without
a socket, and says "wrong type" of one whose socket is a stream, listening or not yet. It leaves nothing in the queue
of a listener, either.

Of those that would replace a file, one at a time may, by a lock (flock(2)) on the *directory*. Wayland's compositors
hold such a lock on a file beside the socket; PostgreSQL and X servers keep a lock file with the number of a process in
it, and have to guess whether that is still alive. A lock on the directory leaves no file behind, needs no name that
might be another program's, and is gone with the process that held it, however that ended. Binding to a temporary
name and renaming it would be shorter, but rename(2) replaces a living server's file as well as a stale one, and the
socket would tell its peers the temporary name.

A bind makes the file first and the socket behind it a moment later, both under the kernel's lock of the directory.
So the second bind, which fails like the first, is a wait, too: the socket of a file that was seen before it is
there after it, and a verdict on that file is final.

What remains: a program that does not take the lock, removes the stale file and binds between our last look and our
removal, which are two system calls next to each other.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from wireline._os.process import process
from wireline.options import AF_UNIX, SOCK_DGRAM

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows, whose Python has no Unix sockets
    fcntl = None

__all__ = ["UnixFile", "bind"]

# Seconds to wait for the lock. Those that hold it for a takeover have it for less than a millisecond. A guess, for a
# program that locks the directory for a reason of its own must not hold up an event loop.
_LOCK_TIMEOUT = 1.0
# Seconds between two tries: a lock that is waited for in flock(2) itself has no deadline. Guesses.
_MIN_PAUSE, _MAX_PAUSE = 0.0005, 0.02


class UnixFile(NamedTuple):
    """The file that a bind has made. As long as the socket is open, no other file gets its inode number."""

    path: str | bytes
    device: int
    inode: int
    owner: object
    """The process that may remove it, as an epoch: the one that bound, or a child that called ``adopt``."""

    @classmethod
    def at(cls, path: str | bytes) -> UnixFile:
        """The file at ``path``, which stays known when the process goes to another directory.

        Raises:
            OSError: there is none, or it cannot be looked at.
        """
        found = os.lstat(path)
        return cls(_absolute(path), found.st_dev, found.st_ino, process.epoch)

    def remove(self) -> None:
        """Remove the file, if it still is this one. Not after the socket was closed: the number may be used again.

        A process that does not own it leaves it, also when it owns its copy of the socket: a worker that accepts closes
        its listener in full, and others accept there.
        """
        if self.owner is not process.epoch:
            return
        with contextlib.suppress(OSError):  # removed by another program: what we wanted
            found = os.lstat(self.path)
            if (found.st_dev, found.st_ino) == (self.device, self.inode):
                os.unlink(self.path)


def bind(sock: socket.socket, path: str | bytes) -> UnixFile | None:
    """Bind to a path, or to an abstract name; a stale socket file is replaced.

    Returns:
        The file that was made; None for an abstract name, or if the file was removed in the same moment.

    Raises:
        OSError: ``EADDRINUSE`` if a socket is bound there, or if it is no socket file.
    """
    is_abstract = os.fsencode(path)[:1] == b"\0"
    try:
        sock.bind(path)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or is_abstract:
            raise
        _bind_over_stale(sock, path, error)
    if is_abstract:
        return None
    try:
        return UnixFile.at(path)
    except FileNotFoundError:
        return None


def _bind_over_stale(sock: socket.socket, path: str | bytes, in_use: OSError) -> None:
    """Bind to a path where there is a file already, if that is a stale socket's.

    Raises:
        OSError: ``in_use`` if it is not; what went wrong if the file cannot be looked at or removed.
    """
    with _directory_lock(path, in_use):
        found = _socket_file_id(path)
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return  # the file has gone in the meantime
        if found is None or not _is_stale(path) or _socket_file_id(path) != found:
            raise in_use
        with contextlib.suppress(FileNotFoundError):  # removed by a program that takes no lock
            os.unlink(path)
        sock.bind(path)


def _socket_file_id(path: str | bytes) -> tuple[int, int, int] | None:
    """What tells the socket file at ``path`` from every other; None if there is none. A link to one is none."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return (found.st_dev, found.st_ino, found.st_ctime_ns) if stat.S_ISSOCK(found.st_mode) else None


def _is_stale(path: str | bytes) -> bool:
    """Whether no socket is bound to a socket file."""
    with socket.socket(AF_UNIX, SOCK_DGRAM) as probe:
        probe.setblocking(False)
        while (
            code := probe.connect_ex(path)
        ) == errno.EINTR:  # the one call that Python does not repeat by itself
            pass
        return code == errno.ECONNREFUSED


@contextlib.contextmanager
def _directory_lock(path: str | bytes, in_use: OSError) -> Iterator[None]:
    """Be the only one that replaces a file in the directory of ``path``.

    Raises:
        OSError: ``in_use``, with the reason as a note, if the lock cannot be had.
    """
    directory = os.path.dirname(path) or os.curdir
    opened: list[int] = []
    try:
        try:
            # One call for the interpreter: an exception from a signal handler finds the descriptor in the list.
            opened.extend(map(os.open, (directory,), (os.O_RDONLY,)))
        except PermissionError as error:
            _add_reason(in_use, error)
            raise in_use from None
        _lock(opened[0], in_use)
        yield
    finally:
        for descriptor in opened:
            try:
                # Not only by closing: a child that another thread has just forked has the descriptor, too.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            except OSError:  # a file system without such locks: none is held
                pass
            finally:
                os.close(descriptor)


def _add_reason(in_use: OSError, error: OSError) -> None:
    in_use.add_note(f"a stale socket file is replaced only in a directory that can be locked: {error}")


def _lock(descriptor: int, in_use: OSError) -> None:
    give_up = time.monotonic() + _LOCK_TIMEOUT
    pause = _MIN_PAUSE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # A file system without such locks, or a holder that does not let go.
            if error.errno not in (errno.EAGAIN, errno.EWOULDBLOCK) or time.monotonic() > give_up:
                _add_reason(in_use, error)
                raise in_use from None
        else:
            return
        time.sleep(pause)
        pause = min(2 * pause, _MAX_PAUSE)


def _absolute(path: str | bytes) -> str | bytes:
    # Not `abspath`, which takes "link/.." for the directory of the link.
    if os.path.isabs(path):
        return path
    try:
        return (
            os.path.join(os.getcwdb(), path) if isinstance(path, bytes) else os.path.join(os.getcwd(), path)
        )
    except OSError:  # the working directory is gone, or out of sight: the path is all there is
        return path
