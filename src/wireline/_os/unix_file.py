"""The file of a Unix socket: created by bind, replaced if it is stale, removed by close (promise S8).

Theory of operation. The file of a killed server stays, and the next server has to replace it: look, remove, bind.
Between any two of these steps another server may do the same. A file is stale if it is a socket file to which no socket
is bound. A datagram socket finds out: connect(2) reports ECONNREFUSED for a file without a socket, and EPROTOTYPE for
the file of a stream socket, listening or not. It also adds nothing to a listener's queue.

One process at a time replaces a file: the one that holds a lock (flock(2)) on the *directory*. Wayland compositors lock
a file beside the socket; PostgreSQL and X servers write a lock file with a process id, and have to guess whether that
process still runs. A lock on the directory leaves no file behind, needs no name that another program might use, and
ends with its process. To bind to a temporary name and rename it would be shorter, but rename(2) replaces the file of a
living server, too, and peers would see the temporary name.

bind(2) makes the file first and the socket behind it a moment later, both under the kernel's lock of the directory. So
our second bind, which fails like the first, is also a wait: afterwards the file that we looked at has its socket, and
"stale" is final.

What remains: a program that does not take the lock may replace the stale file between our last look and our unlink(2),
which are two system calls next to each other.
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

# Seconds to wait for the lock. To replace a file takes less than a millisecond. A guess: a program that locks the
# directory for another reason must not block an event loop for long.
_LOCK_TIMEOUT = 1.0
# Seconds between two attempts, as flock(2) has no timeout. Guesses.
_MIN_PAUSE, _MAX_PAUSE = 0.0005, 0.02


class UnixFile(NamedTuple):
    """The file that a bind has made. No other file gets its inode number while the socket is open."""

    path: str | bytes
    device: int
    inode: int
    owner: object
    """The epoch of the process that may remove it: the one that bound, or a child that called ``adopt``."""

    @classmethod
    def at(cls, path: str | bytes) -> UnixFile:
        """Identify the file at ``path``, by an absolute path.

        Raises:
            OSError: from lstat(2).
        """
        found = os.lstat(path)
        return cls(_absolute(path), found.st_dev, found.st_ino, process.epoch)

    def remove(self) -> None:
        """Remove the file if it is still the same one. Call it before the socket is closed, which frees the number.

        Only the owner removes it. A worker that closes its inherited listener leaves the file to the other workers.
        """
        if self.owner is not process.epoch:
            return
        with contextlib.suppress(OSError):  # another program has removed it
            found = os.lstat(self.path)
            if (found.st_dev, found.st_ino) == (self.device, self.inode):
                os.unlink(self.path)


def bind(sock: socket.socket, path: str | bytes) -> UnixFile | None:
    """Bind to a path, or to an abstract name; a stale socket file is replaced.

    Returns:
        The file that was made; None for an abstract name, or if another program has removed the file already.

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
    """Bind to the path of an existing file, if that is a stale socket file.

    Raises:
        OSError: ``in_use`` if it is not stale; else from lstat(2), unlink(2) or bind(2).
    """
    with _directory_lock(path, in_use):
        found = _socket_file_id(path)
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return  # the file was removed in the meantime
        if found is None or not _is_stale(path) or _socket_file_id(path) != found:
            raise in_use
        with contextlib.suppress(FileNotFoundError):  # removed by a program that takes no lock
            os.unlink(path)
        sock.bind(path)


def _socket_file_id(path: str | bytes) -> tuple[int, int, int] | None:
    """Return the identity of the socket file at ``path``; None if there is none, or a symbolic link."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return (found.st_dev, found.st_ino, found.st_ctime_ns) if stat.S_ISSOCK(found.st_mode) else None


def _is_stale(path: str | bytes) -> bool:
    """Whether a socket file has no socket."""
    with socket.socket(AF_UNIX, SOCK_DGRAM) as probe:
        probe.setblocking(False)
        # Python repeats every other call after EINTR by itself (PEP 475).
        while (code := probe.connect_ex(path)) == errno.EINTR:
            pass
        return code == errno.ECONNREFUSED


@contextlib.contextmanager
def _directory_lock(path: str | bytes, in_use: OSError) -> Iterator[None]:
    """Hold the lock on the directory of ``path``.

    Raises:
        OSError: ``in_use``, with the reason as a note, if the directory cannot be locked.
    """
    directory = os.path.dirname(path) or os.curdir
    opened: list[int] = []
    try:
        try:
            # One bytecode: after an exception of a signal handler the descriptor is in the list.
            opened.extend(map(os.open, (directory,), (os.O_RDONLY,)))
        except PermissionError as error:
            _add_reason(in_use, error)
            raise in_use from None
        _lock(opened[0], in_use)
        yield
    finally:
        for descriptor in opened:
            try:
                # Closing is not enough: a child that another thread has just forked shares the lock.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            except OSError:  # the file system has no such locks, so none is held
                pass
            finally:
                os.close(descriptor)


def _add_reason(in_use: OSError, error: OSError) -> None:
    in_use.add_note(f"a stale socket file can only be replaced if its directory can be locked: {error}")


def _lock(descriptor: int, in_use: OSError) -> None:
    give_up = time.monotonic() + _LOCK_TIMEOUT
    pause = _MIN_PAUSE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # The file system has no such locks, or another program holds the lock for too long.
            if error.errno not in (errno.EAGAIN, errno.EWOULDBLOCK) or time.monotonic() > give_up:
                _add_reason(in_use, error)
                raise in_use from None
        else:
            return
        time.sleep(pause)
        pause = min(2 * pause, _MAX_PAUSE)


def _absolute(path: str | bytes) -> str | bytes:
    # Not `abspath`, which turns "link/.." into the directory of the link.
    if os.path.isabs(path):
        return path
    try:
        return (
            os.path.join(os.getcwdb(), path) if isinstance(path, bytes) else os.path.join(os.getcwd(), path)
        )
    except OSError:  # the working directory was removed, or is not searchable: keep the path as it is
        return path
